//! What a client knows of a server after a restart: how far that has the log, and what it refused.
//!
//! Invariant: a refusal is durable before the server is told that it was heard; then it will not be told again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::outbox;
use super::place::{Open, Place, shared};
use crate::event::{EventId, RunId, WriterId};
use crate::ledger::{Ledger, Rewritten};
use crate::replication::Refusal;
use crate::{Error, ErrorKind, Result};

/// The form of the file.
const VERSION: u32 = 1;
/// From which difference on the clock here is taken to be wrong, in milliseconds.
const WRONG_FROM_MS: u64 = 60_000;
/// What is known of a wrong clock is not learned again for less than this.
const SAME_WITHIN_MS: u64 = 1_000;
/// How often in a row events are stamped anew by themselves: a server that never takes them is not asked for ever.
const MOST_STAMPINGS: u32 = 5;
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
    /// The writer of the ledger whose log the positions are of.
    #[serde(default)]
    writer: Option<String>,
    /// By how much the clock here is wrong, as far as it is known and much, in milliseconds.
    #[serde(default)]
    pub(super) clock_offset_ms: i64,
    /// How often in a row events were stamped anew without all of them being taken.
    #[serde(default)]
    stampings: u32,
}

impl Known {
    fn nothing(url: &str) -> Self {
        let (acknowledged, runs, rejected, failure, succeeded_at_ms) = Default::default();
        let (url, in_full) = (url.to_owned(), false);
        let (version, writer, clock_offset_ms, stampings) = (VERSION, None, 0, 0);
        Self {
            version,
            url,
            acknowledged,
            runs,
            rejected,
            failure,
            succeeded_at_ms,
            in_full,
            writer,
            clock_offset_ms,
            stampings,
        }
    }

    /// How far another server has the log is not known. What was refused stays until it is taken.
    fn turn_to(&mut self, url: &str) {
        if self.url != url {
            let (rejected, writer) = (std::mem::take(&mut self.rejected), self.writer.take());
            *self = Self { rejected, writer, ..Self::nothing(url) };
        }
    }

    /// Whether the positions are of another log than that of this writer: it was written again, and this was not noted any more.
    fn is_of_another(&self, writer: WriterId) -> bool {
        self.writer.as_ref().is_some_and(|known| *known != writer.to_string())
    }

    /// The log is that of this writer, and of what was refused holds these events alone.
    fn turn_to_log(&mut self, writer: WriterId, held: &BTreeSet<String>) {
        if self.is_of_another(writer) {
            (self.acknowledged, self.runs) = (0, Vec::new());
            self.rejected.retain(|event, _| held.contains(event));
        }
        self.writer = Some(writer.to_string());
    }

    /// The log was written again: positions are others, and what was refused and is gone is refused no more.
    pub(super) fn follow(&mut self, done: &Rewritten) {
        self.acknowledged = done.position(self.acknowledged);
        self.runs.iter_mut().for_each(|run| run.after = done.position(run.after));
        let withdrawn = done.withdrawn.iter().map(|entry| &entry.id);
        let gone: BTreeSet<String> = done.stamped.keys().chain(withdrawn).map(ToString::to_string).collect();
        self.rejected.retain(|event, _| !gone.contains(event));
        self.writer = Some(done.writer.to_string());
    }

    /// What was refused for its stamp or its writer, and is to be stamped anew for that. Nothing where it was tried too often, or
    /// while something is to be sent again: that may be taken, and would be made a second time.
    pub(super) fn to_stamp(&self) -> Vec<EventId> {
        if self.stampings >= MOST_STAMPINGS || self.sends_again() {
            return Vec::new();
        }
        self.refused_for_stamps().filter_map(|event| event.parse().ok()).collect()
    }

    fn refused_for_stamps(&self) -> impl Iterator<Item = &String> {
        self.rejected.iter().filter(|(_, rejected)| is_for_stamp(&rejected.code)).map(|(event, _)| event)
    }

    /// Events are about to be stamped anew.
    pub(super) fn begin_stamping(&mut self) {
        self.stampings = self.stampings.saturating_add(1);
    }

    /// Somebody wants what was refused to be tried again, however often that was.
    pub(super) fn forget_stampings(&mut self) {
        self.stampings = 0;
    }

    /// The server's clock is so far ahead of the one here. Small differences are nobody's fault.
    pub(super) fn learn_offset(&mut self, offset_ms: i64) {
        let is_wrong = offset_ms.unsigned_abs() >= WRONG_FROM_MS;
        let is_known = self.clock_offset_ms != 0 && offset_ms.abs_diff(self.clock_offset_ms) < SAME_WITHIN_MS;
        if !is_wrong {
            self.clock_offset_ms = 0;
        } else if !is_known {
            self.clock_offset_ms = offset_ms;
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
        if self.refused_for_stamps().next().is_none() {
            self.stampings = 0;
        }
        self.failure = None;
        self.succeeded_at_ms = Some(now_ms);
    }
}

/// Whether an event is refused with this code for its stamp or its writer: stamped anew, it may be taken.
pub(super) fn is_for_stamp(code: &str) -> bool {
    [ErrorKind::ClockAhead.code(), ErrorKind::Consistency.code()].contains(&code)
}

/// What is known, where it is kept.
pub(super) struct Notes {
    place: Place,
    known: Mutex<Known>,
    /// Sessions read it, who writes the log again writes it: positions of a log that is written again mean nothing.
    log: Arc<RwLock<()>>,
}

static OPEN: Open<Notes> = Mutex::new(BTreeMap::new());

impl Notes {
    /// What is kept of a server, for all clients of a ledger together.
    pub(super) fn open(ledger: &Ledger, url: &str) -> Result<Arc<Self>> {
        Self::at(Place::of(ledger, "state"), ledger, url)
    }

