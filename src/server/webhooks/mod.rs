//! Change webhooks: what happens to records, posted to addresses that the operator has set.
//!
//! Each webhook is a task that follows the log of a ledger: it reads what comes after its place, posts it, and moves the place once
//! the receiver has taken it. So changes arrive in the order of the log and at least once, whatever is restarted or killed; a change
//! that comes twice has the same id.
//!
//! Invariant: a place never passes a change that was not taken.

mod parcel;
mod place;
mod settings;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;

pub use place::Webhooks;
pub use settings::WebhookSettings;

use super::Server;
use super::outgoing::{self, Address, Refused, Secret, Signer, check_name};
use crate::ledger::{Growth, Ledger};
use crate::retry::Retry;
use crate::{Error, ErrorKind, Result};
use parcel::{Parcel, Wanted};
use place::{Place, State};

/// How often, at least, a webhook that has nothing to send looks whether somebody has moved its place.
const LOOKS: Duration = Duration::from_secs(1);
/// How far the log is read on, where nothing in it is wanted, before the place is moved along.
const MOST_UNSAVED: u64 = 16_384;

/// The webhooks of a server.
pub(super) struct Hooks {
    places: Webhooks,
    all: Mutex<Vec<Arc<Hook>>>,
}

impl Hooks {
    /// None yet.
    ///
    /// # Errors
    /// As [`Webhooks::of`].
    pub(super) fn open(store: &crate::ledger::Store) -> Result<Self> {
        Ok(Self { places: Webhooks::of(store)?, all: Mutex::default() })
    }
}

/// A webhook.
struct Hook {
    name: String,
    ledger: String,
    address: Address,
    signer: Signer,
    wanted: Wanted,
    retry: Retry,
    client: Client,
}

impl WebhookSettings {
    /// Checks webhooks as [`Server::with_webhooks`] does, but for their ledgers.
    ///
    /// # Errors
    /// As there.
    pub fn check(all: &[Self]) -> Result<()> {
        Hook::all(all).map(drop)
    }
}

impl Hook {
    fn all(settings: &[WebhookSettings]) -> Result<Vec<Self>> {
        let (client, mut names) = (outgoing::client()?, BTreeSet::new());
        let hook = |settings: &WebhookSettings| {
            if !names.insert(settings.name.clone()) {
                let message = format!("two webhooks are called {:?}", settings.name);
                return Err(Error::new(ErrorKind::Validation, message));
            }
            Self::of(settings, client.clone())
        };
        settings.iter().map(hook).collect()
    }

    fn of(settings: &WebhookSettings, client: Client) -> Result<Self> {
        let name = settings.name.clone();
        check_name("a webhook", &name)?;
        let what = |part: &str| format!("the {part} of the webhook `{name}`");
        let secret = Secret::of(&what("secret"), settings.secret.as_ref(), settings.secret_file.as_deref())?;
        let url = Secret::of(&what("url"), settings.url.as_ref(), settings.url_file.as_deref())?;
        let none = || Secret::from("");
        let millis = |period: super::duration::Period| period.as_millis().cast_unsigned();
        Ok(Self {
            address: Address::read(&what("url"), &url.unwrap_or_else(none), settings.allow_http)?,
            signer: Signer::of(&what("secret"), &secret.unwrap_or_else(none))?,
            ledger: settings.ledger.clone(),
            wanted: Wanted { collections: settings.collections.clone(), most: settings.batch.clamp(1, 1_000) },
            retry: Retry { first_ms: millis(settings.first_wait), most_ms: millis(settings.most_wait) },
            client,
            name,
        })
    }
}

/// What one step came to.
enum Step {
    /// There may be more.
    Moved,
    /// There is nothing to send.
    Idle,
    /// It is to be tried again after so many milliseconds.
    PutOff(u64),
}

/// How far a webhook is that follows its log.
#[derive(Default)]
struct Reading {
    /// By how many replays the place was moved when it was last read.
    replays: u64,
    /// How far nothing was wanted, beyond the place.
    scanned: u64,
}

