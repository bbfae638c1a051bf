//! Rows in a directory: an append-only file of values in compressed blocks, and an index log of where they lie.
//!
//! ```text
//! values-0000000000000001    "SLRW"  version u8  generation u64, then blocks: see `block`
//! index                      names the generation; see `log`
//! ```
//! Order of a write: values, fsync, commit in the index log, fsync. Both are written in slices with an fsync each, since
//! one of much would hold up the journal's. Compaction writes a new generation of values, fsyncs it, replaces the index
//! by one that names it, and only then removes the old generation: whichever of these steps is the last before a power
//! cut, the index names values that are there. Blocks that no index names are dead bytes.
//!
//! Invariant: the index in memory is what the index on the disk says as of its last commit.

mod block;
mod entry;
mod index;
mod log;
mod packed;
mod recent;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use self::block::{Block, BlockWriter};
use self::entry::{Entry, Slot};
use self::index::Index;
use self::log::{Commit, Found};
use self::recent::Recent;
use super::{Changes, Row, Rows, RowsError, check_sizes};
use crate::disk::{self, Appender, DiskError};

const MAGIC: &[u8; 4] = b"SLRW";
const VERSION: u8 = 2;
const HEAD_BYTES: u64 = 4 + 1 + 8;
/// A file below this is not worth the compaction.
const COMPACT_ABOVE_BYTES: u64 = 1 << 20;
/// How many bytes of decoded blocks are remembered for readers.
const RECENT_BYTES: usize = 1 << 20;
/// As much for a compaction: one block of each of the writes since the last one.
const COMPACT_RECENT_BYTES: usize = 8 << 20;
/// After how many rows a compaction lists them.
const LIST_AT_ONCE: usize = 4_096;

/// The engine in a directory. Held by one handle at a time, under the lock of the store it belongs to.
pub struct FileRows {
    dir: PathBuf,
    view: RwLock<View>,
    writer: Mutex<Writer>,
}

/// What readers need.
struct View {
    generation: u64,
    path: PathBuf,
    values: Arc<File>,
    index: Index,
    mark: Option<Vec<u8>>,
    recent: Mutex<Recent>,
}

/// What only the one who writes touches.
struct Writer {
    generation: u64,
    values_end: u64,
    log_end: u64,
    log_file: File,
    /// A write failed: what the files end with is unknown.
    stopped: bool,
}

/// Whether so little of a file is live that it is worth writing that anew.
fn is_mostly_dead(end: u64, live: u64) -> bool {
    end > COMPACT_ABOVE_BYTES && live < end / 2
}

impl FileRows {
    /// Opens the rows in `dir`, makes them where there are none, and starts empty where they cannot be read.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, RowsError> {
        let dir = dir.into();
        disk::create_dir(&dir)?;
        disk::remove_unfinished(&dir)?;
        let (view, writer) = match open_found(&dir)? {
            Some(opened) => opened,
            None => start_empty(&dir)?,
        };
        remove_others(&dir, writer.generation)?;
        Ok(Self { dir, view: RwLock::new(view), writer: Mutex::new(writer) })
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs what writes; after a failure nothing is written any more.
    fn writing<T>(
        &self,
        writer: &mut Writer,
        write: impl FnOnce(&mut Writer) -> Result<T, RowsError>,
    ) -> Result<T, RowsError> {
        if writer.stopped {
            return Err(RowsError::Stopped { path: self.dir.clone() });
        }
        write(writer).inspect_err(|_| writer.stopped = true)
    }

    /// Appends the blocks and then the commit that names them, and returns the entries.
    fn append(&self, writer: &mut Writer, changes: Changes, mark: &[u8]) -> Result<Vec<Entry>, RowsError> {
        let values = self.view().values.clone();
        let (entries, values_end) = write_blocks(&self.dir, &values, writer, changes)?;
        let path = index_path(&self.dir);
        let mut commit = new_commit(&path, writer.generation, writer.log_end)?;
        commit.add(&entries);
        let mut log = Appender::new(&writer.log_file, &path, writer.log_end);
        log.push(&commit.finish(Some(mark)))?;
        writer.log_end = log.finish()?;
        writer.values_end = values_end;
        Ok(entries)
    }

    /// Brings the index in memory to the commit just written. Readers wait only for the exchange of the pages.
    fn show(&self, entries: &[Entry], mark: &[u8]) {
        let patch = self.view().index.plan(entries);
        let replaced = self.with_view(|view| {
            view.mark = Some(mark.to_vec());
            view.index.install(patch)
        });
        drop(replaced);
    }

    fn is_mostly_dead(&self, writer: &Writer) -> bool {
        let view = self.view();
        is_mostly_dead(writer.values_end, view.index.live_bytes())
            || is_mostly_dead(writer.log_end, view.index.entry_bytes())
    }

