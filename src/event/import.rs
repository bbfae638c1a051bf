//! Events that two replicas make alike when they import the same version of a record apart.

use super::hash::Fields;
use std::ops::Range;

use super::{
    BatchId, BatchMember, Body, Container, DecodeError, Event, EventId, Op, Path, Timestamp, WriterId, codec, limits,
};

/// What a source delivers of one record for the first time, with the version that it gave.
#[derive(Clone, Debug)]
pub struct FirstImport<'a> {
    /// The system that delivers.
    pub source: &'a str,
    /// The record's collection.
    pub collection: &'a str,
    /// The record's key.
    pub key: &'a str,
    /// The source's time of this version, in milliseconds since 1970-01-01T00:00:00Z.
    pub occurred_at: i64,
}

/// Room that an event's head and its encoding may take beside the operations.
const HEAD_ROOM: usize = 6_144;

impl FirstImport<'_> {
    /// The events that import `ops`, in sorted order of their paths (what fills a list or text right after it is
    /// made): one, or a chain where one event's limits are exceeded. `identify` gives an event's id, for its child to
    /// name.
    ///
    /// # Errors
    /// When an event cannot be encoded.
    pub fn events(
        &self,
        ops: Vec<Op>,
        mut identify: impl FnMut(&Event) -> Result<EventId, DecodeError>,
    ) -> Result<Vec<Event>, DecodeError> {
        let ops = sorted(ops);
        let writer = self.writer(&ops)?;
        let mut parent = None;
        let mut events = Vec::new();
        chain(ops, |Part { index, count, ops }| {
            let batch = (count > 1).then_some(BatchMember { id: BatchId(writer.0), index, count });
            let event = self.event(writer, index, parent, batch, ops);
            let id = identify(&event)?;
            parent = Some(id);
            events.push(event);
            Ok::<_, DecodeError>(id)
        })?;
        Ok(events)
    }

    fn writer(&self, ops: &[Op]) -> Result<WriterId, DecodeError> {
        let fields = Fields::new("syncledger 2026-11 import writer v1").field(self.source.as_bytes());
        let fields = fields.field(self.collection.as_bytes()).field(self.key.as_bytes());
        let fields = fields.field(&self.occurred_at.to_le_bytes());
        let hashed = ops.iter().try_fold(fields, |fields, op| Ok(fields.field(&encoded(op)?)));
        hashed.map(|fields| WriterId(fields.finish_short()))
    }

    fn event(
        &self,
        writer: WriterId,
        index: u32,
        parent: Option<EventId>,
        batch: Option<BatchMember>,
        ops: Vec<Op>,
    ) -> Event {
        Event {
            collection: self.collection.to_owned(),
            key: self.key.to_owned(),
            writer,
            sequence: u64::from(index) + 1,
            lane: 0,
            nth: index + 1,
            parents: parent.into_iter().collect(),
            at: Timestamp { millis: self.occurred_at, counter: index },
            occurred_at: Some(self.occurred_at),
            source: self.source.to_owned(),
            principal: None,
            reason: None,
            run: None,
            delivery: true,
            idempotency: None,
            batch,
            resolves: None,
            reverts: None,
            body: Body::Ops(ops),
        }
    }
}

fn encoded(op: &Op) -> Result<Vec<u8>, DecodeError> {
    codec::to_bytes(op).map_err(|_| DecodeError::TooLarge(limits::EVENT_BYTES + 1))
}

fn own(op: &Op) -> Option<usize> {
    match op.container() {
        Some(Container::Own(made)) => usize::try_from(made).ok(),
        _ => None,
    }
}

fn container_mut(op: &mut Op) -> Option<&mut Container> {
    match op {
        Op::Insert { container, .. } | Op::RemoveAt { container, .. } | Op::SpliceText { container, .. } => {
            Some(container)
        }
        _ => None,
    }
}

