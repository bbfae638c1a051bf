//! Sessions of which anything may arrive.

use std::collections::{BTreeSet, VecDeque};

use arbitrary::{Result, Unstructured};
use serde_json::json;
use syncledger::event::EventId;
use syncledger::ledger::{Context, Edge, Ledger, Machine, Options, Peer, SessionOptions, Writers};
use syncledger::replication::{Filter, Message};

/// Two ends of a session, and what is under way to each.
struct Line {
    peers: [Peer; 2],
    under_way: [VecDeque<Vec<u8>>; 2],
}

impl Line {
    fn open(ledgers: [&Ledger; 2], edge: Option<Edge>) -> Self {
        let wants = Some(Filter::default());
        let of_device = SessionOptions { sends: true, wants, ..SessionOptions::default() };
        let of_server = SessionOptions { edge, ..of_device.clone() };
        let peers = [ledgers[0].session(&of_server).unwrap(), ledgers[1].session(&of_device).unwrap()];
        let mut line = Self { peers, under_way: Default::default() };
        for side in [0, 1] {
            let said = line.peers[side].begin();
            line.say(side, said);
        }
        line
    }

    fn say(&mut self, side: usize, messages: Vec<Message>) {
        for message in messages {
            let bytes = self.peers[side].encode(message).unwrap();
            self.under_way[1 - side].push_back(bytes);
        }
    }

    fn hear(&mut self, side: usize, bytes: &[u8]) {
        let peer = &mut self.peers[side];
        let said = match peer.decode(bytes) {
            Ok(message) => peer.hear(message),
            Err(fault) => peer.fail(fault),
        };
        self.say(side, said);
    }

    fn deliver(&mut self, side: usize) -> bool {
        let Some(bytes) = self.under_way[side].pop_front() else { return false };
        self.hear(side, &bytes);
        true
    }

    /// Delivers everything, to the end.
    fn settle(mut self) {
        let mut steps = 0;
        while self.deliver(0) | self.deliver(1) {
            steps += 1;
            assert!(steps < 10_000, "the session does not end");
        }
        assert!(self.peers.iter().all(Peer::is_ended), "the session stands still");
    }
}

fn ledgers<const N: usize>() -> [Ledger; N] {
    let mut seed = 0;
    [(); N].map(|()| {
        seed += 1;
        Machine::new(seed, 1_800_000_000_000).open(Options::default()).unwrap().create_ledger("main").unwrap()
    })
}

fn edit(ledger: &Ledger, number: u8) {
    let (key, field) = (format!("k{}", number % 4), format!("f{}", number / 4 % 3));
    let written = match number / 12 % 4 {
        0 => ledger.put("c", &key, json!({ field: number }), &Context::from_source("app")),
        1 => ledger.delete("c", &key, &Context::from_source("app")),
        _ => ledger.patch("c", &key, json!({ field: number }), &Context::from_source("app")),
    };
    // Of a record that is not there nothing can be patched or deleted.
    drop(written);
}

fn events(ledger: &Ledger) -> BTreeSet<EventId> {
    ledger.log(&Default::default()).unwrap().into_iter().map(|entry| entry.id).collect()
}

/// A ledger keeps everything, stays sound and answers an honest device, whatever it hears in a session: messages of a real one that
/// are lost, doubled, changed and exchanged, and any bytes.
pub fn session_frames(bytes: &[u8]) {
    let [server, device] = ledgers();
    (0..6).for_each(|number| edit(&server, number));
    device.pull(&server).unwrap();
    (6..14).for_each(|number| edit(&device, 24 + number));
    let held = [events(&server), events(&device)];
    let writers = Writers::default();
    let edge = || Edge {
        device: "device".into(),
        source: Some("app".into()),
        reads: Filter::default(),
        writes: None,
        writers: writers.clone(),
        room: Default::default(),
    };
    let mut input = Unstructured::new(bytes);
    let mut line = Line::open([&server, &device], Some(edge()));
    while !input.is_empty() {
        if disturb(&mut input, &mut line).is_err() {
            break;
        }
        if line.peers.iter().all(Peer::is_ended) {
            line = Line::open([&server, &device], Some(edge()));
        }
    }
    drop(line);
    for (ledger, held) in [&server, &device].into_iter().zip(&held) {
        assert!(events(ledger).is_superset(held), "events are lost");
        assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    }
    (0..2).for_each(|_| Line::open([&server, &device], Some(edge())).settle());
    assert!(events(&device).is_superset(&events(&server)), "an honest session brings what there is");
}

fn disturb(input: &mut Unstructured<'_>, line: &mut Line) -> Result<()> {
    let side = input.int_in_range(0..=1)?;
    match input.int_in_range(0..=11)? {
        0..=5 => _ = line.deliver(side),
        6 => _ = line.under_way[side].pop_front(),
        7 => {
            let again = line.under_way[side].front().cloned();
            line.under_way[side].extend(again);
        }
        8 => {
            let (at, to) = (input.arbitrary::<u16>()?, input.arbitrary()?);
            if let Some(bytes) = line.under_way[side].front_mut() {
                let at = usize::from(at) % bytes.len().max(1);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = to);
            }
        }
        9 => line.under_way[side].rotate_left(usize::from(line.under_way[side].len() > 1)),
        10 => {
            let taken = std::mem::take(&mut line.under_way[side]);
            line.under_way[1 - side].extend(taken);
        }
        _ => {
            let length = input.int_in_range(0..=64)?;
            let bytes = input.bytes(length)?.to_vec();
            line.hear(side, &bytes);
        }
    }
    Ok(())
}

/// Ledgers that were edited apart, and whose sessions broke off anywhere, hold and show the same after whole ones.
pub fn replication_converges(bytes: &[u8]) {
    let ledgers: [Ledger; 3] = ledgers();
    edit(&ledgers[0], 0);
    for ledger in &ledgers[1..] {
        ledger.pull(&ledgers[0]).unwrap();
    }
    let mut input = Unstructured::new(bytes);
    for _ in 0..40 {
        if input.is_empty() || step(&mut input, &ledgers).is_err() {
            break;
        }
    }
    for _ in 0..2 {
        for [one, other] in [[0, 1], [1, 2], [0, 2]] {
            Line::open([&ledgers[one], &ledgers[other]], None).settle();
        }
    }
    let [first, others @ ..] = &ledgers;
    for other in others {
        assert_eq!(events(first), events(other));
        assert_eq!(first.digest().unwrap(), other.digest().unwrap());
        for key in ["k0", "k1", "k2", "k3"] {
            assert_eq!(first.get("c", key).unwrap(), other.get("c", key).unwrap());
        }
    }
    assert_eq!(first.verify().unwrap().problems, Vec::<String>::new());
}

fn step(input: &mut Unstructured<'_>, ledgers: &[Ledger; 3]) -> Result<()> {
    let nth = input.int_in_range(0..=2)?;
    if input.ratio(2, 3)? {
        edit(&ledgers[nth], input.arbitrary()?);
        return Ok(());
    }
    let other = (nth + input.int_in_range(1..=2)?) % 3;
    let mut line = Line::open([&ledgers[nth], &ledgers[other]], None);
    for _ in 0..input.int_in_range(0..=40)? {
        line.deliver(input.int_in_range(0..=1)?);
        if input.ratio(1, 8)? {
            edit(&ledgers[nth], input.arbitrary()?);
        }
    }
    Ok(())
}
