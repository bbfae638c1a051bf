use serde_json::{Value as Json, json};

use super::*;
use crate::projection::{ConflictKind, Severity, Status, Verdict};

fn policy(json: Json) -> Policy {
    Policy::from_json(&json).unwrap()
}

fn merged(base: impl Into<Option<Json>>, a: Json, b: Json, rules: Json) -> Merged {
    merge(base.into().as_ref(), &a, &b, &policy(rules)).unwrap()
}

fn value(base: impl Into<Option<Json>>, a: Json, b: Json) -> Json {
    merged(base, a, b, json!("merge")).value.unwrap()
}

#[test]
fn what_only_one_changed_is_taken_and_what_both_did_is_kept() {
    let base = json!({ "a": 1, "b": 1, "o": { "x": 1, "y": 1 }, "gone": 1, "list": [1] });
    let a = json!({ "a": 2, "b": 1, "o": { "x": 2, "y": 1 }, "list": [1, 2] });
    let b = json!({ "a": 1, "b": 2, "o": { "x": 1, "z": 3 }, "gone": 1, "list": [1] });
    let merged = merged(base, a, b, json!("merge"));
    assert_eq!(merged.value.unwrap(), json!({ "a": 2, "b": 2, "o": { "x": 2, "z": 3 }, "list": [1, 2] }));
    assert_eq!((merged.conflicts, merged.deleted), (vec![], false));
}

#[test]
fn a_conflict_says_who_said_what_and_why_one_is_shown() {
    let found = merged(json!({ "s": "open" }), json!({ "s": "done" }), json!({ "s": "blocked" }), json!("merge"));
    let conflict = &found.conflicts[0];
    assert_eq!((conflict.path.as_str(), conflict.kind), ("/s", ConflictKind::UpdateUpdate));
    assert_eq!((conflict.severity, &conflict.status), (Severity::Medium, &Status::Open));
    assert_eq!((&conflict.base, &conflict.shown), (&Some(json!("open")), &Some(json!("blocked"))));
    let sides: Vec<_> =
        conflict.candidates.iter().map(|c| (c.side, c.source.as_str(), c.value.clone(), c.at)).collect();
    let expected = [(Side::A, "local", Some(json!("done")), 1), (Side::B, "remote", Some(json!("blocked")), 2)];
    assert_eq!(sides, expected);
    assert_eq!(conflict.taken, Some(1));
    assert!(conflict.because.contains("latest"), "{}", conflict.because);
    assert!(found.has_open());
}

#[test]
fn every_strategy_decides_as_it_does_in_a_ledger() {
    let shown = |rules: Json| {
        let a = Version::new(json!({ "s": "a" }), "jira", 20).by("ann");
        let b = Version::new(json!({ "s": "b" }), "app", 10);
        let base = json!({ "s": "base" });
        let merged = merge_versions(Some(&base), &a, &b, &policy(rules), &Resolvers::default()).unwrap();
        (merged.value.unwrap()["s"].as_str().unwrap().to_owned(), merged.conflicts[0].is_open())
    };
    for (rules, expected, open) in [
        ("merge", "a", true),
        ("last_write_wins", "a", false),
        ("first_write_wins", "b", false),
        ("last_write_wins:record", "a", false),
        ("source_wins:app,jira", "b", false),
        ("target_wins:app,jira", "a", false),
        ("manual", "base", true),
        ("custom:missing", "base", true),
    ] {
        assert_eq!(shown(json!(rules)), (expected.to_owned(), open), "{rules}");
    }
}

#[test]
fn a_custom_strategy_sees_both_versions() {
    let mut resolvers = Resolvers::default();
    resolvers.register("sum", |dispute| {
        let of = |json: &Json| json.as_i64().unwrap_or_default();
        let sum = dispute.candidates.iter().filter_map(|c| c.value.as_ref()).map(of).sum::<i64>();
        Verdict::Value((sum - dispute.base.as_ref().map_or(0, of)).into())
    });
    let (a, b) = (Version::new(json!({ "n": 5 }), "x", 1), Version::new(json!({ "n": 7 }), "y", 1));
    let merged = merge_versions(Some(&json!({ "n": 3 })), &a, &b, &policy(json!("custom:sum")), &resolvers).unwrap();
    assert_eq!(merged.value.unwrap(), json!({ "n": 9 }));
}

#[test]
fn of_equal_times_the_second_is_the_later() {
    for at in [0, i64::MIN, i64::MAX] {
        let (a, b) = (Version::new(json!({ "s": "a" }), "x", at), Version::new(json!({ "s": "b" }), "y", at));
        let of = |rules: &str| {
            let merged =
                merge_versions(Some(&json!({})), &a, &b, &policy(json!(rules)), &Resolvers::default()).unwrap();
            merged.value.unwrap()["s"].clone()
        };
        if at != i64::MAX {
            assert_eq!((of("merge"), of("first_write_wins")), (json!("b"), json!("a")), "{at}");
        }
    }
}

