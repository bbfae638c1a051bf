//! The log as a device may see it: page by page, waiting for more, or as a stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::time::Instant;

use super::ask::{Params, malformed};
use crate::Result;
use crate::ledger::{Entry, Growth, Ledger, LogQuery};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::server::sight::Sight;
use crate::server::sync::Seat;
use crate::shape;

/// How many events an answer has, and at most.
const PAGE: usize = 100;
const MOST: usize = 1_000;
/// How many events of the log are looked at for one answer, whether the device may see them or not.
const MOST_SCANNED: u64 = 65_536;
/// How many events are read at once.
const READ: usize = 256;
/// How long a request may wait for events, in seconds.
const MOST_WAIT_SECONDS: u64 = 30;
/// How often, at least, a stream looks whether its device may still see what it might when the stream began.
const LOOKS: Duration = Duration::from_secs(1);
/// How often something is said on a stream at least.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/events", get(list)).route("/v1/events/stream", get(follow))
}

/// Which events are wanted.
#[derive(Clone)]
struct Wanted {
    collection: Option<String>,
    key: Option<String>,
}

/// Some events, and how far the log was read for them.
struct Part {
    entries: Vec<Entry>,
    cursor: u64,
    /// Whether the log ended there.
    is_end: bool,
}

/// Events after a position, as lines of JSON.
async fn list(State(server): State<Server>, caller: Caller, params: Params) -> Answer<Response> {
    params.only(&["after", "limit", "wait", "collection", "key"])?;
    let (limit, wanted) = (params.limit(PAGE, MOST)?, Wanted::of(&params, &caller.device)?);
    let after = params.number("after")?.unwrap_or_default();
    let wait = Duration::from_secs(params.number("wait")?.unwrap_or_default().min(MOST_WAIT_SECONDS));
    let mut part = read(&caller, &wanted, after, limit).await?;
    if part.entries.is_empty() && part.is_end && !wait.is_zero() {
        part = awaited(&server, &caller, &wanted, part, limit, wait).await?;
    }
    let lines: String = part.entries.iter().map(|entry| format!("{}\n", shape::entry(entry))).collect();
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    let mut response = (kind, lines).into_response();
    response.headers_mut().insert(NEXT_CURSOR, part.cursor.into());
    Ok(response)
}

/// Reads on as the log grows, until there is something, the time is over, or the server ends.
async fn awaited(
    server: &Server,
    caller: &Caller,
    wanted: &Wanted,
    mut part: Part,
    limit: usize,
    wait: Duration,
) -> Result<Part> {
    let until = Instant::now() + wait;
    let mut growth = growth(server, &caller.ledger).await?;
    while part.entries.is_empty() {
        let has_grown = tokio::select! {
            grown = growth.next() => grown.is_ok(),
            _ = server.has_ended() => false,
            () = tokio::time::sleep_until(until) => false,
        };
        if !has_grown {
            break;
        }
        // A device that was revoked while it waited is told nothing more.
        let then = caller.device.clone();
        caller.with(move |ledger, _| then.check_still(ledger)).await?;
        part = read(caller, wanted, part.cursor, limit).await?;
    }
    Ok(part)
}

async fn growth(server: &Server, ledger: &Ledger) -> Result<Growth> {
    let id = ledger.info().id;
    server.blocking(move |server| Ok(server.open(id)?.growth)).await
}

async fn read(caller: &Caller, wanted: &Wanted, after: u64, limit: usize) -> Result<Part> {
    let wanted = wanted.clone();
    caller.with(move |ledger, device| wanted.read(ledger, device, after, limit)).await
}

impl Wanted {
    fn of(params: &Params, device: &Device) -> Result<Self> {
        let of = |name: &str| params.text(name).map(str::to_owned);
        let wanted = Self { collection: of("collection"), key: of("key") };
        wanted.collection.as_deref().map_or(Ok(()), |collection| device.check_collection(collection))?;
        Ok(wanted)
    }

