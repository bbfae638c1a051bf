//! `digest`: the state of the ledger as one value.

use clap::Args;

use crate::cli::app::App;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table::count;
use crate::shape;

/// Show a hash of all events: equal exactly when two replicas hold the same.
#[derive(Debug, Args)]
pub(crate) struct Digest {}

impl Digest {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let digest = app.ledger()?.digest()?;
        let events = count(digest.events, "event", "events");
        let text = || format!("{}\n{}", digest.digest, style::dim(format!("{events}, position {}", digest.position)));
        app.out.answer(&shape::digest(&digest), text)
    }
}
