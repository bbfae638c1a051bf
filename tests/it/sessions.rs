//! Two replicas in a session: every message goes over as bytes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use syncledger::ledger::{Act, Context, Ledger, Options, Peer, SessionOptions, Store, Transfer, Which, Write};
use syncledger::replication::{
    self, Bye, Cursor, Filter, Framing, Hello, Input, Message, Output, Session, Settings, Wants, decode, encode,
};
use syncledger::segment::{Alone, Item};
use syncledger::{Error, ErrorKind};

fn ledger() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn context(source: &str) -> Context {
    Context::from_source(source)
}

#[test]
fn what_holds_nothing_waits_for_the_answers_to_offers_before_it() {
    let [server, device] = replicas_with_events();
    let (follows, notes) = (SessionOptions { follows: true, ..SessionOptions::default() }, Filter::of(["notes"]));
    let wants = SessionOptions { wants: Some(notes), ..follows.clone() };
    let mut link = Link::new(&server, &device, [&follows, &wants]);
    while link.ways[0].offered == 0 {
        assert!(link.deliver(0) | link.deliver(1), "nothing was offered");
    }
    // Of this the device is sent nothing but how far the log was looked through.
    server.put("tasks", "1", json!({}), &context("app")).unwrap();
    let said = link.peers[0].grown();
    link.say(0, said);
    link.run(usize::MAX);
    assert!(!link.peers[1].is_ended(), "{:?}", link.peers[1].finish());
    assert!(device.get("notes", "of server").unwrap().is_some());
}

/// Two replicas that both hold events, and have not met since.
fn replicas_with_events() -> [Ledger; 2] {
    let [server, device] = [ledger(), ledger()];
    server.put("notes", "1", json!({}), &context("app")).unwrap();
    device.pull(&server).unwrap();
    let third = ledger();
    third.pull(&device).unwrap();
    server.put("notes", "of server", json!({}), &context("app")).unwrap();
    [server, third]
}

/// What went over the link, one way.
#[derive(Default, Debug)]
pub struct Way {
    messages: usize,
    bytes: usize,
    events: usize,
    offered: usize,
    blobs: usize,
}

/// A link between two replicas that takes messages over as bytes, and may break.
pub struct Link {
    pub peers: [Peer; 2],
    /// What is under way to each.
    under_way: [VecDeque<Vec<u8>>; 2],
    ways: [Way; 2],
}

impl Link {
    pub fn new(here: &Ledger, there: &Ledger, options: [&SessionOptions; 2]) -> Self {
        let peers = [here.session(options[0]).unwrap(), there.session(options[1]).unwrap()];
        let mut link = Self { peers, under_way: Default::default(), ways: Default::default() };
        for side in [0, 1] {
            let said = link.peers[side].begin();
            link.say(side, said);
        }
        link
    }

    fn say(&mut self, side: usize, messages: Vec<Message>) {
        for message in messages {
            let way = &mut self.ways[side];
            match &message {
                Message::Batch { events, .. } => way.events += events.len(),
                Message::Offer { ids, .. } => way.offered += ids.len(),
                Message::Blob { .. } => way.blobs += 1,
                _ => {}
            }
            let bytes = self.peers[side].encode(message).unwrap();
            way.messages += 1;
            way.bytes += bytes.len();
            self.under_way[1 - side].push_back(bytes);
        }
    }

    /// Delivers one message to a side, if there is any.
    fn deliver(&mut self, side: usize) -> bool {
        let Some(bytes) = self.under_way[side].pop_front() else { return false };
        let message = self.peers[side].decode(&bytes).unwrap();
        let said = self.peers[side].hear(message);
        self.say(side, said);
        true
    }

    /// Delivers until nothing is under way, or so many messages were delivered.
    pub fn run(&mut self, most: usize) {
        let mut side = 0;
        for _ in 0..most {
            if !self.deliver(side) && !self.deliver(1 - side) {
                return;
            }
            side = 1 - side;
        }
    }

    pub fn finish(self) -> ([Result<Transfer, Error>; 2], [Way; 2]) {
        let [mut here, mut there] = self.peers;
        ([here.finish(), there.finish()], self.ways)
    }
}

/// A session to its end, in both directions.
fn sync(here: &Ledger, there: &Ledger) -> ([Transfer; 2], [Way; 2]) {
    sync_with(here, there, [&SessionOptions::default(); 2])
}

fn sync_with(here: &Ledger, there: &Ledger, options: [&SessionOptions; 2]) -> ([Transfer; 2], [Way; 2]) {
    let mut link = Link::new(here, there, options);
    link.run(usize::MAX);
    let (outcomes, ways) = link.finish();
    (outcomes.map(Result::unwrap), ways)
}

fn digest(ledger: &Ledger) -> String {
    ledger.digest().unwrap().digest
}

fn edit(ledger: &Ledger, source: &str, key: usize, field: usize, value: usize) {
    let (key, value) = (format!("k{key}"), json!({ format!("field{field}"): format!("{source}-{value}") }));
    match ledger.get("c", &key).unwrap() {
        None => ledger.put("c", &key, value, &context(source)).unwrap(),
        Some(_) => ledger.patch("c", &key, value, &context(source)).unwrap(),
    };
}

