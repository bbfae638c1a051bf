//! A call on the disk fails, anywhere in what the program does: with EIO, with ENOSPC once or from then on, by writing
//! half, or an fsync that lost what it was to make durable.
//!
//! ```text
//! count the calls ─► for each of them: work, and have it fail ─► open without faults, check ─► work on
//! ```
//! The program may end with a fault once a call has failed; it may not panic, hang, or acknowledge what is not there.
//!
//! Threads make which call is the k-th not the same in every run: one that failed is run again with `--only KIND,SEED,K`,
//! several times perhaps.

mod image;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::child::{self, Ended};
use crate::promise::Promises;
use crate::shim;
use crate::tally::Tally;

const SHIM: &str = include_str!("shim.c");
/// How many seeds work, and how many operations each does: so few that every call can fail.
const SEEDS: u64 = 6;
const OPERATIONS: u64 = 60;
/// What is done after a fault: the store goes on.
const OPERATIONS_AFTER: u64 = 20;
/// One in how many stores is checked again after it went on.
const CHECK_AGAIN: usize = 4;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Eio,
    Enospc,
    Short,
    Full,
    Sync,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Eio, Self::Enospc, Self::Short, Self::Full, Self::Sync];

    /// Its name in `shim.c`.
    fn name(self) -> &'static str {
        match self {
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Short => "short",
            Self::Full => "full",
            Self::Sync => "sync",
        }
    }

    /// How many calls can fail so.
    fn calls(self, calls: &Calls) -> u64 {
        match self {
            Self::Eio | Self::Enospc | Self::Full => calls.changes,
            Self::Short => calls.writes,
            Self::Sync => calls.syncs,
        }
    }
}

/// What the program did, as `shim.c` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Calls {
    changes: u64,
    writes: u64,
    syncs: u64,
    /// What failed.
    failed: Option<String>,
}

impl Calls {
    fn of(told: &str) -> Self {
        let mut calls = Self::default();
        for (what, rest) in told.lines().filter_map(|line| line.split_once(' ')) {
            let count = rest.trim().parse().unwrap_or_default();
            match what {
                "changes" => calls.changes = count,
                "writes" => calls.writes = count,
                "syncs" => calls.syncs = count,
                _ => calls.failed = Some(rest.trim().to_owned()),
            }
        }
        calls
    }
}

/// One run: what fails in which work.
#[derive(Clone, Copy, Debug)]
struct Planned {
    kind: Kind,
    seed: u64,
    at: u64,
}

struct Campaign {
    dir: TempDir,
    shim: PathBuf,
    tally: Tally,
}

/// Runs the campaign. Whether all was as promised.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.switch("image") {
        return image::run(arguments);
    }
    let (seed, from) = (arguments.number("seed")?.unwrap_or(1), arguments.number("from")?.unwrap_or(0));
    let every = arguments.number("every")?.unwrap_or(1).max(1);
    let dir = TempDir::with_prefix_in("campaign-io-", arguments.path("dir").unwrap_or_else(crate::memory))?;
    let shim = shim::compile(dir.path(), "io", SHIM)?;
    let mut campaign = Campaign { dir, shim, tally: Tally::begin("io", seed, from) };
    let only = arguments.texts("only");
    let plans = match only.is_empty() {
        true => campaign.plan(seed, arguments.number("seeds")?.unwrap_or(SEEDS), every)?,
        false => vec![only_one(&only)?],
    };
    let until = arguments.number("runs")?.map_or(plans.len(), |runs| (from + runs) as usize);
    println!(
        "io: {} calls can fail, of which every {every}. does: {} runs",
        campaign.tally.counted("calls"),
        plans.len()
    );
    for plan in plans.into_iter().take(until).skip(from as usize) {
        campaign.one(plan)?;
    }
    campaign.tally.end(arguments)
}

/// What `--only KIND,SEED,K` names.
fn only_one(words: &[String]) -> Result<Planned> {
    let [kind, seed, at] = words else { return Err("expected a kind, a seed and a number after --only".into()) };
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = kind.ok_or("expected eio, enospc, short, full or sync after --only")?;
    Ok(Planned { kind, seed: seed.parse()?, at: at.parse()? })
}

/// A process that works on the store below `dir`.
fn work(dir: &Path, seed: u64, operations: u64) -> Result<Command> {
    let mut command = child::command(&["work"])?;
    command.arg(dir).args(["--seed", &seed.to_string(), "--operations", &operations.to_string()]);
    Ok(command)
}

