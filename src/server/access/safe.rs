//! Where credentials are kept: small files that only our user reads, each replaced as a whole; or memory, for a store in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk;
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
        disk::create_private_dir(&dir)?;
        disk::remove_unfinished(&dir)?;
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
            Self::Files(dir) => Ok(disk::read(&dir.join(name))?),
            Self::Memory(values) => Ok(values.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()),
        }
    }

    /// Replaces the bytes under a name. Returns once they are durable.
    pub(in crate::server) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Files(dir) => Ok(disk::replace_private(&dir.join(name), bytes)?),
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
            Self::Files(dir) => Ok(disk::replace_private_lightly(&dir.join(name), bytes)?),
            Self::Memory(_) => self.write(name, bytes),
        }
    }

    /// Removes what is under a name, if anything.
    pub(in crate::server) fn remove(&self, name: &str) -> Result<()> {
        match self {
            Self::Files(dir) => Ok(disk::remove(&dir.join(name))?),
            Self::Memory(values) => {
                values.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Ok(())
            }
        }
    }

    /// The names that there are.
    pub(in crate::server) fn names(&self) -> Result<Vec<String>> {
        match self {
            Self::Files(dir) => Ok(disk::names(dir)?),
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
