//! The bytes of every released version, read for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use syncledger::document::Document;
use syncledger::event::{
    BatchId, BatchMember, BlobForm, BlobHash, BlobRef, ConflictId, Container, Event, EventId, Idempotency, Op, Path,
    RunId, Timestamp, Value, hex,
};
use syncledger::ledger::{Act, BackupOptions, Context, Ledger, LogQuery, Options, Query, Store, Write};
use syncledger::segment::{Codec, Head, Item, Reader, Shape, Writer};
use syncledger::testing::event as plain;

use crate::histories::{LEDGER, changes};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn put(at: &str, value: Value) -> Op {
    Op::Put { path: path(at), value }
}

fn values() -> Vec<Op> {
    let blob = |form, byte| Value::Blob(BlobRef { hash: BlobHash([byte; 32]), bytes: 20_000, form });
    vec![
        put("/null", Value::Null),
        put("/bool", Value::Bool(true)),
        put("/int", Value::Int(-300)),
        put("/uint", Value::Uint(u64::MAX)),
        put("/float", Value::Float(0.1)),
        put("/text", Value::Text("é🦀".into())),
        put("/bytes", Value::Bytes(vec![0, 255])),
        put("/object", Value::EmptyObject),
        put("/blob/text", blob(BlobForm::Text, 1)),
        put("/blob/bytes", blob(BlobForm::Bytes, 2)),
        put("/blob/json", blob(BlobForm::Json, 3)),
        put("/$field/~0~1", Value::Text("a key that is escaped".into())),
        Op::PutAtomic { path: path("/atomic"), json: "{\"a\":[1,null]}".into() },
    ]
}

fn fields() -> Vec<Op> {
    let member = || Value::Text("u".into());
    vec![
        Op::Remove { path: path("/object") },
        Op::Increment { path: path("/int"), by: 5 },
        Op::Increment { path: path("/count"), by: -2 },
        Op::MakeSet { path: path("/set") },
        Op::SetAdd { path: path("/set"), member: member() },
        Op::SetAdd { path: path("/set"), member: Value::Atomic("{\"x\":1}".into()) },
        Op::SetRemove { path: path("/set"), member: member() },
        Op::MakeList { path: path("/list") },
        Op::Insert { container: Container::Own(7), index: 0, value: Value::Int(1) },
        Op::MakeText { path: path("/text") },
        Op::SpliceText { container: Container::Own(9), index: 0, delete: 0, insert: "né🦀".into() },
    ]
}

fn inside(event: EventId) -> Vec<Op> {
    vec![
        Op::Insert { container: Container::Of(event, 7), index: 9, value: Value::Text("x".into()) },
        Op::RemoveAt { container: Container::Of(event, 7), index: 0 },
        Op::SpliceText { container: Container::Of(event, 9), index: 1, delete: 1, insert: "ew".into() },
    ]
}

fn event(sequence: u64, parents: Vec<EventId>, ops: Vec<Op>) -> Event {
    Event {
        sequence,
        nth: sequence as u32,
        parents,
        at: Timestamp { millis: 1_790_000_000_000 + sequence as i64, counter: sequence as u32 },
        ..plain(ops)
    }
}

/// Every head field set.
fn with_options(event: Event) -> Event {
    Event {
        occurred_at: Some(-1),
        principal: Some("ann".into()),
        reason: Some("asked by the customer".into()),
        run: Some(RunId([2; 16])),
        delivery: true,
        idempotency: Some(Idempotency { key: "r-1".into(), request_hash: [3; 32] }),
        batch: Some(BatchMember { id: BatchId([4; 16]), index: 1, count: 4_096 }),
        resolves: Some(ConflictId([5; 32])),
        reverts: Some(EventId([6; 32])),
        ..event
    }
}

/// The events of the fixture, as this program makes them: every operation, value and option, an event apart, a forked
/// writer, a merge.
fn made() -> Vec<(&'static str, Event)> {
    let id = |event: &Event| event.identify(LEDGER).unwrap().0;
    let values = event(1, Vec::new(), values());
    let fields = event(2, vec![id(&values)], fields());
    let options = with_options(event(3, vec![id(&fields)], inside(id(&fields))));
    let forked = event(3, vec![id(&fields)], vec![put("/int", Value::Int(7))]);
    let apart =
        Event { lane: 1, nth: 1, ..event(4, vec![id(&values)], vec![put("/atomic/a", Value::Int(1)), Op::Delete]) };
    let mut parents = vec![id(&options), id(&forked), id(&apart)];
    parents.sort();
    let merge = Event { nth: 4, ..event(5, parents, Vec::new()) };
    let clear = vec![Op::Restore, put("", Value::EmptyObject), put("/n", Value::Int(0))];
    let cleared = Event { nth: 5, ..event(6, vec![id(&merge)], clear) };
    let names = ["values", "fields", "options", "forked", "apart", "merge", "cleared"];
    names.into_iter().zip([values, fields, options, forked, apart, merge, cleared]).collect()
}

