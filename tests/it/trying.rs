//! Trying a policy says what setting it on a copy would show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::event::diff::diff;
use syncledger::ledger::{AsOf, Context, Ledger, Look, Record, Tried, Which};
use syncledger::projection::Policy;

use crate::histories::policies;
use crate::replicas::{KEYS, Replicas, for_cases, memory};

/// What differs between two looks at a record: by path, here and there.
type Differences = BTreeMap<String, (Option<Json>, Option<Json>)>;

fn differences(here: &Option<Record>, there: &Option<Record>) -> Differences {
    let (Some(here), Some(there)) = (here, there) else {
        assert_eq!(here.is_some(), there.is_some());
        return BTreeMap::new();
    };
    let changes = diff(Some(&here.value), Some(&there.value)).into_iter();
    let mut found: Differences =
        changes.map(|change| (change.path.to_string(), (change.before, change.after))).collect();
    if has_field_deleted(here) || has_field_deleted(there) {
        // A field of this name and the deletion go by one path.
        found.remove("/$deleted");
    } else if here.deleted != there.deleted {
        found.insert("/$deleted".into(), (Some(here.deleted.into()), Some(there.deleted.into())));
    }
    found
}

fn has_field_deleted(record: &Record) -> bool {
    record.value.get("$deleted").is_some()
}

/// What was said to hold at a position.
fn held<'a>(tried: &'a [Tried], key: &str, position: u64) -> impl Iterator<Item = &'a Tried> {
    let key = key.to_owned();
    tried.iter().filter(move |tried| {
        tried.key == key && tried.position <= position && tried.until.is_none_or(|(until, _)| until > position)
    })
}

fn open_paths(ledger: &Ledger, policy: Option<&Policy>) -> BTreeSet<(String, String)> {
    let open = ledger.conflicts(Some("c"), Which::Open, policy).unwrap();
    open.into_iter().map(|found| (found.key, found.conflict.path)).collect()
}

#[test]
fn trying_a_policy_says_what_setting_it_on_a_copy_shows() {
    let (mut said, mut ended, mut compared) = (0, 0, 0);
    for_cases("trying", 250, |rng| {
        let replicas = Replicas::new(rng);
        for _ in 0..8 + rng.below(12) {
            replicas.step(rng);
        }
        replicas.exchange();
        let ledger = &replicas.0[0];
        let policy = rng.pick(&policies()).clone();
        // The copy first: a policy is an event, too.
        let copy = memory();
        copy.pull(ledger).unwrap();
        if rng.one_in(2) {
            ledger.set_policy("c", rng.pick(&policies()), &Context::default()).unwrap();
        }
        copy.set_policy("c", &policy, &Context::default()).unwrap();
        let before = (ledger.position(), ledger.digest().unwrap(), ledger.list("c", &Default::default()).unwrap());
        let tried = ledger.try_policy("c", &policy, None).unwrap();
        let after = (ledger.position(), ledger.digest().unwrap(), ledger.list("c", &Default::default()).unwrap());
        assert_eq!(after, before, "nothing is touched");
        let last =
            ledger.log(&Default::default()).unwrap().iter().filter(|entry| entry.event.collection == "c").count();
        for position in 1..=last as u64 {
            for key in KEYS {
                let look = Look { as_of: Some(AsOf::Position(position)), policy: None };
                let expected =
                    differences(&ledger.look("c", key, &look).unwrap(), &copy.look("c", key, &look).unwrap());
                let found: Differences = held(&tried, key, position)
                    .filter(|tried| tried.now.value != tried.then.value)
                    .map(|tried| (tried.path.clone(), (tried.now.value.clone(), tried.then.value.clone())))
                    .collect();
                // A conflict that is open here and decided there is named too, with what lies below it.
                for (path, values) in &expected {
                    assert_eq!(found.get(path), Some(values), "{key}{path} at {position} under {policy:?}");
                }
                for path in found.keys().filter(|path| !path.starts_with("/$deleted")) {
                    let is_below = |at: &str, above: &str| at == above || at.starts_with(&format!("{above}/"));
                    let is_told = expected.keys().any(|at| is_below(at, path) || is_below(path, at));
                    assert!(is_told, "{key}{path} at {position}: {found:?} {expected:?}");
                }
                compared += expected.len();
            }
        }
        // Now: the open conflicts, and why.
        let (here, there) = (open_paths(ledger, None), open_paths(&copy, None));
        let standing = || tried.iter().filter(|tried| tried.until.is_none());
        let differing: BTreeSet<_> = here.symmetric_difference(&there).cloned().collect();
        let told: BTreeSet<_> = standing()
            .filter(|tried| tried.now.open != tried.then.open)
            .map(|tried| (tried.key.clone(), tried.path.clone()))
            .collect();
        assert_eq!(told, differing);
        for found in copy.conflicts(Some("c"), Which::All, None).unwrap() {
            for tried in standing().filter(|tried| {
                tried.key == found.key && tried.path == found.conflict.path && tried.path != "/$deleted"
            }) {
                assert_eq!(tried.because, found.conflict.because);
            }
        }
        // Since a moment: what held after it.
        let since = rng.below(last + 1) as u64;
        let some = ledger.try_policy("c", &policy, Some(AsOf::Position(since))).unwrap();
        let expected: Vec<_> =
            tried.iter().filter(|tried| tried.until.is_none_or(|(until, _)| until > since)).cloned().collect();
        assert_eq!(some, expected);
        said += tried.len();
        ended += tried.iter().filter(|tried| tried.until.is_some()).count();
    });
    assert!(said > 800 && ended > 300 && compared > 1_200, "{said} {ended} {compared}");
}

