//! One ledger as its store's writer thread sees it: the records it works on, events that are appended but not yet
//! durable included.
//!
//! Invariant: nothing here is seen by readers; what they see is published once the events are durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::cache::TwoGenerations;
use super::constraints::{self, Constraints, Update};
use super::log::Log;
use super::request::Entry;
use super::row::{self, Kind, Row, Tip};
use super::shared::Shared;
use crate::document::{self, ApplyFault, Document, PlaceFault};
use crate::event::{Event, EventId, LedgerId, Path, RunId, WriterId};
use crate::journal::rows::{Changes, MAX_VALUE_BYTES};
use crate::projection::{Conflict, DELETED, Policy, RecordId, Resolvers, Severity, Strategy, project};
use crate::schema::{Demands, Schema};
use crate::{Error, ErrorKind, Result};

/// The collection whose records hold the policies of the others.
pub(crate) const COLLECTIONS: &str = "$collections";
/// The system collection that holds what people say of conflicts, by their ids.
pub(crate) const CONFLICTS: &str = "$conflicts";

/// The field of such a record that holds the collection's schema.
pub(crate) const SCHEMA: &str = "schema";

/// A record's collection and key.
pub(crate) type RecordKey = (String, String);

/// A policy, with the hash by which rows name it.
#[derive(Debug)]
pub(crate) struct CollectionPolicy {
    pub(crate) policy: Policy,
    pub(crate) hash: u64,
    /// The collection's schema, where it has one that can be read.
    pub(crate) schema: Option<Arc<Schema>>,
}

impl CollectionPolicy {
    pub(crate) fn new(policy: Policy) -> Self {
        let hash = hash_of(&policy.to_json().to_string());
        Self { policy, hash, schema: None }
    }

    /// Calls conflicts of fields critical that the schema calls so.
    pub(crate) fn rate(&self, conflicts: &mut [Conflict]) {
        let Some(schema) = self.schema.as_ref().filter(|schema| schema.has_critical()) else { return };
        for conflict in conflicts {
            let is_deletion = conflict.path == DELETED && conflict.severity == Severity::High;
            if !is_deletion && Path::parse(&conflict.path).is_ok_and(|path| schema.is_critical(&path)) {
                conflict.severity = Severity::Critical;
            }
        }
    }

    /// The policy of a collection, which a record of [`COLLECTIONS`] holds; the default where it holds none that can be
    /// read. Those of system collections are fixed in code.
    pub(crate) fn of(collection: &str, row: Option<&Row>, resolvers: &Resolvers) -> Self {
        if let Some(policy) = Self::of_system(collection) {
            return policy;
        }
        let content = row.filter(|row| !row.deleted).map(|row| row.content.whole());
        let part = |name: &str| content.as_ref().and_then(|content| content.json.get(name));
        let policy = part("policy");
        let policy = policy.and_then(|policy| Policy::from_json(policy).ok()).unwrap_or_default();
        let mut known = Self::new(policy);
        // What a custom strategy shows depends on whether this program has it.
        let strategies = known.policy.fields.values().chain([&known.policy.default]);
        let custom = strategies.filter_map(|strategy| match strategy {
            Strategy::Custom(name) if resolvers.contains(name) => Some(hash_of(name)),
            _ => None,
        });
        known.hash = custom.fold(known.hash, |hash, custom| hash.rotate_left(1) ^ custom);
        known.schema = part(SCHEMA).and_then(|schema| Schema::from_json(schema).ok()).map(Arc::new);
        if let Some(schema) = known.schema.as_ref().filter(|schema| schema.has_critical()) {
            known.hash = known.hash.rotate_left(1) ^ schema.hash();
        }
        known
    }

    /// The policy of a system collection, fixed in code.
    pub(crate) fn of_system(collection: &str) -> Option<Self> {
        let system = collection.starts_with('$');
        system.then(|| Self::new(Policy::of(Strategy::LastWriteWins(crate::projection::Scope::Field))))
    }
}

