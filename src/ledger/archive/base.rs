//! A second copy of the derived state that the archived events led to, for a store that lost both its rows and its
//! archive.
//!
//! ```text
//! base/<ledger>-<position>/    rows of that ledger as of that position, with a mark once all are there
//! ```
//! Invariant: it is read only where the log and the archive cannot tell; they are the truth.

use std::path::{Path, PathBuf};

use crate::disk::{self, DiskError};
use crate::event::LedgerId;
use crate::journal::rows::{FileRows, Rows};
use crate::ledger::row::{self, Kind};
use crate::{Error, ErrorKind, Result};

/// How many rows are copied at once.
const PAGE: usize = 256;

fn name(ledger: LedgerId, position: u64) -> String {
    format!("{ledger}-{position:020}")
}

/// The copies of a ledger that are there, the oldest first.
fn copies(dir: &Path, ledger: LedgerId) -> Result<Vec<PathBuf>> {
    let start = format!("{ledger}-");
    let names = if dir.exists() { disk::names(dir)? } else { Vec::new() };
    Ok(names.into_iter().filter(|name| name.starts_with(&start)).map(|name| dir.join(name)).collect())
}

/// Copies a ledger's rows, which hold everything up to a position, and then removes older copies.
pub(super) fn keep(dir: &Path, ledger: LedgerId, position: u64, rows: &dyn Rows, mark: &[u8]) -> Result<()> {
    let path = dir.join(name(ledger, position));
    let before = copies(dir, ledger)?;
    // What a crash left of the same copy is no part of this one.
    if path.exists() {
        remove(&path)?;
    }
    disk::create_dir(dir)?;
    copy(ledger, rows, &FileRows::open(&path)?, mark)?;
    disk::sync_dir(dir)?;
    before.into_iter().filter(|copy| *copy != path).try_for_each(|copy| remove(&copy))
}

/// Brings the last whole copy back; `false` where there is none.
pub(super) fn bring_back(dir: &Path, ledger: LedgerId, rows: &dyn Rows, mark: &[u8]) -> Result<bool> {
    for path in copies(dir, ledger)?.into_iter().rev() {
        let kept = FileRows::open(&path)?;
        if kept.mark().as_deref() == Some(mark) {
            copy(ledger, &kept, rows, mark)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes all copies of a ledger.
pub(super) fn forget(dir: &Path, ledger: LedgerId) -> Result<()> {
    copies(dir, ledger)?.iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<()> {
    Ok(std::fs::remove_dir_all(path).map_err(DiskError::of("remove", path))?)
}

/// Copies the rows of a ledger. The mark comes with the last of them.
fn copy(ledger: LedgerId, from: &dyn Rows, to: &dyn Rows, mark: &[u8]) -> Result<()> {
    const UNFINISHED: &[u8] = b"unfinished";
    let until_then = to.mark().unwrap_or_else(|| UNFINISHED.to_vec());
    for kind in Kind::ALL {
        let (prefix, mut after) = (row::ledger_prefix(kind, ledger), None::<Vec<u8>>);
        loop {
            let page = from.scan(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            to.write(page.into_iter().map(|(key, value)| (key, Some(value))).collect(), &until_then)?;
        }
    }
    match from.get(&row::key(Kind::Meta, ledger, "", ""))? {
        Some(_) => Ok(to.write(Vec::new(), mark)?),
        None => Err(Error::new(ErrorKind::Corrupt, "the derived state of the ledger lacks its counts")
            .with_hint("run `syncledger rebuild`")),
    }
}
