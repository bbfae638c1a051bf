//! The ledger on engines that break, and under many threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::clock;
use super::request::{Act, Context, Delivered, Delivery, Edit, Outcome, Query, Which, Write};
use super::row::{self, Kind};
use super::store::Engines;
use super::writer::Checkpoints;
use super::{AsOf, Ledger, Look, Options, Store};
use crate::ErrorKind;
use crate::blob::MemoryBlobs;
use crate::document::story::Story;
use crate::event::{EventId, Op, Path, Timestamp, Value, WriterId};
use crate::journal::memory::{Faults, MemoryJournal};
use crate::journal::rows::{Changes, MemoryRows, Row, Rows, RowsError};
use crate::projection::{Policy, Resolvers, Strategy, Verdict};

/// Rows that outlive the store that they were written by.
#[derive(Clone)]
struct SharedRows(Arc<MemoryRows>, Arc<AtomicUsize>);

impl Default for SharedRows {
    fn default() -> Self {
        Self(Arc::default(), Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl SharedRows {
    /// Lets so many more writes succeed.
    fn fail_after(&self, writes: usize) {
        self.1.store(writes, Ordering::SeqCst);
    }
}

impl Rows for SharedRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.0.get(key)
    }
    fn write(&self, changes: Changes, mark: &[u8]) -> Result<(), RowsError> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| RowsError::Corrupt { path: "memory".into(), what: "no more".into() })?;
        self.0.write(changes, mark)
    }
    fn mark(&self) -> Option<Vec<u8>> {
        self.0.mark()
    }
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, RowsError> {
        self.0.scan(prefix, after, limit)
    }
    fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, RowsError> {
        self.0.keys(prefix, after, limit)
    }
    fn clear(&self) -> Result<(), RowsError> {
        self.0.clear()
    }
    fn bytes_on_disk(&self) -> u64 {
        0
    }
}

fn store(journal: &Arc<MemoryJournal>, rows: &SharedRows, checkpoints: Checkpoints) -> Store {
    store_with(journal, rows, checkpoints, Options::default())
}

fn store_with(journal: &Arc<MemoryJournal>, rows: &SharedRows, checkpoints: Checkpoints, options: Options) -> Store {
    let engines =
        Engines { journal: journal.clone(), rows: Arc::new(rows.clone()), blobs: Arc::new(MemoryBlobs::default()) };
    Store::start(None, engines, options, clock::world(), checkpoints).unwrap()
}

fn open(journal: &Arc<MemoryJournal>, rows: &SharedRows) -> Ledger {
    store(journal, rows, Checkpoints::default()).ledger_or_create("main").unwrap()
}

fn often() -> Checkpoints {
    Checkpoints { rows: 3, events: 5, snapshot: 4 }
}

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn put(ledger: &Ledger, key: &str, value: Json) -> crate::Result<super::Receipt> {
    ledger.put("c", key, value, &app())
}

fn keys(ledger: &Ledger) -> Vec<String> {
    ledger.list("c", &Query::default()).unwrap().into_iter().map(|record| record.key).collect()
}

