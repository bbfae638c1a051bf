//! What callers ask of a ledger, and what it answers: plain data.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::event::{
    BatchId, ConflictId, Container, Event, EventId, LedgerId, Path, RunId, Timestamp, WriterId, diff::Change,
};
use crate::projection::{Conflict, Policy};

/// Who edits, and why: what the events of a change say beside what they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The system that the edit comes from: `app`, `jira`.
    pub source: String,
    /// The user or service in that system.
    pub principal: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When the source says that it happened, in milliseconds since 1970-01-01T00:00:00Z.
    pub occurred_at: Option<i64>,
    /// The execution that edits; random for a batch where it is missing.
    pub run: Option<RunId>,
    /// The name of the request: a second one of the same name and source answers with the first one's receipt. Imports
    /// need none: delivering a version again changes nothing.
    pub idempotency_key: Option<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            source: "app".to_owned(),
            principal: None,
            reason: None,
            occurred_at: None,
            run: None,
            idempotency_key: None,
        }
    }
}

impl Context {
    /// The context of an edit from this source.
    #[must_use]
    pub fn from_source(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }

    /// The same, by this user or service.
    #[must_use]
    pub fn by(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// The same, for this reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The same, happened at this time (milliseconds since 1970).
    #[must_use]
    pub fn occurred(mut self, millis: i64) -> Self {
        self.occurred_at = Some(millis);
        self
    }
}

/// Where an edit finds the list or text that it works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that is shown at a path, as of the edit's base.
    Path(Path),
    /// The one that an operation made.
    Container(Container),
}

/// One edit of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Sets a field; an object sets each of its fields, after removing what was there.
    Put(Path, Json),
    /// Sets a field to a value that is replaced as a whole, also an object.
    PutAtomic(Path, Json),
    /// Removes a field and what lives below it.
    Remove(Path),
    /// Adds to a counter.
    Increment(Path, i64),
    /// Makes a field an empty set.
    MakeSet(Path),
    /// Adds a member to a set; makes the set where there is nothing.
    SetAdd(Path, Json),
    /// Removes a member from a set.
    SetRemove(Path, Json),
    /// Makes a field an empty list.
    MakeList(Path),
    /// Makes a field an empty text.
    MakeText(Path),
    /// Inserts an item into a list, before an index.
    Insert(Place, u64, Json),
    /// Removes the item at an index of a list.
    RemoveAt(Place, u64),
    /// Replaces `delete` code points of a text, from an index, by another text.
    SpliceText {
        /// Which text.
        place: Place,
        /// From which code point.
        index: u64,
        /// How many go.
        delete: u64,
        /// What comes.
        insert: String,
    },
    /// Deletes the record.
    Delete,
    /// Brings the record back.
    Restore,
}

/// What a write does to its record.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Makes the record this object: only what differs from what the writer was shown becomes an edit, so that fields
    /// which it did not touch survive concurrent edits.
    Put(Json),
    /// Sets the fields that this object names, each as a whole, null too: of them only what differs from what the writer was
    /// shown becomes an edit.
    Fields(Json),
    /// Applies a merge patch (RFC 7396): null removes.
    Patch(Json),
    /// Applies edits in their order.
    Edit(Vec<Edit>),
    /// Deletes the record.
    Delete,
    /// Brings a deleted record back.
    Undelete,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// What to do.
    pub act: Act,
    /// The events that the edit is made on; the record's heads where it is missing. On older ones, all that came since
    /// is concurrent with the edit.
    pub base: Option<Vec<EventId>>,
    /// The heads that the record must have; otherwise the write fails with `conflict`.
    pub expect: Option<Vec<EventId>>,
}

impl Act {
    /// The fields, no fields of fields, beyond which nothing of the record matters to the act; `None` where all may.
    pub(crate) fn fields(&self) -> Option<BTreeSet<Path>> {
        match self {
            Self::Put(_) => None,
            Self::Fields(patch) | Self::Patch(patch) => {
                patch.as_object()?.keys().map(|name| Path::root().join(name).ok()).collect()
            }
            Self::Edit(edits) => {
                edits.iter().filter(|edit| !matches!(edit, Edit::Delete | Edit::Restore)).map(Edit::field).collect()
            }
            Self::Delete | Self::Undelete => Some(BTreeSet::new()),
        }
    }
}

