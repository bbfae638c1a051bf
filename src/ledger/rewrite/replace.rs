//! Putting a new log in the place of another.
//!
//! ```text
//! again/<ledger>.log.unfinished    the new log while it is written: nothing happened
//! again/<ledger>.log               the new log: the old one is, or is to be, replaced by it
//! ```
//! The file is a backup without large values: these stay where they are.

use std::path::{Path, PathBuf};

use super::super::backup::{Head, MOST_WRITERS, Output, Part, Source, entry};
use super::super::packing;
use super::super::request::Entry;
use super::super::seal::Amount;
use super::super::shared::Shared;
use super::Plan;
use crate::disk::{self, DiskError};
use crate::event::{EventId, LedgerId};
use crate::journal::LedgerEntry;
use crate::segment::Shape;
use crate::{Error, ErrorKind, Result};

const DIR: &str = "again";
const END: &str = ".log";
/// How many events are appended at once.
const CHUNK: usize = 4_096;

/// A new log that is written down.
pub(crate) enum Written {
    /// In a file, without its final name yet.
    File(PathBuf),
    /// In memory, of a store that is there alone.
    Memory(Head, Vec<Entry>),
}

/// Writes the new log down and reads it back. Nothing of the old one is changed.
pub(crate) fn write(shared: &Shared, plan: &Plan) -> Result<Written> {
    let ledger = plan.ledger;
    let name = shared.journal.catalog().into_iter().find(|entry| entry.id == ledger).map(|entry| entry.name);
    let (name, writers) = (name.unwrap_or_default(), plan.writers.clone());
    let head = Head { ledger, first: 1, last: plan.last(), after: EventId([0; 32]), name, writers };
    let Some(dir) = shared.dir.as_ref().map(|dir| dir.join(DIR)) else {
        let mut entries = Vec::new();
        plan.each(shared, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        return Ok(Written::Memory(head, entries));
    };
    disk::create_dir(&dir)?;
    let path = dir.join(format!("{ledger}{END}"));
    let unfinished = dir.join(format!("{ledger}{END}{}", disk::UNFINISHED));
    let written = write_file(shared, plan, head, &unfinished);
    if written.is_err() {
        // Why it failed is what the caller should hear.
        let _ = disk::remove(&unfinished);
    }
    written.map(|()| Written::File(path))
}

fn write_file(shared: &Shared, plan: &Plan, head: Head, path: &Path) -> Result<()> {
    let mut file = Output::create(path, head, Shape::LARGE)?;
    plan.each(shared, |entry| file.event(entry))?;
    file.finish()?;
    prove(path)
}

/// Reads a file to its end.
fn prove(path: &Path) -> Result<()> {
    let mut source = Source::open_log(path)?;
    while source.next()?.is_some() {}
    Ok(())
}

/// Puts a new log in the place of the old one. Returns how much it is. Where this fails, opening the store again brings it to an
/// end.
pub(crate) fn replace(shared: &Shared, written: Written) -> Result<Amount> {
    match written {
        Written::File(path) => {
            let mut unfinished = path.clone().into_os_string();
            unfinished.push(disk::UNFINISHED);
            let unfinished = PathBuf::from(unfinished);
            step(shared, "written");
            std::fs::rename(&unfinished, &path).map_err(DiskError::of("rename", &unfinished))?;
            disk::sync_dir(parent(&path))?;
            step(shared, "named");
            finish(shared, &path)
        }
        Written::Memory(head, entries) => {
            clear(shared, head.ledger)?;
            put(shared, &head)?;
            let mut filling = Filling::new(shared, head.ledger);
            entries.into_iter().try_for_each(|entry| filling.add(entry))?;
            filling.finish()
        }
    }
}

/// Brings to an end what a crash interrupted, and removes what was only begun. To be called before any ledger is taken up.
pub(crate) fn finish_all(shared: &Shared) -> Result<()> {
    let Some(dir) = shared.dir.as_ref().map(|dir| dir.join(DIR)).filter(|dir| dir.is_dir()) else { return Ok(()) };
    disk::remove_unfinished(&dir)?;
    for name in disk::names(&dir)?.into_iter().filter(|name| name.ends_with(END)) {
        // What is derived may be damaged, or of another version of this program: all of it is derived again.
        shared.rows.clear()?;
        finish(shared, &dir.join(name))?;
    }
    Ok(())
}

fn finish(shared: &Shared, path: &Path) -> Result<Amount> {
    // A crash may have come after the name and before the old log was gone: only a whole file takes its place.
    prove(path)?;
    let mut source = Source::open_log(path)?;
    let head = source.head.clone();
    clear(shared, head.ledger)?;
    put(shared, &head)?;
    step(shared, "put");
    let mut filling = Filling::new(shared, head.ledger);
    while let Some(part) = source.next()? {
        let Part::Events(items) = part else { continue };
        items.into_iter().try_for_each(|item| filling.add(entry(item)))?;
        step(shared, "partly appended");
    }
    let amount = filling.finish()?;
    step(shared, "appended");
    // Before anything else is appended: what is there now would be replaced once more.
    disk::remove(path)?;
    disk::sync_dir(parent(path))?;
    step(shared, "removed");
    Ok(amount)
}

/// Tells tests how far it is.
fn step(shared: &Shared, name: &str) {
    #[cfg(test)]
    if let Some(told) = &*shared.on_step.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
        told(name);
    }
    let _ = (shared, name);
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Removes everything of a ledger.
fn clear(shared: &Shared, ledger: LedgerId) -> Result<()> {
    if shared.journal.ledgers().contains(&ledger) {
        // Most of it goes with the database that holds it, which is safer than to erase it there.
        shared.journal.drop_before(ledger, u64::MAX)?;
        step(shared, "partly dropped");
        shared.journal.drop_ledger(ledger)?;
        step(shared, "dropped");
    }
    shared.archives.unseal_before(ledger, u64::MAX)?;
    step(shared, "unsealed");
    // The files of an archive are not the store's: they stay where they are.
    shared.archives.record(ledger, None)?;
    shared.archives.forget_base(ledger)?;
    step(shared, "archive forgotten");
    shared.forget_rows(ledger)
}

fn put(shared: &Shared, head: &Head) -> Result<()> {
    let number = shared.journal.next_number();
    let writers = head.writers.iter().take(MOST_WRITERS);
    let meta = writers.flat_map(|writer| writer.0).collect();
    let entry = LedgerEntry { number, id: head.ledger, name: head.name.clone(), meta };
    shared.journal.put_ledger(entry).map_err(|fault| {
        let message = format!("the ledger `{}` that was being written again cannot be put back: {fault}", head.name);
        Error::new(ErrorKind::Conflict, message)
            .with_hint("open the store with the program that made the other ledger, and give that another name")
    })
}

/// A log that is being filled.
struct Filling<'a> {
    shared: &'a Shared,
    ledger: LedgerId,
    chunk: Vec<Entry>,
    amount: Amount,
}

impl<'a> Filling<'a> {
    fn new(shared: &'a Shared, ledger: LedgerId) -> Self {
        Self { shared, ledger, chunk: Vec::new(), amount: Amount::default() }
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        self.chunk.push(entry);
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        self.amount.bytes += packing::append(&*self.shared.journal, self.ledger, &chunk)?;
        self.amount.events += chunk.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<Amount> {
        self.flush()?;
        Ok(self.amount)
    }
}
