//! Writing: one caller, many callers, batches of creates and patches, an import.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use syncledger::event::EventId;
use syncledger::ledger::{Context, Delivery, Ledger, Receipt, Write};

use crate::Result;
use crate::bench::{BATCH, Bench, COLLECTION, patch};
use crate::record::{Rng, Zipf, key, ten_fields};
use crate::report::{Report, Took, Watch};
use crate::work::{self, Sizes};

const CALLERS: usize = 64;
/// How many patches of a batch are another writer's.
const THEIRS: usize = BATCH / 10;
/// From where on another writer's values are, none of which is one of ours.
const OTHERS: usize = 10_000_000;

/// One caller that waits for each of its patches.
pub fn alone(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (bench, mut rng) = (Bench::with_records(sizes.records)?, Rng(1));
    let writes: Vec<Write> = (0..sizes.alone).map(|nth| patch(rng.below(sizes.records), nth)).collect();
    report.add(work::ALONE, bench.by_turns(&writes)?);
    Ok(())
}

/// Many callers, each of which waits for its patches.
pub fn callers(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let watch = Watch::start();
    let all: Vec<Result<Vec<Duration>, syncledger::Error>> = std::thread::scope(|scope| {
        let call = |caller: usize| {
            let ledger = bench.ledger.clone();
            scope.spawn(move || patches_of(&ledger, caller as u64, sizes.of_each, sizes.records))
        };
        let threads: Vec<_> = (0..CALLERS).map(call).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    bench.ledger.store().checkpoint()?;
    let steps = all.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    report.add(work::CALLERS, bench.sample(after, CALLERS, watch.stop_with(steps))?);
    Ok(())
}

fn patches_of(ledger: &Ledger, seed: u64, count: usize, records: usize) -> Result<Vec<Duration>, syncledger::Error> {
    let (mut rng, mut steps) = (Rng(seed), Vec::with_capacity(count));
    for nth in 0..count {
        let write = patch(rng.below(records), nth);
        let started = Instant::now();
        ledger.write(write, &Context::default())?;
        steps.push(started.elapsed());
    }
    Ok(steps)
}

pub fn create(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::new()?;
    let took = bench.create(sizes.records)?;
    report.add(work::CREATES, bench.sample(0, BATCH, took)?);
    Ok(())
}

/// Patches that are spread evenly, no record twice in a batch.
pub fn batches(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let took = bench.write((0..sizes.even).map(|nth| patch(nth % sizes.records, nth)).collect())?;
    report.add(work::EVEN, bench.sample(after, BATCH, took)?);
    Ok(())
}

pub fn zipf(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (bench, after, took) = with_zipf_patches(sizes.records, sizes.patches)?;
    report.add(work::ZIPF, bench.sample(after, BATCH, took)?);
    Ok(())
}

/// A ledger with patches, the position after which they come, and how long they took.
pub fn with_zipf_patches(records: usize, patches: usize) -> Result<(Bench, u64, Took)> {
    let bench = Bench::with_records(records)?;
    let after = bench.ledger.position();
    let (zipf, mut rng) = (Zipf::new(records), Rng(2));
    let took = bench.write((0..patches).map(|nth| patch(zipf.pick(&mut rng), nth)).collect())?;
    Ok((bench, after, took))
}

/// A tenth of the patches are made on what the record was before its last patch.
pub fn concurrent(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let after = bench.ledger.position();
    let (zipf, mut rng) = (Zipf::new(sizes.records), Rng(3));
    // The last event of each record, and the one before it.
    let mut known: Vec<[Option<EventId>; 2]> = vec![[None, None]; sizes.records];
    let (watch, mut steps) = (Watch::start(), Vec::new());
    for start in (0..sizes.patches).step_by(BATCH) {
        let mut records = Vec::new();
        let mut write = |nth: usize| {
            let record = zipf.pick(&mut rng);
            records.push(record);
            let write = patch(record, nth);
            match known[record] {
                [_, Some(before)] if nth.is_multiple_of(10) => write.on(vec![before]),
                _ => write,
            }
        };
        let writes: Vec<Write> = (start..start + BATCH).map(&mut write).collect();
        let started = Instant::now();
        let receipt: Receipt = bench.ledger.write_all(writes, &Context::default())?;
        steps.push(started.elapsed());
        for (record, (event, _)) in records.into_iter().zip(receipt.events) {
            known[record] = [Some(event), known[record][0]];
        }
    }
    bench.ledger.store().checkpoint()?;
    report.add("the same, a tenth of them on older heads", bench.sample(after, BATCH, watch.stop_with(steps))?);
    Ok(())
}

/// A tenth of the patches are another writer's, made on a replica of its own at the same time as those here, and on the
/// same records.
pub fn apart(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (here, there) = (Bench::with_records(sizes.records)?, Bench::new()?);
    there.ledger.pull(&here.ledger)?;
    let (after, id) = (here.ledger.position(), here.ledger.info().id);
    let (zipf, mut rng) = (Zipf::new(sizes.records), Rng(5));
    let (watch, mut steps) = (Watch::start(), Vec::new());
    for start in (0..sizes.patches).step_by(BATCH) {
        let records: Vec<usize> = (0..BATCH - THEIRS).map(|_| zipf.pick(&mut rng)).collect();
        let (ours, theirs) = (here.ledger.position(), there.ledger.position());
        let made = records.iter().take(THEIRS).enumerate();
        let made = made.map(|(nth, record)| patch(*record, OTHERS + start + nth * 3)).collect();
        there.ledger.write_all(made, &Context::from_source("other"))?;
        let made = there.events(theirs)?;
        let writes = records.iter().enumerate().map(|(nth, record)| patch(*record, start + nth)).collect();
        let started = Instant::now();
        here.ledger.write_all(writes, &Context::default())?;
        here.ledger.apply(id, &made)?;
        steps.push(started.elapsed());
        there.ledger.apply(id, &here.events(ours)?)?;
    }
    let started = Instant::now();
    here.ledger.store().checkpoint()?;
    let took = watch.stop_summed(steps).and(started.elapsed());
    report.add("the same, a tenth of them another writer's", here.sample(after, BATCH, took)?);
    Ok(())
}

pub fn import(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::new()?;
    let delivery = |number: usize| Delivery {
        key: key(number),
        value: ten_fields(number),
        occurred_at: Some(1_700_000_000_000),
    };
    let deliveries: Vec<Delivery> = (0..sizes.imported).map(delivery).collect();
    let chunks: Vec<Vec<Delivery>> = deliveries.chunks(BATCH).map(<[Delivery]>::to_vec).collect();
    drop(deliveries);
    let watch = Watch::start();
    for chunk in chunks {
        bench.ledger.import(COLLECTION, chunk, &Context::from_source("jira"))?;
    }
    bench.ledger.store().checkpoint()?;
    report.add("import of records of ten fields, 256 a chunk", bench.sample(0, BATCH, watch.stop())?);
    Ok(())
}
