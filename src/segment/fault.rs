//! What can be wrong with the bytes of a segment.

use crate::error::{Error, ErrorKind};
use crate::event::{DecodeError, LedgerId};

/// Why bytes are no segment, or events make none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentFault {
    /// They do not start like a segment.
    #[error("these bytes are no segment: expected them to start with SLSG")]
    NotASegment,
    /// A newer program wrote them.
    #[error("the segment has format version {found}, this program reads version {supported}")]
    UnknownVersion {
        /// The version that it has.
        found: u8,
        /// The version that this program knows.
        supported: u8,
    },
    /// A block is compressed in a way that this program does not know.
    #[error("the block of positions {first} to {last} has codec {found}, this program knows 0 (none) and 1 (zstd)")]
    UnknownCodec {
        /// The codec that it has.
        found: u8,
        /// The first position that the block may hold.
        first: u64,
        /// The last position that the block may hold.
        last: u64,
    },
    /// They end too early.
    #[error("the segment breaks off in its {0}")]
    BreaksOff(&'static str),
    /// The head is not what was written.
    #[error("the segment's head is damaged: {0}")]
    Head(&'static str),
    /// A block is not what was written.
    #[error("the segment is damaged in its block {block}, within positions {first} to {last}: {what}")]
    Block {
        /// Which block, from 0.
        block: usize,
        /// The first position that the block may hold.
        first: u64,
        /// The last position that the block may hold.
        last: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// It holds events of another ledger.
    #[error("expected a segment of ledger {expected}, got one of {found}")]
    OtherLedger {
        /// The ledger that was asked for.
        expected: LedgerId,
        /// The ledger of the segment.
        found: LedgerId,
    },
    /// What was to be written breaks a rule of the format.
    #[error("the event at position {position} cannot be written to the segment: {what}")]
    Refused {
        /// Its position.
        position: u64,
        /// What was expected and what came.
        what: &'static str,
    },
    /// An event in it is none.
    #[error("the segment holds no valid event at position {position}: {fault}")]
    Event {
        /// Its position.
        position: u64,
        /// What is wrong with it.
        fault: DecodeError,
    },
}

impl SegmentFault {
    /// What kind of fault this is for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownVersion { .. } | Self::UnknownCodec { .. } => ErrorKind::UpgradeNeeded,
            Self::Event { fault: DecodeError::UnknownOp | DecodeError::UnknownVersion(_), .. } => {
                ErrorKind::UpgradeNeeded
            }
            Self::OtherLedger { .. } => ErrorKind::LedgerMismatch,
            Self::NotASegment | Self::Refused { .. } => ErrorKind::Validation,
            _ => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> &'static str {
        match self.kind() {
            ErrorKind::UpgradeNeeded => "install a newer syncledger and try again",
            ErrorKind::LedgerMismatch => "name a file of this ledger",
            ErrorKind::Corrupt => "use another copy of it, or pull the events from a replica",
            _ => "check which file this is",
        }
    }
}

impl From<SegmentFault> for Error {
    fn from(fault: SegmentFault) -> Self {
        Error::new(fault.kind(), fault.to_string()).with_hint(fault.hint()).with_source(fault)
    }
}
