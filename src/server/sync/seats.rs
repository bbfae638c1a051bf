//! How many sessions, and streams of events, there may be at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::LedgerId;
use crate::{Error, ErrorKind, Result};

/// How many sessions there may be of a device: more than one, as the server learns late of connections that broke off.
const MOST_OF_DEVICE: usize = 8;

type Owner = (LedgerId, String);

/// The sessions that there are, by their devices.
#[derive(Clone)]
pub(in crate::server) struct Seats {
    /// How many there may be in all.
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    devices: BTreeMap<Owner, usize>,
}

/// A place, until dropped.
pub(in crate::server) struct Seat {
    seats: Seats,
    owner: Owner,
}

impl Seats {
    /// So many places in all.
    pub(in crate::server) fn of(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// How many devices have a place.
    pub(in crate::server) fn devices(&self) -> usize {
        self.taken().devices.len()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a device's session.
    ///
    /// # Errors
    /// `rate_limit` where the device has too many, `locked` where all have.
    pub(in crate::server) fn take(&self, ledger: LedgerId, device: &str) -> Result<Seat> {
        let owner = (ledger, device.to_owned());
        let mut taken = self.taken();
        if taken.devices.get(&owner).is_some_and(|count| *count >= MOST_OF_DEVICE) {
            let message = format!("expected at most {MOST_OF_DEVICE} sessions and streams of a device at once");
            return Err(Error::new(ErrorKind::RateLimit, message).with_hint("use those, or let them end"));
        }
        if taken.all >= self.most {
            return Err(Error::new(ErrorKind::Locked, format!("the server has {} sessions already", self.most)));
        }
        taken.all += 1;
        *taken.devices.entry(owner.clone()).or_default() += 1;
        Ok(Seat { seats: self.clone(), owner })
    }

    /// Whether a device has a session or a stream.
    pub(in crate::server) fn has(&self, ledger: LedgerId, device: &str) -> bool {
        self.taken().devices.contains_key(&(ledger, device.to_owned()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        let is_last = taken.devices.get_mut(&self.owner).is_some_and(|count| {
            *count -= 1;
            *count == 0
        });
        if is_last {
            taken.devices.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_so_many_places_and_gets_them_back() {
        let seats = Seats::of(10_000);
        let take = |device: &str| seats.take(LedgerId([7; 16]), device);
        let mut held: Vec<_> = (0..MOST_OF_DEVICE).map(|_| take("tablet").unwrap()).collect();
        assert_eq!(take("tablet").err().unwrap().kind(), ErrorKind::RateLimit);
        assert!(take("phone").is_ok());
        held.pop();
        assert!(take("tablet").is_ok());
        held.clear();
        assert!(seats.taken().devices.is_empty() && seats.taken().all == 0);
    }

    #[test]
    fn there_are_only_so_many_for_all() {
        let seats = Seats::of(3);
        let held: Vec<_> = (0..3).map(|n| seats.take(LedgerId([7; 16]), &n.to_string()).unwrap()).collect();
        assert_eq!(seats.take(LedgerId([7; 16]), "one more").err().unwrap().kind(), ErrorKind::Locked);
        drop(held);
        assert!(seats.take(LedgerId([7; 16]), "one more").is_ok());
    }
}
