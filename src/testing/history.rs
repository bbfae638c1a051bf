//! Random histories of one record: what several devices could have written, offline, copied, restored and merged.
//!
//! Everything comes from a seed, and every event is valid and has its real id.

use std::collections::{BTreeMap, BTreeSet};

use super::{LEDGER, Rng, event, record};
use crate::document::{ApplyFault, ContainerKind, Document, NodeIx, PlaceFault};
use crate::event::{BlobForm, BlobHash, BlobRef, Container, Event, EventId, Op, Path, Timestamp, Value, WriterId};
use crate::projection::{Conflict, DELETED, Policy, Projection, Resolvers, project};

/// One replica of the record: a document, with the waiting room and the re-deriving that a ledger has around it.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// The record.
    pub document: Document,
    /// The events that it holds.
    pub events: BTreeMap<EventId, Event>,
    waiting: BTreeMap<EventId, Event>,
    /// How many events came before their parents.
    pub waited: usize,
    /// How many came again.
    pub duplicates: usize,
    /// How often a fork of a writer became known only after what was built on it.
    pub late_forks: usize,
}

impl Replica {
    /// Takes an event in any order, any number of times.
    ///
    /// # Panics
    /// When a valid event is refused: a fault of this crate.
    pub fn receive(&mut self, id: EventId, event: &Event) {
        if self.events.contains_key(&id) || self.waiting.contains_key(&id) {
            self.duplicates += 1;
        }
        if !self.take(id, event) {
            self.waited += 1;
            self.waiting.insert(id, event.clone());
            return;
        }
        while let Some((id, event)) = self.next_ready() {
            self.waiting.remove(&id);
            assert!(self.take(id, &event));
        }
    }

    fn next_ready(&self) -> Option<(EventId, Event)> {
        let ready = |event: &Event| event.parents.iter().all(|parent| self.events.contains_key(parent));
        self.waiting.iter().find(|(_, event)| ready(event)).map(|(id, event)| (*id, event.clone()))
    }

    /// Whether the event was applied; if not, it waits for its parents.
    fn take(&mut self, id: EventId, event: &Event) -> bool {
        match self.document.apply(id, event) {
            Ok(()) => {
                self.events.insert(id, event.clone());
                true
            }
            Err(ApplyFault::Place(PlaceFault::MissingParents(_))) => false,
            Err(ApplyFault::Place(PlaceFault::LateFork)) => {
                self.late_forks += 1;
                self.events.insert(id, event.clone());
                self.document = self.derived_again();
                true
            }
            Err(fault) => panic!("a valid event was refused: {fault}"),
        }
    }

    /// The document that all events give at once.
    ///
    /// # Panics
    /// When Automerge refuses a derived change: a fault of this crate.
    #[must_use]
    pub fn derived_again(&self) -> Document {
        Document::derive_all(self.events.iter().map(|(id, event)| (*id, event))).unwrap()
    }

    /// Whether events wait for their parents.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the record shows under a policy.
    ///
    /// # Panics
    /// When Automerge refuses a derived change: a fault of this crate.
    pub fn project(&mut self, policy: &Policy, resolvers: &Resolvers) -> Projection {
        project(&self.document.view().unwrap(), policy, resolvers, &record())
    }
}

/// The events that several devices wrote of one record, parents first.
#[derive(Clone, Debug)]
pub struct History {
    /// The events, each with its real id.
    pub events: Vec<(EventId, Event)>,
}

/// How many events a history has.
const EVENTS: usize = 26;

/// In three histories of four, the first so many events are known to all devices before they part.
const SHARED: usize = 4;

#[derive(Clone)]
struct Device {
    writer: WriterId,
    sequence: u64,
    replica: Replica,
    /// How far its clock is off, in milliseconds.
    skew: i64,
}

