//! Policies tried on history: what another policy would have decided otherwise, record by record and moment by moment.
//!
//! Nothing is written. Only records that were ever edited apart are looked at: of the others every policy shows the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::Ledger;
use super::read::fill;
use super::request::{AsOf, Decision, Entry, Tried};
use super::state::RecordKey;
use crate::Result;
use crate::document::{ApplyFault, Document, PlaceFault};
use crate::event::{EventId, diff};
use crate::projection::{Conflict, DELETED, Policy, Projection, Scope, Status, project};

/// How many keys are read at once.
const PAGE: usize = 1_024;

impl Ledger {
    /// What another policy would have decided otherwise in a collection: for each field, from which event on it would
    /// have shown another value, or have left open what is decided now, and until when. By key, then by the event that it
    /// began with, then by path. With a moment, only what held after it.
    ///
    /// Both policies are applied to all of history, as everywhere: what is *now* is what the collection's present policy
    /// shows of a moment, not what the policy of that time did.
    ///
    /// # Errors
    /// `corrupt` or `storage`; `validation` where the moment is an event.
    pub fn try_policy(&self, collection: &str, policy: &Policy, since: Option<AsOf>) -> Result<Vec<Tried>> {
        let mut found = Vec::new();
        self.try_policy_with(collection, policy, since, &mut |tried| {
            found.push(tried);
            Ok(())
        })?;
        Ok(found)
    }

    /// [`Ledger::try_policy`], telling each as it is found. Memory holds one record's events, and the keys of the records
    /// that were edited apart.
    ///
    /// # Errors
    /// As [`Ledger::try_policy`], and those of `tell`, which end it.
    pub fn try_policy_with(
        &self,
        collection: &str,
        policy: &Policy,
        since: Option<AsOf>,
        tell: &mut dyn FnMut(Tried) -> Result<()>,
    ) -> Result<()> {
        let since = Since::of(since)?;
        let _reading = self.shared().reading();
        let now = self.policy_of(collection, None)?;
        let merged = self.merged_records(collection)?;
        let mut after: Option<String> = None;
        loop {
            let keys = self.shared().keys(self.id(), collection, "", after.as_deref(), PAGE)?;
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            for key in keys {
                let key = (collection.to_owned(), key);
                let Some(row) = self.shared().row(self.id(), &key)? else { continue };
                if row.heads.len() < 2 && !merged.contains(&key.1) {
                    continue;
                }
                let found = Trial::new(self, key, &now, policy).run(row.last)?;
                found.into_iter().filter(|tried| since.admits(tried)).try_for_each(&mut *tell)?;
            }
            after = Some(last);
        }
    }

