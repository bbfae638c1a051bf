//! The classic device API, over HTTP.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value as Json, json};
use syncledger::ledger::Options;
use syncledger::server::{Invite, Server};
use syncledger::{Ledger, Store};
use tokio::sync::oneshot;

/// A server in this process, until dropped.
struct Bench {
    ledger: Ledger,
    server: Server,
    url: String,
    _stop: oneshot::Sender<()>,
}

impl Bench {
    fn new() -> Self {
        Self::of(Store::in_memory(Options::default()).unwrap())
    }

    fn of(store: Store) -> Self {
        let server = Server::new(store.clone()).unwrap();
        Self::serving(server, store.ledger_or_create("main").unwrap())
    }

    fn serving(server: Server, ledger: Ledger) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, None, async move { drop(stopped.await) }).await });
        Self { ledger, server, url, _stop: stop }
    }

    async fn writer(&self, id: &str) -> Device {
        self.device(id, "writer", None, None).await
    }

    async fn device(&self, id: &str, role: &str, reads: Option<&[&str]>, writes: Option<&[&str]>) -> Device {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let invite = Invite {
            name: id.to_owned(),
            role: role.to_owned(),
            source: "app".to_owned(),
            device: None,
            reads: reads.map(named),
            writes: writes.map(named),
            valid_ms: 60_000,
        };
        let code = self.server.invite(&self.ledger, invite).unwrap().code;
        let body = json!({ "code": code, "device_id": id });
        let request = Client::new().post(format!("{}/v1/devices/enrol", self.url)).json(&body);
        let tokens: Json = request.send().await.unwrap().json().await.unwrap();
        let token = tokens["access_token"].as_str().unwrap().to_owned();
        Device { id: id.to_owned(), url: self.url.clone(), token, http: Client::new() }
    }
}

/// A device, and what it says to the server.
struct Device {
    id: String,
    url: String,
    token: String,
    http: Client,
}