/// The operations by path, those inside a list or text by its path; equal ones stay in their order.
fn sorted(mut ops: Vec<Op>) -> Vec<Op> {
    let path = |op: &Op| own(op).map_or(op.path(), |made| ops.get(made)?.path()).cloned();
    let mut order: Vec<(Option<Path>, usize)> = ops.iter().map(path).zip(0..).collect();
    order.sort();
    let mut places: Vec<(usize, u32)> = order.iter().map(|(_, old)| *old).zip(0..).collect();
    places.sort_unstable();
    for op in &mut ops {
        if let Some((_, place)) = own(op).and_then(|made| places.get(made))
            && let Some(container) = container_mut(op)
        {
            *container = Container::Own(*place);
        }
    }
    let mut placed: Vec<(u32, Op)> = places.into_iter().map(|(_, place)| place).zip(ops).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, op)| op).collect()
}

/// One of the events that a large change becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its place among them, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
    /// What it does.
    pub ops: Vec<Op>,
}

/// How much longer an operation becomes by naming a container of an earlier event instead of its own.
const LINK_BYTES: usize = 40;

/// What an operation's tags, lengths, numbers and container take at most, beside its texts.
const FIXED_BYTES: usize = 96;

/// A bound of an operation's bytes that costs nothing: few changes come near the limit of an event.
fn at_most(op: &Op) -> usize {
    let inserted = if let Op::SpliceText { insert, .. } = op { insert.len() } else { 0 };
    let atomic = if let Op::PutAtomic { json, .. } = op { json.len() } else { 0 };
    let path = op.path().map_or(0, |path| path.as_str().len());
    FIXED_BYTES + path + op.value().map_or(0, super::Value::inline_bytes) + inserted + atomic
}

/// How many events operations take.
///
/// # Errors
/// When one operation alone does not fit.
pub(crate) fn count_parts(ops: &[Op]) -> Result<usize, DecodeError> {
    Ok(cut(ops)?.len())
}

