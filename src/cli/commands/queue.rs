//! `queue` and `peers`: what waits for the server, and how the server stands.

use clap::Args;
use serde_json::{Value as Json, json};

use super::sync::{Line, client};
use crate::ErrorKind;
use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{self, count, thousands};
use crate::client::{Queued, Tokens};
use crate::shape::time;

/// Show the edits that the server does not have: those that it refused, with why, and those that wait.
#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// Show at most so many of those that wait.
    #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
    limit: usize,
}

/// Show the server that the ledger is enrolled with, and how far it has what is here.
#[derive(Debug, Args)]
pub(crate) struct Peers {}

impl Queue {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let client = client(&app.ledger()?, None, Line::default())?;
        let queued = client.queue(self.limit)?;
        let rows: Vec<Json> = queued.iter().map(row).collect();
        app.out.list(&rows, || text(&queued))
    }
}

fn row(queued: &Queued) -> Json {
    let (code, message) = queued.last_error.clone().unzip();
    json!({
        "id": queued.id.to_string(),
        "operation": queued.operation,
        "collection": queued.collection,
        "key": queued.key,
        "status": queued.status.name(),
        "retry_count": queued.retry_count,
        "last_error": message,
        "last_error_code": code,
        "created_at": time::to_json(queued.created_at),
        "updated_at": time::to_json(queued.updated_at),
    })
}

fn text(queued: &[Queued]) -> String {
    if queued.is_empty() {
        return "the server has every edit".to_owned();
    }
    let mut table = table::table(&["event", "operation", "record", "status", "tries", "edited", "error"]);
    for queued in queued {
        let error = queued.last_error.as_ref().map(|(code, message)| format!("{code}: {message}"));
        table.add_row([
            style::dim(queued.id.short()),
            queued.operation.to_owned(),
            style::name(format!("{}/{}", queued.collection, queued.key)),
            queued.status.name().to_owned(),
            queued.retry_count.to_string(),
            time::people(queued.created_at),
            error.unwrap_or_default(),
        ]);
    }
    table::text(table)
}

impl Peers {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        match Tokens::of(&ledger) {
            Err(fault) if fault.kind() == ErrorKind::Authentication => {
                return app.out.list(&[], || "enrolled with no server".to_owned());
            }
            Err(fault) => return Err(Stop::of_server(fault)),
            Ok(_) => {}
        }
        let client = client(&ledger, None, Line::default())?;
        let (acknowledged, head) = (client.acknowledged(), ledger.position());
        let failure = client.failure();
        let object = json!({
            "url": client.url(),
            "device_id": client.device(),
            "acknowledged": acknowledged,
            "position": head,
            "synced_at": client.succeeded_at().map(time::to_json),
            "failures": failure.as_ref().map_or(0, |(_, _, times)| *times),
            "last_error": failure.as_ref().map(|(_, message, _)| message),
            "last_error_code": failure.as_ref().map(|(code, ..)| code),
        });
        app.out.list(&[object], || {
            let synced = client.succeeded_at().map_or_else(|| "never synced".to_owned(), time::people);
            let has = format!("has {} of {}", thousands(acknowledged), count(head, "event", "events"));
            let mut table = table::table(&["server", "device", "synced", "log", "failing"]);
            let failing = failure.map(|(code, message, times)| format!("{code} ({times} in a row): {message}"));
            table.add_row([style::name(client.url()), client.device(), synced, has, failing.unwrap_or_default()]);
            table::text(table)
        })
    }
}
