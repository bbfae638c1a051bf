//! Devices at the edge of a ledger: what is refused is told, the rest is taken in, and nobody gets what it may not have.

use std::collections::BTreeSet;

use serde_json::json;
use syncledger::ErrorKind;
use syncledger::event::{BlobForm, BlobHash, BlobRef, Body, Event, EventId, Op, Path, Timestamp, Value, WriterId};
use syncledger::ledger::{Act, Context, Edge, Ledger, Options, SessionOptions, Store, Write, Writers};
use syncledger::projection::Policy;
use syncledger::replication::{Cursor, Filter, Hello, Message, Refusal, Wants};
use syncledger::segment::Item;

use crate::sessions::{Link, connected};

fn ledger() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

/// A server, and a device that is a replica of it.
fn server_and_device() -> (Ledger, Ledger) {
    let (server, device) = (ledger(), ledger());
    server.put("notes", "first", json!({ "owner": "ann" }), &app()).unwrap();
    device.pull(&server).unwrap();
    (server, device)
}

fn app() -> Context {
    Context::from_source("app")
}

/// A device that writes notes and tasks from `app`, and reads everything that devices may.
fn edge() -> Edge {
    let writes = BTreeSet::from(["notes".to_owned(), "tasks".to_owned()]);
    Edge { device: "tablet".into(), source: Some("app".into()), writes: Some(writes), ..Edge::default() }
}

/// A session of a device with a server until its end, or until so many messages were delivered. Returns the refusals.
fn sync_up_to(server: &Ledger, device: &Ledger, edge: &Edge, most: usize) -> Vec<Refusal> {
    let of_server = SessionOptions { edge: Some(edge.clone()), ..SessionOptions::default() };
    let mut link = Link::new(server, device, [&of_server, &SessionOptions::default()]);
    link.run(most);
    let refusals = link.peers[1].take_refusals();
    if most == usize::MAX {
        for outcome in link.finish().0 {
            outcome.unwrap();
        }
    }
    refusals
}

fn sync(server: &Ledger, device: &Ledger, edge: &Edge) -> Vec<Refusal> {
    sync_up_to(server, device, edge, usize::MAX)
}

fn codes(refusals: &[Refusal]) -> Vec<&str> {
    refusals.iter().map(|refusal| refusal.code.as_str()).collect()
}

/// An event on a record of its own, as somebody may have made it.
fn event(key: &str, writer: WriterId, sequence: u64) -> Event {
    let ops = vec![Op::Put { path: Path::parse("/a").unwrap(), value: Value::Text(key.into()) }];
    let plain = syncledger::testing::event(ops);
    Event { collection: "notes".into(), key: key.into(), writer, sequence, source: "app".into(), ..plain }
}

fn take_in(ledger: &Ledger, events: &[Event]) {
    let bytes: Vec<_> = events.iter().map(|event| event.encode().unwrap()).collect();
    assert_eq!(ledger.apply(ledger.info().id, &bytes).unwrap().applied, events.len() as u64);
}

fn now_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[test]
fn what_a_device_may_not_write_is_refused_with_the_reason_and_the_rest_is_taken_in() {
    let (server, device) = server_and_device();
    device.put("notes", "mine", json!({ "n": 1 }), &app()).unwrap();
    device.put("secret", "s", json!({ "n": 1 }), &app()).unwrap();
    device.patch("secret", "s", json!({ "n": 2 }), &app()).unwrap();
    device.put("tasks", "other", json!({}), &Context::from_source("jira")).unwrap();
    device.set_policy("notes", &Policy::default(), &app()).unwrap();
    device.put("tasks", "mine", json!({}), &app()).unwrap();

    let refusals = sync(&server, &device, &edge());
    assert_eq!(codes(&refusals), ["permission"; 4]);
    let words = refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>();
    assert!(words[0].contains("`secret`") && words[2].contains("`jira`") && words[3].contains("`$collections`"));
    let is_there = |collection: &str, key: &str| server.get(collection, key).unwrap().is_some();
    assert!(is_there("notes", "mine") && is_there("tasks", "mine"));
    assert!(!is_there("secret", "s") && !is_there("tasks", "other") && !is_there("$collections", "notes"));
    assert_eq!(sync(&server, &device, &edge()), [], "it is told once");
    // With other rights it is asked for again.
    let more = Edge { writes: None, ..edge() };
    assert_eq!(codes(&sync(&server, &device, &more)), ["permission", "permission"]);
    assert!(is_there("secret", "s") && !is_there("tasks", "other"));
    // Nothing of it is lost where it was made.
    assert_eq!(device.get("secret", "s").unwrap().unwrap().value, json!({ "n": 2 }));
}

