//! From columns to events.

use std::collections::BTreeMap;

use super::SegmentFault;
use super::column::unzigzag;
use super::item::{EVENT_WEIGHT, Held, Item, OP_WEIGHT, Past, Places};
use super::sheet::{Bytes, Columns, Number};
use super::shred::{Start, next_place};
use crate::event::{
    BatchId, BatchMember, BlobForm, BlobHash, BlobRef, Body, ConflictId, Container, Event, EventId, Idempotency,
    LedgerId, Op, Path, RunId, Timestamp, Value, WriterId,
};

/// What a block's events may weigh together: above what any writer puts into one.
pub(super) const MOST_WEIGHT: usize = 4 << 20;

/// What reading a block needs to know.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) ledger: LedgerId,
    pub(super) start: Start,
    pub(super) events: usize,
    pub(super) past: &'a dyn Past,
}

/// The events that were named by writer and number, to be written so again.
pub(super) type Known = BTreeMap<EventId, (WriterId, u64)>;

/// Why columns are no events.
pub(super) enum Fault {
    Columns(&'static str),
    Segment(SegmentFault),
}

/// The events of a block's columns.
pub(super) fn assemble(raw: &[u8], reading: Reading<'_>, held: &mut Held<'_>) -> Result<(Vec<Item>, Known), Fault> {
    let mut items = Vec::with_capacity(reading.events);
    let known = each(raw, reading, held, &mut Spare::default(), |item, _| items.push(item))?;
    Ok((items, known))
}

/// Whether a block's columns are these events.
pub(super) fn is_of(
    raw: &[u8],
    reading: Reading<'_>,
    held: &mut Held<'_>,
    items: &[Item],
    spare: &mut Spare,
) -> bool {
    let (mut expected, mut same) = (items.iter(), reading.events == items.len());
    let read = each(raw, reading, held, spare, |item, spare| {
        same &= expected.next() == Some(&item);
        spare.keep(item);
    });
    read.is_ok() && same
}

/// Gives the events of a block's columns one after another, with where to leave what is not used further.
fn each(
    raw: &[u8],
    reading: Reading<'_>,
    held: &mut Held<'_>,
    spare: &mut Spare,
    mut give: impl FnMut(Item, &mut Spare),
) -> Result<Known, Fault> {
    let mut columns = Columns::read(raw).ok_or(Fault::Columns("it does not hold its columns"))?;
    let form = columns.number(Number::ReceivedForm);
    let mut assembler = Assembler::new(columns, form, reading, spare);
    let mut due = reading.start.due;
    for place in reading.start.place..reading.start.place + reading.events {
        let item = assembler.item(place, due, held)?;
        if !held.take(place, item.position, item.id) {
            return Err(Fault::Columns("an event stands in it twice, or is not the one that was read before"));
        }
        due = item.position.saturating_add(1);
        give(item, assembler.spare);
    }
    Ok(assembler.known)
}

/// Memory of events that are read no more, for those that follow: whoever looks at one event after another asks for none.
#[derive(Default)]
pub(super) struct Spare {
    texts: Vec<String>,
    parents: Vec<EventId>,
    ops: Vec<Op>,
    /// Where events are encoded to be hashed.
    bytes: Vec<u8>,
}

/// How many texts are kept at most.
const SPARE_TEXTS: usize = 256;

impl Spare {
    fn text(&mut self, text: &str) -> String {
        match self.texts.pop() {
            Some(mut kept) => {
                kept.clear();
                kept.push_str(text);
                kept
            }
            None => text.to_owned(),
        }
    }

    fn keep(&mut self, item: Item) {
        let Event { collection, key, mut parents, source, principal, reason, body, .. } = item.event;
        let Body::Ops(mut ops) = body;
        let texts = [collection, key, source].into_iter().chain(principal).chain(reason);
        texts.for_each(|text| self.keep_text(text));
        ops.drain(..).for_each(|op| self.keep_op(op));
        parents.clear();
        (self.parents, self.ops) = (parents, ops);
    }

    fn keep_op(&mut self, op: Op) {
        let (path, value) = match op {
            Op::Put { path, value } => (path, value),
            Op::PutAtomic { path, json } => (path, Value::Atomic(json)),
            Op::SetAdd { path, member } | Op::SetRemove { path, member } => (path, member),
            _ => return,
        };
        self.keep_text(path.into());
        if let Value::Text(text) | Value::Atomic(text) = value {
            self.keep_text(text);
        }
    }

