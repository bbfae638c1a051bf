//! Migrations: the edits that bring the records of a collection to a new shape.

use serde_json::Value as Json;

use super::constraints::{Held, refused};
use super::request::{self, Migrated, Reshaping};
use super::writer::Writing;
use super::{Act, Context, Ledger, Outcome, Planned, Query, Receipt, Record, Write};
use crate::event::{RunId, limits};
use crate::schema::{Template, Violation};
use crate::{Error, ErrorKind, Result};

/// How many records an error names.
const NAMED: usize = 8;

impl Ledger {
    /// Makes of every record of a collection what an expression says: minijinja over `record`, its fields and `key`, or a
    /// JSON object whose strings are `{{ expressions }}`. Only what differs becomes edits. All records are migrated, or
    /// none; with `dry_run`, none, and what would break is told.
    ///
    /// # Errors
    /// `validation` where the expression is none, fits a record not, or breaks a constraint; `conflict` where a record
    /// was changed meanwhile.
    pub fn migrate(&self, collection: &str, source: &str, dry_run: bool, context: &Context) -> Result<Migrated> {
        let template = Template::parse(source)?;
        let request = Reshaping(Some(collection), Some(source));
        if let Some(receipt) = self.answered(&request, context)?.filter(|_| !dry_run) {
            return Ok(Migrated { receipt, planned: Vec::new(), broken: Vec::new() });
        }
        let hash = request::hash(&request, context);
        let records = self.list(collection, &Query::default())?;
        let writes = migrations(&template, records)?;
        let context = context.clone();
        self.store.queue().run(self.id(), move |writing| writing.migrate(&writes, dry_run, &context, hash))
    }
}

fn migrations(template: &Template, records: Vec<Record>) -> Result<Vec<Write>> {
    let (mut writes, mut faults) = (Vec::new(), Vec::new());
    for record in records {
        match template.evaluate(&record.key, &record.value) {
            Ok(value @ Json::Object(_)) => {
                let write = Write::new(&record.collection, &record.key, Act::Put(value));
                writes.push(write.expecting(record.heads));
            }
            Ok(_) => faults.push(format!("{}/{}: it makes no JSON object", record.collection, record.key)),
            Err(why) => faults.push(format!("{}/{}: {why}", record.collection, record.key)),
        }
    }
    if faults.is_empty() {
        return Ok(writes);
    }
    let more = faults.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let named = faults.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    let message = format!("the expression does not fit {} of the records: {named}{more}", faults.len());
    Err(Error::new(ErrorKind::Validation, message).with_hint("`is defined` tells whether a record has a field"))
}

impl Writing<'_> {
    fn migrate(&mut self, writes: &[Write], dry_run: bool, context: &Context, request: [u8; 32]) -> Result<Migrated> {
        self.state.refresh(self.shared, None)?;
        let keyless = Context { idempotency_key: None, ..context.clone() };
        let ((planned, broken), _) = self.dry_run(|writing| writing.try_migration(writes, &keyless))?;
        let nothing = Receipt::unchanged();
        if dry_run || planned.is_empty() {
            return Ok(Migrated { receipt: nothing, planned, broken });
        }
        if !broken.is_empty() {
            return Err(breaking(&broken));
        }
        let receipt = self.write_many(writes, context, request)?;
        Ok(Migrated { receipt, planned, broken })
    }

    fn try_migration(&mut self, writes: &[Write], context: &Context) -> Result<(Vec<Planned>, Vec<Violation>)> {
        let (from, mut planned) = (self.state.staged.len(), Vec::new());
        for writes in writes.chunks(limits::BATCH_EVENTS) {
            let (plans, blobs) = self.plan_all(writes, context)?;
            self.store_blobs(&blobs)?;
            let changes = plans.iter().filter(|plan| !plan.ops.is_empty());
            planned.extend(changes.map(|plan| Planned {
                collection: plan.key.0.clone(),
                key: plan.key.1.clone(),
                ops: plan.ops.clone(),
            }));
            self.stage_many(plans)?;
        }
        Ok((planned, self.newly_broken(from, Held::All)?))
    }

    /// Makes all writes or none, in as many batches as it takes. What changes nothing makes no event.
    pub(crate) fn write_many(&mut self, writes: &[Write], context: &Context, request: [u8; 32]) -> Result<Receipt> {
        let run = context.run.unwrap_or(RunId((self.shared.world.random)()?));
        let named = Context { run: Some(run), ..context.clone() };
        let context = Context { idempotency_key: None, ..named.clone() };
        let (mut plans, mut blobs) = (Vec::new(), Vec::new());
        for writes in writes.chunks(limits::BATCH_EVENTS) {
            let (more, contents) = self.plan_all(writes, &context)?;
            plans.extend(more);
            blobs.extend(contents);
        }
        self.store_blobs(&blobs)?;
        let plans = plans.into_iter().map(|plan| plan.in_context(&named)).collect();
        let mut receipt = self.commit_all(plans, Some(request))?;
        receipt.run = Some(run).filter(|_| receipt.outcome == Outcome::Appended);
        Ok(receipt)
    }
}

fn breaking(broken: &[Violation]) -> Error {
    let mut records: Vec<_> = broken.iter().map(|found| (&found.collection, &found.key)).collect();
    records.dedup();
    let fault = refused(broken);
    let message = format!("the migration breaks constraints of {} records: {}", records.len(), fault.message());
    Error::new(ErrorKind::Validation, message)
        .with_pointers(fault.pointers().to_vec())
        .with_hint("`--dry-run` lists them all; nothing was changed")
}
