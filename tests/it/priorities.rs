//! Collections that go before others, where much waits to be sent.

use serde_json::json;
use syncledger::ledger::{Act, Context, Ledger, Options, SessionOptions, Store, Write};
use syncledger::replication::{Filter, Message};

use crate::sessions::Link;

const NOTES: usize = 3_000;
const ORDERS: usize = 700;

fn ledger() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

/// A server, and a device on which many edits of notes were made, and then some of orders and of urgent things.
fn with_a_backlog() -> [Ledger; 2] {
    let [server, device] = [ledger(), ledger()];
    server.put("notes", "first", json!({}), &context()).unwrap();
    device.pull(&server).unwrap();
    let edits = |collection: &str, count: usize| {
        let write = |nth| Write::new(collection, format!("{}", nth % 100), Act::Patch(json!({ "n": nth })));
        let mut writes: Vec<Write> =
            (0..100.min(count)).map(|nth| Write::new(collection, format!("{nth}"), Act::Put(json!({})))).collect();
        writes.extend((writes.len()..count).map(write));
        device.write_all(writes, &context()).unwrap();
    };
    edits("notes", NOTES);
    edits("orders", ORDERS);
    edits("urgent", 1);
    [server, device]
}

fn context() -> Context {
    Context::from_source("app")
}

fn sends(first: &[&str]) -> SessionOptions {
    let first = first.iter().map(ToString::to_string).collect();
    SessionOptions { wants: None, first, ..SessionOptions::default() }
}

fn takes(filter: Filter) -> SessionOptions {
    SessionOptions { sends: false, wants: Some(filter), ..SessionOptions::default() }
}

/// The collections of what a server took in, in its order, each once in a row.
fn order(server: &Ledger) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for entry in server.log(&Default::default()).unwrap().into_iter().skip(1) {
        if order.last() != Some(&entry.event.collection) {
            order.push(entry.event.collection);
        }
    }
    order
}

fn digest(ledger: &Ledger) -> String {
    ledger.digest().unwrap().digest
}

#[test]
fn what_goes_first_is_there_before_what_was_edited_earlier_and_nothing_is_sent_twice() {
    let [server, device] = with_a_backlog();
    let mut link =
        Link::new(&server, &device, [&takes(Filter::default()), &sends(&["urgent", "orders", "unheard of"])]);
    link.run(usize::MAX);
    let ([to_server, _], _) = link.finish();
    let taken = to_server.unwrap();
    assert_eq!(order(&server), ["urgent", "orders", "notes"]);
    assert_eq!((taken.applied, taken.duplicates, taken.waiting), ((NOTES + ORDERS + 1) as u64, 1, 0));
    assert_eq!(digest(&server), digest(&device));
}

#[test]
fn a_session_that_breaks_off_among_what_goes_first_is_gone_on_with() {
    for messages in [8, 12, 15, 18, 25, 40] {
        let [server, device] = with_a_backlog();
        let options = [takes(Filter::default()), sends(&["urgent", "orders"])];
        let mut link = Link::new(&server, &device, [&options[0], &options[1]]);
        link.run(messages);
        let acknowledged = link.peers[1].acknowledged().unwrap_or(0);
        let until = device.position().min(acknowledged);
        let is_there = |key: &str| server.get("notes", key).unwrap().is_some();
        assert!(until <= 1 || is_there("0"), "what is acknowledged is there");
        drop(link);
        let mut link = Link::new(&server, &device, [&options[0], &options[1]]);
        link.run(usize::MAX);
        let ([to_server, to_device], _) = link.finish();
        assert!(to_server.is_ok() && to_device.is_ok());
        assert_eq!(digest(&server), digest(&device), "after {messages} messages");
        assert_eq!(server.position(), device.position());
    }
}

#[test]
fn what_is_wanted_in_part_or_is_little_goes_in_its_turn() {
    let [server, device] = with_a_backlog();
    let some = Filter::of(["notes"]).and_where("orders", "/n", &[json!(699)]);
    let mut link = Link::new(&server, &device, [&takes(some), &sends(&["orders"])]);
    link.run(usize::MAX);
    assert_eq!(order(&server).first().map(String::as_str), Some("notes"));
    let mut link = Link::new(&server, &device, [&takes(Filter::default()), &sends(&["orders"])]);
    link.run(usize::MAX);
    let count = server.position();
    let more = |collection: &str| Write::new(collection, "more", Act::Put(json!({})));
    device.write_all(vec![more("notes"), more("orders")], &context()).unwrap();
    let mut link = Link::new(&server, &device, [&takes(Filter::default()), &sends(&["orders"])]);
    link.run(usize::MAX);
    let came = server.log(&Default::default()).unwrap();
    let came: Vec<&str> = came.iter().skip(count as usize).map(|entry| entry.event.collection.as_str()).collect();
    assert_eq!(came, ["notes", "orders"]);
}

#[test]
fn who_sends_what_comes_no_further_for_ever_is_acknowledged_and_holds_nothing_up() {
    let [server, device] = with_a_backlog();
    let mut link = Link::new(&server, &device, [&takes(Filter::default()), &sends(&["orders"])]);
    let mut batches = Vec::new();
    for _ in 0..200 {
        link.run(1);
        batches.extend(link.peers[1].acknowledged());
    }
    assert!(batches.is_sorted(), "{batches:?}");
    link.run(usize::MAX);
    assert_eq!(link.peers[1].acknowledged(), Some(device.position()));
    let over = link.peers[0].hear(Message::Ping);
    assert!(over.is_empty(), "both have ended");
}
