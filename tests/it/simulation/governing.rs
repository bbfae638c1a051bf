//! What the people at the server do besides editing: policies, schemas, migrations, backups, and starting again from one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;
use syncledger::Result;
use syncledger::event::EventId;
use syncledger::ledger::{Act, BackupOptions, Write};
use syncledger::projection::Policy;
use tempfile::TempDir;

use super::device::Node;
use super::world::{World, app, is_of_disk};

/// The record in which the server alone counts.
pub const COUNTED: (&str, &str) = ("notes", "first");
/// What the server's people set for a collection.
const POLICIES: [&str; 5] = ["merge", "last_write_wins", "first_write_wins", "manual", "last_write_wins:record"];

/// What the server's people have set up.
#[derive(Default)]
pub struct Office {
    /// How far the server has counted.
    counted: u64,
    /// Where files are, once there are any.
    dir: Option<TempDir>,
    /// How many files and directories were made.
    files: u64,
    /// The server's last backup.
    backup: Option<PathBuf>,
    /// What nobody has any more since the server started again, but for older copies of disks.
    gone: BTreeSet<EventId>,
}

impl Office {
    /// A path where nothing is.
    fn new_path(&mut self, name: &str) -> PathBuf {
        let dir = self.dir.get_or_insert_with(|| TempDir::new().unwrap());
        self.files += 1;
        dir.path().join(format!("{name}-{}", self.files))
    }
}

impl World {
    /// What befalls a server and its settings now and then.
    pub fn govern(&mut self) {
        if self.restores && self.rng.one_in(2) {
            return if self.rng.one_in(2) { self.back_up() } else { self.start_again() };
        }
        match self.rng.below(8) {
            0 | 1 => self.set_policy(),
            2 | 3 => self.set_schema(),
            4 | 5 => self.migrate(),
            _ => self.back_up(),
        }
    }

    /// The server's next count.
    pub fn count_up(&mut self) -> Write {
        self.office.counted += 1;
        Write::new(COUNTED.0, COUNTED.1, Act::Patch(json!({ "number": self.office.counted })))
    }

    fn promise(&mut self, events: Result<Vec<(EventId, u64)>>, what: &str) {
        match events {
            Ok(events) => {
                self.promised.extend(events.into_iter().map(|(id, _)| id));
                self.note(what);
            }
            Err(fault) if is_of_disk(&fault) => self.reopen_server(),
            Err(_) => {}
        }
    }

    fn some_collection(&mut self) -> &'static str {
        if self.rng.one_in(2) { "notes" } else { "tasks" }
    }

    fn set_policy(&mut self) {
        let (collection, policy) = (self.some_collection(), *self.rng.pick(&POLICIES));
        let policy = Policy::from_json(&json!(policy)).unwrap();
        let set = self.server.ledger.set_policy(collection, &policy, &app());
        self.promise(set.map(|receipt| receipt.events), "policies");
    }

    fn set_schema(&mut self) {
        let collection = self.some_collection();
        let field = format!("field{}", self.rng.below(3));
        let ledger = &self.server.ledger;
        let set = match self.rng.below(4) {
            0 => ledger.remove_schema(collection, &app()),
            _ => ledger.set_schema(
                collection,
                &json!({ "type": "object", "properties": { field: { "maximum": 900 } } }),
                &app(),
            ),
        };
        self.promise(set.map(|receipt| receipt.events), "schemas");
    }

    fn migrate(&mut self) {
        let collection = self.some_collection();
        let migrated = self.server.ledger.migrate(collection, "dict(record, shape=2)", false, &app());
        self.promise(migrated.map(|migrated| migrated.receipt.events), "migrations");
    }

    fn back_up(&mut self) {
        let path = self.office.new_path("backup");
        self.server.ledger.backup(&path, &BackupOptions::default()).unwrap();
        self.office.backup = Some(path);
        self.note("backups");
    }

    /// The server's disk is lost, and a new one is filled from the last backup: what was written since has to come from the devices.
    fn start_again(&mut self) {
        let Some(file) = self.office.backup.clone() else { return };
        self.reopen_server();
        let machine = self.new_machine();
        let store = machine.open(Default::default()).unwrap();
        store.restore("main", &[file], false).unwrap();
        let ledger = store.ledger("main").unwrap();
        self.server = Node { machine, ledger };
        self.forget_what_is_gone();
        self.note("restored servers");
    }

    /// Nobody has it any more.
    fn forget_what_is_gone(&mut self) {
        let here: BTreeSet<EventId> = self.server.events().into_iter().collect();
        self.promised.retain(|event| here.contains(event));
        for device in &mut self.devices {
            let there: BTreeSet<EventId> = device.node.events().into_iter().collect();
            let is_held = |event: &EventId| here.contains(event) || there.contains(event);
            self.office.gone.extend(device.promised.iter().filter(|event| !is_held(event)));
            device.promised.retain(is_held);
        }
    }

    /// What a device promised that takes up an older copy of its disk.
    pub fn still_promised(&self, promised: Vec<EventId>) -> Vec<EventId> {
        promised.into_iter().filter(|event| !self.office.gone.contains(event)).collect()
    }
}
