//! The live operations of every field by the plainest model: a list of everything that was ever put at a key, and of who has
//! replaced it. No actors, no order of operations, no Automerge; only who has seen what.

use std::collections::{BTreeMap, BTreeSet};

use syncledger::document::{Cell, ContainerKind, View};
use syncledger::event::{Event, EventId, FlatKey, Op, Path, Value};

use crate::histories::{History, Rng, for_histories, held_by};

/// What an event put at a key, and which events have replaced it.
struct Put {
    by: EventId,
    cell: Cell,
    replaced_by: BTreeSet<EventId>,
}

/// Everything that was put, by key, and every increment, by counter key.
#[derive(Default)]
struct Naive {
    puts: BTreeMap<String, Vec<Put>>,
    increments: BTreeMap<String, Vec<(EventId, i64)>>,
    seen: BTreeMap<EventId, BTreeSet<EventId>>,
}

/// One event that is being applied, and what it has seen: its ancestors and itself.
struct Doing<'a> {
    naive: &'a mut Naive,
    id: EventId,
    seen: BTreeSet<EventId>,
}

impl Naive {
    fn of(history: &History) -> Self {
        let mut naive = Self::default();
        let mut waiting: Vec<&(EventId, Event)> = history.events.iter().collect();
        while !waiting.is_empty() {
            waiting.retain(|(id, event)| !naive.apply(*id, event));
        }
        naive
    }

    /// Whether it could be applied: all its parents have been.
    fn apply(&mut self, id: EventId, event: &Event) -> bool {
        let Some(above) = event.parents.iter().map(|parent| self.seen.get(parent)).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let seen: BTreeSet<EventId> = above.into_iter().flatten().copied().chain([id]).collect();
        self.seen.insert(id, seen.clone());
        let mut doing = Doing { naive: self, id, seen };
        event.ops().iter().for_each(|op| doing.op(op));
        true
    }

    /// What nobody has replaced, by key: the event and what it put.
    fn live(&self) -> BTreeMap<String, Vec<String>> {
        let of = |puts: &Vec<Put>| {
            let live = puts.iter().filter(|put| put.replaced_by.is_empty());
            let mut lines: Vec<String> = live.map(|put| format!("{} {:?}", put.by, put.cell)).collect();
            lines.sort();
            lines
        };
        let all = self.puts.iter().map(|(key, puts)| (key.clone(), of(puts)));
        all.filter(|(_, lines)| !lines.is_empty()).collect()
    }

    fn counters(&self) -> BTreeMap<&str, i64> {
        let sum = |by: &Vec<(EventId, i64)>| by.iter().fold(0_i64, |sum, (_, by)| sum.wrapping_add(*by));
        self.increments.iter().map(|(key, by)| (key.as_str(), sum(by))).collect()
    }
}

