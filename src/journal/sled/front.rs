//! The front: where appends become durable, before the engine has them.
//!
//! ```text
//! front-0  front-1      written in turn; room for entries is made before they come
//! entry    "SLFN"  version u8  sequence u64  count u32  length u64  frames (length bytes)  checksum [u8; 32]
//! frame    ledger [u8; 16]  length u32  the encoded frame
//! ```
//! Integers are little-endian; an entry begins at a multiple of 512 bytes, so that no durable byte is ever written again.
//! The checksum is a blake3, keyed by the store's id, over everything before it but the insides of frames, of which it
//! covers their own checksums. An entry without frames says that the engine holds all that came before it.
//!
//! The engine's own flush waits for two things in turn and wakes its eight threads; one write into room that is there
//! already, and one `fdatasync`, take a third of the time (decision 17). The engine takes the frames after that, into
//! memory. It is made durable when a file is full, while the other is written.
//!
//! Invariant: what is in a file is overwritten only when the engine holds it durably.
//! Invariant: the entries that are wanted are consecutive; only the last of all may be torn, and nobody was told of it.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::super::error::JournalError;
use super::super::frame::{Checksum, Frame, stored_checksum};
use super::super::reader::Reader;
use super::super::sealed;
use super::ballast;
use crate::disk::{self, DiskError};
use crate::event::LedgerId;

/// Magic and version. An entry of another version is none: a store that may have such has another version itself.
const MAGIC: &[u8; 5] = b"SLFN\x01";
const CONTEXT: &str = "syncledger 2026-11 front entry checksum v1";
const NAMES: [&str; 2] = ["front-0", "front-1"];
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How much room is made at once.
const ROOM_BYTES: u64 = 256 << 10;
/// From how many bytes on the other file is written.
const FULL_BYTES: u64 = 1 << 20;
/// How much memory is kept for the next entry.
const KEPT_BYTES: usize = 1 << 20;

/// An encoded frame of a ledger.
type Framed = (LedgerId, Vec<u8>);

/// Makes the engine durable: runs in a thread of its own.
pub(super) type Cover = Box<dyn FnOnce() -> Result<(), JournalError> + Send>;

/// One of the two files.
struct Slot {
    path: PathBuf,
    file: File,
    /// Up to where there is room.
    room: u64,
}

impl Slot {
    fn open(dir: &Path, name: &str) -> Result<Self, JournalError> {
        let path = dir.join(name);
        let is_new = !path.try_exists().map_err(DiskError::of("look for", &path))?;
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(DiskError::of("open", &path))?;
        if is_new {
            disk::sync_dir(dir)?;
        }
        let room = file.metadata().map_err(DiskError::of("look at", &path))?.len();
        Ok(Self { path, file, room })
    }

    /// How much room has to be made for something that ends there.
    fn lacks(&self, end: u64) -> u64 {
        end.next_multiple_of(ROOM_BYTES).saturating_sub(self.room)
    }

    /// Writes an entry, durably.
    fn write(&mut self, offset: u64, entry: &[u8]) -> Result<(), JournalError> {
        let lacking = self.lacks(offset + entry.len() as u64);
        if lacking > 0 {
            let zeros = vec![0; lacking as usize];
            disk::write_all_at(&self.file, &zeros, self.room).map_err(DiskError::of("write", &self.path))?;
            self.room += lacking;
        }
        disk::write_all_at(&self.file, entry, offset).map_err(DiskError::of("write", &self.path))?;
        Ok(self.file.sync_data().map_err(DiskError::of("fsync", &self.path))?)
    }
}

/// The two files, open for writing.
pub(super) struct Front {
    dir: PathBuf,
    key: [u8; 32],
    slots: [Slot; 2],
    /// Which of them is written, and where.
    current: usize,
    end: u64,
    /// From how many bytes on the other one is written.
    full: u64,
    /// The number of the last entry.
    sequence: u64,
    /// Whether the ballast is in place.
    has_reserve: bool,
    /// Whether there is an entry that the engine may not hold durably.
    is_clear: bool,
    /// Who makes durable what the other file holds.
    covering: Option<JoinHandle<Result<(), JournalError>>>,
    entry: Vec<u8>,
}

/// What the files held when the store was opened.
pub(super) struct Found {
    /// The frames that the engine may lack, entry by entry in the order in which they were appended.
    pub(super) entries: Vec<Vec<Framed>>,
    current: usize,
    end: u64,
    sequence: u64,
}

