//! Events from outside that break a rule: each is refused with a clear error, and nothing is lost.

use serde_json::json;
use syncledger::ErrorKind;
use syncledger::event::{
    BatchId, BatchMember, Container, Event, EventId, Idempotency, LedgerId, Op, Path, Timestamp, Value, WriterId,
    limits,
};
use syncledger::ledger::{Context, Ledger, Options, Store};

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn put(at: &str, text: impl Into<String>) -> Op {
    Op::Put { path: path(at), value: Value::Text(text.into()) }
}

fn event(ops: Vec<Op>) -> Event {
    let plain = syncledger::testing::event(ops);
    Event { collection: "c".into(), key: "k".into(), writer: WriterId([9; 16]), source: "peer".into(), ..plain }
}

/// The bytes of an event that breaks a rule of its own, which `encode` would refuse.
fn raw(event: &Event) -> Vec<u8> {
    use bincode::Options as _;
    let options = bincode::DefaultOptions::new().with_little_endian().with_varint_encoding();
    [b"SLEV\x01".to_vec(), options.serialize(event).unwrap()].concat()
}

/// Offers bytes between two good events, and returns why they are refused. The first good one is kept.
fn refused(bytes: &[u8]) -> syncledger::Error {
    let ledger = memory();
    let id = ledger.info().id;
    let good = |key: &str| Event { key: key.into(), ..event(vec![put("/a", "x")]) }.encode().unwrap();
    let fault = ledger.apply(id, &[good("first"), bytes.to_vec(), good("last")]).unwrap_err();
    assert_eq!(ledger.position(), 1, "{fault}");
    assert!(ledger.get("c", "first").unwrap().is_some());
    // The sender goes on after what is wrong.
    assert_eq!(ledger.apply(id, &[good("first"), good("last")]).unwrap().applied, 1);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    assert!(!fault.message().is_empty());
    fault
}

