//! `rebuild`: derives everything again from the log alone.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::options;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::count;
use crate::ledger::{Ledger, Rebuilt};

/// Derive everything again from the log alone: here, or into a fresh directory.
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Only what this ledger knew at a position, or what was stamped up to a time.
    #[arg(long, value_name = "POSITION|TIME", requires = "into")]
    until: Option<String>,
    /// Make a new store here, and leave this one alone.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Rebuild {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let done = self.rebuild(&app.ledger()?)?;
        let object = json!({ "events": done.events, "records": done.records, "seconds": done.seconds });
        app.out.answer(&object, || {
            let (events, records) = (count(done.events, "event", "events"), count(done.records, "record", "records"));
            format!("{} {records} from {events} in {:.2} s", style::good("rebuilt"), done.seconds)
        })
    }

    fn rebuild(&self, ledger: &Ledger) -> Outcome<Rebuilt> {
        let Some(dir) = &self.into else { return Ok(ledger.rebuild()?) };
        let is_used = dir.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if is_used {
            return Err(Stop::usage(format!("{} is not empty", dir.display())).hint("name a fresh directory"));
        }
        let until = self.until.as_deref().map(options::until).transpose()?;
        Ok(ledger.rebuild_into(dir, until)?)
    }
}
