//! Reading the log: entry by entry, and record by record along their back pointers.

use std::panic::resume_unwind;
use std::sync::PoisonError;

use super::packing::{self, Page};
use super::request::Entry;
use super::shared::Shared;
use crate::event::LedgerId;
use crate::journal::{Frame, JournalError};
use crate::sync::Mutex;
use crate::sync::mpsc::sync_channel;
use crate::sync::thread;
use crate::{Error, Result};

/// The durable log of one ledger. Remembers the frame it read last: neighbours are often in it.
pub(crate) struct Log<'a> {
    shared: &'a Shared,
    ledger: LedgerId,
    last: Mutex<Option<Page>>,
}

/// How much one read of the log takes at most, in bytes of payload.
const READ_BYTES: usize = 1 << 18;
/// A part of the log of at most so many events is read without another thread.
const READ_ALONE: u64 = 4_096;
/// How many reads the other thread is ahead at most.
const CHUNKS_AHEAD: usize = 4;

impl<'a> Log<'a> {
    pub(crate) fn new(shared: &'a Shared, ledger: LedgerId) -> Self {
        Self { shared, ledger, last: Mutex::default() }
    }

    /// The last durable position.
    pub(crate) fn head(&self) -> u64 {
        self.shared.journal.head(self.ledger)
    }

    /// The entry at a position.
    pub(crate) fn at(&self, position: u64) -> Result<Option<Entry>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = last.as_mut().map_or(Ok(None), |page| page.at(position))? {
            return Ok(Some(entry));
        }
        let frame = match self.shared.journal.read_at(self.ledger, position) {
            Err(JournalError::Dropped { .. }) => return self.shared.archives.at(self.ledger, position).map(Some),
            other => other?,
        };
        let Some(frame) = frame else { return Ok(None) };
        self.shared.count(|work| work.frames += 1);
        last.insert(Page::of(self.ledger, &frame)?).at(position)
    }

    /// A record's entries after a position, oldest first, from the position of its last.
    pub(crate) fn record(&self, last: u64, after: u64) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut position = last;
        while position > after {
            let entry = self.at(position)?.ok_or_else(|| missing(self.ledger, position))?;
            position = entry.previous;
            entries.push(entry);
        }
        entries.reverse();
        Ok(entries)
    }

    /// Gives every entry after a position, up to another, to `each`, in order, until that says false. Of a long part, what
    /// comes next is read, decoded and identified in another thread meanwhile.
    pub(crate) fn each(&self, after: u64, until: u64, mut each: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
        let mut chunks = Chunks { log: self, position: after, until };
        if until.saturating_sub(after) <= READ_ALONE {
            return give(&mut chunks, &mut each);
        }
        thread::scope(|scope| {
            let (send, receive) = sync_channel(CHUNKS_AHEAD);
            // Who reads no more hangs up, which ends it.
            scope.spawn(move || chunks.try_for_each(|chunk| send.send(chunk)));
            give(&mut receive.into_iter(), &mut each)
        })
    }

    /// Whether every entry up to a position can be read, decoded and identified. Two parts of the log are read at once.
    pub(crate) fn check(&self, until: u64) -> Result<()> {
        let part = |after, until| Chunks { log: self, position: after, until }.try_for_each(|chunk| chunk.map(drop));
        let half = until / 2;
        thread::scope(|scope| {
            let first = scope.spawn(|| part(0, half));
            let second = part(half, until);
            first.join().unwrap_or_else(|panic| resume_unwind(panic)).and(second)
        })
    }

    /// Some entries after a position, up to about another.
    fn chunk(&self, position: u64, until: u64) -> Result<Vec<Entry>> {
        let frames = match self.shared.journal.read_after(self.ledger, position, READ_BYTES) {
            Err(JournalError::Dropped { .. }) => {
                return self.shared.archives.starting_at(self.ledger, position + 1, until);
            }
            frames => frames?,
        };
        self.shared.count(|work| work.frames += frames.len() as u64);
        let mut entries = Vec::with_capacity(frames.iter().map(packing::count).sum());
        for frame in &frames {
            entries.extend(packing::unpack(self.ledger, frame)?.filter(|entry| entry.position > position));
        }
        if entries.is_empty() { Err(missing(self.ledger, position + 1)) } else { Ok(entries) }
    }
}

/// Some frames after a position that the journal holds.
pub(crate) fn frames_after(shared: &Shared, ledger: LedgerId, position: u64) -> Result<Vec<Frame>> {
    Ok(shared.journal.read_after(ledger, position, READ_BYTES)?)
}

/// The entries of a part of the log, some at a time; nothing after an error.
struct Chunks<'l, 'a> {
    log: &'l Log<'a>,
    position: u64,
    until: u64,
}

impl Iterator for Chunks<'_, '_> {
    type Item = Result<Vec<Entry>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.until {
            return None;
        }
        let chunk = self.log.chunk(self.position, self.until).map(|mut entries| {
            entries.retain(|entry| entry.position <= self.until);
            entries
        });
        self.position =
            chunk.as_ref().ok().and_then(|entries| entries.last()).map_or(self.until, |entry| entry.position);
        Some(chunk)
    }
}

/// Gives entries to who wants them, until that says false.
fn give(
    chunks: &mut impl Iterator<Item = Result<Vec<Entry>>>,
    each: &mut impl FnMut(Entry) -> Result<bool>,
) -> Result<()> {
    for chunk in chunks {
        for entry in chunk? {
            if !each(entry)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn missing(ledger: LedgerId, position: u64) -> Error {
    Error::new(crate::ErrorKind::Corrupt, format!("ledger {} has no event at position {position}", ledger.short()))
        .with_hint("run `syncledger verify`, then `syncledger rebuild`")
}
