use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::*;
use crate::document::story::*;
use crate::event::{ConflictId, Container, Event, Op, Path};
use crate::testing::{History, Rng};

fn record() -> RecordId {
    RecordId { ledger: LEDGER, collection: "tasks".into(), key: "T-1".into() }
}

fn policy(json: Json) -> Policy {
    Policy::from_json(&json).unwrap()
}

fn project_with(story: &mut Story, policy: &Policy, resolvers: &Resolvers) -> Projection {
    project(&story.document.view().unwrap(), policy, resolvers, &record())
}

fn projected(story: &mut Story, json: Json) -> Projection {
    project_with(story, &policy(json), &Resolvers::default())
}

/// What is shown under a policy.
fn shown(story: &mut Story, policy: impl Into<Json>) -> Json {
    projected(story, policy.into()).content.json
}

fn at<'a>(projection: &'a Projection, path: &str) -> &'a Conflict {
    projection.conflicts.iter().find(|conflict| conflict.path == path).unwrap_or_else(|| panic!("{projection:?}"))
}

/// Path, kind, severity and status of every conflict.
fn conflicts(projection: &Projection) -> Vec<(&str, ConflictKind, Severity, &str)> {
    let line = |c: &'_ Conflict| (c.kind, c.severity, c.status.name());
    projection.conflicts.iter().map(|c| (c.path.as_str(), line(c).0, line(c).1, line(c).2)).collect()
}

/// The names of the candidates' events and their values.
fn candidates(story: &Story, conflict: &Conflict) -> Vec<(&'static str, Json)> {
    let value =
        |candidate: &Candidate| candidate.value.as_ref().map_or(json!("removed"), |content| content.json.clone());
    conflict.candidates.iter().map(|candidate| (story.name(candidate.event), value(candidate))).collect()
}

/// The event that a shown field is blamed on.
fn blamed(story: &Story, projection: &Projection, path: &str) -> Option<&'static str> {
    let blame = projection.blame.iter().find(|blame| blame.path.as_str() == path)?;
    Some(story.name(story.document.graph().node(blame.node?)?.id))
}

fn occurred(time: i64) -> impl FnOnce(&mut Event) {
    move |event| event.occurred_at = Some(time)
}

/// A field that is `Open` for all, then `Done` by jira at 10 and `Closed` by app at 20.
fn status() -> Story {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/status", "Open"), put("/title", "A")]);
    story.write("jira", &["base"], 10, "jira", vec![put("/status", "Done")]);
    story.write("app", &["base"], 20, "app", vec![put("/status", "Closed")]);
    story
}

// --- merge ---------------------------------------------------------------------------------------------------------

#[test]
fn merge_shows_the_latest_and_leaves_the_conflict_open() {
    let mut story = status();
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(projection.content.json, json!({ "status": "Closed", "title": "A" }));
    assert_eq!(conflicts(&projection), [("/status", ConflictKind::UpdateUpdate, Severity::Medium, "open")]);
    let conflict = at(&projection, "/status");
    assert_eq!(candidates(&story, conflict), [("jira", json!("Done")), ("app", json!("Closed"))]);
    assert_eq!((conflict.taken, &conflict.base), (Some(1), &Some(Content::of(json!("Open")))));
    assert_eq!(blamed(&story, &projection, "/status"), Some("app"));
    assert_eq!(blamed(&story, &projection, "/title"), Some("base"));
}

#[test]
fn fields_that_were_edited_apart_are_no_conflict() {
    let mut story = status();
    story.write("title", &["base"], 30, "jira", vec![put("/title", "B")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.content.json["title"].clone(), projection.conflicts.len()), (json!("B"), 1));
}

#[test]
fn a_clock_that_runs_ahead_wins_nothing_and_an_older_occurrence_counts() {
    let mut story = status();
    story.write_with("2099", &["base"], 15, "github", vec![put("/status", "Never")], occurred(4_070_908_800_000));
    assert_eq!(shown(&mut story, "merge")["status"], "Closed");
    let projection = projected(&mut story, json!("merge"));
    let order: Vec<_> = candidates(&story, at(&projection, "/status")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["jira", "2099", "app"]);
    story.write_with("old", &["base"], 90, "github", vec![put("/status", "Old")], occurred(5));
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(candidates(&story, at(&projection, "/status"))[0].0, "old");
}

#[test]
fn equal_candidates_are_one_blamed_on_the_first() {
    let mut story = status();
    story.write("again", &["base"], 30, "github", vec![put("/status", "Done")]);
    let projection = projected(&mut story, json!("merge"));
    let conflict = at(&projection, "/status");
    assert_eq!(candidates(&story, conflict), [("jira", json!("Done")), ("app", json!("Closed"))]);
    assert_eq!(projection.content.json["status"], "Closed");
    let mut alone = Story::default();
    alone.write("one", &[], 1, "app", vec![put("/n", 1)]).write("same", &[], 2, "jira", vec![put("/n", 1)]);
    let projection = projected(&mut alone, json!("manual"));
    assert_eq!((projection.content.json.clone(), projection.conflicts.len()), (json!({ "n": 1 }), 0));
    assert_eq!(blamed(&alone, &projection, "/n"), Some("one"));
}

