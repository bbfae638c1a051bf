//! Cursors of downloads: how far in a ledger's log a device is.

use std::fmt;

use crate::ledger::Ledger;
use crate::replication::Filter;
use crate::shape::time;
use crate::{Error, ErrorKind, Result};

/// What a cursor starts with, so that it is never taken for a time.
const MARK: &str = "c:";
/// How many characters of an event's id tell whether the log is still the one that the cursor was made in.
const EVENT_CHARS: usize = 12;

/// A place in a ledger's log, as devices keep it: opaque to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) position: u64,
    /// Where the first of the pages began that are still coming; the position itself where none are.
    pub(super) origin: u64,
    /// The start of the id of the event there.
    event: String,
    /// What the device may read, by its short name: with other rights, other records lie before the position.
    filter: String,
}

impl Cursor {
    /// The cursor of a device at a position.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn at(ledger: &Ledger, position: u64, origin: u64, reads: &Filter) -> Result<Self> {
        Ok(Self { position, origin, event: event_at(ledger, position)?.unwrap_or_default(), filter: reads.name() })
    }

    /// Whether the log is the one that the cursor was made in: it is not, once the server's store was replaced by an older one.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn is_of(&self, ledger: &Ledger) -> Result<bool> {
        if self.position > ledger.position() {
            return Ok(false);
        }
        Ok(event_at(ledger, self.position)?.is_none_or(|event| event == self.event))
    }

    /// Whether the device may read what it might when it got the cursor.
    pub(super) fn is_under(&self, reads: &Filter) -> bool {
        self.filter == reads.name()
    }

    /// Reads a cursor.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(MARK)?.split('.');
        let mut next = || parts.next();
        let (position, origin) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (event, filter) = (next()?.to_owned(), next()?.to_owned());
        Some(Self { position, origin, event, filter })
            .filter(|cursor| next().is_none() && cursor.origin <= cursor.position)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}.{}.{}.{}", self.position, self.origin, self.event, self.filter)
    }
}

/// The start of the id of the event at a position; `None` where it cannot be told, as it is in an archive elsewhere.
fn event_at(ledger: &Ledger, position: u64) -> Result<Option<String>> {
    if position == 0 {
        return Ok(Some(String::new()));
    }
    match ledger.entry_at(position) {
        Ok(entry) => Ok(entry.map(|entry| entry.id.to_string().chars().take(EVENT_CHARS).collect())),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Since when a device wants what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Start,
    Time(i64),
    Cursor(Cursor),
}

impl Since {
    /// Reads nothing, a cursor or a time: RFC 3339, or milliseconds since 1970.
    ///
    /// # Errors
    /// `validation`.
    pub(super) fn parse(text: &str, pointer: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Start);
        }
        if text.starts_with(MARK) {
            return Cursor::parse(text).map(Self::Cursor).ok_or_else(|| unknown(pointer));
        }
        // The plus of an offset is a blank where it was not escaped in an address.
        time::parse(&text.replace(' ', "+")).map(Self::Time).map_err(|_| unknown(pointer))
    }
}

fn unknown(pointer: &str) -> Error {
    super::invalid(pointer, "expected a cursor that a download gave, a time as 2026-11-27T15:04:05Z, or nothing")
        .with_hint("leave it empty to download everything again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        let cursor = Cursor { position: 7, origin: 3, event: "abcdef".to_owned(), filter: String::new() };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor.clone()));
        assert_eq!(Since::parse(&cursor.to_string(), "").unwrap(), Since::Cursor(cursor));
        for text in ["c:", "c:1", "c:1.2.a.", "c:1.1.a", "c:1.1.a.b.c", "c:-1.0.a.b", "yesterday"] {
            assert!(Since::parse(text, "").is_err(), "{text}");
        }
        assert_eq!(Since::parse(" ", "").unwrap(), Since::Start);
        assert_eq!(Since::parse("1970-01-01T01:00:01 01:00", "").unwrap(), Since::Time(1_000));
    }
}
