//! Conflicts that are settled, and changes that are taken back.

use serde_json::{Value, json};
use syncledger::event::{EventId, Op, Path};
use syncledger::ledger::{
    Act, Context, Delivered, Delivery, Edit, Ledger, Options, Outcome, Place, Planned, Receipt, Settlement, Store,
    Target, Which, Write,
};
use syncledger::projection::{Policy, Strategy};
use syncledger::{Error, ErrorKind};

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn at(text: &str) -> Place {
    Place::Path(path(text))
}

fn value(ledger: &Ledger) -> Value {
    ledger.get("c", "k").unwrap().unwrap().value
}

fn deleted(ledger: &Ledger) -> bool {
    ledger.get("c", "k").unwrap().unwrap().deleted
}

fn splice(place: Place, index: u64, delete: u64, insert: &str) -> Edit {
    Edit::SpliceText { place, index, delete, insert: insert.into() }
}

fn edit(ledger: &Ledger, edits: Vec<Edit>) -> EventId {
    ledger.edit("c", "k", edits, &app()).unwrap().events[0].0
}

fn revert(ledger: &Ledger, event: EventId) -> Receipt {
    ledger.revert(&Target::Event(event), &app()).unwrap()
}

/// A record of every kind of field.
fn rich() -> Ledger {
    let ledger = memory();
    let edits = vec![
        Edit::Put(path("/a"), json!(1)),
        Edit::Put(path("/o"), json!({"x": 1, "y": {"z": [1]}})),
        Edit::PutAtomic(path("/atom"), json!({"name": "n"})),
        Edit::SetAdd(path("/set"), json!("m")),
        Edit::MakeList(path("/list")),
        Edit::Insert(at("/list"), 0, json!("p")),
        Edit::Insert(at("/list"), 1, json!("q")),
        Edit::Insert(at("/list"), 2, json!("r")),
        Edit::MakeText(path("/text")),
        splice(at("/text"), 0, 0, "hello"),
        Edit::Increment(path("/n"), 3),
    ];
    edit(&ledger, edits);
    ledger
}