    fn keep_text(&mut self, text: String) {
        // A long one would be held for nothing.
        if self.texts.len() < SPARE_TEXTS && text.capacity() <= 1_024 {
            self.texts.push(text);
        }
    }
}

struct Assembler<'a, 's> {
    columns: Columns<'a>,
    reading: Reading<'a>,
    spare: &'s mut Spare,
    apart: bool,
    received: i64,
    collections: Vec<&'a str>,
    records: Vec<(&'a str, &'a str)>,
    writers: Vec<WriterId>,
    sources: Vec<&'a str>,
    principals: Vec<&'a str>,
    reasons: Vec<&'a str>,
    runs: Vec<RunId>,
    paths: Vec<&'a str>,
    due: BTreeMap<WriterId, u64>,
    at: i64,
    batch: Option<BatchMember>,
    left: usize,
    known: Known,
}

/// Where an event stands that names others.
#[derive(Clone, Copy)]
struct Named<'a> {
    record: (&'a str, &'a str),
    sequence: u64,
    previous: u64,
    place: usize,
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Looks a code of [`super::shred::Dictionary`] up: 0 takes what is new.
fn entry<T: Clone>(dictionary: &mut Vec<T>, code: u64, new: impl FnOnce() -> Option<T>) -> Option<T> {
    match code.checked_sub(1) {
        Some(index) => dictionary.get(usize::try_from(index).ok()?).cloned(),
        None => {
            let new = new()?;
            dictionary.push(new.clone());
            Some(new)
        }
    }
}

impl<'a, 's> Assembler<'a, 's> {
    fn new(columns: Columns<'a>, form: Option<u64>, reading: Reading<'a>, spare: &'s mut Spare) -> Self {
        let (received, collections, records, writers, sources) = Default::default();
        let (principals, reasons, runs, paths, due, at, batch, known) = Default::default();
        Self {
            columns,
            reading,
            spare,
            apart: form == Some(1),
            received,
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
            left: MOST_WEIGHT,
            known,
        }
    }

    fn item(&mut self, place: usize, due: u64, held: &Held<'_>) -> Result<Item, Fault> {
        let misfit = || Fault::Columns("its columns do not fit each other");
        let mut item = self.read(place, due, held.places()).ok_or_else(misfit)?;
        if let Some(id) = held.proved(place) {
            item.id = id;
            return Ok(item);
        }
        let position = item.position;
        let fault = |fault| Fault::Segment(SegmentFault::Event { position, fault });
        item.id = item.event.id_in(self.reading.ledger, &mut self.spare.bytes).map_err(fault)?;
        Ok(item)
    }

    fn number(&mut self, column: Number) -> Option<u64> {
        self.columns.number(column)
    }

