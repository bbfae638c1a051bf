//! `completions`: what a shell completes.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::app::App;
use crate::cli::args::Cli;
use crate::cli::stop::Outcome;

/// Print the completions of a shell.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "syncledger", &mut script);
        Ok(std::io::Write::write_all(&mut app.out, &script)?)
    }
}
