//! The sync server: ledgers of a store for devices, over HTTP and WebSocket.
//!
//! [`Server::router`] is an `axum` router, to be served alone or as a part of another application. Every request but enrolment is
//! made with a device's access token, from which alone its ledger, its source and its rights are known.
//!
//! Invariant: no handler waits for the disk on the runtime's workers; what works on a ledger runs on threads for blocking work.

mod access;
mod alerts;
mod api;
mod backups;
mod caller;
mod classic;
mod devices;
mod duration;
mod gauges;
mod health;
mod jobs;
mod limits;
mod listen;
mod metrics;
mod outgoing;
mod problem;
mod quotas;
mod seen;
mod settings;
mod sight;
mod sync;
mod trail;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::IntoResponse as _;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use crate::event::LedgerId;
use crate::ledger::{Growth, Ledger, Room, Store, Writers};
use crate::replication::MOST_MESSAGE_BYTES;
use crate::{Error, ErrorKind, Result};
use access::{Access, Device};
use jobs::{Job, Jobs};
use limits::Limits;
use metrics::Figures;
use problem::Problem;

pub use access::{Devices, Invite, Invited};
pub use alerts::{AlertRules, AlertSettings, MailSink, MailTls, SlackSink, WebhookSink};
pub use duration::Period;
pub use listen::Tls;
pub use outgoing::Secret;
pub use settings::{BackupSettings, LimitSettings, QuotaSettings, Quotas, RateSettings, Settings, Size};
pub use webhooks::{WebhookSettings, Webhooks};

/// The most bytes of a request's body as it comes over the wire.
const MOST_BODY_BYTES: usize = MOST_MESSAGE_BYTES + (1 << 16);
/// How long a body may make no progress, and how long a request may take: longer than any that waits for news.
const BODY_WAIT: Duration = Duration::from_secs(30);
const REQUEST_WAIT: Duration = Duration::from_secs(60);

/// A server of a store's ledgers. Handles are cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    store: Store,
    access: Access,
    /// The ledgers that somebody has asked for.
    open: Mutex<BTreeMap<LedgerId, Opened>>,
    /// Becomes true when the server is to end.
    ending: watch::Sender<bool>,
    sessions: sync::Polled,
    classic: classic::Classic,
    seats: sync::Seats,
    figures: Figures,
    limits: Limits,
    seen: seen::Seen,
    alerts: alerts::Alerts,
    hooks: webhooks::Hooks,
    jobs: Jobs,
    backups: backups::Backups,
    settings: Settings,
}

/// A ledger that is served.
#[derive(Clone)]
struct Opened {
    ledger: Ledger,
    /// What tells its sessions that its log has grown.
    growth: Growth,
    /// Whose the writers of its devices are.
    writers: Writers,
    /// How much room it has for what devices write.
    room: Room,
}

impl Opened {
    /// Whether the ledger still has this id: an empty one takes another when it becomes a replica.
    fn is(&self, id: LedgerId) -> bool {
        self.ledger.info().id == id
    }
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
        Self::with_settings(store, Settings::default())
    }

    /// The same, with settings of its own.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_settings(store: Store, settings: Settings) -> Result<Self> {
        let access = Access::open(&store)?;
        let (ending, _) = watch::channel(false);
        let classic = classic::Classic::open(&store, settings.min_app_version.clone())?;
        let (seen, hooks) = (seen::Seen::open(&store)?, webhooks::Hooks::open(&store)?);
        let (limits, jobs) = (Limits::of(&settings.limits), Jobs::of(settings.limits.requests.get()));
        let seats = sync::Seats::of(settings.limits.sessions.get() as usize);
        let (open, sessions, figures, backups, alerts) = Default::default();
        Ok(Self(Arc::new(Inner {
            store,
            access,
            open,
            ending,
            sessions,
            classic,
            seats,
            figures,
            limits,
            seen,
            alerts,
            hooks,
            jobs,
            backups,
            settings,
        })))
    }

    /// All routes, with their limits.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .merge(devices::routes(self))
            .merge(sync::routes())
            .merge(health::routes())
            .merge(metrics::routes())
            .merge(classic::routes())
            .merge(api::routes())
            .fallback(|| async { Problem::new(ErrorKind::NotFound, "there is nothing at this address") })
            .method_not_allowed_fallback(|| async {
                let problem = Problem::new(ErrorKind::Client, "this address does not take this method");
                problem.with_status(StatusCode::METHOD_NOT_ALLOWED)
            });
        let small = SizeAbove::new(256).and(NotForContentType::const_new(sync::MESSAGES)).and(NotForContentType::SSE);
        // The last layer is the outermost: what came over the wire is limited before it is decompressed, and handlers limit
        // what it comes to then.
        routes
            .layer(RequestDecompressionLayer::new())
            .layer(RequestBodyLimitLayer::new(MOST_BODY_BYTES))
            .layer(RequestBodyTimeoutLayer::new(BODY_WAIT))
            .layer(CompressionLayer::new().compress_when(small))
            .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_WAIT))
            .layer(map_response(problem::dress))
            .layer(from_fn_with_state(self.clone(), trail::follow))
            .layer(CatchPanicLayer::custom(|_| {
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
    pub async fn ended(&self) {
        let mut ending = self.0.ending.subscribe();
        // The sender lives as long as this handle.
        let _ = ending.wait_for(|ending| *ending).await;
    }

    /// Does what a server does of itself, alerts and webhooks, until it ends. [`Server::serve`] does so; for who serves the router alone.
    pub async fn attend(&self) {
        tokio::join!(self.clone().watch(), self.clone().deliver());
    }

    async fn has_ended(&self) -> Error {
        self.ended().await;
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
        self.open(id).map(|opened| opened.ledger)
    }

    fn opened(&self, id: LedgerId) -> Option<Opened> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&id).filter(|opened| opened.is(id)).cloned()
    }

    /// The ledger of an id, and what its sessions share. Blocks.
    fn open(&self, id: LedgerId) -> Result<Opened> {
        if let Some(opened) = self.opened(id) {
            return Ok(opened);
        }
        let unknown = || Error::new(ErrorKind::NotFound, format!("the store has no ledger {id}"));
        let info = self.0.store.ledgers().into_iter().find(|info| info.id == id).ok_or_else(unknown)?;
        let ledger = self.0.store.ledger(&info.name)?;
        let (growth, writers, room) = (Growth::kept(&ledger)?, Device::writers(&ledger)?, self.room(&ledger));
        // All sessions of a ledger share what the first one was given, also of two that came at once.
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|id, opened| opened.is(*id));
        Ok(open.entry(id).or_insert(Opened { ledger, growth, writers, room }).clone())
    }

    /// Whether the store takes work: after a fault of the disk it takes none. Blocks.
    fn check_store(&self) -> Result<()> {
        let first = self.0.store.ledgers().into_iter().next();
        first.map_or(Ok(()), |info| self.0.store.ledger(&info.name).map(drop))
    }

    /// Runs work of a request that may wait for the disk.
    ///
    /// # Errors
    /// Those of the work; `server` where it panicked; `locked` where too much is at work already.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let server = self.clone();
        on_thread(self.0.jobs.take()?, move || work(&server)).await
    }

    /// The same for work of the server's own, which is never sent away.
    async fn own<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let server = self.clone();
        on_thread(self.0.jobs.take_own(), move || work(&server)).await
    }
}

/// Does a job on a thread for blocking work.
async fn on_thread<T: Send + 'static>(job: Job, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |_| Error::new(ErrorKind::Server, "the request failed inside the server");
    tokio::task::spawn_blocking(move || job.run(work)).await.map_err(failed)?
}
