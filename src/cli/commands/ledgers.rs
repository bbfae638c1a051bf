//! `ledger list`, `create` and `drop`: the ledgers of a store.

use std::io::Write as _;

use clap::{Args, Subcommand};

use crate::cli::app::{App, find_ledger};
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table;
use crate::shape;

/// List, create and drop the ledgers of a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledgers {
    /// List the ledgers.
    List,
    /// Create a ledger.
    Create {
        /// Its name.
        name: String,
    },
    Drop(Drop),
}

/// Drop a ledger with all its events, for ever.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// Its name.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Ledgers {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::List => list(app),
            Self::Create { name } => create(app, &name),
            Self::Drop(command) => command.run(app),
        }
    }
}

fn list(app: &mut App) -> Outcome {
    let ledgers = app.store()?.ledgers();
    let rows: Vec<_> = ledgers.iter().map(|info| shape::ledger(&app.globals.store, info)).collect();
    app.out.list(&rows, || {
        let mut table = table::table(&["ledger", "id", "writer"]);
        for info in &ledgers {
            table.add_row([style::name(&info.name), info.id.to_string(), info.writer.to_string()]);
        }
        table::text(table)
    })
}

fn create(app: &mut App, name: &str) -> Outcome {
    let info = app.store()?.create_ledger(name)?.info();
    let text = || format!("{} ledger {}  {}", style::good("created"), style::name(name), style::dim(info.id));
    app.out.answer(&shape::ledger(&app.globals.store, &info), text)
}

impl Drop {
    fn run(self, app: &mut App) -> Outcome {
        let store = app.store()?;
        let info = find_ledger(&store, &self.name)?.info();
        if !self.yes {
            self.ask(app)?;
        }
        store.drop_ledger(&self.name)?;
        let text = || format!("{} ledger {}", style::good("dropped"), style::name(&self.name));
        app.out.answer(&shape::ledger(&app.globals.store, &info), text)
    }

    fn ask(&self, app: &App) -> Outcome {
        if !app.caller.stdin.is_terminal() {
            let message = format!("dropping ledger `{}` loses all its events for ever", self.name);
            return Err(Stop::usage(message).hint("say --yes if you mean it"));
        }
        let mut stderr = app.caller.stderr.writer();
        write!(stderr, "Type the ledger's name to drop it for ever: ")?;
        stderr.flush()?;
        if app.caller.stdin.line()?.trim() == self.name {
            Ok(())
        } else {
            Err(Stop::usage("another name was typed: nothing is dropped"))
        }
    }
}
