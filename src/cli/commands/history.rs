//! `history`: what happened to a record, with before and after.

use clap::Args;

use crate::cli::app::App;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::cli::table::count;
use crate::shape;
use crate::{Error, ErrorKind};

/// How many changed fields of one event people are shown; `--full` shows all.
const MOST: usize = 12;

/// Show who changed a record, when and why, and each field before and after.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    /// All changed fields; with --json also the whole record before and after.
    #[arg(long)]
    full: bool,
}

impl History {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let revisions = ledger.history(&self.collection, &self.key)?;
        if revisions.is_empty() {
            return Err(no_record(&self.collection, &self.key).into());
        }
        let most = if self.full { usize::MAX } else { MOST };
        for revision in &revisions {
            app.out.answer(&shape::revision(revision, self.full), || people::revision(revision, most))?;
        }
        app.out.note(crate::cli::style::dim(count(revisions.len(), "event", "events")));
        Ok(())
    }
}

/// There is no such record.
pub(super) fn no_record(collection: &str, key: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no record {collection}/{key}"))
        .with_hint(format!("see `syncledger list {collection}`"))
}
