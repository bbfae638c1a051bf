//! The ledger as an embedder uses it: on disk and in memory.

use serde_json::{Value, json};
use syncledger::ledger::{
    Act, AsOf, Context, Delivered, Delivery, Edit, Ledger, Look, Options, Outcome, Place, Query, Settlement, Store,
    Target, Which, Write,
};
use syncledger::projection::{Policy, Strategy};
use syncledger::{ErrorKind, event::Path};

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn value(ledger: &Ledger, key: &str) -> Value {
    ledger.get("c", key).unwrap().unwrap().value
}

/// A second replica of a ledger, empty yet.
fn replica() -> Ledger {
    memory()
}

#[test]
fn what_is_put_is_got_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let record = json!({"title": "Hello", "n": 1, "deep": {"a": [1, {"b": null}], "empty": {}}});
    let digest = {
        let ledger = Ledger::open(dir.path()).unwrap();
        let receipt = ledger.put("c", "k", record.clone(), &app()).unwrap();
        assert_eq!(receipt.outcome, Outcome::Appended);
        assert_eq!(value(&ledger, "k"), record);
        let digest = ledger.digest().unwrap();
        ledger.store().close().unwrap();
        digest
    };
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(value(&ledger, "k"), record);
    assert_eq!(ledger.digest().unwrap(), digest);
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_put_of_what_is_shown_makes_no_event() {
    let ledger = memory();
    ledger.put("c", "k", json!({"a": 1, "b": {"c": 2}}), &app()).unwrap();
    let receipt = ledger.put("c", "k", json!({"b": {"c": 2.0}, "a": 1}), &app()).unwrap();
    assert_eq!(receipt.outcome, Outcome::Unchanged);
    assert_eq!(ledger.position(), 1);
}

#[test]
fn a_put_changes_only_what_differs() {
    let ledger = memory();
    ledger.put("c", "k", json!({"a": 1, "b": {"c": 2, "d": 3}, "gone": {"x": 1, "y": 2}}), &app()).unwrap();
    let planned = ledger
        .dry_run()
        .write_all(vec![Write::new("c", "k", Act::Put(json!({"a": 1, "b": {"c": 5, "d": 3}})))], &app())
        .unwrap();
    let names: Vec<_> = planned[0].ops.iter().map(|op| (op.name(), op.path().unwrap().to_string())).collect();
    assert_eq!(names, [("remove", "/gone".to_owned()), ("put", "/b/c".to_owned())]);
}

#[test]
fn edits_apart_merge_by_field_and_collisions_become_conflicts() {
    let (here, there) = (memory(), replica());
    here.put("c", "k", json!({"title": "t", "status": "open"}), &app()).unwrap();
    assert_eq!(there.pull(&here).unwrap().applied, 1);
    here.patch("c", "k", json!({"title": "T", "status": "done"}), &Context::from_source("jira").occurred(1)).unwrap();
    there.patch("c", "k", json!({"status": "closed", "extra": true}), &app()).unwrap();
    here.pull(&there).unwrap();
    there.pull(&here).unwrap();
    assert_eq!(here.digest().unwrap(), Digest::of(&there));
    assert_eq!(value(&here, "k"), json!({"title": "T", "status": "closed", "extra": true}));
    assert_eq!(value(&here, "k"), value(&there, "k"));
    let conflicts = here.conflicts(None, Which::Open, None).unwrap();
    assert_eq!(conflicts.len(), 1);
    let conflict = &conflicts[0].conflict;
    assert_eq!(conflict.path, "/status");
    assert_eq!(conflict.candidates.len(), 2);
    assert_eq!(conflict.base.as_ref().unwrap().json, json!("open"));
    let look =
        Look { as_of: None, policy: Some(Policy::of(Strategy::SourceWins(vec!["jira".into(), "app".into()]))) };
    assert_eq!(here.look("c", "k", &look).unwrap().unwrap().value["status"], "done");
    here.resolve(conflict.id, Settlement::TakeSource("jira".into()), Some(conflict.version), &app()).unwrap();
    there.pull(&here).unwrap();
    assert_eq!(value(&there, "k")["status"], "done");
    assert_eq!(there.conflicts(None, Which::Open, None).unwrap(), []);
    assert_eq!(there.conflicts(None, Which::Resolved, None).unwrap().len(), 1);
    for ledger in [&here, &there] {
        assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    }
}

struct Digest;

