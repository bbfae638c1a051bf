//! The commands of other processes on a store that one of them holds.
#![cfg(unix)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use syncledger::Store;

use super::cli::{Bench, Run, column, event};

/// A process that holds a store until dropped.
struct Holder(Child);

impl Holder {
    fn of(bench: &Bench) -> Self {
        Self::start(bench.command(["hold", "--json"]))
    }

    fn start(mut command: Command) -> Self {
        Self::ready(command.stdin(Stdio::piped()))
    }

    fn ready(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Json = serde_json::from_str(&line).expect("the holder says that it is ready");
        assert_eq!(ready["pid"], child.id());
        Self(child)
    }

    /// Ends it as its stdin does, and gives its exit code.
    fn end(mut self) -> Option<i32> {
        drop(self.0.stdin.take());
        self.0.wait().unwrap().code()
    }

    /// Ends it as a power cut does.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bench whose store is held.
fn held() -> (Bench, Holder) {
    let bench = Bench::new();
    let holder = Holder::of(&bench);
    (bench, holder)
}

/// The same with so many records in a collection, each of which prints some 500 bytes.
fn held_with_records(count: u32) -> (Bench, Holder) {
    let (bench, holder) = held();
    let line = |id| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", "x".repeat(500));
    bench.file("records.jsonl", (0..count).map(line).collect::<String>());
    bench.ok(["import", "c", "records.jsonl", "--key-field", "/id"]);
    (bench, holder)
}

fn socket(bench: &Bench) -> PathBuf {
    bench.path("ledger/control")
}

fn press_ctrl_c(child: &Child) {
    signal(child, "-INT");
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// The first line of what a process prints, and the rest.
fn first_line(child: &mut Child) -> (String, BufReader<std::process::ChildStdout>) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (line, stdout)
}

#[test]
fn commands_on_a_held_store_are_run_by_the_holder() {
    let (bench, holder) = held();
    assert_eq!(fs::metadata(socket(&bench)).unwrap().permissions().mode() & 0o777, 0o600);
    let first = event(&bench.json(["put", "c", "k", r#"{"n":1}"#]));
    bench.ok(["patch", "c", "k", "--set", "/n=2"]);
    assert_eq!(bench.json(["get", "c", "k", "/n"])["value"], 2);
    assert_eq!(bench.json(["get", "c", "k", "/n", "--as-of", &first])["value"], 1);
    assert_eq!(bench.lines(["log"]).len(), 2);
    assert_eq!(bench.json(["verify"])["ok"], true);
    assert_eq!(bench.json(["rebuild"])["records"], 1);
    assert_eq!(holder.end(), Some(0));
    assert!(!socket(&bench).exists(), "who ends takes the socket away");
    assert_eq!(bench.json(["get", "c", "k", "/n"])["value"], 2);
}

#[test]
fn what_a_command_says_is_the_same_byte_for_byte_whoever_runs_it() {
    let bench = Bench::new();
    bench.ok(["put", "c", "k", r#"{"text":"a","n":[1,2]}"#]);
    bench.ok(["put", "c", "deleted", "{}"]);
    bench.ok(["delete", "c", "deleted"]);
    bench.file("bad.jsonl", "{\"id\":1}\nno\n");
    bench.file("patch.json", r#"{"n":3}"#);
    let commands: &[&[&str]] = &[
        &["list"],
        &["list", "c", "--deleted", "--color", "always"],
        &["get", "c", "k", "--color=always"],
        &["get", "c", "deleted"],
        &["get", "c", "none"],
        &["get", "c", "none", "--json"],
        &["get", "c", "k", "/none", "--color", "always"],
        &["history", "c", "k"],
        &["log", "--json"],
        &["blame", "c", "k"],
        &["conflicts"],
        &["policy", "show", "c"],
        &["schema", "show", "c"],
        &["digest", "-q"],
        &["ledger", "list"],
        &["ledger", "drop", "main"],
        &["--ledger", "none", "list"],
        &["init"],
        &["put", "c", "k", "@none.json"],
        &["put", "c", "k", "nonsense"],
        &["patch", "c", "k", "@patch.json", "--dry-run"],
        &["import", "c", "bad.jsonl", "--key-field", "/id", "--dry-run"],
        &["import", "c", "none.jsonl", "--key-field", "/id", "--json"],
        &["batch", "none.ndjson"],
        &["pull", "ledger"],
        &["pull", "nowhere"],
        &["resolve", "nonsense"],
        &["show", "zz"],
        &["merge", "none", "none", "none"],
    ];
    let run = |args: &&[&str]| {
        let run = bench.run(*args);
        (run.code, run.out, run.err)
    };
    let alone: Vec<_> = commands.iter().map(run).collect();
    let _holder = Holder::of(&bench);
    for (args, alone) in commands.iter().zip(&alone) {
        assert_eq!(run(args), *alone, "{args:?}");
    }
    assert!(alone[1].1.contains('\u{1b}') && !alone[0].1.contains('\u{1b}'), "colours are compared too");
}

#[test]
fn answers_and_words_that_go_to_one_file_stand_there_in_their_order() {
    let bench = Bench::new();
    bench.file("bad.jsonl", "{\"id\":1}\nno\n{\"id\":2}\n");
    let run = || {
        let both = File::create(bench.path("both")).unwrap();
        let mut command = bench.command(["import", "c", "bad.jsonl", "--key-field", "/id", "--dry-run"]);
        command.stdout(both.try_clone().unwrap()).stderr(both).status().unwrap();
        fs::read_to_string(bench.path("both")).unwrap()
    };
    let alone = run();
    let _holder = Holder::of(&bench);
    assert!(alone.lines().count() > 1, "{alone}");
    assert_eq!(run(), alone);
}

/// A terminal of so many columns: the side of who sits there, and that of programs.
fn terminal(columns: u16) -> (File, File) {
    use rustix::{pty, termios};
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = termios::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    termios::tcsetwinsize(&theirs, size).unwrap();
    (ours.into(), theirs)
}

/// Runs a command on a terminal of 40 columns, at which somebody types this, and gives what is seen there.
fn on_terminal(bench: &Bench, args: &[&str], typed: &str) -> String {
    let (mut ours, theirs) = terminal(40);
    ours.write_all(typed.as_bytes()).unwrap();
    let mut command = bench.command(args);
    command.env("TERM", "xterm").env_remove("NO_COLOR").stdin(theirs.try_clone().unwrap());
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    drop(command);
    let mut seen = Vec::new();
    // It ends with an error, once no program has the terminal any more.
    let _ = ours.read_to_end(&mut seen);
    let seen = String::from_utf8(seen).unwrap().replace('\r', "");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    seen
}

#[test]
fn terminals_are_the_caller_s_and_not_the_holder_s() {
    let bench = Bench::new();
    let value = json!({ "text": "word ".repeat(30) }).to_string();
    bench.ok(["put", "c", "k", &value]);
    bench.ok(["ledger", "create", "other"]);
    bench.file("records.jsonl", (0..3_000).map(|id| format!("{{\"id\":{id}}}\n")).collect::<String>());
    let piped = bench.ok(["list", "c"]);
    assert!(piped.lines().any(|line| line.chars().count() > 60), "{piped}");

    let (ours, theirs) = terminal(30);
    let mut command = bench.command(["hold"]);
    let _holder = Holder(command.stdin(Stdio::piped()).stdout(theirs).spawn().unwrap());
    drop(command);
    let mut ours = BufReader::new(ours);
    ours.read_line(&mut String::new()).unwrap();
    assert_eq!(bench.ok(["list", "c"]), piped);
    let seen = on_terminal(&bench, &["list", "c", "--color", "never"], "");
    assert!(seen.lines().count() > 2 && seen.lines().all(|line| line.chars().count() <= 40), "{seen}");
    assert!(on_terminal(&bench, &["list", "c"], "").contains('\u{1b}'), "colours go there");
    let seen = on_terminal(&bench, &["import", "i", "records.jsonl", "--key-field", "/id"], "");
    assert!(seen.contains("importing") && seen.contains('━'), "{seen}");
    let seen = on_terminal(&bench, &["ledger", "drop", "other"], "other\n");
    assert!(seen.contains("Type the ledger's name") && seen.contains("dropped"), "{seen}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_well() {
    let (bench, _holder) = held_with_records(1_000);
    let mut caller = bench.start(["export", "c"]);
    caller.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let run = Run::of(&caller.wait_with_output().unwrap());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(bench.ok(["export", "c"]).lines().count(), 1_000);
}

#[test]
fn the_caller_s_directory_store_and_environment_are_meant() {
    let bench = Bench::new();
    let (here, elsewhere) = (bench.path("here"), bench.path("elsewhere"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    let mut command = bench.command(["hold", "--json", "--store", "../ledger"]);
    command.current_dir(&elsewhere).env("SYNCLEDGER_STORE", "nowhere");
    let _holder = Holder::start(command);

    let run = |args: &[&str]| {
        let mut command = bench.command(args);
        let run = Run::of(&command.current_dir(&here).env("SYNCLEDGER_STORE", "../ledger").output().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
        run
    };
    fs::write(here.join("records.jsonl"), "{\"id\":\"a\",\"n\":1}\n{\"id\":\"b\",\"n\":2}\n").unwrap();
    fs::write(here.join("value.json"), r#"{"id":"c","n":3}"#).unwrap();
    run(&["import", "c", "records.jsonl", "--key-field", "/id"]);
    run(&["put", "c", "c", "@value.json"]);
    fs::write(here.join("number.json"), "4").unwrap();
    run(&["patch", "c", "c", "--set", "/n=@number.json"]);
    assert_eq!(run(&["get", "c", "c", "/n", "--json"]).lines()[0]["value"], 4);
    let exported = run(&["export", "c", "out.jsonl", "--json"]).lines().remove(0);
    assert_eq!(exported, json!({ "collection": "c", "records": 3, "file": "out.jsonl" }));
    assert_eq!(fs::read_to_string(here.join("out.jsonl")).unwrap().lines().count(), 3);
    assert_eq!(run(&["backup", "all.slbk", "--json"]).lines()[0]["file"], "all.slbk");
    assert!(here.join("all.slbk").is_file());
    assert_eq!(run(&["verify", "all.slbk", "--json"]).lines()[0]["events"], 4);
    assert_eq!(run(&["status", "--json"]).lines()[0]["store"], "../ledger");
    run(&["rebuild", "--into", "copy"]);
    assert!(here.join("copy").is_dir() && fs::read_dir(&elsewhere).unwrap().next().is_none());
}

#[test]
fn stdin_is_the_caller_s_whatever_its_length() {
    let (bench, _holder) = held();
    let put = bench.run_with(["put", "c", "k", "-"], br#"{"n":1}"#);
    assert_eq!(put.code, 0, "{put:?}");
    let line =
        |number| format!(r#"{{"op":"put","collection":"b","key":"{number}","value":{{"n":{number}}}}}{}"#, "\n");
    let batch = bench.run_with(["batch", "-"], (0..200).map(line).collect::<String>().as_bytes());
    assert_eq!(batch.code, 0, "{batch:?}");
    let line = |number| format!("{{\"id\":{number},\"text\":\"{}\"}}\n", "x".repeat(500));
    let records: String = (0..3_000).map(line).collect();
    let import = bench.run_with(["import", "i", "-", "--key-field", "/id", "--json"], records.as_bytes());
    assert_eq!((import.code, &import.lines()[0]["created"]), (0, &3_000.into()), "{import:?}");
    let empty = bench.run_with(["put", "c", "k", "-", "--json"], b"");
    assert_eq!((empty.code, empty.error()["code"].as_str()), (1, Some("validation")), "{empty:?}");
    let mut command = bench.command(["put", "c", "k", "-", "--json"]);
    let unreadable = Run::of(&command.stdin(File::open(bench.path("")).unwrap()).output().unwrap());
    assert!(unreadable.code == 1 && unreadable.err.contains("directory"), "{unreadable:?}");
}

#[test]
fn exit_codes_and_errors_are_those_of_a_command_that_runs_here() {
    let (office, laptop) = (Bench::new(), Bench::empty());
    office.ok(["put", "c", "k", r#"{"s":"open"}"#]);
    laptop.ok(["init"]);
    laptop.pull(&office);
    laptop.ok(["patch", "c", "k", r#"{"s":"done"}"#]);
    office.ok(["patch", "c", "k", r#"{"s":"lost"}"#]);
    let _holder = Holder::of(&office);
    office.pull(&laptop);
    office.refused(["conflicts", "--fail-if-open", "--strategy", "manual"], 4, "conflict");
    assert_eq!(office.refused(["get", "c", "none"], 1, "not_found")["retryable"], false);
    office.file("bad.jsonl", "{\"id\":1}\nno\n");
    office.refused(["import", "i", "bad.jsonl", "--key-field", "/id"], 3, "partly_failed");
    office.refused(["patch", "c", "k"], 2, "usage");
    office.refused(["resolve", "--json"], 2, "usage");
    let both = Holder::of(&laptop);
    office.refused(["pull", laptop.path("ledger").to_str().unwrap()], 11, "locked");
    drop(both);
    office.pull(&laptop);
}

#[test]
fn callers_at_the_same_time_all_get_what_they_asked_for() {
    let (bench, _holder) = held();
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                for number in 0..8 {
                    let key = format!("{caller}-{number}");
                    bench.ok(["put", "c", &key, &json!({ "caller": caller }).to_string()]);
                    assert_eq!(bench.json(["get", "c", &key, "/caller"])["value"], caller);
                }
            });
        }
    });
    assert_eq!(bench.json(["list"])["records"], 32);
}

#[test]
fn ctrl_c_at_the_caller_ends_the_command_and_not_the_holder() {
    let (bench, _holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    let mut follower = bench.start(["log", "--follow", "--json"]);
    let (line, _stdout) = first_line(&mut follower);
    assert!(line.contains("\"key\":\"k\""), "{line}");
    press_ctrl_c(&follower);
    assert_eq!(follower.wait().unwrap().code(), Some(130));

    let mut command = bench.command(["import", "i", "-", "--key-field", "/id", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = (0..1_000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    stdin.write_all(lines.as_bytes()).unwrap();
    while bench.lines(["list", "i", "--limit", "1"]).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    press_ctrl_c(&child);
    // It ends after its chunk, and goes on reading until then.
    while stdin.write_all(lines.as_bytes()).is_ok() {}
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (130, Some("cancelled")), "{run:?}");
    assert!(run.lines()[0]["created"].as_u64().unwrap() > 0);
    bench.ok(["verify"]);
}

/// A batch that waits for the rest of its input: a pipe does not take in what is written here, so the command has begun.
fn half_a_batch(bench: &Bench) -> (Child, std::process::ChildStdin) {
    let mut command = bench.command(["batch", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let value = json!({ "text": "x".repeat(2_000) });
    let line = |key: usize| json!({ "op": "put", "collection": "half", "key": key.to_string(), "value": value });
    let lines: String = (0..200).map(|key| format!("{}\n", line(key))).collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    (child, stdin)
}

#[test]
fn a_caller_that_is_killed_leaves_nothing_running() {
    let (bench, _holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    // More than the holder runs at once, one after the other. Each is read on: else it would end for want of a reader.
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut follower = bench.start(["log", "--follow", "--json"]);
        readers.push(first_line(&mut follower));
        follower.kill().unwrap();
        follower.wait().unwrap();
    }
    bench.ok(["list"]);
    // Input that ends because the caller has gone is no end: half a batch is none.
    let (mut child, _stdin) = half_a_batch(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(bench.lines(["list", "half"]).is_empty());
}

#[test]
fn nothing_is_printed_for_a_caller_that_has_gone() {
    let (bench, _holder) = held_with_records(3_000);
    let mut caller = bench.start(["export", "c"]);
    let mut stdout = caller.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    // What a pipe takes in is printed by now, and the rest waits.
    std::thread::sleep(Duration::from_millis(300));
    caller.kill().unwrap();
    caller.wait().unwrap();
    // Then the holder has to learn of it.
    std::thread::sleep(Duration::from_secs(1));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 300_000, "{} bytes were printed", rest.len());
}

#[test]
fn so_many_commands_run_at_once_and_others_find_the_store_locked() {
    let (bench, _holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    let mut followers: Vec<Child> = (0..16).map(|_| bench.start(["log", "--follow", "--json"])).collect();
    let streams: Vec<_> = followers.iter_mut().map(first_line).collect();
    let error = bench.refused(["list"], 11, "locked");
    assert_eq!(error["retryable"], true);
    followers.iter_mut().for_each(|follower| follower.kill().unwrap());
    assert!(followers.iter_mut().all(|follower| !follower.wait().unwrap().success()));
    drop(streams);
    // It may come before the holder knows, and waits.
    bench.ok(["list"]);
}

#[test]
fn the_reader_of_a_followed_log_who_goes_ends_it() {
    let (bench, _holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    let mut follower = bench.start(["log", "--follow", "--json"]);
    drop(first_line(&mut follower));
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn a_holder_that_ends_has_its_commands_end_first() {
    let (bench, holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    let mut follower = bench.start(["log", "--follow", "--json"]);
    let _stdout = first_line(&mut follower);
    assert_eq!(holder.end(), Some(0));
    assert_eq!(follower.wait().unwrap().code(), Some(130));
}

#[test]
fn a_holder_that_ends_waits_for_no_input() {
    let (bench, holder) = held();
    let (child, stdin) = half_a_batch(&bench);
    assert_eq!(holder.end(), Some(0));
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("network")), "{run:?}");
    drop(stdin);
    assert!(bench.lines(["list"]).is_empty(), "half a batch is none");
}

#[test]
fn a_holder_in_the_background_has_no_stdin_and_ends_when_it_is_told_to() {
    let bench = Bench::new();
    let mut holder = Holder::ready(bench.command(["hold", "--json"]).stdin(Stdio::null()));
    std::thread::sleep(Duration::from_millis(300));
    bench.ok(["put", "c", "k", "{}"]);
    assert!(socket(&bench).exists());
    signal(&holder.0, "-TERM");
    assert_eq!(holder.0.wait().unwrap().code(), Some(0));
    assert!(!socket(&bench).exists());
}

#[test]
fn what_a_holder_left_that_was_killed_while_it_began_is_in_nobody_s_way() {
    let bench = Bench::new();
    fs::create_dir(bench.path("ledger/control.new")).unwrap();
    drop(UnixListener::bind(bench.path("ledger/control.new/control")).unwrap());
    std::os::unix::fs::symlink("/nowhere", socket(&bench)).unwrap();
    let holder = Holder::of(&bench);
    assert!(!bench.path("ledger/control.new").exists());
    assert!(!fs::symlink_metadata(socket(&bench)).unwrap().file_type().is_symlink());
    bench.ok(["put", "c", "k", "{}"]);
    assert_eq!(holder.end(), Some(0));
}

#[test]
fn a_holder_that_is_killed_is_told_of_and_then_replaced() {
    let (bench, holder) = held();
    bench.ok(["put", "c", "k", "{}"]);
    let mut follower = bench.start(["log", "--follow", "--json"]);
    let _stdout = first_line(&mut follower);
    holder.kill();
    let run = Run::of(&follower.wait_with_output().unwrap());
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("network")), "{run:?}");
    assert!(run.error()["hint"].as_str().unwrap().contains("may be written or not"), "{run:?}");

    assert!(socket(&bench).exists(), "its socket is left over");
    bench.ok(["put", "c", "l", "{}"]);
    let _holder = Holder::of(&bench);
    assert_eq!(column(&bench.lines(["list", "c"]), "/key"), ["k", "l"]);
}

#[test]
fn a_process_that_holds_the_store_and_answers_nobody_locks_it() {
    let bench = Bench::new();
    let store = Store::open(bench.path("ledger")).unwrap();
    bench.refused(["list"], 11, "locked");
    // Nor does a socket help that nobody listens at.
    drop(UnixListener::bind(socket(&bench)).unwrap());
    bench.refused(["list"], 11, "locked");
    drop(store);
    bench.ok(["list"]);
    let _holder = Holder::of(&bench);
    bench.refused(["hold"], 11, "locked");
}

#[test]
fn what_needs_no_store_is_done_here_though_one_is_held() {
    let (bench, _holder) = held();
    bench.file("base.json", r#"{"a":1,"b":1}"#);
    bench.file("a.json", r#"{"a":2,"b":1}"#);
    bench.file("b.json", r#"{"a":1,"b":2}"#);
    assert_eq!(bench.ok(["merge", "base.json", "a.json", "b.json"]), r#"{"a":2,"b":2}"#);
    assert!(bench.ok(["completions", "bash"]).contains("hold"));
    assert!(bench.ok(["man"]).contains("syncledger"));
    bench.ok(["backup", "all.slbk"]);
    bench.ok(["rebuild", "--from", "all.slbk", "--into", "fresh"]);
}

#[test]
fn a_store_deeper_than_a_socket_s_address_is_answered_for_too() {
    let bench = Bench::empty();
    let deep = ["d".repeat(60), "e".repeat(60), "f".repeat(60), "ledger".to_owned()].join("/");
    let with = |args: &[&'static str]| [["--store", deep.as_str()].as_slice(), args].concat();
    bench.ok(with(&["init"]));
    let _holder = Holder::start(bench.command(with(&["hold", "--json"])));
    assert!(bench.path(&deep).join("control").exists());
    bench.ok(with(&["put", "c", "k", "{}"]));
    assert_eq!(bench.lines(with(&["list", "c"])).len(), 1);
}

/// What the holder says to somebody who sends this, after its hello, until it ends the connection.
fn answer_to(bench: &Bench, sent: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(bench)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    hello_of(&mut stream);
    // It may refuse before it has all.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    String::from_utf8_lossy(&answer).into_owned()
}

fn hello_of(stream: &mut UnixStream) -> [u8; 32] {
    let mut hello = [0; 32];
    stream.read_exact(&mut hello).unwrap();
    assert!(hello.starts_with(b"slcontrl"), "{hello:?}");
    hello
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [u32::try_from(bytes.len()).unwrap().to_le_bytes().as_slice(), bytes].concat()
}

/// A request for a command, from the root directory and without a terminal.
fn request(arguments: &[&str]) -> Vec<u8> {
    let parts = ["/", "ledger", "syncledger"].iter().chain(arguments).flat_map(|part| with_length(part.as_bytes()));
    with_length(&std::iter::once(0).chain(parts).collect::<Vec<u8>>())
}

#[test]
fn a_command_that_no_caller_leaves_to_the_holder_is_not_run_there() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let (bench, _holder) = held();
    let mut stream = UnixStream::connect(socket(&bench)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let asked = [hello_of(&mut stream).as_slice(), &request(&["completions", "bash"])].concat();
    let words = File::create(bench.path("words")).unwrap();
    let lent = [words.as_fd(), words.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&lent)));
    let sent = sendmsg(&stream, &[std::io::IoSlice::new(&asked)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, asked.len());
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [b'e', 2]);
    let words = fs::read_to_string(bench.path("words")).unwrap();
    assert!(words.contains("by the one who gives it") && words.lines().count() == 1, "{words}");
    bench.ok(["list"]);
}

#[test]
fn what_is_no_request_is_refused_and_runs_nothing() {
    let (bench, _holder) = held();
    let hello = hello_of(&mut UnixStream::connect(socket(&bench)).unwrap());
    assert!(answer_to(&bench, &[b'x'; 64]).contains("client"), "another word");
    let mut newer = hello;
    newer[8] += 1;
    assert!(answer_to(&bench, &newer).contains("upgrade_needed"));
    let large = [hello.as_slice(), &(5_u32 << 20).to_le_bytes(), &[0; 1024]].concat();
    assert!(answer_to(&bench, &large).contains("too_large"));
    let lying = [hello.as_slice(), &7_u32.to_le_bytes(), &[0, 255, 255, 255, 255, 0, 0]].concat();
    assert!(answer_to(&bench, &lying).contains("client"), "a length that is not true");
    let whole = [hello.as_slice(), &request(&["init"])].concat();
    assert!(answer_to(&bench, &whole).contains("client"), "nothing is lent");
    bench.ok(["list"]);
}

#[test]
fn who_says_nothing_is_given_up_and_keeps_nobody_waiting() {
    let (bench, _holder) = held();
    let _silent: Vec<_> = (0..40).map(|_| UnixStream::connect(socket(&bench)).unwrap()).collect();
    bench.ok(["put", "c", "k", "{}"]);
    let slow = answer_to(&bench, b"slco");
    assert!(slow.contains("timeout"), "{slow}");
    bench.ok(["list"]);
}

/// Somebody at the socket of a store that nobody holds, who does this with whoever comes first.
fn impostor(bench: &Bench, act: impl FnOnce(UnixStream) + Send + 'static) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket(bench)).unwrap();
    std::thread::spawn(move || act(listener.accept().unwrap().0))
}

#[test]
fn a_holder_of_another_version_is_named_and_something_else_is_passed_by() {
    let (bench, holder) = held();
    let mut hello = hello_of(&mut UnixStream::connect(socket(&bench)).unwrap());
    holder.end();
    hello[8] += 1;
    let other = impostor(&bench, move |mut stream| stream.write_all(&hello).unwrap());
    let error = bench.refused(["list"], 1, "upgrade_needed");
    assert!(error["hint"].as_str().unwrap().contains("same version"), "{error}");
    other.join().unwrap();
    fs::remove_file(socket(&bench)).unwrap();
    let other = impostor(&bench, |mut stream| stream.write_all(&[b'x'; 64]).unwrap());
    bench.ok(["list"]);
    other.join().unwrap();
    fs::remove_file(socket(&bench)).unwrap();
    let other = impostor(&bench, |mut stream| assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "nothing was asked"));
    bench.ok(["list"]);
    other.join().unwrap();
}

#[test]
fn a_holder_that_goes_after_it_was_asked_is_told_of() {
    let (bench, holder) = held();
    let hello = hello_of(&mut UnixStream::connect(socket(&bench)).unwrap());
    holder.end();
    let other = impostor(&bench, move |mut stream| {
        stream.write_all(&hello).unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    });
    let error = bench.refused(["put", "c", "k", "{}"], 1, "network");
    assert!(error["message"].as_str().unwrap().contains("went away"), "{error}");
    other.join().unwrap();
}
