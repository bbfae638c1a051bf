//! `pull`: the events of another store, or of a backup file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::app::{App, find_ledger, open_store};
use crate::cli::interrupt::Interrupt;
use crate::cli::progress;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, thousands};
use crate::ledger::{Ledger, Transfer};

/// Take over the events of a ledger in another store, or of a backup file. Edits made apart merge. An empty ledger
/// becomes a replica.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The directory of the other store, or a backup file.
    dir: PathBuf,
    /// The ledger there; the one of the same name as here where this is missing.
    #[arg(long, value_name = "NAME")]
    from_ledger: Option<String>,
}

impl Pull {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        if self.dir.is_file() {
            let done = pull_file(app, &ledger, &self.dir)?;
            return answer(app, &done);
        }
        let name = self.from_ledger.as_deref().unwrap_or(&app.globals.ledger);
        let other = if self.is_here(app) { ledger.store().clone() } else { open_store(&self.dir)? };
        if self.is_here(app) && name == app.globals.ledger {
            return Err(Stop::usage("a ledger cannot pull from itself").hint("name another store, or --from-ledger"));
        }
        let done = pull(app, &ledger, &find_ledger(&other, name)?)?;
        answer(app, &done)
    }

    /// A store is open only once, in this process too.
    fn is_here(&self, app: &App) -> bool {
        let here = app.globals.store.canonicalize();
        here.is_ok_and(|here| self.dir.canonicalize().is_ok_and(|there| here == there))
    }
}

fn answer(app: &mut App, done: &Transfer) -> Outcome {
    let object = json!({
        "offered": done.offered,
        "applied": done.applied,
        "duplicates": done.duplicates,
        "waiting": done.waiting,
    });
    app.out.answer(&object, || text(done))
}

fn pull_file(app: &App, ledger: &Ledger, file: &Path) -> Outcome<Transfer> {
    let interrupt = Interrupt::listen()?;
    let bar = progress::over_events(0, &app.out).with_message("pulling");
    let done = ledger.pull_file(file, &mut |so_far| {
        bar.set_position(so_far.offered);
        interrupt.check()
    });
    bar.finish_and_clear();
    done.map_err(|fault| interrupt.explain(fault, "pull again: what is there already is skipped"))
}

fn pull(app: &App, ledger: &Ledger, other: &Ledger) -> Outcome<Transfer> {
    let interrupt = Interrupt::listen()?;
    let bar = progress::over_events(other.position(), &app.out).with_message("pulling");
    let done = ledger.pull_with(other, &mut |so_far| {
        bar.set_position(so_far.offered);
        interrupt.check()
    });
    bar.finish_and_clear();
    done.map_err(|fault| interrupt.explain(fault, "pull again: what is there already is skipped"))
}

fn text(done: &Transfer) -> String {
    let waiting = match done.waiting {
        0 => String::new(),
        waiting => style::warn(format!(", {} waiting for their parents", thousands(waiting))),
    };
    let applied = style::good(format!("{} applied", thousands(done.applied)));
    let offered = count(done.offered, "event", "events");
    format!("{offered} offered: {applied}, {} known{waiting}", thousands(done.duplicates))
}
