//! Nothing is quadratic: what one more change of a record costs, counted in events derived, changes handed to Automerge
//! and frames of the log decoded, does not depend on how many changes it has.

use serde_json::{Value as Json, json};
use syncledger::event::Path;
use syncledger::ledger::{Act, AsOf, Context, Edit, Ledger, Look, Options, Place, Store, Work, Write};

const YOUNG: usize = 100;
const OLD: usize = 10_000;

fn app() -> Context {
    Context::default()
}

fn patch(key: &str, nth: usize) -> Write {
    Write::new("c", key, Act::Patch(json!({ "n": nth, "other": nth % 7 })))
}

/// Changes a record so often, with another record's changes between them.
fn change(ledger: &Ledger, changes: usize) {
    for key in ["k", "other"] {
        ledger.put("c", key, json!({ "n": -1, "other": 0, "title": "t" }), &app()).unwrap();
    }
    let writes: Vec<Write> = (1..changes).flat_map(|nth| [patch("k", nth), patch("other", nth)]).collect();
    for batch in writes.chunks(256) {
        ledger.write_all(batch.to_vec(), &app()).unwrap();
    }
}

/// What `does` costs.
fn cost(ledger: &Ledger, does: impl FnOnce(&Ledger)) -> Work {
    let before = ledger.store().work();
    does(ledger);
    let after = ledger.store().work();
    Work {
        derived: after.derived - before.derived,
        materialised: after.materialised - before.materialised,
        frames: after.frames - before.frames,
    }
}

/// To compare rows with their documents is work too.
fn unchecked() -> Options {
    Options { check_rows: false, ..Options::default() }
}

/// What each kind of access to a record with so many changes costs.
fn costs(changes: usize) -> Vec<(&'static str, Work)> {
    let ledger = Store::in_memory(unchecked()).unwrap().create_ledger("main").unwrap();
    change(&ledger, changes);
    let old = ledger.history("c", "other").unwrap()[changes / 2].entry.id;
    let many = |ledger: &Ledger| {
        ledger.write_all((0..64).map(|nth| patch("k", 3 * changes + nth)).collect(), &app()).map(drop).unwrap();
    };
    vec![
        ("a patch", cost(&ledger, |ledger| drop(ledger.write(patch("k", 2 * changes), &app()).unwrap()))),
        ("many patches of it in one batch", cost(&ledger, many)),
        ("a get", cost(&ledger, |ledger| drop(ledger.get("c", "k").unwrap()))),
        (
            "the first patch on an old state",
            cost(&ledger, |ledger| {
                ledger.write(patch("other", 2 * changes).on(vec![old]), &app()).map(drop).unwrap();
            }),
        ),
        (
            "the next patch on an old state",
            cost(&ledger, |ledger| {
                ledger.write(patch("other", 3 * changes).on(vec![old]), &app()).map(drop).unwrap();
            }),
        ),
        (
            "a patch after them",
            cost(&ledger, |ledger| {
                drop(ledger.write(patch("other", 4 * changes), &app()).unwrap());
            }),
        ),
    ]
}

#[test]
fn a_change_costs_the_same_on_a_record_with_a_hundred_changes_and_with_ten_thousand() {
    let (mut young, mut old) = (costs(YOUNG), costs(OLD));
    // The first that is made apart derives the record from its log, once.
    for (costs, changes) in [(&mut young, YOUNG), (&mut old, OLD)] {
        let first = costs.iter_mut().find(|(what, _)| what.starts_with("the first")).unwrap();
        let Work { derived, frames, .. } = std::mem::take(&mut first.1);
        assert!(derived <= changes as u64 + 1 && frames <= changes as u64, "{derived} {frames}");
    }
    assert_eq!(young, old);
    let of = |name: &str| old.iter().find(|(what, _)| *what == name).unwrap().1;
    for plain in ["a patch", "many patches of it in one batch", "a get"] {
        assert_eq!(of(plain), Work::default(), "{plain}");
    }
    assert_eq!(of("the next patch on an old state"), Work { derived: 1, materialised: 0, frames: 0 });
    assert_eq!(of("a patch after them").frames, 0);
}

/// What edits cost of which every tenth is made on the state before the last, of a record with so many changes: in all, and
/// how many bytes the writer holds at the end.
fn apart(changes: usize, policy: Json) -> (Work, u64) {
    let ledger = Store::in_memory(unchecked()).unwrap().create_ledger("main").unwrap();
    ledger.put("$collections", "c", json!({ "policy": { "default": policy } }), &app()).unwrap();
    change(&ledger, changes);
    let mut states = vec![ledger.history("c", "k").unwrap().last().unwrap().entry.id];
    let mut edit = |ledger: &Ledger, nth: usize| {
        let write = patch("k", changes + nth);
        let base = states.iter().rev().nth(1).copied().filter(|_| nth.is_multiple_of(10));
        let write = if let Some(base) = base { write.on(vec![base]) } else { write };
        states.push(ledger.write(write, &app()).unwrap().events[0].0);
    };
    // The first that is made apart derives the record from its log, once.
    (0..400).for_each(|nth| edit(&ledger, nth));
    let work = cost(&ledger, |ledger| (400..2_400).for_each(|nth| edit(ledger, nth)));
    assert!(ledger.verify().unwrap().problems.is_empty());
    (work, ledger.status().unwrap().cached.1)
}

