//! `init`: makes the store.

use clap::Args;

use crate::cli::app::App;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::shape;

/// Make the store, and the ledger in it. Both may exist.
#[derive(Debug, Args)]
pub(crate) struct Init {}

impl Init {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let dir = &app.globals.store;
        let info = app.store_or_create()?.ledger_or_create(&app.globals.ledger)?.info();
        let text = format!("{} ledger {} in {}", style::good("ready:"), style::name(&info.name), dir.display());
        app.out.answer(&shape::ledger(dir, &info), || format!("{text}\n{}", style::dim(format!("id {}", info.id))))
    }
}
