use std::fs;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::MemoryRows;
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

/// Bytes that no compression makes fewer.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Enough writes to one key that the file is compacted at least once; the value tells the round.
fn churn(rows: &FileRows, rounds: usize) {
    for round in 0..rounds {
        rows.write(vec![(b"big".to_vec(), Some(noise(round as u64, 100_000)))], b"churned").unwrap();
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
        assert_eq!(rows.get(b"big").unwrap(), Some(noise(49, 100_000)));
        assert_eq!(rows.mark().as_deref(), Some(b"churned".as_slice()));
    }
    assert_eq!(disk::names(dir.path()).unwrap().len(), 2, "one index, one file of values");
}

#[test]
fn marks_alone_do_not_grow_the_index_for_ever() {
    let dir = written();
    let rows = FileRows::open(dir.path()).unwrap();
    (0..60).for_each(|round| rows.write(vec![], &noise(round, 60_000)).unwrap());
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

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Rows with the mark of the last write.
type State = (Model, Option<Vec<u8>>);

fn change(model: &mut Model, changes: &Changes) {
    for (key, value) in changes.clone() {
        match value {
            Some(value) => model.insert(key, value),
            None => model.remove(&key),
        };
    }
}

fn all(rows: &dyn Rows) -> Vec<Row> {
    rows.scan(b"", None, usize::MAX).unwrap()
}

/// Three writes of neighbours that share blocks; the rows and the mark after each.
fn stories() -> (tempfile::TempDir, Vec<State>) {
    let dir = tempfile::tempdir().unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    let (mut model, mut states) = (Model::new(), vec![(Model::new(), None)]);
    for round in 0..3_u8 {
        let value = |n: u8| (n % 3 != round).then(|| format!("value {n} of round {round}").into_bytes());
        let changes: Changes = (round..12).map(|n| (vec![b'k', n], value(n))).collect();
        rows.write(changes.clone(), &[round]).unwrap();
        change(&mut model, &changes);
        states.push((model.clone(), Some(vec![round])));
    }
    (dir, states)
}

#[test]
fn a_byte_flipped_anywhere_is_noticed_or_leaves_a_state_of_before() {
    let (dir, states) = stories();
    let (last, mark) = states.last().unwrap();
    for path in [values_path(dir.path(), 1), index_path(dir.path())] {
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let scratch = tempfile::tempdir().unwrap();
            copy(dir.path(), scratch.path());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            fs::write(scratch.path().join(path.file_name().unwrap()), flipped).unwrap();
            let rows = FileRows::open(scratch.path()).unwrap();
            let damaged = last.keys().any(|key| rows.get(key).is_err_and(|fault| fault.kind() == ErrorKind::Corrupt));
            let found = rows.mark();
            if damaged {
                assert_eq!(&found, mark);
                assert!(
                    last.iter().all(|(key, value)| rows.get(key).is_ok_and(|found| found.as_ref() == Some(value))
                        || rows.get(key).is_err_and(|fault| fault.kind() == ErrorKind::Corrupt))
                );
            } else {
                let state = (all(&rows).into_iter().collect::<Model>(), found);
                assert!(states.contains(&state), "byte {at} of {}: {state:?}", path.display());
            }
        }
    }
}

#[test]
fn a_write_torn_at_any_byte_of_its_values_leaves_the_state_of_before_and_can_be_continued() {
    let (dir, states) = stories();
    let rows = FileRows::open(dir.path()).unwrap();
    let before = tempfile::tempdir().unwrap();
    copy(dir.path(), before.path());
    let end = rows.writer().values_end as usize;
    rows.write((0..12).map(|n| (vec![b'k', n], Some(noise(n.into(), 20)))).collect(), b"torn").unwrap();
    let values = fs::read(values_path(dir.path(), 1)).unwrap();
    for length in end..=values.len() {
        let scratch = tempfile::tempdir().unwrap();
        copy(before.path(), scratch.path());
        fs::write(values_path(scratch.path(), 1), &values[..length]).unwrap();
        let rows = FileRows::open(scratch.path()).unwrap();
        let (model, mark) = states.last().unwrap();
        assert_eq!((&all(&rows).into_iter().collect::<Model>(), &rows.mark()), (model, mark));
        rows.write(vec![set("k", "after")], b"after").unwrap();
        let rows = FileRows::open(scratch.path()).unwrap();
        assert_eq!((text(&rows, "k").as_deref(), all(&rows).len()), (Some("after"), model.len() + 1));
    }
}