    /// Puts the live rows into a new generation. Readers go on with the old one meanwhile.
    fn compact(&self, writer: &mut Writer) -> Result<(), RowsError> {
        let generation = writer.generation + 1;
        let (view, next) = {
            let old = self.view();
            let (values, listing) = copy_live(&self.dir, generation, &old)?;
            commit_generation(&self.dir, generation, values, listing, old.mark.clone())?
        };
        let before = self.with_view(|current| std::mem::replace(current, view));
        drop(before);
        *writer = next;
        Ok(remove_others(&self.dir, generation)?)
    }
}

impl Rows for FileRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let view = self.view();
        view.index.get(key).map(|slot| view.read(key, slot, &view.recent)).transpose()
    }

    fn write(&self, changes: Changes, mark: &[u8]) -> Result<(), RowsError> {
        check_sizes(&changes, mark)?;
        let mut writer = self.writer();
        let entries = self.writing(&mut writer, |writer| self.append(writer, changes, mark))?;
        self.show(&entries, mark);
        if self.is_mostly_dead(&writer) {
            return self.writing(&mut writer, |writer| self.compact(writer));
        }
        Ok(())
    }

    fn mark(&self) -> Option<Vec<u8>> {
        self.view().mark.clone()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, RowsError> {
        let view = self.view();
        let rows = view.index.range(prefix, after).take(limit);
        rows.map(|(key, slot)| view.read(&key, slot, &view.recent).map(|value| (key, value))).collect()
    }

    fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, RowsError> {
        Ok(self.view().index.range(prefix, after).take(limit).map(|(key, _)| key).collect())
    }

    fn clear(&self) -> Result<(), RowsError> {
        let mut writer = self.writer();
        let (view, next) = start_empty(&self.dir).inspect_err(|_| writer.stopped = true)?;
        self.with_view(|current| *current = view);
        *writer = next;
        Ok(remove_others(&self.dir, writer.generation)?)
    }

    fn bytes_on_disk(&self) -> u64 {
        let writer = self.writer();
        writer.values_end + writer.log_end
    }
}

impl View {
    /// The value in this slot, verified.
    fn read(&self, key: &[u8], slot: Slot, recent: &Mutex<Recent>) -> Result<Vec<u8>, RowsError> {
        let block = self.block(slot, recent)?;
        let value =
            block.value(key).ok_or_else(|| self.corrupt("a block does not hold a row that it should hold"))?;
        Ok(value.to_vec())
    }

    /// The block of this slot. One of a single row is not remembered: it may be large, and the row is.
    fn block(&self, slot: Slot, recent: &Mutex<Recent>) -> Result<Arc<Block>, RowsError> {
        let recent = || recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = recent().get(slot.block.offset) {
            return Ok(block);
        }
        let mut stored = vec![0; slot.block.stored as usize];
        disk::read_exact_at(&self.values, &mut stored, slot.block.offset).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt("the file ends before a block that it should hold"),
            _ => DiskError { action: "read rows in", path: self.path.clone(), source }.into(),
        })?;
        let block = Block::decode(&stored, self.generation, slot.block).map_err(|what| self.corrupt(what))?;
        let block = Arc::new(block);
        if !slot.is_alone() {
            recent().insert(slot.block.offset, block.clone());
        }
        Ok(block)
    }

    fn corrupt(&self, what: &str) -> RowsError {
        RowsError::Corrupt { path: self.path.clone(), what: what.into() }
    }
}

/// Writes changes in the order of their keys; returns their entries, and where the file of values then ends.
fn write_blocks(
    dir: &Path,
    values: &File,
    writer: &Writer,
    changes: Changes,
) -> Result<(Vec<Entry>, u64), RowsError> {
    let path = values_path(dir, writer.generation);
    let mut blocks = BlockWriter::new(values, &path, writer.generation, writer.values_end)?;
    // What was written is let go of one by one.
    for (key, value) in in_order(changes) {
        blocks.put(key, value.as_deref())?;
    }
    blocks.finish()
}

/// Changes by key, of equal keys the last.
fn in_order(mut changes: Changes) -> Changes {
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            earlier.1 = later.1.take();
        }
        is_same
    });
    changes
}

fn new_commit(path: &Path, generation: u64, offset: u64) -> Result<Commit, RowsError> {
    Ok(Commit::new(generation, offset).map_err(DiskError::of("compress the index for", path))?)
}

/// Opens what the index names; `None`, with a warning, for what cannot be used.
fn open_found(dir: &Path) -> Result<Option<(View, Writer)>, RowsError> {
    let Some(bytes) = disk::read(&index_path(dir))? else { return Ok(None) };
    let Some(found) = log::read(&bytes) else {
        tracing::warn!(dir = %dir.display(), "the index of the derived rows cannot be read: starting empty");
        return Ok(None);
    };
    drop(bytes);
    let path = values_path(dir, found.generation);
    let values = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(values) => values,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(lost(&path)),
        Err(source) => return Err(DiskError { action: "open", path, source }.into()),
    };
    let length = values.metadata().map_err(DiskError::of("look at", &path))?.len();
    if !is_usable(&values, length, &found) {
        return Ok(lost(&path));
    }
    resume(dir, found, values, length).map(Some)
}

fn lost<T>(path: &Path) -> Option<T> {
    tracing::warn!(path = %path.display(), "the derived rows are missing or cut off: starting empty");
    None
}

