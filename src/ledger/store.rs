//! Stores: directories that hold many ledgers, held by one process at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::Ledger;
use super::archive::Archives;
use super::clock;
use super::flushes::Flushed;
use super::request::{LedgerInfo, Work};
use super::rewrite;
use super::seal::Sealing;
use super::shared::{Shared, World};
use super::writer::{Checkpoints, Due, Queue};
use crate::blob::{BlobStore, Blobs, MemoryBlobs};
use crate::event::{LedgerId, WriterId};
use crate::journal::memory::MemoryJournal;
use crate::journal::rows::{FileRows, MemoryRows, Rows};
use crate::journal::sled::SledJournal;
use crate::journal::{Journal, LedgerEntry};
use crate::projection::Resolvers;
use crate::sync::Mutex;
use crate::sync::thread::JoinHandle;
use crate::{Error, ErrorKind, Result};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to make the store where there is none; otherwise that is `not_found`.
    pub create: bool,
    /// How many bytes of memory the records and rows that are held may take, about: half for each.
    pub cache_bytes: usize,
    /// The custom strategies of this program.
    pub resolvers: Resolvers,
    /// Whether every row that follows from the one before it alone is compared with what the record's document shows: for
    /// tests, as it makes all writing slow. A difference poisons the store.
    pub check_rows: bool,
    /// How many events, about, the journal holds of a ledger before they are sealed: moved into a compressed file. Few make
    /// many small files.
    pub seal_events: u64,
}

impl Default for Options {
    fn default() -> Self {
        let check_rows = cfg!(any(test, feature = "testing"));
        let resolvers = Resolvers::default();
        Self { create: true, cache_bytes: 128 << 20, resolvers, check_rows, seal_events: 32_768 }
    }
}

/// What a store keeps its bytes in.
pub(crate) struct Engines {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) blobs: Arc<dyn BlobStore>,
}

/// The names of the ledgers that are open, and what each is.
type Open = BTreeMap<String, (LedgerId, WriterId)>;

struct Inner {
    dir: Option<PathBuf>,
    shared: Arc<Shared>,
    queue: Queue,
    thread: Mutex<Option<JoinHandle<()>>>,
    open: Mutex<Open>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever wants to know whether closing worked calls `close`.
        let _ = close(&self.queue, &self.thread);
    }
}

fn close(queue: &Queue, thread: &Mutex<Option<JoinHandle<()>>>) -> Result<()> {
    let Some(thread) = thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    let closed = queue.close();
    let ended = thread.join().map_err(|_| super::state::internal("the writer thread panicked"));
    closed.and(ended)
}

