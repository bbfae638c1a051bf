//! Many devices that edit at once and stay connected, each in a collection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use syncledger::client::Client;
use syncledger::ledger::{Act, Context, Ledger, Options, Store, Write};
use tokio::task::JoinSet;

use super::server::collection;
use super::{Served, runtime, tell_waits};
use crate::Result;
use crate::record::{key, one_field, ten_fields};
use crate::report::{Report, Sample, Took};
use crate::work::Sizes;

/// How many events a device writes before it waits for the server.
const EDITS: usize = 20;
/// How long after it began to write them it writes again at the earliest, where the devices are held to what is asked: 200 of them
/// write 22,222 events a second then.
const BEAT: Duration = Duration::from_millis(180);
/// How many records a device has.
const RECORDS: usize = 50;

struct Device {
    ledger: Ledger,
    client: Client,
    collection: String,
}

pub fn editing(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut served = Served::start(&dir.path().join("store"), sizes.devices, true)?;
    let runtime = runtime()?;
    let (asked, most) = runtime.block_on(async {
        let mut devices = Vec::new();
        for device in 0..sizes.devices {
            devices.push(Arc::new(begin(&mut served, device).await?));
        }
        let mut following = JoinSet::new();
        for device in devices.iter().cloned() {
            following.spawn(async move { device.client.follow(&[]).await });
        }
        all_have(&devices).await?;
        let asked = edit(&devices, Duration::from_secs(sizes.seconds as u64), Some(BEAT)).await?;
        let most = edit(&devices, Duration::from_secs(sizes.seconds as u64 / 3), None).await;
        let measured = most.map(|most| (asked, most));
        devices.iter().for_each(|device| device.client.cancel());
        while let Some(ended) = following.join_next().await {
            ended??;
        }
        measured
    })?;
    let (devices, seconds) = (sizes.devices, sizes.seconds);
    tell_waits(report, "an edit of one of many devices, until the server has it", asked.0.steps.clone());
    tell_waits(report, "the same, as fast as they can", most.0.steps.clone());
    let (offered, sample) = (devices as f64 * EDITS as f64 / BEAT.as_secs_f64(), |(took, events)| {
        Sample::of(events, "events").ledger(took)
    });
    report.add(
        format!("{devices} devices edit for {seconds} s, {offered:.0} events/s, all over WebSocket"),
        sample(asked),
    );
    report.add(format!("the same, as fast as they can, {} s", seconds / 3), sample(most));
    Ok(())
}

/// A device with its records, in memory: what its disk does is not measured.
async fn begin(served: &mut Served, device: usize) -> Result<Device> {
    let store = Store::in_memory(Options::default())?;
    let ledger = store.create_ledger("main")?;
    let collection = collection(device);
    let client = served.enrol(&ledger, &format!("device-{device}")).await?;
    let put = |nth| Write::new(&*collection, key(nth), Act::Put(ten_fields(nth)));
    ledger.write_all((0..RECORDS).map(put).collect(), &Context::default())?;
    Ok(Device { ledger, client, collection })
}

async fn all_have(devices: &[Arc<Device>]) -> Result<()> {
    let started = Instant::now();
    while !devices.iter().all(|device| device.client.acknowledged() >= device.ledger.position()) {
        if started.elapsed() > Duration::from_secs(60) {
            return Err("the devices' records did not come to the server within a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// All write, wait until the server has it, and write again, in a beat or at once. The waits are those of the edits.
async fn edit(devices: &[Arc<Device>], time: Duration, beat: Option<Duration>) -> Result<(Took, usize)> {
    let (started, is_over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let mut editing = JoinSet::new();
    for (nth, device) in devices.iter().cloned().enumerate() {
        let (is_over, early) = (is_over.clone(), beat.map(|beat| beat * nth as u32 / devices.len() as u32));
        editing.spawn(async move {
            // They do not all begin at once.
            tokio::time::sleep(early.unwrap_or_default()).await;
            keep_editing(device, is_over, beat.unwrap_or_default()).await
        });
    }
    tokio::time::sleep(time).await;
    is_over.store(true, Ordering::Relaxed);
    let mut waits = Vec::new();
    while let Some(device) = editing.join_next().await {
        waits.extend(device?.map_err(|fault| fault.to_string())?);
    }
    let total = started.elapsed();
    let refused: u64 = devices.iter().map(|device| device.client.statistics().rejected).sum();
    let failed: u64 = devices.iter().map(|device| device.client.statistics().failed).sum();
    if refused + failed > 0 {
        return Err(format!("{refused} edits were refused and {failed} sessions failed").into());
    }
    let events = waits.len() * EDITS;
    Ok((Took { total, steps: waits, memory: None }, events))
}

async fn keep_editing(
    device: Arc<Device>,
    is_over: Arc<AtomicBool>,
    beat: Duration,
) -> syncledger::Result<Vec<Duration>> {
    let (mut waits, mut nth) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let edit = |edit: usize| {
            Write::new(&*device.collection, key((nth + edit) % RECORDS), Act::Patch(one_field(nth + edit)))
        };
        device.ledger.write_all((0..EDITS).map(edit).collect(), &Context::default())?;
        nth += EDITS;
        while device.client.acknowledged() < device.ledger.position() && began.elapsed() < Duration::from_secs(60) {
            // Looking more often would cost the server, beside which it runs, more than what is looked for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waits.push(began.elapsed());
        tokio::time::sleep(beat.saturating_sub(began.elapsed())).await;
    }
    Ok(waits)
}
