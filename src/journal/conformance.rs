//! What every engine must do, as one suite, and what only the one on a disk can get wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::memory::{Faults, MemoryJournal};
use super::sled::SledJournal;
use super::*;
use crate::error::ErrorKind;

const A: LedgerId = LedgerId([0xa; 16]);
const B: LedgerId = LedgerId([0xb; 16]);
const LONG: Duration = Duration::from_secs(60);
const ALL: usize = usize::MAX;

/// A store that can be closed and opened again, and whose disk can break.
trait Bench {
    type Engine: Journal + 'static;
    fn engine(&self) -> Arc<Self::Engine>;
    /// Closes and opens again.
    fn reopen(&mut self);
    /// Ends as a killed process does, and opens again.
    fn kill(&mut self);
    /// Makes the flush of the next append fail.
    fn break_disk(&self);
}

struct Memory(Arc<MemoryJournal>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(MemoryJournal::new()))
    }
}

impl Bench for Memory {
    type Engine = MemoryJournal;

    fn engine(&self) -> Arc<MemoryJournal> {
        self.0.clone()
    }

    fn reopen(&mut self) {
        self.0.close().unwrap();
        self.0 = Arc::new(self.0.crash());
    }

    fn kill(&mut self) {
        self.0 = Arc::new(self.0.crash());
    }

    fn break_disk(&self) {
        self.0.set_faults(Faults { fail_flush: Some(1), ..Faults::default() });
    }
}

struct Sled {
    journal: Option<Arc<SledJournal>>,
    dir: tempfile::TempDir,
}

impl Sled {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = SledJournal::open(dir.path().join("store"), true).unwrap().settling_after(2 << 10);
        Self { journal: Some(Arc::new(journal)), dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn open(&self) -> Result<SledJournal, JournalError> {
        // So few bytes that everything that happens when a file of the front is full happens here.
        Ok(SledJournal::open(self.path(), false)?.settling_after(2 << 10))
    }

    /// Closes the store, so that its files can be changed.
    fn closed(mut self) -> Self {
        self.journal.take().unwrap().close().unwrap();
        self
    }

    fn killed(mut self) -> Self {
        self.journal.take().unwrap().abandon();
        self
    }
}

impl Bench for Sled {
    type Engine = SledJournal;

    fn engine(&self) -> Arc<SledJournal> {
        self.journal.clone().unwrap()
    }

    fn reopen(&mut self) {
        self.journal.take().unwrap().close().unwrap();
        self.journal = Some(Arc::new(self.open().unwrap()));
    }

    fn kill(&mut self) {
        self.journal.take().unwrap().abandon();
        self.journal = Some(Arc::new(self.open().unwrap()));
    }

    fn break_disk(&self) {
        self.engine().break_disk();
    }
}

fn entry(number: u32, id: LedgerId, name: &str) -> LedgerEntry {
    LedgerEntry { number, id, name: name.into(), meta: name.as_bytes().to_vec() }
}

fn with_two<B: Bench>(bench: B) -> B {
    bench.engine().put_ledger(entry(1, A, "alpha")).unwrap();
    bench.engine().put_ledger(entry(2, self::B, "beta")).unwrap();
    bench
}

fn frame(first: u64, last: u64) -> Frame {
    Frame { first, last, payload: format!("events {first} to {last}").into_bytes() }
}

fn append(ledger: LedgerId, expected_head: u64, frames: Vec<Frame>) -> Append {
    Append { ledger, expected_head, frames }
}

/// Appends `count` frames of one event each to `ledger`.
fn fill(journal: &dyn Journal, ledger: LedgerId, count: u64) {
    let head = journal.head(ledger);
    let frames = (head + 1..=head + count).map(|position| frame(position, position)).collect();
    journal.append(&[append(ledger, head, frames)]).unwrap();
}

fn all(journal: &dyn Journal, ledger: LedgerId) -> Vec<Frame> {
    all_after(journal, ledger, 0)
}

fn all_after(journal: &dyn Journal, ledger: LedgerId, position: u64) -> Vec<Frame> {
    journal.read_after(ledger, position, ALL).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, JournalError>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// What the thread returns, if it does so long before [`LONG`] has passed.
fn soon<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    for _ in 0..500 {
        if thread.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(thread.is_finished(), "nobody woke it");
    thread.join().unwrap()
}

fn frames_come_back_in_order_and_by_position(bench: impl Bench) {
    let journal = bench.engine();
    let frames = vec![frame(1, 3), frame(4, 4), frame(5, 300)];
    journal.append(&[append(A, 0, frames.clone())]).unwrap();
    assert_eq!(journal.head(A), 300);
    assert_eq!(all(&*journal, A), frames);
    assert_eq!(journal.read_after(A, 2, ALL).unwrap(), frames, "position 3 stands inside the first frame");
    assert_eq!(journal.read_after(A, 3, ALL).unwrap(), frames[1..]);
    assert_eq!(journal.read_at(A, 256).unwrap(), Some(frames[2].clone()));
    assert_eq!(journal.read_at(A, 0).unwrap(), None);
    assert_eq!(journal.read_at(A, 301).unwrap(), None);
    assert_eq!(journal.read_after(A, 300, ALL).unwrap(), []);
    assert_eq!(journal.read_after(A, u64::MAX, ALL).unwrap(), []);
}

fn gaps_and_wrong_heads_are_refused_and_nothing_is_written(bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, A, 2);
    let wrong = journal.append(&[append(A, 1, vec![frame(2, 2)])]).unwrap_err();
    assert!(matches!(wrong, JournalError::WrongHead { ledger: A, expected: 1, found: 2 }), "{wrong}");
    for frames in [vec![frame(4, 4)], vec![frame(2, 3)], vec![frame(3, 3), frame(5, 5)], vec![frame(3, 2)]] {
        assert_eq!(kind(journal.append(&[append(A, 2, frames)])), ErrorKind::Validation);
    }
    assert_eq!((journal.head(A), all(&*journal, A).len()), (2, 2));
    fill(&*journal, A, 1);
}

fn a_batch_over_ledgers_is_all_or_nothing(bench: impl Bench) {
    let journal = bench.engine();
    let wrong = [append(A, 0, vec![frame(1, 1)]), append(B, 7, vec![frame(8, 8)])];
    assert_eq!(kind(journal.append(&wrong)), ErrorKind::Conflict);
    assert_eq!((journal.head(A), journal.head(B)), (0, 0));
    assert_eq!(all(&*journal, A), []);
    let right = [append(A, 0, vec![frame(1, 1)]), append(B, 0, vec![frame(1, 9)]), append(A, 1, vec![frame(2, 2)])];
    journal.append(&right).unwrap();
    assert_eq!((journal.head(A), journal.head(B)), (2, 9));
}

fn a_frame_of_200_kib_is_kept(mut bench: impl Bench) {
    let payload: Vec<u8> = (0..200_u32 << 10).map(|n| (n % 251) as u8).collect();
    let large = Frame { first: 2, last: 2, payload };
    let frames = vec![frame(1, 1), large, frame(3, 3)];
    bench.engine().append(&[append(A, 0, frames.clone())]).unwrap();
    assert_eq!(all(&*bench.engine(), A), frames);
    bench.reopen();
    assert_eq!(all(&*bench.engine(), A), frames);
    assert_eq!(bench.engine().read_at(A, 3).unwrap(), Some(frames[2].clone()));
}

fn a_read_ends_once_it_exceeds_its_bytes_but_holds_one_frame(bench: impl Bench) {
    let journal = bench.engine();
    let frames: Vec<_> = (1..=5).map(|n| Frame { first: n, last: n, payload: vec![0; 100] }).collect();
    journal.append(&[append(A, 0, frames)]).unwrap();
    let lengths = [0, 1, 100, 101, 250, 10_000].map(|bytes| journal.read_after(A, 0, bytes).unwrap().len());
    assert_eq!(lengths, [1, 1, 1, 2, 3, 5]);
}

fn waiting_ends_with_more_with_time_or_with_closing(bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, A, 1);
    assert_eq!(journal.wait(A, 0, LONG).unwrap(), 1);
    assert_eq!(journal.wait(A, 1, Duration::from_millis(5)).unwrap(), 1);
    assert_eq!(kind(journal.wait(LedgerId([9; 16]), 0, LONG)), ErrorKind::NotFound);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| journal.wait(A, 1, LONG).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        fill(&*journal, B, 1);
        fill(&*journal, A, 2);
        assert_eq!(soon(waiter), 3);
        let waiter = scope.spawn(|| kind(journal.wait(A, 3, LONG)));
        std::thread::sleep(Duration::from_millis(20));
        journal.close().unwrap();
        assert_eq!(soon(waiter), ErrorKind::Cancelled);
    });
}

