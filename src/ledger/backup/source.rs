//! Reading a backup file part by part.
//!
//! Invariant: what was returned is proved, and nothing after the first fault is returned.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::file::{self, Head};
use crate::blob::MAX_BLOB_BYTES;
use crate::disk::DiskError;
use crate::event::{BlobHash, Event, EventId, LedgerId, Value};
use crate::segment::{self, Item, SegmentFault};
use crate::{Error, ErrorKind, Result};

/// A part of a file.
pub(in crate::ledger) enum Part {
    /// The content of a large value, which has the hash that the file says.
    Blob(Vec<u8>),
    /// Events, whose positions follow those of the part before.
    Events(Vec<Item>),
}

/// A file that is read.
pub(in crate::ledger) struct Source {
    path: PathBuf,
    input: BufReader<File>,
    /// How many bytes were read.
    offset: u64,
    pub(in crate::ledger) head: Head,
    chain: [u8; 32],
    segment: Option<segment::Reader<'static>>,
    /// Where the blocks of that segment begin.
    body: u64,
    /// The segments that were read whole, where they are wanted.
    indexes: Option<Vec<(u64, segment::Index)>>,
    /// The position that comes next.
    pub(super) due: u64,
    pub(super) blobs: BTreeSet<BlobHash>,
    /// Whether the large values that events name are elsewhere.
    is_log: bool,
    ended: bool,
}

/// The large values that an event names.
pub(in crate::ledger) fn blobs_of(event: &Event) -> impl Iterator<Item = BlobHash> {
    event.ops().iter().filter_map(|op| match op.value() {
        Some(Value::Blob(blob)) => Some(blob.hash),
        _ => None,
    })
}

