//! The index log: which rows there are and where they lie, as a log of commits.
//!
//! ```text
//! "SLRX"  version u8  generation u64                                     once
//! kind u8  stored u32  raw u32  packed  checksum [u8; 16]                each part of a commit; see `packed`
//!         0  entries, and more parts follow                              entries as in `entry`, by key
//!         1  entries, and the commit ends without a mark
//!         2  mark (u32 length and bytes), entries, and the commit ends
//! ```
//! The checksum is a truncated derive-key blake3 of generation, place in the log, and the part before it, so that what an
//! earlier write left at the same place is not taken for a commit. A part is bounded, so that what it unpacks to is.
//!
//! Invariant: what is read is the state after a whole commit: the last one before the first that is torn.

use std::io;

use super::entry::{Entry, EntryReader, EntryWriter};
use super::index::Index;
use super::packed::{Packer, unpack};
use crate::journal::reader::{Reader, put_bytes};
use crate::journal::rows::{MAX_KEY_BYTES, MAX_MARK_BYTES};

const MAGIC: &[u8; 4] = b"SLRX";
const VERSION: u8 = 2;
const CONTEXT: &str = "syncledger 2026-11 row index checksum v2";

/// How many bytes the head of an index log has.
pub(super) const HEAD_BYTES: usize = 4 + 1 + 8;
const PART_HEAD_BYTES: usize = 1 + 4 + 4;
const CHECKSUM_BYTES: usize = 16;
/// What zstd is asked for: neighbours differ in few bits, which a little more search finds.
const LEVEL: i32 = 1;
/// A part of more is closed.
const CLOSE_AT_BYTES: usize = 256 << 10;
/// The most bytes of a part before it is packed: entries, the one that closes it, and a mark.
const MAX_RAW_BYTES: usize = CLOSE_AT_BYTES + MAX_KEY_BYTES + 64 + MAX_MARK_BYTES + 4;

const MORE: u8 = 0;
const END_WITHOUT_MARK: u8 = 1;
const END: u8 = 2;

/// What an index log says, and where its last whole commit ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) generation: u64,
    pub(super) index: Index,
    pub(super) mark: Option<Vec<u8>>,
    pub(super) end: u64,
}

/// The head of a log for this generation of values.
pub(super) fn head(generation: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.push(VERSION);
    head.extend_from_slice(&generation.to_le_bytes());
    head
}

/// A commit that is being laid out.
pub(super) struct Commit {
    generation: u64,
    offset: u64,
    packer: Packer,
    entries: EntryWriter,
    body: Vec<u8>,
    out: Vec<u8>,
}

impl Commit {
    /// One that will lie at `offset` in the log.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(super) fn new(generation: u64, offset: u64) -> io::Result<Self> {
        let (packer, entries) = (Packer::new(LEVEL)?, EntryWriter::default());
        Ok(Self { generation, offset, packer, entries, body: Vec::new(), out: Vec::new() })
    }

    /// Takes entries; all of a commit come in the order of their keys.
    pub(super) fn add(&mut self, entries: &[Entry]) {
        for (key, slot) in entries {
            if self.body.len() >= CLOSE_AT_BYTES {
                self.close(MORE, &[]);
            }
            self.entries.put(&mut self.body, key, *slot);
        }
    }

    /// The commit's bytes.
    pub(super) fn finish(mut self, mark: Option<&[u8]>) -> Vec<u8> {
        let mut before = Vec::new();
        mark.into_iter().for_each(|mark| put_bytes(&mut before, mark));
        self.close(if mark.is_some() { END } else { END_WITHOUT_MARK }, &before);
        self.out
    }

    fn close(&mut self, kind: u8, before: &[u8]) {
        let body = [before, &self.body].concat();
        let (start, mut packed) = (self.out.len(), Vec::new());
        self.packer.pack(&mut packed, &body);
        self.out.push(kind);
        self.out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&packed);
        let part = self.out.get(start..).unwrap_or_default();
        let checksum = checksum(self.generation, self.offset + start as u64, part);
        self.out.extend_from_slice(&checksum);
        self.body.clear();
        self.entries = EntryWriter::default();
    }
}

