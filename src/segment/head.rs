//! The head of a segment: what is in it, where each block lies, and the hash of all.
//!
//! ```text
//! "SLSG"  version u8 = 1  ledger [16]  first u64  last u64  blocks u32
//! per block:  first u64  events u32  raw u32  stored u32  codec u8  hash [32]
//! root [32]
//! ```
//! Integers are little-endian. A block's hash covers its ledger, its place, its stored bytes and the ids of its events,
//! which are not stored; the root covers everything before it.

use super::{MOST_BLOCK_BYTES, MOST_BLOCK_EVENTS, MOST_EVENTS, SegmentFault};
use crate::event::LedgerId;
use crate::event::hash::Fields;

const MAGIC: &[u8; 4] = b"SLSG";
const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 4 + 1 + 16 + 8 + 8 + 4;
const ENTRY_BYTES: usize = 8 + 4 + 4 + 4 + 1 + 32;
const ROOT_BYTES: usize = 32;
const ROOT: &str = "syncledger 2026-11 segment root v1";

/// How a block is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all: for readers that have no zstd.
    Plain,
    /// With zstd.
    #[default]
    Zstd,
}

impl Codec {
    fn number(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }
}

/// One block in the index of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The position of its first event.
    pub first: u64,
    /// How many events it has.
    pub events: usize,
    /// How many bytes it has when it is not compressed.
    pub raw: usize,
    /// How many bytes it has in the segment.
    pub stored: usize,
    /// How it is compressed.
    pub codec: Codec,
    pub(super) hash: [u8; 32],
}

/// What a segment holds, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The ledger of its events.
    pub ledger: LedgerId,
    /// The position of its first event.
    pub first: u64,
    /// The position of its last event.
    pub last: u64,
    /// Its blocks, which follow the head in this order.
    pub blocks: Vec<Block>,
    /// The hash by which the segment is known.
    pub root: [u8; 32],
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SegmentFault> {
    let (taken, after) = rest.split_first_chunk().ok_or(SegmentFault::BreaksOff("head"))?;
    *rest = after;
    Ok(*taken)
}

fn size(rest: &mut &[u8]) -> Result<usize, SegmentFault> {
    Ok(u32::from_le_bytes(take(rest)?) as usize)
}

impl Head {
    /// How many bytes [`Head::bytes`] needs.
    pub const PREFIX_BYTES: usize = PREFIX_BYTES;

    /// How many bytes the head has that starts with these.
    ///
    /// # Errors
    /// When no segment starts like this, or one of another version.
    pub fn bytes(prefix: &[u8]) -> Result<usize, SegmentFault> {
        let mut rest = prefix;
        if take::<4>(&mut rest).ok().as_ref() != Some(MAGIC) {
            return Err(SegmentFault::NotASegment);
        }
        let [found] = take(&mut rest)?;
        if found != VERSION {
            return Err(SegmentFault::UnknownVersion { found, supported: VERSION });
        }
        let _: [u8; 32] = take(&mut rest)?;
        let blocks = size(&mut rest)?;
        if blocks == 0 || blocks > MOST_EVENTS {
            return Err(SegmentFault::Head("expected from one block to one for each event"));
        }
        Ok(PREFIX_BYTES + blocks * ENTRY_BYTES + ROOT_BYTES)
    }

    /// The head that exactly these bytes are.
    ///
    /// # Errors
    /// When they are anything but what a writer of this version makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentFault> {
        if Self::bytes(bytes)? != bytes.len() {
            return Err(SegmentFault::BreaksOff("head"));
        }
        let (covered, root) = bytes.split_last_chunk().ok_or(SegmentFault::BreaksOff("head"))?;
        if root_of(covered) != *root && !cfg!(fuzzing) {
            return Err(SegmentFault::Head("its hash does not fit its bytes"));
        }
        let mut rest = bytes.get(5..).unwrap_or_default();
        let ledger = LedgerId(take(&mut rest)?);
        let (first, last) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let count = size(&mut rest)?;
        let blocks = (0..count).map(|_| block(&mut rest, last)).collect::<Result<_, _>>()?;
        let head = Self { ledger, first, last, blocks, root: *root };
        head.check()?;
        Ok(head)
    }

    pub(super) fn new(ledger: LedgerId, first: u64, last: u64, blocks: Vec<Block>) -> Self {
        let mut head = Self { ledger, first, last, blocks, root: [0; 32] };
        head.root = root_of(&head.covered());
        head
    }

    /// The head's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.covered();
        bytes.extend_from_slice(&self.root);
        bytes
    }

    /// How many events the segment has.
    #[must_use]
    pub fn events(&self) -> usize {
        self.blocks.iter().map(|block| block.events).sum()
    }

    /// How many bytes follow the head.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.stored as u64).sum()
    }

    fn covered(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + self.blocks.len() * ENTRY_BYTES + ROOT_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.ledger.0);
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.last.to_le_bytes());
        bytes.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for block in &self.blocks {
            bytes.extend_from_slice(&block.first.to_le_bytes());
            for size in [block.events, block.raw, block.stored] {
                bytes.extend_from_slice(&(size as u32).to_le_bytes());
            }
            bytes.push(block.codec.number());
            bytes.extend_from_slice(&block.hash);
        }
        bytes
    }

    /// The last position that a block may hold.
    pub(super) fn last_of(&self, block: usize) -> u64 {
        self.blocks.get(block + 1).map_or(self.last, |next| next.first.saturating_sub(1))
    }

    fn check(&self) -> Result<(), SegmentFault> {
        let starts = self.blocks.first().is_some_and(|block| block.first == self.first && block.first > 0);
        let follow = self.blocks.is_sorted_by(|a, b| a.first < b.first);
        let fits = |(index, block): (usize, &Block)| {
            let room = self.last_of(index).checked_sub(block.first).and_then(|room| room.checked_add(1));
            (1..=MOST_BLOCK_EVENTS).contains(&block.events)
                && room.is_some_and(|room| block.events as u64 <= room)
                && block.raw <= MOST_BLOCK_BYTES
                && match block.codec {
                    Codec::Plain => block.stored == block.raw,
                    Codec::Zstd => block.stored < block.raw,
                }
        };
        if !starts || !follow || !self.blocks.iter().enumerate().all(fits) || self.events() > MOST_EVENTS {
            return Err(SegmentFault::Head("its blocks break a limit, or do not follow each other"));
        }
        Ok(())
    }
}

fn block(rest: &mut &[u8], last: u64) -> Result<Block, SegmentFault> {
    let first = u64::from_le_bytes(take(rest)?);
    let (events, raw, stored) = (size(rest)?, size(rest)?, size(rest)?);
    let codec = match take(rest)? {
        [0] => Codec::Plain,
        [1] => Codec::Zstd,
        [found] => return Err(SegmentFault::UnknownCodec { found, first, last }),
    };
    Ok(Block { first, events, raw, stored, codec, hash: take(rest)? })
}

fn root_of(covered: &[u8]) -> [u8; 32] {
    Fields::new(ROOT).field(covered).finish()
}
