//! Every hash that is part of the format, in one place.
//!
//! Invariant: each kind of hash has its own blake3 derive-key context, and every field of variable length is preceded
//! by its length, so that no two different inputs feed the same bytes.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};

use super::id::{ConflictId, EventId, LedgerId, WriterId};

/// A blake3 hasher that separates its fields.
pub(crate) struct Fields(blake3::Hasher);

impl Fields {
    /// A hasher for one purpose; `context` must be used nowhere else.
    pub(crate) fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Adds a field of any length.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The hash of the fields.
    pub(crate) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// The first 16 bytes of the hash of the fields.
    pub(crate) fn finish_short(self) -> [u8; 16] {
        let mut short = [0; 16];
        self.0.finalize_xof().fill(&mut short);
        short
    }
}

const EVENT_ID: &str = "syncledger 2026-11 event id v1";

/// The id of the event with these encoded bytes in this ledger.
#[must_use]
pub fn event_id(ledger: LedgerId, encoded: &[u8]) -> EventId {
    // Every event is identified, most several times: the context alone would be a quarter of the hash.
    static CONTEXT: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(EVENT_ID));
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT);
    hasher.update(&(LedgerId::BYTES as u64).to_le_bytes()).update(&ledger.0);
    hasher.update(&(encoded.len() as u64).to_le_bytes()).update(encoded);
    EventId(*hasher.finalize().as_bytes())
}

/// The id of the conflict at a JSON Pointer of a record; a deletion's pointer is `/$deleted`.
#[must_use]
pub fn conflict_id(ledger: LedgerId, collection: &str, key: &str, pointer: &str) -> ConflictId {
    let fields = Fields::new("syncledger 2026-11 conflict id v1");
    let record = fields.field(&ledger.0).field(collection.as_bytes()).field(key.as_bytes());
    ConflictId(record.field(pointer.as_bytes()).finish())
}

/// The id of the conflict about a broken constraint. `parts` say which: of a unique value the collection, the field and
/// the value, otherwise the record too.
#[must_use]
pub fn constraint_id(ledger: LedgerId, constraint: &str, parts: &[&str]) -> ConflictId {
    let fields = Fields::new("syncledger 2026-11 constraint id v1").field(&ledger.0).field(constraint.as_bytes());
    ConflictId(parts.iter().fold(fields, |fields, part| fields.field(part.as_bytes())).finish())
}

/// The hash by which a conflict's candidates are told from later ones: of their events, sorted.
#[must_use]
pub fn conflict_version(sorted_events: &[EventId]) -> [u8; 32] {
    let fields = Fields::new("syncledger 2026-11 conflict version v1");
    sorted_events.iter().fold(fields, |fields, event| fields.field(&event.0)).finish()
}

/// The Automerge actor of a writer's lane.
pub(crate) fn lane_actor(writer: WriterId, lane: u32) -> [u8; 16] {
    Fields::new("syncledger 2026-11 lane actor v1").field(&writer.0).field(&lane.to_le_bytes()).finish_short()
}

/// The Automerge actor that a forked event starts.
pub(crate) fn fork_actor(event: EventId) -> [u8; 16] {
    Fields::new("syncledger 2026-11 fork actor v1").field(&event.0).finish_short()
}

/// The Automerge actor that makes the counter at a key.
pub(crate) fn counter_actor(key: &str) -> [u8; 16] {
    Fields::new("syncledger 2026-11 counter actor v1").field(key.as_bytes()).finish_short()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_separated() {
        let join = |a: &[u8], b: &[u8]| Fields::new("test").field(a).field(b).finish();
        assert_ne!(join(b"ab", b"c"), join(b"a", b"bc"));
    }

    #[test]
    fn a_context_that_was_hashed_before_is_the_same_context() {
        let plain = Fields::new(EVENT_ID).field(&[1; 16]).field(b"x").finish();
        assert_eq!(event_id(LedgerId([1; 16]), b"x"), EventId(plain));
    }

    #[test]
    fn an_event_has_another_id_in_another_ledger() {
        assert_ne!(event_id(LedgerId([1; 16]), b"x"), event_id(LedgerId([2; 16]), b"x"));
    }
}
