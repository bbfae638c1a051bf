//! `rebuild`: derives everything again from the log alone.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::backup;
use crate::cli::app::App;
use crate::cli::options;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::count;
use crate::ledger::{Ledger, Rebuilt, Store};

/// Derive everything again from the log alone: here, or into a fresh directory.
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Only what this ledger knew at a position, or what was stamped up to a time.
    #[arg(long, value_name = "POSITION|TIME", requires = "into")]
    until: Option<String>,
    /// Make a new store here, and leave this one alone.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Not from the log here, but from a backup file, or from all (*.slbk) of a directory: for a store that is damaged.
    #[arg(long, value_name = "FILE|DIR", requires = "into", conflicts_with = "until")]
    from: Vec<PathBuf>,
    /// With --from: where a file is cut or damaged, take what comes before.
    #[arg(long, requires = "from")]
    partial: bool,
}

impl Rebuild {
    #[cfg(unix)]
    pub(super) fn needs_store(&self) -> bool {
        self.from.is_empty()
    }

    pub(crate) fn run(self, app: &mut App) -> Outcome {
        if let (Some(dir), false) = (&self.into, self.from.is_empty()) {
            return self.restore_files(app, dir);
        }
        let done = self.rebuild(app, &app.ledger()?)?;
        let object = json!({ "events": done.events, "records": done.records, "seconds": done.seconds });
        app.out.answer(&object, || {
            let (events, records) = (count(done.events, "event", "events"), count(done.records, "record", "records"));
            format!("{} {records} from {events} in {:.2} s", style::good("rebuilt"), done.seconds)
        })
    }

    fn restore_files(&self, app: &mut App, dir: &Path) -> Outcome {
        fresh(app, dir)?;
        let mut files = Vec::new();
        for from in self.from.iter().map(|from| app.caller.path(from)) {
            files.extend(if from.is_dir() { backups_in(&from)? } else { vec![from] });
        }
        let store = Store::open(app.caller.path(dir))?;
        let done = store.restore(&app.globals.ledger, &files, self.partial)?;
        store.close()?;
        backup::answer(app, &done)
    }

    fn rebuild(&self, app: &App, ledger: &Ledger) -> Outcome<Rebuilt> {
        let Some(dir) = &self.into else { return Ok(ledger.rebuild()?) };
        fresh(app, dir)?;
        let until = self.until.as_deref().map(options::until).transpose()?;
        Ok(ledger.rebuild_into(app.caller.path(dir), until)?)
    }
}

fn fresh(app: &App, dir: &Path) -> Outcome {
    let is_used = app.caller.path(dir).read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(Stop::usage(format!("{} is not empty", dir.display())).hint("name a fresh directory"));
    }
    Ok(())
}

/// The backup files of a directory, by name.
fn backups_in(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "slbk") {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Stop::usage(format!("{} holds no file whose name ends with .slbk", dir.display()))),
        false => Ok(files),
    }
}
