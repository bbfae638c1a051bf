//! A device that has all of a long log but its last events.

use std::time::{Duration, Instant};

use super::{Served, runtime};
use crate::Result;
use crate::bench::{Bench, patch, put};
use crate::report::Report;
use crate::work::Sizes;

/// How many events it lacks each time, and how often that is measured.
const LACKS: usize = 100;
const TIMES: usize = 5;

pub fn catch_up(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let long = Bench::with_records(sizes.many / 10)?;
    long.write((sizes.many / 10..sizes.many).map(|nth| patch(nth % (sizes.many / 10), nth)).collect())?;
    let events = long.ledger.position();
    let Bench { ledger, dir } = long;
    ledger.store().close()?;
    drop(ledger);
    let mut served = Served::start(&dir.path().join("store"), 2, false)?;
    let (device, other) = (Bench::new()?, Bench::new()?);
    let runtime = runtime()?;
    let (client, writes) = runtime.block_on(async {
        let client = served.enrol(&device.ledger, "device").await?;
        client.sync(&[]).await?;
        let writes = served.enrol(&other.ledger, "other").await?;
        writes.sync(&["none"]).await?;
        Ok::<_, Box<dyn std::error::Error>>((client, writes))
    })?;
    let mut waits = Vec::new();
    for time in 0..TIMES {
        other.write((0..LACKS).map(|nth| put(sizes.many * 2 + time * LACKS + nth)).collect())?;
        runtime.block_on(writes.sync(&["none"]))?;
        std::thread::sleep(Duration::from_millis(300));
        let read = served.read_bytes().unwrap_or_default();
        let started = Instant::now();
        let synced = runtime.block_on(client.sync(&[]))?;
        waits.push(started.elapsed());
        let read = served.read_bytes().unwrap_or_default() - read;
        report.figure(format!("bytes that the server reads from files for {LACKS} new events"), "bytes", read as f64);
        report.figure(format!("bytes of messages for {LACKS} new events"), "bytes", synced.bytes.1 as f64);
        if synced.received != LACKS as u64 {
            return Err(format!("expected {LACKS} events, got {}", synced.received).into());
        }
    }
    for wait in waits {
        let name = format!("catching up with {LACKS} new events of a log of {events}");
        report.figure(name, "ms", wait.as_secs_f64() * 1e3);
    }
    Ok(())
}
