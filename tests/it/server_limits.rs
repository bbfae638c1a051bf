//! How much a server takes of whom: limits, quotas, backups that it makes by itself, and what it tells of all that.

use std::num::NonZeroU32;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value as Json, json};
use syncledger::ledger::{Context, Ledger, Options, Query, SessionOptions, Store};
use syncledger::server::{Period, QuotaSettings, Quotas, RateSettings, Settings, Size};

use crate::served::{Served, access, invite, over_socket, problem, text};

fn app() -> Context {
    Context::from_source("app")
}

fn positive(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn rate(per_second: u32, at_once: u32) -> RateSettings {
    RateSettings { per_second: positive(per_second), at_once: positive(at_once) }
}

/// Settings with this quota for the ledger of `Served`.
fn quota(quota: QuotaSettings) -> Settings {
    Settings { quotas: Quotas([("main".to_owned(), quota)].into()), ..Settings::default() }
}

/// Asks as a device.
async fn ask(served: &Served, tokens: &Json, method: Method, path: &str, body: Option<Json>) -> Response {
    let request = served.http.request(method, format!("{}{path}", served.url)).bearer_auth(access(tokens));
    match body {
        Some(body) => request.json(&body).send().await.unwrap(),
        None => request.send().await.unwrap(),
    }
}

async fn get(served: &Served, tokens: &Json, path: &str) -> Response {
    ask(served, tokens, Method::GET, path, None).await
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers()[name].to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_tells_a_device_what_is_left_and_who_asks_too_often_when_to_come_again() {
    let mut settings = Settings::default();
    settings.limits.device = rate(1, 5);
    let served = Served::start_with(settings).await;
    let tokens = served.enrol("tablet", "operator").await;
    let first = get(&served, &tokens, "/v1/status").await;
    assert_eq!(header(&first, "ratelimit-policy"), "\"device\";q=5;w=5, \"ledger\";q=10000;w=2");
    assert_eq!(header(&first, "ratelimit"), "\"device\";r=4;t=1, \"ledger\";r=9999;t=1");
    let mut refused = None;
    for _ in 0..100 {
        let answer = get(&served, &tokens, "/v1/records/nothing/here").await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), 404);
        assert!(header(&answer, "ratelimit").starts_with("\"device\";r="));
    }
    let refused = refused.expect("nobody was refused");
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
    assert!(header(&refused, "ratelimit").starts_with("\"device\";r=0;t="));
    assert_eq!(problem(refused).await, (429, "rate_limit".into()));
    let other = served.enrol("phone", "operator").await;
    assert_eq!(get(&served, &other, "/v1/status").await.status(), 200);
    let nobody = served.http.get(format!("{}/v1/status", served.url)).send().await.unwrap();
    assert!(nobody.status() == 401 && !nobody.headers().contains_key("ratelimit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_of_one_ledger_together_take_nothing_from_those_of_another() {
    let mut settings = Settings::default();
    settings.limits.ledger = rate(1, 4);
    let served = Served::start_with(settings).await;
    let second = served.server.clone();
    let store = served.ledger.store().clone();
    let other = store.create_ledger("other").unwrap();
    let (tablet, phone) = (served.enrol("tablet", "operator").await, served.enrol("phone", "operator").await);
    let code = second.invite(&other, invite("operator")).unwrap().code;
    let elsewhere = served.enrol_by("tablet", code).await;
    let mut was_refused = false;
    for nth in 0..100 {
        let tokens = if nth % 2 == 0 { &tablet } else { &phone };
        let answer = get(&served, tokens, "/v1/status").await;
        if answer.status() == 429 {
            assert!(header(&answer, "ratelimit").contains("\"ledger\";r=0"));
            was_refused = true;
            break;
        }
    }
    assert!(was_refused);
    assert_eq!(get(&served, &elsewhere, "/v1/status").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_whose_quota_is_used_up_takes_no_change_on_any_way_and_can_still_be_read() {
    let served = Served::start_with(quota(QuotaSettings { events: Some(20), ..QuotaSettings::default() })).await;
    let tokens = served.enrol("tablet", "admin").await;
    let put = |path: &'static str| ask(&served, &tokens, Method::PUT, path, Some(json!({ "text": "x" })));
    assert_eq!(put("/v1/records/notes/1").await.status(), 201);
    for nth in 0..20 {
        served.ledger.put("notes", &format!("filled {nth}"), json!({}), &app()).unwrap();
    }
    let upload = json!([{ "operation": "create", "model": "notes", "object_id": 7, "data": {},
        "timestamp": "2026-11-27T10:00:00Z", "device_id": "tablet" }]);
    let changes = [
        (Method::PUT, "/v1/records/notes/2", json!({ "text": "x" })),
        (Method::PATCH, "/v1/records/notes/1", json!({ "text": "y" })),
        (Method::PUT, "/v1/policies/notes", json!({ "default": { "strategy": "merge" } })),
        (Method::POST, "/api/sync/upload", upload),
    ];
    for (method, path, body) in changes {
        let answer = ask(&served, &tokens, method, path, Some(body)).await;
        assert_eq!(answer.status(), 507, "{path}");
        let told: Json = answer.json().await.unwrap();
        assert_eq!((text(&told, "code"), &told["retryable"]), ("too_large", &json!(false)), "{told}");
        assert!(text(&told, "detail").contains("20 events"), "{told}");
    }
    assert_eq!(ask(&served, &tokens, Method::DELETE, "/v1/records/notes/1", None).await.status(), 507);
    for path in ["/v1/records/notes/1", "/v1/records/notes", "/api/sync/download?since=", "/v1/events?after=0"] {
        assert_eq!(get(&served, &tokens, path).await.status(), 200, "{path}");
    }
    let begin = json!({ "device_id": "tablet", "app_version": "1.0", "last_sync": null });
    assert_eq!(ask(&served, &tokens, Method::POST, "/api/sync/initialize", Some(begin)).await.status(), 200);
    let trial = json!({ "default": { "strategy": "last_write_wins" } });
    assert_eq!(ask(&served, &tokens, Method::POST, "/v1/policies/notes/try", Some(trial)).await.status(), 200);
    assert!(served.ledger.get("notes", "2").unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_takes_in_what_finds_room_and_the_rest_stays_with_the_device_until_there_is_more() {
    let store = Store::in_memory(Options::default()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    let events = |most| quota(QuotaSettings { events: Some(most), ..QuotaSettings::default() });
    let mut served = Served::start_with_on(store.clone(), ledger.clone(), events(60)).await;
    let tokens = served.enrol("tablet", "writer").await;
    let tablet = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    ledger.put("notes", "first", json!({}), &app()).unwrap();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    settled(&ledger).await;
    while ledger.position() < 58 {
        ledger.put("notes", &format!("filled {}", ledger.position()), json!({}), &app()).unwrap();
    }
    for nth in 0..5 {
        tablet.put("notes", &format!("mine {nth}"), json!({}), &app()).unwrap();
    }
    let (peer, done) = served.sync(&tablet, access(&tokens)).await;
    done.unwrap();
    let refusals = peer.unwrap().take_refusals();
    assert_eq!((refusals.len(), refusals[0].code.as_str()), (3, "too_large"));
    assert!(refusals[0].message.contains("60 events"), "{}", refusals[0].message);
    assert_eq!(mine(&ledger), 2);
    assert_eq!((mine(&tablet), tablet.get("notes", "filled 40").unwrap().is_some()), (5, true), "it goes on to read");

    served.stop();
    let roomier = Served::start_with_on(store, ledger.clone(), events(600)).await;
    let tokens = roomier
        .enrol_by(
            "tablet",
            roomier.code(syncledger::server::Invite { device: Some("tablet".into()), ..invite("writer") }),
        )
        .await;
    over_socket(&roomier.url, access(&tokens), &tablet, SessionOptions::default()).await.1.unwrap();
    assert_eq!(mine(&ledger), 5);
}

/// How many records a ledger has that the device made.
fn mine(ledger: &Ledger) -> usize {
    let records = ledger.list("notes", &Query::default()).unwrap();
    records.iter().filter(|record| record.key.starts_with("mine")).count()
}

/// Waits until the server has written what it writes of a session.
async fn settled(ledger: &Ledger) {
    for _ in 0..500 {
        let has_writer =
            ledger.get("$devices", "tablet").unwrap().is_some_and(|device| device.value.get("writers").is_some());
        if has_writer && !ledger.list("$runs", &Query::default()).unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session left nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_has_only_so_many_devices_and_a_code_that_finds_no_room_is_not_used_up() {
    let served = Served::start_with(quota(QuotaSettings { devices: Some(1), ..QuotaSettings::default() })).await;
    served.enrol("tablet", "writer").await;
    let code = served.code(invite("writer"));
    let body = json!({ "code": code, "device_id": "phone" });
    let enrol = || served.post("/v1/devices/enrol", &body);
    assert_eq!(problem(enrol().await).await, (507, "too_large".into()));
    served.server.revoke(&served.ledger, "tablet").unwrap();
    assert_eq!(enrol().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_a_log_are_limited_too() {
    let bytes = QuotaSettings { bytes: Some(Size(4_096)), ..QuotaSettings::default() };
    let served = Served::start_with(quota(bytes)).await;
    let tokens = served.enrol("tablet", "writer").await;
    let mut statuses = Vec::new();
    for nth in 0..200 {
        let path = format!("/v1/records/notes/{nth}");
        statuses.push(ask(&served, &tokens, Method::PUT, &path, Some(json!({}))).await.status().as_u16());
    }
    // What was measured a second ago is known of: some more may go in.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let last = ask(&served, &tokens, Method::PUT, "/v1/records/notes/last", Some(json!({}))).await;
    assert_eq!((statuses[0], last.status().as_u16()), (201, 507));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_so_many_requests_at_work_others_are_sent_away_for_a_moment() {
    let mut settings = Settings::default();
    settings.limits.requests = positive(1);
    let served = Served::start_with(settings).await;
    let tokens = served.enrol("tablet", "operator").await;
    for _ in 0..20 {
        let asked = (0..16).map(|_| get(&served, &tokens, "/v1/status"));
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status().as_u16())));
        if let Some(refused) = answers.into_iter().find(|answer| answer.status() == 503) {
            assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
            let told: Json = refused.json().await.unwrap();
            assert_eq!((text(&told, "code"), &told["retryable"]), ("locked", &json!(true)));
            assert_eq!(get(&served, &tokens, "/v1/status").await.status(), 200);
            return;
        }
    }
    panic!("nobody was sent away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_backs_up_by_itself_and_metrics_tell_of_backups_peers_and_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.backup.dir = Some(dir.path().to_owned());
    settings.backup.every = Period::from_secs(3_600);
    let served = Served::start_with(settings).await;
    served.ledger.put("notes", "1", json!({ "text": "kept" }), &app()).unwrap();
    served.enrol("tablet of ann", "operator").await;
    let gone = served.enrol("phone", "operator").await;
    served.server.revoke(&served.ledger, text(&gone, "device_id")).unwrap();
    let mut figures = String::new();
    for _ in 0..500 {
        figures = served.http.get(format!("{}/metrics", served.url)).send().await.unwrap().text().await.unwrap();
        if figures.contains("syncledger_backups_total{status=\"success\"} 1") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for line in [
        "syncledger_backups_total{status=\"success\"} 1",
        "syncledger_peers{state=\"away\"} 1",
        "syncledger_peers{state=\"connected\"} 0",
        "syncledger_peers{state=\"revoked\"} 1",
        "syncledger_changes_waiting 0",
        "# TYPE syncledger_fsync_seconds histogram",
    ] {
        assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
    }
    let value = |name: &str| {
        let line = figures.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{figures}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("syncledger_fsync_seconds_count") >= 4.0 && value("syncledger_backup_age_seconds ") < 60.0);
    assert_eq!(value("syncledger_fsync_seconds_bucket{le=\"+Inf\"}"), value("syncledger_fsync_seconds_count"));
    assert!(!figures.contains("ann") && !figures.contains("notes"));
    let files: Vec<_> = std::fs::read_dir(dir.path().join(served.ledger.info().id.to_string())).unwrap().collect();
    assert_eq!(files.len(), 1);
}
