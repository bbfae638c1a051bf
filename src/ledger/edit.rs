//! Local changes, in the writer thread: planned against what the record shows, stamped, and staged.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::constraints::Held;
use super::draft::{Draft, Fields, Shown};
use super::dry_run::Planned;
use super::request::{self, Act, Context, Delivered, Delivery, Outcome, Receipt, Write};
use super::row::Row;
use super::state::{COLLECTIONS, CONFLICTS, RecordKey, State, Working, internal};
use super::writer::Writing;
use crate::blob::BlobStore as _;
use crate::document::NodeIx;
use crate::event::{
    BatchId, BatchMember, BlobRef, Body, ConflictId, Container, Event, EventId, FirstImport, Idempotency, LedgerId,
    Op, Part, RunId, Timestamp, WriterId, chain, count_parts, limits,
};
use crate::projection::{Containers, Content, RecordId, plain, project, project_fields};
use crate::{Error, ErrorKind, Result};

/// What the events of a change have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) delivery: bool,
    pub(crate) resolves: Option<ConflictId>,
    /// The events that the change takes back, oldest first: one event says so of each.
    pub(crate) reverts: Vec<EventId>,
    /// The execution that brings the events, kept beside them.
    pub(crate) brought_by: Option<RunId>,
}

/// A change of one record, ready to be stamped.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) key: RecordKey,
    /// The events that it is made on; `None` for the heads that the record has when it is staged.
    pub(crate) parents: Option<Vec<EventId>>,
    pub(crate) ops: Vec<Op>,
    /// How many events the operations take; 0 where nothing changes.
    parts: usize,
    context: Arc<Context>,
    pub(crate) marks: Marks,
    /// The ids of the events that its rehearsal made, by which later plans of the batch name them.
    rehearsed: Vec<EventId>,
}

impl Plan {
    /// A plan of these operations on these parents: at least one event, also without an operation.
    pub(crate) fn new(
        key: RecordKey,
        parents: impl Into<Option<Vec<EventId>>>,
        ops: Vec<Op>,
        context: impl Into<Arc<Context>>,
        marks: Marks,
    ) -> Result<Self> {
        let (parts, context) = (count_parts(&ops)?, context.into());
        Ok(Self { key, parents: parents.into(), ops, parts, context, marks, rehearsed: Vec::new() })
    }

    /// The plan, made in another context.
    pub(crate) fn in_context(self, context: &Context) -> Self {
        Self { context: Arc::new(context.clone()), ..self }
    }

    /// A plan that changes nothing.
    fn nothing(key: RecordKey, context: Arc<Context>) -> Self {
        let (parents, ops, parts, marks, rehearsed) = Default::default();
        Self { key, parents, ops, parts, context, marks, rehearsed }
    }

    /// The plan with the ids of rehearsed events replaced by those of the staged ones.
    fn rename(&mut self, staged: &BTreeMap<EventId, EventId>) {
        if staged.is_empty() {
            return;
        }
        let renamed = |id: &EventId| staged.get(id).copied().unwrap_or(*id);
        self.parents.iter_mut().flatten().for_each(|parent| *parent = renamed(parent));
        for op in &mut self.ops {
            if let Op::Insert { container, .. } | Op::RemoveAt { container, .. } | Op::SpliceText { container, .. } =
                op
                && let Container::Of(id, _) = container
            {
                *id = renamed(id);
            }
        }
    }

    /// How many events the plan takes, with those that merge heads beyond the limit of parents and those that say what
    /// is taken back.
    pub(crate) fn events(&self) -> usize {
        match self.parts {
            0 => 0,
            parts => {
                merges(self.parents.as_ref().map_or(0, Vec::len)) + self.marks.reverts.len().saturating_sub(1) + parts
            }
        }
    }
}

/// A plan, and the contents of the blobs that it names.
type Planning = (Plan, Vec<Vec<u8>>);

/// Some records.
type Records = HashSet<RecordKey, RandomState>;

/// Plans, and the contents of the blobs that they name.
type Plans = (Vec<Plan>, Vec<Vec<u8>>);

