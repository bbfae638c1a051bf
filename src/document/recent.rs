//! Forgetting the part of a record's history that no further event needs: what is held of a record that is written to all
//! the time does not grow with its age.
//!
//! A *cut* is an event that every later one has among its ancestors, and as of which each key held one value. Whatever is
//! made after it sees those values, and no candidate of a conflict, nor what candidates were made on, lies before it. So
//! what was before is told as if the cut had written all of it. What needs more, as an event made on an older state does,
//! is told apart by [`Document::lacks`]: then the record is derived from all its events.
//!
//! Invariant: a document that forgot is never asked for its past, its Automerge document or whom to blame.

use super::graph::NodeIx;
use super::items::Items;
use super::writes::Past;
use super::{Document, Materialised};
use crate::event::{Event, EventId, FlatKey, Op, Value};

/// From how many events on some are forgotten.
const MANY: usize = 96;
/// How many of the last ones are not: the next ones may be made on any of them.
const KEPT: usize = 32;
/// How many cuts are noted at most.
const CUTS: usize = 8;

impl Document {
    /// Whether no event was forgotten.
    pub(crate) fn is_whole(&self) -> bool {
        !self.forgetful
    }

    /// Whether something may have been forgotten that an event needs to be taken in, or to be known again.
    pub(crate) fn lacks(&self, id: &EventId, event: &Event) -> bool {
        let asks_automerge =
            |op: &Op| op.container().is_some() || matches!(op, Op::MakeList { .. } | Op::MakeText { .. });
        self.forgetful
            && self.graph.find(id).is_none()
            && (self.graph.has_forgotten(event) || event.ops().iter().any(asks_automerge))
    }

    /// Notes that what was before the last event may be forgotten once it is one of many: nothing of the record is disputed.
    pub(crate) fn note_cut(&mut self) {
        let Some(head) = self.graph.only_head() else { return };
        if self.cuts.last().is_some_and(|last| head < last.saturating_add(KEPT as NodeIx / 4)) {
            return;
        }
        if self.cuts.len() >= CUTS {
            self.cuts.remove(0);
        }
        self.cuts.push(head);
    }

    /// Forgets what came before a cut, where there are many events and one of the cuts allows it.
    pub(crate) fn forget_some(&mut self) {
        self.forget_beyond(MANY, KEPT);
    }

    fn forget_beyond(&mut self, many: usize, kept: usize) {
        let held = self.graph.held();
        if held < many || self.trial.is_some() {
            return;
        }
        let Some(place) = self.cuts.iter().rposition(|cut| *cut as usize + kept <= held) else { return };
        let later = self.cuts.split_off(place + 1);
        let Some(cut) = self.cuts.pop().filter(|cut| self.is_cut(*cut)) else { return self.cuts.extend(later) };
        self.forget_before(cut);
        self.cuts = later.into_iter().map(|later| later - cut).collect();
    }

    /// Whether a cut holds one value at each key, none of which needs to be known better than that.
    fn is_cut(&self, cut: NodeIx) -> bool {
        let clock = self.graph.closure([cut]);
        let then = Past { writes: &self.writes, graph: &self.graph, clock: &clock }.registers();
        let is_deleted = then.get(FlatKey::deleted().as_str());
        !self.graph.has_containers()
            && self.graph.forked_writers().next().is_none()
            && !self.writes.has_increments()
            && then.iter().all(|(_, lives)| lives.len() == 1)
            && !is_deleted.iter().any(|live| live.cell == super::Cell::Value(Value::Bool(true)))
    }

