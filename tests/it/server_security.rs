//! The sync server against who means ill: every route with every bad token, for every role and for another tenant; forged events; and
//! more connections than a process has descriptors by default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value as Json, json};
use syncledger::event::{Event, Op, Path as Pointer, Value, WriterId};
use syncledger::ledger::{Act, Context, Ledger, Options, SessionOptions, Store, Which, Write};
use syncledger::projection::Policy;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::served::{Served, access, open_socket, over_socket, problem};

const ROLES: [&str; 4] = ["reader", "writer", "operator", "admin"];

fn app() -> Context {
    Context::from_source("app")
}

fn in_memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

/// An operation of the document.
#[derive(Clone, Debug)]
struct Operation {
    method: Method,
    path: String,
    needs_token: bool,
    documented: BTreeSet<u16>,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

async fn operations(served: &Served) -> Vec<Operation> {
    let document: Json =
        served.http.get(format!("{}/openapi.json", served.url)).send().await.unwrap().json().await.unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let of_path = |(path, methods): (&String, &Json)| -> Vec<Operation> {
        let methods = methods.as_object().unwrap().iter();
        let operation = |(method, described): (&String, &Json)| Operation {
            method: method.to_uppercase().parse().unwrap(),
            path: path.clone(),
            needs_token: described["security"] != json!([]),
            documented: described["responses"]
                .as_object()
                .unwrap()
                .keys()
                .map(|code| code.parse().unwrap())
                .collect(),
        };
        methods.map(operation).collect()
    };
    paths.flat_map(of_path).collect()
}

/// The routes that the source names, with their methods.
fn routes_of_the_source() -> BTreeSet<String> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server")];
    let mut found = BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let text = std::fs::read_to_string(path).unwrap();
                text.split(".route(").skip(1).for_each(|rest| found.extend(route(rest)));
            }
        }
    }
    found
}

/// What `"/path", get(one).put(other))` names.
fn route(text: &str) -> Vec<String> {
    let mut parts = text.splitn(3, '"');
    let (Some(_), Some(path), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return Vec::new() };
    let handlers = rest.split(".route(").next().unwrap().split('\n').next().unwrap();
    let methods = ["get", "put", "patch", "delete", "post"];
    let is_named = |method: &&&str| handlers.contains(&format!("{method}("));
    methods.iter().filter(is_named).map(|method| format!("{} {path}", method.to_uppercase())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_names_every_route_and_no_other() {
    let served = Served::start().await;
    let documented: BTreeSet<String> = operations(&served).await.iter().map(Operation::name).collect();
    assert_eq!(documented, routes_of_the_source());
}

/// A request of an operation that would be taken, of a record and a conflict.
fn asked(served: &Served, operation: &Operation, token: &str, (key, conflict): (&str, &str)) -> RequestBuilder {
    // What is set for a collection is not set for that of the conflicts.
    let collection = if operation.path.contains("{key}") { "issues" } else { "notes" };
    let path = operation.path.replace("{collection}", collection).replace("{key}", key).replace("{id}", conflict);
    let query = match path.rsplit('/').next().unwrap() {
        "diff" => "?from=1&to=2",
        "pull" => "?wait=0",
        _ => "",
    };
    let request = served.http.request(operation.method.clone(), format!("{}{path}{query}", served.url));
    let request = request.bearer_auth(token).timeout(Duration::from_secs(20));
    let body = match operation.path.as_str() {
        "/v1/batch" => json!({ "op": "patch", "collection": "issues", "key": key, "patch": { "batch": true } }),
        "/v1/revert" => json!({ "event": "ab".repeat(32) }),
        "/v1/undo" | "/v1/conflicts/{id}/reopen" | "/v1/sync/push" | "/v1/sync/pull" => return request,
        "/v1/conflicts/{id}/resolve" => json!({ "value": "settled" }),
        "/v1/conflicts/{id}/annotate" => json!({ "note": "seen" }),
        "/v1/policies/{collection}" | "/v1/policies/{collection}/try" => json!("last_write_wins"),
        "/v1/schemas/{collection}" => json!({ "type": "object" }),
        "/api/sync/upload" => json!([]),
        "/api/sync/resolve-conflict" => json!({ "conflict_id": conflict, "resolution": "server" }),
        _ => json!({ "title": "changed" }),
    };
    match operation.method {
        Method::GET | Method::DELETE => request,
        _ if operation.path.ends_with("undelete") => request,
        _ => request.header("content-type", "application/json").body(body.to_string()),
    }
}

/// The head of an answer: of streams the body never ends.
async fn status_of(request: RequestBuilder) -> (u16, Response) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer)
}

