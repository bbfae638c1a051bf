//! Settling conflicts and taking changes back, in the writer thread.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Settled};
use super::edit::{Marks, Plan};
use super::request::{Context, Outcome, Receipt, Settlement, Skipped};
use super::state::RecordKey;
use super::writer::Writing;
use crate::document::{Cell, ItemRepair, NodeIx, View};
use crate::event::{ConflictId, EventId, FlatKey, Op, Path, RunId, Value, hex, json};
use crate::projection::{Conflict, Content, DELETED, Policy, Projection, RecordId, Resolvers, project};
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
    ) -> Result<Receipt> {
        let policy = self.state.policy(self.shared, &key.0)?;
        let record = RecordId { ledger: self.state.id, collection: key.0.clone(), key: key.1.clone() };
        let (shared, writer) = (self.shared, self.state.writer);
        let working = self.state.record(shared, key)?;
        let view = working.document.view()?;
        let projection = project(&view, &policy.policy, &shared.resolvers, &record);
        let conflict = projection.conflicts.into_iter().find(|conflict| conflict.id == id);
        let conflict = conflict.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("{}/{} has no conflict {} that is unsettled", key.0, key.1, id.short()),
            )
            .with_hint("list those that there are with `syncledger conflicts`")
        })?;
        check_version(&conflict, version)?;
        let choice = choose(&view, &conflict, settlement, writer)?;
        let mut draft = Draft::default();
        if conflict.path == DELETED {
            draft.ops.push(if choice.content.is_none() { Op::Delete } else { Op::Restore });
        } else {
            draft.settle(&Path::parse(&conflict.path)?, choice.content.as_ref(), choice.kind)?;
        }
        let parents = view.graph().head_ids();
        self.store(&draft.blobs)?;
        let marks = Marks { resolves: Some(id), ..Marks::default() };
        let context = Context { idempotency_key: None, ..context.clone() };
        let plan = Plan::single(key.clone(), parents, draft.ops, context, marks)?;
        self.commit(vec![plan], None)
    }

    fn store(&self, blobs: &[Vec<u8>]) -> Result<()> {
        if !blobs.is_empty() {
            self.shared.blobs.put_many(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Takes back events, record by record, in one batch.
    pub(crate) fn revert(&mut self, events: BTreeMap<RecordKey, Vec<EventId>>, context: &Context) -> Result<Receipt> {
        let run = context.run.unwrap_or(RunId((self.shared.world.random)()?));
        let context = Context { run: Some(run), idempotency_key: None, ..context.clone() };
        let (mut plans, mut skipped) = (Vec::new(), Vec::new());
        for (key, events) in events {
            let (made, left) = self.revert_record(&key, &events, &context)?;
            plans.extend(made);
            skipped.extend(left);
        }
        let mut receipt = self.commit(plans, None)?;
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
        let working = self.state.record(shared, key)?;
        working.document.materialise()?;
        let view = working.document.view()?;
        let graph = view.graph();
        let taken: BTreeSet<NodeIx> = events.iter().filter_map(|id| graph.find(id)).collect();
        let parents = graph.head_ids();
        let last = taken.iter().next_back().and_then(|&ix| graph.node(ix)).map(|node| node.id);
        let skip =
            |(path, why): (String, String)| Skipped { collection: key.0.clone(), key: key.1.clone(), path, why };
        if let [only] = taken.iter().copied().collect::<Vec<_>>().as_slice()
            && let Some(siblings) = reopen(&view, *only, &policy.policy, &shared.resolvers, &record)
        {
            let plans = siblings.into_iter().map(|(draft, candidate)| {
                let context = candidate.context(context);
                let marks = Marks { reverts: last, ..Marks::default() };
                self_plan(key, &parents, draft, context, marks)
            });
            return Ok((plans.collect::<Result<_>>()?, Vec::new()));
        }
        let mut reverting = Reverting { view: &view, taken: &taken, draft: Draft::default(), skipped: Vec::new() };
        reverting.run()?;
        let (draft, skipped) = (reverting.draft, reverting.skipped.into_iter().map(skip).collect());
        self.store(&draft.blobs)?;
        if draft.ops.is_empty() {
            return Ok((Vec::new(), skipped));
        }
        let marks = Marks { reverts: last, ..Marks::default() };
        Ok((vec![Plan::single(key.clone(), parents, draft.ops, context.clone(), marks)?], skipped))
    }
}

fn self_plan(key: &RecordKey, parents: &[EventId], draft: Draft, context: Context, marks: Marks) -> Result<Plan> {
    Plan::single(key.clone(), parents.to_vec(), draft.ops, context, marks)
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

fn choose(
    view: &View<'_>,
    conflict: &Conflict,
    settlement: &Settlement,
    writer: crate::event::WriterId,
) -> Result<Choice> {
    let candidates = &conflict.candidates;
    let latest = |test: &dyn Fn(usize) -> bool| (0..candidates.len()).rev().find(|&index| test(index));
    let of = |index: usize| candidates.get(index);
    let index = match settlement {
        Settlement::Value(value) => {
            let content = Content::of(json::normalize(value.clone())?);
            let kind = content.json.is_array().then_some(Settled::Atomic);
            let kept = conflict.path != DELETED || content.json != serde_json::Value::Bool(true);
            return Ok(Choice { content: Some(content).filter(|_| kept), kind });
        }
        Settlement::Base => {
            let content = conflict.base.clone();
            let kind = content.as_ref().is_some_and(|content| content.json.is_array()).then_some(Settled::Atomic);
            let content = if conflict.path == DELETED { Some(Content::of(false.into())) } else { content };
            return Ok(Choice { content, kind });
        }
        Settlement::Take(index) => Some(*index),
        Settlement::TakeSource(source) => latest(&|index| of(index).is_some_and(|c| c.source == *source)),
        Settlement::TakeEvent(event) => latest(&|index| of(index).is_some_and(|c| c.event == *event)),
        Settlement::TakeLocal => latest(&|index| of(index).is_some_and(|c| c.writer == writer)),
        Settlement::TakeRemote => latest(&|index| of(index).is_some_and(|c| c.writer != writer)),
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
    let key = match conflict.path.as_str() {
        DELETED => FlatKey::deleted(),
        path => Path::parse(path).ok()?.to_key(),
    };
    let lives = view.registers().iter().any(|(at, lives)| {
        let here = at == key.as_str() || FlatKey::from_document(at).is_below(&key);
        here && lives.iter().any(|live| live.node == ix)
    });
    let draft = |candidate: crate::projection::Candidate| {
        let mut draft = Draft::default();
        if conflict.path == DELETED {
            draft.ops.push(if candidate.value.is_none() { Op::Delete } else { Op::Restore });
        } else {
            let path = Path::parse(&conflict.path).ok()?;
            let live = before.registers().get(key.as_str()).iter().find(|live| {
                view.graph().node(live.node).is_some_and(|node| node.id == candidate.event) && live.cell.is_live()
            });
            let kind = live.and_then(|live| Settled::of(&live.cell));
            draft.settle(&path, candidate.value.as_ref(), kind).ok()?;
        }
        Some((draft, Reopened(candidate)))
    };
    if lives { conflict.candidates.iter().cloned().map(draft).collect() } else { None }
}

/// Takes back events of one record.
struct Reverting<'a, 'v> {
    view: &'a View<'v>,
    taken: &'a BTreeSet<NodeIx>,
    draft: Draft,
    /// Paths that are left as they are, and why.
    skipped: Vec<(String, String)>,
}

impl Reverting<'_, '_> {
    fn run(&mut self) -> Result<()> {
        if self.made_the_record() {
            self.draft.ops.push(Op::Delete);
            return Ok(());
        }
        self.registers()?;
        self.counters();
        self.items();
        Ok(())
    }

    /// Whether nothing lives but what the events made, and they made the record.
    fn made_the_record(&self) -> bool {
        let graph = self.view.graph();
        let roots = graph.nodes().filter(|(_, node)| node.parents.is_empty()).all(|(ix, _)| self.taken.contains(&ix));
        let live = |live: &crate::document::Live| !live.cell.is_live() || self.taken.contains(&live.node);
        roots && self.view.registers().iter().all(|(_, lives)| lives.iter().all(live)) && !self.is_deleted()
    }

    fn is_deleted(&self) -> bool {
        let lives = self.view.registers().get(FlatKey::deleted().as_str());
        lives.iter().any(|live| live.cell == Cell::Value(Value::Bool(true)))
    }

    /// Removals first: a put clears what lies in its way, a removal also what lies below.
    fn registers(&mut self) -> Result<()> {
        let mut puts = Vec::new();
        for key in self.written() {
            let lives = self.view.registers().get(&key);
            let path = FlatKey::from_document(key.as_str());
            let name = path.to_path().map_or_else(|| DELETED.to_owned(), |path| path.to_string());
            match lives {
                [live] if self.taken.contains(&live.node) => match self.before(&key, live.node) {
                    Before::Absent => self.take_away(&key)?,
                    before => puts.push((key.clone(), before)),
                },
                _ if lives.iter().any(|live| self.taken.contains(&live.node)) => {
                    self.skipped.push((name, "other candidates stand beside it: settle the conflict instead".into()));
                }
                [] => {}
                _ => self.skipped.push((name, "it was changed since".into())),
            }
        }
        puts.into_iter().try_for_each(|(key, before)| self.put_back(&key, &before))
    }

    /// The keys that the events wrote.
    fn written(&self) -> BTreeSet<String> {
        let written = self.taken.iter().flat_map(|&ix| self.view.written(ix));
        written.map(|(key, _)| key).filter(|key| !key.starts_with("$#")).collect()
    }

    fn take_away(&mut self, key: &str) -> Result<()> {
        let flat = FlatKey::from_document(key);
        let live = self.view.registers().get(key).iter().any(|live| live.cell.is_live());
        if flat == FlatKey::deleted() {
            self.draft.ops.push(Op::Restore);
        } else if self.is_member(key) {
            self.member(&flat, false);
        } else if let Some(path) = flat.to_path().filter(|path| live && !path.is_root()) {
            self.draft.settle(&path, None, None)?;
        }
        Ok(())
    }

    fn is_member(&self, key: &str) -> bool {
        let written = self.taken.iter().flat_map(|&ix| self.view.written(ix));
        let at = FlatKey::from_document(key);
        let set = at.split_member().is_some_and(|(set, _)| {
            self.view.single(set.to_key().as_str()).is_some_and(|live| live.cell == Cell::Set)
        });
        set || written.into_iter().any(|(other, live)| other == key && live.cell == Cell::Member)
    }

    fn member(&mut self, key: &FlatKey, add: bool) {
        if let Some((path, member)) = key.split_member()
            && let Ok(member) = json::parse(&member)
        {
            let member = Value::from_json(&member);
            self.draft.ops.push(if add { Op::SetAdd { path, member } } else { Op::SetRemove { path, member } });
        }
    }

    fn put_back(&mut self, key: &str, before: &Before) -> Result<()> {
        let flat = FlatKey::from_document(key);
        match before {
            Before::Absent => Ok(()),
            Before::Member => {
                self.member(&flat, true);
                Ok(())
            }
            Before::Deleted(deleted) => {
                self.draft.ops.push(if *deleted { Op::Delete } else { Op::Restore });
                Ok(())
            }
            Before::Content(content, kind) => match flat.to_path() {
                Some(path) => self.draft.settle(&path, Some(content), *kind),
                None => Ok(()),
            },
        }
    }

    /// What a key held before the events: as of the parents of the one whose operation lives there, and where that is
    /// another of them, before that.
    fn before(&self, key: &str, by: NodeIx) -> Before {
        let flat = FlatKey::from_document(key);
        let mut by = by;
        loop {
            let past = self.view.graph().ancestors(by);
            let then = self.view.field_at(past, &flat);
            let lives = then.registers().get(key);
            if let Some(live) = lives.iter().find(|live| self.taken.contains(&live.node)) {
                by = live.node;
                continue;
            }
            return before_of(&then, key, &flat);
        }
    }

    fn counters(&mut self) {
        for &ix in self.taken {
            for (key, by) in self.view.increments(ix) {
                let path = key.strip_prefix("$#").and_then(|key| FlatKey::from_document(key).to_path());
                if let Some(path) = path {
                    self.draft.ops.push(Op::Increment { path, by: by.wrapping_neg() });
                }
            }
        }
    }

    /// Latest first, so that each finds the items as it left them.
    fn items(&mut self) {
        for &ix in self.taken.iter().rev() {
            let before = self.view.at(self.view.graph().ancestors(ix));
            for edits in self.view.item_edits(ix) {
                let container = edits.container;
                let text = edits.kind == crate::document::ContainerKind::Text;
                for repair in self.view.repair_items(&edits, &before) {
                    self.draft.ops.push(match repair {
                        ItemRepair::Remove(index) if text => {
                            Op::SpliceText { container, index, delete: 1, insert: String::new() }
                        }
                        ItemRepair::Remove(index) => Op::RemoveAt { container, index },
                        ItemRepair::Insert(index, Value::Text(insert)) if text => {
                            Op::SpliceText { container, index, delete: 0, insert }
                        }
                        ItemRepair::Insert(index, value) => Op::Insert { container, index, value },
                    });
                }
            }
        }
    }
}

/// What a key held before an event.
enum Before {
    Absent,
    Member,
    Deleted(bool),
    Content(Content, Option<Settled>),
}

fn before_of(then: &View<'_>, key: &str, flat: &FlatKey) -> Before {
    let lives = then.registers().get(key);
    if *flat == FlatKey::deleted() {
        let deleted = lives.iter().any(|live| live.cell == Cell::Value(Value::Bool(true)));
        return if lives.is_empty() { Before::Absent } else { Before::Deleted(deleted) };
    }
    if lives.iter().any(|live| live.cell == Cell::Member) {
        return Before::Member;
    }
    let Some(path) = flat.to_path() else { return Before::Absent };
    let kind = lives.iter().find(|live| live.cell.is_live()).and_then(|live| Settled::of(&live.cell));
    if kind.is_none() && !lives.iter().any(|live| live.cell.is_live()) {
        return Before::Absent;
    }
    // Several values there: the one that they were made on, as the strategy `manual` shows it.
    let record = RecordId { ledger: crate::event::LedgerId([0; 16]), collection: String::new(), key: String::new() };
    let manual = Policy::of(crate::projection::Strategy::Manual);
    let projection: Projection = project(then, &manual, &Resolvers::default(), &record);
    match projection.content.at(path.as_str()) {
        Some(content) => Before::Content(content, kind),
        None => Before::Absent,
    }
}
