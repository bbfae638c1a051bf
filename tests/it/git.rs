//! `merge` as people use it on files, and as git uses it as a merge driver.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::cli::{Bench, Run};

const BASE: &str = "{\n    \"name\": \"x\",\n    \"version\": \"1.0.0\",\n    \"list\": [1, 2],\n    \"deps\": {\n        \"b\": \"^1\",\n        \"a\": \"^1\"\n    }\n}\n";

/// A repository whose JSON files are merged by the program.
struct Repository(Bench);

impl Repository {
    fn new(options: &str) -> Self {
        let repository = Self(Bench::empty());
        let driver = format!("'{}' merge %O %A %B -o %A {options}", env!("CARGO_BIN_EXE_syncledger"));
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["config", "merge.syncledger.name", "JSON, field by field"]);
        repository.git(&["config", "merge.syncledger.driver", &driver]);
        repository.commit(".gitattributes", "*.json merge=syncledger\n");
        repository
    }

    fn try_git(&self, args: &[&str]) -> Run {
        let mut git = Command::new("git");
        git.current_dir(self.0.path("")).args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]).args(args);
        let nowhere = self.0.path("no-home");
        git.env("HOME", &nowhere).env("XDG_CONFIG_HOME", nowhere).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(name);
        }
        Run::of(&git.output().expect("git is needed to test the merge driver"))
    }

    fn git(&self, args: &[&str]) -> String {
        let run = self.try_git(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run.out
    }

    fn commit(&self, file: &str, content: &str) {
        self.0.file(file, content);
        self.git(&["add", file]);
        self.git(&["commit", "-q", "-m", "a change"]);
    }

    /// Commits what two made of a file, and merges the second's into the first's.
    fn merge(&self, base: Option<&str>, ours: &str, theirs: &str) -> Run {
        if let Some(base) = base {
            self.commit("a.json", base);
        }
        self.git(&["checkout", "-q", "-b", "theirs"]);
        self.commit("a.json", theirs);
        self.git(&["checkout", "-q", "main"]);
        self.commit("a.json", ours);
        self.try_git(&["merge", "-q", "--no-edit", "theirs"])
    }

    fn content(&self) -> String {
        std::fs::read_to_string(self.0.path("a.json")).unwrap()
    }

    fn unmerged(&self) -> usize {
        self.git(&["ls-files", "-u"]).lines().count()
    }
}

#[test]
fn git_merges_what_line_by_line_would_be_a_conflict_and_keeps_the_layout() {
    let repository = Repository::new("");
    let ours = BASE.replace("\"1.0.0\"", "\"1.1.0\"").replace("\"b\": \"^1\"", "\"b\": \"^2\"");
    let theirs = BASE.replace("\"x\"", "\"y\"").replace("\"a\": \"^1\"", "\"a\": \"^1\",\n        \"c\": \"^3\"");
    let run = repository.merge(Some(BASE), &ours, &theirs);
    assert_eq!(run.code, 0, "{run:?}");
    let expected = ours.replace("\"x\"", "\"y\"").replace("\"a\": \"^1\"", "\"a\": \"^1\",\n        \"c\": \"^3\"");
    assert_eq!(repository.content(), expected);
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
}

#[test]
fn git_is_told_of_conflicts_and_the_file_stays_json() {
    let repository = Repository::new("");
    let run = repository.merge(Some(BASE), &BASE.replace("1.0.0", "1.1.0"), &BASE.replace("1.0.0", "2.0.0"));
    assert_eq!((run.code, run.out.contains("CONFLICT (content): Merge conflict in a.json")), (1, true), "{run:?}");
    assert!(
        run.err.contains("conflict /version: local \"1.1.0\", remote \"2.0.0\", before \"1.0.0\"; shown \"2.0.0\""),
        "{run:?}"
    );
    assert_eq!((repository.content(), repository.unmerged()), (BASE.replace("1.0.0", "2.0.0"), 3));
}

#[test]
fn a_policy_of_the_driver_decides() {
    for (strategy, shown) in [("first_write_wins", "1.1.0"), ("source_wins:remote", "2.0.0")] {
        let repository = Repository::new(&format!("--strategy {strategy}"));
        let run = repository.merge(Some(BASE), &BASE.replace("1.0.0", "1.1.0"), &BASE.replace("1.0.0", "2.0.0"));
        assert_eq!((run.code, repository.unmerged()), (0, 0), "{run:?}");
        assert_eq!(repository.content(), BASE.replace("1.0.0", shown));
    }
}

#[test]
fn a_file_that_both_added_has_no_base() {
    let repository = Repository::new("");
    let run = repository.merge(None, "{\n  \"a\": 1\n}\n", "{\n  \"b\": 2\n}\n");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(repository.content(), "{\n  \"b\": 2,\n  \"a\": 1\n}\n");
}

#[test]
fn what_is_no_json_is_left_to_people() {
    let repository = Repository::new("");
    let ours = BASE.replace("1.0.0", "1.1.0");
    let run = repository.merge(Some(BASE), &ours, "not JSON");
    assert_eq!((run.code, repository.unmerged()), (1, 3), "{run:?}");
    assert!(run.err.contains("error:") && run.err.contains("line 1"), "{run:?}");
    assert_eq!(repository.content(), ours);
}

// --- files ------------------------------------------------------------------------------------------------------------

fn files(base: &str, a: &str, b: &str) -> Bench {
    let bench = Bench::empty();
    bench.file("base", base);
    bench.file("a", a);
    bench.file("b", b);
    bench
}

const FILES: [&str; 4] = ["merge", "base", "a", "b"];

