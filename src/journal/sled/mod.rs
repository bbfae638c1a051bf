//! The default engine: a directory that holds a [sled](https://docs.rs/sled/0.34.7) tree and small files of ours.
//!
//! ```text
//! lock      who holds the store              store     magic, version, random id: written last at creation
//! catalog   ledgers                          head      heads and running hashes at the last checkpoint
//! journal/  the engine's own directory       ballast   to give back when the disk is full
//! front-*   what the engine may lack         floors    where logs begin
//! generation   which directory of the engine is the present one
//! ```
//! Each append is one entry of the front, made durable by one `fdatasync`, and then handed to the engine, which is made
//! durable when a file of the front is full. sled's `flush` does not fsync, it may truncate its log at damage
//! without a word, and it may panic on damaged files: so our own `fdatasync` of its file follows each flush; what it
//! lacks at opening comes from the front, and the head mark tells whether anything is missing; and every call into it
//! turns a panic into an error.
//!
//! Invariant: a head is published only after the `fdatasync` that made it durable, and once the engine has it.
//! Invariant: after a failed write nothing is written again before the store was opened anew.

mod ballast;
mod engine;
mod front;
mod generation;
mod lock;
mod mark;
mod open;
mod parts;
mod preserve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::catalog::Catalog;
use super::error::JournalError;
use super::heads::Heads;
use super::{Append, Ends, Frame, Journal, LedgerEntry, Page, sealed};
use crate::event::LedgerId;
use engine::Engine;
use front::{Cover, Front};
use lock::Lock;
use mark::Tail;

/// The journal in a directory, held by one handle at a time.
pub struct SledJournal {
    dir: PathBuf,
    id: [u8; 16],
    heads: Heads,
    /// The first position that each ledger holds, where that is not 1.
    firsts: RwLock<BTreeMap<LedgerId, u64>>,
    store: RwLock<Option<Store>>,
    /// Taken before the writer, by who writes the small files that tell where logs begin and end.
    marks: Mutex<Marks>,
    writer: Mutex<Writer>,
    /// From how many dropped bytes on a new database is made without them.
    compact_after: u64,
}

/// See [`SledJournal::compacting_after`].
const COMPACT_AFTER: u64 = 1 << 20;
/// How often what came meanwhile is copied before appends have to wait for the rest.
const COPYING_ROUNDS: usize = 6;
/// How many bytes are few enough to be copied while they wait.
const FEW_BYTES: u64 = 32 << 10;

/// The ends of what was dropped.
type Floors = BTreeMap<LedgerId, Tail>;

/// What the small files say that only who holds them writes.
struct Marks {
    floors: Floors,
    /// Which database holds the logs.
    generation: u64,
}

/// What readers need, and what closing gives back.
struct Store {
    engine: Arc<Engine>,
    catalog: Catalog,
    _lock: Lock,
}

/// What only the one who writes touches.
struct Writer {
    front: Front,
    tails: BTreeMap<LedgerId, Tail>,
}

/// An encoded frame.
struct Framed {
    ledger: LedgerId,
    number: u32,
    first: u64,
    encoded: Vec<u8>,
}

/// Encoded frames on their way to the disk, and the tails they lead to.
struct Planned {
    frames: Vec<Framed>,
    tails: BTreeMap<LedgerId, Tail>,
}

impl SledJournal {
    /// Opens the store in `dir`, and with `create` makes one where there is none.
    ///
    /// Everything after the last checkpoint is verified; what lies before it is verified when it is read.
    ///
    /// # Errors
    /// [`JournalError::NoStore`], [`JournalError::Locked`], [`JournalError::UpgradeNeeded`], one of the kind `corrupt`
    /// for a store that lost or changed anything, or what the disk refuses.
    pub fn open(dir: impl AsRef<Path>, create: bool) -> Result<Self, JournalError> {
        open::open(dir.as_ref(), create)
    }

    /// The same journal, which makes a new database without the frames that were dropped once they have so many bytes,
    /// and no fewer than those that are held: 1 MiB unless it is said otherwise.
    #[must_use]
    pub fn compacting_after(mut self, bytes: u64) -> Self {
        self.compact_after = bytes;
        self
    }

    /// The same journal, which makes its engine durable each time so many bytes were appended: 1 MiB, and no more than
    /// that, unless it is said otherwise.
    #[must_use]
    pub fn settling_after(self, bytes: u64) -> Self {
        self.writer().front.turn_after(bytes);
        self
    }