#[test]
fn an_object_and_an_equal_whole_object_are_one_candidate() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/a", "text")]);
    story.write("field", &["base"], 5, "app", vec![put("/a/x", 1)]);
    story.write("whole", &["base"], 9, "jira", vec![put("/a", json!({ "x": 1 }))]);
    story.write("number", &["base"], 7, "github", vec![put("/a", 7)]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(candidates(&story, at(&projection, "/a")), [("field", json!({ "x": 1 })), ("number", json!(7))]);
    assert_eq!((projection.content.json, projection.conflicts[0].kind), (json!({ "a": 7 }), ConflictKind::Type));
}

#[test]
fn a_value_said_again_later_counts_as_said_then() {
    // A single put of an equal value would leave no trace in Automerge.
    let mut story = Story::default();
    story.write("base", &[], 1, "jira", vec![put("/status", "Open")]);
    story.write("confirmed", &["base"], 50, "jira", vec![put("/status", "Open")]);
    story.write("done", &["base"], 3, "app", vec![put("/status", "Done")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(
        candidates(&story, at(&projection, "/status")),
        [("done", json!("Done")), ("confirmed", json!("Open"))]
    );
    assert_eq!(projection.content.json["status"], "Open");
}

#[test]
fn counters_sets_lists_and_texts_merge_under_every_strategy() {
    let mut story = Story::default();
    let make = vec![
        put("/n", 5),
        Op::MakeSet { path: path("/t") },
        Op::MakeList { path: path("/l") },
        Op::MakeText { path: path("/m") },
        add("/t", "x"),
        splice(Container::Own(3), 0, 0, "ac"),
    ];
    story.write("base", &[], 1, "app", make);
    let (list, text) = (Container::Of(story.id("base"), 2), Container::Of(story.id("base"), 3));
    story.write(
        "a",
        &["base"],
        2,
        "app",
        vec![increment("/n", 1), add("/t", "y"), insert(list, 0, 1), splice(text, 1, 0, "b")],
    );
    story.write(
        "b",
        &["base"],
        3,
        "jira",
        vec![increment("/n", 2), take("/t", "x"), insert(list, 0, 2), splice(text, 2, 0, "d")],
    );
    for strategy in ["merge", "last_write_wins:record", "first_write_wins:record", "source_wins:jira", "manual"] {
        let projection = projected(&mut story, json!(strategy));
        let content = &projection.content.json;
        assert_eq!(
            (&content["n"], &content["t"], &content["m"]),
            (&json!(8), &json!(["y"]), &json!("abcd")),
            "{strategy}"
        );
        assert_eq!(content["l"].as_array().unwrap().len(), 2, "{strategy}");
        assert_eq!(projection.conflicts, [], "{strategy}");
    }
}

#[test]
fn counters_that_were_made_apart_add_up() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/n", 5)]).write("b", &[], 1, "jira", vec![put("/n", 5)]);
    story.write("a1", &["a"], 2, "app", vec![increment("/n", 1)]).write(
        "b2",
        &["b"],
        2,
        "jira",
        vec![increment("/n", 2)],
    );
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.content.json, projection.conflicts.len()), (json!({ "n": 8 }), 0));
    story.write("set", &["a1", "b2"], 3, "app", vec![put("/n", 0)]);
    story.write("ten", &["a1", "b2"], 4, "jira", vec![increment("/n", 10)]);
    assert_eq!(shown(&mut story, "merge"), json!({ "n": 10 }));
}

// --- by time -------------------------------------------------------------------------------------------------------

#[test]
fn last_and_first_write_wins_decide_by_order_and_by_themselves() {
    let mut story = status();
    for (strategy, expected) in [("last_write_wins", "Closed"), ("first_write_wins", "Done")] {
        let projection = projected(&mut story, json!(strategy));
        assert_eq!(projection.content.json["status"], expected);
        assert_eq!(conflicts(&projection), [("/status", ConflictKind::UpdateUpdate, Severity::Low, "auto")]);
        assert_eq!(at(&projection, "/status").status, Status::Auto { rule: strategy.into() });
    }
}

#[test]
fn first_write_wins_changes_when_the_first_writer_goes_on() {
    let mut story = status();
    assert_eq!(shown(&mut story, "first_write_wins")["status"], "Done");
    story.write("goes on", &["jira"], 30, "jira", vec![put("/status", "Verified")]);
    assert_eq!(shown(&mut story, "first_write_wins")["status"], "Closed");
}

#[test]
fn record_scope_shows_the_fields_that_one_writer_saw_together_also_after_a_merge() {
    let mut story = Story::default();
    let base = vec![put("/city", "old"), put("/zip", "old"), put("/note", "")];
    story.write("base", &[], 1, "app", base);
    story.write("city", &["base"], 10, "app", vec![put("/city", "Paris")]);
    story.write("zip", &["base"], 20, "jira", vec![put("/zip", "69001")]);
    let together = json!({ "city": "old", "zip": "69001", "note": "" });
    assert_eq!(shown(&mut story, "last_write_wins:record"), together);
    assert_eq!(shown(&mut story, "last_write_wins"), json!({ "city": "Paris", "zip": "69001", "note": "" }));
    story.write("note", &["city", "zip"], 30, "app", vec![put("/note", "call back")]);
    let together = json!({ "city": "old", "zip": "69001", "note": "call back" });
    assert_eq!(shown(&mut story, "last_write_wins:record"), together);
    let first = json!({ "city": "Paris", "zip": "old", "note": "call back" });
    assert_eq!(shown(&mut story, "first_write_wins:record"), first);
}

