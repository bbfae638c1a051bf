//! Logs that are written again, compared with ledgers that never held what went, and stopped at each step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as Dir;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use super::super::request::{Act, Context, Edit, Entry, Outcome, Place, Query, Settlement, Target, Which, Write};
use super::super::{Ledger, LogQuery, Machine, Options, Peer, SessionOptions, Store};
use super::Again;
use super::stamping::named_by;
use crate::ErrorKind;
use crate::event::{Event, EventId, Path};
use crate::projection::Status;
use crate::replication::Message;
use crate::testing::Rng;

fn app() -> Context {
    Context::from_source("app").by("ann")
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn log(ledger: &Ledger) -> Vec<Entry> {
    ledger.log(&LogQuery::default()).unwrap()
}

fn ids(ledger: &Ledger) -> Vec<EventId> {
    log(ledger).into_iter().map(|entry| entry.id).collect()
}

fn stamping(events: impl IntoIterator<Item = EventId>) -> Again {
    Again { stamp_again: events.into_iter().collect(), ..Again::default() }
}

fn withdrawing(events: impl IntoIterator<Item = EventId>) -> Again {
    Again { withdraw: events.into_iter().collect(), ..Again::default() }
}

/// What a ledger shows: its records, and the conflicts without the events that their candidates come from.
fn shown(ledger: &Ledger) -> BTreeMap<(String, String), (Json, Vec<String>)> {
    let mut shown = BTreeMap::new();
    for info in ledger.collections().unwrap() {
        for record in ledger.list(&info.name, &Query::default()).unwrap() {
            shown.insert((info.name.clone(), record.key), (record.value, Vec::new()));
        }
    }
    for found in ledger.conflicts(None, Which::All, None).unwrap() {
        let values: Vec<_> = found.conflict.candidates.iter().map(|one| format!("{:?}", one.value)).collect();
        let status = match &found.conflict.status {
            Status::Resolved { .. } => "resolved".to_owned(),
            other => format!("{other:?}"),
        };
        let told = format!("{} {status} {values:?}", found.conflict.path);
        // A record that is deleted is in no list.
        shown.entry((found.collection, found.key)).or_default().1.push(told);
    }
    shown
}

fn sound(ledger: &Ledger) {
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

/// A ledger that holds these events of another, and nothing else.
fn of_events(other: &Ledger, entries: &[Entry]) -> Ledger {
    let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let bytes: Vec<_> = entries.iter().map(|entry| entry.event.encode().unwrap()).collect();
    let done = ledger.apply(other.info().id, &bytes).unwrap();
    assert_eq!((done.applied, done.waiting), (entries.len() as u64, 0));
    ledger
}

// --- random histories --------------------------------------------------------------------------------------------------

/// Two replicas of a ledger, whose clock goes on with each edit.
struct Pair {
    ours: Ledger,
    theirs: Ledger,
    machines: [Machine; 2],
    now_ms: AtomicI64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let machines = [Machine::new(2 * seed + 1, 1_000), Machine::new(2 * seed + 2, 1_000)];
        let [ours, theirs] = [&machines[0], &machines[1]]
            .map(|machine| machine.open(Options::default()).unwrap().create_ledger("main").unwrap());
        ours.put("c", "k0", json!({ "n": 0 }), &app()).unwrap();
        theirs.pull(&ours).unwrap();
        Self { ours, theirs, machines, now_ms: AtomicI64::new(1_000) }
    }

    fn tick(&self) {
        let now_ms = self.now_ms.fetch_add(10, Ordering::SeqCst) + 10;
        self.machines.iter().for_each(|machine| machine.set_now_ms(now_ms));
    }

    fn edit(&self, rng: &mut Rng, ledger: &Ledger) {
        self.tick();
        let _ = any_edit(rng, ledger);
    }
}

/// An edit of some kind, which may be refused.
fn any_edit(rng: &mut Rng, ledger: &Ledger) -> crate::Result<()> {
    let key = format!("k{}", rng.below(4));
    let field = path(&format!("/{}", rng.pick(&["a", "b", "c"])));
    let place = |name: &str| Place::Path(path(name));
    let edit = match rng.below(12) {
        0 => Edit::Put(field, json!(rng.below(5))),
        1 => Edit::Put(field, json!({ "x": rng.below(3), "y": "z" })),
        2 => Edit::Increment(path("/count"), rng.below(5) as i64 - 2),
        3 => Edit::SetAdd(path("/labels"), json!(rng.below(4))),
        4 => Edit::SetRemove(path("/labels"), json!(rng.below(4))),
        5 => Edit::MakeList(path("/list")),
        6 => Edit::MakeText(path("/text")),
        7 => Edit::Insert(place("/list"), rng.below(4) as u64, json!(rng.below(100))),
        8 => Edit::RemoveAt(place("/list"), rng.below(3) as u64),
        9 => Edit::Remove(field),
        _ => Edit::SpliceText {
            place: place("/text"),
            index: rng.below(5) as u64,
            delete: rng.below(2) as u64,
            insert: "ab".repeat(rng.below(3)),
        },
    };
    match rng.below(20) {
        0 => ledger.delete("c", &key, &app()).map(drop),
        1 => ledger.put("c", &key, json!({ "a": rng.below(3), "again": true }), &app()).map(drop),
        2 => ledger.undo(&app()).map(drop),
        3 => match ledger.conflicts(None, Which::Open, None)?.first() {
            Some(found) => ledger.resolve(found.conflict.id, Settlement::Take(0), None, &app()).map(drop),
            None => Ok(()),
        },
        4 => {
            let writes =
                [0, 1].map(|n| Write::new("c", format!("k{n}"), Act::Patch(json!({ "both": rng.below(9) }))));
            ledger.write_all(writes.to_vec(), &app()).map(drop)
        }
        5 => {
            // On an older state.
            let entries = log(ledger);
            let base = rng.pick(&entries);
            let write = Write::new(&base.event.collection, &base.event.key, Act::Edit(vec![edit]));
            ledger.write(write.on(vec![base.id]), &app()).map(drop)
        }
        _ => ledger.edit("c", &key, vec![edit], &app()).map(drop),
    }
}

/// The events that name one of these, or one that does.
fn built_on(entries: &[Entry], named: &BTreeSet<EventId>) -> BTreeSet<EventId> {
    let mut all = named.clone();
    for entry in entries {
        if named_by(&entry.event).any(|event| all.contains(&event)) {
            all.insert(entry.id);
        }
    }
    all
}

/// A pair with a history, and some of what the one alone has.
fn some_history(seed: u64) -> (Pair, Rng, BTreeSet<EventId>) {
    let (pair, mut rng) = (Pair::new(seed), Rng::new(seed));
    for _ in 0..20 + rng.below(30) {
        pair.edit(&mut rng, &pair.ours);
        pair.edit(&mut rng, &pair.theirs);
        if rng.one_in(6) {
            pair.ours.pull(&pair.theirs).unwrap();
            pair.theirs.pull(&pair.ours).unwrap();
        }
    }
    for _ in 0..10 + rng.below(10) {
        pair.edit(&mut rng, &pair.ours);
    }
    pair.ours.pull(&pair.theirs).unwrap();
    let there: BTreeSet<_> = ids(&pair.theirs).into_iter().collect();
    let own: Vec<_> = ids(&pair.ours).into_iter().filter(|id| !there.contains(id)).collect();
    let count = 1 + rng.below(own.len());
    let named = (0..count).map(|_| *rng.pick(&own)).collect();
    (pair, rng, named)
}

#[test]
fn what_is_withdrawn_from_any_history_was_never_there() {
    for seed in 0..60 {
        let (pair, mut rng, named) = some_history(seed);
        let before = log(&pair.ours);
        let gone = built_on(&before, &named);
        let kept: Vec<Entry> = before.iter().filter(|entry| !gone.contains(&entry.id)).cloned().collect();
        let expected = of_events(&pair.ours, &kept);
        let writer = pair.ours.info().writer;

        let done = pair.ours.write_again(&withdrawing(named)).unwrap();
        assert_eq!(done.withdrawn.iter().map(|entry| entry.id).collect::<BTreeSet<_>>(), gone, "seed {seed}");
        assert_eq!((pair.ours.info().writer, done.events), (done.writer, kept.len() as u64));
        assert_ne!(done.writer, writer);
        assert_eq!(ids(&pair.ours), kept.iter().map(|entry| entry.id).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(shown(&pair.ours), shown(&expected), "seed {seed}");
        assert_eq!(pair.ours.digest().unwrap().digest, expected.digest().unwrap().digest);
        let upto = rng.below(before.len() + 1);
        let held = before[..upto].iter().filter(|entry| !gone.contains(&entry.id)).count();
        assert_eq!(done.position(upto as u64), held as u64);
        goes_on(&pair, &mut rng, seed);
    }
}

#[test]
fn what_is_stamped_again_in_any_history_shows_what_it_showed() {
    for seed in 0..60 {
        let (pair, mut rng, named) = some_history(seed);
        let before = log(&pair.ours);
        let renamed = built_on(&before, &named);
        let values = shown(&pair.ours);

        let done = pair.ours.write_again(&stamping(named)).unwrap();
        assert_eq!(done.stamped.keys().copied().collect::<BTreeSet<_>>(), renamed, "seed {seed}");
        assert_eq!((done.withdrawn.len(), done.events), (0, before.len() as u64));
        assert_eq!(shown(&pair.ours), values, "seed {seed}");
        let after = log(&pair.ours);
        let (kept, stamped) = after.split_at(after.len() - renamed.len());
        let others: Vec<_> = before.iter().filter(|entry| !renamed.contains(&entry.id)).collect();
        assert!(kept.iter().map(|entry| &entry.event).eq(others.iter().map(|entry| &entry.event)), "seed {seed}");
        let anew: Vec<_> = before.iter().filter(|entry| renamed.contains(&entry.id)).collect();
        for (entry, (nth, old)) in stamped.iter().zip((1..).zip(anew)) {
            assert_eq!((Some(&entry.id), entry.event.writer), (done.stamped.get(&old.id), done.writer));
            assert_eq!((entry.event.sequence, &entry.event.principal), (nth, &old.event.principal));
            assert_eq!((entry.event.batch, entry.event.resolves), (old.event.batch, old.event.resolves));
            assert_eq!(entry.event.ops().len(), old.event.ops().len());
            let now = |id: EventId| done.stamped.get(&id).copied().unwrap_or(id);
            let named = named_by(&old.event).map(now).collect::<BTreeSet<_>>();
            assert_eq!(named_by(&entry.event).collect::<BTreeSet<_>>(), named, "seed {seed}");
            assert_eq!(entry.event.reverts, old.event.reverts.map(now));
        }
        assert!(stamped.windows(2).all(|two| two[0].event.at < two[1].event.at), "their order is kept");
        goes_on(&pair, &mut rng, seed);
    }
}

/// After all that the two replicas go on as any, and both show the same.
fn goes_on(pair: &Pair, rng: &mut Rng, seed: u64) {
    sound(&pair.ours);
    assert_eq!(pair.ours.status().unwrap().forked_writers, [], "what was concurrent has a lane each");
    for _ in 0..10 {
        pair.edit(rng, &pair.ours);
        pair.edit(rng, &pair.theirs);
    }
    pair.theirs.pull(&pair.ours).unwrap();
    pair.ours.pull(&pair.theirs).unwrap();
    assert_eq!(shown(&pair.ours), shown(&pair.theirs), "seed {seed}");
    assert_eq!(pair.ours.digest().unwrap().digest, pair.theirs.digest().unwrap().digest, "seed {seed}");
    assert_eq!(pair.theirs.status().unwrap().waiting, 0);
    sound(&pair.ours);
    sound(&pair.theirs);
}

// --- rules -------------------------------------------------------------------------------------------------------------

#[test]
fn events_of_others_and_what_others_made_on_ours_stay_and_nothing_changes() {
    let pair = Pair::new(7);
    let (ours, theirs) = (&pair.ours, &pair.theirs);
    let shared = ids(ours)[0];
    theirs.patch("c", "k0", json!({ "n": 1 }), &app()).unwrap();
    ours.pull(theirs).unwrap();
    let foreign = ids(ours)[1];
    let before = (ours.info(), ids(ours));
    for again in [withdrawing([foreign]), stamping([foreign]), withdrawing([shared]), stamping([shared])] {
        let fault = ours.write_again(&again).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Conflict, "{fault}");
        assert!(fault.message().contains(&foreign.to_string()), "{fault}");
    }
    let unknown = ours.write_again(&stamping([EventId([9; 32])])).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(ours.write_again(&Again::default()).unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!((ours.info(), ids(ours)), before);
    ours.patch("c", "k0", json!({ "n": 2 }), &app()).unwrap();
    sound(ours);
}

#[test]
fn requests_stay_answered_by_what_was_stamped_again_and_not_by_what_went() {
    let pair = Pair::new(8);
    let ours = &pair.ours;
    let once = |name: &str| Context { idempotency_key: Some(name.to_owned()), ..app() };
    let put = |key: &str, name: &str| ours.put("c", key, json!({ "n": 7 }), &once(name)).unwrap();
    let [kept, stamped, gone] = ["kept", "stamped", "gone"].map(|key| put(key, key).events[0].0);
    let again = Again { withdraw: [gone].into(), stamp_again: [stamped].into(), shift_ms: 0 };
    let done = ours.write_again(&again).unwrap();
    let (first, second) = (put("kept", "kept"), put("stamped", "stamped"));
    assert_eq!((first.outcome, first.events[0].0), (Outcome::Duplicate, kept));
    assert_eq!((second.outcome, second.events[0].0), (Outcome::Duplicate, done.stamped[&stamped]));
    assert_eq!(put("gone", "gone").outcome, Outcome::Appended);
    let fault = ours.put("c", "stamped", json!({ "n": 8 }), &once("stamped")).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::IdempotencyMismatch);
    sound(ours);
}

#[test]
fn stamps_in_the_future_are_mended_and_come_in_their_order_after_what_they_were_made_on() {
    const DAY_MS: i64 = 86_400_000;
    let pair = Pair::new(9);
    let (ours, machine) = (&pair.ours, &pair.machines[0]);
    machine.set_now_ms(DAY_MS);
    theirs_edit(&pair, DAY_MS + 60_000);
    let early = ours.put("c", "early", json!({ "n": 1 }), &app()).unwrap().events[0].0;
    machine.set_now_ms(3 * DAY_MS);
    let mut named = vec![early];
    for n in 0..3 {
        machine.set_now_ms(3 * DAY_MS + n * 1_000);
        named.push(ours.patch("c", "k0", json!({ "late": n }), &app()).unwrap().events[0].0);
        named.push(ours.put("c", &format!("late{n}"), json!({ "n": n }), &app()).unwrap().events[0].0);
    }
    // The clock is two days ahead, and nobody has corrected it.
    ours.set_clock_offset_ms(-2 * DAY_MS);
    let done = ours.write_again(&Again { shift_ms: -2 * DAY_MS, ..stamping(named.clone()) }).unwrap();
    let after = log(ours);
    let at = |id: &EventId| after.iter().find(|entry| entry.id == done.stamped[id]).unwrap().event.at;
    let stamps: Vec<_> = named.iter().map(at).collect();
    assert!(stamps.windows(2).all(|two| two[0] < two[1]), "{stamps:?}");
    assert_eq!(stamps[0].millis, DAY_MS, "what was not in the future stays when it was");
    // On what the other replica made, whose clock is a minute ahead.
    assert_eq!(stamps[1].millis, DAY_MS + 60_000);
    assert!(stamps.iter().all(|stamp| stamp.millis <= DAY_MS + 60_000));
    let later = ours.put("c", "later", json!({}), &app()).unwrap().events[0].0;
    let at = log(ours).into_iter().find(|entry| entry.id == later).unwrap().event.at;
    assert_eq!(at.millis, DAY_MS + 2_000, "new edits have the right time");
}

fn theirs_edit(pair: &Pair, now_ms: i64) {
    pair.machines[1].set_now_ms(now_ms);
    pair.theirs.patch("c", "k0", json!({ "theirs": true }), &app()).unwrap();
    pair.ours.pull(&pair.theirs).unwrap();
}

#[test]
fn what_was_made_under_the_writer_before_is_undone_as_ones_own() {
    let pair = Pair::new(10);
    let ours = &pair.ours;
    ours.patch("c", "k0", json!({ "n": 1 }), &app()).unwrap();
    let gone = ours.put("c", "gone", json!({}), &app()).unwrap().events[0].0;
    ours.write_again(&withdrawing([gone])).unwrap();
    ours.undo(&app()).unwrap();
    assert_eq!(ours.get("c", "k0").unwrap().unwrap().value, json!({ "n": 0 }));
    let last = ids(ours)[1];
    assert!(ours.revert(&Target::Event(last), &app()).is_ok());
}

#[test]
fn who_follows_the_log_is_told_that_it_is_another_now() {
    let pair = Pair::new(11);
    let ours = &pair.ours;
    let gone = ours.put("c", "gone", json!({}), &app()).unwrap().events[0].0;
    let mut follower = ours.subscribe(0);
    assert!(follower.next().unwrap().is_ok());
    let mut session = ours.session(&Default::default()).unwrap();
    session.begin();
    ours.write_again(&withdrawing([gone])).unwrap();
    // What was read ahead of the old log is given still.
    let told = follower.by_ref().find_map(std::result::Result::err).unwrap();
    assert_eq!(told.kind(), ErrorKind::Conflict);
    session.tick();
    let ended = session.finish().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Cancelled);
    assert!(ended.message().contains("written again"), "{ended}");
}

