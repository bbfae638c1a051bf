//! A device with conditions on records sees nothing of the others: only `$devices` can say them.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use crate::Store;
use crate::ledger::{Act, Context, Ledger, Options, Write};
use crate::replication::Filter;
use crate::server::{Invite, Server};

struct Office {
    server: Server,
    ledger: Ledger,
    token: String,
}

impl Office {
    /// An office with a device that sees only the issues of ann.
    fn new(role: &str) -> Self {
        let store = Store::in_memory(Options::default()).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        let server = Server::new(store).unwrap();
        let invite = Invite {
            name: "ann".to_owned(),
            role: role.to_owned(),
            source: "app".to_owned(),
            device: None,
            reads: None,
            writes: None,
            valid_ms: 60_000,
        };
        let code = server.invite(&ledger, invite).unwrap().code;
        let tokens = server.0.access.enrol(&code, "ann", None, |_| Ok(ledger.clone()), server.now_ms()).unwrap();
        let filter = Filter::of(["issues"]).and_where("issues", "/owner", &[json!("ann")]);
        let rights = Act::Patch(json!({ "reads": filter }));
        let own = Context::from_source("syncledger");
        ledger.write_own(vec![Write::new("$devices", "ann", rights)], &own).unwrap();
        let context = Context::from_source("app");
        for (key, owner) in [("1", "ann"), ("2", "ravi"), ("3", "ann"), ("4", "ravi"), ("5", "ann")] {
            ledger.put("issues", key, json!({ "owner": owner, "n": 0 }), &context).unwrap();
        }
        ledger.put("secrets", "1", json!({ "owner": "ann" }), &context).unwrap();
        Self { server, ledger, token: tokens.access }
    }

    async fn ask(&self, method: &str, path: &str, body: Json) -> (StatusCode, String, Option<String>) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", self.token));
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let response = self.server.router().oneshot(request).await.unwrap();
        let cursor = response.headers().get("next-cursor").map(|cursor| cursor.to_str().unwrap().to_owned());
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap(), cursor)
    }

    async fn status(&self, method: &str, path: &str, body: Json) -> u16 {
        self.ask(method, path, body).await.0.as_u16()
    }

    async fn json(&self, path: &str) -> Json {
        let (status, text, _) = self.ask("GET", path, Json::Null).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Edits a record apart on one base.
    fn dispute(&self, key: &str) {
        let heads = self.ledger.get("issues", key).unwrap().unwrap().heads;
        for n in [1, 2] {
            let write = Write::new("issues", key, Act::Patch(json!({ "n": n }))).on(heads.clone());
            self.ledger.write(write, &Context::from_source("app")).unwrap();
        }
    }
}

fn run(work: impl AsyncFnOnce()) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work());
}

#[test]
fn a_record_that_a_device_may_not_read_is_not_there() {
    run(async || {
        let office = Office::new("writer");
        assert_eq!(office.status("GET", "/v1/records/issues/1", Json::Null).await, 200);
        for path in ["/v1/records/issues/2", "/v1/records/secrets/1", "/v1/records/$devices/ann"] {
            for below in ["", "?as_of=1", "/history", "/diff?from=1&to=9", "/blame"] {
                assert_eq!(office.status("GET", &format!("{path}{below}"), Json::Null).await, 404, "{path}{below}");
            }
            for (method, below) in [("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/undelete")] {
                let body = json!({ "n": 1 });
                assert_eq!(
                    office.status(method, &format!("{path}{below}"), body).await,
                    404,
                    "{method} {path}{below}"
                );
            }
        }
        let batch = json!({ "op": "put", "collection": "issues", "key": "2", "path": "/n", "value": 1 });
        assert_eq!(office.status("POST", "/v1/batch", batch).await, 404);
        assert_eq!(office.ledger.get("issues", "2").unwrap().unwrap().value["n"], 0);
        // A record that is moved out of sight is gone with its past.
        office.ledger.patch("issues", "1", json!({ "owner": "ravi" }), &Context::from_source("app")).unwrap();
        assert_eq!(office.status("GET", "/v1/records/issues/1?as_of=2", Json::Null).await, 404);
    });
}

#[test]
fn lists_events_and_conflicts_leave_out_what_a_device_may_not_read() {
    run(async || {
        let office = Office::new("writer");
        let page = office.json("/v1/records/issues?limit=2").await;
        let keys =
            |page: &Json| page["records"].as_array().unwrap().iter().map(|r| r["key"].clone()).collect::<Vec<_>>();
        assert_eq!((keys(&page), &page["next"]), (vec![json!("1"), json!("3")], &json!("3")));
        let page = office.json("/v1/records/issues?limit=2&after=3").await;
        assert_eq!((keys(&page), &page["next"]), (vec![json!("5")], &Json::Null));
        assert_eq!(office.status("GET", "/v1/records/secrets", Json::Null).await, 404);

        let (_, lines, cursor) = office.ask("GET", "/v1/events", Json::Null).await;
        let seen: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(seen.iter().map(|event| event["key"].clone()).collect::<Vec<_>>(), ["1", "3", "5"]);
        assert_eq!(cursor, Some(office.ledger.position().to_string()), "the cursor passes what was left out");
        assert_eq!(office.status("GET", "/v1/events?collection=secrets", Json::Null).await, 404);

        office.dispute("1");
        office.dispute("2");
        let found = office.json("/v1/conflicts").await;
        assert_eq!(found["conflicts"].as_array().unwrap().len(), 1);
        assert_eq!(found["conflicts"][0]["key"], "1");
        let all = office.ledger.conflicts(None, Default::default(), None).unwrap();
        let hidden = all.iter().find(|found| found.key == "2").unwrap().conflict.id;
        assert_eq!(office.status("GET", &format!("/v1/conflicts/{hidden}"), Json::Null).await, 404);
        let settle = json!({ "candidate": 1 });
        assert_eq!(office.status("POST", &format!("/v1/conflicts/{hidden}/resolve"), settle).await, 404);
        let tried = office.ask("POST", "/v1/policies/issues/try", json!("first_write_wins")).await;
        assert!(tried.1.contains("\"key\":\"1\"") && !tried.1.contains("\"key\":\"2\""), "{}", tried.1);
        let digest = office.json("/v1/digest").await;
        assert_eq!(digest["collections"].as_object().unwrap().keys().collect::<Vec<_>>(), Vec::<&String>::new());
    });
}

#[test]
fn a_change_that_a_device_sees_only_a_part_of_is_not_taken_back_by_it() {
    run(async || {
        let office = Office::new("writer");
        let context = Context::from_source("app");
        let both = office.ledger.batch(&context, |batch| {
            batch.patch("issues", "1", json!({ "n": 5 })).patch("issues", "2", json!({ "n": 5 }));
        });
        let target = json!({ "run": both.unwrap().run.unwrap().to_string() });
        assert_eq!(office.status("POST", "/v1/revert", target).await, 403);
        let hidden = office.ledger.patch("issues", "2", json!({ "n": 6 }), &context).unwrap().events[0].0;
        assert_eq!(office.status("POST", "/v1/revert", json!({ "event": hidden.to_string() })).await, 404);
        assert_eq!(office.ledger.get("issues", "1").unwrap().unwrap().value["n"], 5);
    });
}