impl Edit {
    /// The field, no field of a field, that it works in; `None` where that is not to be seen from its path.
    fn field(&self) -> Option<Path> {
        let path = match self {
            Self::Put(path, _)
            | Self::PutAtomic(path, _)
            | Self::Remove(path)
            | Self::Increment(path, _)
            | Self::MakeSet(path)
            | Self::SetAdd(path, _)
            | Self::SetRemove(path, _)
            | Self::MakeList(path)
            | Self::MakeText(path)
            | Self::Insert(Place::Path(path), ..)
            | Self::RemoveAt(Place::Path(path), _)
            | Self::SpliceText { place: Place::Path(path), .. } => path,
            Self::Insert(..) | Self::RemoveAt(..) | Self::SpliceText { .. } | Self::Delete | Self::Restore => {
                return None;
            }
        };
        Path::root().join(path.segments().next()?.as_ref()).ok()
    }
}

impl Edit {
    /// Whether a plain record does not tell what it comes to: of counters and sets, and of lists and texts that may be
    /// shown nowhere.
    fn needs_document(&self) -> bool {
        match self {
            Self::Insert(place, ..) | Self::RemoveAt(place, _) | Self::SpliceText { place, .. } => {
                matches!(place, Place::Container(Container::Of(..)))
            }
            Self::Increment(..) | Self::MakeSet(_) | Self::SetAdd(..) | Self::SetRemove(..) => true,
            Self::Put(..)
            | Self::PutAtomic(..)
            | Self::Remove(_)
            | Self::MakeList(_)
            | Self::MakeText(_)
            | Self::Delete
            | Self::Restore => false,
        }
    }
}

impl Write {
    /// Whether it can only be planned on the record's document.
    pub(crate) fn needs_document(&self) -> bool {
        let acts_inside = matches!(&self.act, Act::Edit(edits) if edits.iter().any(Edit::needs_document));
        self.base.is_some() || acts_inside
    }

    /// A write on the record's current heads.
    #[must_use]
    pub fn new(collection: impl Into<String>, key: impl Into<String>, act: Act) -> Self {
        Self { collection: collection.into(), key: key.into(), act, base: None, expect: None }
    }

    /// The same, made on these events.
    #[must_use]
    pub fn on(mut self, base: Vec<EventId>) -> Self {
        self.base = Some(base);
        self
    }

    /// The same, only if these are the record's heads.
    #[must_use]
    pub fn expecting(mut self, heads: Vec<EventId>) -> Self {
        self.expect = Some(heads);
        self
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Events were appended.
    Appended,
    /// The request was made before; these are its events.
    Duplicate,
    /// The record is as the write would make it: there is no event.
    Unchanged,
}

impl Outcome {
    /// The outcome's name: `appended`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Appended => "appended",
            Self::Duplicate => "duplicate",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The answer to a write: returned once its events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What became of it.
    pub outcome: Outcome,
    /// The events and their positions in this ledger's log.
    pub events: Vec<(EventId, u64)>,
    /// The execution, of a batch.
    pub run: Option<RunId>,
    /// What was left as it is, of a revert.
    pub skipped: Vec<Skipped>,
}

impl Receipt {
    /// The receipt where there is nothing to do.
    pub(crate) fn unchanged() -> Self {
        Self { outcome: Outcome::Unchanged, events: Vec::new(), run: None, skipped: Vec::new() }
    }
}

/// What a revert left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// The field's JSON Pointer.
    pub path: String,
    /// Why.
    pub why: String,
}

/// A moment of a record or a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// What this replica knew up to a position of its log.
    Position(u64),
    /// What was stamped up to a time, in milliseconds since 1970; alike on all replicas that hold the same events.
    Time(i64),
    /// What an event's writer saw, its own edit included.
    Event(EventId),
}