fn a_failed_flush_ends_all_writing_and_shows_nothing(bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, A, 1);
    bench.break_disk();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| kind(journal.wait(A, 1, LONG)));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(kind(journal.append(&[append(A, 1, vec![frame(2, 2)])])), ErrorKind::Storage);
        assert_eq!(soon(waiter), ErrorKind::Storage, "nobody waits for what cannot come");
    });
    assert_eq!(journal.head(A), 1);
    assert_eq!(all(&*journal, A), [frame(1, 1)], "durable frames can still be read");
    assert_eq!(journal.read_at(A, 2).unwrap(), None);
    for result in [
        journal.append(&[append(A, 1, vec![frame(2, 2)])]),
        journal.append(&[]),
        journal.checkpoint(),
        journal.put_ledger(entry(3, LedgerId([3; 16]), "gamma")),
        journal.drop_ledger(A),
        journal.wait(A, 1, LONG).map(|_| ()),
    ] {
        let error = crate::Error::from(result.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.hint().unwrap().contains("open the store again"));
    }
}

fn after_a_failed_flush_the_store_opens_whole(mut bench: impl Bench) {
    fill(&*bench.engine(), A, 2);
    bench.break_disk();
    let batch = [append(A, 2, vec![frame(3, 3)]), append(B, 0, vec![frame(1, 1)])];
    bench.engine().append(&batch).unwrap_err();
    bench.kill();
    let journal = bench.engine();
    assert!([(2, 0), (3, 1)].contains(&(journal.head(A), journal.head(B))), "both or none");
    assert_eq!(all(&*journal, A).len() as u64, journal.head(A));
    fill(&*journal, A, 1);
}

fn everything_acknowledged_is_there_after_closing_and_after_a_kill(mut bench: impl Bench) {
    for round in 1..=3 {
        fill(&*bench.engine(), A, 2);
        bench.kill();
        fill(&*bench.engine(), B, 3);
        bench.engine().checkpoint().unwrap();
        fill(&*bench.engine(), B, 1);
        bench.reopen();
        let journal = bench.engine();
        assert_eq!((journal.head(A), journal.head(B)), (2 * round, 4 * round));
        let expected: Vec<_> = (1..=4 * round).map(|position| frame(position, position)).collect();
        assert_eq!(all(&*journal, B), expected);
    }
}

fn a_closed_journal_says_so(bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, A, 1);
    journal.close().unwrap();
    journal.close().unwrap();
    assert_eq!(kind(journal.append(&[append(A, 1, vec![frame(2, 2)])])), ErrorKind::Cancelled);
    assert_eq!(kind(journal.read_after(A, 0, ALL)), ErrorKind::Cancelled);
    assert_eq!(kind(journal.read_at(A, 1)), ErrorKind::Cancelled);
    assert_eq!(kind(journal.wait(A, 0, LONG)), ErrorKind::Cancelled);
    assert_eq!(kind(journal.checkpoint()), ErrorKind::Cancelled);
    assert_eq!(kind(journal.drop_ledger(A)), ErrorKind::Cancelled);
}

fn the_catalogue_is_kept_and_its_names_are_unique(mut bench: impl Bench) {
    let c = LedgerId([0xc; 16]);
    let journal = bench.engine();
    assert_eq!(kind(journal.put_ledger(entry(3, c, "alpha"))), ErrorKind::Conflict);
    assert_eq!(kind(journal.put_ledger(entry(3, A, "gamma"))), ErrorKind::Conflict);
    assert_eq!(kind(journal.put_ledger(entry(3, c, ""))), ErrorKind::Validation);
    assert_eq!(kind(journal.put_ledger(entry(3, c, &"x".repeat(256)))), ErrorKind::TooLarge);
    fill(&*journal, A, 1);
    assert_eq!(kind(journal.put_ledger(entry(1, c, "gamma"))), ErrorKind::Conflict, "1 is not empty");
    journal.put_ledger(entry(1, A, "renamed")).unwrap();
    journal.put_ledger(entry(2, c, "beta")).unwrap();
    assert_eq!(kind(journal.append(&[append(B, 0, vec![frame(1, 1)])])), ErrorKind::NotFound, "2 took another id");
    drop(journal);
    bench.reopen();
    assert_eq!(bench.engine().catalog(), [entry(1, A, "renamed"), entry(2, c, "beta")]);
    assert_eq!(bench.engine().ledgers(), [A, c]);
    assert_eq!(bench.engine().head(A), 1);
    fill(&*bench.engine(), c, 1);
}