impl Server {
    /// The same server, which posts changes to these addresses, as long as it serves, or [`Server::attend`] runs. A webhook that was
    /// never there before begins at the end of the log. Blocks.
    ///
    /// # Errors
    /// `validation` where a name is none, or is there twice, or an address or a secret is none; `not_found` where there is no such
    /// ledger, or no such file; `permission` or `storage`.
    pub fn with_webhooks(self, settings: Vec<WebhookSettings>) -> Result<Self> {
        let hooks = Hook::all(&settings)?;
        for hook in &hooks {
            let ledger = self.0.store.ledger(&hook.ledger)?;
            if self.0.hooks.places.read(&hook.name)?.is_none() {
                self.0.hooks.places.begin(&hook.name, Place::at(&ledger, ledger.position())?)?;
            }
        }
        let hooks = hooks.into_iter().map(Arc::new).collect();
        *self.0.hooks.all.lock().unwrap_or_else(PoisonError::into_inner) = hooks;
        Ok(self)
    }

    /// Where the webhooks are, and how to send again what they were sent.
    #[must_use]
    pub fn webhooks(&self) -> Webhooks {
        self.0.hooks.places.clone()
    }

    /// Posts what changes, until the server ends.
    pub(super) async fn deliver(self) {
        let hooks = self.0.hooks.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tasks: Vec<_> = hooks.into_iter().map(|hook| tokio::spawn(self.clone().follow(hook))).collect();
        for task in tasks {
            // One that panicked has ended alone.
            let _ = task.await;
        }
    }

    /// Delivers to a webhook, until the server ends.
    async fn follow(self, hook: Arc<Hook>) {
        let mut reading = Reading::default();
        let mut growth = None;
        loop {
            // Before the log is read: what comes between the two is told of.
            if growth.is_none() {
                growth = self.growth_of(&hook).await.ok();
            }
            let step = tokio::select! {
                step = self.step(&hook, &mut reading) => step,
                () = self.ended() => return,
            };
            let wait = match step {
                Ok(Step::Moved) => continue,
                Ok(Step::Idle) => None,
                Ok(Step::PutOff(wait_ms)) => Some(Duration::from_millis(wait_ms)),
                Err(fault) => {
                    tracing::warn!(
                        webhook = hook.name,
                        code = fault.code(),
                        "a webhook cannot go on: {}",
                        fault.message()
                    );
                    Some(LOOKS)
                }
            };
            let is_ended = tokio::select! {
                () = self.ended() => true,
                () = self.rest(&hook, &reading, wait, growth.as_mut()) => false,
            };
            if is_ended {
                return;
            }
        }
    }

    /// Waits for the log to grow, or so long; but no longer than until somebody moves the place.
    async fn rest(&self, hook: &Arc<Hook>, reading: &Reading, wait: Option<Duration>, growth: Option<&mut Growth>) {
        let replayed = async {
            loop {
                tokio::time::sleep(LOOKS).await;
                let (name, replays) = (hook.name.clone(), reading.replays);
                let read = self.blocking(move |server| server.0.hooks.places.read(&name)).await;
                if !matches!(read, Ok(Some(place)) if place.replays == replays) {
                    return;
                }
            }
        };
        let over = async {
            let has_grown = match (wait, growth) {
                (None, Some(growth)) => growth.next().await.is_ok(),
                _ => false,
            };
            if !has_grown {
                tokio::time::sleep(wait.unwrap_or(LOOKS)).await;
            }
        };
        tokio::select! {
            () = replayed => {}
            () = over => {}
        }
    }

    async fn growth_of(&self, hook: &Arc<Hook>) -> Result<Growth> {
        let name = hook.ledger.clone();
        self.blocking(move |server| Ok(server.open(server.0.store.ledger(&name)?.info().id)?.growth)).await
    }

    /// Sends what is next, if anything.
    async fn step(&self, hook: &Arc<Hook>, reading: &mut Reading) -> Result<Step> {
        let (reader, scanned) = (hook.clone(), (reading.replays, reading.scanned));
        let next = self.blocking(move |server| server.next_of(&reader, scanned)).await?;
        let Some((parcel, place)) = next else { return Ok(Step::Idle) };
        *reading = Reading { replays: place.replays, scanned: parcel.until };
        if parcel.changes.is_empty() {
            let is_far = parcel.until - place.position >= MOST_UNSAVED;
            if is_far {
                self.taken(hook, &place, &parcel).await?;
            }
            return Ok(if parcel.until > parcel.after { Step::Moved } else { Step::Idle });
        }
        match self.post(hook, &place, &parcel).await {
            Ok(()) => self.taken(hook, &place, &parcel).await.map(|()| Step::Moved),
            Err(refused) => {
                reading.scanned = 0;
                self.refused(hook, &place, refused).await
            }
        }
    }

