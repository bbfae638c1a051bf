//! The offline-first client of a sync server.
//!
//! ```text
//! edits ──► ledger ──► log ──┬── acknowledged ──┬── outbox ──►        what waits is the log after a position
//!                            │                  │
//!            notes: acknowledged position, what was refused     tokens: access, refresh
//!                            │                  │
//!            Client ── retry, circuit ── session (ledger::Peer) ── socket or requests ──► server
//! ```
//!
//! Edits are made on the ledger, whether there is a network or not, and are durable there; a client brings them to the server
//! and the others' here. Nothing is sent that is not durable, and nothing that is durable is ever dropped: what the server
//! refuses is listed with its reason, and stays as it was edited until somebody decides.
//!
//! Invariant: the client never changes what the ledger holds but by the events that the server sends; by stamping anew what
//! the server refused for its stamp or its writer; and by taking back what it refused, where somebody asks for that.
//! Invariant: tokens go to the address that they came from, and nowhere else; no error, log line or `Debug` shows them.

mod address;
mod answer;
mod circuit;
mod conflicts;
#[cfg(any(test, feature = "testing"))]
mod driven;
mod http;
mod lifecycle;
mod notes;
mod outbox;
mod place;
mod session;
mod stamping;
mod tokens;
mod transport;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::task::spawn_blocking;

pub use crate::retry::{Retry, retry_after_ms};
pub use circuit::{Breaking, Circuit, CircuitState};
#[cfg(any(test, feature = "testing"))]
pub use driven::{Driven, Kept};
pub use lifecycle::{Happened, Phase, Progress, Statistics, Synced};
pub use outbox::{QueueStatus, Queued};
pub use tokens::Tokens;
pub use transport::Carries;

use crate::event::EventId;
use crate::ledger::{Ledger, Store};
use crate::replication::Filter;
use crate::{Error, ErrorKind, Result};
use answer::Fault;
use notes::Notes;
use session::Purpose;

/// How many happenings are kept for who watches slowly.
const HAPPENINGS: usize = 1_024;
/// The policies and schemas of collections: wanted with any of them.
const COLLECTIONS: &str = "$collections";

/// How a client behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// When it tries again after a failure.
    pub retry: Retry,
    /// When it stops trying for a while.
    pub breaking: Breaking,
    /// What carries the messages.
    pub carries: Carries,
    /// About how many bytes of messages go each way in a second at most.
    pub max_bytes_per_second: Option<u64>,
    /// Collections whose edits are sent before those of others where more than 1,024 wait, in this order.
    pub first: Vec<String>,
}

/// Which way events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ways {
    /// Both.
    #[default]
    Both,
    /// Only from the server to here.
    Pull,
    /// Only from here to the server.
    Push,
}

/// A ledger's client of a sync server. Handles are cheap to clone. Needs a tokio runtime around every asynchronous call.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    tokens: Tokens,
    options: ClientOptions,
    notes: Arc<Notes>,
    circuit: Mutex<Circuit>,
    statistics: Mutex<Statistics>,
    happened: broadcast::Sender<Happened>,
    /// Changes when what is under way is to end.
    cancels: watch::Sender<u64>,
    /// Tells who waits to try again to do it now.
    wake: Notify,
    /// One session at a time.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("tokens", &self.0.tokens).finish_non_exhaustive()
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.ledger.store().shared().now_ms()
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who watches; nobody may.
    fn tell(&self, happened: Happened) {
        let _ = self.happened.send(happened);
    }
}

/// Has edits of a ledger stamped by what its client has learned of this machine's clock, also where no client is made. Blocks.
///
/// # Errors
/// `corrupt`, `storage` where what the client has noted cannot be read.
pub fn correct_clock(ledger: &Ledger) -> Result<()> {
    Notes::clock_offset_ms(ledger).map(|offset_ms| ledger.set_clock_offset_ms(offset_ms))
}

impl Client {
    /// A client of the store's ledger `main`, for the server at an address, with its tokens.
    ///
    /// # Errors
    /// As [`Client::of`]; those of [`Store::ledger_or_create`].
    pub fn open(store: &Store, url: &str, tokens: Tokens) -> Result<Self> {
        Self::of(&store.ledger_or_create("main")?, url, tokens, ClientOptions::default())
    }

