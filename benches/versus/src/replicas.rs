//! Everything derived again, and replicas that pull.

use crate::Result;
use crate::bench::{Bench, PULL, patch};
use crate::floor::{Raw, Table};
use crate::report::{Report, Sample, Watch};
use crate::work::{self, Sizes};

/// How often a full replica pulls a few changes.
const TIMES: usize = 5;

/// A ledger of many events: records, and one patch of each.
pub fn many(records: usize) -> Result<Bench> {
    let bench = Bench::with_records(records)?;
    bench.write((0..records).map(|nth| patch(nth, nth)).collect())?;
    Ok(bench)
}

pub fn rebuild(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = many(sizes.rebuilt)?;
    let watch = Watch::start();
    bench.ledger.rebuild()?;
    let took = watch.stop();
    let events = bench.events(0)?;
    let (mut file, mut table) = (Raw::create(bench.dir.path())?, Table::create(bench.dir.path())?);
    file.append(&events, PULL)?;
    table.append(&events, PULL)?;
    let sample = Sample::of(events.len(), "events").ledger(took);
    let sample = sample.raw(file.read()?).sqlite(table.read()?);
    report.add("rebuild (the floor only reads)", sample);
    Ok(())
}

/// Records into an empty replica, then a few changes into the full one.
pub fn pull(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (from, to) = (Bench::with_records(sizes.records)?, Bench::new()?);
    let watch = Watch::start();
    to.ledger.pull(&from.ledger)?;
    to.ledger.store().checkpoint()?;
    report.add(work::PULLED, to.sample(0, PULL, watch.stop())?);
    for time in 0..TIMES {
        let (after, step) = (to.ledger.position(), sizes.records.div_ceil(sizes.changed));
        // Other values each time: what is there already would be no change.
        let change = |nth: usize| patch(nth * step % sizes.records, time * sizes.changed + nth);
        from.write((0..sizes.changed).map(change).collect())?;
        let watch = Watch::start();
        to.ledger.pull(&from.ledger)?;
        let name = format!("pull of {} changes into a full replica", sizes.changed);
        report.add(name, to.sample(after, PULL, watch.stop())?);
    }
    Ok(())
}
