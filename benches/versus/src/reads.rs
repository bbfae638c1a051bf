//! Reading records by key.

use crate::Result;
use crate::bench::{Bench, COLLECTION};
use crate::floor::Table;
use crate::record::{Rng, key, ten_fields};
use crate::report::{Report, Sample, Watch};
use crate::work::{self, Sizes};

/// How many records are read over and over.
const HOT: usize = 1_000;

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
