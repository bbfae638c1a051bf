//! A real server on the loopback, and devices that talk to it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Response};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Channels, Growth, Ledger, Options, Peer, SessionOptions, Store, Transfer};
use syncledger::server::{Invite, Server, Settings};
use syncledger::{Error, ErrorKind};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// A server of a store in memory.
pub struct Served {
    pub server: Server,
    pub ledger: Ledger,
    pub url: String,
    pub http: Client,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    pub async fn start() -> Self {
        let store = Store::in_memory(Options::default()).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        Self::start_on(store, ledger).await
    }

    /// A server with these settings.
    pub async fn start_with(settings: Settings) -> Self {
        let store = Store::in_memory(Options::default()).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        Self::start_with_on(store, ledger, settings).await
    }

    pub async fn start_on(store: Store, ledger: Ledger) -> Self {
        Self::set_up(store, ledger, |server| server).await
    }

    /// A server that is set up in some way.
    pub async fn set_up(store: Store, ledger: Ledger, set_up: impl FnOnce(Server) -> Server) -> Self {
        let server = set_up(Server::new(store).unwrap());
        Self::start_server(server, ledger)
    }

    pub async fn start_with_on(store: Store, ledger: Ledger, settings: Settings) -> Self {
        Self::start_server(Server::with_settings(store, settings).unwrap(), ledger)
    }

    fn start_server(server: Server, ledger: Ledger) -> Self {
        let (address, stop) = serve(&server);
        Self { server, ledger, url: format!("http://{address}"), http: Client::new(), stop: Some(stop) }
    }

    pub fn code(&self, invite: Invite) -> String {
        self.server.invite(&self.ledger, invite).unwrap().code
    }

    pub async fn post(&self, path: &str, body: &Json) -> Response {
        self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    /// Enrols a device, and gives its tokens.
    pub async fn enrol(&self, device: &str, role: &str) -> Json {
        self.enrol_by(device, self.code(invite(role))).await
    }

    pub async fn enrol_by(&self, device: &str, code: String) -> Json {
        let body = json!({ "code": code, "device_id": device, "name": device });
        let answer = self.post("/v1/devices/enrol", &body).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// A session of a device's ledger over WebSocket, in both directions, until both have everything.
    pub async fn sync(&self, device: &Ledger, token: &str) -> (Option<Peer>, Result<Transfer, Error>) {
        over_socket(&self.url, token, device, SessionOptions::default()).await
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }
}

/// Serves on the loopback until what is returned is dropped, or sent to.
pub fn serve(server: &Server) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = server.clone();
    tokio::spawn(async move {
        serving.serve(listener, None, async { drop(stopped.await) }).await.unwrap();
    });
    (address, stop)
}

/// An invitation of this role, from `app`.
pub fn invite(role: &str) -> Invite {
    Invite {
        name: "a device".into(),
        role: role.into(),
        source: "app".into(),
        device: None,
        reads: None,
        writes: None,
        valid_ms: 60_000,
    }
}

pub fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap()
}

pub fn access(tokens: &Json) -> &str {
    text(tokens, "access_token")
}

/// A problem's status and code.
pub async fn problem(answer: Response) -> (u16, String) {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let status = answer.status().as_u16();
    let body: Json = answer.json().await.unwrap();
    assert_eq!(body["status"], status);
    (status, text(&body, "code").to_owned())
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens the socket that sessions go over.
pub async fn open_socket(url: &str, token: &str) -> Result<Socket, u16> {
    let mut request = format!("{}/v1/sync", url.replace("http", "ws")).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(fault) => panic!("{fault}"),
    }
}

/// A device's side of a session over WebSocket.
pub async fn over_socket(
    url: &str,
    token: &str,
    device: &Ledger,
    options: SessionOptions,
) -> (Option<Peer>, Result<Transfer, Error>) {
    let mut socket = open_socket(url, token).await.unwrap();
    let (channels, mut carrier) = Channels::new();
    let pump = tokio::spawn(async move {
        loop {
            tokio::select! {
                said = carrier.to_say.recv() => match said {
                    Some(bytes) => drop(socket.send(Frame::Binary(bytes.into())).await),
                    None => break drop(socket.close(None).await),
                },
                came = socket.next() => match came {
                    Some(Ok(Frame::Binary(bytes))) => drop(carrier.tell.send(Ok(bytes.into())).await),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        let broke_off = Error::new(ErrorKind::Network, "broke off");
                        drop(carrier.tell.send(Err(broke_off)).await);
                        break;
                    }
                },
            }
        }
    });
    let peer = device.session(&options).unwrap();
    let never = std::future::pending();
    let done = peer.carry_over(channels, Growth::of(device).unwrap(), never, |_| Ok(())).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), pump).await;
    done
}
