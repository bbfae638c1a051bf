//! The native API of the server: records, their past, batches, events, conflicts, and who may do what.

use std::future::Future;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Ledger, Options};
use syncledger::server::{Invite, Server};
use syncledger::{Store, ledger::Context};

/// A server of a store in memory, with a ledger.
struct Office {
    server: Server,
    ledger: Ledger,
    url: String,
}

/// A device that has enrolled.
#[derive(Clone)]
struct Device {
    url: String,
    token: String,
    client: Client,
}

fn with_server<T>(work: impl AsyncFnOnce(Office) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let store = Store::in_memory(Options::default()).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        let server = Server::new(store).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, None, std::future::pending()).await });
        work(Office { server, ledger, url }).await
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

impl Office {
    async fn device(&self, id: &str, role: &str) -> Device {
        self.device_of(&self.ledger, id, role, None, None).await
    }

    async fn device_of(
        &self,
        ledger: &Ledger,
        id: &str,
        role: &str,
        reads: Option<&[&str]>,
        writes: Option<&[&str]>,
    ) -> Device {
        let named = |names: Option<&[&str]>| names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let invite = Invite {
            name: id.to_owned(),
            role: role.to_owned(),
            source: "app".to_owned(),
            device: None,
            reads: named(reads),
            writes: named(writes),
            valid_ms: 60_000,
        };
        let (server, ledger) = (self.server.clone(), ledger.clone());
        let code = tokio::task::spawn_blocking(move || server.invite(&ledger, invite).unwrap().code).await.unwrap();
        let client = Client::new();
        let asked = json!({ "code": code, "device_id": id, "name": id });
        let given = client.post(format!("{}/v1/devices/enrol", self.url)).json(&asked).send().await.unwrap();
        let given: Json = given.json().await.unwrap();
        let token = given["access_token"].as_str().unwrap().to_owned();
        Device { url: self.url.clone(), token, client }
    }
}

impl Device {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.ask(Method::GET, path)
    }

    fn put(&self, path: &str, body: Json) -> RequestBuilder {
        self.ask(Method::PUT, path).json(&body)
    }

    fn patch(&self, path: &str, body: Json) -> RequestBuilder {
        self.ask(Method::PATCH, path).json(&body)
    }

    fn post(&self, path: &str, body: Json) -> RequestBuilder {
        self.ask(Method::POST, path).json(&body)
    }

    async fn value(&self, path: &str) -> Json {
        body(ok(self.get(path)).await).await
    }
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

async fn ok(request: RequestBuilder) -> Response {
    let response = sent(request).await;
    let status = response.status();
    assert!(status.is_success(), "{status}: {}", response.text().await.unwrap());
    response
}

async fn body(response: Response) -> Json {
    response.json().await.unwrap()
}

/// The status and the code of a refusal.
async fn refusal(request: RequestBuilder) -> (u16, String) {
    let response = sent(request).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{status}");
    let problem = body(response).await;
    assert_eq!(problem["status"], status);
    (status, problem["code"].as_str().unwrap().to_owned())
}

async fn refused_with(request: RequestBuilder, status: u16, code: &str) {
    assert_eq!(refusal(request).await, (status, code.to_owned()));
}

fn etag(response: &Response) -> String {
    response.headers()["etag"].to_str().unwrap().to_owned()
}

