//! What a device authenticates with: an access token of minutes, and a refresh token that is good once.
//!
//! Invariant: a new refresh token is durable before the access token that came with it is used: the one before it is worth
//! nothing by then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::address::Address;
use super::answer::Fault;
use super::http;
use super::place::{Open, Place, shared};
use crate::event::LedgerId;
use crate::ledger::Ledger;
use crate::{Error, ErrorKind, Result};

/// How long before its end an access token is renewed, in milliseconds: a request takes time, and clocks differ.
const EARLY_MS: i64 = 30_000;
/// How many bytes an answer with tokens may have.
const MOST_BYTES: usize = 64 << 10;

/// The tokens of a ledger's device, as they are kept. Handles are cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    place: Place,
    ledger: Ledger,
    held: Mutex<Held>,
    /// One refresh at a time, of all clients of the ledger.
    turn: Arc<Turn>,
    http: reqwest::Client,
    address: Address,
}

#[derive(Clone, Serialize, Deserialize)]
struct Held {
    version: u32,
    url: String,
    device_id: String,
    access_token: String,
    refresh_token: String,
    /// By our clock, in milliseconds since 1970.
    expires_at_ms: i64,
}

type Turn = tokio::sync::Mutex<()>;

static TURNS: Open<Turn> = Mutex::new(BTreeMap::new());

/// The form of the file.
const VERSION: u32 = 1;

