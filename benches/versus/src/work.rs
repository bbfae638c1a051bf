//! The work that is measured, each piece on stores of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use syncledger::event::EventId;
use syncledger::ledger::{Act, AsOf, Context, Delivery, Ledger, LogQuery, Look, Receipt, Write};
use tempfile::TempDir;

use crate::Result;
use crate::floor::{self, Table};
use crate::record::{Rng, Zipf, key, one_field, ten_fields};
use crate::report::{Report, Sample, Took};

const COLLECTION: &str = "issues";
/// How many events a batch has.
const BATCH: usize = 256;
/// How many events a pull commits at once.
pub const PULL: usize = 2_048;
const CALLERS: usize = 64;

/// How much is done in each round.
pub struct Sizes {
    records: usize,
    events: usize,
    alone: usize,
    gets: usize,
    pulled: usize,
    /// Copies of real issues.
    pub copies: usize,
    changes: [usize; 2],
}

impl Sizes {
    pub fn divided_by(scale: usize) -> Self {
        Self {
            records: 20_000 / scale,
            events: 51_200 / scale,
            alone: 1_024 / scale,
            gets: 200_000 / scale,
            pulled: 100_000 / scale,
            copies: 10_000 / scale,
            changes: [1_000 / scale, 10_000 / scale],
        }
    }
}

type Work = fn(&Sizes, &mut Report) -> Result<()>;

/// Every piece of work, with the name by which `--only` finds it.
pub const ALL: &[(&str, Work)] = &[
    ("alone", alone),
    ("callers", callers),
    ("create", create),
    ("batches", batches),
    ("zipf", zipf),
    ("concurrent", concurrent),
    ("get", get),
    ("long", long),
    ("rebuild", rebuild),
    ("pull", pull),
    ("import", import),
    ("backup", crate::files::backup),
    ("copies", crate::copies::copies),
];

/// A ledger in a directory of its own.
pub struct Bench {
    pub ledger: Ledger,
    pub dir: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { ledger: Ledger::open(dir.path().join("store"))?, dir })
    }

    /// A ledger with records of ten fields.
    fn with_records(records: usize) -> Result<Self> {
        let bench = Self::new()?;
        bench.create(records)?;
        bench.ledger.store().checkpoint()?;
        Ok(bench)
    }

    fn create(&self, records: usize) -> Result<Duration> {
        let writes: Vec<Write> = (0..records).map(|number| put(number)).collect();
        self.write(writes)
    }

    /// Writes in batches.
    fn write(&self, writes: Vec<Write>) -> Result<Duration> {
        let mut batches: Vec<Vec<Write>> = writes.chunks(BATCH).map(<[Write]>::to_vec).collect();
        let started = Instant::now();
        for batch in batches.drain(..) {
            self.ledger.write_all(batch, &Context::default())?;
        }
        Ok(started.elapsed())
    }

    /// The encoded events after a position: what the floor writes.
    pub fn events(&self, after: u64) -> Result<Vec<Vec<u8>>> {
        let entries = self.ledger.log(&LogQuery { after, ..LogQuery::default() })?;
        Ok(entries.iter().map(|entry| entry.event.encode()).collect::<std::result::Result<_, _>>()?)
    }

    /// A sample of what took so long, beside the floor's writing the same events in as many commits.
    fn sample(&self, after: u64, per_commit: usize, ledger: impl Into<Took>) -> Result<Sample> {
        let events = self.events(after)?;
        let raw = floor::append_raw(self.dir.path(), &events, per_commit)?;
        let sqlite = Table::create(self.dir.path())?.append(&events, per_commit)?;
        let (count, unit) = (events.len(), "events");
        let (raw, sqlite) = if per_commit == 1 {
            (Took::from(raw), Took::from(sqlite))
        } else {
            (raw.iter().sum::<Duration>().into(), sqlite.iter().sum::<Duration>().into())
        };
        let bytes = Some(self.bytes_per_event()?);
        Ok(Sample { count, unit, ledger: ledger.into(), raw: Some(raw), sqlite: Some(sqlite), bytes })
    }

    /// Of the whole store, after a checkpoint.
    fn bytes_per_event(&self) -> Result<(f64, f64)> {
        self.ledger.store().checkpoint()?;
        let events = self.ledger.position().max(1) as f64;
        let (log, rows, _) = self.ledger.status()?.bytes;
        Ok((log as f64 / events, rows as f64 / events))
    }
}

fn put(number: usize) -> Write {
    Write::new(COLLECTION, key(number), Act::Put(ten_fields(number)))
}