#[test]
fn record_scope_says_which_candidate_it_shows() {
    let mut story = status();
    story.write("late", &["base"], 30, "github", vec![put("/title", "B")]);
    let projection = projected(&mut story, json!("last_write_wins:record"));
    assert_eq!(projection.content.json, json!({ "status": "Open", "title": "B" }));
    let conflict = at(&projection, "/status");
    assert_eq!((conflict.taken, &conflict.shown), (None, &Some(Content::of(json!("Open")))));
    assert_eq!(conflict.status.name(), "auto");
    assert!(conflict.because.ends_with("with the whole record of its writer"), "{}", conflict.because);
    let fields = json!({ "default": "last_write_wins:record", "fields": { "/status": "merge" } });
    let projection = projected(&mut story, fields);
    let because = &at(&projection, "/status").because;
    assert_eq!(because, "merge: the latest by order, until somebody settles it");
}

// --- by source -----------------------------------------------------------------------------------------------------

#[test]
fn source_wins_takes_the_highest_ranked_source_and_target_wins_the_lowest() {
    let mut story = status();
    for (strategy, expected) in [
        ("source_wins:jira,app", "Done"),
        ("source_wins:app,jira", "Closed"),
        ("target_wins:jira,app", "Closed"),
        ("target_wins:app,jira", "Done"),
        ("source_wins:jira", "Done"),
        ("target_wins:jira", "Done"),
        ("source_wins:github", "Closed"),
    ] {
        let projection = projected(&mut story, json!(strategy));
        assert_eq!(projection.content.json["status"], expected, "{strategy}");
        assert_eq!(at(&projection, "/status").status.name(), "auto");
    }
}

#[test]
fn of_one_source_the_latest_counts() {
    let mut story = status();
    story.write("jira 2", &["base"], 12, "jira", vec![put("/status", "Verified")]);
    assert_eq!(shown(&mut story, "source_wins:jira,app")["status"], "Verified");
}

#[test]
fn a_value_that_several_sources_hold_has_the_rank_of_the_best() {
    let mut story = status();
    story.write("app too", &["base"], 5, "github", vec![put("/status", "Done")]);
    let projection = projected(&mut story, json!("source_wins:jira,app,github"));
    assert_eq!(projection.content.json["status"], "Done");
    assert_eq!(blamed(&story, &projection, "/status"), Some("app too"));
}

#[test]
fn a_source_that_no_rank_names_loses_and_without_any_the_latest_counts() {
    let mut story = status();
    story.write("github", &["base"], 30, "github", vec![put("/status", "Merged")]);
    for (policy, shown, because) in [
        ("source_wins:jira,app,github", "Done", "source_wins: jira ranks first"),
        ("target_wins:jira,app,github", "Merged", "target_wins: github ranks first"),
        ("target_wins:github,jira,app", "Closed", "target_wins: app ranks first"),
        ("source_wins:jira", "Done", "source_wins: jira ranks first"),
        ("source_wins:linear", "Merged", "source_wins: no candidate is of a ranked source"),
    ] {
        let projection = projected(&mut story, json!(policy));
        assert_eq!(projection.content.json["status"], shown, "{policy}");
        let conflict = at(&projection, "/status");
        assert!(conflict.because.starts_with(because), "{policy}: {}", conflict.because);
    }
}

// --- contents ------------------------------------------------------------------------------------------------------

#[test]
fn a_part_of_a_content_keeps_the_large_values_in_it() {
    use crate::event::{BlobForm, BlobHash, BlobRef, Value};
    let blob = |byte| BlobRef { hash: BlobHash([byte; 32]), form: BlobForm::Text, bytes: 20_000 };
    let large = |byte| Content::of_value(&Value::Blob(blob(byte)));
    let plain = Content::of(json!(1));
    assert_eq!(Content::of_fields([("p".to_owned(), plain.clone())]).blobs, []);
    let inner = Content::of_fields([("b".to_owned(), large(1)), ("p".to_owned(), plain)]);
    let outer = Content::of_fields([("a".to_owned(), inner.clone()), ("ab".to_owned(), large(2))]);
    assert_eq!(outer.at("/a"), Some(inner));
    assert_eq!(outer.at("/a/b"), Some(large(1)));
    assert_eq!(outer.at("/ab"), Some(large(2)));
    assert_eq!((outer.at("/a/p").unwrap().blobs, outer.at("/c")), (vec![], None));
    let read = |found: &BlobRef| Ok::<_, ()>(json!(if *found == blob(1) { "one" } else { "two" }));
    assert_eq!(outer.fill(read), Ok(json!({ "a": { "b": "one", "p": 1 }, "ab": "two" })));
    assert_eq!(outer.fill(|_| Err("gone")), Err("gone"));
}

// --- manual and its base -------------------------------------------------------------------------------------------

#[test]
fn manual_shows_what_the_candidates_were_made_on() {
    let mut story = status();
    let projection = projected(&mut story, json!("manual"));
    assert_eq!(projection.content.json["status"], "Open");
    assert_eq!(conflicts(&projection), [("/status", ConflictKind::UpdateUpdate, Severity::Medium, "open")]);
    assert_eq!((at(&projection, "/status").taken, blamed(&story, &projection, "/status")), (None, Some("base")));
}

