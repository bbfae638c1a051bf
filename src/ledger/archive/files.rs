//! The files that hold the events which a ledger's log holds no more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::super::backup;
use super::super::cache::TwoGenerations;
use super::opened::Opened;
use super::{base, sealed};
use crate::disk;
use crate::event::hash::Fields;
use crate::event::{EventId, LedgerId};
use crate::journal::rows::Rows;
use crate::ledger::Entry;
use crate::segment::Head;
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8; 4] = b"SLAR";
const VERSION: u8 = 1;
/// How many files are held open, each with the ids of its events.
const OPEN: usize = 8;
/// How many bytes of events are remembered of what was read, about.
const BLOCK_BYTES: usize = 16 << 20;
/// About how many events are read at once by who reads them one after another.
const READ_AT_ONCE: usize = 256;
/// About how many bytes of memory an event takes.
const EVENT_BYTES: usize = 768;

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archived {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Its name in the archive's directory.
    pub(crate) name: String,
}

/// Where the first events of a ledger are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archive {
    pub(crate) dir: PathBuf,
    /// By position, each going on where the one before ends.
    pub(crate) files: Vec<Archived>,
}

impl Archive {
    /// The last position that is archived.
    pub(crate) fn last(&self) -> u64 {
        self.files.last().map_or(0, |file| file.last)
    }

    fn lacks(&self, ledger: LedgerId, file: &Archived) -> Error {
        let (path, ledger) = (self.dir.join(&file.name), ledger.short());
        let message = format!(
            "positions {} to {} of ledger {ledger} are in the archive {}, which is not there",
            file.first,
            file.last,
            path.display()
        );
        Error::new(ErrorKind::NotFound, message)
            .with_hint("put the file back, or say where the archive is now with `syncledger archive --at DIR`")
    }
}

/// The archives of all ledgers of a store, and its sealed files.
#[derive(Default)]
pub(crate) struct Archives {
    /// Where this is recorded; nowhere for a store in memory.
    path: Option<PathBuf>,
    /// Where derived state is kept a second time.
    base: Option<PathBuf>,
    known: RwLock<BTreeMap<LedgerId, Archive>>,
    /// Where sealed files are; nowhere for a store in memory, which seals nothing.
    sealed_dir: Option<PathBuf>,
    sealed: RwLock<BTreeMap<LedgerId, Vec<Archived>>>,
    reading: Mutex<Reading>,
}

/// What was read lately.
struct Reading {
    /// The file that was used last comes last.
    open: Vec<Arc<Opened>>,
    /// Blocks, by their ledger, whether they are sealed, and first position: a sealed file may hold what the archive
    /// holds too, in other blocks.
    blocks: TwoGenerations<(LedgerId, bool, u64), Arc<Vec<Entry>>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { open: Vec::new(), blocks: TwoGenerations::new(BLOCK_BYTES) }
    }
}

/// A file that holds some positions.
struct Place {
    path: PathBuf,
    file: Archived,
    is_sealed: bool,
}

impl Archives {
    /// The archives of the store in a directory.
    pub(crate) fn open(store: Option<&Path>) -> Result<Self> {
        let (path, base) = (store.map(|dir| dir.join("archives")), store.map(|dir| dir.join("base")));
        let bytes = match &path {
            Some(path) => disk::read(path)?,
            None => None,
        };
        let known = match (&path, bytes) {
            (Some(path), Some(bytes)) => decode(path, &bytes)?,
            _ => BTreeMap::new(),
        };
        let sealed_dir = store.map(|dir| dir.join("sealed"));
        let sealed = sealed_dir.as_deref().map_or_else(|| Ok(BTreeMap::new()), sealed::list)?;
        let (known, sealed, reading) = (RwLock::new(known), RwLock::new(sealed), Mutex::default());
        Ok(Self { path, base, known, sealed_dir, sealed, reading })
    }