fn sound(ledger: &Ledger) {
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn removing_what_is_derived_of_one_ledger_may_end_anywhere() {
    // One ledger of several: its rows are removed in several writes, each of which may be the last before a crash.
    for last in 0..12 {
        for drops in [false, true] {
            let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
            let store = store(&journal, &rows, often());
            let (one, other) = (store.create_ledger("one").unwrap(), store.create_ledger("other").unwrap());
            for n in 0..40 {
                put(&one, &format!("k{}", n % 3), json!({ "n": n })).unwrap();
                put(&other, "a", json!({ "n": n })).unwrap();
            }
            store.checkpoint().unwrap();
            rows.fail_after(last);
            let failed = if drops { store.drop_ledger("one").is_err() } else { one.rebuild().is_err() };
            drop((one, other, store));
            rows.fail_after(usize::MAX);
            let store = super::tests::store(&Arc::new(journal.crash()), &rows, often());
            if let Ok(one) = store.ledger("one") {
                assert_eq!(keys(&one), ["k0", "k1", "k2"], "{last} {drops} {failed}");
                put(&one, "k1", json!({ "n": "later" })).unwrap();
                sound(&one);
            }
            sound(&store.ledger("other").unwrap());
        }
    }
}

// --- failing disks -----------------------------------------------------------------------------------------------------

#[test]
fn after_a_failed_flush_nothing_is_shown_or_written_until_the_store_is_opened_again() {
    for keep in [false, true] {
        for checkpoints in [Checkpoints::default(), often()] {
            let (mut journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
            let ledger = store(&journal, &rows, checkpoints).create_ledger("main").unwrap();
            for n in 0..9 {
                put(&ledger, "a", json!({ "n": n })).unwrap();
            }
            let (digest, mut events) = (ledger.digest().unwrap(), ledger.subscribe(9));
            journal.set_faults(Faults { fail_flush: Some(1), keep_unacknowledged: keep, ..Faults::default() });
            assert_eq!(put(&ledger, "a", json!({"n": "lost"})).unwrap_err().kind(), ErrorKind::Storage);
            journal.set_faults(Faults { keep_unacknowledged: keep, ..Faults::default() });
            // Poisoned: every later request fails alike, and readers see what was durable.
            for fault in [
                put(&ledger, "b", json!({})).unwrap_err(),
                ledger.rebuild().unwrap_err(),
                ledger.store().checkpoint().unwrap_err(),
                ledger.store().create_ledger("other").unwrap_err(),
                ledger.store().drop_ledger("main").unwrap_err(),
            ] {
                assert_eq!(fault.kind(), ErrorKind::Storage, "{fault}");
            }
            assert_eq!(ledger.get("c", "a").unwrap().unwrap().value, json!({"n": 8}));
            assert_eq!(ledger.digest().unwrap(), digest);
            assert!(matches!(events.next_timeout(Duration::from_millis(50)), Some(Err(_))));
            // Closing writes nothing that is in nobody's log.
            assert!(ledger.store().close().is_err());
            drop((ledger, events));
            journal = Arc::new(journal.crash());
            let ledger = open(&journal, &rows);
            let found = ledger.get("c", "a").unwrap().unwrap().value;
            assert_eq!(found, if keep { json!({"n": "lost"}) } else { json!({"n": 8}) });
            sound(&ledger);
            put(&ledger, "a", json!({"n": "next"})).unwrap();
            sound(&ledger);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    let mut rng = 7u64;
    let mut below = move |limit: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 33) % limit
    };
    let (mut journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let mut acknowledged: Vec<(u64, EventId)> = Vec::new();
    for round in 0..60 {
        let ledger = store(&journal, &rows, often()).ledger_or_create("main").unwrap();
        for (position, id) in &acknowledged {
            assert_eq!(ledger.log_reader().at(*position).unwrap().unwrap().id, *id, "round {round}");
        }
        let countdown = Some(1 + below(6));
        let faults = match below(3) {
            0 => Faults { fail_write: countdown, ..Faults::default() },
            1 => Faults { fail_flush: countdown, ..Faults::default() },
            _ => Faults { fail_flush: countdown, keep_unacknowledged: true, ..Faults::default() },
        };
        journal.set_faults(faults);
        for n in 0..8u64 {
            let key = format!("k{}", below(4));
            match put(&ledger, &key, json!({ "n": n, "round": round })) {
                Ok(receipt) => acknowledged.extend(receipt.events.iter().map(|(id, position)| (*position, *id))),
                Err(fault) => {
                    assert_eq!(fault.kind(), ErrorKind::Storage);
                    break;
                }
            }
            if below(9) == 0 {
                let _ = ledger.store().checkpoint();
            }
        }
        drop(ledger);
        journal = Arc::new(journal.crash());
    }
    assert!(acknowledged.len() > 100);
    sound(&open(&journal, &rows));
}

#[test]
fn a_full_disk_poisons_and_loses_nothing() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    put(&ledger, "a", json!({"n": 1})).unwrap();
    journal.set_faults(Faults { disk_full: true, ..Faults::default() });
    let fault = put(&ledger, "a", json!({"n": 2})).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Storage);
    assert!(fault.hint().is_some());
    assert_eq!(ledger.get("c", "a").unwrap().unwrap().value, json!({"n": 1}));
    drop(ledger);
    let ledger = open(&Arc::new(journal.crash()), &rows);
    put(&ledger, "a", json!({"n": 2})).unwrap();
    sound(&ledger);
}

#[test]
fn damage_of_the_log_is_told_and_never_another_answer() {
    let value = |n: usize| json!({ "n": n, "text": "x".repeat(n % 50) });
    for damage in 0..40 {
        let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
        let ledger = open(&journal, &rows);
        for n in 0..60 {
            put(&ledger, &format!("k{}", n % 5), value(n)).unwrap();
        }
        ledger.store().checkpoint().unwrap();
        let id = ledger.info().id;
        let done = match damage % 2 {
            0 => journal.flip_bit(id, 1 + damage as u64, damage * 37),
            _ => journal.lose_frame(id, 1 + damage as u64),
        };
        assert!(done);
        assert_ne!(ledger.verify().unwrap().problems, Vec::<String>::new());
        for key in 0..5 {
            match ledger.history("c", &format!("k{key}")) {
                Ok(history) => assert!(history.iter().all(|revision| revision.after.is_some())),
                Err(fault) => assert_eq!(fault.kind(), ErrorKind::Corrupt),
            }
        }
        // Rebuilding from a damaged log is refused, and what is shown stays.
        assert_eq!(ledger.rebuild().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(keys(&ledger).len(), 5);
    }
}

// --- derived state -----------------------------------------------------------------------------------------------------

#[test]
fn the_past_of_a_long_record_is_read_from_the_marks_on_its_way() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let options = Options { check_rows: false, ..Options::default() };
    let store = store_with(&journal, &rows, often(), options);
    let ledger = store.create_ledger("main").unwrap();
    let id = ledger.info().id;
    let first = put(&ledger, "k", json!({ "n": 0 })).unwrap().events[0].0;
    let patch = |n: usize| {
        [
            Write::new("c", "k", Act::Patch(json!({ "n": n }))),
            Write::new("c", format!("other {n}"), Act::Put(json!({}))),
        ]
    };
    for batch in (1..=700).collect::<Vec<usize>>().chunks(50) {
        ledger.write_all(batch.iter().flat_map(|n| patch(*n)).collect(), &app()).unwrap();
    }
    store.checkpoint().unwrap();
    let record = ("c".to_owned(), "k".to_owned());
    assert_eq!(rows.keys(&row::marks(id, &record), None, 99).unwrap().len(), 2);
    let history = ledger.history("c", "k").unwrap();
    let tells_the_past = |ledger: &Ledger| {
        let value = |as_of| {
            let look = Look { as_of: Some(as_of), policy: None };
            ledger.look("c", "k", &look).unwrap().map(|found| found.value)
        };
        assert_eq!((value(AsOf::Position(0)), value(AsOf::Time(0))), (None, None));
        for n in [0, 1, 254, 255, 256, 257, 510, 511, 512, 600, 700] {
            let entry = &history[n].entry;
            assert_eq!(history[n].after, Some(json!({ "n": n })));
            for position in [entry.position, entry.position + u64::from(n > 0)] {
                assert_eq!(value(AsOf::Position(position)), history[n].after, "{position}");
            }
            let millis = entry.event.at.millis;
            let until = history.iter().rfind(|revision| revision.entry.event.at.millis <= millis).unwrap();
            assert_eq!(value(AsOf::Time(millis)), until.after);
        }
    };
    let before = store.work();
    tells_the_past(&ledger);
    let work = store.work();
    assert_eq!(work.derived, before.derived);
    sound(&ledger);
    // One that is damaged is found, and nothing else is called wrong for it.
    let [early, late] = [255, 511].map(|n: usize| row::mark(id, &record, history[n].entry.position));
    for wrong in [rows.get(&early).unwrap(), Some(b"?".to_vec())] {
        rows.write(vec![(late.clone(), wrong)], &rows.mark().unwrap()).unwrap();
        let problems = ledger.verify().unwrap().problems;
        assert!(problems.len() == 1 && problems[0].contains("position"), "{problems:?}");
    }
    ledger.rebuild().unwrap();
    sound(&ledger);
    tells_the_past(&ledger);
    // What is made apart later changes nothing of what was known before, and is told from the document.
    let apart = Write::new("c", "k", Act::Patch(json!({ "n": -1 }))).on(vec![first]);
    ledger.write(apart, &app()).unwrap();
    let now = Look { as_of: Some(AsOf::Position(ledger.position())), policy: None };
    assert_eq!(ledger.look("c", "k", &now).unwrap().unwrap().conflicts.len(), 1);
    let then = Look { as_of: Some(AsOf::Position(history[300].entry.position)), policy: None };
    assert_eq!(ledger.look("c", "k", &then).unwrap().unwrap().value, json!({ "n": 300 }));
    sound(&ledger);
}

#[test]
fn a_batch_that_changes_a_policy_changes_records_that_were_made_apart_too() {
    let ledger = open(&Arc::new(MemoryJournal::new()), &SharedRows::default());
    let first = put(&ledger, "r", json!({ "a": 1, "b": 1 })).unwrap().events[0].0;
    for field in ["a", "b"] {
        let apart = Write::new("c", "r", Act::Patch(json!({ field: 2 }))).on(vec![first]);
        ledger.write(apart, &app()).unwrap();
    }
    let policy = Write::new("$collections", "c", Act::Put(json!({ "policy": { "default": "manual" } })));
    let patch = Write::new("c", "r", Act::Patch(json!({ "a": 3 })));
    assert_eq!(ledger.write_all(vec![policy, patch], &app()).unwrap().events.len(), 2);
    assert_eq!(ledger.get("c", "r").unwrap().unwrap().value, json!({ "a": 3, "b": 2 }));
    sound(&ledger);
}

#[test]
fn planted_damage_of_what_is_derived_is_found_and_repaired() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = store(&journal, &rows, often()).create_ledger("main").unwrap();
    let id = ledger.info().id;
    for n in 0..40 {
        put(&ledger, &format!("k{}", n % 3), json!({ "n": n })).unwrap();
    }
    let keyed = Context { idempotency_key: Some("r".into()), ..app() };
    ledger.put("c", "k0", json!({"n": 1}), &keyed).unwrap();
    let write = |key: Vec<u8>, value: Option<Vec<u8>>| rows.write(vec![(key, value)], &rows.mark().unwrap()).unwrap();
    let at = |kind, key: &str| row::key(kind, id, "c", key);
    let get = |key: &[u8]| rows.get(key).unwrap().unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let plant: Vec<Damage<'_>> = vec![
        ("a wrong row", Box::new(|| write(at(Kind::Row, "k1"), Some(get(&at(Kind::Row, "k2")))))),
        ("a lost row", Box::new(|| write(at(Kind::Row, "k1"), None))),
        ("an unreadable row", Box::new(|| write(at(Kind::Row, "k1"), Some(b"?".to_vec())))),
        ("a row of no record", Box::new(|| write(at(Kind::Row, "kx"), Some(get(&at(Kind::Row, "k2")))))),
        ("another's snapshot", Box::new(|| write(at(Kind::Document, "k1"), Some(get(&at(Kind::Document, "k2")))))),
    ];
    for (what, plant) in plant {
        ledger.store().checkpoint().unwrap();
        plant();
        ledger.shared().forget_clean();
        assert_ne!(ledger.verify().unwrap().problems, Vec::<String>::new(), "{what}");
        ledger.rebuild().unwrap();
        sound(&ledger);
    }
    // Counts that say otherwise.
    ledger.shared().metas.write().unwrap().get_mut(&id).unwrap().disputed.insert(("c".into(), "k1".into()));
    assert_eq!(ledger.verify().unwrap().problems.len(), 1);
    ledger.rebuild().unwrap();
    sound(&ledger);
}

