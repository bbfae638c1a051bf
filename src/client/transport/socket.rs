//! A session over a WebSocket: each message is a binary message of the socket.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, handshake::client::Request};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::{FAREWELL, Line, Meter, broke_off, with_token};
use crate::client::answer::{Answer, Fault};
use crate::client::http;
use crate::client::tokens::Tokens;
use crate::ledger::Carrier;
use crate::replication::MOST_MESSAGE_BYTES;
use crate::{Error, ErrorKind, Result};

/// What the messages are.
const PROTOCOL: &str = "syncledger.v1";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a line.
pub(super) async fn open(tokens: &Tokens, meter: &Meter) -> Result<Line, Fault> {
    let socket = with_token(tokens, |token| connect(tokens, token)).await?;
    let (sink, stream) = socket.split();
    let meter = meter.clone();
    Ok(Line::new("socket", &meter.clone(), move |ends| tokio::spawn(carry(sink, stream, ends, meter))))
}

async fn connect(tokens: &Tokens, token: String) -> Result<Socket, Fault> {
    let address = tokens.address();
    let request = request(&address.socket_at("v1/sync"), &token)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MOST_MESSAGE_BYTES))
        .max_frame_size(Some(MOST_MESSAGE_BYTES))
        .write_buffer_size(0);
    match timeout(http::CONNECT, connect_async_with_config(request, Some(config), true)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Http(response))) => {
            let (parts, body) = response.into_parts();
            Err(refused(parts.status.as_u16(), &parts.headers, body.as_deref(), tokens.now_ms()))
        }
        Ok(Err(fault @ (SocketError::Io(_) | SocketError::Tls(_)))) => {
            Err(Fault::unreachable(&address.to_string(), fault))
        }
        // It speaks, but not as a WebSocket does.
        Ok(Err(fault)) => {
            let message = format!("the server at {address} takes no WebSocket: {fault}");
            Err(Error::new(ErrorKind::Server, message).into())
        }
        Err(_) => Err(Fault::too_late(&address.to_string())),
    }
}

fn request(url: &str, token: &str) -> Result<Request> {
    // The address was looked at before, and a token may not be repeated.
    let bad = || Error::new(ErrorKind::Validation, "the address or the token make no request");
    let mut request = url.into_client_request().map_err(|_| bad())?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| bad())?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(request)
}

fn refused(status: u16, headers: &HeaderMap, body: Option<&[u8]>, now_ms: i64) -> Fault {
    let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok());
    Answer { status, retry_after, body: body.unwrap_or_default() }.fault(now_ms)
}

/// Carries messages both ways until the session or the socket has ended. The ways do not wait for each other: two sides that
/// only write would wait for ever.
async fn carry(sink: SplitSink<Socket, Message>, stream: SplitStream<Socket>, ends: Carrier, meter: Meter) {
    let Carrier { tell, to_say } = ends;
    let hearing = hear(stream, tell.clone(), meter.clone());
    let saying = say(sink, to_say, tell, meter);
    tokio::pin!(hearing, saying);
    tokio::select! {
        () = &mut hearing => {}
        () = &mut saying => {
            // The server closes once it has noted what became of the session: who begins another one before that is told everything
            // again.
            let _ = timeout(FAREWELL, hearing).await;
        }
    }
}

async fn say(
    mut sink: SplitSink<Socket, Message>,
    mut to_say: mpsc::Receiver<Vec<u8>>,
    tell: mpsc::Sender<Result<Vec<u8>>>,
    meter: Meter,
) {
    while let Some(bytes) = to_say.recv().await {
        let length = bytes.len();
        if let Err(fault) = sink.send(Message::Binary(bytes.into())).await {
            let _ = tell.send(Err(broke_off(fault))).await;
            return;
        }
        meter.sent(length).await;
    }
}

async fn hear(mut stream: SplitStream<Socket>, tell: mpsc::Sender<Result<Vec<u8>>>, meter: Meter) {
    loop {
        let word = match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                meter.received(bytes.len()).await;
                Ok(bytes.into())
            }
            Some(Ok(Message::Text(_))) => Err(broke_off("expected binary messages, got a text message")),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_))) | None => Err(broke_off("it was closed")),
            Some(Err(fault)) => Err(broke_off(fault)),
        };
        let was_last = word.is_err();
        // A session that has ended hears no more, but the farewell of the socket is waited for.
        let _ = tell.send(word).await;
        if was_last {
            return;
        }
    }
}
