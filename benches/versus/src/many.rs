//! Very many records of one event each: what a store weighs, on disk, in memory and when it is opened.

use std::time::Instant;

use syncledger::ledger::{Context, Ledger};

use crate::Result;
use crate::bench::{BATCH, Bench, COLLECTION, bytes_below, put};
use crate::memory::resident;
use crate::record::{key, ten_fields};
use crate::report::{Report, Watch};
use crate::tables::median;
use crate::work::Sizes;

/// After how many batches memory is looked at.
const GLANCE: usize = 16;

pub fn many(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (bench, records) = (Bench::new()?, sizes.many);
    let (watch, mut steps, mut held) = (Watch::start(), Vec::new(), Vec::new());
    // Made batch by batch, so that what is to be written takes no memory: making them counts.
    for start in (0..records).step_by(BATCH) {
        let writes = (start..records.min(start + BATCH)).map(put).collect();
        let started = Instant::now();
        bench.ledger.write_all(writes, &Context::default())?;
        steps.push(started.elapsed());
        held.extend(resident().filter(|_| (start / BATCH).is_multiple_of(GLANCE)));
    }
    bench.ledger.store().checkpoint()?;
    let took = watch.stop_with(steps);
    let name = |what: &str| format!("{records} records of one event: {what}");
    if let Some(memory) = took.memory {
        report.figure(name("resident while writing, at most"), "MB", memory.peak as f64 / 1e6);
    }
    if let Some(held) = median(held.into_iter().map(|bytes| bytes as f64)) {
        report.figure(name("resident while writing, the median"), "MB", held / 1e6);
    }
    report.add(name("created, 256 a batch"), bench.sample(0, BATCH, took)?);
    weigh(bench, records, report)
}

/// Closes the store, weighs it, and opens it again.
fn weigh(Bench { ledger, dir }: Bench, records: usize, report: &mut Report) -> Result<()> {
    ledger.store().close()?;
    drop(ledger);
    let store = dir.path().join("store");
    let name = |what: &str| format!("{records} records of one event: {what}");
    let json: usize = (0..records).map(|number| ten_fields(number).to_string().len()).sum();
    let disk = bytes_below(&store) as f64;
    report.figure(name("the store on disk"), "bytes a record", disk / records as f64);
    report.figure(name("their JSON"), "bytes a record", json as f64 / records as f64);
    report.figure(name("the store on disk : their JSON"), "ratio", disk / json as f64);
    let before = resident();
    let started = Instant::now();
    let ledger = Ledger::open(&store)?;
    report.figure(name("opened"), "ms", started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    ledger.get(COLLECTION, &key(records / 2))?.ok_or("expected the record in the middle")?;
    report.figure(name("first get after that"), "ms", started.elapsed().as_secs_f64() * 1e3);
    if let Some(more) = resident().zip(before).map(|(now, before)| now as f64 - before as f64) {
        report.figure(name("resident more once opened"), "MB", more / 1e6);
    }
    Ok(())
}
