//! Backups on the command line, and the program in Python that reads them by the documentation alone.

use std::process::Command;

use serde_json::Value as Json;

use crate::cli::Bench;

/// A store with each kind of edit, two sources, a conflict settled, a batch, a large value.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.ok([
        "put",
        "issues",
        "EE-1",
        r#"{"title":"Crasé 🦀","n":1.5,"big":18446744073709551615,"o":{},"l":[1,null]}"#,
    ]);
    let patch = r#"{"title":"Crash","gone":null}"#;
    let why = ["--principal", "ann", "-m", "asked", "--idempotency-key", "r-1", "--occurred-at", "1617238347109"];
    bench.ok([&["patch", "issues", "EE-1", patch][..], &why].concat());
    let large = bench.file("large.json", format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000)));
    bench.ok(["put", "notes", "large", &format!("@{large}")]);
    let lines = [
        r#"{"op":"put","collection":"issues","key":"EE-2","value":{"a":true,"b":-7}}"#,
        r#"{"op":"make_list","collection":"issues","key":"EE-2","path":"/l"}"#,
        r#"{"op":"insert","collection":"issues","key":"EE-2","path":"/l","index":0,"value":"a"}"#,
        r#"{"op":"make_text","collection":"issues","key":"EE-2","path":"/t"}"#,
        r#"{"op":"splice_text","collection":"issues","key":"EE-2","path":"/t","index":0,"delete":0,"insert":"né"}"#,
        r#"{"op":"set_add","collection":"issues","key":"EE-2","path":"/s","member":"m"}"#,
        r#"{"op":"increment","collection":"issues","key":"EE-2","path":"/c","by":-3}"#,
        r#"{"op":"delete","collection":"notes","key":"large"}"#,
    ];
    bench.ok(["batch", &bench.file("batch.ndjson", lines.join("\n"))]);
    bench.ok(["undo"]);
    bench
}

