//! bincode's bytes by hand: those of an event, and the parts that the frames of a log share with it.
//!
//! Every event is encoded whenever its id is made: where it is written, pulled, sealed, replayed and verified. Through serde
//! that takes some eight times as long.
//!
//! Invariant: what is written here is what bincode 1.3.3 writes for the same value with little-endian integers of variable
//! length; tests compare the two. What is read here is only what is written here: an integer in more bytes than it needs is
//! refused, and nothing is reserved for a count that the bytes have yet to keep.

use super::{
    BatchId, BatchMember, BlobForm, BlobHash, BlobRef, Body, Container, Event, EventId, Idempotency, Op, Path, Value,
};

/// For how many elements room is made before they are read.
const ROOM: usize = 64;

/// Appends values to bytes.
pub(crate) trait Put {
    /// Appends an integer.
    fn put_u64(&mut self, value: u64);
    /// Appends bytes as they are.
    fn put_raw(&mut self, bytes: &[u8]);

    /// Appends a signed integer.
    fn put_i64(&mut self, value: i64) {
        self.put_u64(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Appends a text, or bytes, after their length.
    fn put_sized(&mut self, bytes: &[u8]) {
        self.put_u64(bytes.len() as u64);
        self.put_raw(bytes);
    }

    /// Appends what may not be there.
    fn put_option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_raw(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            put(self, value);
        }
    }
}

impl Put for Vec<u8> {
    fn put_u64(&mut self, value: u64) {
        match value {
            0..=250 => self.push(value as u8),
            251..=0xffff => {
                let [a, b] = (value as u16).to_le_bytes();
                self.extend_from_slice(&[251, a, b]);
            }
            0x1_0000..=0xffff_ffff => {
                let [a, b, c, d] = (value as u32).to_le_bytes();
                self.extend_from_slice(&[252, a, b, c, d]);
            }
            _ => {
                self.push(253);
                self.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends an event's fields in their order.
pub(super) fn put_event(out: &mut Vec<u8>, event: &Event) {
    out.put_sized(event.collection.as_bytes());
    out.put_sized(event.key.as_bytes());
    out.put_raw(&event.writer.0);
    out.put_u64(event.sequence);
    out.put_u64(event.lane.into());
    out.put_u64(event.nth.into());
    put_ids(out, &event.parents);
    out.put_i64(event.at.millis);
    out.put_u64(event.at.counter.into());
    out.put_option(event.occurred_at, Vec::put_i64);
    out.put_sized(event.source.as_bytes());
    put_text(out, event.principal.as_deref());
    put_text(out, event.reason.as_deref());
    out.put_option(event.run, |out, run| out.put_raw(&run.0));
    out.push(event.delivery.into());
    put_idempotency(out, event.idempotency.as_ref());
    out.put_option(event.batch, put_member);
    out.put_option(event.resolves, |out, conflict| out.put_raw(&conflict.0));
    out.put_option(event.reverts, |out, event| out.put_raw(&event.0));
    put_body(out, &event.body);
}

/// Appends ids after their count.
pub(crate) fn put_ids(out: &mut Vec<u8>, ids: &[EventId]) {
    out.put_u64(ids.len() as u64);
    ids.iter().for_each(|id| out.put_raw(&id.0));
}

/// Appends a text that may not be there.
pub(crate) fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.put_option(text, |out, text| out.put_sized(text.as_bytes()));
}

/// Appends the request that an event answers.
pub(crate) fn put_idempotency(out: &mut Vec<u8>, request: Option<&Idempotency>) {
    out.put_option(request, |out, request| {
        out.put_sized(request.key.as_bytes());
        out.put_raw(&request.request_hash);
    });
}

/// Appends a place in a batch.
pub(crate) fn put_member(out: &mut Vec<u8>, member: BatchMember) {
    out.put_raw(&member.id.0);
    out.put_u64(member.index.into());
    out.put_u64(member.count.into());
}

/// Appends what an event does.
pub(crate) fn put_body(out: &mut Vec<u8>, body: &Body) {
    let Body::Ops(ops) = body;
    out.push(0);
    out.put_u64(ops.len() as u64);
    ops.iter().for_each(|op| put_op(out, op));
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    out.push(number(op));
    if let Some(path) = op.path() {
        out.put_sized(path.as_str().as_bytes());
    }
    match op {
        Op::Put { value, .. } | Op::SetAdd { member: value, .. } | Op::SetRemove { member: value, .. } => {
            put_value(out, value);
        }
        Op::PutAtomic { json, .. } => out.put_sized(json.as_bytes()),
        Op::Increment { by, .. } => out.put_i64(*by),
        Op::Insert { container, index, value } => {
            put_container(out, *container);
            out.put_u64(*index);
            put_value(out, value);
        }
        Op::RemoveAt { container, index } => {
            put_container(out, *container);
            out.put_u64(*index);
        }
        Op::SpliceText { container, index, delete, insert } => {
            put_container(out, *container);
            out.put_u64(*index);
            out.put_u64(*delete);
            out.put_sized(insert.as_bytes());
        }
        Op::Remove { .. }
        | Op::MakeSet { .. }
        | Op::MakeList { .. }
        | Op::MakeText { .. }
        | Op::Delete
        | Op::Restore => {}
    }
}

/// The number of an operation's kind, in events and in segments.
pub(crate) fn number(op: &Op) -> u8 {
    match op {
        Op::Put { .. } => 0,
        Op::PutAtomic { .. } => 1,
        Op::Remove { .. } => 2,
        Op::Increment { .. } => 3,
        Op::SetAdd { .. } => 4,
        Op::SetRemove { .. } => 5,
        Op::MakeSet { .. } => 6,
        Op::MakeList { .. } => 7,
        Op::MakeText { .. } => 8,
        Op::Insert { .. } => 9,
        Op::RemoveAt { .. } => 10,
        Op::SpliceText { .. } => 11,
        Op::Delete => 12,
        Op::Restore => 13,
    }
}

fn put_container(out: &mut Vec<u8>, container: Container) {
    match container {
        Container::Own(index) => {
            out.push(0);
            out.put_u64(index.into());
        }
        Container::Of(event, index) => {
            out.push(1);
            out.put_raw(&event.0);
            out.put_u64(index.into());
        }
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend_from_slice(&[1, (*value).into()]),
        Value::Int(value) => {
            out.push(2);
            out.put_i64(*value);
        }
        Value::Uint(value) => {
            out.push(3);
            out.put_u64(*value);
        }
        Value::Float(value) => {
            out.push(4);
            out.put_raw(&value.to_le_bytes());
        }
        Value::Text(text) => {
            out.push(5);
            out.put_sized(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(6);
            out.put_sized(bytes);
        }
        Value::EmptyObject => out.push(7),
        Value::Atomic(json) => {
            out.push(8);
            out.put_sized(json.as_bytes());
        }
        Value::Blob(blob) => put_blob(out, blob),
    }
}

fn put_blob(out: &mut Vec<u8>, blob: &BlobRef) {
    out.push(9);
    out.put_raw(&blob.hash.0);
    out.put_u64(blob.bytes);
    out.push(match blob.form {
        BlobForm::Text => 0,
        BlobForm::Bytes => 1,
        BlobForm::Json => 2,
    });
}

/// Bytes from which values are taken, from the front.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    /// The next bytes.
    pub(crate) fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// The next bytes of a fixed number.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// An integer in no more bytes than it needs.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (value, least) = match self.byte()? {
            short @ 0..=250 => return Some(short.into()),
            251 => (u16::from_le_bytes(self.array()?).into(), 251),
            252 => (u32::from_le_bytes(self.array()?).into(), 0x1_0000),
            253 => (u64::from_le_bytes(self.array()?), 0x1_0000_0000),
            _ => return None,
        };
        (value >= least).then_some(value)
    }

    /// A smaller integer.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    /// A signed integer.
    pub(crate) fn i64(&mut self) -> Option<i64> {
        let value = self.u64()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Whether, as a byte.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Bytes after their length.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.raw(length)
    }

    /// A text after its length.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    /// What may not be there.
    pub(crate) fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.flag()? {
            true => take(self).map(Some),
            false => Some(None),
        }
    }

