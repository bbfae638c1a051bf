//! Messages as bytes.
//!
//! ```text
//! kind u8  fields
//! ```
//! Fields are bincode's, with its default options (integers of variable length), but for the events of a batch, which are
//! a segment. A message is a whole: whoever sends bytes in a stream puts the length before it (u32, little-endian).

use bincode::Options as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{BatchNumber, Bye, Cursor, Hello, Message, Refusal, ShortId};
use crate::event::{BlobHash, LedgerId};
use crate::segment::{self, Codec, Item, Past, Reader, SegmentFault, Shape, Writer};
use crate::{Error, ErrorKind, Result};

/// The most bytes of a message.
pub const MOST_MESSAGE_BYTES: usize = 16 << 20;
/// The most bytes that the events of a batch have when they are not compressed.
const MOST_RAW_BYTES: usize = 32 << 20;

/// How the events of batches are written.
const SHAPE: Shape = Shape { codec: Codec::Zstd, level: 3, block_events: 4_096 };

const HELLO: u8 = 1;
const WANTS: u8 = 2;
const BEGINS: u8 = 3;
const OFFER: u8 = 4;
const WANT: u8 = 5;
const BATCH: u8 = 6;
const ACK: u8 = 7;
const REACHED: u8 = 8;
const WANT_BLOB: u8 = 9;
const BLOB: u8 = 10;
const NO_BLOB: u8 = 11;
const PING: u8 = 12;
const PONG: u8 = 13;
const BYE: u8 = 14;

/// What bytes need that a message does not say: the ledger, and which events both sides know.
pub struct Framing<'a> {
    /// The ledger; `None` before it is known, when there are no events.
    pub ledger: Option<LedgerId>,
    /// Events by whose writer and number the events of a batch may name them. The receiver has to know them too: those
    /// that were sent to it, or came from it.
    pub past: &'a dyn Past,
}

fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new().with_limit(MOST_MESSAGE_BYTES as u64)
}

/// Puts the length before a message (u32, little-endian), and both after what there is.
pub fn join(body: &mut Vec<u8>, message: &[u8]) {
    body.extend((message.len() as u32).to_le_bytes());
    body.extend_from_slice(message);
}

/// Takes joined messages apart. `None` where one is cut; what comes after the first `most` of them is left out.
#[must_use]
pub fn split(mut body: &[u8], most: usize) -> Option<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while !body.is_empty() && messages.len() < most {
        let (length, rest) = body.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        messages.push(message);
        body = rest;
    }
    Some(messages)
}

/// The bytes of a message.
///
/// # Errors
/// `too_large` above [`MOST_MESSAGE_BYTES`]; `consistency` for events without a ledger.
pub fn encode(message: Message, framing: &Framing<'_>) -> Result<Vec<u8>> {
    let bytes = match message {
        Message::Hello(hello) => with(HELLO, &hello),
        Message::Wants(wants) => with(WANTS, &wants),
        Message::Begins { after, scope } => with(BEGINS, &(after, scope)),
        Message::Offer { batch, ids } => with(OFFER, &(batch, ids)),
        Message::Want { batch, bits } => with(WANT, &(batch, bits)),
        Message::Batch { batch, upto, events } => return put_batch(batch, upto, events, framing),
        Message::Ack { batch, cursor, refused } => with(ACK, &(batch, cursor, refused)),
        Message::Reached => with(REACHED, &()),
        Message::WantBlob { hash, offset } => with(WANT_BLOB, &(hash, offset)),
        Message::Blob { hash, total, offset, bytes } => with(BLOB, &(hash, total, offset, bytes)),
        Message::NoBlob(hash) => with(NO_BLOB, &hash),
        Message::Ping => with(PING, &()),
        Message::Pong => with(PONG, &()),
        Message::Bye(bye) => with(BYE, &bye),
    };
    bytes.map_err(|_| too_large())
}

fn with<T: Serialize>(kind: u8, fields: &T) -> bincode::Result<Vec<u8>> {
    let mut bytes = vec![kind];
    options().serialize_into(&mut bytes, fields)?;
    Ok(bytes)
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, format!("a message has at most {} MiB", MOST_MESSAGE_BYTES >> 20))
}

fn put_batch(batch: BatchNumber, upto: Cursor, events: Vec<Item>, framing: &Framing<'_>) -> Result<Vec<u8>> {
    let mut bytes = with(BATCH, &(batch, upto)).map_err(|_| too_large())?;
    if events.is_empty() {
        return Ok(bytes);
    }
    let ledger = framing.ledger.ok_or_else(|| Error::new(ErrorKind::Consistency, "events belong to no ledger"))?;
    let mut writer = Writer::with_past(ledger, SHAPE, framing.past).expecting(events.len());
    events.into_iter().try_for_each(|item| writer.add(item))?;
    if let Some((_, segment)) = writer.finish()? {
        bytes.extend_from_slice(&segment);
    }
    if bytes.len() > MOST_MESSAGE_BYTES { Err(too_large()) } else { Ok(bytes) }
}

