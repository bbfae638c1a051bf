//! Rows in a directory: an append-only file of values, and an index log of where they lie.
//!
//! ```text
//! values-0000000000000001    "SLRW"  version u8  generation u64, then value and checksum [u8; 16] …
//! index                      names the generation; see `index`
//! ```
//! Order of a write: values, fsync, commit in the index log, fsync. Compaction writes a new generation of values,
//! fsyncs it, replaces the index by one that names it, and only then removes the old generation: whichever of these
//! steps is the last before a power cut, the index names values that are there.
//!
//! Invariant: the index in memory is what the index on the disk says as of its last commit.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};

use super::index::{self, Found, Index, Slot};
use super::{Changes, MAX_VALUE_BYTES, Row, Rows, RowsError, check_sizes, start};
use crate::disk::{self, DiskError};

const MAGIC: &[u8; 4] = b"SLRW";
const VERSION: u8 = 1;
static CONTEXT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("syncledger 2026-11 row checksum v1"));
const HEAD_BYTES: u64 = 4 + 1 + 8;
const CHECKSUM_BYTES: u32 = 16;
/// A file below this is not worth the compaction.
const COMPACT_ABOVE_BYTES: u64 = 1 << 20;

/// The engine in a directory. Held by one handle at a time, under the lock of the store it belongs to.
pub struct FileRows {
    dir: PathBuf,
    view: RwLock<View>,
    writer: Mutex<Writer>,
}

/// What readers need.
struct View {
    values: Arc<File>,
    index: Index,
}

/// What only the one who writes touches.
struct Writer {
    generation: u64,
    values: Extent,
    log: Extent,
    log_file: File,
    /// A write failed: what the files end with is unknown.
    stopped: bool,
}

/// Where the rows of a write lie; `None` for those it removes.
type Entries = Vec<(Vec<u8>, Option<Slot>)>;

/// How much of a file is used, and how much of that is live.
#[derive(Clone, Copy)]
struct Extent {
    end: u64,
    live: u64,
}

impl Extent {
    fn is_mostly_dead(self) -> bool {
        self.end > COMPACT_ABOVE_BYTES && self.live < self.end / 2
    }
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

    /// Appends the values and then the commit that names them, and returns the entries.
    fn append(&self, writer: &mut Writer, changes: Changes, mark: &[u8]) -> Result<Entries, RowsError> {
        let (bytes, entries) = lay_out(changes, writer.values.end);
        if !bytes.is_empty() {
            let values = self.view().values.clone();
            write_at(&values, &values_path(&self.dir, writer.generation), writer.values.end, &bytes)?;
        }
        let listed = entries.iter().map(|(key, slot)| (key.as_slice(), *slot));
        let commit = index::commit(writer.generation, writer.log.end, Some(mark), listed);
        write_at(&writer.log_file, &index_path(&self.dir), writer.log.end, &commit)?;
        writer.values.end += bytes.len() as u64;
        writer.log.end += commit.len() as u64;
        Ok(entries)
    }

    /// Puts the live rows into a new generation.
    fn compact(&self, writer: &mut Writer) -> Result<(), RowsError> {
        let generation = writer.generation + 1;
        let (view, next) = {
            let old = self.view();
            let old_path = values_path(&self.dir, writer.generation);
            let (values, index) = copy_live(&self.dir, generation, &old, &old_path)?;
            commit_generation(&self.dir, generation, values, index)?
        };
        self.with_view(|current| *current = view);
        *writer = next;
        Ok(remove_others(&self.dir, generation)?)
    }
}

