//! The ledger beside the floor, in one run: the same events appended to a plain file with `fdatasync`, and inserted into
//! an SQLite table in WAL mode with `synchronous=full`, which is what a service would write by hand.
//!
//! Prints a Markdown table of medians: rates, ratios and bytes. Only ratios of one run mean anything: machines differ.
//!
//! ```text
//! cargo run --release --manifest-path benches/versus/Cargo.toml -- [--rounds N] [--scale N] [--only TEXT]
//! ```

mod copies;
mod files;
mod floor;
mod record;
mod report;
mod work;

use std::error::Error;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What ends a run early: the disk, or a fault in the ledger.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What to run.
struct Options {
    rounds: usize,
    /// Divides every size: for a quick look, or under a slow profiler.
    scale: usize,
    only: String,
}

impl Options {
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { rounds: 5, scale: 1, only: String::new() };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("expected a value after {name}"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--scale" => options.scale = value.parse()?,
                "--only" => options.only = value,
                _ => return Err(format!("expected --rounds, --scale or --only, got {name}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let sizes = work::Sizes::divided_by(options.scale.max(1));
    let mut report = report::Report::default();
    for round in 1..=options.rounds {
        for (name, run) in work::ALL {
            if name.contains(&options.only) {
                eprintln!("round {round} of {}: {name}", options.rounds);
                run(&sizes, &mut report)?;
            }
        }
    }
    print!("{report}");
    Ok(())
}
