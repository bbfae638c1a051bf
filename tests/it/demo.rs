//! The demonstration: its numbers are those of the data, whatever the data is.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value as Json, json};

use crate::cli::{Bench, column};

const ISSUES: &str = include_str!("../fixtures/jira-issues.jsonl");

/// What a change log says, counted without the program's help.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    issues: u64,
    edits: u64,
    chains: BTreeMap<(String, &'static str), Vec<Json>>,
}

fn count(text: &str) -> Counted {
    let mut counted = Counted::default();
    for line in text.lines() {
        let issue: Json = serde_json::from_str(line).unwrap();
        counted.issues += 1;
        let mut edits = issue["changelog"]["histories"].as_array().unwrap().clone();
        counted.edits += edits.len() as u64;
        // All times of one issue have the same offset here, so that their texts sort like they do.
        edits.sort_by_key(|edit| (edit["created"].to_string(), edit["id"].as_str().unwrap().parse::<u64>().unwrap()));
        for item in edits.iter().flat_map(|edit| edit["items"].as_array().unwrap()) {
            for field in ["status", "assignee"] {
                if item["field"] == field {
                    let key = (issue["key"].as_str().unwrap().to_owned(), field);
                    counted.chains.entry(key).or_default().push(item["toString"].clone());
                }
            }
        }
    }
    counted
}

fn steps(counted: &Counted) -> u64 {
    counted.chains.values().map(|chain| chain.len() as u64).sum()
}

/// Runs the demonstration and compares it with what the data says.
fn check(bench: &Bench, args: &[&str], text: &str) -> Json {
    let figures = bench.json([&["demo", "--dir", "stage"], args].concat());
    let counted = count(text);
    assert_eq!(figures["issues"], counted.issues);
    assert_eq!(figures["imported"]["created"], counted.issues);
    assert_eq!(figures["replayed"]["edits"], counted.edits);
    assert_eq!(figures["replayed"]["chains"]["count"], counted.chains.len());
    assert_eq!(figures["replayed"]["chains"]["steps"], steps(&counted));
    assert_eq!(figures["rebuilt"]["equal"], true);
    assert_eq!(figures["rebuilt"]["records"], counted.issues);
    assert_eq!(figures["rebuilt"]["digest"], bench.json(["--store", "stage/office", "digest"])["digest"]);
    figures
}

/// The values of a field along a history, as the log's own edits left it.
fn along(bench: &Bench, key: &str, field: &str) -> Vec<Json> {
    let history = bench.lines(["--store", "stage/laptop", "history", "issues", key, "--full"]);
    let pointer = format!("/{field}");
    let is_edit = |revision: &&Json| revision["source"] == "jira" && revision["principal"] != "Mona";
    let edits: Vec<_> = history.iter().skip(1).filter(is_edit).collect();
    let touches = |revision: &&&Json| {
        revision["changes"].as_array().unwrap().iter().any(|change| change["path"] == pointer.as_str())
    };
    edits.iter().filter(touches).map(|revision| revision["after"].get(field).cloned().unwrap_or(Json::Null)).collect()
}

#[test]
fn the_real_edits_of_33_issues_are_what_jira_says_step_by_step() {
    let bench = Bench::empty();
    let figures = check(&bench, &[], ISSUES);
    let counted = count(ISSUES);
    assert_eq!((counted.issues, counted.edits, counted.chains.len(), steps(&counted)), (33, 522, 60, 206));
    for ((key, field), chain) in &counted.chains {
        assert_eq!(along(&bench, key, field), *chain, "{key} {field}");
    }
    let conflicts = &figures["conflicts"];
    assert_eq!(conflicts["last_write_wins"]["open"], 0);
    assert_eq!(conflicts["source_wins"]["open"], 0);
    assert!(conflicts["manual"]["open"].as_u64().unwrap() > 0);
    assert_eq!(conflicts["manual"]["all"], conflicts["last_write_wins"]["all"]);
    let settled = &figures["settled"];
    assert_eq!(settled["open_before"].as_u64().unwrap() - 1, settled["open_now"]);
    for replica in ["office", "laptop"] {
        let store = format!("stage/{replica}");
        let found = bench.json(["--store", &store, "conflicts", "--status", "resolved"]);
        assert_eq!(found["id"], settled["id"]);
        assert_eq!(bench.json(["--store", &store, "verify"])["ok"], true);
    }
}