    /// The store's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The random id that the store got at its creation: a copied directory has the same.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        self.id
    }

    /// Reads every frame of every ledger and compares the running hashes: what `doctor` asks for. Appends wait.
    ///
    /// # Errors
    /// One of the kind `corrupt` for the first damage found.
    pub fn verify(&self) -> Result<(), JournalError> {
        let marks = self.marks();
        let writer = self.writer();
        let store = self.store()?;
        let store = opened(&store)?;
        for entry in store.catalog.entries() {
            let floor = marks.floors.get(&entry.id).copied().unwrap_or_default();
            let found = open::walk(&store.engine, entry, open::From::Dropped(floor))?;
            let expected = writer.tails.get(&entry.id).copied().unwrap_or_default();
            if found != expected {
                let what = format!("its frames up to {} are not the ones that were written", expected.head);
                return Err(JournalError::corrupt(entry.id, found.head, what));
            }
        }
        Ok(())
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Result<RwLockReadGuard<'_, Option<Store>>, JournalError> {
        Ok(self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn plan(&self, store: &Store, writer: &Writer, batch: &[Append]) -> Result<Planned, JournalError> {
        let mut ends = Ends::new(|ledger| self.heads.readable(ledger));
        let mut plan = Planned { frames: Vec::new(), tails: BTreeMap::new() };
        for append in batch {
            ends.admit(append)?;
            let number = store.catalog.find(append.ledger)?.number;
            let known = plan.tails.get(&append.ledger).or_else(|| writer.tails.get(&append.ledger));
            let mut tail = known.copied().unwrap_or_default();
            for frame in &append.frames {
                let encoded = frame.encode(append.ledger)?;
                tail = tail.after(frame, &encoded);
                plan.frames.push(Framed { ledger: append.ledger, number, first: frame.first, encoded });
            }
            plan.tails.insert(append.ledger, tail);
        }
        Ok(plan)
    }

    fn read_frames(&self, ledger: LedgerId, position: u64, max_bytes: usize) -> Result<Vec<Frame>, JournalError> {
        let store = self.store()?;
        let head = self.heads.readable(ledger)?;
        let store = opened(&store)?;
        let number = store.catalog.find(ledger)?.number;
        super::check_held(ledger, position, self.first(ledger))?;
        let mut page = Page::new(ledger, position, max_bytes);
        if !page.wants(head) {
            return Ok(page.frames);
        }
        let mut frames = store.engine.frames_from(number, page.next)?;
        while page.wants(head) {
            let encoded = frames.next()?.ok_or_else(|| page.gap())?;
            page.add(&encoded)?;
        }
        Ok(page.frames)
    }

    /// Runs a write; its failure ends all writing.
    fn commit(&self, write: impl FnOnce() -> Result<(), JournalError>) -> Result<(), JournalError> {
        write().map_err(|fault| self.heads.poison(fault))
    }

    /// Records the present ends of all logs, and returns them. Appends go on meanwhile; the marks are only there to show
    /// that nobody else writes them.
    fn write_mark(&self, catalog: &Catalog, _: &Marks) -> Result<BTreeMap<LedgerId, Tail>, JournalError> {
        let tails = self.writer().tails.clone();
        self.commit(|| mark::write(&self.dir, catalog, &tails))?;
        Ok(tails)
    }

    fn write_catalog(&self, catalog: Catalog) -> Result<(), JournalError> {
        self.commit(|| sealed::write(&open::catalog_path(&self.dir), open::CATALOG_MAGIC, &catalog.encode()))?;
        if let Some(store) = self.store.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            store.catalog = catalog;
        }
        Ok(())
    }

    fn current_catalog(&self) -> Result<Catalog, JournalError> {
        opened(&*self.store()?).map(|store| store.catalog.clone())
    }

    /// Makes a new database without what was dropped, once that is worth while. Where this fails before the new one is
    /// the present one, the old one stays that.
    fn compact_when_due(&self, marks: &mut Marks) -> Result<(), JournalError> {
        let (dropped, held) = {
            let store = self.store()?;
            let store = opened(&store)?;
            let around = |entry: &LedgerEntry| store.engine.bytes_around(entry.number, begin(marks, entry));
            let sums = store.catalog.entries().map(around).collect::<Result<Vec<_>, _>>()?;
            sums.into_iter().fold((0, 0), |sum, bytes| (sum.0 + bytes.0, sum.1 + bytes.1))
        };
        if dropped < held.max(self.compact_after) {
            return Ok(());
        }
        let next = marks.generation + 1;
        let made = self.compact(marks, next);
        match made {
            Err(fault) if !self.heads.is_poisoned() => {
                tracing::warn!(%fault, "the journal could not be made smaller");
                if marks.generation != next {
                    // What is left of it goes now, or at the next opening.
                    let _ = generation::remove(&self.dir, next);
                }
                Ok(())
            }
            // Which of the two is the present one is not known until the store is opened again.
            made => made,
        }
    }

    /// Copies what is held into a new database, and makes that the present one. Appends wait only for what came since
    /// the copying began.
    fn compact(&self, marks: &mut Marks, next: u64) -> Result<(), JournalError> {
        let path = generation::path(&self.dir, next);
        generation::remove_others(&self.dir, marks.generation)?;
        let engine = open::open_engine(&path)?;
        let mut copied = BTreeMap::new();
        // What comes while it is copied is less each time: appends wait only for the last round.
        for _ in 0..COPYING_ROUNDS {
            let bytes = self.copy_since(marks, &mut copied, &engine)?;
            engine.make_durable()?;
            if bytes < FEW_BYTES {
                break;
            }
        }
        let mut writer = self.writer();
        self.heads.writable()?;
        self.copy_since(marks, &mut copied, &engine)?;
        engine.make_durable()?;
        self.check_copy(&engine, &writer)?;
        self.commit(|| generation::choose(&self.dir, next))?;
        marks.generation = next;
        // The new one has everything: what became of the old one does not matter.
        let _ = writer.front.covered();
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let old = store.as_mut().map(|store| std::mem::replace(&mut store.engine, Arc::new(engine)));
        drop((store, writer, old));
        // The engine may still write into the old one for a moment after it was let go of: then it goes the next time.
        let _ = generation::remove_others(&self.dir, next);
        Ok(())
    }

    /// Proves that a copy ends where the logs end.
    fn check_copy(&self, copy: &Engine, writer: &Writer) -> Result<(), JournalError> {
        for entry in self.current_catalog()?.entries() {
            let expected = writer.tails.get(&entry.id).filter(|tail| tail.head > 0).map(|tail| tail.first);
            if copy.last_first(entry.number)? != expected {
                let what = "a copy of its frames does not end where they end";
                return Err(JournalError::corrupt(entry.id, expected.unwrap_or(0), what));
            }
        }
        Ok(())
    }

    /// Copies the frames after those that were copied already, and returns how many bytes they had; `copied` tells where
    /// the last of each ledger begins. That one is copied again: it may have been in the middle of being put.
    fn copy_since(
        &self,
        marks: &Marks,
        copied: &mut BTreeMap<LedgerId, u64>,
        to: &Engine,
    ) -> Result<u64, JournalError> {
        let store = self.store()?;
        let store = opened(&store)?;
        let mut bytes = 0;
        for entry in store.catalog.entries() {
            let start = copied.get(&entry.id).copied().unwrap_or_else(|| begin(marks, entry));
            let (last, copied_bytes) = store.engine.copy_from(entry.number, start, to)?;
            bytes += copied_bytes;
            copied.extend(last.map(|last| (entry.id, last)));
        }
        Ok(bytes)
    }
}

