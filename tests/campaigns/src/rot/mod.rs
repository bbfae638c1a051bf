//! One file of a store, of its archives or of its backups is damaged, and then everything is read.
//!
//! ```text
//! make a store with archives and backups ─► for each run: copy, damage a file of some kind ─► read all, verify ─► judge
//! ```
//! Either an error says so, or all is exactly as it was. Which kind of file is damaged is chosen evenly, not by size.
//!
//! A run follows from the seed and its number, and how the threads of the program ran that made its store: one that
//! failed keeps the store, as it was before it was read.

mod damage;
mod judge;
mod look;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::child::{self, Ended};
use crate::promise::{Promises, Standing};
use crate::tally::Tally;
pub use damage::Kind;
use judge::{Expected, Outcome};
use look::{Looked, Seen};

/// How many runs a store serves.
const RUNS_OF_A_STORE: u64 = 50;
/// How many operations make a store, before its first backup and after it.
const OPERATIONS: (usize, usize) = (40, 120);
/// Where the two backups of the main ledger are.
const BACKUPS: [&str; 2] = ["backup/first.slbk", "backup/second.slbk"];
/// The bytes of `head` before its entries, and of each: number, id, position, and what proves it.
const HEAD_BYTES: usize = 5;
const ENTRY_BYTES: usize = 100;

/// A store as it was made.
struct Made {
    seed: u64,
    /// What was read of it.
    looked: Looked,
    /// How far its logs were recorded as durable.
    marks: BTreeMap<String, u64>,
    files: BTreeMap<Kind, Vec<String>>,
}

struct Campaign {
    dir: TempDir,
    seed: u64,
    tally: Tally,
}

/// Runs the campaign. Whether there never was a wrong answer.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let (seed, from) = (arguments.number("seed")?.unwrap_or(1), arguments.number("from")?.unwrap_or(0));
    let until = from + arguments.number("runs")?.unwrap_or(200);
    let dir = TempDir::with_prefix_in("campaign-rot-", arguments.path("dir").unwrap_or_else(crate::memory))?;
    let mut campaign = Campaign { dir, seed, tally: Tally::begin("rot", seed, from) };
    let mut made: Option<Made> = None;
    for number in from..until {
        let store = match made.take().filter(|_| !number.is_multiple_of(RUNS_OF_A_STORE)) {
            Some(store) => store,
            None => campaign.make(number / RUNS_OF_A_STORE)?,
        };
        campaign.one(number, &store)?;
        made = Some(store);
    }
    campaign.tally.end(arguments)
}

/// What a child process is asked for.
pub fn look(words: &[&str], arguments: &Arguments) -> Result<bool> {
    let (seed, since) = (arguments.number("seed")?.unwrap_or(1), arguments.number("since")?.unwrap_or(0));
    match words {
        ["look", dir] => look::look(Path::new(dir), seed),
        ["rebuild", dir] => look::rebuild(Path::new(dir), seed)?,
        ["back-up", dir, file] => look::back_up(Path::new(dir), Path::new(file), seed, since)?,
        ["restore", files @ ..] => look::restore(files, false),
        ["restore-part", files @ ..] => look::restore(files, true),
        _ => return Err("expected `look`, `rebuild`, `back-up`, `restore` or `restore-part` after `rot`".into()),
    }
    Ok(true)
}

/// A file with a damage.
struct Damaged {
    kind: Kind,
    path: String,
    bytes: Vec<u8>,
    /// What was done to it.
    how: String,
}

impl Campaign {
    /// Where a store lies while it is used: its archives are found by their path.
    fn worked(&self) -> PathBuf {
        self.dir.path().join("worked")
    }

    fn original(&self) -> PathBuf {
        self.dir.path().join("original")
    }

    fn child(&self, words: &[&str], seed: u64) -> Result<Ended> {
        let mut command = child::command(words)?;
        child::finish(command.args(["--seed", &seed.to_string()]), &self.dir.path().join("said"))
    }

    /// One that has to succeed: nothing is damaged yet. What it printed.
    fn asked(&self, words: &[&str], seed: u64) -> Result<String> {
        let ended = self.child(words, seed)?;
        match ended.code {
            Some(0) => Ok(ended.out),
            _ => {
                Err(format!("{words:?} with seed {seed}, on an undamaged store, {} {}", ended.told(), ended.out)
                    .into())
            }
        }
    }