    /// What is kept of a server at a place.
    pub(super) fn at(place: Place, ledger: &Ledger, url: &str) -> Result<Arc<Self>> {
        let notes = shared(&OPEN, &place, || Self::read(place.clone(), url))?;
        notes.change(|known| known.turn_to(url))?;
        notes.turn_to_log(ledger)?;
        Ok(notes)
    }

    fn read(place: Place, url: &str) -> Result<Self> {
        let known = place.read::<Known>()?.unwrap_or_else(|| Known::nothing(url));
        if known.version != VERSION {
            let message = format!("expected a client's state of version {VERSION}, got {}", known.version);
            return Err(Error::new(ErrorKind::UpgradeNeeded, message).with_hint("install a newer version"));
        }
        Ok(Self { place, known: Mutex::new(known), log: Arc::default() })
    }

    /// By how much the clock here is wrong, as far as it is noted, in milliseconds.
    pub(super) fn clock_offset_ms(ledger: &Ledger) -> Result<i64> {
        Ok(Place::of(ledger, "state").read::<Known>()?.map_or(0, |known| known.clock_offset_ms))
    }

    fn turn_to_log(&self, ledger: &Ledger) -> Result<()> {
        let (known, writer) = (self.known(), ledger.info().writer);
        let held = match known.is_of_another(writer) {
            true => outbox::held(ledger, known.rejected.keys())?,
            false => BTreeSet::new(),
        };
        self.change(|known| known.turn_to_log(writer, &held))
    }

    /// Holds off who writes the log again; `None` while somebody does.
    pub(super) fn session(&self) -> Option<OwnedRwLockReadGuard<()>> {
        self.log.clone().try_read_owned().ok()
    }

    /// Holds off sessions; `None` while there is one.
    pub(super) fn alone(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.log.clone().try_write_owned().ok()
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
    fn what_was_refused_for_its_stamp_is_stamped_anew_a_few_times_and_not_while_something_is_sent_again() {
        let refused = |byte, code: &str| Refusal { code: code.to_owned(), ..refusal(byte) };
        let mut known = Known::nothing("u");
        known.refuse(vec![refused(1, "clock_ahead"), refused(2, "permission"), refused(3, "consistency")], 5);
        assert_eq!(known.to_stamp(), [EventId([1; 32]), EventId([3; 32])]);
        known.rejected.values_mut().last().unwrap().again = true;
        assert_eq!(known.to_stamp(), []);
        known.refuse(vec![refused(3, "consistency")], 6);
        (0..MOST_STAMPINGS).for_each(|_| known.begin_stamping());
        known.succeed(7);
        assert_eq!(known.to_stamp(), [], "it was tried too often");
        known.forget_stampings();
        assert_eq!(known.to_stamp().len(), 2);
        known.begin_stamping();
        known.rejected.retain(|_, rejected| !is_for_stamp(&rejected.code));
        known.succeed(8);
        assert_eq!(known.stampings, 0);
    }

    #[test]
    fn a_clock_is_wrong_from_a_minute_on_and_right_again_below_that() {
        let mut known = Known::nothing("u");
        let learned = [59_000, -59_999, 61_000, 61_500, 63_000, -7_200_000, 100].map(|offset_ms| {
            known.learn_offset(offset_ms);
            known.clock_offset_ms
        });
        assert_eq!(learned, [0, 0, 61_000, 61_000, 63_000, -7_200_000, 0]);
    }

    #[test]
    fn positions_of_a_log_that_was_written_again_unnoticed_are_forgotten_with_what_is_no_more_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = crate::Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
        let put = |key: &str| ledger.put("c", key, serde_json::json!({}), &Default::default()).unwrap().events[0].0;
        let (gone, stays) = (put("gone"), put("stays"));
        let notes = Notes::open(&ledger, "u").unwrap();
        let refused = [gone, stays].map(|event| Refusal { event, ..refusal(1) });
        notes.change(|known| known.refuse(refused.to_vec(), 5)).unwrap();
        notes.change(|known| known.reach(2)).unwrap();
        let withdraw = [gone].into();
        ledger.write_again(&crate::ledger::Again { withdraw, ..Default::default() }).unwrap();
        let known = Notes::open(&ledger, "u").unwrap().known();
        assert_eq!((known.acknowledged, known.rejected.keys().collect::<Vec<_>>()), (0, vec![&stays.to_string()]));
        notes.change(|known| known.reach(1)).unwrap();
        assert_eq!(Notes::open(&ledger, "u").unwrap().known().acknowledged, 1);
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
