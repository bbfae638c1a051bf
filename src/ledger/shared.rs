//! What the writer thread and all readers of a store share: the storage seams, the published rows and counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bincode::Options as _;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::archive::Archives;
use super::cache::TwoGenerations;
use super::digest::Sums;
use super::flushes::Flushes;
use super::recent::Followed;
use super::request::{Entry, Work};
use super::row::{self, Kind, Row};
use super::state::{COLLECTIONS, CollectionPolicy, Derived, RecordKey};
use crate::blob::{BlobStore, MemoryBlobs};
use crate::event::{BlobForm, BlobRef, Event, LedgerId, WriterId, hex};
use crate::journal::Journal;
use crate::journal::rows::{Changes, Rows, RowsError};
use crate::projection::Resolvers;
use crate::schema::Index;
use crate::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use crate::{Error, ErrorKind, Result};

/// What the row file says of who derived what is in it.
pub(crate) const MARK: &[u8] = b"syncledger 3";

/// Where time and randomness come from: only tests give others than the defaults.
pub(crate) struct World {
    /// Milliseconds since 1970.
    pub(crate) now: Box<dyn Fn() -> i64 + Send + Sync>,
    /// Sixteen random bytes.
    pub(crate) random: Box<dyn Fn() -> Result<[u8; 16]> + Send + Sync>,
}

/// How many events and records a collection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) events: u64,
}

/// What is known of a ledger as a whole, up to a position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) position: u64,
    pub(crate) collections: BTreeMap<String, Counts>,
    pub(crate) sums: Sums,
    /// Records that have conflicts.
    pub(crate) disputed: BTreeSet<RecordKey>,
    /// For each writer the runs of its numbers that are here; but for writers of first imports, which have one record.
    pub(crate) numbers: BTreeMap<WriterId, Vec<(u64, u64)>>,
    pub(crate) forked: BTreeSet<WriterId>,
}

impl Meta {
    /// Takes in an entry at the next position. Writers whose fork shows only in a record are added by `publish`.
    pub(crate) fn absorb(&mut self, entry: &Entry) {
        self.position = entry.position;
        let event = &entry.event;
        if !self.collections.contains_key(&event.collection) {
            self.collections.insert(event.collection.clone(), Counts::default());
        }
        let Some(counts) = self.collections.get_mut(&event.collection) else { return };
        counts.events += 1;
        counts.records += u64::from(entry.previous == 0);
        self.sums.add(&event.collection, entry.id);
        if !is_first_import(event) {
            self.count_number(event.writer, event.sequence);
        }
    }

    fn count_number(&mut self, writer: WriterId, number: u64) {
        let runs = self.numbers.entry(writer).or_default();
        let place = runs.partition_point(|run| run.1 < number);
        if runs.get(place).is_some_and(|run| run.0 <= number) {
            self.forked.insert(writer);
            return;
        }
        let joins = |run: &(u64, u64)| run.1.checked_add(1) == Some(number);
        let joins_before = place.checked_sub(1).filter(|&before| runs.get(before).is_some_and(joins));
        let joins_after = runs.get(place).is_some_and(|run| number.checked_add(1) == Some(run.0));
        match (joins_before, joins_after) {
            (Some(before), true) => {
                let end = runs.remove(place).1;
                runs.get_mut(before).into_iter().for_each(|run| run.1 = end);
            }
            (Some(before), false) => runs.get_mut(before).into_iter().for_each(|run| run.1 = number),
            (None, true) => runs.get_mut(place).into_iter().for_each(|run| run.0 = number),
            (None, false) => runs.insert(place, (number, number)),
        }
    }

    /// The greatest number of a writer that is here.
    pub(crate) fn last_number(&self, writer: WriterId) -> u64 {
        self.numbers.get(&writer).and_then(|runs| runs.last()).map_or(0, |run| run.1)
    }

    pub(crate) fn totals(&self) -> Counts {
        self.collections.values().fold(Counts::default(), |total, counts| Counts {
            records: total.records + counts.records,
            events: total.events + counts.events,
        })
    }
}

