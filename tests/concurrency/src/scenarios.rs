//! What threads do to a ledger, and what has to hold in every order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shuttle::rand::Rng as _;
use shuttle::thread::{self, JoinHandle};
use syncledger::event::LedgerId;
use syncledger::journal::memory::{Faults, MemoryJournal};
use syncledger::journal::{Append, Frame, Journal, JournalError, LedgerEntry};
use syncledger::ledger::{Context, Outcome, Query};
use syncledger::{Error, ErrorKind};

use crate::hand::{Hand, in_order, is_closed, store};

/// One order of the threads is one run of it.
pub type Scenario = fn();

pub const SCENARIOS: [(&str, Scenario); 13] = [
    ("acknowledged", acknowledged),
    ("one_record", one_record),
    ("one_request", one_request),
    ("followers", followers),
    ("polling", polling),
    ("checkpoints", checkpoints),
    ("failed_write", failed_write),
    ("closing", closing),
    ("dropping", dropping),
    ("dropped_ledger", dropped_ledger),
    ("replicas", replicas),
    ("heads", heads),
    ("broken_heads", broken_heads),
];

fn ended<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

/// A thread that writes so many records of its own.
fn writer(hand: &Hand, name: &'static str, writes: u64) -> JoinHandle<()> {
    let hand = hand.clone();
    thread::spawn(move || {
        for n in 1..=writes {
            hand.put(&format!("{name}{n}"), n).expect("it is written");
        }
    })
}

/// Whoever is told that a write is durable finds it; who looks around meanwhile sees what is durable alone.
fn acknowledged() {
    let hand = Hand::new();
    let writers = vec![writer(&hand, "a", 2), writer(&hand, "b", 2), writer(&hand, "c", 1)];
    let reader = hand.clone();
    let reader = thread::spawn(move || {
        let heads: Vec<u64> = (0..3).map(|_| reader.look_around().expect("nothing fails")).collect();
        assert!(heads.is_sorted(), "a head went back: {heads:?}");
    });
    ended(writers);
    reader.join().expect("it does not panic");
    assert_eq!((hand.durable(), hand.look_around().expect("nothing fails")), (5, 5));
    hand.close().expect("it closes");
    assert_eq!(hand.after_a_crash().look_around().expect("nothing fails"), 5);
}

/// What two write to one record is there in the end, each on what was acknowledged before.
fn one_record() {
    let hand = Hand::new();
    hand.put("shared", 0).expect("it is written");
    let patch = |field: &'static str| {
        let hand = hand.clone();
        thread::spawn(move || {
            for n in 1..=2 {
                let receipt = hand.ledger.patch("notes", "shared", json!({ field: n }), &Context::from_source("app"));
                let position = receipt.expect("it is written").events.first().expect("it changes something").1;
                assert!(hand.durable() >= position);
                let record = hand.ledger.get("notes", "shared").expect("it can be read").expect("it is there");
                assert_eq!(record.value[field], json!(n));
            }
        })
    };
    ended(vec![patch("a"), patch("b")]);
    let record = hand.ledger.get("notes", "shared").expect("it can be read").expect("it is there");
    assert_eq!(record.value, json!({ "n": 0, "a": 2, "b": 2 }));
    hand.close().expect("it closes");
}

/// A request that is made three times at once is made once, and all are told the same.
fn one_request() {
    let hand = Hand::new();
    let ask = || {
        let hand = hand.clone();
        thread::spawn(move || {
            let context = Context { idempotency_key: Some("once".to_owned()), ..Context::from_source("app") };
            hand.ledger.put("notes", "a", json!({ "n": 1 }), &context).expect("it is written")
        })
    };
    let receipts = ended(vec![ask(), ask(), ask()]);
    let made = receipts.iter().filter(|receipt| receipt.outcome == Outcome::Appended).count();
    assert_eq!((made, hand.durable()), (1, 1));
    assert!(receipts.windows(2).all(|two| matches!(two, [one, other] if one.events == other.events)));
    hand.close().expect("it closes");
}