    /// The keys of records with an event that was made on several: who was edited apart has one, or several heads.
    fn merged_records(&self, collection: &str) -> Result<BTreeSet<String>> {
        let (log, mut found) = (self.log_reader(), BTreeSet::new());
        log.each(0, log.head(), |entry| {
            if entry.event.parents.len() > 1 && entry.event.collection == collection {
                found.insert(entry.event.key);
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

/// The moment after which something must have held.
enum Since {
    Ever,
    Position(u64),
    Time(i64),
}

impl Since {
    fn of(moment: Option<AsOf>) -> Result<Self> {
        match moment {
            None => Ok(Self::Ever),
            Some(AsOf::Position(position)) => Ok(Self::Position(position)),
            Some(AsOf::Time(millis)) => Ok(Self::Time(millis)),
            Some(AsOf::Event(event)) => {
                let message = format!("expected a position or a time, got event {}", event.short());
                Err(crate::Error::new(crate::ErrorKind::Validation, message))
            }
        }
    }

    fn admits(&self, tried: &Tried) -> bool {
        match (self, &tried.until) {
            (Self::Ever, _) | (_, None) => true,
            (Self::Position(position), Some((until, _))) => until > position,
            (Self::Time(millis), Some((_, at))) => at.millis > *millis,
        }
    }
}

/// What differs at a moment, by path.
type Differences = BTreeMap<String, (Decision, Decision, String)>;

/// A walk along a record's events under two policies.
struct Trial<'a> {
    ledger: &'a Ledger,
    key: RecordKey,
    now: &'a Policy,
    then: &'a Policy,
    document: Document,
    /// What differs since an earlier event.
    standing: BTreeMap<String, Tried>,
    found: Vec<Tried>,
}

impl<'a> Trial<'a> {
    fn new(ledger: &'a Ledger, key: RecordKey, now: &'a Policy, then: &'a Policy) -> Self {
        let (document, standing, found) = Default::default();
        Self { ledger, key, now, then, document, standing, found }
    }

    /// Everything that differs in the record whose last event is at a position.
    fn run(mut self, last: u64) -> Result<Vec<Tried>> {
        let entries = self.ledger.log_reader().record(last, 0)?;
        for (index, entry) in entries.iter().enumerate() {
            self.apply(entry, entries.get(..=index).unwrap_or_default())?;
            // Until somebody edits apart, every policy shows the same.
            if self.document.graph().is_concurrent() {
                let differences = self.differences()?;
                self.step(entry, differences);
            }
        }
        self.ledger.shared().count(|work| work.derived += entries.len() as u64);
        self.found.extend(self.standing.into_values());
        self.found.sort_by(|a, b| (a.position, &a.path).cmp(&(b.position, &b.path)));
        Ok(self.found)
    }

    fn apply(&mut self, entry: &Entry, so_far: &[Entry]) -> Result<()> {
        match self.document.apply(entry.id, &entry.event) {
            Ok(()) => Ok(()),
            Err(ApplyFault::Place(PlaceFault::LateFork)) => {
                self.document = Document::derive_all(so_far.iter().map(|entry| (entry.id, &entry.event)))?;
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    fn differences(&mut self) -> Result<Differences> {
        let shared = self.ledger.shared();
        let record = self.ledger.record_id(&self.key);
        let view = self.document.view()?;
        let under = |policy: &Policy| project(&view, policy, &shared.resolvers, &record);
        let (now, then) = (Seen::of(self.ledger, under(self.now))?, Seen::of(self.ledger, under(self.then))?);
        let decided = now.differing(&then).into_iter().map(|path| {
            let because = then.because(&path, self.then);
            let decisions = (now.decision(&path), then.decision(&path), because);
            (path, decisions)
        });
        Ok(decided.collect())
    }

    /// Ends what no longer differs so, and begins what newly does.
    fn step(&mut self, entry: &Entry, mut differences: Differences) {
        let (standing, ended) = std::mem::take(&mut self.standing).into_iter().partition(|(path, tried)| {
            differences
                .get(path)
                .is_some_and(|(now, then, because)| (now, then, because) == (&tried.now, &tried.then, &tried.because))
        });
        self.standing = standing;
        let ended: BTreeMap<String, Tried> = ended;
        let until = Some((entry.position, entry.event.at));
        self.found.extend(ended.into_values().map(|tried| Tried { until, ..tried }));
        differences.retain(|path, _| !self.standing.contains_key(path));
        for (path, (now, then, because)) in differences {
            let tried = self.tried(entry, path.clone(), now, then, because);
            self.standing.insert(path, tried);
        }
    }

    fn tried(&self, entry: &Entry, path: String, now: Decision, then: Decision, because: String) -> Tried {
        let event: EventId = entry.id;
        let (key, position, at) = (self.key.1.clone(), entry.position, entry.event.at);
        Tried { key, path, now, then, because, position, event, at, until: None }
    }
}

/// What a policy shows of a record at a moment.
struct Seen {
    value: Json,
    deleted: bool,
    conflicts: BTreeMap<String, Conflict>,
}

impl Seen {
    fn of(ledger: &Ledger, projection: Projection) -> Result<Self> {
        let value = fill(ledger.shared(), &projection.content)?;
        let mut conflicts: BTreeMap<String, Conflict> = BTreeMap::new();
        for conflict in projection.conflicts {
            // A field may have the name by which the deletion goes; then the path is open where either is.
            let hidden = conflicts.get(&conflict.path).is_some_and(|known| known.status == Status::Open);
            if !hidden {
                conflicts.insert(conflict.path.clone(), conflict);
            }
        }
        Ok(Self { value, deleted: projection.deleted, conflicts })
    }

    /// The paths at which another shows another value, or leaves open what is decided here, or the reverse.
    fn differing(&self, other: &Self) -> BTreeSet<String> {
        let changes = diff::diff(Some(&self.value), Some(&other.value));
        let mut paths: BTreeSet<String> = changes.into_iter().map(|change| change.path.to_string()).collect();
        let conflicts = self.conflicts.keys().chain(other.conflicts.keys());
        paths.extend(conflicts.filter(|path| self.is_open(path) != other.is_open(path)).cloned());
        if self.deleted != other.deleted {
            paths.insert(DELETED.to_owned());
        }
        paths
    }

    fn is_open(&self, path: &str) -> bool {
        self.conflicts.get(path).is_some_and(|conflict| conflict.status == Status::Open)
    }

    fn decision(&self, path: &str) -> Decision {
        let open = self.is_open(path);
        let is_deletion = path == DELETED && self.value.get("$deleted").is_none();
        let value = if is_deletion { Some(self.deleted.into()) } else { self.value.pointer(path).cloned() };
        Decision { value, open }
    }

    /// Why a path shows what it shows: what the conflict there, above or below it says.
    fn because(&self, path: &str, policy: &Policy) -> String {
        let covers = |at: &str| at == path || is_below(path, at) || is_below(at, path);
        let nearest = self.conflicts.values().filter(|conflict| covers(&conflict.path));
        if let Some(conflict) = nearest.max_by_key(|conflict| (!is_below(&conflict.path, path), conflict.path.len()))
        {
            return conflict.because.clone();
        }
        let strategy = crate::event::Path::parse(path).map(|path| policy.strategy(&path).clone()).unwrap_or_default();
        match strategy.scope() {
            Scope::Record => format!("{}: the whole record of its writer", strategy.name()),
            Scope::Field => format!("{}: nobody disagrees here, so every edit is shown", strategy.name()),
        }
    }
}

/// Whether a pointer lies below another.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}
