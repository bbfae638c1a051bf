//! `show`: an event or a conflict in full.

use clap::Args;

use crate::cli::app::App;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::ledger::{Ledger, RecordConflict};
use crate::shape;
use crate::{Error, ErrorKind, Result};

/// Show an event or a conflict in full.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id, or the beginning of it.
    id: String,
}

impl Show {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        if !shape::is_prefix(&self.id) {
            return Err(self
                .fault(ErrorKind::Validation, "is no beginning of an id: it has other than 0-9 and a-f")
                .into());
        }
        let ledger = app.ledger()?;
        let (event, conflict) = (found(ledger.find_event(&self.id))?, found(ledger.find_conflict(&self.id))?);
        match (event, conflict) {
            (Some(entry), None) => app.out.answer(&shape::entry(&entry), || people::entry_in_full(&entry)),
            (None, Some(found)) => in_full(app, &ledger, &found),
            (None, None) => Err(self.fault(ErrorKind::NotFound, "begins the id of no event and no conflict").into()),
            (Some(_), Some(_)) => Err(self
                .fault(ErrorKind::Validation, "begins the ids of an event and of a conflict: write more of it")
                .into()),
        }
    }

    fn fault(&self, kind: ErrorKind, message: &str) -> Error {
        let error = Error::new(kind, format!("`{}` {message}", self.id));
        error.with_hint("`syncledger log` and `syncledger conflicts --status all` show the ids")
    }
}

/// A conflict, what was said of it, and how it came to stand as it does.
fn in_full(app: &mut App, ledger: &Ledger, found: &RecordConflict) -> Outcome {
    let id = found.conflict.id;
    let (annotation, steps) = (ledger.annotation(id)?, ledger.conflict_history(id)?);
    let object = shape::conflict_in_full(found, &annotation, &steps);
    app.out.answer(&object, || {
        let steps: Vec<_> = steps.iter().map(people::conflict_step).collect();
        format!("{}\n\n{}", people::conflict_in_full(found), steps.join("\n"))
    })
}

fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