fn hash_of(text: &str) -> u64 {
    blake3::hash(text.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A record that the writer works on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Working {
    pub(crate) document: Document,
    /// The position of its last event; 0 where it has none.
    pub(crate) last: u64,
    /// How many events its stored snapshot holds.
    pub(crate) saved: usize,
    /// What of the document's work is counted already.
    counted: document::Work,
    /// The events that the document holds for trial.
    tried: Vec<(EventId, Event)>,
    /// Whether somebody needed all of its events, and may need them again.
    stays_whole: bool,
}

impl Working {
    /// Counts what deriving the document has cost since it was counted last.
    pub(crate) fn count(&mut self, shared: &Shared) {
        let (before, now) = (self.counted, self.document.work());
        shared.count(|work| {
            work.derived += now.derived.saturating_sub(before.derived);
            work.materialised += now.materialised.saturating_sub(before.materialised);
        });
        self.counted = now;
    }

    /// Applies events for trial, so that a later change of a batch is planned on what they leave.
    pub(crate) fn rehearse(&mut self, events: Vec<(EventId, Event)>) -> Result<()> {
        self.document.begin_trial();
        for (id, event) in &events {
            self.document.apply(*id, event)?;
        }
        self.tried.extend(events);
        Ok(())
    }

    /// Goes back to what the record was before the first trial.
    pub(crate) fn end_trial(&mut self) {
        self.document.end_trial();
        self.tried.clear();
    }

    /// The row of the record's snapshot.
    pub(crate) fn saved_as(&mut self, ledger: LedgerId, key: &RecordKey) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        let document = self.document.save().map_err(|_| internal("a record cannot be saved"))?;
        let bytes = [&self.last.to_le_bytes()[..], &document].concat();
        if bytes.len() > MAX_VALUE_BYTES {
            let message = format!("{}/{} is too large to be saved without its events", key.0, key.1);
            return Err(Error::new(ErrorKind::TooLarge, message).with_hint("keep its events in the log"));
        }
        Ok((row::key(Kind::Document, ledger, &key.0, &key.1), Some(bytes)))
    }

    /// About how many bytes of memory the record takes.
    fn weight(&self) -> usize {
        let registers =
            self.document.registers().iter().map(|(key, lives)| key.len() + lives.len() * 120).sum::<usize>();
        let automerge = if self.document.holds_automerge() { 24_576 } else { 0 };
        let beside = self.document.bytes_of_writes() + self.document.bytes_of_items();
        1_024 + automerge + self.document.graph().held() * 400 + beside + registers * 2
    }
}

/// A moment among staged events.
pub(crate) struct Savepoint {
    staged: usize,
    head: u64,
    sequence: u64,
}

/// One ledger as the writer sees it.
pub(crate) struct State {
    pub(crate) id: LedgerId,
    pub(crate) writer: WriterId,
    /// The writers whose requests are answered: this one, and those from before the ledger was restored.
    pub(crate) own: Vec<WriterId>,
    /// The writer's next number.
    pub(crate) sequence: u64,
    /// The last position, of events that are not yet durable too.
    pub(crate) head: u64,
    /// Events that are appended but not yet durable.
    pub(crate) staged: Vec<Entry>,
    /// Records whose rows are to be made again.
    pub(crate) touched: HashSet<RecordKey, RandomState>,
    records: TwoGenerations<RecordKey, Box<Working>>,
    /// The rows of plain records that were asked for, with what followed on them since.
    tips: HashMap<RecordKey, Arc<Row>, RandomState>,
    /// Rows of the past of plain records that are to be kept, with the position of each.
    marks: Vec<(u64, RecordKey, Vec<u8>)>,
    /// Whether every row is made from its document.
    by_documents: bool,
    /// Whether rows that were made without their document are compared with what that shows.
    checked: bool,
    policies: BTreeMap<String, Arc<CollectionPolicy>>,
    pub(crate) waiting: super::waiting::Waiting,
    pub(crate) constraints: Constraints,
}

impl State {
    pub(crate) fn new(id: LedgerId, writer: WriterId, head: u64, sequence: u64, cache_bytes: usize) -> Self {
        Self {
            id,
            writer,
            own: vec![writer],
            sequence,
            head,
            staged: Vec::new(),
            touched: HashSet::default(),
            records: TwoGenerations::new(cache_bytes),
            tips: HashMap::default(),
            marks: Vec::new(),
            by_documents: false,
            checked: false,
            policies: BTreeMap::new(),
            waiting: super::waiting::Waiting::default(),
            constraints: Constraints::default(),
        }
    }

    /// The same, which makes every row from its document.
    pub(crate) fn by_documents(self) -> Self {
        Self { by_documents: true, ..self }
    }

    /// The same, which compares rows that were made without their document with what that shows.
    pub(crate) fn checked(self, checked: bool) -> Self {
        Self { checked, ..self }
    }

    /// How many records are held in memory, and about how many bytes they take.
    pub(crate) fn cached(&self) -> (u64, u64) {
        (self.records.len() as u64, self.records.weight() as u64)
    }

    /// Lets go of the records that were not used lately, so that about so many bytes stay. To be called when nothing is
    /// staged.
    pub(crate) fn trim_to(&mut self, bytes: usize) {
        self.tips.clear();
        self.records.trim_to(bytes);
    }

    /// Lets go of the records that were not used lately. To be called when nothing is staged.
    pub(crate) fn trim(&mut self) {
        self.records.trim();
    }

    /// Where [`State::go_back`] goes back to.
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint { staged: self.staged.len(), head: self.head, sequence: self.sequence }
    }

    /// Forgets what was staged since. The records are loaded again, with what was staged of them before.
    pub(crate) fn go_back(&mut self, to: Savepoint) {
        for entry in self.staged.split_off(to.staged.min(self.staged.len())) {
            let key = (entry.event.collection, entry.event.key);
            self.constraints.touch(&key);
            self.forget(&key);
        }
        self.marks.retain(|(position, ..)| *position <= to.head);
        (self.head, self.sequence) = (to.head, to.sequence);
        self.policies.clear();
    }

    /// A record that is held.
    pub(crate) fn held(&self, key: &RecordKey) -> Result<&Working> {
        self.records.peek(key).map(Box::as_ref).ok_or_else(|| internal("a record that was just loaded is not held"))
    }

    /// A record's events, those that are not yet durable included, oldest first.
    pub(crate) fn entries(&mut self, shared: &Shared, key: &RecordKey) -> Result<Vec<Entry>> {
        let last = self.recent(shared, key)?.last;
        let durable = last_durable(last, &self.staged, key);
        let mut entries = Log::new(shared, self.id).record(durable, 0)?;
        entries.extend(self.staged.iter().filter(|entry| is_of(&entry.event, key)).cloned());
        Ok(entries)
    }

    /// The record with all of its events, loaded where it is not held so.
    pub(crate) fn record(&mut self, shared: &Shared, key: &RecordKey) -> Result<&mut Working> {
        let working = self.whole(shared, key)?;
        working.stays_whole = true;
        Ok(working)
    }

    /// The record as far as new events need it, loaded where it is not held: it may have forgotten its first events.
    pub(crate) fn recent(&mut self, shared: &Shared, key: &RecordKey) -> Result<&mut Working> {
        if !self.records.contains(key) {
            let working = self.load(shared, key, load_recent)?;
            self.keep(key, working);
        }
        self.held_mut(key)
    }

    /// The record as far as an event needs it.
    pub(crate) fn record_for(
        &mut self,
        shared: &Shared,
        key: &RecordKey,
        id: &EventId,
        event: &Event,
    ) -> Result<&mut Working> {
        if self.recent(shared, key)?.document.lacks(id, event) { self.whole(shared, key) } else { self.held_mut(key) }
    }

    /// The record as far as a change needs it that is made on these events and planned under this policy.
    pub(crate) fn record_on(
        &mut self,
        shared: &Shared,
        key: &RecordKey,
        base: Option<&[EventId]>,
        policy: &Policy,
    ) -> Result<&mut Working> {
        let document = &self.recent(shared, key)?.document;
        let knows = |id: &EventId| document.graph().find(id).is_some();
        let lacks = policy.has_record_scope() || !base.unwrap_or_default().iter().all(knows);
        if lacks { self.whole(shared, key) } else { self.held_mut(key) }
    }

    fn held_mut(&mut self, key: &RecordKey) -> Result<&mut Working> {
        self.records
            .get_mut(key)
            .map(Box::as_mut)
            .ok_or_else(|| internal("a record that was just loaded is not held"))
    }

    fn whole(&mut self, shared: &Shared, key: &RecordKey) -> Result<&mut Working> {
        let before = self.records.peek(key);
        if before.is_some_and(|held| held.document.is_whole()) {
            return self.held_mut(key);
        }
        let before = before.map(|held| (held.last, held.tried.clone()));
        let mut working = match &before {
            // It knows better than its row, which is not shown yet while a log is replayed.
            Some((last, _)) => self.load_from(shared, key, last_durable(*last, &self.staged, key), load_whole)?,
            None => self.load(shared, key, load_whole)?,
        };
        if let Some((_, tried)) = before.filter(|(_, tried)| !tried.is_empty()) {
            working.rehearse(tried)?;
        }
        self.keep(key, working);
        self.held_mut(key)
    }

    fn keep(&mut self, key: &RecordKey, working: Working) {
        let weight = working.weight();
        self.records.insert(key.clone(), Box::new(working), weight);
    }

    /// The record as of its durable events and those staged after them.
    fn load(&self, shared: &Shared, key: &RecordKey, load: Load) -> Result<Working> {
        let last = match self.tips.get(key) {
            // While a log is replayed, no row is shown yet of what was just read.
            Some(row) if self.staged.is_empty() => row.last,
            _ => shared.last_position(self.id, key)?,
        };
        self.load_from(shared, key, last, load)
    }

    /// The same, where its last durable event is known.
    fn load_from(&self, shared: &Shared, key: &RecordKey, last: u64, load: Load) -> Result<Working> {
        let mut working = load(shared, self.id, key, last)?;
        let durable = working.last;
        for entry in self.staged.iter().filter(|entry| is_of(&entry.event, key) && entry.position > durable) {
            if working.document.lacks(&entry.id, &entry.event) {
                return self.load_from(shared, key, last, load_whole);
            }
            apply(shared, self.id, &mut working, entry, &self.staged)?;
        }
        Ok(working)
    }

    /// Forgets what is held of a record: it will be loaded again.
    pub(crate) fn forget(&mut self, key: &RecordKey) {
        self.records.remove(key);
        self.tips.remove(key);
    }

    /// Forgets everything that is held.
    pub(crate) fn forget_all(&mut self) {
        self.records.clear();
        self.tips.clear();
        self.marks.clear();
        self.policies.clear();
        self.constraints = Constraints::default();
    }

    /// Stages an event at the next position.
    pub(crate) fn stage(
        &mut self,
        shared: &Shared,
        id: EventId,
        event: Event,
        received_at: i64,
        run: Option<RunId>,
    ) -> Result<u64> {
        let key = (event.collection.clone(), event.key.clone());
        let (previous, follows) = match self.tip(shared, &key)? {
            Some(row) => (row.last, row.is_followed_by(&event)),
            None => (self.recent(shared, &key)?.last, false),
        };
        let run = run.or(event.run);
        let entry = Entry { position: self.head + 1, id, received_at, run, previous, event };
        self.absorb_at(shared, key, &entry, follows)?;
        self.staged.push(entry);
        Ok(self.head)
    }

    /// Takes in an entry at the next position, which is durable or staged by the caller.
    pub(crate) fn absorb(&mut self, shared: &Shared, entry: &Entry) -> Result<()> {
        let key = (entry.event.collection.clone(), entry.event.key.clone());
        let follows = self.is_followed_by(shared, &key, &entry.event)?;
        self.absorb_at(shared, key, entry, follows)
    }

    fn absorb_at(&mut self, shared: &Shared, key: RecordKey, entry: &Entry, follows: bool) -> Result<()> {
        match follows {
            true => self.follow(shared, &key, entry)?,
            false => self.derive(shared, &key, entry)?,
        }
        if entry.event.writer == self.writer {
            self.sequence = self.sequence.max(entry.event.sequence.saturating_add(1));
        }
        if key.0 == COLLECTIONS {
            self.policies.remove(&key.1);
        }
        self.head = entry.position;
        self.constraints.touch(&key);
        if !self.touched.contains(&key) {
            self.touched.insert(key);
        }
        Ok(())
    }

    /// The row of a record whose next event may need no document: nothing of it is disputed, and all of its fields are
    /// plain values.
    pub(crate) fn tip(&mut self, shared: &Shared, key: &RecordKey) -> Result<Option<&Arc<Row>>> {
        if !self.tips.contains_key(key) {
            let by_document = self.by_documents || self.touched.contains(key);
            if by_document || key.0.starts_with('$') || self.constraints.concern(&key.0) {
                return Ok(None);
            }
            let row = shared.row(self.id, key)?;
            if row.as_ref().is_some_and(|row| row.tip.is_none()) {
                return Ok(None);
            }
            self.tips.insert(key.clone(), row.unwrap_or_default());
        }
        let apart = |row: &Arc<Row>| row.tip.as_ref().is_some_and(|tip| tip.concurrent).then_some(row.policy);
        if let Some(shown) = self.tips.get(key).and_then(apart) {
            // What was made apart may show otherwise under a policy that follows whole records.
            let policy = self.policy(shared, &key.0)?;
            if shown != policy.hash || policy.policy.has_record_scope() {
                return Ok(None);
            }
        }
        Ok(self.tips.get(key).filter(|row| row.tip.is_some()))
    }

    /// Whether an event can be taken in as it is: it is new, and the row after it follows from the record's row.
    pub(crate) fn is_followed_by(&mut self, shared: &Shared, key: &RecordKey, event: &Event) -> Result<bool> {
        Ok(self.tip(shared, key)?.is_some_and(|row| row.is_followed_by(event)))
    }

    /// How many events a record has.
    pub(crate) fn events_of(&mut self, shared: &Shared, key: &RecordKey) -> Result<u64> {
        Ok(self.recent(shared, key)?.document.graph().len() as u64)
    }

    /// The ids of a record's heads, sorted.
    pub(crate) fn heads(&mut self, shared: &Shared, key: &RecordKey) -> Result<Vec<EventId>> {
        match self.tip(shared, key)? {
            Some(row) => Ok(row.heads.to_vec()),
            None => Ok(self.recent(shared, key)?.document.graph().head_ids()),
        }
    }

    /// Takes in an entry whose row follows from the record's row.
    fn follow(&mut self, shared: &Shared, key: &RecordKey, entry: &Entry) -> Result<()> {
        let policy = self.policy(shared, &key.0)?.hash;
        if self.records.contains(key) {
            // It is held, perhaps for good reason: it stays up to date.
            let working = self.record_for(shared, key, &entry.id, &entry.event)?;
            working.document.apply(entry.id, &entry.event)?;
            working.last = entry.position;
        }
        let row = self.tips.get_mut(key).ok_or_else(|| internal("an event follows from a row that is not held"))?;
        let row = Arc::make_mut(row);
        row.follow(entry.position, entry.id, &entry.event, policy);
        if row.is_mark() {
            self.marks.push((entry.position, key.clone(), row.encode()?));
        }
        Ok(())
    }

    /// Takes in an entry by deriving it.
    fn derive(&mut self, shared: &Shared, key: &RecordKey, entry: &Entry) -> Result<()> {
        // Loaded first, with what is staged of it.
        self.record_for(shared, key, &entry.id, &entry.event)?;
        let id = self.id;
        let staged = std::mem::take(&mut self.staged);
        let applied = self.held_mut(key).and_then(|working| apply(shared, id, working, entry, &staged));
        self.staged = staged;
        if applied.is_ok() {
            self.tips.remove(key);
        } else {
            // What is held may have been changed by halves.
            self.records.remove(key);
        }
        applied
    }

    /// The policy of a collection.
    pub(crate) fn policy(&mut self, shared: &Shared, collection: &str) -> Result<Arc<CollectionPolicy>> {
        if let Some(policy) = self.policies.get(collection) {
            return Ok(policy.clone());
        }
        let row = match collection.starts_with('$') {
            true => None,
            false => self.row(shared, &(COLLECTIONS.to_owned(), collection.to_owned()))?,
        };
        let policy = Arc::new(CollectionPolicy::of(collection, row.as_ref(), &shared.resolvers));
        self.policies.insert(collection.to_owned(), policy.clone());
        Ok(policy)
    }

    /// The row of a record as the writer sees it now; `None` where the record has no event.
    pub(crate) fn row(&mut self, shared: &Shared, key: &RecordKey) -> Result<Option<Row>> {
        match self.tip_row(shared, key)? {
            Some(row) => Ok(Some(Row::clone(&row))),
            None => self.row_of_document(shared, key),
        }
    }

    /// The row that followed for a plain record, where it still is what its document would give: no schema or policy came
    /// since that says otherwise.
    fn tip_row(&mut self, shared: &Shared, key: &RecordKey) -> Result<Option<Arc<Row>>> {
        let Some(row) = self.tips.get(key).filter(|row| row.last > 0).cloned() else { return Ok(None) };
        let fits = !self.constraints.concern(&key.0) && row.policy == self.policy(shared, &key.0)?.hash;
        Ok(fits.then_some(row))
    }

    fn row_of_document(&mut self, shared: &Shared, key: &RecordKey) -> Result<Option<Row>> {
        let policy = self.policy(shared, &key.0)?;
        let (id, demands) = (self.id, self.constraints.demands().clone());
        let working = self.record_on(shared, key, None, &policy.policy)?;
        row_of(shared, (id, key), working, &policy, &demands)
    }

    /// Makes the rows of the touched records again.
    pub(crate) fn take_rows(&mut self, shared: &Shared) -> Result<Derived> {
        self.refresh(shared, None)?;
        let mut touched = std::mem::take(&mut self.touched);
        let (mut rows, mut forked) = (Vec::with_capacity(touched.len()), BTreeSet::new());
        for key in touched.drain() {
            if let Some(row) = self.tip_row(shared, &key)? {
                if self.checked {
                    self.check_row(shared, &key, &row)?;
                }
                self.lighten(shared, &key, &row)?;
                rows.push((key, row));
                continue;
            }
            let row = match self.constraints.take_made(&key) {
                Some(row) => Some(row),
                None => self.row_of_document(shared, &key)?,
            };
            if let Some(row) = row {
                forked.extend(self.recent(shared, &key)?.document.graph().forked_writers());
                if self.checked && !self.held(&key)?.document.is_whole() {
                    self.check_row(shared, &key, &row)?;
                }
                self.lighten(shared, &key, &row)?;
                rows.push((key, Arc::new(row)));
            }
        }
        self.tips.clear();
        self.touched = touched;
        // Names that were made one after another are often neighbours: they go into ordered sets faster so.
        rows.sort_unstable_by_key(|(_, row)| row.last);
        Ok(Derived { rows, forked, constraints: self.constraints.take_update() })
    }

    /// Counts what a record that is held has cost, lets it forget what no new event needs, and weighs it.
    fn lighten(&mut self, shared: &Shared, key: &RecordKey, row: &Row) -> Result<()> {
        let by_record = self.policy(shared, &key.0)?.policy.has_record_scope();
        let needs_all = by_record || self.by_documents || key.0.starts_with('$') || self.constraints.concern(&key.0);
        let Some(working) = self.records.get_mut(key) else { return Ok(()) };
        working.count(shared);
        if !needs_all && !working.stays_whole {
            if row.conflicts.is_empty() {
                working.document.note_cut();
            }
            working.document.forget_some();
        }
        let weight = working.weight();
        self.records.reweigh(key, weight);
        Ok(())
    }

    /// Compares a row that was made without its document, or from one that forgot its first events, with what all of the
    /// record's events show.
    fn check_row(&mut self, shared: &Shared, key: &RecordKey, row: &Row) -> Result<()> {
        let (policy, demands) = (self.policy(shared, &key.0)?, self.constraints.demands().clone());
        self.recent(shared, key)?;
        let held = self.held(key)?;
        let mut whole = match held.document.is_whole() {
            true => held.clone(),
            false => self.load_from(shared, key, last_durable(held.last, &self.staged, key), load_whole)?,
        };
        let expected = row_of(shared, (self.id, key), &mut whole, &policy, &demands)?;
        let same = |expected: &Row| expected == row && expected.tip == row.tip && expected.facts == row.facts;
        if expected.as_ref().is_some_and(same) {
            return Ok(());
        }
        let place = format!("{}/{} at position {}", key.0, key.1, row.last);
        Err(internal(&format!("the row of {place} is not what its document shows")))
    }

    /// The rows of the past that are to be kept, of durable events.
    pub(crate) fn take_marks(&mut self) -> Changes {
        let marks = std::mem::take(&mut self.marks).into_iter();
        marks.map(|(position, key, row)| (row::mark(self.id, &key, position), Some(row))).collect()
    }

    /// The snapshots of held records that have at least so many events which no stored one holds.
    pub(crate) fn snapshots(&mut self, events: usize) -> Changes {
        let (id, mut changes) = (self.id, Vec::new());
        for (key, working) in self.records.iter_mut() {
            let (kind, enough) = match working.document.is_whole() {
                // A snapshot costs what the record holds: each is worth at least half of the one before.
                true => (Kind::Document, events.max(working.saved / 2)),
                false => (Kind::Recent, events),
            };
            if working.document.graph().len().saturating_sub(working.saved) < enough {
                continue;
            }
            let Ok(document) = working.document.save() else { continue };
            let bytes = [&working.last.to_le_bytes()[..], &document].concat();
            if bytes.len() > MAX_VALUE_BYTES {
                continue;
            }
            working.saved = working.document.graph().len();
            changes.push((row::key(kind, id, &key.0, &key.1), Some(bytes)));
        }
        changes
    }
}

