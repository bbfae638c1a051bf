//! A new device that takes in everything, over WebSocket.

use super::{Served, runtime};
use crate::Result;
use crate::bench::{Bench, COLLECTION, PULL};
use crate::report::{Report, Watch};
use crate::work::Sizes;

pub fn fresh(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let server = Bench::with_records(sizes.records)?;
    let Bench { ledger, dir } = server;
    ledger.store().close()?;
    drop(ledger);
    let mut served = Served::start(&dir.path().join("store"), 1, false)?;
    let device = Bench::new()?;
    let runtime = runtime()?;
    let client = runtime.block_on(served.enrol(&device.ledger, "fresh"))?;
    let watch = Watch::start();
    let synced = runtime.block_on(client.sync(&[]))?;
    device.ledger.store().checkpoint()?;
    let took = watch.stop();
    let collections = device.ledger.collections()?;
    let records = collections.iter().find(|info| info.name == COLLECTION).map_or(0, |info| info.records);
    if records != sizes.records as u64 {
        return Err(format!("expected {} records on the device, got {records}", sizes.records).into());
    }
    let per_record = synced.bytes.1 as f64 / records as f64;
    report.figure("bytes of messages for each record that a new device takes", "bytes", per_record);
    report.add("a new device takes all records over WebSocket", device.sample(0, PULL, took)?);
    Ok(())
}
