//! What the command line is given wrongly: each gets a clear error and its exit code, and loses nothing.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cli::{Bench, Run, event};

#[test]
fn without_a_store_commands_say_how_to_make_one() {
    let bench = Bench::empty();
    for args in [&["get", "c", "k"][..], &["list"], &["put", "c", "k", "{}"], &["verify"], &["ledger", "list"]] {
        let error = bench.refused(args, 10, "not_found");
        assert!(error["hint"].as_str().unwrap().contains("init"), "{error}");
    }
    assert!(!bench.path("ledger").exists());
    let text = bench.run(["list"]).err;
    assert!(text.starts_with("error: ") && text.contains("hint: "), "{text}");
}

#[test]
fn a_wrong_usage_is_an_object_where_one_is_asked_for() {
    let bench = Bench::new();
    for args in [
        &["nonsense"][..],
        &["get", "c"],
        &["patch", "c", "k"],
        &["put", "c", "k", "{}", "--occurred-at", "yesterday"],
        &["get", "c", "k", "no-pointer"],
        &["get", "c", "k", "--strategy", "newest"],
        &["import", "c", "f", "--key-field", "id"],
        &["log", "--reverse", "--follow"],
    ] {
        let error = bench.refused(args, 2, "usage");
        assert!(error["message"].is_string() && error["retryable"] == false, "{error}");
    }
    let run = bench.run(["get", "c"]);
    assert!(run.code == 2 && run.err.contains("Usage:"), "{run:?}");
}