#[test]
fn manual_without_a_common_value_shows_the_earliest() {
    let mut created = Story::default();
    created.write("a", &[], 1, "app", vec![put("/status", "A")]).write(
        "b",
        &[],
        2,
        "jira",
        vec![put("/status", "B")],
    );
    let projection = projected(&mut created, json!("manual"));
    assert_eq!(projection.content.json, json!({ "status": "A" }));
    assert_eq!(conflicts(&projection), [("/status", ConflictKind::CreateCreate, Severity::Medium, "open")]);
    let mut removed = Story::default();
    removed.write("base", &[], 1, "app", vec![put("/status", "X"), put("/b", 0)]);
    removed.write("removed", &["base"], 2, "app", vec![remove("/status")]);
    removed.write("late", &["removed"], 9, "app", vec![put("/status", "late")]);
    removed.write("early", &["removed"], 8, "jira", vec![put("/status", "early")]);
    assert_eq!(shown(&mut removed, "manual")["status"], "early");
}

#[test]
fn an_import_apart_and_one_edit_leave_the_field_visible() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/status", "Open")]).write(
        "b",
        &[],
        1,
        "jira",
        vec![put("/status", "Open")],
    );
    story.write("done", &["a"], 2, "app", vec![put("/status", "Done")]);
    assert_eq!(shown(&mut story, "manual"), json!({ "status": "Open" }));
    assert_eq!(shown(&mut story, "merge"), json!({ "status": "Done" }));
}

#[test]
fn the_base_of_a_criss_cross_is_that_of_its_bases() {
    let mut story = Story::default();
    story.write("v0", &[], 1, "app", vec![put("/f", "v0")]);
    story.write("v1", &["v0"], 2, "app", vec![put("/f", "v1")]).write(
        "v2",
        &["v0"],
        2,
        "jira",
        vec![put("/f", "v2")],
    );
    story.write("m1", &["v1", "v2"], 3, "app", vec![put("/f", "m1")]);
    story.write("m2", &["v1", "v2"], 3, "jira", vec![put("/f", "m2")]);
    assert_eq!(shown(&mut story, "manual"), json!({ "f": "v0" }));
}

#[test]
fn a_late_edit_on_an_older_state_moves_the_base_back() {
    let mut story = Story::default();
    story.write("v0", &[], 1, "app", vec![put("/f", "v0")]).write("s1", &["v0"], 2, "app", vec![put("/f", "s1")]);
    story.write("x", &["s1"], 3, "app", vec![put("/f", "X")]).write("y", &["s1"], 3, "jira", vec![put("/f", "Y")]);
    assert_eq!(shown(&mut story, "manual"), json!({ "f": "s1" }));
    story.write("z", &["v0"], 3, "github", vec![put("/f", "Z")]);
    assert_eq!(shown(&mut story, "manual"), json!({ "f": "v0" }));
}

#[test]
fn a_base_that_a_candidate_repeats_is_that_candidate() {
    let mut story = status();
    story.write("same", &["base"], 30, "github", vec![put("/status", "Open")]);
    let projection = projected(&mut story, json!("manual"));
    assert_eq!(at(&projection, "/status").taken, Some(2));
}

// --- custom --------------------------------------------------------------------------------------------------------

fn custom(verdict: fn(&Dispute) -> Verdict) -> Projection {
    let mut resolvers = Resolvers::default();
    resolvers.register("mine", verdict);
    project_with(&mut status(), &policy(json!("custom:mine")), &resolvers)
}

#[test]
fn a_custom_strategy_takes_a_candidate_or_makes_a_value() {
    let projection = custom(|_| Verdict::Take(0));
    assert_eq!(
        (projection.content.json["status"].as_str(), at(&projection, "/status").taken),
        (Some("Done"), Some(0))
    );
    assert_eq!(at(&projection, "/status").status, Status::Auto { rule: "custom".into() });
    let projection = custom(|_| Verdict::Value(json!({ "of": 1.0 })));
    assert_eq!(projection.content.json["status"], json!({ "of": 1 }));
    assert_eq!(projection.blame.iter().find(|blame| blame.path.as_str() == "/status").unwrap().node, None);
}

#[test]
fn a_custom_strategy_sees_the_base_and_the_record_as_each_writer_saw_it() {
    let projection = custom(|dispute| {
        assert_eq!((dispute.path.as_str(), &dispute.base), ("/status", &Some(json!("Open"))));
        let records: Vec<Json> = dispute.candidates.iter().map(|choice| choice.record.clone()).collect();
        assert_eq!(records, [json!({ "status": "Done", "title": "A" }), json!({ "status": "Closed", "title": "A" })]);
        let sources: Vec<&str> = dispute.candidates.iter().map(|choice| choice.source.as_str()).collect();
        assert_eq!(sources, ["jira", "app"]);
        Verdict::Take(1)
    });
    assert_eq!(at(&projection, "/status").because, "custom `mine` took a candidate");
}

#[test]
fn a_custom_strategy_that_does_not_decide_acts_as_manual_and_says_why() {
    for (verdict, why) in [
        ((|_| Verdict::Undecided) as fn(&Dispute) -> Verdict, "is undecided"),
        (|_| Verdict::Take(2), "took candidate 2 of 2"),
        (|_| panic!("on purpose"), "panicked"),
    ] {
        let projection = custom(verdict);
        let conflict = at(&projection, "/status");
        assert_eq!((projection.content.json["status"].as_str(), conflict.status.name()), (Some("Open"), "open"));
        assert!(conflict.because.contains(why) && conflict.because.contains("manual"), "{}", conflict.because);
    }
    let projection = projected(&mut status(), json!("custom:elsewhere"));
    let conflict = at(&projection, "/status");
    assert_eq!(projection.content.json["status"], "Open");
    assert!(conflict.because.contains("`elsewhere` is not registered here"), "{}", conflict.because);
}

