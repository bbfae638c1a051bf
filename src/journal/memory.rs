//! The strict in-memory engine: for tests, which can break it, and for ledgers that need not outlive the process.
//!
//! It keeps what an engine on a disk would: encoded frames with checksums, a durable part, and the one batch that was
//! written but not yet acknowledged. [`MemoryJournal::crash`] gives the engine as it would be found after a power cut.
//!
//! Invariant: an acknowledged batch survives every crash; an unacknowledged one survives whole or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::catalog::Catalog;
use super::error::JournalError;
use super::heads::Heads;
use super::{Append, Frame, Journal, LedgerEntry};
use crate::disk::DiskError;
use crate::event::LedgerId;
use crate::sync::{Mutex, MutexGuard};

/// What shall go wrong. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The n-th append from now (1 is the next) fails before anything is written.
    pub fail_write: Option<u64>,
    /// The n-th append from now is written, but its flush fails: whether it survives is for
    /// [`Faults::keep_unacknowledged`] to say.
    pub fail_flush: Option<u64>,
    /// Every append fails because the disk is full.
    pub disk_full: bool,
    /// Whether a batch that was written but not acknowledged is found after a crash.
    pub keep_unacknowledged: bool,
}

/// The engine in memory.
#[derive(Default)]
pub struct MemoryJournal {
    core: Mutex<Core>,
    heads: Heads,
}

#[derive(Clone, Default)]
struct Core {
    catalog: Catalog,
    logs: BTreeMap<LedgerId, Log>,
    /// The first position that each ledger holds, where that is not 1.
    firsts: BTreeMap<LedgerId, u64>,
    unacknowledged: Vec<(LedgerId, Stored)>,
    faults: Faults,
}

/// A ledger's frames by their first position.
type Log = BTreeMap<u64, Stored>;

#[derive(Clone)]
struct Stored {
    first: u64,
    last: u64,
    bytes: Arc<[u8]>,
}

impl MemoryJournal {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what shall go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.core().faults = faults;
    }

    /// The store as it is found after a power cut at this moment; this one is closed.
    #[must_use]
    pub fn crash(&self) -> Self {
        self.heads.close();
        self.copy()
    }

    /// What [`MemoryJournal::crash`] would find, while this one goes on: a copy of the disk.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut core = self.core().clone();
        let unacknowledged = std::mem::take(&mut core.unacknowledged);
        if core.faults.keep_unacknowledged {
            core.keep(unacknowledged);
        }
        core.faults = Faults::default();
        let heads = Heads::default();
        heads.publish(core.catalog.entries().map(|entry| (entry.id, core.head(entry.id))));
        Self { core: Mutex::new(core), heads }
    }

    /// Flips one bit of the stored frame that holds `position`; `bit` counts around its length. `false` if there is no
    /// such frame.
    pub fn flip_bit(&self, ledger: LedgerId, position: u64, bit: usize) -> bool {
        let mut core = self.core();
        let log = core.logs.entry(ledger).or_default();
        let Some((_, stored)) = log.range_mut(..=position).next_back().filter(|(_, stored)| stored.last >= position)
        else {
            return false;
        };
        let mut bytes = stored.bytes.to_vec();
        let bit = bit % (bytes.len() * 8);
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        stored.bytes = bytes.into();
        true
    }

    /// Loses the stored frame that holds `position`, as a damaged disk might. `false` if there is no such frame.
    pub fn lose_frame(&self, ledger: LedgerId, position: u64) -> bool {
        let mut core = self.core();
        let log = core.logs.entry(ledger).or_default();
        let found = log.range(..=position).next_back().filter(|(_, stored)| stored.last >= position);
        let first = found.map(|(first, _)| *first);
        first.and_then(|first| log.remove(&first)).is_some()
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn head(&self, ledger: LedgerId) -> u64 {
        self.logs.get(&ledger).and_then(|log| log.values().next_back()).map_or(0, |stored| stored.last)
    }

    fn first(&self, ledger: LedgerId) -> u64 {
        self.firsts.get(&ledger).copied().unwrap_or(1)
    }

    fn keep(&mut self, frames: Vec<(LedgerId, Stored)>) {
        for (ledger, stored) in frames {
            self.logs.entry(ledger).or_default().insert(stored.first, stored);
        }
    }

    fn fail_write(&mut self) -> Result<(), JournalError> {
        if self.faults.disk_full {
            return Err(fault("write", std::io::ErrorKind::StorageFull));
        }
        match strikes(&mut self.faults.fail_write) {
            true => Err(fault("write", std::io::ErrorKind::Other)),
            false => Ok(()),
        }
    }

    fn fail_flush(&mut self) -> Result<(), JournalError> {
        match strikes(&mut self.faults.fail_flush) {
            true => Err(fault("fsync", std::io::ErrorKind::Other)),
            false => Ok(()),
        }
    }
}

