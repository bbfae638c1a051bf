//! What carries a session to a server: a WebSocket, or requests where none gets through.

mod polled;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::answer::Fault;
use super::tokens::Tokens;
use crate::ledger::{Carrier, Channels};
use crate::{Error, ErrorKind};

/// How long the last words have to get out.
const FAREWELL: Duration = Duration::from_secs(5);
/// The longest that a message is held back to keep to a rate: the other side takes who says nothing for long to be gone.
const MOST_HELD_BACK: Duration = Duration::from_secs(10);

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// A WebSocket, and requests where the connection is no WebSocket.
    #[default]
    Either,
    /// Only a WebSocket.
    Socket,
    /// Only requests, which ask again and again.
    Requests,
}

/// How many bytes of messages went each way.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Bytes {
    /// Sent and received.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// Counts what goes over a line, and keeps it to a rate.
#[derive(Clone)]
struct Meter {
    bytes: Arc<Bytes>,
    most_per_second: Option<u64>,
}

impl Meter {
    async fn sent(&self, bytes: usize) {
        self.bytes.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.hold_back(bytes).await;
    }

    async fn received(&self, bytes: usize) {
        self.bytes.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.hold_back(bytes).await;
    }

    async fn hold_back(&self, bytes: usize) {
        let Some(rate) = self.most_per_second else { return };
        let wait = Duration::from_millis((bytes as u64).saturating_mul(1_000) / rate.max(1));
        tokio::time::sleep(wait.min(MOST_HELD_BACK)).await;
    }
}

/// A line to the server, over which a session can go.
pub(super) struct Line {
    /// The session's ends.
    pub(super) channels: Channels,
    /// What went over it so far.
    pub(super) bytes: Arc<Bytes>,
    /// `socket` or `requests`.
    pub(super) carrier: &'static str,
    work: JoinHandle<()>,
}

impl Line {
    fn new(carrier: &'static str, meter: &Meter, run: impl FnOnce(Carrier) -> JoinHandle<()>) -> Self {
        let (channels, ends) = Channels::new();
        Self { channels, bytes: meter.bytes.clone(), carrier, work: run(ends) }
    }

    /// Opens a line, with tokens that are renewed once where the server does not take them.
    pub(super) async fn open(tokens: &Tokens, carries: Carries, most_per_second: Option<u64>) -> Result<Self, Fault> {
        let meter = Meter { bytes: Arc::default(), most_per_second };
        if carries == Carries::Requests {
            return polled::open(tokens, &meter).await;
        }
        match socket::open(tokens, &meter).await {
            Err(fault) if carries == Carries::Either && is_no_socket(&fault) => {
                tracing::info!(why = %fault.error, "no WebSocket gets through: requests carry the session");
                polled::open(tokens, &meter).await
            }
            opened => opened,
        }
    }
}

/// Lets the last words get out, once the session's ends are dropped.
pub(super) struct Farewell(JoinHandle<()>);

impl Farewell {
    pub(super) fn of(line: Line) -> (Channels, Self) {
        (line.channels, Self(line.work))
    }

    pub(super) async fn wait(mut self) {
        if tokio::time::timeout(FAREWELL, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

/// Whether something in between does not take WebSockets: the server itself would have said why it refuses one.
fn is_no_socket(fault: &Fault) -> bool {
    let by_another = !fault.is_problem && fault.error.kind() != ErrorKind::RateLimit;
    // A server that lacks the headers of the handshake takes it for a bad request.
    let without_handshake = fault.is_problem && fault.error.kind() == ErrorKind::Client;
    (by_another && fault.error.kind() != ErrorKind::Network) || without_handshake
}

/// A request with a token, made again with another one where the server does not take it.
async fn with_token<T, F: Future<Output = Result<T, Fault>>>(
    tokens: &Tokens,
    ask: impl Fn(String) -> F,
) -> Result<T, Fault> {
    let token = tokens.access().await?;
    match ask(token.clone()).await {
        Err(fault) if fault.error.kind() == ErrorKind::Authentication => {
            ask(tokens.access_after(&token).await?).await
        }
        done => done,
    }
}

fn broke_off(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Network, format!("the connection to the server broke off: {why}"))
        .with_hint("connect again: what was taken in stays, on both sides")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::answer::Answer;

    #[test]
    fn requests_are_tried_where_something_in_between_refuses_the_socket_and_not_where_the_server_does() {
        let fault = |status, body: &str| Answer { status, retry_after: None, body: body.as_bytes() }.fault(0);
        for (status, body) in [(400, ""), (404, "<html>"), (502, ""), (200, "hello"), (400, r#"{"code": "client"}"#)]
        {
            assert!(is_no_socket(&fault(status, body)), "{status} {body}");
        }
        for (status, code) in
            [(401, "authentication"), (403, "permission"), (426, "upgrade_needed"), (503, "cancelled")]
        {
            assert!(!is_no_socket(&fault(status, &format!(r#"{{"code": "{code}"}}"#))), "{status}");
        }
        assert!(!is_no_socket(&fault(429, "")));
        assert!(!is_no_socket(&Fault::unreachable("http://host", "refused")));
        assert!(is_no_socket(&Fault::too_late("http://host")));
    }
}
