//! Who asks: the device of the access token that a request brings.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::Server;
use super::access::{Device, Role};
use super::problem::Problem;
use super::quotas;
use super::trail::{Asked, Trail};
use crate::ledger::{Context, Ledger};
use crate::{Error, ErrorKind, Result};

/// The device that asks, and its ledger.
pub(super) struct Caller {
    pub(super) device: Device,
    pub(super) ledger: Ledger,
    server: Server,
}

impl FromRequestParts<Server> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let authenticate = move |server: &Server| server.0.access.authenticate(&token, |id| server.ledger(id));
        let (ledger, device) = server.blocking(authenticate).await?;
        let id = ledger.info().id;
        let (standings, within) = server.0.limits.count(id, &device.id);
        if let Some(trail) = parts.extensions.get::<Trail>() {
            trail.leave(Asked { device: device.id.clone(), standings });
        }
        within?;
        server.0.seen.saw(id, &device.id, server.now_ms());
        let caller = Self { device, ledger, server: server.clone() };
        if quotas::is_change(parts) {
            caller.check_room().await?;
        }
        Ok(caller)
    }
}

impl Caller {
    /// Does what only this role, or a higher one, may ask for.
    ///
    /// # Errors
    /// `permission`.
    pub(super) fn require(&self, role: Role) -> Result<()> {
        if self.device.rights.role >= role {
            return Ok(());
        }
        let (needed, own) = (role.name(), self.device.rights.role.name());
        let message = format!("this needs the role {needed}, and the device has the role {own}");
        Err(Error::new(ErrorKind::Permission, message))
    }

    /// The context of what the device edits: the source comes from its record, and it is the one who edits.
    pub(super) fn context(&self) -> Context {
        Context::from_source(&self.device.rights.source).by(&self.device.id)
    }

    /// Runs work on the ledger that may wait for the disk.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger, &Device) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (ledger, device) = (self.ledger.clone(), self.device.clone());
        self.server.blocking(move |_| work(&ledger, &device)).await
    }

    /// Checks that the ledger has room for a change.
    async fn check_room(&self) -> Result<(), Problem> {
        let ledger = self.ledger.clone();
        // Whether there is room is an answer; that the server could not tell is a fault.
        let found = self.server.blocking(move |server| Ok(server.check_room(&ledger))).await?;
        found.map_err(|fault| if fault.kind() == ErrorKind::TooLarge { quotas::refused(fault) } else { fault.into() })
    }
}

fn bearer(headers: &HeaderMap) -> Result<String> {
    let missing = || {
        Error::new(ErrorKind::Authentication, "expected an access token in `Authorization: Bearer …`")
            .with_hint("enrol at /v1/devices/enrol")
    };
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    Some(token.trim().to_owned()).filter(|token| is_bearer && !token.is_empty()).ok_or_else(missing)
}
