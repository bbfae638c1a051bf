//! How events lie in the frames of the log: several to a frame, without what the event before implies.
//!
//! A frame's payload is a sequence of entries, each its length (u32, little endian) and the bincode of its fields, which is
//! written and read by hand. The layout is part of the format: `docs/format.md` describes it.

use super::request::Entry;
use crate::event::binary::{Put as _, Take, put_body, put_idempotency, put_ids, put_member, put_text};
use crate::event::{BatchMember, ConflictId, DecodeError, Event, EventId, LedgerId, RunId, Timestamp, WriterId};
use crate::journal::{Append, Frame, Journal};
use crate::{Error, ErrorKind};

/// What a frame holds at most, unless one event alone is larger: with its envelope it fits the largest value that sled
/// keeps inside its pages.
const PAYLOAD_BYTES: usize = 4_096 - 96;

/// What the bytes of an entry are at most: more than those of the largest event.
const ENTRY_BYTES: usize = 1 << 17;
/// What they are at least, with their length.
const FEWEST_ENTRY_BYTES: usize = 24;

/// The first byte of a field that is as in the event before, and of one that is not.
const SAME: u8 = 0;
const OTHER: u8 = 1;

/// Appends a field, unless it is as in the event before.
fn put_same<T: PartialEq + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    before: Option<&T>,
    put: impl FnOnce(&mut Vec<u8>, &T),
) {
    if before == Some(value) {
        return out.push(SAME);
    }
    out.push(OTHER);
    put(out, value);
}

/// Takes a field that may be as in the event before.
fn take_same<'a, T>(
    take: &mut Take<'a>,
    before: Option<T>,
    other: impl FnOnce(&mut Take<'a>) -> Option<T>,
) -> Option<T> {
    match take.byte()? {
        SAME => before,
        OTHER => other(take),
        _ => None,
    }
}

fn put_run(out: &mut Vec<u8>, run: &Option<RunId>) {
    out.put_option(*run, |out, run| out.put_raw(&run.0));
}

fn take_run(take: &mut Take<'_>) -> Option<Option<RunId>> {
    take.option(|take| take.array().map(RunId))
}

/// Appends the fields of an entry, in the order of the table in `docs/format.md`.
fn put_fields(out: &mut Vec<u8>, entry: &Entry, before: Option<&Entry>) {
    let (event, prior) = (&entry.event, before.map(|entry| &entry.event));
    let text = |out: &mut Vec<u8>, text: &str| out.put_sized(text.as_bytes());
    let optional = |out: &mut Vec<u8>, text: &Option<String>| put_text(out, text.as_deref());
    out.put_u64(entry.previous);
    out.put_i64(entry.received_at.wrapping_sub(before.map_or(0, |entry| entry.received_at)));
    put_same(out, &entry.run, before.map(|entry| &entry.run), put_run);
    put_same(out, event.collection.as_str(), prior.map(|event| event.collection.as_str()), text);
    put_same(out, event.key.as_str(), prior.map(|event| event.key.as_str()), text);
    put_same(out, &event.writer, prior.map(|event| &event.writer), |out, writer| out.put_raw(&writer.0));
    out.put_u64(event.sequence);
    out.put_u64(event.lane.into());
    out.put_u64(event.nth.into());
    put_parents(out, &event.parents, before);
    out.put_i64(event.at.millis.wrapping_sub(prior.map_or(0, |event| event.at.millis)));
    out.put_u64(event.at.counter.into());
    out.put_option(event.occurred_at, |out, occurred| out.put_i64(occurred.wrapping_sub(event.at.millis)));
    put_same(out, event.source.as_str(), prior.map(|event| event.source.as_str()), text);
    put_same(out, &event.principal, prior.map(|event| &event.principal), optional);
    put_same(out, &event.reason, prior.map(|event| &event.reason), optional);
    put_same(out, &event.run, prior.map(|event| &event.run), put_run);
    out.push(event.delivery.into());
    put_idempotency(out, event.idempotency.as_ref());
    put_batch(out, event.batch, prior.and_then(|event| event.batch));
    out.put_option(event.resolves, |out, conflict| out.put_raw(&conflict.0));
    out.put_option(event.reverts, |out, event| out.put_raw(&event.0));
    put_body(out, &event.body);
}

