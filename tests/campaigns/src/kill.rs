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
use crate::tally::Tally;

/// How many cycles a store lives: it stays small.
const CYCLES_OF_A_STORE: u64 = 25;
/// How often everything is derived again.
const VERIFY_EVERY: u64 = 5;
/// The longest life of a process.
const LIFE_MS: usize = 800;
/// Within this much a process is still opening its store.
const OPENING_MS: usize = 15;
/// How many of ten are killed then.
const OPENING_IN_TEN: usize = 3;

/// Runs the campaign. Whether nothing was lost, torn or wrong.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let (cycles, seed) = (arguments.number("cycles")?.unwrap_or(200), arguments.number("seed")?.unwrap_or(1));
    let from = arguments.number("from")?.unwrap_or(0);
    let place = arguments.path("dir").unwrap_or_else(std::env::temp_dir);
    let mut tally = Tally::begin("kill", seed, from);
    while tally.runs < cycles {
        let until = from + cycles.min(tally.runs + CYCLES_OF_A_STORE);
        let dir = TempDir::with_prefix_in("campaign-kill-", &place)?;
        let sound = one_store(dir.path(), seed, from + tally.runs..until, &mut tally)?;
        println!("{} cycles, {} acknowledged events", tally.runs, tally.counted("acknowledged events"));
        if !sound {
            println!("kept: {}", dir.keep().display());
        }
    }
    tally.end(arguments)
}

/// All cycles of one store. It ends early where something is found, so that one fault is not told again and again.
fn one_store(dir: &Path, seed: u64, cycles: std::ops::Range<u64>, tally: &mut Tally) -> Result<bool> {
    let mut promises = Promises::default();
    let mut sound = true;
    let until = cycles.end;
    for cycle in cycles {
        tally.runs += 1;
        let mut chance = Chance::new(seed, cycle);
        let life = life(&mut chance, tally);
        kill(dir, chance.next(), life, &mut promises)?;
        // Where nobody looked, the next process meets what the killed one left.
        let (is_last, verify) = (cycle + 1 == until, cycle % VERIFY_EVERY == VERIFY_EVERY - 1);
        if is_last || verify || !chance.one_in(3) {
            let mut findings = check(dir, &promises, is_last || verify, seed);
            findings.wrong.append(&mut promises.faults);
            sound = tell(&findings, seed, cycle, tally);
        }
        if !sound {
            break;
        }
    }
    tally.count("acknowledged events", promises.events() as u64);
    Ok(sound)
}

/// Long enough to work, or so short that the store is being opened.
fn life(chance: &mut Chance, tally: &mut Tally) -> Duration {
    let opens = chance.below(10) < OPENING_IN_TEN;
    tally.count("killed early, while they open", u64::from(opens));
    let most = if opens { OPENING_MS } else { LIFE_MS };
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

/// Tells what was found. Whether that is nothing.
fn tell(findings: &Findings, seed: u64, cycle: u64, tally: &mut Tally) -> bool {
    for (kind, found) in findings.all() {
        tally.problem(&format!("{kind} in cycle {cycle} of seed {seed}: {found}"));
    }
    findings.all().next().is_none()
}
