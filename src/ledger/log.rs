//! Reading the log: entry by entry, and record by record along their back pointers.

use std::sync::{Arc, Mutex, PoisonError};

use super::packing;
use super::request::Entry;
use crate::event::LedgerId;
use crate::journal::Journal;
use crate::{Error, Result};

/// The durable log of one ledger. Remembers the frame it read last: neighbours are often in it.
pub(crate) struct Log<'a> {
    journal: &'a dyn Journal,
    ledger: LedgerId,
    last: Mutex<Arc<Vec<Entry>>>,
}

/// How much one read of the log takes at most, in bytes of payload.
const READ_BYTES: usize = 1 << 18;

impl<'a> Log<'a> {
    pub(crate) fn new(journal: &'a dyn Journal, ledger: LedgerId) -> Self {
        Self { journal, ledger, last: Mutex::default() }
    }

    /// The last durable position.
    pub(crate) fn head(&self) -> u64 {
        self.journal.head(self.ledger)
    }

    /// The entry at a position.
    pub(crate) fn at(&self, position: u64) -> Result<Option<Entry>> {
        let find = |entries: &[Entry]| {
            let first = entries.first()?.position;
            entries.get(usize::try_from(position.checked_sub(first)?).ok()?).cloned()
        };
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(entry) = find(&last) {
            return Ok(Some(entry));
        }
        let Some(frame) = self.journal.read_at(self.ledger, position)? else { return Ok(None) };
        let entries = Arc::new(packing::unpack(self.ledger, &frame)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = entries.clone();
        Ok(find(&entries))
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
            let frames = self.journal.read_after(self.ledger, position, READ_BYTES)?;
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
