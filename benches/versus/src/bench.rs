//! A ledger in a directory of its own, written to in batches, with the floor beside it.

use std::path::Path;
use std::time::Instant;

use syncledger::ledger::{Act, Context, Ledger, LogQuery, Write};
use tempfile::TempDir;

use crate::Result;
use crate::floor::{Raw, Table};
use crate::record::{key, one_field, ten_fields};
use crate::report::{Sample, Took, Watch};

pub const COLLECTION: &str = "issues";
/// How many events a batch has.
pub const BATCH: usize = 256;
/// How many events a pull commits at once.
pub const PULL: usize = 2_048;
/// After how many writes of one caller it is the floor's turn.
const TURN: usize = 16;

pub struct Bench {
    pub ledger: Ledger,
    pub dir: TempDir,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { ledger: Ledger::open(dir.path().join("store"))?, dir })
    }

    /// A ledger with records of ten fields.
    pub fn with_records(records: usize) -> Result<Self> {
        let bench = Self::new()?;
        bench.create(records)?;
        Ok(bench)
    }

    pub fn create(&self, records: usize) -> Result<Took> {
        self.write((0..records).map(put).collect())
    }

    /// Writes in batches, and what memory alone holds at the end: sealing and checkpoints are part of a lasting rate.
    pub fn write(&self, writes: Vec<Write>) -> Result<Took> {
        let mut batches: Vec<Vec<Write>> = writes.chunks(BATCH).map(<[Write]>::to_vec).collect();
        drop(writes);
        let (watch, mut steps) = (Watch::start(), Vec::with_capacity(batches.len()));
        for batch in batches.drain(..) {
            let started = Instant::now();
            self.ledger.write_all(batch, &Context::default())?;
            steps.push(started.elapsed());
        }
        self.ledger.store().checkpoint()?;
        Ok(watch.stop_with(steps))
    }

    /// The encoded events after a position: what the floor writes.
    pub fn events(&self, after: u64) -> Result<Vec<Vec<u8>>> {
        let (mut events, mut query) = (Vec::new(), LogQuery { after, limit: Some(PULL), ..LogQuery::default() });
        loop {
            let entries = self.ledger.log(&query)?;
            let Some(last) = entries.last() else { return Ok(events) };
            query.after = last.position;
            for entry in &entries {
                events.push(entry.event.encode()?);
            }
        }
    }

    /// A sample of what took so long, beside the floor's writing the same events in as many commits.
    pub fn sample(&self, after: u64, per_commit: usize, ledger: impl Into<Took>) -> Result<Sample> {
        let events = self.events(after)?;
        let dir = tempfile::tempdir_in(self.dir.path())?;
        let raw = Raw::create(dir.path())?.append(&events, per_commit)?;
        let mut table = Table::create(dir.path())?;
        let sqlite = Took::from(table.append(&events, per_commit)?);
        // Lasting rates count checkpoints, the ledger's and the table's.
        let sqlite = sqlite.and(table.checkpoint()?);
        let bytes = Some(self.bytes_per_event()?);
        Ok(Sample { bytes, ..Sample::of(events.len(), "events").ledger(ledger).raw(raw).sqlite(sqlite) })
    }

    /// One caller that waits for each write, here and with the floor, by turns: a disk is slow or fast for both.
    pub fn by_turns(&self, writes: &[Write]) -> Result<Sample> {
        let dir = tempfile::tempdir_in(self.dir.path())?;
        let (mut file, mut table) = (Raw::create(dir.path())?, Table::create(dir.path())?);
        let (watch, mut steps, mut raw, mut sqlite) = (Watch::start(), Vec::new(), Vec::new(), Vec::new());
        for turn in writes.chunks(TURN) {
            let after = self.ledger.position();
            for write in turn.iter().cloned() {
                let started = Instant::now();
                self.ledger.write(write, &Context::default())?;
                steps.push(started.elapsed());
            }
            let events = self.events(after)?;
            raw.extend(file.append(&events, 1)?);
            sqlite.extend(table.append(&events, 1)?);
        }
        let sample = Sample::of(raw.len(), "events").ledger(watch.stop_summed(steps)).raw(raw).sqlite(sqlite);
        Ok(Sample { bytes: Some(self.bytes_per_event()?), ..sample })
    }

    /// Of the whole store, after a checkpoint.
    fn bytes_per_event(&self) -> Result<(f64, f64)> {
        self.ledger.store().checkpoint()?;
        let events = self.ledger.position().max(1) as f64;
        let (log, rows, _) = self.ledger.status()?.bytes;
        Ok((log as f64 / events, rows as f64 / events))
    }
}

pub fn put(number: usize) -> Write {
    Write::new(COLLECTION, key(number), Act::Put(ten_fields(number)))
}

pub fn patch(record: usize, nth: usize) -> Write {
    Write::new(COLLECTION, key(record), Act::Patch(one_field(nth)))
}

/// Bytes of all files below a directory.
pub fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
