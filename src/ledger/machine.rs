//! A machine for simulations: its clock, its chance and its disk are in memory, and outlive the store that runs on it.
//!
//! Invariant: what a store does on it depends on the seed, the clock that it was given, and the order of calls alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::shared::World;
use super::store::{Engines, Options, Store};
use super::writer::Checkpoints;
use crate::Result;
use crate::blob::MemoryBlobs;
use crate::event::LedgerId;
use crate::journal::Journal as _;
use crate::journal::memory::{Faults, MemoryJournal};
use crate::journal::rows::MemoryRows;

/// What a store runs on. One store at a time; close or crash it before it is opened again.
pub struct Machine {
    now_ms: Arc<AtomicI64>,
    /// What was made of chance last.
    chance: Arc<AtomicU64>,
    journal: Arc<MemoryJournal>,
    rows: Arc<MemoryRows>,
    blobs: Arc<MemoryBlobs>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with an empty disk, whose clock says so many milliseconds since 1970. Machines of different seeds never make the
    /// same id by chance.
    #[must_use]
    pub fn new(seed: u64, now_ms: i64) -> Self {
        let (journal, rows, blobs) = (Arc::new(MemoryJournal::new()), Arc::default(), Arc::default());
        let (now_ms, chance) = (Arc::new(AtomicI64::new(now_ms)), Arc::new(AtomicU64::new(seed << 32)));
        Self { now_ms, chance, journal, rows, blobs }
    }

    /// Opens the store on its disk.
    ///
    /// # Errors
    /// `corrupt`; `storage` where the writer thread cannot be started.
    pub fn open(&self, options: Options) -> Result<Store> {
        let (journal, rows, blobs) = (self.journal.clone(), self.rows.clone(), self.blobs.clone());
        let (now_ms, chance) = (self.now_ms.clone(), self.chance.clone());
        let now = Box::new(move || now_ms.load(Ordering::Relaxed));
        let random = Box::new(move || Ok(drawn(chance.fetch_add(1, Ordering::Relaxed))));
        let engines = Engines { journal, rows, blobs };
        Store::start(None, engines, options, World { now, random }, Checkpoints::default())
    }

    /// Sets its clock, in milliseconds since 1970.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Sets what shall go wrong on its disk from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.journal.set_faults(faults);
    }

    /// Flips one bit of what its disk holds of a ledger around a position; `bit` counts around its length. Whether anything is there.
    pub fn flip_bit(&self, ledger: LedgerId, position: u64, bit: usize) -> bool {
        self.journal.flip_bit(ledger, position, bit)
    }

    /// Up to which position its disk holds a ledger, whatever befalls it now.
    #[must_use]
    pub fn durable(&self, ledger: LedgerId) -> u64 {
        self.journal.copy().head(ledger)
    }

    /// The machine after a power cut at this moment: the store on this one fails from now on.
    #[must_use]
    pub fn crash(&self) -> Self {
        // Before the store closes, as it would write down what it derived.
        let rows = Arc::new(self.rows.copy());
        Self { journal: Arc::new(self.journal.crash()), rows, ..self.copy() }
    }

    /// The machine with a copy of its disk as it is now, as somebody makes who copies a store's directory.
    #[must_use]
    pub fn copy(&self) -> Self {
        let (journal, rows, blobs) = (self.journal.copy(), self.rows.copy(), self.blobs.copy());
        let (journal, rows, blobs) = (Arc::new(journal), Arc::new(rows), Arc::new(blobs));
        Self { now_ms: self.now_ms.clone(), chance: self.chance.clone(), journal, rows, blobs }
    }
}

/// Sixteen bytes that look like chance, other ones for each number.
fn drawn(number: u64) -> [u8; 16] {
    let hash = blake3::hash(&number.to_le_bytes());
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}
