//! Rules of the source that the compiler does not check: the order of the layers, and what a module may not use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with those that it may use. `error` is below all; `disk` holds file operations that storage shares, `sync` what
/// threads meet in.
fn layers() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("error", vec![]),
        ("event", vec!["error"]),
        ("disk", vec!["error"]),
        ("sync", vec![]),
        ("document", vec!["event", "error"]),
        ("projection", vec!["document", "event", "error"]),
        ("merge", vec!["projection", "document", "event", "error"]),
        ("blob", vec!["disk", "event", "error"]),
        ("journal", vec!["disk", "sync", "event", "error"]),
        ("schema", vec!["event", "error"]),
        ("segment", vec!["event", "error"]),
        ("replication", vec!["segment", "event", "error"]),
        (
            "ledger",
            vec![
                "projection",
                "document",
                "schema",
                "journal",
                "blob",
                "replication",
                "segment",
                "disk",
                "sync",
                "event",
                "error",
            ],
        ),
        ("testing", vec!["projection", "document", "event", "error"]),
        ("shape", vec!["ledger", "projection", "schema", "event", "error"]),
        ("retry", vec![]),
        (
            "server",
            vec![
                "shape",
                "ledger",
                "replication",
                "segment",
                "disk",
                "projection",
                "schema",
                "retry",
                "event",
                "error",
            ],
        ),
        ("client", vec!["ledger", "replication", "disk", "retry", "event", "error"]),
        (
            "cli",
            vec![
                "server",
                "client",
                "shape",
                "ledger",
                "merge",
                "projection",
                "schema",
                "segment",
                "event",
                "error",
                "journal",
            ],
        ),
    ])
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The layer of a file: the first part of its path below `src`.
fn layer(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether only tests have a file: they may use the testing kit, whatever layer they are of.
fn is_of_tests(path: &Path) -> bool {
    path.ends_with("document/story.rs") || path.ends_with("tests.rs")
}

/// The code of a file before its tests, without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_layer_uses_only_those_below_it() {
    let layers = layers();
    let mut faults = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_of_tests(path)) {
        let from = layer(&path);
        let Some(allowed) = layers.get(from.as_str()) else { continue };
        let code = code(&text).replace("crate::{", "crate::\u{0}{");
        for used in code.split("crate::").skip(1) {
            let to: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = layers.contains_key(to.as_str());
            if known && to != from && !allowed.contains(&to.as_str()) {
                faults.push(format!("{}: {from} uses {to}", path.display()));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn every_folder_of_the_source_is_a_known_layer() {
    let layers = layers();
    let unknown: Vec<_> = sources()
        .into_iter()
        .map(|(path, _)| layer(&path))
        .filter(|layer| !layers.contains_key(layer.as_str()) && layer != "lib" && layer != "main")
        .collect();
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn the_pure_layers_hold_no_input_output_clock_chance_or_hash_order() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if !["event", "document", "projection", "schema", "merge"].contains(&layer(&path).as_str()) {
            continue;
        }
        for word in [
            "std::fs",
            "std::io",
            "std::net",
            "std::time",
            "std::thread",
            "HashMap",
            "HashSet",
            "getrandom",
            "async fn",
        ] {
            if code(&text).contains(word) {
                faults.push(format!("{} uses {word}", path.display()));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn nothing_is_called_after_what_it_is_not() {
    let vague = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];
    let named: Vec<_> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.iter().any(|part| vague.contains(&part.to_str().unwrap().trim_end_matches(".rs"))))
        .collect();
    assert_eq!(named, Vec::<PathBuf>::new());
}

#[test]
fn bincode_is_known_to_few() {
    let knowing: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| code(text).contains("bincode::"))
        .map(|(path, _)| path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string())
        .filter(|path| !path.starts_with("src/event/codec.rs"))
        .collect();
    // Derived bytes that never leave a replica, the frames of the log, and what replicas say besides events.
    let mut expected = [
        "src/document/snapshot.rs",
        "src/ledger/packing.rs",
        "src/ledger/row.rs",
        "src/ledger/shared.rs",
        "src/replication/wire.rs",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.retain(|path| knowing.contains(path));
    let mut knowing = knowing;
    knowing.sort();
    assert_eq!(knowing, expected);
}

/// `module::test` for every test that a page names so.
fn tests_named_by(page: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(path).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|word| word.split_once("::"));
    let is_name = |name: &str| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || "_".contains(c));
    let named = named.filter(|(module, test)| is_name(test) && !module.contains(['(', ' ']));
    named.map(|(module, test)| (module.to_owned(), test.to_owned())).collect()
}

#[test]
fn every_test_that_the_page_on_security_names_exists() {
    let named = tests_named_by("docs/security.md");
    assert!(named.len() > 25, "{}", named.len());
    for (module, test) in named {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(format!("{module}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_else(|fault| panic!("{}: {fault}", file.display()));
        assert!(text.contains(&format!("fn {test}(")), "{module}::{test} is nowhere");
    }
}