#[test]
fn other_issues_give_other_numbers() {
    let bench = Bench::empty();
    let text = varied(10);
    let file = bench.file("other.jsonl", &text);
    let figures = check(&bench, &["--data", &file], &text);
    assert_eq!(figures["issues"], 10);
    assert_ne!(figures["replayed"]["edits"], 522);
    for ((key, field), chain) in &count(&text).chains {
        assert_eq!(along(&bench, key, field), *chain, "{key} {field}");
    }
}

/// Issues made of the real ones: others, under other keys, as they were after half of their edits, with people renamed and
/// a field more.
fn varied(count: usize) -> String {
    let issues = ISSUES.lines().rev().step_by(3).take(count).enumerate().map(|(index, line)| {
        let mut issue: Json = serde_json::from_str(&line.replace("User ", "Person ")).unwrap();
        issue["key"] = format!("OTHER-{index}").into();
        issue["fields"]["customer"] = json!({ "name": format!("Customer {index}") });
        let mut edits = issue["changelog"]["histories"].as_array().unwrap().clone();
        edits.sort_by_key(|edit| (edit["created"].to_string(), edit["id"].as_str().unwrap().parse::<u64>().unwrap()));
        edits.truncate(edits.len().div_ceil(2));
        edits.reverse();
        issue["changelog"]["histories"] = edits.into();
        format!("{issue}\n")
    });
    issues.collect()
}

#[test]
fn one_issue_without_a_change_log_is_enough() {
    let bench = Bench::empty();
    let file =
        bench.file("one.jsonl", "{\"key\":\"X-1\",\"fields\":{\"summary\":\"s\",\"status\":{\"name\":\"Open\"}}}\n");
    let figures = bench.json(["demo", "--dir", "stage", "--data", &file]);
    assert_eq!((&figures["issues"], &figures["replayed"]["edits"]), (&json!(1), &json!(0)));
    assert_eq!(figures["conflicts"]["manual"]["all"], 1);
}

#[test]
fn the_story_is_readable_and_names_its_stores() {
    let bench = Bench::empty();
    let text = bench.ok(["demo", "--dir", "stage"]);
    for part in ["33 issues", "522", "60 chains, 206 steps", "merged by itself", "source_wins", "→", "stage/office"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    for replica in ["office", "laptop", "rebuilt"] {
        assert_eq!(bench.lines(["--store", &format!("stage/{replica}"), "list", "issues"]).len(), 33);
    }
    assert!(!column(&bench.lines(["--store", "stage/office", "log", "--limit", "1"]), "/event").is_empty());
}

#[test]
fn data_that_is_none_and_a_used_directory_are_refused() {
    let bench = Bench::empty();
    for (content, code) in
        [("", "usage"), ("{\"key\":1}\n", "validation"), ("[]\n", "validation"), ("{\n", "validation")]
    {
        let file = bench.file("bad.jsonl", content);
        let exit = if code == "usage" { 2 } else { 1 };
        bench.refused(["demo", "--dir", "stage", "--data", &file], exit, code);
    }
    fs::create_dir(bench.path("used")).unwrap();
    bench.file("used/file", "");
    bench.refused(["demo", "--dir", "used"], 2, "usage");
}

#[test]
fn the_same_story_is_told_by_two_devices_of_a_server_of_which_one_goes_offline() {
    let bench = Bench::empty();
    let figures = check(&bench, &["--server"], ISSUES);
    assert!(figures["server"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let told = bench.ok(["demo", "--dir", "again", "--server"]);
    assert!(told.contains("laptop, offline: ") && told.contains("both show the same 33 records"), "{told}");
    // The server has what its devices have, and knows them.
    let digests = ["server", "office", "laptop"].map(|at| {
        let collections = bench.json(["--store", &format!("stage/{at}"), "digest"])["collections"].clone();
        collections.as_object().map_or_else(|| panic!("{collections}"), |all| all["issues"].clone())
    });
    assert!(digests.iter().all(|one| *one == digests[0]), "{digests:?}");
    assert_eq!(bench.lines(["--store", "stage/server", "device", "list"]).len(), 2);
}
