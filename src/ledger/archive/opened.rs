//! A file of events of which single blocks are read.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::backup::Source;
use super::files::Archived;
use super::sealed;
use crate::disk::{self, DiskError};
use crate::event::LedgerId;
use crate::segment::{Index, Item};
use crate::{Error, ErrorKind, Result};

/// A file whose events are proved.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    file: File,
    /// Its segments, and where their blocks begin in it.
    segments: Vec<(u64, Index)>,
}

impl Opened {
    /// Opens a file of an archive, and proves it.
    pub(super) fn archived(ledger: LedgerId, path: PathBuf, expected: &Archived) -> Result<Self> {
        let source = Source::open(&path).map_err(damaged)?;
        let (found, range) = source.range();
        if found != ledger {
            let message = format!("expected events of ledger {ledger} in {}, got those of {found}", path.display());
            return Err(Error::new(ErrorKind::LedgerMismatch, message).with_hint("put the archive's own file back"));
        }
        check_range(&path, expected, range, "put the archive's own file back")?;
        let segments = source.into_indexes()?;
        Self::with(path, segments)
    }

    /// Opens a sealed file of a store.
    pub(super) fn sealed(ledger: LedgerId, path: PathBuf, expected: &Archived) -> Result<Self> {
        let (body, index) = sealed::open(ledger, &path)?;
        let range = (index.head().first, index.head().last);
        check_range(&path, expected, range, "restore the store from a copy or a backup")?;
        Self::with(path, vec![(body, index)])
    }

    fn with(path: PathBuf, segments: Vec<(u64, Index)>) -> Result<Self> {
        let file = File::open(&path).map_err(DiskError::of("open", &path))?;
        Ok(Self { path, file, segments })
    }

    /// The first position of the block that holds a position.
    pub(super) fn block_of(&self, position: u64) -> Option<u64> {
        let (_, index) = self.segment_of(position)?;
        let (block, _) = index.block_of(position)?;
        index.head().blocks.get(block).map(|block| block.first)
    }

    /// The events of the block that holds a position.
    pub(super) fn read(&self, position: u64) -> Result<Vec<Item>> {
        let Some((body, index)) = self.segment_of(position) else { return Ok(Vec::new()) };
        let Some((block, offset)) = index.block_of(position) else { return Ok(Vec::new()) };
        let mut stored = vec![0; index.head().blocks.get(block).map_or(0, |block| block.stored)];
        let read = disk::read_exact_at(&self.file, &mut stored, body + offset);
        read.map_err(DiskError::of("read", &self.path))?;
        index.read(block, &stored).map_err(sealed::fault(&self.path))
    }

    fn segment_of(&self, position: u64) -> Option<(u64, &Index)> {
        let holds = |index: &Index| (index.head().first..=index.head().last).contains(&position);
        self.segments.iter().find(|(_, index)| holds(index)).map(|(body, index)| (*body, index))
    }
}

/// What has stopped to be a backup file is no mistake of whoever reads the log.
fn damaged(fault: Error) -> Error {
    match fault.kind() {
        ErrorKind::Validation => {
            Error::new(ErrorKind::Corrupt, fault.message()).with_hint("put the archive's own file back")
        }
        _ => fault,
    }
}

fn check_range(path: &Path, expected: &Archived, found: (u64, u64), hint: &'static str) -> Result<()> {
    if found == (expected.first, expected.last) {
        return Ok(());
    }
    let (first, last) = (expected.first, expected.last);
    let message = format!("expected positions {first} to {last} in {}, got {found:?}", path.display());
    Err(Error::new(ErrorKind::Corrupt, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_archive_that_is_no_backup_any_more_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 4_096]).unwrap();
        let expected = Archived { first: 1, last: 2, name: "file".into() };
        let fault = Opened::archived(LedgerId([1; 16]), path, &expected).err().unwrap();
        assert_eq!(fault.kind(), ErrorKind::Corrupt);
    }
}
