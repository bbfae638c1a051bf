//! The only calls into sled, each with its panics caught and its errors made ours.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::super::error::JournalError;
use super::super::sealed::corrupt;
use super::parts::{self, Parts};
use crate::disk::{self, DiskError};

/// The default is 1 GiB; what is read often is cached above the journal.
const CACHE_BYTES: u64 = 64 << 20;
/// sled lets go of its own lock a moment after its handle was dropped. We hold the store's lock here, so there is no
/// other holder to wait for.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// After so long a flush that has not ended is looked after.
const FLUSHED_AGAIN: Duration = Duration::from_secs(1);
/// How many keys are removed at once when a ledger is dropped: who appends waits for them.
const ERASE_KEYS: usize = 64;
/// How many keys are copied at once.
const COPIED_KEYS: usize = 256;
/// Sled's own settings, which are always the same.
pub(super) const CONF: &str = "conf";

/// An open sled tree.
pub(super) struct Engine {
    /// There until it is dropped.
    db: Option<::sled::Db>,
    dir: PathBuf,
    /// Our own handle of its data file, for `fdatasync`.
    data: File,
}

impl Engine {
    /// Opens sled in `dir` and nothing else: no repair, no retry.
    pub(super) fn open(dir: &Path) -> Result<Self, JournalError> {
        let config = ::sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let mut tries = 0;
        loop {
            match guarded(dir, || config.open().map_or_else(still_held, |db| Ok(Some(db))))? {
                Some(db) => return Ok(Self { db: Some(db), dir: dir.to_owned(), data: data_file(dir)? }),
                None if tries == LOCK_TRIES => return Err(JournalError::Locked { path: dir.to_owned(), pid: None }),
                None => std::thread::sleep(LOCK_PAUSE),
            }
            tries += 1;
        }
    }

    fn db(&self) -> Result<&::sled::Db, JournalError> {
        self.db.as_ref().ok_or(JournalError::Closed)
    }

    /// Takes in an encoded frame, which is readable from then on and durable after [`Engine::make_durable`]. A crash before
    /// that may leave a part of the frame, and then nothing of what was put after it. Sled writes each batch to the disk
    /// by itself, with all its threads; this it does not.
    pub(super) fn put(&self, number: u32, first: u64, encoded: &[u8]) -> Result<(), JournalError> {
        let db = self.db()?;
        parts::split(number, first, encoded)
            .try_for_each(|(key, bytes)| guarded(&self.dir, || db.insert(key, bytes)).map(drop))
    }

    fn apply(&self, batch: ::sled::Batch) -> Result<(), JournalError> {
        let db = self.db()?;
        guarded(&self.dir, || db.apply_batch(batch))
    }

    /// Makes everything durable that was applied before: sled's own flush does not fsync.
    pub(super) fn make_durable(&self) -> Result<(), JournalError> {
        let db = self.db()?;
        guarded(&self.dir, || flush(db))?;
        Ok(self.data.sync_data().map_err(DiskError::of("fsync", &data_path(&self.dir)))?)
    }

