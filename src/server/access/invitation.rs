//! Invitations: codes by which somebody becomes a device.

use serde::{Deserialize, Serialize};

use super::device::Rights;
use super::safe::Safe;
use super::secret;
use crate::event::LedgerId;
use crate::{Error, ErrorKind, Result};

/// How long the device that used a code may use it once more: its answer may have got lost.
const GRACE_MS: i64 = 30_000;

/// What an invitation makes of whoever has its code.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// The ledger that the device will be in.
    pub(crate) ledger: LedgerId,
    /// What the device is called, unless it says another name.
    pub(crate) name: String,
    /// The id of the device that it is for; any where it is missing.
    pub(crate) device: Option<String>,
    /// What the device may do.
    pub(crate) rights: Rights,
    /// Until when it is good, in milliseconds since 1970.
    pub(crate) until_ms: i64,
    /// Who used it, and when.
    #[serde(default)]
    used: Option<(String, i64)>,
}

impl Invitation {
    /// An invitation that nobody has used.
    pub(crate) fn new(ledger: LedgerId, name: String, device: Option<String>, rights: Rights, until_ms: i64) -> Self {
        Self { ledger, name, device, rights, until_ms, used: None }
    }
}

/// The invitations of a server, by the fingerprints of their codes.
pub(super) struct Invitations(Safe);

/// An invitation that was found, to be used up.
pub(super) struct Claim(String);

impl Invitations {
    pub(super) fn new(safe: Safe) -> Self {
        Self(safe)
    }

    /// Writes it down, and returns its code.
    pub(super) fn make(&self, invitation: &Invitation) -> Result<String> {
        let code = secret::random(20)?;
        self.0.put(&secret::fingerprint(&code), invitation)?;
        Ok(code)
    }

    /// The invitation of a code, for a device.
    pub(super) fn find(&self, code: &str, device: &str, now_ms: i64) -> Result<(Claim, Invitation)> {
        let name = secret::fingerprint(code);
        let found: Option<Invitation> = self.0.get(&name)?;
        let invitation = found.filter(|found| found.is_good(device, now_ms)).ok_or_else(unknown)?;
        match &invitation.device {
            Some(meant) if meant != device => {
                let message =
                    format!("the code was made for the device `{meant}`, and this one says to be `{device}`");
                Err(Error::new(ErrorKind::Permission, message))
            }
            _ => Ok((Claim(name), invitation)),
        }
    }

    /// Remembers for a while that it was used, and forgets those whose time is over.
    pub(super) fn use_up(&self, claim: Claim, device: &str, now_ms: i64) -> Result<()> {
        if let Some(mut invitation) = self.0.get::<Invitation>(&claim.0)? {
            let since = invitation.used.map_or(now_ms, |(_, since)| since);
            invitation.used = Some((device.to_owned(), since));
            self.0.put(&claim.0, &invitation)?;
        }
        for name in self.0.names()? {
            let is_over =
                |it: Invitation| it.until_ms < now_ms || it.used.is_some_and(|(_, at)| at + GRACE_MS < now_ms);
            if self.0.get(&name)?.is_some_and(is_over) {
                self.0.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl Invitation {
    /// Whether the device used it already, and asks again as the answer got lost.
    pub(super) fn was_used_by(&self, device: &str) -> bool {
        self.used.as_ref().is_some_and(|(by, _)| by == device)
    }

    fn is_good(&self, device: &str, now_ms: i64) -> bool {
        let is_free = match &self.used {
            Some((by, at)) => by == device && now_ms <= at.saturating_add(GRACE_MS),
            None => true,
        };
        is_free && now_ms <= self.until_ms
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Authentication, "the code is unknown, was used, or is too old")
        .with_hint("make another with `syncledger device create`")
}
