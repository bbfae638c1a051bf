//! Every command of the command line, as programs use it and as people see it.

use serde_json::{Value as Json, json};

use crate::cli::{Bench, Run, assert_fields, column, event};

/// One record, edited apart by jira and app.
fn disputed() -> (Bench, Bench) {
    let office = Bench::new();
    office.ok(["put", "issues", "A-1", r#"{"status":"open","title":"x"}"#, "--source", "jira"]);
    let laptop = office.replica();
    let jira = ["--source", "jira", "--principal", "Mona", "--occurred-at", "2020-01-02T00:00:00Z"];
    let app = ["--source", "app", "--principal", "Ravi", "--occurred-at", "2020-01-01T00:00:00Z"];
    office.ok([&["patch", "issues", "A-1", r#"{"status":"done"}"#], &jira[..]].concat());
    laptop.ok([&["patch", "issues", "A-1", r#"{"status":"blocked"}"#], &app[..]].concat());
    office.pull(&laptop);
    laptop.pull(&office);
    (office, laptop)
}

#[test]
fn init_makes_a_store_and_says_so_twice_alike() {
    let bench = Bench::empty();
    let first = bench.json(["init"]);
    assert_fields(&first, "store ledger id writer");
    assert_eq!(first["ledger"], "main");
    assert_eq!(bench.json(["init"]), first);
}

#[test]
fn a_ledger_is_created_listed_used_and_dropped() {
    let bench = Bench::new();
    let made = bench.json(["ledger", "create", "second"]);
    assert_fields(&made, "store ledger id writer");
    let listed = bench.lines(["ledger", "list"]);
    assert_eq!(column(&listed, "/ledger"), ["main", "second"]);
    bench.ok(["--ledger", "second", "put", "c", "k", r#"{"a":1}"#]);
    bench.refused(["get", "c", "k"], 1, "not_found");
    bench.refused(["ledger", "drop", "second"], 2, "usage");
    bench.ok(["ledger", "drop", "second", "--yes"]);
    bench.refused(["--ledger", "second", "get", "c", "k"], 1, "not_found");
    bench.refused(["ledger", "create", "main"], 1, "conflict");
}

#[test]
fn put_get_patch_delete_and_undelete_tell_one_record() {
    let bench = Bench::new();
    let put = bench.json(["put", "c", "k", r#"{"a":{"b":1},"t":"x"}"#]);
    assert_eq!((&put["status"], &put["events"][0]["position"]), (&json!("appended"), &json!(1)));
    assert_eq!(bench.json(["put", "c", "k", r#"{"t":"x","a":{"b":1}}"#])["status"], "unchanged");
    bench.ok(["patch", "c", "k", r#"{"a":{"b":null,"c":2}}"#]);
    bench.ok(["patch", "c", "k", "--set", "/n=null", "--set", r#"/t="y""#]);
    let record = bench.json(["get", "c", "k"]);
    assert_fields(&record, "collection key value deleted heads conflicts");
    assert_eq!(record["value"], json!({ "a": { "c": 2 }, "n": null, "t": "y" }));
    assert_eq!(bench.json(["get", "c", "k", "/a/c"])["value"], 2);
    bench.refused(["get", "c", "k", "/a/b"], 1, "not_found");
    bench.ok(["delete", "c", "k"]);
    assert_eq!(bench.json(["get", "c", "k"])["deleted"], true);
    bench.refused(["patch", "c", "k", "{}"], 1, "not_found");
    bench.ok(["undelete", "c", "k"]);
    assert_eq!(bench.json(["get", "c", "k"])["value"], record["value"]);
}

#[test]
fn json_comes_from_the_argument_a_file_or_stdin() {
    let bench = Bench::new();
    let file = bench.file("a.json", r#"{"a":1}"#);
    bench.ok(["put", "c", "1", &format!("@{file}")]);
    assert_eq!(bench.run_with(["put", "c", "2", "-"], br#"{"a":2}"#).code, 0);
    bench.ok(["patch", "c", "2", "--set", &format!("/b=@{file}")]);
    assert_eq!(bench.json(["get", "c", "2"])["value"], json!({ "a": 2, "b": { "a": 1 } }));
    assert_eq!(bench.json(["get", "c", "1"])["value"], json!({ "a": 1 }));
}

#[test]
fn who_when_and_why_stand_in_the_log() {
    let bench = Bench::new();
    let put = bench.json([
        "put",
        "c",
        "k",
        r#"{"a":1}"#,
        "--source",
        "jira",
        "--principal",
        "Ada",
        "-m",
        "because",
        "--occurred-at",
        "2021-04-01T08:52:27.109+0800",
    ]);
    let entry = bench.json(["log"]);
    assert_fields(
        &entry,
        "position event collection key writer sequence lane nth parents at occurred_at received_at source principal \
         reason run batch ops",
    );
    assert_eq!(entry["event"], event(&put));
    assert_eq!(entry["occurred_at"], "2021-04-01T00:52:27.109Z");
    assert_eq!([&entry["source"], &entry["principal"], &entry["reason"]], ["jira", "Ada", "because"]);
    assert_eq!(entry["ops"], json!([{ "op": "put", "path": "/a", "value": 1 }]));
    let short = &event(&put)[..8];
    assert_eq!(bench.json(["show", short]), entry);
}

#[test]
fn an_idempotency_key_answers_twice_with_one_receipt() {
    let bench = Bench::new();
    let put = |value: &str| ["put", "c", "k", value, "--idempotency-key", "r1"].map(str::to_owned);
    let first = bench.json(put(r#"{"a":1}"#));
    let again = bench.json(put(r#"{"a":1}"#));
    assert_eq!((&again["status"], &again["events"]), (&json!("duplicate"), &first["events"]));
    bench.refused(put(r#"{"a":2}"#), 1, "idempotency_mismatch");
}

#[test]
fn an_edit_on_an_older_base_is_concurrent_and_expected_heads_are_checked() {
    let bench = Bench::new();
    let first = event(&bench.json(["put", "c", "k", r#"{"a":1}"#]));
    let second = event(&bench.json(["patch", "c", "k", r#"{"a":2}"#, "--expect", &first[..10]]));
    bench.refused(["patch", "c", "k", r#"{"a":3}"#, "--expect", &first], 1, "conflict");
    bench.ok(["patch", "c", "k", r#"{"b":3}"#, "--base", &first]);
    let record = bench.json(["get", "c", "k"]);
    assert_eq!(record["value"], json!({ "a": 2, "b": 3 }));
    assert_eq!(record["heads"].as_array().unwrap().len(), 2);
    assert!(record["heads"].as_array().unwrap().contains(&json!(second)));
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let bench = Bench::new();
    let planned = bench.json(["put", "c", "k", r#"{"a":1}"#, "--dry-run"]);
    assert_eq!(planned["writes"][0]["ops"], json!([{ "op": "put", "path": "/a", "value": 1 }]));
    bench.refused(["get", "c", "k"], 1, "not_found");
    let file = bench.file("two.jsonl", "{\"id\":1}\n{\"id\":2}\n{}\n");
    let run = bench.run(["import", "c", &file, "--key-field", "/id", "--dry-run", "--json"]);
    let [counts] = run.lines().try_into().unwrap();
    let expected = json!({ "dry_run": true, "read": 3, "created": 2, "updated": 0, "unchanged": 0, "failed": 1 });
    assert_eq!((run.code, &counts), (3, &expected));
    assert!(bench.lines(["log"]).is_empty());
    bench.ok(["put", "c", "k", r#"{"a":1}"#]);
    let put = event(&bench.json(["put", "c", "k", r#"{"a":2}"#]));
    let planned = json!([{ "collection": "c", "key": "k", "ops": [{ "op": "put", "path": "/a", "value": 1 }] }]);
    for args in [&["revert", &put[..12], "--dry-run"][..], &["undo", "--dry-run"]] {
        let would = bench.json(args);
        assert_eq!(
            (&would["status"], &would["writes"], &would["skipped"]),
            (&json!("planned"), &planned, &json!([]))
        );
        assert!(bench.ok(args).contains("nothing is written"));
    }
    assert_eq!(bench.lines(["log"]).len(), 2);
}

#[test]
fn an_event_whose_id_begins_with_digits_is_not_taken_for_a_position_beyond_the_log() {
    let bench = Bench::new();
    let lines: String = (0..400)
        .map(|n| format!("{{\"op\":\"put\",\"collection\":\"c\",\"key\":\"{n}\",\"value\":{{\"a\":1}}}}\n"))
        .collect();
    bench.ok(["batch", &bench.file("puts.jsonl", &lines)]);
    let is_number = |line: &&Json| line["event"].as_str().unwrap()[..6].bytes().all(|byte| byte.is_ascii_digit());
    let log = bench.lines(["log", "--limit", "400"]);
    let found = log.iter().find(|line| is_number(line) && line["event"].as_str().unwrap()[..6] > *"000999");
    let found = found.expect("one of four hundred ids begins so, but once in ten thousand million times");
    let (key, digits) = (found["key"].as_str().unwrap(), &found["event"].as_str().unwrap()[..6]);
    bench.ok(["put", "c", key, r#"{"a":2}"#]);
    assert_eq!(bench.json(["get", "c", key, "--as-of", digits])["value"], json!({ "a": 1 }), "{digits}");
    // A number that begins no event is a position, also one that is still to come.
    let none =
        (1_000_000..).map(|n| n.to_string()).find(|number| !found["event"].as_str().unwrap().starts_with(number));
    assert_eq!(bench.json(["get", "c", key, "--as-of", &none.unwrap()])["value"], json!({ "a": 2 }));
}

#[test]
fn a_record_is_seen_as_of_a_position_a_time_and_an_event() {
    let bench = Bench::new();
    let first = event(&bench.json(["put", "c", "k", r#"{"a":1}"#]));
    bench.ok(["put", "c", "k", r#"{"a":2}"#]);
    for moment in ["1", &first[..12], &first] {
        assert_eq!(bench.json(["get", "c", "k", "--as-of", moment])["value"], json!({ "a": 1 }), "{moment}");
    }
    assert_eq!(bench.json(["get", "c", "k", "--as-of", "2200-01-01T00:00:00Z"])["value"], json!({ "a": 2 }));
    bench.refused(["get", "c", "k", "--as-of", "2000-01-01T00:00:00Z"], 1, "not_found");
    bench.refused(["get", "c", "k", "--as-of", "soon"], 2, "usage");
    let changes = bench.lines(["diff", "c", "k", "--from", "1", "--to", "2"]);
    assert_eq!(changes, [json!({ "path": "/a", "before": 1, "after": 2 })]);
}

#[test]
fn collections_are_counted_and_records_listed_in_pages() {
    let bench = Bench::new();
    let lines: String = (0..300).map(|n| format!("{{\"id\":{n},\"odd\":{}}}\n", n % 2 == 1)).collect();
    let file = bench.file("r.jsonl", lines);
    bench.ok(["import", "c", &file, "--key-field", "/id"]);
    let collection = bench.json(["list"]);
    assert_eq!((&collection["collection"], &collection["records"]), (&json!("c"), &json!(300)));
    assert_eq!(bench.lines(["list", "c"]).len(), 300);
    assert_eq!(bench.lines(["list", "c", "--where", "/odd=true"]).len(), 150);
    let page = bench.lines(["list", "c", "--prefix", "1", "--limit", "2", "--after", "10"]);
    assert_eq!(column(&page, "/key"), ["100", "101"]);
    assert_fields(&page[0], "collection key value deleted heads conflicts");
    bench.ok(["patch", "c", "7", r#"{"x":1}"#]);
    bench.ok(["delete", "c", "8"]);
    assert_eq!(column(&bench.lines(["list", "c", "--changed-since", "300", "--deleted"]), "/key"), ["7", "8"]);
    assert_eq!(column(&bench.lines(["list", "c", "--changed-since", "300"]), "/key"), ["7"]);
}

#[test]
fn the_log_is_filtered_limited_and_reversed() {
    let bench = Bench::new();
    for key in ["a", "b", "a"] {
        bench.ok(["patch", "c", key, "--set", &format!("/n={}", bench.lines(["log"]).len())]);
    }
    bench.ok(["put", "d", "a", "{}"]);
    let positions = |args: &[&str]| {
        let rows = bench.lines([&["log"], args].concat());
        rows.iter().map(|row| row["position"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(positions(&[]), [1, 2, 3, 4]);
    assert_eq!(positions(&["--after", "2"]), [3, 4]);
    assert_eq!(positions(&["--limit", "2"]), [1, 2]);
    assert_eq!(positions(&["--reverse", "--limit", "2"]), [4, 3]);
    assert_eq!(positions(&["--collection", "c", "--record", "a"]), [1, 3]);
    assert_eq!(positions(&["--follow", "--limit", "3", "--after", "1"]), [2, 3, 4]);
}

#[test]
fn history_has_before_and_after_and_blame_says_who() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", r#"{"a":1,"b":1}"#, "--principal", "Ada"]);
    bench.ok(["patch", "c", "k", r#"{"a":2,"b":null}"#, "--principal", "Bob"]);
    let history = bench.lines(["history", "c", "k", "--full"]);
    assert_fields(&history[1], "event position at occurred_at source principal reason changes before after");
    let changes = json!([
        { "path": "/a", "before": 1, "after": 2 },
        { "path": "/b", "before": 1, "after": null, "removed": true },
    ]);
    assert_eq!(history[1]["changes"], changes);
    assert_eq!((&history[1]["before"], &history[1]["after"]), (&json!({ "a": 1, "b": 1 }), &json!({ "a": 2 })));
    let blame = bench.json(["blame", "c", "k"]);
    assert_fields(&blame, "path value event source principal at");
    assert_eq!((&blame["path"], &blame["principal"]), (&json!("/a"), &json!("Bob")));
    let text = bench.ok(["history", "c", "k"]);
    assert!(text.contains("/a  1 → 2") && text.contains("/b  1 → removed") && text.contains("Bob (app)"), "{text}");
    bench.refused(["history", "c", "none"], 1, "not_found");
    bench.refused(["blame", "c", "none"], 1, "not_found");
}

#[test]
fn import_counts_what_is_new_changed_same_and_refused() {
    let bench = Bench::new();
    let file = bench.file("a.jsonl", "{\"id\":1,\"t\":5}\n{\"id\":\"two\"}\n{\"no\":1}\n\nnonsense\n{\"id\":1.5}\n");
    let args = ["import", "c", &file, "--key-field", "/id", "--source", "jira"];
    let run = bench.run([&args[..], &["--json"]].concat());
    assert_eq!(run.code, 3, "{run:?}");
    let answer = &run.lines()[0];
    assert_fields(answer, "run read created updated unchanged failed first_position last_position");
    assert_eq!([&answer["read"], &answer["created"], &answer["failed"]], [5, 2, 3]);
    assert_eq!([&answer["first_position"], &answer["last_position"]], [1, 2]);
    let faults: Vec<Json> = run.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(column(&faults[..3], "/line"), [3, 5, 6]);
    assert_eq!(faults[3]["code"], "partly_failed");
    bench.file("a.jsonl", "{\"id\":1,\"t\":6}\n{\"id\":\"two\"}\n");
    let again = bench.json(args);
    assert_eq!([&again["updated"], &again["unchanged"], &again["failed"]], [1, 1, 0]);
    assert_eq!(bench.json(["get", "c", "1", "/t"])["value"], 6);
}

#[test]
fn import_reads_times_of_the_source_and_an_old_file_changes_nothing() {
    let bench = Bench::new();
    let line = |status: &str, time: &str| format!("{{\"id\":1,\"status\":\"{status}\",\"up\":{time}}}\n");
    let import = |content: String| {
        let file = bench.file("x.jsonl", content);
        bench.json(["import", "c", &file, "--key-field", "/id", "--occurred-at-field", "/up", "--source", "jira"])
    };
    import(line("new", "\"2021-04-01T08:52:27.109+0800\""));
    assert_eq!(bench.json(["log"])["occurred_at"], "2021-04-01T00:52:27.109Z");
    assert_eq!(import(line("old", "1"))["unchanged"], 1);
    assert_eq!(import(line("newer", "1700000000000"))["updated"], 1);
    assert_eq!(bench.json(["get", "c", "1", "/status"])["value"], "newer");
}

#[test]
fn csv_has_a_header_and_strings() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "id,name,note\n1,Ada,\n2,\"Bob, the\",x\n3,short\n");
    let run = bench.run(["import", "c", &file, "--key-field", "/id", "--json"]);
    assert_eq!((run.code, &run.lines()[0]["created"]), (3, &json!(2)));
    assert_eq!(bench.json(["get", "c", "1"])["value"], json!({ "id": "1", "name": "Ada" }));
    assert_eq!(bench.json(["get", "c", "2", "/name"])["value"], "Bob, the");
}

#[test]
fn what_export_writes_import_reads() {
    let (one, two) = (Bench::new(), Bench::new());
    one.ok(["put", "c", "k/~ 1", r#"{"a":[1,{"b":null}],"f":0.1}"#]);
    one.ok(["put", "c", "gone", "{}"]);
    one.ok(["delete", "c", "gone"]);
    assert_eq!(one.json(["export", "c", "out.jsonl", "--key-field", "/meta/key"])["records"], 1);
    let text = std::fs::read(one.path("out.jsonl")).unwrap();
    let run = two.run_with(["import", "c", "-", "--key-field", "/meta/key"], &text);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(two.ok(["export", "c"]).as_bytes(), text);
    assert_eq!(two.ok(["export", "c", "-"]).as_bytes(), text);
    assert_eq!(two.json(["get", "c", "k/~ 1", "/meta/key"])["value"], "k/~ 1");
}

#[test]
fn a_batch_is_all_or_nothing_and_knows_every_operation() {
    let bench = Bench::new();
    let lines = [
        json!({ "op": "put", "collection": "c", "key": "a", "value": { "n": 1 } }),
        json!({ "op": "patch", "collection": "c", "key": "a", "patch": { "m": 2 } }),
        json!({ "op": "put", "collection": "c", "key": "b", "path": "/x", "value": "y" }),
        json!({ "op": "put_atomic", "collection": "c", "key": "b", "path": "/o", "value": { "p": 1 } }),
        json!({ "op": "increment", "collection": "c", "key": "b", "path": "/n", "by": 3 }),
        json!({ "op": "set_add", "collection": "c", "key": "b", "path": "/s", "member": "one" }),
        json!({ "op": "make_set", "collection": "c", "key": "b", "path": "/e" }),
        json!({ "op": "make_list", "collection": "c", "key": "d", "path": "/l" }),
        json!({ "op": "insert", "collection": "c", "key": "d", "container": { "own": 0 }, "index": 0, "value": 1 }),
        json!({ "op": "make_list", "collection": "c", "key": "b", "path": "/l" }),
        json!({ "op": "insert", "collection": "c", "key": "b", "path": "/l", "index": 0, "value": "i" }),
        json!({ "op": "make_text", "collection": "c", "key": "b", "path": "/t" }),
        json!({ "op": "splice_text", "collection": "c", "key": "b", "path": "/t", "index": 0, "delete": 0, "insert": "hi" }),
    ];
    let text = |lines: &[Json]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let receipt = bench.json(["batch", &bench.file("b.ndjson", text(&lines))]);
    assert_fields(&receipt, "status events run");
    assert_eq!(bench.json(["get", "c", "a"])["value"], json!({ "n": 1, "m": 2 }));
    let made = json!({ "x": "y", "o": { "p": 1 }, "n": 3, "s": ["one"], "e": [], "l": ["i"], "t": "hi" });
    assert_eq!(bench.json(["get", "c", "b"])["value"], made);
    assert_eq!(bench.json(["get", "c", "d"])["value"], json!({ "l": [1] }));
    let more = [
        json!({ "op": "remove", "collection": "c", "key": "b", "path": "/x" }),
        json!({ "op": "set_remove", "collection": "c", "key": "b", "path": "/s", "member": "one" }),
        json!({ "op": "remove_at", "collection": "c", "key": "b", "path": "/l", "index": 0 }),
        json!({ "op": "splice_text", "collection": "c", "key": "b", "path": "/t", "index": 2, "insert": "!" }),
        json!({ "op": "delete", "collection": "c", "key": "a" }),
    ];
    bench.ok(["batch", &bench.file("b.ndjson", text(&more))]);
    let left = json!({ "o": { "p": 1 }, "n": 3, "s": [], "e": [], "l": [], "t": "hi!" });
    assert_eq!(bench.json(["get", "c", "b"])["value"], left);
    let before = bench.json(["digest"]);
    let bad = [
        json!({ "op": "undelete", "collection": "c", "key": "a" }),
        json!({ "op": "patch", "collection": "c", "key": "none", "patch": 1 }),
    ];
    assert_ne!(bench.run(["batch", &bench.file("b.ndjson", text(&bad))]).code, 0);
    assert_eq!(bench.json(["digest"]), before);
    let error = bench.refused(["batch", &bench.file("b.ndjson", "{\"op\":\"nod\"}\n")], 1, "validation");
    assert!(error["message"].as_str().unwrap().contains("line 1"), "{error}");
}

#[test]
fn conflicts_are_listed_decided_and_settled() {
    let (office, laptop) = disputed();
    let open = office.json(["conflicts"]);
    assert_fields(&open, "id version collection key path kind severity status base candidates shown because");
    assert_fields(&open["candidates"][0], "value event source principal occurred_at at");
    assert_eq!([&open["path"], &open["kind"], &open["status"]], ["/status", "update-update", "open"]);
    assert_eq!([&open["base"], &open["shown"]], ["open", "done"]);
    assert_eq!(laptop.json(["conflicts"]), open);
    let shown = |strategy: &str| {
        let args = ["conflicts", "--status", "all", "--strategy", strategy];
        let conflict = office.json(args);
        (conflict["status"].as_str().unwrap().to_owned(), conflict["shown"].as_str().unwrap().to_owned())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(shown("last_write_wins"), pair("auto", "done"));
    assert_eq!(shown("first_write_wins"), pair("auto", "blocked"));
    assert_eq!(shown("source_wins:app,jira"), pair("auto", "blocked"));
    assert_eq!(shown("manual"), pair("open", "open"));
    assert_eq!(office.json(["get", "issues", "A-1", "/status", "--strategy", "manual"])["value"], "open");
    let run = office.run(["conflicts", "--fail-if-open"]);
    assert_eq!(run.code, 4, "{run:?}");
    let id = open["id"].as_str().unwrap();
    assert_eq!(office.json(["show", &id[..9]])["id"], id);
    office.refused(["resolve", &id[..9]], 2, "usage");
    office.refused(["resolve", &id[..9], "--take", "nobody"], 2, "usage");
    let planned = office.json(["resolve", id, "--take", "app", "--dry-run"]);
    assert_eq!([&planned["status"], &planned["value"]], ["planned", "blocked"]);
    office.refused(["resolve", id, "--take", "1", "--version", &"0".repeat(64)], 1, "conflict");
    office.ok(["resolve", &id[..9], "--take", "app", "-m", "agreed"]);
    laptop.pull(&office);
    for bench in [&office, &laptop] {
        let settled = bench.json(["conflicts", "--status", "resolved"]);
        assert_eq!([&settled["shown"], &settled["resolved"]["reason"]], ["blocked", "agreed"]);
        assert_eq!(bench.run(["conflicts", "--fail-if-open"]).code, 0);
    }
}

#[test]
fn a_conflict_is_assigned_settled_with_all_others_and_opened_again() {
    let (office, _) = disputed();
    let id = office.json(["conflicts"])["id"].as_str().unwrap().to_owned();
    office.refused(["annotate", &id], 2, "usage");
    office.refused(["annotate", "xyz", "--assign", "kim"], 1, "validation");
    office.refused(["annotate", "0000", "--assign", "kim"], 1, "not_found");
    let would = office.json(["annotate", &id[..9], "--assign", "kim", "--dry-run"]);
    assert_eq!(would["writes"][0]["collection"], "$conflicts");
    office.ok(["annotate", &id[..9], "--assign", "kim", "--note", "ask jira", "--principal", "ann"]);
    assert_eq!(office.json(["get", "$conflicts", &id, "/assignee"])["value"], "kim");
    office.refused(["resolve", "--all"], 2, "usage");
    office.refused(["resolve", "--all", "--strategy", "manual"], 1, "validation");
    office.refused(["resolve", "issues", "--strategy", "last_write_wins"], 2, "usage");
    let all = ["resolve", "--all", "issues", "--strategy", "source_wins:app,jira", "--principal", "kim"];
    let would = office.json([&all[..], &["--dry-run"]].concat());
    assert_eq!((would["writes"].as_array().unwrap().len(), &would["skipped"]), (1, &json!([])));
    assert_eq!(office.json(all)["events"].as_array().unwrap().len(), 1);
    assert_eq!(office.json(["get", "issues", "A-1", "/status"])["value"], "blocked");
    assert!(office.ok(all).contains("unchanged"));
    assert_eq!(office.json(["reopen", &id[..9], "--dry-run"])["writes"].as_array().unwrap().len(), 3);
    office.ok(["reopen", &id[..9], "--principal", "lea"]);
    office.refused(["reopen", &id], 1, "conflict");
    let shown = office.json(["show", &id[..9]]);
    assert_fields(&shown["history"][0], "what position event at source principal reason");
    let steps = shown["history"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| (step["what"].as_str().unwrap(), step["principal"].as_str())).collect();
    assert_eq!(
        steps[1..],
        [("assigned", Some("ann")), ("noted", Some("ann")), ("resolved", Some("kim")), ("reopened", Some("lea"))]
    );
    assert_eq!((steps[0].0, &shown["assignee"], &shown["note"]), ("opened", &json!("kim"), &json!("ask jira")));
    let told = office.ok(["show", &id[..9]]);
    assert!(told.contains("assigned to kim") && told.contains("“ask jira”"), "{told}");
    let counts = office.json(["status", "--since", "0"])["conflicts_since"].clone();
    assert_fields(&counts[0], "collection kind severity status rule count oldest ages");
    assert_eq!((&counts[0]["collection"], &counts[0]["count"]), (&json!("issues"), &json!(1)));
    assert!(office.ok(["status", "--since", "2020-01-01T00:00:00Z"]).contains("issues"));
    assert_eq!(office.json(["status", "--since", "2200-01-01T00:00:00Z"])["conflicts_since"], json!([]));
    office.refused(["status", "--since", "soon"], 2, "usage");
}

#[test]
fn a_conflict_is_settled_by_number_event_place_value_or_base() {
    for (options, shown) in [
        (["--take", "1"], "blocked"),
        (["--take", "2"], "done"),
        (["--take", "event"], "done"),
        (["--take", "local"], "done"),
        (["--take", "remote"], "blocked"),
        (["--value", "\"other\""], "other"),
        (["--base-value", "-q"], "open"),
    ] {
        let (office, _) = disputed();
        let conflict = office.json(["conflicts"]);
        let (id, second) = (conflict["id"].as_str().unwrap(), conflict["candidates"][1]["event"].as_str().unwrap());
        let options = options.map(|option| if option == "event" { &second[..10] } else { option });
        let receipt = office.json([&["resolve", id], &options[..]].concat());
        assert_eq!(office.json(["get", "issues", "A-1", "/status"])["value"], shown, "{options:?}");
        assert_fields(&office.json(["revert", &event(&receipt)]), "status events skipped");
        let again = office.json(["conflicts"]);
        assert_eq!((&again["id"], &again["shown"]), (&conflict["id"], &conflict["shown"]), "{options:?}");
        let values = |conflict: &Json| column(conflict["candidates"].as_array().unwrap(), "/value").len();
        assert_eq!(values(&again), values(&conflict), "{options:?}");
    }
}

#[test]
fn a_policy_is_set_shown_and_obeyed() {
    let (office, _) = disputed();
    let shown = office.json(["policy", "set", "issues", "source_wins:app,jira"]);
    assert_eq!(office.json(["policy", "show", "issues"]), shown);
    assert_eq!(shown["default"], json!({ "strategy": "source_wins", "rank": ["app", "jira"] }));
    assert_eq!(office.json(["get", "issues", "A-1", "/status"])["value"], "blocked");
    office.ok(["policy", "set", "issues", r#"{"fields":{"/status":{"strategy":"manual"}}}"#]);
    assert_eq!(office.json(["get", "issues", "A-1", "/status"])["value"], "open");
    assert!(office.ok(["policy", "show", "issues"]).contains("manual"));
    office.refused(["policy", "set", "issues", "newest"], 1, "validation");
}

#[test]
fn pull_is_counted_and_makes_replicas_equal() {
    let (office, laptop) = disputed();
    let digest = office.json(["digest"]);
    assert_fields(&digest, "digest events position");
    assert_eq!(laptop.json(["digest"])["digest"], digest["digest"]);
    let again = laptop.pull(&office);
    assert_fields(&again, "offered applied duplicates waiting");
    assert_eq!(again["applied"], 0);
    let other = Bench::new();
    other.ok(["put", "c", "k", "{}"]);
    other.refused(["pull", office.path("ledger").to_str().unwrap()], 1, "ledger_mismatch");
    other.refused(["pull", "ledger"], 2, "usage");
    other.refused(["pull", "nowhere"], 10, "not_found");
}

#[test]
fn push_gives_the_other_store_what_is_here_and_takes_nothing() {
    let (office, laptop) = disputed();
    let there = laptop.path("ledger").display().to_string();
    laptop.ok(["put", "issues", "L-1", "{}"]);
    office.ok(["put", "issues", "O-1", "{}"]);
    let pushed = office.json(["push", &there]);
    assert_fields(&pushed, "offered applied duplicates waiting");
    assert_eq!((&pushed["applied"], office.json(["push", &there])["applied"].clone()), (&1.into(), 0.into()));
    laptop.ok(["get", "issues", "O-1"]);
    office.refused(["get", "issues", "L-1"], 1, "not_found");

    let fresh = Bench::new();
    fresh.ok(["--ledger", "copy", "init"]);
    let fresh_store = fresh.path("ledger").display().to_string();
    office.ok(["push", &fresh_store, "--to-ledger", "copy"]);
    assert_eq!(fresh.json(["--ledger", "copy", "digest"])["digest"], office.json(["digest"])["digest"]);
    let other = Bench::new();
    other.ok(["put", "c", "k", "{}"]);
    office.refused(["push", other.path("ledger").to_str().unwrap()], 1, "ledger_mismatch");
    office.refused(["push", "ledger"], 2, "usage");
    office.refused(["push", "nowhere"], 10, "not_found");
    office.refused(["push", &there, "--to-ledger", "none"], 1, "not_found");
}

#[test]
fn status_verify_doctor_and_rebuild_find_nothing_wrong() {
    let (office, _) = disputed();
    let status = office.json(["status"]);
    assert_fields(&status, "position events records waiting conflicts forked_writers bytes cached");
    assert_eq!(status["conflicts"][0]["count"], 1);
    let verified = office.json(["verify"]);
    assert_eq!(verified, json!({ "ok": true, "events": 3, "problems": [] }));
    let doctor = office.json(["doctor"]);
    assert_eq!((&doctor["ok"], &doctor["findings"][0]["level"]), (&json!(true), &json!("notice")));
    assert_eq!(office.json(["rebuild"])["events"], 3);
    let rebuilt = office.json(["rebuild", "--into", "fresh"]);
    assert_fields(&rebuilt, "events records seconds");
    assert_eq!(office.json(["--store", "fresh", "digest"])["digest"], office.json(["digest"])["digest"]);
    office.ok(["rebuild", "--into", "early", "--until", "1"]);
    assert_eq!(office.json(["--store", "early", "get", "issues", "A-1", "/status"])["value"], "open");
    office.refused(["rebuild", "--into", "fresh"], 2, "usage");
    office.refused(["rebuild", "--until", "1"], 2, "usage");
}

#[test]
fn an_event_a_run_and_the_last_batch_are_taken_back() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", r#"{"a":1,"b":1}"#]);
    let edit = event(&bench.json(["patch", "c", "k", r#"{"a":2,"b":2}"#]));
    bench.ok(["patch", "c", "k", r#"{"b":3}"#]);
    let receipt = bench.json(["revert", &edit[..10]]);
    assert_eq!(column(receipt["skipped"].as_array().unwrap(), "/path"), ["/b"]);
    assert_eq!(bench.json(["get", "c", "k"])["value"], json!({ "a": 1, "b": 3 }));
    let file = bench.file("r.jsonl", "{\"id\":1}\n{\"id\":2}\n");
    let run = bench.json(["import", "d", &file, "--key-field", "/id"])["run"].as_str().unwrap().to_owned();
    bench.ok(["revert", "--run", &run[..8]]);
    assert!(bench.lines(["list", "d"]).is_empty());
    let put = |key: &str| json!({ "op": "put", "collection": "e", "key": key, "value": {} });
    let lines = format!("{}\n{}\n", put("1"), put("2"));
    bench.ok(["batch", &bench.file("b.ndjson", lines)]);
    assert_eq!(bench.lines(["list", "e"]).len(), 2);
    assert_fields(&bench.json(["undo"]), "status events skipped");
    assert!(bench.lines(["list", "e"]).is_empty());
    bench.refused(["revert"], 2, "usage");
    bench.refused(["revert", "--run", "ffff"], 1, "not_found");
}

#[test]
fn completions_and_manual_pages_are_made_without_a_store() {
    let bench = Bench::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(bench.ok(["completions", shell]).contains("syncledger"), "{shell}");
    }
    assert!(bench.ok(["man"]).contains(".TH"));
    bench.ok(["man", "--dir", "pages"]);
    assert!(bench.path("pages/syncledger-put.1").exists());
}

#[test]
fn every_command_helps() {
    let bench = Bench::empty();
    let help = bench.ok(["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.len() > 25, "{help}");
    for name in names {
        assert!(bench.ok([name, "--help"]).contains("Usage:"), "{name}");
    }
    assert!(bench.ok(["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn people_get_tables_and_colours_only_where_asked() {
    let (office, _) = disputed();
    let text = office.ok(["conflicts"]);
    assert!(text.contains("issues/A-1") && text.contains("/status") && !text.contains('\u{1b}'), "{text}");
    assert!(office.ok(["conflicts", "--color", "always"]).contains('\u{1b}'));
    let run = office.run(["get", "issues", "A-1"]);
    assert!(run.err.contains("1 conflict"), "{run:?}");
    let quiet = office.run(["get", "issues", "A-1", "-q"]);
    assert!(quiet.err.is_empty(), "{quiet:?}");
    for command in
        [&["status"][..], &["list"], &["list", "issues"], &["log"], &["blame", "issues", "A-1"], &["doctor"]]
    {
        let run = office.run(command);
        assert!(run.code == 0 && !run.out.trim().is_empty(), "{command:?} {run:?}");
    }
}

#[test]
fn diagnostics_hold_no_values() {
    let bench = Bench::new();
    let run: Run = bench.run(["put", "c", "k", r#"{"a":"very secret"}"#, "-vvv"]);
    assert!(run.code == 0 && !run.err.is_empty(), "{run:?}");
    assert!(!run.err.contains("secret"), "{run:?}");
}

#[test]
fn trying_a_policy_prints_what_it_would_decide_otherwise_and_sets_nothing() {
    let (office, _) = disputed();
    let tried = office.json(["policy", "try", "issues", "first_write_wins"]);
    assert_fields(&tried, "key path now then now_open then_open because position event at until until_at");
    assert_eq!([&tried["key"], &tried["path"], &tried["now"], &tried["then"]], ["A-1", "/status", "done", "blocked"]);
    assert_eq!(
        (&tried["now_open"], &tried["then_open"], &tried["until"]),
        (&json!(true), &json!(false), &json!(null))
    );
    assert_eq!(office.json(["policy", "show", "issues"])["default"]["strategy"], "merge");
    let run = office.run(["policy", "try", "issues", "first_write_wins", "--since", "1"]);
    assert!(run.out.contains("\"blocked\" instead of \"done\" (open)"), "{run:?}");
    assert!(run.err.contains("1 decision of 1 record would differ, 1 of them now"), "{run:?}");
    let nothing = office.run(["policy", "try", "issues", "merge"]);
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{nothing:?}");
    assert_eq!(office.lines(["policy", "try", "issues", "manual", "--since", "2100-01-01T00:00:00Z"]).len(), 1);
    office.refused(["policy", "try", "isues", "manual"], 1, "not_found");
    office.refused(["policy", "try", "issues", "newest"], 1, "validation");
    office.refused(["policy", "try", "issues", "manual", "--since", "yesterday"], 2, "usage");
}
