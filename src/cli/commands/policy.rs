//! `policy set`, `show` and `try`: which strategy decides each field of a collection.

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::trying::Try;
use super::write;
use crate::cli::app::App;
use crate::cli::options::{self, WriteOptions};
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table;
use crate::projection::{Policy, Strategy};

/// Set or show how the conflicts of a collection are decided.
#[derive(Debug, Subcommand)]
pub(crate) enum Policies {
    Set(Set),
    /// Show the policy of a collection.
    Show {
        /// The collection.
        collection: String,
    },
    Try(Try),
}

/// Set the policy of a collection. It decides old conflicts too, and can be changed again: no value is ever lost.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The collection.
    collection: String,
    /// The policy: JSON, @FILE, -, or a short form such as last_write_wins or source_wins:jira,app.
    policy: String,
    #[command(flatten)]
    write: WriteOptions,
}

impl Policies {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::Set(command) => command.run(app),
            Self::Try(command) => command.run(app),
            Self::Show { collection } => {
                let policy = app.ledger()?.policy(&collection)?;
                app.out.answer(&policy.to_json(), || text(&policy))
            }
        }
    }
}

impl Set {
    fn run(self, app: &mut App) -> Outcome {
        let policy = options::policy(&app.caller, &self.policy)?;
        let ledger = app.ledger()?;
        if self.write.dry_run {
            return app.out.answer(&policy.to_json(), || text(&policy));
        }
        warn_of_custom(app, &policy);
        let receipt = ledger.set_policy(&self.collection, &policy, &self.write.context())?;
        if app.out.json { app.out.object(&policy.to_json()) } else { write::print(app, &receipt) }
    }
}

/// This program registers no custom strategies; the services that embed the ledger do.
fn warn_of_custom(app: &App, policy: &Policy) {
    for name in custom(policy) {
        app.out.note(style::warn(format!("custom strategy `{name}` is not registered here: it acts as manual")));
    }
}

/// The custom strategies that a policy names.
pub(super) fn custom(policy: &Policy) -> impl Iterator<Item = &str> {
    policy.fields.values().chain([&policy.default]).filter_map(|strategy| match strategy {
        Strategy::Custom(name) => Some(name.as_str()),
        _ => None,
    })
}

fn text(policy: &Policy) -> String {
    let object = policy.to_json();
    let mut table = table::table(&["for", "policy"]);
    let part = |name: &str| object.get(name).map(short_form).unwrap_or_default();
    table.add_row(["every field".to_owned(), part("default")]);
    for (path, strategy) in &policy.fields {
        table.add_row([style::name(path.as_str()), short_form(&strategy.to_json())]);
    }
    table.add_row(["deletes".to_owned(), part("deletes")]);
    table::text(table)
}

/// A strategy as people write it: `source_wins:jira,app`.
fn short_form(strategy: &Json) -> String {
    let Some(name) = strategy.get("strategy").and_then(Json::as_str) else {
        return strategy.as_str().unwrap_or_default().to_owned();
    };
    let rank = strategy
        .get("rank")
        .and_then(Json::as_array)
        .map(|rank| rank.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(","));
    let rest = ["scope", "name"].iter().find_map(|part| strategy.get(part)?.as_str().map(str::to_owned));
    rank.or(rest).map_or_else(|| name.to_owned(), |rest| format!("{name}:{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_prints_as_it_is_written() {
        for text in ["merge", "last_write_wins:record", "source_wins:jira,app", "custom:mine", "manual"] {
            assert_eq!(short_form(&Strategy::parse(text).unwrap().to_json()), text);
        }
    }
}
