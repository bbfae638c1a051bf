//! What the new log is: decided by reading the old one, before anything is changed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::log::Log;
use super::super::request::Entry;
use super::super::shared::{Shared, is_first_import};
use super::super::state::{RecordKey, internal};
use super::places::Places;
use super::stamping::{Stamping, Time, named_by};
use super::{Again, Rewritten};
use crate::document::{ApplyFault, Document, PlaceFault};
use crate::event::{EventId, LedgerId, Timestamp, WriterId};
use crate::{Error, ErrorKind, Result};

/// A log that is to take the place of another.
pub(crate) struct Plan {
    pub(crate) ledger: LedgerId,
    /// The new writer, then those before it.
    pub(super) writers: Vec<WriterId>,
    /// The last position of the old log.
    head: u64,
    places: Places,
    /// What was stamped anew, as it is at the end of the new log.
    stamped: Vec<Entry>,
    pub(crate) done: Rewritten,
}

impl Plan {
    /// The last position of the new log.
    pub(super) fn last(&self) -> u64 {
        self.done.events
    }

    /// Gives every entry of the new log to `each`, in order.
    pub(super) fn each(&self, shared: &Shared, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        Log::new(shared, self.ledger).each(0, self.head, |mut entry| {
            if !self.places.lacks(entry.position) {
                (entry.position, entry.previous) = (self.places.of(entry.position), self.places.of(entry.previous));
                each(entry)?;
            }
            Ok(true)
        })?;
        self.stamped.iter().cloned().try_for_each(each)
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Stamped,
    Withdrawn,
}

/// A plan while the old log is read.
struct Planning<'a> {
    log: Log<'a>,
    again: &'a Again,
    /// The writers of this installation.
    own: Vec<WriterId>,
    time: Time,
    stamping: Stamping,
    withdrawn: BTreeSet<EventId>,
    places: Places,
    stamped: Vec<Entry>,
    /// Of the records that have events which go or are stamped anew: where their last other event is in the new log, and in the
    /// old one.
    tails: BTreeMap<RecordKey, (u64, u64)>,
    /// What was asked for and did not come yet.
    missing: BTreeSet<EventId>,
}

/// Plans the new log of a ledger, under a new writer. Nothing is changed.
pub(crate) fn plan(shared: &Shared, ledger: LedgerId, again: &Again, writer: WriterId) -> Result<Plan> {
    let time = Time { now_ms: shared.stamp_ms(ledger), shift_ms: again.shift_ms };
    let own = shared.own_writers(ledger);
    let mut planning = Planning {
        log: Log::new(shared, ledger),
        again,
        own: own.clone(),
        time,
        stamping: Stamping::new(ledger, writer, time),
        withdrawn: BTreeSet::new(),
        places: Places::default(),
        stamped: Vec::new(),
        tails: BTreeMap::new(),
        missing: again.withdraw.union(&again.stamp_again).copied().collect(),
    };
    let head = planning.log.head();
    let reader = Log::new(shared, ledger);
    let mut withdrawn = Vec::new();
    reader.each(0, head, |entry| {
        planning.missing.remove(&entry.id);
        match planning.fate(&entry)? {
            Fate::Kept => planning.keep(&entry),
            Fate::Withdrawn => {
                planning.withdraw(&entry);
                withdrawn.push(entry);
            }
            Fate::Stamped => planning.stamp(entry)?,
        }
        Ok(true)
    })?;
    if let Some(missing) = planning.missing.first() {
        return Err(Error::new(ErrorKind::NotFound, format!("the log has no event {missing}")));
    }
    planning.check()?;
    Ok(planning.finish(ledger, [vec![writer], own].concat(), head, withdrawn))
}

