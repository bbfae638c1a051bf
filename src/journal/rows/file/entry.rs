//! How rows are named, on the disk and in memory: their keys in order, each without what it shares with the one before,
//! and where their values lie.
//!
//! ```text
//! key:   shared varint  length varint  bytes            what it shares with the key before, and the rest
//! entry: key  kind u8                                   0: the row is removed
//!             1  bytes varint                           in the block of the row before
//!             2  stored varint  raw varint  bytes       in the block that follows that one
//!             3  offset varint  stored  raw  bytes      in the block at this place
//! ```
//! Varints have seven bits a byte, the lowest first.

use super::super::MAX_KEY_BYTES;
use crate::journal::reader::{Reader, put_varint};

/// Where a block lies in the file of values: how many bytes it has there, and how many it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) raw: u32,
}

impl Place {
    /// Where the block ends; `None` where no file could hold it.
    pub(super) fn end(self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.stored))
    }
}

/// Where a row lies: its block, and how many of the block's raw bytes are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) block: Place,
    pub(super) bytes: u32,
}

impl Slot {
    /// The row's share of the bytes that its block takes. The shares of a block's rows add up to no more than these.
    pub(super) fn share(self) -> u64 {
        u64::from(self.block.stored) * u64::from(self.bytes) / u64::from(self.block.raw.max(1))
    }

    /// Whether no other row is in its block.
    pub(super) fn is_alone(self) -> bool {
        self.bytes == self.block.raw
    }
}

/// A row's key and where it lies; `None` for one that is removed.
pub(super) type Entry = (Vec<u8>, Option<Slot>);

/// Appends a key after the one `before` it, which it becomes.
pub(super) fn put_key(out: &mut Vec<u8>, before: &mut Vec<u8>, key: &[u8]) {
    let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
    let own = key.get(shared..).unwrap_or_default();
    put_varint(out, shared as u64);
    put_varint(out, own.len() as u64);
    out.extend_from_slice(own);
    before.truncate(shared);
    before.extend_from_slice(own);
}

/// Makes `key` the one after it; `None` where the bytes name none of at most [`MAX_KEY_BYTES`].
pub(super) fn take_key(reader: &mut Reader<'_>, key: &mut Vec<u8>) -> Option<()> {
    let shared = usize::try_from(reader.varint()?).ok()?;
    let length = usize::try_from(reader.varint()?).ok()?;
    if shared > key.len() || length > MAX_KEY_BYTES - shared.min(MAX_KEY_BYTES) {
        return None;
    }
    let own = reader.take(length)?;
    key.truncate(shared);
    key.extend_from_slice(own);
    Some(())
}

const REMOVED: u8 = 0;
const SAME: u8 = 1;
const NEXT: u8 = 2;
const PLACE: u8 = 3;

/// Lays entries out, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct EntryWriter {
    key: Vec<u8>,
    block: Place,
}

impl EntryWriter {
    pub(super) fn put(&mut self, out: &mut Vec<u8>, key: &[u8], slot: Option<Slot>) {
        put_key(out, &mut self.key, key);
        let Some(Slot { block, bytes }) = slot else { return out.push(REMOVED) };
        if block == self.block {
            out.push(SAME);
        } else {
            self.put_place(out, block);
        }
        put_varint(out, u64::from(bytes));
    }

    fn put_place(&mut self, out: &mut Vec<u8>, block: Place) {
        if self.block.end() == Some(block.offset) {
            out.push(NEXT);
        } else {
            out.push(PLACE);
            put_varint(out, block.offset);
        }
        put_varint(out, u64::from(block.stored));
        put_varint(out, u64::from(block.raw));
        self.block = block;
    }
}

/// Reads what an [`EntryWriter`] laid out.
pub(super) struct EntryReader<'a> {
    reader: Reader<'a>,
    key: Vec<u8>,
    block: Place,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), key: Vec::new(), block: Place::default() }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.reader.is_empty()
    }

    /// The key of the entry that was read last.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The slot of the next entry; `None` at the end, and where the bytes are no entry.
    #[expect(clippy::option_option, reason = "an entry may say that its row has no slot any more")]
    pub(super) fn read(&mut self) -> Option<Option<Slot>> {
        take_key(&mut self.reader, &mut self.key)?;
        let kind = self.reader.u8()?;
        match kind {
            REMOVED => return Some(None),
            SAME => {}
            NEXT => self.block = self.place(self.block.end()?)?,
            PLACE => {
                let offset = self.reader.varint()?;
                self.block = self.place(offset)?;
            }
            _ => return None,
        }
        let bytes = self.reader.varint_u32()?;
        Some(Some(Slot { block: self.block, bytes }))
    }

    fn place(&mut self, offset: u64) -> Option<Place> {
        Some(Place { offset, stored: self.reader.varint_u32()?, raw: self.reader.varint_u32()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let place = (prop_oneof![0..9_u64, any::<u64>()], any::<u32>(), any::<u32>());
        let slot = (place, any::<u32>())
            .prop_map(|((offset, stored, raw), bytes)| Slot { block: Place { offset, stored, raw }, bytes });
        (proptest::collection::vec(0..3_u8, 0..6), proptest::option::weighted(0.8, slot))
    }

    proptest! {
        #[test]
        fn entries_come_back_in_order(mut entries in proptest::collection::vec(entry(), 0..20), follow in any::<u8>()) {
            // Neighbours that share a block, and blocks that follow each other, are the common case.
            for n in 1..entries.len() {
                let before = entries[n - 1].1;
                if let (Some(before), Some(slot), true) = (before, entries[n].1.as_mut(), follow & 1 << (n % 8) != 0) {
                    slot.block = before.block;
                    slot.block.offset = before.block.end().filter(|_| n % 2 == 0).unwrap_or(before.block.offset);
                }
            }
            let (mut bytes, mut writer) = (Vec::new(), EntryWriter::default());
            entries.iter().for_each(|(key, slot)| writer.put(&mut bytes, key, *slot));
            let mut reader = EntryReader::new(&bytes);
            for (key, slot) in &entries {
                prop_assert_eq!(reader.read(), Some(*slot));
                prop_assert_eq!(reader.key(), key.as_slice());
            }
            prop_assert!(reader.is_at_end() && reader.read().is_none());
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in proptest::collection::vec(0..9_u8, 0..60)) {
            let mut reader = EntryReader::new(&bytes);
            while reader.read().is_some() {
                prop_assert!(reader.key().len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_key_that_claims_more_than_there_is_is_refused() {
        for claim in [[9_u64, 0], [0, 5], [0, u64::MAX], [u64::MAX, 0]] {
            let mut bytes = Vec::new();
            claim.into_iter().for_each(|number| put_varint(&mut bytes, number));
            assert_eq!(take_key(&mut Reader::new(&bytes), &mut vec![1, 2]), None);
        }
    }
}
