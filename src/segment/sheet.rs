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

/// The columns of a block that is being written.
#[derive(Debug)]
pub(super) struct Sheet {
    numbers: Vec<Vec<u64>>,
    bytes: Vec<Vec<u8>>,
}

impl Default for Sheet {
    fn default() -> Self {
        Self { numbers: vec![Vec::new(); NUMBERS], bytes: vec![Vec::new(); BYTES] }
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

    /// All columns as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.numbers.iter().for_each(|values| column::write(&mut out, values));
        for bytes in &self.bytes {
            column::put(&mut out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        out
    }
}

/// The columns of a block that is being read.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    numbers: Vec<Column<'a>>,
    bytes: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    /// The columns that bytes hold; `None` where they are none.
    pub(super) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let numbers = (0..NUMBERS).map(|_| Column::read(&mut rest)).collect::<Option<_>>()?;
        let bytes = (0..BYTES).map(|_| read_bytes(&mut rest)).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self { numbers, bytes })
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