#[test]
fn edits_apart_of_a_long_record_cost_and_hold_what_those_of_a_short_one_do() {
    let (young, old) = (apart(YOUNG, json!("merge")), apart(OLD, json!("merge")));
    assert_eq!(young, old);
    assert!(old.0.derived <= 2_000 && old.0.frames == 0 && old.0.materialised == 0, "{:?}", old.0);
    assert!(old.1 < 200_000, "{} bytes", old.1);
    // Who follows whole records holds all of their events, but does not derive them again.
    let by_record = apart(YOUNG, json!({ "strategy": "last_write_wins", "scope": "record" })).0;
    assert!(by_record.derived <= 2_000 && by_record.frames == 0, "{by_record:?}");
}

/// The writing of a list and a text, after so many changes of them.
fn text(nth: usize) -> Write {
    let at = |path: &str| Place::Path(Path::parse(path).unwrap());
    let (index, delete) = (nth as u64 % 50, nth as u64 % 3);
    let splice = Edit::SpliceText { place: at("/t"), index, delete, insert: "ab".into() };
    Write::new("c", "k", Act::Edit(vec![splice, Edit::Insert(at("/l"), index, json!(nth))]))
}

#[test]
fn a_change_inside_a_text_needs_no_document_but_the_first_that_is_made_apart() {
    let ledger = Store::in_memory(unchecked()).unwrap().create_ledger("main").unwrap();
    let made = ["/t", "/l"].map(|path| Path::parse(path).unwrap());
    let make = vec![Edit::MakeText(made[0].clone()), Edit::MakeList(made[1].clone())];
    let first = ledger.edit("c", "k", make, &app()).unwrap().events[0].0;
    let changes = 1_000;
    let made = cost(&ledger, |ledger| (1..changes).for_each(|nth| drop(ledger.write(text(nth), &app()).unwrap())));
    assert_eq!(made, Work::default());
    for (what, writes) in [
        ("an edit", vec![text(1_001)]),
        ("a patch", vec![Write::new("c", "k", Act::Patch(json!({ "t": "another text", "l": [1, 2] })))]),
        ("many edits in one batch", (1_100..1_164).map(text).collect()),
    ] {
        assert_eq!(
            cost(&ledger, |ledger| drop(ledger.write_all(writes, &app()).unwrap())),
            Work::default(),
            "{what}"
        );
    }
    let look = Look { as_of: Some(AsOf::Position(700)), policy: None };
    let read = cost(&ledger, |ledger| drop(ledger.look("c", "k", &look).unwrap()));
    assert!(read.derived == 0 && read.frames <= 1_066, "{read:?}");
    let read = cost(&ledger, |ledger| assert_eq!(ledger.history("c", "k").unwrap().len(), 1_066));
    assert_eq!((read.derived, read.materialised), (0, 0));
    // The first that is made apart derives the record from its log, once.
    let apart = cost(&ledger, |ledger| drop(ledger.write(text(1_200).on(vec![first]), &app()).unwrap()));
    assert!(apart.derived <= 1_067, "{apart:?}");
    let after = cost(&ledger, |ledger| drop(ledger.write(text(1_201), &app()).unwrap()));
    assert!(after.derived <= 1, "{after:?}");
}

#[test]
fn opening_derives_only_what_came_after_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    {
        let ledger = Store::open_with(dir.path(), unchecked()).unwrap().create_ledger("main").unwrap();
        change(&ledger, 500);
        ledger.store().checkpoint().unwrap();
        // A killed process writes no checkpoint: a copy of what it leaves is what the next one opens.
        ledger.write(patch("k", 501), &app()).unwrap();
        ledger.write(patch("k", 502), &app()).unwrap();
        copy(dir.path(), &dir.path().join("killed"));
    }
    let store = Store::open_with(dir.path().join("killed"), unchecked()).unwrap();
    let opened = store.ledger("main").unwrap();
    let work = opened.store().work();
    assert_eq!((work.derived, work.frames), (0, 2));
    assert_eq!(opened.get("c", "k").unwrap().unwrap().value["n"], 502);
}

/// Copies a directory and all that is in it.
pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() && path != *to {
            copy(&path, &to.join(name));
        } else if path.is_file() {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// What a batch writes of one record is planned on what the writes before it leave, which is taken back before anything
/// is staged.
#[test]
fn a_batch_may_write_a_record_often_on_older_heads_too() {
    let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let first = ledger.put("c", "k", json!({ "n": 0 }), &app()).unwrap().events[0].0;
    // The parents of each second write are the heads that two earlier writes of the batch leave.
    for round in 0..40 {
        let on_both = |nth: usize| patch("k", 1_000 * (round + 1) + nth);
        let writes = (0..6).map(|nth| if nth % 2 == 0 { on_both(nth).on(vec![first]) } else { on_both(nth) });
        assert_eq!(ledger.write_all(writes.collect(), &app()).unwrap().events.len(), 6);
    }
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    let before = (ledger.digest().unwrap(), ledger.get("c", "k").unwrap());
    let refused = vec![patch("k", 1), patch("k", 2).on(vec![syncledger::event::EventId([9; 32])])];
    ledger.write_all(refused, &app()).unwrap_err();
    assert_eq!((ledger.digest().unwrap(), ledger.get("c", "k").unwrap()), before);
    ledger.write(patch("k", 3), &app()).unwrap();
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}
