use std::fs;

use super::*;
use crate::error::ErrorKind;

fn set(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

fn text(rows: &FileRows, key: &str) -> Option<String> {
    rows.get(key.as_bytes()).unwrap().map(|value| String::from_utf8(value).unwrap())
}

/// Rows after two writes, closed.
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    rows.write(vec![set("a", "one"), set("b", "stays")], b"1").unwrap();
    rows.write(vec![set("a", "two")], b"2").unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    for name in disk::names(from).unwrap() {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Enough writes to one key that the file is compacted at least once; the value tells the round.
fn churn(rows: &FileRows, rounds: usize) {
    for round in 0..rounds {
        rows.write(vec![(b"big".to_vec(), Some(vec![round as u8; 100_000]))], b"churned").unwrap();
    }
}

#[test]
fn a_commit_torn_anywhere_leaves_the_one_before_and_can_be_continued() {
    let dir = written();
    let index = fs::read(index_path(dir.path())).unwrap();
    for length in 0..index.len() {
        fs::write(index_path(dir.path()), &index[..length]).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        copy(dir.path(), scratch.path());
        let rows = FileRows::open(scratch.path()).unwrap();
        let state = (rows.mark(), text(&rows, "a"), text(&rows, "b"));
        let one = (Some(b"1".to_vec()), Some("one".to_owned()), Some("stays".to_owned()));
        assert!(state == one || state == (None, None, None), "length {length}: {state:?}");
        rows.write(vec![set("c", "three")], b"3").unwrap();
        drop(rows);
        let rows = FileRows::open(scratch.path()).unwrap();
        assert_eq!((rows.mark(), text(&rows, "c")), (Some(b"3".to_vec()), Some("three".to_owned())));
        assert_eq!(text(&rows, "a"), state.1);
    }
}

#[test]
fn what_followed_a_damaged_commit_never_comes_back() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    let damaged = rows.writer().log_end as usize;
    rows.write(vec![set("a", "three")], b"3").unwrap();
    rows.write(vec![set("b", "four")], b"4").unwrap();
    drop(rows);
    let mut index = fs::read(index_path(dir.path())).unwrap();
    index[damaged + 9] ^= 1;
    fs::write(index_path(dir.path()), index).unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    assert_eq!(rows.mark().as_deref(), Some(b"2".as_slice()));
    rows.write(vec![set("a", "other")], b"5").unwrap();
    drop(rows);
    let rows = FileRows::open(dir.path()).unwrap();
    assert_eq!((rows.mark(), text(&rows, "b")), (Some(b"5".to_vec()), Some("stays".into())));
}

#[test]
fn values_without_their_commit_are_not_there() {
    let dir = written();
    let before = fs::read(index_path(dir.path())).unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    rows.write(vec![set("a", "three")], b"3").unwrap();
    drop(rows);
    fs::write(index_path(dir.path()), before).unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    assert_eq!((rows.mark(), text(&rows, "a")), (Some(b"2".to_vec()), Some("two".into())));
}

#[test]
fn every_flipped_bit_of_a_block_is_corrupt_and_clearing_repairs_it() {
    let dir = written();
    let path = values_path(dir.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let block = FileRows::open(dir.path()).unwrap().view().index.get(b"b").unwrap().block;
    for bit in block.offset as usize * 8..block.end().unwrap() as usize * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, flipped).unwrap();
        let rows = FileRows::open(dir.path()).unwrap();
        assert_eq!(rows.get(b"b").unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(rows.scan(b"", None, 9).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(text(&rows, "a").as_deref(), Some("two"));
    }
    let rows = FileRows::open(dir.path()).unwrap();
    rows.clear().unwrap();
    rows.write(vec![set("b", "again")], b"3").unwrap();
    assert_eq!(text(&rows, "b").as_deref(), Some("again"));
}

#[test]
fn values_cut_off_under_an_open_handle_are_corrupt_and_at_opening_mean_empty() {
    let dir = written();
    let path = values_path(dir.path(), 1);
    let rows = FileRows::open(dir.path()).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(HEAD_BYTES + 2).unwrap();
    assert_eq!(rows.get(b"a").unwrap_err().kind(), ErrorKind::Corrupt);
    drop(rows);
    let rows = FileRows::open(dir.path()).unwrap();
    assert_eq!((rows.mark(), rows.keys(b"", None, 9).unwrap()), (None, vec![]));
    rows.write(vec![set("a", "new")], b"3").unwrap();
    assert_eq!(text(&rows, "a").as_deref(), Some("new"));
}

#[test]
fn a_missing_or_foreign_file_means_empty_and_never_fails() {
    for damage in ["index", "values-0000000000000001"] {
        for bytes in [None, Some(b"".as_slice()), Some(b"SLRX\x02 of a later version")] {
            let dir = written();
            let path = dir.path().join(damage);
            match bytes {
                None => fs::remove_file(path).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
            }
            let rows = FileRows::open(dir.path()).unwrap();
            assert_eq!((rows.mark(), text(&rows, "a")), (None, None));
        }
    }
}

#[test]
fn compaction_keeps_the_live_rows_and_gives_the_space_back() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    churn(&rows, 50);
    assert!(rows.bytes_on_disk() < 2_500_000, "{}", rows.bytes_on_disk());
    assert!(rows.writer().generation > 1);
    for rows in [rows, FileRows::open(dir.path()).unwrap()] {
        assert_eq!((text(&rows, "a").as_deref(), text(&rows, "b").as_deref()), (Some("two"), Some("stays")));
        assert_eq!(rows.get(b"big").unwrap(), Some(vec![49; 100_000]));
        assert_eq!(rows.mark().as_deref(), Some(b"churned".as_slice()));
    }
    assert_eq!(disk::names(dir.path()).unwrap().len(), 2, "one index, one file of values");
}

#[test]
fn marks_alone_do_not_grow_the_index_for_ever() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    (0..60).for_each(|_| rows.write(vec![], &[7; 60_000]).unwrap());
    assert!(rows.bytes_on_disk() < 1_500_000, "{}", rows.bytes_on_disk());
    assert_eq!(text(&rows, "a").as_deref(), Some("two"));
}