#[test]
fn both_sides_give_and_take_in_one_session_and_nothing_is_sent_back() {
    let (here, there) = (ledger(), ledger());
    edit(&here, "a", 1, 1, 1);
    sync(&here, &there);
    (0..20).for_each(|nth| edit(&here, "a", nth, 1, 100 + nth));
    (0..30).for_each(|nth| edit(&there, "b", nth % 25, nth % 3, nth));
    let ([to_here, to_there], [from_here, from_there]) = sync(&here, &there);
    assert_eq!((from_here.events, from_there.events), (20, 30));
    assert_eq!((to_here.applied, to_there.applied, to_here.waiting), (30, 20, 0));
    assert_eq!(digest(&here), digest(&there));
    let conflicts = |ledger: &Ledger| ledger.conflicts(None, Which::Open, None).unwrap().len();
    assert!(conflicts(&here) > 0 && conflicts(&here) == conflicts(&there));
    let (_, ways) = sync(&here, &there);
    assert_eq!(ways.map(|way| (way.events, way.offered)), [(0, 0); 2], "both know how far the other is");
}

#[test]
fn a_cursor_passes_no_event_while_one_waits_for_its_parents() {
    let [here, there] = replicas_with_events();
    let third = ledger();
    third.pull(&there).unwrap();
    third.put("notes", "2", json!({}), &context("app")).unwrap();
    third.patch("notes", "2", json!({ "text": "later" }), &context("app")).unwrap();
    let log = third.log(&Default::default()).unwrap();
    let [parent, child] = [1, 2].map(|nth| log[nth].event.encode().unwrap());
    there.apply(third.info().id, &[child]).unwrap();
    let acknowledged = || {
        let mut link = Link::new(&here, &there, [&SessionOptions::default(); 2]);
        link.run(usize::MAX);
        link.peers[0].acknowledged()
    };
    let all = here.position();
    assert!(acknowledged().is_none_or(|position| position < all), "the log would not be sent again");
    assert_eq!(there.status().unwrap().waiting, 1);
    there.apply(third.info().id, &[parent]).unwrap();
    let all = here.position();
    assert_eq!(acknowledged(), Some(all));
}

#[test]
fn an_empty_replica_becomes_one_of_the_other_ledger_and_another_ledger_is_refused() {
    let (here, empty, other) = (ledger(), ledger(), ledger());
    edit(&here, "a", 1, 1, 1);
    edit(&other, "x", 1, 1, 1);
    sync(&empty, &here);
    assert_eq!(empty.info().id, here.info().id);
    let mut link = Link::new(&here, &other, [&SessionOptions::default(); 2]);
    link.run(usize::MAX);
    for outcome in link.finish().0 {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LedgerMismatch);
    }
    let (first, second) = (ledger(), ledger());
    sync(&first, &second);
    assert_eq!(first.info().id, second.info().id, "two that are empty agree on one of theirs");
}

#[test]
fn who_only_sends_gets_nothing_and_who_only_wants_gives_nothing() {
    let (here, there) = (ledger(), ledger());
    edit(&here, "a", 1, 1, 1);
    sync(&here, &there);
    edit(&here, "a", 2, 1, 2);
    edit(&there, "b", 3, 1, 3);
    let sends = SessionOptions { sends: true, wants: None, follows: false, ..SessionOptions::default() };
    let wants =
        SessionOptions { sends: false, wants: Some(Filter::default()), follows: false, ..SessionOptions::default() };
    let ([to_here, to_there], _) = sync_with(&here, &there, [&sends, &wants]);
    assert_eq!((to_here.applied, to_there.applied), (0, 1));
    assert_eq!((here.position(), there.position()), (2, 3));
    let silent = SessionOptions { sends: false, wants: None, follows: false, ..SessionOptions::default() };
    sync_with(&here, &there, [&silent, &silent]);
    sync_with(&here, &there, [&wants, &wants]);
    assert_eq!((here.position(), there.position()), (2, 3));
}

