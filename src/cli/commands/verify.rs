//! `verify`: whether everything stored is what was written.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::backup;
use crate::ErrorKind;
use crate::cli::app::App;
use crate::cli::progress;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::count;
use crate::ledger::{Ledger, Verification, verify_backup};
use crate::shape;

/// Check checksums, ids, lanes, forks, and that the derived state equals a replay of the log; or check a backup file.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A backup file, to be checked in place of the ledger.
    file: Option<PathBuf>,
}

impl Verify {
    #[cfg(unix)]
    pub(super) fn needs_store(&self) -> bool {
        self.file.is_none()
    }

    pub(crate) fn run(self, app: &mut App) -> Outcome {
        if let Some(file) = &self.file {
            let info = verify_backup(app.caller.path(file))?;
            let mut object = backup::shape(&info);
            shape::set(&mut object, "ok", true);
            return app.out.answer(&object, || format!("{} {}", style::good("ok:"), backup::text(&info)));
        }
        let found = examine(app, &app.ledger()?)?;
        let ok = found.problems.is_empty();
        let events = count(found.events, "event", "events");
        let object = json!({ "ok": ok, "events": found.events, "problems": found.problems });
        app.out.answer(&object, || match ok {
            true => format!("{} {events}, nothing wrong", style::good("ok:")),
            false => found.problems.join("\n"),
        })?;
        if ok {
            return Ok(());
        }
        app.out.flush()?;
        let problems = count(found.problems.len(), "problem", "problems");
        Err(Stop::corrupt(format!("{problems} in {events}")).hint(
            "wrong derived state goes away with `syncledger rebuild`; for a damaged log pull from another replica",
        ))
    }
}

/// What is wrong with a ledger; where its damage ends the examination, that is the problem.
pub(super) fn examine(app: &App, ledger: &Ledger) -> Outcome<Verification> {
    let interrupt = app.caller.interrupt()?;
    let bar = progress::over_events(ledger.position(), &app.out).with_message("verifying");
    let found = ledger.verify_with(&mut |read| {
        bar.set_position(read);
        interrupt.check()
    });
    bar.finish_and_clear();
    match found {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            Ok(Verification { problems: vec![error.to_string()], ..Verification::default() })
        }
        found => found.map_err(|fault| interrupt.explain(fault, "nothing was changed: verify again")),
    }
}