// --- on a disk ---------------------------------------------------------------------------------------------------------

fn small() -> Options {
    Options { seal_events: 64, ..Options::default() }
}

/// A ledger in a directory with some hundred events, and the last of them.
fn on_disk(dir: &Dir) -> (Ledger, Vec<EventId>) {
    let ledger = Store::open_with(dir, small()).unwrap().create_ledger("main").unwrap();
    let mut rng = Rng::new(3);
    ledger.put("c", "k0", json!({ "large": "x".repeat(100_000) }), &app()).unwrap();
    for n in 0..400 {
        let edits = vec![Edit::Put(path("/n"), json!(n)), Edit::Increment(path("/count"), 1)];
        ledger.edit("c", &format!("k{}", rng.below(20)), edits, &app()).unwrap();
    }
    let last = ids(&ledger).split_off(380);
    (ledger, last)
}

#[test]
fn sealed_files_and_archives_become_part_of_the_new_log() {
    let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ledger, last) = on_disk(dir.path());
    let stays = ledger.store().create_ledger("other").unwrap();
    stays.put("c", "k", json!({ "n": 1 }), &app()).unwrap();
    assert!(ledger.archive(100, archive.path()).unwrap().log_begins > 1);
    assert!(std::fs::read_dir(dir.path().join("sealed")).unwrap().count() > 0);
    let (before, values) = (ids(&ledger), shown(&ledger));
    // An archive that is not there: its events would be lost.
    let away = archive.path().with_extension("away");
    std::fs::rename(archive.path(), &away).unwrap();
    let fault = ledger.write_again(&withdrawing([last[5]])).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::NotFound, "{fault}");
    std::fs::rename(&away, archive.path()).unwrap();
    assert_eq!((ids(&ledger), shown(&ledger)), (before.clone(), values.clone()));

    let done = ledger.write_again(&stamping(last.clone())).unwrap();
    assert_eq!(shown(&ledger), values);
    assert_eq!(ids(&ledger)[..before.len() - done.stamped.len()], before[..before.len() - done.stamped.len()]);
    // It stands on its own now.
    std::fs::remove_dir_all(archive.path()).unwrap();
    for n in 0..200 {
        ledger.put("c", &format!("new{n}"), json!({ "n": n }), &app()).unwrap();
    }
    sound(&ledger);
    let after = ids(&ledger);
    ledger.store().close().unwrap();
    drop((ledger, stays));
    let store = Store::open_with(dir.path(), small()).unwrap();
    let ledger = store.ledger("main").unwrap();
    assert_eq!((ids(&ledger), ledger.info().writer), (after, done.writer));
    sound(&ledger);
    sound(&store.ledger("other").unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("again")).unwrap().count(), 0);
}