#[test]
fn only_wanted_collections_and_records_are_sent_and_one_that_comes_to_be_wanted_is_sent_whole() {
    let (server, device) = (ledger(), ledger());
    let app = context("app");
    let put = |key: &str, owner: &str| server.put("issues", key, json!({ "owner": owner, "n": 1 }), &app).unwrap();
    put("mine", "ann");
    put("theirs", "ravi");
    server.put("notes", "n", json!({ "text": "all" }), &app).unwrap();
    server.put("secret", "s", json!({ "text": "none" }), &app).unwrap();
    let filter = Filter::of(["notes"]).and_where("issues", "/owner", &[json!("ann")]);
    let wants = SessionOptions { sends: false, wants: Some(filter), follows: true, ..SessionOptions::default() };
    let sends = SessionOptions { sends: true, wants: None, follows: true, ..SessionOptions::default() };
    let mut link = Link::new(&server, &device, [&sends, &wants]);
    link.run(usize::MAX);
    let value = |key: &str| device.get("issues", key).unwrap().map(|record| record.value);
    assert_eq!((value("mine"), value("theirs")), (Some(json!({ "owner": "ann", "n": 1 })), None));
    assert!(device.get("notes", "n").unwrap().is_some() && device.get("secret", "s").unwrap().is_none());

    // It came to be wanted, by the last of its events; and another is not any more, from the last of its events on.
    server.patch("issues", "theirs", json!({ "n": 2 }), &app).unwrap();
    server.patch("issues", "theirs", json!({ "owner": "ann" }), &app).unwrap();
    let grow = |link: &mut Link| {
        let said = link.peers[0].grown();
        link.say(0, said);
        link.run(usize::MAX);
    };
    grow(&mut link);
    assert_eq!(value("theirs"), Some(json!({ "owner": "ann", "n": 2 })));
    server.patch("issues", "mine", json!({ "owner": "ravi" }), &app).unwrap();
    grow(&mut link);
    server.patch("issues", "mine", json!({ "n": 3 }), &app).unwrap();
    grow(&mut link);
    assert_eq!(value("mine"), Some(json!({ "owner": "ravi", "n": 1 })));
    assert_eq!(link.peers[1].transfer().waiting, 0);

    // Another session with the same filter goes on where this one came before it broke off.
    drop(link);
    server.put("notes", "later", json!({}), &app).unwrap();
    let filters = [
        Filter::of(["notes"]).and_where("issues", "/owner", &[json!("ann")]),
        Filter::of(["notes"]),
        Filter::of(["notes"]),
    ];
    let sent = filters.map(|filter| {
        let once = |sends, wants| SessionOptions { sends, wants, follows: false, ..SessionOptions::default() };
        let mut link = Link::new(&server, &device, [&once(true, None), &once(false, Some(filter))]);
        link.run(usize::MAX);
        let (_, [from_server, _]) = link.finish();
        (from_server.events, from_server.offered)
    });
    assert_eq!(sent, [(1, 0), (0, 0), (0, 0)], "what is alike on both sides is left out");
}

/// A record that comes to be wanted and is not wanted any more before either is sent, in two batches.
#[test]
fn a_record_that_was_wanted_for_a_moment_leaves_nothing_waiting() {
    let (server, device) = (ledger(), ledger());
    let app = context("app");
    let owner = |owner: &str| server.patch("issues", "r", json!({ "owner": owner }), &app).unwrap();
    server.put("issues", "r", json!({ "owner": "ravi", "n": 1 }), &app).unwrap();
    server.put("notes", "n", json!({ "n": 0 }), &app).unwrap();
    let filter = || Some(Filter::of(["notes"]).and_where("issues", "/owner", &[json!("ann")]));
    let sends = SessionOptions { sends: true, wants: None, follows: false, ..SessionOptions::default() };
    let wants = SessionOptions { sends: false, wants: filter(), follows: false, ..SessionOptions::default() };
    sync_with(&server, &device, [&sends, &wants]);
    owner("ann");
    let notes = (0..2_100).map(|n| Write::new("notes", "n", Act::Patch(json!({ "n": n + 1 }))));
    server.write_all(notes.collect(), &app).unwrap();
    owner("ravi");
    server.patch("issues", "r", json!({ "secret": true }), &app).unwrap();
    let ([_, to_device], _) = sync_with(&server, &device, [&sends, &wants]);
    assert_eq!((to_device.waiting, device.status().unwrap().waiting), (0, 0));
    let shown = device.get("issues", "r").unwrap().unwrap().value;
    assert_eq!(shown, json!({ "owner": "ravi", "n": 1 }), "up to the event that made it not wanted");
    let (_, [from_server, _]) = sync_with(&server, &device, [&sends, &wants]);
    assert_eq!(from_server.events, 0, "the cursor came to the end");
}

#[test]
fn two_empty_replicas_that_follow_each_other_become_replicas_of_one_ledger() {
    let (here, there) = (ledger(), ledger());
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let mut link = Link::new(&here, &there, [&follows, &follows]);
    link.run(usize::MAX);
    assert_eq!(here.info().id, there.info().id);
    edit(&there, "b", 1, 1, 1);
    let said = link.peers[1].grown();
    link.say(1, said);
    link.run(usize::MAX);
    assert_eq!((here.position(), digest(&here)), (1, digest(&there)));
}

