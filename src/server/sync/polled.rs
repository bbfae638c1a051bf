//! Sessions over plain requests, where no WebSocket gets through: `push` brings messages, `pull` fetches them.
//!
//! Bodies are messages one after another, each with its length before it (u32, little-endian). An answer that gets lost takes its
//! messages with it: the device then begins another session, as after any connection that broke off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};

use super::Begun;
use crate::event::{LedgerId, hex};
use crate::replication::{MOST_MESSAGE_BYTES, join, split};
use crate::server::Server;
use crate::server::caller::Caller;
use crate::server::problem::{Answer, Problem};
use crate::{Error, ErrorKind, Result};

/// The header that names the session.
const SESSION: &str = "sync-session";
/// The header of the last answer.
const ENDED: &str = "sync-ended";
/// How long a request may wait for words, in seconds.
const MOST_WAIT_SECONDS: u64 = 30;
/// How long an ended session's last words can be fetched.
const KEPT: Duration = Duration::from_secs(30);
/// How many sessions a device may have at once: with another one the oldest ends, of which the device has lost the line.
const MOST_OF_DEVICE: usize = 4;
/// How many messages a body may have.
const MOST_MESSAGES: usize = 4_096;
/// About how many bytes an answer has at most: one message may be as long as this alone.
const ANSWER_BYTES: usize = MOST_MESSAGE_BYTES;

/// The sessions that devices ask about.
#[derive(Default)]
pub(in crate::server) struct Polled {
    open: StdMutex<BTreeMap<String, Arc<Asked>>>,
    begun: AtomicU64,
}

/// A session that a device asks about.
struct Asked {
    owner: (LedgerId, String),
    /// The later a session began, the greater.
    nth: u64,
    tell: mpsc::Sender<Result<Vec<u8>>>,
    to_say: Mutex<mpsc::Receiver<Vec<u8>>>,
}

impl Polled {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Asked>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's session of this name. Those of others are as unknown as those that never were.
    fn find(&self, name: &str, owner: &(LedgerId, String)) -> Result<Arc<Asked>> {
        let unknown = || {
            Error::new(ErrorKind::NotFound, "there is no such session, or it has ended").with_hint("begin another")
        };
        self.open().get(name).filter(|asked| asked.owner == *owner).cloned().ok_or_else(unknown)
    }

    /// Opens a session. Where its device has too many, the oldest of them hears that nobody is there.
    fn add(&self, name: String, asked: Arc<Asked>) {
        let mut open = self.open();
        let mut of_device: Vec<(u64, String)> = open
            .iter()
            .filter(|(_, other)| other.owner == asked.owner)
            .map(|(name, other)| (other.nth, name.clone()))
            .collect();
        of_device.sort();
        let surplus = (of_device.len() + 1).saturating_sub(MOST_OF_DEVICE);
        of_device.iter().take(surplus).for_each(|(_, name)| drop(open.remove(name)));
        open.insert(name, asked);
    }
}

#[derive(Deserialize)]
pub(in crate::server) struct Waiting {
    #[serde(default)]
    wait: u64,
}

/// Takes messages of a session, or begins one, and answers with what there is to say.
pub(in crate::server) async fn push(
    State(server): State<Server>,
    headers: HeaderMap,
    caller: Caller,
    body: Bytes,
) -> Answer<Response> {
    let messages = messages(&body)?;
    let owner = owner(&caller);
    let (name, asked) = match named(&headers) {
        Some(name) => (name.to_owned(), server.0.sessions.find(name, &owner)?),
        None => begin(&server, caller, owner).await?,
    };
    for message in messages {
        // Of a session that has ended the last words say why.
        let _ = asked.tell.send(Ok(message.to_vec())).await;
    }
    match asked.to_say.try_lock() {
        Ok(to_say) => answer(&name, to_say, Duration::ZERO).await,
        // Somebody waits for the words already.
        Err(_) => Ok(said(&name, Vec::new(), false)),
    }
}

/// Answers with what a session has to say, once there is something, or after the seconds of `wait`.
pub(in crate::server) async fn pull(
    State(server): State<Server>,
    headers: HeaderMap,
    caller: Caller,
    Query(waiting): Query<Waiting>,
) -> Answer<Response> {
    let name = named(&headers).ok_or_else(|| {
        Problem::new(ErrorKind::Client, format!("expected the session's name in the header `{SESSION}`"))
    })?;
    let asked = server.0.sessions.find(name, &owner(&caller))?;
    let wait = Duration::from_secs(waiting.wait.min(MOST_WAIT_SECONDS));
    answer(name, asked.to_say.lock().await, wait).await
}

fn owner(caller: &Caller) -> (LedgerId, String) {
    (caller.ledger.info().id, caller.device.id.clone())
}

fn named(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION)?.to_str().ok()
}

async fn begin(server: &Server, caller: Caller, owner: (LedgerId, String)) -> Answer<(String, Arc<Asked>)> {
    let name = hex(&caller.ledger.new_run()?.0);
    let Begun { carrier, work } = server.begin(caller).await?;
    let nth = server.0.sessions.begun.fetch_add(1, Ordering::Relaxed);
    let asked = Arc::new(Asked { owner, nth, tell: carrier.tell, to_say: Mutex::new(carrier.to_say) });
    server.0.sessions.add(name.clone(), asked.clone());
    let (server, ended) = (server.clone(), name.clone());
    tokio::spawn(async move {
        // Who asks no more is given up by the session itself.
        let _ = work.await;
        tokio::time::sleep(KEPT).await;
        server.0.sessions.open().remove(&ended);
    });
    Ok((name, asked))
}

/// What there is to say, after waiting for the first of it.
async fn answer(
    name: &str,
    mut to_say: tokio::sync::MutexGuard<'_, mpsc::Receiver<Vec<u8>>>,
    wait: Duration,
) -> Answer<Response> {
    let (mut body, mut has_ended) = (Vec::new(), false);
    match tokio::time::timeout(wait, to_say.recv()).await {
        Ok(Some(message)) => join(&mut body, &message),
        Ok(None) => has_ended = true,
        Err(_) => {}
    }
    while body.len() < ANSWER_BYTES {
        match to_say.try_recv() {
            Ok(message) => join(&mut body, &message),
            Err(mpsc::error::TryRecvError::Empty) => break,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                has_ended = true;
                break;
            }
        }
    }
    Ok(said(name, body, has_ended))
}

fn said(name: &str, body: Vec<u8>, has_ended: bool) -> Response {
    let kind = [("content-type", super::MESSAGES), (SESSION, name)];
    let mut response = (StatusCode::OK, kind, body).into_response();
    if has_ended {
        response.headers_mut().insert(ENDED, axum::http::HeaderValue::from_static("true"));
    }
    response
}

/// The messages of a body.
fn messages(body: &[u8]) -> Result<Vec<&[u8]>> {
    let cut = || Error::new(ErrorKind::Client, "expected whole messages, each with its length before it");
    let messages = split(body, MOST_MESSAGES + 1).ok_or_else(cut)?;
    if messages.len() <= MOST_MESSAGES {
        return Ok(messages);
    }
    Err(Error::new(ErrorKind::TooLarge, format!("expected at most {MOST_MESSAGES} messages in a body, got more")))
}