/// The row of a record; `None` where that has no event.
fn row_of(
    shared: &Shared,
    (ledger, key): (LedgerId, &RecordKey),
    working: &mut Working,
    policy: &CollectionPolicy,
    demands: &Demands,
) -> Result<Option<Row>> {
    if working.last == 0 {
        return Ok(None);
    }
    let record = RecordId { ledger, collection: key.0.clone(), key: key.1.clone() };
    let heads = working.document.graph().head_ids();
    let view = working.document.view()?;
    let mut projection = project(&view, &policy.policy, &shared.resolvers, &record);
    policy.rate(&mut projection.conflicts);
    let facts = constraints::facts(shared, demands, key, &view, &projection);
    let tip = Tip::of(view.graph(), view.registers(), &projection);
    Ok(Some(Row { facts, tip, ..Row::new(working.last, heads, projection, policy.hash) }))
}

/// What the touched records came to.
#[derive(Default)]
pub(crate) struct Derived {
    pub(crate) rows: Vec<(RecordKey, Arc<Row>)>,
    /// The writers that stamped two events of one place in one of them.
    pub(crate) forked: BTreeSet<WriterId>,
    /// What constraints know now.
    pub(crate) constraints: Update,
}

fn is_of(event: &Event, key: &RecordKey) -> bool {
    event.collection == key.0 && event.key == key.1
}

