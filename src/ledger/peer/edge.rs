//! The edge: what a ledger takes in of a device, and what it lets the device have.
//!
//! A ledger accepts any valid event of another replica. Who is not trusted as a replica is, a device, is held to more: its own
//! source, its own writers, its own collections, and a clock that is about right. What is refused is told to it with the
//! reason, event by event, and the rest of a batch is taken in.
//!
//! Invariant: an event that is here already is not refused: the device may have it from elsewhere.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::Ledger;
use super::super::backup::blobs_of;
use super::super::cache::TwoGenerations;
use super::super::state::RecordKey;
use super::Room;
use crate::event::{BlobHash, Event, EventId, WriterId};
use crate::replication::{Filter, Refusal};
use crate::segment::Item;
use crate::{Error, ErrorKind, Result};

/// How far ahead of this machine's clock an event may be stamped, in milliseconds.
const MOST_AHEAD_MS: i64 = 5 * 60 * 1_000;
/// The system collection that every device may read: schemas and policies.
const READ_BY_ALL: &str = "$collections";
/// After so many refusals of a batch the others are told without words: an answer has a limit.
const MOST_WORDS: usize = 1_024;
/// How many large values are remembered each way at most, half as many at least: more than the batches name that are under way.
const MOST_VALUES: usize = 1 << 16;

/// What the device at the other end of a session may do. System collections it never writes, and reads only
/// `$collections`.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// The device's name. What was taken in of its log is remembered under it, so that no device can say it for another.
    pub device: String,
    /// The source that its events name; `None` for any.
    pub source: Option<String>,
    /// The user records that it may be sent, whatever it wants.
    pub reads: Filter,
    /// The user collections that it may write; `None` for all.
    pub writes: Option<BTreeSet<String>>,
    /// Whose the writers are: those of other devices are not its own. This ledger's never is.
    pub writers: Writers,
    /// How much room there is for what it writes.
    pub room: Room,
}

/// Which device stamps under which writer. Shared by all sessions of a ledger, and so true for those that go on.
#[derive(Clone, Debug, Default)]
pub struct Writers(Arc<RwLock<BTreeMap<WriterId, String>>>);

impl Writers {
    /// The writers of these devices.
    #[must_use]
    pub fn of(owned: impl IntoIterator<Item = (WriterId, String)>) -> Self {
        Self(Arc::new(RwLock::new(owned.into_iter().collect())))
    }

    /// Makes a writer a device's, unless it is somebody's. Returns whether it was nobody's.
    pub fn bind(&self, writer: WriterId, device: &str) -> bool {
        let mut owned = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_free = !owned.contains_key(&writer);
        if is_free {
            owned.insert(writer, device.to_owned());
        }
        is_free
    }

    fn are_of_another(&self, writer: WriterId, device: &str) -> bool {
        let owned = self.0.read().unwrap_or_else(PoisonError::into_inner);
        owned.get(&writer).is_some_and(|owner| owner != device)
    }
}

impl Edge {
    /// Whether records of a collection may be sent at all.
    pub(super) fn shows(&self, collection: &str) -> bool {
        collection == READ_BY_ALL || (!collection.starts_with('$') && self.reads.conditions(collection).is_some())
    }

    /// Whether which records of these collections may be sent does not depend on what they show.
    #[cfg(feature = "tokio")]
    pub(super) fn has_no_conditions(&self, collections: &BTreeSet<String>) -> bool {
        collections.iter().all(|name| self.reads.conditions(name).is_none_or(<[_]>::is_empty))
    }

    /// What a cursor of the device holds under: with other rights to read, other records lie before it.
    pub(super) fn scope(&self) -> String {
        format!("edge {}", self.reads.name())
    }

    /// What a cursor of this side holds under: another device has another log, whatever replica it says to be, and with other
    /// rights to write other events before the cursor are taken in.
    pub(super) fn takes(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 edge rights to write v1");
        let named = self.writes.iter().flatten().map(|name| Some(name.as_str()));
        let fixed = [Some(self.device.as_str()), self.source.as_deref(), self.writes.as_ref().map(|_| "")];
        // With more room, events that found none are taken in.
        let room = (!self.room.is_endless()).then(|| format!("{:?} {:?}", self.room.events, self.room.bytes));
        let parts = fixed.into_iter().chain(named).chain(room.as_deref().map(Some));
        for part in parts {
            let text = part.unwrap_or_default();
            hasher
                .update(&[u8::from(part.is_some())])
                .update(&(text.len() as u64).to_le_bytes())
                .update(text.as_bytes());
        }
        hasher.finalize().to_hex().chars().take(16).collect()
    }
}

/// What the rules of an edge look at besides the event.
struct Circumstances {
    now_ms: i64,
    own: WriterId,
    forked: BTreeSet<WriterId>,
}

fn refuse(kind: ErrorKind, message: impl Into<String>, hint: &str) -> Result<()> {
    Err(Error::new(kind, message).with_hint(hint))
}

