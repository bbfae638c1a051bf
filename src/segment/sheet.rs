//! All columns of a block, in the order of their bytes.

use super::column::{self, Column};

/// Columns of numbers. The order is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Position,
    Previous,
    ReceivedForm,
    Received,
    BroughtBy,
    Record,
    RecordCollection,
    CollectionBytes,
    KeyBytes,
    Writer,
    Sequence,
    Lane,
    Nth,
    Parents,
    Parent,
    KnownWriter,
    KnownSequence,
    AtMillis,
    AtCounter,
    HasOccurred,
    Occurred,
    Source,
    SourceBytes,
    Principal,
    PrincipalBytes,
    Reason,
    ReasonBytes,
    Run,
    Delivery,
    HasIdempotency,
    IdempotencyBytes,
    Batch,
    BatchIndex,
    BatchCount,
    HasResolves,
    HasReverts,
    Reverts,
    Ops,
    Op,
    Path,
    PathBytes,
    Value,
    Int,
    Uint,
    TextBytes,
    BytesBytes,
    AtomicBytes,
    BlobBytes,
    By,
    Container,
    ContainerOp,
    Index,
    Delete,
}

/// How many columns of numbers there are.
const NUMBERS: usize = Number::Delete as usize + 1;

/// Columns of bytes, cut by the lengths in the columns of numbers. The order is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    Collections,
    Keys,
    Writers,
    Ids,
    Sources,
    Principals,
    Reasons,
    Runs,
    IdempotencyKeys,
    Hashes,
    Batches,
    Paths,
    Floats,
    Texts,
    Raw,
    Atomics,
}

/// How many columns of bytes there are.
const BYTES: usize = Bytes::Atomics as usize + 1;

/// The columns of a block that is being written; the same for one block after another, so that their memory stays.
#[derive(Debug)]
pub(super) struct Sheet {
    numbers: [Vec<u64>; NUMBERS],
    bytes: [Vec<u8>; BYTES],
}

impl Default for Sheet {
    fn default() -> Self {
        Self { numbers: std::array::from_fn(|_| Vec::new()), bytes: std::array::from_fn(|_| Vec::new()) }
    }
}

impl Sheet {
    /// Adds a number to a column.
    pub(super) fn number(&mut self, column: Number, value: u64) {
        self.numbers.get_mut(column as usize).into_iter().for_each(|column| column.push(value));
    }

    /// Adds bytes to a column.
    pub(super) fn bytes(&mut self, column: Bytes, bytes: &[u8]) {
        self.bytes.get_mut(column as usize).into_iter().for_each(|column| column.extend_from_slice(bytes));
    }

    /// Adds bytes to a column, and their length to another.
    pub(super) fn sized(&mut self, length: Number, column: Bytes, bytes: &[u8]) {
        self.number(length, bytes.len() as u64);
        self.bytes(column, bytes);
    }

    /// Puts all columns as bytes in the place of what a buffer held, and empties them for the next block.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>) {
        out.clear();
        for values in &mut self.numbers {
            column::write(out, values);
            values.clear();
        }
        for bytes in &mut self.bytes {
            column::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
            bytes.clear();
        }
    }
}

/// The columns of a block that is being read.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    numbers: [Column<'a>; NUMBERS],
    bytes: [&'a [u8]; BYTES],
}

impl<'a> Columns<'a> {
    /// The columns that bytes hold; `None` where they are none.
    pub(super) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut columns = Self { numbers: [Column::default(); NUMBERS], bytes: [&[]; BYTES] };
        for column in &mut columns.numbers {
            *column = Column::read(&mut rest)?;
        }
        for bytes in &mut columns.bytes {
            *bytes = read_bytes(&mut rest)?;
        }
        rest.is_empty().then_some(columns)
    }

    /// The next number of a column.
    pub(super) fn number(&mut self, column: Number) -> Option<u64> {
        self.numbers.get_mut(column as usize)?.next()
    }

    /// The next bytes of a column.
    pub(super) fn bytes(&mut self, column: Bytes, length: u64) -> Option<&'a [u8]> {
        let column = self.bytes.get_mut(column as usize)?;
        let (taken, rest) = column.split_at_checked(usize::try_from(length).ok()?)?;
        *column = rest;
        Some(taken)
    }

    /// The next bytes of a column, of the length that another has.
    pub(super) fn sized(&mut self, length: Number, column: Bytes) -> Option<&'a [u8]> {
        let length = self.number(length)?;
        self.bytes(column, length)
    }

    /// The next array of a column.
    pub(super) fn array<const N: usize>(&mut self, column: Bytes) -> Option<[u8; N]> {
        self.bytes(column, N as u64)?.try_into().ok()
    }
}

fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(column::take(rest)?).ok()?;
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}
