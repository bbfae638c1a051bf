//! Constraints over records: what the writer knows of them, and how far a local change is held to them.
//!
//! The writer keeps one index with what is staged in it; readers are given the same changes once they are durable.
//!
//! Invariant: no event of another replica is refused here. What it breaks shows as violations, and as conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::edit::Plan;
use super::request::Receipt;
use super::row::Row;
use super::shared::Shared;
use super::state::{COLLECTIONS, RecordKey, SCHEMA, State};
use super::writer::Writing;
use crate::document::View;
use crate::event::{EventId, Path};
use crate::projection::{Projection, RecordId, project};
use crate::schema::{Before, Constraint, Demands, Facts, Index, Schema, Shown, Stamp, Violation};
use crate::{Error, ErrorKind, Result};

/// How many keys are read at once.
const PAGE: usize = 4_096;
/// What the facts of the records that hold schemas are told by.
const SCHEMAS: u64 = 1;
/// How many broken constraints an error tells of.
const TOLD: usize = 8;

/// What constraints know of a ledger's records, what is staged included.
#[derive(Debug)]
pub(crate) struct Constraints {
    index: Index,
    /// By collection, under which demands and policy its facts were taken.
    taken: BTreeMap<String, (u64, u64)>,
    /// Whether a schema or policy may have changed since.
    stale: bool,
    /// Records that changed since.
    pending: BTreeSet<RecordKey>,
    /// Rows that were made on the way, and are still right.
    made: BTreeMap<RecordKey, Row>,
    /// What readers do not know yet.
    unpublished: BTreeSet<RecordKey>,
    new_demands: bool,
}

impl Default for Constraints {
    fn default() -> Self {
        let (index, taken, pending, made, unpublished) = Default::default();
        Self { index, taken, stale: true, pending, made, unpublished, new_demands: true }
    }
}

/// What readers are to know.
#[derive(Debug, Default)]
pub(crate) struct Update {
    demands: Option<Arc<Demands>>,
    facts: Vec<(RecordKey, Option<Arc<Facts>>)>,
}

impl Update {
    /// Takes the change into the readers' index.
    pub(crate) fn apply(self, index: &mut Index) {
        if let Some(demands) = self.demands {
            index.demand(demands);
        }
        for (key, facts) in self.facts {
            index.update(&key, facts, None);
        }
    }
}

impl Constraints {
    /// What is demanded of each collection.
    pub(crate) fn demands(&self) -> &Arc<Demands> {
        self.index.demands()
    }

    /// The index, as of the last refresh.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Whether anything may be demanded of a collection's records.
    pub(crate) fn concern(&self, collection: &str) -> bool {
        self.stale || self.taken.contains_key(collection)
    }

    /// A record changed.
    pub(crate) fn touch(&mut self, key: &RecordKey) {
        self.stale |= key.0 == COLLECTIONS;
        self.made.remove(key);
        if self.stale || self.taken.contains_key(&key.0) {
            self.pending.insert(key.clone());
        }
    }

    /// The row of a record that was made on the way.
    pub(crate) fn take_made(&mut self, key: &RecordKey) -> Option<Row> {
        self.made.remove(key)
    }

    /// What readers do not know yet.
    pub(crate) fn take_update(&mut self) -> Update {
        let demands = std::mem::take(&mut self.new_demands).then(|| self.index.demands().clone());
        let keys = std::mem::take(&mut self.unpublished);
        self.made.clear();
        let facts = keys.into_iter().map(|key| (key.clone(), self.index.facts(&key).cloned())).collect();
        Update { demands, facts }
    }

    fn update(&mut self, key: RecordKey, facts: Option<Arc<Facts>>, before: Option<&mut Before>) {
        self.index.update(&key, facts, before);
        self.unpublished.insert(key);
    }
}

