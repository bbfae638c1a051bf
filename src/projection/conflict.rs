//! Conflicts: where candidates disagree, and how that stands.

use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::event::{ConflictId, EventId, Timestamp, WriterId};

/// What disagrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// Two changed a field apart.
    UpdateUpdate,
    /// One changed it, and one removed it later.
    UpdateDelete,
    /// One removed it, and one changed it later.
    DeleteUpdate,
    /// Two created it apart.
    CreateCreate,
    /// It is a value to one and an object, list, text or set to another.
    Type,
    /// A rule of the schema is broken by what was merged.
    Constraint,
}

/// How much a conflict matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is decided.
    Low,
    /// A field is open.
    Medium,
    /// A record's being deleted is disputed.
    High,
    /// The schema says so.
    Critical,
}

/// How a conflict stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It waits for somebody.
    Open,
    /// A rule decided it.
    Auto {
        /// The strategy's name.
        rule: String,
    },
    /// Somebody settled it.
    Resolved {
        /// By this event.
        event: EventId,
        /// Who.
        principal: Option<String>,
        /// Why.
        reason: Option<String>,
    },
}

impl Status {
    /// The status' name: `open`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Auto { .. } => "auto",
            Self::Resolved { .. } => "resolved",
        }
    }
}

/// One of the values that disagree; equal ones are one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The value; `None` where it was removed.
    pub value: Option<Content>,
    /// The event that wrote it; of equal ones the least by order.
    pub event: EventId,
    /// Who stamped that event.
    pub writer: WriterId,
    /// The system that it came from.
    pub source: String,
    /// The user or service there.
    pub principal: Option<String>,
    /// When the source says that it happened, in milliseconds since 1970.
    pub occurred_at: Option<i64>,
    /// When it was stamped.
    pub at: Timestamp,
}

/// A place of a record where candidates disagree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Stable while candidates come and go.
    pub id: ConflictId,
    /// The hash of the events of all candidates: a resolution names the one that it saw.
    pub version: [u8; 32],
    /// The JSON Pointer of the field; `/$deleted` for the record's being deleted.
    pub path: String,
    /// What disagrees.
    pub kind: ConflictKind,
    /// How much it matters.
    pub severity: Severity,
    /// How it stands.
    pub status: Status,
    /// The value that the candidates were made on; `None` where there was none.
    pub base: Option<Content>,
    /// The values that disagree, by order.
    pub candidates: Vec<Candidate>,
    /// The value that is shown; `None` where the field is shown as absent.
    pub shown: Option<Content>,
    /// Which of the candidates is shown, where one is.
    pub taken: Option<usize>,
    /// Why it is shown.
    pub because: String,
}

/// The pointer of the conflict about a record's being deleted.
pub const DELETED: &str = "/$deleted";