#[test]
fn a_back_pointer_that_points_elsewhere_is_found() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let id = ledger.info().id;
    for n in 0..3 {
        put(&ledger, "a", json!({ "n": n })).unwrap();
    }
    let mut entry = ledger.log_reader().at(3).unwrap().unwrap();
    entry.event.parents = vec![entry.id];
    (entry.event.nth, entry.event.sequence) = (4, 4);
    entry.event.at = entry.event.at.next();
    (entry.position, entry.previous) = (4, 1);
    entry.id = entry.event.identify(id).unwrap().0;
    let frames = super::packing::pack(&[entry]).unwrap();
    crate::journal::Journal::append(&*journal, &[crate::journal::Append { ledger: id, expected_head: 3, frames }])
        .unwrap();
    drop(ledger);
    // To compare a row with its document's, its events would have to be found.
    let options = Options { check_rows: false, ..Options::default() };
    let store = store_with(&Arc::new(journal.crash()), &rows, Checkpoints::default(), options);
    let ledger = store.ledger_or_create("main").unwrap();
    assert!(ledger.verify().unwrap().problems.iter().any(|problem| problem.contains("points back")));
}

#[test]
fn damaged_rows_are_made_again_for_all_ledgers_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Store::open(dir.path()).unwrap();
        for name in ["one", "two"] {
            let ledger = store.create_ledger(name).unwrap();
            put(&ledger, "k", json!({"text": "x".repeat(3_000), "name": name})).unwrap();
        }
        store.close().unwrap();
    }
    // Every byte of the row files is flipped in turn, coarsely.
    let rows = dir.path().join("rows");
    let files: Vec<_> = std::fs::read_dir(&rows).unwrap().map(|file| file.unwrap().path()).collect();
    let whole: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (damaged, bytes) in files.iter().zip(&whole) {
        for at in (0..bytes.len()).step_by(bytes.len() / 12 + 1) {
            std::fs::remove_dir_all(&rows).unwrap();
            std::fs::create_dir(&rows).unwrap();
            files.iter().zip(&whole).for_each(|(file, whole)| std::fs::write(file, whole).unwrap());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(damaged, flipped).unwrap();
            read_all(dir.path());
        }
    }
}

