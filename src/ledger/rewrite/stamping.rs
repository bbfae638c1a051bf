//! Stamping events anew, under a writer that has stamped nothing yet.
//!
//! Everything that was made on what is stamped anew is stamped anew itself. So what the new writer has made before an event is
//! told by those of its parents that are the writer's, and needs no record.

use std::collections::BTreeMap;

use super::super::state::{RecordKey, internal};
use crate::Result;
use crate::event::{Container, Event, EventId, LedgerId, Op, Timestamp, WriterId};

/// How far the writer came in each lane of a record.
type Lanes = BTreeMap<u32, u32>;

/// What is known of an event that was stamped anew.
#[derive(Clone, Debug)]
struct Stamped {
    at: Timestamp,
    /// How far the writer came in its lanes, up to this event.
    lanes: Lanes,
}

/// The clock by which events are stamped anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) now_ms: i64,
    /// What is to be added to a stamp that lies in the future.
    pub(super) shift_ms: i64,
}

impl Time {
    /// A time of a clock that may have been wrong, which is never in the future.
    pub(super) fn mend(self, millis: i64) -> i64 {
        let mended = if millis > self.now_ms { millis.saturating_add(self.shift_ms) } else { millis };
        mended.min(self.now_ms)
    }
}

/// What was stamped anew so far.
pub(super) struct Stamping {
    ledger: LedgerId,
    writer: WriterId,
    time: Time,
    sequence: u64,
    last: Timestamp,
    /// By its id before: what it is now.
    renamed: BTreeMap<EventId, EventId>,
    made: BTreeMap<EventId, Stamped>,
    /// How far the writer came in each record.
    lanes: BTreeMap<RecordKey, Lanes>,
}

impl Stamping {
    pub(super) fn new(ledger: LedgerId, writer: WriterId, time: Time) -> Self {
        let (renamed, made, lanes) = Default::default();
        let last = Timestamp::from_millis(i64::MIN);
        Self { ledger, writer, time, sequence: 0, last, renamed, made, lanes }
    }

    /// What an event is now, where it was stamped anew.
    pub(super) fn renamed(&self, event: &EventId) -> Option<EventId> {
        self.renamed.get(event).copied()
    }

    /// By their ids before: what all of them are now.
    pub(super) fn into_renamed(self) -> BTreeMap<EventId, EventId> {
        self.renamed
    }

    /// Stamps an event anew, whose other parents have these stamps. Every event is later than the one before, whatever its
    /// record: so they keep their order.
    pub(super) fn stamp(&mut self, before: EventId, event: Event, others: &[Timestamp]) -> Result<(EventId, Event)> {
        let key = (event.collection.clone(), event.key.clone());
        let mut event = self.rename(event);
        let own: Vec<&Stamped> = event.parents.iter().filter_map(|parent| self.made.get(parent)).collect();
        let past = own.iter().map(|parent| parent.at).chain(others.iter().copied()).chain([self.last]);
        event.at = Timestamp::stamp(self.time.mend(event.at.millis), past);
        let mut lanes = own.iter().fold(Lanes::new(), |past, parent| union(past, &parent.lanes));
        (event.lane, event.nth) = free(self.lanes.get(&key), &lanes);
        self.sequence += 1;
        (event.writer, event.sequence) = (self.writer, self.sequence);
        let (id, _) = event
            .identify(self.ledger)
            .map_err(|fault| internal(&format!("the event {} cannot be stamped anew: {fault}", before.short())))?;
        lanes.insert(event.lane, event.nth);
        self.lanes.entry(key).or_default().insert(event.lane, event.nth);
        self.last = event.at;
        self.made.insert(id, Stamped { at: event.at, lanes });
        self.renamed.insert(before, id);
        Ok((id, event))
    }

    /// The same event, which names others by what they are now.
    fn rename(&self, mut event: Event) -> Event {
        let now = |id: EventId| self.renamed(&id).unwrap_or(id);
        event.parents.iter_mut().for_each(|parent| *parent = now(*parent));
        event.parents.sort_unstable();
        event.reverts = event.reverts.map(now);
        let crate::event::Body::Ops(ops) = &mut event.body;
        for op in ops {
            if let Op::Insert { container, .. } | Op::RemoveAt { container, .. } | Op::SpliceText { container, .. } =
                op
                && let Container::Of(made_by, _) = container
            {
                *made_by = now(*made_by);
            }
        }
        event
    }
}

fn union(mut past: Lanes, other: &Lanes) -> Lanes {
    for (lane, nth) in other {
        let known = past.entry(*lane).or_default();
        *known = (*known).max(*nth);
    }
    past
}

/// The smallest lane of a record whose last event is in a past, or that has none, and the next place in it.
fn free(record: Option<&Lanes>, past: &Lanes) -> (u32, u32) {
    let last = |lane: &u32| record.and_then(|lanes| lanes.get(lane)).copied().unwrap_or(0);
    let known = |lane: &u32| past.get(lane).copied().unwrap_or(0);
    let lane = (0..u32::MAX).find(|lane| last(lane) == known(lane)).unwrap_or(u32::MAX);
    (lane, known(&lane).saturating_add(1))
}

/// The events that an event names: what it was made on, works in, or takes back.
pub(super) fn named_by(event: &Event) -> impl Iterator<Item = EventId> {
    let containers = event.ops().iter().filter_map(|op| match op.container() {
        Some(Container::Of(made_by, _)) => Some(made_by),
        _ => None,
    });
    event.parents.iter().copied().chain(event.reverts).chain(containers)
}
