//! `blame`: who wrote what is shown of each field.

use clap::Args;

use super::history::no_record;
use crate::Result;
use crate::cli::app::App;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::ledger::{Entry, Ledger, Line};
use crate::shape;

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
        if app.out.json {
            return lines.iter().try_for_each(|line| app.out.object(&shape::line(line)));
        }
        let lines = with_entries(&ledger, lines)?;
        app.out.line(people::blame(&lines))
    }
}

/// The lines, each with the event that wrote it: people want to know when it happened, not only when it was stamped.
pub(in crate::cli) fn with_entries(ledger: &Ledger, lines: Vec<Line>) -> Result<Vec<(Line, Option<Entry>)>> {
    let with_entry = |line: Line| {
        let entry = line.event.map(|event| ledger.entry(event)).transpose()?.flatten();
        Ok((line, entry))
    };
    lines.into_iter().map(with_entry).collect()
}
