//! The mending of a world, and what has to hold then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use syncledger::client::{QueueStatus, Ways};
use syncledger::event::EventId;
use syncledger::ledger::{Ledger, LogQuery, Query, Which};

use super::device::{Device, Rights};
use super::line::{DEVICE, SERVER};
use super::world::{DAY_MS, World};

/// After so many sessions of each device nothing more may go over.
const ROUNDS: usize = 8;
/// How many messages a session has at most before it is taken to go on for ever.
const MOST_MESSAGES: usize = 20_000;

/// What a ledger shows, by collection and key.
type Shown = BTreeMap<(String, String), Json>;

impl World {
    /// A session of a device with the server, to its end.
    pub fn sync_whole(&mut self, nth: usize) {
        self.cut(nth);
        self.devices[nth].client.try_now();
        self.open_line(nth, Ways::Both, &[], false);
        for _ in 0..MOST_MESSAGES {
            let (here, there) = (self.deliver(nth, SERVER), self.deliver(nth, DEVICE));
            if !here && !there {
                let ends = self.devices[nth].line.is_none();
                assert!(ends, "the session of {} stands still: nobody says anything", self.devices[nth].name);
                return;
            }
        }
        panic!("the session of {} does not end", self.devices[nth].name);
    }

    /// Everybody is online, then with the right time, and everything has time to settle.
    pub fn heal(&mut self) {
        self.reopen_server();
        self.devices.iter_mut().for_each(|device| device.given_up.clear());
        // First nothing is sent again: what was refused has to be known without.
        (0..self.devices.len()).for_each(|nth| self.sync_live(nth));
        self.name_whole();
        self.check_nothing_is_lost();
        self.note_refusals();
        self.mend_clocks();
        self.sync_all();
    }

    /// Where one side had lost what was named by a part of its id, the client tries once more, with whole ids.
    fn name_whole(&mut self) {
        for nth in 0..self.devices.len() {
            if self.devices[nth].client.failure().is_some_and(|(code, ..)| code == "corrupt") {
                self.note("named whole");
                self.sync_live(nth);
            }
        }
    }

    fn mend_clocks(&mut self) {
        self.now_ms += 2 * DAY_MS;
        self.devices.iter_mut().for_each(|device| device.skew_ms = 0);
        self.set_clocks();
    }

    /// Sessions of all devices, until nothing more goes over. Some have what was refused sent again before it is stamped anew, and
    /// others after that.
    fn sync_all(&mut self) {
        for round in 0..ROUNDS {
            let before = self.positions();
            for nth in 0..self.devices.len() {
                if round == nth % 2 {
                    self.send_refused_again(nth);
                }
                self.sync_live(nth);
            }
            if round > 2 && self.positions() == before {
                return;
            }
        }
        panic!("after {ROUNDS} rounds events still go over");
    }

    fn sync_live(&mut self, nth: usize) {
        if !self.devices[nth].is_revoked {
            self.sync_whole(nth);
        }
    }

    fn note_refusals(&mut self) {
        let codes: Vec<String> = self.devices.iter().flat_map(|device| device.refused().into_values()).collect();
        codes.iter().for_each(|code| self.note(&format!("refused: {code}")));
    }

    fn positions(&self) -> Vec<u64> {
        let devices = self.devices.iter().map(|device| device.node.ledger.position());
        devices.chain([self.server.ledger.position()]).collect()
    }

    /// What has to hold.
    pub fn check(&self) {
        let on_server = self.server.events();
        let known: BTreeSet<EventId> = on_server.iter().copied().collect();
        assert_eq!(known.len(), on_server.len(), "an event is on the server twice");
        let lost: Vec<_> = self.promised.iter().filter(|event| !known.contains(event)).collect();
        assert!(lost.is_empty(), "the server lost its own {lost:?}");
        assert_eq!(self.server.ledger.status().unwrap().waiting, 0, "something waits on the server");
        let shown = shown(&self.server.ledger);
        self.check_nothing_is_lost();
        for device in self.devices.iter().filter(|device| !device.is_revoked) {
            check_queue(device, &known);
            self.check_device(device, &shown);
        }
        assert_eq!(self.server.ledger.verify().unwrap().problems, Vec::<String>::new());
    }

