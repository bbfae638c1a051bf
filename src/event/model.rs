//! The event itself.

use serde::{Deserialize, Serialize};

use super::{BatchId, ConflictId, EventId, Op, RunId, Timestamp, WriterId};

/// A request that is made at most once per source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The name that the caller gave the request.
    pub key: String,
    /// The hash of the request: the same key with another request is refused.
    pub request_hash: [u8; 32],
}

/// An event's place in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchMember {
    /// The batch.
    pub id: BatchId,
    /// The event's place in it, from 0.
    pub index: u32,
    /// How many events it has.
    pub count: u32,
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Operations, in their order.
    Ops(Vec<Op>),
}

/// One immutable change of one record: what its writer meant, on the past that it had seen.
///
/// The order of the fields is the order of their bytes: it is part of the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// The installation that stamped the event.
    pub writer: WriterId,
    /// The writer's own numbering of its events in this ledger, from 1; gaps are legal at a receiver.
    pub sequence: u64,
    /// The writer's linear thread on this record.
    pub lane: u32,
    /// The event's place in its lane, from 1.
    pub nth: u32,
    /// The events that the edit was made on: sorted, unique, none an ancestor of another.
    pub parents: Vec<EventId>,
    /// When it was stamped; later than every parent.
    pub at: Timestamp,
    /// When the source says that it happened, in milliseconds since 1970-01-01T00:00:00Z.
    pub occurred_at: Option<i64>,
    /// The system that the edit came from.
    pub source: String,
    /// The user or service in that system.
    pub principal: Option<String>,
    /// Why the edit was made.
    pub reason: Option<String>,
    /// The execution that made it.
    pub run: Option<RunId>,
    /// Whether the event delivers the source's state of the record, as imports do, and so is the base of the source's
    /// next delivery.
    pub delivery: bool,
    /// The request that the event answers.
    pub idempotency: Option<Idempotency>,
    /// The batch that the event belongs to.
    pub batch: Option<BatchMember>,
    /// The conflict that the event settles.
    pub resolves: Option<ConflictId>,
    /// The event that this one takes back.
    pub reverts: Option<EventId>,
    /// What it does.
    pub body: Body,
}

impl Event {
    /// The event's operations.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        let Body::Ops(ops) = &self.body;
        ops
    }

    /// Whether the event changes more than the record's being deleted.
    #[must_use]
    pub fn is_update(&self) -> bool {
        self.ops().iter().any(Op::is_update)
    }

    /// The time by which the event is ordered among others, in milliseconds: a source's clock that runs ahead wins
    /// nothing.
    #[must_use]
    pub fn order_time(&self) -> i64 {
        self.occurred_at.map_or(self.at.millis, |occurred| occurred.min(self.at.millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn the_order_time_is_the_sources_unless_its_clock_runs_ahead() {
        let at = |occurred_at| Event { occurred_at, ..event(Vec::new()) }.order_time();
        assert_eq!([at(None), at(Some(700)), at(Some(-5)), at(Some(9_000_000_000_000))], [1_000, 700, -5, 1_000]);
    }
}
