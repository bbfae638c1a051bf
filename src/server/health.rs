//! Whether the server lives, and whether it can do its work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Server;
use super::problem::{Answer, Problem};
use crate::ErrorKind;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

/// The process answers.
async fn live() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// The store takes writes, and the server is not about to end.
async fn ready(State(server): State<Server>) -> Answer<impl IntoResponse> {
    if *server.0.ending.borrow() {
        let problem = Problem::new(ErrorKind::Cancelled, "the server is about to end");
        return Err(problem.with_status(StatusCode::SERVICE_UNAVAILABLE));
    }
    server.blocking(Server::check_store).await?;
    Ok(Json(json!({ "status": "ready" })))
}