impl Device {
    async fn post(&self, what: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Json) {
        let request = self.http.post(format!("{}/api/sync/{what}", self.url)).bearer_auth(&self.token).body(body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn ok(&self, what: &str, body: &Json) -> Json {
        let (status, answer) = self.post(what, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    async fn upload(&self, items: Json) -> Json {
        self.ok("upload", &items).await
    }

    /// Uploads one item, and gives the answer to it.
    async fn one(&self, operation: &str, model: &str, object_id: Json, data: Json, timestamp: i64) -> Json {
        self.upload(json!([item(operation, model, object_id, data, timestamp)])).await[0].clone()
    }

    async fn get(&self, since: &str) -> (StatusCode, Json) {
        let request = self.http.get(format!("{}/api/sync/download", self.url)).query(&[("since", since)]);
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn download(&self, since: &str) -> Json {
        let (status, answer) = self.get(since).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// All rows since a cursor, and the last cursor, which is presented.
    async fn catch_up(&self, since: &str) -> (Vec<Json>, String) {
        let (mut rows, mut cursor) = (Vec::new(), since.to_owned());
        loop {
            let page = self.download(&cursor).await;
            let is_over = page["rows"].as_array().unwrap().is_empty() && page["more"] == false;
            rows.extend(page["rows"].as_array().unwrap().iter().cloned());
            cursor = page["cursor"].as_str().unwrap().to_owned();
            if is_over {
                return (rows, cursor);
            }
        }
    }

    async fn initialize(&self, last_sync: &str) -> Json {
        let body = json!({ "device_id": self.id, "app_version": "1.2.0", "last_sync": last_sync });
        self.ok("initialize", &body).await
    }

    async fn resolve(&self, conflict: &Json, resolution: &str, data: Option<Json>) -> (StatusCode, Json) {
        let mut body = json!({ "conflict_id": conflict, "resolution": resolution });
        if let Some(data) = data {
            body["resolved_data"] = data;
        }
        self.post("resolve-conflict", body.to_string()).await
    }
}

fn item(operation: &str, model: &str, object_id: Json, data: Json, timestamp: i64) -> Json {
    json!({ "operation": operation, "model": model, "object_id": object_id, "data": data, "timestamp": timestamp })
}

fn value(bench: &Bench, model: &str, key: &str) -> Json {
    bench.ledger.get(model, key).unwrap().unwrap().value
}

fn events(bench: &Bench, model: &str, key: &str) -> usize {
    bench.ledger.history(model, key).unwrap().len()
}

/// Two devices that have both seen the issue 7 and presented their cursors.
async fn two_devices(bench: &Bench) -> (Device, Device, [String; 2]) {
    let (ann, ravi) = (bench.writer("ann").await, bench.writer("ravi").await);
    let made = ann.one("create", "issues", json!(7), json!({ "title": "One", "size": 1 }), 1_000).await;
    assert_eq!(made["status"], "applied");
    let (_, of_ann) = ann.catch_up("").await;
    let (_, of_ravi) = ravi.catch_up("").await;
    (ann, ravi, [of_ann, of_ravi])
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_exactly_the_documented_shapes() {
    let bench = Bench::new();
    let device = bench.writer("phone").await;
    let answer = device
        .upload(json!([
            item("create", "issues", json!(7), json!({ "title": "One" }), 1_700_000_000_000),
            item("update", "issues", json!("none"), json!({ "title": "Two" }), 2),
        ]))
        .await;
    assert_eq!(
        answer,
        json!([
            { "index": 0, "status": "applied", "model": "issues", "object_id": 7, "conflict_ids": [], "error": null },
            {
                "index": 1,
                "status": "rejected",
                "model": "issues",
                "object_id": "none",
                "conflict_ids": [],
                "error": {
                    "code": "not_found", "message": "there is no record issues/none", "hint": "create it first"
                },
            },
        ])
    );
    let page = device.download("").await;
    assert_eq!(
        page["rows"],
        json!([{
            "operation": "create",
            "model": "issues",
            "object_id": 7,
            "data": { "title": "One" },
            "timestamp": "2023-11-14T22:13:20.000Z",
            "deleted": false,
        }])
    );
    assert_eq!((&page["more"], page.as_object().unwrap().len()), (&json!(false), 3));
    let answer = device.initialize("").await;
    assert_eq!((&answer["pending"], &answer["min_app_version"]), (&json!(1), &json!(null)));
    assert_eq!(
        answer.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["cursor", "min_app_version", "pending", "server_time"]
    );
    assert_eq!(device.initialize(page["cursor"].as_str().unwrap()).await["pending"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_from_one_cursor_conflict_and_an_edit_of_what_was_seen_does_not() {
    let bench = Bench::new();
    let (ann, ravi, [_, of_ravi]) = two_devices(&bench).await;
    assert_eq!(ann.one("update", "issues", json!(7), json!({ "title": "Ann's" }), 2_000).await["status"], "applied");
    let both = ravi.one("update", "issues", json!(7), json!({ "title": "Ravi's" }), 3_000).await;
    assert_eq!((&both["status"], both["conflict_ids"].as_array().unwrap().len()), (&json!("conflict"), 1));
    assert_eq!(ravi.one("update", "issues", json!(7), json!({ "size": 2 }), 3_001).await["status"], "applied");
    assert_eq!(value(&bench, "issues", "7"), json!({ "title": "Ravi's", "size": 2 }));
    let other = ann.one("update", "issues", json!(7), json!({ "size": 3 }), 4_000).await;
    assert_eq!(other["status"], "conflict", "Ann has not seen Ravi's size: {other}");

    // An answer that got lost was not seen: only a cursor that is presented says so.
    let page = ravi.download(&of_ravi).await;
    let unseen = ravi.one("update", "issues", json!(7), json!({ "size": 4 }), 5_000).await;
    assert_eq!(unseen["status"], "conflict");
    ravi.initialize(page["cursor"].as_str().unwrap()).await;
    let seen = ravi.one("update", "issues", json!(7), json!({ "title": "Both", "size": 5 }), 6_000).await;
    assert_eq!(seen["status"], "applied", "{seen}");
    assert_eq!(value(&bench, "issues", "7"), json!({ "title": "Both", "size": 5 }));
}
