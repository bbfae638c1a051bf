//! When each device was last heard of. Sessions that moved nothing leave no record, so their times are kept here: one small file a
//! ledger, below the server's own folder, written by who watches over the devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::access::Safe;
use crate::Result;
use crate::event::LedgerId;
use crate::ledger::Store;

type Times = BTreeMap<String, i64>;

/// The times, in milliseconds since 1970, by ledger and device.
pub(super) struct Seen {
    safe: Safe,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ledgers: BTreeMap<LedgerId, Times>,
    /// Those that are not written down as they are.
    changed: BTreeSet<LedgerId>,
}

impl Seen {
    /// Those of a store.
    ///
    /// # Errors
    /// `permission` or `storage` where the folder cannot be made.
    pub(super) fn open(store: &Store) -> Result<Self> {
        let safe = Safe::open(store.dir().map(|dir| dir.join("server").join("seen")))?;
        Ok(Self { safe, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device is there.
    pub(super) fn saw(&self, ledger: LedgerId, device: &str, now_ms: i64) {
        let mut known = self.known();
        known.changed.insert(ledger);
        match known.ledgers.entry(ledger).or_default().get_mut(device) {
            Some(at) => *at = (*at).max(now_ms),
            None => drop(known.ledgers.entry(ledger).or_default().insert(device.to_owned(), now_ms)),
        }
    }

    /// The times of a ledger's devices, those of earlier processes too. Blocks.
    ///
    /// # Errors
    /// `storage`.
    pub(super) fn of(&self, ledger: LedgerId) -> Result<Times> {
        let bytes = self.safe.read(&ledger.to_string())?.unwrap_or_default();
        // A file that a power cut has emptied says nothing.
        let before: Times = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut known = self.known();
        let times = known.ledgers.entry(ledger).or_default();
        for (device, at) in before {
            times.entry(device).or_insert(at);
        }
        Ok(times.clone())
    }

    /// Writes down what is new of a ledger. Blocks.
    ///
    /// # Errors
    /// `storage`.
    pub(super) fn save(&self, ledger: LedgerId) -> Result<()> {
        let times = self.of(ledger)?;
        if !self.known().changed.remove(&ledger) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&times).unwrap_or_default();
        self.safe.write_lightly(&ledger.to_string(), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_outlives_the_process_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.create_ledger("main").unwrap().info().id;
        let seen = Seen::open(&store).unwrap();
        seen.saw(id, "tablet", 7);
        seen.saw(id, "tablet", 5);
        seen.save(id).unwrap();
        let later = Seen::open(&store).unwrap();
        later.saw(id, "phone", 9);
        assert_eq!(later.of(id).unwrap(), BTreeMap::from([("phone".into(), 9), ("tablet".into(), 7)]));
    }
}
