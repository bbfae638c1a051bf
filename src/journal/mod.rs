//! The storage seam: durable, ordered logs of opaque frames, one per ledger, many per store.
//!
//! A [`Journal`] keeps [`Frame`]s and a small catalogue of ledgers. It knows no events, documents or projections, has
//! no threads of its own in its contract, and never retries a failed flush. Engines: [`memory::MemoryJournal`] (strict,
//! with fault injection) and [`sled::SledJournal`] (a directory); one conformance suite holds for both.
//! [`rows`] is the second, weaker seam, for derived state that may be lost at any time.
//!
//! Invariant: nobody sees a frame before it is durable.
//! Invariant: positions of a ledger are 1, 2, 3 … without gaps; what breaks that is an error, never skipped. The first of
//! them may have been dropped on request.
//! Invariant: a frame of one ledger is never returned for another.

mod catalog;
mod error;
mod frame;
mod heads;
pub mod memory;
mod page;
mod reader;
pub mod rows;
mod sealed;
pub mod sled;

#[cfg(test)]
mod conformance;

use std::time::Duration;

use crate::event::LedgerId;

use page::{Ends, Page};

pub use catalog::LedgerEntry;
pub use error::JournalError;
pub use frame::Frame;

/// Frames for one ledger, in a batch that is written all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The ledger to append to; it must be in the catalogue.
    pub ledger: LedgerId,
    /// The head that the caller saw; the first frame holds the position after it.
    pub expected_head: u64,
    /// The frames in order, without gaps.
    pub frames: Vec<Frame>,
}

/// Refuses to read on after a position where what follows it was dropped.
fn check_held(ledger: LedgerId, after: u64, first: u64) -> Result<(), JournalError> {
    match after.saturating_add(1) {
        position if position < first => Err(JournalError::Dropped { ledger, position, first }),
        _ => Ok(()),
    }
}

/// Durable logs of many ledgers. Every method may be called from any thread; those that write block for the disk.
///
/// A failed write or flush poisons the journal: from then on everything that writes or waits fails with
/// [`JournalError::Poisoned`], while frames that are durable can still be read. After [`Journal::close`] everything
/// fails with [`JournalError::Closed`].
pub trait Journal: Send + Sync {
    /// Appends to all ledgers of the batch in one atomic commit, and returns once it is durable. A ledger that does not
    /// end at its expected head, or a gap between frames, is an error, and nothing is written.
    ///
    /// # Errors
    /// [`JournalError::WrongHead`], [`JournalError::UnknownLedger`], [`JournalError::Invalid`],
    /// [`JournalError::TooLarge`] without effect; [`JournalError::Poisoned`] with the effect unknown until reopening.
    fn append(&self, batch: &[Append]) -> Result<(), JournalError>;

    /// The durable frames that hold positions after `position`, in order and verified: at least one if there is any,
    /// and no more once their payloads exceed `max_bytes`. The first may begin at or before `position`.
    ///
    /// # Errors
    /// [`JournalError::CorruptFrame`] for a gap or damage: nothing is skipped.
    fn read_after(&self, ledger: LedgerId, position: u64, max_bytes: usize) -> Result<Vec<Frame>, JournalError>;

    /// The durable frame that holds `position`, verified; `None` for 0 and after the head.
    ///
    /// # Errors
    /// [`JournalError::CorruptFrame`] for a gap or damage.
    fn read_at(&self, ledger: LedgerId, position: u64) -> Result<Option<Frame>, JournalError>;

    /// The last durable position; 0 for a ledger that is empty or unknown.
    fn head(&self, ledger: LedgerId) -> u64;

    /// The first position that is held: 1, unless earlier frames were dropped.
    fn first(&self, ledger: LedgerId) -> u64;

    /// Drops the frames that end before `position`, but never the last one, durably and for good, and returns the first
    /// position that is still held; a crash in between is finished when the store is opened again. Reading what was
    /// dropped is [`JournalError::Dropped`].
    ///
    /// # Errors
    /// [`JournalError::UnknownLedger`]; what the disk refuses.
    fn drop_before(&self, ledger: LedgerId, position: u64) -> Result<u64, JournalError>;

    /// Blocks until the durable head is greater than `after`, or `timeout` has passed, and returns the head.
    ///
    /// # Errors
    /// [`JournalError::Closed`] or [`JournalError::Poisoned`] as soon as no more can come.
    fn wait(&self, ledger: LedgerId, after: u64, timeout: Duration) -> Result<u64, JournalError>;

    /// The ledgers of the store, by number.
    fn catalog(&self) -> Vec<LedgerEntry>;

    /// Adds a ledger or replaces the entry with the same number, durably. Only an empty ledger can take another id.
    ///
    /// # Errors
    /// [`JournalError::Taken`] if another ledger has the name, number or id.
    fn put_ledger(&self, entry: LedgerEntry) -> Result<(), JournalError>;

    /// Removes a ledger's frames and its entry in the catalogue, durably and for good; a crash in between is finished
    /// when the store is opened again.
    ///
    /// # Errors
    /// [`JournalError::UnknownLedger`] if there is none.
    fn drop_ledger(&self, ledger: LedgerId) -> Result<(), JournalError>;

    /// Records the heads and their running hashes durably, so that the next opening detects any loss up to them.
    ///
    /// # Errors
    /// What the disk refuses.
    fn checkpoint(&self) -> Result<(), JournalError>;

    /// Checkpoints, wakes everybody who waits, and gives the store back. A second call does nothing.
    ///
    /// # Errors
    /// What the disk refuses; the journal is closed nevertheless.
    fn close(&self) -> Result<(), JournalError>;

    /// A number for a ledger that is to be added.
    fn next_number(&self) -> u32 {
        self.catalog().iter().map(|entry| entry.number).max().map_or(1, |last| last.saturating_add(1))
    }

    /// The ids of the ledgers of the store, by number.
    fn ledgers(&self) -> Vec<LedgerId> {
        self.catalog().into_iter().map(|entry| entry.id).collect()
    }
}
