//! `conflicts`: what was edited apart and disagrees.

use clap::{Args, ValueEnum};

use crate::cli::app::App;
use crate::cli::options::ViewOptions;
use crate::cli::people;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::table::count;
use crate::ledger::{Ledger, RecordConflict, Which};
use crate::projection::{Policy, Status};
use crate::shape;

/// List conflicts: who says what, what is shown, and why.
#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    /// Only this collection.
    collection: Option<String>,
    /// Which of them.
    #[arg(long, value_enum, default_value_t)]
    status: Wanted,
    /// Exit with 4 when conflicts are open.
    #[arg(long)]
    fail_if_open: bool,
    #[command(flatten)]
    view: ViewOptions,
}

/// Which conflicts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Those that wait for somebody.
    #[default]
    Open,
    /// Those that a rule decided.
    Auto,
    /// Those that somebody settled.
    Resolved,
    /// All.
    All,
}

impl From<Wanted> for Which {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Open => Self::Open,
            Wanted::Auto => Self::Auto,
            Wanted::Resolved => Self::Resolved,
            Wanted::All => Self::All,
        }
    }
}

impl Conflicts {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let policy = self.view.policy(&app.caller)?;
        let found = ledger.conflicts(self.collection.as_deref(), self.status.into(), policy.as_ref())?;
        let rows: Vec<_> = found.iter().map(shape::conflict).collect();
        if !found.is_empty() {
            app.out.list(&rows, || people::conflicts(&found))?;
        }
        app.out.note(summary(&found));
        if self.fail_if_open { self.fail_if_open(app, &ledger, policy.as_ref()) } else { Ok(()) }
    }

    fn fail_if_open(&self, app: &mut App, ledger: &Ledger, policy: Option<&Policy>) -> Outcome {
        match ledger.conflicts(self.collection.as_deref(), Which::Open, policy)?.len() {
            0 => Ok(()),
            open => {
                app.out.flush()?;
                Err(Stop::conflicts_open(open))
            }
        }
    }
}

fn summary(found: &[RecordConflict]) -> String {
    let open = found.iter().filter(|found| found.conflict.status == Status::Open).count();
    let all = count(found.len(), "conflict", "conflicts");
    match open {
        0 => all,
        open => format!("{all}, {open} open: settle one with `syncledger resolve ID`"),
    }
}