impl Planning<'_> {
    fn fate(&self, entry: &Entry) -> Result<Fate> {
        let event = &entry.event;
        let built_on = |is: &dyn Fn(&EventId) -> bool| named_by(event).find(|named| is(named));
        let gone = built_on(&|named| self.withdrawn.contains(named));
        let renamed = built_on(&|named| self.stamping.renamed(named).is_some());
        let is_own = self.own.contains(&event.writer);
        if gone.is_some() || self.again.withdraw.contains(&entry.id) {
            // The first import of a record is the same event wherever it is made: it is made here too.
            return mine(entry, is_own || is_first_import(event), gone).map(|()| Fate::Withdrawn);
        }
        if renamed.is_some() || self.again.stamp_again.contains(&entry.id) {
            return mine(entry, is_own, renamed).map(|()| Fate::Stamped);
        }
        Ok(Fate::Kept)
    }

    fn keep(&mut self, entry: &Entry) {
        if self.tails.is_empty() {
            return;
        }
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        if let Some(tail) = self.tails.get_mut(&key) {
            *tail = (self.places.of(entry.position), entry.position);
        }
    }

    /// Leaves an entry out of the order of the old log.
    fn leave_out(&mut self, entry: &Entry) -> RecordKey {
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        let before = (self.places.of(entry.previous), entry.previous);
        self.tails.entry(key.clone()).or_insert(before);
        self.places.leave_out(entry.position, entry.previous);
        key
    }

    fn withdraw(&mut self, entry: &Entry) {
        self.leave_out(entry);
        self.withdrawn.insert(entry.id);
    }

    fn stamp(&mut self, entry: Entry) -> Result<()> {
        self.leave_out(&entry);
        let others = self.stamps_of_others(&entry)?;
        let received_at = self.time.mend(entry.received_at);
        let (id, event) = self.stamping.stamp(entry.id, entry.event, &others)?;
        self.stamped.push(Entry { id, event, received_at, ..entry });
        Ok(())
    }

    /// The stamps of the parents of an event that stay as they are.
    fn stamps_of_others(&self, entry: &Entry) -> Result<Vec<Timestamp>> {
        let stays = |parent: &&EventId| self.stamping.renamed(parent).is_none();
        let mut wanted: BTreeSet<EventId> = entry.event.parents.iter().filter(stays).copied().collect();
        let (mut stamps, mut position) = (Vec::new(), entry.previous);
        while !wanted.is_empty() && position > 0 {
            let Some(before) = self.log.at(position)? else { break };
            if wanted.remove(&before.id) {
                stamps.push(before.event.at);
            }
            position = before.previous;
        }
        match wanted.first() {
            None => Ok(stamps),
            Some(lost) => Err(internal(&format!("a parent of {} is not in the log: {lost}", entry.id.short()))),
        }
    }

    /// Derives the records that change, for trial: what cannot be derived is refused while the old log is there.
    fn check(&self) -> Result<()> {
        let mut added: BTreeMap<RecordKey, Vec<&Entry>> = BTreeMap::new();
        for entry in &self.stamped {
            let key = (entry.event.collection.clone(), entry.event.key.clone());
            added.entry(key).or_default().push(entry);
        }
        for (key, (_, last)) in &self.tails {
            let before = self.log.record(*last, 0)?;
            let kept = before.iter().filter(|entry| !self.places.lacks(entry.position));
            let entries = kept.chain(added.get(key).into_iter().flatten().copied());
            derive(&entries.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Gives what was stamped anew its places at the end.
    fn finish(mut self, ledger: LedgerId, writers: Vec<WriterId>, head: u64, withdrawn: Vec<Entry>) -> Plan {
        let kept = head - self.places.count();
        for (position, entry) in (kept + 1..).zip(&mut self.stamped) {
            let key = (entry.event.collection.clone(), entry.event.key.clone());
            let tail = self.tails.entry(key).or_default();
            entry.previous = std::mem::replace(&mut tail.0, position);
            entry.position = position;
        }
        let (places, events) = (self.places, kept + self.stamped.len() as u64);
        let writer = writers.first().copied().unwrap_or(WriterId([0; 16]));
        let stamped = self.stamping.into_renamed();
        let done = Rewritten { writer, withdrawn, stamped, events, places: places.clone() };
        Plan { ledger, writers, head, places, stamped: self.stamped, done }
    }
}

/// Whether an event may go or be stamped anew, by itself or because it was made on another that does.
fn mine(entry: &Entry, is_own: bool, made_on: Option<EventId>) -> Result<()> {
    if is_own {
        return Ok(());
    }
    let (id, writer) = (entry.id, entry.event.writer);
    let message = match made_on {
        Some(parent) => format!(
            "the event {id} of another replica ({writer}) was made on event {}: others have that",
            parent.short()
        ),
        None => format!("the event {id} is not of this installation, but of {writer}"),
    };
    Err(Error::new(ErrorKind::Conflict, message)
        .with_hint("what others have stays: take it back with `syncledger revert`"))
}

/// Derives a record from entries of its own, in an order in which parents come first.
fn derive(entries: &[&Entry]) -> Result<()> {
    let mut document = Document::default();
    for (index, entry) in entries.iter().enumerate() {
        match document.apply(entry.id, &entry.event) {
            Ok(()) => {}
            Err(ApplyFault::Place(PlaceFault::LateFork)) => {
                let all = entries.iter().take(index + 1).map(|entry| (entry.id, &entry.event));
                document = Document::derive_all(all)?;
            }
            Err(fault) => {
                let message = format!("the event {} would not follow in the new log: {fault}", entry.id.short());
                return Err(internal(&message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::testing::{LEDGER, event};

    #[test]
    fn what_would_not_follow_is_found_before_anything_is_changed() {
        let entry = |event: Event| {
            let id = event.identify(LEDGER).unwrap().0;
            Entry { position: 1, id, received_at: 0, run: None, previous: 0, event }
        };
        let good = entry(event(Vec::new()));
        derive(&[&good]).unwrap();
        let bad = entry(Event { nth: 2, ..event(Vec::new()) });
        let fault = derive(&[&good, &bad]).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Consistency, "{fault}");
    }
}
