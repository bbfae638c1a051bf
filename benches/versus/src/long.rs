//! A record with many changes, which lie among those of others.

use syncledger::ledger::{AsOf, Look};

use crate::Result;
use crate::bench::{BATCH, Bench, COLLECTION, PULL, patch};
use crate::floor::{self, Table};
use crate::record::key;
use crate::report::{Report, Sample, Took, Watch};
use crate::work::Sizes;

pub fn long(sizes: &Sizes, report: &mut Report) -> Result<()> {
    for changes in sizes.changes {
        let bench = Bench::with_records(BATCH)?;
        let mut write = |nth: usize| patch(if nth.is_multiple_of(2) { 0 } else { 1 + nth % (BATCH - 1) }, nth);
        let after = bench.ledger.position();
        let took = bench.write((0..changes * 2).map(&mut write).collect())?;
        let name = format!("256 a batch, half of them on a record with {changes} changes");
        report.add(name, bench.sample(after, BATCH, took)?);
        reads(&bench, changes, report)?;
    }
    Ok(())
}

fn reads(bench: &Bench, changes: usize, report: &mut Report) -> Result<()> {
    let dir = bench.dir.path().join("read");
    std::fs::create_dir_all(&dir)?;
    let mut table = Table::create(&dir)?;
    let events: Vec<Vec<u8>> = bench.events(0)?.into_iter().step_by(2).take(changes).collect();
    floor::append_raw(&dir, &events, PULL)?;
    table.append(&events, PULL)?;
    let (raw, sqlite) = (floor::read_raw(&dir)?, table.read()?);
    let mut add = |what: &str, count: usize, unit: &str, took: Took| {
        let sample = Sample::of(count, unit).ledger(took).raw(raw).sqlite(sqlite);
        report.add(format!("{what} of a record with {changes} changes"), sample);
    };
    let watch = Watch::start();
    let history = bench.ledger.history(COLLECTION, &key(0))?;
    add("history", history.len(), "revisions", watch.stop());
    let middle = history.get(history.len() / 2).ok_or("expected a history")?;
    let moments =
        [("position", AsOf::Position(middle.entry.position)), ("time", AsOf::Time(middle.entry.event.at.millis))];
    for (what, moment) in moments {
        let watch = Watch::start();
        bench.ledger.look(COLLECTION, &key(0), &Look { as_of: Some(moment), policy: None })?;
        add(&format!("as_of a {what} in the middle"), 1, "reads", watch.stop());
    }
    Ok(())
}