/// Reads an index log; `None` for one without a head or without a whole commit.
pub(super) fn read(bytes: &[u8]) -> Option<Found> {
    let (head, parts) = bytes.split_at_checked(HEAD_BYTES)?;
    let mut head = Reader::new(head);
    if head.array() != Some(*MAGIC) || head.u8() != Some(VERSION) {
        return None;
    }
    let generation = head.u64()?;
    let whole = whole_commits(parts, generation);
    let mut found = Found { generation, index: Index::default(), mark: None, end: (HEAD_BYTES + whole) as u64 };
    let mut reader = Reader::new(parts.get(..whole)?);
    while !reader.is_empty() {
        found.take_in(&Part::read(&mut reader)?)?;
    }
    (whole > 0).then_some(found)
}

/// How many bytes the commits have whose parts are all there, and whose checksums fit.
fn whole_commits(parts: &[u8], generation: u64) -> usize {
    let (mut reader, mut offset, mut whole) = (Reader::new(parts), 0, 0);
    while let Some(part) = Part::read(&mut reader) {
        if part.checksum != checksum(generation, (HEAD_BYTES + offset) as u64, part.checked) {
            break;
        }
        offset += part.checked.len() + CHECKSUM_BYTES;
        if part.kind != MORE {
            whole = offset;
        }
    }
    whole
}

struct Part<'a> {
    kind: u8,
    raw: usize,
    packed: &'a [u8],
    /// What the checksum is of.
    checked: &'a [u8],
    checksum: [u8; CHECKSUM_BYTES],
}

impl<'a> Part<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut head = reader.clone();
        let (kind, stored, raw) = (head.u8()?, head.u32()? as usize, head.u32()? as usize);
        let packed = head.take(stored)?;
        let checked = reader.take(PART_HEAD_BYTES + stored)?;
        Some(Self { kind, raw, packed, checked, checksum: reader.array()? })
    }
}

impl Found {
    fn take_in(&mut self, part: &Part<'_>) -> Option<()> {
        let body = unpack(part.packed, Some(part.raw).filter(|raw| *raw <= MAX_RAW_BYTES)?)?;
        let mut reader = Reader::new(&body);
        match part.kind {
            MORE => {}
            END_WITHOUT_MARK => self.mark = None,
            END => self.mark = Some(reader.bytes()?.to_vec()),
            _ => return None,
        }
        self.index.take_in(&entries(reader.rest())?);
        Some(())
    }
}

/// The entries of a part, if they are in order.
fn entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (mut reader, mut entries) = (EntryReader::new(bytes), Vec::new());
    while !reader.is_at_end() {
        let slot = reader.read()?;
        entries.push((reader.key().to_vec(), slot));
    }
    entries.is_sorted_by(|a, b| a.0 < b.0).then_some(entries)
}