fn a_dropped_ledger_is_gone_and_its_number_and_id_are_free(mut bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, A, 3_000);
    fill(&*journal, B, 2);
    journal.checkpoint().unwrap();
    journal.drop_ledger(A).unwrap();
    assert_eq!(journal.head(A), 0);
    assert_eq!(kind(journal.read_after(A, 0, ALL)), ErrorKind::NotFound);
    assert_eq!(kind(journal.drop_ledger(A)), ErrorKind::NotFound);
    drop(journal);
    bench.kill();
    assert_eq!(bench.engine().ledgers(), [B]);
    bench.engine().put_ledger(entry(1, A, "again")).unwrap();
    assert_eq!((bench.engine().head(A), bench.engine().head(B)), (0, 2));
    fill(&*bench.engine(), A, 1);
    bench.kill();
    assert_eq!(all(&*bench.engine(), A), [frame(1, 1)], "what was recorded of the old one does not count");
}

fn what_is_dropped_is_gone_for_good_and_the_rest_reads_and_grows_as_before(mut bench: impl Bench) {
    let journal = bench.engine();
    journal.append(&[append(A, 0, vec![frame(1, 4), frame(5, 6), frame(7, 9)])]).unwrap();
    fill(&*journal, B, 3);
    assert_eq!((journal.first(A), journal.drop_before(A, 4).unwrap()), (1, 1), "no frame ends before it");
    // A frame is held whole or not at all.
    assert_eq!(journal.drop_before(A, 6).unwrap(), 5);
    assert_eq!(journal.drop_before(A, 3).unwrap(), 5, "it is gone already");
    drop(journal);
    for reopening in [Bench::reopen, Bench::kill] {
        let journal = bench.engine();
        assert_eq!((journal.first(A), journal.first(B), journal.head(A)), (5, 1, 9));
        for (what, refused) in [
            ("from the start", journal.read_after(A, 0, ALL).map(drop)),
            ("at the last that is gone", journal.read_at(A, 4).map(drop)),
        ] {
            assert!(matches!(refused, Err(JournalError::Dropped { first: 5, .. })), "{what}: {refused:?}");
        }
        assert_eq!(journal.read_after(A, 4, ALL).unwrap(), [frame(5, 6), frame(7, 9)]);
        assert_eq!(journal.read_at(A, 6).unwrap(), Some(frame(5, 6)));
        assert_eq!(all(&*journal, B).len(), 3);
        drop(journal);
        reopening(&mut bench);
    }
    let journal = bench.engine();
    journal.append(&[append(A, 9, vec![frame(10, 12)])]).unwrap();
    assert_eq!(journal.drop_before(A, u64::MAX).unwrap(), 10, "the last frame stays");
    journal.checkpoint().unwrap();
    assert_eq!(kind(journal.drop_before(LedgerId([99; 16]), 1)), ErrorKind::NotFound);
    journal.drop_ledger(A).unwrap();
    journal.put_ledger(entry(1, A, "again")).unwrap();
    fill(&*journal, A, 2);
    assert_eq!(journal.drop_before(B, 2).unwrap(), 2);
    drop(journal);
    bench.kill();
    assert_eq!(all(&*bench.engine(), A), [frame(1, 1), frame(2, 2)], "another log of the same number and id");
}

fn ledgers_do_not_see_each_other(bench: impl Bench) {
    let journal = bench.engine();
    fill(&*journal, B, 3);
    assert_eq!(all(&*journal, A), []);
    assert_eq!(journal.read_at(A, 1).unwrap(), None);
    journal.append(&[append(A, 0, vec![frame(1, 2)])]).unwrap();
    assert_eq!(all(&*journal, A), [frame(1, 2)]);
    let unknown = LedgerId([9; 16]);
    assert_eq!(kind(journal.read_after(unknown, 0, ALL)), ErrorKind::NotFound);
    assert_eq!(kind(journal.append(&[append(unknown, 0, vec![frame(1, 1)])])), ErrorKind::NotFound);
    assert_eq!(journal.head(unknown), 0);
}

fn readers_and_writers_share_it_and_never_see_a_gap(bench: impl Bench) {
    let journal = bench.engine();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..30).for_each(|_| fill(&*journal, B, 2)));
        scope.spawn(|| (0..30).for_each(|_| fill(&*journal, A, 3)));
        let mut seen = 0;
        while seen < 90 {
            seen = journal.wait(A, seen, LONG).unwrap();
            let frames = all(&*journal, A);
            assert!(frames.len() as u64 >= seen);
            assert!(frames.iter().zip(1..).all(|(frame, position)| frame.first == position));
        }
    });
    assert_eq!(journal.head(B), 60);
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Append { b: bool, sizes: Vec<(u64, usize)> },
    Read { b: bool, after: u64, bytes: usize },
    Reopen,
    Kill,
    Checkpoint,
    DropB,
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || proptest::collection::vec((1..5_u64, prop_oneof![0..200_usize, 4_000..20_000_usize]), 0..6);
    prop_oneof![
        6 => (any::<bool>(), sizes()).prop_map(|(b, sizes)| Step::Append { b, sizes }),
        6 => (any::<bool>(), 0..40_u64, 0..30_000_usize).prop_map(|(b, after, bytes)| Step::Read { b, after, bytes }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::DropB),
    ]
}

fn expected_page(log: &[Frame], after: u64, bytes: usize) -> Vec<Frame> {
    let mut used = 0;
    let mut page: Vec<Frame> = Vec::new();
    for frame in log.iter().filter(|frame| frame.last > after) {
        if !page.is_empty() && used >= bytes {
            break;
        }
        used += frame.payload.len();
        page.push(frame.clone());
    }
    page
}

