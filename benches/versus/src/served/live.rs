//! Two devices that stay connected: how long an edit of one takes to be on the other's disk, and what edits weigh on the wire.

use std::time::{Duration, Instant};

use syncledger::client::Client;
use syncledger::ledger::{Context, Ledger};
use tokio::task::JoinHandle;

use super::line::Counted;
use super::{Served, runtime, tell_waits};
use crate::Result;
use crate::bench::{BATCH, Bench, patch, put};
use crate::floor::Raw;
use crate::report::Report;
use crate::work::Sizes;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many records are edited.
const RECORDS: usize = 256;

pub fn live(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut served = Served::start(&dir.path().join("store"), 2, false)?;
    let line = Counted::to(&served.url)?;
    let (ann, ravi) = (Bench::new()?, Bench::new()?);
    let runtime = runtime()?;
    let (writer, reader) = runtime.block_on(async {
        let writer = served.enrol_at(&ann.ledger, "ann", &line.url).await?;
        Ok::<_, Box<dyn std::error::Error>>((writer, served.enrol(&ravi.ledger, "ravi").await?))
    })?;
    let following = [follow(&runtime, &writer), follow(&runtime, &reader)];
    ann.create(RECORDS)?;
    reached(&ravi.ledger, RECORDS as u64)?;
    edits(sizes, report, (&ann, &ravi.ledger, &writer))?;
    weights(sizes, report, (&ann, &writer, &line))?;
    [&writer, &reader].into_iter().for_each(Client::cancel);
    for ended in following {
        runtime.block_on(ended)??;
    }
    Ok(())
}

fn follow(runtime: &tokio::runtime::Runtime, client: &Client) -> JoinHandle<syncledger::Result<()>> {
    let client = client.clone();
    runtime.spawn(async move { client.follow(&[]).await })
}

/// Single edits, one after the other, until each is in the other device's log; beside them the three commits that they take,
/// of the same bytes, one after the other.
fn edits(sizes: &Sizes, report: &mut Report, (ann, there, writer): (&Bench, &Ledger, &Client)) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = Raw::create(dir.path())?;
    let (mut waits, mut acknowledged, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..sizes.alone {
        let target = there.position() + 1;
        let started = Instant::now();
        ann.ledger.write(patch(nth % RECORDS, nth), &Context::default())?;
        reached(there, target)?;
        waits.push(started.elapsed());
        until(|| writer.acknowledged() >= ann.ledger.position())?;
        acknowledged.push(started.elapsed());
        let event = ann.events(ann.ledger.position() - 1)?;
        let three = [event.clone(), event.clone(), event].concat();
        commits.push(file.append(&three, 1)?.into_iter().sum());
        // People make pauses.
        std::thread::sleep(Duration::from_millis(1));
    }
    tell_waits(report, "a live edit, until it is durable on another device", waits);
    tell_waits(report, "a live edit, until the device knows that the server has it", acknowledged);
    tell_waits(report, "the floor of that: three commits of its bytes to a file", commits);
    Ok(())
}

/// Batches of edits of one field, and all bytes that go over the line for them, both ways.
fn weights(sizes: &Sizes, report: &mut Report, (ann, writer, line): (&Bench, &Client, &Counted)) -> Result<()> {
    let batches = (sizes.even / BATCH).clamp(4, 40);
    for (name, spread) in [("one field of few records", RECORDS), ("one field, each of another record", usize::MAX)] {
        if spread == usize::MAX {
            ann.write((RECORDS..batches * BATCH).map(put).collect())?;
            until(|| writer.acknowledged() >= ann.ledger.position())?;
        }
        std::thread::sleep(Duration::from_millis(200));
        let before = line.bytes();
        for batch in 0..batches {
            let edit = |nth| patch((batch * BATCH + nth) % spread, batch * BATCH + nth);
            ann.ledger.write_all((0..BATCH).map(edit).collect(), &Context::default())?;
            until(|| writer.acknowledged() >= ann.ledger.position())?;
        }
        let (up, down) = (line.bytes().0 - before.0, line.bytes().1 - before.1);
        let events = (batches * BATCH) as f64;
        report.figure(
            format!("an edit of {name} on the wire, 256 a batch, to the server"),
            "bytes",
            up as f64 / events,
        );
        report.figure(format!("an edit of {name}, what comes back"), "bytes", down as f64 / events);
    }
    Ok(())
}

/// Waits until the other device's log has a position.
fn reached(there: &Ledger, position: u64) -> Result<()> {
    let mut news = there.subscribe(position - 1);
    match news.next_timeout(PATIENCE) {
        Some(entry) => entry.map(drop).map_err(Into::into),
        None => Err(format!("position {position} was not reached within {} s", PATIENCE.as_secs()).into()),
    }
}

fn until(is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > PATIENCE {
            return Err("what was waited for did not come".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