/// The first position that a ledger holds.
fn begin(marks: &Marks, entry: &LedgerEntry) -> u64 {
    marks.floors.get(&entry.id).map_or(1, |floor| floor.head + 1)
}

impl Store {
    /// Makes the engine durable as it is now, or as it is by then.
    fn covering(&self) -> Cover {
        let engine = self.engine.clone();
        Box::new(move || engine.make_durable())
    }
}

fn opened(store: &Option<Store>) -> Result<&Store, JournalError> {
    store.as_ref().ok_or(JournalError::Closed)
}

impl Journal for SledJournal {
    fn append(&self, batch: &[Append]) -> Result<(), JournalError> {
        let mut writer = self.writer();
        self.heads.writable()?;
        let store = self.store()?;
        let store = opened(&store)?;
        let plan = self.plan(store, &writer, batch)?;
        if plan.frames.is_empty() {
            // In the front, an entry without frames says something else.
            return Ok(());
        }
        let encoded = plan.frames.iter().map(|frame| (frame.ledger, frame.encoded.as_slice()));
        self.commit(|| {
            writer.front.append(encoded, || store.covering())?;
            let mut frames = plan.frames.iter();
            frames.try_for_each(|frame| store.engine.put(frame.number, frame.first, &frame.encoded))
        })?;
        self.heads.publish(plan.tails.iter().map(|(ledger, tail)| (*ledger, tail.head)));
        writer.tails.extend(plan.tails);
        Ok(())
    }

    fn read_after(&self, ledger: LedgerId, position: u64, max_bytes: usize) -> Result<Vec<Frame>, JournalError> {
        // What is dropped while it is read looks like a gap.
        let found = self.read_frames(ledger, position, max_bytes);
        found.or_else(|fault| super::check_held(ledger, position, self.first(ledger)).and(Err(fault)))
    }

    fn read_at(&self, ledger: LedgerId, position: u64) -> Result<Option<Frame>, JournalError> {
        if position == 0 || position > self.heads.readable(ledger)? {
            return Ok(None);
        }
        Ok(self.read_after(ledger, position - 1, 0)?.into_iter().next())
    }

    fn head(&self, ledger: LedgerId) -> u64 {
        self.heads.head(ledger).unwrap_or(0)
    }

