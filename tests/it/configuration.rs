//! The settings of the server: files, the environment, flags.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value as Json, json};

use super::cli::{Bench, Run};

/// What `config explain` says of each setting.
fn explained(bench: &Bench, args: &[&str], environment: &[(&str, &str)]) -> BTreeMap<String, (Json, Json)> {
    let mut command = bench.command(["config", "explain", "--json"].iter().chain(args));
    let run = Run::of(&command.envs(environment.iter().copied()).output().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
    let rows = run.lines().into_iter();
    rows.map(|row| (row["setting"].as_str().unwrap().to_owned(), (row["value"].clone(), row["origin"].clone())))
        .collect()
}

#[test]
fn each_setting_comes_from_the_last_that_says_it_default_file_environment_flag() {
    let bench = Bench::empty();
    let text = "# A server.\nlisten: 127.0.0.1:1\nstore: there\nlimits:\n  device:\n    per_second: 7\nmin_app_version: 2.10\n\
                quotas:\n  default: {events: 5, bytes: 20GiB}\n  acme: {devices: 3}\nbackup: {dir: copies, every: 90m}\n";
    let file = bench.file("srv.yaml", text);
    let environment =
        [("SYNCLEDGER_LISTEN", "127.0.0.1:2"), ("SYNCLEDGER_BACKUP_KEEP", "3"), ("SYNCLEDGER_LOG_FORMAT", "")];
    let found = explained(&bench, &["--config", &file, "--listen", "127.0.0.1:3"], &environment);
    let line = |line: u64| json!({ "from": "file", "file": "srv.yaml", "line": line });
    for (setting, value, origin) in [
        ("listen", json!("127.0.0.1:3"), json!({ "from": "flag", "name": "--listen" })),
        ("store", json!("there"), line(3)),
        ("limits.device.per_second", json!(7), line(6)),
        ("limits.device.at_once", json!(400), json!({ "from": "default" })),
        ("min_app_version", json!("2.10"), line(7)),
        ("quotas.default.bytes", json!("20GiB"), line(9)),
        ("quotas.acme.devices", json!(3), line(10)),
        ("backup.every", json!("90m"), line(11)),
        ("backup.keep", json!(3), json!({ "from": "environment", "name": "SYNCLEDGER_BACKUP_KEEP" })),
        ("logs.format", json!("text"), json!({ "from": "default" })),
    ] {
        assert_eq!(found[setting], (value, origin), "{setting}");
    }
    let without = explained(&bench, &["--config", &file], &environment);
    assert_eq!(without["listen"].1["from"], "environment");
    let stores = [("SYNCLEDGER_STORE", "elsewhere")];
    assert_eq!(explained(&bench, &["--config", &file], &stores)["store"].0, "elsewhere");
    let flag = explained(&bench, &["--config", &file, "--store", "./ledger"], &stores);
    assert_eq!(flag["store"], (json!("./ledger"), json!({ "from": "flag", "name": "--store" })));
    let named = explained(&bench, &[], &[("SYNCLEDGER_CONFIG", &file)]);
    assert_eq!(named["store"].0, "there");
    assert!(bench.ok(["config", "explain", "--config", &file]).contains("srv.yaml:3"));
}

#[test]
fn a_wrong_file_is_refused_with_its_place_what_was_expected_and_what_was_meant() {
    let bench = Bench::empty();
    for (text, place, says, hint) in [
        ("store: x\nlisen: 127.0.0.1:1\n", ":2:1", "unknown key `lisen`", "did you mean `listen`?"),
        ("limits:\n  device:\n    per_sec: 1\n", ":3:5", "unknown key `per_sec`", "did you mean `per_second`?"),
        ("cert: x.pem\n", ":1:1", "unknown key `cert`", "did you mean `tls.cert`?"),
        ("listen: nowhere\n", ":1:9", "expected an address such as 127.0.0.1:7171, got `nowhere`", ""),
        ("limits:\n  sessions: many\n", ":2:13", "expected a whole number", ""),
        ("limits:\n  sessions: 0\n", ":2:3", "expected a whole number from 1", ""),
        ("store: a\nstore: b\n", ":2:1", "each key once, got `store` again", ""),
        ("logs: {level: loud}\n", ":1:15", "expected one of off, error, warn", ""),
        ("logs: {format: jsn}\n", ":1:16", "got `jsn`", "did you mean `json`?"),
        ("backup: {dir: x, every: 90}\n", ":1:25", "expected a time such as 30s", ""),
        ("backup: {dir: x, every: tomorrow}\n", ":1:25", "expected a time such as 30s", ""),
        ("quotas: {default: {bytes: much}}\n", ":1:27", "expected a size such as 500MiB", ""),
        ("store: &a x\nledger: *a\n", ":", "", ""),
        ("store: x\n---\nstore: y\n", ":", "", ""),
        ("store: [x\n", ":", "", ""),
        ("- store\n", ":1:1", "expected", ""),
    ] {
        let file = bench.file("wrong.yaml", text);
        let error = bench.refused(["config", "check", &file], 2, "validation");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("wrong.yaml{place}")) && message.contains(says), "{text}\n{error}");
        assert!(hint.is_empty() || error["hint"].as_str() == Some(hint), "{text}\n{error}");
        bench.refused(["serve", "--config", &file], 2, "validation");
    }
    assert!(!bench.path("ledger").exists(), "a server with wrong settings makes nothing");
    bench.refused(["config", "check", "none.yaml"], 2, "not_found");
    bench.file("bytes.yaml", [0xff, 0xfe, 0x00]);
    bench.refused(["config", "check", "bytes.yaml"], 2, "validation");
    let deep = bench.file("deep.yaml", "[".repeat(100_000));
    bench.refused(["config", "check", &deep], 2, "validation");
    let long = bench.file("long.yaml", "#".repeat(2 << 20));
    bench.refused(["config", "check", &long], 2, "too_large");
}

