//! `man`: the manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::cli::args::Cli;
use crate::cli::stop::{Outcome, at_file};

/// Print the manual page, or write all of them into a directory.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for every command here.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let Some(dir) = self.dir else {
            return Ok(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?);
        };
        std::fs::create_dir_all(&dir).map_err(at_file(&dir))?;
        clap_mangen::generate_to(Cli::command(), &dir).map_err(at_file(&dir))
    }
}
