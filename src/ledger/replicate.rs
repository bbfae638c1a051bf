//! Events of other replicas: taken in by the writer thread, or held until their parents come.

use super::request::{Entry, Transfer};
use super::writer::Writing;
use crate::document::PlaceFault;
use crate::event::{Event, EventId, RunId};
use crate::{Error, ErrorKind, Result};

/// An event from elsewhere, decoded and identified.
pub(crate) struct Foreign {
    pub(crate) id: EventId,
    pub(crate) event: Event,
    pub(crate) run: Option<RunId>,
    pub(crate) bytes: usize,
}

impl Foreign {
    /// Decodes and identifies an event.
    pub(crate) fn decode(ledger: crate::event::LedgerId, bytes: &[u8], run: Option<RunId>) -> Result<Self> {
        let event = Event::decode(bytes)?;
        let id = crate::event::event_id(ledger, bytes);
        Ok(Self { id, event, run, bytes: bytes.len() })
    }

    /// What another ledger of this program holds.
    pub(crate) fn of(entry: Entry, run: Option<RunId>) -> Self {
        let run = entry.run.filter(|_| entry.event.run.is_none() && entry.event.delivery).or(run);
        Self { id: entry.id, event: entry.event, run, bytes: 256 }
    }
}

impl Writing<'_> {
    /// Takes in events, in their order. Stops at the first that can never be taken in.
    pub(crate) fn apply(&mut self, events: Vec<Foreign>) -> Result<Transfer> {
        let mut transfer = Transfer::default();
        for foreign in events {
            transfer.offered += 1;
            self.apply_one(foreign, &mut transfer)?;
        }
        Ok(transfer)
    }

    fn apply_one(&mut self, foreign: Foreign, transfer: &mut Transfer) -> Result<()> {
        let key = (foreign.event.collection.clone(), foreign.event.key.clone());
        let shared = self.shared;
        let working = self.state.record(shared, &key)?;
        if working.document.graph().find(&foreign.id).is_some() || self.state.waiting.contains(&foreign.id) {
            transfer.duplicates += 1;
            return Ok(());
        }
        match self.state.record(shared, &key)?.document.admit(foreign.id, &foreign.event) {
            Ok(()) => self.take_in(foreign, transfer),
            Err(PlaceFault::MissingParents(missing)) => {
                transfer.waiting += 1;
                self.state.waiting.hold(foreign.id, foreign.event, foreign.run, foreign.bytes, missing)
            }
            Err(fault) => Err(refused(&foreign, &fault)),
        }
    }

    /// Stages an event, and those that waited for it alone.
    fn take_in(&mut self, foreign: Foreign, transfer: &mut Transfer) -> Result<()> {
        let mut ready = vec![(foreign.id, foreign.event, foreign.run)];
        let (shared, now) = (self.shared, (self.shared.world.now)());
        while let Some((id, event, run)) = ready.pop() {
            self.state.stage(shared, id, event, now, run)?;
            transfer.applied += 1;
            for (id, waiter) in self.state.waiting.arrived(&id) {
                transfer.waiting = transfer.waiting.saturating_sub(1);
                let key = (waiter.event.collection.clone(), waiter.event.key.clone());
                // One that turns out to break a rule was never accepted: it is dropped, and its sender told when it
                // is sent again.
                if self.state.record(shared, &key)?.document.admit(id, &waiter.event).is_ok() {
                    ready.push((id, waiter.event, waiter.run));
                }
            }
        }
        Ok(())
    }
}

fn refused(foreign: &Foreign, fault: &PlaceFault) -> Error {
    let event = &foreign.event;
    let message = format!("event {} of {}/{} is refused: {fault}", foreign.id.short(), event.collection, event.key);
    Error::new(ErrorKind::Validation, message)
        .with_hint("its writer broke a rule of events; other events of the batch before it were kept")
}