fn copy(from: &Dir, to: &Dir) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_process_that_is_killed_at_any_step_leaves_the_old_log_or_the_new_one() {
    for withdraws in [false, true] {
        let (dir, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ledger, last) = on_disk(dir.path());
        ledger.archive(70, dir.path().join("archive")).unwrap();
        let before = ids(&ledger);
        let steps = Arc::new(Mutex::new(Vec::<String>::new()));
        let (seen, from, to) = (steps.clone(), dir.path().to_owned(), images.path().to_owned());
        *ledger.store().shared().on_step.lock().unwrap() = Some(Box::new(move |step| {
            let mut seen = seen.lock().unwrap();
            copy(&from, &to.join(seen.len().to_string()));
            seen.push(step.to_owned());
        }));
        let again = if withdraws { withdrawing(last) } else { stamping(last) };
        let done = ledger.write_again(&again).unwrap();
        let (after, values) = (ids(&ledger), shown(&ledger));
        assert_ne!(before, after);
        let steps = steps.lock().unwrap().clone();
        assert!(steps.len() >= 9, "{steps:?}");
        for (nth, step) in steps.iter().enumerate() {
            let image = images.path().join(nth.to_string());
            // What finishes it may be killed as well.
            for round in 0..2 {
                let store = Store::open_with(&image, small()).unwrap();
                let ledger = store.ledger("main").unwrap();
                let mut found = ids(&ledger);
                found.truncate(found.len() - round);
                let is_old = step == "written";
                assert_eq!(found, if is_old { before.clone() } else { after.clone() }, "{step}");
                assert_eq!(ledger.info().writer == done.writer, !is_old, "{step}");
                if !is_old && round == 0 {
                    assert_eq!(shown(&ledger), values, "{step}");
                }
                sound(&ledger);
                ledger.put("c", &format!("later{round}"), json!({ "n": 1 }), &app()).unwrap();
                store.close().unwrap();
            }
        }
    }
}

