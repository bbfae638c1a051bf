//! Deciding one field: its candidates, the value that they were made on, and which is shown.

use std::cmp::Reverse;

use super::conflict::{Candidate, Conflict, ConflictKind, Severity, Status};
use super::content::Content;
use super::policy::{Scope, Strategy};
use super::project::Projecting;
use super::resolver::{Choice, Dispute, Verdict};
use super::tree::{Branch, is_empty_object};
use crate::document::{Cell, Clock, ContainerKind, Graph, Live, NodeIx, View};
use crate::event::{Path, Timestamp, conflict_id, conflict_version, json};

/// What a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    Object,
    Value,
    Removed,
}

/// One of the values of a field, with all live operations that hold an equal one.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) shape: Shape,
    pub(crate) content: Option<Content>,
    /// Whether it is a list, text, set or object rather than a plain value.
    structured: bool,
    /// The event that it is ordered by and blamed on: of equal values the least by order, of an object the latest
    /// that wrote a field of it.
    pub(crate) lead: NodeIx,
    /// All events that hold it, or a part of it, by order.
    pub(crate) nodes: Vec<NodeIx>,
}

/// An event's place in the total order.
pub(crate) fn order(graph: &Graph, ix: NodeIx) -> (i64, Timestamp, crate::event::EventId) {
    graph.node(ix).map_or((i64::MIN, Timestamp::MAX, crate::event::EventId([0; 32])), crate::document::Node::order)
}

/// The distinct values of a field, by order. Equal ones are one, which has the order of the least.
pub(crate) fn variants(view: &View<'_>, branch: &Branch<'_>) -> Vec<Variant> {
    let graph = view.graph();
    let mut variants: Vec<(String, Variant)> = Vec::new();
    let mut add = |variant: Variant| {
        let canonical = variant.content.as_ref().map_or_else(String::new, Content::canonical);
        match variants
            .iter_mut()
            .find(|(text, same)| *text == canonical && same.content.is_some() == variant.content.is_some())
        {
            Some((_, same)) => same.absorb(graph, variant),
            None => variants.push((canonical, variant)),
        }
    };
    let has_fields = branch.has_fields();
    for live in branch.lives {
        match &live.cell {
            Cell::Member => {}
            Cell::Tombstone if has_fields => {}
            Cell::Tombstone => add(Variant::of(Shape::Removed, None, live.node)),
            cell if is_empty_object(cell) => {}
            _ => add(value(view, branch, live)),
        }
    }
    if let Some(object) = object(view, branch) {
        add(object);
    }
    let mut variants: Vec<Variant> = variants.into_iter().map(|(_, variant)| variant).collect();
    variants.sort_by_key(|variant| order(graph, variant.lead));
    variants
}

impl Variant {
    fn of(shape: Shape, content: Option<Content>, lead: NodeIx) -> Self {
        Self { shape, content, structured: false, lead, nodes: vec![lead] }
    }

    /// Takes in an equal value.
    fn absorb(&mut self, graph: &Graph, equal: Self) {
        self.shape = self.shape.min(equal.shape);
        self.structured |= equal.structured;
        self.lead = [self.lead, equal.lead].into_iter().min_by_key(|&ix| order(graph, ix)).unwrap_or(self.lead);
        self.nodes.extend(equal.nodes);
        self.nodes.sort_by_key(|&ix| order(graph, ix));
        self.nodes.dedup();
    }
}

/// The object as one candidate, ordered by its latest live field.
fn object(view: &View<'_>, branch: &Branch<'_>) -> Option<Variant> {
    let mut nodes: Vec<NodeIx> = branch.object_lives().iter().map(|live| live.node).collect();
    nodes.sort_by_key(|&ix| order(view.graph(), ix));
    nodes.dedup();
    let lead = *nodes.last()?;
    let content = super::project::living(view, branch);
    Some(Variant { shape: Shape::Object, content: Some(content), structured: true, lead, nodes })
}

fn value(view: &View<'_>, branch: &Branch<'_>, live: &Live) -> Variant {
    let structured = matches!(live.cell, Cell::Set | Cell::Container(_));
    Variant { structured, ..Variant::of(Shape::Value, Some(cell_content(view, branch, live)), live.node) }
}

/// What a reader sees of one live operation.
pub(crate) fn cell_content(view: &View<'_>, branch: &Branch<'_>, live: &Live) -> Content {
    use crate::event::Value;
    match &live.cell {
        Cell::Value(Value::Int(value)) => Content::of(value.wrapping_add(branch.count).into()),
        Cell::Value(value) => Content::of_value(value),
        Cell::Container(ContainerKind::List) => Content::of_items(&view.list(live)),
        Cell::Container(ContainerKind::Text) => Content::of(view.text(live).into()),
        Cell::Set => Content::of(branch.members.iter().filter_map(|member| json::parse(member).ok()).collect()),
        Cell::Tombstone | Cell::Member => Content::default(),
    }
}

