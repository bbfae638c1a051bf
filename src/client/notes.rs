//! What a client knows of a server after a restart: how far that has the log, and what it refused.
//!
//! Invariant: a refusal is durable before the server is told that it was heard; then it will not be told again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::place::{Open, Place, shared};
use crate::event::RunId;
use crate::ledger::Ledger;
use crate::replication::Refusal;
use crate::{Error, ErrorKind, Result};

/// The form of the file.
const VERSION: u32 = 1;
/// How many sessions are remembered of which it is not known that the server has all events.
const MOST_RUNS: usize = 1_024;

/// An event that the server does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rejected {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) at_ms: i64,
    /// How often it was refused.
    pub(super) times: u32,
    /// Whether it is to be sent again.
    #[serde(default)]
    pub(super) again: bool,
}

/// A session that takes events in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    id: String,
    /// Its events come after this position of the log.
    after: u64,
}

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) at_ms: i64,
    /// How many failed in a row.
    pub(super) times: u32,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    version: u32,
    /// The server that it is known of.
    url: String,
    /// Up to this position of the log here the server has everything, or refused it.
    pub(super) acknowledged: u64,
    /// Sessions that may have brought events from the server after that position.
    runs: Vec<Run>,
    /// What it refused, by event.
    pub(super) rejected: BTreeMap<String, Rejected>,
    pub(super) failure: Option<Failure>,
    pub(super) succeeded_at_ms: Option<i64>,
    /// Whether a session has ended because one side could not find what an event names by a part of its id.
    #[serde(default)]
    in_full: bool,
}

impl Known {
    fn nothing(url: &str) -> Self {
        let (acknowledged, runs, rejected, failure, succeeded_at_ms) = Default::default();
        let (url, in_full) = (url.to_owned(), false);
        Self { version: VERSION, url, acknowledged, runs, rejected, failure, succeeded_at_ms, in_full }
    }

    /// How far another server has the log is not known. What was refused stays until it is taken.
    fn turn_to(&mut self, url: &str) {
        if self.url != url {
            let rejected = std::mem::take(&mut self.rejected);
            *self = Self { rejected, ..Self::nothing(url) };
        }
    }

    /// Whether a session brought what has this run.
    pub(super) fn is_of_server(&self, run: Option<RunId>) -> bool {
        run.is_some_and(|run| self.runs.iter().any(|one| one.id == run.to_string()))
    }

    /// Whether something that was refused is to be sent again.
    pub(super) fn sends_again(&self) -> bool {
        self.rejected.values().any(|rejected| rejected.again)
    }

    /// Whether our events name what they are built on by whole ids, as the server may have refused it, and whether the server's do.
    pub(super) fn names(&self) -> (bool, bool) {
        (self.in_full || !self.rejected.is_empty(), self.in_full)
    }

    /// Remembers a session that may bring events after a position of the log.
    pub(super) fn begin(&mut self, run: RunId, after: u64) {
        if self.runs.len() >= MOST_RUNS {
            self.runs.remove(0);
        }
        self.runs.push(Run { id: run.to_string(), after });
    }

    /// The server has everything up to a position.
    pub(super) fn reach(&mut self, position: u64) {
        self.acknowledged = position;
        // What a session brought lies before the beginning of the next; of what is acknowledged it does not matter who brought it.
        let done = self.runs.iter().skip(1).take_while(|next| next.after <= position).count();
        self.runs.drain(..done);
    }

    /// The server has refused events.
    pub(super) fn refuse(&mut self, refusals: Vec<Refusal>, now_ms: i64) {
        for Refusal { event, code, message } in refusals {
            let event = event.to_string();
            let times = self.rejected.get(&event).map_or(0, |before| before.times) + 1;
            self.rejected.insert(event, Rejected { code, message, at_ms: now_ms, times, again: false });
        }
    }

    /// An attempt failed.
    pub(super) fn fail(&mut self, fault: &Error, now_ms: i64) {
        let times = self.failure.as_ref().map_or(0, |before| before.times).saturating_add(1);
        let (code, message) = (fault.code().to_owned(), fault.message().to_owned());
        self.in_full |= fault.kind() == ErrorKind::Corrupt;
        self.failure = Some(Failure { code, message, at_ms: now_ms, times });
    }