#[test]
fn a_new_log_that_is_damaged_takes_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, last) = on_disk(dir.path());
    let image = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().to_owned(), image.path().to_owned());
    *ledger.store().shared().on_step.lock().unwrap() = Some(Box::new(move |step| {
        if step == "named" {
            copy(&from, &to);
        }
    }));
    ledger.write_again(&withdrawing(last)).unwrap();
    let file = std::fs::read_dir(image.path().join("again")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let fault = Store::open(image.path()).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Corrupt, "{fault}");
    // Nothing of the old log is lost by that.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ids(&Store::open(image.path()).unwrap().ledger("main").unwrap()).len(), 401);
}

#[test]
fn a_first_import_that_was_refused_is_taken_back_too() {
    let pair = Pair::new(12);
    let ours = &pair.ours;
    let delivery = super::super::Delivery { key: "i".to_owned(), value: json!({ "n": 1 }), occurred_at: Some(5) };
    ours.import("c", vec![delivery], &Context::from_source("jira")).unwrap();
    let imported: &Event = &log(ours)[1].event.clone();
    assert!(imported.delivery && imported.writer != ours.info().writer);
    let id = ids(ours)[1];
    assert_eq!(ours.write_again(&stamping([id])).unwrap_err().kind(), ErrorKind::Conflict);
    ours.write_again(&withdrawing([id])).unwrap();
    assert!(ours.get("c", "i").unwrap().is_none());
    sound(ours);
}