fn read_all(dir: &std::path::Path) {
    let store = Store::open(dir).unwrap();
    for name in ["one", "two"] {
        let ledger = store.ledger(name).unwrap();
        match ledger.get("c", "k") {
            Ok(record) => assert_eq!(record.unwrap().value["name"], name),
            Err(fault) => {
                assert_eq!(fault.kind(), ErrorKind::Corrupt);
                ledger.rebuild().unwrap();
            }
        }
        assert_eq!(ledger.get("c", "k").unwrap().unwrap().value["name"], name);
        sound(&ledger);
    }
    store.close().unwrap();
}

#[test]
fn answers_do_not_depend_on_where_rows_and_snapshots_come_from() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = store(&journal, &rows, often()).create_ledger("main").unwrap();
    for n in 0..60 {
        let key = format!("k{}", n % 4);
        put(&ledger, &key, json!({ "n": n, "a": { "b": n } })).unwrap();
        let heads = ledger.get("c", &key).unwrap().unwrap().heads;
        if n % 7 == 6 {
            put(&ledger, &key, json!({ "n": "x" })).unwrap();
            ledger.write(Write::new("c", &key, Act::Patch(json!({ "n": "y" }))).on(heads), &app()).unwrap();
        }
    }
    let answers = |ledger: &Ledger| {
        let all = ledger.list("c", &Query { deleted: true, ..Query::default() }).unwrap();
        let histories: Vec<_> = (0..4).map(|n| ledger.history("c", &format!("k{n}")).unwrap()).collect();
        let conflicts = ledger.conflicts(None, Which::All, None).unwrap();
        (all, histories, conflicts, ledger.digest().unwrap(), ledger.status().unwrap().conflicts)
    };
    let before = answers(&ledger);
    assert!(rows.keys(&row::ledger_prefix(Kind::Document, ledger.info().id), None, 99).unwrap().len() == 4);
    ledger.store().close().unwrap();
    let ledger = open(&Arc::new(journal.crash()), &rows);
    assert_eq!(answers(&ledger), before);
    ledger.store().close().unwrap();
    let ledger = open(&Arc::new(journal.crash()), &SharedRows::default());
    assert_eq!(answers(&ledger), before);
    // Rows that another version derived are no rows.
    ledger.store().close().unwrap();
    rows.write(vec![], b"syncledger 0").unwrap();
    let ledger = open(&Arc::new(journal.crash()), &rows);
    assert_eq!(answers(&ledger), before);
    sound(&ledger);
}