    /// The encoded frames of ledger `number`, from the one that should hold `position`.
    pub(super) fn frames_from(&self, number: u32, position: u64) -> Result<Parts<'_>, JournalError> {
        let first = self.first_at_or_before(number, position)?.unwrap_or(position);
        let keys = parts::key(number, first, 0)..=parts::key(number, u64::MAX, u16::MAX);
        let db = self.db()?;
        Ok(Parts::new(&self.dir, guarded(&self.dir, || Ok(db.range(keys)))?))
    }

    /// The first position of the last frame of ledger `number`.
    pub(super) fn last_first(&self, number: u32) -> Result<Option<u64>, JournalError> {
        self.first_at_or_before(number, u64::MAX)
    }

    fn first_at_or_before(&self, number: u32, position: u64) -> Result<Option<u64>, JournalError> {
        let keys = parts::key(number, 0, 0)..=parts::key(number, position, u16::MAX);
        let db = self.db()?;
        let found = guarded(&self.dir, || db.range(keys).next_back().transpose())?;
        found.map(|(key, _)| parts::parse(&self.dir, &key).map(|key| key.first)).transpose()
    }

    /// The numbers that have any frames, in order.
    pub(super) fn numbers(&self) -> Result<Vec<u32>, JournalError> {
        let (db, mut numbers) = (self.db()?, Vec::new());
        let mut from = Some(0);
        while let Some(number) = from {
            let keys = parts::key(number, 0, 0)..;
            let Some((key, _)) = guarded(&self.dir, || db.range(keys).next().transpose())? else { break };
            let found = parts::parse(&self.dir, &key)?.number;
            numbers.push(found);
            from = found.checked_add(1);
        }
        Ok(numbers)
    }

    /// How many bytes the frames of ledger `number` have that begin before `position`, and the others.
    pub(super) fn bytes_around(&self, number: u32, position: u64) -> Result<(u64, u64), JournalError> {
        let db = self.db()?;
        let sum = |keys: std::ops::Range<[u8; parts::KEY_BYTES]>| {
            let bytes = |entry: Result<(::sled::IVec, ::sled::IVec), _>| entry.map(|(_, value)| value.len() as u64);
            guarded(&self.dir, || db.range(keys).map(bytes).sum::<Result<u64, _>>())
        };
        let (first, middle) = (parts::key(number, 0, 0), parts::key(number, position, 0));
        Ok((sum(first..middle)?, sum(middle..parts::key(number, u64::MAX, u16::MAX))?))
    }

    /// Copies the frames of ledger `number` that begin at `position` or later. Returns where the last of them begins, and
    /// how many bytes they have.
    pub(super) fn copy_from(
        &self,
        number: u32,
        position: u64,
        to: &Self,
    ) -> Result<(Option<u64>, u64), JournalError> {
        let keys = parts::key(number, position, 0)..=parts::key(number, u64::MAX, u16::MAX);
        let (mut entries, mut last, mut bytes) = (self.db()?.range(keys), None, 0);
        loop {
            let some: Vec<_> = guarded(&self.dir, || entries.by_ref().take(COPIED_KEYS).collect())?;
            let Some((key, _)) = some.last() else { return Ok((last, bytes)) };
            last = Some(parts::parse(&self.dir, key)?.first);
            bytes += some.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
            let mut batch = ::sled::Batch::default();
            some.into_iter().for_each(|(key, value)| batch.insert(key, value));
            to.apply(batch)?;
        }
    }

    /// Removes all frames of ledger `number`, the last first, so that what a crash leaves has no gap.
    pub(super) fn erase(&self, number: u32) -> Result<(), JournalError> {
        let db = self.db()?;
        loop {
            let keys = parts::key(number, 0, 0)..=parts::key(number, u64::MAX, u16::MAX);
            let found = db.range(keys).rev().take(ERASE_KEYS).map(|entry| entry.map(|(key, _)| key));
            let last: Vec<_> = guarded(&self.dir, || found.collect())?;
            if last.is_empty() {
                return Ok(());
            }
            let mut batch = ::sled::Batch::default();
            last.into_iter().for_each(|key| batch.remove(key));
            self.apply(batch)?;
        }
    }
}

/// Sled's flush. Where a write fails in one of sled's own threads, who waits for that write is not always woken (0.34.7 sets its error
/// in `Reservation::drop` and tells nobody); another flush finds the error, and wakes everybody. So after a while there is another.
fn flush(db: &::sled::Db) -> Result<usize, ::sled::Error> {
    std::thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::Builder::new().name("syncledger-flush".into());
        // Without such a thread nobody looks after it.
        let _ = watch.spawn_scoped(scope, move || {
            let mut pause = FLUSHED_AGAIN;
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let db = db.clone();
                // It may wait as long as the first; and it may be the last that holds the database.
                let again = move || drop(catch_unwind(AssertUnwindSafe(move || db.flush().map(drop))));
                let _ = std::thread::Builder::new().name("syncledger-again".into()).spawn(again);
                pause *= 2;
            }
        });
        let flushed = db.flush();
        drop(done);
        flushed
    })
}

impl Drop for Engine {
    /// Sled panics where its last fsync fails. What was acknowledged does not depend on that one.
    fn drop(&mut self) {
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(dir = %self.dir.display(), "the storage engine could not write down its last state: the next start replays it");
        }
    }
}

fn data_path(dir: &Path) -> PathBuf {
    dir.join("db")
}

/// Sled's data file, once it is sure to be found again: sled fsyncs neither its settings nor its directory.
fn data_file(dir: &Path) -> Result<File, JournalError> {
    let (path, conf) = (data_path(dir), dir.join(CONF));
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(DiskError::of("open", &path))?;
    File::open(&conf).and_then(|conf| conf.sync_all()).map_err(DiskError::of("fsync", &conf))?;
    disk::sync_dir(dir)?;
    Ok(file)
}

/// Runs a call into sled: a panic there means files that it does not understand.
pub(super) fn guarded<T>(dir: &Path, call: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, JournalError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|fault| convert(dir, fault)),
        Err(_) => Err(corrupt(dir, "the storage engine panicked on its files")),
    }
}

/// `None` if the fault is that sled's own lock is still held, which it tells only in words.
fn still_held(fault: ::sled::Error) -> Result<Option<::sled::Db>, ::sled::Error> {
    match &fault {
        ::sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock") => Ok(None),
        _ => Err(fault),
    }
}

fn convert(dir: &Path, fault: ::sled::Error) -> JournalError {
    match fault {
        ::sled::Error::Io(source) if !is_damage(source.kind()) => {
            JournalError::Disk(DiskError { action: "use the storage engine in", path: dir.to_owned(), source })
        }
        other => corrupt(dir, format!("the storage engine says: {other}")),
    }
}

fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput)
}