/// A store of ledgers. Handles are cheap to clone and may be used from any thread; the store closes with the last.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a directory, and makes it where there is none.
    ///
    /// # Errors
    /// `locked` where another process holds it, `corrupt` where bytes are not what was written, `permission`,
    /// `upgrade_needed`, `storage`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Options::default())
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// As [`Store::open`]; `not_found` where there is none and none is to be made.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        // A few small files are not worth a database of their own, in the default size that is never so.
        let journal = SledJournal::open(&dir, options.create)?;
        let few = options.seal_events.saturating_mul(64);
        let journal = journal.compacting_after(few.min(1 << 20)).settling_after(few);
        let blobs = Blobs::open(dir.join("blobs"))?;
        let rows = FileRows::open(dir.join("rows"))?;
        let engines = Engines { journal: Arc::new(journal), rows: Arc::new(rows), blobs: Arc::new(blobs) };
        Self::start(Some(dir), engines, options, clock::world(), Checkpoints::default())
    }

    /// A store in memory, for tests and for ledgers that live as long as the process.
    ///
    /// # Errors
    /// When the writer thread cannot be started.
    pub fn in_memory(options: Options) -> Result<Self> {
        let (rows, blobs) = (Arc::new(MemoryRows::default()), Arc::new(MemoryBlobs::default()));
        let engines = Engines { journal: Arc::new(MemoryJournal::new()), rows, blobs };
        Self::start(None, engines, options, clock::world(), Checkpoints::default())
    }

    /// A store on these engines.
    pub(crate) fn start(
        dir: Option<PathBuf>,
        Engines { journal, rows, blobs }: Engines,
        options: Options,
        world: World,
        checkpoints: Checkpoints,
    ) -> Result<Self> {
        let half = options.cache_bytes / 2;
        let mut shared = Shared::new(journal, rows, blobs, options.resolvers, world, half);
        shared.archives = Arc::new(Archives::open(dir.as_deref())?);
        shared.dir.clone_from(&dir);
        let shared = Arc::new(shared);
        rewrite::finish_all(&shared)?;
        shared.remove_orphans()?;
        let due = Due { checkpoints, sealing: Sealing::every(options.seal_events.max(1)) };
        let (queue, thread) = Queue::start(shared.clone(), half, options.check_rows, due)?;
        let (thread, open) = (Mutex::new(Some(thread)), Mutex::default());
        Ok(Self(Arc::new(Inner { dir, shared, queue, thread, open })))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// The store's directory; `None` in memory.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.0.dir.as_deref()
    }

    /// The ledgers of the store.
    #[must_use]
    pub fn ledgers(&self) -> Vec<LedgerInfo> {
        self.0.shared.journal.catalog().iter().map(info).collect()
    }

    /// The ledger of a name.
    ///
    /// # Errors
    /// `not_found` where there is none; `corrupt` where its log is damaged.
    pub fn ledger(&self, name: &str) -> Result<Ledger> {
        let known = self.0.shared.journal.catalog().into_iter().find(|entry| entry.name == name);
        let entry = known.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the store has no ledger `{name}`"))
                .with_hint("make it with `syncledger ledger create`")
        })?;
        self.take_up(&info(&entry))
    }

    fn take_up(&self, info: &LedgerInfo) -> Result<Ledger> {
        self.0.queue.open(info.id, info.writer)?;
        self.note(info);
        Ok(Ledger::new(self.clone(), info.name.clone()))
    }

    fn note(&self, info: &LedgerInfo) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(info.name.clone(), (info.id, info.writer));
    }

    /// Makes a ledger, with a random id.
    ///
    /// # Errors
    /// `conflict` where the name is taken, `validation` where it is none.
    pub fn create_ledger(&self, name: &str) -> Result<Ledger> {
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            let message =
                format!("expected a ledger's name of 1 to 255 bytes without control characters, got {name:?}");
            return Err(Error::new(ErrorKind::Validation, message));
        }
        let catalog = self.0.shared.journal.catalog();
        if catalog.iter().any(|entry| entry.name == name) {
            return Err(Error::new(ErrorKind::Conflict, format!("the store has a ledger `{name}` already")));
        }
        let number = self.0.shared.journal.next_number();
        let random = || (self.0.shared.world.random)();
        let entry = LedgerEntry { number, id: LedgerId(random()?), name: name.to_owned(), meta: random()?.to_vec() };
        self.0.shared.journal.put_ledger(entry.clone())?;
        self.take_up(&info(&entry))
    }

    /// The ledger of a name, made where there is none.
    ///
    /// # Errors
    /// As [`Store::ledger`] and [`Store::create_ledger`].
    pub fn ledger_or_create(&self, name: &str) -> Result<Ledger> {
        match self.ledger(name) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => match self.create_ledger(name) {
                // Another thread was faster.
                Err(fault) if fault.kind() == ErrorKind::Conflict => self.ledger(name),
                made => made,
            },
            other => other,
        }
    }

    /// Removes a ledger and all its events, for good.
    ///
    /// # Errors
    /// `not_found` where there is none.
    pub fn drop_ledger(&self, name: &str) -> Result<()> {
        let id = self.ledger(name)?.info().id;
        self.0.queue.drop_ledger(id)?;
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// What is open under a name.
    pub(crate) fn opened(&self, name: &str) -> Option<(LedgerId, WriterId)> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Gives an empty ledger another id.
    pub(crate) fn adopt(&self, name: &str, id: LedgerId) -> Result<()> {
        let catalog = self.0.shared.journal.catalog();
        let Some(entry) = catalog.into_iter().find(|entry| entry.name == name) else { return Ok(()) };
        let (before, entry) = (entry.id, LedgerEntry { id, ..entry });
        self.0.queue.adopt(before, entry.clone())?;
        self.note(&info(&entry));
        Ok(())
    }

    /// The ledger of a name has another writer.
    pub(super) fn stamp_as(&self, name: &str, writer: WriterId) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.entry(name.to_owned()).and_modify(|known| known.1 = writer);
    }

    /// Closes the store: what is queued is finished, derived state written. A second call does nothing.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn close(&self) -> Result<()> {
        close(&self.0.queue, &self.0.thread)
    }

    /// What deriving and reading have cost since the store was opened.
    #[must_use]
    pub fn work(&self) -> Work {
        self.0.shared.work()
    }

    /// How long appends took until they were durable, since the store was opened, and how many changes wait for that.
    #[must_use]
    pub fn flushed(&self) -> Flushed {
        self.0.shared.flushes.so_far()
    }

    /// Writes the derived state that only memory holds, so that opening replays nothing.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn checkpoint(&self) -> Result<()> {
        self.0.queue.checkpoint()
    }
}

fn info(entry: &LedgerEntry) -> LedgerInfo {
    LedgerInfo { name: entry.name.clone(), id: entry.id, writer: writer_of(entry) }
}

/// The writers whose requests a ledger answers: its own, and those that it had before it was restored.
pub(crate) fn own_writers(entry: &LedgerEntry) -> Vec<WriterId> {
    entry.meta.as_chunks::<16>().0.iter().copied().map(WriterId).collect()
}

/// This installation's name in a ledger.
pub(crate) fn writer_of(entry: &LedgerEntry) -> WriterId {
    entry.meta.first_chunk().map_or(WriterId([0; 16]), |bytes| WriterId(*bytes))
}
