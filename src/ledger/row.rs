//! Rows: what is kept of each record so that reading it needs no document.
//!
//! Rows are derived. They may be lost or deleted at any time, and are then made again from the log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{EventId, LedgerId};
use crate::journal::rows::MAX_VALUE_BYTES;
use crate::projection::{Conflict, Content, Projection};
use crate::schema::Facts;
use crate::{Error, ErrorKind, Result};

/// What a reader sees of a record under its collection's policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The position of the record's last event.
    pub(crate) last: u64,
    pub(crate) heads: Vec<EventId>,
    pub(crate) content: Content,
    pub(crate) deleted: bool,
    pub(crate) conflicts: Vec<Conflict>,
    /// The hash of the policy that it was projected under.
    pub(crate) policy: u64,
    /// What constraints need to know of it, where there are any.
    #[serde(default, with = "facts", skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<Arc<Facts>>,
}

/// Whether rows show the same. Their facts are compared in the index: a row may still hold those that a schema of before
/// asked for.
impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        let shown = |row: &Self| (row.last, row.deleted, row.policy);
        shown(self) == shown(other)
            && self.heads == other.heads
            && self.content == other.content
            && self.conflicts == other.conflicts
    }
}

/// Facts are shared with the index that they are taken into.
mod facts {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::schema::Facts;

    pub(super) fn serialize<S: Serializer>(facts: &Option<Arc<Facts>>, serializer: S) -> Result<S::Ok, S::Error> {
        facts.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Facts>>, D::Error> {
        Ok(Option::<Facts>::deserialize(deserializer)?.map(Arc::new))
    }
}

const VERSION: u8 = 1;

impl Row {
    pub(crate) fn new(last: u64, heads: Vec<EventId>, projection: Projection, policy: u64) -> Self {
        let Projection { content, deleted, conflicts, .. } = projection;
        Self { last, heads, content, deleted, conflicts, policy, facts: None }
    }

    /// The row's bytes. A row that is too large is written without its value, under no policy: it is made again when it
    /// is read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|fault| Error::new(ErrorKind::Consistency, format!("a row cannot be written: {fault}")))?;
        if bytes.len() <= MAX_VALUE_BYTES {
            return Ok(bytes);
        }
        let (last, heads, deleted) = (self.last, self.heads.clone(), self.deleted);
        Self { last, heads, deleted, content: Content::default(), conflicts: Vec::new(), policy: 0, facts: None }
            .encode()
    }

    /// The row of bytes; `None` when another version wrote them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, json) = bytes.split_first()?;
        if *version == VERSION { serde_json::from_slice(json).ok() } else { None }
    }
}

/// What a key of the row file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Row`].
    Row,
    /// A document's snapshot, after the position that it holds.
    Document,
    /// The receipt of a request that was made under an idempotency key.
    Request,
    /// The ledger's counts.
    Meta,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Row, Self::Document, Self::Request, Self::Meta];

    fn tag(self) -> u8 {
        match self {
            Self::Row => b'r',
            Self::Document => b'd',
            Self::Request => b'k',
            Self::Meta => b'm',
        }
    }
}

/// The key of what belongs to `(first, second)` in a ledger: a record's collection and key, or a request's source and
/// name. Keys of one `first` are sorted by `second`.
pub(crate) fn key(kind: Kind, ledger: LedgerId, first: &str, second: &str) -> Vec<u8> {
    let mut key = prefix(kind, ledger, first);
    key.extend_from_slice(second.as_bytes());
    key
}

/// What the keys of one kind in a ledger start with.
pub(crate) fn ledger_prefix(kind: Kind, ledger: LedgerId) -> Vec<u8> {
    [&[kind.tag()][..], &ledger.0].concat()
}

/// The ledger, and the collection and key of the record, of a key that [`key`] made.
pub(crate) fn split(key: &[u8]) -> Option<(LedgerId, (String, String))> {
    let (ledger, rest) = key.get(1..)?.split_first_chunk::<16>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (first, second) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((LedgerId(*ledger), (text(first)?, text(second)?)))
}

/// What the keys of one `first` start with.
pub(crate) fn prefix(kind: Kind, ledger: LedgerId, first: &str) -> Vec<u8> {
    let mut key = ledger_prefix(kind, ledger);
    key.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(first.as_bytes());
    key
}
