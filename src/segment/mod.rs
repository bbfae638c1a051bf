//! Segments: runs of events in compressed columns. One format for backups, archives and what is sent.
//!
//! A segment is a [`Head`] and blocks of events. In a block, each property of its events is a column of its own, where
//! equal and similar values stand beside each other, and the columns are compressed together. Ids are not stored: an
//! event names another of its segment by how far back it stands, and who reads computes all ids and proves them against
//! the hashes of the head.
//!
//! ```text
//! events ─► Writer ─► head, block, block …      head ─► Reader ─► block by block ─► Index ─► any block alone
//! ```
//!
//! It knows no files and no ledger: bytes in, events out.
//!
//! Invariant: whatever bytes are read, memory is bounded by the limits below, and what is returned are valid events
//! which are encoded to the very bytes that they were read from, compression aside.

mod assemble;
mod column;
mod fault;
mod head;
mod item;
mod reader;
mod sheet;
mod shred;
mod writer;

#[cfg(test)]
mod tests;

pub use fault::SegmentFault;
pub use head::{Block, Codec, Head};
pub use item::{Alone, Item, Past, weight};
pub use reader::{Index, Reader};
pub use writer::{Shape, Writer};

/// The most events of a segment: who reads one keeps their ids in memory.
pub const MOST_EVENTS: usize = 1 << 17;
/// The most events of a block.
pub const MOST_BLOCK_EVENTS: usize = 1 << 14;
/// The most bytes of a block that is not compressed: what one read allocates at most.
pub const MOST_BLOCK_BYTES: usize = 4 << 20;
/// A segment is closed when its blocks have so many bytes, not compressed.
pub const FULL_BYTES: usize = 16 << 20;