    /// Whether sealed files can be kept.
    pub(crate) fn can_seal(&self) -> bool {
        self.sealed_dir.is_some()
    }

    /// The ledgers that have sealed files.
    pub(crate) fn sealed_ledgers(&self) -> Vec<LedgerId> {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The last position that a sealed file or the archive holds.
    pub(crate) fn last(&self, ledger: LedgerId) -> u64 {
        self.last_sealed(ledger).max(self.of(ledger).last())
    }

    /// The last position that a sealed file holds.
    pub(crate) fn last_sealed(&self, ledger: LedgerId) -> u64 {
        let sealed = self.sealed.read().unwrap_or_else(PoisonError::into_inner);
        sealed.get(&ledger).and_then(|files| files.last()).map_or(0, |file| file.last)
    }

    /// The first position that the archive does not hold, where the log begins at this one without the sealed files.
    pub(crate) fn begin(&self, ledger: LedgerId, journal: u64) -> u64 {
        let sealed = self.sealed.read().unwrap_or_else(PoisonError::into_inner);
        sealed.get(&ledger).and_then(|files| files.first()).map_or(journal, |file| journal.min(file.first))
    }

    /// Keeps a segment of a ledger's log, which goes on where the one before ends, durably.
    pub(crate) fn seal(&self, head: &Head, bytes: &[u8], ids: impl Iterator<Item = EventId>) -> Result<()> {
        let Some(dir) = &self.sealed_dir else { return Ok(()) };
        let file = sealed::write(dir, head, bytes, ids)?;
        self.sealed.write().unwrap_or_else(PoisonError::into_inner).entry(head.ledger).or_default().push(file);
        Ok(())
    }

    /// Proves the sealed files that hold positions from one on, and returns the last position that one holds.
    pub(crate) fn prove_sealed(&self, ledger: LedgerId, position: u64) -> Result<u64> {
        let Some(dir) = &self.sealed_dir else { return Ok(0) };
        let files = self.sealed.read().unwrap_or_else(PoisonError::into_inner).get(&ledger).cloned();
        let files = files.unwrap_or_default();
        let wanted = files.iter().filter(|file| file.last >= position);
        wanted.into_iter().try_for_each(|file| sealed::prove_file(ledger, &dir.join(&file.name)))?;
        Ok(files.last().map_or(0, |file| file.last))
    }

    /// Removes the sealed files of a ledger that hold nothing from a position on.
    pub(crate) fn unseal_before(&self, ledger: LedgerId, position: u64) -> Result<()> {
        let Some(dir) = &self.sealed_dir else { return Ok(()) };
        let mut sealed = self.sealed.write().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = sealed.get_mut(&ledger) else { return Ok(()) };
        let (over, kept) = std::mem::take(files).into_iter().partition(|file| file.last < position);
        *files = kept;
        drop(sealed);
        self.let_go();
        let over: Vec<Archived> = over;
        over.iter().try_for_each(|file| sealed::remove(dir, file))
    }

    /// Forgets what was read.
    fn let_go(&self) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Reading::default();
    }

    /// How many bytes the sealed files take on disk, and how many what is derived from them.
    pub(crate) fn sealed_bytes(&self) -> (u64, u64) {
        self.sealed_dir.as_deref().map_or((0, 0), sealed::bytes)
    }

