use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};

use super::*;
use crate::projection::{Dispute, Policy, Resolvers, Strategy, Verdict};

fn custom() -> Policy {
    Policy::of(Strategy::Custom("planted".into()))
}

fn planted(resolver: impl Fn(&Dispute) -> Verdict + Send + Sync + 'static) -> Resolvers {
    let mut resolvers = Resolvers::default();
    resolvers.register("planted", resolver);
    resolvers
}

/// Why a strategy does not converge.
fn caught(resolvers: impl Fn() -> Resolvers) -> Divergence {
    let divergence = Convergence::default().check(&custom(), resolvers).expect_err("it was not caught");
    assert_eq!(divergence.strategy.as_deref(), Some("planted"));
    assert!(divergence.dispute.is_some() && divergence.answers[0] != divergence.answers[1]);
    *divergence
}

#[expect(clippy::disallowed_methods, reason = "the planted strategies look at the clock")]
fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

// --- order ---------------------------------------------------------------------------------------------------------

#[test]
fn a_strategy_that_keeps_what_it_saw_first_is_caught() {
    let divergence = caught(|| {
        let first: Mutex<std::collections::BTreeMap<String, Json>> = Mutex::default();
        planted(move |dispute| {
            let value = dispute.candidates[0].value.clone().unwrap_or(json!("removed"));
            Verdict::Value(first.lock().unwrap().entry(dispute.path.clone()).or_insert(value).clone())
        })
    });
    assert_eq!(divergence.cause, Cause::Order, "{divergence}");
    assert!(divergence.to_string().contains("order in which events arrive"), "{divergence}");
}

#[test]
fn a_strategy_that_counts_how_often_it_was_asked_is_caught() {
    let divergence = caught(|| {
        let asked = AtomicUsize::new(0);
        planted(move |dispute| Verdict::Take(asked.fetch_add(1, Ordering::Relaxed) % dispute.candidates.len()))
    });
    assert_eq!(divergence.cause, Cause::Order, "{divergence}");
}

// --- clock ---------------------------------------------------------------------------------------------------------

#[test]
fn a_strategy_that_looks_at_the_milliseconds_is_caught() {
    let divergence = caught(|| planted(|dispute| Verdict::Take(now() as usize % dispute.candidates.len())));
    assert_eq!(divergence.cause, Cause::Clock, "{divergence}");
    assert!(divergence.to_string().contains("clock"), "{divergence}");
}

#[test]
fn a_strategy_that_prefers_what_is_younger_than_a_day_or_a_minute_is_caught() {
    for age in [60_000, 24 * 3_600_000] {
        let divergence = caught(|| {
            planted(move |dispute| {
                let young = dispute.candidates.iter().position(|candidate| now() - candidate.at.millis < age);
                young.map_or(Verdict::Undecided, Verdict::Take)
            })
        });
        assert_eq!(divergence.cause, Cause::Clock, "{age}: {divergence}");
    }
}

// --- chance --------------------------------------------------------------------------------------------------------

#[test]
fn a_strategy_that_throws_dice_is_caught() {
    let divergence = caught(|| {
        planted(|dispute| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).unwrap();
            Verdict::Take(u64::from_le_bytes(bytes) as usize % dispute.candidates.len())
        })
    });
    assert_eq!(divergence.cause, Cause::Chance, "{divergence}");
    assert!(divergence.to_string().contains("chance"), "{divergence}");
}

#[test]
fn a_strategy_that_depends_on_where_a_value_lies_in_memory_is_caught() {
    let divergence = caught(|| {
        // A hash that is seeded anew in each program, as that of a hash map is.
        let state = std::collections::hash_map::RandomState::new();
        planted(move |dispute| {
            use std::hash::BuildHasher as _;
            let hash = |place: &usize| state.hash_one(format!("{:?}", dispute.candidates[*place]));
            (0..dispute.candidates.len()).min_by_key(hash).map_or(Verdict::Undecided, Verdict::Take)
        })
    });
    assert_eq!(divergence.cause, Cause::Chance, "{divergence}");
}

// --- honest ones -----------------------------------------------------------------------------------------------------

#[test]
fn honest_strategies_pass() {
    assert_convergent_with(&custom(), || {
        planted(|dispute| {
            let latest = dispute.candidates.iter().map(|candidate| candidate.at).max();
            let place = dispute.candidates.iter().position(|candidate| Some(candidate.at) == latest);
            place.map_or(Verdict::Undecided, Verdict::Take)
        })
    });
    assert_convergent_with(&custom(), || planted(|_| Verdict::Undecided));
    assert_convergent_with(&custom(), || planted(|dispute| Verdict::Value(dispute.candidates.len().into())));
    // One that remembers its answers, and not what it was asked when.
    assert_convergent_with(&custom(), || {
        let known: Mutex<std::collections::BTreeMap<String, Json>> = Mutex::default();
        planted(move |dispute| {
            let of = || dispute.base.clone().unwrap_or(json!(dispute.candidates.len()));
            Verdict::Value(known.lock().unwrap().entry(format!("{dispute:?}")).or_insert_with(of).clone())
        })
    });
}

#[test]
fn every_built_in_strategy_passes() {
    for short in [
        "merge",
        "last_write_wins",
        "last_write_wins:record",
        "first_write_wins",
        "first_write_wins:record",
        "source_wins:jira,app",
        "target_wins:jira,app",
        "manual",
    ] {
        assert_convergent(&Policy::of(Strategy::parse(short).unwrap()));
    }
    let met = Convergence::default().check(&Policy::default(), Resolvers::default).unwrap();
    assert!(met.cases == 60 && met.conflicts > 60 && met.disputes == 0, "{met:?}");
}

#[test]
fn a_strategy_that_panics_converges_and_acts_as_manual() {
    let panics =
        || planted(|dispute| if dispute.candidates.len() > 1 { panic!("planted") } else { Verdict::Take(0) });
    let met = Convergence { cases: 10, ..Convergence::default() }.check(&custom(), panics);
    assert!(met.unwrap().disputes > 10);
}

#[test]
#[should_panic(expected = "never asked")]
fn a_check_that_never_asked_has_shown_nothing() {
    assert_convergent_with(&custom(), Resolvers::default);
}

// --- the kit itself --------------------------------------------------------------------------------------------------

#[test]
fn the_plain_event_is_valid_and_histories_repeat() {
    assert!(event(vec![crate::event::Op::Delete]).identify(LEDGER).is_ok());
    let (one, other) = (History::new(5), History::new(5));
    assert_eq!(one.events, other.events);
    assert_ne!(one.events, History::new(6).events);
}

#[test]
fn a_partition_holds_back_what_healing_delivers() {
    let rng = &mut Rng::new(3);
    let (history, mut network) = (History::new(9), Network::new(3));
    network.partition(rng);
    while network.parts_are_one() {
        network.partition(rng);
    }
    for (id, event) in &history.events {
        network.make(0, *id, event);
    }
    while network.deliver_one(rng).is_some() {}
    let whole =
        |network: &Network| network.replicas.iter().filter(|r| r.events.len() == history.events.len()).count();
    assert!((1..3).contains(&whole(&network)));
    network.settle(rng, |_, _| {});
    assert_eq!(whole(&network), 3);
    assert!(network.replicas.iter().map(|replica| replica.duplicates).sum::<usize>() > 0);
    assert!(network.replicas.iter().map(|replica| replica.waited).sum::<usize>() > 0);
}
