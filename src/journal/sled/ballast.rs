//! A file that is there to be deleted: sled cannot even open on a full disk, so the store keeps 1 MiB in reserve.

use std::path::{Path, PathBuf};

use super::super::error::JournalError;
use crate::disk;

const BYTES: usize = 1 << 20;

fn path(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Puts the ballast in place; that there is no room for it is only a warning.
pub(super) fn keep(dir: &Path) {
    let path = path(dir);
    if std::fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64) {
        return;
    }
    // Zeros may be stored as a hole or compressed by the file system; these bytes are not.
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    if let Err(fault) = disk::replace(&path, &bytes) {
        tracing::warn!(%fault, "no room for the ballast file: free disk space soon");
        let _ = disk::remove(&path);
    }
}

/// Runs `open`; if the disk is full, once more with the ballast thrown off.
pub(super) fn with_reserve<T>(dir: &Path, open: impl Fn() -> Result<T, JournalError>) -> Result<T, JournalError> {
    match open() {
        Err(JournalError::Disk(fault)) if fault.is_full() => {
            tracing::warn!(%fault, "the disk is full: opening with the reserve");
            disk::remove(&path(dir))?;
            open()
        }
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
        keep(dir.path());
        assert_eq!(std::fs::metadata(path(dir.path())).unwrap().len(), BYTES as u64);
        with_reserve(dir.path(), || open_on_a_full_disk(dir.path())).unwrap();
        assert!(!path(dir.path()).exists());
        keep(dir.path());
        assert!(path(dir.path()).exists());
    }

    #[test]
    fn other_faults_leave_the_ballast_alone() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path());
        assert!(with_reserve(dir.path(), || Err::<(), _>(JournalError::Closed)).is_err());
        assert!(path(dir.path()).exists());
    }
}
