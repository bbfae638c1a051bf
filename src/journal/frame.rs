//! The envelope in which a journal stores events.
//!
//! ```text
//! "SLFR"  version u8  first u64  last u64  length u32  payload  checksum [u8; 32]
//! ```
//! Integers are little-endian. The checksum is a derive-key blake3 over the ledger's id and everything before it, so
//! that a frame cannot be taken for one of another ledger or position.
//!
//! Invariant: every accepted byte string is the encoding of exactly one frame, and encodes back to itself.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};

use super::error::JournalError;
use super::reader::Reader;
use crate::event::LedgerId;

const MAGIC: &[u8; 4] = b"SLFR";
const VERSION: u8 = 1;
static CONTEXT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("syncledger 2026-11 frame checksum v1"));
const HEADER_BYTES: usize = 4 + 1 + 8 + 8 + 4;

/// A frame's checksum, and the links of the chain over them.
pub(crate) type Checksum = [u8; 32];

/// Events at the positions `first..=last` of a ledger, as opaque bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The position of the first event, from 1.
    pub first: u64,
    /// The position of the last event, not before `first`.
    pub last: u64,
    /// The events; the journal never looks inside.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The most bytes a payload may have: a sealed segment's worth, so that no length read from a disk can exhaust
    /// memory.
    pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

    /// How many bytes the envelope adds to the payload.
    pub const ENVELOPE_BYTES: usize = HEADER_BYTES + 32;

    /// The frame as stored in `ledger`.
    ///
    /// # Errors
    /// [`JournalError::Invalid`] for positions that are none, [`JournalError::TooLarge`] for a payload above
    /// [`Frame::MAX_PAYLOAD_BYTES`].
    pub fn encode(&self, ledger: LedgerId) -> Result<Vec<u8>, JournalError> {
        self.check(ledger)?;
        let mut bytes = Vec::with_capacity(self.payload.len() + Self::ENVELOPE_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.last.to_le_bytes());
        bytes.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        let checksum = checksum(ledger, &bytes);
        bytes.extend_from_slice(&checksum);
        Ok(bytes)
    }

    /// The frame that `bytes` are in `ledger`, with its checksum verified.
    ///
    /// # Errors
    /// [`JournalError::UpgradeNeeded`] for another version, [`JournalError::CorruptFrame`] for anything else that
    /// [`Frame::encode`] does not produce.
    pub fn decode(ledger: LedgerId, bytes: &[u8]) -> Result<Self, JournalError> {
        Self::decode_expecting(ledger, 0, bytes)
    }

    /// [`Frame::decode`], where an error names `position` if the bytes themselves do not say any.
    pub(crate) fn decode_expecting(ledger: LedgerId, position: u64, bytes: &[u8]) -> Result<Self, JournalError> {
        let corrupt = |what: &str| JournalError::corrupt(ledger, position, what);
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(*MAGIC) {
            return Err(corrupt("a frame starts with SLFR, and this does not"));
        }
        let version = reader.u8().ok_or_else(|| corrupt("the frame ends before its version"))?;
        if version != VERSION {
            return Err(unknown_version(ledger, position, version));
        }
        let (frame, checked) = parse(&mut reader, bytes).ok_or_else(|| corrupt("the frame has another length"))?;
        let found = reader.array::<32>().filter(|_| reader.is_empty());
        if found != Some(checksum(ledger, checked)) {
            return Err(corrupt("the frame's checksum does not fit its bytes"));
        }
        frame.check(ledger).map_err(|fault| corrupt(&fault.to_string()))?;
        Ok(frame)
    }

    fn check(&self, ledger: LedgerId) -> Result<(), JournalError> {
        if self.first == 0 || self.last < self.first || self.last == u64::MAX {
            let what = format!("a frame of positions {}..={} is none", self.first, self.last);
            return Err(JournalError::Invalid { ledger, what });
        }
        if self.payload.len() > Self::MAX_PAYLOAD_BYTES {
            let (bytes, limit) = (self.payload.len(), Self::MAX_PAYLOAD_BYTES);
            return Err(JournalError::TooLarge { ledger, what: "a frame", bytes, limit });
        }
        Ok(())
    }
}

/// The checksum that an encoded frame ends with; zeros for bytes too short to be a frame.
pub(crate) fn stored_checksum(encoded: &[u8]) -> Checksum {
    encoded.last_chunk::<32>().copied().unwrap_or_default()
}

fn parse<'a>(reader: &mut Reader<'a>, bytes: &'a [u8]) -> Option<(Frame, &'a [u8])> {
    let (first, last, length) = (reader.u64()?, reader.u64()?, reader.u32()? as usize);
    let payload = reader.take(length)?.to_vec();
    let checked = bytes.get(..HEADER_BYTES + length)?;
    Some((Frame { first, last, payload }, checked))
}

fn checksum(ledger: LedgerId, bytes: &[u8]) -> Checksum {
    *blake3::Hasher::new_from_context_key(&CONTEXT).update(ledger.as_bytes()).update(bytes).finalize().as_bytes()
}

fn unknown_version(ledger: LedgerId, position: u64, found: u8) -> JournalError {
    let what = format!("the frame at position {position} of ledger {ledger}");
    JournalError::UpgradeNeeded { what, found, supported: VERSION }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    const LEDGER: LedgerId = LedgerId([7; 16]);

    fn frame() -> Frame {
        Frame { first: 3, last: 5, payload: b"three events".to_vec() }
    }

    #[test]
    fn the_bytes_of_version_one_stay_as_they_are() {
        let bytes = frame().encode(LEDGER).unwrap();
        assert_eq!(bytes[..HEADER_BYTES], *b"SLFR\x01\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x0c\0\0\0");
        assert_eq!(blake3::hash(&bytes).to_hex()[..16], *"4f7dc0cf744b0b13");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = frame().encode(LEDGER).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(LEDGER, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Frame::decode(LEDGER, &bytes[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_frame_of_another_ledger_is_corrupt_and_names_the_ledger() {
        let bytes = frame().encode(LEDGER).unwrap();
        let error = Frame::decode(LedgerId([8; 16]), &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&LedgerId([8; 16]).to_string()));
    }

    #[test]
    fn another_version_needs_an_upgrade() {
        let mut bytes = frame().encode(LEDGER).unwrap();
        bytes[4] = 2;
        assert_eq!(Frame::decode(LEDGER, &bytes).unwrap_err().kind(), ErrorKind::UpgradeNeeded);
    }

    #[test]
    fn positions_that_are_none_and_oversize_are_not_encoded() {
        for (first, last) in [(0, 0), (2, 1), (1, u64::MAX)] {
            assert!(Frame { first, last, payload: vec![] }.encode(LEDGER).is_err());
        }
        let large = Frame { first: 1, last: 1, payload: vec![0; Frame::MAX_PAYLOAD_BYTES + 1] };
        assert_eq!(large.encode(LEDGER).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_written(first in 1..u64::MAX / 2, more in 0..u64::MAX / 4, payload: Vec<u8>) {
            let frame = Frame { first, last: first + more, payload };
            prop_assert_eq!(Frame::decode(LEDGER, &frame.encode(LEDGER).unwrap()).unwrap(), frame);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frame::decode(LEDGER, &bytes);
        }
    }
}
