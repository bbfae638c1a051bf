//! How much room a ledger has for what devices write.
//!
//! Invariant: what is here already takes no room when it comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::super::Ledger;
use crate::{Error, ErrorKind, Result};

/// How often, at most, the bytes of a log are measured, in milliseconds.
const MEASURED_EVERY_MS: i64 = 1_000;
/// What an event is taken to have in the journal, before it is in a sealed file whose size is known.
const BYTES_OF_EVENT: u64 = 128;

/// The most that devices may fill a ledger with. Without figures there is always room. Clones measure together.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// The most events of the log.
    pub events: Option<u64>,
    /// The most bytes of the log on the disk, about.
    pub bytes: Option<u64>,
    measured: Arc<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    bytes: AtomicU64,
    at_ms: AtomicI64,
}

impl Room {
    /// Room for so many events and bytes.
    #[must_use]
    pub fn of(events: Option<u64>, bytes: Option<u64>) -> Self {
        Self { events, bytes, measured: Arc::default() }
    }

    /// Whether there is always room.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        self.events.is_none() && self.bytes.is_none()
    }

    /// Checks that there is room for one event after so many others that are about to be written.
    ///
    /// # Errors
    /// `too_large`.
    pub fn check(&self, ledger: &Ledger, others: u64) -> Result<()> {
        if let Some(most) = self.events.filter(|most| ledger.position().saturating_add(others) >= *most) {
            return Err(full(&format!("{most} events")));
        }
        match self.bytes {
            Some(most) if self.measure(ledger) >= most => Err(full(&format!("{most} bytes"))),
            _ => Ok(()),
        }
    }

    /// The bytes of the log, as they were a moment ago.
    fn measure(&self, ledger: &Ledger) -> u64 {
        let (now_ms, last_ms) = ((ledger.shared().world.now)(), self.measured.at_ms.load(Ordering::Relaxed));
        let is_recent = last_ms != 0 && (0..MEASURED_EVERY_MS).contains(&now_ms.saturating_sub(last_ms));
        if !is_recent {
            self.measured.bytes.store(ledger.log_bytes(), Ordering::Relaxed);
            self.measured.at_ms.store(now_ms, Ordering::Relaxed);
        }
        self.measured.bytes.load(Ordering::Relaxed)
    }
}

fn full(most: &str) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the ledger's quota of {most} is used up")).with_hint(
        "ask who runs the server for a greater quota; reading goes on, and nothing that was taken in is lost",
    )
}

impl Ledger {
    /// How many bytes this ledger's log takes on the disk, about: its sealed files, and an estimate of what waits to be sealed.
    /// Large values, which ledgers share, are not in it.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        let archives = &self.shared().archives;
        let unsealed = self.position().saturating_sub(archives.last(self.id()));
        archives.sealed_bytes_of(self.id()) + unsealed * BYTES_OF_EVENT
    }
}
