//! How much a ledger may hold, held against what its devices ask for.
//!
//! Reading always goes on. A change is counted before it is made, so one request may go over the quota by what it holds; a session is
//! counted event by event, and what found no room stays with the device.

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};

use super::Server;
use super::access::{Device, State};
use super::problem::Problem;
use crate::ledger::{Ledger, Room};
use crate::{Error, ErrorKind, Result};

/// What is asked by a method of changes, and changes nothing, or is counted event by event.
const NO_CHANGES: [&str; 4] =
    ["/v1/sync/push", "/v1/sync/pull", "/api/sync/initialize", "/v1/policies/{collection}/try"];

/// Whether a request asks for a change.
pub(super) fn is_change(parts: &Parts) -> bool {
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && !NO_CHANGES.contains(&route)
}

/// A change that finds no room: 507, which is no use to try again.
pub(super) fn refused(fault: Error) -> Problem {
    Problem::from(fault).with_status(StatusCode::INSUFFICIENT_STORAGE)
}

impl Server {
    /// How much room the settings give a ledger.
    pub(super) fn room(&self, ledger: &Ledger) -> Room {
        let quota = self.0.settings.quotas.of(&ledger.info().name);
        Room::of(quota.events, quota.bytes.map(|size| size.0))
    }

    /// Checks that a ledger has room for a change. Blocks.
    ///
    /// # Errors
    /// `too_large` where its quota is used up.
    pub(super) fn check_room(&self, ledger: &Ledger) -> Result<()> {
        let room = self.open(ledger.info().id)?.room;
        if room.is_endless() { Ok(()) } else { room.check(ledger, 0) }
    }

    /// Checks that a ledger may have another device of this id. Blocks.
    ///
    /// # Errors
    /// `too_large` where it has as many as its quota lets it.
    pub(super) fn check_devices(&self, ledger: &Ledger, id: &str) -> Result<()> {
        let Some(most) = self.0.settings.quotas.of(&ledger.info().name).devices else { return Ok(()) };
        let others =
            Device::list(ledger)?.into_iter().filter(|device| device.state == State::Active && device.id != id);
        if (others.count() as u64) < most {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, format!("the ledger's quota of {most} devices is used up"))
            .with_hint("revoke one that is used no more, or ask who runs the server for a greater quota"))
    }
}
