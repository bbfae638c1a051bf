//! The command line as clap reads it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser};

use super::commands::Command;

/// An event-sourced sync ledger: every change is kept, edits made apart merge field by field, and what really
/// conflicts stays visible until somebody settles it.
#[derive(Debug, Parser)]
#[command(name = "syncledger", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Start with `syncledger demo`, or with `syncledger init` and `syncledger put notes first '{\"text\": \"hello\"}'`.

Exit codes: 0 ok, 1 failed, 2 usage, 3 partly failed, 4 conflicts open (with --fail-if-open), 5 corrupt,
10 no store, 11 locked by another process that answers nobody, 12 not authenticated by the server, 13 server unavailable,
130 interrupted.";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// The directory of the store.
    #[arg(long, global = true, env = "SYNCLEDGER_STORE", default_value = "./ledger", value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// The ledger in the store.
    #[arg(long, global = true, default_value = "main", value_name = "NAME")]
    pub(crate) ledger: String,
    /// Answer programs: one JSON object, or one a line for lists; errors are objects on stderr.
    #[arg(long, global = true, overrides_with = "json")]
    pub(crate) json: bool,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Print answers and errors only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say on stderr what is done; twice: how.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[arg(skip)]
    pub(crate) given: Given,
}

/// Which of the global options stand on the command line, rather than in the environment or nowhere.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only the server's settings ask for it"))]
pub(crate) struct Given {
    pub(crate) store: bool,
    pub(crate) ledger: bool,
}

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let is_given = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        Self { store: is_given("store"), ledger: is_given("ledger") }
    }
}

impl Cli {
    /// Reads a command line.
    ///
    /// # Errors
    /// What clap has to say of it: also help, where that is asked for.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|fault| fault.format(&mut Self::command()))?;
        cli.globals.given = Given::of(&matches);
        Ok(cli)
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// In pipes and files too.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// What that comes to on a stream of this process.
    pub(crate) fn choice<S: anstream::stream::RawStream>(self, stream: &S) -> anstream::ColorChoice {
        match self {
            Self::Auto => anstream::AutoStream::choice(stream),
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