#[test]
fn what_a_custom_strategy_shows_follows_the_program_that_has_it() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let mut resolvers = Resolvers::default();
    resolvers.register("least", |_: &crate::projection::Dispute| Verdict::Value(json!("made")));
    let with = Options { resolvers, ..Options::default() };
    let ledger = store_with(&journal, &rows, often(), with.clone()).create_ledger("main").unwrap();
    ledger.set_policy("c", &Policy::of(Strategy::Custom("least".into())), &app()).unwrap();
    put(&ledger, "k", json!({"f": 0})).unwrap();
    let heads = ledger.get("c", "k").unwrap().unwrap().heads;
    for n in [1, 2] {
        ledger.write(Write::new("c", "k", Act::Patch(json!({ "f": n }))).on(heads.clone()), &app()).unwrap();
    }
    let shown = |ledger: &Ledger| ledger.get("c", "k").unwrap().unwrap().value["f"].clone();
    assert_eq!(shown(&ledger), "made");
    ledger.store().close().unwrap();
    let ledger = open(&Arc::new(journal.crash()), &rows);
    assert_eq!(shown(&ledger), 0, "as manual: there is no such strategy here");
    ledger.store().close().unwrap();
    let ledger = store_with(&Arc::new(journal.crash()), &rows, often(), with).ledger("main").unwrap();
    assert_eq!(shown(&ledger), "made");
}

// --- ledgers of a store ------------------------------------------------------------------------------------------------

#[test]
fn a_dropped_ledger_leaves_nothing_behind_for_one_of_the_same_id() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let store = store(&journal, &rows, often());
    let (first, elsewhere) = (store.create_ledger("first").unwrap(), Store::in_memory(Options::default()).unwrap());
    for n in 0..9 {
        put(&first, &format!("k{n}"), json!({ "n": n })).unwrap();
    }
    let copy = elsewhere.create_ledger("copy").unwrap();
    copy.pull(&first).unwrap();
    copy.delete("c", "k0", &app()).unwrap();
    store.drop_ledger("first").unwrap();
    assert_eq!(put(&first, "k0", json!({})).unwrap_err().kind(), ErrorKind::NotFound);
    let second = store.create_ledger("second").unwrap();
    assert_eq!(second.pull(&copy).unwrap().applied, 10);
    assert_eq!(second.info().id, copy.info().id);
    assert_eq!(keys(&second), keys(&copy));
    sound(&second);
    // Only an empty ledger becomes a replica of another.
    let third = store.create_ledger("third").unwrap();
    put(&third, "k", json!({})).unwrap();
    let refused = third.pull(&copy).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LedgerMismatch);
    let words = format!("expected events of ledger {}, got those of {}", third.info().id, copy.info().id);
    assert_eq!(refused.message(), words, "seen from here");
    put(&third, "k", json!({"still": "here"})).unwrap();
}

