//! Writing a segment.

use std::cell::RefCell;

use super::assemble::{Reading, Spare, is_of};
use super::head::{Block, Codec, Head};
use super::item::{Alone, Held, Ids, Item, Past, weight};
use super::reader::decompress;
use super::sheet::Sheet;
use super::shred::{Start, shred};
use super::{FULL_BYTES, MOST_BLOCK_EVENTS, MOST_EVENTS, SegmentFault};
use crate::event::hash::Fields;
use crate::event::{EventId, LedgerId};

/// A block is closed when its events weigh so much: with one event more it stays far below what a reader accepts.
const BLOCK_WEIGHT: usize = 2 << 20;
const BLOCK: &str = "syncledger 2026-11 segment block v1";

/// How segments are written. Whatever is chosen can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How blocks are compressed.
    pub codec: Codec,
    /// How hard to compress, 1 to 19.
    pub level: i32,
    /// How many events a block has at most.
    pub block_events: usize,
}

impl Shape {
    /// For archives, of which single blocks are read.
    pub const SEALED: Self = Self { codec: Codec::Zstd, level: 3, block_events: 256 };
    /// For backups and what is sent.
    pub const LARGE: Self = Self { codec: Codec::Zstd, level: 3, block_events: 4_096 };
}

impl Default for Shape {
    fn default() -> Self {
        Self::LARGE
    }
}

/// Takes events in the order of their positions and makes them a segment.
pub struct Writer<'a> {
    ledger: LedgerId,
    shape: Shape,
    past: &'a dyn Past,
    proved: bool,
    pending: Vec<Item>,
    weight: usize,
    ids: Ids,
    blocks: Vec<Block>,
    raw: usize,
    body: Vec<u8>,
    memory: Memory,
}

/// What each block needs for a while, kept from the one to the next.
#[derive(Default)]
struct Memory {
    sheet: Sheet,
    raw: Vec<u8>,
    stored: Vec<u8>,
    spare: Spare,
}

impl Writer<'static> {
    /// A segment that can be read without any other.
    #[must_use]
    pub fn new(ledger: LedgerId, shape: Shape) -> Self {
        Self::with_past(ledger, shape, &Alone)
    }
}

impl<'a> Writer<'a> {
    /// A segment for a reader who knows this past.
    #[must_use]
    pub fn with_past(ledger: LedgerId, shape: Shape, past: &'a dyn Past) -> Self {
        let (proved, pending, weight, ids, blocks, raw, body, memory) = Default::default();
        Self { ledger, shape, past, proved, pending, weight, ids, blocks, raw, body, memory }
    }

    /// The same, with room for so many events.
    #[must_use]
    pub fn expecting(mut self, events: usize) -> Self {
        self.ids.expect(events);
        self.pending.reserve(events.min(self.shape.block_events.clamp(1, MOST_BLOCK_EVENTS)));
        self
    }

    /// Reads every block back as it is made, and compares its events with those that were added: for who lets go of them
    /// afterwards.
    #[must_use]
    pub fn proved(self) -> Self {
        Self { proved: true, ..self }
    }