/// What is not as promised in the store below `dir`, by a process of its own.
fn check(dir: &Path, promises: &Promises, seed: u64, beside: &Path) -> Result<Vec<String>> {
    let promised = beside.with_extension("promised");
    std::fs::write(&promised, promises.lines())?;
    let mut command = child::command(&["check"])?;
    command.args([dir, &promised]).args(["--seed", &seed.to_string()]);
    let ended = child::finish(&mut command, beside)?;
    let mut found: Vec<String> = ended.out.lines().map(str::to_owned).collect();
    if !ended.is_orderly() || ended.code != Some(i32::from(!found.is_empty())) {
        found.push(format!("the check {}", ended.told()));
    }
    Ok(found)
}

impl Campaign {
    /// Where the program works.
    fn worked(&self) -> PathBuf {
        self.dir.path().join("worked")
    }

    /// Every so many calls of each seed's work, in every way that they can fail.
    fn plan(&mut self, seed: u64, seeds: u64, every: u64) -> Result<Vec<Planned>> {
        let mut plans = Vec::new();
        for seed in (0..seeds).map(|number| Chance::new(seed, number).next() >> 32) {
            let (ended, calls) = self.work("none", seed, 0)?;
            std::fs::remove_dir_all(self.worked())?;
            if ended.code != Some(0) || calls.changes == 0 {
                return Err(format!("without a fault, the work of seed {seed} {}", ended.told()).into());
            }
            for kind in Kind::ALL {
                self.tally.count("calls", kind.calls(&calls));
                let numbers = (1..=kind.calls(&calls)).skip(seed as usize % every as usize).step_by(every as usize);
                plans.extend(numbers.map(|at| Planned { kind, seed, at }));
            }
        }
        Ok(plans)
    }

    /// Works on a new store while one call fails.
    fn work(&self, kind: &str, seed: u64, at: u64) -> Result<(Ended, Calls)> {
        let (worked, told) = (self.worked(), self.dir.path().join("told"));
        std::fs::create_dir(&worked)?;
        let mut command = work(&worked, seed, OPERATIONS)?;
        command.env("LD_PRELOAD", &self.shim).env("CAMPAIGN_ROOT", &worked).env("CAMPAIGN_TOLD", &told);
        command.env("CAMPAIGN_FAULT", kind).env("CAMPAIGN_FAULT_AT", at.to_string());
        let ended = child::finish(&mut command, &self.dir.path().join("said"))?;
        let calls = Calls::of(&std::fs::read_to_string(&told)?);
        std::fs::remove_file(told)?;
        Ok((ended, calls))
    }

    fn one(&mut self, plan: Planned) -> Result<()> {
        let (ended, calls) = self.work(plan.kind.name(), plan.seed, plan.at)?;
        let (mut promises, worked) = (Promises::default(), self.worked());
        promises.take(&ended.out);
        let mut found: Vec<String> = unexpected(plan.kind, &ended, &calls).into_iter().collect();
        let beside = self.dir.path().join("said");
        found.extend(check(&worked, &promises, plan.seed, &beside)?);
        if found.is_empty() {
            found.extend(self.go_on(plan, &mut promises)?);
        }
        self.tally.runs += 1;
        self.tally.count("acknowledged events", promises.events() as u64);
        self.tally.count(&came_to(plan.kind, &ended, &calls), 1);
        self.judge(plan, &calls, &found)?;
        match worked.exists() {
            true => Ok(std::fs::remove_dir_all(worked)?),
            false => Ok(()),
        }
    }

    /// A second process works on the store, now without a fault.
    fn go_on(&self, plan: Planned, promises: &mut Promises) -> Result<Vec<String>> {
        let (mut chance, beside) = (Chance::new(plan.seed, plan.at), self.dir.path().join("said"));
        let seed = chance.next() >> 32;
        let ended = child::finish(&mut work(&self.worked(), seed, OPERATIONS_AFTER)?, &beside)?;
        promises.take(&ended.out);
        if ended.code != Some(0) {
            return Ok(vec![format!("going on with seed {seed} {} {:?}", ended.told(), promises.faults)]);
        }
        if !chance.one_in(CHECK_AGAIN) {
            return Ok(Vec::new());
        }
        check(&self.worked(), promises, seed, &beside)
    }

    /// Tells what was found, and keeps the store as the check left it.
    fn judge(&mut self, plan: Planned, calls: &Calls, found: &[String]) -> Result<()> {
        let Some(first) = found.first() else { return Ok(()) };
        let Planned { kind, seed, at } = plan;
        let failed = calls.failed.as_deref().unwrap_or("nothing failed");
        let again = format!("again: campaigns io --only {},{seed},{at}", kind.name());
        self.tally.problem(&format!("{} findings, after {failed}: {first} ({again})", found.len()));
        found.iter().skip(1).for_each(|line| println!("  {line}"));
        let kept = std::env::temp_dir().join(format!("campaign-io-kept-{}-{seed}-{at}", kind.name()));
        let copied = Command::new("cp").arg("-a").arg(self.worked()).arg(&kept).status()?;
        if copied.success() {
            println!("  kept: {}", kept.display());
        }
        Ok(())
    }
}

