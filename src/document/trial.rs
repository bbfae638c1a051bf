//! Applying events for trial: a later write of a batch is planned on what those before it will leave.
//!
//! Invariant: going back costs what was tried, not what the record holds, unless Automerge had to take part.

use std::collections::BTreeMap;

use super::automerge::Materialised;
use super::derive::{ChangeOp, Derived};
use super::items::Items;
use super::registers::{Lives, Registers};
use super::{Document, Pending, graph};

/// What a document was before the events that it holds for trial.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    graph: graph::Mark,
    /// What was at the keys that the tried events wrote.
    keys: BTreeMap<String, Option<Lives>>,
    counters: BTreeMap<String, Option<i64>>,
    pending: usize,
    items: Items,
    /// The Automerge document and what waited for it, once it took in a tried event.
    automerge: Option<(Materialised, Vec<Pending>)>,
}

impl Trial {
    /// Keeps what a derived event is about to change.
    pub(super) fn before(&mut self, now: &Registers, derived: &Derived) {
        for op in &derived.ops {
            match op {
                ChangeOp::Clear { key, .. } | ChangeOp::Set { key, .. } => {
                    self.keys.entry(key.clone()).or_insert_with(|| now.keys.get(key).cloned());
                }
                ChangeOp::Increment { key, .. } => {
                    self.counters.entry(key.clone()).or_insert_with(|| now.counters.get(key).copied());
                }
                ChangeOp::Insert { .. } | ChangeOp::RemoveItem { .. } => {}
            }
        }
    }

    /// Keeps the Automerge document, which is about to take in what waits for it.
    pub(super) fn before_automerge(&mut self, materialised: &Materialised, waiting: &[Pending]) {
        let waited = waiting.iter().take(self.pending).cloned();
        self.automerge.get_or_insert_with(|| (materialised.clone(), waited.collect()));
    }
}

impl Document {
    /// Takes what is applied from now on for a trial, until [`Document::end_trial`]. Within one it does nothing.
    pub(crate) fn begin_trial(&mut self) {
        if self.trial.is_some() {
            return;
        }
        let (graph, pending, items) = (self.graph.mark(), self.pending.len(), self.items.clone());
        let (keys, counters, automerge) = Default::default();
        self.trial = Some(Box::new(Trial { graph, keys, counters, pending, items, automerge }));
    }

    /// Goes back to what the document was when the trial began. Without one it does nothing.
    pub(crate) fn end_trial(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let next = trial.graph.next();
        trial.keys.keys().for_each(|key| self.writes.rewind_key(key, next));
        trial.counters.keys().for_each(|key| self.writes.rewind_counter(key, next));
        self.graph.rewind(trial.graph);
        self.pending.truncate(trial.pending);
        self.items = trial.items;
        if let Some((materialised, pending)) = trial.automerge {
            (self.materialised, self.pending) = (materialised, pending);
        }
        trial.keys.into_iter().for_each(|(key, before)| restore(&mut self.now.keys, key, before));
        trial.counters.into_iter().for_each(|(key, before)| restore(&mut self.now.counters, key, before));
    }
}

fn restore<V>(map: &mut BTreeMap<String, V>, key: String, before: Option<V>) {
    match before {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::*;
    use super::Document;
    use crate::event::{Container, Op};

    /// Ends a trial of some events, and expects the document of before, which takes them anew.
    fn leaves_no_trace(mut story: Story, events: impl Fn(&mut Story)) {
        let mut before = story.clone();
        story.document.begin_trial();
        events(&mut story);
        assert_ne!(story.document.graph(), before.document.graph());
        story.document.end_trial();
        assert_eq!(story.document.graph(), before.document.graph());
        assert_eq!(story.document.registers(), before.document.registers());
        assert_eq!(story.document.clone().save().unwrap(), before.document.clone().save().unwrap());
        before.document = story.document;
        events(&mut before);
        let mut all = Document::derive_all(before.events.iter().map(|(id, event)| (*id, event))).unwrap();
        assert_eq!(before.document.automerge().unwrap().get_heads(), all.automerge().unwrap().get_heads());
    }

    #[test]
    fn what_was_tried_leaves_no_trace() {
        let mut story = Story::default();
        story.write("a", &[], 1, "app", vec![put("/x", 1), put("/o/y", 2), increment("/n", 3)]);
        leaves_no_trace(story, |story| {
            story.write("b", &["a"], 2, "app", vec![put("/o", 1), remove("/x"), increment("/n", 4), put("/new", 1)]);
            story.write("c", &["a"], 3, "jira", vec![put("/x", 5), increment("/m", 1)]);
            story.write("d", &["b", "c"], 4, "app", vec![put("/x", 6)]);
        });
    }

    #[test]
    fn what_automerge_took_part_in_leaves_no_trace_either() {
        let mut story = Story::default();
        story.write("a", &[], 1, "app", vec![Op::MakeText { path: path("/t") }, put("/x", 1)]);
        let text = Container::Of(story.id("a"), 0);
        story.write("b", &["a"], 2, "app", vec![splice(text, 0, 0, "one")]);
        leaves_no_trace(story, |story| {
            story.write("c", &["b"], 3, "app", vec![splice(text, 1, 1, "two")]);
            story.write("d", &["a"], 4, "jira", vec![splice(text, 0, 0, "three"), put("/x", 2)]);
        });
    }
}
