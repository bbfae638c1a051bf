//! Opening: lock, read our own files, open the engine with every known repair, then prove that nothing is missing.
//!
//! Invariant: no head is published from what merely stood in the operating system's cache: everything found is made
//! durable first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use super::super::catalog::{Catalog, LedgerEntry};
use super::super::error::JournalError;
use super::super::frame::Frame;
use super::super::heads::Heads;
use super::super::sealed;
use super::ballast::Copying;
use super::engine::{CONF, Engine};
use super::front::Found;
use super::lock::Lock;
use super::mark::{self, Mark, Tail};
use super::preserve::Preserved;
use super::{Floors, Marks, SledJournal, Store, Writer, ballast, generation};
use crate::disk::{self, DiskError};
use crate::error::ErrorKind;
use crate::event::LedgerId;

pub(super) const CATALOG_MAGIC: [u8; 4] = *b"SLCT";
const STORE_MAGIC: [u8; 4] = *b"SLST";
/// Version 2 has the front, which a program for version 1 would not read.
const STORE_VERSION: u8 = 2;

pub(super) fn catalog_path(dir: &Path) -> PathBuf {
    dir.join("catalog")
}

fn store_path(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// What our own small files say.
struct Files {
    /// Of the store.
    version: u8,
    id: [u8; 16],
    catalog: Catalog,
    mark: Mark,
    floors: Mark,
    /// Which database holds the logs.
    generation: u64,
}

/// What opening comes to, with the ends of what was dropped.
type Opened = (Files, Arc<Engine>, Writer, Floors);

pub(super) fn open(dir: &Path, create: bool) -> Result<SledJournal, JournalError> {
    let is_new = !store_path(dir).try_exists().map_err(DiskError::of("look for", &store_path(dir)))?;
    if is_new && !create {
        return Err(JournalError::NoStore { path: dir.to_owned() });
    }
    disk::create_dir(dir)?;
    let lock = Lock::take(dir)?;
    let journal = ballast::with_reserve(dir, |copying| open_locked(dir, copying))?;
    let (files, engine, mut writer, floors) = journal;
    // On a full disk the store can be read.
    let _ = writer.front.reserve(0);
    let heads = Heads::default();
    heads.publish(files.catalog.entries().map(|entry| (entry.id, head(&writer, entry))));
    let store = Store { engine, catalog: files.catalog, _lock: lock };
    let firsts = floors.iter().map(|(ledger, floor)| (*ledger, floor.head + 1)).collect();
    let (store, writer, firsts) = (RwLock::new(Some(store)), Mutex::new(writer), RwLock::new(firsts));
    let marks = Mutex::new(Marks { floors, generation: files.generation });
    let (dir, compact_after) = (dir.to_owned(), super::COMPACT_AFTER);
    Ok(SledJournal { dir, id: files.id, heads, firsts, store, marks, writer, compact_after })
}

fn head(writer: &Writer, entry: &LedgerEntry) -> u64 {
    writer.tails.get(&entry.id).map_or(0, |tail| tail.head)
}

fn open_locked(dir: &Path, copying: Copying) -> Result<Opened, JournalError> {
    disk::remove_unfinished(dir)?;
    // An earlier process may have ended before it did this: what is read below is relied on from here on.
    disk::sync_dir(dir)?;
    if !store_path(dir).exists() {
        create_files(dir)?;
    }
    let files = read_files(dir)?;
    let preserved = Preserved::take(&generation::path(dir, files.generation), copying)?;
    match open_files(dir, files) {
        Ok(opened) => {
            preserved.discard()?;
            generation::remove_others(dir, opened.0.generation)?;
            Ok(opened)
        }
        Err(fault) => {
            if fault.kind() == ErrorKind::Corrupt {
                preserved.restore()?;
            } else {
                preserved.discard()?;
            }
            Err(fault)
        }
    }
}

fn open_files(dir: &Path, mut files: Files) -> Result<Opened, JournalError> {
    let found = Found::read(dir, files.id)?;
    let engine = open_engine(&generation::path(dir, files.generation))?;
    engine.make_durable()?;
    settle_drops(dir, &engine, &mut files)?;
    take_up(&engine, &files, &found)?;
    let tails = verify(dir, &engine, &files)?;
    let known = |((_, ledger), tail): (&(u32, LedgerId), &Tail)| (*ledger, *tail);
    let floors =
        files.floors.iter().filter(|((number, id), _)| is_of(&files.catalog, *number, *id)).map(known).collect();
    if files.version < STORE_VERSION {
        sealed::write_as(&store_path(dir), STORE_MAGIC, STORE_VERSION, &files.id)?;
    }
    let front = found.begin(dir, files.id)?;
    Ok((files, Arc::new(engine), Writer { front, tails }, floors))
}

/// Gives the engine what it lacks of the front, durably.
fn take_up(engine: &Engine, files: &Files, found: &Found) -> Result<(), JournalError> {
    let mut ends = BTreeMap::new();
    for entry in files.catalog.entries() {
        let floor = files.floors.get(&(entry.number, entry.id)).map_or(0, |floor| floor.head);
        ends.insert(entry.id, (entry.number, engine.last_first(entry.number)?.unwrap_or(0).max(floor)));
    }
    for (ledger, encoded) in found.entries.iter().flatten() {
        // Of a ledger that was dropped nothing is wanted.
        let Some((number, end)) = ends.get(ledger) else { continue };
        let first = Frame::decode(*ledger, encoded)?.first;
        // The last frame that the engine has may be there in part.
        if first >= *end {
            engine.put(*number, first, encoded)?;
        }
    }
    if found.entries.is_empty() { Ok(()) } else { engine.make_durable() }
}

/// Whether a ledger has this number: a floor of a ledger that is gone says nothing.
fn is_of(catalog: &Catalog, number: u32, ledger: LedgerId) -> bool {
    catalog.by_number(number).is_some_and(|entry| entry.id == ledger)
}

/// Makes the files of a new store. The `store` file comes last: without it the others are an unfinished creation.
fn create_files(dir: &Path) -> Result<(), JournalError> {
    let begun = read_catalog(dir)?.is_none_or(|catalog| catalog.is_empty());
    if !begun || generation::path(dir, 0).exists() {
        return Err(sealed::corrupt(&store_path(dir), "it is missing, though the store holds ledgers"));
    }
    sealed::write(&catalog_path(dir), CATALOG_MAGIC, &Catalog::default().encode())?;
    mark::write(dir, &Catalog::default(), &BTreeMap::new())?;
    let mut id = [0; 16];
    let no_entropy = |fault: getrandom::Error| DiskError::of("draw an id for", dir)(std::io::Error::other(fault));
    getrandom::fill(&mut id).map_err(no_entropy)?;
    sealed::write_as(&store_path(dir), STORE_MAGIC, STORE_VERSION, &id)
}

fn read_files(dir: &Path) -> Result<Files, JournalError> {
    let missing = |path: PathBuf| move || sealed::corrupt(&path, "it is missing");
    let path = store_path(dir);
    let found = sealed::read_up_to(&path, STORE_MAGIC, STORE_VERSION)?;
    let (version, id) = found.ok_or_else(missing(path.clone()))?;
    let id = id.try_into().map_err(|_| sealed::corrupt(&path, "its id has another length than 16 bytes"))?;
    let catalog = read_catalog(dir)?.ok_or_else(missing(catalog_path(dir)))?;
    let mark = mark::read(dir)?.ok_or_else(missing(mark::path(dir)))?;
    let (floors, generation) = (mark::read_floors(dir)?, generation::current(dir)?);
    Ok(Files { version, id, catalog, mark, floors, generation })
}

fn read_catalog(dir: &Path) -> Result<Option<Catalog>, JournalError> {
    let path = catalog_path(dir);
    let Some(body) = sealed::read(&path, CATALOG_MAGIC)? else { return Ok(None) };
    Catalog::decode(&body).map(Some).ok_or_else(|| sealed::corrupt(&path, "it breaks the rules of a catalogue"))
}

/// Opens sled around its known faults: a snapshot that was being written bricks it, and so may a damaged one, and a file
/// of its settings that it never fsyncs.
pub(super) fn open_engine(dir: &Path) -> Result<Engine, JournalError> {
    disk::create_dir(dir)?;
    for name in snapshots(dir)?.iter().filter(|name| name.ends_with(".generating")) {
        disk::remove(&dir.join(name))?;
    }
    match Engine::open(dir) {
        Err(fault @ JournalError::CorruptStore { .. }) => {
            if !set_aside(dir)? {
                return Err(fault);
            }
            // If the first attempt panicked, sled may hold its own lock for the rest of the process.
            Engine::open(dir).map_err(|again| if again.kind() == ErrorKind::Locked { fault } else { again })
        }
        result => result,
    }
}

fn snapshots(dir: &Path) -> Result<Vec<String>, JournalError> {
    Ok(disk::names(dir)?.into_iter().filter(|name| name.starts_with("snap.")).collect())
}

/// Moves away what sled can make anew, from its log and from our settings; `false` if there was nothing.
fn set_aside(dir: &Path) -> Result<bool, JournalError> {
    let mut names = snapshots(dir)?;
    names.extend(disk::names(dir)?.into_iter().filter(|name| name == CONF));
    let aside = dir.join("set-aside");
    for name in &names {
        disk::create_dir(&aside)?;
        let from = dir.join(name);
        fs::rename(&from, aside.join(name)).map_err(DiskError::of("set aside", &from))?;
    }
    disk::sync_dir(dir)?;
    Ok(!names.is_empty())
}

/// Finishes what a crash interrupted in the dropping of ledgers.
fn settle_drops(dir: &Path, engine: &Engine, files: &mut Files) -> Result<(), JournalError> {
    if files.catalog.dropping().is_empty() {
        return Ok(());
    }
    finish_drops(engine, &files.catalog)?;
    files.catalog = files.catalog.dropped();
    files.mark.retain(|(number, _), _| files.catalog.by_number(*number).is_some());
    files.floors.retain(|(number, _), _| files.catalog.by_number(*number).is_some());
    let floors = files.floors.iter().map(|((_, ledger), tail)| (*ledger, *tail)).collect();
    mark::write_floors(dir, &files.catalog, &floors)?;
    let tails = files.mark.iter().map(|((_, ledger), tail)| (*ledger, *tail)).collect();
    mark::write(dir, &files.catalog, &tails)?;
    sealed::write(&catalog_path(dir), CATALOG_MAGIC, &files.catalog.encode())
}

/// Removes the frames of the ledgers that the catalogue says are being dropped, durably.
pub(super) fn finish_drops(engine: &Engine, catalog: &Catalog) -> Result<(), JournalError> {
    catalog.dropping().into_iter().try_for_each(|number| engine.erase(number))?;
    engine.make_durable()
}

/// Proves every log against the mark and its own checksums, and returns where each ends.
fn verify(dir: &Path, engine: &Engine, files: &Files) -> Result<BTreeMap<LedgerId, Tail>, JournalError> {
    if let Some(number) = engine.numbers()?.into_iter().find(|number| files.catalog.by_number(*number).is_none()) {
        let what = format!("it lacks ledger number {number}, of which there are frames");
        return Err(sealed::corrupt(&catalog_path(dir), what));
    }
    let mut tails = BTreeMap::new();
    for entry in files.catalog.entries() {
        let mark = files.mark.get(&(entry.number, entry.id)).copied().unwrap_or_default();
        prove(engine, entry, mark)?;
        let floor = files.floors.get(&(entry.number, entry.id)).copied().unwrap_or_default();
        let start = if mark.head > floor.head { From::Held(mark) } else { From::Dropped(floor) };
        tails.insert(entry.id, walk(engine, entry, start)?);
    }
    Ok(tails)
}

/// Proves that the frame at the mark is still the one that was recorded.
fn prove(engine: &Engine, entry: &LedgerEntry, mark: Tail) -> Result<(), JournalError> {
    if mark.head == 0 {
        return Ok(());
    }
    let end = engine.last_first(entry.number)?.unwrap_or(0);
    if end < mark.first {
        let found = walk_end(engine, entry, end)?;
        return Err(JournalError::BehindMark { ledger: entry.id, expected: mark.head, found });
    }
    let differs = || JournalError::corrupt(entry.id, mark.head, "another frame was recorded as durable here");
    let encoded = engine.frames_from(entry.number, mark.first)?.next()?.ok_or_else(differs)?;
    let frame = Frame::decode_expecting(entry.id, mark.first, &encoded)?;
    let found = Tail::default().after(&frame, &encoded);
    let same = (found.head, found.first, found.checksum) == (mark.head, mark.first, mark.checksum);
    same.then_some(()).ok_or_else(differs)
}

/// The last position of the frame that begins at `first`; 0 where there is none.
fn walk_end(engine: &Engine, entry: &LedgerEntry, first: u64) -> Result<u64, JournalError> {
    let encoded = engine.frames_from(entry.number, first)?.next()?;
    encoded.map_or(Ok(0), |encoded| Frame::decode_expecting(entry.id, first, &encoded).map(|frame| frame.last))
}

/// Where a walk along a log begins.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// After a frame that is held.
    Held(Tail),
    /// After what was dropped, or where nothing was, at the beginning.
    Dropped(Tail),
}

/// Verifies every frame after some, and returns where the log ends.
pub(super) fn walk(engine: &Engine, entry: &LedgerEntry, start: From) -> Result<Tail, JournalError> {
    walk_until(engine, entry, start, u64::MAX)
}

/// [`walk`], up to the last frame that ends before a position.
pub(super) fn walk_until(
    engine: &Engine,
    entry: &LedgerEntry,
    start: From,
    until: u64,
) -> Result<Tail, JournalError> {
    let (mut tail, mut frames) = match start {
        From::Held(tail) => (tail, engine.frames_from(entry.number, tail.first)?),
        From::Dropped(tail) => (tail, engine.frames_from(entry.number, tail.head + 1)?),
    };
    if matches!(start, From::Held(_)) {
        frames.next()?;
    }
    while let Some(encoded) = frames.next()? {
        let due = tail.head + 1;
        let frame = Frame::decode_expecting(entry.id, due, &encoded)?;
        if frame.first != due {
            return Err(JournalError::corrupt(entry.id, due, format!("the next frame begins at {}", frame.first)));
        }
        if frame.last >= until {
            break;
        }
        tail = tail.after(&frame, &encoded);
    }
    Ok(tail)
}