    /// A client of a ledger, for the server at an address, with its tokens. Blocks.
    ///
    /// # Errors
    /// `authentication` where the tokens are of another server: they are sent nowhere else; `corrupt`, `storage`.
    pub fn of(ledger: &Ledger, url: &str, tokens: Tokens, options: ClientOptions) -> Result<Self> {
        if address::Address::parse(url)? != *tokens.address() {
            let message = format!("the tokens are of the server at {}, not of the one asked for", tokens.url());
            return Err(Error::new(ErrorKind::Authentication, message)
                .with_hint("enrol with the other server first: `syncledger enrol URL CODE`"));
        }
        let notes = Notes::open(ledger, &tokens.url())?;
        Ok(Self::noting(ledger, notes, tokens, options))
    }

    fn noting(ledger: &Ledger, notes: Arc<Notes>, tokens: Tokens, options: ClientOptions) -> Self {
        let statistics = Statistics {
            completed: 0,
            failed: 0,
            sent: 0,
            received: 0,
            rejected: 0,
            bytes: (0, 0),
            failures: 0,
            stamped_again: 0,
            circuit: CircuitState::Closed,
            connected: None,
        };
        ledger.set_clock_offset_ms(notes.known().clock_offset_ms);
        Self(Arc::new(Inner {
            ledger: ledger.clone(),
            notes,
            tokens,
            circuit: Mutex::new(Circuit::new(options.breaking)),
            options,
            statistics: Mutex::new(statistics),
            happened: broadcast::channel(HAPPENINGS).0,
            cancels: watch::channel(0).0,
            wake: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.tokens.url()
    }

    /// The device that the ledger is there.
    #[must_use]
    pub fn device(&self) -> String {
        self.0.tokens.device()
    }

    /// Brings what is here to the server and what is there here, of these collections, or of all where none is named, and
    /// returns once both sides have it. Everything that waits here is sent, whatever its collection.
    ///
    /// # Errors
    /// `network`, `timeout`, `rate_limit`, `server`, which a later attempt may pass; `circuit_open` after too many of them;
    /// `authentication`, `permission`, `upgrade_needed`, `ledger_mismatch`; `cancelled`; `locked` where a session of this
    /// client is under way; `storage`. What was done before stays.
    pub async fn sync(&self, collections: &[&str]) -> Result<Synced> {
        self.go(Ways::Both, collections).await
    }

    /// As [`Client::sync`], but everything of the server is looked through from its beginning, whatever was taken in before, and what is
    /// not here is loaded. What waits here stays, and is sent.
    ///
    /// # Errors
    /// As [`Client::sync`].
    pub async fn reset(&self, collections: &[&str]) -> Result<Synced> {
        self.once(&Purpose { again: true, ..purpose(Ways::Both, collections) }).await
    }

    /// As [`Client::sync`], one way or both.
    ///
    /// # Errors
    /// As [`Client::sync`].
    pub async fn go(&self, ways: Ways, collections: &[&str]) -> Result<Synced> {
        self.once(&purpose(ways, collections)).await
    }

    async fn once(&self, purpose: &Purpose) -> Result<Synced> {
        let cancels = self.0.cancels.subscribe();
        self.attempt(purpose, &cancels).await.map_err(|fault| {
            self.tell_failed(&fault.error, None);
            fault.error
        })
    }

    /// Stays connected: what changes on one side goes to the other at once. After a failure it connects again, with growing
    /// pauses. Returns once it was cancelled.
    ///
    /// # Errors
    /// What no later attempt passes: `authentication`, `permission`, `upgrade_needed`, `ledger_mismatch`, `storage` …; `locked`.
    pub async fn follow(&self, collections: &[&str]) -> Result<()> {
        let purpose = Purpose { follows: true, ..purpose(Ways::Both, collections) };
        self.keep_on(&purpose, Duration::ZERO).await
    }

    /// Syncs again and again, with a pause after each time. Returns once it was cancelled.
    ///
    /// # Errors
    /// As [`Client::follow`].
    pub async fn every(&self, pause: Duration, collections: &[&str]) -> Result<()> {
        self.keep_on(&purpose(Ways::Both, collections), pause).await
    }

    /// Ends what is under way, in its own time: what was done stays.
    pub fn cancel(&self) {
        self.0.cancels.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Has the next attempt made now: nothing is waited for, and the circuit lets one through.
    pub fn try_now(&self) {
        self.0.circuit().let_through();
        self.0.wake.notify_waiters();
    }

    /// What happens from now on. Who reads too slowly misses the oldest of it.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Happened> {
        self.0.happened.subscribe()
    }

    /// What it did, and how it stands.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (failures, circuit) = {
            let circuit = self.0.circuit();
            (circuit.failures(), circuit.state(self.0.now_ms()))
        };
        Statistics { failures, circuit, ..self.0.statistics().clone() }
    }

    /// The edits that the server does not have: first those that it refused, with why, then those that wait, at most so many
    /// of these. Blocks, and reads the log after the position that the server has acknowledged; the whole log where something was
    /// refused.
    ///
    /// # Errors
    /// `corrupt`, `storage`.
    pub fn queue(&self, most: usize) -> Result<Vec<Queued>> {
        let known = self.0.notes.known();
        let is_open = self.0.statistics().connected.is_some();
        let status = if is_open { QueueStatus::Processing } else { QueueStatus::Pending };
        let mut queued = outbox::rejected(&self.0.ledger, &known)?;
        queued.extend(outbox::pending(&self.0.ledger, &known, status, most)?);
        Ok(queued)
    }

    /// Has events that the server refused sent again with the next attempt, with all that it may take by now. Without any named,
    /// all of them. Returns how many. Blocks.
    ///
    /// # Errors
    /// `not_found` where one was not refused; `storage`.
    pub fn retry(&self, events: &[EventId]) -> Result<usize> {
        let known = self.0.notes.known();
        let ids: Vec<String> = match events {
            [] => known.rejected.keys().cloned().collect(),
            events => events.iter().map(ToString::to_string).collect(),
        };
        if let Some(id) = ids.iter().find(|id| !known.rejected.contains_key(*id)) {
            let message = format!("the server has not refused event {id}");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint("see `syncledger queue`"));
        }
        self.0.notes.change(|known| {
            known.forget_stampings();
            ids.iter().filter_map(|id| known.rejected.get_mut(id).map(|rejected| rejected.again = true)).count()
        })
    }

