//! Settling conflicts and taking changes back, in the writer thread.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Settled};
use super::edit::{Marks, Plan};
use super::request::{Context, Entry, Outcome, Receipt, Settlement, Skipped, Write};
use super::revert::Reverting;
use super::state::RecordKey;
use super::writer::Writing;
use crate::document::{NodeIx, View};
use crate::event::{ConflictId, EventId, FlatKey, Op, Path, RunId, WriterId, hex, json};
use crate::projection::{
    Conflict, Content, DELETED, Policy, Projection, RecordId, Resolvers, Severity, Status, project,
};
use crate::{Error, ErrorKind, Result};

impl Writing<'_> {
    /// Settles a conflict by one event on all heads.
    pub(crate) fn resolve(
        &mut self,
        key: &RecordKey,
        id: ConflictId,
        settlement: &Settlement,
        version: Option<[u8; 32]>,
        context: &Context,
        request: [u8; 32],
    ) -> Result<Receipt> {
        let policy = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let (shared, writers) = (self.shared, self.state.own.clone());
        let working = self.state.record(shared, key)?;
        let view = working.document.view()?;
        let projection = project(&view, &policy.policy, &shared.resolvers, &record);
        // The deletion and a field that is called like it share an id, but no version.
        let meant = |conflict: &&Conflict| version.is_none_or(|version| version == conflict.version);
        let mut found = projection.conflicts.iter().filter(|conflict| conflict.id == id);
        let conflict = found.clone().find(meant).or_else(|| found.next()).cloned();
        let conflict = conflict.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("{}/{} has no conflict {} that is unsettled", key.0, key.1, id.short()),
            )
            .with_hint("list those that there are with `syncledger conflicts`")
        })?;
        check_version(&conflict, version)?;
        let (plan, blobs) = settlement_plan(&view, key, &conflict, settlement, &writers, context)?;
        self.store_blobs(&blobs)?;
        self.commit(vec![plan], Some(request))
    }

    /// Settles the open conflicts of records with what a policy shows of each, in one batch.
    pub(crate) fn resolve_all(
        &mut self,
        records: &BTreeSet<RecordKey>,
        policy: &Policy,
        context: &Context,
        request: [u8; 32],
    ) -> Result<Receipt> {
        let run = context.run.unwrap_or(RunId((self.shared.world.random)()?));
        let context = Context { run: Some(run), ..context.clone() };
        let (mut plans, mut skipped) = (Vec::new(), Vec::new());
        let planned = records.iter().try_for_each(|key| {
            let (made, left) = self.settle_record(key, policy, &context)?;
            plans.extend(made);
            skipped.extend(left);
            Ok(())
        });
        for key in records {
            self.state.record(self.shared, key)?.end_trial();
        }
        planned.and_then(|()| self.commit_all(plans, Some(request))).map(|receipt| {
            let run = (receipt.outcome == Outcome::Appended).then_some(run);
            Receipt { run, skipped, ..receipt }
        })
    }

    /// One plan for each open conflict of a record, each on those before it.
    fn settle_record(
        &mut self,
        key: &RecordKey,
        policy: &Policy,
        context: &Context,
    ) -> Result<(Vec<Plan>, Vec<Skipped>)> {
        let own = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let (shared, writers) = (self.shared, self.state.own.clone());
        let (mut seen, mut plans, mut skipped) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut first: Option<Projection> = None;
        loop {
            let view = self.state.record(shared, key)?.document.view()?;
            let of = |policy: &Policy| project(&view, policy, &shared.resolvers, &record);
            // From the top: what is settled above a field settles it too.
            let mut open = of(&own.policy).conflicts;
            open.retain(|conflict| conflict.status == Status::Open && !seen.contains(&identity(conflict)));
            let Some(conflict) = open.into_iter().min_by(|a, b| a.path.cmp(&b.path)) else { break };
            seen.insert(identity(&conflict));
            let first = first.get_or_insert_with(|| of(policy));
            let Some((decided, settlement)) = decision(first, &conflict) else {
                let why = format!("the strategy leaves it open: {}", conflict.because);
                skipped.push(Skipped { collection: key.0.clone(), key: key.1.clone(), path: conflict.path, why });
                continue;
            };
            let (mut plan, blobs) = settlement_plan(&view, key, &decided, &settlement, &writers, context)?;
            self.store_blobs(&blobs)?;
            self.rehearse(&mut plan)?;
            plans.push(plan);
        }
        Ok((plans, skipped))
    }

    /// Takes back events, record by record, in one batch.
    pub(crate) fn revert(
        &mut self,
        events: BTreeMap<RecordKey, Vec<EventId>>,
        context: &Context,
        request: [u8; 32],
    ) -> Result<Receipt> {
        self.revert_and(events, &[], context, request)
    }

    /// Takes back events, and where that changes anything makes these writes in the same batch.
    pub(crate) fn revert_and(
        &mut self,
        events: BTreeMap<RecordKey, Vec<EventId>>,
        writes: &[Write],
        context: &Context,
        request: [u8; 32],
    ) -> Result<Receipt> {
        let run = context.run.unwrap_or(RunId((self.shared.world.random)()?));
        let context = Context { run: Some(run), ..context.clone() };
        let (mut plans, mut skipped) = (Vec::new(), Vec::new());
        for (key, events) in events {
            let (made, left) = self.revert_record(&key, &events, &context)?;
            plans.extend(made);
            skipped.extend(left);
        }
        if !plans.is_empty() {
            plans.extend(self.plan_all(writes, &context)?.0);
        }
        let mut receipt = self.commit_all(plans, Some(request))?;
        if receipt.outcome == Outcome::Appended {
            receipt.run = Some(run);
        }
        receipt.skipped = skipped;
        Ok(receipt)
    }

    fn revert_record(
        &mut self,
        key: &RecordKey,
        events: &[EventId],
        context: &Context,
    ) -> Result<(Vec<Plan>, Vec<Skipped>)> {
        let policy = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let shared = self.shared;
        let entries = self.state.entries(shared, key)?;
        let (back, events) = Undone::of(&entries, events);
        let skip =
            |(path, why): (String, String)| Skipped { collection: key.0.clone(), key: key.1.clone(), path, why };
        if events.is_empty() {
            return Ok((Vec::new(), vec![skip((String::new(), "it is taken back already".to_owned()))]));
        }
        let working = self.state.record(shared, key)?;
        let view = working.document.view()?;
        let (graph, parents) = (view.graph(), view.graph().head_ids());
        let taken: BTreeSet<NodeIx> = events.iter().filter_map(|id| graph.find(id)).collect();
        let marks = Marks { reverts: events.clone(), ..Marks::default() };
        if let [only] = events.as_slice()
            && let Some(siblings) =
                graph.find(only).and_then(|ix| reopen(&view, ix, &policy.policy, &shared.resolvers, &record))
        {
            let plan = |(draft, candidate): (Draft, Reopened)| {
                Plan::new(key.clone(), parents.clone(), draft.ops, candidate.context(context), marks.clone())
            };
            let blobs: Vec<Vec<u8>> = siblings.iter().flat_map(|(draft, _)| draft.blobs.clone()).collect();
            let plans = siblings.into_iter().map(plan).collect::<Result<_>>()?;
            self.store_blobs(&blobs)?;
            return Ok((plans, Vec::new()));
        }
        let reverting = Reverting::new(&view, &taken, &back);
        let (draft, skipped) = reverting.run()?;
        let skipped: Vec<Skipped> = skipped.into_iter().map(skip).collect();
        self.store_blobs(&draft.blobs)?;
        // Where nothing is left of the events, one without operations says that they are taken back.
        if draft.ops.is_empty() && !skipped.is_empty() {
            return Ok((Vec::new(), skipped));
        }
        Ok((vec![Plan::new(key.clone(), parents, draft.ops, context.clone(), marks)?], skipped))
    }
}

