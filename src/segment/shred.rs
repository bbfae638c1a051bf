//! From events to columns.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::hash::Hash;

use foldhash::fast::RandomState;

use super::column::{self, zigzag};
use super::item::{Ids, Item, Past};
use super::sheet::{Bytes, Number, Sheet};
use crate::event::binary::number;
use crate::event::{BatchMember, BlobForm, Container, Event, EventId, Op, Path, RunId, Value, WriterId};

/// Where a block begins in its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The place of its first event, from 0.
    pub(super) place: usize,
    /// The position after that of the event before it.
    pub(super) due: u64,
}

/// Puts the columns of a block's events, which `ids` holds already, in the place of what a buffer held. The sheet is empty
/// before and after.
pub(super) fn shred(items: &[Item], start: Start, ids: &Ids, past: &dyn Past, sheet: &mut Sheet, out: &mut Vec<u8>) {
    let mut shredder = Shredder::new(ids, past, sheet);
    let mut due = start.due;
    for (item, place) in items.iter().zip(start.place..) {
        shredder.item(item, place, due);
        due = item.position.saturating_add(1);
    }
    shredder.received(items);
    sheet.encode(out);
}

/// What is new gets 0, what came before its number in the order of coming, from 1.
struct Dictionary<K> {
    codes: HashMap<K, u64, RandomState>,
    /// What was asked for last: events that follow each other often have the same.
    last: Option<(K, u64)>,
}

impl<K> Default for Dictionary<K> {
    fn default() -> Self {
        Self { codes: HashMap::default(), last: None }
    }
}

impl<K: Hash + Eq + Copy> Dictionary<K> {
    fn code(&mut self, key: K) -> u64 {
        match self.last {
            Some((last, code)) if last == key => code,
            _ => self.look_up(key),
        }
    }

    fn look_up(&mut self, key: K) -> u64 {
        let next = self.codes.len() as u64 + 1;
        let (code, known) = match self.codes.entry(key) {
            Occupied(known) => (*known.get(), *known.get()),
            Vacant(free) => (0, *free.insert(next)),
        };
        self.last = Some((key, known));
        code
    }
}

struct Shredder<'a> {
    sheet: &'a mut Sheet,
    ids: &'a Ids,
    past: &'a dyn Past,
    collections: Dictionary<&'a str>,
    records: Dictionary<(&'a str, &'a str)>,
    writers: Dictionary<WriterId>,
    sources: Dictionary<&'a str>,
    principals: Dictionary<&'a str>,
    reasons: Dictionary<&'a str>,
    runs: Dictionary<RunId>,
    paths: Dictionary<&'a Path>,
    /// The number that each writer's next event has if it leaves none out.
    due: HashMap<WriterId, u64, RandomState>,
    at: i64,
    batch: Option<BatchMember>,
}

impl<'a> Shredder<'a> {
    fn new(ids: &'a Ids, past: &'a dyn Past, sheet: &'a mut Sheet) -> Self {
        let (collections, records, writers, sources, principals) = Default::default();
        let (reasons, runs, paths, due, at, batch) = Default::default();
        Self {
            sheet,
            ids,
            past,
            collections,
            records,
            writers,
            sources,
            principals,
            reasons,
            runs,
            paths,
            due,
            at,
            batch,
        }
    }

    fn item(&mut self, item: &'a Item, place: usize, due: u64) {
        let event = &item.event;
        self.sheet.number(Number::Position, item.position.wrapping_sub(due));
        let back = if item.previous == 0 { 0 } else { item.position.wrapping_sub(item.previous) };
        self.sheet.number(Number::Previous, back);
        self.record(event);
        self.writer(Number::Writer, event.writer);
        self.sequence(event);
        self.sheet.number(Number::Lane, event.lane.into());
        self.sheet.number(Number::Nth, event.nth.wrapping_sub(1).into());
        self.sheet.number(Number::Parents, event.parents.len() as u64);
        for parent in &event.parents {
            self.reference(Number::Parent, event, parent, item.previous, place);
        }
        self.time(event);
        self.people(event);
        self.run(event.run, item.run);
        self.rest(event, item.previous, place);
        self.sheet.number(Number::Ops, event.ops().len() as u64);
        for op in event.ops() {
            self.op(op, event, item.previous, place);
        }
    }

    fn record(&mut self, event: &'a Event) {
        let code = self.records.code((&event.collection, &event.key));
        self.sheet.number(Number::Record, code);
        if code == 0 {
            let code = self.collections.code(&event.collection);
            self.sheet.number(Number::RecordCollection, code);
            if code == 0 {
                self.sheet.sized(Number::CollectionBytes, Bytes::Collections, event.collection.as_bytes());
            }
            self.sheet.sized(Number::KeyBytes, Bytes::Keys, event.key.as_bytes());
        }
    }

