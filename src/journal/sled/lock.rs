//! One holder per store: an operating system's lock on a file that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::super::error::JournalError;
use crate::disk::DiskError;

/// The lock on a store, held until dropped. The file stays: removing it would let two holders in.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(DiskError::of("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Locked { path: dir.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(DiskError { action: "lock", path, source }.into()),
        }
        sign(&mut file).map_err(DiskError::of("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Writes our process id; a full disk does not keep anybody out, for the lock holds without it.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    match file.write_all(std::process::id().to_string().as_bytes()) {
        Err(fault) if fault.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        other => other,
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
