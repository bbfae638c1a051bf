//! Events that a batch names though it does not hold them, told by a part of their ids.
//!
//! An edit names the record's event before it, whose id is the half of what an edit of one field takes on the wire. The other
//! side has that event, once it has acknowledged it, and finds it among the record's by the first bits of its id. Whether it is
//! the right one shows in the hash of the batch, which is made of whole ids.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::event::{Event, EventId, WriterId};
use crate::ledger::Ledger;
use crate::segment::Past;

/// What an id that is told in part has in place of a writer.
const IN_PART: WriterId = WriterId([0; 16]);
/// How many bits of an id are told: enough for the events of one record.
const BITS: u32 = 34;
/// How many of a record's events are looked through for one that is named and is none of its heads.
const MOST_LOOKED_THROUGH: usize = 1_024;
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

/// What both sides of a session know.
pub(super) struct Named<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) roots: &'a Roots,
}

impl Past for Named<'_> {
    fn place(&self, _: &Event, of: &EventId) -> Option<(WriterId, u64)> {
        self.roots.0.contains(of).then(|| (IN_PART, part(of)))
    }

    fn find(&self, collection: &str, key: &str, writer: WriterId, number: u64) -> Option<EventId> {
        if writer == IN_PART { self.ledger.event_by_part(collection, key, number) } else { None }
    }
}

impl Ledger {
    /// The event of a record whose id begins with these bits: a head, or else the latest.
    fn event_by_part(&self, collection: &str, key: &str, number: u64) -> Option<EventId> {
        let shared = self.shared();
        let _reading = shared.reading();
        let row = shared.row(self.id(), &(collection.to_owned(), key.to_owned())).ok()??;
        if let Some(head) = row.heads.iter().find(|head| part(head) == number) {
            return Some(*head);
        }
        let (log, mut position) = (self.log_reader(), row.last);
        for _ in 0..MOST_LOOKED_THROUGH {
            let entry = log.at(position).ok()??;
            if part(&entry.id) == number {
                return Some(entry.id);
            }
            position = Some(entry.previous).filter(|previous| *previous > 0)?;
        }
        None
    }
}
