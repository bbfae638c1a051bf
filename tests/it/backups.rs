//! Backups: what is restored is what there was, and no damaged file is taken for a whole one.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};
use syncledger::ErrorKind;
use syncledger::event::Path as Pointer;
use syncledger::ledger::{
    Act, AsOf, BackupInfo, BackupOptions, Context, Delivery, Edit, Ledger, LogQuery, Look, Options, Outcome, Query,
    Restored, Store, Target, Which, Write, verify_backup,
};
use syncledger::segment::{Codec, Shape};

use crate::histories::Rng;

fn memory() -> Store {
    Store::in_memory(Options::default()).unwrap()
}

fn app() -> Context {
    Context::default()
}

fn whole() -> BackupOptions {
    BackupOptions::default()
}

fn since(position: u64) -> BackupOptions {
    BackupOptions { since: position, ..BackupOptions::default() }
}

fn object(rng: &mut Rng) -> Json {
    let mut fields = Map::new();
    for name in ["a", "b", "c"] {
        match rng.below(5) {
            0 => drop(fields.insert(name.into(), json!(rng.below(5)))),
            1 => drop(fields.insert(name.into(), json!({ "x": [1, "é"], "y": null }))),
            2 => drop(fields.insert(name.into(), json!("word ".repeat(rng.below(9))))),
            3 if rng.one_in(4) => drop(fields.insert(name.into(), json!("large ".repeat(3_000 + rng.below(3))))),
            _ => {}
        }
    }
    fields.into()
}

fn write(rng: &mut Rng, ledger: &Ledger) {
    let collection = ["issues", "notes"][rng.below(2)];
    let key = format!("k{}", rng.below(4));
    let path = |text: &str| Pointer::parse(text).unwrap();
    let mut context = Context::from_source(["app", "jira"][rng.below(2)]);
    if rng.one_in(4) {
        context.idempotency_key = Some(format!("request {}", rng.next()));
    }
    let act = match rng.below(7) {
        0 => Act::Delete,
        1 => Act::Undelete,
        2 => Act::Patch(object(rng)),
        3 => Act::Edit(vec![Edit::Increment(path("/n"), 3), Edit::SetAdd(path("/s"), json!(rng.below(4)))]),
        _ => Act::Put(object(rng)),
    };
    if rng.one_in(8) {
        let delivery = Delivery { key, value: object(rng), occurred_at: Some(rng.below(9_000) as i64) };
        ledger.import(collection, vec![delivery], &Context::from_source("jira")).unwrap();
    } else if rng.one_in(6) {
        let writes = (0..3).map(|_| Write::new(collection, format!("k{}", rng.below(4)), Act::Put(object(rng))));
        drop(ledger.write_all(writes.collect(), &context));
    } else {
        drop(ledger.write(Write::new(collection, key, act), &context));
    }
}

/// A ledger that was written, pulled into from another replica, partly settled and partly taken back.
fn history(rng: &mut Rng, store: &Store) -> Ledger {
    let (ledger, other) = (store.create_ledger("main").unwrap(), memory().create_ledger("main").unwrap());
    ledger.put("issues", "k0", json!({ "a": 1 }), &app()).unwrap();
    other.pull(&ledger).unwrap();
    for _ in 0..rng.below(10) {
        write(rng, &ledger);
        write(rng, &other);
        if rng.one_in(4) {
            ledger.pull(&other).unwrap();
        }
        if rng.one_in(6) {
            other.pull(&ledger).unwrap();
        }
    }
    ledger.pull(&other).unwrap();
    if let Some(found) = ledger.conflicts(None, Which::Open, None).unwrap().first() {
        let settlement = syncledger::ledger::Settlement::TakeEvent(found.conflict.candidates[0].event);
        drop(ledger.resolve(found.conflict.id, settlement, None, &app()));
    }
    if rng.one_in(3) {
        let all = ledger.log(&LogQuery::default()).unwrap();
        drop(ledger.revert(&Target::Event(rng.pick(&all).id), &app()));
    }
    ledger
}

