//! What changed: the records after a position of the log, each once.

use super::state::RecordKey;
use super::{AsOf, Entry, Ledger, Look, Record};
use crate::Result;

/// A record as of its latest event.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) record: Record,
    /// That event.
    pub(crate) entry: Entry,
}

impl Ledger {
    /// Gives the records of wanted collections whose latest event lies after a position, and not after another, in the order of
    /// those events to `each`, until that says false.
    ///
    /// # Errors
    /// `corrupt` or `storage`; `not_found` where that part of the log is in an archive that is not there; those of `each`.
    pub(crate) fn changed(
        &self,
        after: u64,
        until: u64,
        wanted: impl Fn(&str) -> bool,
        mut each: impl FnMut(Changed) -> Result<bool>,
    ) -> Result<()> {
        let _reading = self.shared().reading();
        self.log_reader().each(after, until, |entry| {
            if !wanted(&entry.event.collection) {
                return Ok(true);
            }
            let key: RecordKey = (entry.event.collection.clone(), entry.event.key.clone());
            match self.row(&key)?.filter(|row| row.last == entry.position) {
                Some(row) => each(Changed { record: self.record(key, &row)?, entry }),
                None => Ok(true),
            }
        })
    }

    /// The position before the first event that was stamped or received at a time or later, in milliseconds since 1970. Reads the
    /// whole log: clocks go back too.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn position_before(&self, millis: i64) -> Result<u64> {
        let log = self.log_reader();
        let mut found = log.head();
        log.each(0, log.head(), |entry| {
            let is_before = entry.received_at < millis && entry.event.at.millis < millis;
            if !is_before {
                found = entry.position - 1;
            }
            Ok(is_before)
        })?;
        Ok(found)
    }

    /// Whether a record had any event up to a position, given the latest one.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn was_there(&self, latest: &Entry, position: u64) -> Result<bool> {
        if position == 0 {
            return Ok(false);
        }
        let (log, mut at) = (self.log_reader(), latest.previous);
        while at > position {
            at = log.at(at)?.map_or(0, |entry| entry.previous);
        }
        Ok(at > 0)
    }

    /// The event at a position, if there is one.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn entry_at(&self, position: u64) -> Result<Option<Entry>> {
        self.log_reader().at(position)
    }

    /// A record that there was as of a position, and was not deleted.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn record_at(&self, collection: &str, key: &str, position: u64) -> Result<Option<Record>> {
        let look = Look { as_of: Some(AsOf::Position(position)), policy: None };
        Ok(self.look(collection, key, &look)?.filter(|record| !record.deleted))
    }
}
