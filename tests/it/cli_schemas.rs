//! `schema`, `violations` and `migrate` on the command line.

use serde_json::{Value as Json, json};

use crate::cli::{Bench, assert_fields, column};

const PEOPLE: &str = r#"{"type": "object", "required": ["name"], "properties": {
    "name": {"type": "string"}, "mail": {"x-unique": true, "x-critical": true}, "boss": {"x-references": "people"},
    "state": {"default": "new"}}}"#;

fn people() -> Bench {
    let bench = Bench::new();
    bench.file("people.json", PEOPLE);
    bench.ok(["schema", "set", "people", "@people.json"]);
    bench
}

#[test]
fn a_schema_is_set_shown_and_removed() {
    let bench = people();
    let shown = bench.json(["schema", "show", "people"]);
    assert_eq!(shown, serde_json::from_str::<Json>(PEOPLE).unwrap());
    assert!(bench.ok(["schema", "show", "people"]).contains("\"x-unique\": true"));
    assert_eq!(bench.json(["schema", "set", "people", "@people.json"])["status"], "unchanged");
    assert_eq!(bench.json(["schema", "set", "people", "null"])["status"], "appended");
    let error = bench.refused(["schema", "show", "people"], 1, "not_found");
    assert!(error["hint"].as_str().unwrap().contains("schema set people"), "{error}");
}

#[test]
fn what_is_no_schema_is_refused_by_name() {
    let bench = Bench::new();
    let huge = json!({ "description": "x".repeat(20_000) }).to_string();
    bench.file("huge.json", huge);
    for (schema, code, part) in [
        ("true", "validation", "a JSON object"),
        ("{\"type\": \"thing\"}", "validation", "the name of a type"),
        ("{\"minLength\": \"x\"}", "validation", "JSON Schema"),
        ("{\"$ref\": \"https://example.org/person.json\"}", "validation", "inside the schema"),
        ("{\"allOf\": [{\"$ref\": \"#\"}]}", "validation", "leads back"),
        ("{\"properties\": {\"a\": {\"x-kind\": \"text\", \"type\": \"number\"}}}", "validation", "is a text"),
        (
            "{\"properties\": {\"a\": {\"allOf\": [{\"x-kind\": \"set\"}, {\"x-kind\": \"list\"}]}}}",
            "validation",
            "says otherwise",
        ),
        ("{\"properties\": {\"a\": {\"pattern\": \"(a\"}}}", "validation", "/properties/a/pattern"),
        ("{\"x-rules\": [{\"rule\": \"a +\", \"message\": \"\"}]}", "validation", "expression"),
        ("{\"properties\": {\"a\": {\"x-uniqe\": true}}}", "validation", "x-unique"),
        ("@huge.json", "too_large", "16384 bytes"),
    ] {
        for dry_run in [&[][..], &["--dry-run"]] {
            let error = bench.refused([&["schema", "set", "c", schema], dry_run].concat(), 1, code);
            assert!(error["message"].as_str().unwrap().contains(part), "{schema}: {error}");
        }
    }
    bench.refused(["schema", "set", "$runs", "{}"], 1, "validation");
    assert_eq!(bench.json(["status"])["position"], 0);
}