#[test]
fn a_failed_batch_leaves_the_works_of_its_group_as_they_were() {
    // All of these are in one group: the first is held up while the others queue.
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    put(&ledger, "k", json!({"n": 0})).unwrap();
    let go = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let held = (go.clone(), ledger.clone());
        scope.spawn(move || {
            let wait = held.0;
            let done: crate::Result<()> = held.1.store().queue().run(held.1.info().id, move |_| {
                while !wait.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                Ok(())
            });
            done.unwrap();
        });
        std::thread::sleep(Duration::from_millis(30));
        let run = |n: u64, work: Box<dyn Fn(&Ledger) + Send>| {
            let ledger = ledger.clone();
            scope.spawn(move || work(&ledger));
            std::thread::sleep(Duration::from_millis(10 + n));
        };
        run(0, Box::new(|ledger| drop(ledger.patch("c", "k", json!({"a": 1}), &app()).unwrap())));
        run(
            1,
            Box::new(|ledger| {
                // Refused while its second record is staged: its principal is too long an event's.
                let long = Context { principal: Some("p".repeat(300)), ..app() };
                let fault = ledger.batch(&long, |batch| {
                    batch.patch("c", "k", json!({"a": 2})).put("c", "other", json!({}));
                });
                assert_eq!(fault.unwrap_err().kind(), ErrorKind::Validation);
            }),
        );
        run(
            2,
            Box::new(|ledger| {
                let keyed = Context { idempotency_key: Some("once".into()), ..app() };
                assert_eq!(ledger.patch("c", "k", json!({"b": 1}), &keyed).unwrap().outcome, Outcome::Appended);
            }),
        );
        run(
            3,
            Box::new(|ledger| {
                let keyed = Context { idempotency_key: Some("once".into()), ..app() };
                assert_eq!(ledger.patch("c", "k", json!({"b": 1}), &keyed).unwrap().outcome, Outcome::Duplicate);
                let fault = ledger.patch("c", "k", json!({"b": 2}), &keyed).unwrap_err();
                assert_eq!(fault.kind(), ErrorKind::IdempotencyMismatch);
            }),
        );
        go.store(true, Ordering::SeqCst);
    });
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().value, json!({"n": 0, "a": 1, "b": 1}));
    assert_eq!(ledger.get("c", "other").unwrap(), None);
    assert_eq!(ledger.position(), 3);
    sound(&ledger);
}

#[test]
fn a_plan_that_fails_after_others_were_staged_takes_them_back() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    put(&ledger, "k", json!({"n": 0})).unwrap();
    let id = ledger.info().id;
    let done: crate::Result<()> = ledger.store().queue().run(id, |writing| {
        // Staged by an earlier work of the group.
        writing.write_all(&[Write::new("c", "k", Act::Patch(json!({"n": 1})))], &app())?;
        // Staged half, then refused: the set's member is too long for an event.
        let long = Edit::SetAdd(path("/s"), json!("m".repeat(300)));
        let writes = [Write::new("c", "k", Act::Patch(json!({"n": 2}))), Write::new("c", "x", Act::Edit(vec![long]))];
        assert!(writing.write_all(&writes, &app()).is_err());
        assert_eq!(writing.state.staged.len(), 1);
        let row = writing.state.row(writing.shared, &("c".into(), "k".into()))?.unwrap();
        assert_eq!(row.content.whole().json, json!({"n": 1}));
        // And what comes after it stands on the first.
        writing.write_all(&[Write::new("c", "k", Act::Patch(json!({"m": 3})))], &app())?;
        Ok(())
    });
    done.unwrap();
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().value, json!({"n": 1, "m": 3}));
    assert_eq!(ledger.get("c", "x").unwrap(), None);
    sound(&ledger);
}

#[test]
fn a_panic_of_the_writer_poisons_the_store() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    put(&ledger, "k", json!({"n": 0})).unwrap();
    let id = ledger.info().id;
    let fault: crate::Result<()> = ledger.store().queue().run(id, |writing| {
        writing.write_all(&[Write::new("c", "k", Act::Patch(json!({"n": 1})))], &app())?;
        panic!("a fault");
    });
    assert_eq!(fault.unwrap_err().kind(), ErrorKind::Consistency);
    assert_eq!(put(&ledger, "k", json!({"n": 2})).unwrap_err().kind(), ErrorKind::Consistency);
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().value, json!({"n": 0}));
    drop(ledger);
    let ledger = open(&Arc::new(journal.crash()), &rows);
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().value, json!({"n": 0}));
    sound(&ledger);
}

