//! Local changes, in the writer thread: planned against what the record shows, stamped, and staged.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Shown};
use super::request::{Act, Context, Delivered, Delivery, Outcome, Receipt, Write};
use super::state::{RecordKey, Working, internal};
use super::writer::Writing;
use crate::document::{Graph, NodeIx};
use crate::event::{
    BatchId, BatchMember, Body, ConflictId, Container, Event, EventId, FirstImport, Idempotency, LedgerId, Op, RunId,
    Timestamp, WriterId, limits, split,
};
use crate::projection::{Projection, RecordId, project};
use crate::{Error, ErrorKind, Result};

/// What the events of a change have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) delivery: bool,
    pub(crate) resolves: Option<ConflictId>,
    pub(crate) reverts: Option<EventId>,
    /// The execution that brings the events, kept beside them.
    pub(crate) brought_by: Option<RunId>,
}

/// A change of one record, ready to be stamped.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) key: RecordKey,
    pub(crate) parents: Vec<EventId>,
    /// The operations of each event: at least one event, unless nothing changes.
    pub(crate) parts: Vec<Vec<Op>>,
    pub(crate) context: Context,
    pub(crate) marks: Marks,
    /// The ids of the events that its rehearsal made, by which later plans of the batch name them.
    rehearsed: Vec<EventId>,
}

impl Plan {
    /// A plan of one event on these parents.
    pub(crate) fn single(
        key: RecordKey,
        parents: Vec<EventId>,
        ops: Vec<Op>,
        context: Context,
        marks: Marks,
    ) -> Result<Self> {
        Ok(Self { key, parents, parts: split(ops)?, context, marks, rehearsed: Vec::new() })
    }

    /// The plan with the ids of rehearsed events replaced by those of the staged ones.
    fn rename(&mut self, staged: &BTreeMap<EventId, EventId>) {
        if staged.is_empty() {
            return;
        }
        let renamed = |id: &EventId| staged.get(id).copied().unwrap_or(*id);
        self.parents = self.parents.iter().map(renamed).collect();
        self.parents.sort_unstable();
        for op in self.parts.iter_mut().flatten() {
            if let Op::Insert { container, .. } | Op::RemoveAt { container, .. } | Op::SpliceText { container, .. } =
                op
                && let Container::Of(id, _) = container
            {
                *id = renamed(id);
            }
        }
    }

    /// How many events the plan takes, with those that merge heads beyond the limit of parents.
    fn events(&self) -> usize {
        merges(self.parents.len()) + self.parts.len()
    }
}

/// How many events it takes to bring a number of heads down to the limit of parents.
fn merges(heads: usize) -> usize {
    heads.saturating_sub(limits::PARENTS).div_ceil(limits::PARENTS - 1)
}

