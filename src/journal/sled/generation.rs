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
    let others = disk::names(dir)?.into_iter().filter_map(|name| number(&name)).filter(|number| *number != current);
    others.into_iter().try_for_each(|number| remove(dir, number))
}

/// Removes a database.
pub(super) fn remove(dir: &Path, number: u64) -> Result<(), JournalError> {
    let path = path(dir, number);
    match fs::remove_dir_all(&path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::of("remove", &path)(fault).into())
        }
        _ => Ok(()),
    }
}
