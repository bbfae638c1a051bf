//! Changes of records, posted to who wants them.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::ledger::{Context, Ledger, Options, Store};
use syncledger::server::{Period, Secret, Server, WebhookSettings};

use crate::receivers::{Came, Receiver};
use crate::served::{serve, text};

/// A secret, and the bytes that it stands for.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const KEY: &[u8] = b"01234567890123456789012345678901";

fn app() -> Context {
    Context::from_source("app").by("ann")
}

/// The signature that a request has to have.
pub fn signed(came: &Came) -> String {
    let content = format!("{}.{}.{}", came.header("webhook-id"), came.header("webhook-timestamp"), came.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), content.as_bytes());
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = tag.as_ref().iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sixes = bits.chunks(6).map(|six| six.iter().fold(0, |all, bit| all << 1 | bit) << (6 - six.len()));
    let text: String = sixes.map(|six| char::from(digits[usize::from(six)])).collect();
    format!("v1,{text}=")
}

fn hook(url: &str) -> WebhookSettings {
    WebhookSettings {
        name: "shop".into(),
        url: Some(Secret::from(url)),
        secret: Some(Secret::from(SECRET)),
        first_wait: Period::from_millis(20),
        most_wait: Period::from_millis(50),
        ..WebhookSettings::default()
    }
}