fn run_step(bench: &mut impl Bench, logs: &mut [Vec<Frame>; 2], step: Step) {
    let journal = bench.engine();
    let head = |log: &[Frame]| log.last().map_or(0, |frame| frame.last);
    match step {
        Step::Append { b, sizes } => {
            let log = &mut logs[usize::from(b)];
            let before = head(log);
            let mut frames = Vec::new();
            for (count, bytes) in sizes {
                let first = head(&frames).max(before) + 1;
                frames.push(Frame { first, last: first + count - 1, payload: vec![first as u8; bytes] });
            }
            journal.append(&[append([A, B][usize::from(b)], before, frames.clone())]).unwrap();
            log.extend(frames);
        }
        Step::Read { b, after, bytes } => {
            let found = journal.read_after([A, B][usize::from(b)], after, bytes).unwrap();
            assert_eq!(found, expected_page(&logs[usize::from(b)], after, bytes));
        }
        Step::Checkpoint => journal.checkpoint().unwrap(),
        Step::DropB => {
            journal.drop_ledger(B).unwrap();
            journal.put_ledger(entry(2, B, "beta")).unwrap();
            logs[1].clear();
        }
        Step::Reopen | Step::Kill => {
            drop(journal);
            if matches!(step, Step::Kill) { bench.kill() } else { bench.reopen() }
        }
    }
    assert_eq!([A, B].map(|ledger| bench.engine().head(ledger)), [head(&logs[0]), head(&logs[1])]);
}

fn any_history_reads_like_a_list(make: impl Fn() -> Box<dyn FnOnce(Vec<Step>)>, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..25))| make()(steps));
}

fn history(mut bench: impl Bench + 'static) -> Box<dyn FnOnce(Vec<Step>)> {
    Box::new(move |steps| {
        let mut logs = [Vec::new(), Vec::new()];
        steps.into_iter().for_each(|step| run_step(&mut bench, &mut logs, step));
    })
}

