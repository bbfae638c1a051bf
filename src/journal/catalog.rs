//! Which ledgers a store has: their numbers, ids, names and what else the ledger layer keeps beside them.
//!
//! Pure: engines decide where it is kept. The number stands for the ledger in storage keys; it is small and never
//! leaves the store.
//!
//! Invariant: numbers, ids and names are unique.
//! Invariant: a number whose frames are still being removed is not given to another ledger.

use std::collections::{BTreeMap, BTreeSet};

use super::error::JournalError;
use super::reader::{Reader, put_bytes};
use crate::event::LedgerId;

/// The most bytes of a ledger's name: it is typed by people and shown in tables.
const MAX_NAME_BYTES: usize = 255;
/// The most bytes of a ledger's metadata: the catalogue is rewritten as a whole at each change.
const MAX_META_BYTES: usize = 1 << 20;

/// One ledger of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The ledger's number in this store.
    pub number: u32,
    /// The ledger's id.
    pub id: LedgerId,
    /// The ledger's name in this store, 1 to 255 bytes.
    pub name: String,
    /// What the ledger layer keeps here, at most 1 MiB; the journal never looks inside.
    pub meta: Vec<u8>,
}

/// All ledgers of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    entries: BTreeMap<u32, LedgerEntry>,
    dropping: BTreeSet<u32>,
}

impl Catalog {
    pub(super) fn entries(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.entries.values()
    }

    pub(super) fn find(&self, ledger: LedgerId) -> Result<&LedgerEntry, JournalError> {
        self.entries().find(|entry| entry.id == ledger).ok_or(JournalError::UnknownLedger { ledger })
    }

    pub(super) fn by_number(&self, number: u32) -> Option<&LedgerEntry> {
        self.entries.get(&number)
    }

    /// Whether nothing was ever put here.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dropping.is_empty()
    }

    /// The numbers whose frames are still to be removed.
    pub(super) fn dropping(&self) -> Vec<u32> {
        self.dropping.iter().copied().collect()
    }

    /// The catalogue with `entry`, where `head` tells a ledger's head.
    pub(super) fn with(&self, entry: LedgerEntry, head: impl Fn(LedgerId) -> u64) -> Result<Self, JournalError> {
        check_sizes(&entry)?;
        self.check_free(&entry, head)?;
        let mut next = self.clone();
        next.entries.insert(entry.number, entry);
        Ok(next)
    }

    /// The catalogue in which the ledger's number waits for its frames to be removed.
    pub(super) fn without(&self, ledger: LedgerId) -> Result<Self, JournalError> {
        let number = self.find(ledger)?.number;
        let mut next = self.clone();
        next.entries.remove(&number);
        next.dropping.insert(number);
        Ok(next)
    }

    /// The catalogue after all dropped ledgers' frames are gone.
    pub(super) fn dropped(&self) -> Self {
        Self { entries: self.entries.clone(), dropping: BTreeSet::new() }
    }

    fn check_free(&self, entry: &LedgerEntry, head: impl Fn(LedgerId) -> u64) -> Result<(), JournalError> {
        let taken = |field, value: String| Err(JournalError::Taken { field, value });
        let before = self.entries.get(&entry.number);
        let replaces_other = before.is_some_and(|before| before.id != entry.id && head(before.id) > 0);
        if replaces_other || self.dropping.contains(&entry.number) {
            return taken("number", entry.number.to_string());
        }
        let mut others = self.entries().filter(|other| other.number != entry.number);
        match others.find(|other| other.id == entry.id || other.name == entry.name) {
            Some(other) if other.id == entry.id => taken("id", entry.id.to_string()),
            Some(_) => taken("name", entry.name.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in self.entries() {
            out.extend_from_slice(&entry.number.to_le_bytes());
            out.extend_from_slice(entry.id.as_bytes());
            put_bytes(&mut out, entry.name.as_bytes());
            put_bytes(&mut out, &entry.meta);
        }
        self.dropping.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out
    }

    /// `None` for bytes that [`Catalog::encode`] does not produce.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut catalog = Self::default();
        for _ in 0..reader.u32()? {
            let entry = read_entry(&mut reader)?;
            catalog = catalog.with(entry, |_| 1).ok()?;
        }
        while !reader.is_empty() {
            catalog.dropping.insert(reader.u32()?);
        }
        (catalog.encode() == bytes).then_some(catalog)
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Option<LedgerEntry> {
    Some(LedgerEntry {
        number: reader.u32()?,
        id: LedgerId(reader.array()?),
        name: String::from_utf8(reader.bytes()?.to_vec()).ok()?,
        meta: reader.bytes()?.to_vec(),
    })
}

fn check_sizes(entry: &LedgerEntry) -> Result<(), JournalError> {
    let ledger = entry.id;
    if entry.name.is_empty() {
        return Err(JournalError::Invalid { ledger, what: "a ledger needs a name".into() });
    }
    let sizes = [("a name", entry.name.len(), MAX_NAME_BYTES), ("metadata", entry.meta.len(), MAX_META_BYTES)];
    match sizes.into_iter().find(|(_, bytes, limit)| bytes > limit) {
        Some((what, bytes, limit)) => Err(JournalError::TooLarge { ledger, what, bytes, limit }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, id: u8, name: &str) -> LedgerEntry {
        LedgerEntry { number, id: LedgerId([id; 16]), name: name.into(), meta: vec![id] }
    }

    fn two() -> Catalog {
        let one = Catalog::default().with(entry(1, 1, "one"), |_| 0).unwrap();
        one.with(entry(2, 2, "two"), |_| 0).unwrap()
    }

    #[test]
    fn a_catalogue_reads_back_as_written_and_no_cut_of_it_is_taken_for_a_ledger_less() {
        let catalog = two().without(LedgerId([1; 16])).unwrap();
        let bytes = catalog.encode();
        assert_eq!(Catalog::decode(&bytes), Some(catalog.clone()));
        for length in 0..bytes.len() - 4 {
            assert_eq!(Catalog::decode(&bytes[..length]), None, "length {length}");
        }
    }

    #[test]
    fn names_ids_and_numbers_are_unique() {
        for other in [entry(3, 3, "one"), entry(3, 1, "three"), entry(1, 3, "three")] {
            assert!(matches!(two().with(other, |_| 1), Err(JournalError::Taken { .. })));
        }
    }

    #[test]
    fn an_empty_ledger_takes_another_id_and_any_ledger_another_name() {
        assert!(two().with(entry(1, 3, "one"), |_| 0).is_ok());
        assert!(two().with(entry(1, 1, "first"), |_| 9).is_ok());
    }

    #[test]
    fn a_number_is_not_given_again_before_its_frames_are_gone() {
        let dropping = two().without(LedgerId([1; 16])).unwrap();
        assert!(dropping.with(entry(1, 3, "three"), |_| 0).is_err());
        assert!(dropping.dropped().with(entry(1, 3, "three"), |_| 0).is_ok());
    }
}