/// The plan of a draft.
fn planned(key: RecordKey, parents: Option<Vec<EventId>>, draft: Draft, context: &Arc<Context>) -> Result<Planning> {
    let context = context.clone();
    let plan = match draft.ops.is_empty() && context.idempotency_key.is_none() {
        true => Plan::nothing(key, context),
        false => Plan::new(key, parents, draft.ops, context, Marks::default())?,
    };
    Ok((plan, draft.blobs))
}

/// How many events it takes to bring a number of heads down to the limit of parents.
fn merges(heads: usize) -> usize {
    heads.saturating_sub(limits::PARENTS).div_ceil(limits::PARENTS - 1)
}

/// Parts of a change that are each within the limits of a batch, in order.
fn batches(plans: Vec<Plan>) -> Result<Vec<Vec<Plan>>> {
    let (mut batches, mut batch, mut count) = (Vec::new(), Vec::new(), 0);
    for plan in plans {
        let events = plan.events();
        check_batch(events)?;
        if count + events > limits::BATCH_EVENTS {
            batches.push(std::mem::take(&mut batch));
            count = 0;
        }
        count += events;
        batch.push(plan);
    }
    batches.push(batch);
    Ok(batches)
}

fn check_batch(events: usize) -> Result<()> {
    if events > limits::BATCH_EVENTS {
        let message = format!("a batch has at most {} events, this one takes {events}", limits::BATCH_EVENTS);
        return Err(Error::new(ErrorKind::TooLarge, message).with_hint("split it into several"));
    }
    Ok(())
}

