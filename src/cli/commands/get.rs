//! `get`: a record as a reader sees it.

use clap::Args;
use serde_json::Value as Json;

use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::options::{self, ViewOptions};
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table::count;
use crate::event::Path;
use crate::ledger::{Ledger, Look, Record};
use crate::shape;
use crate::{Error, ErrorKind};

/// Show a record, or one field of it: now, or as of an earlier moment.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    /// Only this field: a JSON Pointer.
    #[arg(value_parser = options::pointer)]
    pointer: Option<Path>,
    /// As of a position of the log, a time, or an event.
    #[arg(long, value_name = "POSITION|TIME|EVENT")]
    as_of: Option<String>,
    #[command(flatten)]
    view: ViewOptions,
}

impl Get {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let mut record = self.look(&app.caller, &ledger)?.ok_or_else(|| self.absent())?;
        if let Some(path) = &self.pointer {
            record.value = record.value.pointer(path.as_str()).cloned().ok_or_else(|| self.no_field(path))?;
        }
        note(app, &record);
        app.out.answer(&shape::record(&record), || pretty(&record.value))
    }

    fn look(&self, caller: &Caller, ledger: &Ledger) -> Outcome<Option<Record>> {
        let moment = |text: &String| options::as_of(ledger, &self.collection, &self.key, text);
        let look = Look { as_of: self.as_of.as_ref().map(moment).transpose()?, policy: self.view.policy(caller)? };
        Ok(ledger.look(&self.collection, &self.key, &look)?)
    }

    fn absent(&self) -> Error {
        let when = if self.as_of.is_some() { " at that moment" } else { "" };
        Error::new(ErrorKind::NotFound, format!("there is no record {}/{}{when}", self.collection, self.key))
            .with_hint(format!("see `syncledger list {}`", self.collection))
    }

    fn no_field(&self, path: &Path) -> Error {
        Error::new(ErrorKind::NotFound, format!("{}/{} has no field {path}", self.collection, self.key))
            .with_pointers(vec![path.to_string()])
    }
}

fn note(app: &App, record: &Record) {
    if record.deleted {
        app.out.note(style::warn("this record is deleted; this is what it was"));
    }
    if !record.conflicts.is_empty() {
        let conflicts = count(record.conflicts.len(), "conflict", "conflicts");
        app.out.note(style::warn(format!("{conflicts}: see `syncledger conflicts {}`", record.collection)));
    }
}

/// JSON for people.
fn pretty(value: &Json) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}