/// What two sides of a session say to each other, until nothing more comes.
fn talk(peers: &mut [Peer; 2], mut said: [Vec<Message>; 2]) {
    while said.iter().any(|words| !words.is_empty()) {
        let [mut here, mut there] = std::mem::take(&mut said);
        there.drain(..).for_each(|word| said[0].extend(peers[0].hear(word)));
        here.drain(..).for_each(|word| said[1].extend(peers[1].hear(word)));
    }
}

#[test]
fn a_session_with_the_log_of_before_notes_nothing_of_the_one_after() {
    let [server, device] =
        [(); 2].map(|()| Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap());
    server.put("c", "first", json!({}), &app()).unwrap();
    device.pull(&server).unwrap();
    let own = device.put("c", "own", json!({}), &app()).unwrap().events[0].0;
    let replica = server.info().writer;
    let noted = || device.held_of(replica, "").unwrap().map(|(cursor, _)| cursor.position);
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let sends = SessionOptions { sends: false, ..follows.clone() };
    let mut peers = [server.session(&follows).unwrap(), device.session(&sends).unwrap()];
    let words = [peers[0].begin(), peers[1].begin()];
    talk(&mut peers, words);
    for key in ["later", "last"] {
        server.put("c", key, json!({}), &app()).unwrap();
        let words = [peers[0].grown(), Vec::new()];
        talk(&mut peers, words);
    }
    assert_eq!((device.position(), noted()), (4, Some(2)), "the last event is not noted yet");
    device.write_again(&withdrawing([own])).unwrap();
    assert_eq!(noted(), None, "where the other log is has to be looked for again");
    drop(peers);
    assert_eq!((device.position(), noted()), (3, None));
}