impl Writing<'_> {
    fn now(&self) -> i64 {
        self.shared.stamp_ms(self.state.id)
    }

    fn random(&self) -> Result<[u8; 16]> {
        (self.shared.world.random)()
    }

    /// Makes all writes or none.
    pub(crate) fn write_all(&mut self, writes: &[Write], context: &Context) -> Result<Receipt> {
        let request = context.idempotency_key.as_ref().map(|_| request::hash(writes, context));
        if let Some(receipt) = self.answered(context, request)? {
            return Ok(receipt);
        }
        let run = match (context.run, writes) {
            (None, [_, _, ..]) => Some(RunId(self.random()?)),
            (run, _) => run,
        };
        let context = Context { run, ..context.clone() };
        let (plans, blobs) = self.plan_all(writes, &context)?;
        self.store_blobs(&blobs)?;
        let mut receipt = self.commit(plans, request)?;
        receipt.run = run;
        Ok(receipt)
    }

    /// What `work` would append. Nothing of it stays.
    pub(crate) fn dry_run<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Vec<Planned>)> {
        let before = self.state.savepoint();
        let staged = self.state.staged.len();
        let outer = std::mem::replace(&mut self.dry, true);
        let done = work(self);
        let planned = self.state.staged.iter().skip(staged).map(Planned::of).collect();
        self.state.go_back(before);
        self.dry = outer;
        if !outer {
            self.shared.dry_blobs.clear();
        }
        Ok((done?, planned))
    }

    /// Stores large values, durably; in a dry run only where this thread reads them again.
    pub(crate) fn store_blobs(&self, blobs: &[Vec<u8>]) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let contents: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        if self.dry {
            self.shared.dry_blobs.put_many(&contents)?;
        } else {
            self.shared.blobs.put_many(&contents)?;
        }
        Ok(())
    }

    /// Does what a request asks, or answers as before.
    pub(crate) fn once(
        &mut self,
        context: &Context,
        hash: [u8; 32],
        work: impl FnOnce(&mut Self) -> Result<Receipt>,
    ) -> Result<Receipt> {
        match self.answered(context, Some(hash))? {
            Some(receipt) => Ok(receipt),
            None => work(self),
        }
    }

    /// The receipt of a request that was answered before.
    pub(crate) fn answered(&self, context: &Context, hash: Option<[u8; 32]>) -> Result<Option<Receipt>> {
        let (Some(name), Some(hash)) = (&context.idempotency_key, hash) else { return Ok(None) };
        let staged = self.state.staged.iter().filter(|entry| {
            let event = &entry.event;
            let is_named = event.idempotency.as_ref().is_some_and(|request| request.key == *name);
            is_named && event.source == context.source && event.writer == self.state.writer
        });
        let staged: Vec<_> = staged.collect();
        let (known, positions) = match staged.first().and_then(|entry| entry.event.idempotency.as_ref()) {
            Some(first) => (first.request_hash, staged.iter().map(|entry| entry.position).collect()),
            None => match self.shared.request(self.state.id, &context.source, name)? {
                Some(known) => known,
                None => return Ok(None),
            },
        };
        if known != hash {
            let message =
                format!("the idempotency key `{name}` of source `{}` was used for another request", context.source);
            return Err(
                Error::new(ErrorKind::IdempotencyMismatch, message).with_hint("use a new key for a new request")
            );
        }
        let events = positions.into_iter().map(|position| Ok((self.event_at(position)?, position)));
        let events = events.collect::<Result<Vec<_>>>()?;
        Ok(Some(Receipt { outcome: Outcome::Duplicate, events, run: None, skipped: Vec::new() }))
    }

    fn event_at(&self, position: u64) -> Result<EventId> {
        if let Some(entry) = self.state.staged.iter().find(|entry| entry.position == position) {
            return Ok(entry.id);
        }
        let log = super::log::Log::new(self.shared, self.state.id);
        let entry = log.at(position)?.ok_or_else(|| internal("a request's event is not in the log"))?;
        Ok(entry.id)
    }

    /// Plans writes one after another, each on what those before it leave. Nothing is staged.
    pub(crate) fn plan_all(&mut self, writes: &[Write], context: &Context) -> Result<Plans> {
        if writes.len() > limits::BATCH_EVENTS {
            let message = format!("a batch has at most {} writes, got {}", limits::BATCH_EVENTS, writes.len());
            return Err(Error::new(ErrorKind::TooLarge, message).with_hint("split it into several"));
        }
        let mut seen: HashSet<_, RandomState> =
            HashSet::with_capacity_and_hasher(writes.len(), RandomState::default());
        let again = writes.iter().filter(|write| !seen.insert((&write.collection, &write.key)));
        let repeated: Records = again.map(record_of).collect();
        for (index, write) in writes.iter().enumerate() {
            let at = |fault: Error| if writes.len() > 1 { in_batch(fault, index) } else { fault };
            check_names(write, self.own).map_err(at)?;
            if let Some(expected) = &write.expect {
                expect_heads(&self.state.heads(self.shared, &record_of(write))?, expected, write).map_err(at)?;
            }
        }
        let inside = |write: &&Write| write.needs_document();
        let mut documents: Records = writes.iter().filter(inside).map(record_of).collect();
        let context = &Arc::new(context.clone());
        let planned = match self.plan_each(writes, context, &repeated, &documents) {
            Ok(None) => {
                self.end_trials(documents.intersection(&repeated))?;
                documents.extend(repeated.iter().cloned());
                self.plan_each(writes, context, &repeated, &documents)
            }
            planned => planned,
        };
        self.end_trials(documents.intersection(&repeated))?;
        planned?.ok_or_else(|| internal("writes could not be planned on their records' documents"))
    }

    fn end_trials<'k>(&mut self, keys: impl Iterator<Item = &'k RecordKey>) -> Result<()> {
        for key in keys {
            self.state.recent(self.shared, key)?.end_trial();
        }
        Ok(())
    }

    /// Plans writes: those of `documents` on their records' documents, which are then in a trial where they are written
    /// again; the others, where that can be, on what the rows of plain records show. `None` where a record that is written
    /// again turns out to need its document.
    fn plan_each(
        &mut self,
        writes: &[Write],
        context: &Arc<Context>,
        repeated: &Records,
        documents: &Records,
    ) -> Result<Option<Plans>> {
        let (mut plans, mut blobs) = (Vec::with_capacity(writes.len()), Vec::new());
        // What the plans so far leave of the records that are written again.
        let mut left: HashMap<RecordKey, Arc<Row>, RandomState> = HashMap::default();
        for (index, write) in writes.iter().enumerate() {
            let at = |fault: Error| if writes.len() > 1 { in_batch(fault, index) } else { fault };
            let key = record_of(write);
            let (again, by_document) = (repeated.contains(&key), documents.contains(&key));
            let row = match left.get(&key) {
                _ if by_document => None,
                Some(row) => Some(row.clone()),
                None => self.state.tip(self.shared, &key)?.cloned(),
            };
            let (mut plan, contents) = match &row {
                Some(row) => self.plan_on(key, row, write, context).map_err(at)?,
                None if again && !by_document => return Ok(None),
                None => self.plan(write, context).map_err(at)?,
            };
            match row {
                Some(mut row) if again && plan.parts > 0 => {
                    // What it makes has no name yet, by which a later write could work in it.
                    if !plain::follows(&plan.ops, &row.conflicts) || plan.ops.iter().any(plain::is_make) {
                        return Ok(None);
                    }
                    left.remove(&plan.key);
                    Arc::make_mut(&mut row).foresee(&plan.ops);
                    left.insert(plan.key.clone(), row);
                }
                None if again => self.rehearse(&mut plan)?,
                _ => {}
            }
            plans.push(plan);
            blobs.extend(contents);
        }
        Ok(Some((plans, blobs)))
    }

    /// Plans one write on what the row of a plain record shows.
    fn plan_on(&mut self, key: RecordKey, row: &Row, write: &Write, context: &Arc<Context>) -> Result<Planning> {
        let (policy, shared) = (self.state.policy(self.shared, &key.0)?, self.shared);
        let read = |blob: &BlobRef| shared.read_blob(blob);
        let content = match write.act.fields() {
            Some(fields) => Cow::Owned(row.content.only(&fields)),
            None => row.content.whole(),
        };
        let (containers, none) = (row.tip.as_ref().map(|tip| &tip.containers), Containers::default());
        let shown = Shown {
            fields: Fields::Plain(containers.unwrap_or(&none)),
            content: &content,
            deleted: row.deleted,
            conflicts: &row.conflicts,
            exists: row.last > 0,
            read: &read,
            schema: policy.schema.as_deref(),
        };
        let draft = Draft::new(&write.act, &shown).map_err(|fault| of_record(fault, &key))?;
        planned(key, None, draft, context)
    }

    /// Applies a plan to its record for trial, so that the batch's next write of it is planned on that.
    pub(crate) fn rehearse(&mut self, plan: &mut Plan) -> Result<()> {
        if plan.events() == 0 {
            return Ok(());
        }
        let sequence = self.state.sequence.saturating_add(1 << 32);
        self.state.recent(self.shared, &plan.key)?;
        let place = Standing::of(self.state, plan)?;
        let stamping = Stamping::new(self.state, self.now(), sequence, place, plan);
        let events = stamping.events(plan.ops.clone(), None, None)?;
        plan.rehearsed = events.iter().map(|(id, _)| *id).collect();
        for (id, event) in &events {
            self.state.record_for(self.shared, &plan.key, id, event)?;
        }
        self.state.recent(self.shared, &plan.key)?.rehearse(events)
    }

    /// Plans one write.
    fn plan(&mut self, write: &Write, context: &Arc<Context>) -> Result<Planning> {
        check_names(write, self.own)?;
        let key = record_of(write);
        let policy = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let shared = self.shared;
        let working = self.state.record_on(shared, &key, write.base.as_deref(), &policy.policy)?;
        let base = base(working, write)?;
        let parents = match &base {
            Some(base) => working.document.graph().ids(base.iter().copied()),
            None => working.document.graph().head_ids(),
        };
        let draft = {
            let view = match base {
                Some(base) => {
                    let clock = working.document.graph().closure(base);
                    working.document.view_at(clock)?
                }
                None => working.document.view()?,
            };
            let projection = match write.act.fields() {
                Some(fields) => project_fields(&view, &policy.policy, &shared.resolvers, &record, &fields),
                None => project(&view, &policy.policy, &shared.resolvers, &record),
            };
            let read = |blob: &BlobRef| shared.read_blob(blob);
            let (exists, schema) = (!parents.is_empty(), policy.schema.as_deref());
            let shown = Shown {
                fields: Fields::Live(&view, &projection.blame),
                content: &projection.content,
                deleted: projection.deleted,
                conflicts: &projection.conflicts,
                exists,
                read: &read,
                schema,
            };
            Draft::new(&write.act, &shown).map_err(|fault| of_record(fault, &key))?
        };
        planned(key, Some(parents), draft, context)
    }

    /// Stages all plans as one batch, or nothing.
    pub(crate) fn commit(&mut self, plans: Vec<Plan>, request: Option<[u8; 32]>) -> Result<Receipt> {
        check_batch(plans.iter().map(Plan::events).sum())?;
        self.constrained(Held::of(&plans), |writing| writing.stage_batch(plans, &mut BTreeMap::new(), request))
    }

    /// Stages all plans, in as many batches as it takes, or nothing.
    pub(crate) fn commit_all(&mut self, plans: Vec<Plan>, request: Option<[u8; 32]>) -> Result<Receipt> {
        let held = Held::of(&plans);
        let batches = batches(plans)?;
        self.constrained(held, |writing| {
            let (mut receipt, mut staged) = (Receipt::unchanged(), BTreeMap::new());
            for batch in batches {
                let part = writing.stage_batch(batch, &mut staged, request)?;
                if part.outcome == Outcome::Appended {
                    receipt.outcome = part.outcome;
                    receipt.events.extend(part.events);
                }
            }
            Ok(receipt)
        })
    }

    /// Stages plans in as many batches as it takes.
    pub(crate) fn stage_many(&mut self, plans: Vec<Plan>) -> Result<()> {
        let mut staged = BTreeMap::new();
        batches(plans)?.into_iter().try_for_each(|batch| self.stage_batch(batch, &mut staged, None).map(drop))
    }

    /// What `work` stages stays only where all of it succeeds.
    pub(crate) fn whole<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.state.savepoint();
        work(self).inspect_err(|_| self.state.go_back(before))
    }

    /// Stages plans as one batch. `staged` says which events became of those that rehearsals made, in earlier batches of the
    /// change too.
    fn stage_batch(
        &mut self,
        plans: Vec<Plan>,
        staged: &mut BTreeMap<EventId, EventId>,
        request: Option<[u8; 32]>,
    ) -> Result<Receipt> {
        let plans: Vec<Plan> = plans.into_iter().filter(|plan| plan.parts > 0).collect();
        let batch = match plans.iter().map(Plan::events).sum() {
            0 => return Ok(Receipt::unchanged()),
            1 => None,
            count => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                Some(BatchMember { id: BatchId(self.random()?), index: 0, count })
            }
        };
        self.stage_all(plans, staged, batch, request)
    }

    fn stage_all(
        &mut self,
        plans: Vec<Plan>,
        staged: &mut BTreeMap<EventId, EventId>,
        mut batch: Option<BatchMember>,
        request: Option<[u8; 32]>,
    ) -> Result<Receipt> {
        let mut receipt = Receipt { outcome: Outcome::Appended, ..Receipt::unchanged() };
        let (shared, now) = (self.shared, self.now());
        for mut plan in plans {
            plan.rename(staged);
            let writer = self.state.writer;
            let on_tip = match plan.parents {
                None => self.state.tip(shared, &plan.key)?.map(|row| Standing::on(row, writer)),
                Some(_) => None,
            };
            let place = match on_tip {
                Some(place) => place,
                None => {
                    // What was staged before it may need the document now: a policy, or one more writer's lane.
                    let heads = self.state.recent(shared, &plan.key)?.document.graph().head_ids();
                    plan.parents.get_or_insert(heads);
                    Standing::of(self.state, &plan)?
                }
            };
            let ops = std::mem::take(&mut plan.ops);
            let stamping = Stamping::new(self.state, now, self.state.sequence, place, &plan);
            let events = stamping.events(ops, batch, request)?;
            staged.extend(plan.rehearsed.iter().copied().zip(events.iter().map(|(id, _)| *id)));
            for (id, event) in events {
                let position = self.state.stage(shared, id, event, now, plan.marks.brought_by)?;
                receipt.events.push((id, position));
                batch = batch.map(next_place);
            }
        }
        Ok(receipt)
    }

    /// Takes in what a source delivers, record by record.
    pub(crate) fn import(
        &mut self,
        collection: &str,
        deliveries: Vec<Delivery>,
        context: &Context,
    ) -> Vec<Delivered> {
        let mut done = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            done.push(self.deliver(collection, delivery, context).unwrap_or_else(Delivered::Failed));
        }
        done
    }

    fn deliver(&mut self, collection: &str, delivery: Delivery, context: &Context) -> Result<Delivered> {
        let write = Write::new(collection, delivery.key, Act::Put(delivery.value));
        check_names(&write, false)?;
        let key = record_of(&write);
        let occurred_at = delivery.occurred_at.or(context.occurred_at);
        let (base, latest, exists) = self.delivered(&key, &context.source)?;
        let run = context.run;
        let context = Context { occurred_at, run: None, idempotency_key: None, ..context.clone() };
        match occurred_at {
            Some(at) if base.is_empty() && at <= self.now() => self.first_delivery(&write, &context, run, at),
            Some(at) if latest.is_some_and(|latest| at < latest) => Ok(Delivered::Unchanged),
            _ => self.later_delivery(write, &context, run, base, exists),
        }
    }

    /// The latest events by which a source delivered a record, when it says that the latest happened, and whether the
    /// record exists.
    fn delivered(&mut self, key: &RecordKey, source: &str) -> Result<(Vec<EventId>, Option<i64>, bool)> {
        if self.state.tip(self.shared, key)?.is_some_and(|row| row.last == 0) {
            return Ok((Vec::new(), None, false));
        }
        let graph = self.state.record(self.shared, key)?.document.graph();
        let marked: Vec<NodeIx> =
            graph.nodes().filter(|(_, node)| node.delivery && node.source == source).map(|(ix, _)| ix).collect();
        let base = graph.maximal(&marked);
        let latest = base.iter().filter_map(|&ix| graph.node(ix)?.occurred_at).max();
        Ok((graph.ids(base), latest, !graph.is_empty()))
    }

    fn first_delivery(
        &mut self,
        write: &Write,
        context: &Context,
        run: Option<RunId>,
        occurred_at: i64,
    ) -> Result<Delivered> {
        let key = record_of(write);
        let policy = self.state.policy(self.shared, &key.0)?;
        let read = |blob: &BlobRef| self.shared.read_blob(blob);
        let none = Containers::default();
        let shown = Shown {
            fields: Fields::Plain(&none),
            content: &Content::default(),
            deleted: false,
            conflicts: &[],
            exists: false,
            read: &read,
            schema: policy.schema.as_deref(),
        };
        let draft = Draft::new(&write.act, &shown).map_err(|fault| of_record(fault, &key))?;
        let import = FirstImport { source: &context.source, collection: &key.0, key: &key.1, occurred_at };
        let ledger = self.state.id;
        let events = import.events(draft.ops, |event| Ok(event.identify(ledger)?.0));
        let events = events.map_err(|fault| of_record(fault.into(), &key))?;
        self.store_blobs(&draft.blobs)?;
        let receipt = self.constrained(Held::Own, |writing| writing.stage_delivery(&key, events, run))?;
        if receipt.events.is_empty() { Ok(Delivered::Unchanged) } else { Ok(Delivered::Created(receipt)) }
    }

    /// Stages the events of a first import. Others may have made the same ones, and theirs may wait for these.
    fn stage_delivery(&mut self, key: &RecordKey, events: Vec<Event>, run: Option<RunId>) -> Result<Receipt> {
        let (ledger, shared, now) = (self.state.id, self.shared, self.now());
        let mut receipt = Receipt { outcome: Outcome::Appended, ..Receipt::unchanged() };
        for event in events {
            let (id, _) = event.identify(ledger)?;
            let is_new = self.state.is_followed_by(shared, key, &event)?
                || self.state.record_for(shared, key, &id, &event)?.document.graph().find(&id).is_none();
            if is_new {
                let position = self.state.stage(shared, id, event, now, run)?;
                receipt.events.push((id, position));
                self.release(id)?;
            }
        }
        Ok(receipt)
    }

    fn later_delivery(
        &mut self,
        write: Write,
        context: &Context,
        run: Option<RunId>,
        base: Vec<EventId>,
        exists: bool,
    ) -> Result<Delivered> {
        let write = if base.is_empty() { write } else { write.on(base) };
        let (mut plan, blobs) = self.plan(&write, &Arc::new(context.clone()))?;
        plan.marks = Marks { delivery: true, brought_by: run, ..Marks::default() };
        self.store_blobs(&blobs)?;
        let receipt = self.commit(vec![plan], None)?;
        Ok(match receipt.outcome {
            Outcome::Unchanged => Delivered::Unchanged,
            _ if exists => Delivered::Updated(receipt),
            _ => Delivered::Created(receipt),
        })
    }
}

