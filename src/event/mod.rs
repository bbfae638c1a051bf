//! Events: the immutable, content-addressed changes that the log consists of.

mod id;

pub use id::{BatchId, ConflictId, EventId, LedgerId, ParseIdError, RunId, WriterId};
