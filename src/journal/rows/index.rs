//! The index log: which rows there are and where they lie, as a log of commits.
//!
//! ```text
//! "SLRX"  version u8  generation u64                                   once
//! length u64  body  checksum [u8; 16]                                  each commit
//! body: mark (0, or 1 and u32 length and bytes), then entries:
//!       key (u32 length and bytes), 0 for a removed row, or 1, offset u64, length u32
//! ```
//! The checksum is a truncated derive-key blake3 of generation, place in the log, and body, so that what an earlier
//! write left at the same place is not taken for a commit.
//!
//! Invariant: what is read is the state after a whole commit: the last one before the first that is torn.

use std::collections::BTreeMap;

use super::super::reader::{Reader, put_bytes};

const MAGIC: &[u8; 4] = b"SLRX";
const VERSION: u8 = 1;
const CONTEXT: &str = "syncledger 2026-11 row index checksum v1";

/// How many bytes the head of an index log has.
pub(super) const HEAD_BYTES: usize = 4 + 1 + 8;
const CHECKSUM_BYTES: usize = 16;

/// Where a row's value lies in the row file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// All rows and the mark, as of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) slots: BTreeMap<Box<[u8]>, Slot>,
    pub(super) mark: Option<Vec<u8>>,
}

/// What an index log says, and where its last whole commit ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) generation: u64,
    pub(super) index: Index,
    pub(super) end: u64,
}

/// The head of a log for this generation of the row file.
pub(super) fn head(generation: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.push(VERSION);
    head.extend_from_slice(&generation.to_le_bytes());
    head
}

/// One commit that lies at `offset` in the log.
pub(super) fn commit<'a>(
    generation: u64,
    offset: u64,
    mark: Option<&[u8]>,
    entries: impl Iterator<Item = (&'a [u8], Option<Slot>)>,
) -> Vec<u8> {
    let mut body = Vec::new();
    put_mark(&mut body, mark);
    entries.for_each(|(key, slot)| put_entry(&mut body, key, slot));
    let mut out = Vec::with_capacity(body.len() + 8 + CHECKSUM_BYTES);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&body);
    out.extend_from_slice(&checksum(generation, offset, &body));
    out
}

/// About how many bytes the entry of a live row takes, to tell how much of a log is dead.
pub(super) fn entry_bytes(key: &[u8]) -> u64 {
    key.len() as u64 + 4 + 1 + 8 + 4
}

fn put_mark(body: &mut Vec<u8>, mark: Option<&[u8]>) {
    body.push(u8::from(mark.is_some()));
    if let Some(mark) = mark {
        put_bytes(body, mark);
    }
}

fn put_entry(body: &mut Vec<u8>, key: &[u8], slot: Option<Slot>) {
    put_bytes(body, key);
    body.push(u8::from(slot.is_some()));
    if let Some(slot) = slot {
        body.extend_from_slice(&slot.offset.to_le_bytes());
        body.extend_from_slice(&slot.length.to_le_bytes());
    }
}

/// Reads an index log; `None` for one without a head or without a whole commit.
pub(super) fn read(bytes: &[u8]) -> Option<Found> {
    let mut reader = Reader::new(bytes);
    if reader.array() != Some(*MAGIC) || reader.u8() != Some(VERSION) {
        return None;
    }
    let generation = reader.u64()?;
    let mut found = Found { generation, index: Index::default(), end: HEAD_BYTES as u64 };
    while let Some(body) = read_body(&mut reader, generation, found.end) {
        apply(&mut found.index, body)?;
        found.end += (8 + body.len() + CHECKSUM_BYTES) as u64;
    }
    (found.end > HEAD_BYTES as u64).then_some(found)
}

/// The next body whose checksum fits.
fn read_body<'a>(reader: &mut Reader<'a>, generation: u64, offset: u64) -> Option<&'a [u8]> {
    let length = usize::try_from(reader.u64()?).ok()?;
    let body = reader.take(length)?;
    (reader.array() == Some(checksum(generation, offset, body))).then_some(body)
}

fn apply(index: &mut Index, body: &[u8]) -> Option<()> {
    let mut reader = Reader::new(body);
    index.mark = match reader.u8()? {
        0 => None,
        _ => Some(reader.bytes()?.to_vec()),
    };
    while !reader.is_empty() {
        let key = reader.bytes()?;
        match reader.u8()? {
            0 => index.slots.remove(key),
            _ => index.slots.insert(key.into(), Slot { offset: reader.u64()?, length: reader.u32()? }),
        };
    }
    Some(())
}

fn checksum(generation: u64, offset: u64, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&generation.to_le_bytes()).update(&offset.to_le_bytes()).update(body);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot { offset: 7, length: 3 };

    fn log() -> (Vec<u8>, Vec<Index>, Vec<usize>) {
        let mut log = head(4);
        let mut states = Vec::new();
        let mut ends = Vec::new();
        let entries: [&[(&[u8], Option<Slot>)]; 3] =
            [&[(b"a", Some(SLOT))], &[(b"b", Some(SLOT)), (b"a", None)], &[(b"c", Some(SLOT))]];
        for (n, entries) in entries.iter().enumerate() {
            let commit = commit(4, log.len() as u64, Some(&[n as u8]), entries.iter().copied());
            log.extend(commit);
            ends.push(log.len());
            states.push(read(&log).unwrap().index);
        }
        (log, states, ends)
    }

    #[test]
    fn a_log_cut_anywhere_is_the_state_of_its_last_whole_commit() {
        let (log, states, ends) = log();
        assert_eq!(states[2].slots.keys().map(|key| key[0]).collect::<Vec<_>>(), *b"bc");
        for length in 0..=log.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            let found = read(&log[..length]);
            assert_eq!(found.as_ref().map(|found| &found.index), whole.checked_sub(1).map(|n| &states[n]));
            assert_eq!(found.map(|found| found.end), whole.checked_sub(1).map(|n| ends[n] as u64));
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_it() {
        let (log, states, ends) = log();
        for bit in 0..log.len() * 8 {
            let mut flipped = log.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = ends.iter().filter(|end| **end <= bit / 8).count();
            let expected = whole.checked_sub(1).map(|n| &states[n]);
            assert_eq!(read(&flipped).as_ref().map(|found| &found.index), expected, "bit {bit}");
        }
    }

    #[test]
    fn a_commit_counts_only_at_its_own_place() {
        let (log, _, ends) = log();
        let mut shifted = log[..ends[0]].to_vec();
        shifted.extend_from_slice(&log[ends[1]..]);
        assert_eq!(read(&shifted).unwrap().end, ends[0] as u64);
    }
}