#[test]
fn the_result_goes_to_stdout_or_a_file_and_conflicts_to_stderr() {
    let bench = files(r#"{"n":1,"s":0}"#, r#"{"n":2,"s":0}"#, r#"{"n":3,"s":1}"#);
    let run = bench.run(FILES);
    assert_eq!((run.code, run.out.as_str()), (1, r#"{"n":3,"s":1}"#), "{run:?}");
    assert!(run.err.contains("conflict /n: local 2, remote 3, before 1; shown 3"), "{run:?}");
    let decided =
        bench.run([&FILES[..], &["-o", "out", "--policy", r#"{"fields":{"/n":"first_write_wins"}}"#]].concat());
    assert_eq!((decided.code, decided.out.as_str()), (0, ""), "{decided:?}");
    assert!(decided.err.contains("decided /n"), "{decided:?}");
    assert_eq!(std::fs::read_to_string(bench.path("out")).unwrap(), r#"{"n":2,"s":1}"#);
    let times =
        bench.run([&FILES[..], &["--a-at", "2021-04-01T00:00:00Z", "--b-at", "2020-04-01T00:00:00Z"]].concat());
    assert_eq!(times.out, r#"{"n":2,"s":1}"#);
    let sources = bench.run([&FILES[..], &["--b-source", "jira", "--strategy", "source_wins:jira"]].concat());
    assert_eq!((sources.code, sources.out.as_str()), (0, r#"{"n":3,"s":1}"#));
    assert_eq!(bench.run([&FILES[..], &["--a-at", "3"]].concat()).code, 2);
}

#[test]
fn programs_get_one_object() {
    let bench = files(r#"{"n":1}"#, r#"{"n":2}"#, "{}");
    let run = bench.run([&FILES[..], &["--json"]].concat());
    let answer = &run.lines()[0];
    assert_eq!((run.code, &answer["status"], &answer["value"]), (1, &json!("conflicts"), &json!({})));
    let conflict = &answer["conflicts"][0];
    assert_eq!((&conflict["path"], &conflict["kind"]), (&json!("/n"), &json!("update-delete")));
    assert_eq!((&conflict["shown_absent"], &conflict["candidates"][1]["removed"]), (&json!(true), &json!(true)));
    assert_eq!(run.error()["path"], "/n");
}

#[test]
fn what_is_no_object_and_an_empty_base_merge_too() {
    let whole = |base: &str, a: &str, b: &str| {
        let run = files(base, a, b).run(FILES);
        (run.code, run.out)
    };
    assert_eq!(whole("[1]", "[1,  2]\n", "[1]"), (0, "[1,  2]\n".to_owned()));
    assert_eq!(whole("[1]", "[2]\n", "[3]"), (1, "[3]\n".to_owned()));
    assert_eq!(whole("", "{\"a\":1}\n", "{\"b\":2}\n"), (0, "{\"b\":2,\"a\":1}\n".to_owned()));
    assert_eq!(whole(" \n", "1", "1"), (0, "1".to_owned()));
}

#[test]
fn bad_files_are_refused_by_name_and_nothing_is_written() {
    let good = r#"{"n":1}"#;
    let deep = format!("{}1{}", "{\"a\":".repeat(17), "}".repeat(17));
    let broken: [&[u8]; 8] =
        [b"", b"{", b"{\"a\":1,\"a\":2}", b"[1e999]", b"\xff", b"\xef\xbb\xbf{}", b"{} {}", deep.as_bytes()];
    for (name, content) in broken.iter().flat_map(|content| [("a", content), ("b", content), ("base", content)]) {
        if name == "base" && content.is_empty() {
            continue;
        }
        let bench = files(good, good, good);
        bench.file("out", "as it was");
        bench.file(name, content);
        let run = bench.run([&FILES[..], &["-o", "out"]].concat());
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{name} {content:?}: {run:?}");
        let is_named = run.err.contains(&format!("{name}: ")) || *content == deep.as_bytes();
        assert!(is_named && run.err.contains("error:"), "{name} {content:?}: {run:?}");
        assert_eq!(std::fs::read_to_string(bench.path("out")).unwrap(), "as it was");
    }
    let bench = files(good, good, good);
    for (args, code) in [
        (vec!["merge", "base", "a", "missing"], "not_found"),
        (vec!["merge", "base", "a", "b", "-o", "no/such/dir"], "not_found"),
        (vec!["merge", "base", "a", "b", "--policy", "{\"x\":1}"], "validation"),
    ] {
        bench.refused(args, 2, code);
    }
    assert!(bench.run(["merge", "base", "a", ".", "-o", "a"]).code == 2);
    assert_eq!(std::fs::read_to_string(bench.path("a")).unwrap(), good);
    assert_eq!(std::fs::read_dir(bench.path("")).unwrap().count(), 3, "nothing is left behind");
}

#[cfg(unix)]
#[test]
fn what_is_written_keeps_its_mode_and_its_link() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let bench = files("{}", r#"{"a":1}"#, r#"{"b":1}"#);
    std::fs::set_permissions(bench.path("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("a", bench.path("link")).unwrap();
    assert_eq!(bench.run(["merge", "base", "link", "b", "-o", "link"]).code, 0);
    assert_eq!(std::fs::read_to_string(bench.path("a")).unwrap(), r#"{"b":1,"a":1}"#);
    assert!(std::fs::symlink_metadata(bench.path("link")).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(bench.path("a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(bench.run(["merge", "base", "a", "b", "-o", "/dev/null"]).code, 0);
    assert!(Path::new("/dev/null").exists());
}
