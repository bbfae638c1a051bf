//! A server that works for long, under what devices and clients of its API do all the time: whether it uses no more memory, disk,
//! descriptors and threads than at first, and answers as quickly.
#![allow(clippy::disallowed_methods, reason = "a campaign is about the time that passes")]

mod load;
mod server;
mod verdict;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::faults;
use crate::faults::process::{Device, Server};
use crate::faults::proxy::Proxy;
use crate::tally::Tally;
use load::Load;
use server::{Latencies, Watched};
use verdict::Sample;

/// How many clients of the API there are.
const CLIENTS: u64 = 4;
/// How many samples there are, at least so far apart.
const SAMPLES: u64 = 60;
const PERIOD: Duration = Duration::from_secs(2);
/// How often a sample is shown.
const SHOWN: Duration = Duration::from_secs(60);

/// Runs the campaign. Whether the server uses no more than at first.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let dir = TempDir::with_prefix("campaign-soak-")?;
    let program = faults::program(arguments, dir.path())?;
    let life = Duration::from_secs(arguments.number("seconds")?.unwrap_or(600));
    let (seed, devices) = (arguments.number("seed")?.unwrap_or(1), arguments.number("devices")?.unwrap_or(3));
    let mut tally = Tally::begin("soak", seed, 0);
    let mut chance = Chance::new(seed, 0);
    let server = Server::found(&program, &dir.path().join("server"))?;
    let devices: Result<Vec<Device>> = (0..devices as usize)
        .map(|number| {
            let proxy = Proxy::open(server.upstream(), chance.next())?;
            Device::enrol(&program, &dir.path().join(format!("device-{number}")), &server, proxy, number + 1)
        })
        .collect();
    let done = soak(&server, &devices?, life, &mut chance)?;
    for (what, times) in done.counts {
        tally.count(&what, times);
    }
    tally.runs = 1;
    let mut problems = verdict::verdict(&done.samples);
    if !done.is_alive {
        problems.push("the server ended".to_owned());
    }
    problems.iter().for_each(|problem| tally.problem(problem));
    if !problems.is_empty() {
        show(&done.samples);
        println!("kept: {}", dir.keep().display());
    }
    tally.end(arguments)
}

struct Done {
    samples: Vec<Sample>,
    counts: BTreeMap<String, u64>,
    is_alive: bool,
}

/// Has all of them work for so long, and looks at the server meanwhile.
fn soak(server: &Server, devices: &[Device], life: Duration, chance: &mut Chance) -> Result<Done> {
    let address = *server.upstream().lock().unwrap_or_else(PoisonError::into_inner);
    let address = address.ok_or("the server does not run")?;
    let (is_over, counts) = (AtomicBool::new(false), Mutex::default());
    let load = Load { server, address, is_over: &is_over, counts: &counts };
    let clients = (0..CLIENTS).map(|number| load.enrol(&format!("client-{number}"))).collect::<Result<Vec<_>>>()?;
    let (prober, latencies) = (load.enrol("probe")?, Latencies::default());
    let watched = Watched::of(server)?;
    let samples = std::thread::scope(|scope| {
        for (number, device) in devices.iter().enumerate() {
            let (load, chance) = (&load, Chance::new(chance.next(), number as u64));
            scope.spawn(move || load.edit(device, chance));
        }
        for (number, client) in clients.iter().enumerate() {
            let (load, chance) = (&load, Chance::new(chance.next(), number as u64));
            scope.spawn(move || load.ask(number, client, chance));
        }
        let chance = Chance::new(chance.next(), 0);
        scope.spawn(|| load.come_and_go(chance));
        scope.spawn(|| load.probe(&prober, &latencies));
        let samples = sample(&watched, &latencies, devices, life);
        is_over.store(true, Ordering::Relaxed);
        samples
    })?;
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Done { samples, counts, is_alive: watched.is_alive() })
}

/// Samples until it is over, and shows one each minute.
fn sample(watched: &Watched, latencies: &Latencies, devices: &[Device], life: Duration) -> Result<Vec<Sample>> {
    let (began, period) = (Instant::now(), PERIOD.max(life / SAMPLES as u32));
    let (mut samples, mut shown) = (Vec::new(), Duration::ZERO);
    println!("| seconds | resident, MiB | descriptors | threads | disk, MiB | events | p50, ms | p99, ms |");
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    while began.elapsed() < life && watched.is_alive() {
        std::thread::sleep(period);
        devices.iter().try_for_each(Device::keep_alive)?;
        let sample = watched.sample(began.elapsed().as_secs_f64(), latencies)?;
        samples.push(sample);
        if began.elapsed() >= shown + SHOWN {
            shown += SHOWN;
            show(&[sample]);
        }
    }
    Ok(samples)
}

fn show(samples: &[Sample]) {
    const MIB: f64 = 1_048_576.0;
    for Sample { seconds, resident_kib, descriptors, threads, disk_bytes, events, p50_ms, p99_ms } in samples {
        let (resident, disk) = (resident_kib / 1_024.0, disk_bytes / MIB);
        println!(
            "| {seconds:.0} | {resident:.1} | {descriptors} | {threads} | {disk:.1} | {events} | {p50_ms:.1} | {p99_ms:.1} |"
        );
    }
}