#[test]
fn a_bad_record_is_refused_with_pointers_and_a_rule_that_cannot_be_decided_says_so() {
    let bench = people();
    let error = bench.refused(["put", "people", "a", r#"{"name": 1, "boss": "b"}"#], 1, "validation");
    assert_eq!(error["pointers"], json!(["/boss", "/name"]));
    bench.ok(["put", "people", "a", r#"{"name": "Ann", "mail": "a"}"#]);
    let error =
        bench.refused(["put", "people", "b", r#"{"name": "Bob", "mail": "a"}"#, "--dry-run"], 1, "validation");
    assert!(error["message"].as_str().unwrap().contains("people/a"), "{error}");
    let rule = r#"{"x-rules": [{"rule": "a < b", "message": "a comes before b"}]}"#;
    bench.ok(["schema", "set", "c", rule]);
    bench.ok(["put", "c", "k", r#"{"a": 1, "b": 2}"#]);
    let error = bench.refused(["put", "c", "l", r#"{"a": 1}"#], 1, "validation");
    assert!(error["message"].as_str().unwrap().contains("is defined"), "{error}");
}

#[test]
fn a_dry_run_lists_what_a_schema_would_break() {
    let bench = Bench::new();
    bench.file("people.json", PEOPLE);
    bench.ok(["put", "people", "a", r#"{"mail": "x", "boss": "nobody"}"#]);
    bench.ok(["put", "people", "b", r#"{"name": "Bob", "mail": "x"}"#]);
    let would = bench.lines(["schema", "set", "people", "@people.json", "--dry-run"]);
    assert_eq!(column(&would, "/constraint"), ["reference", "schema", "unique"]);
    assert_eq!(bench.lines(["violations"]), [] as [Json; 0]);
    let run = bench.run(["schema", "set", "people", "@people.json"]);
    assert!(run.code == 0 && run.err.contains("3 constraints are broken"), "{run:?}");
    assert_eq!(bench.lines(["violations", "people"]), would);
    assert_fields(&would[0], "collection key path constraint subject message critical");
    let text = bench.ok(["violations"]);
    assert!(text.contains("people/a") && text.contains("/boss"), "{text}");
}

#[test]
fn a_merge_opens_conflicts_that_the_commands_tell() {
    let bench = people();
    let other = bench.replica();
    bench.ok(["put", "people", "a", r#"{"name": "Ann", "mail": "x"}"#]);
    other.ok(["put", "people", "b", r#"{"name": "Bob", "mail": "x"}"#]);
    bench.pull(&other);
    other.pull(&bench);
    let open = bench.lines(["conflicts"]);
    assert_eq!(open, other.lines(["conflicts"]));
    assert_eq!(
        (&open[0]["kind"], &open[0]["severity"], &open[0]["key"]),
        (&json!("constraint"), &json!("critical"), &json!("b"))
    );
    assert_eq!(bench.run(["conflicts", "--fail-if-open"]).code, 4);
    let id = open[0]["id"].as_str().unwrap();
    assert_eq!(bench.json(["get", "people", "a"])["conflicts"], json!([id]));
    assert!(bench.ok(["status"]).contains("constraint"));
    let error = bench.refused(["resolve", id, "--take", "1"], 1, "validation");
    assert!(error["message"].as_str().unwrap().contains("broken constraint"), "{error}");
    bench.ok(["show", id]);
    bench.ok(["patch", "people", "a", r#"{"mail": "y"}"#]);
    assert_eq!(bench.lines(["conflicts"]), [] as [Json; 0]);
}

#[test]
fn violations_are_repaired_where_there_is_one_way() {
    let bench = Bench::new();
    bench.ok(["put", "people", "a", r#"{"name": "Ann", "boss": "nobody"}"#]);
    bench.ok(["put", "people", "b", "{}"]);
    bench.ok(["schema", "set", "people", &PEOPLE.replace("[\"name\"]", "[\"name\", \"state\"]")]);
    let planned = bench.json(["violations", "--fix", "--dry-run"]);
    assert_eq!(planned["repairs"].as_array().unwrap().len(), 3);
    assert_eq!(bench.lines(["violations"]).len(), 4);
    let fixed = bench.json(["violations", "--fix"]);
    assert_eq!((&fixed["repairs"], &fixed["status"]), (&planned["repairs"], &json!("appended")));
    assert_eq!(fixed["left"][0]["why"], "the schema has no default for the field");
    assert_eq!(column(&bench.lines(["violations"]), "/path"), ["/name"]);
    assert_eq!(bench.json(["get", "people", "a"])["value"], json!({ "name": "Ann", "state": "new" }));
    assert!(bench.ok(["violations", "--fix"]).contains("left"));
}

#[test]
fn a_migration_is_tried_refused_whole_and_made() {
    let bench = people();
    bench.ok(["put", "people", "a", r#"{"name": "Ann"}"#]);
    bench.ok(["put", "people", "b", r#"{"name": "Bob"}"#]);
    let error = bench.refused(["migrate", "people", "{'mail': 'same', 'name': name}"], 1, "validation");
    // Both are written at one moment: which of them holds the value, their ids decide.
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("people/a at /mail") || message.contains("people/b at /mail"), "{error}");
    let tried = bench.json(["migrate", "people", "{'mail': 'same', 'name': name}", "--dry-run"]);
    assert_eq!((tried["broken"].as_array().unwrap().len(), tried["writes"].as_array().unwrap().len()), (1, 2));
    for expression in ["name", "nothing", "{'name': }", "name * 1 * 1 * 1 * 1 * 1", r#"{"name": "{% for %}"}"#] {
        bench.refused(["migrate", "people", expression], 1, "validation");
    }
    let endless = r#"{"name": "{% for i in 'x' * 100000 %}{{ i }}{% endfor %}"}"#;
    let error = bench.refused(["migrate", "people", endless], 1, "validation");
    assert!(error["message"].as_str().unwrap().contains("too many steps"), "{error}");
    let done = bench.json(["migrate", "people", r#"{"name": "{{ name|upper }}", "mail": "{{ key }}@x"}"#]);
    assert_eq!(done["events"].as_array().unwrap().len(), 2);
    assert_eq!(bench.json(["get", "people", "b"])["value"], json!({ "name": "BOB", "mail": "b@x" }));
    assert!(bench.ok(["migrate", "people", "record", "--dry-run"]).contains("nothing is written"));
}
