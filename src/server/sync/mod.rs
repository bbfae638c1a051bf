//! Replication with devices: `docs/protocol.md` over WebSocket, or over requests that ask again and again.

mod polled;
mod report;
mod socket;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::Server;
use super::access::{DEVICES, Device};
use super::caller::Caller;
use crate::event::WriterId;
use crate::ledger::{Carrier, Channels, Growth, Ledger, Peer, SessionOptions, Traffic, Transfer};
use crate::replication::{Filter, MOST_MESSAGE_BYTES};
use crate::{Error, ErrorKind, Result};

pub(super) use polled::Polled;
use report::Report;

/// How often, at most, a session looks whether its device may still do what it might when the session began.
const LOOKS: Duration = Duration::from_secs(1);

/// The type of bodies that are messages. They are compressed already.
pub(super) const MESSAGES: &str = "application/vnd.syncledger.messages";

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
        let (mut bound, mut traffic, started_ms) = (None, Traffic::default(), self.now_ms());
        let after_each = |peer: &mut Peer| {
            if bound.is_none()
                && let Some(writer) = peer.replica()
            {
                bound = Some(writer);
                bind(&ledger, &device, writer);
            }
            Ok(())
        };
        self.0.figures.begun();
        let (peer, outcome) = peer.carry_over(channels, growth, stop, after_each).await;
        if let Some(peer) = peer {
            traffic = peer.traffic().clone();
        }
        self.report(device, ledger, traffic, started_ms, &outcome).await;
        outcome
    }

    /// Writes down how a session went.
    async fn report(
        &self,
        device: Device,
        ledger: Ledger,
        traffic: Traffic,
        started_ms: i64,
        outcome: &Result<Transfer>,
    ) {
        let ended_ms = self.now_ms();
        let told = match outcome {
            Ok(transfer) => Ok(*transfer),
            Err(fault) => Err(Error::new(fault.kind(), fault.message())),
        };
        let work = move |server: &Self| {
            let run = ledger.new_run()?;
            let report = Report { run, device: &device, started_ms, ended_ms, traffic, outcome: &told };
            let took = ended_ms.saturating_sub(started_ms).max(0).cast_unsigned();
            server.0.figures.ended(report.status(), Duration::from_millis(took), &report.traffic);
            tracing::info!(device = device.id, status = report.status(), "a device's session has ended");
            report.write(&ledger)
        };
        if let Err(fault) = self.blocking(work).await {
            tracing::warn!(code = fault.code(), "how a session went could not be written down");
        }
    }
}

/// Remembers under which writer a device stamps.
fn bind(ledger: &Ledger, device: &Device, writer: WriterId) {
    let (ledger, device) = (ledger.clone(), device.clone());
    // The session goes on without waiting for it: a fault of the disk meets the session itself.
    drop(tokio::task::spawn_blocking(move || device.bind(&ledger, writer)));
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
