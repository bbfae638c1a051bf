//! What a device may read.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::event::ConflictId;
use crate::ledger::{Ledger, Record, RecordConflict};
use crate::projection::ConflictKind;
use crate::replication::Condition;
use crate::server::access::{Device, Role};
use crate::{Error, ErrorKind, Result};

/// System collections that every device may read.
const FOR_ALL: [&str; 1] = ["$collections"];
/// System collections that operators may read.
const FOR_OPERATORS: [&str; 5] = ["$runs", "$errors", "$devices", "$conflicts", "$alerts"];

impl Device {
    /// The conditions on records of a collection that the device may read; `None` where it may read none.
    pub(crate) fn conditions(&self, collection: &str) -> Option<&[Condition]> {
        if !collection.starts_with('$') {
            return self.rights.reads.conditions(collection);
        }
        let is_operator = self.rights.role >= Role::Operator;
        let may = FOR_ALL.contains(&collection) || (is_operator && FOR_OPERATORS.contains(&collection));
        may.then_some(&[])
    }

    /// Whether it may read a record that shows this value.
    pub(crate) fn may_read(&self, collection: &str, value: &Json) -> bool {
        self.conditions(collection).is_some_and(|all| all.iter().all(|condition| condition.is_met(value)))
    }

    /// The record of a key; `None` where there is none. Where it is deleted, its last value decides.
    ///
    /// # Errors
    /// `not_found` where the device may not read it, or nothing of the collection.
    pub(crate) fn look(&self, ledger: &Ledger, collection: &str, key: &str) -> Result<Option<Record>> {
        if self.conditions(collection).is_none() {
            return Err(absent(collection, key));
        }
        match ledger.get(collection, key)? {
            Some(record) if !self.may_read(collection, &record.value) => Err(absent(collection, key)),
            found => Ok(found),
        }
    }

    /// Checks that it may read records of a collection.
    ///
    /// # Errors
    /// `not_found`.
    pub(crate) fn check_collection(&self, collection: &str) -> Result<()> {
        if self.conditions(collection).is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no collection `{}`", name(collection))))
    }

    /// Checks that it may write records of a collection.
    ///
    /// # Errors
    /// `permission`.
    pub(crate) fn check_write(&self, collection: &str) -> Result<()> {
        if self.may_write(collection) {
            return Ok(());
        }
        let message = format!("this device may not write the collection `{}`", name(collection));
        Err(Error::new(ErrorKind::Permission, message).with_hint("ask for the right to"))
    }
}

impl Device {
    /// The conflict of an id, settled or not.
    ///
    /// # Errors
    /// `not_found` where there is none, or the device may not see it.
    pub(crate) fn find_conflict(&self, ledger: &Ledger, id: ConflictId) -> Result<RecordConflict> {
        let found = match ledger.find_conflict(&id.to_string()) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => return Err(no_conflict()),
            found => found?,
        };
        let sees = Sight::new(ledger, self).sees_conflict(&found)?;
        Some(found).filter(|_| sees).ok_or_else(no_conflict)
    }
}

/// There is no such conflict, or the device may not see it.
pub(crate) fn no_conflict() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such conflict")
}

/// There is no such record, or the device may not read it.
pub(crate) fn absent(collection: &str, key: &str) -> Error {
    let message = format!("there is no record {}/{}", name(collection), name(key));
    Error::new(ErrorKind::NotFound, message)
}

fn name(text: &str) -> String {
    crate::shape::cut(text, 80)
}

/// What a device sees of a ledger, record by record: each is looked at once.
pub(crate) struct Sight<'a> {
    ledger: &'a Ledger,
    device: &'a Device,
    known: BTreeMap<(String, String), bool>,
}

/// Of how many records is remembered whether they may be seen.
const MOST_KNOWN: usize = 4_096;

impl<'a> Sight<'a> {
    /// What a device sees from now on.
    pub(crate) fn new(ledger: &'a Ledger, device: &'a Device) -> Self {
        Self { ledger, device, known: BTreeMap::new() }
    }

    /// Whether it sees the record of a key, by what that shows now.
    pub(crate) fn sees(&mut self, collection: &str, key: &str) -> Result<bool> {
        match self.device.conditions(collection) {
            None => return Ok(false),
            Some([]) => return Ok(true),
            Some(_) => {}
        }
        let place = (collection.to_owned(), key.to_owned());
        if let Some(known) = self.known.get(&place) {
            return Ok(*known);
        }
        let found = self.ledger.get(collection, key)?;
        let sees = found.is_some_and(|record| self.device.may_read(collection, &record.value));
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(place, sees);
        Ok(sees)
    }

    /// Whether it sees a conflict. One about a value that several records show tells of them all.
    pub(crate) fn sees_conflict(&mut self, found: &RecordConflict) -> Result<bool> {
        let is_of_many = found.conflict.kind == ConflictKind::Constraint && found.conflict.candidates.len() > 1;
        let sees_all = self.device.conditions(&found.collection).is_some_and(<[_]>::is_empty);
        Ok(self.sees(&found.collection, &found.key)? && (sees_all || !is_of_many))
    }

    /// Checks that the device may write a record: one that it does not see is not there.
    ///
    /// # Errors
    /// `not_found` or `permission`.
    pub(crate) fn check_write(&mut self, collection: &str, key: &str) -> Result<()> {
        self.device.check_collection(collection).map_err(|_| absent(collection, key))?;
        if !self.sees(collection, key)? && self.ledger.get(collection, key)?.is_some() {
            return Err(absent(collection, key));
        }
        self.device.check_write(collection)
    }
}
