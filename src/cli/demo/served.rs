//! The server of the demonstration, where there is one: the replicas are its devices, each with a client.

use std::net::TcpListener;
use std::path::Path as FilePath;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::stage::Replica;
use crate::client::{Client, Tokens};
use crate::ledger::{Ledger, Store};
use crate::server::{Invite, Server};
use crate::{Error, ErrorKind, Result};

/// For how many milliseconds a device has time to enrol.
const VALID_MS: i64 = 60_000;
/// How many edits that wait are counted at most.
const MOST_COUNTED: usize = 100_000;

/// A server that listens on the loopback, and its two devices.
pub(super) struct Served {
    ledger: Ledger,
    url: String,
    office: Client,
    laptop: Client,
    runtime: Runtime,
    /// Ends the server when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl Served {
    pub(super) fn start(dir: &FilePath, office: &Replica, laptop: &Replica) -> Result<Self> {
        let store = Store::open(dir.join("server"))?;
        let ledger = store.ledger_or_create("main")?;
        let server = Server::new(store)?;
        let listener = TcpListener::bind("127.0.0.1:0").map_err(unserved)?;
        let url = format!("http://{}", listener.local_addr().map_err(unserved)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(unserved)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.clone();
        runtime.spawn(async move { serving.serve(listener, None, async { drop(stopped.await) }).await });
        let enrolled = [office, laptop].map(|replica| runtime.block_on(enrol(&server, &ledger, &url, replica)));
        let [office, laptop] = enrolled;
        Ok(Self { ledger, url, office: office?, laptop: laptop?, runtime, _stop: stop })
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Brings everything of both to the server, and what is there to both. Returns how many events came to the laptop, and to
    /// the office.
    pub(super) fn exchange(&self) -> Result<(u64, u64)> {
        let sync = |client: &Client| self.runtime.block_on(client.sync(&[])).map(|synced| synced.received);
        let first = sync(&self.office)?;
        let to_laptop = sync(&self.laptop)?;
        Ok((to_laptop, first + sync(&self.office)?))
    }

    /// How many edits of the laptop the server does not have.
    pub(super) fn waiting(&self) -> Result<u64> {
        Ok(self.laptop.queue(MOST_COUNTED)?.len() as u64)
    }
}

fn unserved(fault: std::io::Error) -> Error {
    Error::new(ErrorKind::Network, format!("no server can be started on the loopback: {fault}"))
}

async fn enrol(server: &Server, office: &Ledger, url: &str, replica: &Replica) -> Result<Client> {
    let invite = Invite {
        name: replica.name.to_owned(),
        role: "writer".to_owned(),
        source: replica.source.to_owned(),
        device: None,
        reads: None,
        writes: None,
        valid_ms: VALID_MS,
    };
    let code = server.invite(office, invite)?.code;
    let tokens = Tokens::enrol(&replica.ledger, url, &code, Some(replica.name), Some(replica.name)).await?;
    Client::open(replica.ledger.store(), url, tokens)
}
