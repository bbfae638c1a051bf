//! Checking a ledger and making its derived state again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tracing::info_span;

use super::request::{AsOf, Digest, Entry, Rebuilt, Verification};
use super::row::{self, MARK_EVENTS, Row};
use super::shared::Shared;
use super::state::{self, RecordKey, State, Working};
use super::{Ledger, Store, digest, packing};
use crate::blob::MemoryBlobs;
use crate::document::Document;
use crate::event::{EventId, Op, Value, WriterId};
use crate::journal::LedgerEntry;
use crate::journal::rows::MemoryRows;
use crate::projection::{Policy, Projection, RecordId, project};
use crate::{Error, ErrorKind, Result};

/// How far each writer came in each of its lanes; `None` where one forked.
type Lanes = Option<Vec<(WriterId, u32, u32)>>;

/// How many events are replayed or copied at once.
const CHUNK: usize = 4_096;

impl Ledger {
    /// The digest of the ledger's events.
    ///
    /// # Errors
    /// None today.
    pub fn digest(&self) -> Result<Digest> {
        let _reading = self.shared().reading();
        let meta = self.shared().meta_added_up(self.id());
        Ok(digest::digest(meta.sums.of_collections(), meta.totals().events, meta.position))
    }

    /// Reads the whole log and derives everything again: checksums, ids, lanes, back pointers, large values, and that
    /// what readers see is what the log says.
    ///
    /// # Errors
    /// `storage` where the disk fails; what is wrong with the ledger is an answer.
    pub fn verify(&self) -> Result<Verification> {
        self.verify_with(&mut |_| Ok(()))
    }

    /// [`Ledger::verify`], telling `progress` how many events were read so far. It may end the check by an error.
    ///
    /// # Errors
    /// As [`Ledger::verify`]; what `progress` returns.
    pub fn verify_with(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Verification> {
        let _reading = self.shared().reading();
        // Up to there readers are shown everything.
        let until = self.shared().meta(self.id(), |meta| meta.position);
        let mut check = Check::new(self)?;
        let (mut read, mut ended) = (0, Ok(()));
        let log = self.log_reader();
        let walked = log.each(0, until, |entry| {
            let position = entry.position;
            check.entry(entry)?;
            read = position;
            ended = if read.is_multiple_of(CHUNK as u64) { progress(read) } else { Ok(()) };
            Ok(ended.is_ok())
        });
        ended?;
        // What was read of sealed files was held against the hashes that they were written with; these against the events.
        let proved = self.shared().archives.prove_sealed(self.id(), 0);
        check.problems.extend(proved.err().map(|fault| fault.to_string()));
        // Where reading ends early, what is shown is compared up to there: of the rest nothing is known.
        let compared = match walked {
            Ok(_) => until,
            Err(fault) => {
                check.problems.push(fault.to_string());
                read
            }
        };
        check.finish(compared)?;
        Ok(Verification { events: read, problems: check.problems })
    }

    /// Makes all derived state again from the log alone. Readers and writers wait for it.
    ///
    /// # Errors
    /// `corrupt` where the log is damaged; `storage`.
    pub fn rebuild(&self) -> Result<Rebuilt> {
        self.store.queue().rebuild(self.id())
    }

    /// Replays the log, up to a position or time where one is given, into a new store in a directory.
    ///
    /// # Errors
    /// `conflict` where the directory holds a ledger already; `validation` where `until` is an event.
    pub fn rebuild_into(&self, dir: impl AsRef<Path>, until: Option<AsOf>) -> Result<Rebuilt> {
        if matches!(until, Some(AsOf::Event(_))) {
            return Err(Error::new(ErrorKind::Validation, "expected a position or a time to rebuild until"));
        }
        let started = self.shared().now_ms();
        let span = info_span!("rebuild", ledger = %self.id());
        let _entered = span.enter();
        let store = Store::open(dir)?;
        if !store.ledgers().is_empty() {
            return Err(Error::new(ErrorKind::Conflict, "the directory holds a ledger already")
                .with_hint("give an empty or new directory"));
        }
        let (id, random) = (self.id(), (self.shared().world.random)()?);
        let entry = LedgerEntry { number: 1, id, name: self.name.clone(), meta: random.to_vec() };
        store.shared().journal.put_ledger(entry)?;
        for hash in self.shared().blobs.list()? {
            store.shared().blobs.put_many(&[&self.shared().blobs.get(hash)?])?;
        }
        let events = self.copy_log(&store, until)?;
        let rebuilt = store.ledger(&self.name)?;
        let records = rebuilt.shared().meta(id, |meta| meta.totals().records);
        store.close()?;
        let millis = self.shared().now_ms().saturating_sub(started);
        Ok(Rebuilt { events, records, seconds: std::time::Duration::from_millis(millis).as_secs_f64() })
    }

    fn copy_log(&self, store: &Store, until: Option<AsOf>) -> Result<u64> {
        let log = self.log_reader();
        let head = match until {
            Some(AsOf::Position(position)) => position.min(log.head()),
            _ => log.head(),
        };
        let mut copy = Copy { store, ledger: self.id(), last: BTreeMap::new(), chunk: Vec::new(), head: 0 };
        log.each(0, head, |entry| {
            if !matches!(until, Some(AsOf::Time(millis)) if entry.event.at.millis > millis) {
                copy.add(entry)?;
            }
            Ok(true)
        })?;
        copy.flush()?;
        Ok(copy.head)
    }
}

/// Copies entries into another store's log.
struct Copy<'a> {
    store: &'a Store,
    ledger: crate::event::LedgerId,
    last: BTreeMap<RecordKey, u64>,
    chunk: Vec<Entry>,
    head: u64,
}

