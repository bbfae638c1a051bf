//! Which database of the engine holds the logs: what was dropped goes with the database that held it.
//!
//! ```text
//! journal/            the first            generation    the number of the present one
//! journal-<number>/   a later one
//! ```
//! Sled writes over what it has let go of before that is safe: nothing of it is fsynced in between. So nothing is ever
//! removed from a database that holds what is wanted. What is wanted is copied into a new one instead, made durable,
//! and then the number is exchanged; a crash leaves one database too many, which goes at the next opening.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::JournalError;
use super::super::sealed;
use crate::disk::{self, DiskError};

const MAGIC: [u8; 4] = *b"SLGN";
const FIRST: &str = "journal";
/// How the name of a copy of a database ends: see `preserve`.
const COPY: &str = ".before";

fn number_path(dir: &Path) -> PathBuf {
    dir.join("generation")
}

/// The directory of a database.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    match number {
        0 => dir.join(FIRST),
        number => dir.join(format!("{FIRST}-{number}")),
    }
}

/// The number of the present database.
pub(super) fn current(dir: &Path) -> Result<u64, JournalError> {
    let path = number_path(dir);
    let Some(body) = sealed::read(&path, MAGIC)? else { return Ok(0) };
    body.try_into().map(u64::from_le_bytes).map_err(|_| sealed::corrupt(&path, "expected one number"))
}

/// Makes a database the present one, durably.
pub(super) fn choose(dir: &Path, number: u64) -> Result<(), JournalError> {
    sealed::write(&number_path(dir), MAGIC, &number.to_le_bytes())
}

/// Removes every database but the present one, and what was begun of the next.
pub(super) fn remove_others(dir: &Path, current: u64) -> Result<(), JournalError> {
    let numbered = |name: &str| name.strip_prefix(FIRST)?.strip_prefix('-')?.parse().ok();
    let number = |name: &str| if name == FIRST { Some(0) } else { numbered(name) };
    // A copy that was made to open another.
    let is_copy = |name: &str| name.starts_with(FIRST) && name.ends_with(COPY);
    let is_other = |name: &String| is_copy(name) || number(name).is_some_and(|number| number != current);
    let others = disk::names(dir)?.into_iter().filter(is_other);
    others.map(|name| dir.join(name)).try_for_each(|path| remove_dir(&path))
}

/// Removes a database.
pub(super) fn remove(dir: &Path, number: u64) -> Result<(), JournalError> {
    remove_dir(&path(dir, number))
}

fn remove_dir(path: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::of("remove", path)(fault).into())
        }
        _ => Ok(()),
    }
}