    /// Up to which position of the log here the server has everything, or has refused it.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.notes.known().acknowledged
    }

    /// When an attempt was good last, in milliseconds since 1970.
    #[must_use]
    pub fn succeeded_at(&self) -> Option<i64> {
        self.0.notes.known().succeeded_at_ms
    }

    /// Why the last attempts failed, if they did: the code, what was wrong, and how many of them in a row.
    #[must_use]
    pub fn failure(&self) -> Option<(String, String, u32)> {
        self.0.notes.known().failure.map(|failure| (failure.code, failure.message, failure.times))
    }
}

impl Client {
    /// Tries again and again, until nobody wants it, or nothing helps.
    async fn keep_on(&self, purpose: &Purpose, pause: Duration) -> Result<()> {
        let cancels = self.0.cancels.subscribe();
        loop {
            let wait = match self.attempt(purpose, &cancels).await {
                Ok(_) => pause,
                Err(fault) if is_cancelled(&cancels) => return fault_of_disk(fault),
                Err(fault) if !fault.is_passing => {
                    self.tell_failed(&fault.error, None);
                    return Err(fault.error);
                }
                Err(fault) => {
                    let wait_ms = self.wait_ms(&fault)?;
                    self.tell_failed(&fault.error, Some(wait_ms));
                    Duration::from_millis(wait_ms)
                }
            };
            let mut cancelled = cancels.clone();
            tokio::select! {
                _ = cancelled.changed() => return Ok(()),
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How long to wait after a failure: as long as the server asks, or until the circuit lets one through, and else some time.
    fn wait_ms(&self, fault: &Fault) -> Result<u64> {
        let (failures, state) = {
            let circuit = self.0.circuit();
            (circuit.failures(), circuit.state(self.0.now_ms()))
        };
        let run = self.0.ledger.new_run()?.0;
        let chance = u64::from_le_bytes(run.first_chunk().copied().unwrap_or_default());
        let wait = self.0.options.retry.wait_ms(failures.max(1), chance).max(fault.after_ms.unwrap_or(0));
        Ok(match state {
            CircuitState::Open(until) => until.saturating_sub(self.0.now_ms()).max(wait),
            _ => wait,
        })
    }

    /// One attempt, and what it means for the next.
    async fn attempt(&self, purpose: &Purpose, cancels: &watch::Receiver<u64>) -> Result<Synced, Fault> {
        let _turn = self.0.turn.try_lock().map_err(|_| is_busy())?;
        let now_ms = self.0.now_ms();
        self.0.circuit().check(now_ms)?;
        if purpose.sends {
            self.stamp_again_where_due().await?;
        }
        let _session = self.0.notes.session().ok_or_else(is_busy)?;
        self.0.tell(Happened::Started);
        let outcome = self.converse(purpose, cancels.clone()).await;
        let outcome = match outcome {
            Err(fault) if is_cancelled(cancels) => return Err(fault),
            other => other,
        };
        self.note(outcome).await
    }

    /// Notes what an attempt came to.
    async fn note(&self, outcome: Result<Synced, Fault>) -> Result<Synced, Fault> {
        let client = self.clone();
        let noted = spawn_blocking(move || client.note_now(outcome)).await;
        noted.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))?
    }

    fn note_now(&self, outcome: Result<Synced, Fault>) -> Result<Synced, Fault> {
        let inner = &*self.0;
        let now_ms = inner.now_ms();
        match outcome {
            Ok(synced) => {
                inner.circuit().succeeded();
                inner.notes.change(|known| known.succeed(now_ms.cast_signed()))?;
                self.count(&synced);
                inner.tell(Happened::Completed(synced.clone()));
                Ok(synced)
            }
            Err(fault) => {
                use ErrorKind::{Network, Server, Timeout};
                if matches!(fault.error.kind(), Network | Server | Timeout) {
                    inner.circuit().failed(now_ms);
                }
                inner.statistics().failed += 1;
                inner.notes.change(|known| known.fail(&fault.error, now_ms.cast_signed()))?;
                Err(fault)
            }
        }
    }

    fn count(&self, synced: &Synced) {
        let mut statistics = self.0.statistics();
        statistics.completed += 1;
        statistics.sent += synced.sent;
        statistics.received += synced.received;
        statistics.rejected += synced.rejected;
        statistics.bytes.0 += synced.bytes.0;
        statistics.bytes.1 += synced.bytes.1;
    }

    fn tell_failed(&self, fault: &Error, retry_in_ms: Option<u64>) {
        let (code, message) = (fault.code(), fault.message().to_owned());
        self.0.tell(Happened::Failed { code, message, retry_in_ms });
    }
}

fn is_busy() -> Error {
    Error::new(ErrorKind::Locked, "a session of this client is under way")
        .with_hint("wait for its end, or end it: Ctrl-C where `syncledger sync --follow` runs")
}

fn purpose(ways: Ways, collections: &[&str]) -> Purpose {
    let wanted = match collections {
        [] => Filter::default(),
        names => Filter::of(names.iter().copied().chain([COLLECTIONS])),
    };
    let wants = Some(wanted).filter(|_| ways != Ways::Push);
    Purpose { sends: ways != Ways::Pull, wants, follows: false, again: false }
}

fn is_cancelled(cancels: &watch::Receiver<u64>) -> bool {
    cancels.has_changed().unwrap_or(true)
}

/// Who is cancelled has ended well, unless the disk failed.
fn fault_of_disk(fault: Fault) -> Result<()> {
    match fault.error.kind() {
        ErrorKind::Storage | ErrorKind::Corrupt => Err(fault.error),
        _ => Ok(()),
    }
}
