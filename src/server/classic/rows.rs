//! Rows: what a download tells of records.

use serde_json::{Value as Json, json};

use super::cursor::{Cursor, Since};
use super::object;
use crate::Result;
use crate::ledger::{Changed, Entry, Ledger, Record};
use crate::server::access::Device;
use crate::shape::time;

/// How many rows a page has, where there are as many.
const PAGE: usize = 500;
/// After about so many bytes of data a page ends before.
const PAGE_BYTES: usize = 64 << 20;

/// Where a download begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// The position after which records have changed.
    pub(super) position: u64,
    /// The position up to which the device knew all before its first page.
    origin: u64,
    /// Whether the device's cursor is good no more, so that everything comes again.
    pub(super) restarted: bool,
}

impl Begin {
    /// The beginning that a device asks for.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn of(ledger: &Ledger, device: &Device, since: &Since) -> Result<Self> {
        let at = |position, origin| Self { position, origin, restarted: false };
        match since {
            Since::Start => Ok(at(0, 0)),
            Since::Time(millis) => ledger.position_before(*millis).map(|position| at(position, position)),
            Since::Cursor(cursor) if cursor.is_of(ledger)? && cursor.is_under(&device.rights.reads) => {
                Ok(at(cursor.position, cursor.origin))
            }
            Since::Cursor(_) => Ok(Self { restarted: true, ..at(0, 0) }),
        }
    }

    /// The cursor of a device that has everything up to here.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn cursor(&self, ledger: &Ledger, device: &Device) -> Result<Cursor> {
        Cursor::at(ledger, self.position, self.origin, &device.rights.reads)
    }
}

/// Some rows, and how far they go.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Json>,
    pub(super) cursor: Cursor,
    pub(super) more: bool,
}

/// What a ledger tells a device.
pub(super) struct Telling<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) device: &'a Device,
    pub(super) begin: Begin,
}

impl Telling<'_> {
    /// The first rows.
    ///
    /// # Errors
    /// `corrupt` or `storage`; `not_found` where a part of the log is in an archive that is not there.
    pub(super) fn page(&self) -> Result<Page> {
        let head = self.ledger.position();
        let (mut rows, mut position, mut bytes) = (Vec::new(), self.begin.position, 0);
        while rows.len() < PAGE && bytes < PAGE_BYTES && position < head {
            let (changed, until) = self.changed(position, head, &mut bytes)?;
            position = until;
            for one in &changed {
                rows.extend(self.row(one)?);
            }
        }
        let more = position < head;
        let origin = if more { self.begin.origin } else { position };
        let cursor = Cursor::at(self.ledger, position, origin, &self.device.rights.reads)?;
        Ok(Page { rows, cursor, more })
    }

    /// Some changed records, and up to where they are all.
    fn changed(&self, after: u64, head: u64, bytes: &mut usize) -> Result<(Vec<Changed>, u64)> {
        let (mut changed, mut until) = (Vec::new(), head);
        self.ledger.changed(
            after,
            head,
            |collection| self.shows(collection),
            |one| {
                *bytes += one.record.value.to_string().len();
                let is_full = changed.len() + 1 == PAGE || *bytes >= PAGE_BYTES;
                if is_full {
                    until = one.entry.position;
                }
                changed.push(one);
                Ok(!is_full)
            },
        )?;
        Ok((changed, until))
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// As [`Telling::page`].
    pub(super) fn count(&self) -> Result<u64> {
        let (mut count, mut hidden) = (0, Vec::new());
        let shows = |collection: &str| self.shows(collection);
        self.ledger.changed(self.begin.position, self.ledger.position(), shows, |one| {
            if self.is_shown(&one.record) {
                count += 1;
            } else if self.begin.position > 0 {
                hidden.push(one.entry);
            }
            Ok(true)
        })?;
        for entry in &hidden {
            count += u64::from(self.was_shown(entry)?);
        }
        Ok(count)
    }

    /// Whether the device may read records of a collection.
    fn shows(&self, collection: &str) -> bool {
        !collection.starts_with('$') && self.device.conditions(collection).is_some()
    }

    fn is_shown(&self, record: &Record) -> bool {
        self.device.may_read(&record.collection, &record.value)
    }

    /// Whether the device may have been told of a record that it may not read any more.
    fn was_shown(&self, entry: &Entry) -> Result<bool> {
        let mut positions = vec![self.begin.position, self.begin.origin];
        positions.retain(|position| *position > 0);
        positions.dedup();
        for position in positions {
            let then = self.ledger.record_at(&entry.event.collection, &entry.event.key, position)?;
            if then.is_some_and(|record| self.is_shown(&record)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn row(&self, Changed { record, entry }: &Changed) -> Result<Option<Json>> {
        let is_shown = self.is_shown(record);
        if !is_shown && !self.was_shown(entry)? {
            return Ok(None);
        }
        let is_gone = record.deleted || !is_shown;
        let operation = match is_gone {
            true => "delete",
            false if self.ledger.was_there(entry, self.begin.origin)? => "update",
            false => "create",
        };
        Ok(Some(json!({
            "operation": operation,
            "model": record.collection,
            "object_id": object::shown(&record.key),
            "data": if is_gone { Json::Null } else { record.value.clone() },
            "timestamp": time::to_json(happened(entry)),
            "deleted": is_gone,
        })))
    }
}

/// When a change happened: no later than it was stamped and received, whatever the clock of its device says.
fn happened(entry: &Entry) -> i64 {
    let at = entry.event.at.millis;
    entry.event.occurred_at.map_or(at, |occurred| occurred.min(at)).min(entry.received_at)
}
