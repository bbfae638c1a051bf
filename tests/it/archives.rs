//! Archives: the log without its first events is the same ledger, and a crash while they go loses nothing.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use syncledger::ErrorKind;
use syncledger::ledger::{
    AsOf, BackupOptions, Context, Ledger, LogQuery, Look, Options, Query, Store, Target, Which, verify_backup,
};

fn app() -> Context {
    Context::default()
}

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

/// Twelve records with several changes each, a large value, a conflict that is open.
fn fill(ledger: &Ledger) {
    for n in 0..60 {
        let value = json!({ "n": n, "text": "word ".repeat(n % 9), "tags": ["a", n] });
        ledger.put("c", &format!("k{}", n % 12), value, &app()).unwrap();
    }
    ledger.put("c", "large", json!({ "text": "x".repeat(20_000) }), &app()).unwrap();
    let first = ledger.history("c", "k1").unwrap()[0].entry.id;
    let on_older = syncledger::ledger::Write::new("c", "k1", syncledger::ledger::Act::Patch(json!({ "n": "apart" })));
    ledger.write(on_older.on(vec![first]), &app()).unwrap();
    for n in 0..20 {
        ledger.patch("c", &format!("k{}", n % 12), json!({ "m": n }), &app()).unwrap();
    }
}

fn answers(ledger: &Ledger) -> Vec<String> {
    let mut answers = vec![format!("{:?}", ledger.log(&LogQuery::default()).unwrap())];
    answers.push(format!("{:?}", ledger.log(&LogQuery { reverse: true, ..LogQuery::default() }).unwrap()));
    answers.push(format!("{:?} {:?}", ledger.digest().unwrap(), ledger.conflicts(None, Which::All, None).unwrap()));
    for record in ledger.list("c", &Query::default()).unwrap() {
        let middle = Look { as_of: Some(AsOf::Position(30)), policy: None };
        answers.push(format!("{record:?} {:?}", ledger.look("c", &record.key, &middle).unwrap()));
        answers.push(format!("{:?}", ledger.history("c", &record.key).unwrap()));
        answers.push(format!("{:?}", ledger.blame("c", &record.key).unwrap()));
    }
    answers
}

fn sound(ledger: &Ledger) {
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

#[test]
fn an_archived_ledger_answers_everything_as_before_and_goes_on() {
    let (dir, to, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, ledger) in [("memory", memory()), ("disk", Ledger::open(dir.path()).unwrap())] {
        let to = to.path().join(name);
        fill(&ledger);
        let before = answers(&ledger);
        let info = ledger.archive(40, &to).unwrap();
        assert_eq!((info.files.len(), info.events), (1, 39), "{name}");
        // A commit is a frame, and these were single.
        assert_eq!(info.log_begins, 40);
        assert_eq!(answers(&ledger), before);
        // Again, and further.
        assert_eq!(ledger.archive(40, &to).unwrap().files.len(), 0);
        assert_eq!(ledger.archive(70, &to).unwrap().log_begins, 70);
        assert_eq!(answers(&ledger), before);
        sound(&ledger);
        ledger.rebuild().unwrap();
        assert_eq!(answers(&ledger), before);
        let event = ledger.log(&LogQuery { limit: Some(1), ..LogQuery::default() }).unwrap()[0].id;
        ledger.revert(&Target::Event(event), &app()).unwrap();
        ledger.patch("c", "k3", json!({ "later": 1 }), &app()).unwrap();
        // A replica takes everything, and a backup with the archive's files is the ledger.
        let replica = memory();
        replica.pull(&ledger).unwrap();
        assert_eq!(replica.digest().unwrap().digest, ledger.digest().unwrap().digest);
        let backup = to.join("rest.slbk");
        ledger.backup(&backup, &BackupOptions { since: 69, ..BackupOptions::default() }).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 3);
        let store = Store::open(into.path().join(name)).unwrap();
        store.restore("main", &files, false).unwrap();
        assert_eq!(answers(&store.ledger("main").unwrap()), answers(&ledger));
    }
    // Opened again, with and without its derived state.
    let expected = answers(&Ledger::open(dir.path()).unwrap());
    std::fs::remove_dir_all(dir.path().join("rows")).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(answers(&ledger), expected);
    sound(&ledger);
}