#[test]
fn settings_that_need_each_other_are_there_together_wherever_they_come_from() {
    let bench = Bench::empty();
    let half = bench.file("half.yaml", "tls:\n  cert: a.pem\n");
    let error = bench.refused(["config", "check", &half], 2, "validation");
    assert!(error["message"].as_str().unwrap().contains("expected tls.key beside tls.cert (half.yaml:2)"), "{error}");
    let mut command = bench.command(["config", "check", &half]);
    let run = Run::of(&command.env("SYNCLEDGER_TLS_KEY", "b.pem").output().unwrap());
    assert_eq!(run.code, 0, "{run:?}");
    let aimless = bench.file("aimless.yaml", "backup: {every: 1h}\n");
    let error = bench.refused(["config", "check", &aimless], 2, "validation");
    assert!(error["message"].as_str().unwrap().contains("expected backup.dir"), "{error}");
    let empty = bench.file("empty.yaml", "# nothing yet\n");
    bench.ok(["config", "check", &empty]);
}

#[test]
fn a_wrong_variable_is_named_and_a_secret_in_the_wrong_place_is_not_repeated() {
    let bench = Bench::empty();
    let mut command = bench.command(["config", "explain", "--json"]);
    let run = Run::of(&command.env("SYNCLEDGER_BACKUP_EVERY", "often").output().unwrap());
    let error = run.error();
    assert_eq!((run.code, &error["code"]), (2, &json!("validation")));
    assert!(error["message"].as_str().unwrap().starts_with("environment SYNCLEDGER_BACKUP_EVERY"), "{error}");
    let file = bench.file("secret.yaml", "limits: hunter2\n");
    let run = bench.run(["config", "check", &file]);
    assert!(run.code == 2 && !run.err.contains("hunter2"), "{run:?}");
}

#[test]
fn a_server_runs_with_its_file_and_logs_json() {
    let bench = Bench::empty();
    let text = "listen: 127.0.0.1:0\nstore: there\nledger: acme\nlogs: {format: json, level: info}\n";
    let file = bench.file("srv.yaml", text);
    let mut command = bench.command(["serve", "--config", &file, "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("{\"listening\":\"http://").unwrap().trim_end_matches("\"}").to_owned();
    bench.json(["--store", "there", "--ledger", "acme", "device", "create", "--name", "tablet"]);
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut asked = TcpStream::connect(address).unwrap();
    asked
        .write_all(b"GET /v1/records/secret-notes?x=hidden HTTP/1.1\r\nhost: x\r\nauthorization: Bearer hidden.token\r\n\r\n")
        .unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap());
    let told = lines.into_iter().find(|line| line["message"] == "request").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(bench.path("there").exists() && !bench.path("ledger").exists());
    assert_eq!((&told["method"], &told["status"], &told["level"]), (&json!("GET"), &json!(401), &json!("INFO")));
    assert_eq!(told["route"], "/v1/records/{collection}");
    assert!(told["ms"].is_u64() && told["timestamp"].is_string(), "{told}");
    assert!(!told.to_string().contains("hidden") && !told.to_string().contains("secret-notes"), "{told}");
}

#[test]
fn alerts_and_webhooks_are_settings_of_the_file_and_their_secrets_are_not_shown() {
    let bench = Bench::empty();
    let text = "alerts:\n  rules: {device_silent: 12h}\n  slacks:\n    - {name: slack, url: https://hooks.example/T0/abc}\n\
                webhooks:\n  - name: shop\n    url: https://shop.example/in\n    secret: whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\n";
    let file = bench.file("srv.yaml", text);
    let found = explained(&bench, &["--config", &file, "--listen", "127.0.0.1:3"], &[]);
    assert_eq!(found["alerts.rules.device_silent"].0, "12h");
    assert_eq!(found["webhooks.0.name"], (json!("shop"), json!({ "from": "file", "file": "srv.yaml", "line": 6 })));
    let shown = format!("{found:?}");
    assert!(!shown.contains("whsec_") && !shown.contains("T0/abc") && shown.contains("shop.example"), "{shown}");
    for (text, says) in [
        ("alerts:\n  rules: {device_silnt: 12h}\n", "unknown key `device_silnt`"),
        ("webhooks:\n  - name: shop\n    batches: 3\n", "unknown key `batches`"),
        ("alerts: {every: soon}\n", "expected a time such as 30s"),
        ("alerts: [1]\n", "expected keys with values"),
        ("webhooks: {name: shop}\n", "expected a list"),
        ("webhooks: [{name: a b}]\n", "expected a name of a webhook"),
        ("webhooks: [{name: shop, url: \"http://10.0.0.1/x\"}]\n", "shop"),
        ("alerts: {slacks: [{name: slack, url_file: nowhere}]}\n", "nowhere"),
    ] {
        let file = bench.file("wrong.yaml", text);
        let run = bench.run(["config", "check", &file]);
        assert!(run.code == 2 && run.err.contains(says), "{run:?}");
        let run = bench.run(["serve", "--listen", "127.0.0.1:0", "--config", &file]);
        assert!(run.code == 2 && run.err.contains(says), "{run:?}");
    }
}
