//! Who may do what: devices, their invitations, their tokens.
//!
//! A device is a record of the system collection `$devices`, which says its role and its rights; it is read at each request, so that
//! what changes there holds at the next. Secrets are not records: the signing key, and hashes of invitations and refresh
//! tokens, lie in files of their own, readable by our user alone.
//!
//! Invariant: no secret is stored; what is stored can only recognise it.

mod device;
mod invitation;
mod invite;
mod keys;
mod refresh;
mod safe;
mod secret;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value as Json, json};

pub(crate) use device::{DEVICES, Device, Role, State};
pub(crate) use invitation::Invitation;
pub use invite::{Devices, Invite, Invited};

use crate::event::LedgerId;
use crate::ledger::{Ledger, Store};
use crate::{Error, ErrorKind, Result};
use invitation::Invitations;
use keys::Keys;
use refresh::Families;
pub(in crate::server) use safe::Safe;

/// How long an access token is good, in seconds.
pub(crate) const ACCESS_SECONDS: u64 = 600;

/// The keys and credentials of a server.
pub(crate) struct Access {
    keys: Keys,
    invitations: Invitations,
    families: Families,
    /// One change of a credential at a time.
    turn: Mutex<()>,
}

/// What a device is given to authenticate with.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) device: String,
    /// The ledger that it is a device of.
    pub(crate) ledger: LedgerId,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Tokens {
    /// The answer to who enrols or refreshes.
    pub(crate) fn to_json(&self) -> Json {
        json!({
            "device_id": self.device,
            "ledger": self.ledger.to_string(),
            "access_token": self.access,
            "refresh_token": self.refresh,
            "token_type": "Bearer",
            "expires_in": ACCESS_SECONDS,
        })
    }
}

impl Access {
    /// The credentials of a store: below its directory, or in memory where it has none.
    ///
    /// # Errors
    /// `permission` or `storage` where files cannot be read or made, `corrupt` where they are not what was written.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        let safe = Safe::open(store.dir().map(|dir| dir.join("server")))?;
        Ok(Self {
            keys: Keys::open(&safe)?,
            invitations: Invitations::new(safe.part("invitations")?),
            families: Families::new(safe.part("families")?),
            turn: Mutex::default(),
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an invitation, and returns its code, which is told once.
    ///
    /// # Errors
    /// `storage` where it cannot be written down.
    pub(crate) fn invite(&self, invitation: &Invitation) -> Result<String> {
        let _turn = self.turn();
        self.invitations.make(invitation)
    }

    /// Makes a device of whoever has an invitation's code.
    ///
    /// # Errors
    /// `authentication` where the code is unknown, used or too old; `conflict` where another device has the id; `validation`
    /// where it is none.
    pub(crate) fn enrol(
        &self,
        code: &str,
        device: &str,
        name: Option<&str>,
        find: impl Fn(LedgerId) -> Result<Ledger>,
        now_ms: i64,
    ) -> Result<Tokens> {
        device::check_id(device)?;
        let _turn = self.turn();
        let (claim, invitation) = self.invitations.find(code, device, now_ms)?;
        let ledger = find(invitation.ledger)?;
        let writers = Device::check_free(&ledger, device, &invitation)?;
        // Whoever asks again as this came to no end is known by it to be the same.
        self.invitations.use_up(claim, device, now_ms)?;
        Device::enrol(&ledger, device, name, &invitation, writers)?;
        let refresh = self.families.begin(invitation.ledger, device, now_ms)?;
        let access = self.keys.sign(invitation.ledger, device, now_ms)?;
        Ok(Tokens { device: device.to_owned(), ledger: invitation.ledger, access, refresh })
    }

    /// Gives new tokens for a refresh token, which is good once.
    ///
    /// # Errors
    /// `authentication` where it is unknown, too old, used before, or of a device that was revoked.
    pub(crate) fn refresh(
        &self,
        token: &str,
        find: impl Fn(LedgerId) -> Result<Ledger>,
        now_ms: i64,
    ) -> Result<Tokens> {
        let _turn = self.turn();
        let (owner, refresh) = self.families.renew(token, now_ms)?;
        let device = find(owner.ledger).and_then(|ledger| Device::of(&ledger, &owner.device));
        device.map_err(|_| unknown_token())?;
        let access = self.keys.sign(owner.ledger, &owner.device, now_ms)?;
        Ok(Tokens { device: owner.device, ledger: owner.ledger, access, refresh })
    }

    /// The device that an access token was given to, if it may still do anything.
    ///
    /// # Errors
    /// `authentication`.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        find: impl Fn(LedgerId) -> Result<Ledger>,
    ) -> Result<(Ledger, Device)> {
        let (ledger, id) = self.keys.verify(token)?;
        let ledger = find(ledger).map_err(|_| unknown_token())?;
        let device = Device::of(&ledger, &id)?;
        Ok((ledger, device))
    }

    /// Takes all rights from a device, from its next request on.
    ///
    /// # Errors
    /// `not_found` where there is none; `storage`.
    pub(crate) fn revoke(&self, ledger: &Ledger, device: &str) -> Result<()> {
        let _turn = self.turn();
        Device::set_state(ledger, device, State::Revoked)?;
        self.families.end(ledger.info().id, device)
    }
}

fn unknown_token() -> Error {
    Error::new(ErrorKind::Authentication, "the token is not, or no longer, good for anything here")
        .with_hint("refresh it at /v1/devices/refresh, or enrol again")
}
