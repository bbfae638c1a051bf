//! The classic device API, over HTTP.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Options, Query};
use syncledger::server::{Invite, Server};
use syncledger::{Ledger, Store};
use tokio::sync::oneshot;

use crate::served::{invite, serve};

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
        let (address, stop) = serve(&server);
        Self { ledger, server, url: format!("http://{address}"), _stop: stop }
    }

    async fn writer(&self, id: &str) -> Device {
        self.device(id, "writer", None, None).await
    }

    async fn device(&self, id: &str, role: &str, reads: Option<&[&str]>, writes: Option<&[&str]>) -> Device {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let invite =
            Invite { name: id.to_owned(), reads: reads.map(named), writes: writes.map(named), ..invite(role) };
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
        let since = since.replace('+', "%2B");
        let request = self.http.get(format!("{}/api/sync/download?since={since}", self.url));
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

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_a_duplicate_until_another_follows_it_on_the_object() {
    let bench = Bench::new();
    let (ann, ravi, _) = two_devices(&bench).await;
    let edit = |title: &str, at| json!([item("update", "issues", json!(7), json!({ "title": title }), at)]);
    assert_eq!(ann.upload(edit("A", 1)).await[0]["status"], "applied");
    assert_eq!(ann.upload(edit("A", 1)).await[0]["status"], "duplicate");
    assert_eq!(events(&bench, "issues", "7"), 2);
    assert_eq!(ann.upload(edit("B", 2)).await[0]["status"], "applied");
    assert_eq!(ann.upload(edit("A", 1)).await[0]["status"], "applied", "B followed it");
    assert_eq!(ann.upload(edit("A", 1)).await[0]["status"], "duplicate");
    assert_eq!(ann.upload(edit("A", 3)).await[0]["status"], "applied", "another time is another upload");
    assert_eq!(value(&bench, "issues", "7")["title"], "A");
    assert_ne!(ravi.upload(edit("A", 3)).await[0]["status"], "duplicate", "it is another device's");

    // A request whose answer got lost is repeated as a whole.
    let all = json!([
        item("create", "issues", json!(8), json!({ "title": "X" }), 1),
        item("update", "issues", json!(8), json!({ "title": "Y" }), 2),
        item("delete", "issues", json!(8), json!(null), 3),
    ]);
    ann.upload(all.clone()).await;
    let again = ann.upload(all).await;
    assert!(again.as_array().unwrap().iter().all(|answer| answer["status"] == "duplicate"), "{again}");
    assert_eq!(events(&bench, "issues", "8"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn provisional_ids_keep_their_meaning_after_lost_answers_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bench = Bench::of(store.clone());
    let device = bench.writer("phone").await;
    let create = item("create", "issues", json!("tmp:1"), json!({ "title": "New", "see": ["tmp:1", "tmp:9"] }), 1);
    let [first, again] = [device.upload(json!([create])).await, device.upload(json!([create])).await];
    let id = first[0]["object_id"].clone();
    assert_eq!((&first[0]["provisional_id"], &first[0]["references"]), (&json!("tmp:1"), &json!({ "tmp:1": id })));
    assert_eq!((&again[0]["status"], &again[0]["object_id"]), (&json!("duplicate"), &id));
    let key = id.as_str().unwrap().to_owned();
    assert_eq!(value(&bench, "issues", &key), json!({ "title": "New", "see": [id, "tmp:9"] }));
    let token = device.token.clone();
    drop((bench, device));
    tokio::time::sleep(Duration::from_millis(50)).await;

    // The same store under a server that knows nothing but what is kept.
    let bench = Bench::of(store);
    let device = Device { id: "phone".to_owned(), url: bench.url.clone(), token, http: Client::new() };
    let later = device.one("update", "issues", json!("tmp:1"), json!({ "title": "Later" }), 2).await;
    assert_eq!((&later["status"], &later["object_id"]), (&json!("applied"), &id));
    let child =
        device.one("create", "notes", json!("n"), json!({ "issue": "tmp:1", "text": "tmp:1 is it" }), 3).await;
    assert_eq!(child["status"], "applied");
    assert_eq!(value(&bench, "notes", "n"), json!({ "issue": id, "text": "tmp:1 is it" }));
    let unknown = device.one("update", "issues", json!("tmp:2"), json!({ "title": "?" }), 4).await;
    assert_eq!((&unknown["status"], &unknown["object_id"]), (&json!("rejected"), &json!("tmp:2")));
    let other = bench.writer("tablet").await.one("create", "issues", json!("tmp:1"), json!({}), 1).await;
    assert_ne!(other["object_id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_device_outlives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bench = Bench::of(store.clone());
    let (ann, ravi, _) = two_devices(&bench).await;
    ann.one("update", "issues", json!(7), json!({ "title": "Ann's" }), 2_000).await;
    ravi.catch_up("").await;
    let bench = Bench::of(store);
    let ravi = Device { url: bench.url.clone(), ..ravi };
    let edit = ravi.one("update", "issues", json!(7), json!({ "title": "Ravi's" }), 3_000).await;
    assert_eq!(edit["status"], "applied", "it was seen before the restart: {edit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_come_as_rows_and_an_edit_apart_from_one_brings_the_record_back() {
    let bench = Bench::new();
    let (ann, ravi, [of_ann, of_ravi]) = two_devices(&bench).await;
    assert_eq!(ann.one("delete", "issues", json!(7), json!(null), 2_000).await["status"], "applied");
    let page = ann.download(&of_ann).await;
    let [row] = page["rows"].as_array().unwrap().as_slice() else { panic!("{page}") };
    assert_eq!((&row["operation"], &row["deleted"], &row["data"]), (&json!("delete"), &json!(true), &json!(null)));
    let back = ravi.one("update", "issues", json!(7), json!({ "title": "Still" }), 3_000).await;
    assert_eq!(back["status"], "applied", "the policy decides it: {back}");
    let (rows, _) = ravi.catch_up(&of_ravi).await;
    assert_eq!((&rows[0]["data"]["title"], &rows[0]["deleted"]), (&json!("Still"), &json!(false)));
    ravi.one("delete", "issues", json!(7), json!(null), 4_000).await;
    assert_eq!(ravi.one("update", "issues", json!(7), json!({ "title": "?" }), 5_000).await["status"], "rejected");
    assert_eq!(ravi.one("create", "issues", json!(7), json!({ "new": true }), 6_000).await["status"], "applied");
    assert_eq!(value(&bench, "issues", "7"), json!({ "new": true }));
    let never = ravi.one("delete", "issues", json!("never"), json!(null), 7_000).await;
    assert_eq!(never["error"]["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_settled_with_the_value_shown_the_devices_own_or_another() {
    let bench = Bench::new();
    let third = bench.writer("third").await;
    for (key, resolution, data, then) in [
        (1, "server", None, json!("Ravi's")),
        (2, "client", None, json!("Ann's")),
        (3, "merge", Some(json!("Both")), json!("Both")),
        (4, "merge", Some(json!({ "title": "Both", "size": 1 })), json!("Both")),
    ] {
        let (ann, ravi) = (bench.writer(&format!("ann{key}")).await, bench.writer(&format!("ravi{key}")).await);
        ann.one("create", "issues", json!(key), json!({ "title": "One", "size": 1 }), 1_000).await;
        ann.catch_up("").await;
        ravi.catch_up("").await;
        ann.one("update", "issues", json!(key), json!({ "title": "Ann's" }), 2_000).await;
        let answer = ravi.one("update", "issues", json!(key), json!({ "title": "Ravi's" }), 3_000).await;
        let conflict = &answer["conflict_ids"][0];
        let (status, _) = third.resolve(conflict, "server", None).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "it takes no part in it");
        let (status, refused) = ann.resolve(conflict, "merge", Some(json!({ "title": "Both", "size": 9 }))).await;
        assert_eq!(
            (status, &refused["pointers"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(["/resolved_data/size"]))
        );
        let (status, answer) = ann.resolve(conflict, resolution, data.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!((&answer["status"], &answer["object_id"]), (&json!("resolved"), &json!(key)));
        assert_eq!((&answer["data"]["title"], &value(&bench, "issues", &key.to_string())["title"]), (&then, &then));
        assert_eq!(ann.resolve(conflict, resolution, data).await.0, StatusCode::OK, "its answer got lost");
        assert_eq!(ravi.resolve(conflict, "server", None).await.0, StatusCode::CONFLICT);
    }
    assert_eq!(third.resolve(&json!("0".repeat(64)), "server", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(third.resolve(&json!("x"), "server", None).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_item_is_rejected_alone_and_another_devices_id_refuses_all() {
    let bench = Bench::new();
    let device = bench.device("phone", "writer", None, Some(&["issues"])).await;
    let good = |key: &str| item("create", "issues", json!(key), json!({ "title": "fine" }), 1).to_string();
    let bad = [
        (
            r#"{"operation":"create","model":"issues","object_id":"b","data":{"a":1,"a":2},"timestamp":1}"#,
            "validation",
        ),
        (
            r#"{"operation":"create","model":"issues","object_id":"b","data":{"a":1},"timestamp":"soon"}"#,
            "validation",
        ),
        (r#"{"operation":"create","model":"issues","object_id":1.5,"data":{"a":1},"timestamp":1}"#, "validation"),
        (r#"{"operation":"create","model":"issues","object_id":"b","data":[],"timestamp":1}"#, "validation"),
        (r#"{"operation":"mend","model":"issues","object_id":"b","data":{},"timestamp":1}"#, "validation"),
        (r#"{"operation":"create","model":"notes","object_id":"b","data":{},"timestamp":1}"#, "permission"),
        (r#"{"operation":"create","model":"$devices","object_id":"b","data":{},"timestamp":1}"#, "permission"),
        ("7", "validation"),
    ];
    let items: Vec<String> =
        bad.iter().enumerate().flat_map(|(index, (bad, _))| [(*bad).to_owned(), good(&index.to_string())]).collect();
    let (status, answer) = device.post("upload", format!("[{}]", items.join(","))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for (index, (_, code)) in bad.iter().enumerate() {
        assert_eq!(answer[2 * index]["error"]["code"], *code, "{}", answer[2 * index]);
        assert_eq!(answer[2 * index + 1]["status"], "applied");
    }
    let mut other = item("create", "issues", json!("c"), json!({}), 1);
    other["device_id"] = json!("tablet");
    let (status, _) = device.post("upload", format!("[{},{other}]", good("d"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(bench.ledger.get("issues", "d").unwrap().is_none(), "nothing of it was done");
    let (status, _) = device.post("initialize", r#"{"device_id":"tablet"}"#).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(device.post("upload", "{}").await.0, StatusCode::BAD_REQUEST);
    let many = vec![good("e"); 1_001].join(",");
    assert_eq!(device.post("upload", format!("[{many}]")).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let reader = bench.device("reader", "reader", None, None).await;
    let answer = reader.one("create", "issues", json!("r"), json!({}), 1).await;
    assert_eq!(answer["error"]["code"], "permission");
}

/// The records of one of the ledger's own collections, once there are so many.
async fn records(bench: &Bench, collection: &str, count: usize) -> Vec<Json> {
    for _ in 0..500 {
        let found = bench.ledger.list(collection, &Query::default()).unwrap();
        if found.len() >= count {
            return found.into_iter().map(|record| record.value).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are no {count} records of {collection}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_leaves_a_run_and_each_rejected_item_an_error_without_its_data() {
    let bench = Bench::new();
    let device = bench.device("phone", "writer", None, Some(&["issues", "tasks"])).await;
    let data = json!({ "title": "SECRET" });
    device
        .upload(json!([
            item("create", "issues", json!("a"), data.clone(), 1),
            item("create", "issues", json!("b"), data.clone(), 2),
            item("create", "tasks", json!(7), data.clone(), 3),
            item("create", "notes", json!("c"), data.clone(), 4),
            item("create", "x".repeat(9_000).as_str(), json!({ "deep": "y".repeat(9_000) }), data, 5),
        ]))
        .await;
    let run = &records(&bench, "$runs", 1).await[0];
    assert_eq!((&run["kind"], &run["device"], &run["direction"]), (&json!("upload"), &json!("phone"), &json!("in")));
    assert_eq!((&run["status"], &run["refused"]), (&json!("partial"), &json!(2)));
    assert_eq!(
        run["collections"],
        json!({ "issues": { "received": 2, "sent": 0 }, "tasks": { "received": 1, "sent": 0 } })
    );
    assert!(run["bytes"]["received"].as_u64().unwrap() > 18_000);
    let mut errors = records(&bench, "$errors", 2).await;
    errors.sort_by_key(|error| error["index"].as_u64());
    assert_eq!(
        (&errors[0]["index"], &errors[0]["model"], &errors[0]["object_id"]),
        (&json!(3), &json!("notes"), &json!("c"))
    );
    assert_eq!((&errors[0]["code"], &errors[0]["device"]), (&json!("permission"), &json!("phone")));
    let text = json!(errors).to_string();
    assert!(!text.contains("SECRET") && text.len() < 4_000, "{text}");

    assert_eq!(device.post("upload", "{}").await.0, StatusCode::BAD_REQUEST);
    let runs = records(&bench, "$runs", 2).await;
    assert!(runs.iter().any(|run| run["status"] == "failed" && run["error"]["code"] == "client"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_rejected_items_the_first_hundred_are_told() {
    let bench = Bench::new();
    let device = bench.device("phone", "writer", None, Some(&["issues"])).await;
    device.upload((0..150).map(|n| item("create", "notes", json!(n), json!({}), n)).collect()).await;
    assert_eq!(records(&bench, "$runs", 1).await[0]["refused"], 150);
    let errors = records(&bench, "$errors", 100).await;
    assert!(errors.len() == 100 && errors.iter().all(|error| error["index"].as_u64().unwrap() < 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_come_in_pages_from_a_cursor_a_time_or_the_start() {
    let bench = Bench::new();
    let device = bench.writer("phone").await;
    for batch in 0..10 {
        let create = |n| item("create", "issues", json!(batch * 100 + n), json!({ "n": n }), i64::from(n));
        let answer = device.upload((0..100).map(create).collect()).await;
        assert!(answer.as_array().unwrap().iter().all(|answer| answer["status"] == "applied"));
    }
    let first = device.download("").await;
    assert_eq!((first["rows"].as_array().unwrap().len(), &first["more"]), (500, &json!(true)));
    device.one("update", "issues", json!(0), json!({ "n": -1 }), 5).await;
    let (rows, cursor) = device.catch_up(first["cursor"].as_str().unwrap()).await;
    assert_eq!(rows.len(), 501, "with the one that has changed since");
    assert_eq!(rows[500]["data"]["n"], -1);
    assert_eq!(rows[500]["operation"], "create", "it is new to who began from the start");
    let half = device.download(&bench.ledger.log(&Default::default()).unwrap()[0].received_at.to_string()).await;
    assert_eq!(half["rows"].as_array().unwrap().len(), 500);
    assert_eq!(device.download("2999-01-01T00:00:00Z").await["rows"], json!([]));
    assert_eq!(device.get("soon").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    device.one("update", "issues", json!(1), json!({ "n": -2 }), 6).await;
    assert_eq!(device.initialize(&cursor).await["pending"], 1);
    assert_eq!(device.download(&cursor).await["rows"][0]["operation"], "update");

    // A cursor of a log that this server does not have.
    let strange = cursor.replace('.', ".0").replacen(".0", ".", 1);
    let again = device.download(&strange).await;
    assert_eq!((&again["restarted"], again["rows"].as_array().unwrap().len()), (&json!(true), 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_of_collections_that_the_device_may_read() {
    let bench = Bench::new();
    let (phone, tablet) =
        (bench.writer("phone").await, bench.device("tablet", "writer", Some(&["notes"]), None).await);
    phone.one("create", "issues", json!(1), json!({ "a": 1 }), 1).await;
    phone.one("create", "notes", json!(1), json!({ "b": 1 }), 1).await;
    let models = |rows: &[Json]| rows.iter().map(|row| row["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(models(&phone.catch_up("").await.0), ["issues", "notes"], "and nothing of the system's");
    assert_eq!(models(&tablet.catch_up("").await.0), ["notes"]);
    let unreadable = Client::new().get(format!("{}/api/sync/download", bench.url)).send().await.unwrap();
    assert_eq!(unreadable.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_too_old_has_to_be_updated() {
    let store = Store::in_memory(Options::default()).unwrap();
    let server = Server::new(store.clone()).unwrap().with_min_app_version("1.2");
    let bench = Bench::serving(server, store.ledger_or_create("main").unwrap());
    let device = bench.writer("phone").await;
    assert_eq!(device.initialize("").await["min_app_version"], "1.2");
    for old in [r#"{"app_version":"1.1.9"}"#, "{}"] {
        let (status, answer) = device.post("initialize", old).await;
        assert_eq!((status, &answer["code"]), (StatusCode::UPGRADE_REQUIRED, &json!("upgrade_needed")));
    }
    assert_eq!(device.post("initialize", r#"{"app_version":"1.10"}"#).await.0, StatusCode::OK);
}

/// Chance that is the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_devices_upload_apart_and_repeat_is_in_the_log_and_all_download_the_same() {
    for seed in 0..4 {
        let (bench, mut chance) = (Bench::new(), Chance(seed));
        let mut devices = Vec::new();
        for n in 0..3 {
            devices.push((bench.writer(&format!("device{n}")).await, String::new()));
        }
        let mut written: Vec<(String, Json)> = Vec::new();
        for step in 0..60 {
            let which = chance.below(3) as usize;
            let (device, cursor) = &mut devices[which];
            if chance.below(3) == 0 {
                *cursor = device.catch_up(cursor).await.1;
                continue;
            }
            let mut items = Vec::new();
            for n in 0..=chance.below(3) {
                let operation = ["create", "update", "update", "delete"][chance.below(4) as usize];
                let value = format!("{seed}-{step}-{n}");
                let field = ["a", "b"][chance.below(2) as usize];
                items.push(item(operation, "things", json!(chance.below(4)), json!({ field: value }), step * 10));
            }
            let mut answers = device.upload(json!(items)).await;
            if chance.below(3) == 0 {
                let again = device.upload(json!(items)).await;
                for (first, second) in answers.as_array_mut().unwrap().iter_mut().zip(again.as_array().unwrap()) {
                    assert!(first["status"] == "rejected" || second["status"] == "duplicate", "{first} {second}");
                }
            }
            for (item, answer) in items.iter().zip(answers.as_array().unwrap()) {
                if item["operation"] != "delete" && answer["status"] != "rejected" {
                    written.push((item["object_id"].to_string(), item["data"].clone()));
                }
            }
        }
        for (key, data) in &written {
            let (field, value) = data.as_object().unwrap().iter().next().unwrap();
            let history = bench.ledger.history("things", key).unwrap();
            let made =
                history.iter().filter(|it| format!("{:?}", it.entry.event.ops()).contains(value.as_str().unwrap()));
            assert_eq!(made.count(), 1, "seed {seed}: {key}/{field} = {value}");
        }
        for (device, _) in &devices {
            for row in device.catch_up("").await.0 {
                let record = bench.ledger.get("things", &row["object_id"].to_string()).unwrap().unwrap();
                let shown = if record.deleted { Json::Null } else { record.value };
                assert_eq!((&row["data"], row["deleted"].as_bool()), (&shown, Some(record.deleted)));
            }
        }
    }
}

#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread")]
async fn the_client_in_plain_python_finds_all_as_documented() {
    let python = std::process::Command::new("python3").arg("--version").output();
    if python.is_err() {
        eprintln!("skipped: python3 is not here");
        return;
    }
    use std::io::{BufRead as _, BufReader};
    let bench = super::cli::Bench::new();
    bench.ok(["put", "shared", "conflict", r#"{"title":"Theirs"}"#]);
    let mut serve = bench.command(["serve", "--listen", "127.0.0.1:0", "--json"]);
    let mut server = serve.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = serde_json::from_str::<Json>(&line).unwrap()["listening"].as_str().unwrap().to_owned();
    let made =
        bench.command(["device", "create", "--name", "n", "--role", "writer", "--source", "app", "--json"]).output();
    let code = serde_json::from_slice::<Json>(&made.unwrap().stdout).unwrap()["code"].as_str().unwrap().to_owned();
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/classic_client.py");
    let run = std::process::Command::new("python3").args([client, &url, &code]).output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("settled the conflict") && said.contains("all as documented"), "{said}");
}