fn document(events: &[Event]) -> Document {
    let ids: Vec<EventId> = events.iter().map(|event| event.identify(LEDGER).unwrap().0).collect();
    Document::derive_all(ids.into_iter().zip(events)).unwrap()
}

#[test]
fn the_fixture_holds_every_operation() {
    let events = made();
    let ops: BTreeMap<&str, &Op> =
        events.iter().flat_map(|(_, event)| event.ops()).map(|op| (op.name(), op)).collect();
    assert_eq!(ops.len(), 14);
}

/// Run with `SYNCLEDGER_WRITE_FIXTURES=1` to write the files of a new version; those of a released one never change.
#[test]
fn events_of_version_1_are_written_and_read_alike_for_ever() {
    let mut lines = String::new();
    for (name, event) in made() {
        let (id, bytes) = event.identify(LEDGER).unwrap();
        writeln!(lines, "{name} {id} {}", hex(&bytes)).unwrap();
    }
    if std::env::var_os("SYNCLEDGER_WRITE_FIXTURES").is_some() {
        std::fs::write(file("events.hex"), &lines).unwrap();
    }
    let fixture = std::fs::read_to_string(file("events.hex")).unwrap();
    assert_eq!(fixture, lines);
    for (line, (_, expected)) in fixture.lines().zip(made()) {
        let [_, id, bytes] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let event = Event::decode(&unhex(bytes)).unwrap();
        assert_eq!(event, expected);
        assert_eq!(event.identify(LEDGER).unwrap().0, id.parse().unwrap());
    }
}

#[test]
fn events_of_version_1_derive_the_same_changes_for_ever() {
    let bytes = std::fs::read_to_string(file("events.hex")).unwrap();
    let events = bytes.lines().map(|line| Event::decode(&unhex(line.rsplit_once(' ').unwrap().1)).unwrap());
    let mut document = document(&events.collect::<Vec<_>>());
    assert_eq!(document.graph().len(), made().len());
    let lines: String = changes(&mut document).iter().map(|hash| hex(hash) + "\n").collect();
    if std::env::var_os("SYNCLEDGER_WRITE_FIXTURES").is_some() {
        std::fs::write(file("changes.hex"), &lines).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file("changes.hex")).unwrap(), lines);
}

/// A segment of the fixture's events, at positions from 11 on; the first has a gap after it.
fn segment(codec: Codec) -> (Vec<Item>, Vec<u8>) {
    let mut writer = Writer::new(LEDGER, Shape { codec, level: 3, block_events: 4 });
    let mut items: Vec<Item> = Vec::new();
    for (index, (_, event)) in (0..).zip(made()) {
        let (id, run) = (event.identify(LEDGER).unwrap().0, event.run.or((index == 2).then_some(RunId([9; 16]))));
        let position = if index == 0 { 11 } else { 12 + index };
        let previous = items.last().map_or(0, |item| item.position);
        items.push(Item { position, previous, received_at: 1_790_000_000_500 + index as i64, run, id, event });
    }
    items.iter().for_each(|item| writer.add(item.clone()).unwrap());
    (items, writer.finish().unwrap().unwrap().1)
}

fn read_segment(bytes: &[u8]) -> Vec<Item> {
    let (head, mut rest) = bytes.split_at(Head::bytes(bytes).unwrap());
    let mut reader = Reader::new(Head::decode(head).unwrap());
    let mut items = Vec::new();
    while let Some(stored) = reader.next_block().map(|block| block.stored) {
        let (block, after) = rest.split_at(stored);
        items.extend(reader.read(block).unwrap());
        rest = after;
    }
    items
}

/// What zstd makes of a block is its own affair: the plain segment is written alike for ever, both are read.
#[test]
fn segments_of_version_1_are_read_alike_for_ever() {
    for (name, codec) in [("segment-plain.hex", Codec::Plain), ("segment-zstd.hex", Codec::Zstd)] {
        let (items, bytes) = segment(codec);
        if std::env::var_os("SYNCLEDGER_WRITE_FIXTURES").is_some() {
            std::fs::write(file(name), hex(&bytes) + "\n").unwrap();
        }
        let fixture = unhex(std::fs::read_to_string(file(name)).unwrap().trim());
        assert_eq!(read_segment(&fixture), items);
        assert!(codec == Codec::Zstd || fixture == bytes);
    }
}

