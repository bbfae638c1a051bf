//! Random replicas, edited through the public API and pulled at random: what must hold for all of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use syncledger::event::{Path, json as canonical_json};
use syncledger::ledger::{
    Act, Context, Delivered, Delivery, Edit, Ledger, Look, Options, Outcome, Place, Query, Record, RecordConflict,
    Settlement, Store, Target, Which, Write,
};
use syncledger::projection::{Policy, Strategy};
use syncledger::{Error, ErrorKind};

use crate::histories::{Rng, policies, resolvers};

/// Says which case failed.
struct Case(&'static str, u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: seed {}", self.0, self.1);
        }
    }
}

pub fn for_cases(name: &'static str, cases: u64, mut law: impl FnMut(&mut Rng)) {
    for seed in 0..cases {
        let _case = Case(name, seed);
        law(&mut Rng::new(seed));
    }
}

fn options() -> Options {
    Options { resolvers: resolvers(), ..Options::default() }
}

pub fn memory() -> Ledger {
    Store::in_memory(options()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

pub fn sound(ledger: &Ledger) {
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

// --- random edits ------------------------------------------------------------------------------------------------------

pub const KEYS: [&str; 2] = ["one", "two/~ü"];
const PATHS: [&str; 10] = ["/a", "/b", "/o", "/o/x", "/o/x/y", "/s", "/l", "/t", "/n", "/$deleted"];

fn scalar(rng: &mut Rng) -> Json {
    match rng.below(6) {
        0 => json!(null),
        1 => json!(rng.one_in(2)),
        2 => json!(["x", "y", ""][rng.below(3)]),
        3 => json!(1.5),
        _ => json!(rng.below(4)),
    }
}

fn small(rng: &mut Rng) -> Json {
    match rng.below(5) {
        0 => json!([scalar(rng), scalar(rng)]),
        1 => json!({ "x": scalar(rng) }),
        2 => json!({ "x": { "y": scalar(rng) }, "z": [] }),
        _ => scalar(rng),
    }
}

fn object(rng: &mut Rng) -> Json {
    let mut fields = Map::new();
    for _ in 0..rng.below(5) {
        let name = rng.pick(&PATHS).split('/').nth(1).unwrap().to_owned();
        fields.insert(name, small(rng));
    }
    fields.into()
}

fn an_edit(rng: &mut Rng) -> Edit {
    let at = path(rng.pick::<&str>(&PATHS));
    let (list, text) = (Place::Path(path("/l")), Place::Path(path("/t")));
    match rng.below(17) {
        0 | 1 => Edit::Put(at, small(rng)),
        2 => Edit::PutAtomic(at, small(rng)),
        3 | 4 => Edit::Remove(at),
        5 | 6 => Edit::Increment(path("/n"), rng.below(9) as i64 - 4),
        7 => Edit::MakeList(path("/l")),
        8 | 9 => Edit::Insert(list, rng.below(4) as u64, small(rng)),
        10 => Edit::RemoveAt(list, rng.below(4) as u64),
        11 => Edit::MakeText(path("/t")),
        12 | 13 => {
            let insert = ["", "é", "word "][rng.below(3)].to_owned();
            Edit::SpliceText { place: text, index: rng.below(6) as u64, delete: rng.below(3) as u64, insert }
        }
        14 => Edit::SetRemove(path("/s"), scalar(rng)),
        _ => Edit::SetAdd(path("/s"), scalar(rng)),
    }
}

fn edits(rng: &mut Rng) -> Vec<Edit> {
    (0..1 + rng.below(4)).map(|_| an_edit(rng)).collect()
}

fn act(rng: &mut Rng) -> Act {
    match rng.below(10) {
        0 | 1 => Act::Put(object(rng)),
        2 | 3 => Act::Patch(object(rng)),
        4 => Act::Delete,
        5 => Act::Undelete,
        _ => Act::Edit(edits(rng)),
    }
}

fn context(rng: &mut Rng) -> Context {
    let source = ["app", "jira", "github"][rng.below(3)];
    Context { occurred_at: rng.one_in(3).then(|| rng.below(2_000) as i64), ..Context::from_source(source) }
}

/// What a random request may be refused for.
fn tolerated<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(fault) if [ErrorKind::Validation, ErrorKind::NotFound].contains(&fault.kind()) => None,
        Err(fault) => panic!("{fault:?}"),
    }
}

/// Some random replicas of one ledger.
pub struct Replicas(pub Vec<Ledger>);

impl Replicas {
    pub fn new(rng: &mut Rng) -> Self {
        let first = memory();
        first.put("c", KEYS[0], json!({"a": 0, "o": {"x": {"y": 1}}}), &app()).unwrap();
        let made = vec![Edit::MakeList(path("/l")), Edit::MakeText(path("/t")), Edit::SetAdd(path("/s"), json!("m"))];
        first.edit("c", KEYS[0], made, &app()).unwrap();
        let mut replicas = vec![first];
        for _ in 0..1 + rng.below(2) {
            let replica = memory();
            replica.pull(&replicas[0]).unwrap();
            replicas.push(replica);
        }
        Self(replicas)
    }

    pub fn step(&self, rng: &mut Rng) {
        let ledger = &self.0[rng.below(self.0.len())];
        let key = KEYS[rng.below(10) / 8];
        match rng.below(14) {
            0 | 1 => drop(ledger.pull(&self.0[rng.below(self.0.len())]).unwrap()),
            2 => drop(tolerated(ledger.undo(&app()))),
            3 => revert_any(ledger, rng),
            4 => drop(resolve_any(ledger, rng)),
            5 => on_older_heads(ledger, key, rng),
            6 => {
                let record = Delivery { key: key.into(), value: object(rng), occurred_at: Some(rng.below(9) as i64) };
                drop(ledger.import("c", vec![record], &Context::from_source("jira")).unwrap());
            }
            7 => {
                let writes = (0..2).map(|n| Write::new("c", KEYS[n], act(rng))).collect();
                drop(tolerated(ledger.write_all(writes, &context(rng))));
            }
            _ => drop(tolerated(ledger.write(Write::new("c", key, act(rng)), &context(rng)))),
        }
    }

    pub fn exchange(&self) {
        for _ in 0..2 {
            for to in &self.0 {
                for from in &self.0 {
                    to.pull(from).unwrap();
                }
            }
        }
    }
}

fn on_older_heads(ledger: &Ledger, key: &str, rng: &mut Rng) {
    let history = ledger.history("c", key).unwrap();
    if !history.is_empty() {
        let base = history[rng.below(history.len())].entry.id;
        drop(tolerated(ledger.write(Write::new("c", key, act(rng)).on(vec![base]), &context(rng))));
    }
}

fn revert_any(ledger: &Ledger, rng: &mut Rng) {
    let log = ledger.log(&Default::default()).unwrap();
    let entry = &log[rng.below(log.len())];
    let target = match (entry.event.batch, rng.below(2)) {
        (Some(batch), 0) => Target::Batch(batch.id),
        _ => Target::Event(entry.id),
    };
    drop(tolerated(ledger.revert(&target, &app())));
}

fn resolve_any(ledger: &Ledger, rng: &mut Rng) -> Option<RecordConflict> {
    let mut open = ledger.conflicts(None, Which::Open, None).unwrap();
    // A field of this name and the deletion have one id.
    open.retain(|found| found.conflict.path != "/$deleted");
    if open.is_empty() {
        return None;
    }
    let found = rng.pick(&open).clone();
    let way = match rng.below(5) {
        0 => Settlement::Base,
        1 => Settlement::Value(small(rng)),
        _ => Settlement::Take(rng.below(found.conflict.candidates.len())),
    };
    ledger.resolve(found.conflict.id, way, Some(found.conflict.version), &app()).unwrap();
    Some(found)
}

/// Everything that a reader can be told of a ledger, but positions and times of arrival.
#[derive(Debug, PartialEq)]
struct Told {
    digest: String,
    records: Vec<Record>,
    conflicts: Vec<RecordConflict>,
    under: Vec<(Vec<Record>, Vec<RecordConflict>)>,
    blame: Vec<syncledger::ledger::Line>,
    counts: Vec<(String, String, String, u64)>,
}

fn told(ledger: &Ledger, policies: &[Policy]) -> Told {
    let list =
        |policy: Option<Policy>| ledger.list("c", &Query { deleted: true, policy, ..Query::default() }).unwrap();
    let conflicts = |policy: Option<&Policy>| ledger.conflicts(Some("c"), Which::All, policy).unwrap();
    Told {
        digest: ledger.digest().unwrap().digest,
        records: list(None),
        conflicts: conflicts(None),
        under: policies.iter().map(|policy| (list(Some(policy.clone())), conflicts(Some(policy)))).collect(),
        blame: KEYS.iter().flat_map(|key| ledger.blame("c", key).unwrap()).collect(),
        counts: ledger.status().unwrap().conflicts,
    }
}

#[test]
fn replicas_that_hold_the_same_events_tell_the_same() {
    let (mut disputed, mut settled) = (0, 0);
    for_cases("replicas", 1_000, |rng| {
        let replicas = Replicas::new(rng);
        for _ in 0..6 + rng.below(10) {
            replicas.step(rng);
        }
        replicas.exchange();
        let some = policies();
        let policies = [rng.pick(&some).clone(), rng.pick(&some).clone()];
        let first = told(&replicas.0[0], &policies);
        for other in &replicas.0[1..] {
            assert_eq!(first, told(other, &policies));
        }
        disputed += usize::from(!first.conflicts.is_empty());
        // What is derived step by step is what is derived at once.
        let ledger = rng.pick(&replicas.0);
        sound(ledger);
        if rng.one_in(4) {
            ledger.rebuild().unwrap();
            assert_eq!(first, told(ledger, &policies));
        }
        // Settling leaves nothing open there, on any replica.
        if let Some(found) = resolve_any(ledger, rng) {
            settled += 1;
            replicas.exchange();
            for ledger in &replicas.0 {
                let open = ledger.conflicts(None, Which::Open, None).unwrap();
                assert!(!open.iter().any(|open| open.conflict.id == found.conflict.id), "{}", found.conflict.path);
            }
        }
    });
    assert!(disputed > 300 && settled > 200, "{disputed} {settled}");
}

#[test]
fn a_ledger_tells_the_same_after_reopening_and_from_its_log_alone() {
    for_cases("reopened", 25, |rng| {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open =
            |dir: &std::path::Path| Store::open_with(dir, options()).unwrap().ledger_or_create("main").unwrap();
        let replicas = Replicas::new(rng);
        let ledger = open(dir.path());
        ledger.pull(&replicas.0[0]).unwrap();
        let replicas = Replicas([vec![ledger.clone()], replicas.0].concat());
        for _ in 0..40 {
            replicas.step(rng);
            if rng.one_in(10) {
                ledger.store().checkpoint().unwrap();
            }
        }
        let policies = policies();
        let answers = |ledger: &Ledger| {
            let histories: Vec<_> = KEYS.iter().map(|key| ledger.history("c", key).unwrap()).collect();
            let log = ledger.log(&Default::default()).unwrap();
            (told(ledger, &policies), histories, log, ledger.collections().unwrap(), ledger.digest().unwrap())
        };
        let before = answers(&ledger);
        ledger.rebuild_into(copy.path(), None).unwrap();
        ledger.store().close().unwrap();
        drop((ledger, replicas));
        let ledger = open(dir.path());
        assert_eq!(answers(&ledger), before, "from the checkpoint");
        ledger.store().close().unwrap();
        drop(ledger);
        std::fs::remove_dir_all(dir.path().join("rows")).unwrap();
        let ledger = open(dir.path());
        assert_eq!(answers(&ledger), before, "from the log");
        sound(&ledger);
        let copied = open(copy.path());
        assert_eq!(answers(&copied), before, "copied");
        assert_ne!(copied.info().writer, ledger.info().writer);
        sound(&copied);
    });
}

#[test]
fn settling_all_by_a_strategy_shows_what_the_strategy_showed() {
    let mut settled = 0;
    for_cases("settled", 1_000, |rng| {
        let replicas = Replicas::new(rng);
        for _ in 0..6 + rng.below(10) {
            replicas.step(rng);
        }
        replicas.exchange();
        let ledger = &replicas.0[0];
        ledger.set_policy("c", &Policy::default(), &app()).unwrap();
        let strategy = rng.pick(&["last_write_wins", "first_write_wins", "source_wins:jira,app"]);
        let strategy = Strategy::parse(strategy).unwrap();
        let look = Look { as_of: None, policy: Some(Policy::of(strategy.clone())) };
        let shown = || KEYS.map(|key| ledger.look("c", key, &look).unwrap().map(|record| record.value));
        let decided = shown();
        let done = ledger.resolve_all(None, &strategy, &app()).unwrap();
        settled += usize::from(!done.events.is_empty());
        assert_eq!(done.skipped, []);
        assert_eq!(ledger.conflicts(None, Which::Open, None).unwrap(), []);
        let told = KEYS.map(|key| ledger.get("c", key).unwrap().map(|record| record.value));
        assert_eq!((&told, &shown()), (&decided, &decided), "{strategy:?} {}", script(ledger));
        replicas.exchange();
        for other in &replicas.0 {
            assert_eq!(other.conflicts(None, Which::Open, None).unwrap(), []);
        }
    });
    assert!(settled > 400, "{settled}");
}

#[test]
fn a_later_pull_reads_what_is_new_and_another_history_of_the_same_writer_from_its_beginning() {
    let (one, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let here = Ledger::open(one.path()).unwrap();
    let put = |ledger: &Ledger, from: u64, to: u64, by: &str| {
        let write = |n: u64| Write::new("c", format!("k{n}"), Act::Put(json!({ "n": n, "by": by })));
        ledger.write_all((from..to).map(write).collect(), &app()).unwrap();
    };
    put(&here, 0, 3_000, "one");
    here.store().close().unwrap();
    crate::crashes::copy(one.path(), copied.path());
    let (here, twin, there) = (Ledger::open(one.path()).unwrap(), Ledger::open(copied.path()).unwrap(), memory());
    put(&here, 3_000, 3_005, "one");
    put(&twin, 4_000, 4_006, "twin");
    let tell = |done: syncledger::ledger::Transfer| (done.offered, done.applied, done.duplicates);
    assert_eq!(tell(there.pull(&here).unwrap()), (3_005, 3_005, 0));
    put(&here, 5_000, 5_002, "one");
    let before = here.store().work().frames;
    assert_eq!(tell(there.pull(&here).unwrap()), (3_007, 2, 3_005));
    assert!(here.store().work().frames - before < 6, "{}", here.store().work().frames - before);
    // The same writer, and another event at the position up to which it was pulled.
    assert_eq!(tell(there.pull(&twin).unwrap()), (3_006, 6, 3_000));
    assert_eq!(tell(there.pull(&here).unwrap()), (3_007, 0, 3_007));
    there.rebuild().unwrap();
    assert_eq!(tell(there.pull(&here).unwrap()), (3_007, 0, 3_007));
    assert_eq!(there.verify().unwrap().problems, [""; 0]);
}

#[test]
fn work_that_is_ended_keeps_what_it_did_and_goes_on_from_there() {
    let (here, there) = (memory(), memory());
    for chunk in 0..5 {
        let write = |n: u64| Write::new("c", format!("k{chunk}-{n}"), Act::Put(json!({ "n": n })));
        here.write_all((0..1_000).map(write).collect(), &app()).unwrap();
    }
    let ended = || Err(syncledger::Error::new(syncledger::ErrorKind::Cancelled, "enough"));
    let fault = there.pull_with(&here, &mut |_| ended()).unwrap_err();
    assert_eq!((fault.kind(), there.position()), (syncledger::ErrorKind::Cancelled, 512));
    let mut seen = Vec::new();
    let mut see = |so_far: syncledger::ledger::Transfer| {
        seen.push(so_far.offered);
        Ok(())
    };
    let rest = there.pull_with(&here, &mut see).unwrap();
    let batches: Vec<u64> = (1..10).map(|batch| batch * 512).chain([5_000]).collect();
    assert_eq!((rest.applied, rest.duplicates, seen), (5_000 - 512, 512, batches));
    assert_eq!(there.digest().unwrap(), here.digest().unwrap());
    let mut read = Vec::new();
    assert!(
        there
            .verify_with(&mut |events| {
                read.push(events);
                ended()
            })
            .is_err()
    );
    assert_eq!(read, [4_096]);
    assert_eq!(there.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_past_position_tells_what_was_told_then() {
    for_cases("past", 1_000, |rng| {
        let replicas = Replicas::new(rng);
        let mut then = Vec::new();
        for _ in 0..10 {
            replicas.step(rng);
            let ledger = &replicas.0[0];
            then.push((ledger.position(), KEYS.map(|key| ledger.get("c", key).unwrap())));
        }
        let ledger = &replicas.0[0];
        for (position, records) in then {
            for (key, record) in KEYS.iter().zip(records) {
                let look = Look { as_of: Some(syncledger::ledger::AsOf::Position(position)), policy: None };
                assert_eq!(ledger.look("c", key, &look).unwrap(), record);
            }
        }
    });
}

// --- JSON --------------------------------------------------------------------------------------------------------------

const NAMES: [&str; 22] = [
    "", "a", "b", "$", "$root", "$deleted", "$#a", "$$", "~", "/", "~1", "~0/", "a/b", "a!", " ", "é", "🦀", "\u{0}",
    "0", "-", "\"q\"", "\u{202e}",
];

fn number(rng: &mut Rng) -> Json {
    match rng.below(8) {
        0 => json!(i64::MIN),
        1 => json!(u64::MAX),
        2 => json!(f64::MAX),
        3 => json!(f64::MIN_POSITIVE),
        4 => json!(-0.0),
        5 => json!(9_007_199_254_740_993u64),
        6 => json!(f64::from_bits(rng.next())).as_f64().map_or(json!(0.1), |float| json!(float)),
        _ => json!(rng.next() as i64 >> rng.below(64)),
    }
}

fn string(rng: &mut Rng) -> String {
    let long = rng.one_in(60);
    let count = if long { 5_000 + rng.below(20_000) } else { rng.below(6) };
    (0..count).map(|_| *rng.pick(&['a', 'é', '🦀', '\u{0}', '"', '\\', '\u{2028}'])).collect()
}

fn any(rng: &mut Rng, depth: usize) -> Json {
    let deep = depth > 0 && rng.one_in(2);
    match rng.below(6) {
        0 => json!(null),
        1 => json!(rng.one_in(2)),
        2 => number(rng),
        3 if deep => (0..rng.below(4)).map(|_| any(rng, depth - 1)).collect(),
        4 | 5 if deep => any_object(rng, depth - 1),
        _ => string(rng).into(),
    }
}

fn any_object(rng: &mut Rng, depth: usize) -> Json {
    let count = rng.below(5);
    let fields: Map<String, Json> =
        (0..count).map(|_| (rng.pick::<&str>(&NAMES).to_string(), any(rng, depth))).collect();
    fields.into()
}

/// An object nested as deep as a record may be.
fn deepest(rng: &mut Rng) -> Json {
    (0..16).fold(string(rng).into(), |inner, _| {
        let name = rng.pick::<&str>(&NAMES).to_string();
        Json::Object([(name, inner), ("z".to_owned(), json!([]))].into_iter().collect())
    })
}

#[test]
fn the_json_that_goes_in_comes_out() {
    let (ledger, there) = (memory(), memory());
    let mut records = Vec::new();
    for_cases("json", 1_500, |rng| {
        let value = if rng.one_in(12) { deepest(rng) } else { any_object(rng, 5) };
        let key = format!("k{}", rng.below(300));
        ledger.put("c", &key, value.clone(), &app()).unwrap();
        let record = ledger.get("c", &key).unwrap().unwrap();
        assert_eq!(canonical_json::canonical(&record.value), canonical_json::canonical(&value));
        assert_eq!(ledger.put("c", &key, value, &app()).unwrap().outcome, Outcome::Unchanged);
        records.push(record);
    });
    there.pull(&ledger).unwrap();
    let latest: std::collections::BTreeMap<_, _> =
        records.into_iter().map(|record| (record.key.clone(), record)).collect();
    assert_eq!(there.list("c", &Query::default()).unwrap(), latest.into_values().collect::<Vec<_>>());
    sound(&ledger);
    sound(&there);
}

// --- taking back -------------------------------------------------------------------------------------------------------

#[test]
fn taking_back_restores_what_was_there_when_nothing_came_between() {
    let mut taken_back = 0;
    for_cases("revert", 1_000, |rng| {
        let ledger = Replicas::new(rng).0.remove(0);
        for _ in 0..rng.below(5) {
            drop(tolerated(ledger.write(Write::new("c", KEYS[0], act(rng)), &app())));
        }
        let shown = || ledger.get("c", KEYS[0]).unwrap().map(|record| (record.value, record.deleted)).unwrap();
        let before = shown();
        let batch = rng.one_in(3);
        let done = match batch {
            true => tolerated(ledger.write_all((0..3).map(|_| Write::new("c", KEYS[0], act(rng))).collect(), &app())),
            false => tolerated(ledger.write(Write::new("c", KEYS[0], act(rng)), &app())),
        };
        let Some(receipt) = done.filter(|receipt| receipt.outcome == Outcome::Appended) else { return };
        let after = shown();
        let undone = match rng.below(3) {
            0 => ledger.undo(&app()).unwrap(),
            1 if receipt.run.is_some() => ledger.revert(&Target::Run(receipt.run.unwrap()), &app()).unwrap(),
            _ if receipt.events.len() == 1 => ledger.revert(&Target::Event(receipt.events[0].0), &app()).unwrap(),
            _ => ledger.undo(&app()).unwrap(),
        };
        assert_eq!(undone.skipped, [], "{}", script(&ledger));
        assert_eq!(restored(shown(), &before), restored(before.clone(), &before), "{}", script(&ledger));
        taken_back += 1;
        if undone.outcome == Outcome::Appended && undone.events.len() == 1 {
            ledger.revert(&Target::Event(undone.events[0].0), &app()).unwrap();
            assert_eq!(restored(shown(), &after), restored(after.clone(), &after), "again");
        }
    });
    assert!(taken_back > 500, "{taken_back}");
}

/// The log, for people.
fn script(ledger: &Ledger) -> String {
    let line = |entry: &syncledger::ledger::Entry| {
        let (event, id) = (&entry.event, entry.id.short());
        let reverts = event.reverts.map(|id| id.short());
        format!("{} {id} {} {:?} {reverts:?} {:?}\n", entry.position, event.key, event.parents, event.ops())
    };
    ledger.log(&Default::default()).unwrap().iter().map(line).collect()
}

/// A record that was not there, or deleted, before: its value says nothing.
fn restored((value, deleted): (Json, bool), before: &(Json, bool)) -> (Json, bool) {
    if before.1 && deleted { (json!(null), true) } else { (value, deleted) }
}

#[test]
fn undoing_all_of_ones_changes_goes_back_through_every_state() {
    let mut whole = 0;
    for_cases("undo", 1_000, |rng| {
        let ledger = memory();
        let mut states = Vec::new();
        ledger.put("c", KEYS[0], json!({"a": 1, "o": {"x": 2}, "n": 3}), &app()).unwrap();
        let shown = || ledger.get("c", KEYS[0]).unwrap().unwrap().value;
        for _ in 0..6 {
            let before = shown();
            let act = if rng.one_in(3) { Act::Put(object(rng)) } else { Act::Edit(fields(rng)) };
            let done = tolerated(ledger.write(Write::new("c", KEYS[0], act), &app()));
            if done.is_some_and(|receipt| receipt.outcome == Outcome::Appended) {
                states.push(before);
            }
        }
        for before in states.iter().rev() {
            let undone = ledger.undo(&app()).unwrap();
            if undone.skipped.iter().any(|skipped| skipped.why.contains("replaced since")) {
                // A list that was replaced and brought back is another list.
                return;
            }
            assert_eq!(undone.skipped, [], "{}", script(&ledger));
            assert_eq!(shown(), *before, "{}", script(&ledger));
        }
        ledger.undo(&app()).unwrap();
        assert!(ledger.get("c", KEYS[0]).unwrap().unwrap().deleted, "{}", script(&ledger));
        whole += 1;
    });
    assert!(whole > 600, "{whole}");
}

/// Edits of fields, counters and sets, but not of items: one that was taken out and brought back is another item.
fn fields(rng: &mut Rng) -> Vec<Edit> {
    let mut edits = edits(rng);
    edits.retain(|edit| !matches!(edit, Edit::Insert(..) | Edit::RemoveAt(..) | Edit::SpliceText { .. }));
    edits
}

// --- imports -----------------------------------------------------------------------------------------------------------

#[test]
fn importing_an_older_file_again_changes_nothing_that_people_edited() {
    for_cases("older", 1_000, |rng| {
        let (ledger, jira) = (memory(), Context::from_source("jira"));
        let delivery =
            |value: &Json, at| vec![Delivery { key: "k".into(), value: value.clone(), occurred_at: Some(at) }];
        let versions: Vec<Json> = (0..3).map(|_| object(rng)).collect();
        let mut edited = false;
        for (at, version) in versions.iter().enumerate() {
            ledger.import("c", delivery(version, at as i64), &jira).unwrap();
            if rng.one_in(2) {
                edited |= tolerated(ledger.write(Write::new("c", "k", act(rng)), &app())).is_some();
            }
        }
        let before = ledger.get("c", "k").unwrap();
        for (at, version) in versions.iter().enumerate() {
            let done = ledger.import("c", delivery(version, at as i64), &jira).unwrap();
            assert!(matches!(done[0], Delivered::Unchanged), "{done:?}");
        }
        assert_eq!(ledger.get("c", "k").unwrap(), before);
        if !edited {
            assert_eq!(before.unwrap().value, versions[2]);
        }
    });
}

#[test]
fn importing_the_same_file_on_two_replicas_gives_the_same_events() {
    for_cases("alike", 1_000, |rng| {
        let (here, there) = (memory(), memory());
        here.put("other", "k", json!({}), &app()).unwrap();
        there.pull(&here).unwrap();
        // One of them may have the record already, and the second is above the limits of one event.
        if rng.one_in(2) {
            here.put("c", "k0", json!({"mine": 1}), &app()).unwrap();
        }
        let large: Map<String, Json> =
            (0..6).map(|n| (format!("f{n}"), "x".repeat(15_000 + n * 400).into())).collect();
        let file: Vec<Delivery> = [any_object(rng, 3), large.into(), json!({}), object(rng)]
            .into_iter()
            .enumerate()
            .map(|(n, value)| Delivery { key: format!("k{n}"), value, occurred_at: Some(n as i64) })
            .collect();
        let jira = Context { run: Some(here.new_run().unwrap()), ..Context::from_source("jira").by("importer") };
        let events: Vec<BTreeSet<_>> = [&here, &there]
            .map(|ledger| {
                let done = ledger.import("c", file.clone(), &jira).unwrap();
                let made = done.into_iter().flat_map(|done| match done {
                    Delivered::Created(receipt) => receipt.events.into_iter().map(|(id, _)| id),
                    other => panic!("{other:?}"),
                });
                made.collect::<BTreeSet<_>>()
            })
            .into();
        assert_eq!(events[0], events[1]);
        assert!(events[0].len() > 4);
        assert!(there.pull(&here).unwrap().applied <= 1, "but for what one of them had before");
        assert_eq!(here.pull(&there).unwrap().applied, 0);
        assert_eq!(here.digest().unwrap().digest, there.digest().unwrap().digest);
    });
}