impl Copy<'_> {
    fn add(&mut self, mut entry: Entry) -> Result<()> {
        self.head += 1;
        entry.position = self.head;
        let last = self.last.entry((entry.event.collection.clone(), entry.event.key.clone())).or_insert(0);
        entry.previous = std::mem::replace(last, self.head);
        self.chunk.push(entry);
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        packing::append(&*self.store.shared().journal, self.ledger, &std::mem::take(&mut self.chunk)).map(drop)
    }
}

/// What lives in a document, and its heads, by the events' ids: their indexes may differ where a writer forked.
fn lives(document: &Document) -> (Vec<EventId>, Vec<String>) {
    let id = |ix| document.graph().node(ix).map(|node| node.id);
    let keys = document.registers().iter().flat_map(|(key, lives)| lives.iter().map(move |live| (key, live)));
    let lives =
        keys.map(|(key, live)| format!("{key} {} {:?} {:?}", live.counter, id(live.node), live.cell)).collect();
    (document.graph().head_ids(), lives)
}

/// A replay of the log beside the derived state that readers see.
struct Check<'a> {
    ledger: &'a Ledger,
    /// The replay's own derived state; it shares nothing with that of readers but the log.
    replay: Shared,
    state: State,
    chunk: Vec<Entry>,
    last: BTreeMap<RecordKey, u64>,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(ledger: &'a Ledger) -> Result<Self> {
        let shared = ledger.shared();
        let (rows, blobs) = (Arc::new(MemoryRows::default()), Arc::new(MemoryBlobs::default()));
        let journal = shared.journal.clone();
        let mut replay = Shared::new(journal, rows, blobs, shared.resolvers.clone(), super::clock::world(), 8 << 20);
        replay.archives = shared.archives.clone();
        let state = State::new(ledger.id(), WriterId([0; 16]), 0, 1, 64 << 20).by_documents();
        let (chunk, last, problems) = Default::default();
        Ok(Self { ledger, replay, state, chunk, last, problems })
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        let last = self.last.insert(key, entry.position).unwrap_or(0);
        if entry.previous != last {
            self.problems
                .push(format!("position {}: points back to {}, expected {last}", entry.position, entry.previous));
        }
        self.blobs(&entry);
        match self.state.absorb(&self.replay, &entry) {
            Ok(()) => self.mark(&entry)?,
            Err(fault) => {
                self.problems.push(format!("position {}: event {}: {fault}", entry.position, entry.id.short()));
                self.state.head = entry.position;
            }
        }
        self.chunk.push(entry);
        if self.chunk.len() >= CHUNK { self.publish() } else { Ok(()) }
    }

    /// Compares a row of a record's past, where one is kept, with what its events up to there say.
    fn mark(&mut self, entry: &Entry) -> Result<()> {
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        let is_mark = self.state.events_of(&self.replay, &key)?.is_multiple_of(MARK_EVENTS);
        let at = row::mark(self.ledger.id(), &key, entry.position);
        // One that cannot be read is as wrong as one that says otherwise.
        let kept = match is_mark.then(|| self.ledger.shared().rows.get(&at)) {
            None | Some(Ok(None)) => return Ok(()),
            Some(kept) => kept.ok().flatten(),
        };
        let expected = self.state.row(&self.replay, &key)?;
        let same = kept.and_then(|kept| Row::decode(&kept)).zip(expected).is_some_and(|(kept, expected)| {
            // It is read only where nothing was disputed, which no policy decides.
            kept.content == expected.content
                && kept.tip == expected.tip
                && (kept.last, kept.deleted) == (expected.last, expected.deleted)
        });
        if !same {
            self.problems.push(format!(
                "{}/{}: the row that is kept of position {} is not what its events say: rebuild",
                key.0, key.1, entry.position
            ));
        }
        Ok(())
    }

    fn blobs(&mut self, entry: &Entry) {
        for op in entry.event.ops() {
            if let Some(Value::Blob(blob)) = op.value().filter(|_| !matches!(op, Op::SetAdd { .. }))
                && let Err(fault) = self.ledger.shared().blobs.get(blob.hash)
            {
                self.problems.push(format!("position {}: {fault}", entry.position));
            }
        }
    }

    fn publish(&mut self) -> Result<()> {
        let rows = self.state.take_rows(&self.replay)?;
        self.replay.publish(self.ledger.id(), &mut self.chunk, rows);
        self.replay.meta_added_up(self.ledger.id());
        self.state.trim();
        Ok(())
    }

    fn finish(&mut self, until: u64) -> Result<()> {
        self.publish()?;
        for (key, last) in std::mem::take(&mut self.last) {
            self.row(&key, last, until)?;
            self.snapshot(&key, until)?;
        }
        self.strangers(until)?;
        let (id, shared) = (self.ledger.id(), self.ledger.shared());
        let seen = shared.meta_added_up(id);
        let same = seen.position != until || seen == self.replay.meta_added_up(id);
        let expected = self.replay.index(id, Clone::clone);
        if shared.meta(id, |seen| seen.position) == until && shared.index(id, |seen| *seen != expected) {
            self.problems.push("what constraints know of the records is not what its events say: rebuild".to_owned());
        }
        if !same {
            self.problems.push("the ledger's counts are not what its events say: rebuild".to_owned());
        }
        Ok(())
    }

    /// Compares what readers are shown of a record with what its events say.
    fn row(&mut self, key: &RecordKey, last: u64, until: u64) -> Result<()> {
        let id = self.ledger.id();
        let expected = self.replay.row(id, key)?;
        let as_expected = |seen: &Row| {
            let same = expected.as_deref().is_some_and(|expected| {
                // A row of another policy is projected again when it is read.
                let waits =
                    seen.policy != expected.policy && seen.heads == expected.heads && seen.last == expected.last;
                (seen == expected && seen.tip == expected.tip) || waits
            });
            same || seen.last > until
        };
        if !matches!(self.ledger.shared().row(id, key), Ok(Some(seen)) if as_expected(&seen)) {
            self.problems.push(format!(
                "{}/{}: what is shown is not what its events up to position {last} say: rebuild",
                key.0, key.1
            ));
        }
        Ok(())
    }

    /// Compares a record's stored snapshot, where it has one, with what its events say.
    fn snapshot(&mut self, key: &RecordKey, until: u64) -> Result<()> {
        let (id, shared) = (self.ledger.id(), self.ledger.shared());
        let is_there = |saved: &Working| saved.last <= until;
        let whole = |saved: &Working| state::load_until(&self.replay, id, key, saved.last);
        let mut same = true;
        if let Some(saved) = state::snapshot(shared, id, key).filter(is_there) {
            same &= lives(&saved.document) == lives(&whole(&saved)?.document);
        }
        if let Some(mut saved) = state::recent_snapshot(shared, id, key).filter(is_there) {
            same &= self.shown(key, &mut whole(&saved)?)? == self.shown(key, &mut saved)?;
        }
        if !same {
            self.problems.push(format!("{}/{}: its snapshot is not what its events say: rebuild", key.0, key.1));
        }
        Ok(())
    }

    /// What a record shows when nothing is settled by itself, and where its next event stands.
    fn shown(&self, key: &RecordKey, working: &mut Working) -> Result<(Projection, Vec<EventId>, Lanes)> {
        let record = RecordId { ledger: self.ledger.id(), collection: key.0.clone(), key: key.1.clone() };
        let view = working.document.view()?;
        let shown = project(&view, &Policy::default(), &self.ledger.shared().resolvers, &record);
        // Whom to blame is forgotten first.
        let shown = Projection { blame: Vec::new(), ..shown };
        Ok((shown, view.graph().head_ids(), view.graph().lanes()))
    }

    /// Rows of records that the log does not have.
    fn strangers(&mut self, until: u64) -> Result<()> {
        let (id, shared) = (self.ledger.id(), self.ledger.shared());
        for key in shared.record_keys(id)? {
            let known = self.replay.row(id, &key)?.is_some();
            if !known && shared.row(id, &key).is_ok_and(|row| row.is_some_and(|row| row.last <= until)) {
                self.problems.push(format!("{}/{}: it is shown, but has no event: rebuild", key.0, key.1));
            }
        }
        Ok(())
    }
}
