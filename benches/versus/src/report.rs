//! What was measured: samples by work, of one round or of many, in a form that a child process can hand on.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::memory::Memory;

/// How long something took, each step of it where that was measured, and the memory of the process meanwhile.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Took {
    pub total: Duration,
    pub steps: Vec<Duration>,
    pub memory: Option<Memory>,
}

impl From<Duration> for Took {
    fn from(total: Duration) -> Self {
        Self { total, ..Self::default() }
    }
}

impl From<Vec<Duration>> for Took {
    fn from(steps: Vec<Duration>) -> Self {
        Self { total: steps.iter().sum(), steps, memory: None }
    }
}

impl Took {
    /// With what belongs to the whole and to none of the steps.
    pub fn and(self, more: Duration) -> Self {
        Self { total: self.total + more, ..self }
    }
}

/// Looks at the clock and at memory while work is done.
pub struct Watch {
    memory: Option<Memory>,
    started: Instant,
}

impl Watch {
    pub fn start() -> Self {
        Self { memory: Memory::start(), started: Instant::now() }
    }

    pub fn stop(self) -> Took {
        self.stop_with(Vec::new())
    }

    /// Where only the steps count, and what lay between them does not.
    pub fn stop_summed(self, steps: Vec<Duration>) -> Took {
        let total = steps.iter().sum();
        Took { total, ..self.stop_with(steps) }
    }

    /// With steps that may have run beside each other.
    pub fn stop_with(self, steps: Vec<Duration>) -> Took {
        Took { total: self.started.elapsed(), steps, memory: self.memory.map(Memory::stop) }
    }
}

/// One round of one piece of work, by the ledger and the floors, or by a peer in a process of its own.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// How many of `unit` were done.
    pub count: usize,
    pub unit: String,
    pub ledger: Option<Took>,
    pub raw: Option<Took>,
    pub sqlite: Option<Took>,
    pub samod: Option<Took>,
    /// The same with each file synced.
    pub samod_synced: Option<Took>,
    pub pouchdb: Option<Took>,
    /// Bytes on disk of an event: of the log, and of the derived rows.
    pub bytes: Option<(f64, f64)>,
    /// Bytes on disk of what a peer keeps, for each of `unit`.
    pub peer_bytes: Option<f64>,
}

impl Sample {
    pub fn of(count: usize, unit: &str) -> Self {
        Self { count, unit: unit.to_owned(), ..Self::default() }
    }

    pub fn ledger(self, took: impl Into<Took>) -> Self {
        Self { ledger: Some(took.into()), ..self }
    }

    pub fn raw(self, took: impl Into<Took>) -> Self {
        Self { raw: Some(took.into()), ..self }
    }

    pub fn sqlite(self, took: impl Into<Took>) -> Self {
        Self { sqlite: Some(took.into()), ..self }
    }

    pub fn rate(&self, took: &Took) -> f64 {
        self.count as f64 / took.total.as_secs_f64()
    }
}

/// What is one number and no rate: bytes, or a wait.
#[derive(Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub values: Vec<f64>,
}

/// All rounds, in the order of first mention.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    pub rows: Vec<(String, Vec<Sample>)>,
    pub figures: Vec<Figure>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Report {
    pub fn add(&mut self, name: impl Into<String>, sample: Sample) {
        let name = name.into();
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, samples)) => samples.push(sample),
            None => self.rows.push((name, vec![sample])),
        }
    }

    pub fn figure(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        let name = name.into();
        match self.figures.iter_mut().find(|known| known.name == name) {
            Some(known) => known.values.push(value),
            None => self.figures.push(Figure { name, unit: unit.to_owned(), values: vec![value] }),
        }
    }

    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Takes in what another process measured.
    pub fn merge(&mut self, other: Self) {
        for (name, samples) in other.rows {
            samples.into_iter().for_each(|sample| self.add(&name, sample));
        }
        for figure in other.figures {
            figure.values.iter().for_each(|value| self.figure(&figure.name, &figure.unit, *value));
        }
        other.notes.into_iter().for_each(|note| self.note(note));
    }
}
