//! Long campaigns against the real program.
//!
//! ```text
//! campaigns kill  [--cycles N] [--seed S] [--dir DIR]
//! campaigns faults [--runs N] [--seconds S] [--seed X] [--at-once N] [--program PATH] [--broken-restore]
//! campaigns soak  [--seconds S] [--devices N] [--seed X] [--program PATH]
//! campaigns power [--images N] [--traces N] [--seed S] [--dir DIR] [--ext4] [--broken-fsync] [--spare ENDS]
//!                 [--trace FILE [--image N]]
//! campaigns recovery [--runs N]
//! campaigns simulation   [--seeds N] [--from S]
//! campaigns differential [--seeds N] [--from S]
//! campaigns io    [--every N] [--seed S] [--seeds N] [--runs N] [--dir DIR] [--only KIND,SEED,K]
//! campaigns io --image [--runs N] [--seed S] [--dir DIR]
//! campaigns rot   [--runs N] [--seed S] [--dir DIR]
//! campaigns report FILE
//! ```
//! `kill` runs a program that writes, kills it with SIGKILL at random, again and again, and compares the store with what
//! was acknowledged. `power` records every file operation of such a program, cuts the record anywhere, builds what a disk
//! might hold after a power cut there, and opens that. `io` has every call on the disk fail, one after another, and with `--image` fills
//! a small file system. `rot` damages the files of stores, archives and backups, and reads what is left. `faults` runs a server
//! and devices, kills them, has them stand still, cuts their lines, fills their disks and puts their clocks wrong. `soak` has a
//! server work for long, and looks at what it uses. `simulation` and `differential` run the bodies of integration tests for many
//! seeds.
//!
//! Each ends with its totals, the commit, the seed and what so many runs say, and with exit code 1 where anything was lost, torn or
//! wrong. `--record FILE` appends that to a file, and `--from N` goes on where an earlier piece ended; `report` sums the pieces up.

mod arguments;
mod chance;
#[cfg(feature = "stores")]
mod check;
#[cfg(feature = "stores")]
mod child;
mod faults;
mod http;
#[cfg(feature = "stores")]
mod io;
#[cfg(feature = "stores")]
mod kill;
#[cfg(feature = "stores")]
mod power;
#[cfg(feature = "stores")]
mod promise;
#[cfg(feature = "stores")]
mod recovery;
#[cfg(feature = "stores")]
mod rot;
#[cfg(feature = "seeds")]
mod seeds;
mod shim;
mod soak;
mod tally;
#[cfg(feature = "stores")]
mod work;

// The bodies of integration tests.
#[cfg(feature = "seeds")]
#[path = "../../it/histories.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is a test's"
)]
mod histories;
#[cfg(feature = "seeds")]
#[path = "../../it/naive.rs"]
#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "it is a test's")]
mod naive;
#[cfg(feature = "seeds")]
#[path = "../../it/oracle.rs"]
#[allow(unused_imports, clippy::unwrap_used, reason = "it is a test's")]
mod oracle;
#[cfg(feature = "seeds")]
#[path = "../../it/reference.rs"]
#[allow(unused_imports, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "it is a test's")]
mod reference;
#[cfg(feature = "seeds")]
#[path = "../../it/simulation/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is a test's"
)]
mod simulation;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use arguments::Arguments;

/// What ends a campaign early: the machine, never what it looks for.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was as promised.
fn run(arguments: &Arguments) -> Result<bool> {
    match arguments.words().as_slice() {
        ["faults"] => faults::run(arguments),
        ["soak"] => soak::run(arguments),
        ["report", file] => tally::report(Path::new(file)),
        #[cfg(feature = "stores")]
        ["kill"] => kill::run(arguments),
        #[cfg(feature = "stores")]
        ["power"] => power::run(arguments),
        #[cfg(feature = "seeds")]
        ["simulation"] => seeds::simulate(arguments),
        #[cfg(feature = "seeds")]
        ["differential"] => seeds::differential(arguments),
        #[cfg(feature = "stores")]
        ["recovery"] => recovery::run(arguments),
        #[cfg(feature = "stores")]
        ["fill", dir] => recovery::fill(Path::new(dir), arguments.number("events")?.unwrap_or(1)).map(|()| true),
        #[cfg(feature = "stores")]
        ["io"] => io::run(arguments),
        #[cfg(feature = "stores")]
        ["rot"] => rot::run(arguments),
        // Reads what was damaged; a campaign starts it.
        #[cfg(feature = "stores")]
        ["rot", words @ ..] => rot::look(words, arguments),
        // The program under test; a campaign starts it.
        #[cfg(feature = "stores")]
        ["work", dir] => {
            let operations = arguments.number("operations")?.map(|operations| operations as usize);
            work::run(Path::new(dir), arguments.number("seed")?.unwrap_or(1), operations).map(|()| true)
        }
        // Opens an image; a campaign starts it too.
        #[cfg(feature = "stores")]
        ["check", dir, promised] => check_alone(Path::new(dir), Path::new(promised), arguments),
        _ => Err("expected the name of a campaign; the first lines of src/main.rs say which and how".into()),
    }
}

/// A directory in memory, where there is one: fsyncs cost nothing there.
#[cfg(feature = "stores")]
fn memory() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[cfg(feature = "stores")]
/// Prints what is not as a file of promises says. Whether that is nothing.
fn check_alone(dir: &Path, promised: &Path, arguments: &Arguments) -> Result<bool> {
    let mut promises = promise::Promises::default();
    promises.take(&std::fs::read_to_string(promised)?);
    let findings = check::check(dir, &promises, true, arguments.number("seed")?.unwrap_or(1));
    findings.all().for_each(|(kind, found)| println!("{kind} {found}"));
    Ok(findings.all().next().is_none())
}