impl Rows for FileRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let view = self.view();
        view.index.slots.get(key).map(|slot| view.read(&self.dir, key, *slot)).transpose()
    }

    fn write(&self, changes: Changes, mark: &[u8]) -> Result<(), RowsError> {
        check_sizes(&changes, mark)?;
        let mut writer = self.writer();
        let entries = self.writing(&mut writer, |writer| self.append(writer, changes, mark))?;
        self.with_view(|view| apply(view, &mut writer, entries, mark));
        if writer.values.is_mostly_dead() || writer.log.is_mostly_dead() {
            return self.writing(&mut writer, |writer| self.compact(writer));
        }
        Ok(())
    }

    fn mark(&self) -> Option<Vec<u8>> {
        self.view().index.mark.clone()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, RowsError> {
        let view = self.view();
        let rows = view.range(prefix, after).take(limit);
        rows.map(|(key, slot)| Ok((key.to_vec(), view.read(&self.dir, key, slot)?))).collect()
    }

    fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, RowsError> {
        Ok(self.view().range(prefix, after).take(limit).map(|(key, _)| key.to_vec()).collect())
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
        writer.values.end + writer.log.end
    }
}

impl View {
    fn range<'a>(&'a self, prefix: &'a [u8], after: Option<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], Slot)> {
        let range = self.index.slots.range::<[u8], _>((start(prefix, after), Bound::Unbounded));
        range.map(|(key, slot)| (&**key, *slot)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The value in this slot, verified.
    fn read(&self, path: &Path, key: &[u8], slot: Slot) -> Result<Vec<u8>, RowsError> {
        let corrupt = |what: &str| RowsError::Corrupt { path: path.to_owned(), what: what.into() };
        let mut bytes = vec![0; (slot.length + CHECKSUM_BYTES) as usize];
        disk::read_exact_at(&self.values, &mut bytes, slot.offset).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt("the file of values ends before a row that it should hold"),
            _ => DiskError { action: "read rows in", path: path.to_owned(), source }.into(),
        })?;
        let (value, found) = bytes.split_at(slot.length as usize);
        if found != checksum(key, value) {
            return Err(corrupt("a row's checksum does not fit its bytes"));
        }
        bytes.truncate(slot.length as usize);
        Ok(bytes)
    }
}

/// Lays values and checksums out from `offset` on.
fn lay_out(changes: Changes, offset: u64) -> (Vec<u8>, Entries) {
    let mut bytes = Vec::new();
    let mut entries = Vec::with_capacity(changes.len());
    for (key, value) in changes {
        let slot = value.map(|value| {
            let slot = Slot { offset: offset + bytes.len() as u64, length: value.len() as u32 };
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(&checksum(&key, &value));
            slot
        });
        entries.push((key, slot));
    }
    (bytes, entries)
}

/// Brings the index in memory, and the account of what is live, to the commit just written.
fn apply(view: &mut View, writer: &mut Writer, entries: Entries, mark: &[u8]) {
    for (key, slot) in entries {
        let entry_bytes = index::entry_bytes(&key);
        let before = match slot {
            Some(slot) => {
                writer.values.live += stored_bytes(slot);
                writer.log.live += entry_bytes;
                view.index.slots.insert(key.into(), slot)
            }
            None => view.index.slots.remove(key.as_slice()),
        };
        if let Some(before) = before {
            writer.values.live -= stored_bytes(before);
            writer.log.live -= entry_bytes;
        }
    }
    view.index.mark = Some(mark.to_vec());
}

fn stored_bytes(slot: Slot) -> u64 {
    u64::from(slot.length) + u64::from(CHECKSUM_BYTES)
}