impl Found {
    /// Reads the files in `dir`; that there is none is nothing found.
    pub(super) fn read(dir: &Path, store: [u8; 16]) -> Result<Self, JournalError> {
        let key = blake3::derive_key(CONTEXT, &store);
        let mut read = Vec::new();
        for (slot, name) in NAMES.iter().enumerate() {
            let path = dir.join(name);
            let bytes = disk::read(&path)?.unwrap_or_default();
            entries(&key, &bytes, |entry, end| read.push((entry.sequence, slot, end, entry.frames)));
        }
        read.sort_by_key(|(sequence, ..)| *sequence);
        let last = read.last().map_or((0, 0, 0), |(sequence, slot, end, _)| (*sequence, *slot, *end));
        let wanted = read.iter().rposition(|(.., frames)| frames.is_empty()).map_or(0, |clear| clear + 1);
        let entries = read.into_iter().skip(wanted).map(|(.., frames)| frames).collect();
        Ok(Self { entries, sequence: last.0, current: last.1, end: last.2 })
    }

    /// Opens the files for what comes next. All that was found must be durable in the engine by now, or not be wanted.
    pub(super) fn begin(self, dir: &Path, store: [u8; 16]) -> Result<Front, JournalError> {
        let [first, second] = NAMES;
        let mut front = Front {
            dir: dir.to_owned(),
            key: blake3::derive_key(CONTEXT, &store),
            slots: [Slot::open(dir, first)?, Slot::open(dir, second)?],
            current: self.current,
            end: self.end,
            full: FULL_BYTES,
            sequence: self.sequence,
            has_reserve: false,
            is_clear: self.entries.is_empty(),
            covering: None,
            entry: Vec::new(),
        };
        front.clear()?;
        Ok(front)
    }
}

impl Front {
    /// Makes frames durable, all or none. `cover` makes everything durable that the engine was given before.
    pub(super) fn append<'a>(
        &mut self,
        frames: impl Iterator<Item = (LedgerId, &'a [u8])>,
        cover: impl FnOnce() -> Cover,
    ) -> Result<(), JournalError> {
        if self.end >= self.full {
            self.turn(cover())?;
        }
        self.encode(frames);
        let lacking = self.slot().lacks(self.end + self.entry.len() as u64);
        if lacking > 0 || !self.has_reserve {
            self.reserve(lacking)?;
        }
        self.is_clear = false;
        self.store()
    }

    /// From how many bytes on the other file is written, where that is less than is usual.
    pub(super) fn turn_after(&mut self, bytes: u64) {
        self.full = bytes.min(FULL_BYTES);
    }

    /// Keeps as much in reserve as the engine may have to take from the files, once they have so many bytes more.
    pub(super) fn reserve(&mut self, more: u64) -> Result<(), JournalError> {
        self.has_reserve = false;
        let bytes: u64 = self.slots.iter().map(|slot| slot.room).sum();
        ballast::keep(&self.dir, bytes + more)?;
        self.has_reserve = true;
        Ok(())
    }

    /// Says that the engine holds everything durably, or that what it does not hold is not wanted.
    pub(super) fn clear(&mut self) -> Result<(), JournalError> {
        self.covered()?;
        if !self.is_clear {
            self.encode(std::iter::empty());
            self.store()?;
            self.is_clear = true;
        }
        Ok(())
    }

    /// Waits until nobody makes the engine durable any more.
    pub(super) fn covered(&mut self) -> Result<(), JournalError> {
        let Some(covering) = self.covering.take() else { return Ok(()) };
        let panicked = || sealed::corrupt(&self.slot().path, "the thread that makes the engine durable panicked");
        covering.join().unwrap_or_else(|_| Err(panicked()))
    }

    /// Goes over to the other file, once that is free, and has the engine made durable meanwhile.
    fn turn(&mut self, cover: Cover) -> Result<(), JournalError> {
        self.covered()?;
        let thread = std::thread::Builder::new().name("syncledger-front".into()).spawn(cover);
        let started = |source| DiskError { action: "start a thread for", path: self.slot().path.clone(), source };
        self.covering = Some(thread.map_err(started)?);
        (self.current, self.end) = (1 - self.current, 0);
        let slot = self.slot_mut();
        // A large commit made it larger than it has to stay.
        if slot.room > 2 * FULL_BYTES {
            slot.file.set_len(FULL_BYTES).map_err(DiskError::of("shorten", &slot.path))?;
            slot.room = FULL_BYTES;
        }
        Ok(())
    }