/// Who follows is given every event, once and in order, whenever they began, and is woken for each.
fn followers() {
    let hand = Hand::new();
    let follow = || {
        let hand = hand.clone();
        thread::spawn(move || hand.follow().until(4))
    };
    let early = [follow(), follow()];
    let writers = vec![writer(&hand, "a", 2), writer(&hand, "b", 2)];
    let late = follow();
    ended(writers);
    let seen = ended(early.into_iter().chain([late]).collect());
    assert!(seen.windows(2).all(|two| matches!(two, [one, other] if one == other)));
    hand.close().expect("it closes");
}

/// Who looks from time to time, and does not wait, misses nothing either.
fn polling() {
    let hand = Hand::new();
    let writers = vec![writer(&hand, "a", 2), writer(&hand, "b", 1)];
    let polls = hand.clone();
    let polls = thread::spawn(move || {
        let mut follower = polls.follow();
        for _ in 0..6 {
            follower.poll().into_iter().for_each(|seen| seen.expect("nothing fails"));
            thread::yield_now();
        }
        follower
    });
    ended(writers);
    assert_eq!(polls.join().expect("it does not panic").until(3).len(), 3);
    hand.close().expect("it closes");
}

/// What was acknowledged is shown while a checkpoint moves it from memory into the row file.
fn checkpoints() {
    let hand = Hand::new();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (writes, told) = (hand.clone(), acknowledged.clone());
    let writer = thread::spawn(move || {
        for n in 1..=3 {
            writes.put(&format!("a{n}"), n).expect("it is written");
            told.lock().expect("nobody panics").push(n);
        }
    });
    let saves = hand.clone();
    let saver = thread::spawn(move || (0..2).for_each(|_| saves.ledger.store().checkpoint().expect("it is saved")));
    for _ in 0..3 {
        let known = acknowledged.lock().expect("nobody panics").clone();
        known.iter().for_each(|n| hand.finds(&format!("a{n}"), *n));
        let listed = hand.ledger.list("notes", &Query::default()).expect("it can be read");
        assert!(listed.len() >= known.len(), "{} of {} records are listed", listed.len(), known.len());
        thread::yield_now();
    }
    ended(vec![writer, saver]);
    assert_eq!(hand.look_around().expect("nothing fails"), 3);
    hand.close().expect("it closes");
}

/// One of the next appends fails, before it is written or after.
fn faults() -> Faults {
    let (nth, kind) = (shuttle::rand::thread_rng().gen_range(1..=3), shuttle::rand::thread_rng().gen_range(0..3));
    match kind {
        0 => Faults { fail_write: Some(nth), ..Faults::default() },
        _ => Faults { fail_flush: Some(nth), ..Faults::default() },
    }
}

/// After a failed write all who wait are told, none is told that it worked, and what was acknowledged stays.
fn failed_write() {
    let hand = Hand::new();
    hand.fail(faults());
    let (failed, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let write = |name: &'static str| {
        let (hand, failed, acknowledged) = (hand.clone(), failed.clone(), acknowledged.clone());
        thread::spawn(move || {
            for n in 1..=2 {
                let before = failed.load(Ordering::SeqCst);
                match hand.put(&format!("{name}{n}"), n) {
                    Ok(_) if before => panic!("acknowledged after a failed write"),
                    Ok(_) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                    Err(fault) => {
                        assert_eq!(fault.kind(), ErrorKind::Storage, "{fault}");
                        failed.store(true, Ordering::SeqCst);
                    }
                }
            }
        })
    };
    let follows = hand.clone();
    let follower = thread::spawn(move || follows.follow().to_the_end());
    ended(vec![write("a"), write("b"), write("c")]);
    // Few large groups may need no append that fails.
    hand.fail(Faults { disk_full: true, ..Faults::default() });
    assert_eq!(hand.put("last", 1).map_err(|fault| fault.kind()), Err(ErrorKind::Storage));
    let (seen, why) = follower.join().expect("it does not panic");
    assert_eq!(why.map(|fault| fault.kind()), Some(ErrorKind::Storage));
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    assert!(seen.len() as u64 <= acknowledged);
    assert_eq!((hand.durable(), hand.look_around().expect("reading goes on")), (acknowledged, acknowledged));
    assert!(hand.close().is_err(), "a broken store says so when it closes");
    assert_eq!(hand.after_a_crash().look_around().expect("nothing fails"), acknowledged);
}