impl Writing<'_> {
    fn now(&self) -> i64 {
        (self.shared.world.now)()
    }

    fn random(&self) -> Result<[u8; 16]> {
        (self.shared.world.random)()
    }

    /// Makes all writes or none.
    pub(crate) fn write_all(&mut self, writes: &[Write], context: &Context) -> Result<Receipt> {
        let request = context.idempotency_key.as_ref().map(|_| request_hash(writes, context));
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

    /// The operations that writes would come to.
    pub(crate) fn dry_run(&mut self, writes: &[Write], context: &Context) -> Result<Vec<(RecordKey, Vec<Op>)>> {
        let (plans, _) = self.plan_all(writes, context)?;
        Ok(plans.into_iter().map(|plan| (plan.key, plan.parts.concat())).collect())
    }

    fn store_blobs(&self, blobs: &[Vec<u8>]) -> Result<()> {
        if !blobs.is_empty() {
            let contents: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
            self.shared.blobs.put_many(&contents)?;
        }
        Ok(())
    }

    /// The receipt of a request that was answered before.
    fn answered(&self, context: &Context, hash: Option<[u8; 32]>) -> Result<Option<Receipt>> {
        let (Some(name), Some(hash)) = (&context.idempotency_key, hash) else { return Ok(None) };
        let staged = self.state.staged.iter().filter(|entry| {
            entry.event.source == context.source && entry.event.idempotency.as_ref().is_some_and(|i| i.key == *name)
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
    fn plan_all(&mut self, writes: &[Write], context: &Context) -> Result<(Vec<Plan>, Vec<Vec<u8>>)> {
        if writes.len() > limits::BATCH_EVENTS {
            let message = format!("a batch has at most {} writes, got {}", limits::BATCH_EVENTS, writes.len());
            return Err(Error::new(ErrorKind::TooLarge, message).with_hint("split it into several"));
        }
        let mut seen = BTreeSet::new();
        let repeated: BTreeSet<RecordKey> =
            writes.iter().map(record_of).filter(|key| !seen.insert(key.clone())).collect();
        let planned = self.plan_each(writes, context, &repeated);
        for key in &repeated {
            self.state.held(key).into_iter().for_each(|working| working.document.end_trial());
        }
        planned
    }

    fn plan_each(
        &mut self,
        writes: &[Write],
        context: &Context,
        repeated: &BTreeSet<RecordKey>,
    ) -> Result<(Vec<Plan>, Vec<Vec<u8>>)> {
        let (mut plans, mut blobs) = (Vec::new(), Vec::new());
        for (index, write) in writes.iter().enumerate() {
            let at = |fault: Error| if writes.len() > 1 { in_batch(fault, index) } else { fault };
            let (mut plan, contents) = self.plan(write, context).map_err(at)?;
            if repeated.contains(&plan.key) {
                self.rehearse(&mut plan)?;
            }
            plans.push(plan);
            blobs.extend(contents);
        }
        Ok((plans, blobs))
    }

    /// Applies a plan to its record for trial, so that the batch's next write of it is planned on that.
    fn rehearse(&mut self, plan: &mut Plan) -> Result<()> {
        let (now, ledger, writer, sequence) = (self.now(), self.state.id, self.state.writer, self.state.sequence);
        let working = self.state.record(self.shared, &plan.key)?;
        let stamping = Stamping::new(writer, now, working.document.graph(), plan)?;
        let events = stamping.events(ledger, sequence + (1 << 32), None, None)?;
        working.document.begin_trial();
        for (id, event) in &events {
            working.document.apply(*id, event)?;
        }
        plan.rehearsed = events.into_iter().map(|(id, _)| id).collect();
        Ok(())
    }

    /// Plans one write.
    fn plan(&mut self, write: &Write, context: &Context) -> Result<(Plan, Vec<Vec<u8>>)> {
        check_names(write)?;
        let key = record_of(write);
        let policy = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let shared = self.shared;
        let working = self.state.record(shared, &key)?;
        expect_heads(working, write)?;
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
            let projection = project(&view, &policy.policy, &shared.resolvers, &record);
            let shown = Shown { view: &view, projection: &projection, exists: !parents.is_empty() };
            Draft::new(&write.act, &shown).map_err(|fault| of_record(fault, &key))?
        };
        let parts = match draft.ops.is_empty() && context.idempotency_key.is_none() {
            true => Vec::new(),
            false => split(draft.ops)?,
        };
        let (context, marks) = (context.clone(), Marks::default());
        Ok((Plan { key, parents, parts, context, marks, rehearsed: Vec::new() }, draft.blobs))
    }

    /// Stages all plans as one batch, or nothing.
    pub(crate) fn commit(&mut self, plans: Vec<Plan>, request: Option<[u8; 32]>) -> Result<Receipt> {
        let plans: Vec<Plan> = plans.into_iter().filter(|plan| !plan.parts.is_empty()).collect();
        let count: usize = plans.iter().map(Plan::events).sum();
        if count > limits::BATCH_EVENTS {
            let message = format!("a batch has at most {} events, this one takes {count}", limits::BATCH_EVENTS);
            return Err(Error::new(ErrorKind::TooLarge, message).with_hint("split it into several"));
        }
        let batch = match count {
            0 => {
                return Ok(Receipt {
                    outcome: Outcome::Unchanged,
                    events: Vec::new(),
                    run: None,
                    skipped: Vec::new(),
                });
            }
            1 => None,
            _ => Some(BatchMember {
                id: BatchId(self.random()?),
                index: 0,
                count: u32::try_from(count).unwrap_or(u32::MAX),
            }),
        };
        let (staged, head, sequence) = (self.state.staged.len(), self.state.head, self.state.sequence);
        let keys: Vec<RecordKey> = plans.iter().map(|plan| plan.key.clone()).collect();
        self.stage_all(plans, batch, request).inspect_err(|_| {
            self.state.staged.truncate(staged);
            (self.state.head, self.state.sequence) = (head, sequence);
            keys.iter().for_each(|key| self.state.forget(key));
        })
    }

    fn stage_all(
        &mut self,
        plans: Vec<Plan>,
        mut batch: Option<BatchMember>,
        request: Option<[u8; 32]>,
    ) -> Result<Receipt> {
        let mut receipt = Receipt { outcome: Outcome::Appended, events: Vec::new(), run: None, skipped: Vec::new() };
        let mut staged: BTreeMap<EventId, EventId> = BTreeMap::new();
        let (shared, now) = (self.shared, self.now());
        for mut plan in plans {
            plan.rename(&staged);
            let (ledger, writer, sequence) = (self.state.id, self.state.writer, self.state.sequence);
            let graph = self.state.record(shared, &plan.key)?.document.graph();
            let events = Stamping::new(writer, now, graph, &plan)?.events(ledger, sequence, batch, request)?;
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
        check_names(&write)?;
        let key = record_of(&write);
        let occurred_at = delivery.occurred_at.or(context.occurred_at);
        let shared = self.shared;
        let working = self.state.record(shared, &key)?;
        let graph = working.document.graph();
        let exists = !graph.is_empty();
        let marked: Vec<NodeIx> = graph
            .nodes()
            .filter(|(_, node)| node.delivery && node.source == context.source)
            .map(|(ix, _)| ix)
            .collect();
        let base = graph.maximal(&marked);
        let latest = base.iter().filter_map(|&ix| graph.node(ix)?.occurred_at).max();
        let base = graph.ids(base);
        let run = context.run;
        let context = Context { occurred_at, run: None, idempotency_key: None, ..context.clone() };
        match occurred_at {
            Some(at) if base.is_empty() && at <= self.now() => self.first_delivery(&write, &context, run, at),
            Some(at) if latest.is_some_and(|latest| at < latest) => Ok(Delivered::Unchanged),
            _ => self.later_delivery(write, &context, run, base, exists),
        }
    }

    fn first_delivery(
        &mut self,
        write: &Write,
        context: &Context,
        run: Option<RunId>,
        occurred_at: i64,
    ) -> Result<Delivered> {
        let key = record_of(write);
        let mut nothing = crate::document::Document::default();
        let draft = {
            let view = nothing.view()?;
            let shown = Shown { view: &view, projection: &Projection::default(), exists: false };
            Draft::new(&write.act, &shown).map_err(|fault| of_record(fault, &key))?
        };
        let import = FirstImport { source: &context.source, collection: &key.0, key: &key.1, occurred_at };
        let ledger = self.state.id;
        let events = import.events(draft.ops, |event| Ok(event.identify(ledger)?.0))?;
        self.store_blobs(&draft.blobs)?;
        let (shared, now) = (self.shared, self.now());
        let mut receipt = Receipt { outcome: Outcome::Appended, events: Vec::new(), run: None, skipped: Vec::new() };
        for event in events {
            let (id, _) = event.identify(ledger)?;
            if self.state.record(shared, &key)?.document.graph().find(&id).is_none() {
                let position = self.state.stage(shared, id, event, now, run)?;
                receipt.events.push((id, position));
            }
        }
        if receipt.events.is_empty() { Ok(Delivered::Unchanged) } else { Ok(Delivered::Created(receipt)) }
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
        let (mut plan, blobs) = self.plan(&write, context)?;
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
    writer: WriterId,
    now: i64,
    heads: Vec<EventId>,
    lane: u32,
    nth: u32,
    past: Vec<Timestamp>,
    /// The plan's events so far, with how many operations each has.
    made: Vec<(EventId, usize)>,
}

impl<'a> Stamping<'a> {
    fn new(writer: WriterId, now: i64, graph: &Graph, plan: &'a Plan) -> Result<Self> {
        let parents: Vec<NodeIx> = plan.parents.iter().filter_map(|id| graph.find(id)).collect();
        if parents.len() != plan.parents.len() {
            return Err(internal("a planned event's parents are not known"));
        }
        let (lane, nth) = graph.free_lane(writer, &graph.closure(parents.iter().copied()));
        let stamps = parents.iter().filter_map(|&ix| graph.node(ix)).map(|node| node.at);
        let past = stamps.chain(graph.last_stamp(writer)).collect();
        Ok(Self { plan, writer, now, heads: plan.parents.clone(), lane, nth, past, made: Vec::new() })
    }

    /// The plan's events: first those that merge heads beyond the limit of parents, then each on the one before.
    fn events(
        mut self,
        ledger: LedgerId,
        sequence: u64,
        mut batch: Option<BatchMember>,
        request: Option<[u8; 32]>,
    ) -> Result<Vec<(EventId, Event)>> {
        let merges = merges(self.plan.parents.len());
        let empty = std::iter::repeat_n(Vec::new(), merges);
        let request = self.plan.context.idempotency_key.clone().zip(request);
        let mut events = Vec::new();
        for (index, ops) in empty.chain(self.plan.parts.iter().cloned()).enumerate() {
            let mut event = self.event(ops, index < merges, sequence + index as u64, batch);
            event.idempotency = request.clone().map(|(key, request_hash)| Idempotency { key, request_hash });
            let (id, _) = event.identify(ledger).map_err(|fault| of_record(fault.into(), &self.plan.key))?;
            self.follow(id, &event);
            batch = batch.map(next_place);
            events.push((id, event));
        }
        Ok(events)
    }

    fn event(&mut self, ops: Vec<Op>, merge: bool, sequence: u64, batch: Option<BatchMember>) -> Event {
        let parents = self.heads.drain(..self.heads.len().min(limits::PARENTS)).collect();
        let (context, marks) = (&self.plan.context, &self.plan.marks);
        let last = !merge;
        Event {
            collection: self.plan.key.0.clone(),
            key: self.plan.key.1.clone(),
            writer: self.writer,
            sequence,
            lane: self.lane,
            nth: self.nth,
            parents,
            at: Timestamp::stamp(self.now, self.past.iter().copied()),
            occurred_at: context.occurred_at,
            source: context.source.clone(),
            principal: context.principal.clone(),
            reason: context.reason.clone(),
            run: context.run,
            delivery: marks.delivery,
            idempotency: None,
            batch,
            resolves: marks.resolves.filter(|_| last),
            reverts: marks.reverts.filter(|_| last),
            body: Body::Ops(ops.into_iter().map(|op| self.outside(op)).collect()),
        }
    }

    /// The event is made: the next one follows it.
    fn follow(&mut self, id: EventId, event: &Event) {
        self.made.push((id, event.ops().len()));
        self.heads.push(id);
        self.heads.sort_unstable();
        self.nth += 1;
        self.past = vec![event.at];
    }

    /// An operation in a container that an operation of the draft makes, where that is in an earlier event of the plan.
    fn outside(&self, mut op: Op) -> Op {
        if let Op::Insert { container, .. } | Op::RemoveAt { container, .. } | Op::SpliceText { container, .. } =
            &mut op
            && let Container::Own(index) = container
        {
            let mut index = *index as usize;
            for (id, count) in &self.made {
                if index < *count {
                    *container = Container::Of(*id, u32::try_from(index).unwrap_or(u32::MAX));
                    return op;
                }
                index -= count;
            }
            *container = Container::Own(u32::try_from(index).unwrap_or(u32::MAX));
        }
        op
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

/// Checks the names of a record that callers write.
fn check_names(write: &Write) -> Result<()> {
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
    if collection.starts_with('$') && collection != super::state::COLLECTIONS {
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

fn expect_heads(working: &Working, write: &Write) -> Result<()> {
    let Some(expected) = &write.expect else { return Ok(()) };
    let (mut expected, heads) = (expected.clone(), working.document.graph().head_ids());
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
        short(&heads)
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

/// What identifies a request, beside its idempotency key.
fn request_hash(writes: &[Write], context: &Context) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 request v1");
    for write in writes {
        // Debug output of plain data with sorted maps is one to one with the data.
        let text = format!("{:?}", (&write.collection, &write.key, &write.base, &write.expect, normal(&write.act)));
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let who = format!("{:?}", (&context.source, &context.principal, &context.occurred_at));
    *hasher.update(who.as_bytes()).finalize().as_bytes()
}

fn normal(act: &Act) -> String {
    match act {
        Act::Put(value) => format!("put {}", crate::event::json::canonical(value)),
        Act::Patch(value) => format!("patch {}", crate::event::json::canonical(value)),
        other => format!("{other:?}"),
    }
}