#[test]
fn an_event_stamped_far_ahead_is_refused_with_the_time_and_one_a_little_ahead_is_not() {
    let (server, device) = server_and_device();
    let ahead = |key: &str, sequence: u64, by_ms: i64| {
        let at = Timestamp { millis: now_ms() + by_ms, counter: 0 };
        Event { at, ..event(key, device.info().writer, sequence) }
    };
    take_in(&device, &[ahead("soon", 1_001, 4 * 60_000), ahead("tomorrow", 1_002, 86_400_000)]);
    let refusals = sync(&server, &device, &edge());
    assert_eq!(codes(&refusals), ["clock_ahead"]);
    assert!(refusals[0].message.contains("ms since 1970"), "{}", refusals[0].message);
    assert!(server.get("notes", "soon").unwrap().is_some() && server.get("notes", "tomorrow").unwrap().is_none());
    // One that another replica took in is an event like any other: nothing once accepted is quarantined.
    server.pull(&device).unwrap();
    assert!(server.get("notes", "tomorrow").unwrap().is_some());
}

#[test]
fn events_in_the_name_of_another_writer_or_of_a_forked_one_are_refused() {
    let (server, device) = server_and_device();
    let (somebody, forked) = (WriterId([7; 16]), WriterId([8; 16]));
    take_in(&server, &[event("x", forked, 1), event("y", forked, 1)]);
    let forged = [
        event("of server", server.info().writer, 900),
        event("of somebody", somebody, 1),
        event("of forked", forked, 2),
        event("of a new one", WriterId([9; 16]), 1),
    ];
    take_in(&device, &forged);
    let edge = Edge { writers: Writers::of([(somebody, "phone".to_owned())]), ..edge() };
    let refusals = sync(&server, &device, &edge);
    assert_eq!(codes(&refusals), ["consistency"; 3]);
    let is_there = |key: &str| server.get("notes", key).unwrap().is_some();
    assert_eq!(forged.map(|event| is_there(&event.key)), [false, false, false, true]);
}

#[test]
fn events_of_others_that_are_known_are_not_refused_to_who_brings_them_back() {
    let (server, device) = server_and_device();
    let mesh = ledger();
    sync(&server, &device, &edge());
    server.put("secret", "s", json!({ "n": 1 }), &app()).unwrap();
    server.patch("notes", "first", json!({ "n": 1 }), &app()).unwrap();
    mesh.pull(&server).unwrap();
    device.pull(&mesh).unwrap();
    device.patch("notes", "first", json!({ "n": 2 }), &app()).unwrap();
    assert_eq!(sync(&server, &device, &edge()), []);
    assert_eq!(server.get("notes", "first").unwrap().unwrap().value["n"], 2);
}

#[test]
fn a_device_gets_what_it_may_have_whatever_it_wants_and_more_once_it_may() {
    let server = ledger();
    for (key, owner) in [("a", "ann"), ("r", "ravi")] {
        server.put("notes", key, json!({ "owner": owner, "n": 1 }), &app()).unwrap();
    }
    server.put("secret", "s", json!({}), &app()).unwrap();
    take_in(&server, &[Event { collection: "$devices".into(), ..event("d", WriterId([5; 16]), 1) }]);
    server.set_policy("notes", &Policy::default(), &app()).unwrap();
    let device = ledger();
    let anns = Edge { reads: Filter::of([]).and_where("notes", "/owner", &[json!("ann")]), ..edge() };
    sync(&server, &device, &anns);
    let held = || {
        let names = device.collections().unwrap().into_iter().map(|info| (info.name, info.records));
        names.collect::<Vec<_>>()
    };
    let only_anns = vec![("$collections".to_owned(), 1), ("notes".to_owned(), 1)];
    assert_eq!(held(), only_anns);

    // What it may not have any more it does not even hear of.
    server.patch("notes", "a", json!({ "owner": "ravi", "n": 2 }), &app()).unwrap();
    sync(&server, &device, &anns);
    assert_eq!(device.get("notes", "a").unwrap().unwrap().value, json!({ "owner": "ann", "n": 1 }));

    // With other rights its cursor does not hold: it gets what lies before it.
    sync(&server, &device, &edge());
    let all = vec![("$collections".to_owned(), 1), ("notes".to_owned(), 2), ("secret".to_owned(), 1)];
    assert_eq!(held(), all);
    assert_eq!(device.get("notes", "a").unwrap().unwrap().value, json!({ "owner": "ravi", "n": 2 }));
    assert_eq!(device.status().unwrap().waiting, 0);
}

