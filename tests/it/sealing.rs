//! Logs whose older part moved from the journal into sealed files.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::ledger::{Act, AsOf, Context, Ledger, LogQuery, Look, Options, Store, Write};

use crate::crashes::copy;

fn app() -> Context {
    Context::default()
}

fn open(dir: &Path, seal_events: u64) -> Ledger {
    let options = Options { seal_events, ..Options::default() };
    Store::open_with(dir, options).unwrap().ledger_or_create("main").unwrap()
}

/// The sealed files of a store, with this ending.
fn sealed(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("sealed")).into_iter().flatten().map(|file| file.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|found| found == ending)).collect();
    found.sort();
    found
}

/// Writes `count` events: puts, patches, patches on older heads, batches, large values, deletions.
fn write(ledger: &Ledger, from: usize, count: usize) {
    let mut before = Vec::new();
    for n in from..from + count {
        let key = format!("k{}", n % 5);
        let receipt = match n % 7 {
            0 => ledger.put("c", &key, json!({ "n": n, "text": "x".repeat(n % 900) }), &app()),
            3 if !before.is_empty() => {
                let write = Write::new("c", "k0", Act::Edit(vec![])).on(before.clone());
                let write = Write { act: Act::Patch(json!({ "apart": n })), ..write };
                ledger.write(write, &app())
            }
            4 => ledger.batch(&app(), |batch| {
                for part in ["0", "1", "2"] {
                    batch.put("d", part, json!({ "n": n }));
                }
            }),
            5 if n % 3 == 0 => ledger.put("c", "large", json!({ "n": n, "large": "y".repeat(17_000) }), &app()),
            _ => ledger.put("c", &key, json!({ "n": n }), &app()),
        };
        let receipt = receipt.unwrap();
        if n % 7 == 0 && n % 5 == 0 {
            before = receipt.events.iter().map(|(id, _)| *id).collect();
        }
    }
}

/// What a ledger says of everything, from its first event on.
fn everything(ledger: &Ledger) -> Json {
    let log = ledger.log(&LogQuery::default()).unwrap();
    let histories = ["k0", "k1", "k4", "large"].map(|key| {
        let history = ledger.history("c", key).unwrap();
        history.iter().map(|revision| format!("{:?}", (&revision.entry, &revision.after))).collect::<Vec<_>>()
    });
    let positions = (1..=ledger.position()).step_by(13);
    let past = positions.map(|position| {
        let look = Look { as_of: Some(AsOf::Position(position)), policy: None };
        format!("{:?}", ledger.look("c", "k0", &look).unwrap())
    });
    let entries: Vec<String> = log.iter().map(|entry| format!("{entry:?}")).collect();
    json!([entries, histories, past.collect::<Vec<_>>(), format!("{:?}", ledger.digest().unwrap())])
}

#[test]
fn a_sealed_ledger_answers_as_one_that_was_never_sealed() {
    let (dir, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    {
        let ledger = open(plain.path(), u64::MAX);
        write(&ledger, 0, 300);
        ledger.store().close().unwrap();
    }
    copy(plain.path(), dir.path());
    let (ledger, twin) = (open(dir.path(), 32), open(plain.path(), u64::MAX));
    // Each event lets one more file be sealed, unless that of the one before still is.
    let mut n = 0;
    while sealed(dir.path(), "slsg").len() <= 8 && n < 1_000 {
        n += 1;
        for ledger in [&ledger, &twin] {
            ledger.put("e", "k", json!({ "n": n }), &app()).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    ledger.store().close().unwrap();
    assert_eq!(sealed(plain.path(), "slsg").len(), 0);
    let files = sealed(dir.path(), "slsg");
    assert!(files.len() > 8, "{files:?}");
    let (ledger, position) = (open(dir.path(), 32), twin.position());
    assert_eq!(ledger.position(), position);
    let without_last = |ledger: &Ledger| {
        let log = ledger.log(&LogQuery::default()).unwrap();
        log.iter().take(300).map(|entry| format!("{entry:?}")).collect::<Vec<_>>()
    };
    assert_eq!(without_last(&ledger), without_last(&twin));
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    // Its own derived state, made again from sealed files alone, tells the same.
    let before = everything(&ledger);
    ledger.rebuild().unwrap();
    assert_eq!(everything(&ledger), before);
    // Another replica takes everything over.
    let other = tempfile::tempdir().unwrap();
    let other = open(other.path(), 32);
    other.pull(&ledger).unwrap();
    assert_eq!(other.digest().unwrap(), ledger.digest().unwrap());
}

#[test]
fn frames_that_a_crash_left_beside_their_sealed_file_are_dropped_later() {
    let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    {
        let ledger = open(before.path(), u64::MAX);
        write(&ledger, 0, 120);
        ledger.store().close().unwrap();
    }
    copy(before.path(), dir.path());
    let expected = {
        let ledger = open(dir.path(), 40);
        write(&ledger, 120, 1);
        ledger.store().close().unwrap();
        everything(&open(before.path(), u64::MAX))
    };
    // A crash after the rename: the file is there, and the journal still holds everything.
    copy(&dir.path().join("sealed"), &before.path().join("sealed"));
    let count = sealed(before.path(), "slsg").len();
    assert!(count > 0);
    let ledger = open(before.path(), u64::MAX);
    assert_eq!(everything(&ledger), expected);
    ledger.store().close().unwrap();
    let ledger = open(before.path(), 40);
    write(&ledger, 120, 50);
    ledger.store().close().unwrap();
    let ledger = open(before.path(), 40);
    assert!(sealed(before.path(), "slsg").len() > count);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

#[test]
fn lost_ids_are_made_again_and_lost_events_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let expected = {
        let ledger = open(dir.path(), 32);
        write(&ledger, 0, 200);
        let expected = everything(&ledger);
        ledger.store().close().unwrap();
        expected
    };
    let ids = sealed(dir.path(), "ids");
    assert!(ids.len() > 2, "{ids:?}");
    std::fs::remove_file(&ids[0]).unwrap();
    let mut bytes = std::fs::read(&ids[1]).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&ids[1], bytes).unwrap();
    let ledger = open(dir.path(), 32);
    assert_eq!(everything(&ledger), expected);
    ledger.store().close().unwrap();
    assert_eq!(sealed(dir.path(), "ids").len(), ids.len());
    let files = sealed(dir.path(), "slsg");
    let whole = std::fs::read(&files[0]).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&files[0], bytes).unwrap();
        let ledger = open(dir.path(), 32);
        let fault = ledger.log(&LogQuery::default()).unwrap_err();
        assert!([ErrorKind::Corrupt, ErrorKind::UpgradeNeeded].contains(&fault.kind()), "byte {at}: {fault}");
        assert!(!ledger.verify().unwrap().problems.is_empty(), "byte {at}");
        // What is shown needs no log.
        assert!(ledger.get("d", "0").unwrap().is_some());
        ledger.store().close().unwrap();
    }
    std::fs::remove_file(&files[0]).unwrap();
    let ledger = open(dir.path(), 32);
    let fault = ledger.log(&LogQuery::default()).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Corrupt, "{fault}");
    assert!(ledger.rebuild().is_err());
}