    /// Makes the next entry: no entry before that is stored has its number.
    fn encode<'a>(&mut self, frames: impl Iterator<Item = (LedgerId, &'a [u8])>) {
        encode(&mut self.entry, &self.key, self.sequence + 1, frames);
        self.entry.resize(self.entry.len().next_multiple_of(SECTOR), 0);
    }

    /// Writes that entry, durably.
    fn store(&mut self) -> Result<(), JournalError> {
        let (end, entry) = (self.end, std::mem::take(&mut self.entry));
        self.slot_mut().write(end, &entry)?;
        (self.sequence, self.end) = (self.sequence + 1, end + entry.len() as u64);
        self.entry = entry;
        self.entry.clear();
        self.entry.shrink_to(KEPT_BYTES);
        Ok(())
    }

    fn slot_mut(&mut self) -> &mut Slot {
        let [first, second] = &mut self.slots;
        if self.current == 0 { first } else { second }
    }

    fn slot(&self) -> &Slot {
        let [first, second] = &self.slots;
        if self.current == 0 { first } else { second }
    }
}

/// An entry, read.
struct Entry {
    sequence: u64,
    frames: Vec<Framed>,
}

fn encode<'a>(
    entry: &mut Vec<u8>,
    key: &[u8; 32],
    sequence: u64,
    frames: impl Iterator<Item = (LedgerId, &'a [u8])>,
) {
    entry.clear();
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(&sequence.to_le_bytes());
    entry.extend_from_slice(&[0; 4 + 8]);
    let head = entry.len();
    let (mut count, mut sum) = (0_u32, blake3::Hasher::new_keyed(key));
    for (ledger, encoded) in frames {
        // A frame has at most 16 MiB.
        let length = (encoded.len() as u32).to_le_bytes();
        entry.extend_from_slice(ledger.as_bytes());
        entry.extend_from_slice(&length);
        entry.extend_from_slice(encoded);
        sum.update(ledger.as_bytes()).update(&length).update(&stored_checksum(encoded));
        count += 1;
    }
    let length = (entry.len() - head) as u64;
    if let Some(counts) = entry.get_mut(head - 12..head) {
        let bytes = count.to_le_bytes().into_iter().chain(length.to_le_bytes());
        counts.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
    sum.update(entry.get(..head).unwrap_or_default());
    entry.extend_from_slice(sum.finalize().as_bytes());
}

/// Shows every entry that is whole, with where it ends. What is none, because it was torn, overwritten or damaged, is
/// passed over: whether the engine lacks it shows in the positions.
fn entries(key: &[u8; 32], bytes: &[u8], mut show: impl FnMut(Entry, u64)) {
    let (mut rest, mut offset) = (bytes, 0);
    while !rest.is_empty() {
        let found = decode(key, rest);
        let taken = found.as_ref().map_or(1, |(_, length)| *length).next_multiple_of(SECTOR);
        offset += taken as u64;
        found.into_iter().for_each(|(entry, _)| show(entry, offset));
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// The entry at the beginning of `bytes` and its length; `None` where there is none that is whole.
fn decode(key: &[u8; 32], bytes: &[u8]) -> Option<(Entry, usize)> {
    let mut reader = Reader::new(bytes);
    reader.array().filter(|magic| magic == MAGIC)?;
    let (sequence, count, length) = (reader.u64()?, reader.u32()?, reader.u64()?);
    let head = bytes.len() - reader.rest().len();
    let mut body = Reader::new(reader.take(usize::try_from(length).ok()?)?);
    let (mut frames, mut sum) = (Vec::new(), blake3::Hasher::new_keyed(key));
    for _ in 0..count {
        let (ledger, length) = (LedgerId(body.array()?), body.u32()?);
        let encoded = body.take(length as usize)?;
        sum.update(ledger.as_bytes()).update(&length.to_le_bytes()).update(&stored_checksum(encoded));
        frames.push((ledger, encoded));
    }
    sum.update(bytes.get(..head)?);
    let checksum: Checksum = reader.array()?;
    if !body.is_empty() || sum.finalize() != checksum {
        return None;
    }
    let frames = frames.into_iter().map(|(ledger, encoded)| {
        // The checksum of the entry is that of the frames' checksums; theirs are of the bytes.
        Frame::decode(ledger, encoded).ok().map(|_| (ledger, encoded.to_vec()))
    });
    let frames = frames.collect::<Option<Vec<_>>>()?;
    Some((Entry { sequence, frames }, bytes.len() - reader.rest().len()))
}

#[cfg(test)]
impl Front {
    /// Makes every later `fdatasync` fail: the null device cannot be synced.
    pub(super) fn break_disk(&mut self) {
        for slot in &mut self.slots {
            slot.file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        }
    }
}