macro_rules! conformance {
    ($engine:ident, $make:expr, $cases:literal, [$($law:ident),* $(,)?]) => {
        mod $engine {
            use super::*;

            $(#[test] fn $law() { super::$law(with_two($make)); })*

            #[test]
            fn any_history_reads_like_a_list() {
                super::any_history_reads_like_a_list(|| history(with_two($make)), $cases);
            }
        }
    };
    ($($engine:ident: $make:expr, $cases:literal;)*) => {
        $(conformance!($engine, $make, $cases, [
            frames_come_back_in_order_and_by_position,
            gaps_and_wrong_heads_are_refused_and_nothing_is_written,
            a_batch_over_ledgers_is_all_or_nothing,
            a_frame_of_200_kib_is_kept,
            a_read_ends_once_it_exceeds_its_bytes_but_holds_one_frame,
            waiting_ends_with_more_with_time_or_with_closing,
            a_failed_flush_ends_all_writing_and_shows_nothing,
            after_a_failed_flush_the_store_opens_whole,
            everything_acknowledged_is_there_after_closing_and_after_a_kill,
            a_closed_journal_says_so,
            the_catalogue_is_kept_and_its_names_are_unique,
            a_dropped_ledger_is_gone_and_its_number_and_id_are_free,
            what_is_dropped_is_gone_for_good_and_the_rest_reads_and_grows_as_before,
            ledgers_do_not_see_each_other,
            readers_and_writers_share_it_and_never_see_a_gap,
        ]);)*
    };
}

conformance! {
    in_memory: Memory::new(), 200;
    on_disk: Sled::new(), 12;
}

// The engine in memory: what its faults do.

#[test]
fn memory_keeps_or_loses_an_unacknowledged_batch_whole() {
    for keep in [false, true] {
        let journal = with_two(Memory::new()).engine();
        fill(&*journal, A, 1);
        journal.set_faults(Faults { fail_flush: Some(2), keep_unacknowledged: keep, ..Faults::default() });
        fill(&*journal, A, 1);
        journal.append(&[append(A, 2, vec![frame(3, 3)]), append(B, 0, vec![frame(1, 4)])]).unwrap_err();
        let after = journal.crash();
        assert_eq!((after.head(A), after.head(B)), if keep { (3, 4) } else { (2, 0) });
        assert_eq!(kind(journal.read_at(A, 1)), ErrorKind::Cancelled, "the process is gone");
    }
}

#[test]
fn memory_writes_nothing_when_the_write_itself_fails() {
    for faults in [
        Faults { fail_write: Some(1), keep_unacknowledged: true, ..Faults::default() },
        Faults { disk_full: true, keep_unacknowledged: true, ..Faults::default() },
    ] {
        let journal = with_two(Memory::new()).engine();
        journal.set_faults(faults);
        assert_eq!(kind(journal.append(&[append(A, 0, vec![frame(1, 1)])])), ErrorKind::Storage);
        assert_eq!(journal.crash().head(A), 0);
    }
}

#[test]
fn memory_notices_every_flipped_bit_and_a_lost_frame() {
    let bits = frame(2, 2).encode(A).unwrap().len() * 8;
    for bit in 0..bits {
        let journal = with_two(Memory::new()).engine();
        fill(&*journal, A, 3);
        assert!(journal.flip_bit(A, 2, bit));
        let error = journal.read_after(A, 0, ALL).unwrap_err();
        assert!([ErrorKind::Corrupt, ErrorKind::UpgradeNeeded].contains(&error.kind()));
        assert!(error.to_string().contains("position 2"), "{error}");
        assert_eq!(journal.read_at(A, 1).unwrap(), Some(frame(1, 1)));
    }
    let journal = with_two(Memory::new()).engine();
    fill(&*journal, A, 3);
    assert!(journal.lose_frame(A, 2));
    assert_eq!(kind(journal.read_after(A, 0, ALL)), ErrorKind::Corrupt);
    assert_eq!(kind(journal.read_after(A, 1, ALL)), ErrorKind::Corrupt);
}

// The engine on a disk: damaged and occupied directories.

/// A closed store whose ledgers have `count` frames each.
fn store(count: u64) -> Sled {
    let bench = with_two(Sled::new());
    fill(&*bench.engine(), A, count);
    fill(&*bench.engine(), B, count);
    bench.closed()
}

/// Opens a damaged store: it must say that it is corrupt, or hold everything.
fn whole_or_corrupt(dir: &Path, count: u64) -> bool {
    let expected: Vec<_> = (1..=count).map(|position| frame(position, position)).collect();
    let read = |journal: &SledJournal, ledger| journal.read_after(ledger, 0, ALL);
    let result = SledJournal::open(dir, false).and_then(|journal| Ok([read(&journal, A)?, read(&journal, B)?]));
    match result {
        Ok(found) => {
            assert_eq!(found, [expected.clone(), expected]);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            false
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
}

#[test]
fn a_log_cut_anywhere_is_corrupt_or_whole() {
    let original = store(40);
    let length = std::fs::metadata(original.path().join("journal/db")).unwrap().len();
    let mut refused = 0;
    for step in 0..12 {
        let scratch = tempfile::tempdir().unwrap();
        copy(&original.path(), scratch.path());
        let file = std::fs::File::options().write(true).open(scratch.path().join("journal/db")).unwrap();
        file.set_len(length * step / 12).unwrap();
        refused += u32::from(!whole_or_corrupt(scratch.path(), 40));
    }
    assert!(refused > 0, "the cuts did reach the frames");
}

#[test]
fn a_lost_log_is_behind_the_mark_and_the_error_names_ledger_and_positions() {
    let store = store(5);
    std::fs::remove_dir_all(store.path().join("journal")).unwrap();
    let error = store.open().err().unwrap();
    assert!(matches!(error, JournalError::BehindMark { ledger: A, expected: 5, found: 0 }), "{error}");
}

#[test]
fn an_older_copy_of_the_log_is_behind_the_mark() {
    let mut bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 5);
    bench = bench.closed();
    let older = tempfile::tempdir().unwrap();
    copy(&bench.path().join("journal"), older.path());
    bench.journal = Some(Arc::new(bench.open().unwrap()));
    fill(&*bench.engine(), A, 4);
    bench = bench.closed();
    std::fs::remove_dir_all(bench.path().join("journal")).unwrap();
    copy(older.path(), &bench.path().join("journal"));
    let error = bench.open().err().unwrap();
    assert!(matches!(error, JournalError::BehindMark { ledger: A, expected: 9, found: 5 }), "{error}");
}

/// A killed store whose engine lost what was appended after the first three frames of each ledger: `change` sees the
/// directory and the one that the engine is in.
fn rolled_back(settling_after: u64, change: impl FnOnce(&SledJournal)) -> Sled {
    let mut bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 3);
    fill(&*bench.engine(), B, 3);
    bench = bench.closed();
    let older = tempfile::tempdir().unwrap();
    copy(&bench.path().join("journal"), older.path());
    let journal = bench.open().unwrap().settling_after(settling_after);
    change(&journal);
    bench.journal = Some(Arc::new(journal));
    bench = bench.killed();
    std::fs::remove_dir_all(bench.path().join("journal")).unwrap();
    copy(older.path(), &bench.path().join("journal"));
    bench
}

#[test]
fn what_the_engine_had_not_made_durable_comes_from_the_front() {
    let mut bench = rolled_back(u64::MAX, |journal| {
        fill(journal, A, 40);
        journal.append(&[append(B, 3, vec![frame(4, 4)]), append(A, 43, vec![frame(44, 50)])]).unwrap();
        journal.checkpoint().unwrap();
        // An append of nothing says nothing of what came before it.
        journal.append(&[]).unwrap();
        journal.append(&[append(A, 50, Vec::new())]).unwrap();
    });
    for _ in 0..2 {
        bench.journal = Some(Arc::new(bench.open().unwrap()));
        let journal = bench.engine();
        let positions: Vec<u64> = all(&*journal, A).iter().map(|frame| frame.first).collect();
        assert_eq!((positions, journal.head(A)), ((1..=44).collect(), 50));
        assert_eq!(all(&*journal, B).len(), 4);
        drop(journal);
        bench = bench.killed();
    }
}

#[test]
fn what_the_front_says_of_a_ledger_that_was_dropped_does_not_come_back() {
    let bench = rolled_back(u64::MAX, |journal| {
        fill(journal, A, 20);
        journal.drop_ledger(B).unwrap();
        journal.put_ledger(entry(2, B, "beta")).unwrap();
    });
    let found = bench.open().err().unwrap();
    assert!(matches!(found, JournalError::BehindMark { ledger: A, expected: 23, .. }), "{found}");
}

/// Where the last `count` entries of the front begin, each of which has one sector.
fn last_entries(front: &[u8], count: usize) -> Vec<usize> {
    let starts = (0..front.len()).step_by(512).filter(|at| front[*at..].starts_with(b"SLFN"));
    let starts: Vec<usize> = starts.collect();
    starts[starts.len() - count..].to_vec()
}

#[test]
fn a_torn_last_entry_of_the_front_is_none_and_a_damaged_one_before_it_is_noticed() {
    let bench = rolled_back(u64::MAX, |journal| (0..12).for_each(|_| fill(journal, A, 1)));
    let whole = std::fs::read(bench.path().join("front-0")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // Magic, sequence, count, length, ledger, its frame's length and position, payload and checksums.
    for (nth, byte) in
        [11, 10, 4, 0].into_iter().flat_map(|nth| [0, 5, 13, 17, 30, 42, 55, 75, 110, 145].map(|b| (nth, b)))
    {
        let dir = scratch.path().join(format!("{nth}-{byte}"));
        copy(&bench.path(), &dir);
        let mut bytes = whole.clone();
        bytes[last_entries(&whole, 12)[nth] + byte] ^= 1;
        std::fs::write(dir.join("front-0"), &bytes).unwrap();
        match SledJournal::open(&dir, false) {
            Ok(journal) => assert_eq!((nth, journal.head(A)), (11, 14), "byte {byte}"),
            Err(fault) => {
                assert!(nth < 11 && fault.kind() == ErrorKind::Corrupt, "byte {byte} of entry {nth}: {fault}")
            }
        }
    }
}

#[test]
fn a_large_commit_does_not_leave_a_large_front() {
    let bench = with_two(Sled::new());
    let journal = bench.engine();
    let large = Frame { first: 1, last: 1, payload: vec![7; 5 << 20] };
    journal.append(&[append(A, 0, vec![large])]).unwrap();
    assert!(length_of(&bench, "front-0") > 5 << 20 && length_of(&bench, "ballast") > 6 << 20);
    (0..20).for_each(|_| fill(&*journal, B, 1));
    assert_eq!(["front-0", "front-1"].map(|name| length_of(&bench, name)), [1 << 20, 256 << 10]);
    drop(journal);
    let store = bench.killed();
    let journal = store.open().unwrap();
    assert_eq!((journal.head(A), journal.head(B), length_of(&store, "ballast")), (1, 20, (2 << 20) + (256 << 10)));
}

fn length_of(store: &Sled, name: &str) -> u64 {
    std::fs::metadata(store.path().join(name)).unwrap().len()
}

#[test]
fn the_files_of_the_front_take_turns_and_stay_small() {
    let mut bench = with_two(Sled::new());
    for round in 1..=6 {
        let journal = bench.engine();
        for _ in 0..30 {
            fill(&*journal, A, 1);
            fill(&*journal, B, 2);
        }
        let sizes = ["front-0", "front-1"].map(|name| length_of(&bench, name));
        assert_eq!(sizes, [256 << 10; 2], "both were written");
        drop(journal);
        if round % 2 == 0 {
            bench.reopen();
        } else {
            bench.kill();
        }
        assert_eq!((all(&*bench.engine(), A).len(), all(&*bench.engine(), B).len()), (30 * round, 60 * round));
    }
}

#[test]
fn another_history_of_the_same_ledger_is_not_taken_for_this_one() {
    let (this, other) = (store(5), with_two(Sled::new()));
    let frames = (1..=6).map(|n| Frame { first: n, last: n, payload: b"else".to_vec() }).collect();
    other.engine().append(&[append(A, 0, frames)]).unwrap();
    let other = other.closed();
    std::fs::remove_dir_all(this.path().join("journal")).unwrap();
    copy(&other.path().join("journal"), &this.path().join("journal"));
    let error = this.open().err().unwrap();
    assert!(matches!(error, JournalError::CorruptFrame { ledger: A, position: 5, .. }), "{error}");
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_noticed_or_harmless() {
    let original = store(30);
    let bytes = std::fs::read(original.path().join("journal/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let scratch = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for step in 0..60 {
        let dir = scratch.path().join(step.to_string());
        copy(&original.path(), &dir);
        let mut flipped = bytes.clone();
        flipped[used * step / 60 + step % 7] ^= 1 << (step % 8);
        std::fs::write(dir.join("journal/db"), &flipped).unwrap();
        refused += u32::from(!whole_or_corrupt(&dir, 30));
    }
    assert!(refused > 0, "the bits did hit something");
}

#[test]
fn opening_a_damaged_log_changes_no_byte_of_it_and_mending_the_damage_brings_all_back() {
    let original = store(30);
    let path = original.path().join("journal/db");
    let bytes = std::fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for step in 0..20 {
        let mut flipped = bytes.clone();
        flipped[used * step / 20 + step % 7] ^= 1 << (step % 8);
        std::fs::write(&path, &flipped).unwrap();
        if original.open().is_err_and(|fault| fault.kind() == ErrorKind::Corrupt) {
            refused += 1;
            assert_eq!(std::fs::read(&path).unwrap(), flipped, "step {step}");
            assert!(!original.path().join("journal.before").exists());
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(whole_or_corrupt(&original.path(), 30), "step {step}");
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(refused > 0, "the bits did hit something");
}

#[test]
fn damage_on_which_the_engine_panics_is_an_error_like_any_other() {
    let bench = with_two(Sled::new());
    // Enough for several of the engine's segments: in less it finds the damage by itself.
    for _ in 0..60 {
        fill(&*bench.engine(), A, 100);
        fill(&*bench.engine(), B, 100);
    }
    let original = bench.closed();
    let bytes = std::fs::read(original.path().join("journal/db")).unwrap();
    let written: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let scratch = tempfile::tempdir().unwrap();
    for step in 0..12 {
        let dir = scratch.path().join(step.to_string());
        copy(&original.path(), &dir);
        let mut flipped = bytes.clone();
        flipped[written[written.len() * step / 12]] ^= 1 << (step % 8);
        std::fs::write(dir.join("journal/db"), &flipped).unwrap();
        whole_or_corrupt(&dir, 6_000);
    }
}

#[test]
fn flipped_bits_in_our_own_files_are_noticed() {
    let original = store(3);
    for name in ["store", "catalog", "head"] {
        let path = original.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        for bit in (0..bytes.len() * 8).step_by(37) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            let error = original.open().err().unwrap();
            assert!([ErrorKind::Corrupt, ErrorKind::UpgradeNeeded].contains(&error.kind()), "{name} {bit}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        let create = name == "store";
        assert_eq!(SledJournal::open(original.path(), create).err().unwrap().kind(), ErrorKind::Corrupt, "{name}");
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(whole_or_corrupt(&original.path(), 3));
}

#[test]
fn a_snapshot_that_was_being_written_is_removed_and_a_damaged_one_set_aside() {
    let store = store(20);
    let journal = store.path().join("journal");
    // The last name in order is the one that the engine reads.
    let (half, damaged) = ("snap.FFFFFFFFFFFFFFFF.generating", "snap.FFFFFFFFFFFFFFFF");
    std::fs::write(journal.join(half), b"half").unwrap();
    assert!(whole_or_corrupt(&store.path(), 20));
    assert!(!journal.join(half).exists() && !journal.join("set-aside").exists());
    std::fs::write(journal.join(damaged), b"a snapshot of which the sum is wrong").unwrap();
    assert!(whole_or_corrupt(&store.path(), 20));
    assert!(journal.join("set-aside").join(damaged).exists());
}

#[test]
fn a_configuration_of_the_engine_that_a_crash_left_torn_is_made_again() {
    let store = store(20);
    let conf = store.path().join("journal/conf");
    let whole = std::fs::read(&conf).unwrap();
    let zeroed = vec![0; whole.len()];
    let half = [&whole[..whole.len() / 2], &zeroed[..whole.len() - whole.len() / 2]].concat();
    for torn in [&whole[..0], &whole[..9], &whole[..whole.len() - 4], &zeroed, &half] {
        std::fs::write(&conf, torn).unwrap();
        let journal = SledJournal::open(store.path(), false).unwrap();
        assert_eq!(journal.read_after(A, 0, usize::MAX).unwrap().len(), 20);
    }
}

#[test]
fn a_second_holder_is_told_who_the_first_is() {
    let bench = with_two(Sled::new());
    let error = bench.open().err().unwrap();
    assert!(matches!(error, JournalError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert_eq!(error.kind(), ErrorKind::Locked);
    fill(&*bench.engine(), A, 1);
    bench.engine().close().unwrap();
    assert!(bench.open().is_ok(), "closing gives the store back though the handle lives");
}

#[test]
fn opening_waits_for_the_lock_that_the_engine_lets_go_of_late() {
    let store = store(3);
    let data = std::fs::File::open(store.path().join("journal/db")).unwrap();
    // A new file description may still find the old one's lock for a moment.
    (0..500)
        .find(|_| data.try_lock().inspect_err(|_| std::thread::sleep(Duration::from_millis(10))).is_ok())
        .unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| whole_or_corrupt(&store.path(), 3));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!opening.is_finished());
        drop(data);
        assert!(soon(opening));
    });
}

#[test]
fn a_directory_without_a_store_is_not_found_and_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    assert_eq!(SledJournal::open(&missing, false).err().unwrap().kind(), ErrorKind::NotFound);
    assert!(!missing.exists());
    assert_eq!(SledJournal::open(dir.path(), false).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(crate::disk::names(dir.path()).unwrap(), [""; 0]);
}

#[test]
fn an_unknown_version_needs_an_upgrade() {
    let store = store(1);
    let path = store.path().join("store");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4] += 1;
    std::fs::write(&path, bytes).unwrap();
    let error = store.open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::UpgradeNeeded);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[test]
fn a_file_in_place_of_the_directory_and_a_forbidden_one_are_errors_that_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = SledJournal::open(&file, true).err().unwrap();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    let locked = dir.path().join("read-only");
    std::fs::create_dir(&locked).unwrap();
    let mut permissions = std::fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&locked, permissions).unwrap();
    // The superuser may write everywhere, so that there is nothing to see then.
    if std::fs::write(locked.join("probe"), b"").is_err() {
        let error = crate::Error::from(SledJournal::open(&locked, true).err().unwrap());
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert!(error.hint().unwrap().contains("write access"));
    }
}

#[test]
fn a_creation_that_was_interrupted_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let cut_short = || {
        std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
        std::fs::remove_file(dir.path().join("store")).unwrap();
    };
    drop(SledJournal::open(dir.path(), true).unwrap());
    cut_short();
    SledJournal::open(dir.path(), true).unwrap().put_ledger(entry(1, A, "alpha")).unwrap();
    cut_short();
    assert_eq!(SledJournal::open(dir.path(), true).err().unwrap().kind(), ErrorKind::Corrupt, "it held ledgers");
}

#[test]
fn a_drop_that_was_interrupted_is_finished_at_the_next_opening() {
    let bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 50);
    fill(&*bench.engine(), B, 2);
    let bench = bench.closed();
    let path = bench.path().join("catalog");
    let body = sealed::read(&path, *b"SLCT").unwrap().unwrap();
    let dropping = catalog::Catalog::decode(&body).unwrap().without(A).unwrap();
    sealed::write(&path, *b"SLCT", &dropping.encode()).unwrap();
    let journal = bench.open().unwrap();
    assert_eq!(journal.ledgers(), [B]);
    journal.put_ledger(entry(1, A, "alpha")).unwrap();
    assert_eq!((journal.head(A), journal.head(B)), (0, 2));
}

#[test]
fn frames_that_were_to_be_dropped_go_at_the_next_opening() {
    let bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 2_000);
    let whole = tempfile::tempdir().unwrap();
    let bench = bench.closed();
    copy(&bench.path(), whole.path());
    let journal = bench.open().unwrap();
    assert_eq!(journal.drop_before(A, 1_500).unwrap(), 1_500);
    journal.verify().unwrap();
    journal.close().unwrap();
    drop(journal);
    // As after a crash: what begins the log is recorded, but nothing is erased yet.
    std::fs::copy(bench.path().join("floors"), whole.path().join("floors")).unwrap();
    let journal = SledJournal::open(whole.path(), false).unwrap();
    assert_eq!((journal.first(A), journal.head(A)), (1_500, 2_000));
    assert_eq!(journal.read_after(A, 1_499, ALL).unwrap().len(), 501);
    journal.verify().unwrap();
}

