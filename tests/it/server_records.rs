//! The native API of the server: records, their past, batches, events, conflicts, and who may do what.

use std::future::Future;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Ledger, Options};
use syncledger::server::{Invite, Server};
use syncledger::{Store, ledger::Context};

use crate::served::{invite, serve};

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
        let (address, _stop) = serve(&server);
        work(Office { server, ledger, url: format!("http://{address}") }).await
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
        let invite = Invite { name: id.to_owned(), reads: named(reads), writes: named(writes), ..invite(role) };
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
        let odd = ann.get("/v1/records/a%20b?where=%2Fodd%3Dtrue&where=/n=3&prefix=k/");
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

#[test]
fn events_are_read_page_by_page_and_waited_for() {
    with_server(async |office| {
        let ann = office.device_of(&office.ledger, "ann", "writer", Some(&["a"]), None).await;
        let context = Context::from_source("app");
        for n in 0..5 {
            office.ledger.put("a", &n.to_string(), json!({ "n": n }), &context).unwrap();
            office.ledger.put("b", &n.to_string(), json!({ "n": n }), &context).unwrap();
        }
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let page = ok(ann.get(&format!("/v1/events?after={cursor}&limit=2"))).await;
            assert_eq!(page.headers()["content-type"], "application/x-ndjson");
            cursor = page.headers()["next-cursor"].to_str().unwrap().to_owned();
            let lines = page.text().await.unwrap();
            if lines.is_empty() {
                break;
            }
            keys.extend(lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["key"].clone()));
        }
        assert_eq!(keys, ["0", "1", "2", "3", "4"]);
        assert_eq!(cursor, office.ledger.position().to_string());
        let waiting = tokio::spawn({
            let ann = ann.clone();
            async move { ok(ann.get(&format!("/v1/events?after={cursor}&wait=20"))).await.text().await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        office.ledger.put("b", "9", json!({ "n": 9 }), &context).unwrap();
        ok(ann.put("/v1/records/a/9", json!({ "n": 9 }))).await;
        let line = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        let event: Json = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!((&event["collection"], &event["key"]), (&json!("a"), &json!("9")));
    });
}

/// What a stream says until a text is in it.
async fn said(stream: &mut Response, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await.unwrap().unwrap();
        text += std::str::from_utf8(&chunk.unwrap_or_else(|| panic!("the stream ended after {text:?}"))).unwrap();
    }
    text
}

#[test]
fn a_stream_tells_events_as_they_come_and_goes_on_where_it_broke_off() {
    with_server(async |office| {
        let ann = office.device_of(&office.ledger, "ann", "writer", Some(&["a"]), None).await;
        ok(ann.put("/v1/records/a/1", json!({ "n": 1 }))).await;
        let first = office.ledger.position();
        let mut stream = ok(ann.get("/v1/events/stream")).await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        let text = said(&mut stream, "\"key\":\"1\"").await;
        assert!(text.contains(&format!("id: {first}\n")), "{text}");
        office.ledger.put("b", "hidden", json!({}), &Context::from_source("app")).unwrap();
        ok(ann.put("/v1/records/a/2", json!({ "n": 2 }))).await;
        let text = said(&mut stream, "\"key\":\"2\"").await;
        assert!(!text.contains("hidden"));
        drop(stream);
        let again = ann.get("/v1/events/stream?after=0").header("last-event-id", first.to_string());
        let text = said(&mut ok(again).await, "\"key\":\"2\"").await;
        assert!(!text.contains("\"key\":\"1\""), "{text}");
    });
}

#[test]
fn a_stream_and_a_wait_end_when_their_devices_are_revoked_and_when_the_server_ends() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "reader").await, office.device("ravi", "reader").await);
        let (mut of_ann, mut of_ravi) =
            (ok(ann.get("/v1/events/stream")).await, ok(ravi.get("/v1/events/stream")).await);
        let kim = office.device("kim", "reader").await;
        let cursor = office.ledger.position();
        let of_kim =
            tokio::spawn(async move { refusal(kim.get(&format!("/v1/events?after={cursor}&wait=20"))).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (server, ledger) = (office.server.clone(), office.ledger.clone());
        let revoke = move || ["ann", "kim"].iter().for_each(|id| server.revoke(&ledger, id).unwrap());
        tokio::task::spawn_blocking(revoke).await.unwrap();
        said(&mut of_ann, "\"code\":\"authentication\"").await;
        assert_eq!(
            of_kim.await.unwrap(),
            (401, "authentication".to_owned()),
            "who waited for events is told nothing more"
        );
        assert_eq!(of_ann.chunk().await.unwrap(), None);
        refused_with(ann.get("/v1/events"), 401, "authentication").await;
        office.server.end();
        said(&mut of_ravi, "\"code\":\"cancelled\"").await;
    });
}

