//! The work-flow of conflicts: who looks after one, what was said of it, how it came to stand as it does, and how many
//! there are of which age.
//!
//! What people say of a conflict is the record `$conflicts/<id>`: ordinary edits in the same log, which replicate and merge
//! (the last write of a field wins). Everything else is read from the events of the disputed record.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::history::Replay;
use super::request::{self, Act, AsOf, Edit, Entry, RecordConflict, Revision, Which, Write};
use super::state::{CONFLICTS, RecordKey};
use super::{Context, Ledger, Receipt};
use crate::event::{ConflictId, EventId, Path};
use crate::projection::{Conflict, ConflictKind, Policy, Severity, Status, Strategy, project, resolved};
use crate::{Error, ErrorKind, Result};

/// What people say of a conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotation {
    /// Who looks after it.
    pub assignee: Option<String>,
    /// The last note.
    pub note: Option<String>,
}

/// A step in the history of a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictStep {
    /// The event that made it, where it stands here, and who wrote it.
    pub entry: Entry,
    /// What happened.
    pub what: Happening,
}

/// What happened to a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Candidates disagreed for the first time: how many there were.
    Opened(usize),
    /// A candidate came to it: how many there were then.
    Grew(usize),
    /// A candidate was replaced, or went: how many there were then.
    Changed(usize),
    /// Somebody settled it.
    Resolved,
    /// It went by an edit that had seen all candidates.
    Edited,
    /// It was open once more: how many candidates there were.
    Reopened(usize),
    /// Somebody was to look after it, or nobody any more.
    Assigned(Option<String>),
    /// Something was said of it, or taken back.
    Noted(Option<String>),
}

impl Happening {
    /// Its name: `opened`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Grew(_) => "grew",
            Self::Changed(_) => "changed",
            Self::Resolved => "resolved",
            Self::Edited => "edited",
            Self::Reopened(_) => "reopened",
            Self::Assigned(_) => "assigned",
            Self::Noted(_) => "noted",
        }
    }
}

/// How many conflicts there are of one collection, kind, severity, status and rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictCount {
    /// The collection.
    pub collection: String,
    /// What disagrees.
    pub kind: ConflictKind,
    /// How much it matters.
    pub severity: Severity,
    /// `open`, `auto` or `resolved`.
    pub status: &'static str,
    /// The strategy that decided it, where one did.
    pub rule: Option<String>,
    /// How many.
    pub count: u64,
    /// When the oldest came to be: when its second candidate was stamped, in milliseconds since 1970.
    pub oldest: i64,
    /// How many are younger than an hour, a day, a week, 30 days, and older.
    pub ages: [u64; 5],
}

/// The bounds of [`ConflictCount::ages`], in milliseconds.
const AGES: [i64; 4] = [3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000];

impl Ledger {
    /// Says who looks after a conflict, or something about it; what is `None` stays as it is, and an empty text takes
    /// it back.
    ///
    /// # Errors
    /// `not_found` where there is no such conflict, settled or not; as [`Ledger::write`].
    pub fn annotate(&self, conflict: ConflictId, annotation: &Annotation, context: &Context) -> Result<Receipt> {
        self.write(self.annotating(conflict, annotation)?, context)
    }

    /// The write that [`Ledger::annotate`] makes.
    pub(super) fn annotating(&self, conflict: ConflictId, annotation: &Annotation) -> Result<Write> {
        let found = self.find_conflict(&conflict.to_string())?;
        let mut edits = Vec::new();
        for (name, text) in [("assignee", &annotation.assignee), ("note", &annotation.note)] {
            match text.as_deref() {
                None => {}
                Some("") => edits.push(Edit::Remove(field(name)?)),
                Some(text) => edits.push(Edit::Put(field(name)?, text.into())),
            }
        }
        said_of(found, edits)
    }