#[test]
fn memory_is_bounded_for_all_ledgers_together() {
    let options = Options { cache_bytes: 1 << 19, ..Options::default() };
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let store = store_with(&journal, &rows, often(), options);
    let ledgers: Vec<Ledger> = (0..8).map(|n| store.create_ledger(&format!("l{n}")).unwrap()).collect();
    for n in 0..1_600 {
        let ledger = &ledgers[n % 8];
        put(ledger, &format!("k{n}"), json!({ "n": n })).unwrap();
        // Also work that appends nothing holds what it read.
        put(ledger, &format!("k{n}"), json!({ "n": n })).unwrap();
    }
    let held: u64 = ledgers.iter().map(|ledger| ledger.status().unwrap().cached.1).sum();
    assert!((1 << 16..(1 << 18) + (1 << 16)).contains(&held), "{held}");
}

// --- events of others --------------------------------------------------------------------------------------------------

fn entry_bytes(ledger: &Ledger, position: u64) -> Vec<u8> {
    ledger.log_reader().at(position).unwrap().unwrap().event.encode().unwrap()
}

#[test]
fn an_event_that_waits_for_one_that_is_made_here_is_taken_in() {
    let memory = || Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let (here, there) = (memory(), memory());
    here.put("other", "k", json!({}), &app()).unwrap();
    there.pull(&here).unwrap();
    let jira = Context::from_source("jira");
    let version = || vec![Delivery { key: "k".into(), value: json!({"s": 1}), occurred_at: Some(1_000) }];
    assert!(matches!(there.import("c", version(), &jira).unwrap()[0], Delivered::Created(_)));
    there.patch("c", "k", json!({"s": 2}), &app()).unwrap();
    // The edit arrives before what it was made on, which is imported here meanwhile.
    let transfer = here.apply(there.info().id, &[entry_bytes(&there, 3)]).unwrap();
    assert_eq!((transfer.applied, transfer.waiting), (0, 1));
    assert_eq!(here.status().unwrap().waiting, 1);
    assert!(matches!(here.import("c", version(), &jira).unwrap()[0], Delivered::Created(_)));
    assert_eq!(here.get("c", "k").unwrap().unwrap().value, json!({"s": 2}));
    assert_eq!(here.digest().unwrap().digest, there.digest().unwrap().digest);
    assert_eq!(here.status().unwrap().waiting, 0);
    sound(&here);
}

#[test]
fn what_waits_for_an_event_that_breaks_a_rule_is_let_go() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let id = ledger.info().id;
    let mut story = Story::default();
    let op = |n: i64| vec![Op::Put { path: path("/n"), value: Value::Int(n) }];
    let first = story.draft(&[], 10, "a", op(1));
    let first_id = first.identify(id).unwrap().0;
    let mut second = story.draft(&[], 20, "b", op(2));
    (second.parents, second.nth) = (vec![first_id], 9);
    let second_id = second.identify(id).unwrap().0;
    let mut third = story.draft(&[], 30, "c", op(3));
    third.parents = vec![second_id];
    let bytes: Vec<Vec<u8>> = [&third, &second].map(|event| event.encode().unwrap()).to_vec();
    assert_eq!(ledger.apply(id, &bytes).unwrap().waiting, 2);
    assert_eq!(ledger.apply(id, &[first.encode().unwrap()]).unwrap().applied, 1);
    assert_eq!(ledger.status().unwrap().waiting, 0);
    let fault = ledger.apply(id, &bytes[1..]).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Validation);
    assert_eq!(story.write("x", &[], 1, "z", op(1)).events.len(), 1);
    sound(&ledger);
}

#[test]
fn a_number_that_others_claim_for_this_writer_breaks_nothing() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let (id, writer) = (ledger.info().id, ledger.info().writer);
    put(&ledger, "k", json!({"n": 0})).unwrap();
    for sequence in [u64::MAX, u64::MAX - 1, 1] {
        let mut event = Story::default().draft(&[], 10, "a", vec![Op::Delete]);
        (event.writer, event.sequence, event.key) = (writer, sequence, format!("k{sequence}"));
        event.at = Timestamp::MAX;
        ledger.apply(id, &[event.encode().unwrap()]).unwrap();
    }
    put(&ledger, "k", json!({"n": 1})).unwrap();
    put(&ledger, "l", json!({"n": 1})).unwrap();
    assert!(ledger.status().unwrap().forked_writers.contains(&writer));
    sound(&ledger);
    drop(ledger);
    let ledger = open(&Arc::new(journal.crash()), &rows);
    put(&ledger, "k", json!({"n": 2})).unwrap();
    sound(&ledger);
}

#[test]
fn a_fork_within_a_record_is_reported() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let id = ledger.info().id;
    let op = |n: i64| vec![Op::Put { path: path("/n"), value: Value::Int(n) }];
    for n in 1..3 {
        let mut event = Story::default().draft(&[], 10, "a", op(n));
        event.sequence = n as u64;
        ledger.apply(id, &[event.encode().unwrap()]).unwrap();
    }
    let mut writer = [0; 16];
    writer[0] = b'a';
    assert_eq!(ledger.status().unwrap().forked_writers, [WriterId(writer)]);
    sound(&ledger);
}

