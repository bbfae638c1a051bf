//! What is known of a request once it is answered: who asked, what is left to it, how long it took. It is counted, told in the headers
//! of the answer, and written in the log, a line for each request.
//!
//! Invariant: no body, token, key or query is in the log; of the address only the route's pattern.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Server;
use super::limits::{self, Standing};

/// Who asks, once that is known. The handler's side writes it, the outermost layer reads it.
#[derive(Clone, Default)]
pub(super) struct Trail(Arc<OnceLock<Asked>>);

pub(super) struct Asked {
    pub(super) device: String,
    pub(super) standings: Vec<Standing>,
}

impl Trail {
    /// Says who asks, the first time.
    pub(super) fn leave(&self, asked: Asked) {
        let _ = self.0.set(asked);
    }
}

/// Follows a request to its answer. Addresses that lead nowhere, and methods that nobody has heard of, count as one.
pub(super) async fn follow(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "PUT" | "PATCH" | "POST" | "DELETE" | "HEAD" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let trail = Trail::default();
    request.extensions_mut().insert(trail.clone());
    let started = server.now_ms();
    let mut answer = next.run(request).await;
    let took_ms = server.now_ms().saturating_sub(started).max(0).cast_unsigned();
    let (status, asked) = (answer.status().as_u16(), trail.0.get());
    if let Some(asked) = asked {
        limits::tell(&asked.standings, answer.headers_mut());
    }
    let device = asked.map(|asked| asked.device.as_str());
    tracing::info!(method, route, status, ms = took_ms, device, "request");
    server.0.figures.answered(route, method, status, Duration::from_millis(took_ms));
    answer
}