    fn flag(&mut self, column: Number) -> Option<bool> {
        match self.number(column)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn small(&mut self, column: Number) -> Option<u32> {
        u32::try_from(self.number(column)?).ok()
    }

    /// Counts what an event takes in memory: a few bytes may name a long text a thousand times.
    fn pay(&mut self, weight: usize) -> Option<()> {
        self.left = self.left.checked_sub(weight)?;
        Some(())
    }

    fn owned(&mut self, text: &str) -> Option<String> {
        self.pay(text.len())?;
        Some(self.spare.text(text))
    }

    fn read(&mut self, place: usize, due: u64, ids: &Places) -> Option<Item> {
        self.pay(EVENT_WEIGHT)?;
        let position = due.checked_add(self.number(Number::Position)?).filter(|position| *position < u64::MAX)?;
        let previous = match self.number(Number::Previous)? {
            0 => 0,
            back => position.checked_sub(back)?,
        };
        let record = self.record()?;
        let code = self.number(Number::Writer)?;
        let writer = self.writer(code)?;
        let sequence = self.sequence(writer)?;
        let (lane, nth) = (self.small(Number::Lane)?, self.small(Number::Nth)?.wrapping_add(1));
        let named = Named { record, sequence, previous, place };
        let parents = self.parents(named, ids)?;
        let at = self.time()?;
        let occurred_at = match self.flag(Number::HasOccurred)? {
            true => Some(unzigzag(self.number(Number::Occurred)?).wrapping_add(at.millis)),
            false => None,
        };
        let (source, principal, reason) = self.people()?;
        let (made, run) = self.runs()?;
        let delivery = self.flag(Number::Delivery)?;
        let idempotency = self.idempotency()?;
        let batch = self.batch()?;
        let resolves = match self.flag(Number::HasResolves)? {
            true => Some(ConflictId(self.columns.array(Bytes::Hashes)?)),
            false => None,
        };
        let reverts = match self.flag(Number::HasReverts)? {
            true => Some(self.reference(Number::Reverts, named, ids)?),
            false => None,
        };
        let body = Body::Ops(self.ops(named, ids)?);
        let (collection, key) = (self.owned(record.0)?, self.owned(record.1)?);
        let received_at = self.received(at.millis)?;
        let event = Event {
            collection,
            key,
            writer,
            sequence,
            lane,
            nth,
            parents,
            at,
            occurred_at,
            source,
            principal,
            reason,
            run: made,
            delivery,
            idempotency,
            batch,
            resolves,
            reverts,
            body,
        };
        Some(Item { position, previous, received_at, run, id: EventId([0; 32]), event })
    }

    fn record(&mut self) -> Option<(&'a str, &'a str)> {
        let code = self.number(Number::Record)?;
        let (columns, collections) = (&mut self.columns, &mut self.collections);
        entry(&mut self.records, code, || {
            let code = columns.number(Number::RecordCollection)?;
            let name = |columns: &mut Columns<'a>| columns.sized(Number::CollectionBytes, Bytes::Collections);
            let collection = entry(collections, code, || text(name(columns)?))?;
            Some((collection, text(columns.sized(Number::KeyBytes, Bytes::Keys)?)?))
        })
    }

    fn writer(&mut self, code: u64) -> Option<WriterId> {
        let columns = &mut self.columns;
        entry(&mut self.writers, code, || columns.array(Bytes::Writers).map(WriterId))
    }

    fn sequence(&mut self, writer: WriterId) -> Option<u64> {
        let ahead = unzigzag(self.number(Number::Sequence)?) as u64;
        let due = self.due.entry(writer).or_default();
        let sequence = due.wrapping_add(ahead);
        *due = sequence.wrapping_add(1);
        Some(sequence)
    }

    fn parents(&mut self, named: Named<'_>, ids: &Places) -> Option<Vec<EventId>> {
        let count = usize::try_from(self.number(Number::Parents)?).ok()?;
        self.pay(count.checked_mul(32)?)?;
        let mut parents = std::mem::take(&mut self.spare.parents);
        for _ in 0..count {
            parents.push(self.reference(Number::Parent, named, ids)?);
        }
        Some(parents)
    }

    fn reference(&mut self, column: Number, named: Named<'_>, ids: &Places) -> Option<EventId> {
        match self.number(column)? {
            0 => self.columns.array(Bytes::Ids).map(EventId),
            1 => self.known(named),
            2 => ids.id(ids.at(named.previous)?),
            back => {
                let back = usize::try_from(back.checked_sub(2)?).ok()?;
                ids.id(named.place.checked_sub(back)?)
            }
        }
    }

    fn known(&mut self, named: Named<'_>) -> Option<EventId> {
        let code = self.number(Number::KnownWriter)?;
        let writer = self.writer(code)?;
        let back = unzigzag(self.number(Number::KnownSequence)?) as u64;
        let sequence = named.sequence.wrapping_sub(back);
        let (collection, key) = named.record;
        let id = self.reading.past.find(collection, key, writer, sequence)?;
        self.known.insert(id, (writer, sequence));
        Some(id)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.at = self.at.wrapping_add(unzigzag(self.number(Number::AtMillis)?));
        Some(Timestamp { millis: self.at, counter: self.small(Number::AtCounter)? })
    }

    fn received(&mut self, at: i64) -> Option<i64> {
        self.received = self.received.wrapping_add(unzigzag(self.number(Number::Received)?));
        Some(if self.apart { self.received.wrapping_add(at) } else { self.received })
    }

    fn people(&mut self) -> Option<(String, Option<String>, Option<String>)> {
        let code = self.number(Number::Source)?;
        let columns = &mut self.columns;
        let source = entry(&mut self.sources, code, || text(columns.sized(Number::SourceBytes, Bytes::Sources)?))?;
        let principal = match self.number(Number::Principal)?.checked_sub(1) {
            Some(code) => {
                let columns = &mut self.columns;
                let new = || text(columns.sized(Number::PrincipalBytes, Bytes::Principals)?);
                Some(entry(&mut self.principals, code, new)?)
            }
            None => None,
        };
        let reason = match self.number(Number::Reason)?.checked_sub(1) {
            Some(code) => {
                let columns = &mut self.columns;
                let new = || text(columns.sized(Number::ReasonBytes, Bytes::Reasons)?);
                Some(entry(&mut self.reasons, code, new)?)
            }
            None => None,
        };
        let principal = principal.map_or(Some(None), |name| self.owned(name).map(Some))?;
        let reason = reason.map_or(Some(None), |reason| self.owned(reason).map(Some))?;
        Some((self.owned(source)?, principal, reason))
    }

    /// The execution that made the event, and the one that brought it.
    fn runs(&mut self) -> Option<(Option<RunId>, Option<RunId>)> {
        let made = match self.number(Number::Run)?.checked_sub(1) {
            Some(code) => Some(self.run(code)?),
            None => None,
        };
        match self.number(Number::BroughtBy)? {
            0 => Some((made, made)),
            1 => Some((made, None)),
            code => Some((made, Some(self.run(code - 2)?))),
        }
    }

    fn run(&mut self, code: u64) -> Option<RunId> {
        let columns = &mut self.columns;
        entry(&mut self.runs, code, || columns.array(Bytes::Runs).map(RunId))
    }

    fn idempotency(&mut self) -> Option<Option<Idempotency>> {
        if !self.flag(Number::HasIdempotency)? {
            return Some(None);
        }
        let key = text(self.columns.sized(Number::IdempotencyBytes, Bytes::IdempotencyKeys)?)?;
        Some(Some(Idempotency { key: self.owned(key)?, request_hash: self.columns.array(Bytes::Hashes)? }))
    }

    fn batch(&mut self) -> Option<Option<BatchMember>> {
        self.batch = match self.number(Number::Batch)? {
            0 => None,
            1 => Some(next_place(self.batch)?),
            2 => Some(BatchMember {
                id: BatchId(self.columns.array(Bytes::Batches)?),
                index: self.small(Number::BatchIndex)?,
                count: self.small(Number::BatchCount)?,
            }),
            _ => return None,
        };
        Some(self.batch)
    }

    fn ops(&mut self, named: Named<'_>, ids: &Places) -> Option<Vec<Op>> {
        let count = usize::try_from(self.number(Number::Ops)?).ok()?;
        self.pay(count.checked_mul(OP_WEIGHT)?)?;
        let mut ops = std::mem::take(&mut self.spare.ops);
        for _ in 0..count {
            ops.push(self.op(named, ids)?);
        }
        Some(ops)
    }

    fn op(&mut self, named: Named<'_>, ids: &Places) -> Option<Op> {
        Some(match self.number(Number::Op)? {
            0 => Op::Put { path: self.path()?, value: self.value()? },
            1 => Op::PutAtomic { path: self.path()?, json: self.text(Number::AtomicBytes, Bytes::Atomics)? },
            2 => Op::Remove { path: self.path()? },
            3 => Op::Increment { path: self.path()?, by: unzigzag(self.number(Number::By)?) },
            4 => Op::SetAdd { path: self.path()?, member: self.value()? },
            5 => Op::SetRemove { path: self.path()?, member: self.value()? },
            6 => Op::MakeSet { path: self.path()? },
            7 => Op::MakeList { path: self.path()? },
            8 => Op::MakeText { path: self.path()? },
            9 => {
                let container = self.container(named, ids)?;
                Op::Insert { container, value: self.value()?, index: self.number(Number::Index)? }
            }
            10 => Op::RemoveAt { container: self.container(named, ids)?, index: self.number(Number::Index)? },
            11 => Op::SpliceText {
                container: self.container(named, ids)?,
                index: self.number(Number::Index)?,
                delete: self.number(Number::Delete)?,
                insert: self.text(Number::TextBytes, Bytes::Texts)?,
            },
            12 => Op::Delete,
            13 => Op::Restore,
            _ => return None,
        })
    }

    fn path(&mut self) -> Option<Path> {
        let code = self.number(Number::Path)?;
        let columns = &mut self.columns;
        let path = entry(&mut self.paths, code, || {
            text(columns.sized(Number::PathBytes, Bytes::Paths)?).filter(|path| Path::check(path).is_ok())
        })?;
        self.owned(path).map(Path::checked)
    }

    fn container(&mut self, named: Named<'_>, ids: &Places) -> Option<Container> {
        match self.flag(Number::Container)? {
            false => Some(Container::Own(self.small(Number::ContainerOp)?)),
            true => {
                let made = self.reference(Number::Parent, named, ids)?;
                Some(Container::Of(made, self.small(Number::ContainerOp)?))
            }
        }
    }

    fn text(&mut self, length: Number, column: Bytes) -> Option<String> {
        let text = text(self.columns.sized(length, column)?)?;
        self.owned(text)
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.number(Number::Value)? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(unzigzag(self.number(Number::Int)?)),
            4 => Value::Uint(self.number(Number::Uint)?),
            5 => Value::Float(f64::from_le_bytes(self.columns.array(Bytes::Floats)?)),
            6 => Value::Text(self.text(Number::TextBytes, Bytes::Texts)?),
            7 => Value::Bytes(self.columns.sized(Number::BytesBytes, Bytes::Raw)?.to_vec()),
            8 => Value::EmptyObject,
            9 => Value::Atomic(self.text(Number::AtomicBytes, Bytes::Atomics)?),
            10 => self.blob(BlobForm::Text)?,
            11 => self.blob(BlobForm::Bytes)?,
            12 => self.blob(BlobForm::Json)?,
            _ => return None,
        })
    }

    fn blob(&mut self, form: BlobForm) -> Option<Value> {
        let hash = BlobHash(self.columns.array(Bytes::Hashes)?);
        Some(Value::Blob(BlobRef { hash, bytes: self.number(Number::BlobBytes)?, form }))
    }
}
