//! The `syncledger` program: one file per command, each of which reads its arguments, asks the ledger, and prints.
//!
//! Data goes to stdout and words go to stderr, so that a pipe never holds anything but the answer. `--json` makes the
//! answer an object (one a line for lists), and errors objects too.
//!
//! Invariant: nothing here decides anything about records. Every answer is the ledger's; this module uses the public
//! API only, as any embedder does.

mod app;
mod args;
mod caller;
mod commands;
#[cfg(feature = "server")]
mod configuration;
#[cfg(unix)]
mod control;
mod demo;
mod input;
mod interrupt;
mod options;
mod output;
mod people;
mod progress;
mod stop;
mod style;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use app::App;
use args::Cli;
use caller::Caller;
use stop::Outcome;

/// Runs the program with the arguments of this process, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = match Cli::read(&arguments) {
        Ok(cli) => run_somewhere(cli, &arguments),
        Err(fault) => stop::refuse_arguments(&fault, &arguments),
    };
    ExitCode::from(code)
}

/// Runs a command in the process that holds the store, where one answers, and here where none does.
fn run_somewhere(cli: Cli, arguments: &[OsString]) -> u8 {
    let caller = Caller::here(cli.globals.color);
    match relay(&cli, &caller, arguments) {
        Ok(Some(code)) => code,
        Err(stop) => stop.report(cli.globals.json, &caller.stderr),
        Ok(None) => {
            // A server decides itself, once it has its settings.
            if !cli.command.is_server() {
                output::trace(cli.globals.verbose, cli.globals.quiet);
            }
            run(cli, caller)
        }
    }
}

#[cfg(unix)]
fn relay(cli: &Cli, caller: &Caller, arguments: &[OsString]) -> Outcome<Option<u8>> {
    if cli.command.is_relayed() { control::relay(caller, &cli.globals, arguments) } else { Ok(None) }
}

#[cfg(not(unix))]
fn relay(_: &Cli, _: &Caller, _: &[OsString]) -> Outcome<Option<u8>> {
    Ok(None)
}

/// Runs a command for a caller, and gives the exit code.
fn run(cli: Cli, caller: Caller) -> u8 {
    let (json, stderr) = (cli.globals.json, caller.stderr.clone());
    match answer(cli, caller) {
        Ok(()) => 0,
        Err(stop) => stop.report(json, &stderr),
    }
}

fn answer(cli: Cli, caller: Caller) -> Outcome {
    let mut app = App::new(cli.globals, caller);
    cli.command.run(&mut app)?;
    app.out.flush()
}
