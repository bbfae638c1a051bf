//! How many sessions, and streams of events, there may be at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::LedgerId;
use crate::{Error, ErrorKind, Result};

/// How many sessions there may be in all, and of a device: more than one, as the server learns late of connections that broke off.
const MOST: usize = 10_000;
const MOST_OF_DEVICE: usize = 8;

type Owner = (LedgerId, String);

/// The sessions that there are, by their devices.
#[derive(Clone, Default)]
pub(in crate::server) struct Seats(Arc<Mutex<Taken>>);

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
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        if taken.all >= MOST {
            return Err(Error::new(ErrorKind::Locked, format!("the server has {MOST} sessions already")));
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
        let seats = Seats::default();
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
        let seats = Seats::default();
        let held: Vec<_> = (0..MOST).map(|n| seats.take(LedgerId([7; 16]), &n.to_string()).unwrap()).collect();
        assert_eq!(seats.take(LedgerId([7; 16]), "one more").err().unwrap().kind(), ErrorKind::Locked);
        drop(held);
        assert!(seats.take(LedgerId([7; 16]), "one more").is_ok());
    }
}