impl Digest {
    fn of(ledger: &Ledger) -> syncledger::ledger::Digest {
        ledger.digest().unwrap()
    }
}

#[test]
fn lists_texts_sets_and_counters_merge() {
    let (here, there) = (memory(), replica());
    let edits = vec![
        Edit::MakeList(path("/steps")),
        Edit::Insert(Place::Path(path("/steps")), 0, json!("a")),
        Edit::Insert(Place::Path(path("/steps")), 1, json!({"x": 1})),
        Edit::MakeText(path("/body")),
        Edit::SpliceText { place: Place::Path(path("/body")), index: 0, delete: 0, insert: "hello".into() },
        Edit::SetAdd(path("/labels"), json!("bug")),
        Edit::Increment(path("/votes"), 2),
    ];
    here.edit("c", "k", edits, &app()).unwrap();
    let shown = json!({"steps": ["a", {"x": 1}], "body": "hello", "labels": ["bug"], "votes": 2});
    assert_eq!(value(&here, "k"), shown);
    there.pull(&here).unwrap();
    let (steps, body) = (Place::Path(path("/steps")), Place::Path(path("/body")));
    here.edit(
        "c",
        "k",
        vec![
            Edit::Insert(steps.clone(), 2, json!("here")),
            Edit::SpliceText { place: body.clone(), index: 5, delete: 0, insert: " here".into() },
            Edit::SetAdd(path("/labels"), json!("here")),
            Edit::Increment(path("/votes"), 10),
        ],
        &app(),
    )
    .unwrap();
    there
        .edit(
            "c",
            "k",
            vec![
                Edit::RemoveAt(steps, 0),
                Edit::SpliceText { place: body, index: 0, delete: 1, insert: "J".into() },
                Edit::SetRemove(path("/labels"), json!("bug")),
                Edit::Increment(path("/votes"), -1),
            ],
            &app(),
        )
        .unwrap();
    here.pull(&there).unwrap();
    there.pull(&here).unwrap();
    let merged = json!({"steps": [{"x": 1}, "here"], "body": "Jello here", "labels": ["here"], "votes": 11});
    assert_eq!(value(&here, "k"), merged);
    assert_eq!(value(&there, "k"), merged);
    assert_eq!(here.conflicts(None, Which::All, None).unwrap(), []);
    // A whole put of such fields changes only what differs, and keeps what they are.
    let put = json!({"steps": [{"x": 1}, "mid", "here"], "body": "Jello, here", "labels": ["new"], "votes": 11});
    here.put("c", "k", put.clone(), &app()).unwrap();
    assert_eq!(value(&here, "k"), put);
    let undone = here.undo(&app()).unwrap();
    assert_eq!(undone.skipped, []);
    assert_eq!(value(&here, "k"), merged);
    assert_eq!(here.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_deletion_apart_from_an_edit_is_disputed_and_can_be_settled() {
    let (here, there) = (memory(), replica());
    here.put("c", "k", json!({"a": 1}), &app()).unwrap();
    there.pull(&here).unwrap();
    here.delete("c", "k", &app()).unwrap();
    there.patch("c", "k", json!({"a": 2}), &app()).unwrap();
    here.pull(&there).unwrap();
    let record = here.get("c", "k").unwrap().unwrap();
    assert!(!record.deleted, "edit_wins");
    let conflicts = here.conflicts(None, Which::Auto, None).unwrap();
    assert_eq!(conflicts[0].conflict.path, "/$deleted");
    here.resolve(conflicts[0].conflict.id, Settlement::TakeLocal, None, &app()).unwrap();
    assert!(here.get("c", "k").unwrap().unwrap().deleted);
    assert_eq!(here.patch("c", "k", json!({}), &app()).unwrap_err().kind(), ErrorKind::NotFound);
    here.put("c", "k", json!({"b": 1}), &app()).unwrap();
    assert_eq!(value(&here, "k"), json!({"b": 1}));
}

#[test]
fn a_batch_is_all_or_nothing_and_later_writes_see_earlier_ones() {
    let ledger = memory();
    let fault = ledger
        .batch(&app(), |batch| {
            batch.put("c", "a", json!({"n": 1})).patch("c", "missing", json!({"n": 1}));
        })
        .unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::NotFound);
    assert!(fault.message().contains("write 2"), "{fault}");
    assert_eq!(ledger.position(), 0);
    let receipt = ledger
        .batch(&app(), |batch| {
            batch
                .put("c", "a", json!({"n": 1}))
                .patch("c", "a", json!({"m": 2}))
                .edit("c", "a", vec![Edit::MakeText(path("/t"))])
                .edit(
                    "c",
                    "a",
                    vec![Edit::SpliceText {
                        place: Place::Path(path("/t")),
                        index: 0,
                        delete: 0,
                        insert: "x".into(),
                    }],
                )
                .put("d", "b", json!({}));
        })
        .unwrap();
    assert_eq!(receipt.events.len(), 5);
    assert_eq!(value(&ledger, "a"), json!({"n": 1, "m": 2, "t": "x"}));
    assert!(receipt.run.is_some());
    ledger.undo(&app()).unwrap();
    assert!(ledger.get("c", "a").unwrap().unwrap().deleted);
    assert!(ledger.get("d", "b").unwrap().unwrap().deleted);
    assert_eq!(ledger.undo(&app()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn an_idempotency_key_answers_twice_and_refuses_another_request() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let keyed = Context { idempotency_key: Some("r1".into()), ..app() };
    let first = ledger.put("c", "k", json!({"a": 1}), &keyed).unwrap();
    ledger.store().close().unwrap();
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    let second = ledger.put("c", "k", json!({"a": 1}), &keyed).unwrap();
    assert_eq!((second.outcome, &second.events), (Outcome::Duplicate, &first.events));
    let fault = ledger.put("c", "k", json!({"a": 2}), &keyed).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::IdempotencyMismatch);
    // Under a key even an edit that changes nothing is an event.
    let unchanged = Context { idempotency_key: Some("r2".into()), ..app() };
    assert_eq!(ledger.put("c", "k", json!({"a": 1}), &unchanged).unwrap().outcome, Outcome::Appended);
}

#[test]
fn imports_are_alike_on_two_replicas_and_never_undo_people() {
    let (here, there) = (memory(), replica());
    let version = |value: Value, at| Delivery { key: "k".into(), value, occurred_at: Some(at) };
    let jira = Context::from_source("jira");
    here.set_policy("other", &Policy::default(), &app()).unwrap();
    there.pull(&here).unwrap();
    for ledger in [&here, &there] {
        let done = ledger.import("c", vec![version(json!({"s": "open", "t": "x"}), 1_000)], &jira).unwrap();
        assert!(matches!(done[0], Delivered::Created(_)));
    }
    assert_eq!(here.digest().unwrap(), there.digest().unwrap());
    here.patch("c", "k", json!({"t": "people"}), &app()).unwrap();
    let again = here.import("c", vec![version(json!({"s": "open", "t": "x"}), 1_000)], &jira).unwrap();
    assert!(matches!(again[0], Delivered::Unchanged));
    let newer = here.import("c", vec![version(json!({"s": "done", "t": "x"}), 2_000)], &jira).unwrap();
    assert!(matches!(newer[0], Delivered::Updated(_)));
    assert_eq!(value(&here, "k"), json!({"s": "done", "t": "people"}));
    let old = here.import("c", vec![version(json!({"s": "open", "t": "x"}), 1_500)], &jira).unwrap();
    assert!(matches!(old[0], Delivered::Unchanged));
    assert_eq!(value(&here, "k"), json!({"s": "done", "t": "people"}));
}

#[test]
fn history_tells_before_and_after_and_blame_tells_who() {
    let ledger = memory();
    ledger.put("c", "k", json!({"a": 1, "b": 1}), &app().by("ann")).unwrap();
    ledger.patch("c", "k", json!({"a": 2}), &app().by("bob").because("why not")).unwrap();
    ledger.delete("c", "k", &app()).unwrap();
    let history = ledger.history("c", "k").unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(history[1].changes.len(), 1);
    assert_eq!(history[1].changes[0].before, Some(json!(1)));
    assert_eq!(history[1].changes[0].after, Some(json!(2)));
    assert_eq!((history[2].before.is_some(), history[2].after.is_some()), (true, false));
    let blame = ledger.blame("c", "k").unwrap();
    let who: Vec<_> = blame.iter().map(|line| (line.path.as_str(), line.principal.as_deref())).collect();
    assert_eq!(who, [("/a", Some("bob")), ("/b", Some("ann"))]);
    let look = |as_of| ledger.look("c", "k", &Look { as_of: Some(as_of), policy: None }).unwrap();
    assert_eq!(look(AsOf::Position(1)).unwrap().value, json!({"a": 1, "b": 1}));
    assert_eq!(look(AsOf::Event(history[1].entry.id)).unwrap().value, json!({"a": 2, "b": 1}));
    assert_eq!(look(AsOf::Time(0)), None);
    assert!(look(AsOf::Time(i64::MAX)).unwrap().deleted);
    let changes = ledger.diff("c", "k", AsOf::Position(1), AsOf::Position(2)).unwrap();
    assert_eq!(changes.len(), 1);
}

#[test]
fn reverting_one_event_leaves_what_changed_since() {
    let ledger = memory();
    ledger.put("c", "k", json!({"a": 1, "b": 1, "c": {"d": 1}}), &app()).unwrap();
    let bad = ledger.put("c", "k", json!({"a": 2, "b": 2, "c": 7}), &app()).unwrap();
    ledger.patch("c", "k", json!({"b": 3}), &app()).unwrap();
    let receipt = ledger.revert(&Target::Event(bad.events[0].0), &app()).unwrap();
    assert_eq!(value(&ledger, "k"), json!({"a": 1, "b": 3, "c": {"d": 1}}));
    assert_eq!(receipt.skipped.len(), 1);
    assert_eq!(receipt.skipped[0].path, "/b");
}

#[test]
fn a_large_value_is_a_blob_and_the_same_json_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let text = "é".repeat(40_000);
    let record = json!({"text": text, "array": vec!["x".repeat(100); 400], "small": 1});
    ledger.put("c", "k", record.clone(), &app()).unwrap();
    assert_eq!(value(&ledger, "k"), record);
    assert_eq!(ledger.put("c", "k", record.clone(), &app()).unwrap().outcome, Outcome::Unchanged);
    let there = replica();
    there.pull(&ledger).unwrap();
    assert_eq!(value(&there, "k"), record);
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn lists_are_sorted_filtered_and_paged() {
    let ledger = memory();
    for n in 0..30 {
        ledger.put("c", &format!("k{n:02}"), json!({"n": n, "odd": n % 2 == 1}), &app()).unwrap();
    }
    ledger.delete("c", "k05", &app()).unwrap();
    let odd = Query { fields: vec![(path("/odd"), json!(true))], ..Query::default() };
    assert_eq!(ledger.list("c", &odd).unwrap().len(), 14);
    let page = Query { after: Some("k03".into()), limit: Some(3), ..Query::default() };
    let keys: Vec<_> = ledger.list("c", &page).unwrap().into_iter().map(|record| record.key).collect();
    assert_eq!(keys, ["k04", "k06", "k07"]);
    let prefix = Query { prefix: "k1".into(), deleted: true, ..Query::default() };
    assert_eq!(ledger.list("c", &prefix).unwrap().len(), 10);
    let since = Query { changed_since: Some(28), ..Query::default() };
    assert_eq!(ledger.list("c", &since).unwrap().len(), 2);
    assert_eq!(ledger.collections().unwrap()[0].records, 30);
}

#[test]
fn a_policy_decides_at_once_and_travels() {
    let (here, there) = (memory(), replica());
    here.put("c", "k", json!({"s": 0}), &app()).unwrap();
    there.pull(&here).unwrap();
    here.patch("c", "k", json!({"s": 1}), &app()).unwrap();
    there.patch("c", "k", json!({"s": 2}), &Context::from_source("jira")).unwrap();
    here.pull(&there).unwrap();
    here.set_policy("c", &Policy::of(Strategy::Manual), &app()).unwrap();
    assert_eq!(value(&here, "k"), json!({"s": 0}));
    there.pull(&here).unwrap();
    assert_eq!(value(&there, "k"), json!({"s": 0}));
    let first = Policy::of(Strategy::SourceWins(vec!["app".into()]));
    here.set_policy("c", &first, &app()).unwrap();
    assert_eq!(value(&here, "k"), json!({"s": 1}));
    assert_eq!(here.conflicts(None, Which::Open, None).unwrap(), []);
}

#[test]
fn a_subscription_replays_and_follows() {
    let ledger = memory();
    ledger.put("c", "a", json!({}), &app()).unwrap();
    let mut subscription = ledger.subscribe(0);
    assert_eq!(subscription.next().unwrap().unwrap().position, 1);
    let writer = ledger.clone();
    let thread = std::thread::spawn(move || writer.put("c", "b", json!({}), &app()).unwrap());
    assert_eq!(subscription.next().unwrap().unwrap().event.key, "b");
    thread.join().unwrap();
    ledger.store().close().unwrap();
    assert!(subscription.next().is_none());
}

#[test]
fn rebuilding_and_deleting_rows_change_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let answers = |ledger: &Ledger| {
        let list = ledger.list("c", &Query { deleted: true, ..Query::default() }).unwrap();
        (
            list,
            ledger.digest().unwrap(),
            ledger.conflicts(None, Which::All, None).unwrap(),
            ledger.collections().unwrap(),
        )
    };
    let ledger = Ledger::open(dir.path()).unwrap();
    for n in 0..200 {
        ledger.put("c", &format!("k{}", n % 17), json!({"n": n}), &app()).unwrap();
    }
    let head = ledger.get("c", "k3").unwrap().unwrap().heads;
    ledger.patch("c", "k3", json!({"n": "x"}), &app()).unwrap();
    ledger.write(Write::new("c", "k3", Act::Patch(json!({"n": "y"}))).on(head), &app()).unwrap();
    let before = answers(&ledger);
    assert_eq!(ledger.rebuild().unwrap().events, 202);
    assert_eq!(answers(&ledger), before);
    ledger.store().close().unwrap();
    drop(ledger);
    std::fs::remove_dir_all(dir.path().join("rows")).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(answers(&ledger), before);
    let fresh = tempfile::tempdir().unwrap();
    ledger.rebuild_into(fresh.path(), None).unwrap();
    let copy = Ledger::open(fresh.path()).unwrap();
    assert_eq!(answers(&copy), before);
}

#[test]
fn many_threads_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..25 {
                    ledger.put("c", &format!("{thread}"), json!({"n": n}), &app()).unwrap();
                }
            });
        }
    });
    assert_eq!(ledger.position(), 200);
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Issue {
    title: String,
    status: String,
}

