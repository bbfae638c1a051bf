//! Events: the immutable, content-addressed changes that the log consists of.

pub mod diff;
mod id;
pub mod json;
pub mod limits;
mod path;

pub use id::{BatchId, ConflictId, EventId, LedgerId, ParseIdError, RunId, WriterId};
pub use path::{FlatKey, KeyRange, Path, PathError};
