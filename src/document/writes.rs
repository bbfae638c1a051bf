//! Every write of every key of a record: what lived at any moment, told without the Automerge document.
//!
//! A value is always written fresh, in the place of all that its writer saw at the key. So of the writes of a key that a set of
//! events holds, those live as of the set that are ancestors of no other of them.
//!
//! Invariant: writes of a key are in the order of the graph, one for each event that wrote it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::derive::{ChangeOp, Derived, ObjectRef, OpRef};
use super::graph::{Clock, Graph, NodeIx};
use super::registers::{Live, Lives, Registers, State, insert};
use crate::event::{FlatKey, KeyRange};

/// What an event wrote at a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Write {
    node: NodeIx,
    counter: u64,
    cell: Cell,
    /// Whether its writer saw all the writes before it.
    alone: bool,
}

/// The writes of a record's keys, and the increments of its counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Writes {
    keys: BTreeMap<String, Vec<Write>>,
    increments: BTreeMap<String, Vec<(NodeIx, i64)>>,
    /// About how many bytes of memory all of it takes.
    bytes: usize,
}

/// About how many bytes of memory a write takes.
fn bytes_of(write: &Write) -> usize {
    let value = if let Cell::Value(value) = &write.cell { value.inline_bytes() } else { 0 };
    size_of::<Write>() + value
}

impl Writes {
    /// About how many bytes of memory all of it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in what an event was derived to, after which `now` lives.
    pub(super) fn add(&mut self, node: NodeIx, derived: &Derived, now: &Registers) {
        for (counter, op) in (derived.start_op..).zip(&derived.ops) {
            match op {
                ChangeOp::Set { key, cell } => {
                    let alone = now.get(key).len() == 1;
                    let write = Write { node, counter, cell: cell.clone(), alone };
                    self.bytes += bytes_of(&write);
                    match self.keys.get_mut(key) {
                        Some(writes) => {
                            let gone = writes.pop_if(|last| last.node == node);
                            self.bytes -= gone.as_ref().map_or(0, bytes_of);
                            writes.push(write);
                        }
                        None => drop(self.keys.insert(key.clone(), vec![write])),
                    }
                }
                ChangeOp::Increment { key, by } => {
                    self.increments.entry(key.clone()).or_default().push((node, *by));
                }
                ChangeOp::Clear { .. } | ChangeOp::Insert { .. } | ChangeOp::RemoveItem { .. } => {}
            }
        }
    }

    /// Whether any event counted.
    pub(super) fn has_increments(&self) -> bool {
        !self.increments.is_empty()
    }

    /// Forgets what events before one wrote that has all of them as ancestors, as if it had written what lived then.
    pub(super) fn forget_before(&mut self, cut: NodeIx, graph: &Graph, clock: &Clock) {
        self.bytes = 0;
        for writes in self.keys.values_mut() {
            let since = writes.split_off(writes.partition_point(|write| write.node <= cut));
            let then = Past::live_as_of(graph, clock, writes);
            let lived = then.into_iter().map(|live| {
                let Live { counter, cell, .. } = live;
                Write { node: cut, counter, cell, alone: true }
            });
            *writes = lived.chain(since).collect();
            writes.iter_mut().for_each(|write| write.node = write.node.saturating_sub(cut));
            self.bytes += writes.iter().map(bytes_of).sum::<usize>();
        }
    }

