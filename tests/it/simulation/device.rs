//! A device of the simulation: a machine with a store, the client on it, and a line to the server now and then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use syncledger::client::{Client, ClientOptions, Kept};
use syncledger::event::EventId;
use syncledger::ledger::{Edge, Ledger, Machine, Options, Writers};
use syncledger::replication::Filter;

use super::line::Line;

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
    /// With a new ledger.
    pub fn on(machine: Machine) -> Self {
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

/// What outlives a device's program; a copy of its disk has it too.
pub struct Disk {
    pub machine: Machine,
    pub kept: Kept,
    /// The edits that were acknowledged to who made them.
    pub promised: Vec<EventId>,
}

pub struct Device {
    pub name: String,
    pub node: Node,
    /// What the client keeps beside the ledger.
    pub kept: Kept,
    pub client: Client,
    /// The edits that were acknowledged to who made them.
    pub promised: Vec<EventId>,
    /// The latest number of the server's that was seen here.
    pub seen: u64,
    pub rights: Rights,
    pub is_revoked: bool,
    /// Whether it may hold parts of its own batches: some were stamped anew, or came back from the server, which had refused the rest.
    pub may_hold_parts: bool,
    /// How far its clock is ahead of the server's.
    pub skew_ms: i64,
    pub line: Option<Line>,
    /// Lines that the device has given up, and the server has not: what is under way still arrives there.
    pub given_up: Vec<Line>,
    /// What was under way, to the server and to the device, when a line was cut.
    pub stale: [Vec<Vec<u8>>; 2],
    /// An earlier state of its disk.
    pub image: Option<Disk>,
}

impl Device {
    pub fn new(name: String, node: Node, rights: Rights, skew_ms: i64) -> Self {
        let (kept, promised, is_revoked, may_hold_parts, line, given_up, stale, image) = Default::default();
        let client = client(&node.ledger, &kept);
        Self {
            name,
            node,
            kept,
            client,
            promised,
            seen: 0,
            rights,
            is_revoked,
            may_hold_parts,
            skew_ms,
            line,
            given_up,
            stale,
            image,
        }
    }

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

    /// As it is found after a power cut.
    pub fn crash(&mut self) {
        self.node.crash();
        self.client = client(&self.node.ledger, &self.kept);
    }

    pub fn copy_disk(&self) -> Disk {
        Disk { machine: self.node.machine.copy(), kept: self.kept.copy(), promised: self.promised.clone() }
    }

    /// Takes up an earlier state of its disk. Returns what had been acknowledged on the one until now.
    pub fn restore(&mut self, disk: Disk) -> Vec<EventId> {
        self.node = Node::open(disk.machine);
        self.kept = disk.kept;
        self.may_hold_parts = true;
        self.seen = 0;
        self.client = client(&self.node.ledger, &self.kept);
        std::mem::replace(&mut self.promised, disk.promised)
    }

    /// What the client lists as refused, with why.
    pub fn refused(&self) -> BTreeMap<EventId, String> {
        let queue = self.client.queue(0).unwrap().into_iter();
        queue.map(|queued| (queued.id, queued.last_error.unwrap().0)).collect()
    }
}

/// One that sends tasks before notes.
fn client(ledger: &Ledger, kept: &Kept) -> Client {
    let options = ClientOptions { first: vec!["tasks".to_owned()], ..ClientOptions::default() };
    Client::driven(ledger, kept, options).unwrap()
}