#[test]
fn without_its_archive_a_ledger_reads_and_writes_records_and_names_what_is_missing() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::open(dir.path()).unwrap();
    fill(&ledger);
    let records = ledger.list("c", &Query::default()).unwrap();
    let file = ledger.archive(75, to.path().join("here")).unwrap().files[0].clone();
    ledger.store().close().unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.list("c", &Query::default()).unwrap(), records);
    ledger.patch("c", "k2", json!({ "n": 1_000 }), &app()).unwrap();
    assert_eq!(ledger.get("c", "k2").unwrap().unwrap().value["n"], 1_000);
    let blame = ledger.blame("c", "k2").unwrap();
    assert!(blame.iter().any(|line| line.path == "/n" && line.value == json!(1_000)), "{blame:?}");
    let at = |position| {
        let look = Look { as_of: Some(AsOf::Position(position)), policy: None };
        ledger.look("c", "k2", &look).unwrap().unwrap().value["n"].clone()
    };
    let before = records.iter().find(|record| record.key == "k2").unwrap().value["n"].clone();
    assert_eq!((at(ledger.position()), at(ledger.position() - 1)), (json!(1_000), before));
    let latest = LogQuery { after: 74, ..LogQuery::default() };
    assert_eq!(ledger.log(&latest).unwrap()[0].position, 75);
    let names = |fault: syncledger::Error, kind| {
        assert_eq!(fault.kind(), kind, "{fault}");
        assert!(fault.message().contains(file.file_name().unwrap().to_str().unwrap()), "{fault}");
    };
    let all = LogQuery::default();
    names(ledger.log(&all).unwrap_err(), ErrorKind::NotFound);
    assert!(ledger.log(&all).unwrap_err().message().contains("positions 1 to 74"));
    names(ledger.history("c", "k2").unwrap_err(), ErrorKind::NotFound);
    names(ledger.rebuild().unwrap_err(), ErrorKind::NotFound);
    names(memory().pull(&ledger).unwrap_err(), ErrorKind::NotFound);
    // The one thing that is wrong, and nothing that only follows from its not being read.
    let problems = ledger.verify().unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("positions 1 to 74"), "{problems:?}");
    // Without its derived state too, what the archived events led to is known.
    let shown = ledger.list("c", &Query::default()).unwrap();
    ledger.store().close().unwrap();
    let status = format!("{:?}", ledger.digest().unwrap());
    drop(ledger);
    std::fs::remove_dir_all(dir.path().join("rows")).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.list("c", &Query::default()).unwrap(), shown);
    assert_eq!(format!("{:?}", ledger.digest().unwrap()), status);
    ledger.patch("c", "k5", json!({ "n": 2_000 }), &app()).unwrap();
    assert_eq!(ledger.status().unwrap().events, ledger.position());
    // Damaged, of another ledger, of other positions.
    for (at, kind) in [(whole.len() / 2, ErrorKind::Corrupt), (4, ErrorKind::UpgradeNeeded)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 2;
        std::fs::write(&file, damaged).unwrap();
        names(ledger.log(&all).unwrap_err(), kind);
    }
    let stranger = memory();
    fill(&stranger);
    std::fs::remove_file(&file).unwrap();
    stranger.backup(&file, &BackupOptions::default()).unwrap();
    assert_eq!(ledger.log(&all).unwrap_err().kind(), ErrorKind::LedgerMismatch);
    // Elsewhere.
    let there = to.path().join("there");
    std::fs::create_dir(&there).unwrap();
    assert_eq!(ledger.archive_is_at(&there).unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::write(there.join(file.file_name().unwrap()), whole).unwrap();
    ledger.archive_is_at(&there).unwrap();
    assert_eq!(ledger.log(&all).unwrap().len() as u64, ledger.position());
    sound(&ledger);
}