    /// An attempt was good.
    pub(super) fn succeed(&mut self, now_ms: i64) {
        self.failure = None;
        self.succeeded_at_ms = Some(now_ms);
    }
}

/// What is known, where it is kept.
pub(super) struct Notes {
    place: Place,
    known: Mutex<Known>,
}

static OPEN: Open<Notes> = Mutex::new(BTreeMap::new());

impl Notes {
    /// What is kept of a server, for all clients of a ledger together.
    pub(super) fn open(ledger: &Ledger, url: &str) -> Result<Arc<Self>> {
        let place = Place::of(ledger, "state");
        let notes = shared(&OPEN, &place, || Self::read(place.clone(), url))?;
        notes.change(|known| known.turn_to(url))?;
        Ok(notes)
    }

    fn read(place: Place, url: &str) -> Result<Self> {
        let known = place.read::<Known>()?.unwrap_or_else(|| Known::nothing(url));
        if known.version != VERSION {
            let message = format!("expected a client's state of version {VERSION}, got {}", known.version);
            return Err(Error::new(ErrorKind::UpgradeNeeded, message).with_hint("install a newer version"));
        }
        Ok(Self { place, known: Mutex::new(known) })
    }

    fn open_known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known.
    pub(super) fn known(&self) -> Known {
        self.open_known().clone()
    }

    /// Changes what is known. Durable once it returns; where that fails nothing has changed.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> Result<T> {
        let mut known = self.open_known();
        let mut changed = known.clone();
        let done = change(&mut changed);
        if changed != *known {
            self.place.write(&changed)?;
            *known = changed;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;

    fn refusal(byte: u8) -> Refusal {
        Refusal { event: EventId([byte; 32]), code: "permission".to_owned(), message: "no".to_owned() }
    }

    #[test]
    fn what_is_refused_again_is_one_rejection_that_counts() {
        let mut known = Known::nothing("u");
        known.refuse(vec![refusal(1), refusal(2)], 5);
        known.refuse(vec![refusal(1)], 9);
        let seen: Vec<_> = known.rejected.values().map(|rejected| (rejected.at_ms, rejected.times)).collect();
        assert_eq!(seen, [(9, 2), (5, 1)]);
    }

    #[test]
    fn sessions_are_remembered_until_the_server_has_what_they_brought() {
        let mut known = Known::nothing("u");
        let runs = [1, 2].map(|byte| RunId([byte; 16]));
        known.begin(runs[0], 1);
        known.begin(runs[1], 5);
        known.reach(4);
        assert!(runs.into_iter().all(|run| known.is_of_server(Some(run))));
        known.reach(5);
        assert_eq!(runs.map(|run| known.is_of_server(Some(run))), [false, true]);
        assert!(!known.is_of_server(None));
    }

    #[test]
    fn two_that_note_at_once_do_not_undo_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = crate::Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
        let (one, other) = (Notes::open(&ledger, "u").unwrap(), Notes::open(&ledger, "u").unwrap());
        one.change(|known| known.refuse(vec![refusal(1)], 5)).unwrap();
        other.change(|known| known.reach(7)).unwrap();
        drop((one, other));
        let known = Notes::open(&ledger, "u").unwrap().known();
        assert_eq!((known.acknowledged, known.rejected.len()), (7, 1));
    }

    #[test]
    fn what_is_known_of_one_server_is_not_believed_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = crate::Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
        let notes = Notes::open(&ledger, "http://a").unwrap();
        notes.change(|known| known.reach(7)).unwrap();
        notes.change(|known| known.refuse(vec![refusal(1)], 5)).unwrap();
        assert_eq!(Notes::open(&ledger, "http://a").unwrap().known().acknowledged, 7);
        let other = Notes::open(&ledger, "http://b").unwrap().known();
        assert_eq!((other.acknowledged, other.rejected.len()), (0, 1), "what was refused stays listed");
    }
}
