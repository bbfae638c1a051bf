//! Blocks: neighbouring rows, compressed together.
//!
//! ```text
//! block: packed  checksum [u8; 16]                      see `packed`
//! raw:   rows, each  key  length varint  value          keys as in `entry`
//! ```
//! The checksum is a truncated derive-key blake3 of the file's generation, the block's offset and raw length, and the
//! packed bytes, so that no other block is taken for it; that a value belongs to its key is read in the block itself.
//!
//! Invariant: a block's rows are in the order of their keys, and it has at most [`MAX_RAW_BYTES`].

use std::fs::File;
use std::path::Path;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};

use super::super::{MAX_KEY_BYTES, MAX_VALUE_BYTES, RowsError};
use super::entry::{Entry, Place, Slot, put_key, take_key};
use super::packed::{Packer, unpack};
use crate::disk::{Appender, DiskError};
use crate::journal::reader::{Reader, put_varint};

static CONTEXT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("syncledger 2026-11 row block checksum v1"));
const CHECKSUM_BYTES: usize = 16;
/// What zstd is asked for: at this size, blocks of rows get no smaller with more, and are read faster.
const LEVEL: i32 = -1;
/// A block of more is closed: it is decompressed as a whole for each row of it that is read.
const CLOSE_AT_BYTES: usize = 4 << 10;
/// A larger value has a block of its own.
const LARGE_VALUE_BYTES: usize = 4 << 10;
/// The most bytes of a block before it is packed: one row of the longest key and the largest value.
pub(super) const MAX_RAW_BYTES: usize = MAX_VALUE_BYTES + MAX_KEY_BYTES + 3 * 10;

/// A block's rows.
pub(super) struct Block {
    raw: Vec<u8>,
}

impl Block {
    /// The block of these stored bytes, if they are what was written there.
    pub(super) fn decode(stored: &[u8], generation: u64, place: Place) -> Result<Self, &'static str> {
        let (packed, found) = stored.split_last_chunk().ok_or("a block of rows is too short")?;
        if *found != checksum(generation, place.offset, place.raw, packed) {
            return Err("the checksum of a block of rows does not fit its bytes");
        }
        let raw = Some(place.raw as usize).filter(|raw| *raw <= MAX_RAW_BYTES);
        let raw = raw.and_then(|raw| unpack(packed, raw));
        Ok(Self { raw: raw.ok_or("a block of rows has not the length that the index says")? })
    }

    /// The value of the row with this key.
    pub(super) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let (mut reader, mut found) = (Reader::new(&self.raw), Vec::with_capacity(key.len()));
        while !reader.is_empty() {
            take_key(&mut reader, &mut found)?;
            let length = usize::try_from(reader.varint()?).ok()?;
            let value = reader.take(length)?;
            if found == key {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    #[cfg(test)]
    pub(super) fn of_raw(raw: Vec<u8>) -> Self {
        Self { raw }
    }
}

/// Writes rows, which come in the order of their keys, in blocks to a file of values. Of what it writes it holds no more
/// than a slice and a block.
pub(super) struct BlockWriter<'a> {
    generation: u64,
    appender: Appender<'a>,
    packer: Packer,
    raw: Vec<u8>,
    last_key: Vec<u8>,
    /// The rows of the block that is not yet closed with their raw bytes, and those between them that are removed.
    open: Vec<(Vec<u8>, Option<u32>)>,
    closed: Vec<Entry>,
}

impl<'a> BlockWriter<'a> {
    /// # Errors
    /// Where there is no memory for it.
    pub(super) fn new(file: &'a File, path: &'a Path, generation: u64, offset: u64) -> Result<Self, RowsError> {
        Ok(Self {
            generation,
            appender: Appender::new(file, path, offset),
            packer: Packer::new(LEVEL).map_err(DiskError::of("compress rows for", path))?,
            raw: Vec::new(),
            last_key: Vec::new(),
            open: Vec::new(),
            closed: Vec::new(),
        })
    }

    /// Takes the next row, or one that is removed.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<(), RowsError> {
        let Some(value) = value else {
            self.open.push((key, None));
            return Ok(());
        };
        if value.len() > LARGE_VALUE_BYTES {
            self.close()?;
        }
        let before = self.raw.len();
        put_key(&mut self.raw, &mut self.last_key, &key);
        put_varint(&mut self.raw, value.len() as u64);
        self.raw.extend_from_slice(value);
        self.open.push((key, Some((self.raw.len() - before) as u32)));
        if self.raw.len() >= CLOSE_AT_BYTES { self.close() } else { Ok(()) }
    }

    /// Packs the rows since the last block.
    fn close(&mut self) -> Result<(), RowsError> {
        let mut place = Place { offset: self.appender.end(), stored: 0, raw: self.raw.len() as u32 };
        if !self.raw.is_empty() {
            let mut stored = Vec::new();
            self.packer.pack(&mut stored, &self.raw);
            let checksum = checksum(self.generation, place.offset, place.raw, &stored);
            stored.extend_from_slice(&checksum);
            place.stored = stored.len() as u32;
            self.appender.push(&stored)?;
        }
        let slot = |bytes| Slot { block: place, bytes };
        self.closed.extend(self.open.drain(..).map(|(key, bytes)| (key, bytes.map(slot))));
        self.last_key.clear();
        self.raw.clear();
        self.raw.shrink_to(2 * CLOSE_AT_BYTES);
        Ok(())
    }

    /// The entries of the blocks that were closed since the last call.
    pub(super) fn take_closed(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.closed)
    }

    pub(super) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// Makes everything durable; returns the entries that were not taken, and where the file ends.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn finish(mut self) -> Result<(Vec<Entry>, u64), RowsError> {
        self.close()?;
        Ok((self.closed, self.appender.finish()?))
    }
}