/// Applies an entry to a record, deriving it again from all its events where a fork became known late.
fn apply(shared: &Shared, ledger: LedgerId, working: &mut Working, entry: &Entry, staged: &[Entry]) -> Result<()> {
    match working.document.apply(entry.id, &entry.event) {
        Ok(()) => {}
        Err(ApplyFault::Place(PlaceFault::LateFork)) => {
            let key = (entry.event.collection.clone(), entry.event.key.clone());
            let mut all = Log::new(shared, ledger).record(last_durable(working.last, staged, &key), 0)?;
            all.extend(staged.iter().filter(|other| is_of(&other.event, &key)).cloned());
            all.push(entry.clone());
            let events = all.iter().map(|entry| (entry.id, &entry.event));
            working.count(shared);
            working.document = Document::derive_all(events)?;
            working.counted = document::Work::default();
        }
        Err(fault) => return Err(fault.into()),
    }
    working.last = entry.position;
    Ok(())
}

/// The record's last position before those that are staged.
fn last_durable(last: u64, staged: &[Entry], key: &RecordKey) -> u64 {
    let first = staged.iter().find(|entry| is_of(&entry.event, key));
    first.map_or(last, |entry| entry.previous)
}

/// How a record is loaded as of its durable events, the last of which is at a position.
type Load = fn(&Shared, LedgerId, &RecordKey, u64) -> Result<Working>;

