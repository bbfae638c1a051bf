//! Requests that anybody sends to a server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Context, Options, Store};
use syncledger::server::{Invite, LimitSettings, RateSettings, Server, Settings};
use tokio::runtime::Runtime;

/// A server, and the access token of a device that may do everything.
struct Served {
    address: SocketAddr,
    token: String,
    server: Server,
    runtime: Option<Runtime>,
    /// How many requests it has answered.
    answered: usize,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.end();
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

static SERVED: Mutex<Option<Served>> = Mutex::new(None);
/// After so many requests a new server is made: the ledger of one, in memory, grows with them.
const MOST_REQUESTS: usize = 2_000;

const METHODS: [&str; 6] = ["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD"];
const PATHS: [&str; 24] = [
    "/v1/records/c/k",
    "/v1/records/c",
    "/v1/records/c/k/history",
    "/v1/records/c/k/diff",
    "/v1/records/c/k/blame",
    "/v1/records/c/k/revert",
    "/v1/batch",
    "/v1/undo",
    "/v1/events?after=",
    "/v1/conflicts",
    "/v1/policies/c",
    "/v1/policies/c/try",
    "/v1/schemas/c",
    "/v1/violations",
    "/v1/records/c/k/undelete",
    "/v1/status",
    "/v1/sync/push",
    "/v1/sync/pull",
    "/v1/devices/enrol",
    "/v1/devices/refresh",
    "/api/sync/initialize",
    "/api/sync/upload",
    "/api/sync/download?since=",
    "/api/sync/resolve-conflict",
];
const TYPES: [&str; 4] =
    ["application/json", "application/merge-patch+json", "application/octet-stream", "text/plain"];
/// How long an answer may take: what waits for news waits for less.
const PATIENCE: Duration = Duration::from_secs(20);

/// No request, whatever is in its body, is answered with a fault of the server's own, or not at all.
pub fn http_bodies(bytes: &[u8]) {
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if served.as_ref().is_some_and(|served| served.answered >= MOST_REQUESTS) {
        *served = None;
    }
    let served = served.get_or_insert_with(start);
    served.answered += 1;
    let mut input = Unstructured::new(bytes);
    let Ok(head) = head(&mut input, served) else { return };
    let body = input.take_rest();
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = format!("content-length: {}\r\n\r\n", body.len());
    // Who is refused early may not be heard to the end.
    let _ = stream.write_all(&[head.as_bytes(), length.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let said = String::from_utf8_lossy(&answer);
    let status = said.get(9..12).and_then(|code| code.parse::<u16>().ok());
    let status = status.unwrap_or_else(|| panic!("{head}\n{read:?}: {said:?}"));
    assert!((200..500).contains(&status) || status == 503, "{head}\n{said}");
}

fn head(input: &mut Unstructured<'_>, served: &Served) -> Result<String> {
    let (method, path) = (input.choose(&METHODS)?, input.choose(&PATHS)?);
    let count = input.int_in_range(0..=12)?;
    let more: String = input.bytes(count)?.iter().map(|byte| char::from(byte % 94 + 33)).collect();
    // No request waits for news.
    let more = more.replace(['#', '\\', '"', '<', '>'], "%").replace("wait", "until");
    let (mark, mut fields) = (input.choose(&["", "?", "/"])?, String::new());
    if input.ratio(1, 8)? {
        fields.push_str("if-match: \"*\"\r\n");
    }
    if input.ratio(1, 8)? {
        fields.push_str("idempotency-key: once\r\n");
    }
    if input.ratio(1, 8)? {
        fields.push_str(&format!("content-encoding: {}\r\n", input.choose(&["gzip", "zstd", "br"])?));
    }
    if !input.ratio(1, 16)? {
        fields.push_str(&format!("authorization: Bearer {}\r\n", served.token));
    }
    let kind = input.choose(&TYPES)?;
    let version = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    Ok(format!("{method} {path}{mark}{more} {version}content-type: {kind}\r\n{fields}"))
}

fn start() -> Served {
    let runtime = Runtime::new().unwrap();
    let store = Store::in_memory(Options { cache_bytes: 4 << 20, ..Options::default() }).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    ledger.put("c", "k", json!({ "a": 1, "list": [1, 2] }), &Context::from_source("app")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let entered = runtime.enter();
    let any = RateSettings { per_second: NonZeroU32::MAX, at_once: NonZeroU32::MAX };
    let limits = LimitSettings { device: any, ledger: any, ..LimitSettings::default() };
    let server = Server::with_settings(store, Settings { limits, ..Settings::default() }).unwrap();
    let invite = Invite {
        name: "fuzz".into(),
        role: "admin".into(),
        source: "app".into(),
        device: None,
        reads: None,
        writes: None,
        valid_ms: 60_000,
    };
    let code = server.invite(&ledger, invite).unwrap().code;
    let serving = server.clone();
    runtime.spawn(async move { serving.serve(listener, None, std::future::pending()).await });
    drop(entered);
    let token = enrol(address, &json!({ "code": code, "device_id": "fuzz", "name": "fuzz" }));
    Served { address, token, server, runtime: Some(runtime), answered: 0 }
}

fn enrol(address: SocketAddr, asked: &Json) -> String {
    let body = asked.to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /v1/devices/enrol HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, given) = answer.split_once("\r\n\r\n").unwrap();
    let given: Json = serde_json::from_str(given).unwrap();
    given["access_token"].as_str().unwrap().to_owned()
}
