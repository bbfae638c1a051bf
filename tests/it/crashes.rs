//! Stores that are killed, locked, cut, flipped and misplaced.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use syncledger::ErrorKind;
use syncledger::event::EventId;
use syncledger::ledger::{Context, Ledger, LogQuery, Options, Query, Store};

fn app() -> Context {
    Context::default()
}

/// This test's program once more, as a process that writes until it is killed: each acknowledged event is a line.
fn writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::a_process_that_writes_until_it_is_killed", "--nocapture", "--ignored"])
        .env("SYNCLEDGER_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "a part of the next test, which runs it in a process of its own"]
fn a_process_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SYNCLEDGER_TEST_DIR") else { return };
    let options = Options { seal_events: 24, ..Options::default() };
    let ledger = Store::open_with(dir, options).unwrap().ledger_or_create("main").unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nopen").unwrap();
    for n in 0u64.. {
        let receipt = match n % 5 {
            4 => ledger.batch(&app(), |batch| {
                batch.put("c", &format!("k{}", n % 7), json!({ "n": n })).put("d", "k", json!({ "n": n }));
            }),
            _ => ledger.put(
                "c",
                &format!("k{}", n % 7),
                json!({ "n": n, "text": "x".repeat(n as usize % 3_000) }),
                &app(),
            ),
        };
        for (id, position) in receipt.unwrap().events {
            writeln!(out, "{position} {id}").unwrap();
        }
        if n % 40 == 39 {
            ledger.store().checkpoint().unwrap();
        }
    }
}

/// Kills a writer after some lines, or while it opens. The events that it acknowledged.
fn killed(dir: &Path, lines: usize) -> Vec<(u64, EventId)> {
    let mut child = writer(dir);
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    if lines == 0 {
        std::thread::sleep(std::time::Duration::from_millis(8));
    } else {
        out.by_ref().find(|line| line == "open");
        acknowledged.extend(out.by_ref().take(lines).filter_map(|line| parse(&line)));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died was acknowledged too; a line that breaks off was not said.
    acknowledged.extend(out.filter_map(|line| parse(&line)));
    acknowledged
}

fn parse(line: &str) -> Option<(u64, EventId)> {
    let (position, id) = line.split_once(' ')?;
    Some((position.parse().ok()?, id.parse().ok()?))
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..20 {
        let lines = [0, 3, 60, 17][round % 4];
        acknowledged.extend(killed(dir.path(), lines));
        let ledger = Ledger::open(dir.path()).unwrap();
        let log = ledger.log(&LogQuery::default()).unwrap();
        for (position, id) in &acknowledged {
            assert_eq!(log[*position as usize - 1].id, *id, "round {round}");
        }
        // A batch is there as a whole or not at all.
        let parts = log.iter().filter_map(|entry| entry.event.batch);
        let whole: usize = parts.map(|batch| if batch.index == 0 { batch.count as usize } else { 0 }).sum();
        assert_eq!(whole, log.iter().filter(|entry| entry.event.batch.is_some()).count());
        if round % 5 == 4 {
            assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
        }
        ledger.store().close().unwrap();
    }
    assert!(acknowledged.len() >= 5 * (3 + 60 + 17), "{}", acknowledged.len());
}

#[test]
fn a_store_is_held_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let fault = Ledger::open(dir.path()).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Locked);
    assert!(fault.message().contains(&std::process::id().to_string()), "{fault}");
    // A handle that is still somewhere keeps it, a closed store does not.
    let clone = ledger.clone();
    drop(ledger);
    assert_eq!(Ledger::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    clone.store().close().unwrap();
    assert_eq!(clone.put("c", "k", json!({}), &app()).unwrap_err().kind(), ErrorKind::Cancelled);
    Ledger::open(dir.path()).unwrap();
    // Another process.
    let mut child = writer(dir.path());
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    out.by_ref().find(|line| line == "open");
    let fault = Ledger::open(dir.path()).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Locked);
    assert!(fault.message().contains(&child.id().to_string()), "{fault}");
    child.kill().unwrap();
    child.wait().unwrap();
    Ledger::open(dir.path()).unwrap();
}

#[test]
fn what_is_no_store_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no store").unwrap();
    for place in [file.clone(), file.join("below")] {
        let fault = Ledger::open(&place).unwrap_err();
        assert!([ErrorKind::Storage, ErrorKind::Permission].contains(&fault.kind()), "{fault}");
        assert!(fault.message().contains("file"), "{fault}");
    }
    let options = Options { create: false, ..Default::default() };
    let fault = Store::open_with(dir.path().join("missing"), options).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::NotFound);
    assert!(!dir.path().join("missing").exists());
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_store_is_refused_or_right_and_never_wrong() {
    let (dir, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    {
        let ledger = Ledger::open(dir.path()).unwrap();
        for n in 0..60 {
            let value = json!({ "n": n, "text": format!("{n}").repeat(100), "big": "b".repeat(if n == 7 { 20_000 } else { 0 }) });
            ledger.put("c", &format!("k{}", n % 11), value, &app()).unwrap();
        }
        ledger.store().close().unwrap();
    }
    let expected = {
        let ledger = Ledger::open(dir.path()).unwrap();
        let expected = ledger.list("c", &Query::default()).unwrap();
        ledger.store().close().unwrap();
        expected
    };
    let (mut refused, mut right) = (0, 0);
    for (index, file) in files(dir.path()).into_iter().enumerate() {
        let whole = std::fs::read(&file).unwrap();
        let relative = file.strip_prefix(dir.path()).unwrap();
        for damage in 0..4 {
            if whole.is_empty() {
                continue;
            }
            let target = damaged.path().join(format!("{index}-{damage}"));
            copy(dir.path(), &target);
            let bytes = match damage {
                0 => whole[..whole.len() / 2].to_vec(),
                1 => Vec::new(),
                _ => {
                    let mut flipped = whole.clone();
                    let at = (whole.len() * (damage + index * 3 % 5)) / 9;
                    flipped[at.min(whole.len() - 1)] ^= 0x24;
                    flipped
                }
            };
            std::fs::write(target.join(relative), bytes).unwrap();
            let read = Ledger::open(&target).and_then(|ledger| {
                let list = ledger.list("c", &Query::default());
                ledger.store().close()?;
                list
            });
            match read {
                Ok(found) => {
                    right += 1;
                    assert_eq!(found, expected, "{} {damage}", relative.display());
                }
                Err(fault) => {
                    refused += 1;
                    let kinds =
                        [ErrorKind::Corrupt, ErrorKind::UpgradeNeeded, ErrorKind::NotFound, ErrorKind::Storage];
                    assert!(kinds.contains(&fault.kind()), "{fault:?} {} {damage}", relative.display());
                }
            }
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    assert!(refused > 2 && right > 2, "{refused} {right}");
}
