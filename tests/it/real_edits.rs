//! Real change logs, replayed: the history of a record says what the source's own log says.

use serde_json::{Value, json};
use syncledger::ledger::{Context, Ledger, Options, Revision, Store};

const ISSUES: &str = include_str!("../fixtures/jira-issues.jsonl");
const FIELDS: [&str; 2] = ["status", "assignee"];

/// The steps of an issue's change log that concern the two fields, in order: what was, and what came.
fn steps(issue: &Value, field: &str) -> Vec<(Value, Value)> {
    let groups = issue["changelog"]["histories"].as_array().into_iter().flatten();
    let items = groups.flat_map(|group| group["items"].as_array().into_iter().flatten());
    let of = items.filter(|item| item["field"] == field);
    of.map(|item| (item["fromString"].clone(), item["toString"].clone())).collect()
}

fn replay(ledger: &Ledger, issue: &Value) -> String {
    let key = issue["key"].as_str().unwrap().to_owned();
    let first = |field: &str| steps(issue, field).first().map_or(Value::Null, |step| step.0.clone());
    let created =
        json!({"summary": issue["fields"]["summary"], "status": first("status"), "assignee": first("assignee")});
    let jira = Context::from_source("jira");
    ledger.put("issues", &key, created, &jira).unwrap();
    for group in issue["changelog"]["histories"].as_array().into_iter().flatten() {
        let mut patch = serde_json::Map::new();
        for item in group["items"].as_array().into_iter().flatten() {
            if let Some(field) = FIELDS.into_iter().find(|field| item["field"] == *field) {
                patch.insert(field.to_owned(), item["toString"].clone());
            }
        }
        if !patch.is_empty() {
            let who = Context { principal: group["author"]["name"].as_str().map(str::to_owned), ..jira.clone() };
            ledger.patch("issues", &key, patch.into(), &who).unwrap();
        }
    }
    key
}

/// What a field became, event by event, where it changed.
fn chain(history: &[Revision], field: &str) -> Vec<Value> {
    let path = format!("/{field}");
    let changes = history.iter().skip(1).flat_map(|revision| &revision.changes);
    let of = changes.filter(|change| change.path.as_str() == path);
    of.map(|change| change.after.clone().unwrap_or_default()).collect()
}

#[test]
fn history_tells_the_chain_of_every_real_change_log() {
    let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let (mut chains, mut told) = (0, 0);
    for line in ISSUES.lines() {
        let issue: Value = serde_json::from_str(line).unwrap();
        let key = replay(&ledger, &issue);
        let history = ledger.history("issues", &key).unwrap();
        for field in FIELDS {
            let steps = steps(&issue, field);
            let expected: Vec<Value> = steps.iter().map(|step| step.1.clone()).collect();
            assert_eq!(chain(&history, field), expected, "{key} {field}");
            chains += usize::from(!steps.is_empty());
            told += steps.len();
        }
        // Each revision starts from where the one before it ended.
        for pair in history.windows(2) {
            assert_eq!(pair[0].after, pair[1].before);
        }
    }
    assert_eq!((chains, told), (60, 206));
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}