fn patch(record: usize, nth: usize) -> Write {
    Write::new(COLLECTION, key(record), Act::Patch(one_field(nth)))
}

/// One caller that waits for each of its patches.
fn alone(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let (mut rng, mut took) = (Rng(1), Vec::new());
    for nth in 0..sizes.alone {
        let write = patch(rng.below(sizes.records), nth);
        let started = Instant::now();
        bench.ledger.write(write, &Context::default())?;
        took.push(started.elapsed());
    }
    report.add("one-field patches, one caller", bench.sample(after, 1, took)?);
    Ok(())
}

/// Many callers, each of which waits for its patches.
fn callers(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let started = Instant::now();
    let all: Vec<std::result::Result<Vec<Duration>, syncledger::Error>> = std::thread::scope(|scope| {
        let call = |caller: usize| {
            let ledger = bench.ledger.clone();
            scope.spawn(move || patches_of(&ledger, caller, sizes.alone / 4, sizes.records))
        };
        let threads: Vec<_> = (0..CALLERS).map(call).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new()))).collect()
    });
    let total = started.elapsed();
    let steps = all.into_iter().collect::<std::result::Result<Vec<_>, _>>()?.concat();
    report.add(
        format!("one-field patches, {CALLERS} callers"),
        bench.sample(after, CALLERS, Took::beside(total, steps))?,
    );
    Ok(())
}

fn patches_of(
    ledger: &Ledger,
    caller: usize,
    count: usize,
    records: usize,
) -> std::result::Result<Vec<Duration>, syncledger::Error> {
    let (mut rng, mut took) = (Rng(caller as u64), Vec::with_capacity(count));
    for nth in 0..count {
        let write = patch(rng.below(records), nth);
        let started = Instant::now();
        ledger.write(write, &Context::default())?;
        took.push(started.elapsed());
    }
    Ok(took)
}

fn create(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::new()?;
    let took = bench.create(sizes.records)?;
    report.add("creates of ten fields, 256 a batch", bench.sample(0, BATCH, took)?);
    Ok(())
}

/// Patches that are spread evenly, no record twice in a batch.
fn batches(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let took = bench.write((0..sizes.events).map(|nth| patch(nth % sizes.records, nth)).collect())?;
    report.add("one-field patches, even, 256 a batch", bench.sample(after, BATCH, took)?);
    Ok(())
}

fn zipf(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (bench, after, took) = with_zipf_patches(sizes)?;
    report.add("one-field patches, Zipf, 256 a batch", bench.sample(after, BATCH, took)?);
    Ok(())
}

/// A ledger with patches, the position after which they come, and how long they took.
pub fn with_zipf_patches(sizes: &Sizes) -> Result<(Bench, u64, Duration)> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let (zipf, mut rng) = (Zipf::new(sizes.records), Rng(2));
    let took = bench.write((0..sizes.events).map(|nth| patch(zipf.pick(&mut rng), nth)).collect())?;
    Ok((bench, after, took))
}

/// A tenth of the patches are made on what the record was before its last patch.
fn concurrent(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let (zipf, mut rng) = (Zipf::new(sizes.records), Rng(3));
    // The last event of each record, and the one before it.
    let mut known: Vec<[Option<EventId>; 2]> = vec![[None, None]; sizes.records];
    let mut took = Duration::ZERO;
    for start in (0..sizes.events).step_by(BATCH) {
        let mut records = Vec::new();
        let mut write = |nth: usize| {
            let record = zipf.pick(&mut rng);
            records.push(record);
            let write = patch(record, nth);
            match known[record] {
                [_, Some(before)] if nth % 10 == 0 => write.on(vec![before]),
                _ => write,
            }
        };
        let writes: Vec<Write> = (start..start + BATCH).map(&mut write).collect();
        let started = Instant::now();
        let receipt: Receipt = bench.ledger.write_all(writes, &Context::default())?;
        took += started.elapsed();
        for (record, (event, _)) in records.into_iter().zip(receipt.events) {
            known[record] = [Some(event), known[record][0]];
        }
    }
    report.add("the same, a tenth of them on older heads", bench.sample(after, BATCH, took)?);
    Ok(())
}

fn get(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let mut rng = Rng(4);
    let keys: Vec<String> = (0..sizes.gets).map(|_| key(rng.below(sizes.records.min(1_000)))).collect();
    keys.iter().try_for_each(|key| bench.ledger.get(COLLECTION, key).map(drop))?;
    let started = Instant::now();
    for key in &keys {
        std::hint::black_box(bench.ledger.get(COLLECTION, key)?);
    }
    let ledger = started.elapsed().into();
    let mut table = Table::create(bench.dir.path())?;
    table.put((0..sizes.records).map(|number| (key(number), ten_fields(number).to_string())))?;
    let sqlite = Some(table.get(keys.iter())?.into());
    let sample = Sample { count: keys.len(), unit: "gets", ledger, sqlite, ..Sample::default() };
    report.add("get, hot", sample);
    Ok(())
}

