//! `queue` and `peers`: what waits for the server, and how the server stands.

use clap::Args;
use serde_json::{Value as Json, json};

use super::sync::{Line, client};
use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{self, count, thousands};
use crate::client::{Client, Queued, Tokens};
use crate::event::EventId;
use crate::shape::time;
use crate::{Error, ErrorKind};

/// Show the edits that the server does not have: those that it refused, with why, and those that wait.
#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// Show at most so many of those that wait.
    #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
    limit: usize,
    /// Take these refused edits back, or `all` of them: they go from the log here, with what was made on them, and the records show
    /// what they did before. Shows what went.
    #[arg(long, num_args = 1.., value_name = "EVENT", conflicts_with = "limit")]
    take_back: Vec<String>,
}

/// Show the server that the ledger is enrolled with, and how far it has what is here.
#[derive(Debug, Args)]
pub(crate) struct Peers {}

impl Queue {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let client = client(&app.ledger()?, None, Line::default())?;
        if !self.take_back.is_empty() {
            return take_back(app, &client, &self.take_back);
        }
        let queued = client.queue(self.limit)?;
        let rows: Vec<Json> = queued.iter().map(row).collect();
        app.out.list(&rows, || text(&queued, "the server has every edit"))
    }
}

fn take_back(app: &mut App, client: &Client, names: &[String]) -> Outcome {
    let refused: Vec<EventId> =
        client.queue(0)?.into_iter().filter(|queued| queued.last_error.is_some()).map(|queued| queued.id).collect();
    let events = match names {
        [all] if all == "all" => refused,
        names => names.iter().map(|name| meant(name, &refused)).collect::<Outcome<_>>()?,
    };
    let gone = client.take_back(&events)?;
    let rows: Vec<Json> = gone.iter().map(row).collect();
    app.out.list(&rows, || text(&gone, "there was nothing to take back"))
}

/// The refused edit whose id begins so.
fn meant(name: &str, refused: &[EventId]) -> Outcome<EventId> {
    let mut found = refused.iter().filter(|event| event.to_string().starts_with(name));
    let error = match (found.next(), found.next()) {
        (Some(event), None) => return Ok(*event),
        (None, _) => Error::new(ErrorKind::NotFound, format!("the server has not refused an event `{name}`")),
        _ => Error::new(ErrorKind::Validation, format!("several refused events begin with `{name}`")),
    };
    Err(error.with_hint("see `syncledger queue`").into())
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

fn text(queued: &[Queued], nothing: &str) -> String {
    if queued.is_empty() {
        return nothing.to_owned();
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
