//! Every limit on what an event, a record or a batch may hold, each with its reason.
//!
//! Invariant: whether an event is valid depends on these constants and on nothing configurable, so that every replica
//! decides alike. Raising one is a change of format; lowering one would refuse events that exist.

/// The encoded bytes of one event: small enough that a decoder can be given the whole of it as its allowance, large
/// enough for any edit whose big values are blobs.
pub const EVENT_BYTES: usize = 65_536;

/// The ops of one event: bounds what deriving one event can cost; a larger change becomes a batch.
pub const EVENT_OPS: usize = 4_096;

/// The segments of a path, and so the nested objects of a record: every walk over a record recurses at most this deep.
pub const PATH_DEPTH: usize = 16;

/// The bytes of a path as a JSON Pointer: a path is repeated in every op on it and is a key of the document.
pub const PATH_BYTES: usize = 1_024;

/// The bytes of a record's key: long enough for a URL path or a message id, short enough to sit in every index row.
pub const KEY_BYTES: usize = 256;

/// The bytes of a collection's name: it is a prefix of every row and a label of metrics.
pub const COLLECTION_BYTES: usize = 64;

/// The parents of one event: a record with more open heads is first joined by empty merge events.
pub const PARENTS: usize = 64;

/// The events of one batch: a batch is written all or nothing, so it is held in memory whole.
pub const BATCH_EVENTS: usize = 4_096;

/// The bytes of a string, byte string or atomic JSON that stands in the event itself; above it is a blob. A quarter of
/// [`EVENT_BYTES`], so that one value never crowds out the rest of an edit.
pub const INLINE_BYTES: usize = 16_384;

/// The bytes of one blob, 256 MiB: it is hashed and verified in one piece.
pub const BLOB_BYTES: u64 = 256 * 1_024 * 1_024;

/// The bytes of a source, a principal or an idempotency key: names, which every event repeats.
pub const NAME_BYTES: usize = 256;

/// The bytes of an edit's reason: a sentence or a few for the audit trail, not a document.
pub const REASON_BYTES: usize = 1_024;

/// The greatest magnitude of one increment. Automerge adds counters with `+`, which panics on overflow in builds that
/// check it; under this bound 2^31 increments would be needed to get there.
pub const INCREMENT_MAX: u64 = 1 << 32;

/// The nested containers of a JSON text that is no record (an atomic value, a request, a policy): no real document
/// comes near it, and the recursion it allows fits the smallest stack in use.
pub const JSON_DEPTH: usize = 64;
