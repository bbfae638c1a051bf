//! Runs the program under test with `shim.c` before the C library, so that everything it changes is recorded.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::chance::Chance;

const SHIM: &str = include_str!("shim.c");
/// How many processes work on a store, one after another.
const PROCESSES: usize = 5;
const MOST_OPERATIONS: usize = 250;

/// Compiles the recorder.
pub fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, shim) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-o"]).arg(&shim).arg(&source).args(["-ldl", "-lpthread"]);
    match compiler.status()?.success() {
        true => Ok(shim),
        false => Err("the recorder does not compile: is there a C compiler `cc`?".into()),
    }
}

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
}

impl End {
    fn of(chance: &mut Chance) -> Self {
        match chance.below(5) {
            0 => Self::KilledAt(chance.between(1, 3_000)),
            // Between a change of names and what makes it durable.
            1 => Self::KilledAtName(chance.between(1, 12)),
            2 => Self::KilledAtName(chance.between(1, 200)),
            _ => Self::Last,
        }
    }

    fn tell(self, command: &mut Command) {
        match self {
            Self::Last => {}
            Self::KilledAt(records) => drop(command.env("CAMPAIGN_KILL_AT", records.to_string())),
            Self::KilledAtName(names) => drop(command.env("CAMPAIGN_KILL_AT_NAME", names.to_string())),
        }
    }
}

/// Records some processes that work on one store below `dir`, some of which are killed.
pub fn record(shim: &Path, dir: &Path, trace: &Path, chance: &mut Chance) -> Result<()> {
    for _ in 0..chance.between(2, PROCESSES) {
        let (seed, operations, end) = (chance.next(), chance.between(20, MOST_OPERATIONS), End::of(chance));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("work").arg(dir).args(["--seed", &seed.to_string(), "--operations", &operations.to_string()]);
        with_shim(&mut command, shim, dir, trace);
        end.tell(&mut command);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if ended.code().is_some_and(|code| code != 0) {
            return Err(format!("the program under test failed with seed {seed}: {ended}").into());
        }
    }
    Ok(())
}