/// Stamps the events of one plan, each on the one before.
struct Stamping<'a> {
    plan: &'a Plan,
    ledger: LedgerId,
    writer: WriterId,
    now: i64,
    sequence: u64,
    heads: Vec<EventId>,
    lane: u32,
    nth: u32,
    past: Vec<Timestamp>,
    batch: Option<BatchMember>,
    request: Option<Idempotency>,
    made: Vec<(EventId, Event)>,
}

/// Where the next event of a record stands.
struct Standing {
    heads: Vec<EventId>,
    lane: u32,
    nth: u32,
    /// The stamps that its own must be after.
    past: Vec<Timestamp>,
}

impl Standing {
    /// On the heads of a plain record.
    fn on(row: &Row, writer: WriterId) -> Self {
        let (at, place) = row.tip.as_ref().map_or((None, 0), |tip| (Some(tip.at), tip.place(writer, 0)));
        let past = at.filter(|_| !row.heads.is_empty()).into_iter().collect();
        // Everything is in the event's past: the writer's first lane is free.
        Self { heads: row.heads.to_vec(), lane: 0, nth: place.saturating_add(1), past }
    }

    /// On a plan's parents, in a record that is held.
    fn of(state: &State, plan: &Plan) -> Result<Self> {
        let (graph, heads) = (state.held(&plan.key)?.document.graph(), plan.parents.clone().unwrap_or_default());
        let parents: Vec<NodeIx> = heads.iter().filter_map(|id| graph.find(id)).collect();
        if parents.len() != heads.len() {
            return Err(internal("a planned event's parents are not known"));
        }
        // The lane must be free as of the first event, which may have only some of the heads as parents.
        let first = parents.iter().copied().take(limits::PARENTS);
        let (lane, nth) = graph.free_lane(state.writer, &graph.closure(first));
        let stamps = parents.iter().filter_map(|&ix| graph.node(ix)).map(|node| node.at);
        let past = stamps.chain(graph.last_stamp(state.writer)).collect();
        Ok(Self { heads, lane, nth, past })
    }
}

