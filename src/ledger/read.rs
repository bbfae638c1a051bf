//! Reading: records, lists, the log and conflicts, as of the last durable event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::log::Log;
use super::row::{self, Row};
use super::shared::Shared;
use super::state::{self, RecordKey, Working};
use super::{
    AsOf, CollectionInfo, Entry, Ledger, LogQuery, Look, Query, Record, RecordConflict, Status, Target, Which,
};
use crate::document::{Clock, View};
use crate::event::{BatchId, ConflictId, Event, EventId, Timestamp, diff, json};
use crate::projection::{
    Conflict, Content, Policy, Projection, RecordId, Status as ConflictStatus, project, resolved,
};
use crate::{Error, ErrorKind, Result};

/// How many keys a list reads at once.
const PAGE: usize = 1_024;

pub(crate) fn fill(shared: &Shared, content: &Content) -> Result<Json> {
    content.fill(|blob| shared.read_blob(blob))
}

fn ambiguous(what: &str, prefix: &str) -> Error {
    Error::new(ErrorKind::Validation, format!("several {what} start with `{prefix}`"))
        .with_hint("give more of the id")
}

fn no_event(prefix: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no event starts with `{prefix}`"))
        .with_hint("list events with `syncledger log`")
}

impl Ledger {
    pub(super) fn shared(&self) -> &Shared {
        self.store.shared()
    }

