//! Journals, and what they hold after anything befell them.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use syncledger::event::LedgerId;
use syncledger::journal::memory::{Faults, MemoryJournal};
use syncledger::journal::sled::SledJournal;
use syncledger::journal::{Append, Frame, Journal, LedgerEntry};

/// What a ledger's log holds: its frames from the first position that is held, and the last position.
#[derive(Clone, Default, Debug, PartialEq)]
struct Model {
    frames: Vec<Frame>,
    head: u64,
}

type Models = BTreeMap<LedgerId, Model>;

const LEDGERS: [LedgerId; 2] = [LedgerId([1; 16]), LedgerId([2; 16])];

/// A journal that can be found again.
trait Engine {
    fn journal(&self) -> &dyn Journal;
    /// Opens it again: the one in memory after a power cut.
    fn reopen(&mut self);
    /// The one whose disk can fail.
    fn memory(&self) -> Option<&MemoryJournal> {
        None
    }
}

impl Engine for MemoryJournal {
    fn journal(&self) -> &dyn Journal {
        self
    }

    fn reopen(&mut self) {
        *self = self.crash();
    }

    fn memory(&self) -> Option<&MemoryJournal> {
        Some(self)
    }
}

struct OnDisk {
    dir: tempfile::TempDir,
    journal: SledJournal,
}

impl OnDisk {
    fn new() -> Self {
        // A disk in memory where there is one: what is looked for is not in the disk.
        let root = std::path::Path::new("/dev/shm");
        let dir = if root.is_dir() { tempfile::tempdir_in(root) } else { tempfile::tempdir() }.unwrap();
        let journal = Self::open(dir.path());
        Self { dir, journal }
    }

    fn open(dir: &std::path::Path) -> SledJournal {
        SledJournal::open(dir.join("store"), true).unwrap().settling_after(512)
    }
}

impl Engine for OnDisk {
    fn journal(&self) -> &dyn Journal {
        &self.journal
    }

    fn reopen(&mut self) {
        self.journal.close().unwrap();
        self.journal = Self::open(self.dir.path());
    }
}

/// A journal holds what a list of frames would, whatever is appended, dropped, refused or torn: no frame is there in part, out of
/// order, or without having been acknowledged but for the one batch whose answer was lost.
pub fn journal_model(bytes: &[u8]) {
    let Some((engine, bytes)) = bytes.split_first() else { return };
    match engine % 16 {
        0 => follow(bytes, &mut OnDisk::new()),
        _ => follow(bytes, &mut MemoryJournal::new()),
    }
}

fn follow(bytes: &[u8], engine: &mut impl Engine) {
    let mut input = Unstructured::new(bytes);
    let mut models = Models::new();
    for (number, id) in (1..).zip(LEDGERS) {
        let entry = LedgerEntry { number, id, name: format!("l{number}"), meta: Vec::new() };
        engine.journal().put_ledger(entry).unwrap();
        models.insert(id, Model::default());
    }
    for _ in 0..64 {
        if input.is_empty() || step(&mut input, engine, &mut models).is_err() {
            break;
        }
        compare(engine.journal(), &models);
    }
    engine.reopen();
    compare(engine.journal(), &models);
    engine.journal().close().unwrap();
}

fn step(input: &mut Unstructured<'_>, engine: &mut impl Engine, models: &mut Models) -> Result<()> {
    let ledger = *input.choose(&LEDGERS)?;
    match input.int_in_range(0..=9)? {
        0..=4 => {
            let (batch, is_fit) = any_batch(input, models)?;
            append(engine.journal(), models, &batch, is_fit);
        }
        5 => {
            let position = input.int_in_range(0..=models[&ledger].head + 2)?;
            drop_before(engine.journal(), models, ledger, position);
        }
        6 => engine.reopen(),
        7 => engine.journal().checkpoint().unwrap(),
        8 => {
            let (batch, is_fit) = any_batch(input, models)?;
            let (is_flush, keep_unacknowledged) = (input.arbitrary()?, input.arbitrary()?);
            let (fail_write, fail_flush) = if is_flush { (None, Some(1)) } else { (Some(1), None) };
            fail(
                engine,
                models,
                &batch,
                is_fit,
                Faults { fail_write, fail_flush, keep_unacknowledged, disk_full: false },
            );
        }
        _ => {
            let (batch, _) = any_batch(input, models)?;
            fail(engine, models, &batch, false, Faults { disk_full: true, ..Faults::default() });
        }
    }
    Ok(())
}