/// What constraints need to know of a record as it is shown; `None` where they say nothing of its collection.
pub(crate) fn facts(
    shared: &Shared,
    demands: &Demands,
    key: &RecordKey,
    view: &View<'_>,
    projection: &Projection,
) -> Option<Arc<Facts>> {
    if key.0 == COLLECTIONS {
        return Some(Arc::new(schema_facts(key, projection)));
    }
    demands.hash(&key.0)?;
    let mut unread = Vec::new();
    let json = fill(shared, projection, &mut unread);
    let json = (!projection.deleted).then_some(&json);
    let stamp = |path: &Path| stamp(view, projection, path);
    demands.facts(&Shown { collection: &key.0, key: &key.1, json, unread: &unread, stamp: &stamp })
}

/// What is shown, with every large value that is here.
fn fill(shared: &Shared, projection: &Projection, unread: &mut Vec<String>) -> Json {
    let mut filled = projection.content.json.clone();
    for (at, blob) in &projection.content.blobs {
        match (shared.read_blob(blob), filled.pointer_mut(at)) {
            (Ok(value), Some(place)) => *place = value,
            _ => unread.push(at.clone()),
        }
    }
    filled
}

/// Who wrote what is shown of a field: the latest of its parts.
fn stamp(view: &View<'_>, projection: &Projection, path: &Path) -> Stamp {
    let of = |ix| view.graph().node(ix).map(|node| Stamp { at: node.at, event: node.id });
    let parts = projection.blame.iter().filter(|blame| blame.path == *path || path.is_prefix_of(&blame.path));
    let written = parts.filter_map(|blame| of(blame.node?)).max();
    // What a custom strategy made is nobody's: it counts as of the record's latest event.
    let latest = || view.graph().heads_of(view.clock()).into_iter().filter_map(of).max();
    written
        .or_else(latest)
        .unwrap_or(Stamp { at: crate::event::Timestamp { millis: 0, counter: 0 }, event: EventId([0; 32]) })
}

/// The facts of a record that holds a schema: whether it is one.
fn schema_facts(key: &RecordKey, projection: &Projection) -> Facts {
    let schema = projection.content.json.get(SCHEMA).filter(|schema| !projection.deleted && !schema.is_null());
    let fault = schema.and_then(|schema| Schema::from_json(schema).err());
    let violation = |message: String| Violation {
        collection: key.0.clone(),
        key: key.1.clone(),
        path: format!("/{SCHEMA}"),
        constraint: Constraint::Schema,
        subject: SCHEMA.to_owned(),
        message,
        critical: false,
    };
    let broken = fault.map(|fault| violation(fault.to_string())).into_iter().collect();
    Facts { demands: SCHEMAS, alive: !projection.deleted, broken, ..Facts::default() }
}

impl State {
    /// Brings what constraints know up to what is staged. `before` keeps what the records that it concerns broke until
    /// then.
    pub(crate) fn refresh(&mut self, shared: &Shared, mut before: Option<&mut Before>) -> Result<()> {
        if self.constraints.stale {
            self.take_demands(shared, before.as_deref_mut())?;
        }
        for key in std::mem::take(&mut self.constraints.pending) {
            if !self.constraints.taken.contains_key(&key.0) {
                continue;
            }
            let row = self.row(shared, &key)?;
            let facts = row.as_ref().and_then(|row| row.facts.clone());
            self.constraints.update(key.clone(), facts, before.as_deref_mut());
            if let Some(row) = row {
                self.constraints.made.insert(key, row);
            }
        }
        Ok(())
    }

    /// Takes up the schemas as they are now. Records of collections of which something else is demanded than before, or
    /// whose policy changed, are looked at again.
    fn take_demands(&mut self, shared: &Shared, mut before: Option<&mut Before>) -> Result<()> {
        let mut schemas = BTreeMap::new();
        for (_, name) in self.all_keys(shared, COLLECTIONS)? {
            if let Some(schema) = self.policy(shared, &name)?.schema.clone() {
                schemas.insert(name, schema);
            }
        }
        let demands = Arc::new(Demands::new(schemas));
        let mut taken = BTreeMap::from([(COLLECTIONS.to_owned(), (SCHEMAS, self.policy(shared, COLLECTIONS)?.hash))]);
        for name in demands.collections() {
            taken.insert(name.clone(), (demands.hash(name).unwrap_or(0), self.policy(shared, name)?.hash));
        }
        self.constraints.index.demand(demands);
        (self.constraints.new_demands, self.constraints.stale) = (true, false);
        let old = std::mem::replace(&mut self.constraints.taken, taken.clone());
        self.constraints.made.retain(|key, _| old.get(&key.0) == taken.get(&key.0));
        for name in old.keys().filter(|name| !taken.contains_key(*name)) {
            let gone: Vec<RecordKey> = self.constraints.index.keys(name).cloned().collect();
            gone.into_iter().for_each(|key| self.constraints.update(key, None, before.as_deref_mut()));
        }
        for (name, now) in taken.iter().filter(|(name, now)| old.get(*name) != Some(*now)) {
            self.look_again(shared, name, *now, before.as_deref_mut())?;
        }
        Ok(())
    }

