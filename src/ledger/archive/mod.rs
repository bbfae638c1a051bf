//! Archives: the first events of a log, moved into files of their own.
//!
//! ```text
//! write the files, fsync, read them back ─► save every record ─► record where the files are ─► drop the frames
//! ```
//! A crash at any step loses nothing: until the last, the log holds everything, and the last is finished when the store
//! is opened again. Positions stay. What is read goes on to the files by itself; where one is not there, the error names
//! it, and only what needs it fails: records, lists and new edits do not.
//!
//! Invariant: an event is dropped only after a proved file holds it, on the disk.

mod base;
mod files;
mod opened;
mod sealed;

use std::path::{Path, PathBuf};

use tracing::info_span;

use super::{BackupOptions, Ledger, verify_backup};
use crate::disk::{self, DiskError};
use crate::segment::Shape;
use crate::{Error, ErrorKind, Result};

pub(crate) use files::{Archive, Archived, Archives};

/// How many events a file of an archive has at most.
const FILE_EVENTS: u64 = 65_536;

/// What archiving did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// The archive's directory.
    pub dir: PathBuf,
    /// The files that were written now.
    pub files: Vec<PathBuf>,
    /// How many events are in the archive, with those of earlier times.
    pub events: u64,
    /// The first position that the log still holds.
    pub log_begins: u64,
}

impl Ledger {
    /// Moves the events before a position into files in a directory, and drops them from the log. The log goes on to
    /// hold some of them that share a frame or a sealed file with later ones, and always the last.
    ///
    /// # Errors
    /// `validation` where the position is after the last, or the ledger has its archive in another directory;
    /// `conflict` where a file of another content is in the way; `corrupt`, `storage`. Nothing is dropped then.
    pub fn archive(&self, before: u64, dir: impl AsRef<Path>) -> Result<ArchiveInfo> {
        let span = info_span!("archive", ledger = %self.id());
        let _entered = span.enter();
        let head = self.position();
        if before == 0 || before > head.saturating_add(1) {
            let message = format!("expected a position from 1 to {}, got {before}", head.saturating_add(1));
            return Err(Error::new(ErrorKind::Validation, message));
        }
        let mut archive = self.archive_in(dir.as_ref())?;
        let (mut written, last) = (Vec::new(), before - 1);
        while archive.last() < last {
            let since = archive.last();
            let until = match self.left_behind(&archive.dir, since)? {
                Some(last) => last,
                None => last.min(since + FILE_EVENTS),
            };
            let (path, file) = self.write_archived(&archive.dir, since, until)?;
            archive.files.push(file);
            written.push(path);
        }
        let (dir, events) = (archive.dir.clone(), archive.last());
        // Also the names of files that an attempt left which ended early.
        disk::sync_dir(&dir)?;
        let log_begins = match events {
            0 => self.log_begins(),
            _ => self.store.queue().archive(self.id(), archive, before)?,
        };
        Ok(ArchiveInfo { dir, files: written, events, log_begins })
    }

    /// Says where the ledger's archive is now.
    ///
    /// # Errors
    /// `not_found` where the directory lacks one of its files.
    pub fn archive_is_at(&self, dir: impl AsRef<Path>) -> Result<ArchiveInfo> {
        let archives = &self.shared().archives;
        let mut archive = archives.of(self.id());
        archive.dir = whole(dir.as_ref())?;
        if let Some(missing) =
            archive.files.iter().map(|file| archive.dir.join(&file.name)).find(|path| !path.exists())
        {
            let message = format!("the directory lacks a file of the archive: {}", missing.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let info = (archive.dir.clone(), archive.last());
        archives.record(self.id(), Some(archive).filter(|archive| !archive.files.is_empty()))?;
        let log_begins = self.log_begins();
        Ok(ArchiveInfo { dir: info.0, files: Vec::new(), events: info.1, log_begins })
    }

    /// The first position that the store itself holds.
    fn log_begins(&self) -> u64 {
        let shared = self.shared();
        shared.archives.begin(self.id(), shared.journal.first(self.id()))
    }

    /// The ledger's archive, which is or comes into a directory.
    fn archive_in(&self, dir: &Path) -> Result<Archive> {
        disk::create_dir(dir)?;
        let (archive, dir) = (self.shared().archives.of(self.id()), whole(dir)?);
        if !archive.files.is_empty() && archive.dir != dir {
            let message =
                format!("the ledger has its archive in {}, not in {}", archive.dir.display(), dir.display());
            return Err(Error::new(ErrorKind::Validation, message)
                .with_hint("name that directory; or move the files, and say so with `syncledger archive --at DIR`"));
        }
        Ok(Archive { dir, ..archive })
    }

    /// The last position of a file that goes on after a position, which an attempt left that crashed before its files
    /// were recorded.
    fn left_behind(&self, dir: &Path, since: u64) -> Result<Option<u64>> {
        let (first, head) = (format!("{}-{:020}-", self.id(), since + 1), self.position());
        for name in disk::names(dir)? {
            let last = name.strip_prefix(&first).and_then(|rest| rest.strip_suffix(".slbk"));
            let Some(last) = last.and_then(|last| last.parse().ok()).filter(|last| *last <= head) else { continue };
            if verify_backup(dir.join(&name)).is_ok() && self.holds_as_here(&dir.join(&name))? {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// Writes the events after a position, up to another, into a file, and reads it back.
    fn write_archived(&self, dir: &Path, since: u64, until: u64) -> Result<(PathBuf, Archived)> {
        let (first, last) = (since + 1, until);
        let name = format!("{}-{first:020}-{last:020}.slbk", self.id());
        let path = dir.join(&name);
        if !path.exists() {
            let options = BackupOptions { since, shape: Shape::SEALED };
            self.write_range(&path, &options, until)?;
        }
        // One that was there already is of an attempt before this one, or the same positions of another replica.
        let found = verify_backup(&path)?;
        let proof = self.log_reader().at(since)?.map(|entry| entry.id);
        let is_it = (found.ledger, found.first_position, found.last_position) == (self.id(), first, last);
        if !is_it || !super::backup::continues(&path, proof)? || !self.holds_as_here(&path)? {
            let message = format!("{} is in the way: it does not hold positions {first} to {last}", path.display());
            return Err(Error::new(ErrorKind::Conflict, message).with_hint("name another directory"));
        }
        Ok((path, Archived { first, last, name }))
    }

    /// Whether a file holds the events that the log has at its positions.
    fn holds_as_here(&self, path: &Path) -> Result<bool> {
        let log = self.log_reader();
        super::backup::each(path, |entry| Ok(log.at(entry.position)?.is_some_and(|here| here == *entry)))
    }
}

/// A directory's path, whole: the store may be opened from elsewhere next time.
fn whole(dir: &Path) -> Result<PathBuf> {
    Ok(dir.canonicalize().map_err(DiskError::of("find", dir))?)
}