/// Everything that can be read of a ledger.
fn answers(ledger: &Ledger) -> Vec<String> {
    let mut answers = vec![format!("{:?}", ledger.log(&LogQuery::default()).unwrap())];
    let digest = ledger.digest().unwrap();
    answers.push(format!("{digest:?} {:?}", ledger.collections().unwrap()));
    answers.push(format!("{:?}", ledger.conflicts(None, Which::All, None).unwrap()));
    let status = ledger.status().unwrap();
    answers.push(format!("{:?} {:?} {:?}", status.events, status.conflicts, status.forked_writers));
    for collection in ["issues", "notes"] {
        let query = Query { deleted: true, ..Query::default() };
        for record in ledger.list(collection, &query).unwrap() {
            let middle = Look { as_of: Some(AsOf::Position(ledger.position() / 2)), policy: None };
            answers.push(format!("{record:?} {:?}", ledger.look(collection, &record.key, &middle).unwrap()));
            answers.push(format!("{:?}", ledger.history(collection, &record.key).unwrap()));
            answers.push(format!("{:?}", ledger.blame(collection, &record.key).unwrap()));
        }
    }
    answers
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn damaged(&self, bytes: &[u8]) -> PathBuf {
        let path = self.at("damaged");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn restore(files: &[&Path]) -> Ledger {
    let store = memory();
    store.restore("main", files, false).unwrap();
    store.ledger("main").unwrap()
}

#[test]
fn a_restored_ledger_answers_everything_as_the_original() {
    let files = Files::new();
    let mut with_blobs = 0;
    for seed in 0..1_000 {
        let mut rng = Rng::new(seed);
        let ledger = history(&mut rng, &memory());
        let (first, second) = (files.at(&format!("{seed}-1")), files.at(&format!("{seed}-2")));
        let info = ledger.backup(&first, &whole()).unwrap();
        assert_eq!((info.first_position, info.last_position, info.events), (1, ledger.position(), ledger.position()));
        with_blobs += usize::from(info.blobs > 0);
        assert_eq!(verify_backup(&first).unwrap(), info);
        // A second file with what came since.
        let restored = if rng.one_in(3) {
            write(&mut rng, &ledger);
            let more = ledger.backup(&second, &since(info.last_position)).unwrap();
            assert_eq!(more.first_position, info.last_position + 1);
            restore(&[&second, &first])
        } else {
            restore(&[&first])
        };
        assert_eq!(answers(&restored), answers(&ledger), "seed {seed}");
        assert_ne!(restored.info().writer, ledger.info().writer);
        if seed % 10 == 0 {
            assert_eq!(restored.verify().unwrap().problems, [""; 0], "seed {seed}");
        }
        [first, second].into_iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
    assert!(with_blobs > 200, "{with_blobs}");
}

/// A small backup with a large value, an increment of it, and the ledger.
fn small(files: &Files, shape: Shape) -> (Ledger, BackupInfo) {
    let ledger = memory().create_ledger("main").unwrap();
    for n in 0..5 {
        ledger.put("issues", &format!("k{}", n % 2), json!({ "n": n, "title": "Crash" }), &app()).unwrap();
    }
    ledger.put("notes", "large", json!({ "text": "x".repeat(17_000) }), &app()).unwrap();
    ledger.put("issues", "k0", json!({ "n": 9 }), &app()).unwrap();
    let info = ledger.backup(files.at("small"), &BackupOptions { since: 0, shape }).unwrap();
    (ledger, info)
}

const SHAPES: [Shape; 2] =
    [Shape { block_events: 3, ..Shape::LARGE }, Shape { codec: Codec::Plain, level: 0, block_events: 3 }];

/// The bytes of a file to try: all, but for the middle of the large value, of which some will do.
fn places(length: usize, skip: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
    (0..length).filter(move |at| !skip.contains(at) || at % 997 == 0)
}

#[test]
fn a_backup_cut_anywhere_is_restored_up_to_there_or_says_what_is_missing() {
    for shape in SHAPES {
        let files = Files::new();
        let (ledger, info) = small(&files, shape);
        let bytes = std::fs::read(&info.file).unwrap();
        let log = ledger.log(&LogQuery::default()).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for cut in places(bytes.len(), 400..17_000) {
            let path = files.damaged(&bytes[..cut]);
            let fault = verify_backup(&path).unwrap_err();
            let store = memory();
            let refused = store.restore("main", &[&path], false).unwrap_err();
            assert_eq!(refused.to_string(), fault.to_string());
            assert!(store.ledgers().is_empty(), "nothing is half done");
            if cut < 5 {
                continue;
            }
            assert_eq!(fault.kind(), ErrorKind::Corrupt, "cut {cut}: {fault}");
            let head = fault.message().contains("head");
            let Ok(Restored { events, missing, .. }) = store.restore("main", &[&path], true) else {
                assert!(cut < 300, "cut {cut}");
                continue;
            };
            let missing = missing.unwrap();
            let expected = match events {
                7 => "no event is missing".to_owned(),
                6 => "position 7 is missing".to_owned(),
                some => format!("positions {} to 7 are missing", some + 1),
            };
            assert!(head || missing.contains(&expected), "cut {cut}: {missing}");
            lengths.insert(events);
            if cut % 16 == 0 {
                let partly = store.ledger("main").unwrap();
                assert_eq!(partly.log(&LogQuery::default()).unwrap(), log[..events as usize]);
                assert_eq!(partly.verify().unwrap().problems, [""; 0]);
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 3, 6, 7]);
    }
}

#[test]
fn a_changed_byte_anywhere_in_a_backup_is_found() {
    for shape in SHAPES {
        let files = Files::new();
        let (_, info) = small(&files, shape);
        let bytes = std::fs::read(&info.file).unwrap();
        for at in places(bytes.len(), 400..17_000) {
            for change in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let path = files.damaged(&changed);
                let fault = verify_backup(&path).map(drop).unwrap_err();
                let expected = match at {
                    0..4 => ErrorKind::Validation,
                    4 => ErrorKind::UpgradeNeeded,
                    // The versions and codecs of segments.
                    _ if fault.kind() == ErrorKind::UpgradeNeeded => ErrorKind::UpgradeNeeded,
                    _ => ErrorKind::Corrupt,
                };
                assert_eq!(fault.kind(), expected, "byte {at}: {fault}");
                assert!(fault.message().contains("damaged") || fault.kind() == ErrorKind::UpgradeNeeded, "{fault}");
            }
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(verify_backup(files.damaged(&longer)).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn files_that_do_not_join_are_refused_and_leave_nothing() {
    let files = Files::new();
    let store = memory();
    let (ledger, first) = small(&files, Shape::LARGE);
    ledger.put("issues", "k1", json!({ "n": 10 }), &app()).unwrap();
    let second = ledger.backup(files.at("second"), &since(7)).unwrap();
    ledger.put("issues", "k1", json!({ "n": 11 }), &app()).unwrap();
    let third = ledger.backup(files.at("third"), &since(8)).unwrap();
    let refused = |paths: &[&PathBuf]| store.restore("main", paths, false).map(drop).unwrap_err();
    assert!(refused(&[&first.file, &third.file]).message().contains("position"), "a gap");
    assert!(refused(&[&third.file]).message().contains("positions 1 to 8 are missing"));
    assert!(refused(&[&first.file, &first.file]).message().contains("stands in two"));
    // Another replica has other events at the same positions.
    let (other, _) = (memory().create_ledger("main").unwrap(), ());
    other.pull_file(&first.file, &mut |_| Ok(())).unwrap();
    other.put("notes", "apart", json!({}), &app()).unwrap();
    other.put("notes", "apart", json!({ "a": 1 }), &app()).unwrap();
    let apart = other.backup(files.at("apart"), &since(8)).unwrap();
    let fault = refused(&[&first.file, &second.file, &apart.file]);
    assert_eq!(fault.kind(), ErrorKind::Consistency, "{fault}");
    let stranger = memory().create_ledger("main").unwrap();
    stranger.put("a", "b", json!({}), &app()).unwrap();
    let stranger = stranger.backup(files.at("stranger"), &whole()).unwrap();
    assert_eq!(refused(&[&first.file, &stranger.file]).kind(), ErrorKind::LedgerMismatch);
    assert_eq!(refused(&[]).kind(), ErrorKind::Validation);
    assert!(store.ledgers().is_empty());
    store.restore("main", &[&third.file, &first.file, &second.file], false).unwrap();
    assert_eq!(store.restore("main", &[&first.file], false).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.restore("other", &[&first.file], false).unwrap_err().kind(), ErrorKind::Conflict, "the same id");
}

#[test]
fn a_file_is_pulled_like_a_replica_and_only_into_its_ledger() {
    let files = Files::new();
    let (ledger, first) = small(&files, Shape::LARGE);
    ledger.put("issues", "k1", json!({ "n": 10 }), &app()).unwrap();
    let second = ledger.backup(files.at("second"), &since(7)).unwrap();
    let replica = memory().create_ledger("main").unwrap();
    let early = replica.pull_file(&second.file, &mut |_| Ok(())).unwrap();
    assert_eq!((early.applied, early.waiting), (0, 1));
    replica.pull_file(&first.file, &mut |_| Ok(())).unwrap();
    assert_eq!(replica.digest().unwrap().digest, ledger.digest().unwrap().digest);
    assert_eq!(replica.get("notes", "large").unwrap(), ledger.get("notes", "large").unwrap());
    let again = replica.pull_file(&first.file, &mut |_| Ok(())).unwrap();
    assert_eq!((again.duplicates, again.applied), (7, 0));
    let stranger = memory().create_ledger("main").unwrap();
    stranger.put("a", "b", json!({}), &app()).unwrap();
    assert_eq!(stranger.pull_file(&first.file, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::LedgerMismatch);
    let empty = ledger.backup(files.at("empty"), &since(8)).unwrap();
    assert_eq!(empty.events, 0);
    assert_eq!(stranger.pull_file(&empty.file, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::LedgerMismatch);
    assert_eq!(replica.pull_file(files.at("none"), &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_request_that_was_answered_before_the_backup_is_answered_alike_after_it() {
    let files = Files::new();
    let ledger = memory().create_ledger("main").unwrap();
    let context = Context { idempotency_key: Some("r-1".into()), ..app() };
    let receipt = ledger.put("c", "k", json!({ "n": 1 }), &context).unwrap();
    ledger.backup(files.at("one"), &whole()).unwrap();
    let mut restored = restore(&[&files.at("one")]);
    for round in ["two", "three"] {
        let again = restored.put("c", "k", json!({ "n": 1 }), &context).unwrap();
        assert_eq!((again.events, restored.position()), (receipt.events.clone(), 1), "{round}");
        let other = restored.put("c", "k", json!({ "n": 2 }), &context).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::IdempotencyMismatch);
        // Restored once more: the writers of all lives are known.
        restored.backup(files.at(round), &whole()).unwrap();
        restored = restore(&[&files.at(round)]);
    }
}

#[test]
fn what_is_written_meanwhile_is_not_in_a_backup_and_the_original_goes_on_beside_the_restored() {
    let files = Files::new();
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.put("c", "k", json!({ "n": 0 }), &app()).unwrap();
    std::thread::scope(|scope| {
        let writer = ledger.clone();
        scope.spawn(move || (1..60).for_each(|n| drop(writer.put("c", "k", json!({ "n": n }), &app()).unwrap())));
        for n in 0..8 {
            let info = ledger.backup(files.at(&n.to_string()), &whole()).unwrap();
            let restored = restore(&[&info.file]);
            assert_eq!(restored.position(), info.last_position);
            let n = restored.get("c", "k").unwrap().unwrap().value["n"].as_u64().unwrap();
            assert_eq!(n + 1, info.last_position);
        }
    });
    let into = tempfile::tempdir().unwrap();
    let store = Store::open(into.path()).unwrap();
    store.restore("main", &[files.at("0")], false).unwrap();
    let restored = store.ledger("main").unwrap();
    restored.put("c", "k", json!({ "m": 1 }), &app()).unwrap();
    restored.pull(&ledger).unwrap();
    ledger.pull(&restored).unwrap();
    assert_eq!(ledger.digest().unwrap().digest, restored.digest().unwrap().digest);
    assert_eq!(ledger.status().unwrap().forked_writers, []);
    drop((restored, store));
    // It is there when the store is opened again.
    let again = Ledger::open(into.path()).unwrap();
    assert_eq!(again.digest().unwrap().digest, ledger.digest().unwrap().digest);
    assert_eq!(again.verify().unwrap().problems, [""; 0]);
    let outcome = again.put("c", "k", again.get("c", "k").unwrap().unwrap().value, &app()).unwrap().outcome;
    assert_eq!(outcome, Outcome::Unchanged);
}

#[test]
fn a_backup_that_fails_leaves_no_file_and_replaces_none() {
    let files = Files::new();
    let (ledger, info) = small(&files, Shape::LARGE);
    assert_eq!(ledger.backup(&info.file, &whole()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ledger.backup(files.at("since"), &since(8)).unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(ledger.backup(files.at("no/such/dir"), &whole()).unwrap_err().kind(), ErrorKind::Storage);
    let dir = tempfile::tempdir().unwrap();
    let on_disk = Ledger::open(dir.path()).unwrap();
    on_disk.put("c", "k", json!({ "t": "x".repeat(20_000) }), &app()).unwrap();
    std::fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    assert_eq!(on_disk.backup(files.at("lost"), &whole()).unwrap_err().kind(), ErrorKind::NotFound);
    let names: Vec<_> = std::fs::read_dir(files.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
    assert_eq!(verify_backup(files.0.path()).unwrap_err().kind(), ErrorKind::Validation, "a directory");
}

/// The fields that an issue's change log changes, as patches, with who made them and when.
fn real_edits(issue: &Json) -> Vec<(Json, Context)> {
    let groups = issue["changelog"]["histories"].as_array().into_iter().flatten();
    let edit = |group: &Json| {
        let items = group["items"].as_array().into_iter().flatten();
        let field = |item: &Json| (item["field"].as_str().unwrap().to_owned(), item["toString"].clone());
        let fields: Map<String, Json> = items.map(field).collect();
        let who = group["author"]["displayName"].as_str().map(str::to_owned);
        (Json::from(fields), Context { principal: who, ..Context::from_source("jira") })
    };
    groups.map(edit).collect()
}

#[test]
fn real_edits_take_few_bytes_in_a_backup() {
    let ledger = memory().create_ledger("main").unwrap();
    let issues: Vec<Json> = include_str!("../fixtures/jira-issues.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for issue in &issues {
        ledger.put("issues", issue["key"].as_str().unwrap(), json!({ "id": issue["id"] }), &app()).unwrap();
    }
    let (created, mut made) = (ledger.position(), 0);
    for issue in &issues {
        for (patch, context) in real_edits(issue) {
            made += 1;
            ledger.patch("issues", issue["key"].as_str().unwrap(), patch, &context).unwrap();
        }
    }
    let files = Files::new();
    let info = ledger.backup(files.at("edits"), &since(created)).unwrap();
    let (events, log) =
        (info.events as f64, ledger.log(&LogQuery { after: created, ..LogQuery::default() }).unwrap());
    let encoded: usize = log.iter().map(|entry| entry.event.encode().unwrap().len()).sum();
    let (bytes, encoded) = (info.bytes as f64 / events, encoded as f64 / events);
    println!("{made} real edits, {events} events: {bytes:.1} bytes each in a backup, {encoded:.1} as events");
    assert!(bytes < encoded / 3.0, "{bytes} of {encoded}");
}