#[test]
fn a_collection_is_read_and_written_as_a_type_and_what_does_not_fit_is_told_without_its_value() {
    let ledger = memory();
    let issues = ledger.collection::<Issue>("issues");
    let issue = Issue { title: "Crash".into(), status: "open".into() };
    issues.put("EE-1", &issue, &app()).unwrap();
    assert_eq!(issues.get("EE-1").unwrap(), Some(issue.clone()));
    let receipt = issues.update("EE-1", &app(), |issue| issue.status = "done".into()).unwrap();
    assert_eq!(receipt.outcome, Outcome::Appended);
    assert_eq!(ledger.history("issues", "EE-1").unwrap()[1].changes.len(), 1, "only what differs is written");
    let done = Issue { status: "done".into(), ..issue };
    assert_eq!(issues.list(&Query::default()).unwrap(), [("EE-1".to_owned(), done)]);
    issues.delete("EE-1", &app()).unwrap();
    assert_eq!(issues.get("EE-1").unwrap(), None);
    assert_eq!(issues.update("EE-1", &app(), |_| {}).unwrap_err().kind(), ErrorKind::NotFound);
    ledger.put("issues", "EE-2", json!({"title": 7_654_321, "status": "open"}), &app()).unwrap();
    let fault = issues.get("EE-2").unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Mapping);
    assert!(!fault.to_string().contains("7654321"), "{fault}");
    assert_eq!(issues.clone().name(), "issues");
}

#[test]
fn an_edit_inside_an_object_that_was_replaced_apart_is_a_candidate_with_its_value() {
    let (here, there) = (memory(), replica());
    here.put("c", "k", json!({"status": {"id": 1, "name": "open"}}), &app()).unwrap();
    there.pull(&here).unwrap();
    there.patch("c", "k", json!({"status": {"name": "X"}}), &app().occurred(1)).unwrap();
    let jira = Context::from_source("jira").occurred(2);
    here.patch("c", "k", json!({"status": "plain"}), &jira).unwrap();
    here.pull(&there).unwrap();
    let open = here.conflicts(None, Which::Open, None).unwrap();
    let conflict = open.iter().map(|found| &found.conflict).find(|conflict| conflict.path == "/status").unwrap();
    let values: Vec<_> = conflict.candidates.iter().map(|candidate| candidate.value.clone().unwrap().json).collect();
    assert_eq!(values, [json!({"name": "X"}), json!("plain")]);
    here.resolve(conflict.id, Settlement::TakeSource("app".into()), None, &app()).unwrap();
    assert_eq!(value(&here, "k"), json!({"status": {"name": "X"}}));
}