#[test]
fn an_event_beyond_a_limit_is_refused() {
    let text = |length: usize| "x".repeat(length);
    let ops = |ops| event(ops);
    let json_text = |json: &str| Op::PutAtomic { path: path("/a"), json: json.into() };
    let key = |key: &str| Idempotency { key: key.into(), request_hash: [0; 32] };
    let parents = |n: u8| (0..n).map(|n| EventId([n; 32])).collect::<Vec<_>>();
    let batch = |index, count| Some(BatchMember { id: BatchId([1; 16]), index, count });
    let own = |op| Op::RemoveAt { container: Container::Own(op), index: 0 };
    let broken = vec![
        Event { collection: String::new(), ..ops(vec![]) },
        Event { collection: text(limits::COLLECTION_BYTES + 1), ..ops(vec![]) },
        Event { key: String::new(), ..ops(vec![]) },
        Event { key: text(limits::KEY_BYTES + 1), ..ops(vec![]) },
        Event { source: String::new(), ..ops(vec![]) },
        Event { source: text(limits::NAME_BYTES + 1), ..ops(vec![]) },
        Event { principal: Some(text(limits::NAME_BYTES + 1)), ..ops(vec![]) },
        Event { reason: Some(text(limits::REASON_BYTES + 1)), ..ops(vec![]) },
        Event { idempotency: Some(key("")), ..ops(vec![]) },
        Event { sequence: 0, ..ops(vec![]) },
        Event { nth: 0, ..ops(vec![]) },
        Event { parents: parents(65), ..ops(vec![]) },
        Event { parents: vec![EventId([2; 32]), EventId([1; 32])], ..ops(vec![]) },
        Event { parents: vec![EventId([1; 32]); 2], ..ops(vec![]) },
        Event { batch: batch(2, 2), ..ops(vec![]) },
        Event { batch: batch(0, 4_097), ..ops(vec![]) },
        ops(vec![Op::Delete; limits::EVENT_OPS + 1]),
        ops(vec![put("/a", text(limits::INLINE_BYTES + 1))]),
        ops(vec![put("/a", text(limits::INLINE_BYTES)); 5]),
        ops(vec![put("", "the record is an object")]),
        ops(vec![Op::Remove { path: path("") }]),
        ops(vec![Op::Put { path: path("/a"), value: Value::Float(f64::NAN) }]),
        ops(vec![Op::Put { path: path("/a"), value: Value::Float(1.0) }]),
        ops(vec![Op::Put { path: path("/a"), value: Value::Uint(1) }]),
        ops(vec![Op::Put { path: path("/a"), value: Value::Atomic("[1]".into()) }]),
        ops(vec![json_text("{}")]),
        ops(vec![json_text("1")]),
        ops(vec![json_text("[1, 2]")]),
        ops(vec![json_text(r#"{"b":1,"a":1}"#)]),
        ops(vec![json_text(r#"{"a":1,"a":1}"#)]),
        ops(vec![json_text(&format!("{}{}", "[".repeat(100), "]".repeat(100)))]),
        ops(vec![json_text("[1e999]")]),
        ops(vec![Op::Increment { path: path("/a"), by: i64::MIN }]),
        ops(vec![Op::SetAdd { path: path("/a"), member: Value::Text(text(300)) }]),
        ops(vec![own(0)]),
        ops(vec![own(7)]),
    ];
    for event in broken {
        let fault = refused(&raw(&event));
        let kinds = [ErrorKind::Validation, ErrorKind::TooLarge];
        assert!(kinds.contains(&fault.kind()), "{fault} of {}", format!("{event:?}").get(..200).unwrap_or_default());
    }
}

#[test]
fn bytes_that_are_no_canonical_event_are_refused() {
    let good = event(vec![put("/a", "x"), Op::Delete]).encode().unwrap();
    for end in 0..good.len() {
        refused(&good[..end]);
    }
    refused(&[good.as_slice(), &[0]].concat());
    // Every flipped bit gives another event or none, and never a panic.
    let ledger = memory();
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Err(fault) = ledger.apply(ledger.info().id, &[flipped]) {
            let kinds = [ErrorKind::Validation, ErrorKind::TooLarge, ErrorKind::UpgradeNeeded];
            assert!(kinds.contains(&fault.kind()), "{fault}");
        }
    }
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    // A varint in a longer form than needed.
    let position = good.iter().position(|byte| *byte == b'k').unwrap();
    let mut long = good.clone();
    assert_eq!(long[position - 1], 1);
    long.splice(position - 1..position, [251, 1, 0]);
    assert!(refused(&long).message().contains("canonical"));
}

#[test]
fn what_a_newer_program_wrote_stops_the_stream() {
    let good = event(vec![Op::Delete]).encode().unwrap();
    let mut version = good.clone();
    version[4] = 2;
    assert_eq!(refused(&version).kind(), ErrorKind::UpgradeNeeded);
    let mut op = good.clone();
    let last = op.len() - 1;
    assert_eq!(op[last], 12, "the operation's number");
    op[last] = 99;
    assert_eq!(refused(&op).kind(), ErrorKind::UpgradeNeeded);
}

#[test]
fn an_event_that_its_ancestors_refute_is_refused() {
    let ledger = memory();
    let id = ledger.info().id;
    let root = event(vec![put("/a", "root")]);
    let (root_id, root_bytes) = root.identify(id).unwrap();
    let child = |nth, lane, at| Event {
        parents: vec![root_id],
        sequence: 2,
        nth,
        lane,
        at: Timestamp::from_millis(at),
        ..event(vec![put("/a", "child")])
    };
    let next = child(2, 0, 2_000);
    let (next_id, next_bytes) = next.identify(id).unwrap();
    let mut both = vec![root_id, next_id];
    both.sort();
    let broken = [
        child(1, 0, 2_000),
        child(3, 0, 2_000),
        child(2, 1, 2_000),
        child(2, 0, 1_000),
        child(2, 0, 999),
        Event { parents: both, ..child(3, 0, 3_000) },
    ];
    ledger.apply(id, &[root_bytes, next_bytes]).unwrap();
    for event in broken {
        let fault = ledger.apply(id, &[event.encode().unwrap()]).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Validation);
        assert!(fault.message().contains("c/k"), "{fault}");
    }
    assert_eq!(ledger.position(), 2);
    assert_eq!(ledger.get("c", "k").unwrap().unwrap().value, json!({"a": "child"}));
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

#[test]
fn events_without_their_parents_wait_and_those_of_another_ledger_are_refused() {
    let ledger = memory();
    ledger.put("c", "mine", json!({}), &Context::default()).unwrap();
    let id = ledger.info().id;
    let orphan = Event { parents: vec![EventId([7; 32])], ..event(vec![]) }.encode().unwrap();
    let transfer = ledger.apply(id, &[orphan.clone(), orphan.clone()]).unwrap();
    assert_eq!((transfer.offered, transfer.applied, transfer.duplicates, transfer.waiting), (2, 0, 1, 1));
    assert_eq!(ledger.status().unwrap().waiting, 1);
    let fault = ledger.apply(LedgerId([1; 16]), std::slice::from_ref(&orphan)).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::LedgerMismatch);
    // What is no event makes no empty ledger a replica of anything.
    let empty = memory();
    assert_eq!(empty.apply(LedgerId([1; 16]), &[b"nonsense".to_vec()]).unwrap_err().kind(), ErrorKind::Validation);
    assert_ne!(empty.info().id, LedgerId([1; 16]));
    empty.apply(LedgerId([1; 16]), &[orphan]).unwrap();
    assert_eq!(empty.info().id, LedgerId([1; 16]));
}

#[test]
fn a_forked_writer_is_taken_in_and_reported_and_duplicates_count_once() {
    let (ledger, other) = (memory(), memory());
    let id = ledger.info().id;
    let fork = |text: &str| event(vec![put("/a", text)]).encode().unwrap();
    let done = ledger.apply(id, &[fork("one"), fork("two"), fork("one"), fork("three"), fork("two")]).unwrap();
    assert_eq!((done.offered, done.applied, done.duplicates), (5, 3, 2));
    assert_eq!(ledger.status().unwrap().forked_writers, [WriterId([9; 16])]);
    other.apply(id, &[fork("three"), fork("two"), fork("one")]).unwrap();
    assert_eq!(ledger.get("c", "k").unwrap(), other.get("c", "k").unwrap());
    assert_eq!(ledger.digest().unwrap(), other.digest().unwrap());
    for ledger in [&ledger, &other] {
        assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
        assert_eq!(ledger.history("c", "k").unwrap().len(), 3);
        assert_eq!(ledger.get("c", "k").unwrap().unwrap().conflicts.len(), 1);
    }
}

#[test]
fn waiting_events_are_bounded() {
    let ledger = memory();
    let id = ledger.info().id;
    let orphan = |n: u32| {
        let ops = (0..3).map(|at| put(&format!("/{at}"), "x".repeat(16_000))).collect();
        Event { parents: vec![EventId([7; 32])], key: format!("k{n}"), ..event(ops) }.encode().unwrap()
    };
    let mut refused = None;
    for chunk in 0..100 {
        let events: Vec<Vec<u8>> = (chunk * 20..chunk * 20 + 20).map(orphan).collect();
        if let Err(fault) = ledger.apply(id, &events) {
            refused = Some((chunk, fault));
            break;
        }
    }
    let (chunk, fault) = refused.expect("64 MiB are enough");
    assert_eq!(fault.kind(), ErrorKind::TooLarge);
    assert!((60..80).contains(&chunk), "{chunk}");
    // Everything else goes on.
    ledger.put("c", "mine", json!({}), &Context::default()).unwrap();
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}
