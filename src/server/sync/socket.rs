//! Sessions over WebSocket: each message is a binary message of the socket.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;

use super::Begun;
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

/// Carries messages between a socket and a session until either has ended.
async fn carry(mut socket: WebSocket, begun: Begun) {
    let Begun { carrier, work } = begun;
    let (tell, mut to_say) = (carrier.tell, carrier.to_say);
    loop {
        let is_over = tokio::select! {
            said = to_say.recv() => match said {
                Some(bytes) => !send(&mut socket, Message::Binary(bytes.into())).await,
                None => break,
            },
            came = socket.recv() => match heard(came) {
                Some(word) => {
                    let was_last = word.is_err();
                    tell.send(word).await.is_err() || was_last
                }
                None => false,
            },
        };
        if is_over {
            // The session hears that nobody is there, and ends.
            drop(tell);
            return;
        }
    }
    let is_well = matches!(work.await, Ok(Ok(_)));
    let code = if is_well { close_code::NORMAL } else { close_code::AGAIN };
    let _ = send(&mut socket, Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
    let _ =
        tokio::time::timeout(FAREWELL, async { while socket.recv().await.is_some_and(|came| came.is_ok()) {} }).await;
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(tokio::time::timeout(PATIENCE, socket.send(message)).await, Ok(Ok(())))
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
