//! What has to hold at every moment, not only once all is mended.

use std::collections::{BTreeMap, BTreeSet};

use syncledger::event::EventId;
use syncledger::ledger::{Ledger, LogQuery};

use super::governing::COUNTED;
use super::world::World;

/// One step in so many compares what all hold, which takes a while.
const COMPARED: usize = 150;

impl World {
    /// Looks whether a device and the server are as they have to be while all goes wrong.
    pub fn watch(&mut self, nth: usize) {
        self.watch_count(nth);
        if self.rng.one_in(COMPARED) {
            self.compare_digests();
        }
    }

    /// What a device was shown of a count that only grows never goes back.
    fn watch_count(&mut self, nth: usize) {
        let device = &mut self.devices[nth];
        let Ok(Some(record)) = device.node.ledger.get(COUNTED.0, COUNTED.1) else { return };
        let shown = record.value.get("number").and_then(serde_json::Value::as_u64).unwrap_or_default();
        assert!(shown >= device.seen, "{} showed {} and then {shown}", device.name, device.seen);
        device.seen = shown;
    }

    /// Two ledgers have the same digest where they hold the same events, and only there.
    fn compare_digests(&mut self) {
        let digest = |ledger: &Ledger| ledger.digest().unwrap().digest;
        let held = |events: Vec<EventId>| events.into_iter().collect::<BTreeSet<_>>();
        let mut found = BTreeMap::from([(digest(&self.server.ledger), held(self.server.events()))]);
        for nth in 0..self.devices.len() {
            let node = &self.devices[nth].node;
            let (digest, events) = (digest(&node.ledger), held(node.events()));
            let is_known = found.contains_key(&digest);
            let same = found.iter().find(|(_, other)| **other == events).map(|(other, _)| other.clone());
            assert_eq!(is_known.then_some(&digest), same.as_ref(), "{}: digest and events", self.devices[nth].name);
            self.note(if is_known { "equal digests" } else { "different digests" });
            found.insert(digest, events);
        }
    }

    /// Of each batch that was written here all parts are here, or none.
    pub fn check_batches(&self, ledger: &Ledger) {
        let own = ledger.info().writer;
        let mut parts = BTreeMap::<_, (u32, usize)>::new();
        let log = ledger.log(&LogQuery::default()).unwrap();
        for batch in log.iter().filter(|entry| entry.event.writer == own).filter_map(|entry| entry.event.batch) {
            let part = parts.entry(batch.id).or_default();
            *part = (batch.count, part.1 + 1);
        }
        for (id, (count, here)) in parts {
            assert_eq!(here, count as usize, "of batch {id} there are {here} of {count}");
        }
    }

    /// Damages a copy of a device's disk: opening it or `verify` tells, or nothing that counts was hit.
    pub fn flip_a_bit(&mut self, nth: usize) {
        let node = &self.devices[nth].node;
        let head = node.ledger.position();
        if head == 0 || !self.rng.one_in(12) {
            return;
        }
        let (position, bit) = (1 + self.rng.below(head as usize) as u64, self.rng.below(1 << 16));
        let copy = node.machine.copy();
        if !copy.flip_bit(node.ledger.info().id, position, bit) {
            return;
        }
        let is_told = match copy.open(Default::default()) {
            Err(_) => true,
            Ok(store) => match store.ledger("main") {
                Err(_) => true,
                Ok(ledger) => !ledger.verify().is_ok_and(|found| found.problems.is_empty()),
            },
        };
        assert!(
            is_told,
            "{}: bit {bit} around position {position} was flipped, and nobody noticed",
            self.devices[nth].name
        );
        self.note("flipped bits");
    }

    /// A hash of what everybody holds.
    pub fn trace(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let nodes = self.devices.iter().map(|device| &device.node).chain([&self.server]);
        for node in nodes {
            for event in node.events() {
                hash.update(&event.0);
            }
            hash.update(node.ledger.digest().unwrap().digest.to_string().as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}
