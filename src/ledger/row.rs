//! Rows: what is kept of each record so that reading it needs no document.
//!
//! Rows are derived. They may be lost or deleted at any time, and are then made again from the log.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::document::{Graph, Registers};
use crate::event::{BlobRef, Event, EventId, LedgerId, Op, Timestamp, WriterId, limits};
use crate::journal::rows::MAX_VALUE_BYTES;
use crate::projection::{Conflict, Containers, Content, Layers, Projection, plain};
use crate::schema::Facts;
use crate::{Error, ErrorKind, Result};

/// What a reader sees of a record under its collection's policy.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The position of the record's last event.
    pub(crate) last: u64,
    pub(crate) heads: SmallVec<[EventId; 1]>,
    pub(crate) content: Layers,
    pub(crate) deleted: bool,
    /// Shared with the row before, where they are the same.
    pub(crate) conflicts: Arc<Vec<Conflict>>,
    /// The hash of the policy that it was projected under.
    pub(crate) policy: u64,
    /// What the next event needs, where the record is plain: see [`Row::is_followed_by`].
    pub(crate) tip: Option<Tip>,
    /// What constraints need to know of it, where there are any.
    pub(crate) facts: Option<Arc<Facts>>,
}

/// After how many events of a record its row is kept: reading its past derives no more than that.
pub(crate) const MARK_EVENTS: u64 = 256;

/// How many lanes a tip holds at most: a record of more is derived from its document.
const LANES: usize = 64;

/// The end of a plain record's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tip {
    /// The latest stamp.
    pub(crate) at: Timestamp,
    /// How far each writer came in each of its lanes, in order.
    lanes: SmallVec<[(WriterId, u32, u32); 1]>,
    /// Whether some of its events were made apart.
    pub(crate) concurrent: bool,
    /// How many events the record has.
    events: u64,
    /// The lists and texts that its fields are.
    pub(crate) containers: Containers,
}

impl Tip {
    /// The tip of a record that is plain; `None` where it is not, or has too many heads, lanes, lists or texts.
    pub(crate) fn of(graph: &Graph, registers: &Registers, shown: &Projection) -> Option<Self> {
        if graph.heads().count() > limits::PARENTS || !plain::is_plain(graph, registers, shown) {
            return None;
        }
        let at = graph.heads().filter_map(|ix| graph.node(ix)).map(|node| node.at).max().unwrap_or_default();
        let lanes = SmallVec::from_vec(graph.lanes()?);
        let (concurrent, events) = (graph.is_concurrent(), graph.len() as u64);
        Some(Self { at, lanes, concurrent, events, containers: Containers::of(graph, registers) }).filter(Self::fits)
    }

    fn fits(&self) -> bool {
        self.lanes.len() <= LANES && self.containers.len() <= Containers::MOST
    }

    /// The last place in a lane; 0 where it has none.
    pub(crate) fn place(&self, writer: WriterId, lane: u32) -> u32 {
        let found = self.lanes.binary_search_by_key(&(writer, lane), |entry| (entry.0, entry.1)).ok();
        found.and_then(|place| self.lanes.get(place)).map_or(0, |entry| entry.2)
    }

    fn advance(&mut self, writer: WriterId, lane: u32, nth: u32) {
        match self.lanes.binary_search_by_key(&(writer, lane), |entry| (entry.0, entry.1)) {
            Ok(place) => self.lanes.get_mut(place).into_iter().for_each(|entry| entry.2 = nth),
            Err(place) => self.lanes.insert(place, (writer, lane, nth)),
        }
    }
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

impl Default for Row {
    fn default() -> Self {
        Self::nothing()
    }
}

const VERSION: u8 = 3;

/// A row's bytes after the version, in bincode: JSON stands in it as text.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    last: u64,
    heads: Cow<'a, [EventId]>,
    deleted: bool,
    policy: u64,
    tip: Option<Cow<'a, Tip>>,
    blobs: Cow<'a, [(String, BlobRef)]>,
    content: String,
    /// Empty where there is none.
    conflicts: String,
    /// Empty where there are none.
    facts: String,
}

