//! Schemas and broken constraints, as readers see them: every broken constraint is an open conflict.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::state::{COLLECTIONS, RecordKey, SCHEMA};
use super::{Act, Context, Edit, Ledger, Receipt, RecordConflict, Write};
use crate::event::{ConflictId, EventId, Path, conflict_version, constraint_id, hex};
use crate::projection::{Candidate, Conflict, ConflictKind, Content, Severity, Status, candidate_of};
use crate::schema::{Constraint, Index, Schema, Stamp, Violation};
use crate::{Error, ErrorKind, Result};

impl Ledger {
    /// Sets a collection's schema. Records that are not as it says stay as they are, and show as violations.
    ///
    /// # Errors
    /// `validation` or `too_large` where it is no schema; as [`Ledger::write`].
    pub fn set_schema(&self, collection: &str, schema: &Json, context: &Context) -> Result<Receipt> {
        self.write(self.schema_write(collection, schema)?, context)
    }

    /// Removes a collection's schema.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn remove_schema(&self, collection: &str, context: &Context) -> Result<Receipt> {
        let edit = Edit::Remove(Path::root().join(SCHEMA)?);
        self.edit(COLLECTIONS, collection, vec![edit], context)
    }

    fn schema_write(&self, collection: &str, schema: &Json) -> Result<Write> {
        if collection.starts_with('$') {
            let message = format!("the system collection `{collection}` takes no schema");
            return Err(Error::new(ErrorKind::Validation, message));
        }
        Schema::from_json(schema)?;
        self.setting(collection, Edit::PutAtomic(Path::root().join(SCHEMA)?, schema.clone()))
    }

    /// The write that sets what a collection's record in the system collection says of it. Taking back its first setting
    /// has deleted that record.
    pub(super) fn setting(&self, collection: &str, edit: Edit) -> Result<Write> {
        let is_deleted = self.get(COLLECTIONS, collection)?.is_some_and(|record| record.deleted);
        let edits = if is_deleted { vec![Edit::Restore, edit] } else { vec![edit] };
        Ok(Write::new(COLLECTIONS, collection, Act::Edit(edits)))
    }

    /// A collection's schema; `None` where it has none that can be read.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn schema(&self, collection: &str) -> Result<Option<Json>> {
        let _reading = self.shared().reading();
        let policy = self.shared().policy(self.id(), collection)?;
        Ok(policy.schema.as_ref().map(|schema| schema.to_json().clone()))
    }

    /// What setting a schema would break that is not broken now, without setting it.
    ///
    /// # Errors
    /// As [`Ledger::set_schema`].
    pub fn try_schema(&self, collection: &str, schema: &Json, context: &Context) -> Result<Vec<Violation>> {
        let (write, context) = (self.schema_write(collection, schema)?, context.clone());
        self.store.queue().run(self.id(), move |writing| {
            writing.state.refresh(writing.shared, None)?;
            let tried = writing.dry_run(|writing| {
                let (plans, _) = writing.plan_all(&[write], &context)?;
                writing.stage_many(plans)?;
                writing.all_newly_broken()
            });
            tried.map(|(broken, _)| broken)
        })
    }

    /// The constraints that the records of a collection, or of all, break: by record and path.
    ///
    /// # Errors
    /// None today.
    pub fn violations(&self, collection: Option<&str>) -> Result<Vec<Violation>> {
        let _reading = self.shared().reading();
        let within = |key: &&RecordKey| collection.is_none_or(|collection| collection == key.0);
        Ok(self
            .shared()
            .index(self.id(), |index| index.broken().filter(within).flat_map(|key| index.violations(key)).collect()))
    }

    /// The key of the record that holds a value of a unique field.
    ///
    /// # Errors
    /// None today.
    pub fn holder(&self, collection: &str, path: &Path, value: &Json) -> Result<Option<String>> {
        let _reading = self.shared().reading();
        let value = crate::schema::value_text(value);
        Ok(self.shared().index(self.id(), |index| index.holder(collection, path, &value).cloned()))
    }

    /// The ids of the conflicts about constraints that a record breaks, or that another breaks by showing a value that it
    /// holds.
    pub(super) fn broken_ids(&self, collection: &str, key: &str) -> Vec<ConflictId> {
        let key = (collection.to_owned(), key.to_owned());
        self.shared().index(self.id(), |index| {
            if index.facts(&key).is_none() {
                return Vec::new();
            }
            let own = index.violations(&key).into_iter().map(|violation| self.id_of(&violation));
            let shared = index.unique_values(&key).filter_map(|unique| {
                let others = index.showing(collection, &unique.path, &unique.value).nth(1).is_some();
                others.then(|| self.unique_id(collection, unique.path.as_str(), &unique.value))
            });
            own.chain(shared).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    fn id_of(&self, violation: &Violation) -> ConflictId {
        match violation.constraint {
            Constraint::Unique => self.unique_id(&violation.collection, &violation.path, &violation.subject),
            other => {
                let Violation { collection, key, path, subject, .. } = violation;
                constraint_id(self.id(), other.name(), &[collection, key, path, subject])
            }
        }
    }

    fn unique_id(&self, collection: &str, path: &str, value: &str) -> ConflictId {
        constraint_id(self.id(), Constraint::Unique.name(), &[collection, path, value])
    }

    /// The conflicts about broken constraints. Those who show one unique value have one conflict, listed with the first
    /// of them that does not hold it.
    pub(super) fn broken_conflicts(&self, collection: Option<&str>) -> Result<Vec<RecordConflict>> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for violation in self.violations(collection)? {
            if seen.insert(self.id_of(&violation)) {
                found.push(self.broken_conflict(violation)?);
            }
        }
        Ok(found)
    }

    fn broken_conflict(&self, violation: Violation) -> Result<RecordConflict> {
        let showing = self.shared().index(self.id(), |index| showing(index, &violation));
        let (id, key) = (self.id_of(&violation), showing.get(1).map_or(&violation.key, |(_, key)| key).clone());
        let (mut candidates, mut because) = (Vec::new(), violation.message.clone());
        for (stamp, key) in &showing {
            candidates.extend(self.candidate(&violation, *stamp, key)?);
        }
        if showing.len() > 1 {
            let names: Vec<_> = showing.iter().map(|(_, key)| format!("{}/{key}", violation.collection)).collect();
            because = format!("one value in {}: the first holds it", names.join(", "));
        }
        let record = (violation.collection.clone(), key.clone());
        let row = self.shared().row(self.id(), &record)?;
        let mut events: Vec<EventId> = showing.iter().map(|(stamp, _)| stamp.event).collect();
        if events.is_empty() {
            events = row.as_ref().map(|row| row.heads.to_vec()).unwrap_or_default();
        }
        events.sort_unstable();
        let conflict = Conflict {
            id,
            version: conflict_version(&events),
            kind: ConflictKind::Constraint,
            severity: if violation.critical { Severity::Critical } else { Severity::Medium },
            status: Status::Open,
            base: None,
            candidates,
            shown: row.and_then(|row| row.content.whole().at(&violation.path)),
            taken: None,
            because,
            path: violation.path,
        };
        Ok(RecordConflict { collection: violation.collection, key, conflict })
    }

    /// One of the records that show a unique value, as a candidate.
    fn candidate(&self, violation: &Violation, stamp: Stamp, key: &str) -> Result<Option<Candidate>> {
        let record = (violation.collection.clone(), key.to_owned());
        let value: Option<Content> =
            self.shared().row(self.id(), &record)?.and_then(|row| row.content.whole().at(&violation.path));
        let working = self.working(&record, None)?;
        let graph = working.document.graph();
        Ok(graph.find(&stamp.event).and_then(|ix| candidate_of(graph, ix, value)))
    }
}

/// The records that show the unique value which a violation is about, the holder first.
fn showing(index: &Index, violation: &Violation) -> Vec<(Stamp, String)> {
    let path = Path::parse(&violation.path).ok().filter(|_| violation.constraint == Constraint::Unique);
    let showing = path.map(|path| index.showing(&violation.collection, &path, &violation.subject).cloned().collect());
    showing.unwrap_or_default()
}

/// Refuses to settle what no choice among candidates settles.
pub(super) fn check_settleable(found: &RecordConflict) -> Result<()> {
    if found.conflict.kind != ConflictKind::Constraint {
        return Ok(());
    }
    let (record, id) = (format!("{}/{}", found.collection, found.key), hex(&found.conflict.id.0[..5]));
    let message = format!("{id} is a broken constraint of {record}: {}", found.conflict.because);
    Err(Error::new(ErrorKind::Validation, message)
        .with_pointers(vec![found.conflict.path.clone()])
        .with_hint("edit the record, or see what `syncledger violations --fix` can repair"))
}