    /// Forgets what events from one on wrote at a key.
    pub(super) fn rewind_key(&mut self, key: &str, from: NodeIx) {
        let Some(writes) = self.keys.get_mut(key) else { return };
        let gone = writes.split_off(writes.partition_point(|write| write.node < from));
        self.bytes -= gone.iter().map(bytes_of).sum::<usize>();
        if writes.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Forgets what events from one on added to a counter.
    pub(super) fn rewind_counter(&mut self, key: &str, from: NodeIx) {
        let Some(increments) = self.increments.get_mut(key) else { return };
        increments.truncate(increments.partition_point(|(node, _)| *node < from));
        if increments.is_empty() {
            self.increments.remove(key);
        }
    }

    /// What an event wrote at the keys of the record, whether it still lives or not.
    pub(super) fn of(&self, node: NodeIx) -> Vec<(String, Live)> {
        let written = self.keys.iter().filter_map(|(key, writes)| {
            let place = writes.binary_search_by_key(&node, |write| write.node).ok()?;
            Some((key.clone(), live(writes.get(place)?)))
        });
        written.collect()
    }

    /// What each event wrote at the keys of a selection, by key, whether it still lives or not.
    pub(super) fn by_node(&self, selected: impl Fn(&str) -> bool) -> BTreeMap<NodeIx, Vec<(String, Live)>> {
        let mut by_node: BTreeMap<NodeIx, Vec<(String, Live)>> = BTreeMap::new();
        for (key, writes) in self.keys.iter().filter(|(key, _)| selected(key)) {
            for write in writes {
                by_node.entry(write.node).or_default().push((key.clone(), live(write)));
            }
        }
        by_node
    }

    /// How much an event added to which counters, by counter key.
    pub(super) fn increments_of(&self, node: NodeIx) -> Vec<(String, i64)> {
        let made = self.increments.iter().flat_map(|(key, increments)| {
            let start = increments.partition_point(|(other, _)| *other < node);
            let made = increments.iter().skip(start).take_while(move |(other, _)| *other == node);
            made.map(move |(_, by)| (key.clone(), *by))
        });
        made.collect()
    }
}

fn live(write: &Write) -> Live {
    Live { counter: write.counter, node: write.node, cell: write.cell.clone() }
}

/// A record's registers as of a set of events.
#[derive(Clone, Copy)]
pub(super) struct Past<'a> {
    pub(super) writes: &'a Writes,
    pub(super) graph: &'a Graph,
    pub(super) clock: &'a Clock,
}

impl Past<'_> {
    fn live_of(&self, writes: &[Write]) -> Lives {
        Self::live_as_of(self.graph, self.clock, writes)
    }

    /// Those of a key's writes that live as of a set of events.
    fn live_as_of(graph: &Graph, clock: &Clock, writes: &[Write]) -> Lives {
        let mut lives = Lives::new();
        for write in writes.iter().rev().filter(|write| graph.contains(clock, write.node)) {
            if !lives.iter().any(|later| graph.is_ancestor(write.node, later.node)) {
                insert(graph, &mut lives, live(write));
            }
            if write.alone {
                break;
            }
        }
        lives
    }

    /// The live operations of every key, and the counters.
    pub(super) fn registers(&self) -> Registers {
        let lives = self.writes.keys.iter().map(|(key, writes)| (key.clone(), self.live_of(writes)));
        let keys = lives.filter(|(_, lives)| !lives.is_empty()).collect();
        let counters = self.writes.increments.keys().filter_map(|key| Some((key.clone(), self.counter(key)?)));
        Registers { keys, counters: counters.collect() }
    }

    /// The live operations of one field and what lies below it.
    pub(super) fn field(&self, key: &FlatKey) -> Registers {
        let mut registers = Registers::default();
        let below = self.writes.keys.range(key.below_range()).map(|(below, _)| below.as_str());
        let below = below.filter(|below| FlatKey::from_document(*below).is_below(key));
        for key in below.chain([key.as_str()]) {
            let lives = self.lives(key).into_owned();
            if !lives.is_empty() {
                registers.add_counter(key, |counter| self.counter(counter));
                registers.keys.insert(key.to_owned(), lives.into());
            }
        }
        registers
    }
}

impl State for Past<'_> {
    fn lives(&self, key: &str) -> Cow<'_, [Live]> {
        let lives = self.writes.keys.get(key).map(|writes| self.live_of(writes)).unwrap_or_default();
        Cow::Owned(lives.into_vec())
    }

    fn keys(&self, range: &KeyRange) -> Vec<String> {
        let is_there = |writes: &[Write]| writes.iter().any(|write| self.graph.contains(self.clock, write.node));
        let keys = self.writes.keys.range(range.clone()).filter(|(_, writes)| is_there(writes));
        keys.map(|(key, _)| key.clone()).collect()
    }

    fn counter(&self, counter_key: &str) -> Option<i64> {
        let increments = self.writes.increments.get(counter_key)?;
        let known = increments.iter().filter(|(node, _)| self.graph.contains(self.clock, *node));
        known.map(|(_, by)| *by).reduce(i64::wrapping_add)
    }

    fn items(&self, _: &ObjectRef) -> Vec<OpRef> {
        Vec::new()
    }
}
