//! What happens while a client syncs, for who wants to watch.

use std::collections::BTreeMap;

use super::circuit::CircuitState;
use crate::event::ConflictId;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The server is being reached.
    Connecting,
    /// What each side lacks goes to and fro.
    Exchanging,
    /// The server has what was here; what comes goes on at once.
    Following,
}

impl Phase {
    /// Its name: `connecting`, `exchanging`, `following`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Exchanging => "exchanging",
            Self::Following => "following",
        }
    }
}

/// How far an attempt is, in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The phase.
    pub phase: Phase,
    /// How many events were taken in.
    pub received: u64,
    /// How many events of each collection came to this ledger since the attempt began, by whatever way.
    pub collections: BTreeMap<String, u64>,
    /// How many bytes of messages were sent and received.
    pub bytes: (u64, u64),
    /// How much of what waited to be sent the server has, from 0 to 100; `None` where nothing waited. How much there is to
    /// receive is not known.
    pub percent: Option<f64>,
    /// How long the rest of that takes if it goes on so, in milliseconds.
    pub time_left_ms: Option<u64>,
}

/// What an attempt came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// How many events the server took, of those that it had not acknowledged.
    pub sent: u64,
    /// How many events of the server were taken in.
    pub received: u64,
    /// How many events it refused.
    pub rejected: u64,
    /// How many events came to each collection of this ledger meanwhile.
    pub collections: BTreeMap<String, u64>,
    /// How many bytes of messages were sent and received.
    pub bytes: (u64, u64),
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How far the server's clock is ahead, in milliseconds.
    pub clock_offset_ms: i64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// An attempt has begun.
    Started,
    /// It goes on.
    Progress(Progress),
    /// It was good.
    Completed(Synced),
    /// It failed.
    Failed {
        /// The stable name of the kind of error.
        code: &'static str,
        /// What was wrong, for people.
        message: String,
        /// After how many milliseconds it is tried again; `None` where it is not.
        retry_in_ms: Option<u64>,
    },
    /// Edits that the server had refused for their stamps or their writer were stamped anew, under a new writer. They are sent
    /// now.
    StampedAgain {
        /// How many events, with those that were made on them.
        events: u64,
    },
    /// A conflict is open that was not before.
    ConflictDetected {
        /// The conflict.
        conflict: ConflictId,
        /// The collection of its record.
        collection: String,
        /// The record's key.
        key: String,
    },
    /// A conflict that was open is not any more.
    ConflictResolved {
        /// The conflict.
        conflict: ConflictId,
        /// The collection of its record.
        collection: String,
        /// The record's key.
        key: String,
    },
}

/// What a client did since it was opened, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// How many attempts were good.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// How many events the server took.
    pub sent: u64,
    /// How many events were taken in.
    pub received: u64,
    /// How many events the server refused.
    pub rejected: u64,
    /// How many bytes of messages were sent and received.
    pub bytes: (u64, u64),
    /// How many events were stamped anew because the server had refused their stamps or their writer.
    pub stamped_again: u64,
    /// How many attempts failed in a row.
    pub failures: u32,
    /// Whether attempts are made.
    pub circuit: CircuitState,
    /// Whether a session is open, and over what: `socket` or `requests`.
    pub connected: Option<&'static str>,
}