/// *Same*: the event before is the only parent.
fn put_parents(out: &mut Vec<u8>, parents: &[EventId], before: Option<&Entry>) {
    match parents {
        [only] if before.is_some_and(|entry| entry.id == *only) => out.push(SAME),
        parents => {
            out.push(OTHER);
            put_ids(out, parents);
        }
    }
}

/// The entry that these are the fields of, but for its id and for parents that are the entry before.
fn take_fields<'a>(take: &mut Take<'a>, position: u64, before: Option<&'a Entry>) -> Option<Unpacked> {
    let prior = before.map(|entry| &entry.event);
    let text = |take: &mut Take<'_>| take.text().map(str::to_owned);
    let previous = take.u64()?;
    let received_at = take.i64()?.wrapping_add(before.map_or(0, |entry| entry.received_at));
    let run = take_same(take, before.map(|entry| entry.run), take_run)?;
    let collection = take_same(take, prior.map(|event| event.collection.as_str()), Take::text)?.to_owned();
    let key = take_same(take, prior.map(|event| event.key.as_str()), Take::text)?.to_owned();
    let writer = take_same(take, prior.map(|event| event.writer), |take| take.array().map(WriterId))?;
    let (sequence, lane, nth) = (take.u64()?, take.u32()?, take.u32()?);
    let parents = take_same(take, before.map(|_| None), |take| take.ids().map(Some))?;
    let millis = take.i64()?.wrapping_add(prior.map_or(0, |event| event.at.millis));
    let at = Timestamp { millis, counter: take.u32()? };
    let occurred_at = take.option(|take| Some(take.i64()?.wrapping_add(millis)))?;
    let source = take_same(take, prior.map(|event| event.source.as_str()), Take::text)?.to_owned();
    let principal = match take.byte()? {
        SAME => prior?.principal.clone(),
        OTHER => take.option(text)?,
        _ => return None,
    };
    let reason = match take.byte()? {
        SAME => prior?.reason.clone(),
        OTHER => take.option(text)?,
        _ => return None,
    };
    let event = Event {
        collection,
        key,
        writer,
        sequence,
        lane,
        nth,
        at,
        occurred_at,
        source,
        principal,
        reason,
        run: take_same(take, prior.map(|event| event.run), take_run)?,
        delivery: take.flag()?,
        idempotency: take.option(Take::idempotency)?,
        batch: take_batch(take, prior.and_then(|event| event.batch))?,
        resolves: take.option(|take| take.array().map(ConflictId))?,
        reverts: take.option(|take| take.array().map(EventId))?,
        body: take.body()?,
        parents: Vec::new(),
    };
    let (follows, parents) = (parents.is_none(), parents.unwrap_or_default());
    let entry =
        Entry { position, id: EventId([0; 32]), received_at, run, previous, event: Event { parents, ..event } };
    take.0.is_empty().then_some(Unpacked { entry, follows, identified: false })
}

fn next_place(before: Option<BatchMember>) -> Option<BatchMember> {
    before.map(|member| BatchMember { index: member.index.wrapping_add(1), ..member })
}

/// 0 none, 1 the place after that of the event before, 2 another.
fn put_batch(out: &mut Vec<u8>, batch: Option<BatchMember>, before: Option<BatchMember>) {
    match batch {
        None => out.push(0),
        next if next == next_place(before) => out.push(1),
        Some(other) => {
            out.push(2);
            put_member(out, other);
        }
    }
}

fn take_batch(take: &mut Take<'_>, before: Option<BatchMember>) -> Option<Option<BatchMember>> {
    match take.byte()? {
        0 => Some(None),
        1 => next_place(before).map(Some),
        2 => take.member().map(Some),
        _ => None,
    }
}