    fn writer(&mut self, column: Number, writer: WriterId) {
        let code = self.writers.code(writer);
        self.sheet.number(column, code);
        if code == 0 {
            self.sheet.bytes(Bytes::Writers, &writer.0);
        }
    }

    fn sequence(&mut self, event: &Event) {
        let due = self.due.insert(event.writer, event.sequence.wrapping_add(1)).unwrap_or(0);
        self.sheet.number(Number::Sequence, zigzag(event.sequence.wrapping_sub(due) as i64));
    }

    /// An event that another names: 0 its id, 1 its writer and number, 2 the record's event before, and from 3 how many
    /// events back it stands in the segment, plus 2.
    fn reference(&mut self, column: Number, event: &Event, of: &EventId, previous: u64, place: usize) {
        if let Some(found) = self.ids.before(place, of) {
            let is_previous = previous != 0 && self.ids.places.at(previous) == Some(found);
            let code = if is_previous { 2 } else { (place - found) as u64 + 2 };
            return self.sheet.number(column, code);
        }
        match self.past.place(event, of) {
            Some((writer, sequence)) => {
                self.sheet.number(column, 1);
                self.writer(Number::KnownWriter, writer);
                let back = event.sequence.wrapping_sub(sequence) as i64;
                self.sheet.number(Number::KnownSequence, zigzag(back));
            }
            None => {
                self.sheet.number(column, 0);
                self.sheet.bytes(Bytes::Ids, &of.0);
            }
        }
    }

    fn time(&mut self, event: &Event) {
        let at = event.at;
        self.sheet.number(Number::AtMillis, zigzag(at.millis.wrapping_sub(self.at)));
        self.sheet.number(Number::AtCounter, at.counter.into());
        self.at = at.millis;
        self.sheet.number(Number::HasOccurred, event.occurred_at.is_some().into());
        if let Some(occurred) = event.occurred_at {
            self.sheet.number(Number::Occurred, zigzag(occurred.wrapping_sub(at.millis)));
        }
    }

    fn people(&mut self, event: &'a Event) {
        let code = self.sources.code(&event.source);
        self.sheet.number(Number::Source, code);
        if code == 0 {
            self.sheet.sized(Number::SourceBytes, Bytes::Sources, event.source.as_bytes());
        }
        let principal = event.principal.as_deref();
        optional(self.sheet, &mut self.principals, principal, Number::Principal, |sheet, text| {
            sheet.sized(Number::PrincipalBytes, Bytes::Principals, text.as_bytes());
        });
        optional(self.sheet, &mut self.reasons, event.reason.as_deref(), Number::Reason, |sheet, text| {
            sheet.sized(Number::ReasonBytes, Bytes::Reasons, text.as_bytes());
        });
    }

    fn run(&mut self, made: Option<RunId>, brought: Option<RunId>) {
        let write = |sheet: &mut Sheet, run: RunId| sheet.bytes(Bytes::Runs, &run.0);
        optional(self.sheet, &mut self.runs, made, Number::Run, write);
        if brought == made {
            return self.sheet.number(Number::BroughtBy, 0);
        }
        let code = brought.map(|run| self.runs.code(run));
        self.sheet.number(Number::BroughtBy, code.map_or(1, |code| code + 2));
        if let (Some(run), Some(0)) = (brought, code) {
            write(self.sheet, run);
        }
    }

    fn rest(&mut self, event: &Event, previous: u64, place: usize) {
        self.sheet.number(Number::Delivery, event.delivery.into());
        self.sheet.number(Number::HasIdempotency, event.idempotency.is_some().into());
        if let Some(request) = &event.idempotency {
            self.sheet.sized(Number::IdempotencyBytes, Bytes::IdempotencyKeys, request.key.as_bytes());
            self.sheet.bytes(Bytes::Hashes, &request.request_hash);
        }
        self.batch(event.batch);
        self.sheet.number(Number::HasResolves, event.resolves.is_some().into());
        if let Some(conflict) = event.resolves {
            self.sheet.bytes(Bytes::Hashes, &conflict.0);
        }
        self.sheet.number(Number::HasReverts, event.reverts.is_some().into());
        if let Some(reverted) = event.reverts {
            self.reference(Number::Reverts, event, &reverted, previous, place);
        }
    }

    /// 0 no batch, 1 the next place of the batch of the event before, 2 another.
    fn batch(&mut self, batch: Option<BatchMember>) {
        let next = next_place(self.batch);
        self.batch = batch;
        match batch {
            None => self.sheet.number(Number::Batch, 0),
            same if same == next => self.sheet.number(Number::Batch, 1),
            Some(other) => {
                self.sheet.number(Number::Batch, 2);
                self.sheet.bytes(Bytes::Batches, &other.id.0);
                self.sheet.number(Number::BatchIndex, other.index.into());
                self.sheet.number(Number::BatchCount, other.count.into());
            }
        }
    }

