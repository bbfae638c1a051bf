//! The files that hold the events which a ledger's log holds no more.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::super::backup::{self, Source};
use super::base;
use crate::disk::{self, DiskError};
use crate::event::LedgerId;
use crate::event::hash::Fields;
use crate::journal::rows::Rows;
use crate::ledger::Entry;
use crate::segment::{Index, Item};
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8; 4] = b"SLAR";
const VERSION: u8 = 1;
/// How many files are held open, each with the ids of its events.
const OPEN: usize = 4;

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

/// A file whose events are proved.
struct Opened {
    path: PathBuf,
    file: File,
    /// Its segments, and where their blocks begin in it.
    segments: Vec<(u64, Index)>,
    /// The block that was read last: its position and events.
    block: (u64, Vec<Entry>),
}

/// The archives of all ledgers of a store.
#[derive(Default)]
pub(crate) struct Archives {
    /// Where this is recorded; nowhere for a store in memory.
    path: Option<PathBuf>,
    /// Where derived state is kept a second time.
    base: Option<PathBuf>,
    known: RwLock<BTreeMap<LedgerId, Archive>>,
    /// The file that was used last comes last.
    open: Mutex<Vec<Opened>>,
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
        Ok(Self { path, base, known: RwLock::new(known), open: Mutex::default() })
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
        self.with_block(ledger, position, |entries| entries.iter().find(|entry| entry.position == position).cloned())?
            .ok_or_else(|| unknown(ledger, position))
    }

    /// The event at a position and some that follow it.
    pub(crate) fn starting_at(&self, ledger: LedgerId, position: u64) -> Result<Vec<Entry>> {
        let found = self.with_block(ledger, position, |entries| {
            entries.iter().filter(|entry| entry.position >= position).cloned().collect::<Vec<_>>()
        })?;
        if found.is_empty() { Err(unknown(ledger, position)) } else { Ok(found) }
    }

    fn with_block<T>(&self, ledger: LedgerId, position: u64, read: impl FnOnce(&[Entry]) -> T) -> Result<T> {
        let archive = self.of(ledger);
        let covers = |file: &&Archived| (file.first..=file.last).contains(&position);
        let file = archive.files.iter().find(covers).ok_or_else(|| unknown(ledger, position))?;
        let path = archive.dir.join(&file.name);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match open.iter().position(|opened| opened.path == path) {
            Some(index) => open.remove(index),
            None if !path.exists() => return Err(archive.lacks(ledger, file)),
            None => Opened::open(ledger, path, file)?,
        };
        if open.len() >= OPEN {
            open.remove(0);
        }
        open.push(opened);
        match open.last_mut() {
            Some(opened) => Ok(read(opened.block_of(position)?)),
            None => Err(unknown(ledger, position)),
        }
    }
}

impl Opened {
    fn open(ledger: LedgerId, path: PathBuf, expected: &Archived) -> Result<Self> {
        let source = Source::open(&path)?;
        let (found, range) = source.range();
        if found != ledger {
            let message = format!("expected events of ledger {ledger} in {}, got those of {found}", path.display());
            return Err(Error::new(ErrorKind::LedgerMismatch, message).with_hint("put the archive's own file back"));
        }
        if range != (expected.first, expected.last) {
            let (first, last) = (expected.first, expected.last);
            let message = format!("expected positions {first} to {last} in {}, got {range:?}", path.display());
            return Err(Error::new(ErrorKind::Corrupt, message).with_hint("put the archive's own file back"));
        }
        let segments = source.into_indexes()?;
        let file = File::open(&path).map_err(DiskError::of("open", &path))?;
        Ok(Self { path, file, segments, block: (0, Vec::new()) })
    }

    /// The events of the block that holds a position.
    fn block_of(&mut self, position: u64) -> Result<&[Entry]> {
        for (body, index) in &self.segments {
            let Some((block, offset)) = index.block_of(position) else { continue };
            let Some(entry) = index.head().blocks.get(block) else { continue };
            if self.block.0 != entry.first {
                let mut stored = vec![0; entry.stored];
                let read = disk::read_exact_at(&self.file, &mut stored, body + offset);
                read.map_err(DiskError::of("read", &self.path))?;
                let items: Vec<Item> = index.read(block, &stored)?;
                self.block = (entry.first, items.into_iter().map(backup::entry).collect());
            }
            return Ok(&self.block.1);
        }
        Ok(&[])
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