/// Makes `/a` of a record two values apart, by two devices.
async fn disputed(one: &Device, other: &Device, at: &str) -> Json {
    let base = etag(&ok(one.put(at, json!({ "a": 0 }))).await);
    ok(one.patch(at, json!({ "a": 1 }))).await;
    ok(other.patch(&format!("{at}?base={}", base.trim_matches('"')), json!({ "a": 2 }))).await;
    one.value("/v1/conflicts").await["conflicts"][0].clone()
}

#[test]
fn a_conflict_is_settled_opened_again_and_annotated() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "writer").await, office.device("ravi", "writer").await);
        let (eve, olga) = (office.device("eve", "writer").await, office.device("olga", "operator").await);
        let found = disputed(&ann, &ravi, "/v1/records/issues/EE-1").await;
        let at = format!("/v1/conflicts/{}", found["id"].as_str().unwrap());
        let resolve = format!("{at}/resolve");
        refused_with(eve.post(&resolve, json!({ "candidate": 1 })), 403, "permission").await;
        refused_with(ann.post(&resolve, json!({ "candidate": 3 })), 422, "validation").await;
        refused_with(ann.post(&resolve, json!({ "candidate": 1, "value": 5 })), 422, "validation").await;
        refused_with(ann.post(&resolve, json!({ "value": 5, "version": "00" })), 409, "conflict").await;
        let event = &found["candidates"][0]["event"];
        let value = &found["candidates"][0]["value"];
        ok(ann.post(&resolve, json!({ "candidate": event, "version": found["version"] }))).await;
        assert_eq!(&ann.value("/v1/records/issues/EE-1").await["a"], value);
        assert_eq!(ann.value("/v1/conflicts").await["conflicts"], json!([]));
        assert_eq!(ann.value("/v1/conflicts?which=resolved").await["conflicts"][0]["status"], "resolved");
        ok(ravi.post(&format!("{at}/reopen"), json!({}))).await;
        let annotate = format!("{at}/annotate");
        refused_with(ann.post(&annotate, json!({ "note": "mine" })), 403, "permission").await;
        ok(olga.post(&annotate, json!({ "assignee": "olga", "note": "hm" }))).await;
        let (full, seen) = (olga.value(&at).await, ann.value(&at).await);
        assert_eq!((&full["status"], &full["assignee"]), (&json!("open"), &json!("olga")));
        assert_eq!((&seen["status"], &seen["assignee"]), (&json!("open"), &Json::Null));
        assert!(!seen["history"].to_string().contains("noted") && full["history"].to_string().contains("noted"));
        ok(olga.post(&resolve, json!({ "value": null }))).await;
        assert_eq!(ann.value("/v1/records/issues/EE-1").await["a"], Json::Null);
        refused_with(ann.get("/v1/conflicts/abc"), 404, "not_found").await;
    });
}

