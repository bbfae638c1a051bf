//! Replication with devices: `docs/protocol.md` over WebSocket, or over requests that ask again and again.

mod polled;
mod report;
mod seats;
mod socket;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::access::{DEVICES, Device};
use super::caller::Caller;
use super::{Opened, Server};
use crate::event::WriterId;
use crate::ledger::{Carrier, Channels, Peer, SessionOptions, Traffic, Transfer};
use crate::replication::{Filter, MOST_MESSAGE_BYTES};
use crate::{Error, ErrorKind, Result};

pub(super) use polled::Polled;
pub(super) use report::Report;
pub(super) use seats::{Seat, Seats};

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
        let Caller { device, ledger, .. } = caller;
        let (talk, peer) = self
            .blocking(move |server| {
                let seat = server.0.seats.take(ledger.info().id, &device.id)?;
                let opened = server.open(ledger.info().id)?;
                let (wants, edge) =
                    (Some(Filter::default()), Some(device.edge(opened.writers.clone(), opened.room.clone())));
                let peer = opened.ledger.session(&SessionOptions {
                    sends: true,
                    wants,
                    follows: true,
                    edge,
                    first: Vec::new(),
                })?;
                Ok((Talk { device, opened, _seat: seat }, peer))
            })
            .await?;
        let (channels, carrier) = Channels::new();
        let work = tokio::spawn(self.clone().converse(talk, peer, channels));
        Ok(Begun { carrier, work })
    }

    /// Talks with a device until the session ends.
    async fn converse(self, talk: Talk, peer: Peer, channels: Channels) -> Result<Transfer> {
        let started_ms = self.now_ms();
        self.0.figures.begun();
        let stop = async {
            tokio::select! {
                fault = self.has_ended() => fault,
                fault = talk.lost_rights() => fault,
            }
        };
        let mut bound = None;
        let after_each = |peer: &mut Peer| {
            if bound.is_none() {
                bound = peer.replica();
                bound.into_iter().for_each(|writer| talk.bind(writer));
            }
            Ok(())
        };
        let (peer, outcome) = peer.carry_over(channels, talk.opened.growth.clone(), stop, after_each).await;
        let traffic = peer.map(|peer| peer.traffic().clone()).unwrap_or_default();
        self.report(talk, traffic, started_ms, &outcome).await;
        outcome
    }

    /// Writes down how a session went.
    async fn report(&self, talk: Talk, traffic: Traffic, started_ms: i64, outcome: &Result<Transfer>) {
        let ended_ms = self.now_ms();
        let told = match outcome {
            Ok(transfer) => Ok(*transfer),
            Err(fault) => Err(Error::new(fault.kind(), fault.message())),
        };
        let work = move |server: &Self| {
            let Talk { device, opened: Opened { ledger, .. }, .. } = talk;
            let run = ledger.new_run()?;
            let (kind, outcome, rejected) = ("device", &told, Vec::new());
            let report = Report { kind, run, device: &device, started_ms, ended_ms, traffic, outcome, rejected };
            let took = ended_ms.saturating_sub(started_ms).max(0).cast_unsigned();
            server.0.figures.ended(report.status(), Duration::from_millis(took), &report.traffic);
            let (events, status) = (report.traffic.events(), report.status());
            let (device, refused) = (&device.id, report.traffic.refused);
            tracing::info!(device, status, ms = took, received = events.0, sent = events.1, refused, "session");
            server.0.seen.saw(ledger.info().id, device, ended_ms);
            report.write(&ledger)
        };
        if let Err(fault) = self.own(work).await {
            tracing::warn!(code = fault.code(), "how a session went could not be written down");
        }
    }
}

/// Who talks, and about what.
struct Talk {
    device: Device,
    opened: Opened,
    _seat: Seat,
}

impl Talk {
    /// Remembers under which writer the device stamps, where that is nobody's yet.
    fn bind(&self, writer: WriterId) {
        if self.opened.writers.bind(writer, &self.device.id) {
            let (ledger, device) = (self.opened.ledger.clone(), self.device.clone());
            // The session goes on without waiting for it: a fault of the disk meets the session itself.
            drop(tokio::task::spawn_blocking(move || device.bind(&ledger, writer)));
        }
    }

    /// Waits until the device may no longer do what it might when its session began.
    async fn lost_rights(&self) -> Error {
        let mut growth = self.opened.growth.clone();
        loop {
            let (ledger, then) = (self.opened.ledger.clone(), self.device.clone());
            match tokio::task::spawn_blocking(move || then.check_still(&ledger)).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return fault,
                Err(_) => return Error::new(ErrorKind::Server, format!("{DEVICES} could not be read")),
            }
            tokio::time::sleep(LOOKS).await;
            if let Err(fault) = growth.next().await {
                return fault;
            }
        }
    }
}
