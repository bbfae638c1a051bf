//! `sync`: with the server that the ledger is enrolled with.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::Result;
use crate::cli::app::App;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Output;
use crate::cli::progress;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{bytes, count};
use crate::client::{Breaking, Carries, Client, ClientOptions, Happened, Retry, Synced, Tokens};
use crate::ledger::Ledger;

/// How often it is looked whether somebody pressed Ctrl-C.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a session has to end after that.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bring the edits from here to the server, and those of others here. An empty ledger becomes a replica of the server's.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// Take only these collections from the server. What was edited here is sent, whatever its collection.
    collections: Vec<String>,
    /// Stay connected, and bring each edit over at once, until Ctrl-C. Other commands on the store go on to work: this
    /// process runs them.
    #[arg(long)]
    follow: bool,
    /// Send again what the server refused.
    #[arg(long)]
    retry: bool,
    /// Look through everything of the server again, and load what is not here. What waits here stays, and is sent.
    #[arg(long, conflicts_with = "follow")]
    reset: bool,
    #[command(flatten)]
    line: Line,
}

/// How the server is talked to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Line {
    /// Over what: a WebSocket, requests, or either.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    over: Over,
    /// At most so many bytes a second each way.
    #[arg(long, value_name = "BYTES")]
    max_bytes_per_second: Option<u64>,
    /// Try again after at most so many seconds, however often it failed. Else pauses grow up to a minute, and are five minutes
    /// after five failures in a row.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    retry_within: Option<u32>,
    /// Send the edits of this collection before those of others, where many wait. May be given several times: in this order.
    #[arg(long, value_name = "COLLECTION")]
    first: Vec<String>,
}

/// Over what a session goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Over {
    /// A WebSocket, and requests where none gets through.
    #[default]
    Either,
    /// Only a WebSocket.
    Socket,
    /// Only requests.
    Requests,
}

impl Default for Line {
    fn default() -> Self {
        Self { over: Over::Either, max_bytes_per_second: None, retry_within: None, first: Vec::new() }
    }
}

impl Line {
    fn options(self) -> ClientOptions {
        let carries = match self.over {
            Over::Either => Carries::Either,
            Over::Socket => Carries::Socket,
            Over::Requests => Carries::Requests,
        };
        let (mut retry, mut breaking) = (Retry::default(), Breaking::default());
        if let Some(most) = self.retry_within {
            let most_ms = u64::from(most) * 1_000;
            retry = Retry { first_ms: retry.first_ms.min(most_ms), most_ms };
            breaking.pause_ms = most_ms;
        }
        let Self { max_bytes_per_second, first, .. } = self;
        ClientOptions { retry, breaking, carries, max_bytes_per_second, first }
    }
}

impl Sync {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let client = client(&ledger, None, self.line)?;
        if self.retry {
            client.retry(&[])?;
        }
        let names: Vec<&str> = self.collections.iter().map(String::as_str).collect();
        match self.follow {
            true => follow(app, &client, &names),
            false if self.reset => once(app, &client, |client| client.reset(&names)),
            false => once(app, &client, |client| client.sync(&names)),
        }
    }
}

/// A client for the server that a ledger is enrolled with, which is the one at the address, where one is given.
pub(crate) fn client(ledger: &Ledger, url: Option<&str>, line: Line) -> Outcome<Client> {
    let tokens = Tokens::of(ledger).map_err(Stop::of_server)?;
    let url = url.map_or_else(|| tokens.url(), str::to_owned);
    Client::of(ledger, &url, tokens, line.options()).map_err(Stop::of_server)
}

/// What asynchronous work runs on.
pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Syncs once, and answers with what that came to.
pub(crate) fn once<'a, W: Future<Output = Result<Synced>>>(
    app: &mut App,
    client: &'a Client,
    work: impl FnOnce(&'a Client) -> W,
) -> Outcome {
    let interrupt = app.caller.interrupt()?;
    let bar = progress::over_events(client.ledger().position(), &app.out).with_message("syncing");
    let watching = draw(client.watch(), bar.clone());
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let watching = tokio::spawn(watching);
        let done = interruptible(client, &interrupt, work(client)).await;
        watching.abort();
        done
    });
    bar.finish_and_clear();
    runtime.shutdown_timeout(FAREWELL);
    let synced = done.map_err(|fault| {
        let interrupted = interrupt.is_set();
        if interrupted {
            interrupt.explain(fault, "sync again: what was taken in stays")
        } else {
            Stop::of_server(fault)
        }
    })?;
    app.out.answer(&to_json(&synced), || text(&synced))?;
    close(app, client)?;
    match synced.rejected {
        0 => Ok(()),
        rejected => {
            let refused = count(rejected, "edit was refused", "edits were refused");
            Err(Stop::partly_failed(format!("{refused} by the server")).hint("see why with `syncledger queue`"))
        }
    }
}

/// Waits for work of the client, which is told when somebody presses Ctrl-C.
async fn interruptible<T>(client: &Client, interrupt: &Interrupt, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut was_told = false;
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(GLANCE), if !was_told => {
                was_told = interrupt.is_set();
                if was_told {
                    client.cancel();
                }
            }
        }
    }
}

