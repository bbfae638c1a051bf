//! Conflicts of a merge: as those of a ledger, in plain JSON.

use serde_json::Value as Json;

use crate::projection::{ConflictKind, Severity, Status};

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// One of the values that disagree.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The value; `None` where it was removed.
    pub value: Option<Json>,
    /// The version that it is of; of an object in which both edited fields, the later.
    pub side: Side,
    /// The source of that version.
    pub source: String,
    /// The user or service there.
    pub principal: Option<String>,
    /// When that version was written, in milliseconds since 1970.
    pub at: i64,
}

/// A place where the versions disagree.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The JSON Pointer of the field; `/$deleted` for the whole's being deleted.
    pub path: String,
    /// What disagrees.
    pub kind: ConflictKind,
    /// How much it matters.
    pub severity: Severity,
    /// How it stands: open, or decided by the policy.
    pub status: Status,
    /// The value that both were made on; `None` where there was none.
    pub base: Option<Json>,
    /// The values that disagree, by time.
    pub candidates: Vec<Candidate>,
    /// The value that is shown; `None` where the field is shown as absent.
    pub shown: Option<Json>,
    /// Which of the candidates is shown, counted from 0, where one is.
    pub taken: Option<usize>,
    /// Why it is shown.
    pub because: String,
}

impl Conflict {
    /// Whether it waits for somebody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == Status::Open
    }
}
