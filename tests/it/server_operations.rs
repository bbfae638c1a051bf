//! What operators see of a sync server, and what it stands.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value as Json, json};
use syncledger::ledger::{Context, Ledger, Options, Query, Record, Store};
use syncledger::server::Invite;

use crate::served::{Served, access, invite, problem, text};

fn device() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::from_source("app")
}

/// The records of one of the ledger's own collections, once there are so many.
async fn records(served: &Served, collection: &str, count: usize) -> Vec<Record> {
    for _ in 0..500 {
        let found = served.ledger.list(collection, &Query::default()).unwrap();
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are no {count} records of {collection}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_moved_something_leaves_a_run_and_one_that_did_not_leaves_none() {
    let served = Served::start().await;
    served.ledger.put("notes", "1", json!({}), &app()).unwrap();
    let tokens = served.enrol("tablet", "writer").await;
    let tablet = device();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    let run = &records(&served, "$runs", 1).await[0].value;
    assert_eq!((text(run, "device"), text(run, "direction"), text(run, "status")), ("tablet", "out", "success"));
    assert_eq!(run["collections"], json!({ "notes": { "received": 0, "sent": 1 } }));
    assert!(run["bytes"]["sent"].as_u64().unwrap() > 50 && run["bytes"]["received"].as_u64().unwrap() > 50);

    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    tablet.put("notes", "2", json!({}), &app()).unwrap();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    let runs = records(&served, "$runs", 2).await;
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().any(|run| text(&run.value, "direction") == "in"));
    assert!(served.ledger.list("$errors", &Query::default()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_and_what_failed_are_records_of_errors() {
    let served = Served::start().await;
    served.ledger.put("notes", "1", json!({}), &app()).unwrap();
    let narrow = served.code(Invite { writes: Some(vec!["tasks".into()]), ..invite("writer") });
    let tokens = served.enrol_by("tablet", narrow).await;
    let tablet = device();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    tablet.put("notes", "secret words", json!({ "text": "secret value" }), &app()).unwrap();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    let error = &records(&served, "$errors", 1).await[0].value;
    assert_eq!((text(error, "device"), text(error, "code")), ("tablet", "permission"));
    assert!(text(error, "message").contains("`notes`") && !error.to_string().contains("secret value"));
    let runs = records(&served, "$runs", 2).await;
    assert!(runs.iter().any(|run| text(&run.value, "status") == "partial" && run.value["refused"] == 1));

    // A replica of another ledger.
    let other = device();
    other.put("notes", "1", json!({}), &app()).unwrap();
    served.sync(&other, access(&tokens)).await.1.unwrap_err();
    let errors = records(&served, "$errors", 2).await;
    assert!(errors.iter().any(|error| text(&error.value, "code") == "ledger_mismatch"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_sessions_events_and_requests_and_name_nobody() {
    let served = Served::start().await;
    served.ledger.put("notes", "1", json!({}), &app()).unwrap();
    let tokens = served.enrol("tablet of ann", "writer").await;
    served.sync(&device(), access(&tokens)).await.1.unwrap();
    records(&served, "$runs", 1).await;
    let get = |path: &str| served.http.get(format!("{}{path}", served.url)).send();
    assert_eq!(get("/nothing/of/this/name").await.unwrap().status(), 404);
    let figures = get("/metrics").await.unwrap().text().await.unwrap();
    for line in [
        "syncledger_sessions 0",
        "syncledger_sessions_total{status=\"success\"} 1",
        "syncledger_events_total{direction=\"out\"} 1",
        "syncledger_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
        "syncledger_requests_total{route=\"/v1/devices/enrol\",method=\"POST\",status=\"200\"} 1",
        "syncledger_session_seconds_count 1",
    ] {
        assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
    }
    assert!(!figures.contains("tablet") && !figures.contains("notes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let served = Served::start().await;
    let mut refused = None;
    for _ in 0..200 {
        let answer = served.post("/v1/devices/refresh", &json!({ "refresh_token": "guessed" })).await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), 401);
    }
    let refused = refused.expect("nobody was refused");
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(problem(refused).await, (429, "rate_limit".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_large_or_become_so_are_refused_before_they_fill_memory() {
    let served = Served::start().await;
    let url = format!("{}/v1/devices/enrol", served.url);
    let send = |encoding: &str, body: Vec<u8>| {
        let request = served.http.post(&url).header("content-type", "application/json");
        request.header("content-encoding", encoding).body(body).send()
    };
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(256 << 20), 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    assert_eq!(problem(send("zstd", bomb).await.unwrap()).await, (413, "too_large".into()));
    assert_eq!(problem(send("zstd", vec![1; 64]).await.unwrap()).await.0, 400);
    assert_eq!(problem(send("br", vec![1; 64]).await.unwrap()).await, (415, "client".into()));
    let deep = "[".repeat(100_000);
    let asked = served.http.post(&url).header("content-type", "application/json").body(deep);
    assert_eq!(problem(asked.send().await.unwrap()).await.0 / 100, 4);
    let small = zstd::encode_all(&br#"{"code":"x","device_id":"y"}"#[..], 1).unwrap();
    assert_eq!(problem(send("zstd", small).await.unwrap()).await, (401, "authentication".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_answered_or_dropped_and_the_server_lives() {
    let served = Served::start().await;
    let address = served.url.trim_start_matches("http://").to_owned();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    for bytes in [
        "\0\0\0\0\0\0",
        "GET",
        long.as_str(),
        many.as_str(),
        "POST /v1/devices/enrol HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
    ] {
        let (bytes, address) = (bytes.to_owned(), address.clone());
        let ask = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let _ = stream.write_all(bytes.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        };
        let answer = tokio::task::spawn_blocking(ask).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let live = served.http.get(format!("{}/livez", served.url)).send().await.unwrap();
    assert_eq!(live.json::<Json>().await.unwrap(), json!({ "status": "ok" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_has_only_so_many_streams_of_events() {
    let served = Served::start().await;
    let tokens = served.enrol("tablet", "reader").await;
    let open = || served.http.get(format!("{}/v1/events/stream", served.url)).bearer_auth(access(&tokens)).send();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let stream = open().await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(problem(open().await.unwrap()).await, (429, "rate_limit".into()));
    drop(streams);
    for _ in 0..500 {
        if open().await.unwrap().status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a stream that was given up keeps its place");
}
