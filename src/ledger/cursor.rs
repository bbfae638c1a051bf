//! How far the log of another replica was pulled: what it held up to there is here.
//!
//! Derived: without it a pull asks for everything once more, and finds it known.

use super::Ledger;
use super::row::{self, Kind};
use super::shared::MARK;
use crate::Result;
use crate::event::EventId;

/// A position of another replica's log, and the event there: a log that was restored or copied has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    position: u64,
    event: EventId,
}

impl Cursor {
    fn encode(self) -> Vec<u8> {
        [&self.position.to_le_bytes()[..], &self.event.0].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (position, event) = bytes.split_first_chunk::<8>()?;
        Some(Self { position: u64::from_le_bytes(*position), event: EventId(event.try_into().ok()?) })
    }
}

impl Ledger {
    /// Up to which position of another replica everything is here; 0 where that is not known.
    pub(super) fn pulled(&self, other: &Self) -> Result<u64> {
        let stored = self.shared().rows.get(&self.cursor_key(other))?;
        let Some(cursor) = stored.as_deref().and_then(Cursor::decode) else { return Ok(0) };
        // An event that cannot be read says nothing: the pull itself meets the same fault, or does not need it.
        let there = other.log_reader().at(cursor.position).ok().flatten();
        Ok(there.filter(|entry| entry.id == cursor.event).map_or(0, |_| cursor.position))
    }

    /// Notes that everything of another replica up to a position is here. Nothing that waits for a parent is.
    pub(super) fn note_pulled(&self, other: &Self, position: u64) -> Result<()> {
        let waits = self
            .shared()
            .gauges
            .lock()
            .map_or(true, |gauges| gauges.get(&self.id()).is_some_and(|(waiting, _)| *waiting > 0));
        let Some(entry) = other.log_reader().at(position)?.filter(|_| !waits) else { return Ok(()) };
        let cursor = Cursor { position, event: entry.id };
        Ok(self.shared().rows.write(vec![(self.cursor_key(other), Some(cursor.encode()))], MARK)?)
    }

    fn cursor_key(&self, other: &Self) -> Vec<u8> {
        row::key(Kind::Cursor, self.id(), "", &other.info().writer.to_string())
    }
}
