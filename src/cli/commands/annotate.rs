//! `annotate` and `reopen`: what people do about a conflict besides settling it.

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::input;
use crate::cli::options::WriteOptions;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::ledger::Annotation;
use crate::shape;

/// Say who looks after a conflict, or something about it.
#[derive(Debug, Args)]
pub(crate) struct Annotate {
    /// The conflict's id, or the beginning of it.
    id: String,
    /// Who looks after it; an empty text for nobody.
    #[arg(long, value_name = "WHO", required_unless_present = "note")]
    assign: Option<String>,
    /// What there is to say about it; an empty text takes the last note back.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    write: WriteOptions,
}

/// Open a settled conflict again, with the candidates that it had.
#[derive(Debug, Args)]
pub(crate) struct Reopen {
    /// The conflict's id, or the beginning of it.
    id: String,
    #[command(flatten)]
    write: WriteOptions,
}

impl Annotate {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let conflict = ledger.find_conflict(input::conflict(&self.id)?)?.conflict.id;
        let annotation = Annotation { assignee: self.assign, note: self.note };
        let context = self.write.context();
        if self.write.dry_run {
            let planned = ledger.dry_run().annotate(conflict, &annotation, &context)?;
            return app.out.answer(&shape::planned(&planned), || people::planned(&planned));
        }
        let receipt = ledger.annotate(conflict, &annotation, &context)?;
        write::print(app, &receipt)
    }
}

impl Reopen {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let conflict = ledger.find_conflict(input::conflict(&self.id)?)?.conflict.id;
        let context = self.write.context();
        if self.write.dry_run {
            let would = ledger.dry_run().reopen(conflict, &context)?;
            return app.out.answer(&shape::dry_receipt(&would), || people::dry_receipt(&would));
        }
        let receipt = ledger.reopen(conflict, &context)?;
        write::print(app, &receipt)
    }
}