#[test]
fn a_refusal_is_told_again_until_it_was_heard_wherever_the_session_broke_off() {
    let whole: Vec<EventId> = refused_when_broken(usize::MAX);
    assert_eq!(whole.len(), 2);
    for most in 0..40 {
        assert_eq!(refused_when_broken(most), whole, "after {most} messages");
    }
}

/// The events of whose refusal a device hears in a session that breaks off after so many messages, and a whole one.
fn refused_when_broken(most: usize) -> Vec<EventId> {
    let (server, device) = server_and_device();
    let forged = |key: &str, sequence: u64| event(key, WriterId([7; 16]), sequence);
    let writers = Writers::of([(WriterId([7; 16]), "phone".to_owned())]);
    let edge = Edge { writers, ..edge() };
    take_in(&device, &[Event { at: Timestamp { millis: 1, counter: 0 }, ..forged("f", 1) }]);
    device.put("notes", "mine", json!({}), &app()).unwrap();
    take_in(&device, &[Event { at: Timestamp { millis: 2, counter: 0 }, ..forged("g", 2) }]);
    let mut refused: BTreeSet<String> = BTreeSet::new();
    let mut ids = Vec::new();
    for most in [most, usize::MAX] {
        for refusal in sync_up_to(&server, &device, &edge, most) {
            if refused.insert(refusal.event.to_string()) {
                ids.push(refusal.event);
            }
        }
    }
    assert!(server.get("notes", "mine").unwrap().is_some());
    // Ids cover the ledger's, which is another each time: what is told of is told by its place.
    let log = device.log(&Default::default()).unwrap();
    let place = |id: &EventId| log.iter().find(|entry| entry.id == *id).map(|entry| entry.event.sequence).unwrap();
    ids.iter().map(|id| EventId([u8::try_from(place(id)).unwrap(); 32])).collect()
}

#[test]
fn of_refusals_only_so_many_words_are_kept_and_those_of_a_device_not_at_all() {
    let here = ledger();
    here.put("notes", "first", json!({}), &app()).unwrap();
    let kept = |edge: Option<Edge>| {
        let mut peer = here.session(&SessionOptions { edge, ..SessionOptions::default() }).unwrap();
        peer.begin();
        peer.hear(Message::Hello(Hello { replica: WriterId([7; 16]), ..hello(&here) }));
        peer.hear(Message::Wants(Some(Wants::after(None, Filter::default()))));
        let refusal = Refusal { event: EventId([1; 32]), code: "c".repeat(1 << 20), message: "m".repeat(1 << 20) };
        peer.hear(Message::Ack { batch: 1, cursor: None, refused: vec![refusal] });
        assert!(!peer.is_ended());
        peer.take_refusals().iter().map(|kept| (kept.code.len(), kept.message.len())).collect::<Vec<_>>()
    };
    assert_eq!(kept(None), [(64, 1_024)]);
    assert_eq!(kept(Some(edge())), []);
}

#[test]
fn what_was_made_on_a_refused_event_is_refused_in_this_session_and_in_any_later_one() {
    let (server, device) = server_and_device();
    device.put("notes", "n", json!({}), &Context::from_source("jira")).unwrap();
    device.patch("notes", "n", json!({ "n": 1 }), &app()).unwrap();
    let refusals = sync(&server, &device, &edge());
    assert_eq!(codes(&refusals), ["permission", "conflict"]);
    assert!(refusals[1].message.contains(&refusals[0].event.short().to_string()), "{}", refusals[1].message);
    device.patch("notes", "n", json!({ "n": 2 }), &app()).unwrap();
    device.put("notes", "good", json!({}), &app()).unwrap();
    assert_eq!(codes(&sync(&server, &device, &edge())), ["conflict"]);
    assert!(server.get("notes", "good").unwrap().is_some());
    assert_eq!(server.status().unwrap().waiting, 0, "nothing waits for what never comes");
    assert_eq!(sync(&server, &device, &edge()), [], "the cursor went past it");
}

