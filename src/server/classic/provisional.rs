//! Provisional ids: what a device calls an object before it has been told the object's id.
//!
//! Invariant: the id follows from the ledger, the device and the provisional id alone, so that nothing is to be remembered: it is the
//! same after a restart, and for a create that is repeated.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::Result;
use crate::event::{LedgerId, hex};
use crate::ledger::Ledger;

/// What a provisional id starts with.
const MARK: &str = "tmp:";

/// Whether an id is provisional.
pub(super) fn is_provisional(id: &str) -> bool {
    id.starts_with(MARK)
}

/// The id of the object that a device calls by a provisional id.
pub(super) fn settled(ledger: LedgerId, device: &str, id: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 provisional id v1");
    hasher.update(&ledger.0);
    for part in [device, id] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let hash = hasher.finalize();
    hex(hash.as_bytes().split_at(16).0)
}

/// What stands for the provisional ids in the data of a device's uploads.
pub(super) struct References<'a> {
    ledger: &'a Ledger,
    device: &'a str,
    /// The ids that the request itself makes objects of.
    made: BTreeSet<String>,
    known: BTreeMap<String, Option<String>>,
}

impl<'a> References<'a> {
    pub(super) fn new(ledger: &'a Ledger, device: &'a str, made: BTreeSet<String>) -> Self {
        Self { ledger, device, made, known: BTreeMap::new() }
    }

    /// Puts ids in the place of provisional ones, where a string is one of an object that the device has made. Returns those that
    /// it found.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn settle(&mut self, data: &mut Json) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        self.settle_in(data, &mut found)?;
        Ok(found)
    }

    fn settle_in(&mut self, data: &mut Json, found: &mut BTreeMap<String, String>) -> Result<()> {
        match data {
            Json::String(text) if is_provisional(text) => {
                if let Some(id) = self.find(text)? {
                    found.insert(std::mem::replace(text, id.clone()), id);
                }
                Ok(())
            }
            Json::Array(items) => items.iter_mut().try_for_each(|item| self.settle_in(item, found)),
            Json::Object(fields) => fields.values_mut().try_for_each(|field| self.settle_in(field, found)),
            _ => Ok(()),
        }
    }

    fn find(&mut self, id: &str) -> Result<Option<String>> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.clone());
        }
        let settled = settled(self.ledger.info().id, self.device, id);
        let found = Some(settled.clone()).filter(|_| self.made.contains(id));
        let found = if found.is_some() || self.is_record(&settled)? { Some(settled) } else { None };
        self.known.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    fn is_record(&self, key: &str) -> Result<bool> {
        for collection in self.ledger.collections()?.iter().filter(|info| !info.name.starts_with('$')) {
            if self.ledger.get(&collection.name, key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