    fn is_met(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.collection, &entry.event.collection) && is(&self.key, &entry.event.key)
    }

    /// Reads what a device sees of the log after a position.
    fn read(&self, ledger: &Ledger, device: &Device, after: u64, limit: usize) -> Result<Part> {
        let (mut sight, head) = (Sight::new(ledger, device), ledger.position());
        let (mut entries, mut cursor) = (Vec::new(), after);
        while cursor < head && cursor - after < MOST_SCANNED && entries.len() < limit {
            let page = ledger.log(&LogQuery { after: cursor, limit: Some(READ), ..LogQuery::default() })?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                cursor = entry.position;
                if self.is_met(&entry) && sight.sees(&entry.event.collection, &entry.event.key)? {
                    entries.push(entry);
                    if entries.len() == limit {
                        break;
                    }
                }
            }
        }
        Ok(Part { entries, cursor, is_end: cursor >= head })
    }
}

/// A stream of events: what was read and not told yet, and where to go on.
struct Following {
    server: Server,
    caller: Caller,
    growth: Growth,
    wanted: Wanted,
    cursor: u64,
    unsaid: std::vec::IntoIter<Entry>,
    looked_at: Instant,
    has_ended: bool,
    /// A stream takes as much of the server as a session does.
    _seat: Seat,
}

/// Events after a position, and those to come, as server-sent events.
async fn follow(
    State(server): State<Server>,
    caller: Caller,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    params.only(&["after", "collection", "key"])?;
    let wanted = Wanted::of(&params, &caller.device)?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let last =
        last.map(|id| id.trim().parse().map_err(|_| malformed("Last-Event-ID", id, "a position"))).transpose()?;
    // Who connects again has the address of the first time, and has come further since.
    let cursor = last.or(params.number("after")?).unwrap_or_default();
    let seat = server.0.seats.take(caller.ledger.info().id, &caller.device.id)?;
    let growth = growth(&server, &caller.ledger).await?;
    let (unsaid, looked_at) = (Vec::new().into_iter(), Instant::now());
    let following =
        Following { server, caller, growth, wanted, cursor, unsaid, looked_at, has_ended: false, _seat: seat };
    let mut response = Sse::new(following.stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather what passes would keep events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Following {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut following| {
            if following.has_ended {
                return None;
            }
            let event = match following.next().await {
                Ok(event) => event,
                Err(fault) => {
                    following.has_ended = true;
                    let why = json!({ "code": fault.code(), "detail": fault.message() });
                    Event::default().event("end").data(why.to_string())
                }
            };
            Some((Ok(event), following))
        })
    }

    /// The next thing to say.
    async fn next(&mut self) -> Result<Event> {
        loop {
            if self.looked_at.elapsed() >= LOOKS {
                self.look().await?;
            }
            if let Some(entry) = self.unsaid.next() {
                return Ok(Event::default().id(entry.position.to_string()).data(shape::entry(&entry).to_string()));
            }
            let part = read(&self.caller, &self.wanted, self.cursor, READ).await?;
            let has_moved = part.cursor > self.cursor;
            (self.cursor, self.unsaid) = (part.cursor, part.entries.into_iter());
            if self.unsaid.len() > 0 {
                continue;
            }
            if has_moved {
                // Nothing to see, but who connects again need not look there once more.
                return Ok(Event::default().id(self.cursor.to_string()).comment(""));
            }
            self.rest().await?;
        }
    }

    /// Waits until there may be more.
    async fn rest(&mut self) -> Result<()> {
        tokio::select! {
            grown = self.growth.next() => grown.map(drop),
            fault = self.server.has_ended() => Err(fault),
            () = tokio::time::sleep(LOOKS) => Ok(()),
        }
    }

    async fn look(&mut self) -> Result<()> {
        if *self.server.0.ending.borrow() {
            return Err(self.server.has_ended().await);
        }
        let then = self.caller.device.clone();
        self.caller.with(move |ledger, _| then.check_still(ledger)).await?;
        self.looked_at = Instant::now();
        Ok(())
    }
}