    /// Makes a store with two backups of its main ledger, and reads it.
    fn make(&mut self, number: u64) -> Result<Made> {
        let mut chance = Chance::new(self.seed, u64::MAX - number);
        let (worked, original) = (self.worked(), self.original());
        let (dir, mut promises) = (worked.display().to_string(), Promises::default());
        let [first, second] = BACKUPS.map(|file| worked.join(file).display().to_string());
        remove(&original)?;
        std::fs::create_dir_all(worked.join("backup"))?;
        promises.take(&self.work(&dir, &mut chance)?);
        let seed = chance.next() >> 32;
        let since = self.asked(&["rot", "back-up", &dir, &first], seed)?.trim().to_owned();
        promises.take(&self.work(&dir, &mut chance)?);
        // So that a store that was killed stays so.
        copy(&worked, &original)?;
        self.asked(&["rot", "back-up", &dir, &second, "--since", &since], seed)?;
        let looked = Looked::read(&self.asked(&["rot", "look", &dir], seed)?)?;
        check_promises(&promises, &looked)?;
        std::fs::copy(&second, original.join(BACKUPS.get(1).copied().unwrap_or_default()))?;
        remove(&worked)?;
        let marks = marks(&std::fs::read(original.join("store/head"))?);
        let length = |seen: &Seen| seen.log.as_ref().map_or(0, Vec::len) as u64;
        let is_marked = |seen: &Seen| marks.get(&seen.id).copied().unwrap_or_default() == length(seen);
        self.tally.count("stores", 1);
        self.tally.count("stores with a tail", u64::from(!looked.ledgers.values().all(is_marked)));
        self.tally.count("acknowledged events", promises.events() as u64);
        Ok(Made { seed, looked, marks, files: files(&original)? })
    }

    fn work(&self, dir: &str, chance: &mut Chance) -> Result<String> {
        let (seed, operations) = (chance.next() >> 32, chance.between(OPERATIONS.0, OPERATIONS.1));
        self.asked(&["work", dir, "--operations", &operations.to_string()], seed)
    }

    /// Damages a file of a copy, and reads it.
    fn one(&mut self, number: u64, made: &Made) -> Result<()> {
        let mut chance = Chance::new(self.seed, number);
        let Some(Damaged { kind, path, bytes, how }) = self.damaged(made, &mut chance)? else { return Ok(()) };
        let worked = self.worked();
        copy(&self.original(), &worked)?;
        std::fs::write(worked.join(&path), &bytes)?;
        let outcome = match kind {
            Kind::Backup => self.read_backups(made)?,
            _ => self.read_store(kind, made)?,
        };
        self.tally.runs += 1;
        let is_changed = std::fs::read(worked.join(&path)).map_or(true, |found| found != bytes);
        self.tally.count(&counted(kind, &outcome, is_changed), 1);
        if let Outcome::Problem(what) = outcome {
            let kept = std::env::temp_dir().join(format!("campaign-rot-kept-{}-{number}", self.seed));
            remove(&kept)?;
            copy(&self.original(), &kept)?;
            std::fs::write(kept.join(&path), &bytes)?;
            self.tally.problem(&format!(
                "{kind}, {how} in {path}: {what} (run {number} of seed {}, options of seed {}; kept as it was \
                 damaged, to be moved to {}: {})",
                self.seed,
                made.seed,
                worked.display(),
                kept.display()
            ));
        }
        remove(&worked)
    }

    fn damaged(&self, made: &Made, chance: &mut Chance) -> Result<Option<Damaged>> {
        let kinds: Vec<&Kind> = made.files.keys().collect();
        let Some(kind) = chance.pick(&kinds).copied().copied() else { return Ok(None) };
        let Some(path) = made.files.get(&kind).and_then(|files| chance.pick(files)) else { return Ok(None) };
        let all: Vec<&String> = made.files.values().flatten().collect();
        let other = chance.pick(&all).copied().unwrap_or(path);
        let read = |path: &str| std::fs::read(self.original().join(path));
        let found = damage::damage(&read(path)?, &read(other)?, chance);
        Ok(found.map(|(damage, bytes)| Damaged { kind, path: path.clone(), bytes, how: format!("{damage:?}") }))
    }

    fn read_store(&mut self, kind: Kind, made: &Made) -> Result<Outcome> {
        let dir = self.worked().display().to_string();
        let looked = match self.looked(&["rot", "look", &dir], made.seed)? {
            Ok(looked) => looked,
            Err(problem) => return Ok(problem),
        };
        let expected = Expected { looked: &made.looked, marks: &made.marks };
        let outcome = judge::store(kind, &expected, &looked);
        match outcome {
            Outcome::Detected(_) if kind.is_derived() => self.rebuilt(made, outcome),
            // What is damaged is in the backups.
            Outcome::Detected(_) => match self.restored(made, false)? {
                Outcome::Sound => {
                    self.tally.count("restored from backups", 1);
                    Ok(outcome)
                }
                other => Ok(Outcome::Problem(format!("restoring from backups, after {outcome:?}: {other:?}"))),
            },
            outcome => Ok(outcome),
        }
    }

    /// What is derived was told to be damaged: derived again it has to be as it was.
    fn rebuilt(&mut self, made: &Made, told: Outcome) -> Result<Outcome> {
        let dir = self.worked().display().to_string();
        let ended = self.child(&["rot", "rebuild", &dir], made.seed)?;
        if ended.code != Some(0) {
            return Ok(Outcome::Problem(format!("after {told:?}, rebuilding {}", ended.told())));
        }
        let expected = Expected { looked: &made.looked, marks: &made.marks };
        let again = match self.looked(&["rot", "look", &dir], made.seed)? {
            Ok(looked) => judge::store(Kind::Other, &expected, &looked),
            Err(problem) => problem,
        };
        if again != Outcome::Sound {
            return Ok(Outcome::Problem(format!("after {told:?} and rebuilding: {again:?}")));
        }
        self.tally.count("rebuilt once that was told", 1);
        Ok(told)
    }

