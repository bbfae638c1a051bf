//! The items of lists and texts, as the last events that were made in line left them: the next one needs no Automerge.
//!
//! Invariant: what is here is what Automerge would say, of the heads. An event made apart clears it.

use std::collections::BTreeMap;

use super::derive::{ObjectRef, OpRef};

/// How many items are kept at most.
const MOST: usize = 1 << 18;

/// In how many lists and texts at most.
const CONTAINERS: usize = 64;

/// The operations that made the items of some lists and texts, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items(BTreeMap<ObjectRef, Vec<OpRef>>);

impl Items {
    pub(super) fn contains(&self, object: &ObjectRef) -> bool {
        self.0.contains_key(object)
    }

    /// Those of one, asked for where they are not known.
    pub(super) fn of(&mut self, object: ObjectRef, ask: impl FnOnce() -> Vec<OpRef>) -> &mut Vec<OpRef> {
        self.0.entry(object).or_insert_with(ask)
    }

    /// The same, where they are few enough to be kept.
    pub(super) fn kept(self) -> Self {
        let fits = self.0.len() <= CONTAINERS && self.count() <= MOST;
        if fits { self } else { Self::default() }
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// About how many bytes of memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.count() * size_of::<OpRef>()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &Vec<OpRef>)> {
        self.0.iter()
    }
}