#[test]
fn who_says_nothing_is_asked_and_then_given_up() {
    let id = ledger().info();
    let settings = Settings {
        replica: id.writer,
        ledger: id.id,
        adopts: false,
        head: 0,
        sends: true,
        follows: true,
        first: Vec::new(),
    };
    let mut session = Session::new(1_000, settings);
    let said = |session: &mut Session, now| {
        session.handle(now, Input::Tick);
        std::iter::from_fn(|| session.poll()).collect::<Vec<_>>()
    };
    assert_eq!(session.due(), 16_000);
    assert!(matches!(&said(&mut session, 15_999)[..], [Output::Send(Message::Hello(_))]));
    assert!(matches!(&said(&mut session, 16_000)[..], [Output::Send(Message::Ping)]));
    session.handle(20_000, Input::Received(Message::Ping));
    assert!(matches!(&said(&mut session, 30_000)[..], [Output::Send(Message::Pong)]));
    assert_eq!(session.due(), 35_000);
    assert!(matches!(&said(&mut session, 64_999)[..], [Output::Send(Message::Ping)]));
    let last = said(&mut session, 65_000);
    let [Output::Send(Message::Bye(_)), Output::Ended(Err(fault))] = &last[..] else { panic!("{last:?}") };
    assert_eq!(fault.kind(), ErrorKind::Timeout);
    assert!(session.is_ended() && said(&mut session, 99_000).is_empty());
}

/// Takes nothing, and does not say so.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl io::Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stuck {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(0)
    }
}

#[test]
fn who_asks_and_asks_and_does_not_read_the_answers_is_given_up() {
    let here = ledger();
    edit(&here, "a", 1, 1, 1);
    let (framing, mut words) = (Framing { ledger: None, past: &Alone }, Vec::new());
    for _ in 0..1_000 {
        let bytes = encode(Message::Ping, &framing).unwrap();
        words.extend((bytes.len() as u32).to_le_bytes());
        words.extend(bytes);
    }
    let ((let_go, stuck), (let_go_too, silent)) = (channel(), channel());
    let input = io::Cursor::new(words).chain(Stuck(silent));
    let mut peer = here.session(&SessionOptions { follows: true, ..SessionOptions::default() }).unwrap();
    let fault = peer.carry(input, Stuck(stuck), &mut |_| Ok(())).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Network);
    assert!(fault.message().contains("does not read"), "{fault}");
    drop((let_go, let_go_too));
}

#[test]
fn who_follows_hears_of_each_event_and_sends_none_back() {
    let (here, there) = (ledger(), ledger());
    edit(&here, "a", 1, 1, 1);
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let mut link = Link::new(&here, &there, [&follows, &follows]);
    link.run(usize::MAX);
    assert!(!link.peers[0].is_ended() && there.position() == 1);
    for nth in 0..5 {
        edit(&here, "a", nth, 2, nth);
        let said = link.peers[0].grown();
        let is_one = |events: &[Item]| events.len() == 1;
        assert!(matches!(&said[..], [Message::Batch { events, .. }, Message::Reached] if is_one(events)), "{said:?}");
        link.say(0, said);
        link.run(usize::MAX);
        assert_eq!(there.position(), 2 + nth as u64);
        // What came is not sent back.
        let back = link.peers[1].grown();
        assert!(back.is_empty(), "{back:?}");
        assert_eq!(link.peers[1].acknowledged(), Some(there.position()));
    }
}

#[test]
fn large_values_come_in_parts_and_before_what_names_them() {
    let (here, there) = (ledger(), ledger());
    let text: String = (0..400_000).map(|n| format!("{n:07} ")).collect();
    here.put("c", "large", json!({ "text": text, "same": text }), &context("a")).unwrap();
    let ([_, to_there], [from_here, _]) = sync(&here, &there);
    assert_eq!((to_there.applied, from_here.blobs), (1, 4), "3.2 MB in parts of 1 MiB");
    assert_eq!(there.get("c", "large").unwrap().unwrap().value["text"], json!(text));
}

#[test]
fn replicas_that_have_most_of_it_already_are_offered_ids_before_bodies() {
    let (origin, here, there) = (ledger(), ledger(), ledger());
    (0..40).for_each(|nth| edit(&origin, "o", nth, 1, nth));
    sync(&origin, &here);
    sync(&origin, &there);
    (0..3).for_each(|nth| edit(&here, "h", nth, 2, nth));
    // Neither knows anything of the other.
    let ([_, to_there], [from_here, from_there]) = sync(&here, &there);
    assert_eq!((from_here.offered, from_here.events, to_there.applied), (43, 3, 3));
    assert_eq!((from_there.events, digest(&here)), (0, digest(&there)));
}

