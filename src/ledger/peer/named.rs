//! Events that a batch names though it does not hold them, told by a part of their ids.
//!
//! An edit names the record's event before it, whose id is the half of what an edit of one field takes on the wire. The other
//! side has that event, once it has acknowledged it, and finds it among the record's by the first bits of its id. Whether it is
//! the right one shows in the hash of the batch, which is made of whole ids.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::event::{Event, EventId, WriterId};
use crate::ledger::Ledger;
use crate::ledger::state::RecordKey;
use crate::segment::Past;

/// What an id that is told in part has in place of a writer.
const IN_PART: WriterId = WriterId([0; 16]);
/// How many bits of an id are told: enough for the events of one record.
const BITS: u32 = 34;
/// How many events that the other side has are remembered.
const MOST_REMEMBERED: usize = 1 << 14;

/// The first bits of an id.
fn part(id: &EventId) -> u64 {
    let first = id.0.first_chunk().copied().map_or(0, u64::from_be_bytes);
    first >> (u64::BITS - BITS)
}

/// Events that the other side has, among those that are named by what it is to be sent.
#[derive(Debug, Default)]
pub(super) struct Roots(HashSet<EventId, RandomState>);

impl Roots {
    pub(super) fn extend(&mut self, ids: &[EventId]) {
        // Those that are forgotten are told by their whole ids.
        if self.0.len() >= MOST_REMEMBERED {
            self.0.clear();
        }
        self.0.extend(ids);
    }
}

/// What both sides of a session know, for one message.
pub(super) struct Named<'a> {
    ledger: &'a Ledger,
    roots: &'a Roots,
    /// The events of records of which one was named that is no head, by the parts of their ids: each record is read once.
    read: RefCell<HashMap<RecordKey, Parts>>,
}

/// Events by the parts of their ids; `None` where several have the same.
type Parts = HashMap<u64, Option<EventId>, RandomState>;

impl<'a> Named<'a> {
    pub(super) fn new(ledger: &'a Ledger, roots: &'a Roots) -> Self {
        Self { ledger, roots, read: RefCell::default() }
    }

    /// The event of a record whose id begins with these bits: a head, or else any.
    fn find_part(&self, record: RecordKey, number: u64) -> Option<EventId> {
        let shared = self.ledger.shared();
        let _reading = shared.reading();
        let row = shared.row(self.ledger.id(), &record).ok()??;
        let mut heads = row.heads.iter().filter(|head| part(head) == number);
        if let (Some(head), None) = (heads.next(), heads.next()) {
            return Some(*head);
        }
        let mut read = self.read.borrow_mut();
        let parts = match read.entry(record) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.ledger.parts_of(row.last)?),
        };
        parts.get(&number).copied().flatten()
    }
}

impl Past for Named<'_> {
    fn place(&self, _: &Event, of: &EventId) -> Option<(WriterId, u64)> {
        self.roots.0.contains(of).then(|| (IN_PART, part(of)))
    }

    fn find(&self, collection: &str, key: &str, writer: WriterId, number: u64) -> Option<EventId> {
        if writer == IN_PART { self.find_part((collection.to_owned(), key.to_owned()), number) } else { None }
    }
}

impl Ledger {
    /// The events of a record, from the position of its last, by the parts of their ids.
    fn parts_of(&self, last: u64) -> Option<Parts> {
        let mut parts = Parts::default();
        for entry in self.log_reader().record(last, 0).ok()? {
            parts.entry(part(&entry.id)).and_modify(|known| *known = None).or_insert(Some(entry.id));
        }
        Some(parts)
    }
}
