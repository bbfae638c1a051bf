//! `pull` and `push`: the events of another store, or of a backup file, come here; those from here go there.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::app::{App, find_ledger};
use crate::cli::progress;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, thousands};
use crate::ledger::{Ledger, Transfer};

/// Take over the events of a ledger in another store, or of a backup file. Edits made apart merge. An empty ledger
/// becomes a replica.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The directory of the other store, a backup file, or the address of the server that the ledger is enrolled with.
    dir: PathBuf,
    /// The ledger there; the one of the same name as here where this is missing.
    #[arg(long, value_name = "NAME")]
    from_ledger: Option<String>,
}

impl Pull {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        #[cfg(feature = "client")]
        if let Some(url) = server(&self.dir) {
            return with_server(app, &ledger, url, crate::client::Ways::Pull);
        }
        let there = app.caller.path(&self.dir);
        if there.is_file() {
            let done = pull_file(app, &ledger, &there)?;
            return answer(app, &done);
        }
        let other = other(app, &ledger, &self.dir, self.from_ledger.as_deref())?.ok_or_else(|| {
            Stop::usage("a ledger cannot pull from itself").hint("name another store, or --from-ledger")
        })?;
        let done = transfer(app, &ledger, &other, "pull")?;
        answer(app, &done)
    }
}

/// Give the events of this ledger to a ledger in another store. Edits made apart merge there. An empty ledger becomes a
/// replica.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The directory of the other store, or the address of the server that the ledger is enrolled with.
    dir: PathBuf,
    /// The ledger there; the one of the same name as here where this is missing.
    #[arg(long, value_name = "NAME")]
    to_ledger: Option<String>,
}

impl Push {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        #[cfg(feature = "client")]
        if let Some(url) = server(&self.dir) {
            return with_server(app, &ledger, url, crate::client::Ways::Push);
        }
        let other = other(app, &ledger, &self.dir, self.to_ledger.as_deref())?.ok_or_else(|| {
            Stop::usage("a ledger cannot push to itself").hint("name another store, or --to-ledger")
        })?;
        let done = transfer(app, &other, &ledger, "push")?;
        answer(app, &done)
    }
}

/// The address of a server, where that was written instead of a directory.
#[cfg(feature = "client")]
fn server(written: &Path) -> Option<&str> {
    written.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://"))
}

#[cfg(feature = "client")]
fn with_server(app: &mut App, ledger: &Ledger, url: &str, ways: crate::client::Ways) -> Outcome {
    use super::sync;
    let client = sync::client(ledger, Some(url), sync::Line::default())?;
    sync::once(app, &client, |client| client.go(ways, &[]))
}

/// The ledger of a name in another store, or in this one; `None` where it is the same.
fn other(app: &App, ledger: &Ledger, dir: &Path, name: Option<&str>) -> Outcome<Option<Ledger>> {
    let name = name.unwrap_or(&app.globals.ledger);
    // A store is open only once, in this process too.
    let is_here = is_same(&app.caller.path(&app.globals.store), &app.caller.path(dir));
    if is_here && name == app.globals.ledger {
        return Ok(None);
    }
    let store = if is_here { ledger.store().clone() } else { app.open_store(dir)? };
    find_ledger(&store, name).map(Some)
}

fn is_same(here: &Path, there: &Path) -> bool {
    here.canonicalize().is_ok_and(|here| there.canonicalize().is_ok_and(|there| here == there))
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
    let interrupt = app.caller.interrupt()?;
    let bar = progress::over_events(0, &app.out).with_message("pulling");
    let done = ledger.pull_file(file, &mut |so_far| {
        bar.set_position(so_far.offered);
        interrupt.check()
    });
    bar.finish_and_clear();
    done.map_err(|fault| interrupt.explain(fault, "pull again: what is there already is skipped"))
}

/// Has a ledger take in what another holds, in the words of the command that somebody gave.
fn transfer(app: &App, to: &Ledger, from: &Ledger, word: &str) -> Outcome<Transfer> {
    let interrupt = app.caller.interrupt()?;
    let bar = progress::over_events(from.position(), &app.out).with_message(format!("{word}ing"));
    let done = to.pull_with(from, &mut |so_far| {
        bar.set_position(so_far.offered);
        interrupt.check()
    });
    bar.finish_and_clear();
    done.map_err(|fault| interrupt.explain(fault, &format!("{word} again: what is there already is skipped")))
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