    /// What was said of a conflict last.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn annotation(&self, conflict: ConflictId) -> Result<Annotation> {
        let record = self.get(CONFLICTS, &conflict.to_string())?.filter(|record| !record.deleted);
        let value = record.map(|record| record.value).unwrap_or_default();
        Ok(Annotation { assignee: text(Some(&value), "assignee"), note: text(Some(&value), "note") })
    }

    /// Takes back the resolution of a conflict: it is open again, with the candidates that it had.
    ///
    /// # Errors
    /// `not_found` where there is no such conflict; `conflict` where nobody settled it, or its field was edited since.
    pub fn reopen(&self, conflict: ConflictId, context: &Context) -> Result<Receipt> {
        let (id, request) = (self.id(), Reopening(conflict));
        if let Some(receipt) = self.answered(&request, context)? {
            return Ok(receipt);
        }
        let (events, write) = self.reopening(conflict)?;
        let (hash, own) = (request::hash(&request, context), context.clone());
        let receipt = self.store.queue().run(id, move |writing| {
            writing.once(&own, hash, |writing| writing.revert_and(events, &[write], &own, hash))
        })?;
        match receipt.skipped.first() {
            Some(left) if receipt.events.is_empty() => {
                Err(Error::new(ErrorKind::Conflict, format!("the conflict stays settled: {}", left.why))
                    .with_hint("edit the field instead"))
            }
            _ => Ok(receipt),
        }
    }

    /// The event that a reopening takes back, and the write that says who did it: the candidates come back under the
    /// names of those who wrote them.
    pub(super) fn reopening(&self, conflict: ConflictId) -> Result<(BTreeMap<RecordKey, Vec<EventId>>, Write)> {
        let found = self.find_conflict(&conflict.to_string())?;
        let event = resolution(&found.conflict)?;
        let events = BTreeMap::from([((found.collection.clone(), found.key.clone()), vec![event])]);
        Ok((events, said_of(found, vec![Edit::Increment(field("reopened")?, 1)])?))
    }

    /// Settles all open conflicts, of one collection or of all, with what a strategy shows of each, as one batch (above
    /// 4,096 events as several, all or nothing). What the strategy does not decide is left, and listed as skipped.
    ///
    /// # Errors
    /// `validation` for a strategy that decides nothing; as [`Ledger::resolve`].
    pub fn resolve_all(&self, collection: Option<&str>, strategy: &Strategy, context: &Context) -> Result<Receipt> {
        let (records, policy) = self.to_settle(collection, strategy)?;
        let (context, id) = (context.clone(), self.id());
        let span = tracing::info_span!("resolve", ledger = %id, collection = collection.unwrap_or_default(), records = records.len());
        let _entered = span.enter();
        let hash = request::hash(&ResolvingAll(collection, strategy), &context);
        self.store.queue().run(id, move |writing| {
            writing.once(&context, hash, |writing| writing.resolve_all(&records, &policy, &context, hash))
        })
    }

    /// The records with open conflicts, and the policy to settle them by.
    pub(super) fn to_settle(
        &self,
        collection: Option<&str>,
        strategy: &Strategy,
    ) -> Result<(BTreeSet<RecordKey>, Policy)> {
        if matches!(strategy, Strategy::Merge | Strategy::Manual) {
            let message = format!("the strategy `{}` leaves conflicts open", strategy.name());
            return Err(Error::new(ErrorKind::Validation, message)
                .with_hint("name one that decides: last_write_wins, source_wins:jira,app, …"));
        }
        let open = self.conflicts(collection, Which::Open, None)?;
        let records = open.into_iter().map(|open| (open.collection, open.key)).collect();
        Ok((records, Policy::of(strategy.clone())))
    }

    /// How a conflict came to stand as it does, under its collection's policy: what happened to it on this replica, in
    /// the order of the log.
    ///
    /// # Errors
    /// `not_found` where there is no such conflict.
    pub fn conflict_history(&self, conflict: ConflictId) -> Result<Vec<ConflictStep>> {
        let found = self.find_conflict(&conflict.to_string())?;
        let mut steps = self.happenings(&(found.collection, found.key), conflict)?;
        for revision in self.history(CONFLICTS, &conflict.to_string())? {
            by_whom(&mut steps, &revision);
            steps.extend(said(&revision));
        }
        steps.sort_by_key(|step| step.entry.position);
        Ok(steps)
    }

    fn happenings(&self, record: &RecordKey, conflict: ConflictId) -> Result<Vec<ConflictStep>> {
        let _reading = self.shared().reading();
        let policy = self.policy_of(&record.0, None)?;
        let entries = self.log_reader().record(self.shared().last_position(self.id(), record)?, 0)?;
        let (mut replay, mut course, mut steps) = (Replay::default(), Course::default(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            replay.apply(entry, entries.get(..=index).unwrap_or_default())?;
            let view = replay.document.view()?;
            let (resolvers, id) = (&self.shared().resolvers, self.record_id(record));
            let now = project(&view, &policy, resolvers, &id);
            let settled = resolved(&view, &now, &policy, resolvers, &id);
            let stands = now.conflicts.iter().chain(&settled).find(|found| found.id == conflict);
            steps.extend(course.step(stands).map(|what| ConflictStep { entry: entry.clone(), what }));
        }
        Ok(steps)
    }

    /// Counts of conflicts by collection, kind, severity, status and rule, with their ages; with `since`, only of those
    /// that have a candidate that came after that position or was stamped after that time.
    ///
    /// # Errors
    /// `validation` where `since` is an event.
    pub fn conflict_counts(&self, since: Option<AsOf>) -> Result<Vec<ConflictCount>> {
        let now = i64::try_from(self.shared().now_ms()).unwrap_or(i64::MAX);
        let mut counts: BTreeMap<_, ConflictCount> = BTreeMap::new();
        for found in self.conflicts(None, Which::All, None)? {
            if self.is_since(&found, since)? {
                let count = ConflictCount::of(&found);
                counts.entry(count.group()).or_insert(count).add(opened_at(&found.conflict).unwrap_or(now), now);
            }
        }
        Ok(counts.into_values().collect())
    }

    fn is_since(&self, found: &RecordConflict, since: Option<AsOf>) -> Result<bool> {
        let candidates = &found.conflict.candidates;
        match since {
            None => Ok(true),
            Some(AsOf::Time(millis)) => Ok(candidates.iter().any(|candidate| candidate.at.millis > millis)),
            Some(AsOf::Position(position)) => {
                let record = (found.collection.clone(), found.key.clone());
                let _reading = self.shared().reading();
                let last = self.shared().last_position(self.id(), &record)?;
                let later: BTreeSet<EventId> =
                    self.log_reader().record(last, position)?.into_iter().map(|entry| entry.id).collect();
                Ok(candidates.iter().any(|candidate| later.contains(&candidate.event)))
            }
            Some(AsOf::Event(_)) => Err(Error::new(ErrorKind::Validation, "expected a position or a time")),
        }
    }
}