#[test]
fn only_records_that_were_edited_apart_cost_anything() {
    let (here, there) = (memory(), memory());
    let app = Context::default();
    for n in 0..300 {
        here.put("c", &format!("k{n}"), json!({ "n": n, "s": 0 }), &app).unwrap();
    }
    there.pull(&here).unwrap();
    for (ledger, value) in [(&here, 1), (&there, 2)] {
        ledger.patch("c", "k7", json!({ "s": value }), &app.clone().occurred(value)).unwrap();
    }
    here.patch("c", "k8", json!({ "s": 5 }), &app).unwrap();
    here.pull(&there).unwrap();
    let before = here.store().work();
    let tried = here.try_policy("c", &Policy::from_json(&json!("first_write_wins")).unwrap(), None).unwrap();
    assert_eq!(here.store().work().derived - before.derived, 3, "the events of one record");
    assert_eq!(tried.len(), 1);
    let (tried, entry) = (&tried[0], &here.log(&Default::default()).unwrap()[302]);
    assert_eq!((tried.key.as_str(), tried.path.as_str(), tried.until), ("k7", "/s", None));
    assert_eq!((tried.position, tried.event, tried.at), (303, entry.id, entry.event.at));
    assert_eq!((&tried.now.value, tried.now.open), (&Some(json!(2)), true));
    assert_eq!((&tried.then.value, tried.then.open), (&Some(json!(1)), false));
    assert_eq!(tried.because, "first_write_wins: the earliest by order");
}

#[test]
fn a_decision_ends_with_the_event_that_settled_it_and_since_leaves_out_what_ended_before() {
    let (here, there) = (memory(), memory());
    let app = Context::default();
    here.put("c", "k", json!({ "s": 0 }), &app).unwrap();
    there.pull(&here).unwrap();
    here.patch("c", "k", json!({ "s": 1 }), &app.clone().occurred(1)).unwrap();
    there.patch("c", "k", json!({ "s": 2 }), &app.clone().occurred(2)).unwrap();
    here.pull(&there).unwrap();
    here.patch("c", "k", json!({ "s": 9 }), &app).unwrap();
    let manual = Policy::from_json(&json!("manual")).unwrap();
    let tried = here.try_policy("c", &manual, None).unwrap();
    assert_eq!((tried.len(), tried[0].position, tried[0].until.map(|until| until.0)), (1, 3, Some(4)));
    assert_eq!((&tried[0].now.value, &tried[0].then.value), (&Some(json!(2)), &Some(json!(0))));
    assert_eq!(here.try_policy("c", &manual, Some(AsOf::Position(3))).unwrap(), tried);
    assert_eq!(here.try_policy("c", &manual, Some(AsOf::Position(4))).unwrap(), []);
    let at = tried[0].until.unwrap().1.millis;
    assert_eq!(here.try_policy("c", &manual, Some(AsOf::Time(at - 1))).unwrap(), tried);
    assert_eq!(here.try_policy("c", &manual, Some(AsOf::Time(at))).unwrap(), []);
    let fault = here.try_policy("c", &manual, Some(AsOf::Event(tried[0].event))).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Validation);
    assert_eq!(here.try_policy("none", &manual, None).unwrap(), []);
}
