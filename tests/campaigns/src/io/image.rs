//! A file system of a few megabytes that gets full: ext4 in a file, mounted by a loop device. Needs root.
//!
//! ```text
//! work until the disk is full ─► check, on the full disk ─► free some room ─► work on
//! ```

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{check, work};
use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::child;
use crate::promise::Promises;
use crate::tally::Tally;

const MIB: u64 = 1 << 20;
/// How many bytes an image has, in MiB.
const LEAST_MIB: usize = 10;
const MOST_MIB: usize = 16;
/// How many files there are to be given up, and of how many bytes: more than the store wants in reserve before it appends.
const WEIGHTS: usize = 2;
const WEIGHT_BYTES: usize = 5 << 19;
/// More than fits.
const OPERATIONS: u64 = 1_000_000;
/// What has to succeed once there is room again; a file of rows that is overwritten needs more than that is.
const OPERATIONS_AFTER: u64 = 3;

/// A file system in a file, until it is dropped.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(dir: &Path, mib: u64) -> Result<Self> {
        let (image, at) = (dir.join("image"), dir.join("mounted"));
        File::create(&image)?.set_len(mib * MIB)?;
        std::fs::create_dir_all(&at)?;
        said(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        said(Command::new("mount").args(["-o", "loop"]).args([&image, &at]))?;
        Ok(Self { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(fault) = said(Command::new("umount").arg(&self.at)) {
            println!("io, image: {}: {fault}", self.at.display());
        }
    }
}

/// Runs a command that has to succeed.
fn said(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

/// Runs the campaign: each run is a file system. Whether all was as promised.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let (seed, from) = (arguments.number("seed")?.unwrap_or(1), arguments.number("from")?.unwrap_or(0));
    let runs = arguments.number("runs")?.unwrap_or(5);
    let place = arguments.path("dir").unwrap_or_else(std::env::temp_dir);
    let mut tally = Tally::begin("io, image", seed, from);
    for number in from..from + runs {
        let dir = TempDir::with_prefix_in("campaign-image-", &place)?;
        let mut chance = Chance::new(seed, number);
        let mounted = Mounted::new(dir.path(), chance.between(LEAST_MIB, MOST_MIB) as u64)
            .map_err(|fault| format!("no file system can be made full here: {fault}"))?;
        let told =
            |what: String| format!("{what} (again: campaigns io --image --seed {seed} --from {number} --runs 1)");
        for found in one(dir.path(), &mounted.at, &mut chance, &mut tally)? {
            tally.problem(&told(found));
        }
        tally.runs += 1;
    }
    tally.end(arguments)
}

/// One file system, made full again and again. What is not as promised.
fn one(dir: &Path, mounted: &Path, chance: &mut Chance, tally: &mut Tally) -> Result<Vec<String>> {
    let (worked, beside) = (mounted.join("worked"), dir.join("said"));
    std::fs::create_dir(&worked)?;
    (0..WEIGHTS).try_for_each(|number| put_weight(mounted, number))?;
    let mut promises = Promises::default();
    for number in 0..=WEIGHTS {
        let seed = chance.next() >> 32;
        let ended = child::finish(&mut work(&worked, seed, OPERATIONS)?, &beside)?;
        promises.take(&ended.out);
        let faults = std::mem::take(&mut promises.faults);
        let is_full = faults.iter().any(|fault| fault.contains("StorageFull") || fault.contains("No space left"));
        if !ended.is_orderly() || ended.code != Some(child::FAULT) || !is_full {
            return Ok(vec![format!("on a disk that gets full the work of seed {seed} {} {faults:?}", ended.told())]);
        }
        tally.count("times full", 1);
        let found = check_full(&worked, &promises, seed, &beside, tally)?;
        if !found.is_empty() {
            return Ok(found
                .into_iter()
                .map(|found| format!("on a full disk, after seed {seed}: {found}"))
                .collect());
        }
        if number == WEIGHTS {
            break;
        }
        std::fs::remove_file(weight(mounted, number))?;
        let found = go_on(&worked, chance.next() >> 32, &mut promises, &beside)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    tally.count("acknowledged events", promises.events() as u64);
    Ok(Vec::new())
}

/// What is not as promised on a full disk. To close needs room, and may be refused; to open has a reserve, which may have been
/// spent by the work.
fn check_full(
    worked: &Path,
    promises: &Promises,
    seed: u64,
    beside: &Path,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    let has_reserve = worked.join("store/ballast").exists();
    let mut found = check(worked, promises, seed, beside)?;
    for stage in ["closing", "opening"] {
        let count = found.len();
        if stage == "closing" || !has_reserve {
            found.retain(|found| !is_refused(found, stage));
        }
        tally.count(&format!("{stage} refused"), (count - found.len()) as u64);
    }
    Ok(found)
}

/// Whether a finding is that a store was refused for want of room.
fn is_refused(found: &str, stage: &str) -> bool {
    found.starts_with(&format!("wrong {stage}: Storage: ")) && found.contains("No space left on device")
}

/// With room again, work goes on.
fn go_on(worked: &Path, seed: u64, promises: &mut Promises, beside: &Path) -> Result<Vec<String>> {
    let ended = child::finish(&mut work(worked, seed, OPERATIONS_AFTER)?, beside)?;
    promises.take(&ended.out);
    let faults = std::mem::take(&mut promises.faults);
    match ended.code {
        Some(0) => Ok(Vec::new()),
        _ => Ok(vec![format!("with room again, the work of seed {seed} {} {faults:?}", ended.told())]),
    }
}

fn weight(mounted: &Path, number: usize) -> PathBuf {
    mounted.join(format!("weight-{number}"))
}

fn put_weight(mounted: &Path, number: usize) -> Result<()> {
    let mut file = File::create(weight(mounted, number))?;
    file.write_all(&vec![7; WEIGHT_BYTES])?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_room_is_a_refusal() {
        let full = "wrong closing: Storage: cannot write x: No space left on device (os error 28)";
        assert!(is_refused(full, "closing"));
        assert!(!is_refused(full, "opening"));
        assert!(!is_refused("wrong closing: Corrupt: No space left on device", "closing"));
        assert!(!is_refused("lost main: event", "closing"));
    }
}
