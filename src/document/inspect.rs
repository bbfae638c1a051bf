//! What an event did to counters, lists and texts: for taking it back.

use automerge::legacy::{ElementId, Key, ObjectId, Op as LegacyOp, OpType};

use super::automerge::Moment;
use super::cell::ContainerKind;
use super::derive::{ObjectRef, OpRef};
use super::graph::NodeIx;
use super::registers::{Live, State};
use super::{Cell, View};
use crate::event::{Container, EventId, Value};

/// What an event did in one list or text.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemEdits {
    /// Which one.
    pub container: Container,
    /// Whether it is a list or a text.
    pub kind: ContainerKind,
    object: ObjectRef,
    inserted: Vec<OpRef>,
    removed: Vec<OpRef>,
}

/// How to take back what an event did in one list or text, in the order of its making.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemRepair {
    /// Remove the item at an index.
    Remove(u64),
    /// Insert an item before an index.
    Insert(u64, Value),
}

impl View<'_> {
    /// How much an event added to which counters, by counter key.
    #[must_use]
    pub fn increments(&self, ix: NodeIx) -> Vec<(String, i64)> {
        let increment = |op: LegacyOp| match (op.action, op.key) {
            (OpType::Increment(by), Key::Map(key)) => Some((key.to_string(), by)),
            _ => None,
        };
        self.moment().operations(ix).into_iter().filter_map(|(_, op)| increment(op)).collect()
    }

    /// What an event did in lists and texts.
    #[must_use]
    pub fn item_edits(&self, ix: NodeIx) -> Vec<ItemEdits> {
        let actor = self.graph().actor_of(ix);
        let mut edits: Vec<ItemEdits> = Vec::new();
        for (counter, op) in self.moment().operations(ix) {
            let ObjectId::Id(object) = &op.obj else { continue };
            let Some(object) = op_ref(object.counter(), object.actor().to_bytes()) else { continue };
            let Some(place) = edits.iter().position(|edit| edit.object.op == object) else {
                let Some(mut edit) = self.edits_of(object) else { continue };
                edit.add(OpRef { counter, actor }, &op);
                edits.push(edit);
                continue;
            };
            edits.get_mut(place).into_iter().for_each(|edit| edit.add(OpRef { counter, actor }, &op));
        }
        edits
    }

    fn edits_of(&self, object: OpRef) -> Option<ItemEdits> {
        let maker = self.graph().node_of_op(object.counter, &object.actor)?;
        let node = self.graph().node(maker)?;
        let (op, _, kind) = node.makes.iter().find(|make| make.1 == object.counter)?;
        Some(ItemEdits {
            container: Container::Of(node.id, *op),
            kind: *kind,
            object: ObjectRef { op: object, kind: *kind },
            inserted: Vec::new(),
            removed: Vec::new(),
        })
    }

    /// How to take back what some events did in one list or text, as this view shows it, in the order of taking back:
    /// the latest event first, each with the view that it was made on.
    #[must_use]
    pub fn repair_items(&self, edits: &[(ItemEdits, View<'_>)]) -> Vec<ItemRepair> {
        let Some((first, _)) = edits.first() else { return Vec::new() };
        let mut now = self.moment().items(&first.object);
        edits.iter().flat_map(|(edits, before)| edits.repair(before, &mut now)).collect()
    }

    fn item_values(&self, object: &ObjectRef) -> Vec<Value> {
        match object.kind {
            ContainerKind::List => self.moment().list(object),
            ContainerKind::Text => self.moment().text(object).chars().map(|c| Value::Text(c.into())).collect(),
        }
    }

    /// What an operation of an event made: a list or a text, or neither.
    #[must_use]
    pub fn kind(&self, event: EventId, op: u32) -> Option<ContainerKind> {
        let ix = self.graph().find(&event).filter(|&ix| self.graph().contains(self.clock(), ix))?;
        self.graph().node(ix)?.makes.iter().find(|make| make.0 == op).map(|make| make.2)
    }

    /// How many items or characters the list or text has that an operation of an event made.
    #[must_use]
    pub fn length(&self, event: EventId, op: u32) -> Option<u64> {
        let ix = self.graph().find(&event)?;
        let make = self.graph().node(ix)?.makes.iter().find(|make| make.0 == op)?;
        let object = ObjectRef { op: OpRef { counter: make.1, actor: self.graph().actor_of(ix) }, kind: make.2 };
        Some(self.moment().items(&object).len() as u64)
    }

    /// The only operation that lives at a key, where there is one.
    #[must_use]
    pub fn single(&self, key: &str) -> Option<&Live> {
        match self.registers().get(key) {
            [live] if live.cell != Cell::Tombstone => Some(live),
            _ => None,
        }
    }
}

impl ItemEdits {
    /// How to take these edits back, as the items are now; afterwards `now` is as they will be.
    fn repair(&self, before: &View<'_>, now: &mut Vec<OpRef>) -> Vec<ItemRepair> {
        let mut repairs = Vec::new();
        for inserted in &self.inserted {
            if let Some(index) = now.iter().position(|item| item == inserted) {
                now.remove(index);
                repairs.push(ItemRepair::Remove(index as u64));
            }
        }
        let old = before.moment().items(&self.object);
        let values = before.item_values(&self.object);
        for (place, (item, value)) in old.iter().zip(values).enumerate() {
            if !self.removed.contains(item) || now.contains(item) {
                continue;
            }
            let neighbours = old.get(..place).unwrap_or_default().iter().rev();
            let after = neighbours.filter_map(|left| now.iter().position(|item| item == left)).next();
            let index = after.map_or(0, |left| left + 1);
            now.insert(index, *item);
            repairs.push(ItemRepair::Insert(index as u64, value));
        }
        repairs
    }

    fn add(&mut self, op: OpRef, change: &LegacyOp) {
        if change.insert {
            self.inserted.push(op);
        } else if let Key::Seq(ElementId::Id(item)) = &change.key
            && let Some(item) = op_ref(item.counter(), item.actor().to_bytes())
        {
            self.removed.push(item);
        }
    }
}

fn op_ref(counter: u64, actor: &[u8]) -> Option<OpRef> {
    Some(OpRef { counter, actor: actor.try_into().ok()? })
}

impl Moment<'_> {
    /// The operations of an event's change, with their counters.
    fn operations(&self, ix: NodeIx) -> Vec<(u64, LegacyOp)> {
        let change = self.materialised.hash(ix).and_then(|hash| self.materialised.change(&hash));
        change.map_or_else(Vec::new, |change| (change.start_op().get()..).zip(change.decode().operations).collect())
    }
}