/// The names of the engine's directories in a store.
fn databases(dir: &Path) -> Vec<String> {
    let names = crate::disk::names(dir).unwrap();
    names.into_iter().filter(|name| name.starts_with("journal")).collect()
}

#[test]
fn what_was_dropped_goes_with_the_database_that_held_it() {
    let store = store(200);
    let beside = tempfile::tempdir().unwrap();
    {
        let journal = SledJournal::open(store.path(), false).unwrap().compacting_after(1);
        assert_eq!(journal.drop_before(A, 50).unwrap(), 50);
        assert_eq!(databases(&store.path()), ["journal"], "more is held than was dropped");
        copy(&store.path().join("journal"), beside.path());
        assert_eq!(journal.drop_before(B, 190).unwrap(), 190);
        assert_eq!(databases(&store.path()).last().unwrap(), "journal-1");
        fill(&journal, A, 3);
        journal.verify().unwrap();
        assert_eq!(journal.drop_before(A, 200).unwrap(), 200);
        assert_eq!(databases(&store.path()).last().unwrap(), "journal-2");
        fill(&journal, B, 3);
        journal.close().unwrap();
    }
    // A crash left the one before, and another began.
    copy(beside.path(), &store.path().join("journal"));
    copy(beside.path(), &store.path().join("journal-3"));
    copy(beside.path(), &store.path().join("journal-1.before"));
    let journal = SledJournal::open(store.path(), false).unwrap();
    assert_eq!(databases(&store.path()), ["journal-2"]);
    for (ledger, first) in [(A, 200), (B, 190)] {
        assert_eq!((journal.first(ledger), journal.head(ledger)), (first, 203));
        assert_eq!(journal.read_after(ledger, first - 1, ALL).unwrap().len() as u64, 204 - first);
    }
    journal.verify().unwrap();
}