impl History {
    /// The history of a seed: twenty-six events by three devices, which sync now and then, lose their state to older
    /// backups, are copied, and settle conflicts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::starting_at(seed, 1_000_000)
    }

    /// The same, with a first event of about this time, in milliseconds since 1970; the last is 300 ms later.
    ///
    /// # Panics
    /// When a made event is refused: a fault of this crate.
    #[must_use]
    pub fn starting_at(seed: u64, start: i64) -> Self {
        let mut rng = Rng::new(seed);
        let mut devices: Vec<Device> = (1..=3)
            .map(|n| Device {
                writer: WriterId([n; 16]),
                sequence: 0,
                replica: Replica::default(),
                skew: rng.below(80) as i64 - 40,
            })
            .collect();
        let mut backups = devices.clone();
        let (mut events, mut makes) = (Vec::new(), Vec::new());
        for step in 0..EVENTS {
            let at = if step < SHARED { 0 } else { rng.below(devices.len()) };
            disturb(&mut rng, &mut devices, &mut backups, at);
            let now = start + step as i64 * 10 + devices[at].skew;
            if step == SHARED && !seed.is_multiple_of(4) {
                share(&mut devices, &mut backups, &events);
            }
            let event = devices[at].write(&mut rng, now, &makes);
            let (id, _) = event.identify(LEDGER).unwrap_or_else(|fault| panic!("{fault}: {event:?}"));
            devices[at].replica.receive(id, &event);
            for (index, op) in (0..).zip(event.ops()) {
                match op {
                    Op::MakeList { .. } => makes.push((Container::Of(id, index), ContainerKind::List)),
                    Op::MakeText { .. } => makes.push((Container::Of(id, index), ContainerKind::Text)),
                    _ => {}
                }
            }
            // Two copies of a device may write the very same event.
            if events.iter().all(|(known, _)| *known != id) {
                events.push((id, event));
            }
        }
        Self { events }
    }

    /// A replica that got the events in an order of its own, some twice, with its document materialised or saved and
    /// loaded now and then.
    ///
    /// # Panics
    /// When a valid event is refused: a fault of this crate.
    pub fn deliver(&self, rng: &mut Rng) -> Replica {
        let mut order: Vec<usize> = (0..self.events.len()).collect();
        if rng.one_in(3) {
            // Nearly in order: what most replicas see.
            (0..4).for_each(|_| order.swap(rng.below(self.events.len()), 0));
        } else {
            rng.shuffle(&mut order);
        }
        for _ in 0..rng.below(4) {
            order.push(rng.below(self.events.len()));
        }
        let mut replica = Replica::default();
        for place in order {
            let (id, event) = &self.events[place];
            replica.receive(*id, event);
            match rng.below(12) {
                0 => replica.document.materialise().unwrap(),
                1 => {
                    let saved = replica.document.save().unwrap();
                    replica.document = Document::load(&saved).unwrap();
                }
                _ => {}
            }
        }
        assert!(!replica.is_waiting());
        replica
    }

    /// A random set of the events that holds the ancestors of its members, by ids.
    pub fn some_past(&self, rng: &mut Rng) -> BTreeSet<EventId> {
        let mut past = BTreeSet::new();
        let mut todo: Vec<EventId> = (0..=rng.below(3)).map(|_| rng.pick(&self.events).0).collect();
        while let Some(id) = todo.pop() {
            if past.insert(id) {
                let event = self.events.iter().find(|(known, _)| *known == id);
                todo.extend(event.into_iter().flat_map(|(_, event)| event.parents.iter().copied()));
            }
        }
        past
    }
}

fn share(devices: &mut [Device], backups: &mut [Device], events: &[(EventId, Event)]) {
    for device in devices.iter_mut().chain(backups) {
        events.iter().for_each(|(id, event)| device.replica.receive(*id, event));
    }
}

/// What happens to devices between edits: they sync, are backed up, restored, and copied.
fn disturb(rng: &mut Rng, devices: &mut [Device], backups: &mut [Device], at: usize) {
    if rng.one_in(12) {
        backups[at] = devices[at].clone();
    }
    if rng.one_in(50) {
        devices[at] = backups[at].clone();
    }
    if rng.one_in(120) {
        let other = rng.below(devices.len());
        devices[other] = devices[at].clone();
    }
    if rng.one_in(3) {
        let other = rng.below(devices.len());
        let events = devices[other].replica.events.clone();
        events.iter().for_each(|(id, event)| devices[at].replica.receive(*id, event));
    }
}