/// A batch, and whether it may be taken.
fn any_batch(input: &mut Unstructured<'_>, models: &Models) -> Result<(Vec<Append>, bool)> {
    let (mut batch, mut is_fit) = (Vec::new(), true);
    let ledgers = if input.arbitrary()? { &LEDGERS[..] } else { &LEDGERS[..1] };
    for ledger in ledgers {
        let (mut expected_head, mut frames) = (models[ledger].head, Vec::new());
        if input.ratio(1, 12)? {
            (expected_head, is_fit) = (expected_head + 1, false);
        }
        let mut next = models[ledger].head + 1;
        for _ in 0..input.int_in_range(1..=3)? {
            let last = next + input.int_in_range(0..=2)?;
            let payload = vec![input.arbitrary()?; input.int_in_range(0..=9)?];
            frames.push(Frame { first: next, last, payload });
            next = last + 1;
            if input.ratio(1, 16)? {
                // The next frame leaves a gap, if there is one.
                next += 1;
            }
        }
        is_fit &= frames.windows(2).all(|pair| pair[0].last + 1 == pair[1].first);
        batch.push(Append { ledger: *ledger, expected_head, frames });
    }
    Ok((batch, is_fit))
}

fn append(journal: &dyn Journal, models: &mut Models, batch: &[Append], is_fit: bool) {
    let done = journal.append(batch);
    assert_eq!(done.is_ok(), is_fit, "{done:?} of {batch:?}");
    if is_fit {
        take(models, batch);
    }
}

fn take(models: &mut Models, batch: &[Append]) {
    for Append { ledger, frames, .. } in batch {
        let model = models.get_mut(ledger).unwrap();
        model.head = frames.last().map_or(model.head, |frame| frame.last);
        model.frames.extend(frames.iter().cloned());
    }
}

/// The write, or its flush, fails: nothing is acknowledged, and what is found then is the batch whole or nothing of it.
fn fail(engine: &mut impl Engine, models: &mut Models, batch: &[Append], is_fit: bool, faults: Faults) {
    let may_be_kept = is_fit && faults.fail_flush.is_some() && faults.keep_unacknowledged;
    let Some(journal) = engine.memory() else { return };
    journal.set_faults(faults);
    assert!(journal.append(batch).is_err());
    engine.reopen();
    let Some(journal) = engine.memory() else { return };
    journal.set_faults(Faults::default());
    if LEDGERS.iter().any(|ledger| journal.head(*ledger) != models[ledger].head) {
        assert!(may_be_kept, "what was not acknowledged, and cannot have been written, is there");
        take(models, batch);
    }
}

fn drop_before(journal: &dyn Journal, models: &mut Models, ledger: LedgerId, position: u64) {
    let first = journal.drop_before(ledger, position).unwrap();
    let model = models.get_mut(&ledger).unwrap();
    let stays = model.frames.iter().position(|frame| frame.last >= position);
    let dropped = stays.unwrap_or(model.frames.len().saturating_sub(1));
    model.frames.drain(..dropped);
    if let Some(frame) = model.frames.first() {
        assert_eq!(first, frame.first);
    }
}

fn compare(journal: &dyn Journal, models: &Models) {
    for (ledger, model) in models {
        assert_eq!(journal.head(*ledger), model.head);
        let first = model.frames.first().map_or(1, |frame| frame.first);
        let read = journal.read_after(*ledger, first - 1, usize::MAX).unwrap();
        assert_eq!(read, model.frames, "{ledger:?}");
        for frame in &model.frames {
            assert_eq!(journal.read_at(*ledger, frame.last).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(journal.read_at(*ledger, model.head + 1).unwrap(), None);
    }
}
