//! Restoring a ledger from backup files.
//!
//! The events come to the positions that they had, so that all that is read of them is the same. The restored ledger
//! has a new writer: its origin may live on, and two stores that stamp under one writer are a fork.
//!
//! Invariant: a ledger under its own name is restored whole, and derived. Until then it has a name that says so, and what
//! a crash leaves of it is removed by the next attempt.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::info_span;

use super::source::{Part, Source};
use super::{Entry, entry};
use crate::event::{EventId, LedgerId};
use crate::journal::LedgerEntry;
use crate::ledger::state::RecordKey;
use crate::ledger::{LedgerInfo, Store, packing};
use crate::{Error, ErrorKind, Result};

/// What restoring a ledger did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The ledger, with its new writer.
    pub ledger: LedgerInfo,
    /// How many events it has: its last position.
    pub events: u64,
    /// How many records.
    pub records: u64,
    /// How many large values were read.
    pub blobs: u64,
    /// What is missing, where a part was asked for and the files are cut or damaged.
    pub missing: Option<String>,
}

/// What is appended at once.
const CHUNK: usize = 4_096;

impl Store {
    /// Makes a ledger of this name from a backup file, or from one with those that continue it. With `partial`, what
    /// comes before the first damage is restored; otherwise damage is an error, and nothing is made.
    ///
    /// # Errors
    /// `conflict` where the store has a ledger of this name with events, or the same ledger under another name;
    /// `ledger_mismatch` where the files are of several; `consistency` where they do not join; `corrupt` where one is cut
    /// or damaged; `validation`, `upgrade_needed`, `not_found`, `storage`.
    pub fn restore<P: AsRef<Path>>(&self, name: &str, files: &[P], partial: bool) -> Result<Restored> {
        let sources = in_order(files)?;
        let Some(first) = sources.first().map(|source| source.head.clone()) else {
            return Err(Error::new(ErrorKind::Validation, "expected at least one file to restore from"));
        };
        let span = info_span!("restore", ledger = %first.ledger);
        let _entered = span.enter();
        self.make_room(name)?;
        let mut meta = (self.shared().world.random)()?.to_vec();
        let writers = sources.last().map(|last| last.head.writers.clone()).unwrap_or_default();
        writers.iter().for_each(|writer| meta.extend_from_slice(&writer.0));
        let number = self.shared().journal.next_number();
        let entry = LedgerEntry { number, id: first.ledger, name: unfinished(name), meta };
        self.shared().journal.put_ledger(entry.clone())?;
        self.fill(&entry, sources, partial)
            .and_then(|done| self.finish(name, entry, done))
            // Why it failed matters more than whether its remains could be removed: the next attempt removes them too.
            .inspect_err(|_| drop(self.queue().drop_ledger(first.ledger)))
    }

    /// Removes an empty ledger of this name, and what an attempt before left.
    fn make_room(&self, name: &str) -> Result<()> {
        for entry in self.shared().journal.catalog() {
            let is_it = entry.name == name;
            if is_it && self.shared().journal.head(entry.id) > 0 {
                let message = format!("the store has a ledger `{name}` with events already");
                return Err(Error::new(ErrorKind::Conflict, message).with_hint(
                    "restore into another store or under another name; or pull the file into the ledger",
                ));
            }
            if is_it || entry.name == unfinished(name) {
                self.queue().drop_ledger(entry.id)?;
            }
        }
        Ok(())
    }

