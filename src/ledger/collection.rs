//! Typed access to a collection.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Context, Ledger, Query, Receipt};
use crate::{Error, ErrorKind, Result};

/// A collection whose records are read and written as `T`.
pub struct Collection<T> {
    ledger: Ledger,
    name: String,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Self::new(self.ledger.clone(), self.name.clone())
    }
}

impl<T> std::fmt::Debug for Collection<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("ledger", &self.ledger).field("name", &self.name).finish()
    }
}

impl<T> Collection<T> {
    pub(crate) fn new(ledger: Ledger, name: String) -> Self {
        Self { ledger, name, of: PhantomData }
    }

    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// As [`Ledger::delete`].
    pub fn delete(&self, key: &str, context: &Context) -> Result<Receipt> {
        self.ledger.delete(&self.name, key, context)
    }
}

impl<T: Serialize + DeserializeOwned> Collection<T> {
    /// The record of a key; `None` where it is absent or deleted.
    ///
    /// # Errors
    /// `mapping` where the record is no `T`.
    pub fn get(&self, key: &str) -> Result<Option<T>> {
        let record = self.ledger.get(&self.name, key)?.filter(|record| !record.deleted);
        record.map(|record| self.typed(key, record.value)).transpose()
    }

    /// Makes a record this value: only what differs from what is shown becomes an edit.
    ///
    /// # Errors
    /// As [`Ledger::put`]; `mapping` where the value is no JSON object.
    pub fn put(&self, key: &str, value: &T, context: &Context) -> Result<Receipt> {
        let json = serde_json::to_value(value).map_err(|fault| self.fault(key, &fault))?;
        self.ledger.put(&self.name, key, json, context)
    }

    /// Changes a record: reads it, lets `change` change it and writes what differs. A change that came in between
    /// stays, where it is of other fields.
    ///
    /// # Errors
    /// `not_found` where the record is absent or deleted.
    pub fn update(&self, key: &str, context: &Context, change: impl FnOnce(&mut T)) -> Result<Receipt> {
        let record = self.ledger.get(&self.name, key)?.filter(|record| !record.deleted);
        let record = record.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{}/{key} does not exist or is deleted", self.name))
        })?;
        let mut value = self.typed(key, record.value)?;
        change(&mut value);
        let json = serde_json::to_value(&value).map_err(|fault| self.fault(key, &fault))?;
        let write = super::Write::new(&self.name, key, super::Act::Put(json)).on(record.heads);
        self.ledger.write(write, context)
    }

    /// The records that a query finds, with their keys.
    ///
    /// # Errors
    /// `mapping` where a record is no `T`.
    pub fn list(&self, query: &Query) -> Result<Vec<(String, T)>> {
        let records = self.ledger.list(&self.name, query)?;
        records.into_iter().map(|record| Ok((record.key.clone(), self.typed(&record.key, record.value)?))).collect()
    }

    fn typed(&self, key: &str, value: serde_json::Value) -> Result<T> {
        serde_json::from_value(value).map_err(|fault| self.fault(key, &fault))
    }

    /// serde's messages name fields and types; those that quote a value are left out.
    fn fault(&self, key: &str, fault: &serde_json::Error) -> Error {
        let message = format!("{}/{key} is not of the type that the program expects", self.name);
        let hint = match fault.to_string() {
            text if text.starts_with("missing field") || text.starts_with("unknown field") => text,
            _ => format!("expected a {}", std::any::type_name::<T>()),
        };
        Error::new(ErrorKind::Mapping, message).with_hint(hint)
    }
}
