//! Reading records by key.

use std::panic::resume_unwind;

use syncledger::ledger::{Options, Store};

use crate::Result;
use crate::bench::{Bench, COLLECTION};
use crate::floor::Table;
use crate::record::{Rng, key, ten_fields};
use crate::report::{Report, Sample, Watch};
use crate::work::{self, Sizes};

/// How many records are read over and over.
const HOT: usize = 1_000;
/// A cache that holds next to nothing.
const TINY: usize = 64 << 10;
const READERS: usize = 2;

pub fn get(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = Bench::with_records(sizes.records)?;
    let mut rng = Rng(4);
    let keys: Vec<String> = (0..sizes.gets).map(|_| key(rng.below(sizes.records.min(HOT)))).collect();
    keys.iter().try_for_each(|key| bench.ledger.get(COLLECTION, key).map(drop))?;
    let mut table = Table::create(bench.dir.path())?;
    table.put((0..sizes.records).map(|number| (key(number), ten_fields(number).to_string())))?;
    let watch = Watch::start();
    for key in &keys {
        std::hint::black_box(bench.ledger.get(COLLECTION, key)?);
    }
    let sample = Sample::of(keys.len(), "gets").ledger(watch.stop());
    report.add(work::HOT, sample.sqlite(table.get(keys.iter())?));
    let watch = Watch::start();
    for key in &keys {
        std::hint::black_box(bench.ledger.get(COLLECTION, key)?.map(|record| record.value.to_string()));
    }
    let sample = Sample::of(keys.len(), "gets").ledger(watch.stop());
    report.add("get, hot, as JSON text", sample.sqlite(table.get_text(keys.iter())?));
    Ok(())
}

/// Each record once, in an order that no cache knows: every get is a miss. The system's own cache of files stays warm.
pub fn get_cold(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let Bench { ledger, dir } = Bench::with_records(sizes.records)?;
    ledger.store().close()?;
    drop(ledger);
    let mut table = Table::create(dir.path())?;
    table.put((0..sizes.records).map(|number| (key(number), ten_fields(number).to_string())))?;
    table.checkpoint()?;
    let keys = shuffled(sizes.records);
    let store = Store::open_with(dir.path().join("store"), Options { cache_bytes: TINY, ..Options::default() })?;
    let ledger = store.ledger("main")?;
    let watch = Watch::start();
    beside(&keys, |part| {
        for key in part {
            std::hint::black_box(ledger.get(COLLECTION, key)?);
        }
        Ok(())
    })?;
    let sample = Sample::of(keys.len(), "gets").ledger(watch.stop());
    let watch = Watch::start();
    beside(&keys, |part| Table::with_cache(dir.path(), TINY)?.get(part.iter()).map(drop))?;
    report.add("get, cold, 2 threads", sample.sqlite(watch.stop()));
    Ok(())
}

/// Readers beside each other, each of a part of the keys.
fn beside(keys: &[String], read: impl Fn(&[String]) -> Result<()> + Sync) -> Result<()> {
    let read = |part| read(part).map_err(|fault| fault.to_string());
    std::thread::scope(|scope| {
        let parts = keys.chunks(keys.len().div_ceil(READERS));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    Ok(())
}

/// All records' keys in one random order.
fn shuffled(records: usize) -> Vec<String> {
    let (mut keys, mut rng) = ((0..records).map(key).collect::<Vec<_>>(), Rng(6));
    for last in (1..records).rev() {
        keys.swap(last, rng.below(last + 1));
    }
    keys
}
