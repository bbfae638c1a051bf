//! What a journal can fail with.

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::error::{Error, ErrorKind};
use crate::event::LedgerId;

/// Why a journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The operating system refused a file operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A write or flush failed earlier: what is on the disk is unknown until the store is opened again.
    #[error("the journal has stopped after a failed write: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// A frame is not what was written.
    #[error("ledger {ledger} is damaged at position {position}: {what}")]
    CorruptFrame {
        /// The ledger that is damaged.
        ledger: LedgerId,
        /// The position at, or after, which it is damaged.
        position: u64,
        /// What was expected and what was found.
        what: String,
    },
    /// The frame was dropped on request.
    #[error("ledger {ledger} holds no position before {first} any more, and {position} was asked for")]
    Dropped {
        /// The ledger.
        ledger: LedgerId,
        /// The position that was asked for.
        position: u64,
        /// The first position that is held.
        first: u64,
    },
    /// The log ends before the position that was durable when the head mark was written.
    #[error("ledger {ledger} is damaged: its log was durable up to position {expected}, but ends at {found}")]
    BehindMark {
        /// The ledger that lost events.
        ledger: LedgerId,
        /// The head that was recorded.
        expected: u64,
        /// The head that the log has.
        found: u64,
    },
    /// A file of the store is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    CorruptStore {
        /// The file or directory.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// Written by a newer version of the program.
    #[error("{what} has format version {found}, and this program reads only {supported}")]
    UpgradeNeeded {
        /// What has the version.
        what: String,
        /// The version it has.
        found: u8,
        /// The version that this program knows.
        supported: u8,
    },
    /// Another handle or process holds the store.
    #[error("the store {} is in use by {}", path.display(), holder(*.pid))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, if it could be read.
        pid: Option<u32>,
    },
    /// There is no store in the directory.
    #[error("there is no store in {}", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The catalogue has no such ledger.
    #[error("this store has no ledger {ledger}")]
    UnknownLedger {
        /// The ledger that was asked for.
        ledger: LedgerId,
    },
    /// Something was appended since the caller looked.
    #[error("ledger {ledger} was expected to end at position {expected}, but ends at {found}")]
    WrongHead {
        /// The ledger appended to.
        ledger: LedgerId,
        /// The head that the caller expected.
        expected: u64,
        /// The head that the ledger has.
        found: u64,
    },
    /// The name, number or id belongs to another ledger.
    #[error("the ledger {field} {value} is already taken in this store")]
    Taken {
        /// `name`, `number` or `id`.
        field: &'static str,
        /// The name, number or id.
        value: String,
    },
    /// What was to be written breaks a rule of the format.
    #[error("cannot write to ledger {ledger}: {what}")]
    Invalid {
        /// The ledger written to.
        ledger: LedgerId,
        /// What was expected and what came.
        what: String,
    },
    /// What was to be written is larger than the format allows.
    #[error("cannot write to ledger {ledger}: {what} of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// The ledger written to.
        ledger: LedgerId,
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl JournalError {
    /// What kind of fault this is for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(fault) if fault.is_forbidden() => ErrorKind::Permission,
            Self::Disk(_) | Self::Poisoned { .. } => ErrorKind::Storage,
            Self::CorruptFrame { .. } | Self::BehindMark { .. } | Self::CorruptStore { .. } => ErrorKind::Corrupt,
            Self::UpgradeNeeded { .. } => ErrorKind::UpgradeNeeded,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::NoStore { .. } | Self::UnknownLedger { .. } | Self::Dropped { .. } => ErrorKind::NotFound,
            Self::WrongHead { .. } | Self::Taken { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Validation,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Closed => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Disk(_) => "",
            Self::Poisoned { .. } => {
                "stop, free space or repair the disk, and open the store again: it is verified then"
            }
            Self::CorruptFrame { .. } | Self::BehindMark { .. } | Self::CorruptStore { .. } => {
                "keep a copy of the directory, then restore a backup or fetch the ledger from a peer"
            }
            Self::UpgradeNeeded { .. } => "open it with a newer syncledger",
            Self::Locked { .. } => "stop that process, or talk to its server instead of opening the directory",
            Self::NoStore { .. } => "check the path, or create the store first",
            Self::UnknownLedger { .. } => "list the ledgers of the store",
            Self::Dropped { .. } => "read it from the archive that it was moved to",
            Self::WrongHead { .. } => "read the head again and retry",
            Self::Taken { .. } => "choose another",
            Self::Invalid { .. } => "write the frames in order, without gaps",
            Self::TooLarge { .. } => "split it",
            Self::Closed => "open the store again",
        }
    }

    pub(crate) fn corrupt(ledger: LedgerId, position: u64, what: impl Into<String>) -> Self {
        Self::CorruptFrame { ledger, position, what: what.into() }
    }
}

impl From<JournalError> for Error {
    fn from(fault: JournalError) -> Self {
        if let JournalError::Disk(fault) = fault {
            return fault.into();
        }
        Error::new(fault.kind(), fault.to_string()).with_hint(fault.hint()).with_source(fault)
    }
}