/// The plan of the event that settles a conflict, on all heads, and its large values.
fn settlement_plan(
    view: &View<'_>,
    key: &RecordKey,
    conflict: &Conflict,
    settlement: &Settlement,
    own: &[WriterId],
    context: &Context,
) -> Result<(Plan, Vec<Vec<u8>>)> {
    let choice = choose(view, conflict, settlement, own)?;
    let mut draft = Draft::default();
    if is_deletion(conflict) {
        draft.ops.push(if choice.content.is_none() { Op::Delete } else { Op::Restore });
    } else {
        let path = Path::parse(&conflict.path)?;
        draft.settle(&path, choice.content.as_ref(), choice.kind, view.registers())?;
    }
    let marks = Marks { resolves: Some(conflict.id), ..Marks::default() };
    let plan = Plan::new(key.clone(), view.graph().head_ids(), draft.ops, context.clone(), marks)?;
    Ok((plan, draft.blobs))
}

/// What names a conflict with its candidates: a deletion and a field that is called like it share an id.
fn identity(conflict: &Conflict) -> (ConflictId, [u8; 32]) {
    (conflict.id, conflict.version)
}

/// How a conflict is settled with what a strategy's projection showed there at first; none where it left it open.
fn decision(first: &Projection, conflict: &Conflict) -> Option<(Conflict, Settlement)> {
    let decided = match first.conflicts.iter().find(|other| identity(other) == identity(conflict)) {
        Some(decided) if decided.status == Status::Open => return None,
        Some(decided) => decided.clone(),
        // It came by settling what lies below it.
        None => Conflict { shown: first.content.at(&conflict.path), ..conflict.clone() },
    };
    // What is shown of a candidate that is an object has, below it, what the strategy decides there.
    let taken = decided.candidates.iter().position(|candidate| candidate.value == decided.shown);
    let settlement = match (taken, &decided.shown) {
        (Some(index), _) => Settlement::Take(index),
        (None, Some(content)) => Settlement::Value(content.json.clone()),
        (None, None) => return None,
    };
    Some((decided, settlement))
}