fn options() -> impl bincode::Options {
    use bincode::Options as _;
    bincode::DefaultOptions::new().with_limit(MAX_VALUE_BYTES as u64)
}

impl Row {
    pub(crate) fn new(last: u64, heads: Vec<EventId>, projection: Projection, policy: u64) -> Self {
        let Projection { content, deleted, conflicts, .. } = projection;
        let (heads, content, conflicts) = (SmallVec::from_vec(heads), content.into(), Arc::new(conflicts));
        Self { last, heads, content, deleted, conflicts, policy, tip: None, facts: None }
    }

    /// The row of a plain record without events.
    pub(crate) fn nothing() -> Self {
        let projection = Projection { content: Content::of_fields([]), ..Projection::default() };
        Self { tip: Some(Tip::default()), ..Self::new(0, Vec::new(), projection, 0) }
    }

    /// Whether the row after an event follows from this one alone: the record is plain, the event is made on all of its
    /// heads, keeps the rules of events and leaves it plain. A conflict stays as it is, or ends.
    pub(crate) fn is_followed_by(&self, event: &Event) -> bool {
        self.tip.as_ref().is_some_and(|tip| {
            event.parents == *self.heads
                && tip.place(event.writer, event.lane).checked_add(1) == Some(event.nth)
                && (self.heads.is_empty() || event.at.may_follow(tip.at))
                && plain::follows(event.ops(), &self.conflicts)
        })
    }

    /// Whether the row is to be kept, for reading the record's past: see [`Kind::Mark`].
    pub(crate) fn is_mark(&self) -> bool {
        let is_due = |tip: &Tip| tip.events > 0 && tip.events.is_multiple_of(MARK_EVENTS);
        // What is disputed shows otherwise under another policy.
        self.conflicts.is_empty() && self.tip.as_ref().is_some_and(is_due)
    }

    /// Shows what operations will leave of a plain record; they make no list or text, whose name only its event will tell.
    pub(crate) fn foresee(&mut self, ops: &[Op]) {
        self.apply(EventId([0; 32]), ops);
        self.last = self.last.max(1);
    }

    /// Makes this the row after an event of which [`Row::is_followed_by`] is true.
    pub(crate) fn follow(&mut self, position: u64, id: EventId, event: &Event, policy: u64) {
        // Nothing is demanded of the record now: what was once is of no use any more.
        (self.last, self.policy, self.facts) = (position, policy, None);
        self.heads.clear();
        self.heads.push(id);
        self.apply(id, event.ops());
        if let Some(tip) = &mut self.tip {
            tip.at = event.at;
            tip.events += 1;
            tip.advance(event.writer, event.lane, event.nth);
        }
        self.tip.take_if(|tip| !tip.fits());
    }

    fn apply(&mut self, id: EventId, ops: &[Op]) {
        if let Some(tip) = &mut self.tip {
            self.content.apply(&mut self.deleted, &mut tip.containers, id, ops);
            if self.conflicts.iter().any(|conflict| plain::settles(ops, conflict)) {
                Arc::make_mut(&mut self.conflicts).retain(|conflict| !plain::settles(ops, conflict));
            }
        }
    }