    /// How many bytes the sealed files of a ledger take on disk.
    pub(crate) fn sealed_bytes_of(&self, ledger: LedgerId) -> u64 {
        let sealed = self.sealed.read().unwrap_or_else(PoisonError::into_inner);
        let files = sealed.get(&ledger).into_iter().flatten();
        let size = |file: &Archived| {
            let path = self.sealed_dir.as_ref().map(|dir| dir.join(&file.name));
            path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len())
        };
        files.map(size).sum()
    }

    /// Where the first events of a ledger are.
    pub(crate) fn of(&self, ledger: LedgerId) -> Archive {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&ledger).cloned().unwrap_or_default()
    }

    /// Records where the first events of a ledger are, durably; `None` where all are in its log.
    pub(crate) fn record(&self, ledger: LedgerId, archive: Option<Archive>) -> Result<()> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = known.clone();
        match archive {
            Some(archive) => drop(next.insert(ledger, archive)),
            None => drop(next.remove(&ledger)),
        }
        if let Some(path) = self.path.as_ref().filter(|_| next != *known) {
            disk::replace(path, &encode(&next)?)?;
        }
        *known = next;
        drop(known);
        self.let_go();
        Ok(())
    }

    /// Whether a file of a ledger's archive is not where it should be.
    pub(crate) fn lacks_files(&self, ledger: LedgerId) -> bool {
        let archive = self.of(ledger);
        archive.files.iter().any(|file| !archive.dir.join(&file.name).exists())
    }

    /// Keeps a ledger's rows a second time, which hold everything up to a position.
    pub(crate) fn keep_base(&self, ledger: LedgerId, position: u64, rows: &dyn Rows, mark: &[u8]) -> Result<()> {
        self.base.as_ref().map_or(Ok(()), |dir| base::keep(dir, ledger, position, rows, mark))
    }

    /// Brings a ledger's rows back from their second copy; `false` where there is none.
    pub(crate) fn bring_base_back(&self, ledger: LedgerId, rows: &dyn Rows, mark: &[u8]) -> Result<bool> {
        self.base.as_ref().map_or(Ok(false), |dir| base::bring_back(dir, ledger, rows, mark))
    }

    /// Removes what is kept of a ledger.
    pub(crate) fn forget_base(&self, ledger: LedgerId) -> Result<()> {
        self.base.as_ref().map_or(Ok(()), |dir| base::forget(dir, ledger))
    }

    /// The event at a position.
    pub(crate) fn at(&self, ledger: LedgerId, position: u64) -> Result<Entry> {
        let (opened, is_sealed) = self.opened(ledger, position)?;
        let block = self.block(ledger, is_sealed, &opened, position)?;
        let found = block.iter().find(|entry| entry.position == position);
        found.cloned().ok_or_else(|| unknown(ledger, position))
    }

    /// The event at a position and some that follow it, up to another.
    pub(crate) fn starting_at(&self, ledger: LedgerId, position: u64, until: u64) -> Result<Vec<Entry>> {
        let (opened, is_sealed) = self.opened(ledger, position)?;
        let mut found: Vec<Entry> = Vec::new();
        if opened.block_of(position) != Some(position) {
            // Who begins within a block may have read its beginning just before.
            let block = self.block(ledger, is_sealed, &opened, position)?;
            found.extend(block.iter().filter(|entry| entry.position >= position).cloned());
        }
        // Who reads one block after another comes to none again: they are neither copied nor remembered.
        while found.len() < READ_AT_ONCE {
            let next = found.last().map_or(position, |entry| entry.position + 1);
            if next > until || opened.block_of(next) != Some(next) {
                break;
            }
            found.extend(opened.read(next)?.into_iter().map(backup::entry));
        }
        if found.is_empty() { Err(unknown(ledger, position)) } else { Ok(found) }
    }

    /// The file that holds a position: a sealed one, where there are two.
    fn place(&self, ledger: LedgerId, position: u64) -> Result<Place> {
        let find = |files: &[Archived]| {
            let index = files.partition_point(|file| file.last < position);
            files.get(index).filter(|file| file.first <= position).cloned()
        };
        let sealed = self.sealed.read().unwrap_or_else(PoisonError::into_inner);
        let found = sealed.get(&ledger).and_then(|files| find(files));
        if let (Some(file), Some(dir)) = (found, &self.sealed_dir) {
            return Ok(Place { path: dir.join(&file.name), file, is_sealed: true });
        }
        drop(sealed);
        let archive = self.of(ledger);
        let file = find(&archive.files).ok_or_else(|| unknown(ledger, position))?;
        let path = archive.dir.join(&file.name);
        if path.exists() { Ok(Place { path, file, is_sealed: false }) } else { Err(archive.lacks(ledger, &file)) }
    }

    /// The file that holds a position, opened, and whether it is a sealed one.
    fn opened(&self, ledger: LedgerId, position: u64) -> Result<(Arc<Opened>, bool)> {
        let place = self.place(ledger, position)?;
        let is_sealed = place.is_sealed;
        let opened = self.reading.lock().unwrap_or_else(PoisonError::into_inner).opened(ledger, place)?;
        Ok((opened, is_sealed))
    }

    /// The events of the block that holds a position. Others read meanwhile: who reads the same block at once reads it too.
    fn block(&self, ledger: LedgerId, is_sealed: bool, opened: &Opened, position: u64) -> Result<Arc<Vec<Entry>>> {
        let first = opened.block_of(position).ok_or_else(|| unknown(ledger, position))?;
        let key = (ledger, is_sealed, first);
        let reading = || self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reading().blocks.get_mut(&key).cloned();
        if let Some(block) = known {
            return Ok(block);
        }
        let block: Arc<Vec<Entry>> = Arc::new(opened.read(position)?.into_iter().map(backup::entry).collect());
        let mut reading = reading();
        // Not where all was let go of meanwhile, and the file perhaps with it.
        if reading.open.iter().any(|open| std::ptr::eq(&**open, opened)) {
            reading.blocks.insert(key, block.clone(), block.len() * EVENT_BYTES);
            reading.blocks.trim();
        }
        Ok(block)
    }
}

