//! The live operations of a record at one moment: key by key, all that no later operation replaced.
//!
//! Where a key holds more than one, its writers did not know of each other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::cell::Cell;
use super::graph::{Graph, NodeIx};
use crate::event::KeyRange;

/// One live operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Its Automerge counter.
    pub(crate) counter: u64,
    /// The event that it belongs to.
    pub node: NodeIx,
    /// What it holds.
    pub cell: Cell,
}

/// The live operations of one key.
pub(crate) type Lives = SmallVec<[Live; 1]>;

/// What deriving an event reads of the record as of its parents.
pub(crate) trait State {
    /// The live operations of a key.
    fn lives(&self, key: &str) -> Cow<'_, [Live]>;
    /// The keys in a range that have live operations.
    fn keys(&self, range: &KeyRange) -> Vec<String>;
    /// The sum of a counter's increments; `None` before its birth.
    fn counter(&self, counter_key: &str) -> Option<i64>;
    /// The operations that made the items of a container, in order.
    fn items(&self, container: &super::derive::ObjectRef) -> Vec<super::derive::OpRef>;
}

/// The live operations of a whole record at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registers {
    pub(crate) keys: BTreeMap<String, Lives>,
    pub(crate) counters: BTreeMap<String, i64>,
}

impl Registers {
    /// The registers of a record without events.
    #[must_use]
    pub const fn new() -> Self {
        Self { keys: BTreeMap::new(), counters: BTreeMap::new() }
    }

    /// The keys in byte order, with their live operations.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Live])> {
        self.keys.iter().map(|(key, lives)| (key.as_str(), lives.as_slice()))
    }

    /// The live operations of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> &[Live] {
        self.keys.get(key).map_or(&[], SmallVec::as_slice)
    }

    /// The sum of the increments of the counter at this counter key; 0 before its birth.
    #[must_use]
    pub fn counter(&self, counter_key: &str) -> i64 {
        self.counters.get(counter_key).copied().unwrap_or(0)
    }

    /// Adds the counter beside a key, where there is one.
    pub(crate) fn add_counter(&mut self, key: &str, count: impl Fn(&str) -> Option<i64>) {
        let counter = format!("$#{key}");
        if let Some(count) = count(&counter) {
            self.counters.insert(counter, count);
        }
    }

    /// Replaces what lives at the keys of a selection by one operation each, or nothing.
    pub(crate) fn replace(&mut self, selected: impl Fn(&str) -> bool, by: BTreeMap<String, Live>) {
        let is_member = |lives: &Lives| lives.iter().any(|live| live.cell == Cell::Member);
        self.keys.retain(|key, lives| !selected(key) || is_member(lives));
        for (key, live) in by {
            self.keys.entry(key).or_insert_with(|| [live].into_iter().collect());
        }
    }
}

/// Inserts a live operation where Automerge has it: by counter, then actor, whatever came first.
pub(super) fn insert(graph: &Graph, lives: &mut Lives, live: Live) {
    let order = |live: &Live| (live.counter, graph.actor_of(live.node));
    let at = lives.partition_point(|other| order(other) < order(&live));
    lives.insert(at, live);
}
