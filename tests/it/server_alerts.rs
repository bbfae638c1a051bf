//! What a server tells its operator of itself.

use std::time::Duration;

use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::ledger::{Context, Ledger, Options, Query, Store};
use syncledger::server::{
    AlertRules, AlertSettings, Invite, MailSink, MailTls, Period, Secret, Server, SlackSink, WebhookSink,
};

use crate::receivers::{Came, Receiver, mail_server};
use crate::served::{Served, access, invite, serve, text};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn app() -> Context {
    Context::from_source("app")
}

/// No rule but those that are set.
fn no_rules() -> AlertRules {
    AlertRules {
        failed_syncs: None,
        conflicts_per_hour: None,
        violations: None,
        free_share: None,
        device_silent: None,
        backup_age: None,
    }
}

fn settings(rules: AlertRules) -> AlertSettings {
    AlertSettings { every: Period::from_millis(20), rules, ..AlertSettings::default() }
}

fn hook(url: &str) -> WebhookSink {
    let (url, secret) = (Some(Secret::from(url)), Some(Secret::from(SECRET)));
    WebhookSink { name: "ops".into(), url, secret, ..WebhookSink::default() }
}

/// A ledger with a rule that `number` is a number, and a record that breaks it if asked to.
fn break_schema(ledger: &Ledger) {
    ledger.put("notes", "1", json!({ "number": "none" }), &app()).unwrap();
    let schema = json!({ "type": "object", "properties": { "number": { "type": "integer" } } });
    ledger.set_schema("notes", &schema, &app()).unwrap();
}

fn mend(ledger: &Ledger) {
    ledger.put("notes", "1", json!({ "number": 1 }), &app()).unwrap();
}