#[test]
fn a_power_cut_between_any_two_steps_of_a_compaction_loses_nothing() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    rows.compact(&mut rows.writer()).unwrap();
    drop(rows);
    let (new_values, new_index) = (values_path(dir.path(), 2), index_path(dir.path()));
    let values = fs::read(&new_values).unwrap();
    let index = fs::read(&new_index).unwrap();
    let next = values_path(old.path(), 2);
    let steps: [(PathBuf, &[u8]); 5] = [
        (next.clone(), b""),
        (next.clone(), &values[..values.len() / 2]),
        (next, &values),
        (old.path().join("index.unfinished"), &index[..index.len() / 2]),
        (index_path(old.path()), &index),
    ];
    for (path, bytes) in steps {
        fs::write(path, bytes).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        copy(old.path(), scratch.path());
        let rows = FileRows::open(scratch.path()).unwrap();
        assert_eq!((text(&rows, "a").as_deref(), text(&rows, "b").as_deref()), (Some("two"), Some("stays")));
        assert_eq!(rows.mark().as_deref(), Some(b"2".as_slice()));
        assert_eq!(disk::names(scratch.path()).unwrap().len(), 2, "what is not named is removed");
    }
}

#[test]
fn a_failed_write_stops_the_writing_and_readers_go_on() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    rows.writer().log_file = File::open("/dev/null").unwrap();
    assert_eq!(rows.write(vec![set("a", "three")], b"3").unwrap_err().kind(), ErrorKind::Storage);
    assert!(matches!(rows.write(vec![], b"4"), Err(RowsError::Stopped { .. })));
    assert_eq!((rows.mark(), text(&rows, "a")), (Some(b"2".to_vec()), Some("two".into())));
    assert_eq!(text(&FileRows::open(dir.path()).unwrap(), "a").as_deref(), Some("two"));
}
