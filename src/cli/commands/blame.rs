//! `blame`: who wrote what is shown of each field.

use clap::Args;

use super::history::no_record;
use crate::cli::app::App;
use crate::cli::people;
use crate::cli::shape;
use crate::cli::stop::Outcome;

/// Show who wrote each field of a record.
#[derive(Debug, Args)]
pub(crate) struct Blame {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
}

impl Blame {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        if ledger.get(&self.collection, &self.key)?.is_none() {
            return Err(no_record(&self.collection, &self.key).into());
        }
        let lines = ledger.blame(&self.collection, &self.key)?;
        let rows: Vec<_> = lines.iter().map(shape::line).collect();
        app.out.list(&rows, || people::blame(&lines))
    }
}