#[test]
fn a_record_that_its_writer_saw_disputed_shows_the_latest_also_a_removal() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open"), put("/t", 0)]);
    story.write("edited", &["base"], 2, "app", vec![put("/s", "Edited")]);
    story.write("removed", &["base"], 3, "jira", vec![remove("/s")]);
    story.write("one", &["edited", "removed"], 4, "app", vec![put("/t", 1)]);
    story.write("two", &["base"], 5, "github", vec![put("/t", 2)]);
    let mut resolvers = Resolvers::default();
    resolvers.register("mine", |dispute| Verdict::Value(dispute.candidates[0].record.clone()));
    let projection = project_with(&mut story, &policy(json!({ "fields": { "/t": "custom:mine" } })), &resolvers);
    assert_eq!(projection.content.json["t"], json!({ "t": 1 }));
}

#[test]
fn custom_strategies_are_known_by_their_names() {
    let mut resolvers = Resolvers::default();
    resolvers.register("mine", |_| Verdict::Undecided);
    assert!(resolvers.contains("mine") && !resolvers.contains("other"));
    assert_eq!(format!("{resolvers:?}"), r#"{"mine"}"#);
}

// --- kinds ---------------------------------------------------------------------------------------------------------

#[test]
fn a_removal_is_a_candidate_and_the_later_names_the_conflict() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open"), put("/b", 0)]);
    story.write("removed", &["base"], 20, "app", vec![remove("/s")]);
    story.write("edited", &["base"], 3, "jira", vec![put("/s", "Edited")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(projection.content.json, json!({ "b": 0 }));
    assert_eq!(conflicts(&projection), [("/s", ConflictKind::UpdateDelete, Severity::Medium, "open")]);
    assert_eq!(
        candidates(&story, at(&projection, "/s")),
        [("edited", json!("Edited")), ("removed", json!("removed"))]
    );
    assert_eq!(shown(&mut story, "source_wins:jira"), json!({ "b": 0, "s": "Edited" }));
    assert_eq!(shown(&mut story, "manual"), json!({ "b": 0, "s": "Open" }));
    story.write("later", &["edited"], 30, "jira", vec![put("/s", "Later")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(conflicts(&projection), [("/s", ConflictKind::DeleteUpdate, Severity::Medium, "open")]);
}

#[test]
fn two_removals_are_one_as_early_as_the_first() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open"), put("/b", 0)]);
    story.write("r1", &["base"], 2, "app", vec![remove("/s")]).write("r2", &["base"], 20, "jira", vec![remove("/s")]);
    assert_eq!(projected(&mut story, json!("merge")).conflicts, []);
    story.write("edited", &["base"], 10, "github", vec![put("/s", "Edited")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(conflicts(&projection)[0].1, ConflictKind::DeleteUpdate);
    assert_eq!(projection.content.json["s"], "Edited");
}

#[test]
fn a_value_apart_from_fields_below_it_is_a_conflict_of_type_ordered_by_the_latest_field() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("x", &["base"], 2, "app", vec![put("/a/x", 1)]).write("y", &["x"], 30, "app", vec![put("/a/y", 2)]);
    story.write("value", &["base"], 10, "jira", vec![put("/a", "text")]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(projection.content.json, json!({ "a": { "x": 1, "y": 2 }, "b": 0 }));
    assert_eq!(conflicts(&projection), [("/a", ConflictKind::Type, Severity::Medium, "open")]);
    let expected = [("value", json!("text")), ("y", json!({ "x": 1, "y": 2 }))];
    assert_eq!(candidates(&story, at(&projection, "/a")), expected);
    assert_eq!(shown(&mut story, "first_write_wins"), json!({ "a": "text", "b": 0 }));
    assert_eq!(blamed(&story, &projection, "/a/x"), Some("x"));
}

#[test]
fn a_list_or_set_apart_from_a_plain_value_is_a_conflict_of_type_and_apart_from_each_other_of_values() {
    for make in [Op::MakeSet { path: path("/a") }, Op::MakeList { path: path("/a") }] {
        let mut story = Story::default();
        story.write("base", &[], 1, "app", vec![put("/b", 0)]);
        story.write("made", &["base"], 2, "app", vec![make]).write("one", &["base"], 3, "jira", vec![put("/a", 1)]);
        assert_eq!(conflicts(&projected(&mut story, json!("merge")))[0].1, ConflictKind::Type);
    }
    let mut story = Story::default();
    story.write("set", &[], 2, "app", vec![Op::MakeSet { path: path("/a") }, add("/a", "u")]);
    story.write("list", &[], 3, "jira", vec![Op::MakeList { path: path("/a") }]);
    assert_eq!(conflicts(&projected(&mut story, json!("merge")))[0].1, ConflictKind::CreateCreate);
}

#[test]
fn the_mark_of_an_object_is_no_candidate_beside_its_fields() {
    let mut story = Story::default();
    story.write("mark", &[], 1, "app", vec![put("/a", json!({}))]);
    story.write("x", &["mark"], 2, "app", vec![put("/a/x", 1)]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.content.json, projection.conflicts.len()), (json!({ "a": { "x": 1 } }), 0));
}

#[test]
fn an_object_of_which_two_removed_each_the_field_that_the_other_kept_is_absent() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/a/x", 1), put("/a/y", 2), put("/b", 0)]);
    story.write("x", &["base"], 2, "app", vec![remove("/a/x")]);
    story.write("y", &["base"], 3, "jira", vec![remove("/a/y")]);
    assert_eq!(shown(&mut story, "merge"), json!({ "b": 0 }));
}

#[test]
fn an_object_as_a_candidate_has_the_fields_that_the_put_over_it_did_not_see() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/a/x", 1)]);
    story.write("x", &["base"], 2, "app", vec![put("/a/x", 2)]);
    story.write("value", &["base"], 3, "jira", vec![put("/a", 5)]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(candidates(&story, at(&projection, "/a")), [("x", json!({ "x": 2 })), ("value", json!(5))]);
}

#[test]
fn a_removed_object_does_not_dispute_the_fields_that_others_put_in_it() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/a/x", 1)]);
    story.write("removed", &["base"], 30, "app", vec![remove("/a")]);
    story.write("y", &["base"], 2, "jira", vec![put("/a/y", 2)]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.content.json, projection.conflicts.len()), (json!({ "a": { "y": 2 } }), 0));
}

#[test]
fn what_a_conflict_says_is_shown_is_what_is_shown() {
    // The object's own field is disputed as well, and decided otherwise than a merge would.
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("first", &["base"], 2, "app", vec![put("/a/x", 1)]);
    story.write("second", &["base"], 3, "github", vec![put("/a/x", 2)]);
    story.write("value", &["base"], 10, "jira", vec![put("/a", "text")]);
    let projection = projected(&mut story, json!("source_wins:app,github"));
    assert_eq!(projection.content.json["a"], json!({ "x": 1 }));
    assert_eq!(at(&projection, "/a").shown, Some(Content::of(json!({ "x": 1 }))));
    assert_eq!(projection.conflicts.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["/a", "/a/x"]);
}

#[test]
fn a_set_and_a_field_with_the_key_of_its_member_are_two_candidates() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("set", &["base"], 2, "app", vec![Op::MakeSet { path: path("/t") }, add("/t", "u")]);
    story.write("field", &["base"], 3, "jira", vec![put("/t/\"u\"", 1)]);
    let projection = projected(&mut story, json!("merge"));
    let expected = [("set", json!(["u"])), ("field", json!({ "\"u\"": 1 }))];
    assert_eq!(candidates(&story, at(&projection, "/t")), expected);
    assert_eq!((projection.content.json["t"].clone(), projection.conflicts.len()), (json!({ "\"u\"": 1 }), 1));
}

