//! What callers ask becomes operations: every kind of field, edit and mixture of them.

use serde_json::{Value, json};
use syncledger::ErrorKind;
use syncledger::event::{Container, EventId, Op, Path};
use syncledger::ledger::{Act, Context, Edit, Ledger, Options, Outcome, Place, Store, Write};

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

/// A record that starts as `before` and on which `edits` are made at once.
fn edited(before: Value, edits: Vec<Edit>) -> Value {
    let ledger = memory();
    ledger.put("c", "k", before, &app()).unwrap();
    ledger.edit("c", "k", edits, &app()).unwrap();
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    value(&ledger)
}

fn splice(place: Place, index: u64, delete: u64, insert: &str) -> Edit {
    Edit::SpliceText { place, index, delete, insert: insert.into() }
}

#[test]
fn an_array_becomes_an_object_by_put_and_by_patch() {
    let long = vec!["x".repeat(100); 400];
    for before in [json!({"a": [1, 2]}), json!({"a": long}), json!({"a": "y".repeat(20_000)})] {
        for after in [json!({"a": {"x": 1}}), json!({"a": {"x": {"y": [2]}}})] {
            let ledger = memory();
            ledger.put("c", "k", before.clone(), &app()).unwrap();
            ledger.put("c", "k", after.clone(), &app()).unwrap();
            assert_eq!(value(&ledger), after);
            let ledger = memory();
            ledger.put("c", "k", before.clone(), &app()).unwrap();
            ledger.patch("c", "k", after.clone(), &app()).unwrap();
            assert_eq!(value(&ledger), after);
        }
    }
}

#[test]
fn an_object_replaced_as_a_whole_is_edited_inside() {
    let atomic = || Edit::PutAtomic(path("/s"), json!({"name": "open", "id": 1, "in": {"x": 1, "y": 2}}));
    let made = |edits: Vec<Edit>| edited(json!({"t": 1}), std::iter::once(atomic()).chain(edits).collect());
    // In the same draft.
    assert_eq!(
        made(vec![Edit::Put(path("/s/name"), json!("done"))])["s"],
        json!({"name": "done", "id": 1, "in": {"x": 1, "y": 2}})
    );
    assert_eq!(
        made(vec![Edit::Put(path("/s"), json!(5)), Edit::Put(path("/s/name"), json!("n"))])["s"],
        json!({"name": "n"})
    );
    // In a later one: a field, an object, a removal, and one after the other.
    let later = |edits: Vec<Edit>| {
        let ledger = memory();
        ledger.edit("c", "k", vec![atomic()], &app()).unwrap();
        ledger.edit("c", "k", edits, &app()).unwrap();
        value(&ledger)["s"].clone()
    };
    assert_eq!(
        later(vec![Edit::Put(path("/s/in"), json!({"z": 3}))]),
        json!({"name": "open", "id": 1, "in": {"z": 3}})
    );
    assert_eq!(
        later(vec![Edit::Remove(path("/s/in/x")), Edit::Remove(path("/s/id")), Edit::Put(path("/s/a"), json!([1]))]),
        json!({"name": "open", "in": {"y": 2}, "a": [1]})
    );
    assert_eq!(
        later(vec![
            Edit::Put(path("/s/id"), json!(2)),
            Edit::Put(path("/s"), json!({"q": 1})),
            Edit::Put(path("/s/r"), json!(2))
        ]),
        json!({"q": 1, "r": 2})
    );
    // It stays one value: edits apart are a conflict of the whole, not a merge.
    let ledger = memory();
    ledger.edit("c", "k", vec![atomic()], &app()).unwrap();
    let planned = ledger
        .dry_run()
        .write_all(vec![Write::new("c", "k", Act::Put(json!({"s": {"name": "open", "id": 2}})))], &app());
    assert_eq!(planned.unwrap()[0].ops[0].name(), "put_atomic");
    // Counters, sets, lists and texts cannot be inside it.
    for edit in [
        Edit::Increment(path("/s/id"), 1),
        Edit::MakeSet(path("/s/x")),
        Edit::SetAdd(path("/s/x"), json!(1)),
        Edit::MakeList(path("/s/x")),
        Edit::MakeText(path("/s/x")),
    ] {
        let fault = ledger.edit("c", "k", vec![edit], &app()).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Validation, "{fault}");
    }
}

