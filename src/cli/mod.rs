//! The `syncledger` program: one file per command, each of which reads its arguments, asks the ledger, and prints.
//!
//! Data goes to stdout and words go to stderr, so that a pipe never holds anything but the answer. `--json` makes the
//! answer an object (one a line for lists), and errors objects too.
//!
//! Invariant: nothing here decides anything about records. Every answer is the ledger's; this module uses the public
//! API only, as any embedder does.

mod app;
mod args;
mod commands;
mod demo;
mod input;
mod interrupt;
mod options;
mod output;
mod people;
mod progress;
mod shape;
mod stop;
mod style;
mod table;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

use app::App;
use args::Cli;
use stop::Outcome;

/// Runs the program with the arguments of this process, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(fault) => return stop::refuse_arguments(&fault),
    };
    let json = cli.globals.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(json),
    }
}

fn run(cli: Cli) -> Outcome {
    cli.globals.color.write_global();
    output::trace(cli.globals.verbose, cli.globals.quiet);
    let mut app = App::new(cli.globals);
    cli.command.run(&mut app)?;
    app.out.flush()
}
