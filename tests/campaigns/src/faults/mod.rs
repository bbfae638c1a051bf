//! A server and devices, each a process of the real program, over lines that delay, cut, crawl and go dead, while the processes are
//! killed with SIGKILL at random. Then the lines are mended: within five seconds everybody has to hold the same, every edit that was
//! acknowledged has to be on the server, once, and every refusal has to be told.
#![allow(clippy::disallowed_methods, reason = "a campaign is about the time that passes")]

mod judge;
mod process;
mod proxy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::tally::Tally;
use judge::Verdict;
use process::{Device, Program, Server};
use proxy::{Proxy, Weather};

/// How many runs are made at once: most of a run is waiting.
const AT_ONCE: u64 = 5;
/// The pauses between two faults, in milliseconds.
const PAUSE_MS: (usize, usize) = (200, 800);
/// The pauses between two edits of a device, in milliseconds.
const EDIT_MS: (usize, usize) = (150, 600);
/// How long a killed process stays dead at most, in milliseconds.
const DEAD_MS: usize = 600;
/// The record that all devices count in.
const SHARED: &str = "shared";

/// What the edits of one device came to.
#[derive(Default)]
struct Edits {
    /// The events that were acknowledged.
    acknowledged: Vec<String>,
    /// Those of them in a collection that the device may not write.
    forbidden: Vec<String>,
    /// By how much the shared count was raised: with an answer, and with or without.
    counted: (u64, u64),
}

/// Runs the campaign. Whether all was as promised.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let program = arguments.path("program").unwrap_or_else(|| PathBuf::from("target/debug/syncledger"));
    let program = Program::at(program.canonicalize().map_err(|why| format!("{}: {why}", program.display()))?);
    let runs = arguments.number("runs")?.unwrap_or(20);
    let life = Duration::from_secs(arguments.number("seconds")?.unwrap_or(20));
    let (seed, from) = (arguments.number("seed")?.unwrap_or(1), arguments.number("from")?.unwrap_or(0));
    let (next, tally) = (AtomicU64::new(from), Mutex::new(Tally::begin("faults", seed, from)));
    let settled_ms = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.number("at-once").ok().flatten().unwrap_or(AT_ONCE).min(runs) {
            scope.spawn(|| {
                while let Some(number) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < from + runs)
                {
                    let outcome = one_run(&program, seed, number, life);
                    tell(&tally, &settled_ms, (seed, number), outcome);
                }
            });
        }
    });
    let mut tally = tally.into_inner().map_err(|_| "a run failed")?;
    let mut settled_ms = settled_ms.into_inner().map_err(|_| "a run failed")?;
    settled_ms.sort_unstable();
    let (middle, most) = (settled_ms.get(settled_ms.len() / 2), settled_ms.last());
    println!("settled after {} ms in the middle", middle.copied().unwrap_or_default());
    tally.at_most("at most ms until settled", most.copied().unwrap_or_default());
    if tally.counted("acknowledged edits") == 0 {
        tally.problem("nothing was acknowledged");
    }
    tally.end(arguments)
}

fn tell(tally: &Mutex<Tally>, settled_ms: &Mutex<Vec<u64>>, (seed, number): (u64, u64), outcome: Result<Verdict>) {
    let (Ok(mut tally), Ok(mut settled_ms)) = (tally.lock(), settled_ms.lock()) else { return };
    tally.runs += 1;
    match outcome {
        Ok(verdict) => {
            tally.count("acknowledged edits", verdict.acknowledged as u64);
            tally.count("edits refused and told", verdict.refused as u64);
            settled_ms.push(verdict.settled_ms);
            verdict.faults.into_iter().for_each(|(what, times)| tally.count(what, times));
            verdict
                .problems
                .iter()
                .for_each(|problem| tally.problem(&format!("run {number} of seed {seed}: {problem}")));
        }
        Err(fault) => tally.problem(&format!("run {number} of seed {seed} failed: {fault}")),
    }
}

