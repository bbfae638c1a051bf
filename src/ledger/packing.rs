//! How events lie in the frames of the log: several to a frame, without what the event before implies.
//!
//! A frame's payload is a sequence of entries, each its length (u32, little endian) and the bincode of [`Packed`]. The
//! layout is part of the format: `docs/format.md` describes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::request::Entry;
use crate::event::{
    BatchMember, Body, ConflictId, DecodeError, Event, EventId, Idempotency, LedgerId, RunId, Timestamp, WriterId,
};
use crate::journal::Frame;
use crate::{Error, ErrorKind};

/// What a frame holds at most, unless one event alone is larger: with its envelope it fits the largest value that sled
/// keeps inside its pages.
const PAYLOAD_BYTES: usize = 4_096 - 96;

/// A field of the event before, or another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Same<T> {
    Same,
    Other(T),
}

impl<'a, T: ?Sized + ToOwned + PartialEq> Same<Cow<'a, T>> {
    fn pack(value: &'a T, before: Option<&T>) -> Self {
        if before == Some(value) { Self::Same } else { Self::Other(Cow::Borrowed(value)) }
    }

    fn unpack(self, before: Option<&T>) -> Option<T::Owned> {
        match self {
            Self::Same => before.map(T::to_owned),
            Self::Other(value) => Some(value.into_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum BatchPlace {
    None,
    /// The place after that of the event before.
    Next,
    Other(BatchMember),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Packed<'a> {
    previous: u64,
    /// Milliseconds after the entry before.
    received: i64,
    brought_by: Same<Cow<'a, Option<RunId>>>,
    collection: Same<Cow<'a, str>>,
    key: Same<Cow<'a, str>>,
    writer: Same<Cow<'a, WriterId>>,
    sequence: u64,
    lane: u32,
    nth: u32,
    /// `Same`: the event before is the only parent.
    parents: Same<Cow<'a, [EventId]>>,
    /// Milliseconds after the event before.
    at: i64,
    counter: u32,
    /// Milliseconds after `at`.
    occurred: Option<i64>,
    source: Same<Cow<'a, str>>,
    principal: Same<Cow<'a, Option<String>>>,
    reason: Same<Cow<'a, Option<String>>>,
    run: Same<Cow<'a, Option<RunId>>>,
    delivery: bool,
    idempotency: Cow<'a, Option<Idempotency>>,
    batch: BatchPlace,
    resolves: Option<ConflictId>,
    reverts: Option<EventId>,
    body: Cow<'a, Body>,
}

impl<'a> Packed<'a> {
    fn pack(entry: &'a Entry, before: Option<&Entry>) -> Self {
        let (event, prior) = (&entry.event, before.map(|entry| &entry.event));
        Self {
            previous: entry.previous,
            received: entry.received_at.wrapping_sub(before.map_or(0, |entry| entry.received_at)),
            brought_by: Same::pack(&entry.run, before.map(|entry| &entry.run)),
            collection: Same::pack(event.collection.as_str(), prior.map(|event| event.collection.as_str())),
            key: Same::pack(event.key.as_str(), prior.map(|event| event.key.as_str())),
            writer: Same::pack(&event.writer, prior.map(|event| &event.writer)),
            sequence: event.sequence,
            lane: event.lane,
            nth: event.nth,
            parents: match event.parents.as_slice() {
                [only] if before.is_some_and(|entry| entry.id == *only) => Same::Same,
                _ => Same::Other(Cow::Borrowed(&event.parents)),
            },
            at: event.at.millis.wrapping_sub(prior.map_or(0, |event| event.at.millis)),
            counter: event.at.counter,
            occurred: event.occurred_at.map(|occurred| occurred.wrapping_sub(event.at.millis)),
            source: Same::pack(event.source.as_str(), prior.map(|event| event.source.as_str())),
            principal: Same::pack(&event.principal, prior.map(|event| &event.principal)),
            reason: Same::pack(&event.reason, prior.map(|event| &event.reason)),
            run: Same::pack(&event.run, prior.map(|event| &event.run)),
            delivery: event.delivery,
            idempotency: Cow::Borrowed(&event.idempotency),
            batch: pack_batch(event.batch, prior.and_then(|event| event.batch)),
            resolves: event.resolves,
            reverts: event.reverts,
            body: Cow::Borrowed(&event.body),
        }
    }

    /// The entry, but for its id and for parents that are the entry before.
    fn unpack(self, position: u64, before: Option<&Entry>) -> Option<Unpacked> {
        let prior = before.map(|entry| &entry.event);
        let millis = self.at.wrapping_add(prior.map_or(0, |event| event.at.millis));
        let (follows, parents) = match self.parents {
            Same::Same => (before.map(|_| true)?, Vec::new()),
            Same::Other(parents) => (false, parents.into_owned()),
        };
        let event = Event {
            collection: self.collection.unpack(prior.map(|event| event.collection.as_str()))?,
            key: self.key.unpack(prior.map(|event| event.key.as_str()))?,
            writer: self.writer.unpack(prior.map(|event| &event.writer))?,
            sequence: self.sequence,
            lane: self.lane,
            nth: self.nth,
            parents,
            at: Timestamp { millis, counter: self.counter },
            occurred_at: self.occurred.map(|occurred| occurred.wrapping_add(millis)),
            source: self.source.unpack(prior.map(|event| event.source.as_str()))?,
            principal: self.principal.unpack(prior.map(|event| &event.principal))?,
            reason: self.reason.unpack(prior.map(|event| &event.reason))?,
            run: self.run.unpack(prior.map(|event| &event.run))?,
            delivery: self.delivery,
            idempotency: self.idempotency.into_owned(),
            batch: unpack_batch(self.batch, prior.and_then(|event| event.batch))?,
            resolves: self.resolves,
            reverts: self.reverts,
            body: self.body.into_owned(),
        };
        let received_at = self.received.wrapping_add(before.map_or(0, |entry| entry.received_at));
        let run = self.brought_by.unpack(before.map(|entry| &entry.run))?;
        let (previous, id) = (self.previous, EventId([0; 32]));
        let entry = Entry { position, id, received_at, run, previous, event };
        Some(Unpacked { entry, follows, identified: false })
    }
}

fn next_place(before: Option<BatchMember>) -> Option<BatchMember> {
    before.map(|member| BatchMember { index: member.index.wrapping_add(1), ..member })
}

fn pack_batch(batch: Option<BatchMember>, before: Option<BatchMember>) -> BatchPlace {
    match batch {
        None => BatchPlace::None,
        next if next == next_place(before) => BatchPlace::Next,
        Some(other) => BatchPlace::Other(other),
    }
}

fn unpack_batch(batch: BatchPlace, before: Option<BatchMember>) -> Option<Option<BatchMember>> {
    match batch {
        BatchPlace::None => Some(None),
        BatchPlace::Next => next_place(before).map(Some),
        BatchPlace::Other(member) => Some(Some(member)),
    }
}

/// The limit holds for reading; what is written is no larger than its event, which has a limit of its own.
fn options() -> impl bincode::Options {
    use bincode::Options as _;
    bincode::DefaultOptions::new()
        .with_little_endian()
        .with_varint_encoding()
        .with_limit(1 << 17)
        .reject_trailing_bytes()
}

/// Appends an entry after its length.
fn put(payload: &mut Vec<u8>, packed: &Packed<'_>) -> bincode::Result<()> {
    use bincode::Options as _;
    let start = payload.len();
    payload.extend_from_slice(&[0; 4]);
    options().with_no_limit().serialize_into(&mut *payload, packed)?;
    let length = u32::try_from(payload.len() - start - 4).unwrap_or(u32::MAX).to_le_bytes();
    payload
        .get_mut(start..)
        .into_iter()
        .for_each(|bytes| bytes.iter_mut().zip(length).for_each(|(at, byte)| *at = byte));
    Ok(())
}

/// Packs entries, whose positions follow each other, into frames.
pub(crate) fn pack(entries: &[Entry]) -> Result<Vec<Frame>, Error> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut before: Option<&Entry> = None;
    for entry in entries {
        let fault =
            |fault: bincode::Error| Error::new(ErrorKind::TooLarge, format!("the event cannot be packed: {fault}"));
        if let Some(frame) = frames.last_mut() {
            let end = frame.payload.len();
            put(&mut frame.payload, &Packed::pack(entry, before)).map_err(fault)?;
            if frame.payload.len() <= PAYLOAD_BYTES {
                (frame.last, before) = (entry.position, Some(entry));
                continue;
            }
            frame.payload.truncate(end);
        }
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        put(&mut payload, &Packed::pack(entry, None)).map_err(fault)?;
        frames.push(Frame { first: entry.position, last: entry.position, payload });
        before = Some(entry);
    }
    Ok(frames)
}

/// The entries of a frame.
pub(crate) fn unpack(ledger: LedgerId, frame: &Frame) -> Result<Vec<Entry>, Error> {
    let mut page = Page::of(ledger, frame)?;
    for index in 0..page.entries.len() {
        page.identify(index)?;
    }
    Ok(page.entries.into_iter().map(|unpacked| unpacked.entry).collect())
}

/// An entry of a frame, perhaps without its id.
struct Unpacked {
    entry: Entry,
    /// Its only parent is the entry before.
    follows: bool,
    identified: bool,
}

/// The entries of a frame, of which those get their ids that are asked for: to hash them takes as long as the rest.
pub(crate) struct Page {
    ledger: LedgerId,
    entries: Vec<Unpacked>,
}

impl Page {
    pub(crate) fn of(ledger: LedgerId, frame: &Frame) -> Result<Self, Error> {
        let mut entries: Vec<Unpacked> = Vec::new();
        let mut rest = frame.payload.as_slice();
        for position in frame.first..=frame.last {
            let before = entries.last().map(|unpacked| &unpacked.entry);
            let (unpacked, after) = unpack_one(ledger, position, rest, before)?;
            entries.push(unpacked);
            rest = after;
        }
        if rest.is_empty() {
            Ok(Self { ledger, entries })
        } else {
            Err(corrupt(ledger, frame.last, "bytes are left over"))
        }
    }

    /// The entry at a position; `None` where it is not in the frame.
    pub(crate) fn at(&mut self, position: u64) -> Result<Option<Entry>, Error> {
        let first = self.entries.first().map_or(0, |unpacked| unpacked.entry.position);
        let Some(index) = position.checked_sub(first).and_then(|index| usize::try_from(index).ok()) else {
            return Ok(None);
        };
        self.identify(index)?;
        Ok(self.entries.get(index).map(|unpacked| unpacked.entry.clone()))
    }

    /// Gives an entry its id, after those that it follows.
    fn identify(&mut self, index: usize) -> Result<(), Error> {
        let done = |unpacked: &Unpacked| unpacked.identified || !unpacked.follows;
        let until = self.entries.get(..=index).unwrap_or_default();
        let start = until.iter().rposition(done).unwrap_or(0);
        let mut before = start.checked_sub(1).and_then(|index| self.entries.get(index)).map(|u| u.entry.id);
        for unpacked in self.entries.get_mut(start..=index).unwrap_or_default() {
            if !unpacked.identified {
                unpacked.identify(self.ledger, before)?;
            }
            before = Some(unpacked.entry.id);
        }
        Ok(())
    }
}

impl Unpacked {
    fn identify(&mut self, ledger: LedgerId, before: Option<EventId>) -> Result<(), Error> {
        if self.follows {
            self.entry.event.parents.extend(before);
        }
        let identified = self.entry.event.identify(ledger);
        let fault = |fault: DecodeError| corrupt(ledger, self.entry.position, &fault.to_string());
        (self.entry.id, self.identified) = (identified.map_err(fault)?.0, true);
        Ok(())
    }
}

fn unpack_one<'a>(
    ledger: LedgerId,
    position: u64,
    rest: &'a [u8],
    before: Option<&Entry>,
) -> Result<(Unpacked, &'a [u8]), Error> {
    use bincode::Options as _;
    let short = || corrupt(ledger, position, "the frame breaks off");
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let packed: Packed<'_> =
        options().deserialize(bytes).map_err(|fault| corrupt(ledger, position, &fault.to_string()))?;
    let unpacked = packed.unpack(position, before);
    Ok((unpacked.ok_or_else(|| corrupt(ledger, position, "it has no event before"))?, rest))
}

fn corrupt(ledger: LedgerId, position: u64, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("ledger {} has a damaged event at position {position}: {why}", ledger.short()),
    )
    .with_hint("run `syncledger verify`, then pull the events again from another replica")
}
