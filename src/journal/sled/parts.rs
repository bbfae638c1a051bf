//! How frames lie in the tree: sequential keys, values of at most 4 KiB.
//!
//! Key: ledger number u32, first position u64, part u16, all big-endian. sled spills larger values into files of their
//! own that it never fsyncs, so a larger frame is split over consecutive parts.

use std::iter::Peekable;
use std::path::Path;

use super::super::error::JournalError;
use super::super::frame::Frame;
use super::super::sealed::corrupt;
use super::engine::guarded;

/// The most bytes of one value.
const PART_BYTES: usize = 4_096;
pub(super) const KEY_BYTES: usize = 4 + 8 + 2;

const _: () = assert!((Frame::MAX_PAYLOAD_BYTES + Frame::ENVELOPE_BYTES) / PART_BYTES < u16::MAX as usize);

/// A key, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: u32,
    pub(super) first: u64,
    pub(super) part: u16,
}

pub(super) fn key(number: u32, first: u64, part: u16) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let bytes = number.to_be_bytes().into_iter().chain(first.to_be_bytes()).chain(part.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

pub(super) fn parse(dir: &Path, key: &[u8]) -> Result<Key, JournalError> {
    let fields = key.split_first_chunk::<4>().and_then(|(number, rest)| {
        let (first, part) = rest.split_first_chunk::<8>()?;
        Some((number, first, <&[u8; 2]>::try_from(part).ok()?))
    });
    let (number, first, part) = fields.ok_or_else(|| corrupt(dir, "a key has another length than 14 bytes"))?;
    Ok(Key {
        number: u32::from_be_bytes(*number),
        first: u64::from_be_bytes(*first),
        part: u16::from_be_bytes(*part),
    })
}

/// The keys and values of an encoded frame.
pub(super) fn split(number: u32, first: u64, encoded: &[u8]) -> impl Iterator<Item = ([u8; KEY_BYTES], &[u8])> {
    let parts = (0..=u16::MAX).zip(encoded.chunks(PART_BYTES));
    parts.map(move |(part, bytes)| (key(number, first, part), bytes))
}

/// Puts the parts of encoded frames together, in the order of their keys.
pub(super) struct Parts<'a> {
    dir: &'a Path,
    parts: Peekable<::sled::Iter>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(dir: &'a Path, parts: ::sled::Iter) -> Self {
        Self { dir, parts: parts.peekable() }
    }

    /// The next frame's bytes, not yet verified.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        let Some((start, value)) = self.take(|_| true)? else { return Ok(None) };
        if start.part != 0 {
            return Err(corrupt(self.dir, format!("the frame at position {} lacks its first part", start.first)));
        }
        let mut encoded = value;
        let mut due = 1;
        while let Some((_, value)) = self.take(|key| key == Key { part: due, ..start })? {
            encoded.extend_from_slice(&value);
            due = due.saturating_add(1);
        }
        Ok(Some(encoded))
    }

    /// The next part if `wanted`; any other stays.
    fn take(&mut self, wanted: impl FnOnce(Key) -> bool) -> Result<Option<(Key, Vec<u8>)>, JournalError> {
        let found = guarded(self.dir, || match self.parts.peek() {
            Some(Ok((key, _))) => Ok(Some(key.clone())),
            Some(Err(fault)) => Err(fault.clone()),
            None => Ok(None),
        })?;
        let Some(bytes) = found else { return Ok(None) };
        let key = parse(self.dir, &bytes)?;
        if !wanted(key) {
            return Ok(None);
        }
        let value = guarded(self.dir, || self.parts.next().transpose())?;
        Ok(value.map(|(_, value)| (key, value.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_ledger_position_and_part_and_read_back() {
        let keys = [key(1, 1, 0), key(1, 1, 1), key(1, 256, 0), key(2, 0, 0), key(256, 0, 0)];
        assert!(keys.is_sorted());
        let read = parse(Path::new("dir"), &keys[2]).unwrap();
        assert_eq!(read, Key { number: 1, first: 256, part: 0 });
        assert!(parse(Path::new("dir"), &keys[2][1..]).is_err());
    }
}
