//! The bytes of a backup file, but for its segments.
//!
//! ```text
//! "SLBK"  version u8 = 1  length u32  head  hash [32]
//! parts:  1 segment                                     (see `segment`)
//!         2 length u64  hash [32]  content              a blob, before the segment that names it first
//!         3 events u64  blobs u64  chain [32]           the end
//! ```
//! The head says which positions the file holds, so that whoever finds it cut can say what is missing. The chain is a
//! running hash over all parts, so that none is lost, doubled or moved.

use crate::event::hash::Fields;
use crate::event::{BlobHash, EventId, LedgerId, WriterId};

pub(super) const MAGIC: &[u8; 4] = b"SLBK";
pub(super) const VERSION: u8 = 1;
pub(super) const PREFIX_BYTES: usize = 4 + 1 + 4;
/// The most bytes of a head: its name and writers are few.
pub(super) const MOST_HEAD_BYTES: usize = 1 << 16;
/// How many writers a head names at most: one for each time that the ledger was restored.
pub(in crate::ledger) const MOST_WRITERS: usize = 1_024;

pub(super) const SEGMENT: u8 = 1;
pub(super) const BLOB: u8 = 2;
pub(super) const END: u8 = 3;
pub(super) const END_BYTES: usize = 8 + 8 + 32;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Head {
    pub(in crate::ledger) ledger: LedgerId,
    /// The position of its first event.
    pub(in crate::ledger) first: u64,
    /// The position of its last event; the one before `first` where it has none.
    pub(in crate::ledger) last: u64,
    /// The event before the first: what the file continues. Zeros where it begins with the ledger.
    pub(in crate::ledger) after: EventId,
    pub(in crate::ledger) name: String,
    /// The writer of the store that the file is of, then those that it had before it was restored.
    pub(in crate::ledger) writers: Vec<WriterId>,
}

impl Head {
    /// The file's bytes before its first part, and the chain that they begin.
    pub(super) fn encode(&self) -> (Vec<u8>, [u8; 32]) {
        let mut head = self.ledger.0.to_vec();
        head.extend_from_slice(&self.first.to_le_bytes());
        head.extend_from_slice(&self.last.to_le_bytes());
        head.extend_from_slice(&self.after.0);
        let name = self.name.as_bytes();
        let name = name.get(..name.len().min(255)).unwrap_or_default();
        head.push(name.len() as u8);
        head.extend_from_slice(name);
        let writers = self.writers.get(..self.writers.len().min(MOST_WRITERS)).unwrap_or_default();
        writers.iter().for_each(|writer| head.extend_from_slice(&writer.0));
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head);
        let hash = begin(&bytes);
        bytes.extend_from_slice(&hash);
        (bytes, hash)
    }

    /// The head of its bytes, without the prefix and the hash; `None` where they are none.
    pub(super) fn decode(head: &[u8]) -> Option<Self> {
        let (ledger, rest) = head.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        let (after, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (writers, left) = rest.as_chunks::<16>();
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        let sound = first > 0 && last < u64::MAX && first <= last + 1 && left.is_empty();
        (sound && writers.len() <= MOST_WRITERS).then_some(Self {
            ledger: LedgerId(*ledger),
            first,
            last,
            after: EventId(*after),
            name: String::from_utf8(name.to_vec()).ok()?,
            writers: writers.iter().copied().map(WriterId).collect(),
        })
    }
}

/// The hash of a file's beginning, with which its chain begins.
pub(super) fn begin(bytes: &[u8]) -> [u8; 32] {
    Fields::new("syncledger 2026-11 backup head v1").field(bytes).finish()
}

/// The chain after another segment or blob.
pub(super) fn chain(before: [u8; 32], kind: u8, hash: &[u8; 32]) -> [u8; 32] {
    Fields::new("syncledger 2026-11 backup chain v1").field(&before).field(&[kind]).field(hash).finish()
}

/// What a blob adds to a file before its content.
pub(super) fn blob(hash: BlobHash, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![BLOB];
    bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&hash.0);
    bytes
}

/// The end of a file: how much it held, and the chain over that too.
pub(super) fn end(before: [u8; 32], events: u64, blobs: u64) -> Vec<u8> {
    let counts = [events.to_le_bytes(), blobs.to_le_bytes()].concat();
    let last = Fields::new("syncledger 2026-11 backup end v1").field(&before).field(&counts).finish();
    [&[END][..], &counts, &last].concat()
}