#[test]
fn deleting_is_disputed_by_an_edit_that_did_not_know_of_it() {
    let base = json!({ "s": 1 });
    let gone = Version::deleted("local", 5);
    let merged = |b: Json, rules: Json| {
        let b = Version::new(b, "remote", 6);
        merge_versions(Some(&base), &gone, &b, &policy(rules), &Resolvers::default()).unwrap()
    };
    let kept = merged(json!({ "s": 2 }), json!({ "deletes": "edit_wins" }));
    assert_eq!((kept.deleted, kept.conflicts[0].path.as_str()), (false, "/$deleted"));
    assert!(merged(json!({ "s": 2 }), json!({ "deletes": "delete_wins" })).deleted);
    assert!(merged(json!({ "s": 2 }), json!({ "deletes": "manual" })).has_open());
    let untouched = merged(base.clone(), json!("merge"));
    assert_eq!((untouched.deleted, untouched.conflicts), (true, vec![]));
    // Of what is no object too.
    let array = merge_versions(
        Some(&json!([1])),
        &gone,
        &Version::new(json!([1, 2]), "remote", 6),
        &Policy::default(),
        &Resolvers::default(),
    );
    let array = array.unwrap();
    assert_eq!((array.value, array.conflicts[0].path.as_str()), (Some(json!([1, 2])), "/$deleted"));
}

#[test]
fn without_a_base_both_created_it() {
    let found = merged(None, json!({ "a": 1, "s": 1 }), json!({ "b": 2, "s": 2 }), json!("merge"));
    assert_eq!(found.value.unwrap(), json!({ "a": 1, "b": 2, "s": 2 }));
    assert_eq!((found.conflicts.len(), found.conflicts[0].kind), (1, ConflictKind::CreateCreate));
    assert_eq!(value(None, json!({}), json!({})), json!({}));
    assert_eq!(value(json!({ "a": 1 }), json!({}), json!({ "a": 1, "b": 1 })), json!({ "b": 1 }));
    let nothing = merge_versions(
        None,
        &Version::deleted("a", 1),
        &Version::deleted("b", 2),
        &Policy::default(),
        &Resolvers::default(),
    );
    assert_eq!(nothing.unwrap(), Merged { value: None, deleted: false, conflicts: vec![] });
}

#[test]
fn what_is_no_object_is_one_value() {
    assert_eq!(value(json!([1]), json!([1, 2]), json!([1])), json!([1, 2]));
    assert_eq!(value(json!(1), json!(1), json!(null)), json!(null));
    let found = merged(json!([1]), json!([1, 2]), json!([0, 1]), json!("manual"));
    assert_eq!((found.value, found.conflicts[0].path.as_str()), (Some(json!([1])), ""));
    let found = merged(json!({ "a": 1 }), json!({ "a": 2 }), json!([1]), json!("merge"));
    assert_eq!((found.value, found.conflicts[0].kind), (Some(json!([1])), ConflictKind::Type));
    // Policies name the fields as they are called in the value.
    let rules = json!({ "default": "manual", "fields": { "/a": "first_write_wins" } });
    let found = merged(json!("x"), json!({ "a": 2, "b": 2 }), json!({ "a": 3, "b": 3 }), rules);
    let paths: Vec<_> = found.conflicts.iter().map(|c| (c.path.as_str(), c.shown.clone())).collect();
    assert_eq!(paths, [("/a", Some(json!(2))), ("/b", Some(json!(2)))]);
}

#[test]
fn large_values_and_many_fields_come_out_as_they_went_in() {
    let long = |char: &str| char.repeat(40_000);
    let many = |more: usize| -> Json {
        (0..9_000 + more).map(|n| (format!("f{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
    };
    let base = json!({ "t": long("x"), "l": [long("x")], "m": many(0) });
    let a = json!({ "t": long("y"), "l": [long("x")], "m": many(0) });
    let b = json!({ "t": long("x"), "l": [long("z")], "m": many(500) });
    assert_eq!(value(base.clone(), a.clone(), b), json!({ "t": long("y"), "l": [long("z")], "m": many(500) }));
    let found = merged(base.clone(), a, json!({ "t": long("w"), "l": [long("x")], "m": many(0) }), json!("manual"));
    assert_eq!(found.conflicts[0].candidates[1].value, Some(json!(long("w"))));
    assert_eq!(found.conflicts[0].base, Some(json!(long("x"))));
}

#[test]
fn what_is_no_record_is_refused() {
    let deep = |leaf: Json| (0..17).fold(leaf, |value, _| json!({ "a": value }));
    let fault = merge(None, &deep(json!(1)), &json!({}), &Policy::default()).unwrap_err();
    assert_eq!(fault.kind(), crate::ErrorKind::TooLarge, "{fault}");
    let (a, b) = (Version::new(json!({ "a": 1 }), "", 1), Version::new(json!({ "b": 1 }), "y", 2));
    assert!(merge_versions(None, &a, &b, &Policy::default(), &Resolvers::default()).is_err());
    let infinite = serde_json::from_str::<Json>("1e308").unwrap();
    assert!(merge(None, &json!({ "a": infinite }), &json!({}), &Policy::default()).is_ok());
}