impl Source {
    /// Opens a file and reads its head.
    pub(in crate::ledger) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|fault| match fault.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("there is no file {}", path.display()))
            }
            _ => DiskError::of("open", path)(fault).into(),
        })?;
        if file.metadata().is_ok_and(|meta| meta.is_dir()) {
            let message = format!("expected a backup file, but {} is a directory", path.display());
            return Err(Error::new(ErrorKind::Validation, message));
        }
        let head = Head {
            ledger: LedgerId([0; 16]),
            first: 1,
            last: 0,
            after: EventId([0; 32]),
            name: String::new(),
            writers: Vec::new(),
        };
        let (chain, segment, blobs) = ([0; 32], None, BTreeSet::new());
        let (path, input) = (path.to_owned(), BufReader::new(file));
        let mut source = Self {
            path,
            input,
            offset: 0,
            head,
            chain,
            segment,
            body: 0,
            indexes: None,
            due: 1,
            blobs,
            is_log: false,
            ended: false,
        };
        source.read_head()?;
        Ok(source)
    }

    /// The same of a log that is written again: its large values are in the store.
    pub(in crate::ledger) fn open_log(path: &Path) -> Result<Self> {
        Ok(Self { is_log: true, ..Self::open(path)? })
    }

    /// The ledger and the positions that the file is of.
    pub(in crate::ledger) fn range(&self) -> (LedgerId, (u64, u64)) {
        (self.head.ledger, (self.head.first, self.head.last))
    }

    /// Reads and proves the whole file. Its segments, and where their blocks begin in it.
    pub(in crate::ledger) fn into_indexes(mut self) -> Result<Vec<(u64, segment::Index)>> {
        self.indexes = Some(Vec::new());
        while self.next()?.is_some() {}
        Ok(self.indexes.unwrap_or_default())
    }

    fn read_head(&mut self) -> Result<()> {
        let no_backup = |path: &Path| {
            Error::new(
                ErrorKind::Validation,
                format!("{} is no backup: expected it to start with SLBK", path.display()),
            )
            .with_hint("name a file that `syncledger backup` or `syncledger archive` wrote")
        };
        let mut prefix = self.take_up_to(file::PREFIX_BYTES as u64)?;
        if prefix.get(..4) != Some(file::MAGIC) {
            return Err(no_backup(&self.path));
        }
        match prefix.get(4) {
            Some(&file::VERSION) => {}
            Some(found) => return Err(self.upgrade(*found)),
            None => return Err(self.fault("it breaks off in its head")),
        }
        let length = prefix.last_chunk::<4>().filter(|_| prefix.len() == file::PREFIX_BYTES);
        let length = length.map_or(usize::MAX, |bytes| u32::from_le_bytes(*bytes) as usize);
        if length > file::MOST_HEAD_BYTES {
            return Err(self.fault("its head is cut off, or longer than any"));
        }
        prefix.extend(self.take(length as u64)?);
        let hash = self.take(32)?;
        if file::begin(&prefix)[..] != hash[..] {
            return Err(self.fault("the hash of its head does not fit"));
        }
        let head = Head::decode(prefix.get(file::PREFIX_BYTES..).unwrap_or_default());
        self.head = head.ok_or_else(|| self.fault("its head breaks the rules of heads"))?;
        (self.due, self.chain) = (self.head.first, file::begin(&prefix));
        Ok(())
    }

    fn upgrade(&self, found: u8) -> Error {
        let (path, known) = (self.path.display(), file::VERSION);
        Error::new(ErrorKind::UpgradeNeeded, format!("{path} has format version {found}, this program reads {known}"))
            .with_hint("install a newer syncledger and try again")
    }

    /// The next part; `None` at the end of a whole file.
    pub(in crate::ledger) fn next(&mut self) -> Result<Option<Part>> {
        if self.ended {
            return Ok(None);
        }
        if let Some(events) = self.next_block()? {
            return Ok(Some(Part::Events(events)));
        }
        match self.take(1)?.first() {
            Some(&file::SEGMENT) => {
                self.open_segment()?;
                self.next()
            }
            Some(&file::BLOB) => self.read_blob().map(Some),
            Some(&file::END) => self.read_end().map(|()| None),
            _ => Err(self.fault("expected a segment, a large value or the end")),
        }
    }

    fn open_segment(&mut self) -> Result<()> {
        let prefix = self.take(segment::Head::PREFIX_BYTES as u64)?;
        let length = segment::Head::bytes(&prefix).map_err(|fault| self.damaged(fault))?;
        let rest = self.take((length - prefix.len()) as u64)?;
        let head = segment::Head::decode(&[prefix, rest].concat()).map_err(|fault| self.damaged(fault))?;
        if head.ledger != self.head.ledger {
            let (expected, found) = (self.head.ledger, head.ledger);
            return Err(self.damaged(SegmentFault::OtherLedger { expected, found }));
        }
        self.chain = file::chain(self.chain, file::SEGMENT, &head.root);
        self.body = self.offset;
        self.segment = Some(segment::Reader::new(head));
        Ok(())
    }

    /// The next block of the segment that is being read.
    fn next_block(&mut self) -> Result<Option<Vec<Item>>> {
        let Some(block) = self.segment.as_ref().and_then(segment::Reader::next_block) else {
            let index = self.segment.take().and_then(segment::Reader::into_index);
            if let (Some(index), Some(indexes)) = (index, &mut self.indexes) {
                indexes.push((self.body, index));
            }
            return Ok(None);
        };
        let stored = self.take(block.stored as u64)?;
        let Some(segment) = &mut self.segment else { return Ok(None) };
        let items = segment.read(&stored).map_err(|fault| self.damaged(fault))?;
        for item in &items {
            if item.position != self.due || item.position > self.head.last {
                return Err(self.fault(&format!("expected position {}, got {}", self.due, item.position)));
            }
            let lacks = |hash: &BlobHash| !self.is_log && !self.blobs.contains(hash);
            if let Some(hash) = blobs_of(&item.event).find(lacks) {
                return Err(
                    self.fault(&format!("position {} names the large value {hash}, which it lacks", self.due))
                );
            }
            self.due += 1;
        }
        Ok(Some(items))
    }

    fn read_blob(&mut self) -> Result<Part> {
        let (length, hash) = (self.take(8)?, self.take(32)?);
        let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
        let hash = BlobHash(hash.try_into().unwrap_or_default());
        if length > MAX_BLOB_BYTES as u64 {
            return Err(self.fault("it holds a larger value than any may be"));
        }
        let content = self.take(length)?;
        if BlobHash::of(&content) != hash || !self.blobs.insert(hash) {
            return Err(
                self.fault(&format!("the content of the large value {hash} has another hash, or stands twice"))
            );
        }
        self.chain = file::chain(self.chain, file::BLOB, &hash.0);
        Ok(Part::Blob(content))
    }

    fn read_end(&mut self) -> Result<()> {
        let end = self.take(file::END_BYTES as u64)?;
        let events = self.due - self.head.first;
        if [&[file::END][..], &end].concat() != file::end(self.chain, events, self.blobs.len() as u64) {
            return Err(self.fault("its end does not fit what it held"));
        }
        if self.due != self.head.last + 1 {
            return Err(self.fault("it ends early"));
        }
        if !self.take_up_to(1)?.is_empty() {
            return Err(self.fault("bytes follow its end"));
        }
        self.ended = true;
        Ok(())
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>> {
        let bytes = self.take_up_to(length)?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(self.cut()) }
    }

    /// Memory grows with what there is, not with what a length claims.
    fn take_up_to(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut bytes);
        self.offset += read.map_err(|fault| Error::from(DiskError::of("read", &self.path)(fault)))? as u64;
        Ok(bytes)
    }

    /// What is not read yet.
    fn missing(&self) -> String {
        match (self.due, self.head.last) {
            (due, last) if due < last => format!("positions {due} to {last} are missing"),
            (due, last) if due == last => format!("position {due} is missing"),
            _ => "no event is missing".to_owned(),
        }
    }

    fn cut(&self) -> Error {
        let message = format!("{} breaks off at byte {}: {}", self.path.display(), self.offset, self.missing());
        damage(message)
    }

    fn damaged(&self, fault: SegmentFault) -> Error {
        let (path, missing) = (self.path.display(), self.missing());
        let message = format!("{path} is damaged before byte {}: {fault}; {missing}", self.offset);
        match fault.kind() {
            ErrorKind::UpgradeNeeded => Error::from(fault),
            _ => damage(message).with_source(fault),
        }
    }

    fn fault(&self, what: &str) -> Error {
        let (path, missing) = (self.path.display(), self.missing());
        damage(format!("{path} is damaged before byte {}: {what}; {missing}", self.offset))
    }
}

fn damage(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message).with_hint(
        "use another copy of the file, or give --partial to take what comes before, and pull the rest from a replica",
    )
}