/// Whether the file of values has the right head and holds every block that the index names.
fn is_usable(values: &File, length: u64, found: &Found) -> bool {
    let mut head = [0; HEAD_BYTES as usize];
    let fits = |(_, slot): (_, Slot)| {
        let Slot { block, bytes } = slot;
        let is_bounded = block.raw as usize <= block::MAX_RAW_BYTES && bytes <= block.raw;
        is_bounded && block.end().is_some_and(|end| end <= length)
    };
    disk::read_exact_at(values, &mut head, 0).is_ok()
        && head == *values_head(found.generation)
        && found.index.range(&[], None).all(fits)
}

/// Continues after the last whole commit; a torn one is cut off, so that nothing follows what is written there.
fn resume(dir: &Path, found: Found, values: File, values_end: u64) -> Result<(View, Writer), RowsError> {
    let Found { generation, index, mark, end: log_end } = found;
    let path = index_path(dir);
    let log_file = OpenOptions::new().read(true).write(true).open(&path).map_err(DiskError::of("open", &path))?;
    log_file.set_len(log_end).map_err(DiskError::of("cut", &path))?;
    let (values, recent) = (Arc::new(values), Mutex::new(Recent::new(RECENT_BYTES)));
    let view = View { generation, path: values_path(dir, generation), values, index, mark, recent };
    Ok((view, Writer { generation, values_end, log_end, log_file, stopped: false }))
}

/// Begins a generation without rows, after all that there are.
fn start_empty(dir: &Path) -> Result<(View, Writer), RowsError> {
    let generations = disk::names(dir)?;
    let last = generations.iter().filter_map(|name| generation_of(name)).max().unwrap_or(0);
    let generation = last.saturating_add(1);
    let values = create_values(dir, generation)?;
    commit_generation(dir, generation, values, Listing::new(dir, generation)?, None)
}

fn create_values(dir: &Path, generation: u64) -> Result<File, RowsError> {
    let path = values_path(dir, generation);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(true).open(&path);
    let mut values = opened.map_err(DiskError::of("create", &path))?;
    values.write_all(&values_head(generation)).map_err(DiskError::of("write", &path))?;
    Ok(values)
}

/// The rows of a new generation, as they are listed on the disk and in memory.
struct Listing {
    index: Index,
    commit: Commit,
}

impl Listing {
    fn new(dir: &Path, generation: u64) -> Result<Self, RowsError> {
        let commit = new_commit(&index_path(dir), generation, log::HEAD_BYTES as u64)?;
        Ok(Self { index: Index::default(), commit })
    }

    fn add(&mut self, entries: &[Entry]) {
        self.index.take_in(entries);
        self.commit.add(entries);
    }
}

/// Copies the live rows, each verified, to a new file of values.
fn copy_live(dir: &Path, generation: u64, old: &View) -> Result<(File, Listing), RowsError> {
    let (path, values) = (values_path(dir, generation), create_values(dir, generation)?);
    let mut blocks = BlockWriter::new(&values, &path, generation, HEAD_BYTES)?;
    let mut listing = Listing::new(dir, generation)?;
    let recent = Mutex::new(Recent::new(COMPACT_RECENT_BYTES));
    for (key, slot) in old.index.range(&[], None) {
        let block = old.block(slot, &recent)?;
        let value =
            block.value(&key).ok_or_else(|| old.corrupt("a block does not hold a row that it should hold"))?;
        blocks.put(key, Some(value))?;
        if blocks.closed() >= LIST_AT_ONCE {
            listing.add(&blocks.take_closed());
        }
    }
    let (entries, _) = blocks.finish()?;
    listing.add(&entries);
    Ok((values, listing))
}

/// Makes a new generation durable: its values first, then the index that names them.
fn commit_generation(
    dir: &Path,
    generation: u64,
    values: File,
    Listing { index, commit }: Listing,
    mark: Option<Vec<u8>>,
) -> Result<(View, Writer), RowsError> {
    let path = values_path(dir, generation);
    values.sync_all().map_err(DiskError::of("fsync", &path))?;
    disk::sync_dir(dir)?;
    let length = values.metadata().map_err(DiskError::of("look at", &path))?.len();
    let mut log = log::head(generation);
    log.extend(commit.finish(mark.as_deref()));
    disk::replace(&index_path(dir), &log)?;
    resume(dir, Found { generation, index, mark, end: log.len() as u64 }, values, length)
}

/// Removes every generation of values but this one.
fn remove_others(dir: &Path, generation: u64) -> Result<(), DiskError> {
    for name in disk::names(dir)? {
        if generation_of(&name).is_some_and(|found| found != generation) {
            disk::remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn index_path(dir: &Path) -> PathBuf {
    dir.join("index")
}

fn values_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("values-{generation:016x}"))
}

fn generation_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("values-")?, 16).ok()
}

fn values_head(generation: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.push(VERSION);
    head.extend_from_slice(&generation.to_le_bytes());
    head
}

#[cfg(test)]
mod tests;