#[test]
fn an_import_without_a_version_uses_up_a_number_of_this_writer() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let version = vec![Delivery { key: "k".into(), value: json!({"s": 1}), occurred_at: None }];
    ledger.import("c", version, &Context::from_source("csv")).unwrap();
    ledger.store().close().unwrap();
    let ledger = open(&Arc::new(journal.crash()), &rows);
    put(&ledger, "l", json!({})).unwrap();
    let numbers: Vec<u64> = (1..3).map(|at| ledger.log_reader().at(at).unwrap().unwrap().event.sequence).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn the_policy_of_a_system_collection_stays_what_it_is() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = open(&journal, &rows);
    let before = ledger.policy("$collections").unwrap();
    ledger.put("$collections", "$collections", json!({"policy": "manual"}), &app()).unwrap();
    assert_eq!(ledger.policy("$collections").unwrap(), before);
    sound(&ledger);
}

// --- threads -----------------------------------------------------------------------------------------------------------

#[test]
fn a_ledger_may_be_used_from_any_thread() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    fn sends<T: Send + 'static>() {}
    check::<Ledger>();
    check::<Store>();
    check::<super::Collection<Json>>();
    sends::<super::Subscription>();
}

#[test]
fn readers_writers_and_subscribers_agree_while_derived_state_is_written() {
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let options = Options { cache_bytes: 1 << 18, ..Options::default() };
    let ledger = store_with(&journal, &rows, often(), options).create_ledger("main").unwrap();
    let (writers, each) = (3usize, 100usize);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ledger, done) = (&ledger, &done);
        let writing: Vec<_> = (0..writers)
            .map(|writer| {
                scope.spawn(move || {
                    for n in 0..each {
                        let key = format!("w{writer}-{}", n % 5);
                        let receipt = put(ledger, &key, json!({ "n": n })).unwrap();
                        // What was answered is shown at once.
                        let seen = ledger.get("c", &key).unwrap().unwrap();
                        assert_eq!(seen.value["n"], n);
                        assert_eq!(seen.heads, [receipt.events.last().unwrap().0]);
                        if n >= 5 {
                            assert!(
                                keys(ledger).iter().filter(|key| key.starts_with(&format!("w{writer}-"))).count()
                                    == 5
                            );
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(move || {
                let mut last = std::collections::BTreeMap::new();
                for (next, entry) in (1..).zip(ledger.subscribe(0).take(writers * each)) {
                    let entry = entry.unwrap();
                    assert_eq!(entry.position, next, "no gap and no duplicate");
                    // What was given is shown, and nothing shown goes back.
                    let shown = ledger.get("c", &entry.event.key).unwrap().unwrap();
                    let n = shown.value["n"].as_u64().unwrap();
                    let before = last.insert(entry.event.key.clone(), n).unwrap_or(0);
                    assert!(n >= before);
                }
            });
        }
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let listed = ledger.list("c", &Query::default()).unwrap();
                assert!(listed.is_sorted_by(|a, b| a.key < b.key));
                ledger.store().checkpoint().unwrap();
                ledger.rebuild().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        writing.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(ledger.position(), (writers * each) as u64);
    sound(&ledger);
}

#[test]
fn a_row_read_while_another_is_published_is_not_remembered() {
    // A reader that read the row file before a checkpoint must not keep what it found beyond it.
    let (journal, rows) = (Arc::new(MemoryJournal::new()), SharedRows::default());
    let ledger = store(&journal, &rows, Checkpoints::default()).create_ledger("main").unwrap();
    let shared = ledger.shared();
    put(&ledger, "k", json!({"n": 0})).unwrap();
    ledger.store().checkpoint().unwrap();
    let generation = shared.clean_generation();
    put(&ledger, "k", json!({"n": 1})).unwrap();
    assert_ne!(shared.clean_generation(), generation);
    let generation = shared.clean_generation();
    ledger.store().checkpoint().unwrap();
    assert_ne!(shared.clean_generation(), generation, "who read before the checkpoint forgets it after");
}

#[test]
fn who_waits_for_what_is_durable_to_be_shown_is_told_when_it_is() {
    let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let (waiting, (tell, told)) = (ledger.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let shown = waiting.store().shared().await_shown(waiting.id(), 1, Duration::from_secs(600));
        tell.send(shown).unwrap();
    });
    // Until then it waits; where it does not yet, there is nothing to tell it.
    std::thread::sleep(Duration::from_millis(200));
    ledger.put("c", "k", json!({}), &Context::default()).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(1), "it was not told");
}
