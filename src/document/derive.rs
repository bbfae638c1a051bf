//! Derivation: what an event does to the document, as a function of the event and its ancestors alone.
//!
//! The table of what each operation does in every state is total and frozen: a path that is missing or of the wrong
//! kind makes an operation do nothing, an index beyond the end means the end. Every replica, of every version, must
//! derive the same operations from the same event; `tests/fixtures/v1` holds the hashes that prove it.
//!
//! A value is always written *fresh*: what lives at the key is deleted and the value put, in this order. Automerge
//! alone would elide an equal put, and a resolution that takes the shown value would leave no trace.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cell::{Cell, ContainerKind};
use super::graph::{Clock, Graph, Place};
use super::items::Items;
use super::registers::{Live, Lives, State, insert};
use crate::event::{Container, Event, EventId, FlatKey, Op, Path, Value, json};

/// An operation of the Automerge document: its counter and its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OpRef {
    pub(crate) counter: u64,
    pub(crate) actor: [u8; 16],
}

/// A list or text of the Automerge document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) op: OpRef,
    pub(crate) kind: ContainerKind,
}

/// One operation of the derived change, in the order of their counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ChangeOp {
    /// Deletes what lives at a key.
    Clear { key: String, live: Vec<OpRef> },
    /// Puts a cell at a key where nothing lives.
    Set { key: String, cell: Cell },
    /// Adds to the counter at a counter key.
    Increment { key: String, by: i64 },
    /// Inserts an item after another, or first.
    Insert { object: ObjectRef, after: Option<OpRef>, item: Value },
    /// Deletes an item.
    RemoveItem { object: ObjectRef, item: OpRef },
}

/// A list or text made by an event.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Make {
    /// The index of the event's operation.
    pub(crate) op: u32,
    /// The counter of the Automerge operation.
    pub(crate) counter: u64,
    pub(crate) kind: ContainerKind,
}

/// What an event was derived to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Derived {
    pub(crate) start_op: u64,
    pub(crate) ops: Vec<ChangeOp>,
    /// The counter keys whose counters are born with the event.
    pub(crate) births: Vec<String>,
    pub(crate) makes: Vec<Make>,
}

/// Derives `event`, which stands at `place`, from the state as of its parents. `items` are those that are known as of its
/// parents, and then as of itself.
pub(crate) fn derive(graph: &Graph, place: &Place, event: &Event, state: &dyn State, items: &mut Items) -> Derived {
    let start = graph.start_op(place);
    let derived = Deriving::new(graph, place, state, start).run(event, items);
    if derived.births.is_empty() || start > 1 {
        return derived;
    }
    // A counter's birth is operation 1 of its own change: what follows it starts at 2. There are no items before it.
    *items = Items::default();
    Deriving::new(graph, place, state, 2).run(event, items)
}

/// The list or text that an operation of an event made, where it is one of `kind` among some events.
pub(crate) fn object_of(graph: &Graph, past: &Clock, made: (EventId, u32), kind: ContainerKind) -> Option<ObjectRef> {
    let ix = graph.find(&made.0).filter(|&ix| graph.contains(past, ix))?;
    let counter = graph.node(ix)?.makes.iter().find(|make| make.0 == made.1 && make.2 == kind)?.1;
    Some(ObjectRef { op: OpRef { counter, actor: graph.actor_of(ix) }, kind })
}

/// Which keys live, as far as the event's operations asked: every part of the record is looked through once, so that
/// no event costs its number of operations times the record's number of keys.
#[derive(Default)]
struct Below {
    /// The keys below which everything is known.
    known: BTreeSet<String>,
    live: BTreeSet<String>,
    fields: BTreeSet<String>,
}

impl Below {
    fn note<'c>(&mut self, key: &str, cells: impl IntoIterator<Item = &'c Cell>) {
        let (mut live, mut field) = (false, false);
        for cell in cells {
            (live, field) = (live || cell.is_live(), field || cell.is_field());
        }
        for (is, keys) in [(live, &mut self.live), (field, &mut self.fields)] {
            if is {
                keys.insert(key.to_owned());
            } else {
                keys.remove(key);
            }
        }
    }

    fn knows(&self, path: &Path) -> bool {
        let mut above = Some(path.clone());
        while let Some(path) = above {
            if self.known.contains(path.to_key().as_str()) {
                return true;
            }
            above = path.parent();
        }
        false
    }
}