#[test]
fn what_an_archive_and_a_sealed_file_both_hold_is_read_from_either() {
    let (dir, kept, archive) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(dir.path(), 32);
    write(&ledger, 0, 200);
    ledger.store().close().unwrap();
    copy(&dir.path().join("sealed"), kept.path());
    let ledger = open(dir.path(), 32);
    let expected = everything(&ledger);
    ledger.archive(150, archive.path()).unwrap();
    ledger.store().close().unwrap();
    // A crash between the archive and the removal of what it holds, of which a part came to be.
    copy(kept.path(), &dir.path().join("sealed"));
    let last = |file: &PathBuf| file.file_stem()?.to_str()?.rsplit('-').next()?.parse::<u64>().ok();
    let over: Vec<PathBuf> =
        sealed(dir.path(), "slsg").into_iter().filter(|file| last(file).unwrap() < 150).collect();
    assert!(over.len() > 3);
    for file in over.iter().rev() {
        let ledger = open(dir.path(), 32);
        assert_eq!(everything(&ledger), expected, "{}", file.display());
        assert_eq!(ledger.verify().unwrap().problems, [""; 0], "{}", file.display());
        ledger.store().close().unwrap();
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_dropped_ledger_leaves_no_sealed_file() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), 16);
    write(&ledger, 0, 100);
    let other = ledger.store().create_ledger("other").unwrap();
    write(&other, 0, 100);
    ledger.store().close().unwrap();
    let all = sealed(dir.path(), "slsg").len();
    let ledger = open(dir.path(), 16);
    ledger.store().drop_ledger("other").unwrap();
    let left = sealed(dir.path(), "slsg").len();
    assert!(left > 0 && left < all, "{left} of {all}");
    ledger.store().close().unwrap();
    // A file of a ledger that is no more is what a crash left of dropping it.
    let orphan = sealed(dir.path(), "slsg")[0]
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace(&ledger.info().id.to_string(), &"ab".repeat(16));
    std::fs::write(dir.path().join("sealed").join(&orphan), "anything").unwrap();
    let ledger = open(dir.path(), 16);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    assert!(!dir.path().join("sealed").join(&orphan).exists());
}

#[test]
fn an_archive_takes_sealed_events_over() {
    let (dir, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(dir.path(), 32);
    write(&ledger, 0, 200);
    ledger.store().close().unwrap();
    let ledger = open(dir.path(), 32);
    let (expected, before) = (everything(&ledger), sealed(dir.path(), "slsg").len());
    let info = ledger.archive(150, archive.path()).unwrap();
    assert_eq!(info.events, 149);
    assert!(info.log_begins > 1 && info.log_begins <= 150, "{info:?}");
    assert!(sealed(dir.path(), "slsg").len() < before);
    assert_eq!(everything(&ledger), expected);
    write(&ledger, 200, 100);
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
    ledger.store().close().unwrap();
    assert_eq!(open(dir.path(), 32).verify().unwrap().problems, [""; 0]);
}
