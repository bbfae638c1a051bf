//! Reading the log: entry by entry, and record by record along their back pointers.

use std::sync::{Mutex, PoisonError};

use super::packing::{self, Page};
use super::request::Entry;
use super::shared::Shared;
use crate::event::LedgerId;
use crate::journal::JournalError;
use crate::{Error, Result};

/// The durable log of one ledger. Remembers the frame it read last: neighbours are often in it.
pub(crate) struct Log<'a> {
    shared: &'a Shared,
    ledger: LedgerId,
    last: Mutex<Option<Page>>,
}

/// How much one read of the log takes at most, in bytes of payload.
const READ_BYTES: usize = 1 << 18;

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

    /// Gives every entry after a position, up to another, to `each`, in order, until that says false.
    pub(crate) fn each(&self, after: u64, until: u64, mut each: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
        let mut position = after;
        while position < until {
            let frames = match self.shared.journal.read_after(self.ledger, position, READ_BYTES) {
                Err(JournalError::Dropped { .. }) => {
                    for entry in self.shared.archives.starting_at(self.ledger, position + 1)? {
                        position = entry.position;
                        if position > until || !each(entry)? {
                            return Ok(());
                        }
                    }
                    continue;
                }
                other => other?,
            };
            self.shared.count(|work| work.frames += frames.len() as u64);
            if frames.is_empty() {
                return Err(missing(self.ledger, position + 1));
            }
            for frame in frames {
                for entry in packing::unpack(self.ledger, &frame)? {
                    if entry.position <= position {
                        continue;
                    }
                    position = entry.position;
                    if position > until || !each(entry)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn missing(ledger: LedgerId, position: u64) -> Error {
    Error::new(crate::ErrorKind::Corrupt, format!("ledger {} has no event at position {position}", ledger.short()))
        .with_hint("run `syncledger verify`, then `syncledger rebuild`")
}
