//! Backups: a ledger's events and large values in one file, proved when they are read.
//!
//! A file holds a range of positions. One that begins at position 1 is whole, the others continue one: `restore` takes
//! them together. `pull` takes any in, as it takes in another replica.
//!
//! Invariant: a file with its final name is whole and on the disk.
//! Invariant: memory is bounded by one segment and one large value, but for the names of large values (32 bytes each),
//! and in `restore` the keys of all records.

mod file;
mod restore;
mod source;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tracing::info_span;

pub use restore::Restored;

use super::replicate::Foreign;
use super::{Entry, Ledger, PULL_EVENTS, Transfer};
use crate::disk::{self, DiskError};
use crate::event::{BlobHash, EventId, LedgerId};
use crate::segment::{Item, Shape, Writer};
use crate::{Error, ErrorKind, Result};
pub(super) use file::{Head, MOST_WRITERS};
pub(super) use source::{Part, Source, blobs_of};

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupOptions {
    /// Only events after this position: what an earlier backup holds up to there is not written again.
    pub since: u64,
    /// How its segments are written.
    pub shape: Shape,
}

/// What a backup file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// The file.
    pub file: PathBuf,
    /// The ledger.
    pub ledger: LedgerId,
    /// The ledger's name where the file was written.
    pub name: String,
    /// How many events it holds.
    pub events: u64,
    /// How many large values it holds.
    pub blobs: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// The position of its first event.
    pub first_position: u64,
    /// The position of its last event; the one before the first where it has none.
    pub last_position: u64,
}

impl Ledger {
    /// Writes the events and large values up to the last durable event into a new file. What is written to the ledger
    /// meanwhile is not in it.
    ///
    /// # Errors
    /// `conflict` where the file exists, `validation` where `since` is after the last position, `corrupt` where the log
    /// or a large value is damaged, `storage`. There is no file then.
    pub fn backup(&self, path: impl AsRef<Path>, options: &BackupOptions) -> Result<BackupInfo> {
        let span = info_span!("backup", ledger = %self.id());
        let _entered = span.enter();
        self.write_range(path.as_ref(), options, self.position())
    }

    /// Writes the events after `options.since` up to a position into a new file.
    pub(super) fn write_range(&self, path: &Path, options: &BackupOptions, until: u64) -> Result<BackupInfo> {
        if options.since > until {
            let message = format!("expected a position up to {until}, the ledger's last, got {}", options.since);
            return Err(Error::new(ErrorKind::Validation, message));
        }
        if path.exists() {
            return Err(Error::new(ErrorKind::Conflict, format!("{} exists already", path.display()))
                .with_hint("name a new file: a backup never replaces another"));
        }
        let unfinished = unfinished(path);
        let written = self.write_file(path, &unfinished, options, until);
        if written.is_err() {
            // What is left of it is no use to anybody; why it failed is what the caller should hear.
            let _ = disk::remove(&unfinished);
        }
        written
    }