    /// Whether no event was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.places.len() == 0
    }

    /// Whether the segment should be finished before another event is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ids.places.len() >= MOST_EVENTS || self.raw >= FULL_BYTES
    }

    /// Adds an event.
    ///
    /// # Errors
    /// [`SegmentFault::Refused`] where it does not come after the one before, stands there already, or the segment is
    /// full.
    pub fn add(&mut self, item: Item) -> Result<(), SegmentFault> {
        let refused = |what| Err(SegmentFault::Refused { position: item.position, what });
        let last = self.ids.places.last().map_or(0, |(at, _)| at);
        if item.position <= last || item.position == u64::MAX {
            return refused("expected a position after that of the event before");
        }
        if item.previous >= item.position {
            return refused("expected the record's event before it at a smaller position");
        }
        if self.ids.places.len() >= MOST_EVENTS {
            return refused("the segment has as many events as it may have");
        }
        let more = weight(&item.event);
        let most = self.shape.block_events.clamp(1, MOST_BLOCK_EVENTS);
        if self.pending.len() >= most || (self.weight + more > BLOCK_WEIGHT && !self.pending.is_empty()) {
            self.close_block()?;
        }
        if !self.ids.add(item.position, item.id) {
            return refused("the segment holds the event already");
        }
        self.weight += more;
        self.pending.push(item);
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), SegmentFault> {
        let mut items = std::mem::take(&mut self.pending);
        self.weight = 0;
        let Some(first) = items.first().map(|item| item.position) else { return Ok(()) };
        let mut memory = std::mem::take(&mut self.memory);
        let start = Start { place: self.ids.places.len() - items.len(), due: first };
        shred(&items, start, &self.ids, self.past, &mut memory.sheet, &mut memory.raw);
        let codec = self.compress(&memory.raw, &mut memory.stored);
        let stored = if codec == Codec::Zstd { &memory.stored } else { &memory.raw };
        let ids = items.iter().map(|item| item.id);
        let hash = block_hash(self.ledger, start.place, stored, ids);
        let (raw, bytes) = (memory.raw.len(), stored.len());
        let block = Block { first, events: items.len(), raw, stored: bytes, codec, hash };
        if self.proved && !self.reads_back(&block, stored, &items, &mut memory.spare) {
            let what = "the block that it is in does not read back as it was written";
            return Err(SegmentFault::Refused { position: first, what });
        }
        self.blocks.push(block);
        self.raw += raw;
        self.body.extend_from_slice(stored);
        items.clear();
        (self.pending, self.memory) = (items, memory);
        Ok(())
    }

    /// Whether what is stored of a block, taken apart as a reader does it, gives the very events that were added.
    fn reads_back(&self, block: &Block, stored: &[u8], items: &[Item], spare: &mut Spare) -> bool {
        let start = Start { place: self.ids.places.len() - items.len(), due: block.first };
        let reading = Reading { ledger: self.ledger, start, events: block.events, past: self.past };
        decompress(block, stored)
            .is_ok_and(|raw| is_of(&raw, reading, &mut Held::Whole(&self.ids.places), items, spare))
    }

    /// Compresses a block into a buffer; not where that does not make its bytes fewer.
    fn compress(&self, raw: &[u8], stored: &mut Vec<u8>) -> Codec {
        stored.clear();
        if self.shape.codec == Codec::Zstd {
            stored.reserve(zstd::zstd_safe::compress_bound(raw.len()));
            if shrink(raw, self.shape.level, stored).is_ok() && stored.len() < raw.len() {
                return Codec::Zstd;
            }
        }
        Codec::Plain
    }

    /// The segment's head and bytes; `None` where no event was added.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn finish(self) -> Result<Option<(Head, Vec<u8>)>, SegmentFault> {
        Ok(self.finish_with_ids()?.map(|(head, bytes, _)| (head, bytes)))
    }

    /// The same, with the ids of the segment's events in their order.
    ///
    /// # Errors
    /// As [`Writer::add`].
    #[allow(clippy::type_complexity)]
    pub fn finish_with_ids(mut self) -> Result<Option<(Head, Vec<u8>, Vec<EventId>)>, SegmentFault> {
        self.close_block()?;
        let all = self.ids.places.range(0..self.ids.places.len());
        let (Some((first, _)), Some((last, _))) = (all.first(), all.last()) else { return Ok(None) };
        let head = Head::new(self.ledger, *first, *last, self.blocks);
        let mut bytes = head.encode();
        bytes.extend_from_slice(&self.body);
        Ok(Some((head, bytes, all.iter().map(|(_, id)| *id).collect())))
    }
}

/// Compresses into a buffer that has room for it.
fn shrink(raw: &[u8], level: i32, stored: &mut Vec<u8>) -> std::io::Result<usize> {
    thread_local! {
        /// Making one takes longer than a small block.
        static KEPT: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let (_, compressor) = match kept.take_if(|(made_for, _)| *made_for == level) {
            Some(compressor) => kept.insert(compressor),
            None => kept.insert((level, zstd::bulk::Compressor::new(level)?)),
        };
        compressor.compress_to_buffer(raw, stored)
    })
}

/// The hash that proves a block: what is stored, and the ids that it stands for.
pub(super) fn block_hash(
    ledger: LedgerId,
    place: usize,
    stored: &[u8],
    ids: impl Iterator<Item = EventId>,
) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(ids.size_hint().0 * EventId::BYTES);
    ids.for_each(|id| bytes.extend_from_slice(&id.0));
    Fields::new(BLOCK).field(&ledger.0).field(&(place as u64).to_le_bytes()).field(stored).field(&bytes).finish()
}