impl<'a> Stamping<'a> {
    fn new(state: &State, now: i64, sequence: u64, place: Standing, plan: &'a Plan) -> Self {
        let Standing { heads, lane, nth, past } = place;
        let (ledger, writer) = (state.id, state.writer);
        let (batch, request, made) = (None, None, Vec::new());
        Self { plan, ledger, writer, now, sequence, heads, lane, nth, past, batch, request, made }
    }

    /// The plan's events, each on the one before: first those that merge heads beyond the limit of parents, then one
    /// for each event that is taken back, the last of which has the operations.
    fn events(
        mut self,
        ops: Vec<Op>,
        batch: Option<BatchMember>,
        request: Option<[u8; 32]>,
    ) -> Result<Vec<(EventId, Event)>> {
        let named = self.plan.context.idempotency_key.clone().zip(request);
        self.request = named.map(|(key, request_hash)| Idempotency { key, request_hash });
        self.batch = batch;
        for _ in 0..merges(self.heads.len()) {
            self.add(Vec::new(), None, None)?;
        }
        let (resolves, reverts) = (self.plan.marks.resolves, &self.plan.marks.reverts);
        if let Some((_, earlier)) = reverts.split_last() {
            for reverted in earlier {
                self.add(Vec::new(), None, Some(*reverted))?;
            }
        }
        let last = reverts.last().copied();
        chain(ops, |Part { ops, .. }| self.add(ops, resolves, last))?;
        Ok(self.made)
    }