async fn eventually<F: Future<Output = bool>>(what: impl Fn() -> F) {
    for _ in 0..200 {
        if what().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be");
}

#[test]
fn a_record_is_put_read_patched_deleted_and_brought_back() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let made = ok(ann.put("/v1/records/issues/EE-1", json!({ "title": "Crash", "tags": ["a"] }))).await;
        assert_eq!(made.status(), 201);
        let tag = etag(&made);
        assert_eq!(body(made).await["status"], "appended");
        let read = ok(ann.get("/v1/records/issues/EE-1")).await;
        assert_eq!(etag(&read), tag);
        assert_eq!(body(read).await, json!({ "title": "Crash", "tags": ["a"] }));
        let patched = ann.ask(Method::PATCH, "/v1/records/issues/EE-1").header("x-reason", "größer");
        let patched = patched.header("content-type", "application/merge-patch+json");
        let patched = ok(patched.body(r#"{"tags":null,"n":1}"#)).await;
        assert_ne!(etag(&patched), tag);
        assert_eq!(ann.value("/v1/records/issues/EE-1").await, json!({ "title": "Crash", "n": 1 }));
        let event = office.ledger.log(&Default::default()).unwrap().pop().unwrap().event;
        assert_eq!((event.source.as_str(), event.principal.as_deref()), ("app", Some("ann")));
        assert_eq!(event.reason.as_deref(), Some("größer"));

        ok(ann.ask(Method::DELETE, "/v1/records/issues/EE-1")).await;
        refused_with(ann.get("/v1/records/issues/EE-1"), 404, "not_found").await;
        refused_with(ann.patch("/v1/records/issues/EE-1", json!({ "n": 2 })), 404, "not_found").await;
        ok(ann.ask(Method::POST, "/v1/records/issues/EE-1/undelete")).await;
        assert_eq!(ann.value("/v1/records/issues/EE-1").await["n"], 1);
        let before = format!("/v1/records/issues/EE-1?as_of={}", tag.trim_matches('"'));
        assert_eq!(ann.value(&before).await["tags"], json!(["a"]));
        assert_eq!(ann.value("/v1/records/issues/EE-1?as_of=3000-01-01T00:00:00Z").await["n"], 1);
        refused_with(ann.get("/v1/records/issues/EE-1?as_of=yesterday"), 400, "client").await;
    });
}

#[test]
fn a_change_is_made_only_in_the_state_that_its_headers_name() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let at = "/v1/records/issues/EE-1";
        refused_with(ann.put(at, json!({ "n": 0 })).header("if-match", "*"), 412, "conflict").await;
        let first = etag(&ok(ann.put(at, json!({ "n": 1 })).header("if-none-match", "*")).await);
        refused_with(ann.put(at, json!({ "n": 2 })).header("if-none-match", "*"), 412, "conflict").await;
        let second = etag(&ok(ann.put(at, json!({ "n": 2 })).header("if-match", &first)).await);
        refused_with(ann.patch(at, json!({ "n": 3 })).header("if-match", &first), 412, "conflict").await;
        refused_with(ann.ask(Method::DELETE, at).header("if-match", &first), 412, "conflict").await;
        let either = format!("{first}, {second}");
        let third = etag(&ok(ann.patch(at, json!({ "n": 3 })).header("if-match", either)).await);
        let same = sent(ann.get(at).header("if-none-match", &third)).await;
        assert_eq!((same.status().as_u16(), etag(&same)), (304, third.clone()));
        assert_eq!(sent(ann.get(at).header("if-none-match", &second)).await.status(), 200);
        ok(ann.ask(Method::DELETE, at).header("if-match", "*")).await;
        ok(ann.put(at, json!({ "n": 4 })).header("if-none-match", "*")).await;
        assert_eq!(ann.value(at).await, json!({ "n": 4 }));
    });
}

#[test]
fn an_edit_on_an_older_state_is_concurrent_with_what_came_since() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "writer").await, office.device("ravi", "writer").await);
        let at = "/v1/records/issues/EE-1";
        let base = etag(&ok(ann.put(at, json!({ "a": 1, "b": 1 }))).await);
        ok(ann.patch(at, json!({ "a": 2 }))).await;
        let based = format!("{at}?base={}", base.trim_matches('"'));
        let own = etag(&ok(ravi.patch(&based, json!({ "a": 3, "b": 3 }))).await);
        let read = ok(ann.get(at)).await;
        let tag = etag(&read);
        assert_eq!(tag.matches('.').count(), 1, "two heads: {tag}");
        assert_eq!(body(read).await["b"], 3);
        let found = ann.value("/v1/conflicts").await;
        assert_eq!(found["conflicts"][0]["path"], "/a");
        // Who goes on from its own edit goes on apart.
        refused_with(ravi.patch(at, json!({ "b": 4 })).header("if-match", &own), 412, "conflict").await;
        ok(ravi.patch(at, json!({ "b": 4 })).header("if-match", &tag)).await;
        refused_with(ravi.patch(&format!("{at}?base=abc"), json!({ "b": 5 })), 400, "client").await;
        let unknown = format!("{at}?base={}", "ab".repeat(32));
        assert!([404, 422].contains(&refusal(ravi.patch(&unknown, json!({ "b": 5 }))).await.0));
    });
}