/// What a server answers to who enrols or refreshes.
#[derive(Deserialize)]
struct Given {
    device_id: String,
    /// Servers that do not say it tell with the first session.
    ledger: Option<String>,
    access_token: String,
    refresh_token: String,
    expires_in: i64,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("url", &self.0.address).field("device", &self.device()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The tokens that were kept of a ledger.
    ///
    /// # Errors
    /// `authentication` where it is no device of any server; `corrupt`, `storage`, `permission` where they cannot be read.
    pub fn of(ledger: &Ledger) -> Result<Self> {
        let place = Place::of(ledger, "tokens");
        let Some(held) = place.read::<Held>()? else {
            let message = format!("the ledger `{}` is not enrolled with a server", ledger.info().name);
            return Err(Error::new(ErrorKind::Authentication, message).with_hint("`syncledger enrol URL CODE`"));
        };
        if held.version != VERSION {
            let message = format!("expected tokens of version {VERSION}, got {}", held.version);
            return Err(Error::new(ErrorKind::UpgradeNeeded, message).with_hint("install a newer version"));
        }
        Self::new(ledger, place, held)
    }

    fn new(ledger: &Ledger, place: Place, held: Held) -> Result<Self> {
        let (address, http) = (Address::parse(&held.url)?, http::client()?);
        let turn = shared(&TURNS, &place, || Ok(Turn::default()))?;
        let (ledger, held) = (ledger.clone(), Mutex::new(held));
        Ok(Self(Arc::new(Inner { place, ledger, held, turn, http, address })))
    }

    /// Makes a device of a ledger by the code of an invitation, and keeps its tokens. An empty ledger becomes a replica of the
    /// server's. The device keeps its id: without one in
    /// `device` that of before, or a random one, is taken.
    ///
    /// # Errors
    /// `authentication` where the code is unknown, used or too old; `conflict` where another device has the id; `network`,
    /// `timeout` and what else the server answers; `ledger_mismatch` where the ledger has events and is no replica of the
    /// server's; `validation` where the address is none.
    pub async fn enrol(
        ledger: &Ledger,
        url: &str,
        code: &str,
        device: Option<&str>,
        name: Option<&str>,
    ) -> Result<Self> {
        let address = Address::parse(url)?;
        let place = Place::of(ledger, "tokens");
        let before = || place.read::<Held>().ok().flatten().map(|held| held.device_id);
        let device = match device.map(str::to_owned).or_else(before) {
            Some(device) => device,
            None => format!("device-{}", ledger.new_run()?),
        };
        let mut asked = json!({ "code": code, "device_id": device });
        if let (Some(name), Some(object)) = (name, asked.as_object_mut()) {
            object.insert("name".to_owned(), name.into());
        }
        let given = ask(&http::client()?, &address, "v1/devices/enrol", &asked, now_ms(ledger)).await;
        let given = given.map_err(|fault| fault.error)?;
        let of = given.ledger.as_ref().and_then(|id| id.parse::<LedgerId>().ok());
        let held = Held::of(&address, given, now_ms(ledger));
        let (at, kept, to) = (ledger.clone(), held.clone(), place.clone());
        let taken = tokio::task::spawn_blocking(move || {
            // From now on it is a replica: what is edited before the first session is edited there.
            of.map_or(Ok(()), |id| at.match_or_adopt(id))?;
            to.write(&kept)
        });
        taken.await.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))??;
        Self::new(ledger, place, held)
    }

    /// Tokens that no server has given.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn of_nobody(ledger: &Ledger) -> Result<Self> {
        let (url, nobody) = ("http://localhost".to_owned(), String::new);
        let (device_id, access_token, refresh_token) = (nobody(), nobody(), nobody());
        let held = Held { version: VERSION, url, device_id, access_token, refresh_token, expires_at_ms: 0 };
        Self::new(ledger, Place::Memory(Arc::default()), held)
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.address.to_string()
    }

    /// The device that they are of.
    #[must_use]
    pub fn device(&self) -> String {
        self.held().device_id.clone()
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.0.http
    }

    pub(super) fn now_ms(&self) -> i64 {
        now_ms(&self.0.ledger)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An access token that has not run out, as far as is known here.
    pub(super) async fn access(&self) -> Result<String, Fault> {
        let token = Some(self.held().clone()).filter(|held| self.now_ms() < held.expires_at_ms - EARLY_MS);
        match token {
            Some(held) => Ok(held.access_token),
            None => self.renew(None).await,
        }
    }

    /// Another access token than one that the server did not take.
    pub(super) async fn access_after(&self, refused: &str) -> Result<String, Fault> {
        self.renew(Some(refused)).await
    }

    /// Renews the tokens, unless somebody else did meanwhile. It goes on to its end though nobody waits for it: an answer
    /// that is not written down is lost.
    async fn renew(&self, refused: Option<&str>) -> Result<String, Fault> {
        let (tokens, refused) = (self.clone(), refused.map(str::to_owned));
        let renewing = tokio::spawn(async move { tokens.renew_in_turn(refused.as_deref()).await });
        renewing.await.map_err(|_| Error::new(ErrorKind::Cancelled, "the tokens were not renewed"))?
    }

    async fn renew_in_turn(&self, refused: Option<&str>) -> Result<String, Fault> {
        let _turn = self.0.turn.lock().await;
        let held = self.look_again().await?;
        let is_good = match refused {
            Some(refused) => held.access_token != refused,
            None => self.now_ms() < held.expires_at_ms - EARLY_MS,
        };
        if is_good {
            return Ok(held.access_token);
        }
        let asked = json!({ "refresh_token": held.refresh_token });
        let given = ask(&self.0.http, &self.0.address, "v1/devices/refresh", &asked, self.now_ms()).await?;
        let held = Held::of(&self.0.address, given, self.now_ms());
        let kept = held.clone();
        self.at_place(move |place| place.write(&kept)).await?;
        let token = held.access_token.clone();
        *self.held() = held;
        Ok(token)
    }

    /// The tokens as another client of the ledger has left them.
    async fn look_again(&self) -> Result<Held> {
        let kept = self.at_place(Place::read::<Held>).await?;
        if let Some(kept) = kept {
            if kept.url != self.0.address.to_string() {
                let message = "the ledger was enrolled with another server meanwhile";
                return Err(Error::new(ErrorKind::Authentication, message).with_hint("open the client again"));
            }
            *self.held() = kept;
        }
        Ok(self.held().clone())
    }

    async fn at_place<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.0.place.clone();
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        done.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))?
    }
}

impl Held {
    fn of(address: &Address, given: Given, now_ms: i64) -> Self {
        let Given { device_id, access_token, refresh_token, expires_in, .. } = given;
        let expires_at_ms = now_ms.saturating_add(expires_in.saturating_mul(1_000));
        Self { version: VERSION, url: address.to_string(), device_id, access_token, refresh_token, expires_at_ms }
    }
}

fn now_ms(ledger: &Ledger) -> i64 {
    ledger.store().shared().now_ms().cast_signed()
}

async fn ask(
    http: &reqwest::Client,
    address: &Address,
    path: &str,
    asked: &Json,
    now_ms: i64,
) -> Result<Given, Fault> {
    let request = http.post(address.at(path)).timeout(http::REQUEST).json(asked);
    let response = http::send(address, request, now_ms).await?;
    let body = http::body(address, response, MOST_BYTES).await?;
    // What serde says may quote what came, and that may be a token.
    serde_json::from_slice(&body).map_err(|_| no_tokens(address).into())
}

fn no_tokens(address: &Address) -> Error {
    Error::new(ErrorKind::Server, format!("the server at {address} answered something else than tokens"))
        .with_hint("is this the address of a syncledger server?")
}