#[test]
fn edits_below_an_item_or_a_character_are_refused() {
    let ledger = memory();
    ledger.put("c", "k", json!({"a": [1, 2], "n": 3}), &app()).unwrap();
    let list = vec![Edit::MakeList(path("/l")), Edit::Insert(at("/l"), 0, json!(1))];
    ledger.edit("c", "k", list, &app()).unwrap();
    let before = value(&ledger);
    for at in ["/a/0", "/l/0", "/a/7", "/l/0/x"] {
        for edit in [Edit::Put(path(at), json!(9)), Edit::Remove(path(at)), Edit::Increment(path(at), 1)] {
            let fault = ledger.edit("c", "k", vec![edit], &app()).unwrap_err();
            assert_eq!((fault.kind(), fault.pointers()), (ErrorKind::Validation, &[at.to_owned()][..]), "{fault}");
        }
    }
    assert_eq!(value(&ledger), before);
}

#[test]
fn an_edit_that_changes_nothing_makes_no_event() {
    let ledger = memory();
    let made = vec![
        Edit::Put(path("/o"), json!({"x": 1, "deep": {"y": [1, 2]}})),
        Edit::MakeList(path("/l")),
        Edit::MakeText(path("/t")),
        Edit::SetAdd(path("/s"), json!("m")),
        Edit::Put(path("/n"), json!(1)),
    ];
    ledger.edit("c", "k", made, &app()).unwrap();
    let nothing = vec![
        Edit::Put(path("/o"), json!({"deep": {"y": [1.0, 2]}, "x": 1})),
        Edit::Put(path("/o/deep"), json!({"y": [1, 2]})),
        Edit::Remove(path("/missing")),
        Edit::Remove(path("/o/missing")),
        Edit::SetAdd(path("/s"), json!("m")),
        Edit::SetRemove(path("/s"), json!("other")),
        Edit::Increment(path("/n"), 0),
        Edit::MakeList(path("/l")),
        Edit::MakeText(path("/t")),
        Edit::RemoveAt(at("/l"), 0),
        Edit::RemoveAt(at("/l"), 7),
        splice(at("/t"), 3, 9, ""),
        Edit::Restore,
    ];
    for edit in nothing {
        let receipt = ledger.edit("c", "k", vec![edit.clone()], &app()).unwrap();
        assert_eq!(receipt.outcome, Outcome::Unchanged, "{edit:?}");
    }
}