impl Doing<'_> {
    fn is_live_here(&self, put: &Put) -> bool {
        self.seen.contains(&put.by) && put.replaced_by.is_disjoint(&self.seen)
    }

    fn any(&self, key: &str, test: impl Fn(&Cell) -> bool) -> bool {
        let puts = self.naive.puts.get(key).into_iter().flatten();
        puts.filter(|put| self.is_live_here(put)).any(|put| test(&put.cell))
    }

    /// The keys below a key that hold such a cell.
    fn below(&self, key: &str, test: fn(&Cell) -> bool) -> Vec<String> {
        let is_field = |other: &str| !other.starts_with('$') || other.starts_with("$$") || other == "$";
        let is_below = |other: &str| match key {
            "$root" => is_field(other),
            key => other.strip_prefix(key).is_some_and(|rest| rest.starts_with('/')),
        };
        let keys = self.naive.puts.keys().filter(|other| is_below(other) && self.any(other, test));
        keys.cloned().collect()
    }

    /// Replaces what is live at a key.
    fn set(&mut self, key: &str, cell: Cell) {
        let (id, seen) = (self.id, &self.seen);
        let puts = self.naive.puts.entry(key.to_owned()).or_default();
        let live = puts.iter_mut().filter(|put| seen.contains(&put.by) && put.replaced_by.is_disjoint(seen));
        live.for_each(|put| put.replaced_by.extend([id]));
        puts.push(Put { by: id, cell, replaced_by: BTreeSet::new() });
    }

    /// What a put does around its key.
    fn clear(&mut self, path: &Path) {
        for key in self.below(path.to_key().as_str(), Cell::is_live) {
            self.set(&key, Cell::Tombstone);
        }
        let mut above = path.parent();
        while let Some(path) = above.filter(|path| !path.is_root()) {
            let key = path.to_key();
            if self.any(key.as_str(), |cell| cell.is_live() && *cell != Cell::Value(Value::EmptyObject)) {
                self.set(key.as_str(), Cell::Tombstone);
            }
            above = path.parent();
        }
    }

    fn count(&self, path: &Path) -> i64 {
        let by = self.naive.increments.get(FlatKey::counter(path).as_str()).into_iter().flatten();
        by.filter(|(event, _)| self.seen.contains(event)).fold(0, |sum, (_, by)| sum.wrapping_add(*by))
    }

    fn put(&mut self, path: &Path, value: &Value) {
        self.clear(path);
        let value = match value {
            Value::Int(value) => Value::Int(value.wrapping_sub(self.count(path))),
            value => value.clone(),
        };
        self.set(path.to_key().as_str(), Cell::Value(value));
    }

    fn put_root(&mut self) {
        for key in self.below("$root", Cell::is_live) {
            self.set(&key, Cell::Tombstone);
        }
        self.set("$root", Cell::Value(Value::EmptyObject));
    }

    fn remove(&mut self, path: &Path) {
        let key = path.to_key();
        if !self.any(key.as_str(), Cell::is_field) && self.below(key.as_str(), Cell::is_field).is_empty() {
            return;
        }
        for key in self.below(key.as_str(), Cell::is_live) {
            self.set(&key, Cell::Tombstone);
        }
        self.set(key.as_str(), Cell::Tombstone);
        let parent = path.parent().unwrap().to_key();
        let is_empty = self.below(parent.as_str(), Cell::is_field).is_empty();
        if is_empty && !self.any(parent.as_str(), |cell| *cell == Cell::Value(Value::EmptyObject)) {
            self.set(parent.as_str(), Cell::Value(Value::EmptyObject));
        }
    }

    fn increment(&mut self, path: &Path, by: i64) {
        let key = path.to_key();
        let is_absent = !self.any(key.as_str(), Cell::is_live) && self.below(key.as_str(), Cell::is_field).is_empty();
        if !is_absent && !self.any(key.as_str(), |cell| matches!(cell, Cell::Value(Value::Int(_)))) {
            return;
        }
        if is_absent {
            self.put(path, &Value::Int(0));
        }
        let increments = self.naive.increments.entry(FlatKey::counter(path).as_str().to_owned()).or_default();
        increments.push((self.id, by));
    }

    fn member(&mut self, path: &Path, member: &Value, cell: Cell) {
        let key = FlatKey::member(path, &member.canonical());
        let is_set = self.any(path.to_key().as_str(), |cell| *cell == Cell::Set);
        if is_set && (cell == Cell::Member || self.any(key.as_str(), |cell| *cell == Cell::Member)) {
            self.set(key.as_str(), cell);
        }
    }

    fn make(&mut self, path: &Path, cell: Cell) {
        self.clear(path);
        self.set(path.to_key().as_str(), cell);
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Put { path, .. } if path.is_root() => self.put_root(),
            Op::Put { path, value } => self.put(path, value),
            Op::PutAtomic { path, json } => self.put(path, &Value::Atomic(json.clone())),
            Op::Remove { path } => self.remove(path),
            Op::Increment { path, by } => self.increment(path, *by),
            Op::MakeSet { path } => self.make(path, Cell::Set),
            Op::MakeList { path } => self.make(path, Cell::Container(ContainerKind::List)),
            Op::MakeText { path } => self.make(path, Cell::Container(ContainerKind::Text)),
            Op::SetAdd { path, member } => self.member(path, member, Cell::Member),
            Op::SetRemove { path, member } => self.member(path, member, Cell::Tombstone),
            // What is in a list or text is Automerge's.
            Op::Insert { .. } | Op::RemoveAt { .. } | Op::SpliceText { .. } => {}
            Op::Delete => self.set("$deleted", Cell::Value(Value::Bool(true))),
            Op::Restore => self.set("$deleted", Cell::Value(Value::Bool(false))),
        }
    }
}

/// The live operations of a view, as [`Naive::live`] tells them.
fn live(view: &View<'_>) -> BTreeMap<String, Vec<String>> {
    let line =
        |live: &syncledger::document::Live| format!("{} {:?}", view.graph().node(live.node).unwrap().id, live.cell);
    let of = |lives: &[syncledger::document::Live]| {
        let mut lines: Vec<String> = lives.iter().map(line).collect();
        lines.sort();
        lines
    };
    view.registers()
        .iter()
        .filter(|(_, lives)| !lives.is_empty())
        .map(|(key, lives)| (key.to_owned(), of(lives)))
        .collect()
}

/// Compares the register state of a replica of a history, kept step by step, with the naive model, and with what Automerge
/// reads in the derived document.
///
/// # Panics
/// Where they differ.
pub fn compare(history: &History, rng: &mut Rng) -> BTreeSet<&'static str> {
    let mut replica = history.deliver(rng);
    let naive = Naive::of(history);
    let everything = replica.document.graph().everything();
    assert_eq!(naive.live(), live(&replica.document.view().unwrap()), "by the model, kept step by step");
    assert_eq!(
        naive.live(),
        live(&replica.document.view_at(everything).unwrap()),
        "by the model, as Automerge reads them"
    );
    for (key, count) in naive.counters() {
        assert_eq!(count, replica.document.view().unwrap().registers().counter(key), "{key}");
    }
    held_by(&mut replica)
}

#[test]
fn what_is_live_is_what_the_plainest_model_says() {
    for_histories("naive", 2_000, compare);
}