/// How to look at records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// As of when; now where it is missing.
    pub as_of: Option<AsOf>,
    /// Under which policy; the collection's own where it is missing.
    pub policy: Option<Policy>,
}

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// Its value; the last one where it is deleted.
    pub value: Json,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Its heads: the base of an edit of what is shown here, and its version.
    pub heads: Vec<EventId>,
    /// Its conflicts that are not resolved.
    pub conflicts: Vec<ConflictId>,
}

/// Which records to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Only keys that start with this.
    pub prefix: String,
    /// Only records that show these values at these paths.
    pub fields: Vec<(Path, Json)>,
    /// Only records that an event after this position changed.
    pub changed_since: Option<u64>,
    /// Deleted records too.
    pub deleted: bool,
    /// Only keys after this one: the cursor.
    pub after: Option<String>,
    /// At most so many; all where it is missing.
    pub limit: Option<usize>,
    /// Under which policy; the collection's own where it is missing.
    pub policy: Option<Policy>,
}

/// A collection, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// How many records it has, deleted ones included.
    pub records: u64,
    /// How many events it has.
    pub events: u64,
}

/// One event of the log, with what this replica knows of its arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in this ledger's log.
    pub position: u64,
    /// Its id.
    pub id: EventId,
    /// When it was appended here, in milliseconds since 1970.
    pub received_at: i64,
    /// The execution that brought it here, or that made it.
    pub run: Option<RunId>,
    /// The position of the record's event before it in this log; 0 for its first.
    pub previous: u64,
    /// The event.
    pub event: Event,
}

/// Which part of the log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only positions after this one (before this one, in reverse, where it is not 0).
    pub after: u64,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only this collection.
    pub collection: Option<String>,
    /// Only records with this key.
    pub key: Option<String>,
    /// From the end.
    pub reverse: bool,
}

/// One event of a record's history, with what it changed of what its writer saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// The event.
    pub entry: Entry,
    /// What differs, by path.
    pub changes: Vec<Change>,
    /// The record as of the event's parents; `None` before its first event and while it was deleted.
    pub before: Option<Json>,
    /// The record as of the event.
    pub after: Option<Json>,
}

/// Who wrote what is shown of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The field's JSON Pointer.
    pub path: String,
    /// Its value.
    pub value: Json,
    /// The event; missing where a custom strategy made the value.
    pub event: Option<EventId>,
    /// The system that it came from.
    pub source: Option<String>,
    /// The user or service there.
    pub principal: Option<String>,
    /// When it was stamped.
    pub at: Option<Timestamp>,
}

/// Which conflicts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Those that wait for somebody.
    #[default]
    Open,
    /// Those that a rule decided.
    Auto,
    /// Those that somebody settled.
    Resolved,
    /// All.
    All,
}

/// A conflict of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordConflict {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// The conflict.
    pub conflict: Conflict,
}

/// What a policy makes of a field at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The value that is shown; `None` where the field is shown as absent. Of `/$deleted`, whether the record is.
    pub value: Option<Json>,
    /// Whether a conflict there waits for somebody.
    pub open: bool,
}

/// Where and when another policy would have decided otherwise: from an event on until another.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The record's key.
    pub key: String,
    /// The field's JSON Pointer; `/$deleted` for the record's being deleted.
    pub path: String,
    /// What the collection's policy makes of it.
    pub now: Decision,
    /// What the other would.
    pub then: Decision,
    /// Why the other would.
    pub because: String,
    /// The position of the event since which it is so.
    pub position: u64,
    /// That event.
    pub event: EventId,
    /// When that was stamped.
    pub at: Timestamp,
    /// The position and stamp of the event by which it ended; `None` where it is so now.
    pub until: Option<(u64, Timestamp)>,
}

/// How to settle a conflict.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// With the candidate of this place, counted from 0.
    Take(usize),
    /// With the latest candidate of this source.
    TakeSource(String),
    /// With the candidate of this event.
    TakeEvent(EventId),
    /// With the latest candidate that this installation stamped.
    TakeLocal,
    /// With the latest candidate that another installation stamped.
    TakeRemote,
    /// With another value.
    Value(Json),
    /// With the value that the candidates were made on.
    Base,
}