#[test]
fn conflicts_and_blame_are_by_path() {
    let mut story = Story::default();
    let ops = || ["/a/b", "/a!", "/z"];
    story.write("one", &[], 1, "app", ops().map(|at| put(at, 1)).into());
    story.write("two", &[], 2, "jira", ops().map(|at| put(at, 2)).into());
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(projection.conflicts.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["/a!", "/a/b", "/z"]);
    assert!(projection.blame.is_sorted_by_key(|blame| blame.path.clone()));
}

#[test]
fn a_policy_of_a_field_holds_below_it() {
    let mut story = Story::default();
    story.write("one", &[], 1, "app", vec![put("/a/x", 1), put("/b", 1)]);
    story.write("two", &[], 2, "jira", vec![put("/a/x", 2), put("/b", 2)]);
    let fields = json!({ "fields": { "/a": "first_write_wins" } });
    assert_eq!(shown(&mut story, fields), json!({ "a": { "x": 1 }, "b": 2 }));
}

#[test]
fn an_edit_goes_to_the_list_that_its_writer_saw_not_to_the_one_that_automerge_prefers() {
    let mut story = Story::default();
    let list = |item: &str| vec![Op::MakeList { path: path("/l") }, insert(Container::Own(0), 0, item)];
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("shown", &["base"], 100, "app", list("shown"));
    story.write("n1", &["base"], 2, "jira", vec![put("/b", 1)]).write("n2", &["n1"], 3, "jira", vec![put("/b", 2)]);
    story.write("hidden", &["n2"], 50, "jira", list("hidden"));
    let shown_list = Container::Of(story.id("shown"), 0);
    story.write("step", &["shown", "hidden"], 200, "app", vec![insert(shown_list, 1, "step")]);
    assert_eq!(shown(&mut story, "merge")["l"], json!(["shown", "step"]));
}

// --- deleting ------------------------------------------------------------------------------------------------------

/// Deleted at 10 by jira, edited at 20 by app.
fn deleted() -> Story {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open")]);
    story.write("delete", &["base"], 10, "jira", vec![Op::Delete]);
    story.write("edit", &["base"], 20, "app", vec![put("/s", "edit")]);
    story
}

fn deletes(rule: &str) -> Json {
    json!({ "deletes": rule })
}

#[test]
fn a_delete_that_every_edit_preceded_or_followed_deletes_under_every_rule() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open")]).write(
        "delete",
        &["base"],
        2,
        "app",
        vec![Op::Delete],
    );
    story.write("after", &["delete"], 3, "app", vec![put("/s", "x")]);
    for rule in ["edit_wins", "delete_wins", "manual"] {
        let projection = projected(&mut story, deletes(rule));
        assert_eq!((projection.deleted, projection.conflicts.len()), (true, 0));
        assert_eq!(projection.content.json, json!({ "s": "x" }));
    }
    story.write("restore", &["after"], 4, "app", vec![Op::Restore]);
    assert!(!projected(&mut story, deletes("delete_wins")).deleted);
}

