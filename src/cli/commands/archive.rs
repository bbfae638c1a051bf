//! `archive`: the first events of a log in files of their own.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, thousands};

/// Move the first events of the log into files elsewhere. Positions stay, and what is read goes on to the files.
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// Move the events before this position.
    #[arg(long, value_name = "POSITION", required_unless_present = "at", requires = "to")]
    before: Option<u64>,
    /// Into this directory: always the same for a ledger.
    #[arg(long, value_name = "DIR", requires = "before")]
    to: Option<PathBuf>,
    /// Move nothing, but note that the archive is in this directory now.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["before", "to"])]
    at: Option<PathBuf>,
}

impl Archive {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let info = match (self.before, self.to, self.at) {
            (Some(before), Some(to), _) => ledger.archive(before, app.caller.path(&to))?,
            (_, _, Some(at)) => ledger.archive_is_at(app.caller.path(&at))?,
            _ => return Err(Stop::usage("expected --before POSITION --to DIR, or --at DIR")),
        };
        let files: Vec<_> = info.files.iter().map(|file| file.display().to_string()).collect();
        let object = json!({
            "dir": info.dir.display().to_string(),
            "files": files,
            "events": info.events,
            "log_begins": info.log_begins,
        });
        app.out.answer(&object, || {
            let (events, dir) = (count(info.events, "event", "events"), info.dir.display());
            let begins = thousands(info.log_begins);
            format!("{} {events} in {dir}; the log begins at position {begins}", style::good("archived"))
        })
    }
}
