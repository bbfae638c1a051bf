//! Devices that are connected and do nothing.

use std::time::Duration;

use syncledger::Store;
use syncledger::ledger::{Channels, Growth, SessionOptions};
use syncledger::{Error, ErrorKind, Ledger};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use futures::{SinkExt as _, StreamExt as _};

use super::{Served, line, runtime};
use crate::Result;
use crate::report::Report;
use crate::work::Sizes;

/// How many of them come from one address.
const AN_ADDRESS: usize = 40;

pub fn idle(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut served = Served::start(&dir.path().join("store"), sizes.idle, false)?;
    let runtime = runtime()?;
    let address = |device: usize| format!("127.0.0.{}", 2 + device / AN_ADDRESS);
    let mut tokens = Vec::new();
    for device in 0..sizes.idle {
        tokens.push(served.token(&address(device), &format!("device-{device}"))?);
    }
    report.figure("memory of the server with all devices enrolled", "MB", megabytes(&served));
    // What the devices hold is not what is measured: they share a ledger, which has nothing to tell.
    let store = Store::in_memory(syncledger::ledger::Options::default())?;
    let ledger = store.create_ledger("main")?;
    let growth = Growth::of(&ledger)?;
    let url = served.url.clone();
    runtime.block_on(async {
        for (device, token) in tokens.iter().enumerate() {
            let socket = open(&url, &address(device), token).await?;
            tokio::spawn(stay(socket, ledger.clone(), growth.clone()));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let name = format!("memory of the server with {} connected idle devices", sizes.idle);
    report.figure(name, "MB", megabytes(&served));
    Ok(())
}

fn megabytes(served: &Served) -> f64 {
    served.resident().unwrap_or_default() as f64 / 1e6
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn open(url: &str, from: &str, token: &str) -> Result<Socket> {
    let mut request = format!("{}/v1/sync", url.replace("http", "ws")).into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let stream = line::connect(url, from).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// A session that has been opened in full, and goes on.
async fn stay(mut socket: Socket, ledger: Ledger, growth: Growth) {
    let (channels, mut carrier) = Channels::new();
    let carried = async {
        loop {
            tokio::select! {
                said = carrier.to_say.recv() => match said {
                    Some(bytes) => drop(socket.send(Message::Binary(bytes.into())).await),
                    None => return,
                },
                came = socket.next() => match came {
                    Some(Ok(Message::Binary(bytes))) => drop(carrier.tell.send(Ok(bytes.into())).await),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        let ended = Error::new(ErrorKind::Network, "the server has hung up");
                        return drop(carrier.tell.send(Err(ended)).await);
                    }
                },
            }
        }
    };
    let options = SessionOptions { follows: true, ..SessionOptions::default() };
    let Ok(peer) = ledger.session(&options) else { return };
    let session = peer.carry_over(channels, growth, std::future::pending(), |_| Ok(()));
    let ((), (_, outcome)) = tokio::join!(carried, session);
    if let Err(fault) = outcome {
        eprintln!("an idle session ended: {fault}");
    }
}
