//! Sessions over WebSocket: each message is a binary message of the socket.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;

use super::Begun;
use crate::ledger::Carrier;
use crate::replication::MOST_MESSAGE_BYTES;
use crate::server::Server;
use crate::server::caller::Caller;
use crate::server::problem::{Answer, Problem};
use crate::{Error, ErrorKind, Result};

/// The subprotocol that both sides may name.
const PROTOCOL: &str = "syncledger.v1";
/// How much is read at once. Idle devices are many, and each socket has a buffer.
const READ_BYTES: usize = 4 << 10;
/// How long a message may take to be sent.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long the other side has to close a socket that was closed here.
const FAREWELL: Duration = Duration::from_secs(2);

/// Opens a session over a WebSocket.
pub(in crate::server) async fn open(
    State(server): State<Server>,
    caller: Caller,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let socket = socket.map_err(|why| {
        Problem::new(ErrorKind::Client, format!("expected a WebSocket handshake: {}", why.body_text()))
            .with_status(why.status())
    })?;
    let begun = server.begin(caller).await?;
    let socket = socket
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(MOST_MESSAGE_BYTES)
        .max_frame_size(MOST_MESSAGE_BYTES);
    Ok(socket.on_upgrade(move |socket| carry(socket, begun)))
}

/// Carries messages between a socket and a session until either has ended. The ways do not wait for each other: two sides that only
/// write would wait for ever.
async fn carry(socket: WebSocket, begun: Begun) {
    let Begun { carrier: Carrier { tell, to_say }, work } = begun;
    let (mut sink, mut stream) = socket.split();
    {
        let (hearing, saying) = (hear(&mut stream, tell), say(&mut sink, to_say));
        tokio::pin!(hearing, saying);
        tokio::select! {
            // The session hears that nobody is there, and ends.
            () = &mut hearing => return,
            is_open = &mut saying => if !is_open {
                return;
            },
        }
    }
    let is_well = matches!(work.await, Ok(Ok(_)));
    let code = if is_well { close_code::NORMAL } else { close_code::AGAIN };
    let _ = send(&mut sink, Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
    let closed = async { while stream.next().await.is_some_and(|came| came.is_ok()) {} };
    let _ = tokio::time::timeout(FAREWELL, closed).await;
}

/// Tells the session what comes, until it hears no more, or nothing more comes.
async fn hear(stream: &mut SplitStream<WebSocket>, tell: mpsc::Sender<Result<Vec<u8>>>) {
    loop {
        let Some(word) = heard(stream.next().await) else { continue };
        let was_last = word.is_err();
        if tell.send(word).await.is_err() {
            // The session has ended: its last words are still to be sent.
            std::future::pending::<()>().await;
        }
        if was_last {
            return;
        }
    }
}

/// Sends what the session says, until it has ended. False where the device takes no more.
async fn say(sink: &mut SplitSink<WebSocket, Message>, mut to_say: mpsc::Receiver<Vec<u8>>) -> bool {
    while let Some(bytes) = to_say.recv().await {
        if !send(sink, Message::Binary(bytes.into())).await {
            return false;
        }
    }
    true
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(tokio::time::timeout(PATIENCE, sink.send(message)).await, Ok(Ok(())))
}

/// What a message of the socket is to the session; nothing where it is the socket's own.
fn heard(came: Option<Result<Message, axum::Error>>) -> Option<Result<Vec<u8>>> {
    let broke_off = |why: &str| Error::new(ErrorKind::Network, format!("the device's connection broke off: {why}"));
    match came {
        Some(Ok(Message::Binary(bytes))) => Some(Ok(bytes.into())),
        Some(Ok(Message::Text(_))) => {
            Some(Err(Error::new(ErrorKind::Client, "expected binary messages, got a text message")))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
        Some(Ok(Message::Close(_))) | None => Some(Err(broke_off("it was closed"))),
        Some(Err(fault)) => Some(Err(broke_off(&fault.to_string()))),
    }
}