    /// Elements after their count.
    fn many<T>(&mut self, mut take: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u64()?;
        let mut taken = Vec::with_capacity(usize::try_from(count).ok()?.min(ROOM));
        for _ in 0..count {
            taken.push(take(self)?);
        }
        Some(taken)
    }

    /// Ids after their count.
    pub(crate) fn ids(&mut self) -> Option<Vec<EventId>> {
        self.many(|take| take.array().map(EventId))
    }

    /// The request that an event answers.
    pub(crate) fn idempotency(&mut self) -> Option<Idempotency> {
        Some(Idempotency { key: self.text()?.to_owned(), request_hash: self.array()? })
    }

    /// A place in a batch.
    pub(crate) fn member(&mut self) -> Option<BatchMember> {
        Some(BatchMember { id: BatchId(self.array()?), index: self.u32()?, count: self.u32()? })
    }

    /// What an event does.
    pub(crate) fn body(&mut self) -> Option<Body> {
        match self.byte()? {
            0 => self.many(Self::op).map(Body::Ops),
            _ => None,
        }
    }

    fn op(&mut self) -> Option<Op> {
        Some(match self.byte()? {
            0 => Op::Put { path: self.path()?, value: self.value()? },
            1 => Op::PutAtomic { path: self.path()?, json: self.text()?.to_owned() },
            2 => Op::Remove { path: self.path()? },
            3 => Op::Increment { path: self.path()?, by: self.i64()? },
            4 => Op::SetAdd { path: self.path()?, member: self.value()? },
            5 => Op::SetRemove { path: self.path()?, member: self.value()? },
            6 => Op::MakeSet { path: self.path()? },
            7 => Op::MakeList { path: self.path()? },
            8 => Op::MakeText { path: self.path()? },
            9 => Op::Insert { container: self.container()?, index: self.u64()?, value: self.value()? },
            10 => Op::RemoveAt { container: self.container()?, index: self.u64()? },
            11 => Op::SpliceText {
                container: self.container()?,
                index: self.u64()?,
                delete: self.u64()?,
                insert: self.text()?.to_owned(),
            },
            12 => Op::Delete,
            13 => Op::Restore,
            _ => return None,
        })
    }