#[test]
fn a_request_of_the_same_key_is_answered_as_before() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let at = "/v1/records/issues/EE-1";
        let once = || ann.put(at, json!({ "n": 1 })).header("idempotency-key", "k1").header("if-none-match", "*");
        let (first, again) = (ok(once()).await, ok(once()).await);
        assert!(first.headers().get("idempotency-replayed").is_none());
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(etag(&first), etag(&again));
        assert_eq!(body(first).await["events"], body(again).await["events"]);
        refused_with(ann.put(at, json!({ "n": 2 })).header("idempotency-key", "k1"), 422, "idempotency_mismatch")
            .await;
        let undo = || ann.post("/v1/undo", json!({})).header("idempotency-key", "k2");
        ok(ann.patch(at, json!({ "n": 2 }))).await;
        let events = body(ok(undo()).await).await["events"].clone();
        assert_eq!(body(ok(undo()).await).await["events"], events);
        assert_eq!(ann.value(at).await["n"], 1);
    });
}

#[test]
fn a_list_goes_page_by_page_and_finds_by_field() {
    with_server(async |office| {
        let ann = office.device("ann", "reader").await;
        let context = Context::from_source("app");
        for n in 0..7 {
            office.ledger.put("a b", &format!("k/{n}"), json!({ "n": n, "odd": n % 2 == 1 }), &context).unwrap();
        }
        office.ledger.delete("a b", "k/0", &context).unwrap();
        let (mut path, mut keys) = ("/v1/records/a%20b?limit=4&deleted=true".to_owned(), Vec::new());
        loop {
            let page = ok(ann.get(&path)).await;
            let link = page.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
            let page = body(page).await;
            assert_eq!(page["next"].is_null(), link.is_none());
            keys.extend(page["records"].as_array().unwrap().iter().map(|record| record["key"].clone()));
            let Some(link) = link else { break };
            let (target, rel) = link.split_once('>').unwrap();
            assert_eq!(rel, "; rel=\"next\"");
            path = target.trim_start_matches('<').to_owned();
        }
        assert_eq!(keys, (0..7).map(|n| json!(format!("k/{n}"))).collect::<Vec<_>>());
        let odd = ann.get("/v1/records/a%20b").query(&[("where", "/odd=true"), ("where", "/n=3"), ("prefix", "k/")]);
        let odd = body(ok(odd).await).await;
        assert_eq!(odd["records"][0]["value"]["n"], 3);
        assert_eq!(odd["records"].as_array().unwrap().len(), 1);
        assert_eq!(ann.value("/v1/records/a%20b?changed_since=7&deleted=true").await["records"][0]["deleted"], true);
        assert_eq!(ann.value("/v1/records/a%20b/k%2F3").await["n"], 3);
        for query in ["limit=0", "limit=1001", "where=odd", "sort=n", "deleted=perhaps", "limit=1&limit=2"] {
            let (status, _) = refusal(ann.get(&format!("/v1/records/a%20b?{query}"))).await;
            assert!([400, 422].contains(&status), "{query}: {status}");
        }
    });
}