#[test]
fn an_event_that_breaks_a_rule_is_refused_and_does_not_hold_up_the_device() {
    let server = ledger();
    server.put("notes", "first", json!({}), &app()).unwrap();
    let late = Event { nth: 2, ..event("late", WriterId([9; 16]), 1) };
    let mut peer = server.session(&SessionOptions { edge: Some(edge()), ..SessionOptions::default() }).unwrap();
    let hello = Hello { replica: WriterId([9; 16]), ..hello(&server) };
    peer.begin();
    peer.hear(Message::Hello(hello));
    peer.hear(Message::Wants(None));
    peer.hear(Message::Begins { after: 0, scope: String::new() });
    let item = |event: Event, position| {
        let bytes = event.encode().unwrap();
        let id = syncledger::event::event_id(server.info().id, &bytes);
        Item { position, previous: 0, received_at: 0, run: None, id, event }
    };
    let events = vec![item(late, 1), item(event("good", WriterId([9; 16]), 2), 2)];
    let said = peer.hear(Message::Batch { batch: 1, upto: Cursor { position: 2, mark: [1; 32] }, events });
    let Some(Message::Ack { refused, .. }) = said.first() else { panic!("{said:?}") };
    assert_eq!(codes(refused), ["validation"]);
    assert!(server.get("notes", "good").unwrap().is_some() && !peer.is_ended());
}

#[test]
fn an_empty_ledger_does_not_become_a_replica_of_a_device() {
    let (server, device) = (ledger(), ledger());
    device.put("notes", "n", json!({}), &app()).unwrap();
    let id = server.info().id;
    let of_server = SessionOptions { edge: Some(edge()), ..SessionOptions::default() };
    let mut link = Link::new(&server, &device, [&of_server, &SessionOptions::default()]);
    link.run(usize::MAX);
    let [here, _] = link.finish().0;
    assert_eq!(here.unwrap_err().kind(), ErrorKind::LedgerMismatch);
    assert_eq!((server.info().id, server.position()), (id, 0));
}

#[test]
fn no_device_moves_the_cursor_of_another_and_none_hears_of_collections_that_it_may_not_read() {
    let (server, victim) = server_and_device();
    server.put("secret", "s", json!({}), &app()).unwrap();
    victim.put("notes", "mine", json!({}), &app()).unwrap();
    // Somebody knows the victim's log, and says to have sent all of it.
    let last = victim.log(&Default::default()).unwrap().pop().unwrap();
    let thief = Edge { device: "thief".into(), reads: Filter::of(["notes"]), ..edge() };
    let of_server = SessionOptions { edge: Some(thief), ..SessionOptions::default() };
    let mut peer = server.session(&of_server).unwrap();
    peer.begin();
    let said = peer.hear(Message::Hello(hello(&victim)));
    let Some(Message::Wants(Some(wants))) = said.last() else { panic!("{said:?}") };
    assert_eq!(wants.digests.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["notes"]);
    peer.hear(Message::Wants(None));
    peer.hear(Message::Begins { after: 0, scope: String::new() });
    let upto = Cursor { position: last.position, mark: last.id.0 };
    peer.hear(Message::Batch { batch: 1, upto, events: Vec::new() });
    peer.hear(Message::Reached);
    sync(&server, &victim, &edge());
    assert!(server.get("notes", "mine").unwrap().is_some());
}

#[test]
fn who_carries_a_session_over_a_socket_hears_what_was_refused() {
    let (server, device) = server_and_device();
    device.put("secret", "s", json!({}), &app()).unwrap();
    let (ours, theirs) = connected();
    let of_server = SessionOptions { edge: Some(edge()), ..SessionOptions::default() };
    let mut peer = server.session(&of_server).unwrap();
    let there = std::thread::spawn(move || peer.carry(ours.try_clone().unwrap(), ours, &mut |_| Ok(())));
    let mut peer = device.session(&SessionOptions::default()).unwrap();
    peer.carry(theirs.try_clone().unwrap(), theirs, &mut |_| Ok(())).unwrap();
    there.join().unwrap().unwrap();
    assert_eq!(codes(&peer.take_refusals()), ["permission"]);
    assert!(peer.take_refusals().is_empty());
}