/// What a decision shows.
pub(crate) enum Shown {
    /// The variant of this index.
    Variant(usize),
    /// A value of its own, and the event that it is of, if it is of one.
    Content(Content, Option<NodeIx>),
}

/// A decided field.
pub(crate) struct Decided {
    pub(crate) shown: Shown,
    pub(crate) conflict: Conflict,
}

impl Projecting<'_, '_> {
    /// Decides a field of which several variants live.
    pub(crate) fn decide(&self, branch: &Branch<'_>, variants: &[Variant]) -> Decided {
        let strategy = self.policy.strategy(&branch.path);
        let base = base(self.view, &branch.path, variants);
        let (shown, because, open) = self.choose(strategy, &branch.path, variants, base.as_ref());
        let rule = strategy.name().to_owned();
        let status = if open { Status::Open } else { Status::Auto { rule } };
        let (taken, content) = match &shown {
            Shown::Variant(index) => (Some(*index), variants.get(*index).and_then(|v| v.content.clone())),
            Shown::Content(content, _) => (place_of(variants, content), Some(content.clone())),
        };
        let conflict = Conflict {
            id: conflict_id(self.record.ledger, &self.record.collection, &self.record.key, branch.path.as_str()),
            version: version(self.view.graph(), variants),
            path: branch.path.to_string(),
            kind: kind(self.view.graph(), variants, base.is_some()),
            severity: if open { Severity::Medium } else { Severity::Low },
            status,
            base: base.map(|(content, _)| content),
            candidates: variants.iter().filter_map(|variant| candidate(self.view.graph(), variant)).collect(),
            shown: content,
            taken,
            because,
        };
        Decided { shown, conflict }
    }

    fn choose(
        &self,
        strategy: &Strategy,
        path: &Path,
        variants: &[Variant],
        base: Option<&(Content, NodeIx)>,
    ) -> (Shown, String, bool) {
        let last = variants.len().saturating_sub(1);
        let (index, because) = match strategy {
            Strategy::Merge => (last, "merge: the latest by order, until somebody settles it".to_owned()),
            Strategy::LastWriteWins(_) => (last, "last_write_wins: the latest by order".to_owned()),
            Strategy::FirstWriteWins(_) => (0, "first_write_wins: the earliest by order".to_owned()),
            Strategy::SourceWins(rank) => self.ranked(variants, rank, false),
            Strategy::TargetWins(rank) => self.ranked(variants, rank, true),
            Strategy::Manual => return self.manual(base, "manual"),
            Strategy::Custom(name) => return self.custom(name, path, variants, base),
        };
        (Shown::Variant(index), because, strategy.leaves_open())
    }

    /// Base; where that is absent or removed, the earliest.
    fn manual(&self, base: Option<&(Content, NodeIx)>, why: &str) -> (Shown, String, bool) {
        match base {
            Some((content, node)) => {
                let because = format!("{why}: the value that all candidates were made on, until somebody settles it");
                (Shown::Content(content.clone(), Some(*node)), because, true)
            }
            None => {
                let because = format!("{why}: the candidates have no value in common, so the earliest by order");
                (Shown::Variant(0), because, true)
            }
        }
    }

    fn ranked(&self, variants: &[Variant], rank: &[String], reverse: bool) -> (usize, String) {
        let name = if reverse { "target_wins" } else { "source_wins" };
        let place = |ix: &NodeIx| {
            let source = &self.view.graph().node(*ix)?.source;
            let place = rank.iter().position(|ranked| ranked == source)?;
            Some(if reverse { rank.len() - 1 - place } else { place })
        };
        let best = |variant: &Variant| variant.nodes.iter().filter_map(place).min().unwrap_or(usize::MAX);
        let winner = variants.iter().enumerate().min_by_key(|(index, variant)| (best(variant), Reverse(*index)));
        let Some((index, variant)) = winner else { return (0, name.to_owned()) };
        let source = variant.nodes.iter().min_by_key(|ix| place(ix).unwrap_or(usize::MAX));
        let source = source.and_then(|&ix| self.view.graph().node(ix)).map_or("", |node| &node.source);
        match best(variant) {
            usize::MAX => (index, format!("{name}: no candidate is of a ranked source, so the latest by order")),
            _ => (index, format!("{name}: {source} ranks first among the candidates' sources")),
        }
    }

