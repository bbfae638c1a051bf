//! Backup files: written, proved, restored; and how small they are, by how large their blocks are.

use std::time::Duration;

use syncledger::ledger::{BackupOptions, Store, verify_backup};
use syncledger::segment::Shape;

use crate::Result;
use crate::bench::{Bench, PULL};
use crate::floor::{Raw, Table};
use crate::replicas::many;
use crate::report::{Report, Sample, Took, Watch};
use crate::work::Sizes;
use crate::writes::with_zipf_patches;

/// A sample of what took so long over all events, beside the floor's writing or reading them.
fn sample(bench: &Bench, took: Took, bytes: Option<u64>, reads: bool, events: &[Vec<u8>]) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let (mut file, mut table) = (Raw::create(dir.path())?, Table::create(dir.path())?);
    let raw: Duration = file.append(events, PULL)?.iter().sum();
    let sqlite: Duration = table.append(events, PULL)?.iter().sum();
    let (raw, sqlite) = if reads { (file.read()?, table.read()?) } else { (raw, sqlite) };
    let bytes = bytes.map(|bytes| (bytes as f64 / bench.ledger.position() as f64, 0.0));
    Ok(Sample { bytes, ..Sample::of(events.len(), "events").ledger(took).raw(raw).sqlite(sqlite) })
}

pub fn backup(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let bench = many(sizes.rebuilt)?;
    let events = bench.events(0)?;
    for block_events in [64, 256, 1_024, 4_096] {
        let file = bench.dir.path().join(format!("{block_events}.slbk"));
        let options = BackupOptions { since: 0, shape: Shape { block_events, ..Shape::LARGE } };
        let watch = Watch::start();
        let info = bench.ledger.backup(&file, &options)?;
        let took = watch.stop();
        let name = format!("backup, {block_events} events a block");
        report.add(name, sample(&bench, took, Some(info.bytes), false, &events)?);
        let watch = Watch::start();
        verify_backup(&file)?;
        let name = format!("proving it, {block_events} events a block (the floor only reads)");
        report.add(name, sample(&bench, watch.stop(), None, true, &events)?);
    }
    let (patched, since, _) = with_zipf_patches(sizes.rebuilt, sizes.even)?;
    let options = BackupOptions { since, shape: Shape::LARGE };
    let watch = Watch::start();
    let info = patched.ledger.backup(patched.dir.path().join("patches.slbk"), &options)?;
    let (took, events) = (watch.stop(), patched.events(since)?);
    let mut only_patches = sample(&patched, took, None, false, &events)?;
    only_patches.bytes = Some((info.bytes as f64 / info.events as f64, 0.0));
    report.add("backup of one-field patches alone, Zipf", only_patches);
    let store = Store::open(bench.dir.path().join("restored"))?;
    let watch = Watch::start();
    store.restore("main", &[bench.dir.path().join("4096.slbk")], false)?;
    report.add("restoring it", sample(&bench, watch.stop(), None, false, &events)?);
    Ok(())
}