#[test]
fn policies_and_schemas_are_read_by_devices_and_set_by_admins() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "writer").await, office.device("ravi", "writer").await);
        let (root, olga) = (office.device("root", "admin").await, office.device("olga", "operator").await);
        let record = "/v1/records/issues/EE-1";
        disputed(&ann, &ravi, record).await;
        let tag = etag(&ok(ann.get(record)).await);
        let tried = body(ok(ann.post("/v1/policies/issues/try", json!("first_write_wins"))).await).await;
        assert_eq!(tried["decisions"][0]["path"], "/a");
        refused_with(olga.put("/v1/policies/issues", json!("first_write_wins")), 403, "permission").await;
        refused_with(root.put("/v1/policies/issues", json!("best_wins")), 422, "validation").await;
        ok(root.put("/v1/policies/issues", json!("first_write_wins"))).await;
        assert_eq!(ann.value("/v1/policies/issues").await["default"], json!({ "strategy": "first_write_wins" }));
        let other = etag(&ok(ann.get(record)).await);
        assert_ne!(other, tag, "the same heads show another value");
        ok(ann.patch(record, json!({ "b": 1 })).header("if-match", &tag)).await;
        assert_eq!(ann.value(&format!("{record}?strategy=last_write_wins")).await["a"], 2);

        refused_with(ann.get("/v1/schemas/issues"), 404, "not_found").await;
        let schema = json!({ "type": "object", "properties": { "b": { "type": "string" } } });
        refused_with(ann.put("/v1/schemas/issues", schema.clone()), 403, "permission").await;
        let broken = body(ok(root.put("/v1/schemas/issues?dry_run=true", schema.clone())).await).await;
        assert_eq!(broken["violations"][0]["path"], "/b");
        ok(root.put("/v1/schemas/issues", schema.clone())).await;
        assert_eq!(ann.value("/v1/schemas/issues").await, schema);
        assert_eq!(ann.value("/v1/violations").await["violations"][0]["key"], "EE-1");
        ok(root.put("/v1/schemas/issues", Json::Null)).await;
        assert_eq!(ann.value("/v1/violations?collection=issues").await["violations"], json!([]));

        refused_with(ann.get("/v1/status"), 403, "permission").await;
        assert_eq!(olga.value("/v1/status").await["ledger"], "main");
        assert_eq!(ann.value("/v1/digest").await["digest"], office.ledger.digest().unwrap().digest);
    });
}

/// Every operation of the document, as `(method, path, needs a token)`.
async fn operations(device: &Device) -> Vec<(Method, String, bool)> {
    let document = device.value("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for status in
                operation["responses"].as_object().unwrap().keys().filter(|status| *status >= &"400".to_owned())
            {
                let content = &operation["responses"][status]["content"]["application/problem+json"];
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            found.push((method, path.clone(), operation.get("security").is_none()));
        }
    }
    found
}

/// A path with names in it.
fn filled(path: &str, collection: &str, key: &str, id: &str) -> String {
    path.replace("{collection}", collection).replace("{key}", key).replace("{id}", id)
}

#[test]
fn every_route_refuses_who_has_no_good_token() {
    with_server(async |office| {
        let ann = office.device("ann", "admin").await;
        let all = operations(&ann).await;
        assert!(all.len() > 30 && all.iter().filter(|(.., needs)| *needs).count() >= 28);
        for (method, path, needs_token) in all {
            if !needs_token {
                continue;
            }
            let address = format!("{}{}", office.url, filled(&path, "issues", "EE-1", "ab"));
            let bare = ann.client.request(method.clone(), &address);
            assert_eq!(refusal(bare).await, (401, "authentication".to_owned()), "{method} {path}");
            let forged = ann.client.request(method.clone(), &address).bearer_auth(format!("{}x", ann.token));
            assert_eq!(refusal(forged).await.0, 401, "{method} {path}");
        }
    });
}

#[test]
fn a_reader_changes_nothing() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "writer").await, office.device("ravi", "writer").await);
        let reader = office.device("eve", "reader").await;
        let conflict = disputed(&ann, &ravi, "/v1/records/issues/EE-1").await;
        let position = office.ledger.position();
        let event = office.ledger.get("issues", "EE-1").unwrap().unwrap().heads[0].to_string();
        for (method, path, _) in operations(&reader).await {
            let is_try = path.ends_with("/try");
            if method == Method::GET
                || is_try
                || path.contains("/sync/")
                || path.contains("/devices/")
                || path == "/v1/undo"
            {
                continue;
            }
            let path = filled(&path, "issues", "EE-1", conflict["id"].as_str().unwrap());
            let request = reader.ask(method.clone(), &path).header("content-type", "application/json");
            let request = match path.as_str() {
                "/v1/batch" => request.body(r#"{"op":"delete","collection":"issues","key":"EE-1"}"#),
                "/v1/revert" => request.body(json!({ "event": event }).to_string()),
                _ => request.body("{}"),
            };
            assert_eq!(refusal(request).await, (403, "permission".to_owned()), "{method} {path}");
        }
        refused_with(reader.post("/v1/undo", json!({})), 404, "not_found").await;
        assert_eq!(office.ledger.position(), position);
    });
}

