//! Events of other replicas: taken in by the writer thread, or held until their parents come.

use super::request::Transfer;
use super::writer::Writing;
use crate::document::PlaceFault;
use crate::event::{Event, EventId, RunId};
use crate::segment::Item;
use crate::{Error, ErrorKind, Result};

/// An event from elsewhere, decoded and identified.
pub(crate) struct Foreign {
    pub(crate) id: EventId,
    pub(crate) event: Event,
    pub(crate) run: Option<RunId>,
}

impl Foreign {
    /// Decodes and identifies an event.
    pub(crate) fn decode(ledger: crate::event::LedgerId, bytes: &[u8], run: Option<RunId>) -> Result<Self> {
        let event = Event::decode(bytes)?;
        let id = crate::event::event_id(ledger, bytes);
        Ok(Self { id, event, run })
    }

    /// What a segment holds, whose reader has identified it.
    pub(crate) fn of(item: Item, run: Option<RunId>) -> Self {
        let run = item.run.filter(|_| item.event.run.is_none() && item.event.delivery).or(run);
        Self { id: item.id, event: item.event, run }
    }
}

/// What became of an event from elsewhere.
enum Taken {
    /// It is here, or waits already.
    In,
    /// These of its parents are not here.
    Lacks(Box<Foreign>, Vec<EventId>),
    /// It can never be taken in.
    Refused(EventId, Error),
}

impl Writing<'_> {
    /// Takes in events of a replica, in their order; those whose parents are not here wait. Stops at the first that can never
    /// be taken in.
    pub(crate) fn apply(&mut self, events: Vec<Foreign>) -> Result<Transfer> {
        let (mut transfer, mut held) = (Transfer::default(), Vec::new());
        for foreign in events {
            match self.take_in(foreign, &mut transfer)? {
                Taken::In => {}
                Taken::Lacks(foreign, missing) => held.push(self.hold(*foreign, missing)?),
                Taken::Refused(_, fault) => return Err(fault),
            }
        }
        self.count_waiting(held, &mut transfer);
        Ok(transfer)
    }

    /// Takes in events of a device, in their order, and returns those that are refused. Parents come first: one that is not
    /// here, and does not wait here, was refused before, and what was made on it would wait for ever.
    pub(crate) fn apply_at_edge(&mut self, events: Vec<Foreign>) -> Result<(Transfer, Vec<(EventId, Error)>)> {
        let (mut transfer, mut held, mut refused) = (Transfer::default(), Vec::new(), Vec::new());
        for foreign in events {
            match self.take_in(foreign, &mut transfer)? {
                Taken::In => {}
                Taken::Lacks(foreign, missing) => {
                    match missing.iter().find(|parent| !self.state.waiting.contains(parent)) {
                        Some(parent) => refused.push((foreign.id, made_on_nothing(parent))),
                        None => held.push(self.hold(*foreign, missing)?),
                    }
                }
                Taken::Refused(id, fault) => refused.push((id, fault)),
            }
        }
        self.count_waiting(held, &mut transfer);
        Ok((transfer, refused))
    }

    fn hold(&mut self, foreign: Foreign, missing: Vec<EventId>) -> Result<EventId> {
        let Foreign { id, event, run } = foreign;
        self.state.waiting.hold(id, event, run, missing)?;
        Ok(id)
    }

    /// Counts those of the held events that wait still.
    fn count_waiting(&self, mut held: Vec<EventId>, transfer: &mut Transfer) {
        held.retain(|id| self.state.waiting.contains(id));
        transfer.waiting = held.len() as u64;
    }

    fn take_in(&mut self, foreign: Foreign, transfer: &mut Transfer) -> Result<Taken> {
        transfer.offered += 1;
        let key = (foreign.event.collection.clone(), foreign.event.key.clone());
        let shared = self.shared;
        let follows = self.state.is_followed_by(shared, &key, &foreign.event)?;
        let (id, event) = (&foreign.id, &foreign.event);
        let is_known =
            !follows && self.state.record_for(shared, &key, id, event)?.document.graph().find(id).is_some();
        if is_known || self.state.waiting.contains(&foreign.id) {
            transfer.duplicates += 1;
            return Ok(Taken::In);
        }
        let admitted = match follows {
            true => Ok(()),
            false => self.state.record_for(shared, &key, id, event)?.document.admit(*id, event),
        };
        match admitted {
            Ok(()) => {
                let now = shared.stamp_ms(self.state.id);
                self.state.stage(shared, foreign.id, foreign.event, now, foreign.run)?;
                transfer.applied += 1 + self.release(foreign.id)?;
                Ok(Taken::In)
            }
            Err(PlaceFault::MissingParents(missing)) => Ok(Taken::Lacks(Box::new(foreign), missing)),
            Err(fault) => Ok(Taken::Refused(foreign.id, refused(&foreign, &fault))),
        }
    }

    /// Stages the events that waited for this one alone, and so on. Returns how many.
    pub(crate) fn release(&mut self, arrived: EventId) -> Result<u64> {
        let (shared, now) = (self.shared, self.shared.stamp_ms(self.state.id));
        let (mut arrived, mut released) = (vec![arrived], 0);
        while let Some(parent) = arrived.pop() {
            for (id, waiter) in self.state.waiting.arrived(&parent) {
                let key = (waiter.event.collection.clone(), waiter.event.key.clone());
                // One that turns out to break a rule was never accepted: it is dropped, with all that waits for it, and
                // its sender told when it is sent again.
                let record = self.state.record_for(shared, &key, &id, &waiter.event)?;
                if record.document.admit(id, &waiter.event).is_err() {
                    self.state.waiting.give_up(id);
                    continue;
                }
                self.state.stage(shared, id, waiter.event, now, waiter.run)?;
                released += 1;
                arrived.push(id);
            }
        }
        Ok(released)
    }
}

fn made_on_nothing(parent: &EventId) -> Error {
    let message = format!("it was made on event {}, which is not here: it was refused", parent.short());
    Error::new(ErrorKind::Conflict, message).with_hint("make the edit again, on what is here")
}

fn refused(foreign: &Foreign, fault: &PlaceFault) -> Error {
    let event = &foreign.event;
    let message = format!("event {} of {}/{} is refused: {fault}", foreign.id.short(), event.collection, event.key);
    Error::new(ErrorKind::Validation, message)
        .with_hint("its writer broke a rule of events; other events of the batch before it were kept")
}