/// The lists and texts that were made so far.
pub type Makes = [(Container, ContainerKind)];

impl Device {
    fn write(&mut self, rng: &mut Rng, now: i64, makes: &Makes) -> Event {
        let resolves = if rng.one_in(8) { self.open_conflict(rng) } else { None };
        let base = if resolves.is_some() { self.heads() } else { self.base(rng) };
        let ops = match &resolves {
            Some(conflict) => resolution(rng, conflict),
            None if base.len() > 1 && rng.one_in(4) => Vec::new(),
            None if base.len() == self.heads().len() && rng.one_in(8) => vec![Op::Delete],
            None => (0..rng.below(4)).fold(Vec::new(), |mut ops, _| {
                ops.push(op(rng, &ops, makes));
                ops
            }),
        };
        let graph = self.replica.document.graph();
        let past = graph.closure(base.iter().copied());
        let (lane, nth) = graph.free_lane(self.writer, &past);
        let parents = graph.ids(base.iter().copied());
        let stamps = base.iter().filter_map(|&ix| graph.node(ix)).map(|node| node.at);
        let at = Timestamp::stamp(now, stamps.chain(graph.last_stamp(self.writer)));
        self.sequence += 1;
        Event {
            writer: self.writer,
            sequence: self.sequence,
            lane,
            nth,
            parents,
            at,
            occurred_at: match rng.below(4) {
                0 => Some(at.millis - rng.below(120) as i64),
                1 => Some(at.millis + rng.below(1 << 40) as i64),
                _ => None,
            },
            source: (*rng.pick(&["app", "jira", "github"])).into(),
            principal: rng.one_in(2).then(|| "ann".into()),
            reason: resolves.is_some().then(|| "checked".into()),
            delivery: rng.one_in(5),
            resolves: resolves.map(|conflict| conflict.id),
            ..event(ops)
        }
    }

    fn heads(&self) -> Vec<NodeIx> {
        self.replica.document.graph().heads().collect()
    }

    /// All heads, or what a device that has not synced for long was shown.
    fn base(&self, rng: &mut Rng) -> Vec<NodeIx> {
        let graph = self.replica.document.graph();
        let any = |rng: &mut Rng| rng.below(graph.len()) as NodeIx;
        match rng.below(8) {
            _ if graph.is_empty() => Vec::new(),
            0 if rng.one_in(3) => Vec::new(),
            1 | 2 => vec![any(rng)],
            3 => graph.maximal(&[any(rng), any(rng), any(rng)]),
            _ => self.heads(),
        }
    }

    fn open_conflict(&mut self, rng: &mut Rng) -> Option<Conflict> {
        let conflicts = self.replica.project(&Policy::default(), &Resolvers::default()).conflicts;
        if conflicts.is_empty() { None } else { Some(rng.pick(&conflicts).clone()) }
    }
}

/// Takes one of the candidates, where an operation can say that, or the value 7.
fn resolution(rng: &mut Rng, conflict: &Conflict) -> Vec<Op> {
    let taken = rng.pick(&conflict.candidates).value.clone();
    if conflict.path == DELETED {
        return vec![if taken.is_none() { Op::Delete } else { Op::Restore }];
    }
    let path = Path::parse(&conflict.path).unwrap();
    let value = taken.map(|content| Value::from_json(&content.json));
    vec![match value {
        None => Op::Remove { path },
        Some(Value::Atomic(json)) => Op::PutAtomic { path, json },
        Some(value) => Op::Put { path, value },
    }]
}