/// Closing answers everybody: with what was made durable before, or with a refusal.
fn closing() {
    let hand = Hand::new();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let write = |name: &'static str| {
        let (hand, acknowledged) = (hand.clone(), acknowledged.clone());
        thread::spawn(move || {
            for n in 1..=2 {
                match hand.put(&format!("{name}{n}"), n) {
                    Ok(_) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                    Err(fault) => return is_closed(&fault),
                }
            }
        })
    };
    let follows = hand.clone();
    let follower = thread::spawn(move || follows.follow().to_the_end());
    let writers = vec![write("a"), write("b"), write("c")];
    let closes = hand.clone();
    let closer = thread::spawn(move || closes.close().expect("it closes"));
    hand.close().expect("it closes");
    ended(writers);
    closer.join().expect("it does not panic");
    let (seen, why) = follower.join().expect("it does not panic");
    assert!(why.is_none(), "who follows a store that closes is told of no fault");
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    assert!(seen.len() as u64 <= acknowledged);
    assert_eq!(hand.durable(), acknowledged, "a refused write was made");
    is_closed(&hand.put("late", 1).expect_err("it is closed"));
    let mut late = hand.follow();
    assert!(late.next().is_none() && late.is_ended() && late.count() == 0);
    assert_eq!(hand.after_a_crash().look_around().expect("nothing fails"), acknowledged);
}

/// The store closes with its last handle, whoever has that.
fn dropping() {
    let hand = Hand::new();
    let (machine, id) = (hand.machine.clone(), hand.id);
    let write = |name: &'static str| {
        let hand = hand.clone();
        thread::spawn(move || {
            hand.put(name, 1).expect("it is written");
        })
    };
    let follows = hand.clone();
    let follower = thread::spawn(move || drop(follows.follow().until(1)));
    let threads = vec![write("a"), write("b"), follower];
    drop(hand);
    ended(threads);
    assert_eq!(machine.durable(id), 2);
    let again = machine.copy().open(crate::hand::options()).and_then(|store| store.ledger("main"));
    assert_eq!(again.expect("it opens again").position(), 2);
}

/// Who writes or follows a ledger that is dropped is told; another one goes on.
fn dropped_ledger() {
    let (machine, store) = store(1);
    let (stays, goes) = (Hand::make(&machine, &store, "main"), Hand::make(&machine, &store, "other"));
    let follows = goes.clone();
    let follower = thread::spawn(move || follows.follow_to_its_end().to_the_end());
    let others = stays.clone();
    let other = thread::spawn(move || others.follow().until(2));
    let writes = goes.clone();
    let writer_of_dropped = thread::spawn(move || {
        let made = (1..=2).map(|n| {
            writes.ledger.put("notes", &format!("a{n}"), json!({ "n": n }), &Context::from_source("app")).map(drop)
        });
        made.filter_map(Result::err).for_each(|fault| is_gone(&fault));
    });
    let writer = writer(&stays, "a", 2);
    store.drop_ledger("other").expect("it is dropped");
    ended(vec![writer, writer_of_dropped]);
    let (_, why) = follower.join().expect("it does not panic");
    is_gone(&why.expect("it is told"));
    assert_eq!(other.join().expect("it does not panic").len(), 2);
    assert_eq!((stays.durable(), goes.durable()), (2, 0));
    store.close().expect("it closes");
}

fn is_gone(fault: &Error) {
    assert!(matches!(fault.kind(), ErrorKind::NotFound | ErrorKind::Conflict), "{fault}");
}

/// Two stores that write while one takes in what the other holds are the same after they were left alone.
fn replicas() {
    let (mut ours, (machine, there)) = (Hand::new(), store(2));
    let theirs = Hand::make(&machine, &there, "main");
    theirs.put("first", 1).expect("it is written");
    ours.ledger.pull(&theirs.ledger).expect("it is taken in");
    ours.id = ours.ledger.info().id;
    let (pulls, from) = (ours.clone(), theirs.clone());
    let puller = thread::spawn(move || {
        pulls.ledger.pull(&from.ledger).expect("it is taken in");
    });
    ended(vec![writer(&theirs, "a", 1), writer(&ours, "b", 1), puller]);
    theirs.ledger.pull(&ours.ledger).expect("it is taken in");
    ours.ledger.pull(&theirs.ledger).expect("it is taken in");
    assert_eq!((ours.durable(), theirs.durable()), (3, 3));
    let digest = |hand: &Hand| hand.ledger.digest().expect("it can be read").digest;
    assert_eq!(digest(&ours), digest(&theirs));
    in_order(&ours.follow().until(3));
    ours.close().and(theirs.close()).expect("they close");
}