/// Whether an event is of the chain that imports a record for the first time, whose writer is a hash.
pub(crate) fn is_first_import(event: &Event) -> bool {
    let chained = event.batch.is_none_or(|batch| batch.id.0 == event.writer.0);
    let placed = event.lane == 0 && u64::from(event.nth) == event.sequence;
    let rooted = event.parents.len() == usize::from(event.nth > 1);
    let timed = event.occurred_at == Some(event.at.millis) && event.at.counter.checked_add(1) == Some(event.nth);
    event.delivery && chained && placed && rooted && timed && event.run.is_none() && event.principal.is_none()
}

/// How many rows are let go of before readers and the writer get a turn.
const LET_GO_AT_ONCE: usize = 256;

/// About how many bytes of memory a row takes that has these bytes.
fn weight(bytes: &[u8]) -> usize {
    bytes.len() * 2 + 256
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "a derived row cannot be read")
        .with_hint("nothing is lost: run `syncledger rebuild`")
}

fn bincode_options() -> impl bincode::Options {
    bincode::DefaultOptions::new().with_limit(1 << 32)
}

/// The rows that readers see: those that are not yet in the row file, and some that are.
pub(crate) struct Published {
    dirty: RwLock<Dirty>,
    clean: Mutex<Clean>,
}

/// Rows, by their keys in the row file.
#[derive(Clone, Default)]
struct Pinned {
    rows: HashMap<Vec<u8>, Arc<Row>, RandomState>,
    /// The keys of those that the row file has none of yet: the others are listed by it.
    new: BTreeSet<Vec<u8>>,
}

impl Pinned {
    fn insert(&mut self, key: Vec<u8>, row: Arc<Row>, is_new: bool) {
        if is_new {
            self.new.insert(key.clone());
        }
        self.rows.insert(key, row);
    }
}

/// Rows that are not yet in the row file.
#[derive(Default)]
struct Dirty {
    /// Until the next checkpoint.
    rows: Pinned,
    /// Until the one that is being made has written them.
    saving: Arc<Pinned>,
}

impl Dirty {
    fn get(&self, at: &[u8]) -> Option<&Arc<Row>> {
        self.rows.rows.get(at).or_else(|| self.saving.rows.get(at))
    }

    /// The first keys from one on that have a prefix and that the row file has not, at least `limit` where there are as
    /// many, some of them twice.
    fn keys<'a>(&'a self, prefix: &'a [u8], from: &'a [u8], limit: usize) -> impl Iterator<Item = &'a Vec<u8>> {
        let range = (Bound::Included(from), Bound::Unbounded);
        [&self.rows, &*self.saving].into_iter().flat_map(move |rows| {
            let keys = rows.new.range::<[u8], _>(range);
            keys.take_while(move |key| key.starts_with(prefix)).take(limit)
        })
    }
}

struct Clean {
    rows: TwoGenerations<Vec<u8>, Arc<Row>>,
    /// Grows with each publication: a row that was read before one is not remembered after it.
    generation: u64,
}

/// A request's hash, and the positions of its events.
type Answered = ([u8; 32], Vec<u64>);

/// Requests, by their keys in the row file.
#[derive(Default)]
struct Requests {
    /// Until the next checkpoint.
    answered: BTreeMap<Vec<u8>, Answered>,
    /// Until the one that is being made has written them.
    saving: Arc<BTreeMap<Vec<u8>, Answered>>,
}

/// What a checkpoint writes into the row file.
pub(crate) struct Save {
    rows: Arc<Pinned>,
    requests: Arc<BTreeMap<Vec<u8>, Answered>>,
    metas: BTreeMap<LedgerId, Meta>,
    snapshots: Changes,
}

/// How many events wait for their parents, and how many records the writer holds, of how many bytes.
type Gauge = (u64, (u64, u64));

