//! `diff`: what differs between two moments of a record.

use clap::Args;

use crate::cli::app::App;
use crate::cli::options;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::shape;

/// Show what differs between two moments of a record.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    /// The earlier moment: a position, a time or an event.
    #[arg(long, value_name = "MOMENT")]
    from: String,
    /// The later moment.
    #[arg(long, value_name = "MOMENT")]
    to: String,
}

impl Diff {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let moment = |text: &str| options::as_of(&ledger, &self.collection, &self.key, text);
        let changes = ledger.diff(&self.collection, &self.key, moment(&self.from)?, moment(&self.to)?)?;
        let rows: Vec<_> = changes.iter().map(shape::change).collect();
        if changes.is_empty() {
            app.out.note("nothing differs");
            return Ok(());
        }
        app.out.list(&rows, || people::changes(&changes))
    }
}