#[test]
fn another_version_and_words_out_of_turn_end_the_session_with_an_error_on_both_sides() {
    let here = ledger();
    edit(&here, "a", 1, 1, 1);
    let hello = |versions| Hello {
        versions,
        ledger: here.info().id,
        adopts: false,
        replica: here.info().writer,
        sends: true,
        now_ms: 0,
    };
    let begins = |after| Message::Begins { after, scope: String::new() };
    let cursor = Cursor { position: 1, mark: here.log(&Default::default()).unwrap()[0].id.0 };
    let batch = |batch| Message::Batch { batch, upto: cursor, events: Vec::new() };
    let ready = || vec![Message::Hello(hello((1, 1))), Message::Wants(None), begins(0)];
    let after = |message: Message| [ready(), vec![message]].concat();
    for (words, kind) in [
        (vec![Message::Hello(hello((2, 3)))], ErrorKind::UpgradeNeeded),
        (vec![Message::Reached], ErrorKind::Consistency),
        (after(Message::Hello(hello((1, 1)))), ErrorKind::Consistency),
        (after(Message::Wants(None)), ErrorKind::Consistency),
        (after(begins(0)), ErrorKind::Consistency),
        (after(batch(2)), ErrorKind::Consistency),
        (after(Message::Ack { batch: 1, cursor: None, refused: Vec::new() }), ErrorKind::Consistency),
        (after(Message::Want { batch: 1, bits: vec![1] }), ErrorKind::Consistency),
        (after(Message::Bye(Bye { code: Some("storage".into()), message: "full".into() })), ErrorKind::Server),
        (after(Message::Bye(Bye { code: Some("unheard_of".into()), message: "?".into() })), ErrorKind::Server),
        (vec![Message::Hello(hello((1, 1))), Message::Wants(None), begins(7)], ErrorKind::Consistency),
    ] {
        let mut peer = here.session(&SessionOptions { follows: true, ..SessionOptions::default() }).unwrap();
        peer.begin();
        let said: Vec<Message> = words.iter().flat_map(|word| peer.hear(word.clone())).collect();
        let told = matches!(said.last(), Some(Message::Bye(bye)) if bye.code.is_some());
        assert!(peer.is_ended() && (told || matches!(words.last(), Some(Message::Bye(_)))), "{words:?}: {said:?}");
        assert_eq!(peer.hear(Message::Ping), [], "who has left hears nothing");
        assert_eq!(peer.finish().unwrap_err().kind(), kind, "{words:?}");
    }
}

/// One thing that happens to two replicas.
#[derive(Clone, Debug)]
enum Step {
    Edit {
        there: bool,
        key: usize,
        field: usize,
    },
    /// A session that breaks off after so many messages.
    Broken(usize),
    Whole,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..6_usize, 0..3_usize).prop_map(|(there, key, field)| Step::Edit { there, key, field }),
        2 => (0..14_usize).prop_map(Step::Broken),
        1 => Just(Step::Whole),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever sessions break off, the next goes on, and one whole session makes both alike.
    #[test]
    fn sessions_that_break_off_anywhere_lose_nothing(steps in proptest::collection::vec(step(), 1..40)) {
        let replicas = [ledger(), ledger()];
        edit(&replicas[0], "first", 0, 0, 0);
        sync(&replicas[0], &replicas[1]);
        for (nth, step) in steps.into_iter().enumerate() {
            match step {
                Step::Edit { there, key, field } => {
                    edit(&replicas[usize::from(there)], ["a", "b"][usize::from(there)], key, field, nth);
                }
                Step::Broken(after) => {
                    let mut link = Link::new(&replicas[0], &replicas[1], [&SessionOptions::default(); 2]);
                    link.run(after);
                }
                Step::Whole => {
                    sync(&replicas[0], &replicas[1]);
                    prop_assert_eq!(digest(&replicas[0]), digest(&replicas[1]));
                }
            }
        }
        sync(&replicas[0], &replicas[1]);
        prop_assert_eq!(digest(&replicas[0]), digest(&replicas[1]));
        prop_assert!(replicas.iter().all(|replica| replica.verify().unwrap().problems.is_empty()));
    }

    /// Whatever is said, in whatever order: at worst the session ends.
    #[test]
    fn words_of_any_kind_in_any_order_end_a_session_at_worst(
        words in proptest::collection::vec((0..13_u8, 0..4_u64, any::<bool>()), 1..20),
        polite: bool,
    ) {
        let here = ledger();
        edit(&here, "a", 1, 1, 1);
        let id = here.log(&Default::default()).unwrap()[0].id;
        let mut peer = here.session(&SessionOptions { follows: true, ..SessionOptions::default() }).unwrap();
        peer.begin();
        let hello = Hello { versions: (1, 1), ledger: here.info().id, adopts: false, replica: here.info().writer, sends: true, now_ms: 0 };
        if polite {
            peer.hear(Message::Hello(hello.clone()));
            peer.hear(Message::Wants(Some(Wants::after(None, Filter::default()))));
            peer.hear(Message::Begins { after: 0, scope: String::new() });
        }
        for (kind, number, flag) in words {
            let upto = Cursor { position: number, mark: id.0 };
            let hash = syncledger::event::BlobHash([number as u8; 32]);
            peer.hear(match kind {
                0 => Message::Hello(hello.clone()),
                1 => Message::Wants(flag.then(|| Wants::after(Some(upto), Filter::default()))),
                2 => Message::Begins { after: number, scope: String::new() },
                3 => Message::Offer { batch: number, ids: vec![[number as u8; 16]; number as usize] },
                4 => Message::Want { batch: number, bits: vec![255; number as usize] },
                5 => Message::Batch { batch: number, upto, events: Vec::new() },
                6 => Message::Ack { batch: number, cursor: flag.then_some(upto), refused: Vec::new() },
                7 => Message::Reached,
                8 => Message::WantBlob { hash, offset: number },
                9 => Message::Blob { hash, total: number, offset: 0, bytes: vec![1; number as usize] },
                10 => Message::NoBlob(hash),
                11 => Message::Ping,
                _ => Message::Pong,
            });
        }
        prop_assert_eq!(here.position(), 1);
        edit(&here, "a", 2, 2, 2);
    }

    #[test]
    fn arbitrary_bytes_and_changed_ones_are_messages_or_errors(bytes: Vec<u8>, at: usize, bit in 0..8_u32) {
        let here = ledger();
        edit(&here, "a", 1, 1, 1);
        let framing = Framing { ledger: Some(here.info().id), past: &Alone };
        let _ = decode(&bytes, &framing);
        let mut peer = here.session(&SessionOptions::default()).unwrap();
        let messages = [peer.begin(), vec![Message::Reached, Message::Ping]].concat();
        for message in messages {
            let mut bytes = encode(message.clone(), &framing).unwrap();
            prop_assert_eq!(decode(&bytes, &framing).unwrap(), message);
            let place = at % bytes.len();
            bytes[place] ^= 1 << bit;
            let _ = decode(&bytes, &framing);
            prop_assert!(bytes.is_empty() || decode(&bytes[..place], &framing).is_err());
        }
        prop_assert!(decode(&vec![0; replication::MOST_MESSAGE_BYTES + 1], &framing).is_err());
    }
}

