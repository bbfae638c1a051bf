//! The engine's files as they were before it opened them.
//!
//! sled cuts its log at the first damage that it finds, and writes that down while it opens: one flipped bit would cost
//! everything after it, for good, before anybody was told. So its files are copied first, and put back when opening ends
//! in `corrupt`: whoever repairs the store, or copies it away, has every byte that there was.

use std::fs;
use std::path::{Path, PathBuf};

use super::ballast::Copying;
use crate::disk::{self, DiskError};

/// Above this the copy would make opening slow; the limit is told in `docs/reliability.md`.
const MOST_BYTES: u64 = 256 << 20;

/// A copy of the engine's directory, until it is known that the engine opened it well.
pub(super) struct Preserved {
    original: PathBuf,
    copy: Option<PathBuf>,
}

impl Preserved {
    /// Copies the engine's files, where there are any and they are not too many. A copy that fails, on a full disk say,
    /// is done without: opening must not depend on it.
    pub(super) fn take(engine: &Path, copying: Copying) -> Result<Self, DiskError> {
        let copy = engine.with_extension("before");
        remove(&copy)?;
        let fits = copying == Copying::Wanted && bytes(engine).is_some_and(|bytes| bytes > 0 && bytes <= MOST_BYTES);
        let copied = fits && copy_files(engine, &copy).is_ok();
        if !copied {
            remove(&copy)?;
        }
        Ok(Self { original: engine.to_owned(), copy: copied.then_some(copy) })
    }

    /// The engine opened well: the copy goes.
    pub(super) fn discard(self) -> Result<(), DiskError> {
        self.copy.as_deref().map_or(Ok(()), remove)
    }

    /// Puts back what was there. Where this fails the copy stays beside the damaged files.
    pub(super) fn restore(self) -> Result<(), DiskError> {
        let Some(copy) = self.copy else { return Ok(()) };
        remove(&self.original)?;
        fs::rename(&copy, &self.original).map_err(DiskError::of("put back", &self.original))?;
        disk::sync_dir(self.original.parent().unwrap_or(&self.original))
    }
}

fn remove(dir: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(dir) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(DiskError::of("remove", dir)(fault)),
        _ => Ok(()),
    }
}

/// How many bytes the files of a directory have; `None` where that cannot be told.
fn bytes(dir: &Path) -> Option<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        let meta = entry.metadata().ok()?;
        sum += if meta.is_dir() { bytes(&entry.path())? } else { meta.len() };
    }
    Some(sum)
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