/// What the writer thread and all readers of a store share.
pub(crate) struct Shared {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// Large values of a dry run while it lasts.
    pub(crate) dry_blobs: MemoryBlobs,
    /// Where events are that the journal holds no more.
    pub(crate) archives: Arc<Archives>,
    pub(crate) resolvers: Resolvers,
    pub(crate) world: World,
    pub(crate) published: Published,
    pub(crate) metas: RwLock<BTreeMap<LedgerId, Meta>>,
    policies: RwLock<BTreeMap<(LedgerId, String), Arc<CollectionPolicy>>>,
    /// What constraints know of each ledger's records, as of the last durable events.
    indexes: RwLock<BTreeMap<LedgerId, Index>>,
    /// Requests with an idempotency key that are not yet in the row file.
    requests: Mutex<Requests>,
    work: Mutex<Work>,
    /// Told after each publication; the mutex only guards the telling.
    shown: Condvar,
    turn: Mutex<()>,
    /// Readers hold it to read; who makes all derived state again holds it to write.
    gate: RwLock<()>,
    /// Events that wait for their parents, and records held by the writer: count and bytes, by ledger.
    pub(crate) gauges: Mutex<BTreeMap<LedgerId, Gauge>>,
    /// How long appends take.
    pub(crate) flushes: Arc<Flushes>,
    /// What was appended last, for who follows.
    pub(super) followed: Followed,
    /// The store's directory; none in memory.
    pub(crate) dir: Option<PathBuf>,
    /// By how much the clock of this machine is wrong for the stamps of a ledger, in milliseconds: what is added to it.
    offsets: RwLock<BTreeMap<LedgerId, i64>>,
    /// Told of each step of writing a log again.
    #[cfg(test)]
    pub(crate) on_step: Mutex<Option<OnStep>>,
}

/// What is told of each step of writing a log again.
#[cfg(test)]
pub(crate) type OnStep = Box<dyn Fn(&str) + Send>;