#[test]
fn later_edits_of_a_draft_see_the_earlier_ones() {
    let set = vec![Edit::SetAdd(path("/s"), json!(1)), Edit::SetRemove(path("/s"), json!(1))];
    assert_eq!(edited(json!({"a": 1}), set), json!({"a": 1, "s": []}));
    let ledger = memory();
    ledger
        .edit("c", "k", vec![Edit::SetAdd(path("/s"), json!("m")), Edit::Put(path("/n"), json!(10))], &app())
        .unwrap();
    let edits = vec![
        Edit::SetAdd(path("/s"), json!("x")),
        Edit::SetRemove(path("/s"), json!("x")),
        Edit::SetRemove(path("/s"), json!("m")),
        Edit::SetAdd(path("/s"), json!("m")),
        Edit::Increment(path("/n"), 5),
        Edit::Put(path("/n"), json!(10)),
    ];
    ledger.edit("c", "k", edits, &app()).unwrap();
    assert_eq!(value(&ledger), json!({"s": ["m"], "n": 10}));
    // Deleting and bringing back.
    ledger.edit("c", "k", vec![Edit::Delete, Edit::Restore], &app()).unwrap();
    assert!(!ledger.get("c", "k").unwrap().unwrap().deleted);
    ledger.edit("c", "k", vec![Edit::Delete], &app()).unwrap();
    ledger.edit("c", "k", vec![Edit::Restore, Edit::Delete], &app()).unwrap();
    assert!(ledger.get("c", "k").unwrap().unwrap().deleted);
    // Lists and texts that an edit replaced are gone for the next one.
    let edits = vec![
        Edit::MakeText(path("/o/t")),
        splice(at("/o/t"), 0, 0, "hello"),
        splice(at("/o/t"), 1, 3, "ipp"),
        Edit::MakeList(path("/l")),
        Edit::Insert(at("/l"), 0, json!("b")),
        Edit::Insert(at("/l"), 0, json!("a")),
        Edit::Insert(at("/l"), 9, json!("c")),
        Edit::RemoveAt(at("/l"), 1),
    ];
    assert_eq!(edited(json!({}), edits), json!({"o": {"t": "hippo"}, "l": ["a", "c"]}));
    let ledger = memory();
    let gone = vec![Edit::MakeText(path("/o/t")), Edit::Put(path("/o"), json!(5)), splice(at("/o/t"), 0, 0, "x")];
    assert_eq!(ledger.edit("c", "k", gone, &app()).unwrap_err().kind(), ErrorKind::Validation);
    ledger.edit("c", "k", vec![Edit::MakeList(path("/l"))], &app()).unwrap();
    let gone = vec![Edit::Put(path("/l"), json!(5)), Edit::Insert(at("/l"), 0, json!(1))];
    assert_eq!(ledger.edit("c", "k", gone, &app()).unwrap_err().kind(), ErrorKind::Validation);
    let gone = vec![Edit::Put(path("/l"), json!(5)), Edit::SetAdd(path("/l"), json!(1))];
    assert_eq!(ledger.edit("c", "k", gone, &app()).unwrap_err().kind(), ErrorKind::Validation);
}

#[test]
fn a_container_is_named_by_an_operation_that_made_one() {
    let ledger = memory();
    let receipt =
        ledger.edit("c", "k", vec![Edit::Put(path("/a"), json!(1)), Edit::MakeList(path("/l"))], &app()).unwrap();
    let id = receipt.events[0].0;
    let insert = |container| vec![Edit::Insert(Place::Container(container), 0, json!(1))];
    ledger.edit("c", "k", insert(Container::Of(id, 1)), &app()).unwrap();
    assert_eq!(value(&ledger), json!({"a": 1, "l": [1]}));
    for wrong in [Container::Of(id, 0), Container::Of(EventId([1; 32]), 1), Container::Own(0), Container::Own(7)] {
        let fault = ledger.edit("c", "k", insert(wrong), &app()).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Validation, "{wrong:?}");
    }
    let own = vec![Edit::MakeList(path("/m")), Edit::Insert(Place::Container(Container::Own(0)), 0, json!(2))];
    ledger.edit("c", "k", own, &app()).unwrap();
    assert_eq!(value(&ledger), json!({"a": 1, "l": [1], "m": [2]}));
}

#[test]
fn a_change_above_the_limits_of_an_event_is_a_batch() {
    let ledger = memory();
    // A list whose items spill over several events, made in the second of them, and a text of 100 KiB.
    let mut edits: Vec<Edit> =
        (0..4).map(|n| Edit::Put(path(&format!("/f{n}")), json!("v".repeat(16_000)))).collect();
    edits.push(Edit::MakeList(path("/l")));
    edits.extend((0..6_000).map(|n| Edit::Insert(at("/l"), n, json!(n))));
    edits.push(Edit::MakeText(path("/t")));
    edits.push(splice(at("/t"), 0, 0, &"é".repeat(50_000)));
    edits.push(splice(at("/t"), 1, 49_998, "-"));
    let receipt = ledger.edit("c", "k", edits, &app()).unwrap();
    assert!(receipt.events.len() >= 4, "{}", receipt.events.len());
    let shown = value(&ledger);
    assert_eq!(shown["t"], "é-é");
    assert_eq!(shown["l"].as_array().unwrap().len(), 6_000);
    assert_eq!(shown["l"][5_999], 5_999);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    // All of it is taken back at once.
    ledger.undo(&app()).unwrap();
    assert!(ledger.get("c", "k").unwrap().unwrap().deleted);
}

