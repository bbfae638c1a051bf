//! What was done and seen, by whom and when: one line of JSON for each operation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::Result;

/// Something that a process did at a replica: a device did it at its own, the API's client at the server.
#[derive(Clone, Debug)]
pub struct Operation {
    pub replica: String,
    /// In microseconds since the run began.
    pub began_us: u64,
    pub ended_us: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// All or nothing: the record `key` was added, the replica's own register set to `number`, which only grows, and its
    /// own count raised. Without an acknowledgement it may have been done or not.
    Edited { key: String, number: u64, by: u64, is_acknowledged: bool },
    /// A record was added where the device may not write.
    Trespassed { key: String, is_acknowledged: bool },
    /// A register, which is that of a replica, showed this.
    Read { register: String, shown: Option<u64> },
    /// What a replica held in the end.
    Ended(End),
}

/// What a replica holds.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// How many events of its log each added record has.
    pub events: BTreeMap<String, u64>,
    /// The added records that it shows.
    pub shown: Vec<String>,
    pub registers: BTreeMap<String, u64>,
    pub counts: BTreeMap<String, u64>,
    /// By the key of the record: why an edit of it is refused.
    pub refused: BTreeMap<String, String>,
    /// The same where all records are.
    pub digest: String,
}

/// The history of a run, while it goes on.
pub struct Recorder {
    began: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    pub fn begin() -> Self {
        Self { began: Instant::now(), operations: Mutex::default() }
    }

    /// Does something, and writes down what `told` makes of what came of it.
    pub fn record<T>(&self, replica: &str, act: impl FnOnce() -> T, told: impl FnOnce(&T) -> Option<What>) -> T {
        let now_us = || u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let began_us = now_us();
        let done = act();
        if let Some(what) = told(&done) {
            let operation = Operation { replica: replica.to_owned(), began_us, ended_us: now_us(), what };
            self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        }
        done
    }

    /// All of it, in the order in which it began.
    pub fn end(self) -> Vec<Operation> {
        let mut operations = self.operations.into_inner().unwrap_or_else(PoisonError::into_inner);
        operations.sort_by_key(|operation| operation.began_us);
        operations
    }
}

/// Writes a history into a file.
pub fn keep(history: &[Operation], file: &Path) -> Result<()> {
    let lines: String = history.iter().map(|operation| format!("{}\n", line(operation))).collect();
    Ok(std::fs::write(file, lines)?)
}

fn line(operation: &Operation) -> Json {
    let Operation { replica, began_us, ended_us, what } = operation;
    let (what, of) = match what {
        What::Edited { key, number, by, is_acknowledged } => {
            ("edited", json!({ "key": key, "number": number, "by": by, "acknowledged": is_acknowledged }))
        }
        What::Trespassed { key, is_acknowledged } => {
            ("trespassed", json!({ "key": key, "acknowledged": is_acknowledged }))
        }
        What::Read { register, shown } => ("read", json!({ "register": register, "shown": shown })),
        What::Ended(End { events, shown, registers, counts, refused, digest }) => (
            "ended",
            json!({
                "events": events, "shown": shown, "registers": registers, "counts": counts, "refused": refused,
                "digest": digest,
            }),
        ),
    };
    json!({ "replica": replica, "began_us": began_us, "ended_us": ended_us, "what": what, "of": of })
}