/// The message that bytes are.
///
/// # Errors
/// `too_large`; `validation` for bytes that are none; `ledger_mismatch` for events of another ledger; `corrupt` for
/// events that are not what their hashes say.
pub fn decode(bytes: &[u8], framing: &Framing<'_>) -> Result<Message> {
    if bytes.len() > MOST_MESSAGE_BYTES {
        return Err(too_large());
    }
    let (kind, fields) = bytes.split_first().ok_or_else(|| malformed("it is empty"))?;
    Ok(match *kind {
        HELLO => Message::Hello(take::<Hello>(fields)?),
        WANTS => Message::Wants(take(fields)?),
        BEGINS => {
            let (after, scope) = take::<(u64, String)>(fields)?;
            Message::Begins { after, scope }
        }
        OFFER => {
            let (batch, ids) = take::<(BatchNumber, Vec<ShortId>)>(fields)?;
            Message::Offer { batch, ids }
        }
        WANT => {
            let (batch, bits) = take::<(BatchNumber, Vec<u8>)>(fields)?;
            Message::Want { batch, bits }
        }
        BATCH => take_batch(fields, framing)?,
        ACK => {
            let (batch, cursor, refused) = take::<(BatchNumber, Option<Cursor>, Vec<Refusal>)>(fields)?;
            Message::Ack { batch, cursor, refused }
        }
        REACHED => take::<()>(fields).map(|()| Message::Reached)?,
        WANT_BLOB => {
            let (hash, offset) = take::<(BlobHash, u64)>(fields)?;
            Message::WantBlob { hash, offset }
        }
        BLOB => {
            let (hash, total, offset, bytes) = take::<(BlobHash, u64, u64, Vec<u8>)>(fields)?;
            Message::Blob { hash, total, offset, bytes }
        }
        NO_BLOB => Message::NoBlob(take(fields)?),
        PING => take::<()>(fields).map(|()| Message::Ping)?,
        PONG => take::<()>(fields).map(|()| Message::Pong)?,
        BYE => Message::Bye(take::<Bye>(fields)?),
        other => return Err(malformed(&format!("there is no kind {other}"))),
    })
}

fn take<T: DeserializeOwned>(fields: &[u8]) -> Result<T> {
    options().deserialize(fields).map_err(|_| malformed("its fields are cut off, or followed by others"))
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Validation, format!("this is no message of a replication session: {what}"))
        .with_hint("is the other side a syncledger replica?")
}

fn take_batch(fields: &[u8], framing: &Framing<'_>) -> Result<Message> {
    let mut rest = fields;
    let read = options().allow_trailing_bytes().deserialize_from::<_, (BatchNumber, Cursor)>(&mut rest);
    let (batch, upto) = read.map_err(|_| malformed("its fields are cut off"))?;
    let events = if rest.is_empty() { Vec::new() } else { take_events(rest, framing)? };
    Ok(Message::Batch { batch, upto, events })
}

fn take_events(segment: &[u8], framing: &Framing<'_>) -> Result<Vec<Item>> {
    let length = segment::Head::bytes(segment)?;
    let (head, mut body) =
        segment.split_at_checked(length).ok_or_else(|| Error::from(SegmentFault::BreaksOff("head")))?;
    let head = segment::Head::decode(head)?;
    if framing.ledger != Some(head.ledger) {
        let ours = framing.ledger.map_or_else(|| "none yet".to_owned(), |ledger| ledger.to_string());
        let message = format!("expected events of ledger {ours}, got those of {}", head.ledger);
        return Err(Error::new(ErrorKind::LedgerMismatch, message));
    }
    let raw = head.blocks.iter().fold(0_usize, |sum, block| sum.saturating_add(block.raw));
    if raw > MOST_RAW_BYTES {
        let (limit, message) = (MOST_RAW_BYTES >> 20, "the events of a batch have too many bytes");
        return Err(Error::new(ErrorKind::TooLarge, format!("{message}: {raw}, the limit is {limit} MiB")));
    }
    let mut reader = Reader::with_past(head, framing.past);
    let mut events = Vec::new();
    while let Some(block) = reader.next_block() {
        let (stored, rest) =
            body.split_at_checked(block.stored).ok_or_else(|| Error::from(SegmentFault::BreaksOff("blocks")))?;
        events.extend(reader.read(stored)?);
        body = rest;
    }
    if body.is_empty() { Ok(events) } else { Err(malformed("bytes follow its events")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split_again_and_what_is_cut_is_no_message() {
        let messages = [vec![1, 2, 3], Vec::new(), vec![4; 300]];
        let mut body = Vec::new();
        messages.iter().for_each(|message| join(&mut body, message));
        assert_eq!(split(&body, 9).unwrap(), messages);
        assert_eq!(split(&body, 2).unwrap(), messages[..2]);
        for cut in (1..body.len()).filter(|cut| ![7, 11].contains(cut)) {
            assert_eq!(split(&body[..cut], 9), None, "{cut}");
        }
    }
}