#[test]
fn more_heads_than_an_event_may_have_parents_are_merged_first() {
    let ledger = memory();
    ledger.put("c", "k", json!({"n": 0}), &app()).unwrap();
    let base = ledger.get("c", "k").unwrap().unwrap().heads;
    for n in 0..200 {
        let write = Write::new("c", "k", Act::Patch(json!({format!("f{n}"): n}))).on(base.clone());
        ledger.write(write, &app()).unwrap();
    }
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().heads.len(), 200);
    for (n, heads) in [(1, 1), (2, 1)] {
        ledger.patch("c", "k", json!({"n": n}), &app()).unwrap();
        assert_eq!(ledger.get("c", "k").unwrap().unwrap().heads.len(), heads);
    }
    assert_eq!(value(&ledger)["f77"], 77);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    let there = memory();
    there.pull(&ledger).unwrap();
    assert_eq!(there.digest().unwrap().digest, ledger.digest().unwrap().digest);
}

#[test]
fn writes_of_one_batch_on_older_heads_are_apart_from_each_other() {
    for _ in 0..8 {
        let ledger = memory();
        ledger.put("c", "k", json!({"a": 0}), &app()).unwrap();
        let heads = ledger.get("c", "k").unwrap().unwrap().heads;
        let write = |n: i32| Write::new("c", "k", Act::Patch(json!({"a": n})));
        let writes = vec![
            write(1).on(heads.clone()).expecting(heads.clone()),
            write(2).on(heads.clone()).expecting(heads.clone()),
            write(3).on(heads.clone()),
            // On all of them.
            Write::new("c", "k", Act::Patch(json!({"b": 1}))),
        ];
        ledger.write_all(writes, &app()).unwrap();
        let record = ledger.get("c", "k").unwrap().unwrap();
        assert_eq!((record.heads.len(), record.conflicts.len()), (1, 1));
        assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_put_over_lists_texts_and_sets_keeps_what_they_are() {
    let ledger = memory();
    let edits = vec![
        Edit::MakeList(path("/o/l")),
        Edit::MakeText(path("/o/t")),
        Edit::SetAdd(path("/o/s"), json!({"x": [1]})),
        Edit::Increment(path("/o/n"), 3),
    ];
    ledger.edit("c", "k", edits, &app()).unwrap();
    let big = "z".repeat(20_000);
    let put = json!({"o": {"l": [1, {"x": big}, big, null, []], "t": format!("{big}é"), "s": ["a", null, {"x": [1]}], "n": 4}});
    ledger.put("c", "k", put.clone(), &app()).unwrap();
    assert_eq!(value(&ledger), put);
    let planned = ledger.dry_run().write_all(
        vec![Write::new("c", "k", Act::Patch(json!({"o": {"l": [1], "t": "y", "s": ["b", "a"]}})))],
        &app(),
    );
    let names: Vec<&str> = planned.unwrap()[0].ops.iter().map(Op::name).collect();
    assert!(
        names.iter().all(|name| ["remove_at", "splice_text", "set_add", "set_remove"].contains(name)),
        "{names:?}"
    );
    // The same members in another order are the same set.
    let same = json!({"o": {"s": [{"x": [1]}, null, "a"]}});
    assert_eq!(ledger.patch("c", "k", same, &app()).unwrap().outcome, Outcome::Unchanged);
    // Something else in their place is something else.
    ledger.patch("c", "k", json!({"o": {"l": "text", "t": ["list"], "s": {"now": "object"}}}), &app()).unwrap();
    assert_eq!(value(&ledger), json!({"o": {"l": "text", "t": ["list"], "s": {"now": "object"}, "n": 4}}));
}