    /// Restores from the damaged backups, as a whole and in part.
    fn read_backups(&mut self, made: &Made) -> Result<Outcome> {
        let part = self.restored(made, true)?;
        match part {
            Outcome::Problem(_) => Ok(part),
            _ => self.restored(made, false),
        }
    }

    fn restored(&self, made: &Made, partial: bool) -> Result<Outcome> {
        let [first, second] = BACKUPS.map(|file| self.worked().join(file).display().to_string());
        let nothing = Seen::default();
        let before = made.looked.ledgers.get("main").unwrap_or(&nothing);
        let words = ["rot", if partial { "restore-part" } else { "restore" }, &first, &second];
        Ok(match self.looked(&words, made.seed)? {
            Ok(looked) => judge::restored(before, &looked, partial),
            Err(problem) => problem,
        })
    }

    /// What a child read, or how it failed to.
    fn looked(&self, words: &[&str], seed: u64) -> Result<std::result::Result<Looked, Outcome>> {
        let ended = self.child(words, seed)?;
        match ended.is_orderly() && ended.code == Some(0) {
            true => Ok(Ok(Looked::read(&ended.out)?)),
            false => Ok(Err(Outcome::Problem(format!("reading {}", ended.told())))),
        }
    }
}

/// What a run is counted as.
fn counted(kind: Kind, outcome: &Outcome, is_changed: bool) -> String {
    match outcome {
        Outcome::Detected(stage) => format!("{kind}: detected while {stage}"),
        Outcome::Sound if is_changed => format!("{kind}: rebuilt"),
        Outcome::Sound => format!("{kind}: harmless"),
        Outcome::Tail(_) => format!("{kind}: covered tail"),
        Outcome::Problem(_) => format!("{kind}: problem"),
    }
}

/// Before anything is damaged, everything is there.
fn check_promises(promises: &Promises, looked: &Looked) -> Result<()> {
    if let Some(fault) = looked.faults.first() {
        return Err(format!("an undamaged store is not sound: {fault:?}").into());
    }
    for (name, promised) in promises.ledgers.iter().filter(|(_, promised)| promised.standing == Standing::Held) {
        let log = looked.ledgers.get(name).and_then(|seen| seen.log.as_ref());
        let held = |position: &u64| log.and_then(|log| log.get((*position as usize).checked_sub(1)?));
        let is_held = |(position, id): (&u64, _)| held(position) == Some(&format!("{id}"));
        if !promised.events.iter().all(is_held) {
            return Err(format!("an undamaged store lacks events of {name}").into());
        }
    }
    Ok(())
}

/// How far each log was recorded as durable, in the bytes of `head`.
fn marks(head: &[u8]) -> BTreeMap<String, u64> {
    let entries = head.get(HEAD_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    let mark = |entry: &[u8]| {
        let id = entry.get(4..20)?.iter().map(|byte| format!("{byte:02x}")).collect();
        Some((id, u64::from_le_bytes(entry.get(20..28)?.try_into().ok()?)))
    };
    entries.filter_map(mark).collect()
}

/// The files below a directory that are not empty, by their kind, as paths below it.
fn files(dir: &Path) -> Result<BTreeMap<Kind, Vec<String>>> {
    let (mut files, mut dirs) = (BTreeMap::<Kind, Vec<String>>::new(), vec![dir.to_owned()]);
    while let Some(below) = dirs.pop() {
        for entry in std::fs::read_dir(below)? {
            let entry = entry?;
            let (path, meta) = (entry.path(), entry.metadata()?);
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_file() && meta.len() > 0 {
                let path = path.strip_prefix(dir)?.display().to_string();
                files.entry(Kind::of(&path)).or_default().push(path);
            }
        }
    }
    files.values_mut().for_each(|files| files.sort());
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    match Command::new("cp").arg("-a").args([from, to]).status()?.success() {
        true => Ok(()),
        false => Err(format!("{} cannot be copied", from.display()).into()),
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_by_ledger() {
        let mut head = b"SLHD\x01".to_vec();
        for number in [1_u8, 2] {
            let mut entry = vec![0; ENTRY_BYTES];
            entry[0] = number;
            entry[4..20].fill(0xa0 + number);
            entry[20] = 7 * number;
            head.extend(entry);
        }
        head.extend([0; 32]);
        let marks = marks(&head);
        assert_eq!(marks.len(), 2);
        assert_eq!((marks[&"a1".repeat(16)], marks[&"a2".repeat(16)]), (7, 14));
    }

    #[test]
    fn files_are_found_by_their_kind() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["store/head", "store/blobs/ab/cd", "backup/first.slbk", "store/rows/index"] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), "x").unwrap();
        }
        std::fs::write(dir.path().join("store/floors"), "").unwrap();
        let found = files(dir.path()).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [Kind::Head, Kind::Index, Kind::Blob, Kind::Backup]);
        assert_eq!(found[&Kind::Blob], ["store/blobs/ab/cd"]);
    }
}