    pub(super) fn log_reader(&self) -> Log<'_> {
        Log::new(self.shared(), self.id())
    }

    /// The last durable position.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.shared().journal.head(self.id())
    }

    /// The record of a key, as its collection's policy shows it now; `None` where it never was.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn get(&self, collection: &str, key: &str) -> Result<Option<Record>> {
        self.look(collection, key, &Look::default())
    }

    /// The record of a key, as of a moment and under a policy.
    ///
    /// # Errors
    /// `not_found` where the moment is an event that the record does not have; `corrupt` or `storage`.
    pub fn look(&self, collection: &str, key: &str, look: &Look) -> Result<Option<Record>> {
        let _reading = self.shared().reading();
        let record = (collection.to_owned(), key.to_owned());
        let row = match (&look.as_of, &look.policy) {
            (None, None) => self.row(&record)?,
            _ => self.row_as_of(&record, look)?.map(Arc::new),
        };
        let mut found = row.map(|row| self.record(record, &row)).transpose()?;
        if let Some(found) = found.as_mut().filter(|_| *look == Look::default()) {
            found.conflicts.extend(self.broken_ids(&found.collection, &found.key));
        }
        Ok(found)
    }

    pub(super) fn record(&self, (collection, key): RecordKey, row: &Row) -> Result<Record> {
        Ok(Record {
            collection,
            key,
            value: fill(self.shared(), &row.content.whole())?,
            deleted: row.deleted,
            heads: row.heads.to_vec(),
            conflicts: row.conflicts.iter().map(|conflict| conflict.id).collect(),
        })
    }

    /// The row of a record under its collection's policy.
    pub(super) fn row(&self, key: &RecordKey) -> Result<Option<Arc<Row>>> {
        let Some(row) = self.shared().row(self.id(), key)? else { return Ok(None) };
        let policy = self.shared().policy(self.id(), &key.0)?;
        if row.policy == policy.hash {
            return Ok(Some(row));
        }
        self.row_as_of(key, &Look { as_of: None, policy: Some(policy.policy.clone()) }).map(|row| row.map(Arc::new))
    }

    fn row_as_of(&self, key: &RecordKey, look: &Look) -> Result<Option<Row>> {
        if let Some(row) = look.as_of.map_or(Ok(None), |as_of| self.plain_as_of(key, as_of))? {
            return Ok(Some(row).filter(|row| row.last > 0));
        }
        let policy = self.policy_of(&key.0, look.policy.as_ref())?;
        let own = self.shared().policy(self.id(), &key.0)?;
        self.with_view(key, look.as_of, |working, view| {
            let mut projection = project(view, &policy, &self.shared().resolvers, &self.record_id(key));
            own.rate(&mut projection.conflicts);
            let heads = view.graph().ids(view.graph().heads_of(view.clock()));
            Ok(Row::new(working, heads, projection, 0))
        })
    }

    /// The row of a record as of a moment, where all its events were made in line and leave it plain: nothing was ever
    /// disputed, whatever the policy. `None` where its document has to tell.
    fn plain_as_of(&self, key: &RecordKey, as_of: AsOf) -> Result<Option<Row>> {
        let Some(last) = self.shared().row(self.id(), key)? else { return Ok(None) };
        let Some(tip) = last.tip.as_ref().filter(|tip| !tip.concurrent && !matches!(as_of, AsOf::Event(_))) else {
            return Ok(None);
        };
        let holds = |position: u64, at: Timestamp| match as_of {
            AsOf::Position(until) => position <= until,
            AsOf::Time(millis) => at.millis <= millis,
            AsOf::Event(_) => false,
        };
        if holds(last.last, tip.at) {
            return Ok(Some(Row::clone(&last)));
        }
        let (mut row, end) = self.mark_before(key, last.last, &holds)?;
        let entries = match self.log_reader().record(end, row.last) {
            // Its archive is not there: the document may know as much from a snapshot.
            Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        for entry in entries {
            if !holds(entry.position, entry.event.at) {
                break;
            }
            if !row.is_followed_by(&entry.event) {
                return Ok(None);
            }
            row.follow(entry.position, entry.id, &entry.event, 0);
        }
        Ok(Some(row))
    }

    /// The latest mark of a record that a moment holds, or its beginning; and the position of the mark after it, or `last`.
    fn mark_before(&self, key: &RecordKey, last: u64, holds: &impl Fn(u64, Timestamp) -> bool) -> Result<(Row, u64)> {
        let marks = self.shared().rows.keys(&row::marks(self.id(), key), None, usize::MAX)?;
        let (mut before, mut low, mut high, mut end) = (Row::nothing(), 0, marks.len(), last);
        while low < high {
            let middle = low.midpoint(high);
            let bytes = marks.get(middle).map_or(Ok(None), |mark| self.shared().rows.get(mark))?;
            // One that is gone was of a state that is made again: the record is read from its beginning.
            let mark = bytes.as_deref().and_then(Row::decode).filter(|mark| mark.tip.is_some());
            let Some(mark) = mark else { return Ok((Row::nothing(), last)) };
            if holds(mark.last, mark.tip.as_ref().map_or(Timestamp::MAX, |tip| tip.at)) {
                (before, low) = (mark, middle + 1);
            } else {
                (end, high) = (mark.last, middle);
            }
        }
        Ok((before, end))
    }

    pub(super) fn policy_of(&self, collection: &str, other: Option<&Policy>) -> Result<Policy> {
        match other {
            Some(policy) => Ok(policy.clone()),
            None => Ok(self.shared().policy(self.id(), collection)?.policy.clone()),
        }
    }

    pub(super) fn record_id(&self, key: &RecordKey) -> RecordId {
        RecordId { ledger: self.id(), collection: key.0.clone(), key: key.1.clone() }
    }

    /// The record's document, loaded for this reader alone.
    pub(super) fn working(&self, key: &RecordKey, until: Option<u64>) -> Result<Working> {
        let last = self.shared().last_position(self.id(), key)?;
        state::load(self.shared(), self.id(), key, last, until)
    }

    /// Runs `read` on a view of a record; `None` where the record has no event then. `read` also gets the position of
    /// the record's last event.
    pub(super) fn with_view<T>(
        &self,
        key: &RecordKey,
        as_of: Option<AsOf>,
        read: impl FnOnce(u64, &View<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let until = match as_of {
            Some(AsOf::Position(position)) => Some(position),
            _ => None,
        };
        let mut working = self.working(key, until)?;
        let last = working.last;
        let graph = working.document.graph();
        let clock: Option<Clock> = match as_of {
            None | Some(AsOf::Position(_)) => None,
            Some(AsOf::Time(millis)) => Some(graph.until(Timestamp { millis, counter: u32::MAX })),
            Some(AsOf::Event(event)) => {
                let ix = graph.find(&event).ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("{}/{} has no event {}", key.0, key.1, event.short()))
                })?;
                Some(graph.closure([ix]))
            }
        };
        if last == 0 || clock.as_ref().is_some_and(Clock::is_empty) {
            return Ok(None);
        }
        let view = match clock {
            Some(clock) => working.document.view_at(clock)?,
            None => working.document.view()?,
        };
        read(last, &view).map(Some)
    }

    /// The records of a collection that a query finds, by key.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn list(&self, collection: &str, query: &Query) -> Result<Vec<Record>> {
        let _reading = self.shared().reading();
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut after = query.after.clone();
        while found.len() < limit {
            let keys = self.shared().keys(self.id(), collection, &query.prefix, after.as_deref(), PAGE)?;
            let Some(last) = keys.last().cloned() else { break };
            for key in keys {
                if let Some(record) = self.listed((collection.to_owned(), key), query)? {
                    found.push(record);
                    if found.len() == limit {
                        break;
                    }
                }
            }
            after = Some(last);
        }
        Ok(found)
    }

    fn listed(&self, key: RecordKey, query: &Query) -> Result<Option<Record>> {
        let row = match &query.policy {
            None => self.row(&key)?,
            Some(policy) => self.row_as_of(&key, &Look { as_of: None, policy: Some(policy.clone()) })?.map(Arc::new),
        };
        let Some(row) = row.filter(|row| query.deleted || !row.deleted) else { return Ok(None) };
        if query.changed_since.is_some_and(|since| row.last <= since) {
            return Ok(None);
        }
        let mut record = self.record(key, &row)?;
        if query.policy.is_none() {
            record.conflicts.extend(self.broken_ids(&record.collection, &record.key));
        }
        let shows = |(path, value): &(crate::event::Path, Json)| {
            diff::get(&record.value, path).is_some_and(|shown| json::canonical(shown) == json::canonical(value))
        };
        let matches = query.fields.iter().all(shows);
        Ok(Some(record).filter(|_| matches))
    }

    /// The collections that have records, counted.
    ///
    /// # Errors
    /// None today.
    pub fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let _reading = self.shared().reading();
        Ok(self.shared().meta(self.id(), |meta| {
            let info = |(name, counts): (&String, &super::shared::Counts)| CollectionInfo {
                name: name.clone(),
                records: counts.records,
                events: counts.events,
            };
            meta.collections.iter().map(info).collect()
        }))
    }

    /// Events of the log, in order.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn log(&self, query: &LogQuery) -> Result<Vec<Entry>> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let wanted = |entry: &Entry| {
            query.collection.as_ref().is_none_or(|collection| *collection == entry.event.collection)
                && query.key.as_ref().is_none_or(|key| *key == entry.event.key)
        };
        let (log, mut found) = (self.log_reader(), Vec::new());
        if limit == 0 {
            return Ok(found);
        }
        if !query.reverse {
            log.each(query.after, log.head(), |entry| {
                found.extend(Some(entry).filter(wanted));
                Ok(found.len() < limit)
            })?;
            return Ok(found);
        }
        let mut position = if query.after == 0 { log.head() } else { query.after.saturating_sub(1).min(log.head()) };
        while position > 0 && found.len() < limit {
            found.extend(log.at(position)?.filter(wanted));
            position -= 1;
        }
        Ok(found)
    }

    /// The event of an id, with its position.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn entry(&self, id: EventId) -> Result<Option<Entry>> {
        let (log, mut found) = (self.log_reader(), None);
        log.each(0, log.head(), |entry| {
            found = Some(entry).filter(|entry| entry.id == id);
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// The event whose id starts with `prefix`. Reads the whole log: there is no index of ids.
    ///
    /// # Errors
    /// `not_found`; `validation` where several do.
    pub fn find_event(&self, prefix: &str) -> Result<Entry> {
        let (log, mut found) = (self.log_reader(), Vec::new());
        log.each(0, log.head(), |entry| {
            found.extend(Some(entry).filter(|entry| entry.id.has_prefix(prefix)));
            Ok(found.len() < 2)
        })?;
        if found.len() > 1 {
            return Err(ambiguous("events", prefix));
        }
        found.pop().ok_or_else(|| no_event(prefix))
    }

    /// The event of a record whose id starts with `prefix`.
    ///
    /// # Errors
    /// `not_found`; `validation` where several do.
    pub fn heads_by_prefix(&self, collection: &str, key: &str, prefix: &str) -> Result<EventId> {
        let _reading = self.shared().reading();
        let record = (collection.to_owned(), key.to_owned());
        let last = self.shared().last_position(self.id(), &record)?;
        let entries = self.log_reader().record(last, 0)?;
        let mut found = entries.iter().map(|entry| entry.id).filter(|id| id.has_prefix(prefix));
        let first = found.next().ok_or_else(|| no_event(prefix))?;
        if found.next().is_some() { Err(ambiguous("events", prefix)) } else { Ok(first) }
    }

    // --- conflicts -----------------------------------------------------------------------------------------------

    /// The conflicts of a collection, or of all, by record and path.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn conflicts(
        &self,
        collection: Option<&str>,
        which: Which,
        policy: Option<&Policy>,
    ) -> Result<Vec<RecordConflict>> {
        let _reading = self.shared().reading();
        let mut found = Vec::new();
        let within = |key: &RecordKey| collection.is_none_or(|collection| collection == key.0);
        for key in self.disputed(which)?.into_iter().filter(within) {
            for conflict in self.conflicts_of(&key, which, policy)? {
                found.push(RecordConflict { collection: key.0.clone(), key: key.1.clone(), conflict });
            }
        }
        if policy.is_none() && matches!(which, Which::Open | Which::All) {
            found.extend(self.broken_conflicts(collection)?);
            found.sort_by(|a, b| {
                let place = |found: &RecordConflict| (found.collection.clone(), found.key.clone());
                place(a).cmp(&place(b))
            });
        }
        Ok(found)
    }

    /// The records that have conflicts, or had.
    fn disputed(&self, which: Which) -> Result<BTreeSet<RecordKey>> {
        let mut keys = self.shared().meta(self.id(), |meta| meta.disputed.clone());
        if matches!(which, Which::Resolved | Which::All) {
            let log = self.log_reader();
            log.each(0, log.head(), |entry| {
                if entry.event.resolves.is_some() {
                    keys.insert((entry.event.collection, entry.event.key));
                }
                Ok(true)
            })?;
        }
        Ok(keys)
    }

    pub(super) fn conflicts_of(
        &self,
        key: &RecordKey,
        which: Which,
        policy: Option<&Policy>,
    ) -> Result<Vec<Conflict>> {
        let wanted = |conflict: &Conflict| match which {
            Which::Open => conflict.status == ConflictStatus::Open,
            Which::Auto => matches!(conflict.status, ConflictStatus::Auto { .. }),
            Which::Resolved => matches!(conflict.status, ConflictStatus::Resolved { .. }),
            Which::All => true,
        };
        let mut conflicts = match (which, policy) {
            (Which::Open | Which::Auto, None) => {
                self.row(key)?.map(|row| Vec::clone(&row.conflicts)).unwrap_or_default()
            }
            _ => self.conflicts_with_resolved(key, policy)?,
        };
        conflicts.retain(wanted);
        Ok(conflicts)
    }

    fn conflicts_with_resolved(&self, key: &RecordKey, policy: Option<&Policy>) -> Result<Vec<Conflict>> {
        let policy = self.policy_of(&key.0, policy)?;
        let own = self.shared().policy(self.id(), &key.0)?;
        let found = self.with_view(key, None, |_, view| {
            let (resolvers, record) = (&self.shared().resolvers, self.record_id(key));
            let now: Projection = project(view, &policy, resolvers, &record);
            let settled = resolved(view, &now, &policy, resolvers, &record);
            let mut all: Vec<Conflict> = now.conflicts.into_iter().chain(settled).collect();
            own.rate(&mut all);
            Ok(all)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The conflict of an id that is not settled.
    pub(super) fn conflict(&self, id: ConflictId) -> Result<RecordConflict> {
        let all =
            self.conflicts(None, Which::Open, None)?.into_iter().chain(self.conflicts(None, Which::Auto, None)?);
        all.into_iter().find(|found| found.conflict.id == id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no unsettled conflict {}", id.short()))
                .with_hint("list those that there are with `syncledger conflicts --status all`")
        })
    }

    /// The conflict whose id starts with `prefix`, settled or not.
    ///
    /// # Errors
    /// `not_found`; `validation` where several do.
    pub fn find_conflict(&self, prefix: &str) -> Result<RecordConflict> {
        let mut found = self.conflicts(None, Which::All, None)?;
        found.retain(|found| found.conflict.id.has_prefix(prefix));
        if found.len() > 1 {
            return Err(ambiguous("conflicts", prefix));
        }
        found.pop().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no conflict starts with `{prefix}`"))
                .with_hint("list conflicts with `syncledger conflicts --status all`")
        })
    }

    /// A collection's policy.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn policy(&self, collection: &str) -> Result<Policy> {
        let _reading = self.shared().reading();
        self.policy_of(collection, None)
    }

    // --- what a revert takes back ----------------------------------------------------------------------------------

    /// The events of a target, by record.
    pub(crate) fn events_of(&self, target: &Target) -> Result<BTreeMap<RecordKey, Vec<EventId>>> {
        let is_meant = |entry: &Entry| match target {
            Target::Event(id) => entry.id == *id,
            Target::Batch(id) => entry.event.batch.is_some_and(|batch| batch.id == *id),
            Target::Run(id) => entry.run == Some(*id) || entry.event.run == Some(*id),
        };
        let (log, mut events) = (self.log_reader(), BTreeMap::new());
        log.each(0, log.head(), |entry| {
            if is_meant(&entry) {
                let key = (entry.event.collection, entry.event.key);
                events.entry(key).or_insert_with(Vec::new).push(entry.id);
            }
            Ok(true)
        })?;
        Ok(events)
    }

    /// The last change of this installation that is not taken back, and that itself takes back nothing or the taking back
    /// of a change.
    pub(super) fn last_own(&self) -> Result<Target> {
        let own = self.shared().own_writers(self.id());
        self.last_of(|event| own.contains(&event.writer))
    }

    /// The same of whoever's own such events are.
    pub(super) fn last_of(&self, is_own: impl Fn(&Event) -> bool) -> Result<Target> {
        let log = self.log_reader();
        let (mut reverted, mut undone): (BTreeSet<EventId>, BTreeSet<BatchId>) = (BTreeSet::new(), BTreeSet::new());
        for position in (1..=log.head()).rev() {
            let Some(entry) = log.at(position)? else { continue };
            let batch = entry.event.batch.map(|batch| batch.id);
            if reverted.contains(&entry.id) {
                undone.extend(batch);
                continue;
            }
            reverted.extend(entry.event.reverts);
            let taken_back = batch.is_some_and(|batch| undone.contains(&batch));
            if is_own(&entry.event) && !taken_back && !self.takes_back(&log, &entry)? {
                return Ok(batch.map_or(Target::Event(entry.id), Target::Batch));
            }
        }
        Err(Error::new(ErrorKind::NotFound, "this installation has made no change that could be undone"))
    }

    /// Whether an event takes back a change, rather than the taking back of one.
    fn takes_back(&self, log: &Log<'_>, entry: &Entry) -> Result<bool> {
        let (mut entry, mut takes_back) = (entry.clone(), false);
        while let Some(target) = entry.event.reverts {
            takes_back = !takes_back;
            let earlier = log.record(entry.previous, 0)?;
            match earlier.into_iter().find(|earlier| earlier.id == target) {
                Some(found) => entry = found,
                None => break,
            }
        }
        Ok(takes_back)
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn status(&self) -> Result<Status> {
        let id = self.id();
        let (totals, position, forked) =
            self.shared().meta(id, |meta| (meta.totals(), meta.position, meta.forked.iter().copied().collect()));
        let (waiting, cached) =
            self.shared().gauges.lock().map_or((0, (0, 0)), |gauges| gauges.get(&id).copied().unwrap_or_default());
        Ok(Status {
            position,
            events: totals.events,
            records: totals.records,
            waiting,
            conflicts: self.count_conflicts()?,
            forked_writers: forked,
            bytes: self.bytes()?,
            cached,
        })
    }

    fn count_conflicts(&self) -> Result<Vec<(String, String, String, u64)>> {
        let mut counts: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        let name = |value: Json| value.as_str().unwrap_or_default().to_owned();
        for found in self.all_conflicts()? {
            let conflict = found.conflict;
            let kind = name(serde_json::to_value(conflict.kind).unwrap_or_default());
            let severity = name(serde_json::to_value(conflict.severity).unwrap_or_default());
            *counts.entry((kind, severity, conflict.status.name().to_owned())).or_default() += 1;
        }
        Ok(counts.into_iter().map(|((kind, severity, status), count)| (kind, severity, status, count)).collect())
    }

    /// All conflicts; those that are settled are left out where the archive that tells of them is not there.
    fn all_conflicts(&self) -> Result<Vec<RecordConflict>> {
        match self.conflicts(None, Which::All, None) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                let open = self.conflicts(None, Which::Open, None)?;
                Ok(open.into_iter().chain(self.conflicts(None, Which::Auto, None)?).collect())
            }
            all => all,
        }
    }

    fn bytes(&self) -> Result<(u64, u64, u64)> {
        let journal = self.store.dir().map_or(0, journal_bytes);
        let (sealed, ids) = self.shared().archives.sealed_bytes();
        Ok((journal + sealed, self.shared().rows.bytes_on_disk() + ids, self.shared().blobs.bytes()?))
    }
}

/// How many bytes the directories of the journal's engine have.
fn journal_bytes(store: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
    let is_journal = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("journal");
    entries.filter(is_journal).map(|entry| directory_bytes(&entry.path())).sum()
}

fn directory_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
