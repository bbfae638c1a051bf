//! How far the log of another replica was taken in: what it held up to there is here.
//!
//! Derived: without it a session asks for everything once more, and finds it known.

use super::Ledger;
use super::row::{self, Kind};
use super::shared::MARK;
use crate::Result;
use crate::event::{EventId, WriterId};
use crate::replication::{Cursor, Filter};

fn encode(cursor: Cursor) -> Vec<u8> {
    [&cursor.position.to_le_bytes()[..], &cursor.event.0].concat()
}

fn decode(bytes: &[u8]) -> Option<Cursor> {
    let (position, event) = bytes.split_first_chunk::<8>()?;
    Some(Cursor { position: u64::from_le_bytes(*position), event: EventId(event.try_into().ok()?) })
}

impl Ledger {
    /// Up to which position of another replica's log everything is here that a filter wants, where that is known.
    pub(super) fn held_of(&self, replica: WriterId, filter: &Filter) -> Result<Option<Cursor>> {
        Ok(self.shared().rows.get(&self.cursor_key(replica, filter))?.as_deref().and_then(decode))
    }

    /// Notes that everything of another replica up to a position is here that a filter wants.
    pub(super) fn note_held(&self, replica: WriterId, filter: &Filter, cursor: Cursor) -> Result<()> {
        Ok(self.shared().rows.write(vec![(self.cursor_key(replica, filter), Some(encode(cursor)))], MARK)?)
    }

    /// Whether an event waits for its parents.
    pub(super) fn holds_waiting(&self) -> bool {
        let gauges = self.shared().gauges.lock();
        gauges.map_or(true, |gauges| gauges.get(&self.id()).is_some_and(|(waiting, _)| *waiting > 0))
    }

    /// The place of a position in this log.
    pub(super) fn cursor_at(&self, position: u64) -> Result<Option<Cursor>> {
        Ok(self.log_reader().at(position)?.map(|entry| Cursor { position, event: entry.id }))
    }

    fn cursor_key(&self, replica: WriterId, filter: &Filter) -> Vec<u8> {
        row::key(Kind::Cursor, self.id(), &filter.name(), &replica.to_string())
    }
}
