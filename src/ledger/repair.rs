//! Repairing broken constraints, where only one repair is possible.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::request::{self, Repair, Repaired, Reshaping};
use super::state::{COLLECTIONS, RecordKey};
use super::writer::Writing;
use super::{Act, Context, Edit, Ledger, Receipt, Write};
use crate::event::{Path, diff, limits};
use crate::schema::{Constraint, Schema, Violation};
use crate::{Result, projection::Content};

/// How often what the repairs made are looked at again: a default that was filled in may change a sum.
const ROUNDS: usize = 4;

impl Ledger {
    /// Repairs what can be repaired in one way only, as ordinary edits: sums are set, missing fields get their default,
    /// references to nothing are removed where the field is optional. With `dry_run`, says what it would do.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn repair(&self, collection: Option<&str>, dry_run: bool, context: &Context) -> Result<Repaired> {
        let request = Reshaping(collection, None);
        if let Some(receipt) = self.answered(&request, context)?.filter(|_| !dry_run) {
            return Ok(Repaired { receipt, repairs: Vec::new(), left: Vec::new() });
        }
        let hash = request::hash(&request, context);
        let (collection, context) = (collection.map(str::to_owned), context.clone());
        self.store.queue().run(self.id(), move |writing| {
            let keyless = Context { idempotency_key: None, ..context.clone() };
            let (chosen, left) = writing.plan_repair(collection.as_deref(), &keyless)?;
            let writes = writes(&chosen);
            let receipt = match dry_run || writes.is_empty() {
                true => Receipt::unchanged(),
                false => writing.write_many(&writes, &context, hash)?,
            };
            Ok(Repaired { receipt, repairs: chosen.into_values().collect(), left })
        })
    }
}

/// What is broken, with the edit that repairs it or why there is none.
type Proposed = Vec<(Violation, Result<Edit, &'static str>)>;

/// What is to be done, by record and field.
type Chosen = BTreeMap<(RecordKey, String), Repair>;

/// What is left, and why.
type Left = Vec<(Violation, String)>;

impl Writing<'_> {
    /// The repairs, and what they leave.
    fn plan_repair(&mut self, collection: Option<&str>, context: &Context) -> Result<(Chosen, Left)> {
        self.state.refresh(self.shared, None)?;
        let mut chosen = Chosen::new();
        for _ in 0..ROUNDS {
            let before = chosen.len();
            for (violation, edit) in self.propose_after(&chosen, collection, context)? {
                let at = ((violation.collection.clone(), violation.key.clone()), violation.path.clone());
                if let Ok(edit) = edit {
                    chosen.insert(at, Repair { violation, edit });
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        let why = |edit: Result<Edit, &'static str>| edit.err().unwrap_or("repairing it breaks something else");
        let left = self.propose_after(&chosen, collection, context)?.into_iter();
        Ok((chosen, left.map(|(violation, edit)| (violation, why(edit).to_owned())).collect()))
    }

    /// What is still to be repaired once these repairs are made.
    fn propose_after(&mut self, chosen: &Chosen, collection: Option<&str>, context: &Context) -> Result<Proposed> {
        let writes = writes(chosen);
        let tried = self.dry_run(|writing| {
            writing.write_for_trial(&writes, context)?;
            writing.propose(collection)
        });
        tried.map(|(proposed, _)| proposed)
    }

    fn write_for_trial(&mut self, writes: &[Write], context: &Context) -> Result<()> {
        for writes in writes.chunks(limits::BATCH_EVENTS) {
            let (plans, blobs) = self.plan_all(writes, context)?;
            self.store_blobs(&blobs)?;
            self.stage_many(plans)?;
        }
        self.state.refresh(self.shared, None)
    }

    /// What is broken now, with what would repair it.
    fn propose(&mut self, collection: Option<&str>) -> Result<Proposed> {
        let index = self.state.constraints.index();
        let within = |key: &&RecordKey| collection.is_none_or(|collection| collection == key.0);
        let broken: Vec<RecordKey> = index.broken().filter(within).cloned().collect();
        let mut proposed = Vec::new();
        for key in broken {
            let schema = self.state.policy(self.shared, &key.0)?.schema.clone();
            let violations = self.state.constraints.index().violations(&key);
            let row = self.state.row(self.shared, &key)?;
            let shown = row.map(|row| row.content.into_whole()).unwrap_or_default();
            let gone = dangling(&violations);
            for violation in violations {
                let edit = match schema.as_deref().filter(|_| key.0 != COLLECTIONS) {
                    Some(schema) => self.repair_of(&key, &violation, schema, &shown, &gone),
                    None => Err("set a schema that is one"),
                };
                proposed.push((violation, edit));
            }
        }
        Ok(proposed)
    }

    fn repair_of(
        &self,
        key: &RecordKey,
        violation: &Violation,
        schema: &Schema,
        shown: &Content,
        gone: &BTreeSet<String>,
    ) -> Result<Edit, &'static str> {
        let path = Path::parse(&violation.path).map_err(|_| "it lies too deep")?;
        match violation.constraint {
            Constraint::Sum => {
                let total = self.state.constraints.index().total(key, &path).to_json();
                total.map(|total| Edit::Put(path, total)).ok_or("no JSON number is exactly the sum")
            }
            Constraint::Schema if violation.subject == "required" => {
                let default = schema.field(&path).and_then(|field| field.default.clone());
                default.map(|default| Edit::Put(path, default)).ok_or("the schema has no default for the field")
            }
            Constraint::Reference => without_reference(schema, &path, shown, gone),
            Constraint::Unique => Err("somebody has to say which record keeps the value"),
            Constraint::Rule => Err("a rule does not say how to keep it"),
            Constraint::Schema | Constraint::Kind => Err("the schema does not say which value would do"),
        }
    }
}

/// Where a record names nothing.
fn dangling(violations: &[Violation]) -> BTreeSet<String> {
    let dangling = violations.iter().filter(|found| found.constraint == Constraint::Reference);
    dangling.map(|found| found.path.clone()).collect()
}

/// The removal of a reference to nothing: the field's, or of all such items of an array.
fn without_reference(
    schema: &Schema,
    path: &Path,
    shown: &Content,
    gone: &BTreeSet<String>,
) -> Result<Edit, &'static str> {
    let field = |path: &Path| schema.field(path).filter(|field| field.references.is_some());
    if let Some(field) = field(path) {
        return if field.required { Err("the field is required") } else { Ok(Edit::Remove(path.clone())) };
    }
    let array = path.parent().filter(|array| field(array).is_some()).ok_or("the schema does not name the field")?;
    let items = diff::get(&shown.json, &array).and_then(Json::as_array).ok_or("it is no array")?;
    let stays = |(index, item): (usize, &Json)| (!gone.contains(&format!("{array}/{index}"))).then(|| item.clone());
    let kept: Vec<Json> = items.iter().enumerate().filter_map(stays).collect();
    Ok(Edit::Put(array, kept.into()))
}

/// One write for each record that is repaired.
fn writes(chosen: &Chosen) -> Vec<Write> {
    let mut edits: BTreeMap<&RecordKey, Vec<Edit>> = BTreeMap::new();
    for ((key, _), repair) in chosen {
        let edits = edits.entry(key).or_default();
        if !edits.contains(&repair.edit) {
            edits.push(repair.edit.clone());
        }
    }
    edits.into_iter().map(|(key, edits)| Write::new(&key.0, &key.1, Act::Edit(edits))).collect()
}