fn lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn object(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

const ALL: [&[&str]; 8] = [
    &["--json", "log"],
    &["--json", "list", "issues"],
    &["--json", "list", "notes", "--deleted"],
    &["--json", "get", "issues", "EE-1"],
    &["--json", "history", "issues", "EE-1"],
    &["--json", "blame", "issues", "EE-2"],
    &["--json", "conflicts", "--status", "all"],
    &["--json", "digest"],
];

fn answers(bench: &Bench, store: &str) -> Vec<String> {
    ALL.iter().map(|args| bench.ok([&["--store", store], *args].concat())).collect()
}

#[test]
fn a_store_goes_into_a_file_and_comes_back_the_same_in_every_reading_command() {
    let bench = filled();
    let made = object(&bench.ok(["--json", "backup", "one.slbk"]));
    let events = made["events"].as_u64().unwrap();
    assert_eq!((made["first_position"].as_u64(), made["last_position"].as_u64()), (Some(1), Some(events)));
    assert_eq!((made["file"].as_str(), made["blobs"].as_u64()), (Some("one.slbk"), Some(1)));
    let bytes = std::fs::metadata(bench.path("one.slbk")).unwrap().len();
    assert_eq!(made["bytes"].as_u64(), Some(bytes));
    let mut checked = object(&bench.ok(["--json", "verify", "one.slbk"]));
    assert_eq!(checked["ok"].take(), true);
    bench.ok(["put", "issues", "EE-3", "{}"]);
    let more = object(&bench.ok(["--json", "backup", "two.slbk", "--since", &events.to_string()]));
    assert_eq!(more["events"], 1);
    let restored = object(&bench.ok(["--store", "again", "--json", "restore", "two.slbk", "one.slbk"]));
    assert_eq!((restored["events"].as_u64(), restored["missing"].is_null()), (Some(events + 1), true));
    assert_eq!(answers(&bench, "again"), answers(&bench, "ledger"));
    assert_eq!(object(&bench.ok(["--store", "again", "--json", "verify"]))["ok"], true);
    // Pulled into a ledger of its own, and rebuilt from all files of a directory.
    bench.ok(["--store", "pulled", "init"]);
    let pulled = object(&bench.ok(["--store", "pulled", "--json", "pull", "one.slbk"]));
    assert_eq!(pulled["applied"].as_u64(), Some(events));
    bench.ok(["--json", "rebuild", "--from", ".", "--into", "rebuilt"]);
    assert_eq!(answers(&bench, "rebuilt"), answers(&bench, "ledger"));
}

#[test]
fn what_cannot_be_done_says_so_with_its_code() {
    let bench = filled();
    bench.ok(["backup", "one.slbk"]);
    let code = |args: &[&str]| {
        let run = bench.run([&["--json"], args].concat());
        assert_ne!(run.code, 0, "{args:?}");
        (run.code, object(run.err.lines().last().unwrap())["code"].as_str().unwrap().to_owned())
    };
    let is = |number: i32, text: &str| (number, text.to_owned());
    assert_eq!(code(&["backup", "one.slbk"]), is(1, "conflict"));
    assert_eq!(code(&["backup", "two.slbk", "--since", "999"]), is(1, "validation"));
    assert_eq!(code(&["restore", "one.slbk"]), is(1, "conflict"));
    assert_eq!(code(&["verify", "none.slbk"]), is(1, "not_found"));
    assert_eq!(code(&["verify", "large.json"]), is(1, "validation"));
    let whole = std::fs::read(bench.path("one.slbk")).unwrap();
    bench.file("cut.slbk", &whole[..whole.len() - 100]);
    assert_eq!(code(&["verify", "cut.slbk"]), is(5, "corrupt"));
    assert_eq!(code(&["--store", "new", "restore", "cut.slbk"]), is(5, "corrupt"));
    assert_eq!(code(&["--store", "new", "restore", "cut.slbk", "--partial"]), is(3, "partly_failed"));
    let mut newer = whole;
    newer[4] = 2;
    bench.file("newer.slbk", &newer);
    assert_eq!(code(&["verify", "newer.slbk"]), is(1, "upgrade_needed"));
    bench.ok(["--store", "other", "init"]);
    bench.ok(["--store", "other", "put", "a", "b", "{}"]);
    assert_eq!(code(&["--store", "other", "pull", "one.slbk"]), is(1, "ledger_mismatch"));
    assert_eq!(code(&["rebuild", "--from", "one.slbk", "--into", "ledger"]), is(2, "usage"));
}

#[test]
fn a_program_of_plain_python_prints_the_events_of_a_backup_as_the_log_does() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3 here");
        return;
    }
    let bench = filled();
    bench.ok(["--store", "jira", "init"]);
    let issues = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jira-issues.jsonl");
    let imported = bench.run(["--store", "jira", "import", "issues", issues, "--key-field", "/key"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/read_log.py");
    let python = |file: &str| Command::new("python3").arg(script).arg(bench.path(file)).output().unwrap();
    for store in ["ledger", "jira"] {
        let file = format!("{store}.slbk");
        bench.ok(["--store", store, "backup", &file, "--codec", "none"]);
        let read = python(&file);
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let log = lines(&bench.ok(["--store", store, "--json", "log"]));
        assert!(log.len() > 4, "{imported:?}");
        assert_eq!(lines(&String::from_utf8(read.stdout).unwrap()), log);
    }
    // It proves what it reads, and says what it cannot read.
    let mut changed = std::fs::read(bench.path("ledger.slbk")).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    bench.file("changed.slbk", &changed);
    assert!(!python("changed.slbk").status.success());
    bench.ok(["backup", "packed.slbk"]);
    let packed = python("packed.slbk");
    assert!(!packed.status.success() && String::from_utf8_lossy(&packed.stderr).contains("--codec none"));
}

#[test]
fn an_archive_takes_the_first_events_and_every_command_goes_on() {
    let bench = filled();
    let before = answers(&bench, "ledger");
    let made = bench.json(["archive", "--before", "4", "--to", "old"]);
    assert_eq!((made["events"].as_u64(), made["files"].as_array().map(Vec::len)), (Some(3), Some(1)));
    assert_eq!(made["log_begins"], 4);
    assert_eq!(answers(&bench, "ledger"), before);
    let file = made["files"][0].as_str().unwrap().to_owned();
    assert_eq!(bench.json(["verify", &file])["last_position"], 3);
    std::fs::rename(bench.path("old"), bench.path("moved")).unwrap();
    let missing = bench.refused(["log"], 1, "not_found");
    assert!(missing["message"].as_str().unwrap().contains("positions 1 to 3"), "{missing}");
    assert_eq!(bench.json(["get", "issues", "EE-1"])["key"], "EE-1");
    bench.json(["status"]);
    bench.refused(["archive", "--before", "6", "--to", "else"], 1, "validation");
    bench.json(["archive", "--at", "moved"]);
    assert_eq!(answers(&bench, "ledger"), before);
    bench.json(["backup", "rest.slbk", "--since", "3"]);
    let files = ["rebuild", "--from", "moved", "--from", "rest.slbk", "--into", "rebuilt"];
    bench.json(files);
    assert_eq!(answers(&bench, "rebuilt"), before);
    assert_eq!(bench.run(["archive", "--before", "6"]).code, 2);
}
