//! How long opening takes after a process was killed that had written much since its last checkpoint.
//!
//! A store makes a checkpoint by itself after 65,536 events, so that is the most that ever has to be replayed: of 65,000 all are,
//! of 100,000 the last third.
#![allow(clippy::disallowed_methods, reason = "a campaign is about the time that passes")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;
use syncledger::ledger::{Act, Context, Store, Write};
use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::tally::Tally;
use crate::work;

/// How many events are written, one kill after another.
const EVENTS: [u64; 2] = [65_000, 100_000];
/// Over how many records.
const RECORDS: u64 = 2_000;
const AT_ONCE: u64 = 500;
/// The longest that opening may take.
const MOST_MS: u64 = 2_000;

/// Runs the campaign. Whether opening never took too long, and all was there.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut tally = Tally::begin("recovery", 0, 0);
    for _ in 0..arguments.number("runs")?.unwrap_or(3) {
        EVENTS.iter().try_for_each(|events| one(*events, &mut tally))?;
    }
    tally.end(arguments)
}

fn one(events: u64, tally: &mut Tally) -> Result<()> {
    let dir = TempDir::with_prefix("campaign-recovery-")?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("fill")
        .arg(dir.path())
        .args(["--events", &events.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut said)?;
    child.kill()?;
    child.wait()?;
    let began = Instant::now();
    let store = Store::open(work::store_dir(dir.path()))?;
    let position = store.ledger("main")?.position();
    let took = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    tally.runs += 1;
    tally.at_most(&format!("at most ms to open {events} events"), took);
    if position != events || took > MOST_MS {
        tally.problem(&format!(
            "{said:?}: opened {position} of {events} events in {took} ms, at most {MOST_MS} expected"
        ));
    }
    Ok(())
}

/// Writes so many events, says so, and waits to be killed.
pub fn fill(dir: &Path, events: u64) -> Result<()> {
    let ledger = Store::open(work::store_dir(dir))?.create_ledger("main")?;
    let write =
        |n: u64| Write::new("notes", format!("k{}", n % RECORDS), Act::Put(json!({ "n": n, "text": "words" })));
    for first in (0..events).step_by(AT_ONCE as usize) {
        let writes = (first..events.min(first + AT_ONCE)).map(write).collect();
        ledger.write_all(writes, &Context::from_source("campaign"))?;
    }
    println!("written");
    std::thread::park();
    Ok(())
}