struct Deriving<'a> {
    graph: &'a Graph,
    place: &'a Place,
    state: &'a dyn State,
    /// What the event's earlier operations made of keys.
    keys: BTreeMap<String, Vec<(OpRef, Cell)>>,
    below: Below,
    counters: BTreeMap<String, i64>,
    /// The items of containers, as the event's earlier operations left them.
    items: Items,
    derived: Derived,
}

impl<'a> Deriving<'a> {
    fn new(graph: &'a Graph, place: &'a Place, state: &'a dyn State, start_op: u64) -> Self {
        let derived = Derived { start_op, ..Derived::default() };
        let (keys, counters, items) = (BTreeMap::new(), BTreeMap::new(), Items::default());
        Self { graph, place, state, keys, below: Below::default(), counters, items, derived }
    }

    fn run(mut self, event: &Event, items: &mut Items) -> Derived {
        self.items = std::mem::take(items);
        for (index, op) in (0..).zip(event.ops()) {
            self.op(index, op);
        }
        *items = self.items;
        self.derived
    }

    /// The frozen table.
    fn op(&mut self, index: u32, op: &Op) {
        match op {
            Op::Put { path, value } if path.is_root() => self.clear_record(value),
            Op::Put { path, value } => drop(self.put(path, Cell::Value(value.clone()))),
            Op::PutAtomic { path, json } => drop(self.put(path, Cell::Value(Value::Atomic(json.clone())))),
            Op::Remove { path } => self.remove(path),
            Op::Increment { path, by } => self.increment(path, *by),
            Op::MakeSet { path } => drop(self.put(path, Cell::Set)),
            Op::SetAdd { path, member } => self.member(path, member, true),
            Op::SetRemove { path, member } => self.member(path, member, false),
            Op::MakeList { path } => self.make(index, path, ContainerKind::List),
            Op::MakeText { path } => self.make(index, path, ContainerKind::Text),
            Op::Insert { container, index, value } => self.insert(*container, *index, value),
            Op::RemoveAt { container, index } => self.remove_at(*container, *index),
            Op::SpliceText { container, index, delete, insert } => self.splice(*container, *index, *delete, insert),
            Op::Delete => drop(self.set(FlatKey::deleted().as_str(), Cell::Value(Value::Bool(true)))),
            Op::Restore => drop(self.set(FlatKey::deleted().as_str(), Cell::Value(Value::Bool(false)))),
        }
    }

    // --- what is there -------------------------------------------------------------------------------------------

    fn lives(&self, key: &str) -> Vec<(OpRef, Cell)> {
        if let Some(lives) = self.keys.get(key) {
            return lives.clone();
        }
        let lives: Cow<'_, [Live]> = self.state.lives(key);
        let op = |live: &Live| OpRef { counter: live.counter, actor: self.graph.actor_of(live.node) };
        lives.iter().map(|live| (op(live), live.cell.clone())).collect()
    }

    fn any(&self, key: &str, test: impl Fn(&Cell) -> bool) -> bool {
        match self.keys.get(key) {
            Some(lives) => lives.iter().any(|(_, cell)| test(cell)),
            None => self.state.lives(key).iter().any(|live| test(&live.cell)),
        }
    }

    fn look_below(&mut self, path: &Path) {
        if self.below.knows(path) {
            return;
        }
        let key = path.to_key();
        for below in self.state.keys(&key.below_range()) {
            // What the event itself wrote is known.
            if !self.keys.contains_key(&below) {
                let lives = self.state.lives(&below);
                self.below.note(&below, lives.iter().map(|live| &live.cell));
            }
        }
        self.below.known.insert(key.into_string());
    }

    /// The keys below a path that live, in byte order.
    fn live_below(&mut self, path: &Path) -> Vec<String> {
        self.look_below(path);
        let key = path.to_key();
        let keys = self.below.live.range(key.below_range());
        keys.filter(|below| FlatKey::from_document(below.as_str()).is_below(&key)).cloned().collect()
    }

    /// Whether there is a field below a path.
    fn has_fields_below(&mut self, path: &Path) -> bool {
        self.look_below(path);
        let key = path.to_key();
        let mut keys = self.below.fields.range(key.below_range());
        keys.any(|below| FlatKey::from_document(below.as_str()).is_below(&key))
    }

    fn counter(&self, key: &str) -> Option<i64> {
        self.counters.get(key).copied().or_else(|| self.state.counter(key))
    }

    // --- registers -----------------------------------------------------------------------------------------------

