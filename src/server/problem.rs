//! Errors as answers: problem details (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::shape::set;
use crate::{Error, ErrorKind};

const PROBLEM: &str = "application/problem+json";

/// An error on its way to who asked.
#[derive(Debug)]
pub(crate) struct Problem {
    error: Error,
    status: StatusCode,
    retry_after_s: Option<u64>,
}

/// The answer of every handler.
pub(crate) type Answer<T> = Result<T, Problem>;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        let waits = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        Self { error, status, retry_after_s: waits.then_some(1) }
    }
}

impl Problem {
    /// A problem of this kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// The same under another status than its kind has.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same, with the seconds after which to try again.
    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// The status of a kind of error.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::RateLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Client => StatusCode::BAD_REQUEST,
        ErrorKind::Authentication => StatusCode::UNAUTHORIZED,
        ErrorKind::Permission => StatusCode::FORBIDDEN,
        ErrorKind::Validation | ErrorKind::Mapping | ErrorKind::IdempotencyMismatch => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorKind::Conflict | ErrorKind::Consistency | ErrorKind::ClockAhead | ErrorKind::LedgerMismatch => {
            StatusCode::CONFLICT
        }
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::UpgradeNeeded => StatusCode::UPGRADE_REQUIRED,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Cancelled | ErrorKind::CircuitOpen | ErrorKind::Locked => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Network => StatusCode::BAD_GATEWAY,
        ErrorKind::Corrupt | ErrorKind::Server | ErrorKind::Storage => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.error.code();
        let mut body = json!({
            "type": format!("urn:syncledger:error:{code}"),
            "title": title(self.error.kind()),
            "status": self.status.as_u16(),
            "detail": self.error.message(),
            "code": code,
            "retryable": self.error.is_retryable() || self.retry_after_s.is_some(),
        });
        if let Some(hint) = self.error.hint() {
            set(&mut body, "hint", hint);
        }
        if !self.error.pointers().is_empty() {
            set(&mut body, "pointers", self.error.pointers());
        }
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM))];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Makes a problem of an error that a layer or an extractor answered with in its own way.
pub(super) async fn dress(answer: Response) -> Response {
    let status = answer.status();
    let is_dressed = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM);
    if is_dressed || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let (kind, message) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorKind::TooLarge, "the request's body is too large"),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
            (ErrorKind::Timeout, "the request took too long")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (ErrorKind::Client, "the request's body is of a type, or encoded in a way, that is not understood here")
        }
        _ if status.is_client_error() => (ErrorKind::Client, "the request was not understood"),
        _ => (ErrorKind::Server, "the request failed inside the server"),
    };
    Problem::new(kind, message).with_status(status).into_response()
}

/// What a kind of error is, in a few words that never change.
fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Network => "Unreachable",
        ErrorKind::Timeout => "Out of time",
        ErrorKind::RateLimit => "Too many requests",
        ErrorKind::Server => "Failed",
        ErrorKind::Client => "Malformed request",
        ErrorKind::Authentication => "Not authenticated",
        ErrorKind::Permission => "Not permitted",
        ErrorKind::Validation => "Invalid",
        ErrorKind::Mapping => "Not mappable",
        ErrorKind::Conflict => "Changed meanwhile",
        ErrorKind::Consistency => "Inconsistent",
        ErrorKind::CircuitOpen => "Suspended",
        ErrorKind::Cancelled => "Closing",
        ErrorKind::NotFound => "Not found",
        ErrorKind::Locked => "Locked",
        ErrorKind::Corrupt => "Damaged",
        ErrorKind::UpgradeNeeded => "Upgrade needed",
        ErrorKind::ClockAhead => "Clock ahead",
        ErrorKind::LedgerMismatch => "Another ledger",
        ErrorKind::IdempotencyMismatch => "Key used before",
        ErrorKind::TooLarge => "Too large",
        ErrorKind::Storage => "Disk failed",
    }
}