    fn fill(&self, entry: &LedgerEntry, sources: Vec<Source>, partial: bool) -> Result<Filling<'_>> {
        let mut filling = Filling::new(self, entry.id);
        for source in sources {
            match filling.take(source) {
                Err(fault) if partial && is_damage(&fault) => {
                    filling.missing = Some(fault.to_string());
                    break;
                }
                other => other?,
            }
        }
        filling.flush()?;
        Ok(filling)
    }

    fn finish(&self, name: &str, entry: LedgerEntry, done: Filling<'_>) -> Result<Restored> {
        let (id, writer) = (entry.id, crate::ledger::store::writer_of(&entry));
        // Derives everything: what cannot be derived is refused here.
        self.queue().open(id, writer)?;
        self.shared().journal.put_ledger(LedgerEntry { name: name.to_owned(), ..entry })?;
        let ledger = self.ledger(name)?;
        self.checkpoint()?;
        let records = self.shared().meta(id, |meta| meta.totals().records);
        let Filling { head: events, blobs, missing, .. } = done;
        Ok(Restored { ledger: ledger.info(), events, records, blobs, missing })
    }
}

fn is_damage(fault: &Error) -> bool {
    matches!(fault.kind(), ErrorKind::Corrupt | ErrorKind::Consistency)
}

fn unfinished(name: &str) -> String {
    const SUFFIX: &str = " (being restored)";
    let room = 255 - SUFFIX.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default().to_owned() + SUFFIX
}

/// The files in the order of their positions, all of one ledger.
fn in_order<P: AsRef<Path>>(files: &[P]) -> Result<Vec<Source>> {
    let mut sources = files.iter().map(|file| Source::open(file.as_ref())).collect::<Result<Vec<_>>>()?;
    sources.sort_by_key(|source| (source.head.first, source.head.last));
    let ledger = sources.first().map(|source| source.head.ledger);
    match sources.iter().find(|source| Some(source.head.ledger) != ledger) {
        Some(other) => {
            let (expected, found) = (ledger.map(|id| id.to_string()).unwrap_or_default(), other.head.ledger);
            let message = format!("expected files of one ledger, got those of {expected} and of {found}");
            Err(Error::new(ErrorKind::LedgerMismatch, message).with_hint("restore each ledger on its own"))
        }
        None => Ok(sources),
    }
}

/// A ledger that is being filled.
struct Filling<'a> {
    store: &'a Store,
    ledger: LedgerId,
    last: BTreeMap<RecordKey, u64>,
    chunk: Vec<Entry>,
    head: u64,
    last_id: EventId,
    blobs: u64,
    missing: Option<String>,
}

impl<'a> Filling<'a> {
    fn new(store: &'a Store, ledger: LedgerId) -> Self {
        let (last, chunk, last_id) = (BTreeMap::new(), Vec::new(), EventId([0; 32]));
        Self { store, ledger, last, chunk, head: 0, last_id, blobs: 0, missing: None }
    }

    fn take(&mut self, mut source: Source) -> Result<()> {
        self.joins(&source)?;
        while let Some(part) = source.next()? {
            match part {
                Part::Blob(content) => {
                    self.store.shared().blobs.put(&content)?;
                    self.blobs += 1;
                }
                Part::Events(items) => items.into_iter().try_for_each(|item| self.add(entry(item)))?,
            }
        }
        Ok(())
    }

    /// Whether a file goes on where the one before ended, with the event that it was made after.
    fn joins(&self, source: &Source) -> Result<()> {
        let (due, head) = (self.head + 1, &source.head);
        let what = match head.first {
            first if first > due => format!("positions {due} to {} are missing", first - 1),
            first if first < due => format!("position {first} stands in two of them"),
            _ if head.after != self.last_id => format!("the event before position {due} is another"),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Consistency, format!("the backup files do not join: {what}")).with_hint(
            "name one that begins at position 1, and those that were made since the last of the one before",
        ))
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        let last = self.last.insert(key, entry.position).unwrap_or(0);
        if entry.previous != last {
            let (position, previous) = (entry.position, entry.previous);
            let message = format!("position {position} points back to {previous}, expected {last}");
            return Err(Error::new(ErrorKind::Corrupt, message).with_hint("use another copy of the file"));
        }
        (self.head, self.last_id) = (entry.position, entry.id);
        self.chunk.push(entry);
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        packing::append(&*self.store.shared().journal, self.ledger, &std::mem::take(&mut self.chunk)).map(drop)
    }
}
