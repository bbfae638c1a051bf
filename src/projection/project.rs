//! The projection of a record: its tree of fields, decided one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::conflict::Conflict;
use super::content::Content;
use super::decide::{Decided, Shape, Shown, Variant, cell_content, order, variants};
use super::deletion;
use super::policy::{Policy, Scope, Strategy};
use super::resolver::Resolvers;
use super::tree::Branch;
use crate::document::{Cell, Live, NodeIx, Registers, View};
use crate::event::{FlatKey, LedgerId, Path};

/// Which record a projection is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Its ledger.
    pub ledger: LedgerId,
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
}

/// Where a shown field comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Blame {
    /// The field: a value, an array or an object without fields.
    pub path: Path,
    /// Its value.
    pub content: Content,
    /// The event that wrote it; `None` for a value that a custom strategy made.
    pub node: Option<NodeIx>,
}

/// What a reader sees of a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// The record's value; the last one where it is deleted.
    pub content: Content,
    /// Whether the record is deleted.
    pub deleted: bool,
    /// Where candidates disagree: by path, the deletion first.
    pub conflicts: Vec<Conflict>,
    /// Where each shown field comes from, by path.
    pub blame: Vec<Blame>,
}

/// Projects a view of a record under a policy. A pure function: no clock, no chance, no order of arrival.
#[must_use]
pub fn project(view: &View<'_>, policy: &Policy, resolvers: &Resolvers, record: &RecordId) -> Projection {
    let projecting = Projecting { view, policy, resolvers, record };
    let (deleted, deletion) = deletion::decide(view, policy, record);
    let mut projection = if policy.has_record_scope() && view.graph().is_concurrent() {
        projecting.by_record()
    } else {
        projecting.by_field(view.registers())
    };
    projection.deleted = deleted;
    projection.conflicts.splice(0..0, deletion);
    projection
}

/// [`project`] of some fields alone, which are no fields of fields: as if the record had no others.
pub(crate) fn project_fields(
    view: &View<'_>,
    policy: &Policy,
    resolvers: &Resolvers,
    record: &RecordId,
    fields: &BTreeSet<Path>,
) -> Projection {
    if policy.has_record_scope() && view.graph().is_concurrent() {
        return project(view, policy, resolvers, record);
    }
    let projecting = Projecting { view, policy, resolvers, record };
    let (deleted, deletion) = deletion::decide(view, policy, record);
    let mut projection = projecting.by_branch(&Branch::of_fields(view.registers(), fields));
    projection.deleted = deleted;
    projection.conflicts.splice(0..0, deletion);
    projection
}

/// What `branch` shows when every field shows its latest value.
pub(crate) fn merged(view: &View<'_>, branch: &Branch<'_>) -> Content {
    unheard(view, branch, &mut Silent { live: false })
}

/// What an object is as a candidate: every field shows its latest value that is no removal. The put of a plain value
/// over the object removes the fields that it saw; what it did not see is the candidate that stands against it.
pub(crate) fn living(view: &View<'_>, branch: &Branch<'_>) -> Content {
    unheard(view, branch, &mut Silent { live: true })
}

fn unheard(view: &View<'_>, branch: &Branch<'_>, silent: &mut Silent) -> Content {
    let record = RecordId { ledger: LedgerId([0; 16]), collection: String::new(), key: String::new() };
    let (policy, resolvers) = (Policy::default(), Resolvers::default());
    let projecting = Projecting { view, policy: &policy, resolvers: &resolvers, record: &record };
    projecting.fields(branch, silent)
}

/// What a projection is made from.
pub(crate) struct Projecting<'a, 'v> {
    pub(crate) view: &'a View<'v>,
    pub(crate) policy: &'a Policy,
    pub(crate) resolvers: &'a Resolvers,
    pub(crate) record: &'a RecordId,
}

/// Who is told of what is decided on the way.
pub(crate) trait Listener {
    /// Whether conflicts are wanted; if not, every field shows its latest value.
    fn wants_conflicts(&self) -> bool;
    /// Whether removals are passed over where another value stands beside them.
    fn wants_living(&self) -> bool {
        false
    }
    fn conflict(&mut self, conflict: Conflict);
    fn blame(&mut self, path: &Path, content: &Content, node: Option<NodeIx>);
}

struct Silent {
    /// Removals are passed over.
    live: bool,
}

impl Listener for Silent {
    fn wants_conflicts(&self) -> bool {
        false
    }
    fn wants_living(&self) -> bool {
        self.live
    }
    fn conflict(&mut self, _: Conflict) {}
    fn blame(&mut self, _: &Path, _: &Content, _: Option<NodeIx>) {}
}

#[derive(Default)]
struct Recorder {
    conflicts: Vec<Conflict>,
    blame: Vec<Blame>,
}

impl Listener for Recorder {
    fn wants_conflicts(&self) -> bool {
        true
    }
    fn conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }
    fn blame(&mut self, path: &Path, content: &Content, node: Option<NodeIx>) {
        self.blame.push(Blame { path: path.clone(), content: content.clone(), node });
    }
}

impl Projecting<'_, '_> {
    fn by_field(&self, registers: &Registers) -> Projection {
        self.by_branch(&Branch::record(registers))
    }

    fn by_branch(&self, record: &Branch<'_>) -> Projection {
        let mut recorder = Recorder::default();
        let content = self.fields(record, &mut recorder);
        // The tree is in the order of names, which is another one where a name goes on after another's end.
        recorder.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        recorder.blame.sort_by(|a, b| a.path.cmp(&b.path));
        Projection { content, deleted: false, conflicts: recorder.conflicts, blame: recorder.blame }
    }