/// Appends an entry after its length.
fn put(payload: &mut Vec<u8>, entry: &Entry, before: Option<&Entry>) -> Result<(), Error> {
    let start = payload.len();
    payload.extend_from_slice(&[0; 4]);
    put_fields(payload, entry, before);
    let length = payload.len() - start - 4;
    if length > ENTRY_BYTES {
        let message = format!("the event cannot be packed: expected at most {ENTRY_BYTES} bytes, got {length}");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let bytes = payload.get_mut(start..).unwrap_or_default();
    bytes.iter_mut().zip((length as u32).to_le_bytes()).for_each(|(at, byte)| *at = byte);
    Ok(())
}

/// Packs entries, whose positions follow each other, into frames.
pub(crate) fn pack(entries: &[Entry]) -> Result<Vec<Frame>, Error> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut before: Option<&Entry> = None;
    for entry in entries {
        if let Some(frame) = frames.last_mut() {
            let end = frame.payload.len();
            put(&mut frame.payload, entry, before)?;
            if frame.payload.len() <= PAYLOAD_BYTES {
                (frame.last, before) = (entry.position, Some(entry));
                continue;
            }
            frame.payload.truncate(end);
        }
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        put(&mut payload, entry, None)?;
        frames.push(Frame { first: entry.position, last: entry.position, payload });
        before = Some(entry);
    }
    Ok(frames)
}

/// Appends entries to the log that they follow. Returns how many bytes their frames take.
pub(crate) fn append(journal: &dyn Journal, ledger: LedgerId, entries: &[Entry]) -> Result<u64, Error> {
    let Some(first) = entries.first() else { return Ok(0) };
    let frames = pack(entries)?;
    let bytes = frames.iter().map(|frame| frame.payload.len() as u64).sum();
    journal.append(&[Append { ledger, expected_head: first.position.saturating_sub(1), frames }])?;
    Ok(bytes)
}

/// The entries of a frame.
pub(crate) fn unpack(ledger: LedgerId, frame: &Frame) -> Result<impl Iterator<Item = Entry> + use<>, Error> {
    let mut page = Page::of(ledger, frame)?;
    for index in 0..page.entries.len() {
        page.identify(index)?;
    }
    Ok(page.entries.into_iter().map(|unpacked| unpacked.entry))
}

/// How many entries a frame says that it has, and at most as many as its bytes can hold.
pub(crate) fn count(frame: &Frame) -> usize {
    let said = usize::try_from(frame.last.saturating_sub(frame.first).saturating_add(1)).unwrap_or(usize::MAX);
    said.min(frame.payload.len() / FEWEST_ENTRY_BYTES + 1)
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
    /// Where events are encoded to be hashed.
    buffer: Vec<u8>,
}

impl Page {
    pub(crate) fn of(ledger: LedgerId, frame: &Frame) -> Result<Self, Error> {
        let mut entries: Vec<Unpacked> = Vec::with_capacity(count(frame));
        let mut rest = frame.payload.as_slice();
        for position in frame.first..=frame.last {
            let before = entries.last().map(|unpacked| &unpacked.entry);
            let (unpacked, after) = unpack_one(ledger, position, rest, before)?;
            entries.push(unpacked);
            rest = after;
        }
        if rest.is_empty() {
            Ok(Self { ledger, entries, buffer: Vec::new() })
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
                unpacked.identify(self.ledger, before, &mut self.buffer)?;
            }
            before = Some(unpacked.entry.id);
        }
        Ok(())
    }
}

impl Unpacked {
    fn identify(&mut self, ledger: LedgerId, before: Option<EventId>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        if self.follows {
            self.entry.event.parents.extend(before);
        }
        let id = self.entry.event.id_in(ledger, buffer);
        let fault = |fault: DecodeError| corrupt(ledger, self.entry.position, &fault.to_string());
        (self.entry.id, self.identified) = (id.map_err(fault)?, true);
        Ok(())
    }
}

fn unpack_one<'a>(
    ledger: LedgerId,
    position: u64,
    rest: &'a [u8],
    before: Option<&Entry>,
) -> Result<(Unpacked, &'a [u8]), Error> {
    let short = || corrupt(ledger, position, "the frame breaks off");
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    if bytes.len() > ENTRY_BYTES {
        return Err(corrupt(ledger, position, "it is larger than any event"));
    }
    let unpacked = take_fields(&mut Take(bytes), position, before);
    Ok((unpacked.ok_or_else(|| corrupt(ledger, position, "its bytes are no event after the one before"))?, rest))
}