fn checksum(generation: u64, offset: u64, part: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&generation.to_le_bytes()).update(&offset.to_le_bytes()).update(part);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Place, Slot};
    use super::*;

    const SLOT: Slot = Slot { block: Place { offset: 13, stored: 50, raw: 60 }, bytes: 30 };

    fn commit(log: &[u8], entries: &[(&[u8], Option<Slot>)], mark: Option<&[u8]>) -> Vec<u8> {
        let mut commit = Commit::new(4, log.len() as u64).unwrap();
        commit.add(&entries.iter().map(|(key, slot)| (key.to_vec(), *slot)).collect::<Vec<_>>());
        commit.finish(mark)
    }

    /// The rows and the mark of a log.
    type State = (Vec<(Vec<u8>, Slot)>, Option<Vec<u8>>);

    fn state(log: &[u8]) -> Option<State> {
        read(log).map(|found| (found.index.range(b"", None).collect(), found.mark))
    }

    fn log() -> (Vec<u8>, Vec<State>, Vec<usize>) {
        let mut log = head(4);
        let mut states = Vec::new();
        let mut ends = Vec::new();
        let entries: [&[(&[u8], Option<Slot>)]; 3] =
            [&[(b"a", Some(SLOT))], &[(b"a", None), (b"b", Some(SLOT))], &[(b"c", Some(SLOT))]];
        for (n, entries) in entries.iter().enumerate() {
            log.extend(commit(&log, entries, Some(&[n as u8])));
            ends.push(log.len());
            states.push(state(&log).unwrap());
        }
        (log, states, ends)
    }

    #[test]
    fn a_log_cut_anywhere_is_the_state_of_its_last_whole_commit() {
        let (log, states, ends) = log();
        assert_eq!(states[2], (vec![(b"b".to_vec(), SLOT), (b"c".to_vec(), SLOT)], Some(vec![2])));
        for length in 0..=log.len() {
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(state(&log[..length]).as_ref(), whole.checked_sub(1).map(|n| &states[n]));
            let end = read(&log[..length]).map(|found| found.end);
            assert_eq!(end, whole.checked_sub(1).map(|n| ends[n] as u64));
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_it() {
        let (log, states, ends) = log();
        for bit in 0..log.len() * 8 {
            let mut flipped = log.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = ends.iter().filter(|end| **end <= bit / 8).count();
            assert_eq!(state(&flipped).as_ref(), whole.checked_sub(1).map(|n| &states[n]), "bit {bit}");
        }
    }

    #[test]
    fn a_commit_counts_only_at_its_own_place() {
        let (log, _, ends) = log();
        let mut shifted = log[..ends[0]].to_vec();
        shifted.extend_from_slice(&log[ends[1]..]);
        assert_eq!(read(&shifted).unwrap().end, ends[0] as u64);
    }

    #[test]
    fn a_commit_of_many_parts_counts_only_as_a_whole() {
        let keys: Vec<Vec<u8>> = (0..80_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let entries: Vec<(&[u8], Option<Slot>)> = keys.iter().map(|key| (key.as_slice(), Some(SLOT))).collect();
        let mut log = head(4);
        log.extend(commit(&log, &entries[..1], Some(b"one")));
        let first = log.len();
        log.extend(commit(&log, &entries, Some(b"two")));
        let (rows, mark) = state(&log).unwrap();
        assert_eq!((rows.len(), mark), (80_000, Some(b"two".to_vec())));
        for cut in [first + 9, first + (log.len() - first) / 2, log.len() - 1] {
            let (rows, mark) = state(&log[..cut]).unwrap();
            assert_eq!((rows.len(), mark), (1, Some(b"one".to_vec())), "cut at {cut}");
        }
        assert!(log.len() - first < 4 * 80_000, "{} bytes", log.len() - first);
    }

    #[test]
    fn a_commit_without_a_mark_takes_the_mark_away() {
        let mut log = head(4);
        for mark in [Some(b"one".as_slice()), None] {
            log.extend(commit(&log, &[], mark));
            assert_eq!(state(&log).unwrap().1.as_deref(), mark);
        }
    }

    /// A part with a checksum that fits, whatever it says.
    fn forged(kind: u8, raw: u32, packed: &[u8]) -> Vec<u8> {
        let mut log = head(4);
        let mut part = vec![kind];
        part.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        part.extend_from_slice(&raw.to_le_bytes());
        part.extend_from_slice(packed);
        let checksum = checksum(4, log.len() as u64, &part);
        log.extend([part, checksum.to_vec()].concat());
        log
    }

    #[test]
    fn a_part_that_promises_too_much_or_is_out_of_order_is_refused() {
        let mut bomb = Vec::new();
        Packer::new(LEVEL).unwrap().pack(&mut bomb, &vec![0; 100 << 20]);
        for raw in [100 << 20, u32::MAX, MAX_RAW_BYTES as u32] {
            assert_eq!(read(&forged(END_WITHOUT_MARK, raw, &bomb)), None);
        }
        let (mut body, mut writer) = (vec![0], EntryWriter::default());
        [b"b", b"a"].iter().for_each(|key| writer.put(&mut body, *key, Some(SLOT)));
        assert_eq!(read(&forged(END_WITHOUT_MARK, body.len() as u32 - 1, &body)), None);
        assert_eq!(read(&forged(9, 0, &[0])), None);
        assert!(read(&forged(END_WITHOUT_MARK, 0, &[0])).is_some());
    }
}
