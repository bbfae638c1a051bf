//! What the server's process does: the same as `syncledger serve`, with codes for the devices that are to come.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde::{Deserialize, Serialize};
use syncledger::Store;
use syncledger::server::{Invite, Server};

use super::runtime;
use crate::Result;
use crate::options::Serve;

/// What it tells once it listens.
#[derive(Serialize, Deserialize)]
pub struct Ready {
    pub url: String,
    pub codes: Vec<String>,
}

/// Serves until its input ends.
pub fn serve(asked: &Serve) -> Result<()> {
    let store = Store::open(&asked.dir)?;
    let ledger = store.ledger_or_create("main")?;
    let server = Server::new(store.clone())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let invited = (0..asked.devices).map(|device| server.invite(&ledger, invitation(asked.apart, device)));
    let codes = invited.map(|invited| Ok(invited?.code)).rev().collect::<Result<Vec<_>>>()?;
    println!("{}", serde_json::to_string(&Ready { url, codes })?);
    std::io::stdout().flush()?;
    runtime()?.block_on(server.serve(listener, None, input_ended()))?;
    Ok(store.close()?)
}

fn invitation(apart: bool, device: usize) -> Invite {
    let own = apart.then(|| vec![collection(device)]);
    Invite {
        name: format!("device {device}"),
        role: "writer".to_owned(),
        source: "app".to_owned(),
        device: None,
        reads: own.clone(),
        writes: own,
        valid_ms: 3_600_000,
    }
}

/// The collection of a device that has one of its own.
pub fn collection(device: usize) -> String {
    format!("issues-{device}")
}

async fn input_ended() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let _ = read.await;
}
