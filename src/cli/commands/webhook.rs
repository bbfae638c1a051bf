//! `webhook list` and `replay`: where the change webhooks of the server are.

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use crate::cli::app::App;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table;
use crate::server::Webhooks;

/// List the change webhooks of the sync server, and send again what they were sent.
#[derive(Debug, Subcommand)]
pub(crate) enum Webhook {
    /// List the webhooks, with how far in the log each is.
    List,
    Replay(Replay),
}

/// Send a webhook everything after a position again; one that was stopped is sent to again.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Its name.
    name: String,
    /// The position after which to begin; 0 is the beginning of the log.
    #[arg(long, value_name = "POSITION")]
    from: u64,
}

impl Webhook {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::List => list(app),
            Self::Replay(command) => command.run(app),
        }
    }
}

impl Replay {
    fn run(self, app: &mut App) -> Outcome {
        let moved = Webhooks::of(app.ledger()?.store())?.replay(&self.name, self.from)?;
        let text = || format!("{} {} after position {}", style::good("replays"), style::name(&self.name), self.from);
        app.out.answer(&moved, text)
    }
}

fn list(app: &mut App) -> Outcome {
    let webhooks = Webhooks::of(app.ledger()?.store())?.list()?;
    app.out.list(&webhooks, || {
        let mut table = table::table(&["webhook", "state", "position", "delivered", "failures", "error"]);
        for webhook in &webhooks {
            let text = |name: &str| webhook.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
            let number = |name: &str| webhook.get(name).and_then(Json::as_u64).unwrap_or_default().to_string();
            let error = webhook.pointer("/error/message").and_then(Json::as_str).unwrap_or_default();
            table.add_row([
                style::name(text("name")),
                text("state"),
                number("position"),
                number("delivered"),
                number("failures"),
                error.to_owned(),
            ]);
        }
        table::text(table)
    })
}