    fn forget_before(&mut self, cut: NodeIx) {
        let clock = self.graph.closure([cut]);
        self.writes.forget_before(cut, &self.graph, &clock);
        self.graph.forget_before(cut);
        let lives = self.now.keys.values_mut().flat_map(|lives| lives.iter_mut());
        lives.for_each(|live| live.node = live.node.saturating_sub(cut));
        // Of registers alone nobody asks Automerge.
        (self.materialised, self.items) = (Materialised::default(), Items::default());
        self.pending.clear();
        self.forgetful = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::edited_apart;
    use super::*;
    use crate::projection::{Policy, Projection, Resolvers, Scope, Strategy, project};
    use crate::testing::{Rng, record};

    fn policies() -> impl Iterator<Item = Policy> {
        let rank = || vec!["jira".to_owned(), "app".to_owned()];
        let ranked = [Strategy::SourceWins(rank()), Strategy::TargetWins(rank())];
        let by_field = [Strategy::FirstWriteWins(Scope::Field), Strategy::LastWriteWins(Scope::Field)];
        [Strategy::Merge, Strategy::Manual].into_iter().chain(ranked).chain(by_field).map(Policy::of)
    }

    /// What a document shows, but for whom to blame.
    fn shown(document: &mut Document, policy: &Policy) -> Projection {
        let view = document.view().unwrap();
        Projection { blame: Vec::new(), ..project(&view, policy, &Resolvers::default(), &record()) }
    }

    #[test]
    fn what_was_forgotten_shows_in_nothing_that_comes_after_it() {
        let (mut compared, mut disputed, mut lacked, mut forgotten) = (0, 0, 0, 0);
        for seed in 0..400 {
            let (mut whole, mut recent) = (Document::default(), Document::default());
            for (id, event) in edited_apart(&mut Rng::new(seed), 60) {
                whole.apply(id, &event).unwrap();
                if recent.lacks(&id, &event) {
                    // As the ledger does: all of it is derived again.
                    (recent, lacked) = (whole.clone(), lacked + 1);
                }
                recent.apply(id, &event).unwrap();
                let merged = shown(&mut whole, &Policy::default());
                for policy in policies() {
                    assert_eq!(shown(&mut recent, &policy), shown(&mut whole, &policy), "seed {seed} {event:?}");
                }
                let seen = |document: &Document| {
                    let graph = document.graph();
                    (graph.head_ids(), graph.lanes(), graph.len(), graph.is_concurrent())
                };
                assert_eq!(seen(&recent), seen(&whole), "seed {seed}");
                compared += usize::from(!recent.is_whole());
                disputed += usize::from(!recent.is_whole() && !merged.conflicts.is_empty());
                if merged.conflicts.is_empty() {
                    recent.note_cut();
                }
                let held = recent.graph().held();
                recent.forget_beyond(6, 2);
                forgotten += held - recent.graph().held();
            }
            let saved = Document::load(&recent.save().unwrap()).unwrap();
            assert_eq!((saved.graph(), saved.registers()), (recent.graph(), recent.registers()), "seed {seed}");
            assert_eq!(saved.is_whole(), recent.is_whole());
        }
        assert!(compared > 5_000 && disputed > 1_000, "{compared} {disputed}");
        assert!(lacked > 100 && forgotten > 5_000, "{lacked} {forgotten}");
    }

    #[test]
    fn an_event_that_was_forgotten_or_forks_is_told_from_a_new_one() {
        let events = edited_apart(&mut Rng::new(1), 300);
        let (mut whole, mut recent) = (Document::default(), Document::default());
        for (id, event) in &events {
            whole.apply(*id, event).unwrap();
            if recent.lacks(id, event) {
                recent = whole.clone();
            }
            recent.apply(*id, event).unwrap();
            if shown(&mut recent, &Policy::default()).conflicts.is_empty() {
                recent.note_cut();
            }
            recent.forget_some();
            assert!(recent.is_whole() || recent.lacks(&events[0].0, &events[0].1));
            let fork = Event { reason: Some("a copy of the store wrote it".into()), ..event.clone() };
            let fork_id = fork.identify(crate::testing::LEDGER).unwrap().0;
            assert_eq!(recent.lacks(&fork_id, &fork), !recent.is_whole());
            assert!(!recent.lacks(id, event));
        }
        assert!(!recent.is_whole() && recent.graph().held() < 200 && recent.graph().len() == 300);
    }
}