/// What a pull or an apply did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Events that were offered.
    pub offered: u64,
    /// Events that were appended here.
    pub applied: u64,
    /// Events that were known here.
    pub duplicates: u64,
    /// Events that wait for their parents.
    pub waiting: u64,
}

/// One record that a source delivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The record's key.
    pub key: String,
    /// Its state in the source.
    pub value: Json,
    /// The source's time of this version, in milliseconds since 1970.
    pub occurred_at: Option<i64>,
}

/// What became of one delivered record.
#[derive(Debug)]
pub enum Delivered {
    /// The record was not known from this source.
    Created(Receipt),
    /// What differs from the source's last delivery was appended.
    Updated(Receipt),
    /// Nothing differs, or the delivery is older than the last.
    Unchanged,
    /// The record was refused; the others are not touched.
    Failed(crate::Error),
}

/// The state of a ledger's events as one value: equal exactly when two replicas hold the same events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The hash, in hexadecimal.
    pub digest: String,
    /// How many events are applied.
    pub events: u64,
    /// The position up to which.
    pub position: u64,
    /// The hash of each collection.
    pub collections: Vec<(String, String)>,
}

/// What a revert takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One event.
    Event(EventId),
    /// All events of a batch.
    Batch(BatchId),
    /// All events that an execution made or brought.
    Run(RunId),
}

/// What a repair of broken constraints did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Repaired {
    /// The answer to the edits.
    pub receipt: Receipt,
    /// What was repaired, and how.
    pub repairs: Vec<Repair>,
    /// What was left, and why.
    pub left: Vec<(crate::schema::Violation, String)>,
}

/// One repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// What was broken.
    pub violation: crate::schema::Violation,
    /// The edit that repairs it.
    pub edit: Edit,
}

/// What a migration did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Migrated {
    /// The answer to the edits.
    pub receipt: Receipt,
    /// The records that change, with the operations that bring them to the new shape.
    pub planned: Vec<super::Planned>,
    /// What the migration would break; nothing where it was made.
    pub broken: Vec<crate::schema::Violation>,
}

/// Counts and sizes of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The last position.
    pub position: u64,
    /// How many events there are.
    pub events: u64,
    /// How many records, deleted ones included.
    pub records: u64,
    /// Events that wait for their parents.
    pub waiting: u64,
    /// Conflicts, by kind, severity and status: `("update-update", "medium", "open", 3)`.
    pub conflicts: Vec<(String, String, String, u64)>,
    /// Writers that stamped two events with one number or place.
    pub forked_writers: Vec<WriterId>,
    /// Bytes of the store on disk: log, derived rows, blobs; 0 in memory.
    pub bytes: (u64, u64, u64),
    /// Records held in memory, and their bytes.
    pub cached: (u64, u64),
}

/// What deriving and reading have cost since a store was opened. It shows that nothing grows with a record's age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Events that were derived, again or for the first time.
    pub derived: u64,
    /// Changes that were handed to Automerge.
    pub materialised: u64,
    /// Frames of the log that were decoded.
    pub frames: u64,
}

/// What a check of a ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many events were read.
    pub events: u64,
    /// What is wrong; empty where all is well.
    pub problems: Vec<String>,
}

/// What rebuilding the derived state did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rebuilt {
    /// Events replayed.
    pub events: u64,
    /// Records derived.
    pub records: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A ledger of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerInfo {
    /// Its name in this store.
    pub name: String,
    /// Its id, the same on every replica.
    pub id: LedgerId,
    /// This installation's name in it.
    pub writer: WriterId,
}

// --- what identifies a request, beside its idempotency key ---------------------------------------------------------

/// What writers of requests with an idempotency key ask for, as JSON that says the same in every version.
pub(crate) trait Request {
    fn described(&self) -> Json;
}

/// The hash by which a request of the same name is known to be the same request.
pub(crate) fn hash(request: &(impl Request + ?Sized), context: &Context) -> [u8; 32] {
    let who = json!([context.source, context.principal, context.occurred_at]);
    let text = crate::event::json::canonical(&json!([who, request.described()]));
    blake3::derive_key("syncledger 2026-11 request v1", text.as_bytes())
}