#[test]
fn a_disputed_delete_is_decided_by_its_rule() {
    for (rule, gone, status) in
        [("edit_wins", false, "auto"), ("delete_wins", true, "auto"), ("manual", false, "open")]
    {
        let mut story = deleted();
        let projection = projected(&mut story, deletes(rule));
        assert_eq!(projection.deleted, gone, "{rule}");
        assert_eq!(conflicts(&projection), [(DELETED, ConflictKind::DeleteUpdate, Severity::High, status)]);
        let conflict = at(&projection, DELETED);
        assert_eq!(candidates(&story, conflict), [("delete", json!("removed")), ("edit", json!(false))]);
        assert_eq!(conflict.taken, Some(usize::from(!gone)));
        assert_eq!(conflict.shown, if gone { None } else { Some(Content::of(json!(false))) });
        let because = [
            ("edit_wins", "edit_wins: the record stays, since one edited it"),
            ("delete_wins", "delete_wins: the record goes, since one deleted it"),
            ("manual", "deletes are manual: the record stays"),
        ];
        let expected = because.iter().find(|(name, _)| *name == rule).unwrap().1;
        assert!(conflict.because.starts_with(expected), "{}", conflict.because);
    }
}

#[test]
fn the_later_names_a_disputed_delete() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open")]);
    story.write("edit", &["base"], 2, "app", vec![put("/s", "edit")]);
    story.write("delete", &["base"], 10, "jira", vec![Op::Delete]);
    assert_eq!(conflicts(&projected(&mut story, json!("merge")))[0].1, ConflictKind::UpdateDelete);
}

#[test]
fn a_second_delete_that_knows_the_edit_settles_it() {
    let mut story = deleted();
    story.write("again", &["delete", "edit"], 30, "jira", vec![Op::Delete]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.deleted, projection.conflicts.len()), (true, 0));
    let mut apart = deleted();
    apart.write("other", &["edit"], 30, "github", vec![Op::Delete]);
    let projection = projected(&mut apart, json!("merge"));
    assert!(projection.deleted, "one delete knew of every edit");
    let conflict = at(&projection, DELETED);
    assert_eq!((conflict.taken, &conflict.shown), (Some(0), &None));
    assert!(conflict.because.starts_with("edit_wins: the record goes, since another delete"), "{}", conflict.because);
}

#[test]
fn a_restore_apart_from_another_delete_disputes_it() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open")]).write(
        "delete",
        &["base"],
        2,
        "app",
        vec![Op::Delete],
    );
    story.write("restore", &["delete"], 3, "app", vec![Op::Restore]);
    story.write("again", &["delete"], 4, "jira", vec![Op::Delete]);
    assert!(!projected(&mut story, deletes("edit_wins")).deleted);
    assert!(projected(&mut story, deletes("delete_wins")).deleted);
}

#[test]
fn of_two_who_each_edited_and_deleted_neither_is_the_later() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open"), put("/t", 0)]);
    story.write("one", &["base"], 2, "app", vec![put("/s", "Done"), Op::Delete]);
    story.write("two", &["base"], 3, "jira", vec![put("/t", 1), Op::Delete]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(conflicts(&projection), [(DELETED, ConflictKind::DeleteUpdate, Severity::High, "auto")]);
    assert!(!projection.deleted);
}

#[test]
fn an_event_without_operations_disputes_no_delete() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", "Open")]).write(
        "delete",
        &["base"],
        2,
        "jira",
        vec![Op::Delete],
    );
    story.write("empty", &["base"], 3, "app", vec![]);
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.deleted, projection.conflicts.len()), (true, 0));
}

// --- resolutions ---------------------------------------------------------------------------------------------------

fn settles(id: ConflictId) -> impl FnOnce(&mut Event) {
    move |event| {
        event.resolves = Some(id);
        event.principal = Some("ann".into());
        event.reason = Some("asked".into());
    }
}

fn settled(story: &mut Story) -> Vec<Conflict> {
    let view = story.document.view().unwrap();
    let now = project(&view, &Policy::default(), &Resolvers::default(), &record());
    resolved(&view, &now, &Policy::default(), &Resolvers::default(), &record())
}

#[test]
fn a_resolution_that_takes_the_shown_value_settles_the_conflict_and_is_remembered() {
    let mut story = status();
    let id = at(&projected(&mut story, json!("merge")), "/status").id;
    story.write_with("settle", &["jira", "app"], 30, "app", vec![put("/status", "Closed")], settles(id));
    let projection = projected(&mut story, json!("merge"));
    assert_eq!((projection.conflicts.len(), blamed(&story, &projection, "/status")), (0, Some("settle")));
    let settled = settled(&mut story);
    let expected =
        Status::Resolved { event: story.id("settle"), principal: Some("ann".into()), reason: Some("asked".into()) };
    assert_eq!(settled.iter().map(|conflict| (conflict.id, &conflict.status)).collect::<Vec<_>>(), [(id, &expected)]);
    assert_eq!(candidates(&story, &settled[0]).len(), 2);
    assert_eq!((settled[0].taken, &settled[0].shown), (Some(1), &Some(Content::of(json!("Closed")))));
}