/// The alert of a key, once it is as wanted.
async fn alert(ledger: &Ledger, key: &str, is_wanted: impl Fn(&Json) -> bool) -> Json {
    for _ in 0..1_000 {
        if let Some(found) = ledger.get("$alerts", key).unwrap().filter(|found| is_wanted(&found.value)) {
            return found.value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not as wanted: {:?}", ledger.list("$alerts", &Query::default()).unwrap());
}

fn is_open(alert: &Json) -> bool {
    alert["state"] == "open"
}

/// Some rounds.
async fn rounds() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn served_store() -> (Store, Ledger) {
    let store = Store::in_memory(Options::default()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    (store, ledger)
}

fn kinds(came: &[Came]) -> Vec<String> {
    came.iter().map(|came| text(&came.json(), "type").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_schema_is_an_alert_that_is_told_once_signed_and_once_more_when_it_is_resolved() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = served_store();
    let rules = AlertRules { violations: Some(1), ..no_rules() };
    let settings = AlertSettings {
        link: Some("https://sync.example.org/".into()),
        webhooks: vec![hook(&url)],
        ..settings(rules)
    };
    let server = Server::new(store).unwrap().with_alerts(settings).unwrap();
    let _serving = serve(&server);
    rounds().await;
    assert!(receiver.came().is_empty() && ledger.list("$alerts", &Query::default()).unwrap().is_empty());

    break_schema(&ledger);
    let open = alert(&ledger, "violations:notes", |alert| alert["told"]["ops"]["state"] == "open").await;
    assert_eq!(
        (text(&open, "rule"), text(&open, "subject"), text(&open, "severity")),
        ("violations", "notes", "warning")
    );
    assert_eq!(open["link"], "https://sync.example.org/v1/records/%24alerts/violations%3Anotes");
    assert!(text(&open, "remedy").contains("syncledger violations"));
    rounds().await;
    let position = ledger.position();
    rounds().await;
    assert_eq!(ledger.position(), position, "an alert that stays open is not written again and again");

    mend(&ledger);
    let over = alert(&ledger, "violations:notes", |alert| alert["told"]["ops"]["state"] == "resolved").await;
    assert!(over["state"] == "resolved" && over["resolved_at"].is_string() && over["since"] == open["since"]);
    rounds().await;
    let came = receiver.came();
    assert_eq!(kinds(&came), ["syncledger.alert.opened", "syncledger.alert.resolved"]);
    let data = &came[0].json()["data"];
    assert_eq!((text(data, "ledger"), text(data, "alert"), &data["count"]), ("main", "violations:notes", &json!(1)));
    assert_eq!(came[0].header("content-type"), "application/json");
    assert!(came[0].header("webhook-id") != came[1].header("webhook-id"));
    assert_eq!(came[0].header("webhook-signature"), crate::server_webhooks::signed(&came[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_is_told_again_when_the_time_is_over_and_not_before_whatever_is_restarted() {
    let (receiver, url) = Receiver::start().await;
    let (store, ledger) = served_store();
    break_schema(&ledger);
    let rules = AlertRules { violations: Some(1), ..no_rules() };
    let with = |repeat| AlertSettings { webhooks: vec![hook(&url)], repeat, ..settings(rules.clone()) };
    for _ in 0..3 {
        let server = Server::new(store.clone()).unwrap().with_alerts(with(Period::from_hours(1))).unwrap();
        let serving = serve(&server);
        alert(&ledger, "violations:notes", |alert| alert["told"]["ops"]["state"] == "open").await;
        rounds().await;
        server.end();
        drop(serving);
        assert_eq!(receiver.came().len(), 1);
    }
    let server = Server::new(store).unwrap().with_alerts(with(Period::from_millis(100))).unwrap();
    let _serving = serve(&server);
    receiver.await_count(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_goes_to_slack_and_as_an_e_mail_and_one_that_fails_holds_up_no_other() {
    let (broken, broken_url) = Receiver::start().await;
    broken.answer(&[(302, None), (500, None)]);
    let (slack, slack_url) = Receiver::start().await;
    let (mails, port) = mail_server().await;
    let (store, ledger) = served_store();
    break_schema(&ledger);
    let mail = MailSink {
        name: "mail".into(),
        host: "127.0.0.1".into(),
        port: Some(port),
        tls: MailTls::None,
        from: "Ledger <ledger@example.org>".into(),
        to: vec!["ops@example.org".into(), "Ann <ann@example.org>".into()],
        ..MailSink::default()
    };
    let url = Some(Secret::from(slack_url.as_str()));
    let settings = AlertSettings {
        webhooks: vec![hook(&broken_url)],
        slacks: vec![SlackSink { name: "slack".into(), url, ..SlackSink::default() }],
        mails: vec![mail],
        ..settings(AlertRules { violations: Some(1), ..no_rules() })
    };
    let server = Server::new(store).unwrap().with_alerts(settings).unwrap();
    let _serving = serve(&server);
    let told = |name: &'static str| move |alert: &Json| alert["told"][name]["state"] == "open";
    alert(&ledger, "violations:notes", told("slack")).await;
    alert(&ledger, "violations:notes", told("mail")).await;
    rounds().await;
    let came = slack.came();
    assert_eq!(came.len(), 1);
    assert!(
        came[0].json()["text"]
            .as_str()
            .unwrap()
            .starts_with("[main] the schema of `notes` is broken 1 times\nSince 2")
    );
    let mails = mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    for part in [
        "From: Ledger <ledger@example.org>",
        "ops@example.org, Ann <ann@example.org>",
        "Subject: [main] the schema of",
        "What to do:",
    ] {
        assert!(mails[0].contains(part), "{part}\n{}", mails[0]);
    }
    // The first was answered with another address, which nobody has gone to, and has to wait.
    assert_eq!(broken.came().len(), 1);
    assert!(ledger.get("$alerts", "violations:notes").unwrap().unwrap().value["told"].get("ops").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_syncs_fail_in_a_row_is_an_alert_until_one_goes_well() {
    let (store, ledger) = served_store();
    let rules = AlertRules { failed_syncs: Some(2), ..no_rules() };
    let served = Served::set_up(store, ledger, |server| server.with_alerts(settings(rules)).unwrap()).await;
    served.ledger.put("notes", "1", json!({}), &app()).unwrap();
    let tokens = served.enrol("tablet", "writer").await;
    let other = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    other.put("notes", "1", json!({}), &app()).unwrap();
    for _ in 0..2 {
        served.sync(&other, access(&tokens)).await.1.unwrap_err();
    }
    let open = alert(&served.ledger, "failed_syncs:tablet", is_open).await;
    assert!(text(&open, "error").contains("ledger") && open["severity"] == "critical");
    let tablet = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    served.sync(&tablet, access(&tokens)).await.1.unwrap();
    alert(&served.ledger, "failed_syncs:tablet", |alert| alert["state"] == "resolved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_here_and_is_not_heard_of_any_more_is_an_alert_and_one_that_never_came_is_none() {
    let (store, ledger) = served_store();
    let rules = AlertRules { device_silent: Some(Period::from_millis(700)), ..no_rules() };
    let served = Served::set_up(store, ledger, |server| server.with_alerts(settings(rules)).unwrap()).await;
    let tokens = served.enrol("tablet", "writer").await;
    served.enrol("never-came", "writer").await;
    let looks = || served.http.get(format!("{}/v1/records/notes", served.url)).bearer_auth(access(&tokens)).send();
    for _ in 0..10 {
        assert_eq!(looks().await.unwrap().status(), 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A stream that is open is being heard of.
    let stream = served.http.get(format!("{}/v1/events/stream", served.url)).bearer_auth(access(&tokens)).send();
    let stream = stream.await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(served.ledger.list("$alerts", &Query::default()).unwrap().is_empty());
    drop(stream);
    alert(&served.ledger, "device_silent:tablet", is_open).await;
    assert_eq!(looks().await.unwrap().status(), 200);
    alert(&served.ledger, "device_silent:tablet", |alert| alert["state"] == "resolved").await;
    assert!(served.ledger.get("$alerts", "device_silent:never-came").unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_an_old_backup_and_many_conflicts_are_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ledger = store.create_ledger("main").unwrap();
    ledger.put("notes", "1", json!({ "a": 0 }), &app()).unwrap();
    let other = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    other.pull(&ledger).unwrap();
    ledger.put("notes", "1", json!({ "a": 1 }), &app()).unwrap();
    other.put("notes", "1", json!({ "a": 2 }), &app()).unwrap();
    let rules = AlertRules {
        conflicts_per_hour: Some(1),
        free_share: Some(1.1),
        backup_age: Some(Period::from_hours(1)),
        ..no_rules()
    };
    let server = Server::new(store).unwrap().with_alerts(settings(rules)).unwrap();
    let _serving = serve(&server);
    alert(&ledger, "storage_full:store", is_open).await;
    assert!(ledger.get("$alerts", "backup_old:store").unwrap().is_none(), "nobody makes backups");
    ledger.pull(&other).unwrap();
    alert(&ledger, "conflict_rate:conflicts", is_open).await;
    server.backup_made(1_000);
    alert(&ledger, "backup_old:store", is_open).await;
    server.backup_made(i64::MAX);
    alert(&ledger, "backup_old:store", |alert| alert["state"] == "resolved").await;
    server.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_read_alerts_and_writers_do_not() {
    let (store, ledger) = served_store();
    break_schema(&ledger);
    let rules = AlertRules { violations: Some(1), ..no_rules() };
    let served = Served::set_up(store, ledger, |server| server.with_alerts(settings(rules)).unwrap()).await;
    let open = alert(&served.ledger, "violations:notes", is_open).await;
    for (role, status) in [("operator", 200), ("writer", 404)] {
        let tokens = served.enrol_by(role, served.code(Invite { name: role.into(), ..invite(role) })).await;
        let link = format!("{}{}", served.url, text(&open, "link"));
        let answer = served.http.get(link).bearer_auth(access(&tokens)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{role}");
    }
}

#[test]
fn a_server_does_not_start_with_somebody_who_cannot_be_told() {
    let (store, _ledger) = served_store();
    let plain = AlertSettings { webhooks: vec![hook("http://ops.example.org/TOKEN")], ..AlertSettings::default() };
    let fault = Server::new(store).unwrap().with_alerts(plain).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Validation);
    assert!(fault.message().contains("`ops`") && !fault.to_string().contains("TOKEN"));
}
