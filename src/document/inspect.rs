//! What an event did to counters, lists and texts: for taking it back.

use std::collections::BTreeSet;

use automerge::legacy::{ElementId, Key, ObjectId, Op as LegacyOp};

use super::automerge::Moment;
use super::cell::ContainerKind;
use super::derive::{ObjectRef, OpRef};
use super::graph::NodeIx;
use super::registers::Live;
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
        self.document.writes.increments_of(ix)
    }

    /// What an event did in lists and texts.
    #[must_use]
    pub fn item_edits(&self, ix: NodeIx) -> Vec<ItemEdits> {
        if !self.graph().has_containers() {
            return Vec::new();
        }
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
        let before = self.item_list(&first.object);
        let mut after = before.clone();
        edits.iter().for_each(|(edits, then)| edits.take_back(then, &mut after));
        repairs(&before, &after)
    }

    /// The items that a list or text would have had, had the events not been: as [`View::repair_items`].
    #[must_use]
    pub fn items_without(&self, live: &Live, edits: &[(ItemEdits, View<'_>)]) -> Vec<Value> {
        let Some(object) = self.object(live) else { return Vec::new() };
        let mut items = self.item_list(&object);
        edits.iter().for_each(|(edits, then)| edits.take_back(then, &mut items));
        items.into_iter().map(|(_, value)| value).collect()
    }

    fn item_list(&self, object: &ObjectRef) -> Vec<(OpRef, Value)> {
        self.moment().items(object).into_iter().zip(self.item_values(object)).collect()
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
    /// Whether these edits took out an item that the others had put in.
    #[must_use]
    pub fn took_out(&self, others: &Self) -> bool {
        let inserted: BTreeSet<&OpRef> = others.inserted.iter().collect();
        self.removed.iter().any(|item| inserted.contains(item))
    }

    /// Takes these edits back from a list of items. What comes back comes after the nearest item that was before it.
    fn take_back(&self, then: &View<'_>, items: &mut Vec<(OpRef, Value)>) {
        let inserted: BTreeSet<&OpRef> = self.inserted.iter().collect();
        items.retain(|(item, _)| !inserted.contains(item));
        let here: BTreeSet<OpRef> = items.iter().map(|(item, _)| *item).collect();
        let gone: BTreeSet<&OpRef> = self.removed.iter().filter(|item| !here.contains(item)).collect();
        let mut next = 0;
        for (item, value) in if gone.is_empty() { Vec::new() } else { then.item_list(&self.object) } {
            if here.contains(&item) {
                let place = items.iter().skip(next).position(|(other, _)| *other == item);
                next += place.map_or(0, |place| place + 1);
            } else if gone.contains(&item) {
                items.insert(next, (item, value));
                next += 1;
            }
        }
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

/// What makes one list of items the other. Where an item goes and an equal one comes, nothing does.
fn repairs(before: &[(OpRef, Value)], after: &[(OpRef, Value)]) -> Vec<ItemRepair> {
    let stays: BTreeSet<OpRef> = after.iter().map(|(item, _)| *item).collect();
    let stays: BTreeSet<OpRef> = before.iter().map(|(item, _)| *item).filter(|item| stays.contains(item)).collect();
    let is_kept = |(item, _): &(OpRef, Value)| stays.contains(item);
    let (mut repairs, mut index) = (Vec::new(), 0);
    for (old, new) in before.split(is_kept).zip(after.split(is_kept)) {
        let same = |(old, new): &(&(OpRef, Value), &(OpRef, Value))| old.1 == new.1;
        let start = old.iter().zip(new).take_while(same).count();
        let (old, new) = (old.get(start..).unwrap_or_default(), new.get(start..).unwrap_or_default());
        let end = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        index += start as u64;
        repairs.extend((end..old.len()).map(|_| ItemRepair::Remove(index)));
        for (_, value) in new.iter().take(new.len() - end) {
            repairs.push(ItemRepair::Insert(index, value.clone()));
            index += 1;
        }
        index += end as u64 + 1;
    }
    repairs
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