    /// Takes in what the rows of a collection say, where they were made under its demands and policy; the others are made
    /// again.
    fn look_again(
        &mut self,
        shared: &Shared,
        name: &str,
        now: (u64, u64),
        mut before: Option<&mut Before>,
    ) -> Result<()> {
        for key in self.all_keys(shared, name)? {
            let changed = self.constraints.pending.contains(&key) || self.touched.contains(&key);
            let row = if changed { None } else { shared.row(self.id, &key)? };
            let fits = row.filter(|row| row.facts.as_ref().map(|facts| (facts.demands, row.policy)) == Some(now));
            match fits {
                Some(row) => self.constraints.update(key, row.facts.clone(), before.as_deref_mut()),
                None => {
                    self.constraints.made.remove(&key);
                    self.constraints.pending.insert(key.clone());
                    self.touched.insert(key);
                }
            }
        }
        Ok(())
    }

    /// The keys of a collection's records, of those with staged events only too.
    pub(crate) fn all_keys(&self, shared: &Shared, collection: &str) -> Result<BTreeSet<RecordKey>> {
        let named = |key: String| (collection.to_owned(), key);
        let (mut keys, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let page = shared.keys(self.id, collection, "", after.as_deref(), PAGE)?;
            let Some(last) = page.last().cloned() else { break };
            keys.extend(page.into_iter().map(named));
            after = Some(last);
        }
        keys.extend(self.touched.iter().filter(|key| key.0 == collection).cloned());
        Ok(keys)
    }
}

/// How far a local change is held to the constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// To all of them.
    All,
    /// To what one record says alone: a source delivers its records in any order.
    Own,
}

impl Held {
    /// How far these plans are.
    pub(crate) fn of(plans: &[Plan]) -> Self {
        if plans.iter().any(|plan| plan.marks.delivery) { Self::Own } else { Self::All }
    }
}

/// A record that a change writes.
struct Written {
    key: RecordKey,
    /// The events that the change is made on.
    base: Vec<EventId>,
    last: EventId,
}

impl Writing<'_> {
    /// Stages a change, or nothing where it would break a constraint that holds.
    pub(crate) fn constrained(
        &mut self,
        held: Held,
        work: impl FnOnce(&mut Self) -> Result<Receipt>,
    ) -> Result<Receipt> {
        self.state.refresh(self.shared, None)?;
        self.whole(|writing| {
            let from = writing.state.staged.len();
            let receipt = work(writing)?;
            match writing.newly_broken(from, held)? {
                broken if broken.is_empty() => Ok(receipt),
                broken => Err(refused(&broken)),
            }
        })
    }

    /// What the events staged since break that was not broken before.
    pub(crate) fn newly_broken(&mut self, from: usize, held: Held) -> Result<Vec<Violation>> {
        let mut before = Before::new();
        self.state.refresh(self.shared, Some(&mut before))?;
        if self.state.constraints.index.is_idle() {
            return Ok(Vec::new());
        }
        let (together, apart) = self.written(from)?;
        let (shared, mut broken) = (self.shared, Vec::new());
        let sets_schema = together.iter().chain(&apart).any(|written| written.key.0 == COLLECTIONS);
        let counts_others = held == Held::All && apart.is_empty() && !sets_schema;
        for (key, was) in &before {
            let is_written = together.iter().any(|written| written.key == *key);
            let new = new_ones(was, self.state.constraints.index.violations(key));
            broken.extend(new.filter(|new| (is_written || counts_others) && (held == Held::All || is_own(new))));
        }
        for written in apart {
            // Of most collections nothing is demanded: their records need not be looked at as of anything.
            if !self.state.constraints.concern(&written.key.0) {
                continue;
            }
            let was = self.state.broken_as_of(shared, &written.key, &written.base)?;
            let now = self.state.broken_as_of(shared, &written.key, &[written.last])?;
            broken.extend(new_ones(&was, now));
        }
        Ok(broken)
    }

    /// The records that the events staged since write: on all that was there, and apart from some of it.
    fn written(&mut self, from: usize) -> Result<(Vec<Written>, Vec<Written>)> {
        let mut written: BTreeMap<RecordKey, Written> = BTreeMap::new();
        for entry in self.state.staged.get(from..).unwrap_or_default() {
            let key = (entry.event.collection.clone(), entry.event.key.clone());
            let first = || Written { key: key.clone(), base: entry.event.parents.clone(), last: entry.id };
            written.entry(key.clone()).or_insert_with(first).last = entry.id;
        }
        let (mut together, mut apart) = (Vec::new(), Vec::new());
        for written in written.into_values() {
            let heads = self.state.heads(self.shared, &written.key)?;
            if heads == [written.last] { together.push(written) } else { apart.push(written) }
        }
        Ok((together, apart))
    }
}