/// A ledger with a large value, a batch and a conflict. Its ids are random: only the file says which they are.
fn ledger_for_a_backup() -> Ledger {
    let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let ann = Context { reason: Some("why".into()), ..Context::from_source("app").by("ann") };
    let first = ledger.put("tasks", "T-1", json!({ "title": "é", "n": 1.5, "l": [1] }), &ann).unwrap().events[0].0;
    ledger.patch("tasks", "T-1", json!({ "title": "a" }), &ann).unwrap();
    let apart = Write::new("tasks", "T-1", Act::Patch(json!({ "title": "b" }))).on(vec![first]);
    ledger.write(apart, &Context::from_source("jira")).unwrap();
    let fill = |batch: &mut syncledger::ledger::Batch| {
        batch.put("tasks", "T-2", json!({})).put("notes", "n", json!({ "x": "y" }));
    };
    ledger.batch(&ann, fill).unwrap();
    ledger.put("notes", "large", json!({ "text": "large ".repeat(3_000) }), &ann).unwrap();
    ledger
}

#[test]
fn a_backup_of_version_1_is_restored_alike_for_ever() {
    let (path, answers) = (file("backup.slbk"), file("backup.json"));
    let restored = |path: &PathBuf| {
        let store = Store::in_memory(Options::default()).unwrap();
        store.restore("main", &[path], false).unwrap();
        let ledger = store.ledger("main").unwrap();
        let mut told = vec![json!(ledger.digest().unwrap().digest)];
        for collection in ["notes", "tasks"] {
            for record in ledger.list(collection, &Query::default()).unwrap() {
                told.push(json!([collection, record.key, record.value, record.conflicts.len()]));
            }
        }
        for entry in ledger.log(&LogQuery::default()).unwrap() {
            told.push(json!([entry.position, entry.id.to_string(), entry.received_at, entry.previous]));
        }
        serde_json::to_string_pretty(&told).unwrap() + "\n"
    };
    if std::env::var_os("SYNCLEDGER_WRITE_FIXTURES").is_some() {
        drop(std::fs::remove_file(&path));
        ledger_for_a_backup().backup(&path, &BackupOptions::default()).unwrap();
        std::fs::write(&answers, restored(&path)).unwrap();
    }
    assert_eq!(restored(&path), std::fs::read_to_string(&answers).unwrap());
}

/// What is derived there has a version of before: it is made again.
#[test]
fn a_store_that_an_earlier_program_wrote_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    crate::work::copy(&file("store"), dir.path());
    for round in 0..2 {
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.position(), 15 + round);
        let digest = ledger.digest().unwrap().digest;
        let written = "73d1626540b563ea8e9b5c73c9c6a439450a43d826140b4bbe126f9e31cec7a0";
        assert_eq!(digest == written, round == 0);
        let expected: Vec<serde_json::Value> =
            serde_json::from_str(&std::fs::read_to_string(file("store.json")).unwrap()).unwrap();
        let found = ledger.list("issues", &Query::default()).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((found.key.as_str(), &found.value), (expected["key"].as_str().unwrap(), &expected["value"]));
            let heads: Vec<String> = found.heads.iter().map(ToString::to_string).collect();
            let conflicts: Vec<String> = found.conflicts.iter().map(ToString::to_string).collect();
            assert_eq!((json!(heads), json!(conflicts)), (expected["heads"].clone(), expected["conflicts"].clone()));
        }
        assert_eq!((found.len(), expected.len()), (2, 2));
        assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
        ledger.put("pages", "next", json!({ "n": round }), &Context::default()).unwrap();
    }
}

/// A process that was killed after it had appended: only the front has its events.
#[test]
fn a_store_of_version_2_whose_database_lacks_what_its_front_holds_opens_whole() {
    let dir = tempfile::tempdir().unwrap();
    let stored = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2/store");
    crate::work::copy(&stored, dir.path());
    for _ in 0..2 {
        let ledger = Ledger::open(dir.path()).unwrap();
        let digest = ledger.digest().unwrap().digest;
        assert_eq!(digest, "6e79636002a93374bfa68ac673e50078c4f8869db2025e9643e506c0b950b347");
        let found = ledger.get("issues", "3").unwrap().unwrap();
        assert_eq!(found.value, json!({ "id": 3, "title": "issue 3", "tags": ["a", 3] }));
        assert_eq!(ledger.position(), 6);
        assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    }
}
