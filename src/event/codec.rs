//! The bytes of events: with [`binary`], which writes them by hand, the one place that knows bincode.
//!
//! An encoded event is `"SLEV"`, the version byte 1, and the bincode of [`Event`] (little endian, variable-length
//! integers, at most [`limits::EVENT_BYTES`]). An event's id is the hash of these bytes and its ledger's id.
//!
//! Invariant: decoding yields an event only from the very bytes that encoding it yields. bincode alone accepts several
//! encodings of one integer, so what was decoded is encoded again and compared.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

use super::{Event, EventId, LedgerId, binary, hash, limits, validate::EventFault};

const MAGIC: &[u8; 4] = b"SLEV";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 1;

/// Why bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They do not start like an event.
    #[error("these bytes are no event: expected them to start with {MAGIC:?}")]
    NotAnEvent,
    /// A newer program wrote them.
    #[error("the event has format version {0}, this program reads version {VERSION}")]
    UnknownVersion(u8),
    /// They hold an operation that this program does not know.
    #[error("the event holds an operation or value of a kind that this program does not know")]
    UnknownOp,
    /// There are too many.
    #[error("an event has at most {limit} bytes, got {0}", limit = limits::EVENT_BYTES)]
    TooLarge(usize),
    /// They break off, go on too long, or are no encoding.
    #[error("the event's bytes are malformed: {0}")]
    Malformed(String),
    /// They decode, but are not what the event encodes to.
    #[error("the event's bytes are not canonical")]
    NotCanonical,
    /// The event breaks a rule.
    #[error(transparent)]
    Invalid(#[from] EventFault),
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_little_endian()
        .with_varint_encoding()
        .with_limit(limits::EVENT_BYTES as u64)
        .reject_trailing_bytes()
}

/// The canonical bincode of a flat value.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, bincode::Error> {
    options().serialize(value)
}

/// A value from bytes that are no more than its own, though not always the only ones for it.
fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    options().deserialize(bytes).map_err(|fault| decode_error(&fault))
}

/// serde names an enum's unknown variant only in its message.
fn decode_error(fault: &bincode::Error) -> DecodeError {
    let message = fault.to_string();
    // The words of other faults may come from the bytes, but none of those starts like this.
    if message.starts_with("invalid value: integer") && message.contains("expected variant index") {
        DecodeError::UnknownOp
    } else {
        DecodeError::Malformed(message)
    }
}

impl Event {
    /// The event's bytes.
    ///
    /// # Errors
    /// When the event breaks a rule or is larger than [`limits::EVENT_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = Vec::with_capacity(512);
        self.encode_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts the event's bytes in the place of what a buffer held.
    fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.validate()?;
        bytes.clear();
        self.append_to(bytes);
        match bytes.len() {
            total if total > limits::EVENT_BYTES => Err(DecodeError::TooLarge(total)),
            _ => Ok(()),
        }
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        binary::put_event(bytes, self);
    }

    /// The event that `bytes` encode.
    ///
    /// # Errors
    /// When the bytes are anything but the canonical encoding of a valid event.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::EVENT_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let (head, payload) = bytes.split_at_checked(HEAD_BYTES).ok_or(DecodeError::NotAnEvent)?;
        match head.split_last() {
            Some((&VERSION, magic)) if magic == MAGIC => {}
            Some((version, magic)) if magic == MAGIC => return Err(DecodeError::UnknownVersion(*version)),
            _ => return Err(DecodeError::NotAnEvent),
        }
        let event: Self = from_bytes(payload)?;
        let mut again = Vec::with_capacity(bytes.len());
        event.append_to(&mut again);
        if again != bytes {
            return Err(DecodeError::NotCanonical);
        }
        event.validate()?;
        Ok(event)
    }

    /// The event's id in `ledger`, with its bytes.
    ///
    /// # Errors
    /// As [`Event::encode`].
    pub fn identify(&self, ledger: LedgerId) -> Result<(EventId, Vec<u8>), DecodeError> {
        let bytes = self.encode()?;
        Ok((hash::event_id(ledger, &bytes), bytes))
    }

    /// The event's id in `ledger`, whose bytes come into a buffer that is used again and again.
    pub(crate) fn id_in(&self, ledger: LedgerId, buffer: &mut Vec<u8>) -> Result<EventId, DecodeError> {
        self.encode_into(buffer)?;
        Ok(hash::event_id(ledger, buffer))
    }
}