/// A record with many changes, which lie among those of others.
fn long(sizes: &Sizes, report: &mut Report) -> Result<()> {
    for changes in sizes.changes {
        let bench = Bench::with_records(BATCH)?;
        let mut write = |nth: usize| patch(if nth % 2 == 0 { 0 } else { 1 + nth % (BATCH - 1) }, nth);
        let after = bench.ledger.position();
        let took = bench.write((0..changes * 2).map(&mut write).collect())?;
        let name = |what: &str| format!("{what} a record with {changes} changes");
        report.add(name("256 a batch, half of them on"), bench.sample(after, BATCH, took)?);
        reads(&bench, changes, report)?;
    }
    Ok(())
}

fn reads(bench: &Bench, changes: usize, report: &mut Report) -> Result<()> {
    let table = Table::create(&tempdir_in(bench.dir.path())?);
    let (mut table, dir) = (table?, bench.dir.path());
    let events: Vec<Vec<u8>> = bench.events(0)?.into_iter().step_by(2).take(changes).collect();
    floor::append_raw(dir, &events, PULL)?;
    table.append(&events, PULL)?;
    let (raw, sqlite) = (floor::read_raw(dir)?, table.read()?);
    let mut add = |what: &str, count: usize, unit: &'static str, took: Duration| {
        let floor = |read: Duration| Some(Took::from(read));
        let sample = Sample { count, unit, ledger: took.into(), raw: floor(raw), sqlite: floor(sqlite), bytes: None };
        report.add(format!("{what} of a record with {changes} changes"), sample);
    };
    let started = Instant::now();
    let history = bench.ledger.history(COLLECTION, &key(0))?;
    add("history", history.len(), "revisions", started.elapsed());
    let middle = history.get(history.len() / 2).ok_or("expected a history")?;
    let moments =
        [("position", AsOf::Position(middle.entry.position)), ("time", AsOf::Time(middle.entry.event.at.millis))];
    for (what, moment) in moments {
        let started = Instant::now();
        bench.ledger.look(COLLECTION, &key(0), &Look { as_of: Some(moment), policy: None })?;
        add(&format!("as_of a {what} in the middle"), 1, "reads", started.elapsed());
    }
    Ok(())
}

fn tempdir_in(dir: &Path) -> Result<std::path::PathBuf> {
    let dir = dir.join("read");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A ledger of many events: records, and patches of them.
pub fn many(sizes: &Sizes) -> Result<Bench> {
    let bench = Bench::with_records(sizes.pulled / 2)?;
    bench.write((0..sizes.pulled / 2).map(|nth| patch(nth, nth)).collect())?;
    Ok(bench)
}

fn rebuild(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = many(sizes)?;
    let events = bench.events(0)?;
    floor::append_raw(bench.dir.path(), &events, PULL)?;
    let mut table = Table::create(bench.dir.path())?;
    table.append(&events, PULL)?;
    let started = Instant::now();
    bench.ledger.rebuild()?;
    let ledger = started.elapsed().into();
    let (raw, sqlite) = (Some(floor::read_raw(bench.dir.path())?.into()), Some(table.read()?.into()));
    report.add(
        "rebuild (the floor only reads)",
        Sample { count: events.len(), unit: "events", ledger, raw, sqlite, bytes: None },
    );
    Ok(())
}

fn pull(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (from, to) = (many(sizes)?, Bench::new()?);
    let started = Instant::now();
    to.ledger.pull(&from.ledger)?;
    let took = started.elapsed();
    report.add("pull into an empty replica", to.sample(0, PULL, took)?);
    Ok(())
}

fn import(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::new()?;
    let delivery = |number: usize| Delivery {
        key: key(number),
        value: ten_fields(number),
        occurred_at: Some(1_700_000_000_000),
    };
    let deliveries: Vec<Delivery> = (0..sizes.records).map(delivery).collect();
    let chunks: Vec<Vec<Delivery>> = deliveries.chunks(BATCH).map(<[Delivery]>::to_vec).collect();
    let started = Instant::now();
    for chunk in chunks {
        bench.ledger.import(COLLECTION, chunk, &Context::from_source("jira"))?;
    }
    let took = started.elapsed();
    report.add("import of records of ten fields, 256 a chunk", bench.sample(0, BATCH, took)?);
    Ok(())
}