    fn add(&mut self, ops: Vec<Op>, resolves: Option<ConflictId>, reverts: Option<EventId>) -> Result<EventId> {
        let parents = self.parents();
        let context = &self.plan.context;
        let event = Event {
            collection: self.plan.key.0.clone(),
            key: self.plan.key.1.clone(),
            writer: self.writer,
            sequence: self.sequence,
            lane: self.lane,
            nth: self.nth,
            parents,
            at: Timestamp::stamp(self.now, self.past.iter().copied()),
            occurred_at: context.occurred_at,
            source: context.source.clone(),
            principal: context.principal.clone(),
            reason: context.reason.clone(),
            run: context.run,
            delivery: self.plan.marks.delivery,
            idempotency: self.request.clone(),
            batch: self.batch,
            resolves,
            reverts,
            body: Body::Ops(ops),
        };
        let (id, _) = event.identify(self.ledger).map_err(|fault| of_record(fault.into(), &self.plan.key))?;
        self.follow(id, event);
        Ok(id)
    }

    /// The event before, and as many of the heads as there is room for.
    fn parents(&mut self) -> Vec<EventId> {
        let mut parents: Vec<EventId> = self.made.last().map(|(id, _)| *id).into_iter().collect();
        let room = limits::PARENTS - parents.len();
        parents.extend(self.heads.drain(..self.heads.len().min(room)));
        parents.sort_unstable();
        parents
    }

