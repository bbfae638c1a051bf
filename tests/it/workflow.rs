//! The work-flow of conflicts: assigned, noted, settled all at once, opened again, counted.

use serde_json::{Value, json};
use syncledger::ErrorKind;
use syncledger::event::{ConflictId, EventId};
use syncledger::ledger::{
    Act, Annotation, AsOf, ConflictStep, Context, Happening, Ledger, Options, Outcome, Settlement, Store, Which,
    Write,
};
use syncledger::projection::{Policy, Strategy};

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn policy(strategy: &str) -> Policy {
    Policy::of(Strategy::parse(strategy).unwrap())
}

fn by(source: &str, principal: &str) -> Context {
    Context::from_source(source).by(principal)
}

/// Two replicas, on which two people edited `/status` and `/title` of three issues apart; the first has pulled.
fn disputed() -> (Ledger, Ledger) {
    let (here, there) = (memory(), memory());
    let context = by("app", "ann");
    for key in ["1", "2", "3"] {
        here.put("issues", key, json!({"status": "open", "title": "t", "points": 1}), &context).unwrap();
    }
    here.put("pages", "1", json!({"text": "a"}), &context).unwrap();
    there.pull(&here).unwrap();
    for key in ["1", "2", "3"] {
        here.patch("issues", key, json!({"status": "done", "title": "ours"}), &context).unwrap();
        there.patch("issues", key, json!({"status": "blocked", "title": "theirs"}), &by("jira", "bob")).unwrap();
    }
    here.patch("pages", "1", json!({"text": "b"}), &context).unwrap();
    there.patch("pages", "1", json!({"text": "c"}), &by("jira", "bob")).unwrap();
    here.pull(&there).unwrap();
    (here, there)
}

fn of(ledger: &Ledger, key: &str, path: &str) -> ConflictId {
    let all = ledger.conflicts(None, Which::All, None).unwrap();
    all.into_iter().find(|found| found.key == key && found.conflict.path == path).unwrap().conflict.id
}

fn names(steps: &[ConflictStep]) -> Vec<String> {
    let name = |step: &ConflictStep| {
        let event = &step.entry.event;
        format!("{} by {}", step.what.name(), event.principal.as_deref().unwrap_or(&event.source))
    };
    steps.iter().map(name).collect()
}

fn open(ledger: &Ledger) -> usize {
    ledger.conflicts(None, Which::Open, None).unwrap().len()
}

fn value(ledger: &Ledger, key: &str) -> Value {
    ledger.get("issues", key).unwrap().unwrap().value
}

#[test]
fn a_conflict_is_assigned_noted_settled_opened_again_and_tells_its_history() {
    let (here, there) = disputed();
    let id = of(&here, "1", "/status");
    let assign = Annotation { assignee: Some("kim".into()), note: None };
    here.annotate(id, &assign, &by("app", "ann")).unwrap();
    let note = Annotation { assignee: None, note: Some("ask bob".into()) };
    here.annotate(id, &note, &by("app", "kim")).unwrap();
    assert_eq!(here.annotate(id, &note, &by("app", "kim")).unwrap().outcome, Outcome::Unchanged);
    assert_eq!(
        here.annotation(id).unwrap(),
        Annotation { assignee: Some("kim".into()), note: Some("ask bob".into()) }
    );
    there.patch("issues", "1", json!({"status": "waiting"}), &by("jira", "bob")).unwrap();
    here.pull(&there).unwrap();
    here.resolve(id, Settlement::Take(0), None, &by("app", "kim").because("agreed")).unwrap();
    here.reopen(id, &by("app", "lea")).unwrap();
    here.resolve(id, Settlement::Value(json!("closed")), None, &by("app", "kim")).unwrap();
    let unassign = Annotation { assignee: Some(String::new()), note: Some(String::new()) };
    here.annotate(id, &unassign, &by("app", "ann")).unwrap();
    assert_eq!(here.annotation(id).unwrap(), Annotation::default());

    let steps = here.conflict_history(id).unwrap();
    assert_eq!(
        names(&steps),
        [
            "opened by bob",
            "assigned by ann",
            "noted by kim",
            "changed by bob",
            "resolved by kim",
            "reopened by lea",
            "resolved by kim",
            "assigned by ann",
            "noted by ann"
        ]
    );
    assert!(steps.windows(2).all(|pair| pair[0].entry.position <= pair[1].entry.position));
    assert_eq!(steps[1].what, Happening::Assigned(Some("kim".into())));
    assert_eq!(steps[7].what, Happening::Assigned(None));
    // What is said replicates like any other record.
    there.pull(&here).unwrap();
    assert_eq!(there.digest().unwrap().digest, here.digest().unwrap().digest);
    assert!(names(&there.conflict_history(id).unwrap()).contains(&"noted by kim".to_owned()));
}