#[test]
fn a_large_value_comes_back_with_its_small_neighbours_and_goes_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    let large = noise(1, 5 << 20);
    rows.write(vec![set("a", "1"), (b"b".to_vec(), Some(large.clone())), set("c", "3")], b"1").unwrap();
    for rows in [&rows, &FileRows::open(dir.path()).unwrap()] {
        assert!(rows.get(b"b").unwrap() == Some(large.clone()));
        assert_eq!((text(rows, "a").as_deref(), text(rows, "c").as_deref()), (Some("1"), Some("3")));
        assert_eq!(all(rows).len(), 3);
    }
    rows.write(vec![(b"b".to_vec(), None)], b"2").unwrap();
    assert!(rows.bytes_on_disk() < 1_000, "{}", rows.bytes_on_disk());
    for rows in [&rows, &FileRows::open(dir.path()).unwrap()] {
        assert_eq!((rows.get(b"b").unwrap(), all(rows).len()), (None, 2));
    }
}

#[test]
fn small_rows_that_stay_do_not_keep_the_large_ones_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let rows = FileRows::open(dir.path()).unwrap();
    for round in 0..3_000_u64 {
        let small = (0..5).map(|n| (format!("s{}", round % 100 * 5 + n).into_bytes(), Some(vec![n as u8])));
        let large = (b"large".to_vec(), Some(noise(round, 3_000)));
        rows.write(small.chain([large]).collect(), b"").unwrap();
    }
    assert!(rows.bytes_on_disk() < 3 << 20, "{}", rows.bytes_on_disk());
}

#[test]
fn compacted_again_and_again_rows_stay_and_lie_in_full_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, mut model) = (FileRows::open(dir.path()).unwrap(), Model::new());
    for round in 0..12_u64 {
        let key = |n: u64| format!("r/{:05}", n * 7_919 % 20_000).into_bytes();
        let value =
            |n: u64| (!n.is_multiple_of(5)).then(|| format!("{n} of {round}, {:?}", noise(n, 12)).into_bytes());
        let changes: Changes = (round * 600..round * 600 + 2_000).map(|n| (key(n), value(n + round))).collect();
        rows.write(changes.clone(), &[round as u8]).unwrap();
        change(&mut model, &changes);
        rows.compact(&mut rows.writer()).unwrap();
        assert!(all(&rows).into_iter().eq(model.clone()), "round {round}");
        let (live, end) = (rows.view().index.live_bytes(), rows.writer().values_end);
        assert!(live <= end && live > end * 9 / 10, "{live} of {end}");
    }
    let live = rows.view().index.live_bytes();
    let rows = FileRows::open(dir.path()).unwrap();
    assert!(all(&rows).into_iter().eq(model));
    assert_eq!((rows.writer().generation, rows.view().index.live_bytes()), (13, live));
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u16, Option<(u64, usize)>)>),
    Reopen,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![8 => 0..40_usize, 4 => 200..500_usize, 1 => 3_000..9_000_usize];
    let value = proptest::option::weighted(0.8, (any::<u64>(), length));
    prop_oneof![
        8 => proptest::collection::vec((0..300_u16, value), 0..120).prop_map(Step::Write),
        1 => Just(Step::Reopen),
        1 => Just(Step::Compact),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_in_blocks_read_like_rows_in_memory(steps in proptest::collection::vec(step(), 1..16)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut rows, memory) = (FileRows::open(dir.path()).unwrap(), MemoryRows::default());
        let key = |n: u16| format!("{}/{n:03}", n % 3).into_bytes();
        for (step, mark) in steps.into_iter().zip(0_u32..) {
            match step {
                Step::Write(changes) => {
                    let changes: Changes = changes.into_iter()
                        .map(|(n, value)| (key(n), value.map(|(seed, length)| noise(seed % 9, length))))
                        .collect();
                    rows.write(changes.clone(), &mark.to_le_bytes()).unwrap();
                    memory.write(changes, &mark.to_le_bytes()).unwrap();
                }
                Step::Reopen => {
                    drop(rows);
                    rows = FileRows::open(dir.path()).unwrap();
                }
                Step::Compact => rows.compact(&mut rows.writer()).unwrap(),
            }
            prop_assert!(all(&rows) == all(&memory));
            prop_assert_eq!(rows.mark(), memory.mark());
            for n in (0..300).step_by(7) {
                let after = key(n);
                prop_assert!(rows.get(&after).unwrap() == memory.get(&after).unwrap());
                prop_assert_eq!(rows.keys(b"1/", Some(&after), 9).unwrap(), memory.keys(b"1/", Some(&after), 9).unwrap());
            }
        }
    }
}
