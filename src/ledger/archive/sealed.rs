//! Sealed files: the older part of a ledger's log, compressed, in files beside the journal.
//!
//! ```text
//! sealed/<ledger>-<first>-<last>.slsg    one segment
//! sealed/<ledger>-<first>-<last>.ids     the ids of its events: derived, made again where it is missing or damaged
//! ```
//! A file has its name only once all of it is on the disk, and is never changed.
//!
//! Invariant: a frame is dropped from the journal only when a proved file holds its events, on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::Archived;
use crate::disk;
use crate::event::hash::Fields;
use crate::event::{EventId, LedgerId};
use crate::segment::{Head, Index, Reader, SegmentFault};
use crate::{Error, ErrorKind, Result};

const SEGMENT: &str = ".slsg";
const IDS: &str = "ids";
const MAGIC: &[u8; 4] = b"SLID";
const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 4 + 1 + 32;

/// The sealed files in a directory, by ledger and position. What a crash left unfinished is removed.
pub(super) fn list(dir: &Path) -> Result<BTreeMap<LedgerId, Vec<Archived>>> {
    let mut found: BTreeMap<LedgerId, Vec<Archived>> = BTreeMap::new();
    if !dir.exists() {
        return Ok(found);
    }
    disk::remove_unfinished(dir)?;
    // What is found here is relied on: a process may have ended between naming a file and making that durable.
    disk::sync_dir(dir)?;
    for name in disk::names(dir)? {
        if let Some((ledger, file)) = parse(&name) {
            keep(dir, found.entry(ledger).or_default(), file)?;
        }
    }
    Ok(found)
}

/// Adds the file that comes next by its name. One that begins where the one before does is of a later attempt, which holds
/// more: the disk had failed between the earlier file's name and its end, and nothing stands on that.
fn keep(dir: &Path, files: &mut Vec<Archived>, file: Archived) -> Result<()> {
    if let Some(earlier) = files.pop_if(|earlier| earlier.first == file.first) {
        remove(dir, &earlier)?;
    }
    files.push(file);
    Ok(())
}

fn parse(name: &str) -> Option<(LedgerId, Archived)> {
    let mut parts = name.strip_suffix(SEGMENT)?.split('-');
    let ledger = parts.next()?.parse().ok()?;
    let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let file = Archived { first, last, name: name.to_owned() };
    (parts.next().is_none() && file == named(ledger, first, last)).then_some((ledger, file))
}

fn named(ledger: LedgerId, first: u64, last: u64) -> Archived {
    Archived { first, last, name: format!("{ledger}-{first:020}-{last:020}{SEGMENT}") }
}

/// Writes a segment, durably.
pub(super) fn write(dir: &Path, head: &Head, bytes: &[u8], ids: impl Iterator<Item = EventId>) -> Result<Archived> {
    disk::create_dir(dir)?;
    let file = named(head.ledger, head.first, head.last);
    let path = dir.join(&file.name);
    disk::replace(&path, bytes)?;
    write_ids(&path, head, ids)?;
    Ok(file)
}

/// Removes a file.
pub(super) fn remove(dir: &Path, file: &Archived) -> Result<()> {
    let path = dir.join(&file.name);
    disk::remove(&path.with_extension(IDS))?;
    Ok(disk::remove(&path)?)
}

/// Access to a file's blocks, and where they begin in it.
pub(super) fn open(ledger: LedgerId, path: &Path) -> Result<(u64, Index)> {
    let (head, body, begin) = read(ledger, path)?;
    if let Some(index) = read_ids(path, &head).and_then(|ids| Index::with_ids(head.clone(), ids)) {
        return Ok((begin, index));
    }
    let index = prove(head, &body, path)?;
    write_ids(path, index.head(), index.ids())?;
    Ok((begin, index))
}

/// Proves a file: its events have the ids that its hashes cover.
pub(super) fn prove_file(ledger: LedgerId, path: &Path) -> Result<()> {
    let (head, body, _) = read(ledger, path)?;
    prove(head, &body, path).map(drop)
}