#[test]
fn a_candidate_more_makes_a_conflict_grow_and_an_edit_on_all_ends_it() {
    let (here, there) = disputed();
    let third = memory();
    third.pull(&there).unwrap();
    // It saw only the record's beginning when it edited.
    let first = here.log(&Default::default()).unwrap()[0].id;
    let edit = syncledger::ledger::Act::Patch(json!({"status": "third"}));
    let write = syncledger::ledger::Write::new("issues", "1", edit).on(vec![first]);
    third.write(write, &by("app", "tom")).unwrap();
    let id = of(&here, "1", "/status");
    here.pull(&third).unwrap();
    assert_eq!(here.conflict_history(id).unwrap()[1].what, Happening::Grew(3));
    here.patch("issues", "1", json!({"status": "all seen"}), &by("app", "ann")).unwrap();
    assert_eq!(here.find_conflict(&id.to_string()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(here.annotate(id, &Annotation::default(), &by("app", "ann")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn all_open_conflicts_are_settled_as_one_batch_that_can_be_taken_back() {
    let (here, there) = disputed();
    assert_eq!(open(&here), 7);
    let strategy = Strategy::parse("source_wins:jira,app").unwrap();
    let would = here.dry_run().resolve_all(Some("issues"), &strategy, &by("app", "kim")).unwrap();
    assert_eq!((would.planned.len(), would.skipped.len(), open(&here)), (6, 0, 7));
    let receipt = here.resolve_all(Some("issues"), &strategy, &by("app", "kim").because("jira leads")).unwrap();
    assert_eq!((receipt.events.len(), open(&here)), (6, 1));
    for key in ["1", "2", "3"] {
        assert_eq!(value(&here, key), json!({"status": "blocked", "title": "theirs", "points": 1}));
        let entries = here.log(&Default::default()).unwrap();
        let batch: Vec<_> = entries.iter().rev().take(6).filter_map(|entry| entry.event.batch).collect();
        assert!(batch.len() == 6 && batch.iter().all(|member| member.id == batch[0].id && member.count == 6));
    }
    let resolved = here.conflicts(None, Which::Resolved, None).unwrap();
    assert!(resolved.len() == 6 && resolved.iter().all(|found| found.conflict.because.contains("kim")));
    let again = here.resolve_all(Some("issues"), &strategy, &by("app", "kim")).unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);
    there.pull(&here).unwrap();
    assert_eq!(open(&there), 1);
    here.undo(&by("app", "kim")).unwrap();
    assert_eq!(value(&here, "1"), json!({"status": "open", "title": "t", "points": 1}));
}

/// More than one batch holds, and the last record's two conflicts are settled in two of them.
#[test]
fn conflicts_beyond_one_batch_are_settled_at_once_too() {
    let ledger = memory();
    let (ann, bob) = (by("app", "ann"), by("jira", "bob"));
    let keys: Vec<String> = (0..2_049).map(|n| format!("{n:04}")).collect();
    let mut heads = Vec::new();
    for some in keys.chunks(1_024) {
        let put = |key: &String| Write::new("issues", key, Act::Put(json!({"status": "open", "title": "t"})));
        heads.extend(ledger.write_all(some.iter().map(put).collect(), &ann).unwrap().events);
    }
    for (who, status) in [(&ann, "done"), (&bob, "blocked")] {
        let patch = |(key, (head, _)): (&String, &(EventId, u64))| {
            let patch =
                if key == "0000" { json!({"status": status}) } else { json!({"status": status, "title": status}) };
            Write::new("issues", key, Act::Patch(patch)).on(vec![*head])
        };
        let writes: Vec<Write> = keys.iter().zip(&heads).map(patch).collect();
        writes.chunks(1_024).for_each(|some| drop(ledger.write_all(some.to_vec(), who).unwrap()));
    }
    assert_eq!(open(&ledger), 4_097);
    let receipt = ledger.resolve_all(None, &Strategy::parse("source_wins:app").unwrap(), &ann).unwrap();
    assert_eq!((receipt.events.len(), open(&ledger)), (4_097, 0));
    assert_eq!(value(&ledger, "2048"), json!({"status": "done", "title": "done"}));
}

#[test]
fn what_decides_nothing_settles_nothing() {
    let (here, _) = disputed();
    for strategy in [Strategy::Merge, Strategy::Manual] {
        assert_eq!(here.resolve_all(None, &strategy, &by("app", "kim")).unwrap_err().kind(), ErrorKind::Validation);
    }
    let receipt = here.resolve_all(None, &Strategy::Custom("unknown".into()), &by("app", "kim")).unwrap();
    assert_eq!((receipt.outcome, receipt.skipped.len(), open(&here)), (Outcome::Unchanged, 7, 7));
    let once = Context { idempotency_key: Some("settle".into()), ..by("app", "kim") };
    let strategy = Strategy::parse("last_write_wins").unwrap();
    let first = here.resolve_all(Some("pages"), &strategy, &once).unwrap();
    let second = here.resolve_all(Some("pages"), &strategy, &once).unwrap();
    assert_eq!((second.outcome, second.events), (Outcome::Duplicate, first.events));
    assert_eq!(here.resolve_all(None, &strategy, &once).unwrap_err().kind(), ErrorKind::IdempotencyMismatch);
}

#[test]
fn only_what_somebody_settled_is_opened_again() {
    let (here, _) = disputed();
    let (status, title) = (of(&here, "1", "/status"), of(&here, "1", "/title"));
    assert_eq!(here.reopen(status, &by("app", "kim")).unwrap_err().kind(), ErrorKind::Conflict);
    here.resolve(status, Settlement::Take(1), None, &by("app", "kim")).unwrap();
    here.resolve(title, Settlement::Base, None, &by("app", "kim")).unwrap();
    let before = here.position();
    assert!(!here.dry_run().reopen(title, &by("app", "kim")).unwrap().planned.is_empty());
    assert_eq!(here.position(), before);
    here.reopen(title, &by("app", "kim")).unwrap();
    assert_eq!(open(&here), 6);
    here.patch("issues", "1", json!({"status": "moved on"}), &by("app", "kim")).unwrap();
    let fault = here.reopen(status, &by("app", "kim")).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Conflict, "{fault}");
    here.set_policy("issues", &policy("last_write_wins"), &by("app", "kim")).unwrap();
    let auto = of(&here, "2", "/status");
    assert!(here.reopen(auto, &by("app", "kim")).unwrap_err().to_string().contains("by a rule"));
}

#[test]
fn conflicts_are_counted_by_collection_rule_and_age() {
    let (here, there) = disputed();
    let position = here.position();
    here.set_policy("pages", &policy("last_write_wins"), &by("app", "kim")).unwrap();
    here.resolve(of(&here, "1", "/title"), Settlement::Take(0), None, &by("app", "kim")).unwrap();
    let counts = here.conflict_counts(None).unwrap();
    let told: Vec<_> = counts
        .iter()
        .map(|count| (count.collection.as_str(), count.status, count.rule.as_deref(), count.count, count.ages[0]))
        .collect();
    assert_eq!(
        told,
        [
            ("issues", "resolved", None, 1, 1),
            ("issues", "open", None, 5, 5),
            ("pages", "auto", Some("last_write_wins"), 1, 1)
        ]
    );
    assert_eq!(here.conflict_counts(Some(AsOf::Position(position))).unwrap(), []);
    there.patch("issues", "2", json!({"status": "later"}), &by("jira", "bob")).unwrap();
    here.pull(&there).unwrap();
    let since = here.conflict_counts(Some(AsOf::Position(position))).unwrap();
    assert_eq!(since.iter().map(|count| count.count).collect::<Vec<_>>(), [1]);
    let now = since[0].oldest;
    assert_eq!(here.conflict_counts(Some(AsOf::Time(now + 60_000))).unwrap(), []);
    assert!(here.conflict_counts(Some(AsOf::Event(here.log(&Default::default()).unwrap()[0].id))).is_err());
}
