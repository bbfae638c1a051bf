//! Where credentials are kept: small files that only our user reads, each replaced as a whole; or memory, for a store in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, DiskError};
use crate::{Error, ErrorKind, Result};

/// A folder of named values.
#[derive(Clone, Debug)]
pub(in crate::server) enum Safe {
    Files(PathBuf),
    Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>),
}

impl Safe {
    /// The folder, made where there is none; memory where no path is given.
    pub(in crate::server) fn open(dir: Option<PathBuf>) -> Result<Self> {
        let Some(dir) = dir else { return Ok(Self::Memory(Arc::default())) };
        create_private_dir(&dir).map_err(|fault| storage(DiskError::of("create", &dir)(fault)))?;
        disk::remove_unfinished(&dir).map_err(storage)?;
        Ok(Self::Files(dir))
    }

    /// A folder in it.
    pub(super) fn part(&self, name: &str) -> Result<Self> {
        match self {
            Self::Files(dir) => Self::open(Some(dir.join(name))),
            Self::Memory(_) => Ok(Self::Memory(Arc::default())),
        }
    }

    /// The bytes under a name.
    pub(in crate::server) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Files(dir) => disk::read(&dir.join(name)).map_err(storage),
            Self::Memory(values) => Ok(values.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()),
        }
    }

    /// Replaces the bytes under a name. Returns once they are durable.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Files(dir) => replace_private(&dir.join(name), bytes),
            Self::Memory(values) => {
                values.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes.to_vec());
                Ok(())
            }
        }
    }

    /// Replaces the bytes under a name, but for a power cut in the next seconds, after which there may be none: for what can be
    /// done without.
    pub(in crate::server) fn write_lightly(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Files(dir) => replace_lightly(&dir.join(name), bytes),
            Self::Memory(_) => self.write(name, bytes),
        }
    }

    /// Removes what is under a name, if anything.
    pub(in crate::server) fn remove(&self, name: &str) -> Result<()> {
        match self {
            Self::Files(dir) => disk::remove(&dir.join(name)).map_err(storage),
            Self::Memory(values) => {
                values.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Ok(())
            }
        }
    }

    /// The names that there are.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        match self {
            Self::Files(dir) => disk::names(dir).map_err(storage),
            Self::Memory(values) => {
                Ok(values.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
            }
        }
    }

    /// The value under a name.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let damaged = |_| {
            let message = format!("the credentials in `{name}` are not what was written");
            Error::new(ErrorKind::Corrupt, message).with_hint("remove the file: who it is of has to enrol again")
        };
        self.read(name)?.map(|bytes| serde_json::from_slice(&bytes).map_err(damaged)).transpose()
    }

    /// Replaces the value under a name.
    pub(super) fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|fault| Error::new(ErrorKind::Storage, fault.to_string()))?;
        self.write(name, &bytes)
    }
}

fn storage(fault: DiskError) -> Error {
    let kind = if fault.is_forbidden() { ErrorKind::Permission } else { ErrorKind::Storage };
    Error::new(kind, fault.to_string()).with_source(fault)
}

#[cfg(unix)]
fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)
}

/// Writes a file beside it that only our user reads, and puts it in its place.
fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, true)?;
    path.parent().map_or(Ok(()), disk::sync_dir).map_err(storage)
}

fn replace_lightly(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, false)
}

fn replace(path: &Path, bytes: &[u8], durably: bool) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(disk::UNFINISHED);
    let unfinished = PathBuf::from(name);
    let write = || {
        disk::remove(&unfinished)?;
        write_private(&unfinished, bytes, durably).map_err(DiskError::of("write", &unfinished))?;
        fs::rename(&unfinished, path).map_err(DiskError::of("rename", path))
    };
    write().map_err(storage)
}

fn write_private(path: &Path, bytes: &[u8], durably: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    if durably { file.sync_all() } else { Ok(()) }
}
