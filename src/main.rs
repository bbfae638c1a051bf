//! The `syncledger` program.

use std::process::ExitCode;

/// The writer's time is mostly small pieces of memory: `docs/benchmarks.md` has what this is worth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    syncledger::cli::main()
}
