//! The digest of a set of events: equal exactly when two replicas hold the same ones.
//!
//! LtHash (Bellare and Micciancio 1997; Lewi et al., "Securing Update Propagation with Homomorphic Hashing", 2019):
//! each event id expands to 1,024 numbers of 16 bits, which are added up. XOR of ids would be forged by Gaussian
//! elimination with 257 events.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use serde::{Deserialize, Serialize};

use super::request::Digest;
use crate::event::{EventId, hex};

const LANES: usize = 1_024;

/// A set of events as a sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LtHash(Vec<u16>);

impl Default for LtHash {
    fn default() -> Self {
        Self(vec![0; LANES])
    }
}

impl LtHash {
    /// Adds an event, which must not be in the set.
    pub(crate) fn add(&mut self, event: EventId) {
        let mut expanded = [0; LANES * 2];
        static CONTEXT: LazyLock<ContextKey> =
            LazyLock::new(|| hash_derive_key_context("syncledger 2026-11 lthash v1"));
        let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
        hasher.update(&event.0).finalize_xof().fill(&mut expanded);
        // In pairs of a length that is known, so that many are added at once.
        for (lane, bytes) in self.0.iter_mut().zip(expanded.as_chunks().0) {
            *lane = lane.wrapping_add(u16::from_le_bytes(*bytes));
        }
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 digest v1");
        for lane in &self.0 {
            hasher.update(&lane.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// The sums of a ledger's collections. To add an event up takes about as long as all the rest that is done with it, so that
/// it waits until somebody asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sums {
    sums: BTreeMap<String, LtHash>,
    /// How many events were added up since the ledger was opened.
    #[serde(skip)]
    added: u64,
    #[serde(skip)]
    waiting: BTreeMap<String, Vec<EventId>>,
}

impl PartialEq for Sums {
    fn eq(&self, other: &Self) -> bool {
        let whole = |sums: &Self| {
            let mut whole = sums.clone();
            whole.add_up();
            whole.sums
        };
        whole(self) == whole(other)
    }
}

impl Sums {
    /// Takes in an event, which must not be there.
    pub(crate) fn add(&mut self, collection: &str, event: EventId) {
        match self.waiting.get_mut(collection) {
            Some(waiting) => waiting.push(event),
            None => drop(self.waiting.insert(collection.to_owned(), vec![event])),
        }
    }

    /// Adds up what waits.
    pub(crate) fn add_up(&mut self) {
        for (collection, events) in std::mem::take(&mut self.waiting) {
            let sum = self.sums.entry(collection).or_default();
            self.added += events.len() as u64;
            events.into_iter().for_each(|event| sum.add(event));
        }
    }

    /// Takes up what a copy of an earlier state of these sums added up, unless others did so meanwhile.
    pub(crate) fn take_up(&mut self, before: &Self, after: &Self) {
        if self.added != before.added {
            return;
        }
        (self.sums, self.added) = (after.sums.clone(), after.added);
        for (collection, events) in &before.waiting {
            if let Some(waiting) = self.waiting.get_mut(collection) {
                waiting.drain(..events.len().min(waiting.len()));
            }
        }
        self.waiting.retain(|_, events| !events.is_empty());
    }

    /// The sum of each collection, once all is added up.
    pub(crate) fn of_collections(&self) -> &BTreeMap<String, LtHash> {
        &self.sums
    }
}

/// The digest of a ledger from those of its collections.
pub(crate) fn digest(collections: &BTreeMap<String, LtHash>, events: u64, position: u64) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 ledger digest v1");
    let mut named = Vec::new();
    for (name, sum) in collections {
        let digest = sum.digest();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&digest);
        named.push((name.clone(), hex(&digest)));
    }
    Digest { digest: hex(hasher.finalize().as_bytes()), events, position, collections: named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_events_does_not_matter_and_each_one_does() {
        let sum = |ids: &[u8]| {
            let mut sum = LtHash::default();
            ids.iter().for_each(|id| sum.add(EventId([*id; 32])));
            sum.digest()
        };
        assert_eq!(sum(&[1, 2, 3]), sum(&[3, 1, 2]));
        assert_ne!(sum(&[1, 2, 3]), sum(&[1, 2]));
        assert_ne!(sum(&[1, 1]), sum(&[]));
    }
}
