//! What two replicas say to each other.

use serde::{Deserialize, Serialize};

use super::Filter;
use crate::event::{BlobHash, EventId, LedgerId, WriterId};
use crate::segment::Item;
use crate::{Error, ErrorKind};

/// A place in a log: a position, and what tells the event there, as it was appended to this log, from any other. A log that was
/// restored or copied and went on has another there. Only the sender makes and compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The position; everything up to it is meant.
    pub position: u64,
    /// What tells the event there from any other: made of its id, when it was appended, and by which execution.
    pub mark: [u8; 32],
}

/// The first half of an event's id: enough to tell it from all others.
pub type ShortId = [u8; 16];

/// The first half of an id.
pub(crate) fn short(id: &EventId) -> ShortId {
    id.0.first_chunk().copied().unwrap_or_default()
}

/// The number of a batch in its direction of a session, from 1.
pub type BatchNumber = u64;

/// What each side says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest and the newest version of the protocol that it speaks.
    pub versions: (u16, u16),
    /// The ledger.
    pub ledger: LedgerId,
    /// Whether it holds no event yet, and becomes a replica of another ledger.
    pub adopts: bool,
    /// The writer of its own events: what the other side knows it by.
    pub replica: WriterId,
    /// Whether it sends its events.
    pub sends: bool,
    /// What its clock says, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What a side wants to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// Which records.
    pub filter: Filter,
    /// Up to where it has all of them; `None` from the beginning.
    pub cursor: Option<Cursor>,
    /// The scope that the other side named when the cursor was had.
    pub scope: String,
    /// How many batches may be under way at once.
    pub window: u16,
    /// Whether it holds events already though it has no cursor: then ids are offered before bodies.
    pub holds_events: bool,
    /// Collections with the digest of what it holds of them, where it has no cursor.
    pub digests: Vec<(String, [u8; 32])>,
    /// Whether events are to name others by whole ids: it could not find one that was named by a part.
    pub whole_ids: bool,
}

/// An event that a side does not take in, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The event.
    pub event: EventId,
    /// The stable name of the kind of error.
    pub code: String,
    /// What is wrong with it, for people; empty where a batch has too many of them.
    pub message: String,
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// The stable name of the kind of error; `None` where all went well.
    pub code: Option<String>,
    /// What was wrong, for people.
    pub message: String,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Who it is.
    Hello(Hello),
    /// What it wants to be sent; `None` for nothing. Said once, after the other side's hello.
    Wants(Option<Wants>),
    /// Where a side begins to send.
    Begins {
        /// After which position of its log: the cursor's, or 0 where that is none of its places, or of another scope.
        after: u64,
        /// A name for what the receiver may be sent: under another one, other events lie before a cursor.
        scope: String,
    },
    /// Ids of events, oldest first: which of them are wanted?
    Offer {
        /// The batch that they are of.
        batch: BatchNumber,
        /// The ids.
        ids: Vec<ShortId>,
    },
    /// Which events of an offer are wanted, one bit for each, the lowest of a byte first.
    Want {
        /// The batch.
        batch: BatchNumber,
        /// The bits.
        bits: Vec<u8>,
    },
    /// Events, in the order of the sender's log.
    Batch {
        /// Its number.
        batch: BatchNumber,
        /// Up to where of the sender's log everything that is wanted was sent with this, and the event there.
        upto: Cursor,
        /// The events: none where none up to there is wanted, or all are known.
        events: Vec<Item>,
    },
    /// A batch was taken in, durably but for what was refused, so that another may be sent.
    Ack {
        /// The batch.
        batch: BatchNumber,
        /// Up to where everything is here, and nothing waits for its parents.
        cursor: Option<Cursor>,
        /// Events of the batch that were not taken in, and never will be as they are.
        refused: Vec<Refusal>,
    },
    /// Everything up to the end of the sender's log was sent.
    Reached,
    /// A large value is wanted, from a byte on.
    WantBlob {
        /// Its hash.
        hash: BlobHash,
        /// How many of its bytes are here.
        offset: u64,
    },
    /// A part of a large value.
    Blob {
        /// Its hash.
        hash: BlobHash,
        /// How many bytes it has as a whole.
        total: u64,
        /// Where the part begins.
        offset: u64,
        /// The part.
        bytes: Vec<u8>,
    },
    /// A large value is not here.
    NoBlob(BlobHash),
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// Nothing more is said.
    Bye(Bye),
}

impl Bye {
    /// All went well.
    pub(super) fn well() -> Self {
        Self { code: None, message: String::new() }
    }

    /// What the other side is told. A failed disk is our affair: where our files are is not said, and for the other side this is
    /// a fault of a server, which may pass.
    pub(super) fn of(fault: &Error) -> Self {
        let (kind, message) = match fault.kind() {
            ErrorKind::Storage => (ErrorKind::Server, "its store has failed, and its own log says why"),
            kind => (kind, fault.message()),
        };
        Self { code: Some(kind.code().to_owned()), message: message.to_owned() }
    }

    /// The error that the other side ended with.
    pub(super) fn into_error(self) -> Option<Error> {
        let code = self.code?;
        // Its disk is not ours.
        let kind =
            ErrorKind::from_code(&code).filter(|kind| *kind != ErrorKind::Storage).unwrap_or(ErrorKind::Server);
        Some(Error::new(kind, format!("the other replica ended the session: {}", self.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk of a server once ended the clients of all its devices for good, and told them the path of its files.
    #[test]
    fn a_failed_disk_of_the_other_side_is_no_failed_disk_of_ours() {
        let failed = Error::new(ErrorKind::Storage, "cannot write /var/lib/ledger/front-0: no space left");
        let told = Bye::of(&failed);
        assert!(!told.message.contains("/var"), "{}", told.message);
        let by_an_older_one = Bye { code: Some("storage".to_owned()), message: String::new() };
        for bye in [told, by_an_older_one] {
            let fault = bye.into_error().unwrap();
            assert_eq!(fault.kind(), ErrorKind::Server);
            assert!(fault.is_retryable());
        }
        assert_eq!(
            Bye::of(&Error::new(ErrorKind::Permission, "no")).into_error().unwrap().kind(),
            ErrorKind::Permission
        );
    }
}