#[test]
fn another_tenants_records_are_not_there() {
    with_server(async |office| {
        let (ann, ravi) = (office.device("ann", "writer").await, office.device("ravi", "writer").await);
        let conflict = disputed(&ann, &ravi, "/v1/records/issues/EE-1").await;
        let event = office.ledger.get("issues", "EE-1").unwrap().unwrap().heads[0].to_string();
        let other = office.ledger.store().create_ledger("other").unwrap();
        let eve = office.device_of(&other, "ann", "admin", None, None).await;
        for below in ["", "/history", "/diff?from=1&to=2", "/blame"] {
            refused_with(eve.get(&format!("/v1/records/issues/EE-1{below}")), 404, "not_found").await;
        }
        assert_eq!(eve.value("/v1/records/issues").await["records"], json!([]));
        refused_with(eve.patch("/v1/records/issues/EE-1", json!({ "a": 9 })), 404, "not_found").await;
        refused_with(eve.ask(Method::DELETE, "/v1/records/issues/EE-1"), 404, "not_found").await;
        refused_with(eve.post("/v1/revert", json!({ "event": event })), 404, "not_found").await;
        assert!(!ok(eve.get("/v1/events?limit=1000")).await.text().await.unwrap().contains("EE-1"));
        let at = format!("/v1/conflicts/{}", conflict["id"].as_str().unwrap());
        refused_with(eve.get(&at), 404, "not_found").await;
        for act in ["resolve", "reopen", "annotate"] {
            refused_with(eve.post(&format!("{at}/{act}"), json!({})), 404, "not_found").await;
        }
        refused_with(eve.get("/v1/schemas/issues"), 404, "not_found").await;
    });
}

#[test]
fn system_collections_are_not_written_and_only_their_readers_see_them() {
    with_server(async |office| {
        let (root, ann) = (office.device("root", "admin").await, office.device("ann", "writer").await);
        for (collection, seen_by_all) in [("$collections", true), ("$devices", false), ("$conflicts", false)] {
            let at = format!("/v1/records/{collection}/ann");
            refused_with(root.put(&at, json!({ "role": "admin" })), 403, "permission").await;
            let status = if seen_by_all { 403 } else { 404 };
            assert_eq!(refusal(ann.put(&at, json!({ "role": "admin" }))).await.0, status);
            let line = json!({ "op": "put", "collection": collection, "key": "ann", "value": { "role": "admin" } });
            assert_eq!(refusal(root.post("/v1/batch", line)).await.0, 403);
            let listed = sent(ann.get(&format!("/v1/records/{collection}"))).await.status().as_u16();
            assert_eq!(listed, if seen_by_all { 200 } else { 404 });
        }
        assert_eq!(root.value("/v1/records/$devices/ann").await["role"], "writer");
        assert!(!ok(ann.get("/v1/events?limit=1000")).await.text().await.unwrap().contains("$devices"));
    });
}

#[test]
fn what_is_malformed_is_refused_with_a_problem_that_says_why() {
    with_server(async |office| {
        let ann = office.device("ann", "writer").await;
        let put = |body: &str| {
            let request = ann.ask(Method::PUT, "/v1/records/issues/EE-1").header("content-type", "application/json");
            request.body(body.to_owned())
        };
        for text in ["", "{", "[]", "1", "{\"a\":1,\"a\":2}", "{\"a\":1e999}", "{\"a\":NaN}"] {
            assert_eq!(refusal(put(text)).await.0, 422, "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        refused_with(put(&deep), 413, "too_large").await;
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(16 << 20));
        assert!(sent(put(&large)).await.status() == 413);
        let form = ann.ask(Method::PUT, "/v1/records/issues/EE-1").header("content-type", "text/csv").body("a");
        refused_with(form, 415, "client").await;
        refused_with(ann.get("/v1/records/issues/%FF"), 400, "client").await;
        let long = format!("/v1/records/issues/{}", "k".repeat(300));
        refused_with(ann.put(&long, json!({})), 422, "validation").await;
        refused_with(ann.get("/v1/records/issues/EE-1?as-of=1"), 400, "client").await;
        refused_with(ann.ask(Method::TRACE, "/v1/records/issues/EE-1"), 405, "client").await;
        eventually(|| async { sent(ann.get("/livez")).await.status() == 200 }).await;
    });
}