    fn path(&mut self) -> Option<Path> {
        Path::parse(self.text()?).ok()
    }

    fn container(&mut self) -> Option<Container> {
        match self.byte()? {
            0 => Some(Container::Own(self.u32()?)),
            1 => Some(Container::Of(EventId(self.array()?), self.u32()?)),
            _ => None,
        }
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(self.flag()?),
            2 => Value::Int(self.i64()?),
            3 => Value::Uint(self.u64()?),
            4 => Value::Float(f64::from_le_bytes(self.array()?)),
            5 => Value::Text(self.text()?.to_owned()),
            6 => Value::Bytes(self.sized()?.to_vec()),
            7 => Value::EmptyObject,
            8 => Value::Atomic(self.text()?.to_owned()),
            9 => {
                let (hash, bytes) = (BlobHash(self.array()?), self.u64()?);
                let form = match self.byte()? {
                    0 => BlobForm::Text,
                    1 => BlobForm::Bytes,
                    2 => BlobForm::Json,
                    _ => return None,
                };
                Value::Blob(BlobRef { hash, bytes, form })
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use bincode::Options as _;

    use super::super::{ConflictId, LedgerId, RunId, Timestamp, WriterId};
    use super::*;
    use crate::testing::Rng;

    /// What bincode writes.
    fn by_serde<T: serde::Serialize>(value: &T) -> Vec<u8> {
        let options = bincode::DefaultOptions::new().with_little_endian().with_varint_encoding();
        options.serialize(value).unwrap()
    }

    /// An integer on either side of where its bytes become more.
    fn number(rng: &mut Rng) -> u64 {
        let edge = [0, 125, 250, 251, 32_767, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX][rng.below(10)];
        edge.wrapping_add(rng.below(3) as u64).wrapping_sub(1)
    }

    fn bytes<const N: usize>(rng: &mut Rng) -> [u8; N] {
        std::array::from_fn(|_| rng.next() as u8)
    }

    fn text(rng: &mut Rng) -> String {
        let length = [0, 1, 9, 83, 250, 251, 300][rng.below(7)];
        ["x", "é", "🦀"][rng.below(3)].repeat(length)
    }

    fn path(rng: &mut Rng) -> Path {
        Path::from_segments((0..rng.below(4)).map(|_| ["a", "b~c", "$d/e", ""][rng.below(4)])).unwrap()
    }

    fn container(rng: &mut Rng) -> Container {
        let index = number(rng) as u32;
        if rng.below(2) == 0 { Container::Own(index) } else { Container::Of(EventId(bytes(rng)), index) }
    }

    fn value(rng: &mut Rng) -> Value {
        let form = [BlobForm::Text, BlobForm::Bytes, BlobForm::Json][rng.below(3)];
        match rng.below(10) {
            0 => Value::Null,
            1 => Value::Bool(rng.below(2) == 0),
            2 => Value::Int(number(rng) as i64),
            3 => Value::Uint(number(rng)),
            4 => Value::Float(f64::from_bits(rng.next() >> 2)),
            5 => Value::Text(text(rng)),
            6 => Value::Bytes(text(rng).into_bytes()),
            7 => Value::EmptyObject,
            8 => Value::Atomic(text(rng)),
            _ => Value::Blob(BlobRef { hash: BlobHash(bytes(rng)), bytes: number(rng), form }),
        }
    }

    fn op(rng: &mut Rng) -> Op {
        match rng.below(14) {
            0 => Op::Put { path: path(rng), value: value(rng) },
            1 => Op::PutAtomic { path: path(rng), json: text(rng) },
            2 => Op::Remove { path: path(rng) },
            3 => Op::Increment { path: path(rng), by: number(rng) as i64 },
            4 => Op::SetAdd { path: path(rng), member: value(rng) },
            5 => Op::SetRemove { path: path(rng), member: value(rng) },
            6 => Op::MakeSet { path: path(rng) },
            7 => Op::MakeList { path: path(rng) },
            8 => Op::MakeText { path: path(rng) },
            9 => Op::Insert { container: container(rng), index: number(rng), value: value(rng) },
            10 => Op::RemoveAt { container: container(rng), index: number(rng) },
            11 => {
                let (index, delete) = (number(rng), number(rng));
                Op::SpliceText { container: container(rng), index, delete, insert: text(rng) }
            }
            12 => Op::Delete,
            _ => Op::Restore,
        }
    }

    fn some<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        (rng.below(2) == 0).then(|| make(rng))
    }

    fn event(rng: &mut Rng) -> Event {
        let member = |rng: &mut Rng| BatchMember {
            id: BatchId(bytes(rng)),
            index: number(rng) as u32,
            count: number(rng) as u32,
        };
        Event {
            collection: text(rng),
            key: text(rng),
            writer: WriterId(bytes(rng)),
            sequence: number(rng),
            lane: number(rng) as u32,
            nth: number(rng) as u32,
            parents: (0..rng.below(4)).map(|_| EventId(bytes(rng))).collect(),
            at: Timestamp { millis: number(rng) as i64, counter: number(rng) as u32 },
            occurred_at: some(rng, |rng| number(rng) as i64),
            source: text(rng),
            principal: some(rng, text),
            reason: some(rng, text),
            run: some(rng, |rng| RunId(bytes(rng))),
            delivery: rng.below(2) == 0,
            idempotency: some(rng, |rng| Idempotency { key: text(rng), request_hash: bytes(rng) }),
            batch: some(rng, member),
            resolves: some(rng, |rng| ConflictId(bytes(rng))),
            reverts: some(rng, |rng| EventId(bytes(rng))),
            body: Body::Ops((0..rng.below(6)).map(|_| op(rng)).collect()),
        }
    }

    #[test]
    fn bytes_by_hand_are_those_of_bincode() {
        let (mut rng, mut kinds) = (Rng::new(11), [0; 14]);
        for _ in 0..20_000 {
            let event = event(&mut rng);
            let mut bytes = Vec::new();
            put_event(&mut bytes, &event);
            assert_eq!(bytes, by_serde(&event), "{event:?}");
            event.ops().iter().for_each(|op| kinds[usize::from(super::number(op))] += 1);
        }
        assert!(kinds.iter().all(|count| *count > 1_000), "{kinds:?}");
    }

    #[test]
    fn the_bytes_of_real_histories_are_those_of_bincode() {
        for (id, event) in (1..=40).flat_map(|seed| crate::testing::History::new(seed).events) {
            let bytes = event.encode().unwrap();
            assert_eq!(bytes[5..], by_serde(&event));
            let ledger = LedgerId(crate::testing::LEDGER.0);
            assert_eq!(event.id_in(ledger, &mut vec![7; 9]), Ok(id));
        }
    }

    #[test]
    fn what_is_taken_is_what_was_put_and_nothing_else_has_its_bytes() {
        let mut rng = Rng::new(12);
        for _ in 0..5_000 {
            let body = event(&mut rng).body;
            let mut bytes = Vec::new();
            put_body(&mut bytes, &body);
            let mut take = Take(&bytes);
            assert_eq!(take.body(), Some(body));
            assert!(take.0.is_empty());
            let at = rng.below(bytes.len());
            assert!(Take(&bytes[..at]).body().is_none());
            bytes[at] ^= 1 << rng.below(8);
            let mut take = Take(&bytes);
            if let Some(other) = take.body() {
                let taken = bytes.len() - take.0.len();
                let mut again = Vec::new();
                put_body(&mut again, &other);
                assert_eq!(again, bytes[..taken]);
            }
        }
        assert_eq!(Take(&[251, 250, 0]).u64(), None, "it fits one byte");
        assert_eq!(Take(&[254, 0, 0, 0, 0]).u64(), None, "nothing begins like this");
        assert_eq!(Take(&[0, 253, 255, 255, 255, 255, 255, 255, 255, 255]).body(), None, "a count costs nothing");
    }
}