/// Which of a record's events took back which, where that still holds.
pub(crate) struct Undone(pub(crate) BTreeMap<EventId, EventId>);

impl Undone {
    /// What is taken back when `events` are, and those of them that are not taken back already.
    fn of(entries: &[Entry], events: &[EventId]) -> (Self, Vec<EventId>) {
        let before = Self::after(entries, &BTreeSet::new());
        let meant: BTreeSet<EventId> = events.iter().copied().collect();
        let cancels = |by: &EventId, of: &EventId| meant.contains(by) && meant.contains(of);
        let cancelled: BTreeSet<EventId> =
            before.0.iter().filter(|(by, of)| cancels(by, of)).flat_map(|(by, of)| [*by, *of]).collect();
        let is_back: BTreeSet<EventId> = before.0.values().copied().collect();
        let stays = |id: &EventId| meant.contains(id) && !is_back.contains(id) && !cancelled.contains(id);
        let taken: Vec<EventId> = entries.iter().map(|entry| entry.id).filter(stays).collect();
        (Self::after(entries, &taken.iter().copied().collect()), taken)
    }

    /// By event, the one that it takes back, but for events that are taken back themselves or in `taken`.
    fn after(entries: &[Entry], taken: &BTreeSet<EventId>) -> Self {
        let (mut back, mut by) = (taken.clone(), BTreeMap::new());
        for entry in entries.iter().rev().filter(|entry| entry.event.reverts.is_some()) {
            if let Some(target) = entry.event.reverts
                && !back.contains(&entry.id)
            {
                back.insert(target);
                by.insert(entry.id, target);
            }
        }
        Self(by)
    }
}

/// Whether a conflict is the one about the record's being deleted: a field may be called `$deleted` too.
fn is_deletion(conflict: &Conflict) -> bool {
    conflict.path == DELETED && conflict.severity == Severity::High
}

fn check_version(conflict: &Conflict, version: Option<[u8; 32]>) -> Result<()> {
    match version {
        Some(version) if version != conflict.version => {
            let message =
                format!("the conflict has other candidates by now: it is at version {}", hex(&conflict.version));
            Err(Error::new(ErrorKind::Conflict, message)
                .with_hint("look at it again, then settle it with that version"))
        }
        _ => Ok(()),
    }
}

/// What a conflict is settled with.
struct Choice {
    content: Option<Content>,
    kind: Option<Settled>,
}

