//! The classic device API: uploads and downloads of rows, for clients that cannot embed a ledger (`docs/classic.md`).
//!
//! The server stamps for its devices. An upload is made on what the device has seen: on the records as of the cursor that it
//! presented last, and on its own uploads; what came since is concurrent with it.
//!
//! Invariant: a bad item of an upload never keeps the others from being taken in.

mod cursor;
mod download;
mod initialize;
mod object;
mod place;
mod provisional;
mod report;
mod resolve;
mod rows;
mod upload;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde_json::Value as Json;
use tokio::sync::Semaphore;

use super::Server;
use super::access::Device;
use crate::ledger::Store;
use crate::{Error, ErrorKind, Result};
use place::Places;

/// How many bytes a request may have.
const MOST_BYTES: usize = 16 << 20;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/api/sync/initialize", post(initialize::initialize))
        .route("/api/sync/upload", post(upload::upload))
        .route("/api/sync/download", get(download::download))
        .route("/api/sync/resolve-conflict", post(resolve::resolve))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
}

/// What the classic device API keeps.
pub(super) struct Classic {
    places: Places,
    /// The reports of uploads that are being written down.
    reports: Arc<Semaphore>,
    /// The oldest version of an app that is let in.
    min_app_version: RwLock<Option<String>>,
}

impl Classic {
    /// What a store's server keeps of its devices' places.
    ///
    /// # Errors
    /// `permission` or `storage` where it cannot be read or made.
    pub(super) fn open(store: &Store, min_app_version: Option<String>) -> Result<Self> {
        let (places, reports) = (Places::open(store)?, Arc::new(Semaphore::new(report::MOST)));
        Ok(Self { places, reports, min_app_version: RwLock::new(min_app_version) })
    }

    fn min_app_version(&self) -> Option<String> {
        self.min_app_version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Server {
    /// The same server, which refuses apps older than this version when they begin to sync (`upgrade_needed`, 426). Versions are
    /// compared number by number: 1.10 is later than 1.9.
    #[must_use]
    pub fn with_min_app_version(self, version: impl Into<String>) -> Self {
        *self.0.classic.min_app_version.write().unwrap_or_else(PoisonError::into_inner) = Some(version.into());
        self
    }
}

/// Checks that a request names no other device than the one that makes it.
///
/// # Errors
/// `permission`.
fn check_device(device: &Device, named: Option<&Json>) -> Result<()> {
    match named {
        None | Some(Json::Null) => Ok(()),
        Some(Json::String(id)) if *id == device.id => Ok(()),
        Some(_) => {
            let message = format!("the access token is of the device `{}`, and the request names another", device.id);
            Err(Error::new(ErrorKind::Permission, message).with_pointers(vec!["/device_id".to_owned()]))
        }
    }
}

/// A fault of one field of a request.
fn invalid(pointer: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Validation, message).with_pointers(vec![pointer.to_owned()])
}

impl From<axum::extract::rejection::BytesRejection> for super::problem::Problem {
    fn from(rejection: axum::extract::rejection::BytesRejection) -> Self {
        let status = rejection.status();
        let kind =
            if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE { ErrorKind::TooLarge } else { ErrorKind::Client };
        Self::new(kind, rejection.body_text()).with_status(status)
    }
}
