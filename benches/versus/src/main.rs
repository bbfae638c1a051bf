//! The ledger beside the floor and beside peers, in one run: the same events appended to a plain file with `fdatasync`, and
//! inserted into an SQLite table in WAL mode with `synchronous=full`, which is what a service would write by hand; and the
//! same records kept by samod and by PouchDB.
//!
//! Prints Markdown tables of medians: rates, ratios, bytes, waits and memory. Only ratios of one run mean anything:
//! machines differ.
//!
//! ```text
//! cargo bench --bench versus -- [--rounds N] [--scale N] [--only TEXT] [--write PATH]
//! ```

mod bench;
mod children;
mod copies;
mod files;
mod floor;
mod long;
mod machine;
mod many;
mod memory;
mod options;
mod page;
mod pouchdb;
mod reads;
mod record;
mod replicas;
mod report;
mod samod;
mod served;
mod tables;
mod work;
mod writes;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use options::Options;
use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What ends a run early: the disk, or a fault in the ledger.
pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("versus: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    match &options.child {
        _ if options.help => println!("{}", options::USAGE),
        Some(name) => children::be(name, &options)?,
        None => match &options.serve {
            Some(serve) => served::server::serve(serve)?,
            None => compare(&options)?,
        },
    }
    Ok(())
}

/// Measures everything in rounds, so that the samples of one piece of work lie apart.
fn compare(options: &Options) -> Result<()> {
    options.write.as_deref().map_or(Ok(()), page::check)?;
    let (mut report, mut faults) = (Report::default(), Vec::new());
    for round in 1..=options.rounds {
        for name in options.names()? {
            eprint!("round {round} of {}: {name} …", options.rounds);
            let started = Instant::now();
            match children::run(name, options) {
                Ok(measured) => report.merge(measured),
                Err(fault) => faults.push(format!("round {round}: {fault}")),
            }
            eprintln!(" {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    let text = described(options, &report);
    print!("{text}");
    if !faults.is_empty() {
        return Err(faults.join("; ").into());
    }
    options.write.as_deref().map_or(Ok(()), |path| page::write(path, &text))
}

fn described(options: &Options, report: &Report) -> String {
    let (rounds, command, machine) = (options.rounds, options.command(), machine::described());
    let plural = if rounds == 1 { "One round".to_owned() } else { format!("Medians of {rounds} rounds") };
    format!("{plural} of `{command}`: {machine}.\n{report}")
}