    /// The event is made: the next one follows it.
    fn follow(&mut self, id: EventId, event: Event) {
        self.nth = self.nth.saturating_add(1);
        self.sequence = self.sequence.saturating_add(1);
        self.batch = self.batch.map(next_place);
        self.past = vec![event.at];
        self.made.push((id, event));
    }
}

fn next_place(member: BatchMember) -> BatchMember {
    BatchMember { index: member.index + 1, ..member }
}

fn record_of(write: &Write) -> RecordKey {
    (write.collection.clone(), write.key.clone())
}

fn in_batch(fault: Error, index: usize) -> Error {
    let error = Error::new(fault.kind(), format!("write {} of the batch: {}", index + 1, fault.message()));
    let error = error.with_pointers(fault.pointers().to_vec());
    match fault.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The fault, with the record that it is of.
fn of_record(fault: Error, key: &RecordKey) -> Error {
    let error = Error::new(fault.kind(), format!("{}/{}: {}", key.0, key.1, fault.message()));
    let error = error.with_pointers(fault.pointers().to_vec());
    match fault.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Checks the names of a record that callers write, or the ledger itself.
fn check_names(write: &Write, own: bool) -> Result<()> {
    let refuse = |message: String, hint: &str| Err(Error::new(ErrorKind::Validation, message).with_hint(hint));
    let (collection, key) = (&write.collection, &write.key);
    if collection.is_empty()
        || collection.len() > limits::COLLECTION_BYTES
        || collection.chars().any(char::is_control)
    {
        let message =
            format!("expected a collection's name of 1 to 64 bytes without control characters, got {collection:?}");
        return refuse(message, "use a short plain name such as issues");
    }
    if !own && collection.starts_with('$') && ![COLLECTIONS, CONFLICTS].contains(&collection.as_str()) {
        return refuse(
            format!("the collection `{collection}` is the ledger's own"),
            "use a name that does not start with $",
        );
    }
    if key.is_empty() || key.len() > limits::KEY_BYTES {
        let message = format!("expected a record's key of 1 to 256 bytes, got {} bytes", key.len());
        return refuse(message, "use the source's id of the record, or a hash of it");
    }
    Ok(())
}

fn expect_heads(heads: &[EventId], expected: &[EventId], write: &Write) -> Result<()> {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    expected.dedup();
    if expected == heads {
        return Ok(());
    }
    let short = |ids: &[EventId]| ids.iter().map(EventId::short).collect::<Vec<_>>().join(", ");
    let message = format!(
        "{}/{} was expected at [{}], but is at [{}]",
        write.collection,
        write.key,
        short(&expected),
        short(heads)
    );
    Err(Error::new(ErrorKind::Conflict, message)
        .with_hint("read the record again and repeat the edit on what it shows"))
}

/// The nodes that a write is made on; `None` for the heads.
fn base(working: &Working, write: &Write) -> Result<Option<Vec<NodeIx>>> {
    let Some(base) = &write.base else { return Ok(None) };
    let graph = working.document.graph();
    let find = |id: &EventId| {
        graph.find(id).ok_or_else(|| {
            let message = format!("{}/{} has no event {}", write.collection, write.key, id.short());
            Error::new(ErrorKind::NotFound, message).with_hint("a base is made of events of the same record")
        })
    };
    let nodes = graph.maximal(&base.iter().map(find).collect::<Result<Vec<_>>>()?);
    Ok(Some(nodes).filter(|nodes| !graph.heads().eq(nodes.iter().copied())))
}