/// The event that settled a conflict.
fn resolution(conflict: &Conflict) -> Result<EventId> {
    let refuse = |message: &str, hint: &str| {
        let message = format!("conflict {} {message}", conflict.id.short());
        Err(Error::new(ErrorKind::Conflict, message).with_hint(hint))
    };
    match conflict.status {
        Status::Resolved { event, .. } => Ok(event),
        Status::Open => refuse("is open already", "settle it with `syncledger resolve`"),
        Status::Auto { .. } => {
            refuse("was decided by a rule, not by a person", "set another policy, or settle it by hand")
        }
    }
}

/// A write of the record in `$conflicts`.
fn said_of(found: RecordConflict, edits: Vec<Edit>) -> Result<Write> {
    let place = [
        Edit::Put(field("collection")?, found.collection.into()),
        Edit::Put(field("key")?, found.key.into()),
        Edit::Put(field("path")?, found.conflict.path.into()),
    ];
    let edits = place.into_iter().chain(edits).collect();
    Ok(Write::new(CONFLICTS, found.conflict.id.to_string(), Act::Edit(edits)))
}

/// The request of [`Ledger::reopen`].
pub(super) struct Reopening(pub(super) ConflictId);

impl request::Request for Reopening {
    fn described(&self) -> Json {
        serde_json::json!(["reopen", self.0.to_string()])
    }
}

/// The request of [`Ledger::resolve_all`].
pub(super) struct ResolvingAll<'a>(pub(super) Option<&'a str>, pub(super) &'a Strategy);

impl request::Request for ResolvingAll<'_> {
    fn described(&self) -> Json {
        serde_json::json!(["resolve_all", self.0, Policy::of(self.1.clone()).to_json()])
    }
}

