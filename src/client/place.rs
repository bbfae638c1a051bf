//! Where a client keeps what it has to know after a restart: small files below the store, in `client`, readable by our user
//! alone. A store in memory keeps it in memory.
//!
//! Invariant: a file is either the old one or the new one, whole and durable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, DiskError};
use crate::ledger::Ledger;
use crate::{Error, ErrorKind, Result};

/// The directory in a store.
const DIR: &str = "client";

/// One thing that is kept.
#[derive(Clone)]
pub(super) enum Place {
    File(PathBuf),
    Memory(Memory),
}

/// What is kept in memory, by all that have this.
pub(super) type Memory = Arc<Mutex<Option<Vec<u8>>>>;

impl Place {
    /// The place for a kind of thing about a ledger.
    pub(super) fn of(ledger: &Ledger, kind: &str) -> Self {
        let name = ledger.info().name;
        match ledger.store().dir() {
            Some(dir) => Self::File(dir.join(DIR).join(format!("{}.{kind}.json", stem(&name)))),
            None => Self::Memory(Arc::default()),
        }
    }

    /// What is kept there.
    ///
    /// # Errors
    /// `corrupt` where it is not what was written; `storage`, `permission`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let bytes = match self {
            Self::File(path) => disk::read(path)?,
            Self::Memory(bytes) => bytes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let Some(bytes) = bytes else { return Ok(None) };
        // What serde says may quote what is there, and that may be a token.
        serde_json::from_slice(&bytes).map(Some).map_err(|_| self.damaged())
    }

    /// Keeps this there. Durable once it returns.
    ///
    /// # Errors
    /// `storage`, `permission`.
    pub(super) fn write(&self, what: &impl Serialize) -> Result<()> {
        let encoded = serde_json::to_vec_pretty(what);
        let bytes = encoded.map_err(|_| Error::new(ErrorKind::Storage, "the client's state cannot be written"))?;
        match self {
            Self::File(path) => replace(path, &bytes)?,
            Self::Memory(kept) => *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes),
        }
        Ok(())
    }

    fn damaged(&self) -> Error {
        let where_ = match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(_) => "memory".to_owned(),
        };
        Error::new(ErrorKind::Corrupt, format!("{where_} is not what the client wrote"))
            .with_hint("remove the file, and enrol again where it held the tokens: no edit is lost by that")
    }
}

/// What this process has open of a kind, by its file: two that keep the same thing apart would undo each other's changes.
pub(super) type Open<T> = Mutex<BTreeMap<PathBuf, Weak<T>>>;

/// What is open of a place, made where nothing is.
pub(super) fn shared<T>(open: &Open<T>, place: &Place, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let Place::File(path) = place else { return make().map(Arc::new) };
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|_, one| one.strong_count() > 0);
    if let Some(one) = open.get(path).and_then(Weak::upgrade) {
        return Ok(one);
    }
    let made = Arc::new(make()?);
    open.insert(path.clone(), Arc::downgrade(&made));
    Ok(made)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    // The store's directory is there; this one is made with the first file.
    path.parent().filter(|dir| !dir.is_dir()).map_or(Ok(()), disk::create_private_dir)?;
    disk::replace_private(path, bytes)
}

/// A file's name for a ledger: its own where every file system takes that.
fn stem(ledger: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    match ledger.len() <= 64 && ledger.bytes().all(is_plain) {
        true => ledger.to_owned(),
        false => format!("~{}", blake3::hash(ledger.as_bytes()).to_hex().chars().take(32).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::ledger::Options;

    #[test]
    fn a_ledger_of_any_name_has_a_file_of_its_own() {
        let names = ["main", "Main", "../up", "a/b", "", "ü", &"x".repeat(200)];
        let stems: std::collections::BTreeSet<String> = names.iter().map(|name| stem(name)).collect();
        assert_eq!(stems.len(), names.len());
        assert!(stems.iter().all(|stem| !stem.contains(['/', '.']) && stem.len() <= 64));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_kept_is_read_again_and_by_nobody_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let ledger = Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
        let place = Place::of(&ledger, "thing");
        assert_eq!(place.read::<Vec<u8>>().unwrap(), None);
        for thing in [vec![1, 2], vec![3]] {
            place.write(&thing).unwrap();
            assert_eq!(Place::of(&ledger, "thing").read::<Vec<u8>>().unwrap(), Some(thing));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("client/main.thing.json")), 0o600);
        assert_eq!(mode(&dir.path().join("client")), 0o700);
    }

    #[test]
    fn what_is_damaged_says_where_it_is_and_not_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
        let place = Place::of(&ledger, "thing");
        place.write(&"secret").unwrap();
        let fault = place.read::<u64>().unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Corrupt);
        assert!(!fault.to_string().contains("secret"), "{fault}");
        let memory = Place::of(&Store::in_memory(Options::default()).unwrap().create_ledger("m").unwrap(), "thing");
        memory.write(&7).unwrap();
        assert_eq!(memory.read::<u64>().unwrap(), Some(7));
    }
}
