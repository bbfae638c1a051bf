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
            packer: Packer::new().map_err(DiskError::of("compress rows for", path))?,
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