fn in_memory() -> (Store, Ledger) {
    let store = Store::in_memory(Options::default()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    (store, ledger)
}

fn with(store: &Store, hooks: Vec<WebhookSettings>) -> Server {
    Server::new(store.clone()).unwrap().with_webhooks(hooks).unwrap()
}

/// The changes of all requests that came, in their order.
fn changes(came: &[Came]) -> Vec<Json> {
    came.iter()
        .flat_map(|came| match came.json() {
            Json::Array(changes) => changes,
            change => vec![change],
        })
        .collect()
}

fn subjects(came: &[Came]) -> Vec<String> {
    changes(came).iter().map(|change| text(change, "subject").to_owned()).collect()
}

fn state(server: &Server) -> Json {
    server.webhooks().list().unwrap().remove(0)
}

/// What is listed of the webhook, once it is as wanted.
async fn listed(server: &Server, is_wanted: impl Fn(&Json) -> bool) -> Json {
    for _ in 0..1_000 {
        let state = state(server);
        if is_wanted(&state) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not as wanted: {}", state(server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_signed_in_the_order_of_the_log_with_what_was_before_and_after() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    ledger.put("notes", "old", json!({}), &app()).unwrap();
    let server = with(&store, vec![hook(&url)]);
    let _serving = serve(&server);
    ledger.put("notes", "1", json!({ "a": 1, "b": 2 }), &app()).unwrap();
    let patched = ledger.patch("notes", "1", json!({ "a": 3 }), &app()).unwrap();
    ledger.delete("notes", "1", &app()).unwrap();
    let came = receiver.await_that(|came| changes(came).len() >= 3).await;
    for came in &came {
        assert_eq!(came.header("content-type"), "application/cloudevents-batch+json; charset=utf-8");
        assert_eq!(came.header("webhook-signature"), signed(came));
    }
    let [created, changed, deleted] = changes(&came).try_into().unwrap();
    let data = &changed["data"];
    assert_eq!((text(&changed, "specversion"), text(&changed, "type")), ("1.0", "syncledger.record.changed.v1"));
    assert_eq!(text(&changed, "source"), format!("urn:syncledger:ledger:{}", ledger.info().id));
    assert_eq!((text(&changed, "subject"), text(data, "collection"), text(data, "key")), ("notes/1", "notes", "1"));
    assert_eq!(
        (text(&changed, "id"), &data["position"]),
        (&*patched.events[0].0.to_string(), &json!(patched.events[0].1))
    );
    assert_eq!((text(data, "source"), text(data, "principal"), text(data, "ledger")), ("app", "ann", "main"));
    assert_eq!((&data["before"], &data["after"]), (&json!({ "a": 1, "b": 2 }), &json!({ "a": 3, "b": 2 })));
    assert_eq!(data["changes"], json!([{ "path": "/a", "before": 1, "after": 3 }]));
    assert_eq!((&created["data"]["before"], &deleted["data"]["after"]), (&Json::Null, &Json::Null));
    assert_eq!(deleted["data"]["before"], json!({ "a": 3, "b": 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_wanted_collections_are_sent_and_never_the_ledgers_own() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    let wanted = WebhookSettings { collections: vec!["notes".into(), "$collections".into()], batch: 1, ..hook(&url) };
    let server = with(&store, vec![wanted]);
    let _serving = serve(&server);
    ledger.put("tasks", "1", json!({}), &app()).unwrap();
    ledger.set_schema("notes", &json!({ "type": "object" }), &app()).unwrap();
    ledger.put("notes", "1", json!({}), &app()).unwrap();
    ledger.put("notes", "2", json!({}), &app()).unwrap();
    let came = receiver.await_count(2).await;
    assert_eq!(subjects(&came), ["notes/1", "notes/2"]);
    assert_eq!(came[0].header("content-type"), "application/cloudevents+json; charset=utf-8");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.came().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_taken_is_sent_again_before_anything_else() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    let server = with(&store, vec![WebhookSettings { batch: 2, ..hook(&url) }]);
    receiver.answer(&[(500, None), (404, None), (302, None), (429, Some("1"))]);
    for key in 1..=5 {
        ledger.put("notes", &key.to_string(), json!({ "key": key }), &app()).unwrap();
    }
    let _serving = serve(&server);
    let failing = listed(&server, |state| state["failures"] == 4).await;
    assert_eq!((text(&failing["error"], "code"), &failing["position"]), ("rate_limit", &json!(0)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.came().len(), 4, "a second was asked for");
    let came = receiver.await_that(|came| came.len() >= 7).await;
    assert!(
        came[..5]
            .iter()
            .all(|again| again.body == came[0].body && again.header("webhook-id") == came[0].header("webhook-id"))
    );
    assert_eq!(subjects(&came[4..]), ["notes/1", "notes/2", "notes/3", "notes/4", "notes/5"]);
    let well = listed(&server, |state| state["delivered"] == 5).await;
    assert_eq!((&well["failures"], &well["position"], well.get("error")), (&json!(0), &json!(5), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_goes_on_where_it_was_when_the_server_is_started_again() {
    let (receiver, url) = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store = Store::open(dir.path()).unwrap();
        let ledger = store.ledger_or_create("main").unwrap();
        // What happens before the server is there is not lost, but for what came before the webhook.
        ledger.put("notes", &format!("{round} early"), json!({}), &app()).unwrap();
        let server = with(&store, vec![hook(&url)]);
        let serving = serve(&server);
        ledger.put("notes", &format!("{round} late"), json!({}), &app()).unwrap();
        let wanted = 2 * round + 1;
        receiver.await_that(|came| changes(came).len() >= wanted).await;
        listed(&server, |state| state["delivered"] == wanted).await;
        server.end();
        drop(serving);
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.close().unwrap();
    }
    let expected = ["0 late", "1 early", "1 late", "2 early", "2 late"].map(|key| format!("notes/{key}"));
    assert_eq!(subjects(&receiver.came()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_left_alone_until_somebody_replays() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    ledger.put("notes", "1", json!({}), &app()).unwrap();
    let server = with(&store, vec![hook(&url)]);
    let _serving = serve(&server);
    receiver.answer(&[(410, None)]);
    ledger.put("notes", "2", json!({}), &app()).unwrap();
    let gone = listed(&server, |state| state["state"] == "gone").await;
    assert_eq!((&gone["position"], &gone["delivered"]), (&json!(1), &json!(0)));
    ledger.put("notes", "3", json!({}), &app()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.came().len(), 1);

    assert_eq!(server.webhooks().replay("shop", 4).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.webhooks().replay("other", 0).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.webhooks().replay("../shop", 0).unwrap_err().kind(), ErrorKind::Validation);
    server.webhooks().replay("shop", 0).unwrap();
    let came = receiver.await_that(|came| changes(&came[1..]).len() >= 3).await;
    assert_eq!(subjects(&came[1..]), ["notes/1", "notes/2", "notes/3"]);
    let well = listed(&server, |state| state["delivered"] == 3).await;
    assert_eq!(well["state"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_while_something_is_under_way_is_not_undone_by_it() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    let server = with(&store, vec![hook(&url)]);
    let _serving = serve(&server);
    receiver.delay(Duration::from_millis(300));
    ledger.put("notes", "1", json!({}), &app()).unwrap();
    receiver.await_count(1).await;
    server.webhooks().replay("shop", 0).unwrap();
    assert_eq!(subjects(&receiver.await_count(2).await), ["notes/1", "notes/1"]);
    listed(&server, |state| state["position"] == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_replays_does_not_wait_for_what_the_receiver_had_asked_for() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    let server = with(
        &store,
        vec![WebhookSettings { first_wait: Period::from_hours(1), most_wait: Period::from_hours(1), ..hook(&url) }],
    );
    ledger.put("notes", "1", json!({}), &app()).unwrap();
    receiver.answer(&[(503, Some("3000"))]);
    let _serving = serve(&server);
    listed(&server, |state| state["failures"] == 1).await;
    server.webhooks().replay("shop", 0).unwrap();
    let came = receiver.await_count(2).await;
    assert_eq!(subjects(&came[1..]), ["notes/1"]);
    assert!(came[0].header("webhook-id") != came[1].header("webhook-id"));
    assert_eq!(changes(&came[..1])[0]["id"], changes(&came[1..])[0]["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_too_large_comes_without_the_record() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = in_memory();
    let server = with(&store, vec![hook(&url)]);
    let _serving = serve(&server);
    ledger.put("notes", "1", json!({ "text": "x".repeat(300 << 10) }), &app()).unwrap();
    let came = receiver.await_count(1).await;
    let data = &changes(&came)[0]["data"];
    assert!(came[0].body.len() < 2_000 && data["too_large"] == true && data.get("after").is_none());
    assert_eq!((text(data, "key"), &data["position"]), ("1", &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_stops_where_the_log_is_another_and_a_replay_sets_it_right() {
    let (receiver, url) = Receiver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let fill = |path: &std::path::Path, count: usize| {
        let store = Store::open(path).unwrap();
        let ledger = store.ledger_or_create("main").unwrap();
        (0..count).for_each(|key| drop(ledger.put("notes", &key.to_string(), json!({}), &app()).unwrap()));
        store
    };
    let store = fill(&first, 3);
    drop(with(&store, vec![hook(&url)]));
    store.close().unwrap();
    // Another store, under the server's files of the first.
    fill(&second, 2).close().unwrap();
    std::fs::create_dir_all(second.join("server/webhooks")).unwrap();
    std::fs::copy(first.join("server/webhooks/shop.json"), second.join("server/webhooks/shop.json")).unwrap();
    let store = Store::open(&second).unwrap();
    let server = with(&store, vec![hook(&url)]);
    let _serving = serve(&server);
    let astray = listed(&server, |state| state["state"] == "astray").await;
    assert_eq!(text(&astray["error"], "code"), "consistency");
    assert!(receiver.came().is_empty());
    server.webhooks().replay("shop", 1).unwrap();
    assert_eq!(subjects(&receiver.await_count(1).await), ["notes/1"]);
    server.end();
}

#[test]
fn a_webhook_that_cannot_be_is_refused_at_the_start() {
    let (store, _ledger) = in_memory();
    let refused = |hooks: Vec<WebhookSettings>| {
        let fault = Server::new(store.clone()).unwrap().with_webhooks(hooks).unwrap_err();
        assert!(!fault.to_string().contains("TOKEN"), "{fault}");
        fault.kind()
    };
    let https = hook("https://example.org/TOKEN");
    assert_eq!(refused(vec![hook("http://example.org/TOKEN")]), ErrorKind::Validation);
    assert_eq!(refused(vec![https.clone(), https.clone()]), ErrorKind::Validation);
    assert_eq!(refused(vec![WebhookSettings { name: "a/b".into(), ..https.clone() }]), ErrorKind::Validation);
    assert_eq!(refused(vec![WebhookSettings { secret: None, ..https.clone() }]), ErrorKind::Validation);
    assert_eq!(refused(vec![WebhookSettings { ledger: "none".into(), ..https.clone() }]), ErrorKind::NotFound);
    assert!(!format!("{https:?}").contains("TOKEN") && !format!("{https:?}").contains("whsec"));
    let read = |text: &str| serde_json::from_str::<WebhookSettings>(text);
    let settings = read(r#"{"name": "shop", "url": "https://example.org", "first_wait": "2s"}"#).unwrap();
    assert_eq!((settings.first_wait, settings.batch, &*settings.ledger), (Period::from_secs(2), 100, "main"));
    assert!(read(r#"{"name": "shop", "adress": "https://example.org"}"#).is_err());
}

#[cfg(feature = "cli")]
#[test]
fn the_program_lists_and_replays_webhooks() {
    let bench = crate::cli::Bench::new();
    bench.ok(["put", "notes", "1", "{}"]);
    assert!(bench.lines(["webhook", "list"]).is_empty());
    let store = Store::open(bench.path("ledger")).unwrap();
    drop(with(&store, vec![hook("http://127.0.0.1:9/hook")]));
    store.close().unwrap();
    let listed = &bench.lines(["webhook", "list"])[0];
    crate::cli::assert_fields(listed, "name ledger state position delivered delivered_at failures");
    assert_eq!(
        (&listed["name"], &listed["state"], &listed["position"]),
        (&json!("shop"), &json!("active"), &json!(1))
    );
    assert_eq!(bench.json(["webhook", "replay", "shop", "--from", "0"])["position"], 0);
    assert!(bench.ok(["webhook", "list"]).contains("shop"));
    bench.refused(["webhook", "replay", "shop", "--from", "2"], 1, "not_found");
    bench.refused(["webhook", "replay", "none", "--from", "0"], 1, "not_found");
}