impl State {
    /// What a record alone breaks, as one saw it who knew of these events and what they were made on.
    fn broken_as_of(&mut self, shared: &Shared, key: &RecordKey, events: &[EventId]) -> Result<Vec<Violation>> {
        let (policy, demands) = (self.policy(shared, &key.0)?, self.constraints.demands().clone());
        let record = RecordId { ledger: self.id, collection: key.0.clone(), key: key.1.clone() };
        let working = self.record(shared, key)?;
        let nodes: Vec<_> = events.iter().filter_map(|event| working.document.graph().find(event)).collect();
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let clock = working.document.graph().closure(nodes);
        let view = working.document.view_at(clock)?;
        let projection = project(&view, &policy.policy, &shared.resolvers, &record);
        let facts = facts(shared, &demands, key, &view, &projection);
        Ok(facts.map(|facts| facts.broken.clone()).unwrap_or_default())
    }
}

fn new_ones(was: &[Violation], now: Vec<Violation>) -> impl Iterator<Item = Violation> {
    let was: BTreeSet<_> = was.iter().map(Violation::identity).collect();
    now.into_iter().filter(move |now| !was.contains(&now.identity()))
}

/// Whether a record breaks it alone.
fn is_own(violation: &Violation) -> bool {
    matches!(violation.constraint, Constraint::Schema | Constraint::Kind | Constraint::Rule)
}

/// The refusal of a change that breaks these.
pub(crate) fn refused(broken: &[Violation]) -> Error {
    let told =
        |found: &Violation| format!("{}/{}{}: {}", found.collection, found.key, place(&found.path), found.message);
    let mut message = broken.iter().take(TOLD).map(told).collect::<Vec<_>>().join("; ");
    if broken.len() > TOLD {
        message.push_str(&format!("; and {} more", broken.len() - TOLD));
    }
    let pointers = broken.iter().map(|found| found.path.clone()).collect();
    let hint = match broken.first().map(|found| found.constraint) {
        Some(Constraint::Unique) => "give another value, or first change the record that holds this one",
        Some(Constraint::Reference) => "write the record that is named first, or both in one batch",
        Some(Constraint::Sum) => "write the sum and what adds up to it in one batch",
        _ => "see what is expected with `syncledger schema show`",
    };
    Error::new(ErrorKind::Validation, message).with_pointers(pointers).with_hint(hint)
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" at {path}") }
}

impl Writing<'_> {
    /// What is broken now that was not before what is staged and not yet looked at.
    pub(crate) fn all_newly_broken(&mut self) -> Result<Vec<Violation>> {
        let mut before = Before::new();
        self.state.refresh(self.shared, Some(&mut before))?;
        let index = &self.state.constraints.index;
        Ok(before.iter().flat_map(|(key, was)| new_ones(was, index.violations(key))).collect())
    }
}