impl Edge {
    /// Why an event is not taken in, whatever other events are.
    fn check(&self, event: &Event, at: &Circumstances) -> Result<()> {
        let collection = &event.collection;
        if collection.starts_with('$') || self.writes.as_ref().is_some_and(|writes| !writes.contains(collection)) {
            let message = format!("this device may not write the collection `{collection}`");
            return refuse(ErrorKind::Permission, message, "take the edit back, or ask for the right to make it");
        }
        if let Some(source) = self.source.as_ref().filter(|source| **source != event.source) {
            let message = format!("expected the source `{source}`, which this device has, got `{}`", event.source);
            return refuse(ErrorKind::Permission, message, "a device speaks for its own source");
        }
        if event.writer == at.own || self.writers.are_of_another(event.writer, &self.device) {
            let message = format!("the writer {} is another device's", event.writer);
            return refuse(ErrorKind::Consistency, message, "stamp it again, under a writer of its own");
        }
        if at.forked.contains(&event.writer) {
            let message =
                format!("the writer {} has forked: a store was copied, or an old one restored", event.writer);
            return refuse(
                ErrorKind::Consistency,
                message,
                "take a new writer, and stamp again what was not taken in",
            );
        }
        if event.at.millis > at.now_ms.saturating_add(MOST_AHEAD_MS) {
            let (ahead, now) = (event.at.millis.saturating_sub(at.now_ms) / 1_000, at.now_ms);
            let message = format!("it is stamped {ahead} s ahead of this clock, which says {now} ms since 1970");
            return refuse(
                ErrorKind::ClockAhead,
                message,
                "set the clock right, and stamp it again under a new writer",
            );
        }
        Ok(())
    }
}

/// The edge in a session: what it refused so far.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) edge: Edge,
    /// Refusals that were not told yet.
    untold: Vec<Refusal>,
    /// Large values that events name which the other side was sent in this session: it may ask for these and no others.
    may_have: TwoGenerations<BlobHash, ()>,
    /// Large values that the other side has sent in this session.
    has_shown: TwoGenerations<BlobHash, ()>,
}

impl Guard {
    pub(super) fn new(edge: Edge) -> Self {
        let remembered = || TwoGenerations::new(MOST_VALUES);
        Self { edge, untold: Vec::new(), may_have: remembered(), has_shown: remembered() }
    }

    /// Remembers what large values the other side may ask for.
    pub(super) fn sends(&mut self, events: &[Item]) {
        for hash in events.iter().flat_map(|item| blobs_of(&item.event)) {
            self.may_have.insert(hash, (), 1);
            self.may_have.trim();
        }
    }

    /// Whether the other side may ask for a large value. They lie together for all ledgers of a store, so that who knows a hash
    /// could have what it is never shown.
    pub(super) fn may_have(&self, hash: BlobHash) -> bool {
        self.may_have.contains(&hash)
    }

    /// The other side has sent a large value.
    pub(super) fn has_shown(&mut self, hash: BlobHash) {
        self.has_shown.insert(hash, (), 1);
        self.has_shown.trim();
    }

    /// The large values of new events that the other side has not sent in this session: that one is here, perhaps of another
    /// ledger, is no reason to believe that it has it.
    pub(super) fn unshown(&self, ledger: &Ledger, events: &[Item]) -> Result<Vec<BlobHash>> {
        let (mut unshown, mut here) = (BTreeSet::new(), Here::of(ledger));
        for item in events {
            let mut named = blobs_of(&item.event).filter(|hash| !self.has_shown.contains(hash)).peekable();
            if named.peek().is_some() && !here.has(item)? {
                unshown.extend(named);
            }
        }
        Ok(unshown.into_iter().collect())
    }

    /// The refusals since it was asked last.
    pub(super) fn take_untold(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.untold)
    }

    /// Leaves of these events those that are taken in.
    pub(super) fn sift(&mut self, ledger: &Ledger, events: Vec<Item>) -> Result<Vec<Item>> {
        let (at, mut here) = (ledger.circumstances(), Here::of(ledger));
        let mut kept = Vec::with_capacity(events.len());
        for item in events {
            let room = || self.edge.room.check(ledger, kept.len() as u64);
            match self.edge.check(&item.event, &at).and_then(|()| room()) {
                Err(why) if !here.has(&item)? => self.refuse(item.id, &why),
                _ => kept.push(item),
            }
        }
        Ok(kept)
    }

    /// Remembers to tell that an event was refused.
    pub(super) fn refuse(&mut self, event: EventId, why: &Error) {
        let message = if self.untold.len() < MOST_WORDS { why.to_string() } else { String::new() };
        self.untold.push(Refusal { event, code: why.code().to_owned(), message });
    }
}

/// Which events are in a log. Each record of a batch is read once, however many of its events the batch has.
struct Here<'a> {
    ledger: &'a Ledger,
    records: BTreeMap<RecordKey, HashSet<EventId>>,
}

impl<'a> Here<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        Self { ledger, records: BTreeMap::new() }
    }

    fn has(&mut self, item: &Item) -> Result<bool> {
        let record = (item.event.collection.clone(), item.event.key.clone());
        let events = match self.records.entry(record) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let events = self.ledger.ids_of(unread.key())?;
                unread.insert(events)
            }
        };
        Ok(events.contains(&item.id))
    }
}

impl Ledger {
    fn circumstances(&self) -> Circumstances {
        let (id, own) = self.ids();
        let forked = self.shared().meta(id, |meta| meta.forked.clone());
        Circumstances { now_ms: (self.shared().world.now)(), own, forked }
    }

    /// The ids of a record's events.
    fn ids_of(&self, record: &RecordKey) -> Result<HashSet<EventId>> {
        let _reading = self.shared().reading();
        let last = self.shared().last_position(self.id(), record)?;
        Ok(self.log_reader().record(last, 0)?.into_iter().map(|entry| entry.id).collect())
    }
}