#[test]
fn taking_back_any_one_edit_restores_what_was_there() {
    let edits: Vec<Vec<Edit>> = vec![
        vec![Edit::Put(path("/a"), json!(2))],
        vec![Edit::Put(path("/a"), json!({"now": {"an": "object"}}))],
        vec![Edit::Put(path("/o"), json!(7))],
        vec![Edit::Put(path("/o"), json!({"other": 1}))],
        vec![Edit::Put(path("/o"), json!({}))],
        vec![Edit::Put(path(""), json!({"only": 1}))],
        vec![Edit::Remove(path("/o"))],
        vec![Edit::Remove(path("/o/y"))],
        vec![Edit::Put(path("/o/y/z/"), json!(1))].into_iter().filter(|_| false).collect(),
        vec![Edit::Put(path("/atom"), json!({"name": 1}))],
        vec![Edit::Put(path("/atom/name"), json!(1))],
        vec![Edit::SetAdd(path("/set"), json!("x")), Edit::SetRemove(path("/set"), json!("m"))],
        vec![Edit::Put(path("/set"), json!("no set"))],
        vec![Edit::Remove(path("/set"))],
        vec![Edit::SetAdd(path("/new"), json!(1))],
        vec![
            Edit::Insert(at("/list"), 1, json!("i")),
            Edit::RemoveAt(at("/list"), 0),
            Edit::RemoveAt(at("/list"), 2),
        ],
        vec![Edit::RemoveAt(at("/list"), 0), Edit::RemoveAt(at("/list"), 0), Edit::RemoveAt(at("/list"), 0)],
        vec![Edit::Put(path("/list"), json!([]))],
        vec![Edit::Remove(path("/list"))],
        vec![Edit::MakeList(path("/list2")), Edit::Insert(at("/list2"), 0, json!(1))],
        vec![splice(at("/text"), 1, 3, "i there, hi"), splice(at("/text"), 0, 1, "")],
        vec![splice(at("/text"), 0, 5, "")],
        vec![Edit::Put(path("/text"), json!("no text"))],
        vec![Edit::Increment(path("/n"), 4)],
        vec![Edit::Increment(path("/new"), 4)],
        vec![Edit::Increment(path("/a"), -4)],
        vec![Edit::Put(path("/n"), json!(50)), Edit::Increment(path("/n"), 4)],
        vec![Edit::Put(path("/n"), json!("text"))],
        vec![Edit::Remove(path("/n"))],
        vec![Edit::Delete],
        vec![Edit::Put(path("/a"), json!(5)), Edit::Delete],
    ];
    for edits in edits.into_iter().filter(|edits| !edits.is_empty()) {
        let ledger = rich();
        let before = value(&ledger);
        let event = edit(&ledger, edits.clone());
        let changed = (value(&ledger), deleted(&ledger));
        assert_ne!(changed, (before.clone(), false), "{edits:?}");
        let receipt = revert(&ledger, event);
        assert_eq!(receipt.skipped, [], "{edits:?}");
        assert_eq!((value(&ledger), deleted(&ledger)), (before.clone(), false), "{edits:?}");
        // Taking the taking back brings it again, and once more takes it back.
        let redone = revert(&ledger, receipt.events.last().unwrap().0);
        assert_eq!((value(&ledger), deleted(&ledger)), changed, "again {edits:?}");
        revert(&ledger, redone.events.last().unwrap().0);
        assert_eq!((value(&ledger), deleted(&ledger)), (before, false), "back again {edits:?}");
        assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn undoing_again_and_again_goes_back_to_nothing() {
    let ledger = rich();
    let mut values = vec![value(&ledger)];
    for edits in [
        vec![Edit::Put(path("/a"), json!(2)), Edit::Increment(path("/n"), 5)],
        vec![Edit::Put(path("/a"), json!(3)), Edit::Put(path("/o"), json!(1))],
        vec![Edit::Remove(path("/o")), Edit::SetAdd(path("/set"), json!(1))],
        vec![splice(at("/text"), 2, 1, "L"), Edit::Increment(path("/n"), 1)],
        vec![Edit::Insert(at("/list"), 0, json!("first"))],
    ] {
        edit(&ledger, edits);
        values.push(value(&ledger));
    }
    for before in values.iter().rev().skip(1) {
        let receipt = ledger.undo(&app()).unwrap();
        assert_eq!((receipt.outcome, receipt.skipped), (Outcome::Appended, vec![]));
        assert_eq!(value(&ledger), *before);
    }
    ledger.undo(&app()).unwrap();
    assert!(deleted(&ledger));
    assert_eq!(ledger.undo(&app()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_taken_back_is_not_taken_back_twice() {
    let ledger = rich();
    let before = value(&ledger);
    let event = edit(
        &ledger,
        vec![Edit::Increment(path("/n"), 5), Edit::RemoveAt(at("/list"), 0), splice(at("/text"), 0, 2, "HE")],
    );
    revert(&ledger, event);
    assert_eq!(value(&ledger), before);
    let again = revert(&ledger, event);
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert!(again.skipped[0].why.contains("taken back"), "{:?}", again.skipped);
    assert_eq!(value(&ledger), before);
}

#[test]
fn a_batch_and_a_run_are_taken_back_as_one() {
    let ledger = rich();
    let before = value(&ledger);
    let run = Context { run: Some(ledger.new_run().unwrap()), ..app() };
    let receipt = ledger
        .batch(&run, |batch| {
            batch
                .edit("c", "k", vec![Edit::Insert(at("/list"), 3, json!("end")), splice(at("/text"), 5, 0, " world")])
                .edit("c", "k", vec![Edit::Insert(at("/list"), 0, json!("start")), splice(at("/text"), 0, 1, "J")])
                .edit("c", "k", vec![Edit::RemoveAt(at("/list"), 4), Edit::Increment(path("/n"), 1)])
                .put("c", "other", json!({"x": 1}));
        })
        .unwrap();
    assert_eq!(value(&ledger)["list"], json!(["start", "p", "q", "r"]));
    ledger.edit("c", "k", vec![Edit::Increment(path("/n"), 1)], &run).unwrap();
    let reverted = ledger.revert(&Target::Run(receipt.run.unwrap()), &app()).unwrap();
    assert_eq!(reverted.skipped, []);
    assert_eq!(value(&ledger), before);
    assert!(ledger.get("c", "other").unwrap().unwrap().deleted);
    // Every event of it counts as taken back: the one before all that is next.
    ledger.undo(&app()).unwrap();
    assert!(deleted(&ledger));
}

#[test]
fn what_others_made_since_stays() {
    // What lies below an object that the event made.
    let ledger = memory();
    ledger.put("c", "k", json!({"keep": 1}), &app()).unwrap();
    let made = edit(&ledger, vec![Edit::Put(path("/o"), json!({})), Edit::SetAdd(path("/s"), json!(1))]);
    ledger.patch("c", "k", json!({"o": {"mine": 1}}), &app()).unwrap();
    edit(&ledger, vec![Edit::SetAdd(path("/s"), json!(2))]);
    let receipt = revert(&ledger, made);
    assert_eq!(value(&ledger), json!({"keep": 1, "o": {"mine": 1}, "s": [2]}));
    assert!(!receipt.skipped.is_empty());
    // What lies above a field that the event removed.
    let ledger = memory();
    ledger.put("c", "k", json!({"o": {"x": 1}}), &app()).unwrap();
    let removed = edit(&ledger, vec![Edit::Remove(path("/o/x"))]);
    ledger.patch("c", "k", json!({"o": 5}), &app()).unwrap();
    let receipt = revert(&ledger, removed);
    assert_eq!(value(&ledger), json!({"o": 5}));
    assert!(receipt.skipped.iter().any(|skipped| skipped.path == "/o/x"));
    // Counts that others added to a field that the event set.
    let ledger = memory();
    ledger.put("c", "k", json!({"n": 3}), &app()).unwrap();
    let set = edit(&ledger, vec![Edit::Put(path("/n"), json!(10))]);
    edit(&ledger, vec![Edit::Increment(path("/n"), 2)]);
    revert(&ledger, set);
    assert_eq!(value(&ledger), json!({"n": 5}));
    // An increment of a field that somebody removed since does not bring it back.
    let ledger = memory();
    ledger.put("c", "k", json!({"n": 3, "x": 1}), &app()).unwrap();
    let counted = edit(&ledger, vec![Edit::Increment(path("/n"), 2)]);
    ledger.patch("c", "k", json!({"n": null}), &app()).unwrap();
    revert(&ledger, counted);
    assert_eq!(value(&ledger), json!({"x": 1}));
}

#[test]
fn an_idempotency_key_answers_settling_and_taking_back_twice() {
    let keyed = |name: &str| Context { idempotency_key: Some(name.into()), ..app() };
    let ledger = disputed(json!(1), json!(2));
    let conflict = ledger.conflicts(None, Which::Open, None).unwrap().remove(0).conflict;
    let first = ledger.resolve(conflict.id, Settlement::Take(0), Some(conflict.version), &keyed("r")).unwrap();
    let second = ledger.resolve(conflict.id, Settlement::Take(0), Some(conflict.version), &keyed("r")).unwrap();
    assert_eq!((second.outcome, &second.events), (Outcome::Duplicate, &first.events));
    let fault = ledger.resolve(conflict.id, Settlement::Take(1), Some(conflict.version), &keyed("r")).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::IdempotencyMismatch);
    ledger.patch("c", "k", json!({"f": 9}), &app()).unwrap();
    let first = ledger.undo(&keyed("u")).unwrap();
    let second = ledger.undo(&keyed("u")).unwrap();
    assert_eq!((second.outcome, &second.events), (Outcome::Duplicate, &first.events));
}

/// Two replicas that set `/f` apart, merged.
fn disputed(here: Value, there: Value) -> Ledger {
    disputed_by(vec![Edit::Put(path("/f"), here)], vec![Edit::Put(path("/f"), there)])
}

fn disputed_by(here: Vec<Edit>, there: Vec<Edit>) -> Ledger {
    let ledger = memory();
    ledger.put("c", "k", json!({"f": 0, "other": true}), &app()).unwrap();
    let heads = ledger.get("c", "k").unwrap().unwrap().heads;
    let write = |edits| Write::new("c", "k", Act::Edit(edits)).on(heads.clone());
    ledger.write(write(here), &app()).unwrap();
    ledger.write(write(there), &Context::from_source("jira").by("ann").occurred(5)).unwrap();
    ledger
}

fn open(ledger: &Ledger) -> syncledger::projection::Conflict {
    let mut open = ledger.conflicts(None, Which::Open, None).unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    open.remove(0).conflict
}

#[test]
fn every_kind_of_candidate_can_be_taken() {
    let big = json!("b".repeat(20_000));
    let kinds: Vec<(Vec<Edit>, Value)> = vec![
        (vec![Edit::Put(path("/f"), json!("x"))], json!("x")),
        (vec![Edit::Put(path("/f"), json!(null))], json!(null)),
        (vec![Edit::Put(path("/f"), big.clone())], big),
        (vec![Edit::Put(path("/f"), json!([1, {"x": 2}]))], json!([1, {"x": 2}])),
        (vec![Edit::Put(path("/f"), json!({"a": {"b": 1}, "c": []}))], json!({"a": {"b": 1}, "c": []})),
        (vec![Edit::Put(path("/f"), json!({}))], json!({})),
        (vec![Edit::PutAtomic(path("/f"), json!({"a": {"b": 1}}))], json!({"a": {"b": 1}})),
        (
            vec![Edit::SetAdd(path("/f/s"), json!("m")), Edit::PutAtomic(path("/f/p"), json!({"q": 1}))],
            json!({"s": ["m"], "p": {"q": 1}}),
        ),
        (vec![Edit::MakeList(path("/f")), Edit::Insert(at("/f"), 0, json!({"x": 1}))], json!([{"x": 1}])),
        (vec![Edit::MakeText(path("/f")), splice(at("/f"), 0, 0, "text")], json!("text")),
        (vec![Edit::MakeSet(path("/f")), Edit::SetAdd(path("/f"), json!([1]))], json!([[1]])),
    ];
    for (edits, shown) in &kinds {
        let ledger = disputed_by(edits.clone(), vec![Edit::Put(path("/f"), json!("theirs"))]);
        let conflict = open(&ledger);
        let receipt =
            ledger.resolve(conflict.id, Settlement::TakeSource("app".into()), Some(conflict.version), &app());
        let receipt = receipt.unwrap();
        assert_eq!(value(&ledger)["f"], *shown, "{edits:?}");
        assert_eq!(ledger.conflicts(None, Which::Open, None).unwrap(), []);
        // What the field is stays what it was: lists take items, sets members.
        let kind = |edit: &Edit| match edit {
            Edit::MakeList(_) => Some(Edit::Insert(at("/f"), 0, json!(0))),
            Edit::MakeText(_) => Some(splice(at("/f"), 0, 0, "more ")),
            Edit::MakeSet(_) => Some(Edit::SetAdd(path("/f"), json!("more"))),
            Edit::SetAdd(at, _) => Some(Edit::SetAdd(at.clone(), json!("more"))),
            _ => None,
        };
        if let Some(more) = edits.first().and_then(kind) {
            let planned =
                ledger.dry_run().write_all(vec![Write::new("c", "k", Act::Edit(vec![more]))], &app()).unwrap();
            assert_eq!(planned[0].ops.len(), 1, "{edits:?}");
        }
        if edits.len() == 2 && shown.get("p").is_some() {
            let inside = Write::new("c", "k", Act::Edit(vec![Edit::Put(path("/f/p/q"), json!(2))]));
            assert_eq!(ledger.dry_run().write_all(vec![inside], &app()).unwrap()[0].ops[0].name(), "put_atomic");
        }
        // Taking the resolution back opens the conflict again, with the same candidates.
        ledger.revert(&Target::Event(receipt.events[0].0), &app()).unwrap();
        let again = ledger.conflicts(None, Which::Open, None).unwrap();
        let again = again.into_iter().map(|found| found.conflict).find(|again| again.id == conflict.id).unwrap();
        let told = |conflict: &syncledger::projection::Conflict| -> Vec<_> {
            let of = |c: &syncledger::projection::Candidate| {
                (c.source.clone(), c.principal.clone(), c.occurred_at, c.value.clone())
            };
            conflict.candidates.iter().map(of).collect()
        };
        let (mut before, mut after) = (told(&conflict), told(&again));
        before.sort_by_key(|c| format!("{c:?}"));
        after.sort_by_key(|c| format!("{c:?}"));
        assert_eq!(before, after, "{edits:?}");
        assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_conflict_is_settled_in_every_way() {
    let fault = |result: Result<Receipt, Error>| result.unwrap_err().kind();
    let ways: Vec<(Settlement, Value)> = vec![
        (Settlement::Take(0), json!({"f": 2, "other": true})),
        (Settlement::Take(1), json!({"f": 1, "other": true})),
        (Settlement::TakeSource("jira".into()), json!({"f": 2, "other": true})),
        (Settlement::TakeLocal, json!({"f": 1, "other": true})),
        (Settlement::Base, json!({"f": 0, "other": true})),
        (Settlement::Value(json!({"x": [1]})), json!({"f": {"x": [1]}, "other": true})),
        (Settlement::Value(json!("v".repeat(20_000))), json!({"f": "v".repeat(20_000), "other": true})),
    ];
    for (way, shown) in ways {
        let ledger = disputed(json!(1), json!(2));
        let conflict = open(&ledger);
        assert_eq!(fault(ledger.resolve(conflict.id, way.clone(), Some([0; 32]), &app())), ErrorKind::Conflict);
        ledger.resolve(conflict.id, way.clone(), None, &app().by("ann").because("so")).unwrap();
        assert_eq!(value(&ledger), shown, "{way:?}");
        assert_eq!(fault(ledger.resolve(conflict.id, way, None, &app())), ErrorKind::NotFound);
        let resolved = ledger.conflicts(Some("c"), Which::Resolved, None).unwrap();
        assert_eq!((resolved.len(), resolved[0].conflict.id), (1, conflict.id));
    }
    let ledger = disputed(json!(1), json!(2));
    let conflict = open(&ledger);
    assert_eq!(fault(ledger.resolve(conflict.id, Settlement::Take(9), None, &app())), ErrorKind::NotFound);
    assert_eq!(fault(ledger.resolve(conflict.id, Settlement::TakeRemote, None, &app())), ErrorKind::NotFound);
}

#[test]
fn a_disputed_deletion_is_settled_and_opened_again() {
    for keep in [true, false] {
        let ledger = disputed_by(vec![Edit::Delete], vec![Edit::Put(path("/f"), json!(2))]);
        ledger.set_policy("c", &Policy::from_json(&json!({"deletes": "manual"})).unwrap(), &app()).unwrap();
        let conflict = open(&ledger);
        assert_eq!(conflict.path, "/$deleted");
        let way = Settlement::TakeSource(if keep { "jira" } else { "app" }.into());
        let receipt = ledger.resolve(conflict.id, way, None, &app()).unwrap();
        assert_eq!(deleted(&ledger), !keep);
        assert_eq!(ledger.conflicts(None, Which::Open, None).unwrap(), []);
        ledger.revert(&Target::Event(receipt.events[0].0), &app()).unwrap();
        assert_eq!(open(&ledger).path, "/$deleted", "keep {keep}");
    }
}

#[test]
fn a_field_that_is_called_like_the_deletion_is_a_field() {
    let ledger = memory();
    ledger.put("c", "k", json!({"$deleted": 0}), &app()).unwrap();
    let heads = ledger.get("c", "k").unwrap().unwrap().heads;
    for n in [1, 2] {
        let write = Write::new("c", "k", Act::Patch(json!({"$deleted": n}))).on(heads.clone());
        ledger.write(write, &app()).unwrap();
    }
    let conflict = open(&ledger);
    ledger.resolve(conflict.id, Settlement::Value(json!(7)), None, &app()).unwrap();
    assert_eq!(value(&ledger), json!({"$deleted": 7}));
    assert!(!deleted(&ledger));
}

#[test]
fn a_strategy_decides_what_a_put_compares_with_and_settling_needs_no_open_conflict() {
    let ledger = disputed(json!(1), json!(2));
    ledger.set_policy("c", &Policy::of(Strategy::SourceWins(vec!["jira".into()])), &app()).unwrap();
    assert_eq!(value(&ledger)["f"], 2);
    assert_eq!(ledger.put("c", "k", json!({"f": 2, "other": true}), &app()).unwrap().outcome, Outcome::Unchanged);
    // A single edit of a disputed field is one, also where it shows that value.
    assert_eq!(
        ledger.edit("c", "k", vec![Edit::Put(path("/f"), json!(2))], &app()).unwrap().outcome,
        Outcome::Appended
    );
    assert_eq!(ledger.conflicts(None, Which::Auto, None).unwrap(), []);
}

#[test]
fn a_dry_run_says_what_would_be_appended_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.put("c", "k", json!({"a": 1, "o": {"x": 1}}), &app()).unwrap();
    let target = Target::Event(edit(&ledger, vec![Edit::Put(path("/a"), json!(2)), Edit::Remove(path("/o/x"))]));
    ledger.patch("c", "k", json!({"large": "x".repeat(20_000)}), &app()).unwrap();
    let other = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    other.pull(&ledger).unwrap();
    ledger.patch("c", "k", json!({"a": "here"}), &app()).unwrap();
    other.patch("c", "k", json!({"a": "there"}), &app()).unwrap();
    ledger.pull(&other).unwrap();
    ledger.patch("c", "k", json!({"last": 1}), &app()).unwrap();
    let conflict = ledger.conflicts(None, Which::Open, None).unwrap().remove(0).conflict;
    let before = told(&ledger);
    let dry = ledger.dry_run();
    let deliveries = |text: &str| -> Vec<Delivery> {
        let delivery = |key: &str, value| Delivery { key: key.into(), value, occurred_at: Some(1) };
        let large = json!({ "a": text.repeat(20_000) });
        vec![
            delivery("k", json!({})),
            delivery("new", large.clone()),
            delivery("new", large),
            delivery("", json!({})),
        ]
    };
    let settlement = || Settlement::Value(json!("z".repeat(30_000)));
    let write = Write::new("c", "k", Act::Patch(json!({"a": "y".repeat(20_000), "b": 1})));
    let written = dry.write_all(vec![write.clone()], &app()).unwrap();
    let imported = dry.import("c", deliveries("i"), &Context::from_source("jira")).unwrap();
    let resolved = dry.resolve(conflict.id, settlement(), None, &app()).unwrap();
    let undone = dry.undo(&app()).unwrap();
    let reverted = dry.revert(&target, &app()).unwrap();
    assert!(dry.resolve(conflict.id, settlement(), Some([0; 32]), &app()).is_err());
    assert!(dry.write_all(vec![Write::new("c", "none", Act::Patch(json!({})))], &app()).is_err());
    assert_eq!(told(&ledger), before);

    // Each answer is that of the real thing.
    let appended = |receipt: &Receipt| -> Vec<Planned> {
        let event = |id: &EventId| ledger.find_event(&id.to_string()).unwrap().event;
        let planned = |event: syncledger::event::Event| Planned {
            collection: event.collection.clone(),
            key: event.key.clone(),
            ops: event.ops().to_vec(),
        };
        receipt.events.iter().map(|(id, _)| planned(event(id))).collect()
    };
    let receipt = ledger.revert(&target, &app()).unwrap();
    assert_eq!((appended(&receipt), receipt.skipped), (reverted.planned, reverted.skipped));
    ledger.undo(&app()).unwrap();
    assert_eq!(appended(&ledger.resolve(conflict.id, settlement(), None, &app()).unwrap()), resolved);
    ledger.undo(&app()).unwrap();
    assert_eq!(appended(&ledger.write(write, &app()).unwrap()), written);
    let real = ledger.import("c", deliveries("i"), &Context::from_source("jira")).unwrap();
    let kinds: Vec<&str> = real.iter().map(kind).collect();
    assert_eq!(kinds, ["created", "created", "unchanged", "failed"]);
    assert_eq!(imported.iter().map(kind).collect::<Vec<_>>(), kinds);
    assert_eq!((undone.planned[0].ops.clone(), undone.skipped), (vec![Op::Remove { path: path("/last") }], vec![]));
}

fn kind(delivered: &Delivered) -> &'static str {
    match delivered {
        Delivered::Created(_) => "created",
        Delivered::Updated(_) => "updated",
        Delivered::Unchanged => "unchanged",
        Delivered::Failed(_) => "failed",
    }
}

/// What there is to see of a ledger.
fn told(ledger: &Ledger) -> (u64, Vec<syncledger::ledger::Record>, usize, u64) {
    let records = ledger.list("c", &Default::default()).unwrap();
    let status = ledger.status().unwrap();
    (ledger.position(), records, status.conflicts.len(), status.bytes.2)
}
