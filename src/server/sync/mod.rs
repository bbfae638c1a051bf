//! Replication with devices: `docs/protocol.md` over WebSocket, or over requests that ask again and again.

mod polled;
mod socket;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::Server;
use super::access::{DEVICES, Device};
use super::caller::Caller;
use crate::event::WriterId;
use crate::ledger::{Carrier, Channels, Growth, Ledger, Peer, SessionOptions, Transfer};
use crate::replication::{Filter, MOST_MESSAGE_BYTES};
use crate::{Error, ErrorKind, Result};

pub(super) use polled::Polled;

/// How often, at most, a session looks whether its device may still do what it might when the session began.
const LOOKS: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) fn routes() -> Router<Server> {
    let room = DefaultBodyLimit::max(MOST_MESSAGE_BYTES + (1 << 16));
    Router::new()
        .route("/v1/sync", get(socket::open))
        .route("/v1/sync/push", post(polled::push).layer(room))
        .route("/v1/sync/pull", post(polled::pull))
}

/// A session that has begun, of which somebody carries the messages.
struct Begun {
    carrier: Carrier,
    work: tokio::task::JoinHandle<Result<Transfer>>,
}

impl Server {
    /// Begins a session with a device.
    async fn begin(&self, caller: Caller) -> Result<Begun> {
        let Caller { device, ledger } = caller;
        let (device, ledger, growth, peer) = self
            .blocking(move |server| {
                let (_, growth) = server.open(ledger.info().id)?;
                let edge = Some(device.edge(device.writers_of_others(&ledger)?));
                let wants = Some(Filter::default());
                let peer = ledger.session(&SessionOptions { sends: true, wants, follows: true, edge })?;
                Ok((device, ledger, growth, peer))
            })
            .await?;
        let (channels, carrier) = Channels::new();
        let work = tokio::spawn(self.clone().converse(device, ledger, growth, peer, channels));
        Ok(Begun { carrier, work })
    }

    /// Talks with a device until the session ends.
    async fn converse(
        self,
        device: Device,
        ledger: Ledger,
        growth: Growth,
        peer: Peer,
        channels: Channels,
    ) -> Result<Transfer> {
        let stop = {
            let (server, device, ledger, growth) = (self.clone(), device.clone(), ledger.clone(), growth.clone());
            async move {
                tokio::select! {
                    fault = server.has_ended() => fault,
                    fault = lost_rights(&ledger, &device, growth) => fault,
                }
            }
        };
        let mut bound = None;
        let after_each = |peer: &mut Peer| {
            if bound.is_none()
                && let Some(writer) = peer.replica()
            {
                bound = Some(writer);
                bind(&ledger, &device, writer);
            }
            Ok(())
        };
        let (_, outcome) = peer.carry_over(channels, growth, stop, after_each).await;
        tell(&device, &outcome);
        outcome
    }
}

/// Remembers under which writer a device stamps.
fn bind(ledger: &Ledger, device: &Device, writer: WriterId) {
    let (ledger, device) = (ledger.clone(), device.clone());
    // The session goes on without waiting for it: a fault of the disk meets the session itself.
    drop(tokio::task::spawn_blocking(move || device.bind(&ledger, writer)));
}

fn tell(device: &Device, outcome: &Result<Transfer>) {
    match outcome {
        Ok(transfer) => tracing::info!(device = device.id, events = transfer.applied, "a device's session has ended"),
        Err(fault) => tracing::warn!(device = device.id, code = fault.code(), "a device's session has failed"),
    }
}

/// Waits until the device may no longer do what it might when its session began.
async fn lost_rights(ledger: &Ledger, device: &Device, mut growth: Growth) -> Error {
    loop {
        let (at, then) = (ledger.clone(), device.clone());
        let look = move || Device::find(&at, &then.id).map(|now| now.is_some_and(|now| now.may_as(&then)));
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return changed(),
            Ok(Err(fault)) => return fault,
            Err(_) => return Error::new(ErrorKind::Server, format!("{DEVICES} could not be read")),
        }
        tokio::time::sleep(LOOKS).await;
        if let Err(fault) = growth.next().await {
            return fault;
        }
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::Authentication, "the device's rights have changed")
        .with_hint("connect again: where that is refused, the device was revoked")
}