fn hello(of: &Ledger) -> Hello {
    Hello { versions: (1, 1), ledger: of.info().id, adopts: false, replica: of.info().writer, sends: true, now_ms: 0 }
}

/// A value so large that events only name it, and its hash.
fn large(seed: usize) -> (String, BlobHash) {
    let text: String = (0..40_000).map(|n| format!("{:07} ", n * seed)).collect();
    let hash = BlobHash::of(text.as_bytes());
    (text, hash)
}

#[test]
fn a_device_has_large_values_of_what_it_is_sent_and_of_nothing_else() {
    let (server, device) = server_and_device();
    let ((shown, of_shown), (hidden, of_hidden)) = (large(1), large(2));
    server.put("notes", "large", json!({ "text": shown }), &app()).unwrap();
    server.put("secret", "large", json!({ "text": hidden }), &app()).unwrap();
    let reads = Edge { reads: Filter::of(["notes"]), ..edge() };
    assert!(sync(&server, &device, &reads).is_empty());
    assert_eq!(device.get("notes", "large").unwrap().unwrap().value["text"], json!(shown));

    let of_device = SessionOptions { follows: true, ..SessionOptions::default() };
    let of_server = SessionOptions { edge: Some(reads), ..of_device.clone() };
    let asked = |hash| {
        let mut link = Link::new(&server, &device, [&of_server, &of_device]);
        link.run(usize::MAX);
        link.peers[0].hear(Message::WantBlob { hash, offset: 0 })
    };
    assert_eq!(asked(of_hidden), [Message::NoBlob(of_hidden)]);
    assert_eq!(asked(of_shown), [Message::NoBlob(of_shown)], "nothing that names it was sent in this session");
}

#[test]
fn who_names_a_large_value_that_is_here_already_has_to_send_it() {
    let (server, device) = server_and_device();
    let ((text, hash), (own, _)) = (large(1), large(3));
    server.put("secret", "large", json!({ "text": text }), &app()).unwrap();
    device.put("notes", "own", json!({ "text": own }), &app()).unwrap();
    let edge = Edge { reads: Filter::of(["notes"]), ..edge() };
    assert!(sync(&server, &device, &edge).is_empty());
    assert_eq!(server.get("notes", "own").unwrap().unwrap().value["text"], json!(own));

    let blob = BlobRef { hash, bytes: text.len() as u64, form: BlobForm::Text };
    let path = Path::parse("/text").unwrap();
    let named = Event {
        body: Body::Ops(vec![Op::Put { path, value: Value::Blob(blob) }]),
        ..event("claims", WriterId([7; 16]), 1)
    };
    take_in(&device, &[named]);
    let of_server = SessionOptions { edge: Some(edge), ..SessionOptions::default() };
    let mut link = Link::new(&server, &device, [&of_server, &SessionOptions::default()]);
    link.run(usize::MAX);
    let ([to_server, _], _) = link.finish();
    assert_eq!(to_server.unwrap_err().kind(), ErrorKind::NotFound, "the device has not got it");
    assert!(server.get("notes", "claims").unwrap().is_none());
}

#[test]
fn many_refused_edits_of_one_long_record_have_it_read_once() {
    let (server, device) = server_and_device();
    let patch = |n: usize| Write::new("notes", "long", Act::Patch(json!({ "n": n })));
    server.put("notes", "long", json!({}), &app()).unwrap();
    server.write_all((0..1_000).map(patch).collect(), &app()).unwrap();
    device.pull(&server).unwrap();
    device.write_all((0..200).map(patch).collect(), &app()).unwrap();
    let reads = Edge { writes: Some(BTreeSet::from(["tasks".to_owned()])), ..edge() };
    let frames = || server.store().work().frames;
    let before = frames();
    server.history("notes", "long").unwrap();
    let record = frames() - before;
    let before = frames();
    assert_eq!(sync(&server, &device, &reads).len(), 200);
    let read = frames() - before;
    assert!(record > 10 && read < 10 * record, "{read} frames, of {record} that the record has");
}