#[test]
fn json_that_would_be_changed_or_lost_is_refused_with_its_place() {
    let bench = Bench::new();
    let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
    let very_deep = "[".repeat(100_000);
    for (text, code, part) in [
        (r#"{"a":1,"a":2}"#, "validation", "again"),
        (r#"{"a":NaN}"#, "validation", "JSON"),
        (r#"{"a":1e999}"#, "validation", "64 bits"),
        (r#"{"a":123456789012345678901234567890}"#, "validation", "64 bits"),
        (r#"{"a":"\ud800"}"#, "validation", "JSON"),
        ("{\"a\":1} x", "validation", "JSON"),
        ("", "validation", "JSON"),
        ("[1]", "validation", "object"),
        ("7", "validation", "object"),
        (&deep, "too_large", "16"),
        (&very_deep, "too_large", "nested"),
    ] {
        let run = bench.run_with(["put", "c", "k", "-", "--json"], text.as_bytes());
        let error = run.error();
        assert_eq!((run.code, error["code"].as_str()), (1, Some(code)), "{run:?}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    let run = bench.run_with(["put", "c", "k", "-", "--json"], b"{\"a\":\"\xff\"}");
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("validation")), "{run:?}");
    let error = bench.refused(["put", "c", "k", r#"{"x":{"a":1,"a":2}}"#], 1, "validation");
    assert_eq!(error["pointers"], json!(["/x/a"]));
    assert!(bench.lines(["log"]).is_empty());
}

#[test]
fn any_name_is_a_key_and_a_field() {
    let bench = Bench::new();
    for key in ["a/b", "~0~1", "two words", "😀 мир", "$deleted", "-", "#", "..", "\u{1}"] {
        let value = json!({ key: { key: key } });
        let text = value.to_string();
        bench.ok(["put", "c", "--", key, &text]);
        let got = |args: &[&str]| bench.run([&["get", "--json", "c", "--", key], args].concat()).lines().remove(0);
        assert_eq!(got(&[])["value"], value, "{key}");
        let pointer = format!("/{0}/{0}", key.replace('~', "~0").replace('/', "~1"));
        assert_eq!(got(&[&pointer])["value"], key);
    }
    let nul = bench.file("n.jsonl", "{\"id\":\"a\\u0000b\",\"\\u0000\":1}\n");
    let run = bench.run(["import", "d", &nul, "--key-field", "/id", "--json"]);
    assert!(run.code == 0 || run.code == 3, "{run:?}");
    let long = "k".repeat(300);
    bench.refused(["put", "c", &long, "{}"], 1, "validation");
}

#[test]
fn ids_that_are_unknown_ambiguous_or_no_ids_are_named() {
    let bench = Bench::new();
    let mut firsts = std::collections::BTreeMap::new();
    let mut ambiguous = None;
    for number in 0..40 {
        let event = event(&bench.json(["put", "c", "k", &format!("{{\"n\":{number}}}")]));
        let first = event[..1].to_owned();
        ambiguous = ambiguous.or(firsts.insert(first.clone(), event).map(|_| first));
        if ambiguous.is_some() {
            break;
        }
    }
    let ambiguous = ambiguous.expect("of 17 events two begin alike");
    bench.refused(["show", &ambiguous], 1, "validation");
    bench.refused(["show", &"0".repeat(64)], 1, "not_found");
    bench.refused(["show", "nonsense"], 1, "validation");
    bench.refused(["resolve", &"0".repeat(64), "--take", "1"], 1, "not_found");
    bench.refused(["resolve", "nonsense", "--take", "1"], 1, "validation");
    bench.refused(["revert", &"0".repeat(64)], 1, "not_found");
    bench.refused(["get", "c", "k", "--as-of", &"f".repeat(64)], 1, "not_found");
    bench.refused(["put", "c", "k", "{}", "--base", &"f".repeat(64)], 1, "not_found");
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", "{}"]);
    let mut holder = bench.start(["log", "--follow", "--json"]);
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let error = bench.refused(["list"], 11, "locked");
    assert_eq!(error["retryable"], true);
    let who = holder.id().to_string();
    assert!(error.to_string().contains(&who), "{error} names {who}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(bench.lines(["list", "c"]).len(), 1);
}

#[test]
fn ctrl_c_ends_a_followed_log_with_130() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", "{}"]);
    let mut follower = bench.start(["log", "--follow", "--json"]);
    let mut stdout = BufReader::new(follower.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let killed = Command::new("kill").args(["-INT", &follower.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(follower.wait().unwrap().code(), Some(130));
}

#[test]
fn ctrl_c_ends_an_import_after_its_chunk_and_keeps_what_is_done() {
    let bench = Bench::new();
    let mut command = bench.command(["import", "c", "-", "--key-field", "/id", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (id, mut number) = (child.id().to_string(), 0);
    let mut is_told = false;
    // Lines come until the program has read enough and goes: then the pipe is closed.
    while number < 10_000_000 {
        let chunk: String = (number..number + 64).map(|id| format!("{{\"id\":{id}}}\n")).collect();
        number += 64;
        if std::io::Write::write_all(&mut stdin, chunk.as_bytes()).is_err() {
            break;
        }
        if !is_told && number > 20_000 {
            is_told = Command::new("kill").args(["-INT", &id]).status().unwrap().success();
        }
    }
    drop(stdin);
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (130, Some("cancelled")), "{run:?}");
    let created = run.lines()[0]["created"].as_u64().unwrap();
    assert!(created > 0);
    assert_eq!(bench.json(["list"])["records"], created);
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_program_quietly() {
    let bench = Bench::new();
    let lines: String = (0..3_000).map(|id| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", "x".repeat(50))).collect();
    bench.ok(["import", "c", &bench.file("a.jsonl", lines), "--key-field", "/id"]);
    for args in [&["list", "c", "--json"][..], &["log"], &["export", "c"], &["log", "--follow", "--json"]] {
        let mut child = bench.start(args);
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let run = Run::of(&child.wait_with_output().unwrap());
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn a_followed_log_ends_when_its_reader_goes_even_while_nothing_happens() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", "{}"]);
    let mut child = bench.start(["log", "--follow", "--json"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let bench = Bench::empty();
    let dir = bench.path("fixed");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(dir.join("probe"), "").is_err() {
        let error = bench.refused(["--store", "fixed/ledger", "init"], 1, "permission");
        assert!(error["message"].as_str().unwrap().contains("fixed"), "{error}");
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Where not even the superuser may write.
    #[cfg(target_os = "linux")]
    assert!(
        bench.refused(["--store", "/sys/ledger", "init"], 1, "permission")["message"].to_string().contains("/sys")
    );
    bench.file("plain", "");
    let run = bench.run(["--store", "plain/ledger", "init", "--json"]);
    assert!(run.code == 1 && run.error()["message"].as_str().unwrap().contains("plain"), "{run:?}");
}

/// Runs a script in the bench's directory with `$SL` as the program, on a file system of its own with some megabytes at
/// `small`; none where this system lets nobody mount one.
#[cfg(target_os = "linux")]
fn on_a_small_disk(bench: &Bench, megabytes: u32, script: &str) -> Option<Run> {
    std::fs::create_dir(bench.path("small")).unwrap();
    let mount = format!("mount -t tmpfs -o size={megabytes}m none small || exit 99; cd small; {script}");
    let mut shell = bench.command::<&str>([]);
    let program = shell.get_program().to_owned();
    let mut unshare = Command::new("unshare");
    unshare.args(["-rm", "sh", "-c", &mount]).current_dir(shell.get_current_dir().unwrap()).env("SL", program);
    shell = unshare;
    let run = shell.output().map(|output| Run::of(&output)).ok().filter(|run| run.code == 0);
    if run.is_none() {
        println!("no file system can be mounted here: a full disk is only simulated");
    }
    run
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_and_costs_nothing_that_was_acknowledged() {
    let bench = Bench::empty();
    let line = |id: usize| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", format!("{id} ").repeat(300));
    bench.file("large.jsonl", (0..9_000).map(line).collect::<String>());
    // Until the disk is full, once with the words on that disk too; then reading on it; then with room again.
    let script = "export SYNCLEDGER_STORE=ledger; dd if=/dev/zero of=filler bs=1M count=8 2>/dev/null
        $SL init -q --json
        $SL import c ../large.jsonl --key-field /id --json >imported 2>fault; echo $?
        $SL import c ../large.jsonl --key-field /id --json 2>../fault; echo $?; tail -n 1 ../fault
        $SL list --json 2>/dev/null
        $SL get c 7 /id --json 2>/dev/null
        rm filler
        $SL list --json; $SL verify --json
        $SL import c ../few.jsonl --key-field /id --json; $SL put c new {} --json";
    bench.file("few.jsonl", (0..100).map(line).collect::<String>());
    let Some(run) = on_a_small_disk(&bench, 20, script) else { return };
    let lines = run.lines();
    let [_, first, second, fault, held, read, list, verified, again, put] = lines.as_slice() else {
        panic!("{run:?}");
    };
    assert_eq!((first, second, &fault["code"]), (&json!(1), &json!(1), &json!("storage")), "{run:?}");
    assert!(fault["message"].as_str().unwrap().contains("No space left"), "{fault}");
    assert!(held["records"].as_u64().unwrap() > 100, "{held}");
    assert_eq!((&read["value"], list), (&json!(7), held));
    assert_eq!((&verified["ok"], &verified["events"]), (&json!(true), &held["events"]));
    assert_eq!((&again["unchanged"], &put["status"]), (&json!(100), &json!("appended")));
}

/// The same without a file system of one's own: the kernel lets no file of the program grow beyond some megabytes.
#[test]
fn a_write_that_the_kernel_refuses_is_named_and_costs_nothing_that_was_acknowledged() {
    let bench = Bench::new();
    let line = |id: usize| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", format!("{id} ").repeat(300));
    bench.file("large.jsonl", (0..9_000).map(line).collect::<String>());
    let import = bench.command(["import", "c", "large.jsonl", "--key-field", "/id", "--json"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 8000; exec \"$0\" \"$@\""]).arg(import.get_program());
    let run = Run::of(&shell.args(import.get_args()).current_dir(bench.path("")).output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("storage")), "{run:?}");
    let held = bench.json(["list"])["records"].clone();
    assert!(held.as_u64().unwrap() > 100, "{held}");
    assert_eq!(bench.json(["verify"]), json!({ "ok": true, "events": held, "problems": [] }));
    let whole = bench.json(["import", "c", "large.jsonl", "--key-field", "/id"]);
    assert_eq!((&whole["unchanged"], &whole["failed"]), (&held, &json!(0)));
    assert_eq!(bench.json(["list"])["records"], 9_000);
}

#[test]
fn files_that_are_missing_are_named() {
    let bench = Bench::new();
    for args in [
        &["put", "c", "k", "@none.json"][..],
        &["import", "c", "none.jsonl", "--key-field", "/id"],
        &["batch", "none.ndjson"],
        &["demo", "--data", "none.jsonl"],
    ] {
        let error = bench.refused(args, 1, "not_found");
        assert!(error["message"].as_str().unwrap().contains("none."), "{error}");
    }
}

#[test]
fn a_damaged_store_exits_with_5_whichever_file_is_damaged() {
    let bench = Bench::new();
    for number in 0..50 {
        bench.ok(["put", "c", &number.to_string(), r#"{"text":"something to damage"}"#]);
    }
    let mut damaged = Vec::new();
    for file in walk(&bench.path("ledger")) {
        let bytes = std::fs::read(&file).unwrap();
        let Some(at) = bytes.windows(9).position(|window| window == b"something") else { continue };
        let mut other = bytes.clone();
        other[at + 2] ^= 1;
        std::fs::write(&file, &other).unwrap();
        let run = bench.run(["verify", "--json"]);
        if file.file_name().unwrap().to_string_lossy().starts_with("front-") {
            assert_eq!(run.code, 0, "the database holds what a closed store's front says: {run:?}");
        } else {
            assert_eq!((run.code, run.error()["code"].as_str()), (5, Some("corrupt")), "{} {run:?}", file.display());
        }
        std::fs::write(&file, &bytes).unwrap();
        damaged.push(file);
    }
    // The front, the log and the rows: each holds the values.
    assert!(damaged.len() >= 3, "{damaged:?}");
    assert_eq!(bench.json(["verify"]), json!({ "ok": true, "events": 50, "problems": [] }));
}

#[test]
fn damage_to_the_counts_beside_a_row_is_told_and_all_is_derived_again() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", r#"{"text":"something"}"#]);
    let files = walk(&bench.path("ledger/rows")).into_iter();
    let file = files.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let mut damaged = std::fs::read(&file).unwrap();
    let place = damaged.len() - 40;
    damaged[place] ^= 1;
    std::fs::write(file, damaged).unwrap();
    let run = bench.run(["get", "c", "k", "/text"]);
    assert!(run.code == 0 && run.out.contains("something") && run.err.contains("derived again"), "{run:?}");
    assert_eq!(bench.json(["verify"])["ok"], true);
}

#[test]
fn damaged_rows_are_found_and_made_anew_from_the_log() {
    let bench = Bench::new();
    // Fields that compress badly, so that the row is a block alone, and the last one but for the counts.
    let field = |n: u64| (0..250).map(|m| format!("{:x}", (n * 250 + m) * 0x9e37 % 65_521)).collect::<String>();
    let record: serde_json::Map<_, _> = (0..16).map(|n| (format!("f{n}"), json!(field(n)))).collect();
    bench.ok(["put", "c", "k", &serde_json::Value::from(record).to_string()]);
    let files = walk(&bench.path("ledger/rows")).into_iter();
    let file = files.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let mut damaged = std::fs::read(&file).unwrap();
    let place = damaged.len() - 5_000;
    damaged[place] ^= 1;
    std::fs::write(file, damaged).unwrap();
    let run = bench.run(["doctor", "--json"]);
    assert_eq!((run.code, &run.lines()[0]["ok"]), (5, &json!(false)), "{run:?}");
    assert_eq!(bench.json(["rebuild"])["records"], 1);
    assert_eq!(bench.json(["verify"])["ok"], true);
    assert_eq!(bench.json(["get", "c", "k", "/f7"])["value"], field(7));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