#[test]
fn a_database_that_is_not_the_present_one_is_never_taken_for_it() {
    let store = store(20);
    SledJournal::open(store.path(), false).unwrap().compacting_after(1).drop_before(A, 19).unwrap();
    let journal = SledJournal::open(store.path(), false).unwrap().compacting_after(1);
    journal.drop_before(B, 19).unwrap();
    drop(journal);
    assert_eq!(databases(&store.path()).last().unwrap(), "journal-1");
    let hidden = store.path().join("hidden");
    std::fs::rename(store.path().join("journal-1"), &hidden).unwrap();
    assert_eq!(kind(SledJournal::open(store.path(), false).map(drop)), ErrorKind::Corrupt);
    let _ = std::fs::remove_dir_all(store.path().join("journal-1"));
    std::fs::rename(&hidden, store.path().join("journal-1")).unwrap();
    std::fs::write(store.path().join("generation"), b"SLGN\x01nothing").unwrap();
    assert_eq!(kind(SledJournal::open(store.path(), false).map(drop)), ErrorKind::Corrupt);
    assert_eq!(databases(&store.path()).last().unwrap(), "journal-1");
}

/// Found by power failures, seed 41: the copy lacked the end of the frame that was being put while it was made.
#[test]
fn a_large_frame_that_is_put_while_the_log_is_copied_is_copied_whole() {
    let store = store(3);
    let journal = SledJournal::open(store.path(), false).unwrap().compacting_after(1);
    let rounds = 80;
    let large = |first| Frame { first, last: first, payload: vec![first as u8; 150 << 10] };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (4..rounds).for_each(|next| journal.append(&[append(A, next - 1, vec![large(next)])]).unwrap())
        });
        while journal.head(A) < rounds - 1 {
            journal.drop_before(A, journal.head(A)).unwrap();
        }
    });
    journal.drop_before(A, u64::MAX).unwrap();
    journal.verify().unwrap();
    assert_eq!(all_after(&journal, A, journal.first(A) - 1), [large(rounds - 1)]);
}