const LEDGERS: [LedgerId; 2] = [LedgerId([1; 16]), LedgerId([2; 16])];
/// A time that never passes here.
const LONG: Duration = Duration::from_secs(60);

fn journal() -> Arc<MemoryJournal> {
    let journal = MemoryJournal::new();
    for (number, id) in (1..).zip(LEDGERS) {
        let entry = LedgerEntry { number, id, name: format!("{number}"), meta: Vec::new() };
        journal.put_ledger(entry).expect("it is new");
    }
    Arc::new(journal)
}

fn append(journal: &MemoryJournal, head: u64) -> Result<(), JournalError> {
    let frame = Frame { first: head + 1, last: head + 1, payload: vec![7] };
    let one = |ledger| Append { ledger, expected_head: head, frames: vec![frame.clone()] };
    journal.append(&LEDGERS.map(one))
}

/// Waits for one head after another, up to a last one. Each can be read, and outlives a crash.
fn wait_up_to(journal: &Arc<MemoryJournal>, ledger: LedgerId, last: u64) -> JoinHandle<Result<u64, JournalError>> {
    let journal = journal.clone();
    thread::spawn(move || {
        let mut head = 0;
        while head < last {
            let next = journal.wait(ledger, head, LONG)?;
            assert!(next > head, "woken for nothing");
            head = next;
            assert!(journal.copy().head(ledger) >= head, "a head that is not durable: {head}");
            if let Some(frame) = journal.read_at(ledger, head)? {
                assert_eq!(frame.last, head);
            }
        }
        Ok(head)
    })
}

/// Whoever waits for the durable head of either ledger is woken for each, and once more when the journal closes.
fn heads() {
    let journal = journal();
    let waiters: Vec<_> = [LEDGERS, LEDGERS].concat().into_iter().map(|id| wait_up_to(&journal, id, 2)).collect();
    let endless = wait_up_to(&journal, LEDGERS[0], u64::MAX);
    let appends = journal.clone();
    let appender = thread::spawn(move || (0..2).for_each(|head| append(&appends, head).expect("it is written")));
    ended(vec![appender]);
    ended(waiters).into_iter().for_each(|head| assert_eq!(head.expect("nothing fails"), 2));
    let other = journal.clone();
    let closer = thread::spawn(move || other.close().expect("it closes"));
    journal.close().expect("it closes");
    closer.join().expect("it does not panic");
    let why = endless.join().expect("it does not panic");
    assert!(matches!(why, Err(JournalError::Closed)), "{why:?}");
}

/// A failed append wakes everybody who waits, and nothing of it is ever seen.
fn broken_heads() {
    let journal = journal();
    let waiters: Vec<_> = LEDGERS.into_iter().map(|id| wait_up_to(&journal, id, u64::MAX)).collect();
    journal.set_faults(Faults { fail_flush: Some(2), ..Faults::default() });
    let append_on = || {
        let journal = journal.clone();
        thread::spawn(move || {
            let known = journal.head(LEDGERS[0]);
            append(&journal, known)
        })
    };
    let made = ended(vec![append_on(), append_on(), append_on()]);
    let written = made.iter().filter(|made| made.is_ok()).count() as u64;
    assert_eq!((journal.head(LEDGERS[0]), journal.copy().head(LEDGERS[0])), (written, written));
    // Where two were made on one head, one of them was refused before it was written.
    while !matches!(append(&journal, journal.head(LEDGERS[0])), Err(JournalError::Poisoned { .. })) {}
    for why in ended(waiters) {
        assert!(matches!(why, Err(JournalError::Poisoned { .. })), "{why:?}");
    }
    assert_eq!(journal.head(LEDGERS[1]), journal.copy().head(LEDGERS[1]));
}