/// A carrier that breaks off after so many bytes, one way.
struct Breaking<S>(S, usize);

impl<S: io::Write> io::Write for Breaking<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = &bytes[..bytes.len().min(self.1)];
        if some.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.0.write(some)?;
        self.1 -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Runs a session over a socket that breaks off after so many bytes of the first side.
fn over_a_socket(
    here: &Ledger,
    there: &Ledger,
    options: &SessionOptions,
    bytes: usize,
) -> [Result<Transfer, Error>; 2] {
    let (ours, theirs) = connected();
    let (here, there) = (here.session(options).unwrap(), there.session(options).unwrap());
    let run = |mut peer: Peer, stream: TcpStream, bytes: usize| {
        let output = Breaking(stream.try_clone().unwrap(), bytes);
        let outcome = peer.carry(stream.try_clone().unwrap(), output, &mut |_| Ok(()));
        stream.shutdown(Shutdown::Both).ok();
        outcome
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(there, theirs, usize::MAX));
        [run(here, ours, bytes), other.join().unwrap()]
    })
}

pub fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

#[test]
fn much_goes_both_ways_over_a_socket_at_once() {
    let (here, there) = (ledger(), ledger());
    edit(&here, "a", 0, 0, 0);
    sync(&here, &there);
    for (replica, source) in [(&here, "a"), (&there, "b")] {
        for batch in 0..40 {
            let mut number = batch as u64 * 7 + source.len() as u64;
            let mut noise = || -> String {
                (0..600)
                    .map(|_| {
                        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        format!("{number:016x}")
                    })
                    .collect()
            };
            let writes = (0..32)
                .map(|nth| Write::new("c", format!("{source}{batch}-{nth}"), Act::Put(json!({ "noise": noise() }))));
            replica.write_all(writes.collect(), &context(source)).unwrap();
        }
    }
    let outcomes = over_a_socket(&here, &there, &SessionOptions::default(), usize::MAX);
    assert_eq!(outcomes.map(|outcome| outcome.unwrap().applied), [1_280; 2]);
    assert_eq!(digest(&here), digest(&there));
}

#[test]
fn a_session_over_a_socket_that_breaks_off_anywhere_goes_on_the_next_time() {
    let (here, there) = (ledger(), ledger());
    (0..300).for_each(|nth| edit(&here, "a", nth, 1, nth));
    (0..200).for_each(|nth| edit(&there, "a", nth, 1, nth));
    let copy = ledger();
    sync(&here, &copy);
    (0..100).for_each(|nth| edit(&copy, "b", nth, 2, nth));
    let options = SessionOptions::default();
    for bytes in (0..4_000).step_by(130) {
        edit(&here, "a", bytes, 3, bytes);
        let outcomes = over_a_socket(&here, &copy, &options, bytes);
        for fault in outcomes.into_iter().filter_map(Result::err) {
            assert!([ErrorKind::Network, ErrorKind::Cancelled].contains(&fault.kind()), "{bytes}: {fault}");
        }
    }
    let outcomes = over_a_socket(&here, &copy, &options, usize::MAX);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(digest(&here), digest(&copy));
    assert_eq!(
        over_a_socket(&here, &there, &options, usize::MAX).map(|o| o.unwrap_err().kind()),
        [ErrorKind::LedgerMismatch; 2]
    );
}