fn corrupt(ledger: LedgerId, position: u64, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("ledger {} has a damaged event at position {position}: {why}", ledger.short()),
    )
    .with_hint("run `syncledger verify`, then pull the events again from another replica")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bincode::Options as _;
    use serde::Serialize;

    use super::*;
    use crate::event::{BatchId, Body, Idempotency};
    use crate::testing::{History, LEDGER, Rng};

    // What the fields of an entry are, as serde sees them.

    /// A field of the event before, or another.
    #[derive(Serialize)]
    enum Same<T> {
        Same,
        Other(T),
    }

    impl<'a, T: ?Sized + ToOwned + PartialEq> Same<Cow<'a, T>> {
        fn pack(value: &'a T, before: Option<&T>) -> Self {
            if before == Some(value) { Self::Same } else { Self::Other(Cow::Borrowed(value)) }
        }
    }

    #[derive(Serialize)]
    enum BatchPlace {
        None,
        /// The place after that of the event before.
        Next,
        Other(BatchMember),
    }

    #[derive(Serialize)]
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
                batch: match event.batch {
                    None => BatchPlace::None,
                    next if next == next_place(prior.and_then(|event| event.batch)) => BatchPlace::Next,
                    Some(other) => BatchPlace::Other(other),
                },
                resolves: event.resolves,
                reverts: event.reverts,
                body: Cow::Borrowed(&event.body),
            }
        }
    }

    /// Entries of several histories one after another, with what a log keeps beside an event.
    fn entries(seed: u64) -> Vec<Entry> {
        let mut rng = Rng::new(seed);
        let events = (seed * 5..seed * 5 + 5).flat_map(|seed| History::new(seed).events);
        let runs = [None, Some(RunId([1; 16])), Some(RunId([2; 16]))];
        let mut entries: Vec<Entry> = Vec::new();
        for (position, (_, mut event)) in (1..).zip(events) {
            let texts = [None, Some("ann".to_owned()), Some("because".repeat(30))];
            event.parents.extend(entries.last().filter(|_| rng.one_in(2)).map(|entry| entry.id));
            event.parents.sort();
            event.parents.dedup();
            (event.principal, event.reason) = (rng.pick(&texts).clone(), rng.pick(&texts).clone());
            (event.run, event.delivery) = (*rng.pick(&runs), rng.one_in(3));
            event.occurred_at = *rng.pick(&[None, Some(i64::MIN), Some(5)]);
            let request = Idempotency { key: "k".into(), request_hash: [9; 32] };
            event.idempotency = Some(request).filter(|_| rng.one_in(3));
            let before = entries.last().and_then(|entry| entry.event.batch);
            let other = Some(BatchMember { id: BatchId([8; 16]), index: 0, count: 4_096 });
            event.batch = [None, other, next_place(before)][rng.below(3)];
            event.resolves = Some(ConflictId([3; 32])).filter(|_| rng.one_in(5));
            let (previous, received_at) = (rng.below(position as usize) as u64, rng.next() as i64);
            let id = event.identify(LEDGER).unwrap().0;
            entries.push(Entry { position, id, received_at, run: *rng.pick(&runs), previous, event });
        }
        entries
    }

    #[test]
    fn fields_by_hand_are_those_of_bincode_and_come_back() {
        let options = bincode::DefaultOptions::new().with_little_endian().with_varint_encoding();
        for seed in 1..20 {
            let entries = entries(seed);
            for (index, entry) in entries.iter().enumerate() {
                let before = index.checked_sub(1).map(|before| &entries[before]);
                let mut bytes = Vec::new();
                put_fields(&mut bytes, entry, before);
                assert_eq!(bytes, options.serialize(&Packed::pack(entry, before)).unwrap());
                for length in 0..bytes.len() {
                    assert!(take_fields(&mut Take(&bytes[..length]), entry.position, before).is_none());
                }
            }
            let frames = pack(&entries).unwrap();
            assert!(frames.len() > 3);
            let again: Vec<Entry> = frames.iter().flat_map(|frame| unpack(LEDGER, frame).unwrap()).collect();
            assert_eq!(again, entries);
            let counts: usize = frames.iter().map(count).sum();
            assert_eq!(counts, entries.len(), "no entry has fewer bytes than are taken for the fewest");
        }
    }

    #[test]
    fn changed_bytes_of_a_frame_never_panic() {
        let (mut rng, mut refused) = (Rng::new(3), 0);
        for frame in pack(&entries(4)).unwrap() {
            for _ in 0..300 {
                let mut changed = frame.clone();
                let at = rng.below(changed.payload.len());
                changed.payload[at] ^= 1 << rng.below(8);
                refused += usize::from(unpack(LEDGER, &changed).is_err());
            }
        }
        assert!(refused > 300, "{refused}");
    }
}