#[test]
fn the_later_of_two_resolutions_that_agree_is_remembered() {
    let mut story = status();
    let id = at(&projected(&mut story, json!("merge")), "/status").id;
    let closed = || vec![put("/status", "Closed")];
    story.write_with("early", &["jira", "app"], 29, "jira", closed(), settles(id));
    story.write_with("late", &["jira", "app"], 30, "app", closed(), settles(id));
    let settled = settled(&mut story);
    let by = |conflict: &Conflict| match &conflict.status {
        Status::Resolved { event, .. } => story.name(*event),
        _ => "nobody",
    };
    assert_eq!(settled.iter().map(by).collect::<Vec<_>>(), ["late"]);
}

#[test]
fn a_settled_deletion_says_whether_the_record_is_deleted_now() {
    for (op, shown, taken) in [(Op::Restore, Some(Content::of(json!(false))), 1), (Op::Delete, None, 0)] {
        let mut story = deleted();
        let id = at(&projected(&mut story, json!("merge")), DELETED).id;
        story.write_with("settle", &["delete", "edit"], 30, "app", vec![op], settles(id));
        let settled = settled(&mut story);
        assert_eq!((&settled[0].shown, settled[0].taken), (&shown, Some(taken)));
    }
}

#[test]
fn an_edit_apart_from_a_resolution_opens_the_conflict_again_under_its_id() {
    let mut story = status();
    let id = at(&projected(&mut story, json!("merge")), "/status").id;
    story.write_with("settle", &["jira", "app"], 30, "app", vec![put("/status", "Closed")], settles(id));
    story.write("reopened", &["app"], 25, "github", vec![put("/status", "Reopened")]);
    let projection = projected(&mut story, json!("merge"));
    let conflict = at(&projection, "/status");
    assert_eq!((conflict.id, conflict.status.name()), (id, "open"));
    assert_eq!(candidates(&story, conflict), [("reopened", json!("Reopened")), ("settle", json!("Closed"))]);
    assert_eq!(settled(&mut story), []);
}

#[test]
fn two_resolutions_apart_are_candidates() {
    let mut story = status();
    let id = at(&projected(&mut story, json!("merge")), "/status").id;
    story.write_with("one", &["jira", "app"], 30, "app", vec![put("/status", "Closed")], settles(id));
    story.write_with("other", &["jira", "app"], 29, "jira", vec![put("/status", "Done")], settles(id));
    let projection = projected(&mut story, json!("merge"));
    assert_eq!(candidates(&story, at(&projection, "/status")), [("other", json!("Done")), ("one", json!("Closed"))]);
}

#[test]
fn a_resolution_of_what_nobody_disputed_is_no_conflict() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/s", 1)]);
    story.write_with("settle", &["base"], 2, "app", vec![put("/s", 2)], settles(ConflictId([1; 32])));
    assert_eq!(settled(&mut story), []);
}

#[test]
fn the_version_of_a_conflict_changes_with_every_candidate_its_id_never() {
    let mut story = status();
    let before = at(&projected(&mut story, json!("merge")), "/status").clone();
    story.write("equal", &["base"], 40, "github", vec![put("/status", "Done")]);
    let after = at(&projected(&mut story, json!("merge")), "/status").clone();
    assert_eq!((before.id, before.candidates.len()), (after.id, after.candidates.len()));
    assert_ne!(before.version, after.version);
    story.write("elsewhere", &["equal"], 41, "github", vec![put("/title", "B")]);
    assert_eq!(at(&projected(&mut story, json!("merge")), "/status").version, after.version);
    assert_eq!(at(&projected(&mut story, json!("manual")), "/status").version, after.version);
}

#[test]
fn some_fields_alone_show_what_they_show_among_the_others() {
    let (mut disputed, policy) = (0, policy(json!({ "default": "manual", "fields": { "/a": "first_write_wins" } })));
    for seed in 0..300 {
        let rng = &mut Rng::new(seed);
        let mut document = History::new(seed).deliver(rng).document;
        let view = document.view().unwrap();
        let whole = project(&view, &policy, &Resolvers::default(), &record());
        let names: BTreeSet<Path> = whole
            .content
            .json
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
            .filter(|_| rng.one_in(2))
            .map(|name| Path::root().join(name).unwrap())
            .collect();
        let is_of =
            |path: &str| names.iter().any(|name| path == name.as_str() || path.starts_with(&format!("{name}/")));
        let part = project_fields(&view, &policy, &Resolvers::default(), &record(), &names);
        for name in &names {
            assert_eq!(part.content.at(name.as_str()), whole.content.at(name.as_str()), "seed {seed} {name}");
        }
        let conflicts = whole.conflicts.iter().filter(|conflict| conflict.path == DELETED || is_of(&conflict.path));
        assert_eq!(part.conflicts, conflicts.cloned().collect::<Vec<_>>(), "seed {seed}");
        let blame = whole.blame.iter().filter(|blame| is_of(blame.path.as_str()));
        assert_eq!(part.blame, blame.cloned().collect::<Vec<_>>(), "seed {seed}");
        assert_eq!((part.deleted, part.content.json.as_object().unwrap().len()), (whole.deleted, names.len()));
        disputed += part.conflicts.len();
    }
    assert!(disputed > 50, "{disputed}");
}
