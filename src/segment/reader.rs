//! Reading a segment.

use std::borrow::Cow;
use std::cell::RefCell;

use super::SegmentFault;
use super::assemble::{Fault, Known, Reading, assemble};
use super::head::{Block, Codec, Head};
use super::item::{Alone, Held, Ids, Item, Past, Places};
use super::sheet::Sheet;
use super::shred::{Start, shred};
use super::writer::block_hash;
use crate::event::{Event, EventId, WriterId};

/// For how many events of a block room is made before they were read.
const MOST_EXPECTED: usize = 4_096;

/// Reads a segment block by block, in their order.
pub struct Reader<'a> {
    head: Head,
    past: &'a dyn Past,
    /// Whether columns have to be those that a writer makes of their events.
    is_kept: bool,
    ids: Ids,
    next: usize,
    sheet: Sheet,
    again: Vec<u8>,
}

impl Reader<'static> {
    /// Reads a segment that is kept, and can be read without any other: of the same events there is only one.
    #[must_use]
    pub fn new(head: Head) -> Self {
        Self { is_kept: true, ..Self::with_past(head, &Alone) }
    }
}

impl<'a> Reader<'a> {
    /// Reads a segment that one replica tells another, and that names events of this past. Which columns tell its events is not
    /// looked at: they are the same events.
    #[must_use]
    pub fn with_past(head: Head, past: &'a dyn Past) -> Self {
        let (is_kept, ids, next, sheet, again) = Default::default();
        Self { head, past, is_kept, ids, next, sheet, again }
    }

    /// The segment's head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next block; `None` after the last.
    #[must_use]
    pub fn next_block(&self) -> Option<&Block> {
        self.head.blocks.get(self.next)
    }

    /// The events of the next block, which has these bytes.
    ///
    /// # Errors
    /// When the bytes are not those that were written; nothing more can be read then.
    pub fn read(&mut self, stored: &[u8]) -> Result<Vec<Item>, SegmentFault> {
        // What a head says costs nothing to say.
        self.ids.expect(self.next_block().map_or(0, |block| block.events.min(MOST_EXPECTED)));
        let mut held = Held::Growing(&mut self.ids);
        let (items, known, raw) = read(&self.head, self.next, stored, self.past, &mut held)?;
        if self.is_kept {
            let start = start_of(&self.head, self.next);
            shred(&items, start, &self.ids, &Again(&known), &mut self.sheet, &mut self.again);
            if self.again != *raw {
                return Err(fault(&self.head, self.next, "its columns are not canonical"));
            }
        }
        self.next += 1;
        Ok(items)
    }

    /// Access to any block; `None` before all were read, since only then all ids are known.
    #[must_use]
    pub fn into_index(self) -> Option<Index> {
        (self.next == self.head.blocks.len()).then(|| Index::of(self.head, self.ids.places))
    }
}

/// A segment whose ids are known and proved: any of its blocks can be read alone.
pub struct Index {
    head: Head,
    places: Places,
    /// Where each block begins behind the head.
    offsets: Vec<u64>,
}

impl Index {
    fn of(head: Head, places: Places) -> Self {
        let sums = head.blocks.iter().scan(0, |end, block| {
            let start = *end;
            *end += block.stored as u64;
            Some(start)
        });
        let offsets = sums.collect();
        Self { head, places, offsets }
    }

    /// Access to a segment that was read whole before, and had these ids, at positions without gaps; `None` where it has
    /// another number of events. What a block's hash covers is proved when the block is read.
    #[must_use]
    pub fn with_ids(head: Head, ids: Vec<EventId>) -> Option<Self> {
        let is_whole = head.events() == ids.len() && head.last - head.first + 1 == ids.len() as u64;
        let places = (head.first..).zip(ids).collect();
        is_whole.then(|| Self::of(head, Places::new(places)))
    }