fn choose(view: &View<'_>, conflict: &Conflict, settlement: &Settlement, own: &[WriterId]) -> Result<Choice> {
    let candidates = &conflict.candidates;
    let latest = |test: &dyn Fn(usize) -> bool| (0..candidates.len()).rev().find(|&index| test(index));
    let of = |index: usize| candidates.get(index);
    let index = match settlement {
        Settlement::Value(value) => {
            let content = Content::of(json::normalize(value.clone())?);
            let kind = content.json.is_array().then_some(Settled::Atomic);
            let kept = !is_deletion(conflict) || content.json != serde_json::Value::Bool(true);
            return Ok(Choice { content: Some(content).filter(|_| kept), kind });
        }
        Settlement::Base => {
            let content = conflict.base.clone();
            let kind = content.as_ref().is_some_and(|content| content.json.is_array()).then_some(Settled::Atomic);
            let content = if is_deletion(conflict) { Some(Content::of(false.into())) } else { content };
            return Ok(Choice { content, kind });
        }
        Settlement::Take(index) => Some(*index),
        Settlement::TakeSource(source) => latest(&|index| of(index).is_some_and(|c| c.source == *source)),
        Settlement::TakeEvent(event) => latest(&|index| of(index).is_some_and(|c| c.event == *event)),
        Settlement::TakeLocal => latest(&|index| of(index).is_some_and(|c| own.contains(&c.writer))),
        Settlement::TakeRemote => latest(&|index| of(index).is_some_and(|c| !own.contains(&c.writer))),
    };
    let candidate = index.and_then(of).ok_or_else(|| {
        let message = format!("the conflict has {} candidates, and none of them is meant", candidates.len());
        Error::new(ErrorKind::NotFound, message)
            .with_hint("look at them with `syncledger show` and the conflict's id")
    })?;
    let lives = view.registers().get(Path::parse(&conflict.path)?.to_key().as_str());
    let live = lives.iter().find(|live| {
        view.graph().node(live.node).is_some_and(|node| node.id == candidate.event) && live.cell.is_live()
    });
    Ok(Choice { content: candidate.value.clone(), kind: live.and_then(|live| Settled::of(&live.cell)) })
}

/// A candidate that a reverted resolution had settled.
struct Reopened(crate::projection::Candidate);

impl Reopened {
    /// The candidate's own source, principal and time, in the context of the revert.
    fn context(&self, context: &Context) -> Context {
        Context {
            source: self.0.source.clone(),
            principal: self.0.principal.clone(),
            occurred_at: self.0.occurred_at,
            ..context.clone()
        }
    }
}

/// For a resolution whose value still lives: one draft for each candidate that it settled.
fn reopen(
    view: &View<'_>,
    ix: NodeIx,
    policy: &Policy,
    resolvers: &Resolvers,
    record: &RecordId,
) -> Option<Vec<(Draft, Reopened)>> {
    let id = view.graph().node(ix)?.resolves?;
    let before = view.at(view.graph().ancestors(ix));
    let conflict = project(&before, policy, resolvers, record).conflicts.into_iter().find(|c| c.id == id)?;
    let key = match is_deletion(&conflict) {
        true => FlatKey::deleted(),
        false => Path::parse(&conflict.path).ok()?.to_key(),
    };
    let lives = view.registers().iter().any(|(at, lives)| {
        let here = at == key.as_str() || FlatKey::from_document(at).is_below(&key);
        here && lives.iter().any(|live| live.node == ix)
    });
    let draft = |candidate: crate::projection::Candidate| {
        let mut draft = Draft::default();
        if is_deletion(&conflict) {
            draft.ops.push(if candidate.value.is_none() { Op::Delete } else { Op::Restore });
        } else {
            let path = Path::parse(&conflict.path).ok()?;
            let live = before.registers().get(key.as_str()).iter().find(|live| {
                view.graph().node(live.node).is_some_and(|node| node.id == candidate.event) && live.cell.is_live()
            });
            let kind = live.and_then(|live| Settled::of(&live.cell));
            draft.settle(&path, candidate.value.as_ref(), kind, before.registers()).ok()?;
        }
        Some((draft, Reopened(candidate)))
    };
    if lives { conflict.candidates.iter().cloned().map(draft).collect() } else { None }
}
