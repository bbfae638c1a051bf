//! Sealing: the older part of a ledger's log moves from the journal into compressed files beside it.
//!
//! ```text
//! frames ─► events, ids made again ─► segment, each block read back ─► file, fsync, rename ─► drop the frames
//! ```
//! It runs in a thread of its own while the writer goes on. A crash at any step loses nothing: until the last the journal
//! holds everything, and frames that a sealed file covers are dropped when sealing is due the next time.

use super::log::frames_after;
use super::packing;
use super::shared::Shared;
use crate::Result;
use crate::event::LedgerId;
use crate::segment::{Codec, Item, Shape, Writer};

/// Small blocks: one of them is read for each event of a record that lies apart from the others. With 32 events it takes as
/// long as a frame; with 128 a patch is 8 bytes smaller, but reading a record of many patches four times as slow.
const SHAPE: Shape = Shape { codec: Codec::Zstd, level: 3, block_events: 32 };

/// When a part of the log is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealing {
    /// How many events, about.
    pub(crate) events: u64,
    /// How many bytes of frames, where those are fewer events, about.
    pub(crate) bytes: u64,
}

impl Sealing {
    pub(crate) fn every(events: u64) -> Self {
        Self { events, bytes: 16 << 20 }
    }

    /// Whether so much is enough for a number of files.
    pub(crate) fn is_due(&self, amount: Amount, files: u64) -> bool {
        amount.events / files >= self.events || amount.bytes / files >= self.bytes
    }
}

/// How much of a log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) events: u64,
    /// Of frames.
    pub(crate) bytes: u64,
}

/// Moves the first frames of the journal into a file, where there is enough of them. Returns how much it was.
pub(crate) fn seal(shared: &Shared, ledger: LedgerId, sealing: Sealing) -> Result<Amount> {
    finish(shared, ledger)?;
    let since = shared.archives.last(ledger);
    let Some((last, bytes)) = seal_one(shared, ledger, since, sealing)? else { return Ok(Amount::default()) };
    shared.journal.drop_before(ledger, last + 1)?;
    Ok(Amount { events: last - since, bytes })
}

/// Drops what sealed files cover that a crash kept from being dropped.
fn finish(shared: &Shared, ledger: LedgerId) -> Result<()> {
    let first = shared.journal.first(ledger);
    if first <= shared.archives.last_sealed(ledger) {
        let last = shared.archives.prove_sealed(ledger, first)?;
        shared.journal.drop_before(ledger, last + 1)?;
    }
    Ok(())
}

/// Seals the frames after a position in one file, but never the last. Returns the last position of it, and how many bytes
/// the frames had.
fn seal_one(shared: &Shared, ledger: LedgerId, since: u64, sealing: Sealing) -> Result<Option<(u64, u64)>> {
    let mut segment = Writer::new(ledger, SHAPE).proved();
    let (mut last, mut bytes) = (since, 0);
    let head = shared.journal.head(ledger);
    'frames: while last < head {
        for frame in frames_after(shared, ledger, last)? {
            let is_enough = sealing.is_due(Amount { events: last - since, bytes }, 1);
            if frame.last >= head || segment.is_full() || is_enough {
                break 'frames;
            }
            for entry in packing::unpack(ledger, &frame)?.filter(|entry| entry.position > last) {
                segment.add(Item::from(entry))?;
            }
            (last, bytes) = (frame.last, bytes + frame.payload.len() as u64);
        }
    }
    let Some((head, stored, ids)) = segment.finish_with_ids()? else { return Ok(None) };
    shared.archives.seal(&head, &stored, ids.into_iter())?;
    Ok(Some((last, bytes)))
}