    /// The ids of the segment's events, in their order.
    pub fn ids(&self) -> impl Iterator<Item = EventId> {
        self.places.range(0..self.places.len()).iter().map(|(_, id)| *id)
    }

    /// The segment's head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The block that holds a position, and where it begins behind the head; `None` where none does.
    #[must_use]
    pub fn block_of(&self, position: u64) -> Option<(usize, u64)> {
        self.places.at(position)?;
        let block = self.head.blocks.partition_point(|block| block.first <= position).checked_sub(1)?;
        Some((block, *self.offsets.get(block)?))
    }

    /// The events of a block, which has these bytes.
    ///
    /// # Errors
    /// When the bytes are not those that were written.
    pub fn read(&self, block: usize, stored: &[u8]) -> Result<Vec<Item>, SegmentFault> {
        read(&self.head, block, stored, &Alone, &mut Held::Whole(&self.places)).map(|(items, ..)| items)
    }
}

/// What a block was read with names events as it did.
struct Again<'a>(&'a Known);

impl Past for Again<'_> {
    fn place(&self, _: &Event, of: &EventId) -> Option<(WriterId, u64)> {
        self.0.get(of).copied()
    }

    fn find(&self, _: &str, _: &str, _: WriterId, _: u64) -> Option<EventId> {
        None
    }
}

/// Where a block starts.
fn start_of(head: &Head, number: usize) -> Start {
    let place = head.blocks.iter().take(number).map(|block| block.events).sum();
    Start { place, due: head.blocks.get(number).map_or(0, |block| block.first) }
}

fn fault(head: &Head, number: usize, what: &str) -> SegmentFault {
    let first = head.blocks.get(number).map_or(0, |block| block.first);
    SegmentFault::Block { block: number, first, last: head.last_of(number), what: what.to_owned() }
}

/// The events of a block, those of them that were named by writer and number, and its raw bytes.
type ReadBlock<'s> = (Vec<Item>, Known, Cow<'s, [u8]>);

fn read<'s>(
    head: &Head,
    number: usize,
    stored: &'s [u8],
    past: &dyn Past,
    held: &mut Held<'_>,
) -> Result<ReadBlock<'s>, SegmentFault> {
    let Some(block) = head.blocks.get(number) else {
        return Err(SegmentFault::Head("it has no such block"));
    };
    let last = head.last_of(number);
    let fault = |what: &str| fault(head, number, what);
    let raw = decompress(block, stored).map_err(fault)?;
    let start = start_of(head, number);
    let reading = Reading { ledger: head.ledger, start, events: block.events, past };
    let (items, known) = assemble(&raw, reading, held).map_err(|cause| match cause {
        Fault::Columns(what) => fault(what),
        Fault::Segment(cause) => cause,
    })?;
    let ends = items.last().map_or(0, |item| item.position);
    let is_last = number + 1 == head.blocks.len();
    if items.first().is_none_or(|item| item.position != block.first) || ends > last || (is_last && ends != last) {
        return Err(fault("its positions are not those that the head says"));
    }
    let hash = block_hash(head.ledger, start.place, stored, items.iter().map(|item| item.id));
    if hash != block.hash && !cfg!(fuzzing) {
        return Err(fault("its hash does not fit its events"));
    }
    Ok((items, known, raw))
}

/// Decompresses at most so many bytes.
fn expand(stored: &[u8], most: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        /// Making one takes longer than a small block.
        static KEPT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(stored, most)
    })
}

pub(super) fn decompress<'a>(block: &Block, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
    if stored.len() != block.stored {
        return Err("it has another length");
    }
    match block.codec {
        Codec::Plain => Ok(Cow::Borrowed(stored)),
        // The capacity bounds what is made of a few bytes, and is itself bounded by the head's check.
        Codec::Zstd => match expand(stored, block.raw) {
            Ok(raw) if raw.len() == block.raw => Ok(Cow::Owned(raw)),
            _ => Err("it cannot be decompressed to the length that the head says"),
        },
    }
}