#[test]
fn what_cannot_be_archived_is_refused_and_stays() {
    let to = tempfile::tempdir().unwrap();
    let (ledger, here) = (memory(), to.path().join("here"));
    fill(&ledger);
    let before = answers(&ledger);
    for position in [0, ledger.position() + 2] {
        assert_eq!(ledger.archive(position, &here).unwrap_err().kind(), ErrorKind::Validation);
    }
    let stranger = memory();
    fill(&stranger);
    let name = format!("{}-{:020}-{:020}.slbk", ledger.info().id, 1, 9);
    std::fs::create_dir_all(&here).unwrap();
    stranger.backup(here.join(&name), &BackupOptions::default()).unwrap();
    assert_eq!(ledger.archive(10, &here).unwrap_err().kind(), ErrorKind::Conflict, "in the way");
    assert_eq!(answers(&ledger), before);
    assert_eq!(ledger.archive(1, &here).unwrap().log_begins, 1, "nothing is before it");
    assert_eq!(ledger.archive(5, &here).unwrap().events, 4);
    assert_eq!(ledger.archive(7, to.path().join("else")).unwrap_err().kind(), ErrorKind::Validation);
    // Up to the end: the last event stays in the log.
    let all = ledger.archive(ledger.position() + 1, &here).unwrap();
    assert_eq!((all.events, all.log_begins), (ledger.position(), ledger.position()));
    assert_eq!(answers(&ledger), before);
    ledger.patch("c", "k1", json!({ "x": 1 }), &app()).unwrap();
    sound(&ledger);
}

/// This test's program once more, as a process that writes and archives until it is killed.
#[test]
#[ignore = "a part of the next test, which runs it in a process of its own"]
fn a_process_that_archives_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SYNCLEDGER_TEST_DIR") else { return };
    let dir = Path::new(&dir);
    let ledger = Ledger::open(dir.join("store")).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nopen").unwrap();
    for n in 0u64.. {
        // Never what the record shows already, of an earlier life of this process.
        let value = json!({ "n": ledger.position(), "text": "x".repeat(n as usize % 900) });
        let receipt = ledger.put("c", &format!("k{}", n % 9), value, &app()).unwrap();
        writeln!(out, "{}", receipt.events[0].0).unwrap();
        if n % 5 == 4 {
            ledger.archive(ledger.position() - 1, dir.join("archive")).unwrap();
        }
    }
}

#[test]
fn what_a_process_acknowledged_that_was_killed_while_it_archived_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "archives::a_process_that_archives_until_it_is_killed", "--nocapture", "--ignored"])
            .env("SYNCLEDGER_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        out.by_ref().find(|line| line == "open");
        let mut said: Vec<String> = out.by_ref().take(3 + 7 * round).collect();
        std::thread::sleep(std::time::Duration::from_millis(7 * round as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(out);
        assert!(!said.iter().any(|line| line.contains("FAILED")), "round {round}: {said:?}");
        // A line that breaks off was not said.
        acknowledged.extend(said.into_iter().filter(|line| line.len() == 64));
        let ledger = Ledger::open(dir.path().join("store")).unwrap();
        let log: Vec<_> =
            ledger.log(&LogQuery::default()).unwrap().iter().map(|entry| entry.id.to_string()).collect();
        assert!(acknowledged.iter().all(|id| log.contains(id)), "round {round}");
        if round % 3 == 2 {
            sound(&ledger);
        }
        ledger.store().close().unwrap();
    }
    let files: Vec<_> = std::fs::read_dir(dir.path().join("archive")).unwrap().map(|e| e.unwrap().path()).collect();
    let whole = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "slbk"));
    assert!(whole.filter(|path| verify_backup(path).is_ok()).count() > 5);
}