fn field(name: &str) -> Result<Path> {
    Ok(Path::root().join(name)?)
}

fn text(value: Option<&Json>, name: &str) -> Option<String> {
    value?.get(name)?.as_str().map(str::to_owned)
}

/// What a change of the record in `$conflicts` said.
fn said(revision: &Revision) -> Vec<ConflictStep> {
    let (before, after) = (revision.before.as_ref(), revision.after.as_ref());
    let changed = |name| Some(text(after, name)).filter(|now| *now != text(before, name));
    let assigned = changed("assignee").map(Happening::Assigned);
    let noted = changed("note").map(Happening::Noted);
    let step = |what| ConflictStep { entry: revision.entry.clone(), what };
    assigned.into_iter().chain(noted).map(step).collect()
}

/// A reopening is of the person who asked for it, not of those whose candidates came back by it.
fn by_whom(steps: &mut [ConflictStep], revision: &Revision) {
    let batch = |entry: &Entry| entry.event.batch.map(|batch| batch.id);
    let reopened = revision.changes.iter().any(|change| change.path.as_str() == "/reopened");
    let came_back = steps.iter_mut().find(|step| {
        let is_back = matches!(step.what, Happening::Reopened(_));
        reopened && is_back && batch(&step.entry).is_some() && batch(&step.entry) == batch(&revision.entry)
    });
    if let Some(step) = came_back {
        step.entry = revision.entry.clone();
    }
}

/// How a conflict stood after the last event.
#[derive(Default)]
struct Course {
    /// Whether it was settled, its version and its number of candidates; `None` where it was not there.
    stood: Option<(bool, [u8; 32], usize)>,
    was_there: bool,
}

impl Course {
    fn step(&mut self, stands: Option<&Conflict>) -> Option<Happening> {
        let stands =
            stands.map(|now| (matches!(now.status, Status::Resolved { .. }), now.version, now.candidates.len()));
        let before = std::mem::replace(&mut self.stood, stands);
        let what = match (before, stands) {
            (None, Some((false, _, count))) if self.was_there => Some(Happening::Reopened(count)),
            (None, Some((false, _, count))) => Some(Happening::Opened(count)),
            (Some((true, ..)), Some((false, _, count))) => Some(Happening::Reopened(count)),
            (Some((false, was, less)), Some((false, is, count))) if was != is && count > less => {
                Some(Happening::Grew(count))
            }
            (Some((false, was, _)), Some((false, is, count))) if was != is => Some(Happening::Changed(count)),
            (None | Some((false, ..)), Some((true, ..))) => Some(Happening::Resolved),
            (Some(_), None) => Some(Happening::Edited),
            _ => None,
        };
        self.was_there |= stands.is_some();
        what
    }
}

/// When a conflict came to be: when the second of its candidates was stamped; none where it has none, as a broken rule has.
fn opened_at(conflict: &Conflict) -> Option<i64> {
    let mut stamps: Vec<i64> = conflict.candidates.iter().map(|candidate| candidate.at.millis).collect();
    stamps.sort_unstable();
    stamps.get(1).or(stamps.first()).copied()
}

impl ConflictCount {
    /// A count of nothing, of the group that a conflict is in.
    fn of(found: &RecordConflict) -> Self {
        let conflict = &found.conflict;
        let rule = match &conflict.status {
            Status::Auto { rule } => Some(rule.clone()),
            Status::Open | Status::Resolved { .. } => None,
        };
        Self {
            collection: found.collection.clone(),
            kind: conflict.kind,
            severity: conflict.severity,
            status: conflict.status.name(),
            rule,
            count: 0,
            oldest: i64::MAX,
            ages: [0; 5],
        }
    }

    fn group(&self) -> (String, ConflictKind, Severity, &'static str, Option<String>) {
        (self.collection.clone(), self.kind, self.severity, self.status, self.rule.clone())
    }

    fn add(&mut self, opened: i64, now: i64) {
        self.count += 1;
        self.oldest = self.oldest.min(opened);
        let age = now.saturating_sub(opened);
        let bucket = AGES.iter().position(|bound| age < *bound).unwrap_or(AGES.len());
        if let Some(ages) = self.ages.get_mut(bucket) {
            *ages += 1;
        }
    }
}