#[test]
fn a_follower_over_a_socket_hears_of_what_is_written_and_what_is_no_session_is_refused() {
    let (here, there) = (ledger(), ledger());
    edit(&here, "a", 1, 1, 1);
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    std::thread::scope(|scope| {
        let writer = here.clone();
        let session = scope.spawn(|| {
            let mut seen = 0;
            // Ends once all five came.
            let mut progress = |transfer: Transfer| {
                seen = transfer.applied;
                if seen == 6 { Err(Error::new(ErrorKind::Cancelled, "enough")) } else { Ok(()) }
            };
            let (ours, theirs) = connected();
            let mut sender = here.session(&follows).unwrap();
            let other = std::thread::spawn(move || sender.carry(ours.try_clone().unwrap(), ours, &mut |_| Ok(())));
            let mut receiver = there.session(&follows).unwrap();
            let outcome = receiver.carry(theirs.try_clone().unwrap(), theirs, &mut progress);
            (outcome.unwrap_err().kind(), other.join().unwrap().unwrap_err().kind())
        });
        for nth in 0..5 {
            std::thread::sleep(Duration::from_millis(20));
            edit(&writer, "a", nth, 2, nth);
        }
        assert_eq!(session.join().unwrap(), (ErrorKind::Cancelled, ErrorKind::Cancelled));
    });
    assert_eq!((there.position(), digest(&there)), (6, digest(&here)));
    for (words, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], ErrorKind::TooLarge),
        (b"\x03\0\0\0abc", ErrorKind::Validation),
        (b"\x03\0\0\0a", ErrorKind::Network),
        (b"", ErrorKind::Network),
    ] {
        let mut peer = here.session(&SessionOptions::default()).unwrap();
        assert_eq!(peer.carry(words, io::sink(), &mut |_| Ok(())).unwrap_err().kind(), kind);
    }
}

#[test]
fn who_follows_and_wants_nothing_of_what_comes_is_told_so_after_a_while_and_not_each_time() {
    let (server, device) = (ledger(), ledger());
    edit(&server, "a", 1, 1, 1);
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let wants = SessionOptions { wants: Some(Filter::of(["c"])), ..follows.clone() };
    let mut link = Link::new(&server, &device, [&follows, &wants]);
    link.run(usize::MAX);
    let before = link.ways[0].messages;
    for nth in 0..50 {
        server.put("others", &nth.to_string(), json!({}), &context("app")).unwrap();
        let said = link.peers[0].grown();
        link.say(0, said);
        link.run(usize::MAX);
    }
    assert!(link.ways[0].messages - before <= 2, "{:?}", link.ways[0]);
    assert_eq!(link.peers[0].acknowledged(), Some(server.position()), "it has all that it wants");
}

#[test]
fn how_far_a_log_was_looked_through_is_told_after_two_seconds() {
    let id = ledger().info();
    let other = ledger().info();
    let settings = Settings {
        replica: id.writer,
        ledger: id.id,
        adopts: false,
        head: 1,
        sends: true,
        follows: true,
        first: Vec::new(),
    };
    let mut session = Session::new(1_000, settings);
    let hello =
        Hello { versions: (1, 1), ledger: id.id, adopts: false, replica: other.writer, sends: false, now_ms: 0 };
    let said = |session: &mut Session, now, input| {
        session.handle(now, input);
        std::iter::from_fn(|| session.poll()).collect::<Vec<_>>()
    };
    let upto = |position| Cursor { position, mark: [position as u8; 32] };
    said(&mut session, 1_000, Input::Received(Message::Hello(hello)));
    said(&mut session, 1_000, Input::Chosen(None));
    said(&mut session, 1_000, Input::Received(Message::Wants(Some(Wants::after(None, Filter::of(["c"]))))));
    let alike = (0, Default::default());
    said(&mut session, 1_000, Input::From { position: 1, scope: String::new(), alike });
    for position in 2..10 {
        let read = said(&mut session, 1_000 + position, Input::Grown(position));
        assert!(matches!(&read[..], [Output::Read { .. }]), "{read:?}");
        assert!(
            said(&mut session, 1_000 + position, Input::Read { events: Vec::new(), upto: upto(position) }).is_empty()
        );
        assert_eq!(session.acknowledged(), Some(position));
    }
    assert_eq!(session.due(), 3_002);
    let told = said(&mut session, 3_002, Input::Tick);
    let [Output::Send(Message::Batch { batch: 1, upto: told, .. }), Output::Send(Message::Reached)] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(*told, upto(9));
}

#[test]
fn edits_name_what_the_other_side_has_by_a_part_of_its_id() {
    let (server, device, other) = (ledger(), ledger(), ledger());
    (0..256).for_each(|key| edit(&device, "a", key, 1, key));
    sync(&device, &server);
    // After the second time the server knows how far it has the other's log.
    for _ in 0..2 {
        sync(&other, &server);
    }
    let patch = |ledger: &Ledger, source: &str, value: usize| {
        let patch = |key: usize| Write::new("c", format!("k{key}"), Act::Patch(json!({ "field1": value + key })));
        ledger.write_all((0..256).map(patch).collect(), &context(source)).unwrap();
    };
    let in_part = |from: &Ledger| {
        let mut link = Link::new(from, &server, [&SessionOptions::default(); 2]);
        link.peers[0].name_in_part();
        link.run(usize::MAX);
        let (outcomes, [way, _]) = link.finish();
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        way
    };
    patch(&device, "a", 1_000);
    let way = in_part(&device);
    assert_eq!(way.events, 256);
    assert!(way.bytes < 256 * 20, "{way:?}");
    // What was edited apart from that is built on what is no head there any more.
    patch(&other, "b", 2_000);
    let way = in_part(&other);
    assert!(way.events == 256 && way.bytes < 256 * 24, "{way:?}");
    sync(&device, &server);
    let digests = [&device, &server, &other].map(digest);
    assert!(digests.iter().all(|one| *one == digests[0]));
}