#[test]
fn the_past_of_a_record_is_told() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let at = "/v1/records/issues/EE-1";
        ok(ann.put(at, json!({ "n": 1 }))).await;
        ok(ann.patch(&format!("{at}?reason=again&occurred_at=2020-01-01T00:00:00Z"), json!({ "n": 2 }))).await;
        let history = ann.value(&format!("{at}/history?full=true")).await;
        let revision = &history["revisions"][1];
        assert_eq!(revision["changes"], json!([{ "path": "/n", "before": 1, "after": 2 }]));
        assert_eq!((&revision["reason"], &revision["principal"]), (&json!("again"), &json!("ann")));
        assert_eq!(revision["occurred_at"], "2020-01-01T00:00:00.000Z");
        assert_eq!(revision["before"], json!({ "n": 1 }));
        let (from, to) = (&history["revisions"][0]["position"], &revision["position"]);
        let changes = ann.value(&format!("{at}/diff?from={from}&to={to}")).await;
        assert_eq!(changes["changes"][0]["after"], 2);
        assert_eq!(ann.value(&format!("{at}/blame")).await["lines"][0]["principal"], "ann");
        refused_with(ann.get(&format!("{at}/diff?from=1")), 400, "client").await;
        refused_with(ann.get("/v1/records/issues/none/history"), 404, "not_found").await;
    });
}

#[test]
fn a_batch_is_made_whole_or_not_at_all_and_taken_back() {
    with_server(async |office| {
        let ann = office.device_of(&office.ledger, "ann", "writer", None, Some(&["a", "b"])).await;
        let send = |lines: &'static str| ann.ask(Method::POST, "/v1/batch").body(lines);
        let made = ok(send(concat!(
            "{\"op\":\"put\",\"collection\":\"a\",\"key\":\"1\",\"value\":{\"n\":1}}\n",
            "{\"op\":\"increment\",\"collection\":\"b\",\"key\":\"1\",\"path\":\"/votes\",\"by\":2}\n",
        )))
        .await;
        let made = body(made).await;
        assert_eq!(made["events"].as_array().unwrap().len(), 2);
        assert_eq!(ann.value("/v1/records/b/1").await["votes"], 2);
        refused_with(
            send(concat!(
                "{\"op\":\"put\",\"collection\":\"a\",\"key\":\"2\",\"value\":{\"n\":1}}\n",
                "{\"op\":\"put\",\"collection\":\"c\",\"key\":\"2\",\"value\":{\"n\":1}}\n",
            )),
            403,
            "permission",
        )
        .await;
        refused_with(ann.get("/v1/records/a/2"), 404, "not_found").await;
        refused_with(send("{\"op\":\"put\"}"), 422, "validation").await;
        refused_with(send("\n"), 422, "validation").await;
        let undone = body(ok(ann.post("/v1/revert", json!({ "run": made["run"] }))).await).await;
        assert_eq!((undone["status"].as_str(), &undone["skipped"]), (Some("appended"), &json!([])));
        refused_with(ann.get("/v1/records/a/1"), 404, "not_found").await;
        refused_with(ann.post("/v1/revert", json!({ "event": "ab".repeat(32) })), 404, "not_found").await;
        refused_with(ann.post("/v1/revert", json!({ "event": "ab", "run": "cd" })), 422, "validation").await;
    });
}

#[test]
fn a_device_takes_back_its_own_last_change_and_nothing_that_it_may_not_write() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let ravi = office.device_of(&office.ledger, "ravi", "writer", None, Some(&["a"])).await;
        ok(ann.put("/v1/records/a/1", json!({ "n": 1 }))).await;
        ok(ravi.patch("/v1/records/a/1", json!({ "m": 1 }))).await;
        let other = body(ok(ann.put("/v1/records/b/1", json!({ "n": 1 }))).await).await;
        ok(ravi.post("/v1/undo", json!({}))).await;
        assert_eq!(ann.value("/v1/records/a/1").await, json!({ "n": 1 }));
        refused_with(ravi.post("/v1/undo", json!({})), 404, "not_found").await;
        let target = json!({ "event": other["events"][0]["event"] });
        refused_with(ravi.post("/v1/revert", target), 403, "permission").await;
        assert_eq!(ann.value("/v1/records/b/1").await, json!({ "n": 1 }));
    });
}