    fn first(&self, ledger: LedgerId) -> u64 {
        let firsts = self.firsts.read().unwrap_or_else(PoisonError::into_inner);
        firsts.get(&ledger).copied().unwrap_or(1)
    }

    fn drop_before(&self, ledger: LedgerId, position: u64) -> Result<u64, JournalError> {
        let mut marks = self.marks();
        self.heads.writable()?;
        let catalog = self.current_catalog()?;
        let entry = catalog.find(ledger)?;
        // The mark names a frame, which stays: opening proves the log from there.
        let tails = self.write_mark(&catalog, &marks)?;
        let last = tails.get(&ledger).map_or(0, |tail| tail.first);
        let before = marks.floors.get(&ledger).copied().unwrap_or_default();
        let floor = {
            let store = self.store()?;
            let start = open::From::Dropped(before);
            open::walk_until(&opened(&store)?.engine, entry, start, position.min(last))?
        };
        if floor == before {
            return Ok(floor.head + 1);
        }
        marks.floors.insert(ledger, floor);
        // From here on nobody reads what lies before it, also after a crash.
        self.commit(|| mark::write_floors(&self.dir, &catalog, &marks.floors))?;
        self.firsts.write().unwrap_or_else(PoisonError::into_inner).insert(ledger, floor.head + 1);
        self.compact_when_due(&mut marks)?;
        Ok(floor.head + 1)
    }

    fn wait(&self, ledger: LedgerId, after: u64, timeout: Duration) -> Result<u64, JournalError> {
        self.heads.wait(ledger, after, timeout)
    }

    fn catalog(&self) -> Vec<LedgerEntry> {
        self.current_catalog().map(|catalog| catalog.entries().cloned().collect()).unwrap_or_default()
    }

    fn put_ledger(&self, entry: LedgerEntry) -> Result<(), JournalError> {
        let mut writer = self.writer();
        self.heads.writable()?;
        let before = self.current_catalog()?;
        let (number, id) = (entry.number, entry.id);
        let next = before.with(entry, |ledger| self.head(ledger))?;
        self.write_catalog(next)?;
        if let Some(other) = before.by_number(number).filter(|other| other.id != id) {
            writer.tails.remove(&other.id);
            self.heads.forget(other.id);
        }
        self.heads.publish([(id, self.head(id))]);
        Ok(())
    }

    fn drop_ledger(&self, ledger: LedgerId) -> Result<(), JournalError> {
        let mut marks = self.marks();
        let mut writer = self.writer();
        self.heads.writable()?;
        let next = self.current_catalog()?.without(ledger)?;
        // First nobody can read it any more, and a crash from here on is finished at the next opening.
        self.heads.forget(ledger);
        writer.tails.remove(&ledger);
        marks.floors.remove(&ledger);
        self.firsts.write().unwrap_or_else(PoisonError::into_inner).remove(&ledger);
        self.write_catalog(next.clone())?;
        {
            let store = self.store()?;
            let store = opened(&store)?;
            self.commit(|| open::finish_drops(&store.engine, &next))?;
            // Its frames must not come back should a ledger get its id.
            self.commit(|| writer.front.clear())?;
        }
        drop(writer);
        self.write_mark(&next, &marks)?;
        // A ledger that gets the number next has its own beginning.
        self.commit(|| mark::write_floors(&self.dir, &next, &marks.floors))?;
        self.write_catalog(next.dropped())
    }

    fn checkpoint(&self) -> Result<(), JournalError> {
        let marks = self.marks();
        self.heads.writable()?;
        self.write_mark(&self.current_catalog()?, &marks).map(drop)
    }

    fn close(&self) -> Result<(), JournalError> {
        let marks = self.marks();
        let mut writer = self.writer();
        if !self.heads.close() {
            return Ok(());
        }
        // Taken out of the lock first: whoever still reads has finished by now, and nobody begins.
        let store = self.store.write().unwrap_or_else(PoisonError::into_inner).take();
        let covered = writer.front.covered();
        let Some(store) = store.filter(|_| !self.heads.is_poisoned()) else { return Ok(()) };
        self.commit(|| covered.and(store.engine.make_durable()).and_then(|()| writer.front.clear()))?;
        drop(writer);
        self.write_mark(&store.catalog, &marks).map(drop)
    }
}

impl Drop for SledJournal {
    fn drop(&mut self) {
        if let Err(fault) = self.close() {
            tracing::error!(%fault, "the last checkpoint of the journal failed");
        }
    }
}

#[cfg(test)]
impl SledJournal {
    /// Makes every later `fdatasync` fail: the null device cannot be synced.
    pub(super) fn break_disk(&self) {
        self.writer().front.break_disk();
    }

    /// Gives the directory back without a checkpoint, as a killed process does.
    pub(super) fn abandon(&self) {
        self.heads.poison(JournalError::Closed);
        self.close().unwrap();
    }
}