    fn op(&mut self, op: &'a Op, event: &Event, previous: u64, place: usize) {
        self.sheet.number(Number::Op, number(op).into());
        if let Some(path) = op.path() {
            let code = self.paths.code(path);
            self.sheet.number(Number::Path, code);
            if code == 0 {
                self.sheet.sized(Number::PathBytes, Bytes::Paths, path.as_str().as_bytes());
            }
        }
        match op.container() {
            Some(Container::Own(made)) => {
                self.sheet.number(Number::Container, 0);
                self.sheet.number(Number::ContainerOp, made.into());
            }
            Some(Container::Of(made, index)) => {
                self.sheet.number(Number::Container, 1);
                // The column of parents is the place of all references but those of reverts.
                self.reference(Number::Parent, event, &made, previous, place);
                self.sheet.number(Number::ContainerOp, index.into());
            }
            None => {}
        }
        self.op_content(op);
    }

    fn op_content(&mut self, op: &Op) {
        if let Some(value) = op.value() {
            self.value(value);
        }
        match op {
            Op::PutAtomic { json, .. } => {
                self.sheet.sized(Number::AtomicBytes, Bytes::Atomics, json.as_bytes());
            }
            Op::Increment { by, .. } => self.sheet.number(Number::By, zigzag(*by)),
            Op::Insert { index, .. } | Op::RemoveAt { index, .. } => self.sheet.number(Number::Index, *index),
            Op::SpliceText { index, delete, insert, .. } => {
                self.sheet.number(Number::Index, *index);
                self.sheet.number(Number::Delete, *delete);
                self.sheet.sized(Number::TextBytes, Bytes::Texts, insert.as_bytes());
            }
            _ => {}
        }
    }

    fn value(&mut self, value: &Value) {
        let sheet = &mut *self.sheet;
        sheet.number(Number::Value, form(value));
        match value {
            Value::Null | Value::Bool(_) | Value::EmptyObject => {}
            Value::Int(value) => sheet.number(Number::Int, zigzag(*value)),
            Value::Uint(value) => sheet.number(Number::Uint, *value),
            Value::Float(value) => sheet.bytes(Bytes::Floats, &value.to_le_bytes()),
            Value::Text(text) => sheet.sized(Number::TextBytes, Bytes::Texts, text.as_bytes()),
            Value::Bytes(bytes) => sheet.sized(Number::BytesBytes, Bytes::Raw, bytes),
            Value::Atomic(json) => sheet.sized(Number::AtomicBytes, Bytes::Atomics, json.as_bytes()),
            Value::Blob(blob) => {
                sheet.bytes(Bytes::Hashes, &blob.hash.0);
                sheet.number(Number::BlobBytes, blob.bytes);
            }
        }
    }

    /// When the events came: as differences (form 0), or as differences of what lies between stamp and arrival (form
    /// 1), whichever is shorter.
    fn received(&mut self, items: &[Item]) {
        let plain = |item: &Item| item.received_at;
        let apart = |item: &Item| item.received_at.wrapping_sub(item.event.at.millis);
        let bytes = |of: &dyn Fn(&Item) -> i64| differences(items, of).map(column::bytes).sum::<usize>();
        let is_apart = bytes(&apart) < bytes(&plain);
        self.sheet.number(Number::ReceivedForm, is_apart.into());
        let of: &dyn Fn(&Item) -> i64 = if is_apart { &apart } else { &plain };
        differences(items, of).for_each(|value| self.sheet.number(Number::Received, value));
    }
}

/// What each item's figure is more than that of the item before.
fn differences(items: &[Item], of: &dyn Fn(&Item) -> i64) -> impl Iterator<Item = u64> {
    let before = std::iter::once(0).chain(items.iter().map(of));
    items.iter().zip(before).map(move |(item, before)| zigzag(of(item).wrapping_sub(before)))
}

/// The place after one in its batch.
pub(super) fn next_place(before: Option<BatchMember>) -> Option<BatchMember> {
    before.map(|member| BatchMember { index: member.index.wrapping_add(1), ..member })
}

/// 0 for none, 1 for what is new, and what came before its number plus 1.
fn optional<K: Hash + Eq + Copy>(
    sheet: &mut Sheet,
    dictionary: &mut Dictionary<K>,
    value: Option<K>,
    column: Number,
    write: impl FnOnce(&mut Sheet, K),
) {
    let code = value.map(|value| dictionary.code(value));
    sheet.number(column, code.map_or(0, |code| code + 1));
    if let (Some(value), Some(0)) = (value, code) {
        write(sheet, value);
    }
}

fn form(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Int(_) => 3,
        Value::Uint(_) => 4,
        Value::Float(_) => 5,
        Value::Text(_) => 6,
        Value::Bytes(_) => 7,
        Value::EmptyObject => 8,
        Value::Atomic(_) => 9,
        Value::Blob(blob) => match blob.form {
            BlobForm::Text => 10,
            BlobForm::Bytes => 11,
            BlobForm::Json => 12,
        },
    }
}
