//! The sync server: ledgers of a store for devices, over HTTP and WebSocket.
//!
//! [`Server::router`] is an `axum` router, to be served alone or as a part of another application. Every request but enrolment is
//! made with a device's access token, from which alone its ledger, its source and its rights are known.
//!
//! Invariant: no handler waits for the disk on the runtime's workers; what works on a ledger runs on threads for blocking work.

mod access;
mod api;
mod caller;
mod devices;
mod health;
mod listen;
mod problem;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::event::LedgerId;
use crate::ledger::{Growth, Ledger, Store};
use crate::{Error, ErrorKind, Result};
use access::Access;
use problem::Problem;

pub use access::{Devices, Invite, Invited};
pub use listen::Tls;

/// A server of a store's ledgers. Handles are cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    store: Store,
    access: Access,
    /// The ledgers that somebody has asked for, and what tells of their growth.
    open: Mutex<BTreeMap<LedgerId, (Ledger, Growth)>>,
    /// Becomes true when the server is to end.
    ending: watch::Sender<bool>,
    sessions: sync::Polled,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("store", &self.0.store).finish_non_exhaustive()
    }
}

impl Server {
    /// A server of a store. Its keys and credentials are below the store's directory, in `server`, or in memory where it has none.
    ///
    /// # Errors
    /// `permission`, `storage` or `corrupt` where those cannot be read or made.
    pub fn new(store: Store) -> Result<Self> {
        let access = Access::open(&store)?;
        let (ending, _) = watch::channel(false);
        Ok(Self(Arc::new(Inner { store, access, open: Mutex::default(), ending, sessions: sync::Polled::default() })))
    }

    /// All routes.
    pub fn router(&self) -> Router {
        let routes =
            Router::new().merge(devices::routes()).merge(sync::routes()).merge(health::routes()).merge(api::routes());
        routes
            .fallback(|| async { Problem::new(ErrorKind::NotFound, "there is nothing at this address") })
            .method_not_allowed_fallback(|| async {
                let problem = Problem::new(ErrorKind::Client, "this address does not take this method");
                problem.with_status(StatusCode::METHOD_NOT_ALLOWED)
            })
            .layer(CatchPanicLayer::custom(|_| {
                use axum::response::IntoResponse as _;
                Problem::new(ErrorKind::Server, "the request failed inside the server").into_response()
            }))
            .with_state(self.clone())
    }

    /// Invites a device to a ledger of the store. Blocks.
    ///
    /// # Errors
    /// As [`Devices::invite`].
    pub fn invite(&self, ledger: &Ledger, invite: Invite) -> Result<Invited> {
        self.0.access.invite_to(ledger, invite)
    }

    /// Takes all rights from a device of a ledger, from its next request on. Blocks.
    ///
    /// # Errors
    /// As [`Devices::revoke`].
    pub fn revoke(&self, ledger: &Ledger, device: &str) -> Result<()> {
        self.0.access.revoke(ledger, device)
    }

    /// Tells every session to end and connect again elsewhere or later; new requests are still answered.
    pub fn end(&self) {
        self.0.ending.send_replace(true);
    }

    /// Waits until [`Server::end`] was called.
    async fn has_ended(&self) -> Error {
        let mut ending = self.0.ending.subscribe();
        // The sender lives as long as this handle.
        let _ = ending.wait_for(|ending| *ending).await;
        Error::new(ErrorKind::Cancelled, "the server is about to end").with_hint("connect again in a moment")
    }

    /// What carries the time.
    fn now_ms(&self) -> i64 {
        self.0.store.shared().now_ms().cast_signed()
    }

    /// The ledger of an id. Blocks.
    ///
    /// # Errors
    /// `not_found` where the store has none.
    fn ledger(&self, id: LedgerId) -> Result<Ledger> {
        self.open(id).map(|(ledger, _)| ledger)
    }

    /// The ledger of an id, and what tells of its growth.
    fn open(&self, id: LedgerId) -> Result<(Ledger, Growth)> {
        let opened = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(opened) = opened.filter(|(ledger, _)| ledger.info().id == id) {
            return Ok(opened);
        }
        let unknown = || Error::new(ErrorKind::NotFound, format!("the store has no ledger {id}"));
        let info = self.0.store.ledgers().into_iter().find(|info| info.id == id).ok_or_else(unknown)?;
        let ledger = self.0.store.ledger(&info.name)?;
        let opened = (ledger.clone(), Growth::of(&ledger)?);
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, opened.clone());
        Ok(opened)
    }

    /// Whether the store takes work: after a fault of the disk it takes none. Blocks.
    fn check_store(&self) -> Result<()> {
        let first = self.0.store.ledgers().into_iter().next();
        first.map_or(Ok(()), |info| self.0.store.ledger(&info.name).map(drop))
    }

    /// Runs work that may wait for the disk.
    ///
    /// # Errors
    /// Those of the work; `server` where it panicked.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let server = self.clone();
        let failed = |_| Error::new(ErrorKind::Server, "the request failed inside the server");
        tokio::task::spawn_blocking(move || work(&server)).await.map_err(failed)?
    }
}