    fn write_file(&self, path: &Path, unfinished: &Path, options: &BackupOptions, until: u64) -> Result<BackupInfo> {
        let (log, since) = (self.log_reader(), options.since);
        let after = log.at(since)?.map_or(EventId([0; 32]), |entry| entry.id);
        let (name, writers) = (self.name.clone(), self.shared().own_writers(self.id()));
        let head = Head { ledger: self.id(), first: since + 1, last: until, after, name, writers };
        let mut file = Output::create(unfinished, head, options.shape)?;
        log.each(since, until, |entry| {
            self.add(&mut file, entry)?;
            Ok(true)
        })?;
        let mut info = file.finish()?;
        std::fs::rename(unfinished, path).map_err(DiskError::of("rename", unfinished))?;
        disk::sync_dir(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        path.clone_into(&mut info.file);
        Ok(info)
    }

    fn add(&self, file: &mut Output, entry: Entry) -> Result<()> {
        for hash in blobs_of(&entry.event) {
            if !file.blobs.contains(&hash) {
                file.blob(hash, &self.shared().blobs.get(hash)?)?;
            }
        }
        file.event(entry)
    }

    /// Takes in what a backup file holds, as from another replica of this ledger, telling `progress` of what was done so
    /// far. It may end the pull by an error.
    ///
    /// # Errors
    /// As [`Ledger::apply`]; `corrupt` where the file is cut or damaged; what `progress` returns. What was read
    /// before is kept then.
    pub fn pull_file(
        &self,
        path: impl AsRef<Path>,
        progress: &mut dyn FnMut(Transfer) -> Result<()>,
    ) -> Result<Transfer> {
        let mut source = Source::open(path.as_ref())?;
        let (from, run) = (source.head.ledger, Some(self.new_run()?));
        let (mut total, mut chunk) = (Transfer::default(), Vec::new());
        let span = info_span!("pull", ledger = %self.id());
        let _entered = span.enter();
        loop {
            let (part, fault) = match source.next() {
                Ok(part) => (part, None),
                Err(fault) => (None, Some(fault)),
            };
            let ends = part.is_none();
            match part {
                Some(Part::Blob(content)) => drop(self.shared().blobs.put(&content)?),
                Some(Part::Events(items)) => {
                    chunk.extend(items.into_iter().map(|item| Foreign::of(item, run)));
                }
                None => {}
            }
            if chunk.len() >= PULL_EVENTS || (ends && !chunk.is_empty()) {
                self.match_or_adopt(from)?;
                let events = std::mem::take(&mut chunk);
                total.add(self.store.queue().run(self.id(), move |writing| writing.apply(events))?);
                progress(total)?;
            }
            match fault {
                Some(fault) => return Err(fault),
                // A file of another ledger is a mistake where it holds no event too.
                None if ends && self.position() > 0 => return self.match_or_adopt(from).map(|()| total),
                None if ends => return Ok(total),
                None => {}
            }
        }
    }
}

/// What a backup file holds, after all of it was read and proved.
///
/// # Errors
/// `corrupt` where it is cut or damaged, naming the byte and the positions that are missing; `validation` where it is
/// no backup, `upgrade_needed`, `not_found`, `storage`.
pub fn verify_backup(path: impl AsRef<Path>) -> Result<BackupInfo> {
    let mut source = Source::open(path.as_ref())?;
    while source.next()?.is_some() {}
    let bytes = std::fs::metadata(path.as_ref()).map_err(DiskError::of("look at", path.as_ref()))?.len();
    Ok(BackupInfo {
        file: path.as_ref().to_owned(),
        ledger: source.head.ledger,
        events: source.due - source.head.first,
        blobs: source.blobs.len() as u64,
        bytes,
        first_position: source.head.first,
        last_position: source.head.last,
        name: source.head.name,
    })
}

/// Whether a file was made after this event.
pub(super) fn continues(path: &Path, after: Option<EventId>) -> Result<bool> {
    Ok(Source::open(path)?.head.after == after.unwrap_or(EventId([0; 32])))
}

/// Whether all events of a file are as `wanted`.
pub(super) fn each(path: &Path, mut wanted: impl FnMut(&Entry) -> Result<bool>) -> Result<bool> {
    let mut source = Source::open(path)?;
    while let Some(part) = source.next()? {
        let Part::Events(items) = part else { continue };
        for item in items {
            if !wanted(&entry(item))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The entry of a log that an item of a segment is.
pub(super) fn entry(item: Item) -> Entry {
    let Item { position, previous, received_at, run, id, event } = item;
    Entry { position, id, received_at, run, previous, event }
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        let Entry { position, id, received_at, run, previous, event } = entry;
        Self { position, previous, received_at, run, id, event }
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(disk::UNFINISHED);
    name.into()
}

/// A file that is written.
pub(super) struct Output {
    path: PathBuf,
    out: BufWriter<File>,
    head: Head,
    shape: Shape,
    chain: [u8; 32],
    segment: Writer<'static>,
    /// Large values that events of the segment name: they come before it.
    blobs: BTreeSet<BlobHash>,
    events: u64,
    bytes: u64,
}

impl Output {
    pub(super) fn create(path: &Path, head: Head, shape: Shape) -> Result<Self> {
        let file = File::create(path).map_err(DiskError::of("create", path))?;
        let (bytes, chain) = head.encode();
        let segment = Writer::new(head.ledger, shape);
        let (blobs, out) = (BTreeSet::new(), BufWriter::new(file));
        let mut output = Self { path: path.to_owned(), out, head, shape, chain, segment, blobs, events: 0, bytes: 0 };
        output.write(&bytes)?;
        Ok(output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(DiskError::of("write", &self.path))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Adds a large value. The segment that names it is written after it.
    fn blob(&mut self, hash: BlobHash, content: &[u8]) -> Result<()> {
        self.write(&file::blob(hash, content))?;
        self.write(content)?;
        self.chain = file::chain(self.chain, file::BLOB, &hash.0);
        self.blobs.insert(hash);
        Ok(())
    }

    /// Adds an event, at the position after the one before.
    pub(super) fn event(&mut self, entry: Entry) -> Result<()> {
        if self.segment.is_full() {
            self.close_segment()?;
        }
        self.segment.add(Item::from(entry))?;
        self.events += 1;
        Ok(())
    }

    fn close_segment(&mut self) -> Result<()> {
        let segment = std::mem::replace(&mut self.segment, Writer::new(self.head.ledger, self.shape));
        if let Some((head, bytes)) = segment.finish()? {
            self.write(&[file::SEGMENT])?;
            self.write(&bytes)?;
            self.chain = file::chain(self.chain, file::SEGMENT, &head.root);
        }
        Ok(())
    }

    /// Writes the end, and returns once all is on the disk.
    pub(super) fn finish(mut self) -> Result<BackupInfo> {
        self.close_segment()?;
        self.write(&file::end(self.chain, self.events, self.blobs.len() as u64))?;
        self.out.flush().map_err(DiskError::of("write", &self.path))?;
        self.out.get_ref().sync_all().map_err(DiskError::of("fsync", &self.path))?;
        Ok(BackupInfo {
            file: self.path,
            ledger: self.head.ledger,
            name: self.head.name,
            events: self.events,
            blobs: self.blobs.len() as u64,
            bytes: self.bytes,
            first_position: self.head.first,
            last_position: self.head.last,
        })
    }
}
