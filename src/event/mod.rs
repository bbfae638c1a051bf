//! Events: the immutable, content-addressed changes that the log consists of.
//!
//! An [`Event`] states what a writer meant, on the past that it had seen. It holds no CRDT internals: every replica
//! derives those itself, so that no event from outside can be malformed there.
//!
//! Invariant: this module and everything in it is pure. It reads no clock, no randomness and no file, and whether an
//! event is valid never depends on where or when it is asked.

pub(crate) mod binary;
mod clock;
mod codec;
pub mod diff;
pub(crate) mod hash;
mod id;
mod import;
pub mod json;
pub mod limits;
mod model;
mod op;
mod path;
mod validate;
mod value;

pub use clock::Timestamp;
pub use codec::DecodeError;
pub use hash::{conflict_id, conflict_version, constraint_id, event_id};
pub use id::{BatchId, ConflictId, EventId, LedgerId, ParseIdError, RunId, WriterId};
pub(crate) use import::count_parts;
pub use import::{FirstImport, Part, chain, split};
pub use model::{BatchMember, Body, Event, Idempotency};
pub use op::{Container, Op};
pub(crate) use path::escape;
pub use path::{FlatKey, KeyRange, Path, PathError};
pub use validate::EventFault;
pub use value::{BlobForm, BlobHash, BlobRef, Value, hex};