/// One run, from a fresh server to the verdict.
fn one_run(program: &Program, seed: u64, number: u64, life: Duration) -> Result<Verdict> {
    let dir = TempDir::with_prefix("campaign-faults-")?;
    let mut chance = Chance::new(seed, number);
    let (server, devices) = found(program, dir.path(), &mut chance)?;
    let server = Mutex::new(server);
    let is_over = AtomicBool::new(false);
    let (edits, faults) = std::thread::scope(|scope| {
        let editors: Vec<_> = devices
            .iter()
            .map(|device| {
                let chance = Chance::new(chance.next(), 1);
                let is_over = &is_over;
                scope.spawn(move || edit_on(device, chance, is_over))
            })
            .collect();
        let faults = befall(&server, &devices, &mut chance, life);
        is_over.store(true, Ordering::Relaxed);
        let edits: Vec<_> = editors.into_iter().map(|editor| editor.join().unwrap_or_default()).collect();
        (edits, faults)
    });
    let verdict = judge::judge(&server, &devices, &edits, faults?)?;
    if !verdict.problems.is_empty() {
        println!("kept: {}", dir.keep().display());
    }
    Ok(verdict)
}

/// A server and its devices, which are replicas already. The first may write one collection alone.
fn found(program: &Program, dir: &Path, chance: &mut Chance) -> Result<(Server, Vec<Device>)> {
    let server = Server::found(program, &dir.join("server"))?;
    server.json(&["put", "notes", SHARED, "{}"])?;
    let mut devices = Vec::new();
    for number in 0..chance.between(3, 5) {
        let proxy = Proxy::open(server.upstream(), chance.next())?;
        devices.push(Device::enrol(program, &dir.join(format!("device-{number}")), &server, proxy, number)?);
    }
    Ok((server, devices))
}

/// Lets things go wrong for a while, and mends them.
fn befall(
    server: &Mutex<Server>,
    devices: &[Device],
    chance: &mut Chance,
    life: Duration,
) -> Result<BTreeMap<&'static str, u64>> {
    let began = Instant::now();
    let mut faults: BTreeMap<&'static str, u64> = BTreeMap::new();
    while began.elapsed() < life {
        std::thread::sleep(Duration::from_millis(chance.between(PAUSE_MS.0, PAUSE_MS.1) as u64));
        let Some(device) = devices.get(chance.below(devices.len())) else { continue };
        let dead = Duration::from_millis(chance.below(DEAD_MS) as u64);
        let what = match chance.below(12) {
            0 => {
                server.lock().map_err(|_| "the server's thread failed")?.kill(dead)?;
                "killed servers"
            }
            1 | 2 => {
                device.kill(dead)?;
                "killed devices"
            }
            _ => {
                let weather = Weather::any(chance);
                device.proxy.set(weather);
                weather.name()
            }
        };
        *faults.entry(what).or_default() += 1;
        devices.iter().try_for_each(Device::keep_alive)?;
    }
    *faults.entry("cut lines").or_default() += devices.iter().map(|device| device.proxy.cuts()).sum::<u64>();
    devices.iter().for_each(|device| device.proxy.set(Weather::Clear));
    devices.iter().try_for_each(Device::keep_alive)?;
    Ok(faults)
}

/// Edits until it is over.
fn edit_on(device: &Device, mut chance: Chance, is_over: &AtomicBool) -> Edits {
    let mut edits = Edits::default();
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(chance.between(EDIT_MS.0, EDIT_MS.1) as u64));
        number += 1;
        edit(device, number, &mut chance, &mut edits);
    }
    edits
}

fn edit(device: &Device, number: u64, chance: &mut Chance, edits: &mut Edits) {
    if device.is_limited && chance.one_in(4) {
        let events =
            device.write(&[json!({ "op": "put", "collection": "secrets", "key": number.to_string(), "value": {} })]);
        edits.forbidden.extend(events.clone().unwrap_or_default());
        edits.acknowledged.extend(events.unwrap_or_default());
        return;
    }
    let by = 1 + chance.below(3) as u64;
    edits.counted.1 += by;
    if let Some(events) = device.write(&writes(&device.name, number, by, chance)) {
        edits.counted.0 += by;
        edits.acknowledged.extend(events);
    }
}

/// A record of its own, one that devices share, and the count.
fn writes(device: &str, number: u64, by: u64, chance: &mut Chance) -> [Json; 3] {
    let field = format!("field{}", chance.below(4));
    let shared = format!("shared-{}", chance.below(5));
    [
        json!({ "op": "put", "collection": "notes", "key": format!("{device}-{number}"), "value": { "number": number } }),
        json!({ "op": "put", "collection": "notes", "key": shared, "value": { field: format!("{device} {number}") } }),
        json!({ "op": "increment", "collection": "notes", "key": SHARED, "path": format!("/{device}"), "by": by }),
    ]
}
