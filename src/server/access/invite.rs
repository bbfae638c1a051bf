//! Inviting, listing and revoking devices, for who has the store: an operator's program, or the command line.

use serde_json::{Value as Json, json};

use super::device::{Device, Rights, Role};
use super::{Access, Invitation};
use crate::ledger::Ledger;
use crate::replication::Filter;
use crate::{Error, ErrorKind, Result};

/// The devices of a ledger.
pub struct Devices {
    access: Access,
    ledger: Ledger,
}

/// Whom to invite.
#[derive(Clone, Debug)]
pub struct Invite {
    /// What the device is called.
    pub name: String,
    /// What it may do: `reader`, `writer`, `operator`, `admin`.
    pub role: String,
    /// The source that its edits come from.
    pub source: String,
    /// The id of the device that the code is for, also where it is enrolled already; any where it is missing.
    pub device: Option<String>,
    /// The user collections that it may read; `None` for all.
    pub reads: Option<Vec<String>>,
    /// The user collections that it may write; `None` for all.
    pub writes: Option<Vec<String>>,
    /// For how many milliseconds the code is good.
    pub valid_ms: i64,
}

/// An invitation's code: it is told once, and only recognised afterwards.
#[derive(Clone, PartialEq, Eq)]
pub struct Invited {
    /// The code.
    pub code: String,
    /// Until when it is good, in milliseconds since 1970.
    pub until_ms: i64,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Invited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invited").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

impl Devices {
    /// The devices of a ledger. The credentials of a store in memory are those of one [`Server`](crate::server::Server) alone: ask that
    /// instead.
    ///
    /// # Errors
    /// `permission`, `storage` or `corrupt` where the server's credentials cannot be read or made.
    pub fn of(ledger: &Ledger) -> Result<Self> {
        Ok(Self { access: Access::open(ledger.store())?, ledger: ledger.clone() })
    }

    /// Makes an invitation.
    ///
    /// # Errors
    /// `validation` where it names no role or source; `storage`.
    pub fn invite(&self, invite: Invite) -> Result<Invited> {
        self.access.invite_to(&self.ledger, invite)
    }

    /// Takes all rights from a device, from its next request on.
    ///
    /// # Errors
    /// `not_found` where there is none; `storage`.
    pub fn revoke(&self, device: &str) -> Result<()> {
        self.access.revoke(&self.ledger, device)
    }

    /// The devices, each with `device_id`, `name`, `role`, `source`, `state`, `reads`, `writes`.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn list(&self) -> Result<Vec<Json>> {
        Ok(Device::list(&self.ledger)?.iter().map(Device::shown).collect())
    }
}

impl Access {
    pub(in crate::server) fn invite_to(&self, ledger: &Ledger, invite: Invite) -> Result<Invited> {
        let role = Role::parse(&invite.role)?;
        check_name("source", &invite.source)?;
        check_name("name", &invite.name)?;
        if let Some(id) = &invite.device {
            super::device::check_id(id)?;
        }
        let reads = invite.reads.map(|names| Filter::of(names.iter().map(String::as_str))).unwrap_or_default();
        let writes = invite.writes.map(|names| names.into_iter().collect());
        let rights = Rights { role, source: invite.source, reads, writes };
        let now_ms = ledger.store().shared().now_ms().cast_signed();
        let until_ms = now_ms.saturating_add(invite.valid_ms);
        let invitation = Invitation::new(ledger.info().id, invite.name, invite.device, rights, until_ms);
        Ok(Invited { code: self.invite(&invitation)?, until_ms })
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if (1..=64).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("expected a {what} of 1 to 64 bytes without control characters, got {name:?}");
    Err(Error::new(ErrorKind::Validation, message).with_pointers(vec![format!("/{what}")]))
}

impl Device {
    fn shown(&self) -> Json {
        json!({
            "device_id": self.id,
            "name": self.name,
            "state": self.state.name(),
            "role": self.rights.role.name(),
            "source": self.rights.source,
            "reads": self.rights.reads.collections,
            "writes": self.rights.writes,
        })
    }
}
