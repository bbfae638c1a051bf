//! A device of the simulation: a machine with a store, a line to the server now and then, and what it knows of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use syncledger::event::EventId;
use syncledger::ledger::{Edge, Ledger, Machine, Options, Writers};
use syncledger::replication::Filter;

use super::line::{DEVICE, Line};

/// What a device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Full,
    /// Its own tasks and all notes.
    Own,
    /// The notes alone.
    Notes,
}

impl Rights {
    pub fn reads(self, device: &str) -> Filter {
        match self {
            Self::Full => Filter::default(),
            Self::Own => Filter::of(["notes"]).and_where("tasks", "/owner", &[json!(device)]),
            Self::Notes => Filter::of(["notes"]),
        }
    }

    fn writes(self) -> Option<BTreeSet<String>> {
        let names: &[&str] = match self {
            Self::Full => return None,
            Self::Own => &["notes", "tasks"],
            Self::Notes => &["notes"],
        };
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }
}

/// A ledger's machine, and the ledger as it is open on it.
pub struct Node {
    pub machine: Machine,
    pub ledger: Ledger,
}

impl Node {
    pub fn new(seed: u64, now_ms: i64) -> Self {
        let machine = Machine::new(seed, now_ms);
        let ledger = machine.open(Options::default()).unwrap().create_ledger("main").unwrap();
        Self { machine, ledger }
    }

    pub fn open(machine: Machine) -> Self {
        let ledger = machine.open(Options::default()).unwrap().ledger("main").unwrap();
        Self { machine, ledger }
    }

    /// As it is found after a power cut.
    pub fn crash(&mut self) {
        *self = Self::open(self.machine.crash());
    }

    pub fn events(&self) -> Vec<EventId> {
        self.ledger.log(&Default::default()).unwrap().into_iter().map(|entry| entry.id).collect()
    }
}

/// What a device keeps beside its ledger; a copy of its store has it too.
#[derive(Clone, Default)]
pub struct Kept {
    /// What the server refused, by event: the code.
    pub refused: BTreeMap<EventId, String>,
    /// Whether what is edited names what it is made on by whole ids: a session ended because the server could not find it.
    pub in_full: bool,
    /// The edits that were acknowledged to who made them.
    pub promised: Vec<EventId>,
}

pub struct Device {
    pub name: String,
    pub node: Node,
    pub kept: Kept,
    pub rights: Rights,
    pub is_revoked: bool,
    /// How far its clock is ahead of the server's.
    pub skew_ms: i64,
    pub line: Option<Line>,
    /// Lines that the device has given up, and the server has not: what is under way still arrives there.
    pub given_up: Vec<Line>,
    /// What was under way, to the server and to the device, when a line was cut.
    pub stale: [Vec<Vec<u8>>; 2],
    /// An earlier state of its disk.
    pub image: Option<(Machine, Kept)>,
    /// What was refused in a session that sends everything again; `None` where the session does not.
    pub again: Option<BTreeSet<EventId>>,
}

impl Device {
    pub fn edge(&self, writers: &Writers) -> Edge {
        Edge {
            device: self.name.clone(),
            source: Some("app".into()),
            reads: self.rights.reads(&self.name),
            writes: self.rights.writes(),
            writers: writers.clone(),
            room: Default::default(),
        }
    }

    /// Delivers the next message to the device, and keeps what it says of refusals.
    pub fn deliver(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let was = line.deliver(DEVICE);
        for refusal in line.peers[DEVICE].take_refusals() {
            self.kept.refused.insert(refusal.event, refusal.code);
            self.again.iter_mut().for_each(|again| again.extend([refusal.event]));
        }
        was
    }
}