impl From<DecodeError> for crate::Error {
    fn from(fault: DecodeError) -> Self {
        use crate::ErrorKind;
        let kind = match &fault {
            DecodeError::UnknownVersion(_) | DecodeError::UnknownOp => ErrorKind::UpgradeNeeded,
            DecodeError::TooLarge(_) => ErrorKind::TooLarge,
            _ => ErrorKind::Validation,
        };
        let error = Self::new(kind, fault.to_string());
        match kind {
            ErrorKind::UpgradeNeeded => error.with_hint("install a newer syncledger and try again"),
            ErrorKind::TooLarge => error.with_hint("split the change into several, or let large values become blobs"),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Op, Path, Value};
    use super::*;
    use crate::ErrorKind;
    use crate::testing::event;

    /// An event whose encoding has so many bytes.
    fn of_bytes(bytes: usize) -> Event {
        let put =
            |name: &str, bytes| Op::Put { path: Path::parse(name).unwrap(), value: Value::Text("x".repeat(bytes)) };
        let full = |rest| {
            let fields = ["/a", "/b", "/c"].map(|name| put(name, limits::INLINE_BYTES));
            event(fields.into_iter().chain([put("/d", rest)]).collect())
        };
        let rest = bytes - full(1_000).encode().unwrap().len() + 1_000;
        full(rest)
    }

    #[test]
    fn an_event_is_as_large_as_it_may_be_and_no_larger() {
        let largest = of_bytes(limits::EVENT_BYTES).encode().unwrap();
        assert_eq!(largest.len(), limits::EVENT_BYTES);
        assert_eq!(Event::decode(&largest).unwrap().encode().unwrap(), largest);
        let too_large = DecodeError::TooLarge(limits::EVENT_BYTES + 1);
        assert_eq!(of_bytes(limits::EVENT_BYTES + 1).encode().unwrap_err(), too_large);
        assert_eq!(Event::decode(&[&largest[..], &[0]].concat()).unwrap_err(), too_large);
    }

    #[test]
    fn other_bytes_are_told_from_other_versions() {
        let bytes = event(Vec::new()).encode().unwrap();
        let at = |place: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[place] = byte;
            Event::decode(&bytes).unwrap_err()
        };
        assert_eq!(at(HEAD_BYTES - 1, VERSION + 1), DecodeError::UnknownVersion(VERSION + 1));
        assert_eq!(at(0, b'?'), DecodeError::NotAnEvent);
        assert_eq!(Event::decode(&bytes[..HEAD_BYTES - 1]).unwrap_err(), DecodeError::NotAnEvent);
    }

    #[test]
    fn faults_say_what_to_do() {
        for (fault, kind, hint) in [
            (DecodeError::UnknownVersion(9), ErrorKind::UpgradeNeeded, Some("install a newer")),
            (DecodeError::UnknownOp, ErrorKind::UpgradeNeeded, Some("install a newer")),
            (DecodeError::TooLarge(70_000), ErrorKind::TooLarge, Some("split the change")),
            (DecodeError::NotAnEvent, ErrorKind::Validation, None),
        ] {
            let error = crate::Error::from(fault);
            assert_eq!(error.kind(), kind);
            assert_eq!(error.hint().is_some(), hint.is_some());
            assert!(error.hint().unwrap_or_default().starts_with(hint.unwrap_or_default()), "{error:?}");
        }
    }
}