#[test]
fn appends_go_on_while_what_was_dropped_goes() {
    let bench = with_two(Sled::new());
    let (dir, rounds) = (bench.closed(), 60);
    let journal = SledJournal::open(dir.path(), false).unwrap().compacting_after(1);
    std::thread::scope(|scope| {
        let append = |ledger| (0..rounds).for_each(|_| fill(&journal, ledger, 7));
        scope.spawn(move || append(A));
        scope.spawn(move || append(B));
        scope.spawn(|| {
            while journal.head(A) < 7 * rounds || journal.head(B) < 7 * rounds {
                for ledger in [A, B] {
                    let first = journal.drop_before(ledger, journal.head(ledger).saturating_sub(5)).unwrap();
                    let found = journal.read_after(ledger, first - 1, ALL);
                    assert!(found.is_ok_and(|frames| frames.first().is_none_or(|frame| frame.first == first)));
                }
            }
        });
    });
    // Also where all was appended before anything was dropped.
    for ledger in [A, B] {
        journal.drop_before(ledger, u64::MAX).unwrap();
    }
    journal.verify().unwrap();
    journal.close().unwrap();
    drop(journal);
    let journal = SledJournal::open(dir.path(), false).unwrap();
    journal.verify().unwrap();
    let left = databases(&dir.path());
    assert!(left.len() == 1 && left[0].starts_with("journal-"), "{left:?}");
}

#[test]
fn a_full_verification_finds_nothing_wrong_with_a_good_store() {
    let bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 50);
    bench.engine().checkpoint().unwrap();
    fill(&*bench.engine(), A, 50);
    let journal = bench.killed().open().unwrap();
    journal.verify().unwrap();
}

/// Changes the engine's own tree of a closed store, as no damage of the file could: its checksums fit.
fn meddle(bench: &Sled, change: impl FnOnce(&::sled::Db)) {
    let config = ::sled::Config::new().path(bench.path().join("journal"));
    // The handle that was dropped lets go of its lock a little later.
    let open = || config.open().inspect_err(|_| std::thread::sleep(Duration::from_millis(10))).ok();
    let db = (0..500).find_map(|_| open()).unwrap();
    change(&db);
    db.flush().unwrap();
}

/// The key of the only part of the frame of ledger A at `position`.
fn key_of(position: u64) -> [u8; 14] {
    let mut key = [0; 14];
    key[..4].copy_from_slice(&1_u32.to_be_bytes());
    key[4..12].copy_from_slice(&position.to_be_bytes());
    key
}

/// A closed store with a mark at position 5 of ledger A, and 5 frames after it.
fn store_with_tail() -> Sled {
    let bench = with_two(Sled::new());
    fill(&*bench.engine(), A, 5);
    bench.engine().checkpoint().unwrap();
    fill(&*bench.engine(), A, 5);
    bench.killed()
}

#[test]
fn a_frame_changed_or_lost_after_the_mark_is_found_at_opening() {
    for lose in [false, true] {
        for position in 5..10 {
            let bench = store_with_tail();
            let other = frame(position, position + 1).encode(A).unwrap();
            meddle(&bench, |db| match lose {
                true => drop(db.remove(key_of(position)).unwrap()),
                false => drop(db.insert(key_of(position), other).unwrap()),
            });
            assert_eq!(bench.open().err().unwrap().kind(), ErrorKind::Corrupt, "{lose} {position}");
        }
    }
}

#[test]
fn a_frame_changed_or_lost_before_the_mark_is_found_when_it_is_read_and_by_a_verification() {
    let forged = Frame { first: 3, last: 3, payload: b"forged".to_vec() }.encode(A).unwrap();
    for value in [None, Some(b"noise".to_vec()), Some(frame(3, 3).encode(B).unwrap()), Some(forged.clone())] {
        let bench = store_with_tail();
        let is_forged = value.as_ref() == Some(&forged);
        meddle(&bench, |db| match value {
            None => drop(db.remove(key_of(3)).unwrap()),
            Some(value) => drop(db.insert(key_of(3), value).unwrap()),
        });
        let journal = bench.open().unwrap();
        assert_eq!(kind(journal.verify()), ErrorKind::Corrupt);
        if !is_forged {
            assert_eq!(kind(journal.read_after(A, 0, ALL)), ErrorKind::Corrupt);
            assert_eq!(kind(journal.read_after(A, 2, 0)), ErrorKind::Corrupt);
            assert_eq!(kind(journal.read_at(A, 3)), ErrorKind::Corrupt);
        }
        assert_eq!(journal.read_after(A, 5, ALL).unwrap().len(), 5);
    }
}

#[test]
fn a_lost_part_of_a_large_frame_is_corrupt() {
    for part in 0..3_u16 {
        let bench = with_two(Sled::new());
        let large = Frame { first: 1, last: 1, payload: vec![1; 9_000] };
        bench.engine().append(&[append(A, 0, vec![large, frame(2, 2)])]).unwrap();
        let bench = bench.closed();
        let mut key = key_of(1);
        key[12..].copy_from_slice(&part.to_be_bytes());
        meddle(&bench, |db| assert!(db.remove(key).unwrap().is_some()));
        let journal = bench.open().unwrap();
        assert_eq!(kind(journal.read_after(A, 0, ALL)), ErrorKind::Corrupt, "part {part}");
        assert_eq!(journal.read_at(A, 2).unwrap(), Some(frame(2, 2)));
    }
}

#[test]
fn frames_of_a_ledger_that_the_catalogue_lacks_are_corrupt() {
    let bench = store(2);
    let empty = catalog::Catalog::default().encode();
    sealed::write(&bench.path().join("catalog"), *b"SLCT", &empty).unwrap();
    let error = bench.open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("catalog"), "{error}");
}
