//! Becoming a device, and staying one.

use std::cell::Cell;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use super::Server;
use super::access::Tokens;
use super::limits::of_address;
use super::problem::{Answer, Problem};
use super::quotas;
use crate::ErrorKind;

pub(super) fn routes(server: &Server) -> Router<Server> {
    Router::new()
        .route("/v1/devices/enrol", post(enrol))
        .route("/v1/devices/refresh", post(refresh))
        .route_layer(from_fn_with_state(server.clone(), of_address))
}

#[derive(Deserialize)]
struct Enrolment {
    code: String,
    device_id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Refreshment {
    refresh_token: String,
}

/// Makes a device of who has an invitation's code.
async fn enrol(State(server): State<Server>, body: Result<Json<Enrolment>, JsonRejection>) -> Answer<Response> {
    let Json(asked) = body?;
    let work = move |server: &Server| {
        let (code, name, now_ms) = (asked.code.trim(), asked.name.as_deref(), server.now_ms());
        let is_full = Cell::new(false);
        let find = |id| {
            let ledger = server.ledger(id)?;
            server.check_devices(&ledger, &asked.device_id).inspect_err(|_| is_full.set(true))?;
            Ok(ledger)
        };
        match server.0.access.enrol(code, &asked.device_id, name, find, now_ms) {
            Err(fault) if is_full.get() && fault.kind() == ErrorKind::TooLarge => Ok(Err(fault)),
            enrolled => enrolled.map(Ok),
        }
    };
    let tokens = server.blocking(work).await?.map_err(quotas::refused)?;
    Ok(given(&tokens))
}

/// Gives new tokens for a refresh token.
async fn refresh(State(server): State<Server>, body: Result<Json<Refreshment>, JsonRejection>) -> Answer<Response> {
    let Json(asked) = body?;
    let work = move |server: &Server| {
        server.0.access.refresh(asked.refresh_token.trim(), |id| server.ledger(id), server.now_ms())
    };
    let tokens = server.blocking(work).await?;
    Ok(given(&tokens))
}

/// Tokens are for nobody in between to keep.
fn given(tokens: &Tokens) -> Response {
    ([("cache-control", "no-store")], Json(tokens.to_json())).into_response()
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
            StatusCode::UNPROCESSABLE_ENTITY => ErrorKind::Validation,
            _ => ErrorKind::Client,
        };
        Self::new(kind, rejection.body_text()).with_status(status)
    }
}
