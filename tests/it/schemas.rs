//! Schemas and constraints through the library: what is refused here, what merges break, and that all replicas agree.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syncledger::event::{Body, Op, Path};
use syncledger::ledger::{
    Act, AsOf, Context, Delivered, Delivery, Edit, Ledger, Look, Options, Outcome, Place, Record, RecordConflict,
    Settlement, Store, Target, Which, Write,
};
use syncledger::projection::{ConflictKind, Policy, Severity};
use syncledger::schema::{Constraint, Violation};
use syncledger::{Error, ErrorKind};

use crate::histories::Rng;

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn sound(ledger: &Ledger) {
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

fn set(ledger: &Ledger, collection: &str, fields: Json) {
    ledger.set_schema(collection, &json!({ "type": "object", "properties": fields }), &app()).unwrap();
}

fn put(ledger: &Ledger, collection: &str, key: &str, value: Json) -> Result<Vec<Op>, Error> {
    let receipt = ledger.put(collection, key, value, &app())?;
    let ids: Vec<_> = receipt.events.iter().map(|(id, _)| *id).collect();
    let of = |id| ledger.entry(id).unwrap().unwrap().event.ops().to_vec();
    Ok(ids.into_iter().flat_map(of).collect())
}

fn get(ledger: &Ledger, collection: &str, key: &str) -> Record {
    ledger.get(collection, key).unwrap().unwrap()
}

/// What is broken: record, field, which constraint.
fn broken(ledger: &Ledger) -> Vec<(String, String, Constraint)> {
    let told = |found: Violation| (found.key, found.path, found.constraint);
    ledger.violations(None).unwrap().into_iter().map(told).collect()
}

fn conflicts(ledger: &Ledger) -> Vec<RecordConflict> {
    ledger.conflicts(None, Which::Open, None).unwrap()
}

fn refused(result: Result<Vec<Op>, Error>, pointers: &[&str]) -> Error {
    let fault = result.unwrap_err();
    assert_eq!((fault.kind(), fault.pointers()), (ErrorKind::Validation, pointers.map_text().as_slice()), "{fault}");
    fault
}

trait MapText {
    fn map_text(&self) -> Vec<String>;
}

impl MapText for &[&str] {
    fn map_text(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

// --- kinds -------------------------------------------------------------------------------------------------------------

fn kinds() -> Ledger {
    let ledger = memory();
    set(
        &ledger,
        "notes",
        json!({
            "text": { "type": ["string", "null"], "x-kind": "text" },
            "count": { "x-kind": "counter" },
            "tags": { "x-kind": "set" },
            "steps": { "x-kind": "list" },
            "status": { "x-kind": "atomic" },
            "deep": { "properties": { "text": { "x-kind": "text" } } },
        }),
    );
    ledger
}

fn names(ops: &[Op]) -> Vec<&'static str> {
    ops.iter().map(Op::name).collect()
}

#[test]
fn a_plain_put_drafts_what_the_kind_says() {
    let ledger = kinds();
    let first = json!({ "text": "one two", "count": 5, "tags": ["b", "a"], "steps": [1, 2], "status": { "id": 1 } });
    let ops = put(&ledger, "notes", "n", first).unwrap();
    let mut drafted = names(&ops);
    drafted.sort_unstable();
    let expected = [
        "insert",
        "insert",
        "make_list",
        "make_set",
        "make_text",
        "put",
        "put_atomic",
        "set_add",
        "set_add",
        "splice_text",
    ];
    assert_eq!(drafted, expected);
    assert_eq!(get(&ledger, "notes", "n").value["tags"], json!(["a", "b"]));
    let second =
        json!({ "text": "one 2 two", "count": 7, "tags": ["b", "c"], "steps": [1, 3, 2], "status": { "id": 2 } });
    let ops = put(&ledger, "notes", "n", second.clone()).unwrap();
    let mut drafted = names(&ops);
    drafted.sort_unstable();
    assert_eq!(drafted, ["increment", "insert", "put_atomic", "set_add", "set_remove", "splice_text"]);
    assert!(ops.contains(&Op::Increment { path: path("/count"), by: 2 }));
    assert_eq!(get(&ledger, "notes", "n").value, second);
    // The order of a set's members is no change, nor is what is there already.
    let same =
        json!({ "text": "one 2 two", "count": 7, "tags": ["c", "b"], "steps": [1, 3, 2], "status": { "id": 2 } });
    assert_eq!(ledger.put("notes", "n", same, &app()).unwrap().outcome, Outcome::Unchanged);
}

#[test]
fn a_patch_an_edit_and_an_import_draft_alike() {
    let ledger = kinds();
    put(&ledger, "notes", "n", json!({ "text": "ab", "count": 1, "status": { "id": 1, "name": "x" } })).unwrap();
    let patch =
        json!({ "text": "aXb", "count": 4, "status": { "name": "y" }, "tags": ["t"], "deep": { "text": "d" } });
    ledger.patch("notes", "n", patch, &app()).unwrap();
    let last = |ledger: &Ledger| ledger.log(&Default::default()).unwrap().pop().unwrap().event.ops().to_vec();
    let ops = last(&ledger);
    for name in ["splice_text", "increment", "put_atomic", "make_set", "set_add", "make_text"] {
        assert!(names(&ops).contains(&name), "{name} in {ops:?}");
    }
    assert_eq!(get(&ledger, "notes", "n").value["status"], json!({ "id": 1, "name": "y" }));
    let edits = vec![
        Edit::Put(path("/text"), json!("aXbc")),
        Edit::SpliceText { place: Place::Path(path("/text")), index: 0, delete: 1, insert: "A".into() },
    ];
    ledger.edit("notes", "n", edits, &app()).unwrap();
    assert!(names(&last(&ledger)).iter().all(|name| *name == "splice_text"), "{:?}", last(&ledger));
    ledger.edit("notes", "n", vec![Edit::Put(path("/deep"), json!({ "text": "e", "n": 1 }))], &app()).unwrap();
    assert!(names(&last(&ledger)).contains(&"make_text"));
    // A source's first delivery, and a later one.
    let delivery = |text: &str, at| Delivery {
        key: "i".into(),
        value: json!({ "text": text, "tags": ["x"] }),
        occurred_at: Some(at),
    };
    let jira = Context::from_source("jira");
    assert!(matches!(ledger.import("notes", vec![delivery("one", 1)], &jira).unwrap()[0], Delivered::Created(_)));
    assert!(names(&last(&ledger)).contains(&"make_text"));
    assert!(matches!(ledger.import("notes", vec![delivery("one!", 2)], &jira).unwrap()[0], Delivered::Updated(_)));
    assert_eq!(names(&last(&ledger)), ["splice_text"]);
    sound(&ledger);
}

#[test]
fn edits_made_apart_merge_by_kind() {
    let (office, laptop) = (kinds(), memory());
    let start = json!({ "text": "red green blue", "count": 10, "tags": ["a"], "steps": ["x"], "status": { "id": 1, "n": 1 } });
    put(&office, "notes", "n", start).unwrap();
    laptop.pull(&office).unwrap();
    let edit = |ledger: &Ledger, text: &str, count: i64, tags: Json, id: i64| {
        ledger.patch(
            "notes",
            "n",
            json!({ "text": text, "count": count, "tags": tags, "status": { "id": id } }),
            &app(),
        )
    };
    edit(&office, "RED green blue", 12, json!(["a", "b"]), 2).unwrap();
    edit(&laptop, "red green BLUE", 13, json!(["c"]), 3).unwrap();
    office.pull(&laptop).unwrap();
    let value = get(&office, "notes", "n").value;
    assert_eq!(value["text"], "RED green BLUE");
    assert_eq!(value["count"], 15);
    assert_eq!(value["tags"], json!(["b", "c"]));
    let open = conflicts(&office);
    assert_eq!(open.iter().map(|open| open.conflict.path.as_str()).collect::<Vec<_>>(), ["/status"]);
}

#[test]
fn a_field_is_not_made_what_its_kind_is_not() {
    let ledger = kinds();
    put(&ledger, "notes", "n", json!({ "text": "t" })).unwrap();
    for (edit, at) in [
        (Edit::MakeSet(path("/steps")), "/steps"),
        (Edit::MakeText(path("/tags")), "/tags"),
        (Edit::MakeList(path("/tags")), "/tags"),
        (Edit::Put(path("/text"), json!(1)), "/text"),
        (Edit::Put(path("/count"), json!("many")), "/count"),
        (Edit::PutAtomic(path("/tags"), json!({ "a": 1 })), "/tags"),
        (Edit::Put(path("/steps"), json!("x")), "/steps"),
    ] {
        let fault = ledger.edit("notes", "n", vec![edit.clone()], &app()).unwrap_err();
        assert_eq!((fault.kind(), fault.pointers()), (ErrorKind::Validation, [at.to_owned()].as_slice()), "{edit:?}");
    }
    assert_eq!(get(&ledger, "notes", "n").value, json!({ "text": "t" }));
    assert_eq!(put(&ledger, "notes", "n", json!({ "text": null })).unwrap().len(), 1);
}

// --- what is refused here ----------------------------------------------------------------------------------------------

#[test]
fn a_bad_local_change_is_refused_with_pointers_and_leaves_nothing() {
    let ledger = memory();
    let schema = json!({
        "type": "object",
        "required": ["title"],
        "additionalProperties": false,
        "properties": {
            "title": { "type": "string", "minLength": 1, "pattern": "^[A-Z]" },
            "points": { "type": "integer", "minimum": 0 },
            "start": { "type": "integer" },
            "due": { "type": "integer" },
            "o": { "properties": { "n": { "type": "string" } } },
        },
        "x-rules": [{ "rule": "due is not defined or start is not defined or due >= start", "message": "due before start" }],
    });
    ledger.set_schema("issues", &schema, &app()).unwrap();
    put(&ledger, "issues", "a", json!({ "title": "A", "points": 1 })).unwrap();
    let head = ledger.position();
    refused(put(&ledger, "issues", "b", json!({ "points": 1 })), &["/title"]);
    refused(put(&ledger, "issues", "b", json!({ "title": "b", "points": -1 })), &["/points", "/title"]);
    refused(put(&ledger, "issues", "b", json!({ "title": "B", "other": 1, "o": { "n": 2 } })), &["/o/n", "/other"]);
    let fault = refused(put(&ledger, "issues", "b", json!({ "title": "B", "start": 3, "due": 2 })), &[""]);
    assert!(fault.message().contains("due before start"), "{fault}");
    let removal = ledger.edit("issues", "a", vec![Edit::Remove(path("/title"))], &app()).unwrap_err();
    assert_eq!(removal.pointers(), ["/title"]);
    // No value of a record stands in an error.
    let fault = put(&ledger, "issues", "b", json!({ "title": "secret-value" })).unwrap_err();
    assert!(!fault.to_string().contains("secret"), "{fault}");
    // Of a batch nothing is made; a dry run says so too.
    let writes = vec![
        Write::new("issues", "c", Act::Put(json!({ "title": "C" }))),
        Write::new("issues", "d", Act::Put(json!({ "title": 1 }))),
    ];
    assert_eq!(ledger.dry_run().write_all(writes.clone(), &app()).unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(ledger.write_all(writes, &app()).unwrap_err().pointers(), ["/title"]);
    assert_eq!(ledger.position(), head);
    assert_eq!(ledger.get("issues", "c").unwrap(), None);
    // What is fine goes on being written, numbered without a gap.
    put(&ledger, "issues", "b", json!({ "title": "B" })).unwrap();
    assert_eq!(broken(&ledger), []);
    sound(&ledger);
}

#[test]
fn unique_fields_references_and_sums_are_held_over_records_and_batches() {
    let ledger = memory();
    set(&ledger, "people", json!({ "mail": { "x-unique": true }, "boss": { "x-references": "people" } }));
    let sum = json!({ "collection": "transactions", "field": "/amount", "via": "/account" });
    set(&ledger, "accounts", json!({ "balance": { "type": "number", "x-sum": sum } }));
    put(&ledger, "people", "ann", json!({ "mail": "a@x" })).unwrap();
    refused(put(&ledger, "people", "bob", json!({ "mail": "a@x" })), &["/mail"]);
    refused(put(&ledger, "people", "bob", json!({ "mail": "b@x", "boss": "eve" })), &["/boss"]);
    put(&ledger, "people", "bob", json!({ "mail": "b@x", "boss": "ann" })).unwrap();
    // Who is referred to cannot go.
    let fault = ledger.delete("people", "ann", &app()).unwrap_err();
    assert!(fault.message().contains("people/bob at /boss"), "{fault}");
    // The holder's edit frees the value.
    assert_eq!(ledger.holder("people", &path("/mail"), &json!("a@x")).unwrap().as_deref(), Some("ann"));
    put(&ledger, "people", "ann", json!({ "mail": "ann@x" })).unwrap();
    put(&ledger, "people", "bob", json!({ "mail": "a@x", "boss": "ann" })).unwrap();
    assert_eq!(ledger.holder("people", &path("/mail"), &json!("a@x")).unwrap().as_deref(), Some("bob"));
    // Two in one batch, each right by the other: who names each other, and a sum with what adds up to it.
    let both = ledger.batch(&app(), |batch| {
        batch.put("people", "c", json!({ "mail": "c", "boss": "d" })).put(
            "people",
            "d",
            json!({ "mail": "d", "boss": "c" }),
        );
    });
    assert_eq!(both.unwrap().events.len(), 2);
    put(&ledger, "accounts", "1", json!({ "balance": 0 })).unwrap();
    refused(put(&ledger, "transactions", "t", json!({ "account": "1", "amount": 0.1 })), &["/balance"]);
    let add = |key: &str, amount: Json, balance: Json| {
        ledger.batch(&app(), |batch| {
            batch.put("transactions", key, json!({ "account": "1", "amount": amount })).put(
                "accounts",
                "1",
                json!({ "balance": balance }),
            );
        })
    };
    add("t", json!(0.1), json!(0.1)).unwrap();
    add("u", json!(0.2), json!(0.3)).unwrap();
    assert!(add("v", json!(1), json!(1)).is_err());
    // Two of a batch with one value.
    let twice = ledger.batch(&app(), |batch| {
        batch.put("people", "e", json!({ "mail": "e" })).put("people", "f", json!({ "mail": "e" }));
    });
    assert_eq!(twice.unwrap_err().pointers(), ["/mail"]);
    assert_eq!(broken(&ledger), []);
    sound(&ledger);
}

#[test]
fn writers_at_once_cannot_both_take_a_unique_value() {
    let ledger = memory();
    set(&ledger, "people", json!({ "mail": { "x-unique": true } }));
    let taken: usize = std::thread::scope(|scope| {
        let writer = |name: usize| {
            let ledger = ledger.clone();
            scope.spawn(move || {
                let take =
                    |value: usize| ledger.put("people", &format!("{name}-{value}"), json!({ "mail": value }), &app());
                (0..40).filter(|value| take(*value).is_ok()).count()
            })
        };
        let writers: Vec<_> = (0..4).map(writer).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(taken, 40);
    assert_eq!(broken(&ledger), []);
    sound(&ledger);
}

#[test]
fn a_record_that_is_broken_already_can_be_edited_as_long_as_nothing_more_breaks() {
    let ledger = memory();
    put(&ledger, "issues", "a", json!({ "n": "x", "m": "y", "k": 1 })).unwrap();
    set(
        &ledger,
        "issues",
        json!({ "n": { "type": "integer" }, "m": { "type": "integer" }, "k": { "type": "integer" } }),
    );
    assert_eq!(broken(&ledger).len(), 2);
    ledger.patch("issues", "a", json!({ "n": 1 }), &app()).unwrap();
    refused(ledger.patch("issues", "a", json!({ "k": "z" }), &app()).map(|_| Vec::new()), &["/k"]);
    ledger.patch("issues", "a", json!({ "m": "still no number" }), &app()).unwrap();
    assert_eq!(broken(&ledger), [("a".to_owned(), "/m".to_owned(), Constraint::Schema)]);
}

#[test]
fn a_large_value_is_checked_too() {
    let ledger = memory();
    set(&ledger, "notes", json!({ "text": { "type": "string", "maxLength": 20_000 } }));
    put(&ledger, "notes", "a", json!({ "text": "x".repeat(19_000) })).unwrap();
    refused(put(&ledger, "notes", "a", json!({ "text": "x".repeat(21_000) })), &["/text"]);
}

#[test]
fn a_pattern_that_would_explode_elsewhere_comes_to_an_end() {
    let ledger = memory();
    set(&ledger, "notes", json!({ "text": { "type": "string", "pattern": "^(a+)+$" } }));
    // A backtracking engine would take longer than anybody waits.
    refused(put(&ledger, "notes", "a", json!({ "text": "a".repeat(10_000) + "!" })), &["/text"]);
}

#[test]
fn the_schema_of_a_collection_is_checked_wherever_it_is_written() {
    let ledger = memory();
    for schema in [json!(true), json!({ "type": "thing" }), json!({ "$ref": "https://example.org/s" })] {
        assert_eq!(ledger.set_schema("c", &schema, &app()).unwrap_err().kind(), ErrorKind::Validation, "{schema}");
        // As a plain record of the system collection too.
        assert!(ledger.put("$collections", "c", json!({ "schema": schema }), &app()).is_err(), "{schema}");
    }
    let huge = json!({ "description": "x".repeat(20_000) });
    assert_eq!(ledger.set_schema("c", &huge, &app()).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(ledger.set_schema("$runs", &json!({}), &app()).is_err());
    assert_eq!((ledger.schema("c").unwrap(), ledger.position()), (None, 0));
}

// --- what merges break -------------------------------------------------------------------------------------------------

fn people() -> (Ledger, Ledger) {
    let (office, laptop) = (memory(), memory());
    set(
        &office,
        "people",
        json!({ "mail": { "x-unique": true, "x-critical": true }, "boss": { "x-references": "people" }, "age": { "type": "integer" } }),
    );
    laptop.pull(&office).unwrap();
    (office, laptop)
}

#[test]
fn what_a_schema_of_before_knew_of_a_record_is_forgotten_when_that_changes() {
    let ledger = memory();
    let unique = json!({ "title": { "x-unique": true } });
    set(&ledger, "c", unique.clone());
    put(&ledger, "c", "r", json!({ "title": "a" })).unwrap();
    ledger.remove_schema("c", &app()).unwrap();
    ledger.patch("c", "r", json!({ "title": "b" }), &app()).unwrap();
    set(&ledger, "c", unique);
    refused(put(&ledger, "c", "s", json!({ "title": "b" })), &["/title"]);
    put(&ledger, "c", "s", json!({ "title": "a" })).unwrap();
    sound(&ledger);
}

/// Records that come before their schema, in one chunk with it, were plain until then.
#[test]
fn a_schema_that_is_pulled_with_its_records_counts_for_those_before_it_too() {
    let (here, there) = (memory(), memory());
    put(&here, "people", "a", json!({ "mail": "m", "boss": "nobody" })).unwrap();
    put(&here, "people", "b", json!({ "mail": "m" })).unwrap();
    set(
        &here,
        "people",
        json!({ "mail": { "x-unique": true, "x-critical": true }, "boss": { "x-references": "people" } }),
    );
    put(&here, "people", "c", json!({ "mail": "c" })).unwrap();
    there.pull(&here).unwrap();
    assert_eq!(broken(&there), broken(&here));
    assert_eq!((broken(&there).len(), conflicts(&there).len()), (2, conflicts(&here).len()));
    sound(&there);
}

#[test]
fn a_unique_value_that_two_took_apart_is_one_conflict_until_the_holder_frees_it() {
    let (office, laptop) = people();
    put(&office, "people", "ann", json!({ "mail": "x" })).unwrap();
    // Stamped later: the least stamp holds a value.
    std::thread::sleep(std::time::Duration::from_millis(5));
    put(&laptop, "people", "bob", json!({ "mail": "x" })).unwrap();
    office.pull(&laptop).unwrap();
    laptop.pull(&office).unwrap();
    let open = conflicts(&office);
    assert_eq!(open, conflicts(&laptop));
    let [open] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((open.key.as_str(), open.conflict.path.as_str()), ("bob", "/mail"));
    assert_eq!((open.conflict.kind, open.conflict.severity), (ConflictKind::Constraint, Severity::Critical));
    assert_eq!(open.conflict.candidates.len(), 2);
    for key in ["ann", "bob"] {
        assert_eq!(get(&office, "people", key).conflicts, [open.conflict.id]);
    }
    let counts = office.status().unwrap().conflicts;
    assert_eq!(counts, [("constraint".to_owned(), "critical".to_owned(), "open".to_owned(), 1)]);
    // It is no choice among candidates, and says so.
    let fault = office.resolve(open.conflict.id, Settlement::Take(0), None, &app()).unwrap_err();
    assert!(fault.kind() == ErrorKind::Validation && fault.message().contains("people/bob"), "{fault}");
    assert_eq!(laptop.holder("people", &path("/mail"), &json!("x")).unwrap().as_deref(), Some("ann"));
    ledger_frees(&laptop, &office);
    assert_eq!((conflicts(&office), conflicts(&laptop)), (vec![], vec![]));
    sound(&office);
}

fn ledger_frees(laptop: &Ledger, office: &Ledger) {
    laptop.patch("people", "ann", json!({ "mail": "y" }), &app()).unwrap();
    office.pull(laptop).unwrap();
    assert_eq!(office.holder("people", &path("/mail"), &json!("x")).unwrap().as_deref(), Some("bob"));
}

#[test]
fn a_merge_may_break_the_schema_a_reference_or_a_rule_and_never_refuses_an_event() {
    let (office, laptop) = people();
    put(&office, "people", "ann", json!({})).unwrap();
    laptop.pull(&office).unwrap();
    put(&laptop, "people", "bob", json!({ "boss": "ann" })).unwrap();
    office.delete("people", "ann", &app()).unwrap();
    assert_eq!(office.pull(&laptop).unwrap().applied, 1);
    laptop.pull(&office).unwrap();
    assert_eq!(broken(&office), [("bob".to_owned(), "/boss".to_owned(), Constraint::Reference)]);
    assert_eq!(broken(&office), broken(&laptop));
    // It is open while the target is gone.
    office.undelete("people", "ann", &app()).unwrap();
    assert_eq!(broken(&office), []);
    // Events of who knows of no schema are taken in too.
    let stranger = memory();
    stranger.pull(&office).unwrap();
    stranger.edit("$collections", "people", vec![Edit::Remove(path("/schema"))], &app()).unwrap();
    put(&stranger, "people", "eve", json!({ "age": "old" })).unwrap();
    let last = stranger.log(&Default::default()).unwrap().pop().unwrap();
    office.apply(office.info().id, &[last.event.encode().unwrap()]).unwrap();
    assert_eq!(broken(&office), [("eve".to_owned(), "/age".to_owned(), Constraint::Schema)]);
    assert_eq!(conflicts(&office)[0].conflict.severity, Severity::Medium);
    sound(&office);
}

#[test]
fn a_schema_that_another_replica_wrote_and_that_is_none_is_a_violation_itself() {
    let (office, _) = people();
    put(&office, "people", "ann", json!({ "age": 1 })).unwrap();
    let known = office.log(&Default::default()).unwrap().remove(0);
    let mut event = known.event.clone();
    event.parents = vec![known.id];
    (event.sequence, event.nth, event.at.millis) = (event.sequence + 100, event.nth + 1, event.at.millis + 1);
    event.body = Body::Ops(vec![Op::PutAtomic { path: path("/schema"), json: "{\"type\":\"thing\"}".into() }]);
    office.apply(office.info().id, &[event.encode().unwrap()]).unwrap();
    assert_eq!(office.schema("people").unwrap(), None);
    assert_eq!(broken(&office), [("people".to_owned(), "/schema".to_owned(), Constraint::Schema)]);
    assert_eq!(conflicts(&office)[0].collection, "$collections");
    // It binds nobody, and a good one mends it.
    put(&office, "people", "ann", json!({ "age": "old" })).unwrap();
    set(&office, "people", json!({ "age": { "type": "string" } }));
    assert_eq!(broken(&office), []);
    sound(&office);
}

#[test]
fn a_change_on_an_older_state_is_held_to_what_its_writer_saw() {
    let ledger = memory();
    let schema = json!({ "x-rules": [{ "rule": "a + b <= 10", "message": "too much" }] });
    let first = ledger.put("c", "k", json!({ "a": 1, "b": 1 }), &app()).unwrap().events[0].0;
    ledger.set_schema("c", &schema, &app()).unwrap();
    ledger.patch("c", "k", json!({ "a": 9 }), &app()).unwrap();
    let on_first = |patch: Json| ledger.write(Write::new("c", "k", Act::Patch(patch)).on(vec![first]), &app());
    // Fine as its writer saw the record; with what came since it is too much.
    on_first(json!({ "b": 8 })).unwrap();
    assert_eq!(broken(&ledger), [("k".to_owned(), String::new(), Constraint::Rule)]);
    assert!(on_first(json!({ "b": 10 })).unwrap_err().message().contains("too much"));
    ledger.patch("c", "k", json!({ "a": 2 }), &app()).unwrap();
    assert_eq!(broken(&ledger), []);
    sound(&ledger);
}

#[test]
fn a_conflict_of_a_critical_field_is_critical_under_every_way_of_looking() {
    let (office, laptop) = people();
    put(&office, "people", "ann", json!({ "mail": "a", "age": 1 })).unwrap();
    laptop.pull(&office).unwrap();
    office.patch("people", "ann", json!({ "mail": "b", "age": 2 }), &app()).unwrap();
    laptop.patch("people", "ann", json!({ "mail": "c", "age": 3 }), &app()).unwrap();
    office.pull(&laptop).unwrap();
    let rated = |policy: Option<&Policy>| {
        let found = office.conflicts(None, Which::All, policy).unwrap();
        found.into_iter().map(|found| (found.conflict.path, found.conflict.severity)).collect::<BTreeMap<_, _>>()
    };
    let expected = BTreeMap::from([("/age".to_owned(), Severity::Medium), ("/mail".to_owned(), Severity::Critical)]);
    assert_eq!(rated(None), expected);
    assert_eq!(rated(Some(&Policy::default())), expected);
    set(&office, "people", json!({ "age": { "x-critical": true } }));
    assert_eq!(rated(None)["/age"], Severity::Critical);
    assert_eq!(rated(None)["/mail"], Severity::Medium);
}

#[test]
fn a_delivery_may_name_what_its_source_has_not_delivered_yet() {
    let ledger = memory();
    set(&ledger, "issues", json!({ "parent": { "x-references": "issues" }, "n": { "type": "integer" } }));
    let delivery = |key: &str, value: Json| Delivery { key: key.into(), value, occurred_at: Some(5) };
    let done = ledger
        .import(
            "issues",
            vec![
                delivery("child", json!({ "parent": "top" })),
                delivery("bad", json!({ "n": "x" })),
                delivery("top", json!({})),
            ],
            &Context::from_source("jira"),
        )
        .unwrap();
    assert!(matches!(&done[..], [Delivered::Created(_), Delivered::Failed(_), Delivered::Created(_)]), "{done:?}");
    assert_eq!(broken(&ledger), []);
    assert_eq!(ledger.get("issues", "bad").unwrap(), None);
}

// --- schemas over time -------------------------------------------------------------------------------------------------

#[test]
fn setting_a_schema_says_before_what_it_would_break_and_shows_it_after() {
    let ledger = memory();
    for key in ["a", "b", "c"] {
        put(&ledger, "c", key, json!({ "n": 1, "to": "a" })).unwrap();
    }
    let schema =
        json!({ "required": ["m"], "properties": { "n": { "x-unique": true }, "to": { "x-references": "d" } } });
    let head = ledger.position();
    let would = ledger.try_schema("c", &schema, &app()).unwrap();
    assert_eq!((ledger.position(), broken(&ledger).len(), ledger.schema("c").unwrap()), (head, 0, None));
    ledger.set_schema("c", &schema, &app()).unwrap();
    assert_eq!(ledger.violations(None).unwrap(), would);
    assert_eq!(would.iter().filter(|found| found.constraint == Constraint::Unique).count(), 2);
    assert_eq!(would.iter().filter(|found| found.constraint == Constraint::Reference).count(), 3);
    assert_eq!(would.iter().filter(|found| found.constraint == Constraint::Schema).count(), 3);
    // A schema is an event: it has a history, and can be taken back.
    assert_eq!(ledger.history("$collections", "c").unwrap().len(), 1);
    sound(&ledger);
    ledger.undo(&app()).unwrap();
    assert_eq!((broken(&ledger), ledger.schema("c").unwrap()), (vec![], None));
    ledger.set_schema("c", &schema, &app()).unwrap();
    ledger.remove_schema("c", &app()).unwrap();
    assert_eq!(broken(&ledger), []);
    sound(&ledger);
}

#[test]
fn a_policy_that_shows_another_value_breaks_or_mends_what_it_shows() {
    let (office, laptop) = people();
    put(&office, "people", "ann", json!({ "mail": "a" })).unwrap();
    put(&office, "people", "bob", json!({ "mail": "b" })).unwrap();
    laptop.pull(&office).unwrap();
    office.patch("people", "bob", json!({ "mail": "c" }), &app()).unwrap();
    laptop.patch("people", "ann", json!({ "mail": "z" }), &app()).unwrap();
    laptop.patch("people", "bob", json!({ "mail": "a" }), &app()).unwrap();
    laptop.patch("people", "ann", json!({ "mail": "y" }), &app()).unwrap();
    office.patch("people", "ann", json!({ "mail": "a2" }), &app()).unwrap();
    office.pull(&laptop).unwrap();
    laptop.pull(&office).unwrap();
    for policy in ["manual", "first_write_wins", "last_write_wins", "merge"] {
        let strategy = syncledger::projection::Strategy::parse(policy).unwrap();
        office.set_policy("people", &Policy::of(strategy), &app()).unwrap();
        laptop.pull(&office).unwrap();
        assert_eq!(office.violations(None).unwrap(), laptop.violations(None).unwrap(), "{policy}");
        sound(&office);
        sound(&laptop);
    }
}

#[test]
fn violations_are_the_same_after_reopening_a_crash_and_from_the_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Ledger::open(dir.path()).unwrap();
    let ledger = open();
    let other = memory();
    set(&ledger, "people", json!({ "mail": { "x-unique": true }, "boss": { "x-references": "people" } }));
    other.pull(&ledger).unwrap();
    for (index, ledger) in [(0, &ledger), (1, &other)] {
        for key in 0..30 {
            put(ledger, "people", &format!("{index}-{key}"), json!({ "mail": key % 15 + index * 7 + key / 15 * 40 }))
                .unwrap();
        }
    }
    ledger.pull(&other).unwrap();
    let told = |ledger: &Ledger| (ledger.violations(None).unwrap(), conflicts(ledger));
    let before = told(&ledger);
    assert!(before.0.len() > 5, "{}", before.0.len());
    ledger.store().close().unwrap();
    drop(ledger);
    let ledger = open();
    // What rows say is taken up as it is: only the schema's record is derived again.
    assert_eq!(ledger.store().work().derived, 1);
    assert_eq!(told(&ledger), before);
    sound(&ledger);
    ledger.rebuild().unwrap();
    assert_eq!(told(&ledger), before);
    // Still held after reopening, and after the derived state is gone.
    assert!(put(&ledger, "people", "late", json!({ "mail": 1 })).is_err());
    ledger.store().close().unwrap();
    drop(ledger);
    std::fs::remove_dir_all(dir.path().join("rows")).unwrap();
    let ledger = open();
    assert_eq!(told(&ledger), before);
    assert!(put(&ledger, "people", "late", json!({ "boss": "nobody" })).is_err());
    sound(&ledger);
}

// --- repairs and migrations --------------------------------------------------------------------------------------------

#[test]
fn what_can_be_repaired_in_one_way_is_and_the_rest_says_why_not() {
    let ledger = memory();
    let line = |account: &str, amount: Json| json!({ "account": account, "amount": amount });
    put(&ledger, "lines", "1", line("a", json!(1.5))).unwrap();
    put(&ledger, "lines", "2", json!({ "account": "a" })).unwrap();
    put(&ledger, "accounts", "a", json!({ "balance": 7, "owner": "nobody", "tags": ["t", "gone"], "code": 1 }))
        .unwrap();
    // A later moment, so that the first holds the code.
    std::thread::sleep(std::time::Duration::from_millis(5));
    put(&ledger, "accounts", "b", json!({ "must": "nobody", "code": 1 })).unwrap();
    put(&ledger, "tags", "t", json!({})).unwrap();
    let sum = json!({ "collection": "lines", "field": "/amount", "via": "/account" });
    ledger
        .set_schema(
            "accounts",
            &json!({ "required": ["must", "state"], "properties": {
                "balance": { "x-sum": sum },
                "owner": { "x-references": "people" },
                "must": { "x-references": "people", "type": "string" },
                "tags": { "x-references": "tags" },
                "state": { "default": "open" },
                "code": { "x-unique": true },
            } }),
            &app(),
        )
        .unwrap();
    ledger
        .set_schema("lines", &json!({ "required": ["amount"], "properties": { "amount": { "default": 2 } } }), &app())
        .unwrap();
    let head = ledger.position();
    let planned = ledger.repair(None, true, &app()).unwrap();
    assert_eq!(ledger.position(), head);
    let repaired = ledger.repair(None, false, &app()).unwrap();
    assert_eq!((&repaired.repairs, &repaired.left), (&planned.repairs, &planned.left));
    let account = get(&ledger, "accounts", "a").value;
    assert_eq!(account, json!({ "balance": 3.5, "tags": ["t"], "code": 1, "state": "open" }));
    assert_eq!(get(&ledger, "lines", "2").value["amount"], 2);
    let left: Vec<_> =
        repaired.left.iter().map(|(found, why)| (found.key.as_str(), found.path.as_str(), why.as_str())).collect();
    assert_eq!(
        left,
        [
            ("a", "/must", "the schema has no default for the field"),
            ("b", "/code", "somebody has to say which record keeps the value"),
            ("b", "/must", "the field is required"),
        ]
    );
    assert_eq!(ledger.violations(None).unwrap().len(), 3);
    assert_eq!(ledger.repair(None, false, &app()).unwrap().receipt.outcome, Outcome::Unchanged);
    // They are ordinary edits of one batch.
    let batches: Vec<_> = ledger.log(&syncledger::ledger::LogQuery { after: head, ..Default::default() }).unwrap();
    assert!(
        batches
            .iter()
            .all(|entry| entry.event.batch.map(|batch| batch.id) == batches[0].event.batch.map(|batch| batch.id))
    );
    sound(&ledger);
}

#[test]
fn a_migration_brings_all_records_to_the_new_shape_or_none() {
    let ledger = memory();
    for key in 0..20 {
        put(&ledger, "c", &format!("{key:02}"), json!({ "title": format!("T{key}"), "n": key })).unwrap();
    }
    let head = ledger.position();
    set(&ledger, "c", json!({ "n": { "type": "integer", "maximum": 19 } }));
    let broken = ledger.migrate("c", "dict(record, n=n + 1)", false, &app()).unwrap_err();
    assert!(broken.kind() == ErrorKind::Validation && broken.message().contains("c/19 at /n"), "{broken}");
    assert_eq!(ledger.position(), head + 1);
    let tried = ledger.migrate("c", "dict(record, n=n + 1)", true, &app()).unwrap();
    assert_eq!((tried.planned.len(), tried.broken.len(), ledger.position()), (20, 1, head + 1));
    for expression in ["title", "missing", "dict(record, n=n +", "[1]", "{\"a\": \"{{ title }\"}", "record|nothing"] {
        let fault = ledger.migrate("c", expression, false, &app()).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Validation, "{expression}");
    }
    assert_eq!(ledger.position(), head + 1);
    let done = ledger
        .migrate("c", r##"{"name": "{{ title|lower }}", "n": "{{ n }}", "id": "#{{ key }}"}"##, false, &app())
        .unwrap();
    assert_eq!((done.planned.len(), done.receipt.events.len()), (20, 20));
    assert_eq!(get(&ledger, "c", "07").value, json!({ "name": "t7", "n": 7, "id": "#07" }));
    // What is in its new shape already makes no event.
    let again = ledger.migrate("c", "dict(record, n=n)", false, &app()).unwrap();
    assert_eq!(again.receipt.outcome, Outcome::Unchanged);
    // A request of a name is made once.
    let named = Context { idempotency_key: Some("m".into()), ..app() };
    let once = ledger.migrate("c", "dict(record, n=19 - n)", false, &named).unwrap().receipt;
    let twice = ledger.migrate("c", "dict(record, n=19 - n)", false, &named).unwrap().receipt;
    assert_eq!((twice.outcome, &twice.events), (Outcome::Duplicate, &once.events));
    assert!(ledger.migrate("c", "record", false, &named).unwrap_err().kind() == ErrorKind::IdempotencyMismatch);
    ledger.revert(&Target::Run(once.run.unwrap()), &app()).unwrap();
    // And it can be taken back as one.
    ledger.revert(&Target::Run(done.receipt.run.unwrap()), &app()).unwrap();
    assert_eq!(get(&ledger, "c", "07").value, json!({ "title": "T7", "n": 7 }));
}

// --- all replicas agree ------------------------------------------------------------------------------------------------

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn schemas() -> [Json; 3] {
    let sum = json!({ "collection": "lines", "field": "/n", "via": "/of" });
    let whole = json!({ "properties": {
        "mail": { "x-unique": true },
        "boss": { "x-references": "people" },
        "likes": { "x-kind": "set", "x-references": "lines" },
        "sum": { "x-sum": sum, "x-critical": true },
        "text": { "x-kind": "text", "type": "string" },
        "count": { "x-kind": "counter", "maximum": 3 },
    }, "x-rules": [{ "rule": "boss is not defined or mail is defined", "message": "a boss needs a mail" }] });
    [whole, json!({ "required": ["mail"], "properties": { "mail": { "x-unique": true } } }), json!({})]
}

fn a_value(rng: &mut Rng) -> Json {
    let mut record = serde_json::Map::new();
    let name = |rng: &mut Rng| json!(rng.pick(&NAMES));
    for field in ["mail", "boss", "likes", "sum", "text", "count"] {
        if rng.one_in(2) {
            continue;
        }
        let value = match field {
            "likes" => json!([name(rng), name(rng)]),
            "sum" => json!(rng.below(4) as f64 / 10.0),
            "count" => json!(rng.below(6)),
            _ => name(rng),
        };
        record.insert(field.to_owned(), value);
    }
    record.into()
}

/// One random edit. What a constraint refuses is refused.
fn step(ledger: &Ledger, rng: &mut Rng) {
    let (key, context) = (*rng.pick(&NAMES), app());
    let _ = match rng.below(24) {
        0 => ledger.set_schema("people", &schemas()[[0, 0, 0, 1, 2][rng.below(5)]], &context),
        1 => {
            let strategy = *rng.pick(&["merge", "manual", "first_write_wins", "last_write_wins:record"]);
            let strategy = syncledger::projection::Strategy::parse(strategy).unwrap();
            ledger.set_policy("people", &Policy::of(strategy), &context)
        }
        2 | 3 => ledger.delete("people", key, &context),
        4..=7 => {
            let line = json!({ "of": rng.pick(&NAMES), "n": rng.below(3) as f64 / 10.0 });
            ledger.put("lines", key, line, &context)
        }
        8..=11 => ledger.patch("people", key, a_value(rng), &context),
        12 => ledger.repair(None, false, &context).map(|repaired| repaired.receipt),
        13..=15 => {
            let delivery = Delivery { key: key.into(), value: a_value(rng), occurred_at: Some(rng.below(9) as i64) };
            return drop(ledger.import("people", vec![delivery], &Context::from_source("jira")).unwrap());
        }
        _ => ledger.put("people", key, a_value(rng), &context),
    };
}

fn told(ledger: &Ledger) -> (Vec<Violation>, Vec<RecordConflict>, Vec<Option<String>>, Vec<Record>) {
    let holder = |name: &&str| ledger.holder("people", &path("/mail"), &json!(name)).unwrap();
    let records = NAMES.iter().filter_map(|name| ledger.get("people", name).unwrap()).collect();
    (
        ledger.violations(None).unwrap(),
        ledger.conflicts(None, Which::All, None).unwrap(),
        NAMES.iter().map(holder).collect(),
        records,
    )
}

#[test]
fn replicas_with_the_same_events_have_the_same_violations_conflicts_and_holders() {
    let (mut some, mut shared, mut dangling, mut sums) = (0, 0, 0, 0);
    for seed in 0..320 {
        let mut rng = Rng::new(seed);
        let replicas = [memory(), memory(), memory()];
        replicas[0].set_schema("people", &schemas()[0], &app()).unwrap();
        for other in &replicas[1..] {
            other.pull(&replicas[0]).unwrap();
        }
        for _ in 0..16 + rng.below(24) {
            let (one, other) = (rng.below(3), rng.below(3));
            match rng.one_in(12) {
                true if one != other => drop(replicas[one].pull(&replicas[other]).unwrap()),
                _ => step(&replicas[one], &mut rng),
            }
        }
        for (one, other) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            replicas[one].pull(&replicas[other]).unwrap();
        }
        let first = told(&replicas[0]);
        assert_eq!(first, told(&replicas[1]), "seed {seed}");
        assert_eq!(first, told(&replicas[2]), "seed {seed}");
        // In any order, one by one.
        let mut events: Vec<_> =
            replicas[0].log(&Default::default()).unwrap().iter().map(|entry| entry.event.encode().unwrap()).collect();
        rng.shuffle(&mut events);
        let late = memory();
        for event in &events {
            late.apply(replicas[0].info().id, std::slice::from_ref(event)).unwrap();
        }
        assert_eq!(first, told(&late), "seed {seed}");
        if seed % 8 == 0 {
            sound(&late);
            late.rebuild().unwrap();
            assert_eq!(first, told(&late), "seed {seed}");
        }
        let has = |constraint| usize::from(first.0.iter().any(|found| found.constraint == constraint));
        some += usize::from(!first.0.is_empty());
        (shared, dangling, sums) =
            (shared + has(Constraint::Unique), dangling + has(Constraint::Reference), sums + has(Constraint::Sum));
    }
    assert!(some > 120 && shared > 15 && dangling > 40 && sums > 30, "{some} {shared} {dangling} {sums}");
}

// --- real issues -------------------------------------------------------------------------------------------------------

const ISSUES: &str = include_str!("../fixtures/jira-issues.jsonl");

fn jira_schema() -> Json {
    json!({
        "type": "object",
        "required": ["key", "summary", "status"],
        "properties": {
            "key": { "type": "string", "pattern": "^[A-Z0-9]+-[0-9]+$", "x-unique": true },
            "summary": { "type": "string", "x-kind": "text" },
            "status": { "type": "object", "required": ["name"], "x-kind": "atomic", "x-critical": true },
            "labels": { "type": "array", "items": { "type": "string" }, "x-kind": "set" },
            "parent": { "type": "string", "x-references": "issues" },
            "watches": { "type": "integer", "minimum": 0, "x-kind": "counter" },
        },
        "x-rules": [{ "rule": "parent is not defined or parent != key", "message": "an issue is not its own parent" }],
    })
}

fn jira_record(issue: &Json) -> Json {
    let fields = &issue["fields"];
    let mut record = json!({
        "key": issue["key"], "summary": fields["summary"], "status": fields["status"], "labels": fields["labels"],
        "watches": fields["watches"]["watchCount"],
    });
    if let Some(parent) = fields["parent"]["key"].as_str() {
        record["parent"] = json!(parent);
    }
    record
}

#[test]
fn the_real_issues_fit_a_schema_but_for_the_one_whose_parent_was_not_exported() {
    let ledger = memory();
    ledger.set_schema("issues", &jira_schema(), &app()).unwrap();
    let issues: Vec<Json> = ISSUES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut turned = issues.clone();
    turned.reverse();
    let deliver = |ledger: &Ledger, issues: &[Json]| {
        let of = |issue: &Json| Delivery {
            key: issue["key"].as_str().unwrap().into(),
            value: jira_record(issue),
            occurred_at: Some(1_700_000_000_000),
        };
        ledger.import("issues", issues.iter().map(of).collect(), &Context::from_source("jira")).unwrap()
    };
    let done = deliver(&ledger, &turned);
    assert!(done.iter().all(|done| matches!(done, Delivered::Created(_))), "{done:?}");
    assert_eq!(broken(&ledger), [("K5-2".to_owned(), "/parent".to_owned(), Constraint::Reference)]);
    // Another replica that imports the same apart, in another order, agrees.
    let other = memory();
    other.pull(&ledger).unwrap();
    deliver(&other, &issues);
    assert_eq!(other.digest().unwrap().digest, ledger.digest().unwrap().digest);
    assert_eq!(told_all(&other), told_all(&ledger));
    // Every edit of the change logs' summaries and statuses goes through the kinds.
    let mut edits = 0;
    for issue in &issues {
        let key = issue["key"].as_str().unwrap();
        for item in issue["changelog"]["histories"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|group| group["items"].as_array().unwrap())
        {
            let patch = match item["field"].as_str().unwrap() {
                "status" => json!({ "status": { "name": item["toString"] } }),
                "summary" => json!({ "summary": item["toString"] }),
                "labels" => {
                    json!({ "labels": item["toString"].as_str().unwrap().split_whitespace().collect::<Vec<_>>() })
                }
                _ => continue,
            };
            edits += usize::from(ledger.patch("issues", key, patch, &app()).unwrap().outcome == Outcome::Appended);
        }
    }
    assert!(edits > 100, "{edits}");
    refused(put(&ledger, "issues", "copy", jira_record(&issues[0])), &["/key"]);
    assert!(ledger.delete("issues", "EE-1", &app()).unwrap_err().message().contains("/parent"));
    // The reference to nothing can be taken out.
    let repaired = ledger.repair(None, false, &app()).unwrap();
    assert_eq!((repaired.repairs.len(), repaired.left.len()), (1, 0));
    assert_eq!(broken(&ledger), []);
    other.pull(&ledger).unwrap();
    assert_eq!(told_all(&other), told_all(&ledger));
    sound(&ledger);
    let look = Look { as_of: Some(AsOf::Position(1)), policy: None };
    assert_eq!(ledger.look("issues", "EE-1", &look).unwrap(), None);
}

fn told_all(ledger: &Ledger) -> (Vec<Violation>, Vec<RecordConflict>) {
    (ledger.violations(None).unwrap(), ledger.conflicts(None, Which::All, None).unwrap())
}
