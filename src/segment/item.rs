//! What a segment holds of each event, and how the events of one segment find each other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use crate::event::{Event, EventId, Op, RunId, Value, WriterId};

/// An event at its place in a log, with what the log keeps beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its place in the log, from 1.
    pub position: u64,
    /// The position of the record's event before it in the log; 0 for its first.
    pub previous: u64,
    /// When it was appended there, in milliseconds since 1970.
    pub received_at: i64,
    /// The execution that brought it there, or that made it.
    pub run: Option<RunId>,
    /// Its id. Never stored: who reads computes it.
    pub id: EventId,
    /// The event.
    pub event: Event,
}

/// How events that a segment names, but does not hold, can be told shorter than by their ids: both sides know them.
pub trait Past {
    /// The writer and number of the event `of`, which is named by `event`; `None` where another event has both too, or
    /// where the reader may not know it.
    fn place(&self, event: &Event, of: &EventId) -> Option<(WriterId, u64)>;

    /// The event of a record with this writer and number; `None` where there is none, or several.
    fn find(&self, collection: &str, key: &str, writer: WriterId, sequence: u64) -> Option<EventId>;
}

/// No past: every event that a segment does not hold is named by its id, so that it can be read alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Past for Alone {
    fn place(&self, _: &Event, _: &EventId) -> Option<(WriterId, u64)> {
        None
    }

    fn find(&self, _: &str, _: &str, _: WriterId, _: u64) -> Option<EventId> {
        None
    }
}

/// The ids of a segment's events and their positions, by their place in it.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(u64, EventId)>);

impl Places {
    pub(super) fn new(places: Vec<(u64, EventId)>) -> Self {
        Self(places)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The id at a place.
    pub(super) fn id(&self, place: usize) -> Option<EventId> {
        self.0.get(place).map(|(_, id)| *id)
    }

    /// The last position, and the id there.
    pub(super) fn last(&self) -> Option<(u64, EventId)> {
        self.0.last().copied()
    }

    /// The ids of some places.
    pub(super) fn range(&self, places: std::ops::Range<usize>) -> &[(u64, EventId)] {
        self.0.get(places).unwrap_or_default()
    }

    /// The place of the event at a position.
    pub(super) fn at(&self, position: u64) -> Option<usize> {
        // In a part of a log there are no gaps.
        let straight = self.0.first().and_then(|(first, _)| usize::try_from(position.checked_sub(*first)?).ok());
        match straight.and_then(|place| self.0.get(place)) {
            Some((found, _)) if *found == position => straight,
            _ => self.0.binary_search_by_key(&position, |(position, _)| *position).ok(),
        }
    }
}

/// The events of a segment so far, by their place in it and by id.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) places: Places,
    by_id: HashMap<EventId, usize, RandomState>,
}

impl Ids {
    /// Makes room for so many events.
    pub(super) fn expect(&mut self, events: usize) {
        self.by_id.reserve(events);
        self.places.0.reserve(events);
    }

    /// Adds the next event; `false` where it is there already.
    pub(super) fn add(&mut self, position: u64, id: EventId) -> bool {
        let Entry::Vacant(free) = self.by_id.entry(id) else { return false };
        free.insert(self.places.0.len());
        self.places.0.push((position, id));
        true
    }

    /// The place of an event, where that is before another place.
    pub(super) fn before(&self, place: usize, id: &EventId) -> Option<usize> {
        self.by_id.get(id).copied().filter(|found| *found < place)
    }
}

/// The ids of a segment that is being read: those so far, or all of them, proved before.
pub(super) enum Held<'a> {
    Growing(&'a mut Ids),
    Whole(&'a Places),
}

impl Held<'_> {
    pub(super) fn places(&self) -> &Places {
        match self {
            Self::Growing(ids) => &ids.places,
            Self::Whole(places) => places,
        }
    }

    /// The id at a place, where it is known before the event there is read.
    pub(super) fn proved(&self, place: usize) -> Option<EventId> {
        match self {
            Self::Growing(_) => None,
            Self::Whole(places) => places.id(place),
        }
    }

    /// Adds the event at a place, or compares it with the one that is there; `false` where it cannot stand there.
    pub(super) fn take(&mut self, place: usize, position: u64, id: EventId) -> bool {
        match self {
            Self::Growing(ids) => ids.places.len() == place && ids.add(position, id),
            Self::Whole(places) => places.range(place..place + 1).first() == Some(&(position, id)),
        }
    }
}

/// About how many bytes an event takes, counted alike by who writes and by who reads: what bounds a block.
#[must_use]
pub fn weight(event: &Event) -> usize {
    let texts = [&event.collection, &event.key, &event.source].map(String::len).iter().sum::<usize>();
    let options = [&event.principal, &event.reason].map(|text| text.as_ref().map_or(0, String::len));
    let key = event.idempotency.as_ref().map_or(0, |request| request.key.len());
    let ops: usize = event.ops().iter().map(op_weight).sum();
    EVENT_WEIGHT + texts + options.iter().sum::<usize>() + key + event.parents.len() * 32 + ops
}

/// What an event weighs without its texts and operations.
pub(super) const EVENT_WEIGHT: usize = 256;
/// What an operation weighs without its texts.
pub(super) const OP_WEIGHT: usize = 48;

pub(super) fn op_weight(op: &Op) -> usize {
    let path = op.path().map_or(0, |path| path.as_str().len());
    let own = match op {
        Op::PutAtomic { json, .. } => json.len(),
        Op::SpliceText { insert, .. } => insert.len(),
        _ => op.value().map_or(0, Value::inline_bytes),
    };
    OP_WEIGHT + path + own
}