/// Tokens that are good for nothing, with what is wrong with them.
fn bad_tokens(good: &str, keys: &Path) -> Vec<(&'static str, String)> {
    let read = |name: &str| std::fs::read(keys.join(name)).unwrap();
    let text = |name: &str| String::from_utf8(read(name)).unwrap();
    let (issuer, kid) = (text("issuer"), text("signs"));
    let key = EncodingKey::from_ed_der(&read(&format!("key-{kid}")));
    let payload = good.split('.').nth(1).unwrap();
    let now = jsonwebtoken::get_current_timestamp();
    let parsed = jsonwebtoken::dangerous::insecure_decode::<Json>(good).unwrap().claims;
    assert_eq!(parsed["iss"], issuer);
    let claims = |name: &str, value: Json| {
        let mut claims = parsed.clone();
        claims[name] = value;
        claims
    };
    let signed = |claims: &Json, kid: &str| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.to_owned());
        encode(&header, claims, &key).unwrap()
    };
    let public = read(&format!("key-{kid}"));
    let mut shared = Header::new(Algorithm::HS256);
    shared.kid = Some(kid.clone());
    // The last 32 bytes of the file are the public key.
    let as_secret = EncodingKey::from_secret(&public[public.len() - 32..]);
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    vec![
        ("garbage", "garbage".to_owned()),
        ("three garbled parts", "a.b.c".to_owned()),
        ("no signature", unsigned),
        ("the signature cut", good[..good.len() - 4].to_owned()),
        ("the public key as a secret", encode(&shared, &parsed, &as_secret).unwrap()),
        ("expired", signed(&claims("exp", json!(now - 60)), &kid)),
        ("another audience", signed(&claims("aud", json!("another")), &kid)),
        ("another issuer", signed(&claims("iss", json!("another")), &kid)),
        ("an unknown key", signed(&parsed, "0123456789abcdef")),
        ("an unknown device", signed(&claims("sub", json!("nobody")), &kid)),
        ("an unknown ledger", signed(&claims("ledger", json!("ab".repeat(16))), &kid)),
        ("very long", "x".repeat(8_000)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_refuses_every_bad_token_and_says_which_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    let served = Served::start_on(store, ledger).await;
    let good = access(&served.enrol("tablet", "admin").await).to_owned();
    let revoked = access(&served.enrol("lost", "admin").await).to_owned();
    served.server.revoke(&served.ledger, "lost").unwrap();
    let mut tokens = bad_tokens(&good, &dir.path().join("server"));
    tokens.push(("of a revoked device", revoked));
    let all = operations(&served).await;
    let closed: Vec<&Operation> = all.iter().filter(|operation| operation.needs_token).collect();
    assert!(closed.len() > 30);
    for operation in closed {
        for (what, token) in &tokens {
            let (status, answer) = status_of(asked(&served, operation, token, ("k", "ab"))).await;
            assert_eq!(status, 401, "{}: {what}", operation.name());
            assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{}: {what}", operation.name());
            assert_eq!(problem(answer).await.1, "authentication", "{}: {what}", operation.name());
        }
    }
    let (status, _) = status_of(served.http.get(format!("{}/v1/digest", served.url)).bearer_auth(&good)).await;
    assert_eq!(status, 200, "the good token is good");
}

/// The least role that an operation takes, where that is not the reader.
fn least_role(operation: &Operation) -> &'static str {
    match operation.name().as_str() {
        "GET /v1/status" | "POST /v1/conflicts/{id}/annotate" => "operator",
        // Of a conflict without a candidate of one's own.
        "POST /v1/conflicts/{id}/resolve" | "POST /v1/conflicts/{id}/reopen" | "POST /api/sync/resolve-conflict" => {
            "operator"
        }
        "PUT /v1/policies/{collection}" | "PUT /v1/schemas/{collection}" => "admin",
        name if name.starts_with("GET") || name.contains("/sync") || name.ends_with("/try") => "reader",
        // A reader has nothing to undo, and nobody knows the event.
        "POST /v1/undo" | "POST /v1/revert" => "reader",
        _ => "writer",
    }
}

