//! Hand-written histories for tests: events by name, each made on others by name.

use std::collections::BTreeMap;

use super::{Document, NodeIx, PlaceFault};
use crate::event::{Container, Event, EventId, Op, Path, Timestamp, Value, WriterId};
use crate::testing::{Rng, event};

pub(crate) use crate::testing::LEDGER;

/// A record whose events have names. Every source is one writer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) document: Document,
    pub(crate) events: Vec<(EventId, Event)>,
    names: BTreeMap<&'static str, EventId>,
}

impl Story {
    pub(crate) fn id(&self, name: &str) -> EventId {
        self.names[name]
    }

    /// The name of an event.
    pub(crate) fn name(&self, id: EventId) -> &'static str {
        self.names.iter().find(|(_, known)| **known == id).unwrap().0
    }

    /// An event of `source` at a time on some parents.
    pub(crate) fn write(
        &mut self,
        name: &'static str,
        on: &[&str],
        at: i64,
        source: &str,
        ops: Vec<Op>,
    ) -> &mut Self {
        self.write_with(name, on, at, source, ops, |_| {})
    }

    /// The same, changed before it gets its id.
    pub(crate) fn write_with(
        &mut self,
        name: &'static str,
        on: &[&str],
        at: i64,
        source: &str,
        ops: Vec<Op>,
        change: impl FnOnce(&mut Event),
    ) -> &mut Self {
        let mut event = self.draft(on, at, source, ops);
        change(&mut event);
        let (id, _) = event.identify(LEDGER).unwrap();
        self.document.apply(id, &event).unwrap();
        assert!(self.names.insert(name, id).is_none());
        self.events.push((id, event));
        self
    }

    pub(crate) fn draft(&self, on: &[&str], at: i64, source: &str, ops: Vec<Op>) -> Event {
        let graph = self.document.graph();
        let past = graph.closure(on.iter().map(|name| graph.find(&self.names[name]).unwrap()));
        let mut writer = [0; 16];
        source.bytes().zip(&mut writer).for_each(|(from, to)| *to = from);
        let (lane, nth) = graph.free_lane(WriterId(writer), &past);
        let mut parents: Vec<EventId> = on.iter().map(|name| self.names[name]).collect();
        parents.sort();
        Event {
            writer: WriterId(writer),
            sequence: self.events.len() as u64 + 1,
            lane,
            nth,
            parents,
            at: Timestamp::from_millis(at),
            source: source.into(),
            ..event(ops)
        }
    }

    /// Why an event is refused.
    pub(crate) fn refusal(&self, event: &Event) -> Option<PlaceFault> {
        let (id, _) = event.identify(LEDGER).unwrap();
        self.document.admit(id, event).err()
    }
}

/// A record of a few plain fields that two writers edit, in line or on one of the last few states.
pub(crate) fn edited_apart(rng: &mut Rng, events: usize) -> Vec<(EventId, Event)> {
    let (mut made, mut document) = (Vec::new(), Document::default());
    for nth in 1..=events {
        let op = |rng: &mut Rng| match *rng.pick(&["/a", "/b", "/o/x", "/o/x", "/d"]) {
            "/d" if rng.one_in(9) => Op::Delete,
            "/d" if rng.one_in(2) => Op::Restore,
            "/o/x" if rng.one_in(9) => put("/o", serde_json::json!({})),
            "/o/x" if rng.one_in(5) => remove("/o"),
            "/o/x" if rng.one_in(3) => remove("/o/x"),
            at if rng.one_in(6) => remove(at),
            at => put(at, rng.below(4) as i64),
        };
        let ops: Vec<Op> = (0..=rng.below(2)).map(|_| op(rng)).collect();
        let graph = document.graph();
        let last = graph.held().saturating_sub(1);
        let base: Vec<NodeIx> = match graph.held() > 3 && rng.one_in(3) {
            true => vec![last.saturating_sub(rng.below(4)) as NodeIx],
            false => graph.heads().collect(),
        };
        let writer = WriterId([1 + rng.below(2) as u8; 16]);
        let (lane, place) = graph.free_lane(writer, &graph.closure(base.iter().copied()));
        let (parents, at) = (graph.ids(base), Timestamp::from_millis(nth as i64));
        let source = (*rng.pick(&["app", "jira"])).to_owned();
        let event = Event { writer, lane, nth: place, sequence: nth as u64, parents, at, source, ..event(ops) };
        let id = event.identify(LEDGER).unwrap().0;
        document.apply(id, &event).unwrap();
        made.push((id, event));
    }
    made
}

pub(crate) fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// Puts JSON, which may be an array.
pub(crate) fn put(at: &str, json: impl Into<serde_json::Value>) -> Op {
    match Value::from_json(&json.into()) {
        Value::Atomic(json) => Op::PutAtomic { path: path(at), json },
        value => Op::Put { path: path(at), value },
    }
}

pub(crate) fn remove(at: &str) -> Op {
    Op::Remove { path: path(at) }
}

pub(crate) fn increment(at: &str, by: i64) -> Op {
    Op::Increment { path: path(at), by }
}

pub(crate) fn add(at: &str, member: &str) -> Op {
    Op::SetAdd { path: path(at), member: Value::Text(member.into()) }
}

pub(crate) fn take(at: &str, member: &str) -> Op {
    Op::SetRemove { path: path(at), member: Value::Text(member.into()) }
}

pub(crate) fn insert(container: Container, index: u64, json: impl Into<serde_json::Value>) -> Op {
    Op::Insert { container, index, value: Value::from_json(&json.into()) }
}

pub(crate) fn splice(container: Container, index: u64, delete: u64, insert: &str) -> Op {
    Op::SpliceText { container, index, delete, insert: insert.into() }
}