/// A record with all of its events.
fn load_whole(shared: &Shared, ledger: LedgerId, key: &RecordKey, last: u64) -> Result<Working> {
    load(shared, ledger, key, last, None)
}

/// A record as far as new events need it, where a snapshot holds that.
fn load_recent(shared: &Shared, ledger: LedgerId, key: &RecordKey, last: u64) -> Result<Working> {
    let saved = snapshot_of(shared, Kind::Recent, ledger, key).filter(|saved| saved.last <= last);
    let Some(mut working) = saved else { return load_whole(shared, ledger, key, last) };
    for entry in Log::new(shared, ledger).record(last, working.last)? {
        if working.document.lacks(&entry.id, &entry.event) {
            return load_whole(shared, ledger, key, last);
        }
        working.document.apply(entry.id, &entry.event)?;
        working.last = entry.position;
    }
    working.count(shared);
    Ok(working)
}

/// A record as of its durable events, the last of which is at `last`, up to a position where one is given.
pub(crate) fn load(
    shared: &Shared,
    ledger: LedgerId,
    key: &RecordKey,
    last: u64,
    until: Option<u64>,
) -> Result<Working> {
    let log = Log::new(shared, ledger);
    let within = |position: u64| until.is_none_or(|until| position <= until);
    let (mut working, after) = match snapshot(shared, ledger, key).filter(|working| within(working.last)) {
        Some(working) => {
            let last = working.last;
            (working, last)
        }
        None => (Working::default(), 0),
    };
    let entries = log.record(last, after)?;
    for (index, entry) in entries.iter().enumerate().take_while(|(_, entry)| within(entry.position)) {
        match working.document.apply(entry.id, &entry.event) {
            Ok(()) => working.last = entry.position,
            Err(ApplyFault::Place(PlaceFault::LateFork)) => {
                let last = entries.get(index).map_or(last, |entry| entry.position);
                let all = log.record(last, 0)?;
                working.document = Document::derive_all(all.iter().map(|entry| (entry.id, &entry.event)))?;
                working.last = last;
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    working.count(shared);
    Ok(working)
}

/// A record as of its events up to a position, derived from them alone.
pub(crate) fn load_until(shared: &Shared, ledger: LedgerId, key: &RecordKey, until: u64) -> Result<Working> {
    load(shared, ledger, key, shared.last_position(ledger, key)?, Some(until))
}

/// A record as its stored snapshot has it.
pub(crate) fn snapshot(shared: &Shared, ledger: LedgerId, key: &RecordKey) -> Option<Working> {
    snapshot_of(shared, Kind::Document, ledger, key)
}

/// A record as far as new events need it, as a stored snapshot has it.
pub(crate) fn recent_snapshot(shared: &Shared, ledger: LedgerId, key: &RecordKey) -> Option<Working> {
    snapshot_of(shared, Kind::Recent, ledger, key)
}

fn snapshot_of(shared: &Shared, kind: Kind, ledger: LedgerId, key: &RecordKey) -> Option<Working> {
    let bytes = shared.rows.get(&row::key(kind, ledger, &key.0, &key.1)).ok().flatten()?;
    let (position, saved) = bytes.split_first_chunk::<8>()?;
    let last = u64::from_le_bytes(*position);
    let document = Document::load(saved).ok().filter(|document| document.is_whole() == (kind == Kind::Document))?;
    let saved = document.graph().len();
    Some(Working { document, last, saved, ..Working::default() })
}

/// A fault of this program.
pub(crate) fn internal(what: &str) -> Error {
    Error::new(ErrorKind::Consistency, format!("{what}: this is a fault of syncledger"))
        .with_hint("report it with the output of `syncledger verify`")
}
