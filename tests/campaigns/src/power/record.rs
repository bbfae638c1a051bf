//! Runs the program under test with `shim.c` before the C library, so that everything it changes is recorded.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::chance::Chance;

/// The recorder.
pub const SHIM: &str = include_str!("shim.c");
/// How many processes work on a store, one after another, and how many operations each does at most: few that do much, or
/// many that hardly begin.
const MUCH: (usize, usize) = (5, 250);
const HARDLY: (usize, usize) = (16, 25);

/// What gets its name by a rename, or is made, and has to be durable before anything stands on it.
const PATHS: [&str; 7] =
    ["store/catalog", "store/floors", "store/archives", "store/blobs/", "store/base/", "store/sealed/", ".slbk"];
/// How a process ends that found a fault.
const FAULT: i32 = 2;

/// Has everything recorded that a command changes below a directory.
pub fn with_shim(command: &mut Command, shim: &Path, dir: &Path, trace: &Path) {
    command.env("LD_PRELOAD", shim).env("CAMPAIGN_ROOT", dir).env("CAMPAIGN_TRACE", trace);
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// After its last operation.
    Last,
    /// Killed after this many records, of any kind or of those that change names.
    KilledAt(usize),
    KilledAtName(usize),
    /// Killed once a directory was made, or a file got its name, whose path has this in it: before that is durable.
    KilledAtPath(&'static str),
}

impl End {
    fn of(chance: &mut Chance) -> Self {
        match chance.below(10) {
            0 => Self::KilledAt(chance.between(1, 3_000)),
            1 => Self::KilledAt(chance.between(1, 100)),
            // Between a change of names and what makes it durable.
            2 | 3 => Self::KilledAtName(chance.between(1, 30)),
            4 => Self::KilledAtName(chance.between(1, 200)),
            5 => Self::KilledAtPath(chance.pick(&PATHS).copied().unwrap_or("store")),
            _ => Self::Last,
        }
    }

    fn tell(self, command: &mut Command) {
        match self {
            Self::Last => {}
            Self::KilledAt(records) => drop(command.env("CAMPAIGN_KILL_AT", records.to_string())),
            Self::KilledAtPath(part) => drop(command.env("CAMPAIGN_KILL_AT_PATH", part)),
            Self::KilledAtName(names) => drop(command.env("CAMPAIGN_KILL_AT_NAME", names.to_string())),
        }
    }
}

/// Records some processes that work on one store below `dir`, some of which are killed.
pub fn record(shim: &Path, dir: &Path, trace: &Path, chance: &mut Chance) -> Result<()> {
    let (processes, operations) = if chance.one_in(2) { MUCH } else { HARDLY };
    for _ in 0..chance.between(2, processes) {
        let (seed, operations, end) = (chance.next(), chance.between(1, operations), End::of(chance));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("work").arg(dir).args(["--seed", &seed.to_string(), "--operations", &operations.to_string()]);
        with_shim(&mut command, shim, dir, trace);
        end.tell(&mut command);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        match ended.code() {
            // Killed, or done.
            None | Some(0) => {}
            // It said what is wrong, which is in the trace.
            Some(FAULT) => return Ok(()),
            Some(_) => return Err(format!("the program under test failed with seed {seed}: {ended}").into()),
        }
    }
    Ok(())
}
