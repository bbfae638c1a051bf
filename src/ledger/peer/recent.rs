//! The latest events of a log, read once for all sessions that follow it.
//!
//! Of many devices few want what one of them writes. Each has to look through it none the less, and would read and decode the
//! same part of the log as all others.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::ledger::Ledger;
use crate::ledger::cursor::Mark;
use crate::ledger::request::Entry;
use crate::replication::Cursor;
use crate::segment;

/// About how many bytes of events are held at most.
const MOST_BYTES: usize = 2 << 20;
/// How many parts of the log are held at most: a session that is further behind reads the log.
const MOST_PARTS: usize = 1_024;

/// A part of the log that came at once.
#[derive(Debug)]
pub(super) struct Part {
    /// The position before it.
    pub(super) after: u64,
    /// Where it ends.
    pub(super) upto: Cursor,
    /// The collections that it has events of.
    pub(super) collections: BTreeSet<String>,
    pub(super) entries: Vec<Entry>,
    bytes: usize,
}

impl Part {
    fn read(ledger: &Ledger, after: u64, until: u64) -> Result<Option<Self>> {
        let (mut entries, mut bytes, mut collections) = (Vec::new(), 0, BTreeSet::new());
        ledger.log_reader().each(after, until, |entry| {
            bytes += segment::weight(&entry.event);
            if !collections.contains(&entry.event.collection) {
                collections.insert(entry.event.collection.clone());
            }
            entries.push(entry);
            Ok(bytes <= MOST_BYTES)
        })?;
        let Some(last) = entries.last() else { return Ok(None) };
        let upto = Mark::of(last).cursor();
        Ok(Some(Self { after, upto, collections, entries, bytes }).filter(|_| bytes <= MOST_BYTES))
    }
}

/// The parts that came last, without a gap, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<Arc<Part>>>>);

impl Recent {
    fn held(&self) -> MutexGuard<'_, VecDeque<Arc<Part>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what came after a position, up to another. Of too much, and of what cannot be read, nothing is held: sessions read
    /// the log then, and meet the same fault.
    pub(super) fn grow(&self, ledger: &Ledger, after: u64, until: u64) {
        let part = Part::read(ledger, after, until).ok().flatten();
        let mut held = self.held();
        let follows = held.back().is_none_or(|last| last.upto.position == after);
        if !follows || part.is_none() {
            held.clear();
        }
        held.extend(part.map(Arc::new));
        let mut bytes: usize = held.iter().map(|part| part.bytes).sum();
        while bytes > MOST_BYTES || held.len() > MOST_PARTS {
            bytes -= held.pop_front().map_or(bytes, |part| part.bytes);
        }
    }

    /// Forgets everything: the log is another.
    pub(super) fn clear(&self) {
        self.held().clear();
    }

    /// The parts that hold everything after a position; none where they do not go back so far, or there is nothing.
    pub(super) fn after(&self, position: u64) -> Vec<Arc<Part>> {
        let held = self.held();
        let from = held.partition_point(|part| part.upto.position <= position);
        let goes_back = held.get(from).is_some_and(|part| part.after <= position);
        if goes_back { held.iter().skip(from).cloned().collect() } else { Vec::new() }
    }
}
