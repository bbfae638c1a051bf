//! A file that is there to be deleted: sled cannot even open on a full disk, so the store keeps 1 MiB in reserve, and as
//! much as sled may have to take from the front.
//!
//! Invariant: nothing is appended while the ballast is not there, so that what was appended can be read on a full disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::error::JournalError;
use crate::disk::{self, DiskError};

const BYTES: u64 = 1 << 20;

fn path(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Puts the ballast in place for a front of so many bytes.
pub(super) fn keep(dir: &Path, front: u64) -> Result<(), DiskError> {
    let path = path(dir);
    resize(&path, BYTES + front).inspect_err(|fault| {
        tracing::warn!(%fault, "no room for the ballast file: nothing is appended before there is");
        let _ = disk::remove(&path);
    })
}

/// Makes the file as long as is wanted.
fn resize(path: &Path, wanted: u64) -> Result<(), DiskError> {
    let opened = File::options().write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(DiskError::of("open", path))?;
    let length = file.metadata().map_err(DiskError::of("look at", path))?.len();
    if length >= wanted {
        return file.set_len(wanted).map_err(DiskError::of("shorten", path));
    }
    // Zeros may be stored as a hole or compressed by the file system; these bytes are not.
    let mut bytes = vec![0; (wanted - length) as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    disk::write_all_at(&file, &bytes, length).map_err(DiskError::of("write", path))?;
    file.sync_all().map_err(DiskError::of("fsync", path))
}

/// Whether the engine's files are copied before they are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copying {
    Wanted,
    /// The reserve is for the engine alone.
    Refrained,
}

/// Runs `open`; if the disk is full, once more with the ballast thrown off, and then without a copy, which may have taken
/// what that had left.
pub(super) fn with_reserve<T>(
    dir: &Path,
    open: impl Fn(Copying) -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    let fault = match open(Copying::Wanted) {
        Err(JournalError::Disk(fault)) if fault.is_full() => fault,
        result => return result,
    };
    tracing::warn!(%fault, "the disk is full: opening with the reserve");
    disk::remove(&path(dir))?;
    match open(Copying::Wanted) {
        Err(JournalError::Disk(fault)) if fault.is_full() => open(Copying::Refrained),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskError;

    fn open_on_a_full_disk(dir: &Path) -> Result<(), JournalError> {
        match path(dir).exists() {
            true => {
                Err(DiskError { action: "open", path: dir.into(), source: std::io::ErrorKind::StorageFull.into() }
                    .into())
            }
            false => Ok(()),
        }
    }

    #[test]
    fn a_full_disk_costs_the_ballast_and_the_next_opening_puts_it_back() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), 0).unwrap();
        assert_eq!(std::fs::metadata(path(dir.path())).unwrap().len(), BYTES);
        for front in [1_000, 500, 500, 2_000] {
            keep(dir.path(), front).unwrap();
            assert_eq!(std::fs::metadata(path(dir.path())).unwrap().len(), BYTES + front);
        }
        with_reserve(dir.path(), |_| open_on_a_full_disk(dir.path())).unwrap();
        assert!(!path(dir.path()).exists());
        keep(dir.path(), 0).unwrap();
        assert!(path(dir.path()).exists());
    }

    #[test]
    fn a_copy_that_takes_the_reserve_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), 0).unwrap();
        let tried = std::cell::RefCell::new(Vec::new());
        let open = |copying| {
            tried.borrow_mut().push((copying, path(dir.path()).exists()));
            let source = std::io::ErrorKind::StorageFull.into();
            match copying {
                Copying::Wanted => Err(DiskError { action: "open", path: dir.path().into(), source }.into()),
                Copying::Refrained => Ok(()),
            }
        };
        with_reserve(dir.path(), open).unwrap();
        let expected = [(Copying::Wanted, true), (Copying::Wanted, false), (Copying::Refrained, false)];
        assert_eq!(tried.into_inner(), expected);
    }

    #[test]
    fn other_faults_leave_the_ballast_alone() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), 0).unwrap();
        assert!(with_reserve(dir.path(), |_| Err::<(), _>(JournalError::Closed)).is_err());
        assert!(path(dir.path()).exists());
    }
}
