//! A record with many changes, which lie among those of others: of its registers, or of one text.

use std::time::{Duration, Instant};

use syncledger::event::Path;
use syncledger::ledger::{Act, AsOf, Context, Edit, Entry, Look, Place, Revision, Write};

use crate::Result;
use crate::bench::{BATCH, Bench, COLLECTION, PULL, patch};
use crate::floor::{Raw, Table};
use crate::record::{Rng, key};
use crate::report::{Report, Sample, Took, Watch};
use crate::work::Sizes;

/// How often one patch, and one look at a moment, are timed.
const TIMES: usize = 100;
/// How often the whole history is.
const HISTORIES: usize = 3;
/// After so long enough was timed, however few that are.
const ENOUGH: Duration = Duration::from_secs(10);

/// Patches of single fields.
pub fn registers(sizes: &Sizes, report: &mut Report) -> Result<()> {
    for changes in sizes.changes {
        let bench = Bench::with_records(BATCH)?;
        let record = format!("a record with {changes} changes");
        Long { bench, changes, record, change: |nth| Ok(patch(0, nth)) }.measure(report)?;
    }
    Ok(())
}

/// Edits of one text: two letters are typed somewhere, and every second time one letter goes.
pub fn text(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let changes = sizes.changes[1];
    let bench = Bench::with_records(BATCH)?;
    let make = Act::Edit(vec![Edit::MakeText(notes()?)]);
    bench.ledger.write(Write::new(COLLECTION, key(0), make), &Context::default())?;
    let record = format!("a record with {changes} changes of a text");
    Long { bench, changes, record, change: typed }.measure(report)
}

fn notes() -> Result<Path> {
    Ok(Path::root().join("notes")?)
}

fn typed(nth: usize) -> Result<Write> {
    let delete = nth % 2;
    let length = nth / 2 * 3 + delete * 2;
    let index = Rng(nth as u64).below(length + 1 - delete) as u64;
    let place = Place::Path(notes()?);
    let splice = Edit::SpliceText { place, index, delete: delete as u64, insert: "ab".to_owned() };
    Ok(Write::new(COLLECTION, key(0), Act::Edit(vec![splice])))
}

/// The first record of a ledger, which gets many changes.
struct Long {
    bench: Bench,
    changes: usize,
    /// What the record is called in the tables.
    record: String,
    /// Its n-th change.
    change: fn(usize) -> Result<Write>,
}

impl Long {
    fn measure(&self, report: &mut Report) -> Result<()> {
        self.write(report)?;
        self.patch(report)?;
        self.read(report)
    }

    /// Every second write is of the record, the others are spread over those beside it.
    fn write(&self, report: &mut Report) -> Result<()> {
        let after = self.bench.ledger.position();
        let write = |nth: usize| match nth % 2 {
            0 => (self.change)(nth / 2),
            _ => Ok(patch(1 + nth % (BATCH - 1), nth)),
        };
        let took = self.bench.write((0..self.changes * 2).map(write).collect::<Result<_>>()?)?;
        let name = format!("256 a batch, half of them on {}", self.record);
        report.add(name, self.bench.sample(after, BATCH, took)?);
        Ok(())
    }

    /// One caller that waits for each.
    fn patch(&self, report: &mut Report) -> Result<()> {
        let writes: Vec<Write> = (self.changes..self.changes + TIMES).map(self.change).collect::<Result<_>>()?;
        let sample = self.bench.by_turns(&writes)?;
        report.add(format!("one patch of {}", self.record), sample);
        Ok(())
    }

    fn read(&self, report: &mut Report) -> Result<()> {
        let (raw, sqlite) = self.floor()?;
        let mut add = |what: &str, of_each: usize, unit: &str, took: Took| {
            let times = took.steps.len();
            let sample = Sample::of(of_each * times, unit).ledger(took);
            let sample = sample.raw(times_over(raw, times)).sqlite(times_over(sqlite, times));
            report.add(format!("{what} of {}", self.record), sample);
        };
        let (history, took) = self.histories()?;
        add("history", history.len(), "revisions", took);
        add("as_of a position", 1, "reads", self.looks(&history, |entry| AsOf::Position(entry.position))?);
        add("as_of a time", 1, "reads", self.looks(&history, |entry| AsOf::Time(entry.event.at.millis))?);
        Ok(())
    }

    fn histories(&self) -> Result<(Vec<Revision>, Took)> {
        let mut history = Vec::new();
        let took = repeated(HISTORIES, || {
            history = self.bench.ledger.history(COLLECTION, &key(0))?;
            Ok(())
        })?;
        Ok((history, took))
    }

    /// Looks at the record at moments anywhere in its history.
    fn looks(&self, history: &[Revision], moment: fn(&Entry) -> AsOf) -> Result<Took> {
        let mut rng = Rng(7);
        repeated(TIMES, || {
            let as_of = Some(moment(&history[rng.below(history.len())].entry));
            self.bench.ledger.look(COLLECTION, &key(0), &Look { as_of, policy: None })?;
            Ok(())
        })
    }

    /// How long the floor takes to read as many events as the record has.
    fn floor(&self) -> Result<(Duration, Duration)> {
        let dir = tempfile::tempdir_in(self.bench.dir.path())?;
        let (mut file, mut table) = (Raw::create(dir.path())?, Table::create(dir.path())?);
        let events: Vec<Vec<u8>> = self.bench.events(0)?.into_iter().step_by(2).take(self.changes).collect();
        file.append(&events, PULL)?;
        table.append(&events, PULL)?;
        Ok((file.read()?, table.read()?))
    }
}

/// Does something so often, or until that took long enough.
fn repeated(times: usize, mut work: impl FnMut() -> Result<()>) -> Result<Took> {
    let (watch, mut steps) = (Watch::start(), Vec::with_capacity(times));
    while steps.len() < times && steps.iter().sum::<Duration>() < ENOUGH {
        let started = Instant::now();
        work()?;
        steps.push(started.elapsed());
    }
    Ok(watch.stop_with(steps))
}

fn times_over(took: Duration, times: usize) -> Duration {
    took * u32::try_from(times).unwrap_or(u32::MAX)
}
