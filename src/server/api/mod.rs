//! The native API: records, their past, conflicts, policies and schemas, as the command line has them.
//!
//! Bodies of records are a record's own value; all other answers have the shapes of `shape`, which the command line prints
//! with `--json`. `docs/http.md` is the reference.
//!
//! Invariant: what a device may not read is answered as if it were not there.

mod ask;
mod batch;
mod conflicts;
mod etag;
mod events;
mod lists;
mod openapi;
mod past;
mod records;
mod revert;
mod settings;
#[cfg(test)]
mod tests;
mod totals;

use axum::Json as AsJson;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value as Json;

use super::Server;
use crate::ledger::{Outcome, Receipt};

/// How many bytes a body may have: a record with its large values, or a batch.
const MOST_BODY_BYTES: usize = 16 << 20;
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .merge(records::routes())
        .merge(lists::routes())
        .merge(past::routes())
        .merge(batch::routes())
        .merge(revert::routes())
        .merge(events::routes())
        .merge(conflicts::routes())
        .merge(settings::routes())
        .merge(totals::routes())
        .merge(openapi::routes())
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
}

/// The answer to a change.
fn told(receipt: &Receipt, body: Json) -> Response {
    let mut response = AsJson(body).into_response();
    if receipt.outcome == Outcome::Duplicate {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