/// Reads a segment's blocks one after another, and proves them.
fn prove(head: Head, body: &[u8], path: &Path) -> Result<Index> {
    let (mut reader, mut rest) = (Reader::new(head), body);
    let short = || damaged(&format!("{} breaks off", path.display()));
    while let Some(block) = reader.next_block() {
        let (stored, after) = rest.split_at_checked(block.stored).ok_or_else(short)?;
        reader.read(stored).map_err(fault(path))?;
        rest = after;
    }
    reader.into_index().ok_or_else(short)
}

/// What is wrong with a file that this program wrote.
pub(super) fn fault(path: &Path) -> impl Fn(SegmentFault) -> Error + '_ {
    |fault| match fault.kind() {
        ErrorKind::UpgradeNeeded => Error::from(fault),
        _ => damaged(&format!("{} is damaged: {fault}", path.display())).with_source(fault),
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
        .with_hint("restore the store from a copy or a backup, or pull from a replica")
}

/// A file's head, the bytes after it, and where those begin.
fn read(ledger: LedgerId, path: &Path) -> Result<(Head, Vec<u8>, u64)> {
    let missing = || damaged(&format!("the sealed file {} is not there: a part of the log is lost", path.display()));
    let mut bytes = disk::read(path)?.ok_or_else(missing)?;
    let length = Head::bytes(&bytes).map_err(fault(path))?;
    let head = Head::decode(bytes.get(..length).unwrap_or(&bytes)).map_err(fault(path))?;
    if head.ledger != ledger || length as u64 + head.body_bytes() != bytes.len() as u64 {
        return Err(damaged(&format!("{} is not the file that was written", path.display())));
    }
    bytes.drain(..length);
    Ok((head, bytes, length as u64))
}

/// How many bytes the files in a directory take, and how many what is derived from them.
pub(super) fn bytes(dir: &Path) -> (u64, u64) {
    let size = |name: &String| std::fs::metadata(dir.join(name)).map_or(0, |file| file.len());
    let names = disk::names(dir).unwrap_or_default();
    let (sealed, derived): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with(SEGMENT));
    (sealed.into_iter().map(size).sum(), derived.into_iter().map(size).sum())
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    Fields::new("syncledger 2026-11 sealed ids v1").field(bytes).finish()
}

fn write_ids(path: &Path, head: &Head, ids: impl Iterator<Item = EventId>) -> Result<()> {
    let mut bytes = [&MAGIC[..], &[VERSION], &head.root].concat();
    ids.for_each(|id| bytes.extend_from_slice(&id.0));
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(disk::replace(&ids_path(path), &bytes)?)
}

fn ids_path(path: &Path) -> PathBuf {
    path.with_extension(IDS)
}

/// The ids of a segment's events; `None` where they have to be made again.
fn read_ids(path: &Path, head: &Head) -> Option<Vec<EventId>> {
    let bytes = disk::read(&ids_path(path)).ok().flatten()?;
    let (covered, found) = bytes.split_last_chunk::<32>()?;
    let (prefix, ids) = covered.split_at_checked(PREFIX_BYTES)?;
    let is_of = prefix == [&MAGIC[..], &[VERSION], &head.root].concat() && checksum(covered) == *found;
    let (ids, rest) = ids.as_chunks::<32>();
    (is_of && rest.is_empty()).then(|| ids.iter().copied().map(EventId).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_files_that_begin_at_one_position_the_longer_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, other) = (LedgerId([1; 16]), LedgerId([2; 16]));
        let files = [named(ledger, 1, 47), named(ledger, 48, 59), named(ledger, 48, 62), named(ledger, 63, 70)];
        for file in files.iter().chain([&named(other, 1, 9)]) {
            let path = dir.path().join(&file.name);
            std::fs::write(path.with_extension(IDS), "ids").unwrap();
            std::fs::write(path, "segment").unwrap();
        }
        let found = list(dir.path()).unwrap();
        assert_eq!(found[&ledger], [named(ledger, 1, 47), named(ledger, 48, 62), named(ledger, 63, 70)]);
        assert_eq!(found[&other], [named(other, 1, 9)]);
        assert_eq!(disk::names(dir.path()).unwrap().len(), 8);
    }
}
