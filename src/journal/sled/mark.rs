//! The head mark: how far each ledger's log was durable at the last checkpoint, and what it was.
//!
//! The running hash of a log is h(0) = zeros, h(n) = derive-key blake3 of h(n−1) and the n-th frame's checksum.
//!
//! Invariant: the mark never names a position that is not durable, so a log that ends before it has lost events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::catalog::Catalog;
use super::super::error::JournalError;
use super::super::frame::{Checksum, Frame, stored_checksum};
use super::super::reader::Reader;
use super::super::sealed;
use crate::event::LedgerId;

const MAGIC: [u8; 4] = *b"SLHD";
const FLOORS_MAGIC: [u8; 4] = *b"SLFL";
const CONTEXT: &str = "syncledger 2026-11 log chain v1";

/// The end of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last position.
    pub(super) head: u64,
    /// Where the frame that holds it begins.
    pub(super) first: u64,
    /// That frame's checksum.
    pub(super) checksum: Checksum,
    /// The running hash over all frames.
    pub(super) chain: Checksum,
}

impl Tail {
    /// The end after one more frame.
    pub(super) fn after(self, frame: &Frame, encoded: &[u8]) -> Self {
        let checksum = stored_checksum(encoded);
        let chain = blake3::Hasher::new_derive_key(CONTEXT).update(&self.chain).update(&checksum).finalize().into();
        Self { head: frame.last, first: frame.first, checksum, chain }
    }
}

/// The recorded ends, with the number each ledger had.
pub(super) type Mark = BTreeMap<(u32, LedgerId), Tail>;

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("head")
}

/// Where the logs begin whose first frames were dropped: the end of what was dropped.
pub(super) fn floors_path(dir: &Path) -> PathBuf {
    dir.join("floors")
}

/// Records the ends of all ledgers of the catalogue, durably.
pub(super) fn write(dir: &Path, catalog: &Catalog, tails: &BTreeMap<LedgerId, Tail>) -> Result<(), JournalError> {
    sealed::write(&path(dir), MAGIC, &body(catalog, tails, |_| true))
}

/// Records the ends of what was dropped of the ledgers of the catalogue, durably.
pub(super) fn write_floors(
    dir: &Path,
    catalog: &Catalog,
    floors: &BTreeMap<LedgerId, Tail>,
) -> Result<(), JournalError> {
    sealed::write(&floors_path(dir), FLOORS_MAGIC, &body(catalog, floors, |tail| tail.head > 0))
}

fn body(catalog: &Catalog, tails: &BTreeMap<LedgerId, Tail>, wanted: impl Fn(&Tail) -> bool) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in catalog.entries() {
        let tail = tails.get(&entry.id).copied().unwrap_or_default();
        if !wanted(&tail) {
            continue;
        }
        body.extend_from_slice(&entry.number.to_le_bytes());
        body.extend_from_slice(entry.id.as_bytes());
        body.extend_from_slice(&tail.head.to_le_bytes());
        body.extend_from_slice(&tail.first.to_le_bytes());
        body.extend_from_slice(&tail.checksum);
        body.extend_from_slice(&tail.chain);
    }
    body
}

/// The recorded ends; `None` where there is no mark.
pub(super) fn read(dir: &Path) -> Result<Option<Mark>, JournalError> {
    read_file(&path(dir), MAGIC)
}

/// The recorded ends of what was dropped; none where nothing ever was.
pub(super) fn read_floors(dir: &Path) -> Result<Mark, JournalError> {
    Ok(read_file(&floors_path(dir), FLOORS_MAGIC)?.unwrap_or_default())
}

fn read_file(path: &Path, magic: [u8; 4]) -> Result<Option<Mark>, JournalError> {
    let Some(body) = sealed::read(path, magic)? else { return Ok(None) };
    let mut reader = Reader::new(&body);
    let mut mark = Mark::new();
    while !reader.is_empty() {
        let (key, tail) = entry(&mut reader).ok_or_else(|| sealed::corrupt(path, "an entry is cut off"))?;
        mark.insert(key, tail);
    }
    Ok(Some(mark))
}

fn entry(reader: &mut Reader<'_>) -> Option<((u32, LedgerId), Tail)> {
    let key = (reader.u32()?, LedgerId(reader.array()?));
    let tail = Tail { head: reader.u64()?, first: reader.u64()?, checksum: reader.array()?, chain: reader.array()? };
    Some((key, tail))
}