/// Where operations, in their order, are cut so that each part fits one event; at least one part.
fn cut(ops: &[Op]) -> Result<Vec<Range<usize>>, DecodeError> {
    if ops.len() <= limits::EVENT_OPS && ops.iter().map(at_most).sum::<usize>() <= limits::EVENT_BYTES - HEAD_ROOM {
        return Ok(std::iter::once(0..ops.len()).collect());
    }
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (place, op) in ops.iter().enumerate() {
        let size = encoded(op)?.len() + own(op).map_or(0, |_| LINK_BYTES);
        if size > limits::EVENT_BYTES - HEAD_ROOM {
            return Err(DecodeError::TooLarge(size));
        }
        if bytes + size > limits::EVENT_BYTES - HEAD_ROOM || place - start == limits::EVENT_OPS {
            parts.push(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += size;
    }
    parts.push(start..ops.len());
    Ok(parts)
}

/// Splits operations, in their order, greedily into parts that each fit one event, at least one, and hands them to
/// `add`, which gives the id of the event that a part became: later parts name the lists and texts made in it by that.
///
/// # Errors
/// When one operation alone does not fit, and what `add` returns.
pub fn chain<E: From<DecodeError>>(ops: Vec<Op>, mut add: impl FnMut(Part) -> Result<EventId, E>) -> Result<(), E> {
    let parts = cut(&ops)?;
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let mut added: Vec<(usize, EventId)> = Vec::with_capacity(parts.len());
    let mut ops = ops.into_iter();
    for (index, range) in (0..).zip(parts) {
        let mut part: Vec<Op> = ops.by_ref().take(range.len()).collect();
        part.iter_mut().for_each(|op| link(op, range.start, &added));
        added.push((range.start, add(Part { index, count, ops: part })?));
    }
    Ok(())
}

/// Names the container that an operation calls by its place in the whole as the part that starts at `start` calls it.
fn link(op: &mut Op, start: usize, added: &[(usize, EventId)]) {
    let Some(made) = own(op) else { return };
    let place = |start: usize| u32::try_from(made.saturating_sub(start)).unwrap_or(u32::MAX);
    let container = match added.iter().rfind(|(start, _)| *start <= made) {
        Some((earlier, event)) if made < start => Container::Of(*event, place(*earlier)),
        _ => Container::Own(place(start)),
    };
    if let Some(named) = container_mut(op) {
        *named = container;
    }
}

/// Splits operations as [`chain`] does, where no part works in a list or text that another makes.
///
/// # Errors
/// When one operation alone does not fit, or one works in a list or text of another part.
pub fn split(ops: Vec<Op>) -> Result<Vec<Vec<Op>>, DecodeError> {
    let mut split = Vec::new();
    for part in cut(&ops)? {
        let mut ops = ops.get(part.clone()).unwrap_or_default().to_vec();
        if ops.iter().any(|op| own(op).is_some_and(|made| made < part.start)) {
            return Err(DecodeError::TooLarge(limits::EVENT_BYTES + 1));
        }
        ops.iter_mut().for_each(|op| link(op, part.start, &[]));
        split.push(ops);
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::super::{LedgerId, Value};
    use super::*;

    const IMPORT: FirstImport<'_> =
        FirstImport { source: "jira", collection: "tasks", key: "T-1", occurred_at: 1_700_000_000_123 };

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn put(at: &str, value: &str) -> Op {
        Op::Put { path: path(at), value: Value::Text(value.into()) }
    }

    fn insert(made: u32, index: u64) -> Op {
        Op::Insert { container: Container::Own(made), index, value: Value::Int(1) }
    }

    fn import(ops: Vec<Op>) -> Vec<(EventId, Event)> {
        let identify = |event: &Event| Ok(event.identify(LedgerId([1; 16]))?.0);
        let events = IMPORT.events(ops, identify).unwrap();
        events.into_iter().map(|event| (identify(&event).unwrap(), event)).collect()
    }

    #[test]
    fn the_same_version_gives_the_same_events_whatever_the_order_of_its_fields() {
        let ops = vec![put("/b", "2"), put("/a", "1"), put("/c", "3")];
        let reversed = ops.iter().rev().cloned().collect();
        assert_eq!(import(ops.clone()), import(reversed));
        assert_eq!(import(ops.clone()).len(), 1);
        assert_ne!(import(ops)[0].0, import(vec![put("/a", "1")])[0].0);
    }

    #[test]
    fn a_large_version_is_a_chain_within_the_limits() {
        let ops: Vec<Op> = (0..10).map(|n| put(&format!("/f{n}"), &"x".repeat(16_000))).collect();
        let events = import(ops.clone());
        assert_eq!(events, import(ops.clone()));
        assert_eq!(events.len(), 4);
        for (index, (_, event)) in (0..).zip(&events) {
            event.validate().unwrap();
            assert_eq!((event.sequence, event.nth, event.at.counter), (u64::from(index) + 1, index + 1, index));
            let parent = index.checked_sub(1).map(|before| events[before as usize].0);
            assert_eq!(event.parents, Vec::from_iter(parent));
            let batch = event.batch.unwrap();
            assert_eq!((batch.id.0, batch.index, batch.count), (event.writer.0, index, 4));
        }
        assert_eq!(events.iter().flat_map(|(_, event)| event.ops().to_vec()).collect::<Vec<_>>(), ops);
    }

    #[test]
    fn what_fills_a_list_stays_behind_it_when_fields_are_sorted() {
        let ops = vec![put("/b", "x"), Op::MakeList { path: path("/l") }, insert(1, 0), insert(1, 1), put("/a", "y")];
        let sorted = import(ops)[0].1.ops().to_vec();
        let expected =
            vec![put("/a", "y"), put("/b", "x"), Op::MakeList { path: path("/l") }, insert(2, 0), insert(2, 1)];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn a_list_that_is_cut_is_named_by_the_event_that_made_it() {
        let mut ops = vec![put("/a", "y"), Op::MakeList { path: path("/l") }];
        ops.extend((0..5_000).map(|index| insert(1, index)));
        let events = import(ops.clone());
        assert!(events.len() > 1);
        assert!(events.iter().all(|(_, event)| event.validate().is_ok()));
        let made = Container::Of(events[0].0, 1);
        assert!(events[1..].iter().all(|(_, event)| event.ops().iter().all(|op| op.container() == Some(made))));
        assert_eq!(split(ops), Err(DecodeError::TooLarge(limits::EVENT_BYTES + 1)));
    }

    #[test]
    fn parts_have_at_most_so_many_operations() {
        let ops: Vec<Op> = (0..limits::EVENT_OPS + 1).map(|_| Op::Delete).collect();
        assert_eq!(split(ops).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [limits::EVENT_OPS, 1]);
        assert_eq!(split(Vec::new()).unwrap(), [Vec::new()]);
    }

    #[test]
    fn a_list_within_a_later_part_is_named_by_its_place_there() {
        let mut ops: Vec<Op> = (0..4).map(|n| put(&format!("/f{n}"), &"x".repeat(16_000))).collect();
        ops.extend([Op::MakeList { path: path("/l") }, insert(4, 0)]);
        let parts = split(ops).unwrap();
        assert_eq!(parts[1][1..], [Op::MakeList { path: path("/l") }, insert(1, 0)]);
    }

    /// An operation that is encoded in so many bytes.
    fn of_bytes(bytes: usize) -> Op {
        let made = put("/f", &"x".repeat(1_000));
        let around = encoded(&made).unwrap().len() - 1_000;
        let op = put("/f", &"x".repeat(bytes - around));
        assert_eq!(encoded(&op).unwrap().len(), bytes);
        op
    }

    #[test]
    fn a_part_is_filled_to_the_last_byte() {
        let room = limits::EVENT_BYTES - HEAD_ROOM;
        let cuts = |sizes: &[usize]| cut(&sizes.iter().map(|size| of_bytes(*size)).collect::<Vec<_>>());
        let half = room / 2;
        assert_eq!(cuts(&[half, room - half]).unwrap(), vec![(0..2)]);
        assert_eq!(cuts(&[half, room - half + 1]).unwrap(), [0..1, 1..2]);
        assert_eq!(cuts(&[room]).unwrap(), vec![(0..1)]);
        assert_eq!(cuts(&[room, 2_000, room - 2_000, 2_000]).unwrap(), [0..1, 1..3, 3..4]);
        assert_eq!(cuts(&[room + 1]).unwrap_err(), DecodeError::TooLarge(room + 1));
        let beyond = put("/f", &"x".repeat(2 * limits::EVENT_BYTES));
        assert_eq!(cut(&[beyond]).unwrap_err(), DecodeError::TooLarge(limits::EVENT_BYTES + 1));
        let many = limits::EVENT_OPS;
        assert_eq!(cut(&vec![Op::Delete; 2 * many + 1]).unwrap(), [0..many, many..2 * many, 2 * many..2 * many + 1]);
    }

    #[test]
    fn one_event_is_no_batch_and_the_writer_hangs_on_every_operation() {
        let alone = import(vec![put("/a", "1")]);
        assert_eq!((alone.len(), alone[0].1.batch), (1, None));
        assert_ne!(
            import(vec![put("/a", "1"), put("/b", "1")])[0].1.writer,
            import(vec![put("/a", "1")])[0].1.writer
        );
    }

    #[test]
    fn the_list_that_begins_a_part_is_its_own() {
        let room = limits::EVENT_BYTES - HEAD_ROOM;
        let mut ops = vec![of_bytes(room), Op::MakeList { path: path("/l") }, insert(1, 0)];
        ops.extend((0..4).map(|n| put(&format!("/m{n}"), &"x".repeat(16_000))));
        ops.push(insert(1, 1));
        let mut parts = Vec::new();
        chain(ops, |part| {
            parts.push(part.ops);
            Ok::<_, DecodeError>(EventId([u8::try_from(parts.len()).unwrap(); 32]))
        })
        .unwrap();
        assert_eq!(parts[1][..2], [Op::MakeList { path: path("/l") }, insert(0, 0)]);
        let named = Op::Insert { container: Container::Of(EventId([2; 32]), 0), index: 1, value: Value::Int(1) };
        assert_eq!(parts.last().unwrap().last(), Some(&named));
        let alone = vec![of_bytes(room), Op::MakeList { path: path("/l") }, insert(1, 0)];
        assert_eq!(split(alone).unwrap()[1], [Op::MakeList { path: path("/l") }, insert(0, 0)]);
    }
}