impl Shared {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        rows: Arc<dyn Rows>,
        blobs: Arc<dyn BlobStore>,
        resolvers: Resolvers,
        world: World,
        cache_bytes: usize,
    ) -> Self {
        let clean = Clean { rows: TwoGenerations::new(cache_bytes), generation: 0 };
        let published = Published { dirty: RwLock::default(), clean: Mutex::new(clean) };
        let (metas, policies, requests, work, gate, gauges) = Default::default();
        let (shown, turn, indexes) = Default::default();
        Self {
            journal,
            rows,
            blobs,
            dry_blobs: MemoryBlobs::default(),
            archives: Arc::default(),
            resolvers,
            world,
            published,
            metas,
            policies,
            indexes,
            requests,
            work,
            shown,
            turn,
            gate,
            gauges,
            flushes: Arc::default(),
            followed: Followed::default(),
            dir: None,
            offsets: RwLock::default(),
            #[cfg(test)]
            on_step: Mutex::default(),
        }
    }

    /// Holds off who makes all derived state again.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` while nobody reads.
    pub(crate) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// What `read` makes of a ledger's counts.
    pub(crate) fn meta<T>(&self, ledger: LedgerId, read: impl FnOnce(&Meta) -> T) -> T {
        let metas = self.metas.read().unwrap_or_else(PoisonError::into_inner);
        match metas.get(&ledger) {
            Some(meta) => read(meta),
            None => read(&Meta::default()),
        }
    }

    /// What `read` makes of what constraints know of a ledger.
    pub(crate) fn index<T>(&self, ledger: LedgerId, read: impl FnOnce(&Index) -> T) -> T {
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        match indexes.get(&ledger) {
            Some(index) => read(index),
            None => read(&Index::default()),
        }
    }

    /// The row of a record, as of its last durable event.
    pub(crate) fn row(&self, ledger: LedgerId, key: &RecordKey) -> Result<Option<Arc<Row>>> {
        self.row_at(&row::key(Kind::Row, ledger, &key.0, &key.1))
    }

    fn row_at(&self, at: &[u8]) -> Result<Option<Arc<Row>>> {
        if let Some(row) = self.published.dirty().get(at) {
            return Ok(Some(row.clone()));
        }
        let generation = {
            let mut clean = self.published.clean();
            if let Some(row) = clean.rows.get_mut(&at.to_vec()) {
                return Ok(Some(row.clone()));
            }
            clean.generation
        };
        let Some(bytes) = self.rows.get(at)? else { return Ok(None) };
        let row = Row::decode(&bytes).map(Arc::new).ok_or_else(unreadable)?;
        let mut clean = self.published.clean();
        if clean.generation == generation {
            clean.rows.insert(at.to_vec(), row.clone(), weight(&bytes));
            clean.rows.trim();
        }
        Ok(Some(row))
    }

    /// The position of a record's last durable event; 0 where it has none.
    pub(crate) fn last_position(&self, ledger: LedgerId, key: &RecordKey) -> Result<u64> {
        Ok(self.row(ledger, key)?.map_or(0, |row| row.last))
    }

    /// The keys of a collection after one and with a prefix, in order, at most `limit`.
    pub(crate) fn keys(
        &self,
        ledger: LedgerId,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let base = row::prefix(Kind::Row, ledger, collection);
        let start = [base.as_slice(), prefix.as_bytes()].concat();
        let after = after.map(|key| [base.as_slice(), key.as_bytes()].concat());
        let from = after.clone().filter(|after| *after >= start).unwrap_or_else(|| start.clone());
        // Held over both, so that no row moves from the one to the other unseen.
        let dirty = self.published.dirty();
        let mut keys = self.rows.keys(&start, after.as_deref(), limit)?;
        let held = dirty.keys(&start, &from, limit.saturating_add(1));
        keys.extend(held.filter(|key| after.as_ref() != Some(key)).cloned());
        drop(dirty);
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(limit);
        let key = |bytes: Vec<u8>| String::from_utf8(bytes.get(base.len()..)?.to_vec()).ok();
        Ok(keys.into_iter().filter_map(key).collect())
    }

    /// The policy of a collection, as of the last durable events.
    pub(crate) fn policy(&self, ledger: LedgerId, collection: &str) -> Result<Arc<CollectionPolicy>> {
        let name = (ledger, collection.to_owned());
        if let Some(policy) = self.policies.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(policy.clone());
        }
        let row = match collection.starts_with('$') {
            true => None,
            false => self.row(ledger, &(COLLECTIONS.to_owned(), collection.to_owned()))?,
        };
        let policy = Arc::new(CollectionPolicy::of(collection, row.as_deref(), &self.resolvers));
        // Where a newer one was published meanwhile, that one stays.
        let mut policies = self.policies.write().unwrap_or_else(PoisonError::into_inner);
        Ok(policies.entry(name).or_insert(policy).clone())
    }

    /// Shows durable entries and their records' rows to readers, and leaves the entries to who follows the log: none are left.
    pub(crate) fn publish(&self, ledger: LedgerId, entries: &mut Vec<Entry>, derived: Derived) {
        let mut metas = self.metas.write().unwrap_or_else(PoisonError::into_inner);
        self.show(metas.entry(ledger).or_default(), ledger, entries, derived);
        drop(metas);
        self.followed.take(ledger, entries, self.now_ms());
        self.tell_who_waits();
    }

    /// Has who waits for what is shown look again.
    fn tell_who_waits(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.shown.notify_all();
    }

    fn show(&self, meta: &mut Meta, ledger: LedgerId, entries: &[Entry], derived: Derived) {
        let Derived { rows, forked, constraints } = derived;
        entries.iter().for_each(|entry| meta.absorb(entry));
        let first = entries.iter().filter(|entry| entry.previous == 0);
        let created: HashSet<_, RandomState> =
            first.map(|entry| (entry.event.collection.as_str(), entry.event.key.as_str())).collect();
        meta.forked.extend(forked);
        let mut dirty = self.published.dirty.write().unwrap_or_else(PoisonError::into_inner);
        let mut clean = self.published.clean();
        clean.generation += 1;
        let mut policies = self.policies.write().unwrap_or_else(PoisonError::into_inner);
        constraints.apply(self.indexes.write().unwrap_or_else(PoisonError::into_inner).entry(ledger).or_default());
        for (key, row) in rows {
            if row.conflicts.is_empty() {
                meta.disputed.remove(&key);
            } else {
                meta.disputed.insert(key.clone());
            }
            if key.0 == COLLECTIONS {
                let policy = CollectionPolicy::of(&key.1, Some(&row), &self.resolvers);
                policies.insert((ledger, key.1.clone()), Arc::new(policy));
            }
            let at = row::key(Kind::Row, ledger, &key.0, &key.1);
            clean.rows.remove(&at);
            let is_new = created.contains(&(key.0.as_str(), key.1.as_str()));
            dirty.rows.insert(at, row, is_new);
        }
    }

    /// Waits until readers are shown everything up to a position, or the ledger is gone, and returns up to which they are.
    pub(crate) fn await_shown(&self, ledger: LedgerId, position: u64, timeout: Duration) -> u64 {
        let shown = || self.meta(ledger, |meta| meta.position);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shown.wait_timeout_while(turn, timeout, |()| {
            shown() < position && self.journal.catalog().iter().any(|entry| entry.id == ledger)
        });
        drop(waited);
        shown()
    }

    /// How many rows are not yet in the row file, but for those that are on their way.
    pub(crate) fn dirty_rows(&self) -> usize {
        self.published.dirty().rows.rows.len()
    }

    /// Takes up what only memory holds, to be saved. Readers go on to find it here.
    pub(crate) fn begin_save(&self, snapshots: Changes) -> Save {
        let metas = self.metas.read().unwrap_or_else(PoisonError::into_inner).clone();
        // What a save left that came to no end is saved by this one.
        let mut dirty = self.published.dirty.write().unwrap_or_else(PoisonError::into_inner);
        let Pinned { rows, new } = std::mem::take(&mut dirty.rows);
        let mut saving = Pinned::clone(&dirty.saving);
        saving.rows.extend(rows);
        saving.new.extend(new);
        dirty.saving = Arc::new(saving);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answered = BTreeMap::clone(&requests.saving);
        answered.append(&mut requests.answered);
        requests.saving = Arc::new(answered);
        Save { rows: dirty.saving.clone(), requests: requests.saving.clone(), metas, snapshots }
    }

    /// Writes what was taken up into the row file, and lets go of it.
    pub(crate) fn save(&self, save: Save) -> Result<()> {
        let Save { rows, requests, metas, snapshots } = save;
        match self.write_saved(&rows, &requests, metas, snapshots) {
            Ok(weights) => self.let_go(&rows, &weights),
            Err(fault) => {
                self.keep(&rows, &requests);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Returns about how many bytes of memory each row takes.
    fn write_saved(
        &self,
        rows: &Pinned,
        requests: &BTreeMap<Vec<u8>, Answered>,
        metas: BTreeMap<LedgerId, Meta>,
        mut changes: Changes,
    ) -> Result<Vec<usize>> {
        let mut weights = Vec::with_capacity(rows.rows.len());
        for (key, row) in &rows.rows {
            let bytes = row.encode()?;
            weights.push(weight(&bytes));
            changes.push((key.clone(), Some(bytes)));
        }
        // In the order of the index.
        changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let answered = requests.iter().map(|(key, request)| (key.clone(), bincode_options().serialize(request).ok()));
        changes.extend(answered);
        for (ledger, meta) in metas {
            let mut whole = meta.clone();
            whole.sums.add_up();
            changes.push((row::key(Kind::Meta, ledger, "", ""), bincode_options().serialize(&whole).ok()));
            self.take_up_sums(ledger, &meta, &whole);
        }
        self.rows.write(changes, MARK)?;
        Ok(weights)
    }

    fn take_up_sums(&self, ledger: LedgerId, before: &Meta, after: &Meta) {
        if let Some(meta) = self.metas.write().unwrap_or_else(PoisonError::into_inner).get_mut(&ledger) {
            meta.sums.take_up(&before.sums, &after.sums);
        }
    }

    /// Lets go of the rows that are in the row file now, but remembers them as others that were read there. Who read
    /// there before that does not remember what it found.
    fn let_go(&self, rows: &Arc<Pinned>, weights: &[usize]) {
        let mut saved = rows.rows.iter().zip(weights);
        loop {
            let dirty = self.published.dirty();
            let mut clean = self.published.clean();
            clean.generation += 1;
            let mut more = false;
            for ((key, row), weight) in saved.by_ref().take(LET_GO_AT_ONCE) {
                more = true;
                if dirty.rows.rows.contains_key(key) {
                    clean.rows.remove(key);
                } else {
                    clean.rows.insert(key.clone(), row.clone(), *weight);
                }
            }
            clean.rows.trim();
            if !more {
                break;
            }
        }
        self.published.dirty.write().unwrap_or_else(PoisonError::into_inner).saving = Arc::default();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).saving = Arc::default();
    }

    /// Goes on to hold what could not be saved.
    fn keep(&self, rows: &Pinned, requests: &BTreeMap<Vec<u8>, Answered>) {
        let mut dirty = self.published.dirty.write().unwrap_or_else(PoisonError::into_inner);
        for (key, row) in &rows.rows {
            dirty.rows.rows.entry(key.clone()).or_insert_with(|| row.clone());
        }
        dirty.rows.new.extend(rows.new.iter().cloned());
        dirty.saving = Arc::default();
        let mut held = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, request) in requests {
            held.answered.entry(key.clone()).or_insert_with(|| request.clone());
        }
        held.saving = Arc::default();
    }

    /// The records that have rows.
    pub(crate) fn record_keys(&self, ledger: LedgerId) -> Result<Vec<RecordKey>> {
        let prefix = row::ledger_prefix(Kind::Row, ledger);
        let dirty = self.published.dirty();
        let mut keys: Vec<Vec<u8>> = dirty.keys(&prefix, &prefix, usize::MAX).cloned().collect();
        keys.extend(self.rows.keys(&prefix, None, usize::MAX)?);
        keys.sort_unstable();
        keys.dedup();
        Ok(keys.iter().filter_map(|key| row::split(key)).map(|(_, record)| record).collect())
    }

    /// The counts of a ledger, all events added up.
    pub(crate) fn meta_added_up(&self, ledger: LedgerId) -> Meta {
        let before = self.meta(ledger, Clone::clone);
        let mut after = before.clone();
        after.sums.add_up();
        self.take_up_sums(ledger, &before, &after);
        after
    }

    /// Removes the sealed files of ledgers that are no more: a crash came between.
    pub(crate) fn remove_orphans(&self) -> Result<()> {
        let known = self.journal.ledgers();
        let orphans = self.archives.sealed_ledgers().into_iter().filter(|ledger| !known.contains(ledger));
        orphans.into_iter().try_for_each(|ledger| self.archives.unseal_before(ledger, u64::MAX))
    }

    /// Removes rows that another version of this program derived.
    pub(crate) fn check_mark(&self) -> Result<()> {
        match self.rows.mark() {
            Some(mark) if mark != MARK => Ok(self.rows.clear()?),
            _ => Ok(()),
        }
    }

    /// Takes up a ledger's counts from the row file. Where they are damaged there are none: all is derived again.
    pub(crate) fn load_meta(&self, ledger: LedgerId) {
        let stored = self.rows.get(&row::key(Kind::Meta, ledger, "", ""));
        let told = |fault: &RowsError| warn!(%fault, "the counts of a ledger are damaged: it is derived again");
        let stored = stored.inspect_err(told).ok().flatten();
        let meta: Option<Meta> = stored.and_then(|bytes| bincode_options().deserialize(&bytes).ok());
        self.metas.write().unwrap_or_else(PoisonError::into_inner).insert(ledger, meta.unwrap_or_default());
    }

    /// Whether anything derived of a ledger is stored.
    pub(crate) fn has_rows(&self, ledger: LedgerId) -> Result<bool> {
        for kind in Kind::ALL {
            if !self.rows.keys(&row::ledger_prefix(kind, ledger), None, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes everything derived of a ledger.
    pub(crate) fn forget_rows(&self, ledger: LedgerId) -> Result<()> {
        self.forget(ledger);
        if self.journal.catalog().iter().all(|entry| entry.id == ledger) {
            return Ok(self.rows.clear()?);
        }
        // The counts go first: without them whoever takes the ledger up removes the rest.
        let others = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Meta);
        for kind in [Kind::Meta].into_iter().chain(others) {
            let prefix = row::ledger_prefix(kind, ledger);
            loop {
                let keys = self.rows.keys(&prefix, None, 4_096)?;
                if keys.is_empty() {
                    break;
                }
                self.rows.write(keys.into_iter().map(|key| (key, None)).collect(), MARK)?;
            }
        }
        Ok(())
    }

    /// The writers whose requests a ledger answers, its present one first.
    pub(crate) fn own_writers(&self, ledger: LedgerId) -> Vec<WriterId> {
        let found = self.journal.catalog().into_iter().find(|entry| entry.id == ledger);
        found.map(|entry| super::store::own_writers(&entry)).unwrap_or_default()
    }

    /// Remembers the requests that entries of this installation answer.
    pub(crate) fn remember_requests(&self, ledger: LedgerId, entries: &[Entry], own: &[WriterId]) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter().filter(|entry| own.contains(&entry.event.writer)) {
            let Some(idempotency) = &entry.event.idempotency else { continue };
            let at = row::key(Kind::Request, ledger, &entry.event.source, &idempotency.key);
            // A part of its events may be in the row file already.
            let stored = |at: &[u8]| self.stored_request(at).ok().flatten();
            let Requests { answered, saving } = &mut *requests;
            let before = || saving.get(&at).cloned().or_else(|| stored(&at));
            let request = answered
                .entry(at.clone())
                .or_insert_with(|| before().unwrap_or((idempotency.request_hash, Vec::new())));
            if request.0 == idempotency.request_hash && !request.1.contains(&entry.position) {
                request.1.push(entry.position);
            }
        }
    }

    fn stored_request(&self, at: &[u8]) -> Result<Option<Answered>> {
        Ok(self.rows.get(at)?.and_then(|bytes| bincode_options().deserialize(&bytes).ok()))
    }

    /// The hash of the request of this name, and the positions of its events.
    pub(crate) fn request(&self, ledger: LedgerId, source: &str, name: &str) -> Result<Option<Answered>> {
        let at = row::key(Kind::Request, ledger, source, name);
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = requests.answered.get(&at).or_else(|| requests.saving.get(&at)) {
            return Ok(Some(request.clone()));
        }
        drop(requests);
        self.stored_request(&at)
    }

    /// Notes how many events of a ledger wait, and what the writer holds of it.
    pub(crate) fn gauge(&self, ledger: LedgerId, waiting: u64, cached: (u64, u64)) {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).insert(ledger, (waiting, cached));
    }

    /// What deriving and reading have cost.
    pub(crate) fn work(&self) -> Work {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what deriving and reading have cost.
    pub(crate) fn count(&self, add: impl FnOnce(&mut Work)) {
        add(&mut self.work.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The time by which events of a ledger are stamped, in milliseconds since 1970: that of this machine, unless it is known to be
    /// wrong.
    pub(crate) fn stamp_ms(&self, ledger: LedgerId) -> i64 {
        (self.world.now)().saturating_add(self.clock_offset_ms(ledger))
    }

    /// By how much the clock of this machine is wrong for the stamps of a ledger.
    pub(crate) fn clock_offset_ms(&self, ledger: LedgerId) -> i64 {
        self.offsets.read().unwrap_or_else(PoisonError::into_inner).get(&ledger).copied().unwrap_or(0)
    }

    /// Says by how much the clock of this machine is wrong for the stamps of a ledger.
    pub(crate) fn set_clock_offset_ms(&self, ledger: LedgerId, offset_ms: i64) {
        self.offsets.write().unwrap_or_else(PoisonError::into_inner).insert(ledger, offset_ms);
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from((self.world.now)()).unwrap_or(0)
    }

    /// Forgets everything derived that memory holds of a ledger. Nothing is being saved meanwhile.
    pub(crate) fn forget(&self, ledger: LedgerId) {
        self.followed.forget(ledger);
        self.metas.write().unwrap_or_else(PoisonError::into_inner).remove(&ledger);
        self.policies.write().unwrap_or_else(PoisonError::into_inner).retain(|(id, _), _| *id != ledger);
        self.indexes.write().unwrap_or_else(PoisonError::into_inner).remove(&ledger);
        let is_of = |key: &Vec<u8>| key.get(1..17) == Some(&ledger.0[..]);
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).answered.retain(|key, _| !is_of(key));
        let mut dirty = self.published.dirty.write().unwrap_or_else(PoisonError::into_inner);
        dirty.rows.rows.retain(|key, _| !is_of(key));
        dirty.rows.new.retain(|key| !is_of(key));
        drop(dirty);
        let mut clean = self.published.clean();
        clean.generation += 1;
        clean.rows.clear();
        drop(clean);
        self.tell_who_waits();
    }

    /// The JSON of a large value.
    pub(crate) fn read_blob(&self, blob: &BlobRef) -> Result<serde_json::Value> {
        let content = self.dry_blobs.get(blob.hash).or_else(|_| self.blobs.get(blob.hash))?;
        let text = |content: Vec<u8>| String::from_utf8(content).unwrap_or_default();
        Ok(match blob.form {
            BlobForm::Text => text(content).into(),
            BlobForm::Bytes => serde_json::json!({ "$bytes": hex(&content) }),
            BlobForm::Json => serde_json::from_slice(&content).unwrap_or_default(),
        })
    }
}

impl Published {
    fn dirty(&self) -> RwLockReadGuard<'_, Dirty> {
        self.dirty.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn clean(&self) -> MutexGuard<'_, Clean> {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Shared {
    /// Forgets the rows that are remembered from the row file.
    pub(crate) fn forget_clean(&self) {
        let mut clean = self.published.clean();
        clean.generation += 1;
        clean.rows.clear();
    }

    pub(crate) fn clean_generation(&self) -> u64 {
        self.published.clean().generation
    }
}