    fn emit(&mut self, op: ChangeOp) -> OpRef {
        let counter = self.derived.start_op + self.derived.ops.len() as u64;
        self.derived.ops.push(op);
        OpRef { counter, actor: self.place.actor }
    }

    /// Writes a cell fresh: deletes what lives at the key, then puts.
    fn set(&mut self, key: &str, cell: Cell) -> OpRef {
        let mut live: Vec<OpRef> = self.lives(key).into_iter().map(|(op, _)| op).collect();
        if !live.is_empty() {
            live.sort_unstable();
            self.emit(ChangeOp::Clear { key: key.to_owned(), live });
        }
        let op = self.emit(ChangeOp::Set { key: key.to_owned(), cell: cell.clone() });
        self.below.note(key, [&cell]);
        self.keys.insert(key.to_owned(), vec![(op, cell)]);
        op
    }

    /// Puts a cell at a path: what lives below goes, and every value above that bears no fields.
    fn put(&mut self, path: &Path, cell: Cell) -> OpRef {
        let key = path.to_key();
        for below in self.live_below(path) {
            self.set(&below, Cell::Tombstone);
        }
        self.clear_above(path);
        let cell = self.without_counter(path, cell);
        self.set(key.as_str(), cell)
    }

    fn clear_above(&mut self, path: &Path) {
        let mut above = path.parent();
        while let Some(path) = above.filter(|path| !path.is_root()) {
            let key = path.to_key();
            if self.any(key.as_str(), |cell| !cell.bears_fields()) {
                self.set(key.as_str(), Cell::Tombstone);
            }
            above = path.parent();
        }
    }

    /// A register beside a counter holds what is missing to the value, so that increments made apart add to it.
    fn without_counter(&self, path: &Path, cell: Cell) -> Cell {
        let Cell::Value(Value::Int(value)) = cell else { return cell };
        let count = self.counter(FlatKey::counter(path).as_str()).unwrap_or(0);
        Cell::Value(Value::Int(value.wrapping_sub(count)))
    }

    /// Empties the record: the one value that its root takes.
    fn clear_record(&mut self, value: &Value) {
        let root = Path::root();
        for key in self.live_below(&root) {
            self.set(&key, Cell::Tombstone);
        }
        self.set(root.to_key().as_str(), Cell::Value(value.clone()));
    }

    fn remove(&mut self, path: &Path) {
        let key = path.to_key();
        if !self.any(key.as_str(), Cell::is_field) && !self.has_fields_below(path) {
            return;
        }
        for below in self.live_below(path) {
            self.set(&below, Cell::Tombstone);
        }
        self.set(key.as_str(), Cell::Tombstone);
        self.keep_object(path);
    }

    /// An object that a removal leaves without fields stays an object, also where others made it a value meanwhile:
    /// who removed the field saw the object.
    fn keep_object(&mut self, removed: &Path) {
        let Some(parent) = removed.parent() else { return };
        let key = parent.to_key();
        let is_marked = |cell: &Cell| *cell == Cell::Value(Value::EmptyObject);
        if !self.has_fields_below(&parent) && !self.any(key.as_str(), is_marked) {
            self.set(key.as_str(), Cell::Value(Value::EmptyObject));
        }
    }

    fn increment(&mut self, path: &Path, by: i64) {
        let (key, counter) = (path.to_key(), FlatKey::counter(path));
        let is_count = self.any(key.as_str(), |cell| matches!(cell, Cell::Value(Value::Int(_))));
        let is_absent = !self.any(key.as_str(), Cell::is_live) && !self.has_fields_below(path);
        if is_absent {
            self.put(path, Cell::Value(Value::Int(0)));
        } else if !is_count {
            return;
        }
        let count = self.counter(counter.as_str());
        if count.is_none() {
            self.derived.births.push(counter.as_str().to_owned());
        }
        self.counters.insert(counter.as_str().to_owned(), count.unwrap_or(0).wrapping_add(by));
        self.emit(ChangeOp::Increment { key: counter.as_str().to_owned(), by });
    }

    fn member(&mut self, path: &Path, member: &Value, add: bool) {
        let key = path.to_key();
        if !self.any(key.as_str(), |cell| *cell == Cell::Set) {
            return;
        }
        let member = FlatKey::member(path, &member_text(member));
        if add {
            self.set(member.as_str(), Cell::Member);
        } else if self.any(member.as_str(), |cell| *cell == Cell::Member) {
            self.set(member.as_str(), Cell::Tombstone);
        }
    }

    // --- lists and texts -----------------------------------------------------------------------------------------

