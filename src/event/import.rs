//! Events that two replicas make alike when they import the same version of a record apart.

use super::hash::Fields;
use super::{BatchId, BatchMember, Body, DecodeError, Event, Op, Timestamp, WriterId, codec, limits};

/// What a source delivers of one record for the first time, with the version that it gave.
#[derive(Clone, Debug)]
pub struct FirstImport<'a> {
    /// The system that delivers.
    pub source: &'a str,
    /// The record's collection.
    pub collection: &'a str,
    /// The record's key.
    pub key: &'a str,
    /// The source's time of this version, in milliseconds since 1970-01-01T00:00:00Z.
    pub occurred_at: i64,
}

/// Room that an event's head and its encoding may take beside the operations.
const HEAD_ROOM: usize = 6_144;

impl FirstImport<'_> {
    /// The events that import `ops`, in sorted order of their paths: one, or a chain where one event's limits are
    /// exceeded. `identify` gives an event's id, for its child to name.
    ///
    /// # Errors
    /// When an event cannot be encoded.
    pub fn events(
        &self,
        mut ops: Vec<Op>,
        mut identify: impl FnMut(&Event) -> Result<super::EventId, DecodeError>,
    ) -> Result<Vec<Event>, DecodeError> {
        ops.sort_by(|a, b| a.path().cmp(&b.path()));
        let writer = self.writer(&ops)?;
        let parts = split(ops)?;
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let mut parent = None;
        let mut events = Vec::with_capacity(parts.len());
        for (index, part) in (0..).zip(parts) {
            let batch = (count > 1).then_some(BatchMember { id: BatchId(writer.0), index, count });
            let event = self.event(writer, index, parent, batch, part);
            parent = Some(identify(&event)?);
            events.push(event);
        }
        Ok(events)
    }

    fn writer(&self, ops: &[Op]) -> Result<WriterId, DecodeError> {
        let fields = Fields::new("syncledger 2026-11 import writer v1").field(self.source.as_bytes());
        let fields = fields.field(self.collection.as_bytes()).field(self.key.as_bytes());
        let fields = fields.field(&self.occurred_at.to_le_bytes());
        let hashed = ops.iter().try_fold(fields, |fields, op| Ok(fields.field(&encoded(op)?)));
        hashed.map(|fields| WriterId(fields.finish_short()))
    }

    fn event(
        &self,
        writer: WriterId,
        index: u32,
        parent: Option<super::EventId>,
        batch: Option<BatchMember>,
        ops: Vec<Op>,
    ) -> Event {
        Event {
            collection: self.collection.to_owned(),
            key: self.key.to_owned(),
            writer,
            sequence: u64::from(index) + 1,
            lane: 0,
            nth: index + 1,
            parents: parent.into_iter().collect(),
            at: Timestamp { millis: self.occurred_at, counter: index },
            occurred_at: Some(self.occurred_at),
            source: self.source.to_owned(),
            principal: None,
            reason: None,
            run: None,
            delivery: true,
            idempotency: None,
            batch,
            resolves: None,
            reverts: None,
            body: Body::Ops(ops),
        }
    }
}

fn encoded(op: &Op) -> Result<Vec<u8>, DecodeError> {
    codec::to_bytes(op).map_err(|_| DecodeError::TooLarge(limits::EVENT_BYTES + 1))
}

/// Splits operations, in their order, greedily into parts that each fit one event; at least one part.
///
/// # Errors
/// When one operation alone does not fit.
pub fn split(ops: Vec<Op>) -> Result<Vec<Vec<Op>>, DecodeError> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for op in ops {
        let size = encoded(&op)?.len();
        if size > limits::EVENT_BYTES - HEAD_ROOM {
            return Err(DecodeError::TooLarge(size));
        }
        if bytes + size > limits::EVENT_BYTES - HEAD_ROOM || part.len() == limits::EVENT_OPS {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(op);
    }
    parts.push(part);
    Ok(parts)
}
