//! The places of webhooks: how far in the log each has delivered.
//!
//! One small file each, below the server's own folder, replaced as a whole and durable before the next delivery begins. Who replays
//! moves the place while a delivery may be under way: that delivery then leaves it where it was moved to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::event::{EventId, LedgerId};
use crate::ledger::{Ledger, Store};
use crate::server::access::Safe;
use crate::server::outgoing::check_name;
use crate::shape::{set, time};
use crate::{Error, ErrorKind, Result};

const ENDING: &str = ".json";

/// One change of a place at a time, whoever makes it: the server, or a command that it runs.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a webhook is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It is.
    Active,
    /// The receiver wants nothing more (410), until somebody replays.
    Gone,
    /// The log is not the one that the place is in, until somebody replays.
    Astray,
}

/// Where a webhook is in a ledger's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) ledger: LedgerId,
    /// Everything up to here was delivered, or was not wanted.
    pub(super) position: u64,
    /// The event there, by which another log is known.
    pub(super) event: Option<EventId>,
    pub(super) state: State,
    /// How often somebody has moved the place.
    pub(super) replays: u64,
    /// How many changes were delivered, replays included.
    pub(super) delivered: u64,
    /// How often delivering has failed in a row, and why it last did.
    pub(super) failures: u32,
    pub(super) error: Option<(String, String)>,
    /// When something was last delivered, in milliseconds since 1970.
    pub(super) delivered_at_ms: Option<i64>,
}

impl Place {
    /// At a position of a log.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn at(ledger: &Ledger, position: u64) -> Result<Self> {
        Ok(Self {
            ledger: ledger.info().id,
            position,
            event: event_at(ledger, position)?,
            state: State::Active,
            replays: 0,
            delivered: 0,
            failures: 0,
            error: None,
            delivered_at_ms: None,
        })
    }

    /// The same further on.
    pub(super) fn moved(&mut self, ledger: &Ledger, position: u64) -> Result<()> {
        (self.position, self.event) = (position, event_at(ledger, position)?);
        Ok(())
    }

    /// Whether a log is the one that this is a place in.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn is_in(&self, ledger: &Ledger) -> Result<bool> {
        if self.ledger != ledger.info().id || self.position > ledger.position() {
            return Ok(false);
        }
        let there = event_at(ledger, self.position)?;
        Ok(there.is_none() || there == self.event)
    }

    fn shown(&self, name: &str) -> Json {
        let mut object = json!({
            "name": name,
            "ledger": self.ledger.to_string(),
            "state": self.state,
            "position": self.position,
            "delivered": self.delivered,
            "delivered_at": self.delivered_at_ms.map(time::to_json),
            "failures": self.failures,
        });
        if let Some((code, message)) = &self.error {
            set(&mut object, "error", json!({ "code": code, "message": message }));
        }
        object
    }
}

/// The event at a position; `None` before the first, or where it lies in an archive that is not there.
fn event_at(ledger: &Ledger, position: u64) -> Result<Option<EventId>> {
    if position == 0 {
        return Ok(None);
    }
    match ledger.entry_at(position) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        entry => Ok(entry?.map(|entry| entry.id)),
    }
}

/// The webhooks of a store: where each is in its log. For an operator's program, or the command line.
#[derive(Clone)]
pub struct Webhooks {
    safe: Safe,
    store: Store,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Webhooks {
    /// Those of a store. The webhooks of a store in memory are those of one [`Server`](crate::server::Server) alone: ask that instead.
    ///
    /// # Errors
    /// `permission` or `storage` where the folder cannot be made.
    pub fn of(store: &Store) -> Result<Self> {
        let safe = Safe::open(store.dir().map(|dir| dir.join("server").join("webhooks")))?;
        Ok(Self { safe, store: store.clone() })
    }

    /// The webhooks that a server of the store has ever had, by name, each with `name`, `ledger`, `state`, `position`, `delivered`,
    /// `delivered_at`, `failures`, `error`.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn list(&self) -> Result<Vec<Json>> {
        let names = self.safe.names()?.into_iter().filter_map(|name| name.strip_suffix(ENDING).map(str::to_owned));
        let shown = |name: String| Ok(self.read(&name)?.map(|place| place.shown(&name)));
        names.map(shown).filter_map(Result::transpose).collect()
    }

    /// Sends a webhook everything after a position again, from its next delivery on; 0 is the beginning of the log. One that was
    /// stopped is sent to again. Returns what [`Webhooks::list`] says of it.
    ///
    /// # Errors
    /// `not_found` where there is no such webhook, or no such position; `storage`.
    pub fn replay(&self, name: &str, from: u64) -> Result<Json> {
        let _turn = turn();
        let place = self.read(name)?.ok_or_else(|| {
            let message = format!("there is no webhook {:?}", crate::shape::cut(name, 64));
            Error::new(ErrorKind::NotFound, message).with_hint("see `syncledger webhook list`")
        })?;
        let ledger = self.ledger(place.ledger)?;
        if from > ledger.position() {
            let message = format!("expected a position up to {}, the last of the log, got {from}", ledger.position());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let (replays, delivered, delivered_at_ms) = (place.replays + 1, place.delivered, place.delivered_at_ms);
        let moved = Place { replays, delivered, delivered_at_ms, ..Place::at(&ledger, from)? };
        self.write(name, &moved)?;
        Ok(moved.shown(name))
    }

    /// The ledger of an id, or the one that has taken its place: then the webhook is astray, and a replay is of that.
    fn ledger(&self, id: LedgerId) -> Result<Ledger> {
        let infos = self.store.ledgers();
        let found = infos.iter().find(|info| info.id == id).or(infos.first());
        let none = || Error::new(ErrorKind::NotFound, "the store has no ledger");
        self.store.ledger(&found.ok_or_else(none)?.name)
    }

    /// Where a webhook is; `None` where it never was anywhere.
    ///
    /// # Errors
    /// `corrupt` where the file is none of these; `storage`.
    pub(super) fn read(&self, name: &str) -> Result<Option<Place>> {
        check_name("a webhook", name)?;
        let file = format!("{name}{ENDING}");
        let Some(bytes) = self.safe.read(&file)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| {
            Error::new(ErrorKind::Corrupt, format!("server/webhooks/{file} does not say where the webhook is"))
                .with_hint(
                    "remove the file: the webhook then begins at the end of the log, from where it can be replayed",
                )
        })
    }

    fn write(&self, name: &str, place: &Place) -> Result<()> {
        self.safe.write(&format!("{name}{ENDING}"), &serde_json::to_vec(place).unwrap_or_default())
    }

    /// Where a webhook begins that never was anywhere.
    pub(super) fn begin(&self, name: &str, place: Place) -> Result<Place> {
        let _turn = turn();
        self.write(name, &place)?;
        Ok(place)
    }

    /// Changes a place, unless somebody has moved it since it had so many replays.
    ///
    /// # Errors
    /// Those of `change`; `corrupt` or `storage`.
    pub(super) fn change(
        &self,
        name: &str,
        replays: u64,
        change: impl FnOnce(&mut Place) -> Result<()>,
    ) -> Result<()> {
        let _turn = turn();
        match self.read(name)? {
            Some(mut place) if place.replays == replays => {
                change(&mut place)?;
                self.write(name, &place)
            }
            _ => Ok(()),
        }
    }
}