    /// What a webhook is to be sent next, and its place; nothing where it is stopped. Blocks.
    fn next_of(&self, hook: &Hook, (replays, scanned): (u64, u64)) -> Result<Option<(Parcel, Place)>> {
        let ledger = self.0.store.ledger(&hook.ledger)?;
        let place = match self.0.hooks.places.read(&hook.name)? {
            Some(place) => place,
            None => self.0.hooks.places.begin(&hook.name, Place::at(&ledger, ledger.position())?)?,
        };
        if place.state != State::Active {
            return Ok(Some((Parcel { after: place.position, until: place.position, ..Parcel::default() }, place)));
        }
        if !place.is_in(&ledger)? {
            self.0.hooks.places.change(&hook.name, place.replays, |place| {
                place.state = State::Astray;
                place.error = Some(astray());
                Ok(())
            })?;
            return Ok(None);
        }
        let after = if place.replays == replays { scanned.max(place.position) } else { place.position };
        // Whoever is told of a change finds it in what is shown.
        let head = shown(&ledger);
        Parcel::read(&ledger, &hook.wanted, after, head).map(|parcel| Some((parcel, place)))
    }

    async fn post(&self, hook: &Hook, place: &Place, parcel: &Parcel) -> Result<(), Refused> {
        let (body, kind) = parcel.body(hook.wanted.most > 1);
        let now_ms = self.now_ms();
        let id = parcel.id(place.ledger, &hook.name, place.replays);
        let mut headers = hook.signer.headers(&id, now_ms, &body).to_vec();
        headers.push(("content-type", kind.to_owned()));
        outgoing::post(&hook.client, &hook.address, &headers, body, now_ms).await
    }

    /// The receiver has everything up to the end of a parcel.
    async fn taken(&self, hook: &Arc<Hook>, place: &Place, parcel: &Parcel) -> Result<()> {
        let (hook, replays, until, count) = (hook.clone(), place.replays, parcel.until, parcel.changes.len() as u64);
        self.blocking(move |server| {
            let ledger = server.0.store.ledger(&hook.ledger)?;
            server.0.hooks.places.change(&hook.name, replays, |place| {
                place.moved(&ledger, until)?;
                place.delivered += count;
                if count > 0 {
                    (place.failures, place.error) = (0, None);
                    place.delivered_at_ms = Some(server.now_ms());
                }
                Ok(())
            })
        })
        .await
    }

    /// The receiver has not taken a parcel.
    async fn refused(&self, hook: &Arc<Hook>, place: &Place, refused: Refused) -> Result<Step> {
        let Refused { error, after_ms, is_gone } = refused;
        let failures = place.failures.saturating_add(1);
        tracing::warn!(
            webhook = hook.name,
            code = error.code(),
            failures,
            "a webhook was not taken: {}",
            error.message()
        );
        let (name, replays) = (hook.name.clone(), place.replays);
        let why = (error.code().to_owned(), error.message().to_owned());
        self.blocking(move |server| {
            server.0.hooks.places.change(&name, replays, |place| {
                (place.failures, place.error) = (failures, Some(why));
                if is_gone {
                    place.state = State::Gone;
                }
                Ok(())
            })
        })
        .await?;
        let own = hook.retry.wait_ms(failures, outgoing::chance());
        Ok(if is_gone { Step::Idle } else { Step::PutOff(after_ms.map_or(own, |asked| asked.max(own))) })
    }
}

/// How far a ledger shows what is in its log.
fn shown(ledger: &Ledger) -> u64 {
    ledger.position().min(ledger.store().shared().await_shown(ledger.info().id, 0, Duration::ZERO))
}

fn astray() -> (String, String) {
    let message = "the ledger's log is not the one that was delivered from: the store was restored or replaced";
    (ErrorKind::Consistency.code().to_owned(), message.to_owned())
}
