//! Devices of the sync server: who becomes one, what its tokens are good for, and what its sessions may do.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::ledger::{Context, Ledger, Options, SessionOptions, Store};
use syncledger::replication::Filter;
use syncledger::server::Invite;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::served::{Served, access, invite, open_socket, over_socket, problem, text};

fn device() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn app() -> Context {
    Context::from_source("app")
}

async fn enrol(served: &Served, code: &str, device: &str) -> reqwest::Response {
    served.post("/v1/devices/enrol", &json!({ "code": code, "device_id": device, "name": "x" })).await
}

async fn refresh(served: &Served, tokens: &Json) -> reqwest::Response {
    served.post("/v1/devices/refresh", &json!({ "refresh_token": tokens["refresh_token"] })).await
}

/// Asks for something with a token, and gives the status.
async fn status_with(served: &Served, token: &str) -> u16 {
    let request = served.http.post(format!("{}/v1/sync/push", served.url)).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_makes_one_device_and_only_once() {
    let served = Served::start().await;
    let code = served.code(invite("writer"));
    let tokens: Json = enrol(&served, &code, "tablet").await.json().await.unwrap();
    assert_eq!((text(&tokens, "device_id"), &tokens["expires_in"]), ("tablet", &json!(600)));
    assert_eq!(problem(enrol(&served, &code, "phone").await).await, (401, "authentication".into()));
    assert_eq!(problem(enrol(&served, "guessed", "phone").await).await, (401, "authentication".into()));
    // The answer may have got lost.
    assert_eq!(enrol(&served, &code, "tablet").await.status(), 200);

    let record = served.ledger.get("$devices", "tablet").unwrap().unwrap();
    assert_eq!((text(&record.value, "role"), text(&record.value, "source")), ("writer", "app"));
    let said = format!("{record:?}");
    assert!(!said.contains(&code) && !said.contains(text(&tokens, "refresh_token")), "a secret in a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_in_use_is_given_only_by_a_code_that_was_made_for_it() {
    let served = Served::start().await;
    let first = served.enrol("tablet", "writer").await;
    let other = enrol(&served, &served.code(invite("writer")), "tablet").await;
    assert_eq!(problem(other).await, (409, "conflict".into()));
    let meant = || served.code(Invite { device: Some("tablet".into()), ..invite("reader") });
    assert_eq!(problem(enrol(&served, &meant(), "phone").await).await, (403, "permission".into()));
    let again = served.enrol_by("tablet", meant()).await;
    assert_eq!(text(&served.ledger.get("$devices", "tablet").unwrap().unwrap().value, "role"), "reader");
    // Who had the device before has it no more.
    assert_eq!(problem(refresh(&served, &first).await).await.0, 401);
    assert_eq!(refresh(&served, &again).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_revoked_is_not_let_in_again_by_the_code_that_it_used() {
    let served = Served::start().await;
    for meant in [None, Some("tablet".to_owned())] {
        let code = served.code(Invite { device: meant, ..invite("writer") });
        assert_eq!(enrol(&served, &code, "tablet").await.status(), 200);
        served.server.revoke(&served.ledger, "tablet").unwrap();
        assert_eq!(problem(enrol(&served, &code, "tablet").await).await, (401, "authentication".into()));
        let state = &served.ledger.get("$devices", "tablet").unwrap().unwrap().value["state"];
        assert_eq!(state, "revoked");
        // A new code that is made for it lets it in.
        served.enrol_by("tablet", served.code(Invite { device: Some("tablet".into()), ..invite("writer") })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_enrolment_is_a_problem_and_says_why() {
    let served = Served::start().await;
    for (id, status) in [("", 422), ("a\nb", 422), (&*"x".repeat(129), 422)] {
        assert_eq!(enrol(&served, &served.code(invite("writer")), id).await.status(), status, "{id:?}");
    }
    let url = format!("{}/v1/devices/enrol", served.url);
    let send = |body: &'static str| served.http.post(&url).header("content-type", "application/json").body(body);
    assert_eq!(problem(send("{").send().await.unwrap()).await, (400, "client".into()));
    assert_eq!(problem(send("{}").send().await.unwrap()).await, (422, "validation".into()));
    assert_eq!(problem(served.http.get(&url).send().await.unwrap()).await.0, 405);
    assert_eq!(problem(served.http.get(format!("{}/nothing", served.url)).send().await.unwrap()).await.0, 404);
    let wrong = served.server.invite(&served.ledger, Invite { role: "king".into(), ..invite("writer") });
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Validation);
    let late = served.code(Invite { valid_ms: -1, ..invite("writer") });
    assert_eq!(enrol(&served, &late, "tablet").await.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_token_nothing_is_done() {
    let served = Served::start().await;
    let tokens = served.enrol("tablet", "writer").await;
    let good = access(&tokens);
    assert_eq!(status_with(&served, good).await, 200);
    let mut parts: Vec<_> = good.split('.').collect();
    let none = "eyJhbGciOiJub25lIn0";
    parts[0] = none;
    let (unsigned, cut) = (format!("{none}.{}.", parts[1]), &good[..good.len() - 4]);
    for token in ["", "x", &parts.join("."), &unsigned, cut, text(&tokens, "refresh_token")] {
        assert_eq!(status_with(&served, token).await, 401, "{token}");
    }
    let bare = served.http.get(format!("{}/v1/sync", served.url)).send().await.unwrap();
    assert_eq!(bare.headers()["www-authenticate"], "Bearer");
    let basic = served.http.get(format!("{}/v1/sync", served.url)).basic_auth("tablet", Some(good));
    assert_eq!(problem(basic.send().await.unwrap()).await, (401, "authentication".into()));
    // A token of another server is as good as none.
    let other = Served::start().await;
    assert_eq!(status_with(&other, good).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_refused_at_its_next_request_and_its_session_ends() {
    let served = Served::start().await;
    let tokens = served.enrol("tablet", "writer").await;
    let (url, token, tablet) = (served.url.clone(), access(&tokens).to_owned(), device());
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let session = tokio::spawn(async move { over_socket(&url, &token, &tablet, follows).await.1 });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!session.is_finished());

    let (server, ledger) = (served.server.clone(), served.ledger.clone());
    tokio::task::spawn_blocking(move || server.revoke(&ledger, "tablet")).await.unwrap().unwrap();
    assert_eq!(status_with(&served, access(&tokens)).await, 401);
    assert_eq!(problem(refresh(&served, &tokens).await).await.0, 401);
    let ended = tokio::time::timeout(Duration::from_secs(5), session).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Authentication);
    assert_eq!(open_socket(&served.url, access(&tokens)).await.err(), Some(401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_that_edit_apart_converge_through_the_server() {
    let served = Served::start().await;
    served.ledger.put("issues", "1", json!({ "title": "a", "status": "open" }), &app()).unwrap();
    let [tablet, phone] = [device(), device()];
    let tokens = [served.enrol("tablet", "writer").await, served.enrol("phone", "writer").await];
    served.sync(&tablet, access(&tokens[0])).await.1.unwrap();
    served.sync(&phone, access(&tokens[1])).await.1.unwrap();
    tablet.patch("issues", "1", json!({ "title": "b" }), &app()).unwrap();
    phone.patch("issues", "1", json!({ "status": "done" }), &app()).unwrap();
    phone.put("notes", "mine", json!({ "text": "x".repeat(200_000) }), &app()).unwrap();
    served.sync(&tablet, access(&tokens[0])).await.1.unwrap();
    let moved = served.sync(&phone, access(&tokens[1])).await.1.unwrap();
    assert_eq!(moved.applied, 1);
    served.sync(&tablet, access(&tokens[0])).await.1.unwrap();

    let both = json!({ "title": "b", "status": "done" });
    for ledger in [&tablet, &phone, &served.ledger] {
        assert_eq!(ledger.get("issues", "1").unwrap().unwrap().value, both);
    }
    assert_eq!(tablet.get("notes", "mine").unwrap(), phone.get("notes", "mine").unwrap());
    // Devices have no records of devices.
    assert_eq!(tablet.get("$devices", "phone").unwrap(), None);
    assert_eq!(tablet.digest().unwrap(), phone.digest().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_is_sent_what_others_write_at_once() {
    let served = Served::start().await;
    served.ledger.put("notes", "0", json!({}), &app()).unwrap();
    let tokens = served.enrol("tablet", "writer").await;
    let (url, token, tablet) = (served.url.clone(), access(&tokens).to_owned(), device());
    let follows = SessionOptions { follows: true, ..SessionOptions::default() };
    let following = tablet.clone();
    let session = tokio::spawn(async move { over_socket(&url, &token, &following, follows).await });
    for n in 1..=5 {
        let key = n.to_string();
        served.ledger.put("notes", &key, json!({}), &app()).unwrap();
        for waited in 0.. {
            if tablet.get("notes", &key).unwrap().is_some() {
                break;
            }
            assert!(waited < 500, "the note {key} did not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    session.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_one_tenant_knows_nothing_of_another() {
    let store = Store::in_memory(Options::default()).unwrap();
    let [main, other] = ["main", "other"].map(|name| store.create_ledger(name).unwrap());
    other.put("notes", "theirs", json!({}), &app()).unwrap();
    main.put("notes", "ours", json!({}), &app()).unwrap();
    let served = Served::start_on(store, main).await;
    let tokens = served.enrol("tablet", "admin").await;
    let tablet = device();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    assert!(tablet.get("notes", "ours").unwrap().is_some());
    assert!(tablet.get("notes", "theirs").unwrap().is_none());
    // A replica of the other ledger is told that it is one.
    let theirs = device();
    theirs.pull(&other).unwrap();
    let fault = served.sync(&theirs, access(&tokens)).await.1.unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::LedgerMismatch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_narrow_what_a_device_is_sent_and_may_send() {
    let served = Served::start().await;
    for collection in ["notes", "secret"] {
        served.ledger.put(collection, "1", json!({}), &app()).unwrap();
    }
    let rights = Invite { reads: Some(vec!["notes".into()]), writes: Some(vec![]), ..invite("writer") };
    for (name, code) in [("narrow", served.code(rights)), ("reader", served.code(invite("reader")))] {
        let tokens = served.enrol_by(name, code).await;
        let tablet = device();
        served.sync(&tablet, access(&tokens)).await.1.unwrap();
        assert_eq!(tablet.get("secret", "1").unwrap().is_some(), name == "reader");
        assert!(tablet.get("notes", "1").unwrap().is_some());
        tablet.put("notes", name, json!({}), &app()).unwrap();
        let (peer, outcome) = served.sync(&tablet, access(&tokens)).await;
        outcome.unwrap();
        let refusals = peer.unwrap().take_refusals();
        assert_eq!(refusals.iter().map(|refusal| &*refusal.code).collect::<Vec<_>>(), ["permission"]);
        assert!(served.ledger.get("notes", name).unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stamps_under_the_writer_of_another_device() {
    let served = Served::start().await;
    served.ledger.put("notes", "0", json!({}), &app()).unwrap();
    let tokens = [served.enrol("tablet", "writer").await, served.enrol("phone", "writer").await];
    let (tablet, phone) = (device(), device());
    served.sync(&tablet, access(&tokens[0])).await.1.unwrap();
    tablet.put("notes", "of tablet", json!({}), &app()).unwrap();
    // The phone brings what the tablet made, as if it had made it.
    phone.pull(&tablet).unwrap();
    let (peer, outcome) = served.sync(&phone, access(&tokens[1])).await;
    outcome.unwrap();
    let codes: Vec<_> = peer.unwrap().take_refusals().into_iter().map(|refusal| refusal.code).collect();
    assert_eq!(codes, ["consistency"]);
    served.sync(&tablet, access(&tokens[0])).await.1.unwrap();
    assert!(served.ledger.get("notes", "of tablet").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_a_writer_is_outlives_the_server() {
    let store = Store::in_memory(Options::default()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    ledger.put("notes", "0", json!({}), &app()).unwrap();
    let (tablet, phone) = (device(), device());
    let served = Served::start_on(store.clone(), ledger.clone()).await;
    let tokens = served.enrol("tablet", "writer").await;
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    tablet.put("notes", "of tablet", json!({}), &app()).unwrap();
    phone.pull(&tablet).unwrap();

    let served = Served::start_on(store, ledger).await;
    let tokens = served.enrol("phone", "writer").await;
    let (peer, outcome) = served.sync(&phone, access(&tokens)).await;
    outcome.unwrap();
    assert_eq!(peer.unwrap().take_refusals().len(), 1);
}

/// A session of a device over requests, until it has ended.
async fn over_requests(served: &Served, token: &str, device: &Ledger) {
    let mut peer = device.session(&SessionOptions::default()).unwrap();
    let (mut said, mut name) = (peer.begin(), None::<String>);
    while !peer.is_ended() {
        let mut body = Vec::new();
        for message in std::mem::take(&mut said) {
            let bytes = peer.encode(message).unwrap();
            body.extend((bytes.len() as u32).to_le_bytes());
            body.extend(bytes);
        }
        let path = if body.is_empty() { "pull?wait=5" } else { "push" };
        let mut request = served.http.post(format!("{}/v1/sync/{path}", served.url)).bearer_auth(token).body(body);
        if let Some(name) = &name {
            request = request.header("sync-session", name);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        name = Some(answer.headers()["sync-session"].to_str().unwrap().to_owned());
        let bytes = answer.bytes().await.unwrap();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (message, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            let message = peer.decode(message).unwrap();
            said.extend(peer.hear(message));
            rest = after;
        }
    }
    peer.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_over_requests_comes_to_the_same() {
    let served = Served::start().await;
    for n in 0..3_000 {
        served.ledger.put("notes", &n.to_string(), json!({ "n": n }), &app()).unwrap();
    }
    let tokens = served.enrol("tablet", "writer").await;
    let [tablet, phone] = [device(), device()];
    over_requests(&served, access(&tokens), &tablet).await;
    tablet.put("notes", "mine", json!({}), &app()).unwrap();
    over_requests(&served, access(&tokens), &tablet).await;
    assert!(served.ledger.get("notes", "mine").unwrap().is_some());
    let others = served.enrol("phone", "writer").await;
    served.sync(&phone, access(&others)).await.1.unwrap();
    assert_eq!(tablet.digest().unwrap(), phone.digest().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_over_requests_is_its_device_s_alone_and_the_oldest_of_many_ends() {
    let served = Served::start().await;
    let tokens = [served.enrol("tablet", "writer").await, served.enrol("phone", "writer").await];
    let push = |token: &str| served.http.post(format!("{}/v1/sync/push", served.url)).bearer_auth(token);
    let begun = push(access(&tokens[0])).send().await.unwrap();
    let name = begun.headers()["sync-session"].to_str().unwrap().to_owned();
    for (token, status) in [(&tokens[0], 200), (&tokens[1], 404)] {
        let answer = push(access(token)).header("sync-session", &name).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    for body in [&b"\x01"[..], b"\xff\xff\xff\xffx", b"\x05\0\0\0abc"] {
        assert_eq!(problem(push(access(&tokens[1])).body(body).send().await.unwrap()).await.1, "client");
    }
    let many = (0..4).map(|_| push(access(&tokens[0])).send());
    let answers = futures_util::future::join_all(many).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
    let ended = push(access(&tokens[0])).header("sync-session", &name).send().await.unwrap();
    assert_eq!(problem(ended).await, (404, "not_found".into()), "the oldest of too many ends");
    let huge = push(access(&tokens[1])).body(vec![0; 17 << 20]).send().await;
    assert!(huge.map_or(true, |answer| answer.status() == 413));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_end_their_session_and_nothing_else() {
    let served = Served::start().await;
    served.ledger.put("notes", "1", json!({}), &app()).unwrap();
    let tokens = served.enrol("tablet", "writer").await;
    let frames = [
        Frame::Binary(vec![].into()),
        Frame::Binary(vec![0xff; 64].into()),
        Frame::Binary([vec![6], vec![0x7f; 4_000]].concat().into()),
        Frame::Text("hello".into()),
        Frame::Close(None),
    ];
    for frame in frames {
        let mut socket = open_socket(&served.url, access(&tokens)).await.unwrap();
        socket.send(frame.clone()).await.unwrap();
        let ended = async { while socket.next().await.is_some_and(|came| came.is_ok()) {} };
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap_or_else(|_| panic!("{frame:?}"));
    }
    let tablet = device();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    assert!(tablet.get("notes", "1").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_tells_its_sessions_and_finishes() {
    let mut served = Served::start().await;
    let tokens = served.enrol("tablet", "writer").await;
    let (url, token, tablet) = (served.url.clone(), access(&tokens).to_owned(), device());
    let only = Some(Filter::of(["notes"]));
    let follows = SessionOptions { follows: true, wants: only, ..SessionOptions::default() };
    let session = tokio::spawn(async move { over_socket(&url, &token, &tablet, follows).await.1 });
    tokio::time::sleep(Duration::from_millis(200)).await;
    served.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), session).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
}
