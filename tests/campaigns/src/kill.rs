//! A process that works on a store is killed with SIGKILL at random, again and again on the same store.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::check::{Findings, check};
use crate::promise::Promises;

/// How many cycles a store lives: it stays small.
const CYCLES_OF_A_STORE: u64 = 25;
/// How often everything is derived again.
const VERIFY_EVERY: u64 = 5;
/// The longest life of a process.
const LIFE_MS: usize = 800;
/// Within this much a process is still opening its store.
const OPENING_MS: usize = 15;

#[derive(Default)]
struct Totals {
    cycles: u64,
    events: usize,
    lost: usize,
    torn: usize,
    wrong: usize,
}

/// Runs the campaign. Whether nothing was lost, torn or wrong.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let (cycles, seed) = (arguments.number("cycles")?.unwrap_or(200), arguments.number("seed")?.unwrap_or(1));
    let place = arguments.path("dir").unwrap_or_else(std::env::temp_dir);
    let mut totals = Totals::default();
    while totals.cycles < cycles {
        let until = cycles.min(totals.cycles + CYCLES_OF_A_STORE);
        let dir = TempDir::with_prefix_in("campaign-kill-", &place)?;
        let sound = one_store(dir.path(), seed, until, &mut totals)?;
        println!("{} cycles, {} acknowledged events", totals.cycles, totals.events);
        if !sound {
            println!("kept: {}", dir.keep().display());
        }
    }
    let Totals { cycles, events, lost, torn, wrong } = totals;
    println!(
        "kill: {cycles} cycles, {events} acknowledged events: {lost} lost, {torn} torn, {wrong} wrong (seed {seed})"
    );
    Ok(lost + torn + wrong == 0)
}

/// All cycles of one store. It ends early where something is found, so that one fault is not told again and again.
fn one_store(dir: &Path, seed: u64, until: u64, totals: &mut Totals) -> Result<bool> {
    let mut promises = Promises::default();
    let mut sound = true;
    while sound && totals.cycles < until {
        let cycle = totals.cycles;
        totals.cycles += 1;
        let mut chance = Chance::new(seed, cycle);
        kill(dir, chance.next(), life(&mut chance), &mut promises)?;
        // Where nobody looked, the next process meets what the killed one left.
        let (is_last, verify) = (cycle + 1 == until, cycle % VERIFY_EVERY == VERIFY_EVERY - 1);
        if is_last || verify || !chance.one_in(3) {
            let mut findings = check(dir, &promises, is_last || verify, seed);
            findings.wrong.append(&mut promises.faults);
            sound = tell(&findings, seed, cycle, totals);
        }
    }
    totals.events += promises.events();
    Ok(sound)
}

/// Long enough to work, or so short that the store is being opened.
fn life(chance: &mut Chance) -> Duration {
    let most = if chance.one_in(4) { OPENING_MS } else { LIFE_MS };
    Duration::from_micros(chance.below(most * 1_000) as u64)
}

/// One process from its start to its death; what it promised is added.
fn kill(dir: &Path, seed: u64, life: Duration, promises: &mut Promises) -> Result<()> {
    let printed = dir.join("printed");
    let mut child = Command::new(std::env::current_exe()?)
        .arg("work")
        .arg(dir)
        .args(["--seed", &seed.to_string()])
        .stdout(File::create(&printed)?)
        .stdin(Stdio::null())
        .spawn()?;
    std::thread::sleep(life);
    child.kill()?;
    let ended = child.wait()?;
    promises.take(&std::fs::read_to_string(&printed)?);
    if let Some(code) = ended.code() {
        promises.faults.push(format!("it ended by itself with code {code}"));
    }
    Ok(())
}

/// Prints what was found. Whether that is nothing.
fn tell(findings: &Findings, seed: u64, cycle: u64, totals: &mut Totals) -> bool {
    for (kind, found) in findings.all() {
        println!("{kind} in cycle {cycle} of seed {seed}: {found}");
    }
    totals.lost += findings.lost.len();
    totals.torn += findings.torn.len();
    totals.wrong += findings.wrong.len();
    findings.all().next().is_none()
}