#[test]
fn an_older_copy_of_a_store_that_goes_on_loses_nothing_where_both_hold_the_same_event_at_one_position() {
    let (server, dir) = (ledger(), tempfile::tempdir().unwrap());
    let [store, older] = ["store", "older"].map(|name| dir.path().join(name));
    let open = |at: &std::path::Path| Store::open(at).unwrap().ledger_or_create("main").unwrap();
    let device = open(&store);
    edit(&server, "a", 1, 1, 1);
    sync(&device, &server);
    device.store().close().unwrap();
    drop(device);
    crate::crashes::copy(&store, &older);
    let device = open(&store);
    device.put("notes", "lost with the store", json!({}), &context("app")).unwrap();
    sync(&device, &server);
    edit(&server, "a", 2, 1, 2);
    (0..2).for_each(|_| assert!(sync(&device, &server).0[1].applied <= 1));
    // Until here the server knows the device's log, whose last event is its own edit of "k2".
    let copy = open(&older);
    copy.put("notes", "made on the copy", json!({}), &context("app")).unwrap();
    let takes =
        SessionOptions { sends: false, wants: Some(Filter::of(["c"])), follows: false, ..SessionOptions::default() };
    sync_with(&copy, &server, [&takes, &SessionOptions::default()]);
    assert_eq!(copy.position(), device.position());
    sync(&copy, &server);
    assert!(server.get("notes", "made on the copy").unwrap().is_some());
    sync(&copy, &server);
    assert_eq!(digest(&copy), digest(&server));
}

#[test]
fn what_is_named_is_found_behind_many_later_edits_and_whole_ids_come_to_who_asks_for_them() {
    let (server, device, other) = (ledger(), ledger(), ledger());
    edit(&server, "s", 1, 1, 1);
    for replica in [&device, &other] {
        for _ in 0..2 {
            sync(replica, &server);
        }
    }
    let many: Vec<_> = (0..1_500).map(|n| Write::new("c", "k1", Act::Patch(json!({ "field2": n })))).collect();
    device.write_all(many, &context("app")).unwrap();
    edit(&other, "b", 1, 3, 3);
    sync(&other, &server);
    let session = |from: &Ledger, to: &Ledger, asks: bool| {
        let mut link = Link::new(from, to, [&SessionOptions::default(); 2]);
        link.peers[0].name_in_part();
        if asks {
            link.peers[1].want_whole_ids();
        }
        link.run(usize::MAX);
        let (outcomes, [way, _]) = link.finish();
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        way
    };
    session(&server, &device, false);
    assert_eq!(digest(&server), digest(&device));
    let bytes = [false, true].map(|asks| {
        let patch = |key: usize| Act::Patch(json!({ "field1": usize::from(asks) * 1_000 + key }));
        let keys = || (100..356_usize).map(|key| format!("k{key}"));
        if !asks {
            let puts = keys().map(|key| Write::new("c", key, Act::Put(json!({})))).collect();
            device.write_all(puts, &context("app")).unwrap();
            sync(&device, &server);
        }
        let patches = keys().enumerate().map(|(nth, key)| Write::new("c", key, patch(nth))).collect();
        device.write_all(patches, &context("app")).unwrap();
        session(&device, &server, asks).bytes
    });
    assert!(bytes[0] < 256 * 20 && bytes[1] > 256 * 32, "{bytes:?}");
}

#[test]
fn how_far_a_log_came_is_noted_where_a_session_breaks_off_and_not_after_each_edit() {
    let known_again = |breaks_off: bool| {
        let (server, device) = (ledger(), ledger());
        edit(&server, "a", 1, 1, 1);
        let follows = SessionOptions { follows: true, ..SessionOptions::default() };
        let mut link = Link::new(&server, &device, [&follows, &follows]);
        link.run(usize::MAX);
        for nth in 0..3 {
            edit(&server, "a", 1, 1, 2 + nth);
            let said = link.peers[0].grown();
            link.say(0, said);
            link.run(usize::MAX);
        }
        assert_eq!(device.position(), 4);
        match breaks_off {
            true => drop(link),
            // As where the process is killed.
            false => std::mem::forget(link),
        }
        // Else both hold the same, which is noticed, and nothing is sent.
        edit(&server, "a", 2, 1, 1);
        let (_, [from_server, _]) = sync(&server, &device);
        from_server.events
    };
    assert_eq!((known_again(true), known_again(false)), (1, 4));
}