/// The fields that histories edit; `/t/"u"` has the key that the member "u" of the set `/t` has.
pub const FIELDS: [&str; 11] = ["/a", "/a/x", "/a/y", "/a/y/z", "/b", "/n", "/t", "/l", "/m", "/$d", "/t/\"u\""];

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn any_path(rng: &mut Rng) -> Path {
    path(rng.pick::<&str>(&FIELDS))
}

/// Nearly always the field that is meant for the kind of operation.
fn mostly(rng: &mut Rng, field: &str) -> Path {
    if rng.one_in(6) { any_path(rng) } else { path(field) }
}

/// Any value of a field.
pub fn any_value(rng: &mut Rng) -> Value {
    match rng.below(16) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Float(1.5),
        3 => Value::Uint(u64::MAX),
        4 => Value::Bytes(vec![1, 2]),
        5 => Value::EmptyObject,
        6 => Value::Blob(BlobRef { hash: BlobHash([3; 32]), bytes: 20_000, form: BlobForm::Text }),
        7..=9 => Value::Text((*rng.pick(&["u", "v"])).into()),
        _ => Value::Int(rng.below(4) as i64),
    }
}

fn any_member(rng: &mut Rng) -> Value {
    match rng.below(4) {
        0 => Value::Int(1),
        1 => Value::Atomic("{\"x\":1}".into()),
        _ => Value::Text((*rng.pick(&["u", "v"])).into()),
    }
}

/// An operation that fits after `before` in one event.
pub fn op(rng: &mut Rng, before: &[Op], makes: &Makes) -> Op {
    match rng.below(46) {
        0..=10 => Op::Put { path: any_path(rng), value: any_value(rng) },
        11 | 12 => Op::PutAtomic { path: any_path(rng), json: (*rng.pick(&["[1]", "{\"x\":1}"])).into() },
        13..=16 => Op::Remove { path: any_path(rng) },
        17..=19 => Op::Increment { path: mostly(rng, "/n"), by: rng.below(9) as i64 - 3 },
        20 => Op::Put { path: path("/n"), value: Value::Int(rng.below(3) as i64) },
        21..=23 => Op::SetAdd { path: mostly(rng, "/t"), member: any_member(rng) },
        24 => Op::SetRemove { path: mostly(rng, "/t"), member: any_member(rng) },
        25 | 26 => Op::MakeSet { path: mostly(rng, "/t") },
        27 => Op::MakeList { path: mostly(rng, "/l") },
        28 => Op::MakeText { path: mostly(rng, "/m") },
        29 => Op::Delete,
        30 => Op::Restore,
        31 if rng.one_in(2) => Op::Put { path: Path::root(), value: Value::EmptyObject },
        _ => in_container(rng, before, makes),
    }
}

fn in_container(rng: &mut Rng, before: &[Op], makes: &Makes) -> Op {
    let own = (0..).zip(before).filter_map(|(index, op)| match op {
        Op::MakeList { .. } => Some((Container::Own(index), ContainerKind::List)),
        Op::MakeText { .. } => Some((Container::Own(index), ContainerKind::Text)),
        _ => None,
    });
    let own: Vec<_> = own.collect();
    let from = if own.is_empty() { makes } else { &own[..] };
    if from.is_empty() {
        return if rng.one_in(2) { Op::MakeList { path: path("/l") } } else { Op::MakeText { path: path("/m") } };
    }
    let (container, mut kind) = *rng.pick(from);
    if rng.one_in(20) {
        // The wrong kind of operation, which does nothing.
        kind = if kind == ContainerKind::List { ContainerKind::Text } else { ContainerKind::List };
    }
    let index = if rng.one_in(12) { u64::MAX } else { rng.below(4) as u64 };
    match kind {
        ContainerKind::List if rng.one_in(4) => Op::RemoveAt { container, index },
        ContainerKind::List => Op::Insert { container, index, value: any_value(rng) },
        ContainerKind::Text => {
            let insert = (*rng.pick(&["", "é", "a🦀b", "xyz"])).into();
            Op::SpliceText { container, index, delete: rng.below(3) as u64, insert }
        }
    }
}