/// Draws how far it is.
async fn draw(mut happened: Receiver<Happened>, bar: ProgressBar) {
    loop {
        match happened.recv().await {
            Ok(Happened::Progress(progress)) => {
                let up = progress.percent.map(|percent| format!("{percent:.0} % sent, ")).unwrap_or_default();
                bar.set_message(format!("{} ({up}{} received)", progress.phase.name(), bytes(progress.bytes.1)));
                bar.set_length(progress.received.max(1));
                bar.set_position(progress.received);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Stays connected until somebody presses Ctrl-C, and says what happens.
fn follow(app: &mut App, client: &Client, collections: &[&str]) -> Outcome {
    // Who is run by the holder of a store is not its holder.
    #[cfg(unix)]
    let control = match app.caller.store {
        Some(_) => None,
        None => Some(crate::cli::control::Control::listen(client.ledger().store())?),
    };
    let interrupt = listen(app)?;
    let mut happened = client.watch();
    let runtime = runtime()?;
    let out = &mut app.out;
    let outcome = runtime.block_on(async {
        let following = interruptible(client, &interrupt, client.follow(collections));
        tokio::pin!(following);
        loop {
            tokio::select! {
                done = &mut following => return done.map_err(Stop::of_server),
                Ok(what) = happened.recv() => say(out, client, &what)?,
            }
        }
    });
    runtime.shutdown_timeout(FAREWELL);
    #[cfg(unix)]
    drop(control);
    outcome?;
    close(app, client)?;
    Err(Stop::interrupted("stopped; what was done until then is durable, on both sides"))
}

/// Closes the store, unless somebody else holds it: what watches it may outlive the session by a moment.
fn close(app: &App, client: &Client) -> Outcome {
    match app.caller.store {
        Some(_) => Ok(()),
        None => Ok(client.ledger().store().close()?),
    }
}

fn listen(app: &App) -> std::io::Result<Interrupt> {
    #[cfg(unix)]
    if app.caller.store.is_none() {
        return Interrupt::listen_for_all();
    }
    app.caller.interrupt()
}

/// Says what happened: all of it to programs, to people what they want to know.
fn say(out: &mut Output, client: &Client, happened: &Happened) -> Outcome {
    let Some((object, text)) = told(client, happened) else { return Ok(()) };
    out.answer(&object, || text)?;
    out.flush()
}

fn told(client: &Client, happened: &Happened) -> Option<(Json, String)> {
    Some(match happened {
        Happened::Started => {
            let url = client.url();
            (json!({ "event": "started", "url": url }), style::dim(format!("connecting to {url}")))
        }
        Happened::Progress(progress) => {
            let (sent, received) = progress.bytes;
            let object = json!({
                "event": "progress",
                "phase": progress.phase.name(),
                "received": progress.received,
                "collections": progress.collections,
                "bytes_sent": sent,
                "bytes_received": received,
                "percent": progress.percent,
                "time_left_ms": progress.time_left_ms,
            });
            let line = format!("{}: {}", progress.phase.name(), of_collections(&progress.collections));
            (object, line)
        }
        Happened::Completed(synced) => {
            let mut object = to_json(synced);
            crate::shape::set(&mut object, "event", "completed");
            (object, text(synced))
        }
        Happened::Failed { code, message, retry_in_ms } => {
            let again = retry_in_ms.map(|wait| format!(" (again in {:.1} s)", wait as f64 / 1_000.0));
            let line = format!("{} {message}{}", style::bad(code), again.unwrap_or_default());
            (json!({ "event": "failed", "code": code, "message": message, "retry_in_ms": retry_in_ms }), line)
        }
        Happened::StampedAgain { events } => {
            let line = format!("{} stamped anew, under a new writer", count(*events, "edit was", "edits were"));
            (json!({ "event": "stamped_again", "events": events }), line)
        }
        Happened::ConflictDetected { conflict, collection, key } => {
            of_conflict("conflict_detected", &conflict.to_string(), collection, key)
        }
        Happened::ConflictResolved { conflict, collection, key } => {
            of_conflict("conflict_resolved", &conflict.to_string(), collection, key)
        }
    })
}

fn of_conflict(event: &str, conflict: &str, collection: &str, key: &str) -> (Json, String) {
    let object = json!({ "event": event, "conflict": conflict, "collection": collection, "key": key });
    (object, format!("{}: {collection}/{key}", event.replace('_', " ")))
}

fn of_collections(counts: &BTreeMap<String, u64>) -> String {
    let each = |(name, events): (&String, &u64)| format!("{name} {}", count(*events, "event", "events"));
    let counted: Vec<_> = counts.iter().map(each).collect();
    if counted.is_empty() { "nothing new".to_owned() } else { counted.join(", ") }
}

fn to_json(synced: &Synced) -> Json {
    json!({
        "sent": synced.sent,
        "received": synced.received,
        "rejected": synced.rejected,
        "collections": synced.collections,
        "bytes_sent": synced.bytes.0,
        "bytes_received": synced.bytes.1,
        "took_ms": synced.took_ms,
        "clock_offset_ms": synced.clock_offset_ms,
    })
}

fn text(synced: &Synced) -> String {
    let refused = match synced.rejected {
        0 => String::new(),
        rejected => style::bad(format!(", {rejected} refused")),
    };
    let (sent, received) = (count(synced.sent, "event", "events"), synced.received);
    let carried = style::dim(format!("{} up, {} down", bytes(synced.bytes.0), bytes(synced.bytes.1)));
    format!("{} {sent} sent, {received} received{refused}\n{carried}", style::good("synced:"))
}