    /// The fields whose strategy follows one record show what its writer saw; their conflicts stay listed.
    fn by_record(&self) -> Projection {
        let chosen = self.chosen_registers();
        let view = self.view.with_registers(chosen);
        let shown = Projecting { view: &view, ..*self }.by_field(view.registers());
        let mut conflicts = self.by_field(self.view.registers()).conflicts;
        for conflict in &mut conflicts {
            let follows = Path::parse(&conflict.path).is_ok_and(|path| self.follows_record(&path));
            if follows {
                self.show_record(conflict, &shown.content);
            }
        }
        Projection { conflicts, ..shown }
    }

    fn show_record(&self, conflict: &mut Conflict, shown: &Content) {
        conflict.shown = shown.at(&conflict.path);
        conflict.taken = conflict.candidates.iter().position(|candidate| candidate.value == conflict.shown);
        conflict.because.push_str(", with the whole record of its writer");
    }

    /// The registers as the strategies of record scope choose them: for each key the first write met on the chain from
    /// the decisive head to the decisive parent. Sets, lists, texts and counters merge as always.
    fn chosen_registers(&self) -> Registers {
        let mut chosen = self.view.registers().clone();
        for latest in [true, false] {
            let follows = |key: &str| {
                let path = FlatKey::from_document(key).to_path();
                path.is_some_and(|path| match self.policy.strategy(&path) {
                    Strategy::LastWriteWins(Scope::Record) => latest,
                    Strategy::FirstWriteWins(Scope::Record) => !latest,
                    _ => false,
                })
            };
            let first = self.first_writes(latest, &follows);
            chosen.replace(follows, first);
        }
        chosen
    }

    fn first_writes(&self, latest: bool, follows: &impl Fn(&str) -> bool) -> BTreeMap<String, Live> {
        let (mut first, mut by_node) = (BTreeMap::new(), self.view.written_by_node(follows));
        if by_node.is_empty() {
            return first;
        }
        let mut at = self.decisive(self.view.graph().heads_of(self.view.clock()), latest);
        while let Some(ix) = at {
            for (key, live) in by_node.remove(&ix).unwrap_or_default() {
                first.entry(key).or_insert(live);
            }
            let parents = self.view.graph().node(ix).map(|node| node.parents.to_vec()).unwrap_or_default();
            at = self.decisive(parents, latest);
        }
        first.retain(|_, live| live.cell != Cell::Member);
        first
    }

    fn decisive(&self, nodes: Vec<NodeIx>, latest: bool) -> Option<NodeIx> {
        let by_order = |ix: &NodeIx| order(self.view.graph(), *ix);
        if latest { nodes.into_iter().max_by_key(by_order) } else { nodes.into_iter().min_by_key(by_order) }
    }

    /// The content of an object.
    fn fields(&self, branch: &Branch<'_>, listener: &mut impl Listener) -> Content {
        let shown =
            branch.fields.iter().filter_map(|(name, field)| Some((name.clone(), self.field(field, listener)?)));
        Content::of_fields(shown.collect::<Vec<_>>())
    }

    /// The content of a field; `None` where it is absent.
    fn field(&self, branch: &Branch<'_>, listener: &mut impl Listener) -> Option<Content> {
        match branch.lives {
            [] if branch.fields.is_empty() => None,
            [] => self.object(branch, listener),
            [only] if !branch.has_fields() => self.single(branch, only, listener),
            _ => self.disputed(branch, listener),
        }
    }

    fn object(&self, branch: &Branch<'_>, listener: &mut impl Listener) -> Option<Content> {
        if !branch.is_live() {
            return None;
        }
        let content = self.fields(branch, listener);
        if content.json.as_object().is_some_and(serde_json::Map::is_empty) {
            let latest =
                branch.object_lives().iter().map(|live| live.node).max_by_key(|&ix| order(self.view.graph(), ix));
            listener.blame(&branch.path, &content, latest);
        }
        Some(content)
    }

    fn single(&self, branch: &Branch<'_>, live: &Live, listener: &mut impl Listener) -> Option<Content> {
        if !live.cell.is_live() {
            return None;
        }
        let content = match live.cell {
            Cell::Value(crate::event::Value::EmptyObject) => Content::of_fields([]),
            _ => cell_content(self.view, branch, live),
        };
        listener.blame(&branch.path, &content, Some(live.node));
        Some(content)
    }

    fn disputed(&self, branch: &Branch<'_>, listener: &mut impl Listener) -> Option<Content> {
        let mut variants = variants(self.view, branch);
        if listener.wants_living() {
            variants.retain(|variant| variant.shape != Shape::Removed);
        }
        if variants.len() < 2 || !listener.wants_conflicts() {
            return self.variant(branch, variants.last()?, listener);
        }
        let Decided { shown, mut conflict } = self.decide(branch, &variants);
        conflict.shown = match shown {
            // An object's fields may be decided otherwise than a candidate lists them.
            Shown::Variant(index) => variants.get(index).and_then(|variant| self.variant(branch, variant, listener)),
            Shown::Content(content, node) => {
                listener.blame(&branch.path, &content, node);
                Some(content)
            }
        };
        let shown = conflict.shown.clone();
        listener.conflict(conflict);
        shown
    }

    fn variant(&self, branch: &Branch<'_>, variant: &Variant, listener: &mut impl Listener) -> Option<Content> {
        if variant.shape == Shape::Object {
            return self.object(branch, listener);
        }
        let content = variant.content.clone()?;
        listener.blame(&branch.path, &content, Some(variant.lead));
        Some(content)
    }
}