fn checksum(generation: u64, offset: u64, raw: u32, packed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
    hasher.update(&generation.to_le_bytes()).update(&offset.to_le_bytes()).update(&raw.to_le_bytes()).update(packed);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::entry::EntryReader;
    use super::*;

    /// Rows with values of these lengths, written to a file: its bytes, and what the writer said of them.
    fn written(lengths: &[usize]) -> (Vec<u8>, Vec<Entry>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = BlockWriter::new(file.as_file(), file.path(), 7, 0).unwrap();
        for (n, length) in lengths.iter().enumerate() {
            writer.put(key(n), Some(&value(n, *length))).unwrap();
        }
        let (entries, end) = writer.finish().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64, end);
        (bytes, entries)
    }

    fn key(n: usize) -> Vec<u8> {
        format!("key-{n:06}").into_bytes()
    }

    fn value(n: usize, length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 3 + n) as u8).collect()
    }

    fn decode(bytes: &[u8], place: Place) -> Result<Block, &'static str> {
        let start = place.offset as usize;
        Block::decode(&bytes[start..start + place.stored as usize], 7, place)
    }

    #[test]
    fn rows_come_back_from_blocks_of_bounded_size_and_a_large_one_lies_alone() {
        let lengths: Vec<usize> = (0..400).map(|n| [0, 1, 30, 300, 4_096, 4_097, 90_000][n * 31 % 101 % 7]).collect();
        let (bytes, entries) = written(&lengths);
        assert_eq!(entries.len(), lengths.len());
        for (n, (found, slot)) in entries.iter().enumerate() {
            let slot = slot.unwrap();
            let block = decode(&bytes, slot.block).unwrap();
            assert_eq!((found, block.value(found)), (&key(n), Some(value(n, lengths[n]).as_slice())));
            assert_eq!(block.value(b"key-"), None);
            assert_eq!(slot.is_alone(), lengths[n] > LARGE_VALUE_BYTES || block.raw_bytes() == slot.bytes as usize);
            assert!(slot.is_alone() || block.raw_bytes() < CLOSE_AT_BYTES + LARGE_VALUE_BYTES + 30);
        }
        let shares: u64 = entries.iter().filter_map(|(_, slot)| *slot).map(Slot::share).sum();
        assert!(shares <= bytes.len() as u64 && shares > bytes.len() as u64 * 9 / 10, "{shares} of {}", bytes.len());
    }

    #[test]
    fn a_block_is_taken_for_no_other() {
        let (bytes, entries) = written(&[300; 60]);
        let places: Vec<Place> = entries.iter().filter_map(|(_, slot)| *slot).map(|slot| slot.block).collect();
        let (first, last) = (places[0], places[places.len() - 1]);
        assert_ne!(first, last);
        let stored = &bytes[..first.stored as usize];
        assert!(Block::decode(stored, 7, first).is_ok());
        assert!(Block::decode(stored, 8, first).is_err(), "of another generation");
        assert!(Block::decode(stored, 7, Place { offset: last.offset, ..first }).is_err(), "at another place");
        assert!(Block::decode(stored, 7, Place { raw: first.raw + 1, ..first }).is_err(), "of another length");
        for length in 0..stored.len() {
            assert!(Block::decode(&stored[..length], 7, first).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_block_that_promises_too_much_is_refused_though_its_checksum_fits() {
        let mut packed = Vec::new();
        Packer::new(LEVEL).unwrap().pack(&mut packed, &vec![0; 100 << 20]);
        for raw in [4_096, MAX_RAW_BYTES as u32, 100 << 20, u32::MAX] {
            let stored = [packed.as_slice(), &checksum(7, 0, raw, &packed)].concat();
            let place = Place { offset: 0, stored: stored.len() as u32, raw };
            assert!(Block::decode(&stored, 7, place).is_err(), "{raw}");
        }
    }

    #[test]
    fn any_bytes_of_a_block_are_searched_without_a_panic() {
        for seed in 0..2_000_u32 {
            let raw: Vec<u8> = blake3::hash(&seed.to_le_bytes()).as_bytes().iter().map(|byte| byte % 9).collect();
            let block = Block { raw: raw.clone() };
            assert!(block.value(b"none such").is_none());
            assert!(EntryReader::new(&raw).read().is_none_or(|slot| slot.is_none_or(|slot| slot.share() < u64::MAX)));
        }
    }
}
