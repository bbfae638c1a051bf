//! How far the log of another replica was taken in: what it held up to there is here.
//!
//! Derived: without it a session asks for everything once more, and finds it known.

use super::Ledger;
use super::request::Entry;
use super::row::{self, Kind};
use super::shared::MARK;
use crate::Result;
use crate::event::{EventId, RunId, WriterId};
use crate::replication::Cursor;

/// What tells the entry at a position from any other that a copy of the log may have there. A store that was copied, or
/// replaced by an older copy, can come to hold the same event at the same position after others: but not by the same append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    position: u64,
    id: EventId,
    run: Option<RunId>,
    received_at: i64,
}

impl Mark {
    pub(super) fn of(entry: &Entry) -> Self {
        let Entry { position, id, run, received_at, .. } = *entry;
        Self { position, id, run, received_at }
    }

    pub(super) fn cursor(self) -> Cursor {
        let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 place of a log v1");
        hasher.update(&self.id.0).update(&self.received_at.to_le_bytes());
        if let Some(run) = self.run {
            hasher.update(&run.0);
        }
        Cursor { position: self.position, mark: hasher.finalize().into() }
    }
}

fn encode(cursor: Cursor, scope: &str) -> Vec<u8> {
    [&cursor.position.to_le_bytes()[..], &cursor.mark, scope.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<(Cursor, String)> {
    let (position, rest) = bytes.split_first_chunk::<8>()?;
    let (mark, scope) = rest.split_first_chunk::<32>()?;
    let cursor = Cursor { position: u64::from_le_bytes(*position), mark: *mark };
    Some((cursor, String::from_utf8(scope.to_vec()).ok()?))
}

impl Ledger {
    /// Up to which position of another replica's log everything is here that sessions of a name want, where that
    /// is known, and the scope that the other replica named.
    pub(super) fn held_of(&self, replica: WriterId, name: &str) -> Result<Option<(Cursor, String)>> {
        Ok(self.shared().rows.get(&self.cursor_key(replica, name))?.as_deref().and_then(decode))
    }

    /// Notes that everything of another replica up to a position is here that sessions of a name want.
    pub(super) fn note_held(&self, replica: WriterId, name: &str, cursor: Cursor, scope: &str) -> Result<()> {
        Ok(self.shared().rows.write(vec![(self.cursor_key(replica, name), Some(encode(cursor, scope)))], MARK)?)
    }

    /// Whether an event waits for its parents.
    pub(super) fn holds_waiting(&self) -> bool {
        let gauges = self.shared().gauges.lock();
        gauges.map_or(true, |gauges| gauges.get(&self.id()).is_some_and(|(waiting, _)| *waiting > 0))
    }

    /// The place of a position in this log.
    pub(super) fn cursor_at(&self, position: u64) -> Result<Option<Cursor>> {
        Ok(self.log_reader().at(position)?.map(|entry| Mark::of(&entry).cursor()))
    }

    fn cursor_key(&self, replica: WriterId, name: &str) -> Vec<u8> {
        row::key(Kind::Cursor, self.id(), name, &replica.to_string())
    }
}