    /// The row's bytes. A row that is too large is written without its value, under no policy: it is made again when it
    /// is read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        use bincode::Options as _;
        let unwritable = |fault: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Consistency, format!("a row cannot be written: {fault}"))
        };
        let conflicts = if self.conflicts.is_empty() { Ok(String::new()) } else { text(&*self.conflicts) };
        let content = self.content.whole();
        let stored = Stored {
            last: self.last,
            heads: Cow::Borrowed(&self.heads),
            deleted: self.deleted,
            policy: self.policy,
            tip: self.tip.as_ref().map(Cow::Borrowed),
            blobs: Cow::Borrowed(&content.blobs),
            content: text(&content.json).map_err(|fault| unwritable(&fault))?,
            conflicts: conflicts.map_err(|fault| unwritable(&fault))?,
            facts: self.facts.as_deref().map_or(Ok(String::new()), text).map_err(|fault| unwritable(&fault))?,
        };
        let mut bytes = Vec::with_capacity(128 + stored.content.len() + stored.conflicts.len() + stored.facts.len());
        bytes.push(VERSION);
        options().with_no_limit().serialize_into(&mut bytes, &stored).map_err(|fault| unwritable(&fault))?;
        if bytes.len() <= MAX_VALUE_BYTES {
            return Ok(bytes);
        }
        let (last, heads, deleted) = (self.last, self.heads.clone(), self.deleted);
        let (content, conflicts) = Default::default();
        Self { last, heads, deleted, content, conflicts, policy: 0, tip: None, facts: None }.encode()
    }

    /// The row of bytes; `None` when another version wrote them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        use bincode::Options as _;
        let (_, stored) = bytes.split_first().filter(|(version, _)| **version == VERSION)?;
        let Stored { last, heads, deleted, policy, tip, blobs, content, conflicts, facts } =
            options().deserialize(stored).ok()?;
        Some(Self {
            last,
            heads: SmallVec::from_vec(heads.into_owned()),
            content: Content { json: serde_json::from_str(&content).ok()?, blobs: blobs.into_owned() }.into(),
            deleted,
            conflicts: if conflicts.is_empty() {
                Arc::default()
            } else {
                Arc::new(serde_json::from_str(&conflicts).ok()?)
            },
            policy,
            tip: tip.map(Cow::into_owned),
            facts: if facts.is_empty() { None } else { Some(Arc::new(serde_json::from_str(&facts).ok()?)) },
        })
    }
}

fn text<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, value)?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// What a key of the row file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A [`Row`].
    Row,
    /// A document's snapshot, after the position that it holds.
    Document,
    /// The same of one that forgot its first events.
    Recent,
    /// The receipt of a request that was made under an idempotency key.
    Request,
    /// The ledger's counts.
    Meta,
    /// A plain record's row as of an event of its past.
    Mark,
    /// How far another replica was pulled.
    Cursor,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 7] =
        [Self::Row, Self::Document, Self::Recent, Self::Request, Self::Meta, Self::Mark, Self::Cursor];

    fn tag(self) -> u8 {
        match self {
            Self::Row => b'r',
            Self::Document => b'd',
            Self::Recent => b'n',
            Self::Request => b'k',
            Self::Meta => b'm',
            Self::Mark => b'p',
            Self::Cursor => b'c',
        }
    }
}

/// The key of what belongs to `(first, second)` in a ledger: a record's collection and key, or a request's source and
/// name. Keys of one `first` are sorted by `second`.
pub(crate) fn key(kind: Kind, ledger: LedgerId, first: &str, second: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + first.len() + second.len());
    put_prefix(&mut key, kind, ledger, first);
    key.extend_from_slice(second.as_bytes());
    key
}

/// How many bytes come before the first name.
const PREFIX_BYTES: usize = 1 + 16 + 4;

fn put_prefix(key: &mut Vec<u8>, kind: Kind, ledger: LedgerId, first: &str) {
    key.push(kind.tag());
    key.extend_from_slice(&ledger.0);
    key.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(first.as_bytes());
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
    let mut key = Vec::new();
    put_prefix(&mut key, kind, ledger, first);
    key
}

/// What the keys of a record's marks start with; the position follows.
pub(crate) fn marks(ledger: LedgerId, (collection, key): &(String, String)) -> Vec<u8> {
    let mut prefix = prefix(Kind::Mark, ledger, collection);
    prefix.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    prefix.extend_from_slice(key.as_bytes());
    prefix
}

/// The key of a record's mark at a position.
pub(crate) fn mark(ledger: LedgerId, record: &(String, String), position: u64) -> Vec<u8> {
    [marks(ledger, record), position.to_be_bytes().to_vec()].concat()
}