/// Two values of one field that nobody has settled. Returns the conflict.
fn disputed(ledger: &Ledger, key: &str) -> String {
    ledger.put("issues", key, json!({ "title": "first" }), &app()).unwrap();
    let base = Some(ledger.get("issues", key).unwrap().unwrap().heads);
    for (source, title) in [("jira", "one"), ("github", "other")] {
        let write = Write::new("issues", key, Act::Patch(json!({ "title": title })));
        ledger.write(Write { base: base.clone(), ..write }, &Context::from_source(source)).unwrap();
    }
    let found = ledger.conflicts(Some("issues"), Which::Open, None).unwrap();
    found.iter().find(|found| found.key == key).unwrap().conflict.id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_takes_the_roles_that_it_should_and_answers_as_documented() {
    let served = Served::start().await;
    let mut counted: BTreeMap<bool, u32> = BTreeMap::new();
    for (rank, role) in ROLES.into_iter().enumerate() {
        let token = access(&served.enrol(role, role).await).to_owned();
        let mut all = operations(&served).await;
        all.retain(|operation| operation.needs_token);
        // What an admin has set is not undone as an edit is.
        all.sort_by_key(|operation| least_role(operation) == "admin");
        for (nth, operation) in all.into_iter().enumerate() {
            let key = format!("{role}-{nth}");
            let conflict = disputed(&served.ledger, &key);
            let (status, _) = status_of(asked(&served, &operation, &token, (&key, &conflict))).await;
            let least = ROLES.iter().position(|role| *role == least_role(&operation)).unwrap();
            assert_eq!(status == 403, rank < least, "{role}: {}: {status}", operation.name());
            let is_documented = operation.documented.contains(&status);
            assert!(status < 500 && is_documented, "{role}: {}: {status}", operation.name());
            *counted.entry(status < 300).or_default() += 1;
        }
    }
    assert!(counted[&true] > counted[&false], "most of these requests are good: {counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_another_tenants_is_as_if_it_were_nowhere() {
    let served = Served::start().await;
    let theirs = served.ledger.store().create_ledger("theirs").unwrap();
    let conflict = disputed(&theirs, "secret");
    let token = access(&served.enrol("tablet", "admin").await).to_owned();
    for operation in operations(&served).await.into_iter().filter(|operation| operation.path.contains('{')) {
        let names_ids = operation.path.contains("{key}") || operation.path.contains("{id}");
        if !names_ids || operation.method == Method::PUT {
            continue;
        }
        let ask = async |place| {
            let (status, answer) = status_of(asked(&served, &operation, &token, place)).await;
            (status, answer.text().await.unwrap())
        };
        let nowhere = "cd".repeat(conflict.len() / 2);
        let (there, not) = (ask(("secret", &conflict)).await, ask(("nowhere", &nowhere)).await);
        assert_eq!(there.0, 404, "{}", operation.name());
        let hidden = there.1.replace("secret", "nowhere").replace(&conflict, &nowhere);
        assert_eq!((there.0, hidden), not, "{}", operation.name());
    }
    let position = theirs.position();
    let (status, _) = status_of(
        served
            .http
            .put(format!("{}/v1/records/issues/secret", served.url))
            .bearer_auth(&token)
            .json(&json!({ "a": 1 })),
    )
    .await;
    assert_eq!((status, theirs.position()), (201, position), "it is a record of one's own ledger");
}

/// An event as somebody may have made it, with any writer.
fn forged(collection: &str, writer: WriterId, sequence: u64) -> Event {
    let ops = vec![Op::Put { path: Pointer::parse("/role").unwrap(), value: Value::Text("admin".into()) }];
    let plain = syncledger::testing::event(ops);
    Event { collection: collection.into(), key: format!("k{sequence}"), writer, sequence, ..plain }
}

fn take_in(ledger: &Ledger, event: &Event) {
    ledger.apply(ledger.info().id, &[event.encode().unwrap()]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_forges_is_refused_one_by_one_and_its_own_edits_are_taken() {
    let served = Served::start().await;
    served.ledger.put("notes", "first", json!({}), &app()).unwrap();
    let token = access(&served.enrol("tablet", "writer").await).to_owned();
    let other_token = access(&served.enrol("phone", "writer").await).to_owned();
    let (tablet, phone) = (in_memory(), in_memory());
    for (device, token) in [(&tablet, &token), (&phone, &other_token)] {
        served.sync(device, token).await.1.unwrap();
    }
    // Other writers' events, system records, and a policy, from a store that its owner has changed.
    for (nth, collection) in ["$devices", "$runs", "$collections", "$conflicts"].into_iter().enumerate() {
        take_in(&tablet, &forged(collection, tablet.info().writer, 1_000 + nth as u64));
    }
    take_in(&tablet, &forged("notes", served.ledger.info().writer, 5_000));
    take_in(&tablet, &forged("notes", phone.info().writer, 5_001));
    tablet.set_policy("notes", &Policy::default(), &app()).unwrap();
    tablet.put("notes", "own", json!({ "n": 1 }), &app()).unwrap();
    let before = served.ledger.get("$devices", "tablet").unwrap();
    let (peer, outcome) = over_socket(&served.url, &token, &tablet, SessionOptions::default()).await;
    outcome.unwrap();
    let codes: Vec<String> = peer.unwrap().take_refusals().into_iter().map(|refusal| refusal.code).collect();
    let expected =
        ["permission", "permission", "permission", "permission", "consistency", "consistency", "permission"];
    assert_eq!(codes, expected, "a writer that is somebody else's is told apart: a copied store has one");
    assert!(served.ledger.get("notes", "own").unwrap().is_some());
    for key in ["k5000", "k5001"] {
        assert!(served.ledger.get("notes", key).unwrap().is_none());
    }
    assert_eq!(served.ledger.get("$devices", "tablet").unwrap(), before);
    let role = &served.ledger.get("$devices", "tablet").unwrap().unwrap().value["role"];
    assert_eq!(role, "writer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_were_changed_on_their_way_end_the_session_and_change_nothing() {
    let served = Served::start().await;
    served.ledger.put("notes", "first", json!({ "n": 1 }), &app()).unwrap();
    let token = access(&served.enrol("tablet", "writer").await).to_owned();
    let tablet = in_memory();
    served.sync(&tablet, &token).await.1.unwrap();
    tablet.put("notes", "own", json!({ "text": "as it was written" }), &app()).unwrap();
    let position = served.ledger.position();
    for flipped in 0..24 {
        let mut peer = tablet.session(&SessionOptions::default()).unwrap();
        let mut socket = open_socket(&served.url, &token).await.unwrap();
        let mut said = peer.begin();
        for _ in 0..6 {
            for message in said.drain(..) {
                let is_batch = matches!(message, syncledger::replication::Message::Batch { .. });
                let mut bytes = peer.encode(message).unwrap();
                let last = bytes.len() - 1;
                // Beyond the batch's number and cursor, in the segment.
                if is_batch && last > 60 {
                    bytes[60 + flipped * (last - 60) / 24] ^= 1 << (flipped % 8);
                }
                drop(socket.send(Frame::Binary(bytes.into())).await);
            }
            let Ok(Some(Ok(Frame::Binary(bytes)))) =
                tokio::time::timeout(Duration::from_secs(2), socket.next()).await
            else {
                break;
            };
            let heard = peer.decode(&bytes).unwrap();
            said = peer.hear(heard);
        }
        assert!(served.ledger.get("notes", "own").unwrap().is_none(), "with byte {flipped} changed it was taken in");
    }
    let users = |ledger: &Ledger| {
        ledger
            .log(&Default::default())
            .unwrap()
            .into_iter()
            .filter(|entry| !entry.event.collection.starts_with('$'))
            .count()
    };
    assert!(users(&served.ledger) as u64 <= position);
    served.sync(&tablet, &token).await.1.unwrap();
    assert!(served.ledger.get("notes", "own").unwrap().is_some(), "as it is, it is taken in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_deep_and_compressed_bodies_are_refused_wherever_bodies_are_taken() {
    let served = Served::start().await;
    let token = access(&served.enrol("tablet", "admin").await).to_owned();
    let deep = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 256 << 20), 1).unwrap();
    for operation in operations(&served).await {
        let takes_json = [Method::PUT, Method::PATCH, Method::POST].contains(&operation.method)
            && !operation.path.contains("/v1/sync")
            && !["undelete", "undo", "reopen"].contains(&operation.path.rsplit('/').next().unwrap());
        if !takes_json {
            continue;
        }
        let ask = || asked(&served, &operation, &token, ("k", &"ab".repeat(16)));
        let (status, _) = status_of(ask().body(deep.clone())).await;
        assert!([400, 404, 413, 422].contains(&status), "{}: deep: {status}", operation.name());
        let (status, answer) = status_of(ask().header("content-encoding", "zstd").body(bomb.clone())).await;
        assert_eq!(status, 413, "{}: a bomb: {}", operation.name(), answer.text().await.unwrap());
    }
    let served_still = served.http.get(format!("{}/readyz", served.url)).send().await.unwrap();
    assert_eq!(served_still.status(), 200);
}

/// A server in a process of its own, which has as many descriptors as it may.
#[cfg(all(unix, feature = "cli"))]
mod crowd {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpStream;
    use std::process::{Child, Stdio};
    use std::time::Duration;

    use rustix::process::{Resource, getrlimit, setrlimit};
    use serde_json::Value as Json;

    use crate::cli::Bench;

    /// How many connections are opened, where the system has so many descriptors.
    const CROWD: u64 = 10_000;
    /// What the server may hold in memory with all of them, in KiB.
    const MOST_KIB: u64 = 400 << 10;

    /// Raises the limit of descriptors. Returns how many connections fit.
    fn room() -> u64 {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        most.saturating_sub(500).min(CROWD)
    }

    fn resident_kib(server: &Child) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn ten_thousand_connections_that_say_little_neither_fill_memory_nor_keep_others_out() {
        if !std::path::Path::new("/proc/self/status").exists() {
            return;
        }
        let (room, bench) = (room(), Bench::new());
        let mut child =
            bench.command(["serve", "--listen", "127.0.0.1:0", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let said: Json = serde_json::from_str(&line).unwrap();
        let address = said["listening"].as_str().unwrap().trim_start_matches("http://").to_owned();
        let before = resident_kib(&child);
        let ready = || {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
            answer
        };
        let crowd: Vec<TcpStream> = (0..room)
            .map(|nth| {
                // Who comes faster than is accepted waits a second for each that the system drops.
                if nth % 64 == 0 {
                    ready();
                }
                let mut stream = TcpStream::connect(&address).unwrap();
                // Half of them begin a request that they do not end.
                if nth % 2 == 0 {
                    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: here\r\nx-slow: ").unwrap();
                }
                stream
            })
            .collect();
        assert!(ready().starts_with("HTTP/1.1 200"), "{}", ready());
        let held = resident_kib(&child);
        println!("{room} connections: {before} KiB before, {held} KiB then");
        assert!(held < MOST_KIB, "{held} KiB with {room} connections");
        drop(crowd);
        assert!(ready().starts_with("HTTP/1.1 200"));
        assert!(child.try_wait().unwrap().is_none(), "the server has ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