impl Reading {
    /// A file, opened unless it is; it comes last then.
    fn opened(&mut self, ledger: LedgerId, place: Place) -> Result<Arc<Opened>> {
        let Place { path, file, is_sealed } = place;
        let opened = match self.open.iter().position(|opened| opened.path == path) {
            Some(index) => self.open.remove(index),
            None if is_sealed => Arc::new(Opened::sealed(ledger, path, &file)?),
            None => Arc::new(Opened::archived(ledger, path, &file)?),
        };
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push(opened.clone());
        Ok(opened)
    }
}

fn unknown(ledger: LedgerId, position: u64) -> Error {
    let message = format!("ledger {} has no event at position {position}, in its log or archive", ledger.short());
    Error::new(ErrorKind::Corrupt, message).with_hint("restore a backup, or pull the ledger from a replica")
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    Fields::new("syncledger 2026-11 archives v1").field(bytes).finish()
}

fn encode(known: &BTreeMap<LedgerId, Archive>) -> Result<Vec<u8>> {
    let listed: Vec<(String, &Archive)> =
        known.iter().map(|(ledger, archive)| (ledger.to_string(), archive)).collect();
    let fault = |fault| Error::new(ErrorKind::Validation, format!("the archive's path cannot be recorded: {fault}"));
    let mut bytes = [&MAGIC[..], &[VERSION]].concat();
    bytes.extend(serde_json::to_vec(&listed).map_err(fault)?);
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<BTreeMap<LedgerId, Archive>> {
    let damaged = || {
        let message = format!("{} is damaged: its checksum does not fit its bytes", path.display());
        Error::new(ErrorKind::Corrupt, message)
            .with_hint("restore the store from a copy, or from its archive and backups")
    };
    let (covered, found) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    match covered.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
        Some((&VERSION, json)) if checksum(covered) == *found => {
            let listed: Vec<(String, Archive)> = serde_json::from_slice(json).map_err(|_| damaged())?;
            listed.into_iter().map(|(id, archive)| Ok((id.parse().map_err(|_| damaged())?, archive))).collect()
        }
        Some((version, _)) if *version != VERSION => {
            let message = format!("{} has format version {version}, this program reads {VERSION}", path.display());
            Err(Error::new(ErrorKind::UpgradeNeeded, message).with_hint("open it with a newer syncledger"))
        }
        _ => Err(damaged()),
    }
}