/// Opens what the index names; `None`, with a warning, for what cannot be used.
fn open_found(dir: &Path) -> Result<Option<(View, Writer)>, RowsError> {
    let Some(bytes) = disk::read(&index_path(dir))? else { return Ok(None) };
    let Some(found) = index::read(&bytes) else {
        tracing::warn!(dir = %dir.display(), "the index of the derived rows cannot be read: starting empty");
        return Ok(None);
    };
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

/// Whether the file of values has the right head and holds every row that the index names.
fn is_usable(values: &File, length: u64, found: &Found) -> bool {
    let mut head = [0; HEAD_BYTES as usize];
    let fits = |slot: &Slot| {
        let end = slot.offset.checked_add(stored_bytes(*slot));
        slot.length as usize <= MAX_VALUE_BYTES && end.is_some_and(|end| end <= length)
    };
    disk::read_exact_at(values, &mut head, 0).is_ok()
        && head == *values_head(found.generation)
        && found.index.slots.values().all(fits)
}

/// Continues after the last whole commit; a torn one is cut off, so that nothing follows what is written there.
fn resume(dir: &Path, found: Found, values: File, length: u64) -> Result<(View, Writer), RowsError> {
    let path = index_path(dir);
    let log_file = OpenOptions::new().read(true).write(true).open(&path).map_err(DiskError::of("open", &path))?;
    log_file.set_len(found.end).map_err(DiskError::of("cut", &path))?;
    Ok(assemble(found, Arc::new(values), length, log_file))
}

fn assemble(found: Found, values: Arc<File>, length: u64, log_file: File) -> (View, Writer) {
    let live = found.index.slots.values().map(|slot| stored_bytes(*slot)).sum();
    let log_live = found.index.slots.keys().map(|key| index::entry_bytes(key)).sum();
    let writer = Writer {
        generation: found.generation,
        values: Extent { end: length, live },
        log: Extent { end: found.end, live: log_live },
        log_file,
        stopped: false,
    };
    (View { values, index: found.index }, writer)
}

/// Begins a generation without rows, after all that there are.
fn start_empty(dir: &Path) -> Result<(View, Writer), RowsError> {
    let generations = disk::names(dir)?;
    let last = generations.iter().filter_map(|name| generation_of(name)).max().unwrap_or(0);
    let generation = last.saturating_add(1);
    let values = create_values(dir, generation)?;
    commit_generation(dir, generation, values, Index::default())
}

fn create_values(dir: &Path, generation: u64) -> Result<File, RowsError> {
    let path = values_path(dir, generation);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(true).open(&path);
    let mut values = opened.map_err(DiskError::of("create", &path))?;
    values.write_all(&values_head(generation)).map_err(DiskError::of("write", &path))?;
    Ok(values)
}

/// Copies the live rows, each verified, to a new file of values.
fn copy_live(dir: &Path, generation: u64, old: &View, old_path: &Path) -> Result<(File, Index), RowsError> {
    let path = values_path(dir, generation);
    let mut values = BufWriter::new(create_values(dir, generation)?);
    let mut index = Index { mark: old.index.mark.clone(), ..Index::default() };
    let mut end = HEAD_BYTES;
    for (key, slot) in &old.index.slots {
        let value = old.read(old_path, key, *slot)?;
        let written = values.write_all(&value).and_then(|()| values.write_all(&checksum(key, &value)));
        written.map_err(DiskError::of("write", &path))?;
        index.slots.insert(key.clone(), Slot { offset: end, length: slot.length });
        end += stored_bytes(*slot);
    }
    let values = values.into_inner().map_err(|fault| DiskError::of("write", &path)(fault.into_error()))?;
    Ok((values, index))
}

/// Makes a new generation durable: its values first, then the index that names them.
fn commit_generation(dir: &Path, generation: u64, values: File, index: Index) -> Result<(View, Writer), RowsError> {
    let path = values_path(dir, generation);
    values.sync_all().map_err(DiskError::of("fsync", &path))?;
    disk::sync_dir(dir)?;
    let length = values.metadata().map_err(DiskError::of("look at", &path))?.len();
    let mut log = index::head(generation);
    let entries = index.slots.iter().map(|(key, slot)| (&**key, Some(*slot)));
    log.extend(index::commit(generation, log.len() as u64, index.mark.as_deref(), entries));
    disk::replace(&index_path(dir), &log)?;
    resume(dir, Found { generation, index, end: log.len() as u64 }, values, length)
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

fn write_at(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), RowsError> {
    // Only the writer uses the file's cursor: readers read at an offset.
    let mut cursor = file;
    let written = cursor.seek(SeekFrom::Start(offset)).and_then(|_| cursor.write_all(bytes));
    written.map_err(DiskError::of("write", path))?;
    Ok(file.sync_data().map_err(DiskError::of("fsync", path))?)
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

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES as usize] {
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
