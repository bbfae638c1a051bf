//! The `syncledger` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    syncledger::cli::main()
}