    fn custom(
        &self,
        name: &str,
        path: &Path,
        variants: &[Variant],
        base: Option<&(Content, NodeIx)>,
    ) -> (Shown, String, bool) {
        let verdict = if self.resolvers.contains(name) {
            self.resolvers.decide(name, &self.dispute(path, variants, base))
        } else {
            Err(format!("custom strategy `{name}` is not registered here"))
        };
        match verdict {
            Ok(Verdict::Take(index)) => (Shown::Variant(index), format!("custom `{name}` took a candidate"), false),
            Ok(Verdict::Value(value)) => match json::normalize(value) {
                Ok(value) => {
                    (Shown::Content(Content::of(value), None), format!("custom `{name}` made a value"), false)
                }
                Err(fault) => {
                    self.manual(base, &format!("custom `{name}` made no value ({fault}), acting as manual"))
                }
            },
            Ok(Verdict::Undecided) => self.manual(base, &format!("custom `{name}` is undecided, acting as manual")),
            Err(why) => self.manual(base, &format!("{why}, acting as manual")),
        }
    }

    fn dispute(&self, path: &Path, variants: &[Variant], base: Option<&(Content, NodeIx)>) -> Dispute {
        let graph = self.view.graph();
        let choice = |variant: &Variant| {
            let node = graph.node(variant.lead)?;
            let seen = self.view.at(graph.closure([variant.lead]));
            Some(Choice {
                value: variant.content.as_ref().map(|content| content.json.clone()),
                event: node.id,
                source: node.source.clone(),
                principal: node.principal.clone(),
                occurred_at: node.occurred_at,
                at: node.at,
                record: super::project::merged(&seen, &Branch::record(seen.registers())).json,
            })
        };
        Dispute {
            path: path.to_string(),
            base: base.map(|(content, _)| content.json.clone()),
            candidates: variants.iter().filter_map(choice).collect(),
        }
    }

    /// The strategy's scope is the record, and the view holds concurrent events.
    pub(crate) fn follows_record(&self, path: &Path) -> bool {
        self.policy.strategy(path).scope() == Scope::Record
    }
}

/// The value that all variants were made on: the field as of what all their events have as strict ancestors; where
/// several live there, the value that those were made on. `None` where it is absent or removed.
pub(crate) fn base(view: &View<'_>, path: &Path, variants: &[Variant]) -> Option<(Content, NodeIx)> {
    let nodes = variants.iter().flat_map(|variant| variant.nodes.iter().copied());
    let mut past: Clock = view.graph().common_ancestors(nodes);
    loop {
        if past.is_empty() {
            return None;
        }
        let then = view.field_at(past, &path.to_key());
        let record = Branch::record(then.registers());
        let variants = variants_at(&then, &record, path);
        match variants.as_slice() {
            [] => return None,
            [only] => return Some((only.content.clone()?, only.lead)),
            several => {
                past =
                    view.graph().common_ancestors(several.iter().flat_map(|variant| variant.nodes.iter().copied()));
            }
        }
    }
}

fn variants_at(view: &View<'_>, record: &Branch<'_>, path: &Path) -> Vec<Variant> {
    record.get(path).map_or_else(Vec::new, |branch| variants(view, branch))
}

/// The hash of the events of all candidates, equal values included.
pub(crate) fn version(graph: &Graph, variants: &[Variant]) -> [u8; 32] {
    let mut events = graph.ids(variants.iter().flat_map(|variant| variant.nodes.iter().copied()));
    events.dedup();
    conflict_version(&events)
}

fn kind(graph: &Graph, variants: &[Variant], has_base: bool) -> ConflictKind {
    let latest = |removed: bool| {
        let some = variants.iter().filter(|variant| (variant.shape == Shape::Removed) == removed);
        some.map(|variant| order(graph, variant.lead)).max()
    };
    let shapes = variants.iter().filter(|variant| variant.shape != Shape::Removed).map(|variant| variant.structured);
    let (structured, plain): (Vec<bool>, Vec<bool>) = shapes.partition(|structured| *structured);
    if latest(true).is_some() {
        return if latest(true) > latest(false) { ConflictKind::UpdateDelete } else { ConflictKind::DeleteUpdate };
    }
    if !structured.is_empty() && !plain.is_empty() {
        return ConflictKind::Type;
    }
    if has_base { ConflictKind::UpdateUpdate } else { ConflictKind::CreateCreate }
}

fn candidate(graph: &Graph, variant: &Variant) -> Option<Candidate> {
    candidate_of(graph, variant.lead, variant.content.clone())
}

/// The variant that has this value.
fn place_of(variants: &[Variant], content: &Content) -> Option<usize> {
    let same = |other: &Content| other.canonical() == content.canonical();
    variants.iter().position(|variant| variant.content.as_ref().is_some_and(same))
}

/// A candidate of an event.
pub(crate) fn candidate_of(graph: &Graph, ix: NodeIx, value: Option<Content>) -> Option<Candidate> {
    let node = graph.node(ix)?;
    Some(Candidate {
        value,
        event: node.id,
        writer: node.writer,
        source: node.source.clone(),
        principal: node.principal.clone(),
        occurred_at: node.occurred_at,
        at: node.at,
    })
}