    fn make(&mut self, index: u32, path: &Path, kind: ContainerKind) {
        let op = self.put(path, Cell::Container(kind));
        self.items.of(ObjectRef { op, kind }, Vec::new);
        self.derived.makes.push(Make { op: index, counter: op.counter, kind });
    }

    /// The container, where it is one of `kind` among the event's own or its ancestors'.
    fn object(&self, container: Container, kind: ContainerKind) -> Option<ObjectRef> {
        match container {
            Container::Own(op) => {
                let make = self.derived.makes.iter().find(|make| make.op == op && make.kind == kind)?;
                Some(ObjectRef { op: OpRef { counter: make.counter, actor: self.place.actor }, kind })
            }
            Container::Of(event, op) => object_of(self.graph, &self.place.past, (event, op), kind),
        }
    }

    /// The working list of a container's items.
    fn items(&mut self, object: ObjectRef) -> &mut Vec<OpRef> {
        let state = self.state;
        self.items.of(object, || state.items(&object))
    }

    fn insert(&mut self, container: Container, index: u64, value: &Value) {
        if let Some(object) = self.object(container, ContainerKind::List) {
            let at = clamp(index, self.items(object).len());
            self.insert_items(object, at, [value.clone()]);
        }
    }

    fn remove_at(&mut self, container: Container, index: u64) {
        let Some(object) = self.object(container, ContainerKind::List) else { return };
        let at = clamp(index, self.items(object).len());
        self.remove_items(object, at..at.saturating_add(1));
    }

    fn splice(&mut self, container: Container, index: u64, delete: u64, insert: &str) {
        let Some(object) = self.object(container, ContainerKind::Text) else { return };
        let before = self.items(object).len();
        let at = clamp(index, before);
        // As Automerge's own splice: first what comes, then what goes behind it.
        self.insert_items(object, at, insert.chars().map(|c| Value::Text(c.into())));
        let after = at + self.items(object).len() - before;
        let delete = usize::try_from(delete).unwrap_or(usize::MAX);
        self.remove_items(object, after..after.saturating_add(delete));
    }

    fn remove_items(&mut self, object: ObjectRef, part: std::ops::Range<usize>) {
        let items = self.items(object);
        let part = part.start.min(items.len())..part.end.min(items.len());
        for item in items.drain(part).collect::<Vec<_>>() {
            self.emit(ChangeOp::RemoveItem { object, item });
        }
    }

    fn insert_items(&mut self, object: ObjectRef, at: usize, values: impl IntoIterator<Item = Value>) {
        let mut after = at.checked_sub(1).and_then(|before| self.items(object).get(before).copied());
        let mut inserted = Vec::new();
        for item in values {
            let op = self.emit(ChangeOp::Insert { object, after, item });
            inserted.push(op);
            after = Some(op);
        }
        self.items(object).splice(at..at, inserted);
    }
}

fn clamp(index: u64, length: usize) -> usize {
    usize::try_from(index).map_or(length, |index| index.min(length))
}

/// The canonical JSON that names a member among the keys of its set.
pub(crate) fn member_text(member: &Value) -> String {
    match member.to_json() {
        Ok(value) => json::canonical(&value),
        Err(_) => member.canonical(),
    }
}

/// The live operations after those of a derived change, made by `node`, were applied.
pub(crate) fn apply_to(
    keys: &mut BTreeMap<String, Lives>,
    counters: &mut BTreeMap<String, i64>,
    graph: &Graph,
    node: super::graph::NodeIx,
    derived: &Derived,
) {
    for birth in &derived.births {
        counters.entry(birth.clone()).or_insert(0);
    }
    for (counter, op) in (derived.start_op..).zip(&derived.ops) {
        match op {
            ChangeOp::Clear { key, live } => {
                let Some(lives) = keys.get_mut(key) else { continue };
                lives.retain(|l| !live.contains(&OpRef { counter: l.counter, actor: graph.actor_of(l.node) }));
                if lives.is_empty() {
                    keys.remove(key);
                }
            }
            ChangeOp::Set { key, cell } => {
                insert(graph, keys.entry(key.clone()).or_default(), Live { counter, node, cell: cell.clone() });
            }
            ChangeOp::Increment { key, by } => {
                let count = counters.entry(key.clone()).or_insert(0);
                *count = count.wrapping_add(*by);
            }
            ChangeOp::Insert { .. } | ChangeOp::RemoveItem { .. } => {}
        }
    }
}