/// How the program should not have ended.
fn unexpected(kind: Kind, ended: &Ended, calls: &Calls) -> Option<String> {
    let failed = calls.failed.is_some() && kind != Kind::Short;
    let told_a_fault = ended.out.lines().any(|line| line.starts_with("fault "));
    match ended.code {
        _ if !ended.is_orderly() => Some(format!("the work {}", ended.told())),
        Some(0) if kind == Kind::Sync && calls.failed.as_deref().is_some_and(is_of_the_front) => {
            Some("what was acknowledged was never durable, and nothing told it".to_owned())
        }
        Some(0) if !told_a_fault => None,
        Some(child::FAULT) if failed && told_a_fault => None,
        _ => Some(format!("the work {}, though nothing had failed for good, or without telling it", ended.told())),
    }
}

/// Whether appends are made durable by what failed: no later call can make good for that.
fn is_of_the_front(failed: &str) -> bool {
    place(failed) == "fsync of front"
}

/// What a run came to, to be counted.
fn came_to(kind: Kind, ended: &Ended, calls: &Calls) -> String {
    let name = kind.name();
    match (&calls.failed, ended.code) {
        (None, _) => format!("{name} not reached"),
        // Where it failed is what shows whether it may be got over.
        (Some(failed), Some(0)) if kind != Kind::Short => format!("{name} got over: {}", place(failed)),
        (Some(_), Some(0)) => format!("{name} got over"),
        (Some(_), _) => format!("{name} told"),
    }
}

/// Which call failed on what kind of file: `fsync of rows`.
fn place(failed: &str) -> String {
    let mut words = failed.rsplit(' ');
    let (path, call) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{call} of {}", crate::rot::Kind::of(path.trim_end_matches(".unfinished")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, out: &str, err: &str) -> Ended {
        Ended { code: Some(code), out: out.to_owned(), err: err.to_owned() }
    }

    #[test]
    fn what_the_library_tells_is_read() {
        let calls = Calls::of("failed EIO write store/front-0\nchanges 12\nwrites 7\nsyncs 3 \n");
        let failed = Some("EIO write store/front-0".to_owned());
        assert_eq!(calls, Calls { changes: 12, writes: 7, syncs: 3, failed });
        assert_eq!(Calls::of(""), Calls::default());
    }

    #[test]
    fn a_fault_has_to_be_told_and_only_where_something_failed() {
        let none = Calls::default();
        let failed = Calls { failed: Some("EIO write x".to_owned()), ..Calls::default() };
        let fine = |kind, ended: Ended, calls: &Calls| unexpected(kind, &ended, calls).is_none();
        assert!(fine(Kind::Eio, ended(0, "", ""), &none));
        assert!(fine(Kind::Eio, ended(0, "", ""), &failed));
        assert!(fine(Kind::Eio, ended(2, "fault x\n", ""), &failed));
        assert!(!fine(Kind::Eio, ended(2, "fault x\n", ""), &none));
        assert!(!fine(Kind::Eio, ended(2, "", ""), &failed));
        assert!(!fine(Kind::Short, ended(2, "fault x\n", ""), &failed));
        let front = Calls { failed: Some("EIO fsync store/front-0".to_owned()), ..Calls::default() };
        assert!(!fine(Kind::Sync, ended(0, "", ""), &front));
        assert!(fine(Kind::Sync, ended(2, "fault x\n", ""), &front));
        assert!(!fine(Kind::Eio, ended(101, "", ""), &failed));
        assert!(!fine(Kind::Eio, ended(0, "", "thread panicked"), &failed));
    }

    #[test]
    fn what_was_got_over_is_told_with_its_file() {
        assert_eq!(place("EIO fsync store/rows/values-1"), "fsync of rows");
        assert_eq!(place("ENOSPC open store/catalog.unfinished"), "open of catalogue");
    }

    #[test]
    fn one_run_is_named() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let plan = only_one(&words("full,7,3")).unwrap();
        assert_eq!((plan.kind, plan.seed, plan.at), (Kind::Full, 7, 3));
        assert!(only_one(&words("melted,7,3")).is_err());
        assert!(only_one(&words("full,7")).is_err());
    }
}
