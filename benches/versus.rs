//! `cargo bench --bench versus`: builds and runs the crate `benches/versus`, which no build of the package knows, so that
//! what it compares with weighs on nobody else.
//!
//! Without arguments five rounds of everything, written to `docs/benchmarks.md`; with arguments, what they say.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (asked, mut arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "--bench");
    // Cargo adds `--bench` where it benchmarks, and not where it tests all targets.
    if asked.is_empty() {
        println!("nothing is measured: expected `cargo bench --bench versus`");
        return ExitCode::SUCCESS;
    }
    if arguments.is_empty() {
        arguments = ["--rounds", "5", "--write", "docs/benchmarks.md"].map(str::to_owned).to_vec();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["run", "--release", "--manifest-path", "benches/versus/Cargo.toml", "--"]);
    match command.args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("cargo cannot be started: {fault}");
            ExitCode::FAILURE
        }
    }
}