fn ids(events: &Option<Vec<EventId>>) -> Json {
    events.as_ref().map_or(Json::Null, |events| events.iter().map(EventId::to_string).collect())
}

impl Request for [Write] {
    fn described(&self) -> Json {
        let write = |write: &Write| {
            json!([write.collection, write.key, write.act.described(), ids(&write.base), ids(&write.expect)])
        };
        self.iter().map(write).collect()
    }
}

impl Request for Act {
    fn described(&self) -> Json {
        match self {
            Self::Put(value) => json!(["put", value]),
            Self::Fields(fields) => json!(["fields", fields]),
            Self::Patch(patch) => json!(["patch", patch]),
            Self::Edit(edits) => json!(["edit", edits.iter().map(Request::described).collect::<Json>()]),
            Self::Delete => json!(["delete"]),
            Self::Undelete => json!(["undelete"]),
        }
    }
}

impl Request for Edit {
    fn described(&self) -> Json {
        match self {
            Self::Put(path, value) => json!(["put", path, value]),
            Self::PutAtomic(path, value) => json!(["put_atomic", path, value]),
            Self::Remove(path) => json!(["remove", path]),
            Self::Increment(path, by) => json!(["increment", path, by]),
            Self::MakeSet(path) => json!(["make_set", path]),
            Self::SetAdd(path, member) => json!(["set_add", path, member]),
            Self::SetRemove(path, member) => json!(["set_remove", path, member]),
            Self::MakeList(path) => json!(["make_list", path]),
            Self::MakeText(path) => json!(["make_text", path]),
            Self::Insert(place, index, value) => json!(["insert", place.described(), index, value]),
            Self::RemoveAt(place, index) => json!(["remove_at", place.described(), index]),
            Self::SpliceText { place, index, delete, insert } => {
                json!(["splice_text", place.described(), index, delete, insert])
            }
            Self::Delete => json!(["delete"]),
            Self::Restore => json!(["restore"]),
        }
    }
}

impl Request for Place {
    fn described(&self) -> Json {
        match self {
            Self::Path(path) => json!(path),
            Self::Container(Container::Own(op)) => json!([op]),
            Self::Container(Container::Of(event, op)) => json!([event.to_string(), op]),
        }
    }
}

/// The settling of a conflict.
pub(crate) struct Resolving<'a>(pub(crate) ConflictId, pub(crate) &'a Settlement, pub(crate) Option<[u8; 32]>);

impl Request for Resolving<'_> {
    fn described(&self) -> Json {
        let version = self.2.map(|version| crate::event::hex(&version));
        json!(["resolve", self.0.to_string(), self.1.described(), version])
    }
}

impl Request for Settlement {
    fn described(&self) -> Json {
        match self {
            Self::Take(index) => json!(["take", index]),
            Self::TakeSource(source) => json!(["source", source]),
            Self::TakeEvent(event) => json!(["event", event.to_string()]),
            Self::TakeLocal => json!(["local"]),
            Self::TakeRemote => json!(["remote"]),
            Self::Value(value) => json!(["value", value]),
            Self::Base => json!(["base"]),
        }
    }
}

/// A repair or a migration of a collection, or of all.
pub(crate) struct Reshaping<'a>(pub(crate) Option<&'a str>, pub(crate) Option<&'a str>);

impl Request for Reshaping<'_> {
    fn described(&self) -> Json {
        json!([if self.1.is_some() { "migrate" } else { "repair" }, self.0, self.1])
    }
}

/// The taking back of a change; of the last one where there is no target.
pub(crate) struct Reverting<'a>(pub(crate) Option<&'a Target>);

impl Request for Reverting<'_> {
    fn described(&self) -> Json {
        match self.0 {
            None => json!(["undo"]),
            Some(Target::Event(event)) => json!(["revert", "event", event.to_string()]),
            Some(Target::Batch(batch)) => json!(["revert", "batch", batch.to_string()]),
            Some(Target::Run(run)) => json!(["revert", "run", run.to_string()]),
        }
    }
}