    /// No edit that was acknowledged is nowhere: it is on the server, or it is told that it was refused.
    fn check_nothing_is_lost(&self) {
        let on_server: BTreeSet<EventId> = self.server.events().into_iter().collect();
        for device in &self.devices {
            let here: BTreeSet<EventId> = device.node.events().into_iter().collect();
            let waits = |event| device.is_revoked && here.contains(event);
            let refused = device.refused();
            let is_told = |event| refused.contains_key(event);
            for event in &device.promised {
                let is_held = on_server.contains(event) || is_told(event) || waits(event);
                assert!(is_held, "{}: {event:?} is lost", device.name);
            }
        }
    }

    fn check_device(&self, device: &Device, on_server: &Shown) {
        let ledger = &device.node.ledger;
        assert_eq!(ledger.status().unwrap().waiting, 0, "something waits on {}", device.name);
        let refused = refused_records(device);
        let here = shown(ledger);
        if device.rights == Rights::Full && refused.is_empty() {
            assert_eq!(here, *on_server, "{} shows something else", device.name);
            let digest = |ledger: &Ledger| ledger.digest().unwrap().digest;
            assert_eq!(digest(ledger), digest(&self.server.ledger), "{} holds other events", device.name);
            assert_eq!(disputed(ledger), disputed(&self.server.ledger), "{} shows other conflicts", device.name);
        }
        // Settings that a server has lost are not a device's to give back: it says so, and goes on to show by them.
        let is_set_otherwise = |name: &String| refused.contains(&("$collections".to_owned(), name.clone()));
        let is_same = |record: &(String, String)| !refused.contains(record) && !is_set_otherwise(&record.0);
        for (record, value) in on_server.iter().filter(|(record, _)| is_same(record)) {
            if may_read(device, record, value) {
                assert_eq!(here.get(record), Some(value), "{} of {}", device.name, record.1);
            }
        }
    }
}

/// What was refused is not there, and not for another reason than one that lasts; nothing else waits.
fn check_queue(device: &Device, on_server: &BTreeSet<EventId>) {
    let refused = device.refused();
    let wrong: Vec<_> = refused.keys().filter(|event| on_server.contains(*event)).collect();
    assert!(wrong.is_empty(), "{}: refused, and there: {wrong:?}", device.name);
    let codes: BTreeSet<&str> = refused.values().map(String::as_str).collect();
    let lasting = ["permission", "conflict", "consistency"];
    assert!(codes.iter().all(|code| lasting.contains(code)), "{}: {codes:?}", device.name);
    let queue = device.client.queue(usize::MAX).unwrap();
    let waiting: Vec<_> = queue.iter().filter(|queued| queued.status != QueueStatus::Failed).collect();
    assert!(waiting.is_empty(), "{}: in its outbox is {waiting:?}", device.name);
    assert_eq!(queue.len(), refused.len(), "{}", device.name);
    assert_eq!(device.client.failure(), None, "{}", device.name);
    assert_eq!(device.client.acknowledged(), device.node.ledger.position(), "{}", device.name);
}

fn shown(ledger: &Ledger) -> Shown {
    let collections = ledger.collections().unwrap();
    let list = |name: &str| ledger.list(name, &Query::default()).unwrap();
    let of = |name: String| list(&name).into_iter().map(move |record| ((name.clone(), record.key), record.value));
    collections.into_iter().flat_map(|info| of(info.name)).collect()
}

/// All conflicts, by their ids and versions.
fn disputed(ledger: &Ledger) -> BTreeSet<String> {
    let conflicts = ledger.conflicts(None, Which::All, None).unwrap();
    conflicts.iter().map(|found| format!("{:?}", found.conflict)).collect()
}

/// The records of which the device holds events that the server has refused.
fn refused_records(device: &Device) -> BTreeSet<(String, String)> {
    let log = device.node.ledger.log(&LogQuery::default()).unwrap();
    let told = device.refused();
    let refused = log.into_iter().filter(|entry| told.contains_key(&entry.id));
    refused.map(|entry| (entry.event.collection, entry.event.key)).collect()
}

fn may_read(device: &Device, (collection, _): &(String, String), value: &Json) -> bool {
    let reads = device.rights.reads(&device.name);
    reads.conditions(collection).is_some_and(|conditions| conditions.iter().all(|one| one.is_met(value)))
}