fn strikes(countdown: &mut Option<u64>) -> bool {
    *countdown = countdown.map(|left| left.saturating_sub(1));
    *countdown == Some(0)
}

fn fault(action: &'static str, kind: std::io::ErrorKind) -> JournalError {
    DiskError { action, path: "(memory)".into(), source: kind.into() }.into()
}

/// Encodes what the batch adds, after checking that every ledger ends where the caller thinks.
fn plan(
    batch: &[Append],
    head: impl Fn(LedgerId) -> Result<u64, JournalError>,
) -> Result<Vec<(LedgerId, Stored)>, JournalError> {
    let mut ends = super::Ends::new(head);
    let mut frames = Vec::new();
    for append in batch {
        ends.admit(append)?;
        for frame in &append.frames {
            let bytes = frame.encode(append.ledger)?.into();
            frames.push((append.ledger, Stored { first: frame.first, last: frame.last, bytes }));
        }
    }
    Ok(frames)
}

impl Journal for MemoryJournal {
    fn append(&self, batch: &[Append]) -> Result<(), JournalError> {
        let mut core = self.core();
        self.heads.writable()?;
        let frames = plan(batch, |ledger| self.heads.readable(ledger))?;
        core.fail_write().map_err(|fault| self.heads.poison(fault))?;
        core.unacknowledged.clone_from(&frames);
        core.fail_flush().map_err(|fault| self.heads.poison(fault))?;
        core.unacknowledged.clear();
        let heads: Vec<_> = frames.iter().map(|(ledger, stored)| (*ledger, stored.last)).collect();
        core.keep(frames);
        self.heads.publish(heads);
        Ok(())
    }

    fn read_after(&self, ledger: LedgerId, position: u64, max_bytes: usize) -> Result<Vec<Frame>, JournalError> {
        let core = self.core();
        let head = self.heads.readable(ledger)?;
        super::check_held(ledger, position, core.first(ledger))?;
        let mut pages = super::Page::new(ledger, position, max_bytes);
        while pages.wants(head) {
            let log = core.logs.get(&ledger);
            let found = log.and_then(|log| log.range(..=pages.next).next_back());
            let (_, stored) = found.ok_or_else(|| pages.gap())?;
            pages.add(&stored.bytes)?;
        }
        Ok(pages.frames)
    }

    fn read_at(&self, ledger: LedgerId, position: u64) -> Result<Option<Frame>, JournalError> {
        if position == 0 || position > self.heads.readable(ledger)? {
            return Ok(None);
        }
        Ok(self.read_after(ledger, position - 1, 0)?.into_iter().next())
    }

    fn head(&self, ledger: LedgerId) -> u64 {
        self.heads.head(ledger).unwrap_or(0)
    }

    fn first(&self, ledger: LedgerId) -> u64 {
        self.core().first(ledger)
    }

    fn drop_before(&self, ledger: LedgerId, position: u64) -> Result<u64, JournalError> {
        let mut core = self.core();
        self.heads.writable()?;
        core.catalog.find(ledger)?;
        core.fail_write().map_err(|fault| self.heads.poison(fault))?;
        let log = core.logs.entry(ledger).or_default();
        while log.len() > 1 && log.values().next().is_some_and(|stored| stored.last < position) {
            log.pop_first();
        }
        let first = log.keys().next().copied().unwrap_or(1);
        core.firsts.insert(ledger, first);
        Ok(first)
    }

    fn wait(&self, ledger: LedgerId, after: u64, timeout: Duration) -> Result<u64, JournalError> {
        self.heads.wait(ledger, after, timeout)
    }

    fn catalog(&self) -> Vec<LedgerEntry> {
        self.core().catalog.entries().cloned().collect()
    }

    fn put_ledger(&self, entry: LedgerEntry) -> Result<(), JournalError> {
        let mut core = self.core();
        self.heads.writable()?;
        let (number, id) = (entry.number, entry.id);
        let next = core.catalog.with(entry, |ledger| self.head(ledger))?;
        if let Some(before) = core.catalog.by_number(number).filter(|before| before.id != id) {
            self.heads.forget(before.id);
        }
        self.heads.publish([(id, self.head(id))]);
        core.catalog = next;
        Ok(())
    }

    fn drop_ledger(&self, ledger: LedgerId) -> Result<(), JournalError> {
        let mut core = self.core();
        self.heads.writable()?;
        core.catalog = core.catalog.without(ledger)?.dropped();
        core.logs.remove(&ledger);
        core.firsts.remove(&ledger);
        self.heads.forget(ledger);
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), JournalError> {
        self.heads.writable()
    }

    fn close(&self) -> Result<(), JournalError> {
        self.heads.close();
        Ok(())
    }
}
