//! The same events give the same record, whatever the order, duplication and batching of their arrival.

use std::collections::BTreeSet;

use syncledger::document::{Document, View};
use syncledger::event::{Event, EventId, Op, Path};
use syncledger::projection::{Policy, resolved};

use crate::histories::{
    History, changes, clock, for_histories, held_by, policies, record, registers, resolvers, shown,
};

#[test]
fn replicas_that_hold_the_same_events_show_the_same() {
    for_histories("convergence", 1_000, |history, rng| {
        let (mut a, mut b) = (history.deliver(rng), history.deliver(rng));
        let mut c = history.deliver(rng);
        assert_eq!(a.document.graph().head_ids(), b.document.graph().head_ids());
        let expected = registers(&a.document.view().unwrap());
        assert_eq!(expected, registers(&b.document.view().unwrap()));
        assert_eq!(expected, registers(&c.document.view().unwrap()));
        for policy in policies() {
            let expected = shown(&mut a.document, &policy);
            assert_eq!(expected, shown(&mut b.document, &policy), "{policy:?}");
            let settled = |document: &mut Document| {
                let view = document.view().unwrap();
                let now = syncledger::projection::project(&view, &policy, &resolvers(), &record());
                resolved(&view, &now, &policy, &resolvers(), &record())
            };
            if policy == Policy::default() {
                assert_eq!(settled(&mut a.document), settled(&mut c.document));
            }
        }
        let heads = a.document.automerge().unwrap().get_heads();
        assert_eq!(heads, b.document.automerge().unwrap().get_heads());
        assert_eq!(heads, c.document.automerge().unwrap().get_heads());
        let mut held = held_by(&mut a);
        held.extend(held_by(&mut b));
        held.extend(held_by(&mut c));
        held
    });
}

#[test]
fn a_document_is_the_same_applied_one_by_one_derived_at_once_and_loaded() {
    for_histories("one state", 1_000, |history, rng| {
        let mut replica = history.deliver(rng);
        let expected = registers(&replica.document.view().unwrap());
        let mut again = replica.derived_again();
        assert_eq!(expected, registers(&again.view().unwrap()));
        let everything = again.graph().everything();
        assert_eq!(expected, registers(&again.view_at(everything).unwrap()), "as Automerge reads them");
        assert_eq!(replica.document.automerge().unwrap().get_heads(), again.automerge().unwrap().get_heads());
        let mut loaded = Document::load(&replica.document.save().unwrap()).unwrap();
        assert_eq!(loaded.registers(), replica.document.registers());
        assert_eq!(expected, registers(&loaded.view().unwrap()));
        assert_eq!(loaded.save().unwrap(), replica.document.save().unwrap());
        held_by(&mut replica)
    });
}

#[test]
fn the_past_of_a_document_is_the_document_of_its_past() {
    for_histories("past", 1_000, |history, rng| {
        let mut replica = history.deliver(rng);
        for _ in 0..3 {
            let past = history.some_past(rng);
            let mut then = document_of(history, &past);
            let clock = clock(&replica.document, &past);
            assert_eq!(clock.len() as usize, past.len());
            // A fork that the past does not know gives other Automerge actors, and by them another order of what was
            // inserted at one place; everything else must still be the same.
            let exact = changes(&mut then).is_subset(&changes(&mut replica.document));
            assert!(exact || replica.document.graph().forked_writers().next().is_some());
            if !exact {
                let view = replica.document.view_at(clock).unwrap();
                assert_eq!(outside_containers(&view), outside_containers(&then.view().unwrap()));
                continue;
            }
            let view = replica.document.view_at(clock).unwrap();
            assert_eq!(registers(&view), registers(&then.view().unwrap()));
            for policy in policies() {
                let projected = syncledger::projection::project(&view, &policy, &resolvers(), &record());
                let alone = shown(&mut then, &policy).0;
                assert_eq!(
                    (&projected.content, projected.deleted, &projected.conflicts),
                    (&alone.content, alone.deleted, &alone.conflicts),
                    "{policy:?}"
                );
            }
        }
        held_by(&mut replica)
    });
}

/// The live operations without what is in lists and texts.
fn outside_containers(view: &View<'_>) -> Vec<String> {
    let graph = view.graph();
    let lives = view.registers().iter().flat_map(|(key, lives)| lives.iter().map(move |live| (key, live)));
    let mut lines: Vec<String> =
        lives.map(|(key, live)| format!("{key} {} {:?}", graph.node(live.node).unwrap().id, live.cell)).collect();
    lines.sort();
    lines
}

fn document_of(history: &History, past: &BTreeSet<EventId>) -> Document {
    let events = history.events.iter().filter(|(id, _)| past.contains(id));
    Document::derive_all(events.map(|(id, event)| (*id, event))).unwrap()
}

/// Whether an operation may replace what was put at `path`.
fn touches(op: &Op, path: &Path) -> bool {
    let related = |at: &Path| at == path || at.is_prefix_of(path) || path.is_prefix_of(at);
    match op {
        // A member's key is one level below its set.
        Op::SetAdd { path: at, .. } | Op::SetRemove { path: at, .. } => related(at),
        op => op.path().is_some_and(related),
    }
}

fn descendants(history: &History, of: EventId) -> Vec<&Event> {
    let mut family = BTreeSet::from([of]);
    let mut found = Vec::new();
    for (id, event) in &history.events {
        if event.parents.iter().any(|parent| family.contains(parent)) {
            family.insert(*id);
            found.push(event);
        }
    }
    found
}

#[test]
fn a_put_that_no_descendant_touched_is_a_candidate() {
    for_histories("candidates", 1_000, |history, rng| {
        let mut replica = history.deliver(rng);
        let view = replica.document.view().unwrap();
        for (id, event) in &history.events {
            for (index, op) in event.ops().iter().enumerate() {
                let path = match op {
                    Op::Put { path, .. } | Op::PutAtomic { path, .. } if !path.is_root() => path,
                    _ => continue,
                };
                let later =
                    event.ops()[index + 1..].iter().chain(descendants(history, *id).into_iter().flat_map(Event::ops));
                if later.into_iter().any(|op| touches(op, path)) {
                    continue;
                }
                let lives = view.registers().get(path.to_key().as_str());
                let found = lives.iter().any(|live| view.graph().node(live.node).unwrap().id == *id);
                assert!(found, "{path} of {id} is lost: {lives:?}");
            }
        }
        held_by(&mut replica)
    });
}
