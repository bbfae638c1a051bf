//! Taking events of one record back: what they wrote becomes what was there before, where nobody changed it since.
//!
//! An event that took back another one wrote what had been there before that: so what it wrote is nobody's change, but
//! stands for the operation that it brought back.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Settled};
use super::settle::Undone;
use crate::Result;
use crate::document::{Cell, Clock, ContainerKind, ItemEdits, ItemRepair, Live, NodeIx, View};
use crate::event::{Container, EventId, FlatKey, LedgerId, Op, Path, Value, json, limits};
use crate::projection::{Content, DELETED, Policy, RecordId, Resolvers, Strategy, project};

/// A path that is left as it is, and why.
pub(crate) type Left = (String, String);

/// Whose an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// It is of this event, which is taken back, or stands for one of it.
    Ours(NodeIx),
    /// It stands for nothing.
    Nobodys,
    /// It is of an event that stays.
    Others,
}

/// What a key held before the events.
struct Before<'a> {
    view: View<'a>,
    lives: Vec<Live>,
}

/// Takes back events of one record.
pub(crate) struct Reverting<'a, 'v> {
    view: &'a View<'v>,
    taken: &'a BTreeSet<NodeIx>,
    /// By event, the one that it took back.
    undone: BTreeMap<NodeIx, NodeIx>,
    draft: Draft,
    skipped: Vec<Left>,
    /// Fields that go, and what they would be put back to.
    removed: BTreeSet<Path>,
}

impl<'a, 'v> Reverting<'a, 'v> {
    pub(crate) fn new(view: &'a View<'v>, taken: &'a BTreeSet<NodeIx>, undone: &Undone) -> Self {
        let find = |id: &EventId| view.graph().find(id);
        let undone = undone.0.iter().filter_map(|(by, of)| Some((find(by)?, find(of)?))).collect();
        let (draft, skipped, removed) = Default::default();
        Self { view, taken, undone, draft, skipped, removed }
    }

    /// The operations that take the events back, and what is left as it is.
    pub(crate) fn run(mut self) -> Result<(Draft, Vec<Left>)> {
        if self.made_the_record() {
            self.draft.ops.push(Op::Delete);
        } else {
            self.counters();
            self.registers()?;
            self.items();
        }
        Ok((self.draft, self.skipped))
    }

    /// Whose a live operation of a key is.
    fn whose(&self, key: &str, live: &Live) -> Whose {
        let mut at = live.node;
        loop {
            if self.taken.contains(&at) {
                return Whose::Ours(at);
            }
            let Some(&target) = self.undone.get(&at) else { return Whose::Others };
            let then = self.view.field_at(self.view.graph().ancestors(target), &FlatKey::from_document(key));
            match then.registers().get(key) {
                [] => return Whose::Nobodys,
                [before] => at = before.node,
                _ => return Whose::Others,
            }
        }
    }

    fn is_others(&self, key: &str, live: &Live) -> bool {
        live.cell.is_live() && self.whose(key, live) == Whose::Others
    }

    /// Whether nothing lives but what the events made, and they made the record.
    fn made_the_record(&self) -> bool {
        let graph = self.view.graph();
        let roots = graph.nodes().filter(|(_, node)| node.parents.is_empty()).all(|(ix, _)| self.taken.contains(&ix));
        let stays = |ix: NodeIx| !self.taken.contains(&ix) && !self.is_undoing(ix);
        let counts = |ix| !self.view.item_edits(ix).is_empty() || !self.view.increments(ix).is_empty();
        let root = Path::root().to_key();
        let fields = self.view.registers().iter().filter(|(key, _)| *key != root.as_str());
        roots
            && !self.is_deleted()
            && !fields.into_iter().any(|(key, lives)| lives.iter().any(|live| self.is_others(key, live)))
            && !graph.nodes().any(|(ix, _)| stays(ix) && counts(ix))
    }

    /// Whether an event took back another one, or was taken back.
    fn is_undoing(&self, ix: NodeIx) -> bool {
        self.undone.iter().any(|(by, of)| *by == ix || *of == ix)
    }

    fn is_deleted(&self) -> bool {
        let lives = self.view.registers().get(FlatKey::deleted().as_str());
        lives.iter().any(|live| live.cell == Cell::Value(Value::Bool(true)))
    }

    // --- counters ------------------------------------------------------------------------------------------------

    /// Increments are taken back always, but of a field that is no count any more.
    fn counters(&mut self) {
        for (key, by) in self.taken.iter().flat_map(|&ix| self.view.increments(ix)) {
            let path = key.strip_prefix("$#").and_then(|key| FlatKey::from_document(key).to_path());
            if let Some(path) = path.filter(|path| self.is_count(path)) {
                self.draft.ops.push(Op::Increment { path, by: by.wrapping_neg() });
            }
        }
    }

    fn is_count(&self, path: &Path) -> bool {
        let lives = self.view.registers().get(path.to_key().as_str());
        lives.iter().any(|live| matches!(live.cell, Cell::Value(Value::Int(_))))
    }

    /// How much the events added to a counter, those of them in a past where one is given.
    fn counted(&self, key: &FlatKey, within: Option<&Clock>) -> i64 {
        let graph = self.view.graph();
        let events = self.taken.iter().filter(|&&ix| within.is_none_or(|past| graph.contains(past, ix)));
        let increments = events.flat_map(|&ix| self.view.increments(ix)).filter(|(at, _)| at == key.as_str());
        increments.fold(0, |sum: i64, (_, by)| sum.wrapping_add(by))
    }

    /// What others added to a counter since it stood at `then`.
    fn counted_by_others(&self, path: &Path, then: &View<'_>) -> i64 {
        let key = FlatKey::counter(path);
        let now = self.view.registers().counter(key.as_str()).wrapping_sub(self.counted(&key, None));
        let then = then.registers().counter(key.as_str()).wrapping_sub(self.counted(&key, Some(then.clock())));
        now.wrapping_sub(then)
    }

    // --- registers -----------------------------------------------------------------------------------------------

    /// Removals first: a put clears what lies in its way, a removal also what lies below.
    fn registers(&mut self) -> Result<()> {
        let mut puts = Vec::new();
        for key in self.written() {
            let lives = self.view.registers().get(&key);
            if lives.is_empty() {
                continue;
            }
            let others = lives.iter().filter(|live| self.whose(&key, live) == Whose::Others).count();
            if others > 0 {
                let beside = others < lives.len();
                let why =
                    if beside { "other candidates stand beside it: settle the conflict instead" } else { SINCE };
                self.skip(&key, why);
                continue;
            }
            let before = self.before(&key, lives);
            match self.obstacle(&key, &before) {
                Some(why) => self.skip(&key, why),
                None if before.is_absent() => self.take_away(&key, &before),
                None => puts.push((key, before)),
            }
        }
        let removed: Vec<Op> = self.removed.iter().map(|path| Op::Remove { path: path.clone() }).collect();
        self.draft.ops.extend(removed);
        puts.into_iter().try_for_each(|(key, before)| self.put_back(&key, &before))
    }

    fn skip(&mut self, key: &str, why: &str) {
        let path = FlatKey::from_document(key).to_path();
        let name = path.map_or_else(|| DELETED.to_owned(), |path| path.to_string());
        self.skipped.push((name, why.to_owned()));
    }

    /// The keys that the events wrote, but the root, which only says that the record is an object.
    fn written(&self) -> BTreeSet<String> {
        let root = Path::root().to_key();
        let written = self.taken.iter().flat_map(|&ix| self.view.written(ix)).map(|(key, _)| key);
        written.filter(|key| !key.starts_with("$#") && key != root.as_str()).collect()
    }

    /// What a key held before the events: as of what those whose operations live there were made on; where other events
    /// that are taken back wrote that, before those.
    fn before(&self, key: &str, lives: &[Live]) -> Before<'v> {
        let flat = FlatKey::from_document(key);
        let mut lives = lives.to_vec();
        loop {
            let ours = |live: &Live| match self.whose(key, live) {
                Whose::Ours(node) => Some(node),
                _ => None,
            };
            let nodes: Vec<NodeIx> = lives.iter().filter_map(ours).collect();
            let past: Clock = self.view.graph().common_ancestors(nodes.iter().copied());
            let view = self.view.field_at(past, &flat);
            lives = view.registers().get(key).to_vec();
            if !lives.iter().any(|live| ours(live).is_some()) {
                return Before { view, lives };
            }
        }
    }

    /// Why a key cannot go back without taking something of others with it.
    fn obstacle(&self, key: &str, before: &Before<'_>) -> Option<&'static str> {
        let flat = FlatKey::from_document(key);
        let path = flat.to_path().filter(|_| !self.is_member(key, before))?;
        let now = self.view.registers().get(key);
        let mark = now.iter().all(|live| live.cell.bears_fields() && live.cell.is_live());
        let gone = before.is_absent() && !now.iter().any(|live| live.cell.is_live());
        let stays = mark && (before.is_object() || before.is_absent() && before.had_fields());
        if gone || stays {
            return None;
        }
        if self.below(&flat).any(|(key, live)| self.is_others(key, live)) {
            return Some("what lies below it was changed since");
        }
        if !before.is_absent()
            && self.above(&path).any(|(key, live)| !live.cell.bears_fields() && self.is_others(&key, &live))
        {
            return Some("what lies above it was changed since");
        }
        if before.is_absent() && self.is_count(&path) && self.counted_by_others(&path, &before.view) != 0 {
            return Some("others counted with it since");
        }
        let ours = |container| self.item_changes(container).any(|(ix, _)| !self.taken.contains(&ix));
        let others = now.iter().filter_map(|live| self.view.container(live)).any(ours);
        others.then_some("its items were changed since")
    }

    fn below<'s>(&'s self, flat: &'s FlatKey) -> impl Iterator<Item = (&'s str, &'s Live)> {
        let registers = self.view.registers().iter();
        let below = registers.filter(|(key, _)| FlatKey::from_document(*key).is_below(flat));
        below.flat_map(|(key, lives)| lives.iter().map(move |live| (key, live)))
    }

    fn above(&self, path: &Path) -> impl Iterator<Item = (String, Live)> {
        let above = std::iter::successors(path.parent(), Path::parent).filter(|above| !above.is_root());
        above.flat_map(|above| {
            let key = above.to_key();
            let lives = self.view.registers().get(key.as_str()).to_vec();
            lives.into_iter().map(move |live| (key.as_str().to_owned(), live))
        })
    }

    fn take_away(&mut self, key: &str, before: &Before<'_>) {
        let flat = FlatKey::from_document(key);
        let lives = self.view.registers().get(key);
        if flat == FlatKey::deleted() {
            self.draft.ops.push(if before.is_deleted() { Op::Delete } else { Op::Restore });
        } else if self.is_member(key, before) {
            self.member(&flat, false);
        } else if let Some(path) = flat.to_path().filter(|_| lives.iter().any(|live| live.cell.is_live())) {
            // A mark that an object is one says nothing where it was one.
            let mark = lives.iter().all(|live| live.cell.bears_fields());
            if !(mark && before.had_fields()) {
                let topmost = self.topmost(path, &before.view);
                self.removed.insert(topmost);
            }
        }
    }

    /// The topmost object that came with a field and holds nothing else.
    fn topmost(&self, path: Path, then: &View<'_>) -> Path {
        let mut topmost = path;
        while let Some(parent) = topmost.parent().filter(|parent| !parent.is_root()) {
            let key = parent.to_key();
            let past = self.view.field_at(then.clock().clone(), &key);
            let was_there = past.registers().iter().any(|(_, lives)| lives.iter().any(|live| live.cell.is_live()));
            let at = self.view.registers().get(key.as_str()).iter().map(|live| (key.as_str(), live));
            if was_there || at.chain(self.below(&key)).any(|(key, live)| self.is_others(key, live)) {
                break;
            }
            topmost = parent;
        }
        topmost
    }

    fn is_member(&self, key: &str, before: &Before<'_>) -> bool {
        let is = |live: &Live| live.cell == Cell::Member;
        let written =
            || self.taken.iter().flat_map(|&ix| self.view.written(ix)).any(|(at, live)| at == key && is(&live));
        self.view.registers().get(key).iter().any(is) || before.lives.iter().any(is) || written()
    }

    fn member(&mut self, key: &FlatKey, add: bool) {
        if let Some((path, member)) = key.split_member()
            && let Ok(member) = json::parse(&member)
        {
            let member = Value::from_json(&member);
            self.draft.ops.push(if add { Op::SetAdd { path, member } } else { Op::SetRemove { path, member } });
        }
    }

    fn put_back(&mut self, key: &str, before: &Before<'_>) -> Result<()> {
        let flat = FlatKey::from_document(key);
        if flat == FlatKey::deleted() {
            self.draft.ops.push(if before.is_deleted() { Op::Delete } else { Op::Restore });
            return Ok(());
        }
        if before.lives.iter().any(|live| live.cell == Cell::Member) {
            self.member(&flat, true);
            return Ok(());
        }
        let Some(path) = flat.to_path() else { return Ok(()) };
        if before.is_object() {
            let now = self.view.registers().get(key);
            if !now.iter().all(|live| live.cell.bears_fields() && live.cell.is_live()) {
                self.draft.ops.push(Op::Put { path, value: Value::EmptyObject });
            }
            return Ok(());
        }
        let Some(mut content) = before.content(&path) else { return Ok(()) };
        match (before.cell(), content.json.as_i64()) {
            (Cell::Value(Value::Int(_)), Some(value)) => {
                let ours = self.counted(&FlatKey::counter(&path), Some(before.view.clock()));
                let others = self.counted_by_others(&path, &before.view);
                content.json = value.wrapping_sub(ours).wrapping_add(others).into();
            }
            // Its members have keys of their own.
            (Cell::Set, _) => {
                self.draft.ops.push(Op::MakeSet { path });
                return Ok(());
            }
            (Cell::Container(kind), _) => content = self.items_before(*kind, before, content),
            _ => {}
        }
        self.draft.settle(&path, Some(&content), Settled::of(before.cell()), before.view.registers())
    }

    /// What a list or text held before the events.
    fn items_before(&self, kind: ContainerKind, before: &Before<'_>, shown: Content) -> Content {
        let [live] = before.lives.as_slice() else { return shown };
        let Some(container) = before.view.container(live) else { return shown };
        let mut edits = self.edits_to_take_back(container);
        let graph = self.view.graph();
        edits.retain(|(_, ix, _)| graph.contains(before.view.clock(), *ix));
        let edits: Vec<_> = edits.into_iter().map(|(edits, _, then)| (edits, then)).collect();
        let items = before.view.items_without(live, &edits);
        match kind {
            ContainerKind::List => Content::of_items(&items),
            ContainerKind::Text => {
                let text: String =
                    items.iter().filter_map(|item| item.to_json().ok()?.as_str().map(str::to_owned)).collect();
                Content::of(text.into())
            }
        }
    }

    // --- lists and texts -----------------------------------------------------------------------------------------

    /// What events did in a list or text.
    fn item_changes(&self, container: Container) -> impl Iterator<Item = (NodeIx, ItemEdits)> {
        let changes = self
            .view
            .graph()
            .nodes()
            .flat_map(|(ix, _)| self.view.item_edits(ix).into_iter().map(move |edits| (ix, edits)));
        changes.filter(move |(_, edits)| edits.container == container)
    }

    /// Whether a list or text is there and stays: one that the events made themselves goes as a whole.
    fn stays(&self, container: Container) -> bool {
        let lives = self.view.registers().iter().flat_map(|(key, lives)| lives.iter().map(move |live| (key, live)));
        let mut here = lives.filter(|(_, live)| self.view.container(live) == Some(container));
        here.any(|(key, live)| {
            let path = FlatKey::from_document(key).to_path();
            let left = path.is_some_and(|path| self.skipped.iter().any(|(skipped, _)| *skipped == path.as_str()));
            left || self.whose(key, live) == Whose::Others
        })
    }

    /// Says where items are left because their list or text is not there any more, and not by these events.
    fn note_gone(&mut self, container: Container) {
        let Container::Of(event, _) = container else { return };
        let Some(maker) = self.view.graph().find(&event).filter(|maker| !self.taken.contains(maker)) else { return };
        let made = self.view.written(maker).into_iter();
        let key = made.filter(|(_, live)| self.view.container(live) == Some(container)).map(|(key, _)| key).next();
        let ours = |key: &String| {
            let lives = self.view.registers().get(key);
            lives.iter().all(|live| matches!(self.whose(key, live), Whose::Ours(_)))
        };
        if let Some(key) = key.filter(|key| !ours(key)) {
            self.skip(&key, "it was replaced since");
        }
    }

    /// Latest first, so that each finds the items as it left them.
    fn items(&mut self) {
        let own = self.taken.iter().flat_map(|&ix| self.view.item_edits(ix));
        let containers: BTreeSet<Container> = own.map(|edits| edits.container).collect();
        for container in containers {
            if !self.stays(container) {
                self.note_gone(container);
                continue;
            }
            let edits = self.edits_to_take_back(container).into_iter();
            let edits: Vec<_> = edits.map(|(edits, _, then)| (edits, then)).collect();
            let text = edits.first().is_some_and(|(edits, _)| edits.kind == ContainerKind::Text);
            for repair in self.view.repair_items(&edits) {
                match text {
                    true => self.repair_text(container, repair),
                    false => self.repair_list(container, repair),
                }
            }
        }
    }

    /// What the events did in a list or text, latest first. An item that another event took out, and the taking back of
    /// that brought in again, is another item: so those two are taken back with them.
    fn edits_to_take_back(&self, container: Container) -> Vec<(ItemEdits, NodeIx, View<'v>)> {
        let all: Vec<(NodeIx, ItemEdits)> = self.item_changes(container).collect();
        let mut meant = self.taken.clone();
        loop {
            let ours: Vec<&ItemEdits> =
                all.iter().filter(|(ix, _)| meant.contains(ix)).map(|(_, edits)| edits).collect();
            let took_out = |ix: &NodeIx| {
                let own = all.iter().filter(|(at, _)| at == ix);
                own.flat_map(|(_, edits)| ours.iter().map(move |ours| edits.took_out(ours))).any(|took_out| took_out)
            };
            let pairs = self.undone.iter().filter(|(by, of)| !meant.contains(by) && took_out(of));
            let more: Vec<NodeIx> = pairs.flat_map(|(by, of)| [*by, *of]).collect();
            if more.is_empty() {
                break;
            }
            meant.extend(more);
        }
        let before = |ix: NodeIx| self.view.at(self.view.graph().ancestors(ix));
        let edits = all.into_iter().rev().filter(|(ix, _)| meant.contains(ix));
        edits.map(|(ix, edits)| (edits, ix, before(ix))).collect()
    }

    fn repair_list(&mut self, container: Container, repair: ItemRepair) {
        self.draft.ops.push(match repair {
            ItemRepair::Remove(index) => Op::RemoveAt { container, index },
            ItemRepair::Insert(index, value) => Op::Insert { container, index, value },
        });
    }

    /// Neighbouring characters go and come as one.
    fn repair_text(&mut self, container: Container, repair: ItemRepair) {
        let last = match self.draft.ops.last_mut() {
            Some(Op::SpliceText { container: at, index, delete, insert }) if *at == container => {
                Some((*index, delete, insert))
            }
            _ => None,
        };
        let (index, delete, insert) = match (repair, last) {
            (ItemRepair::Remove(index), Some((at, delete, insert))) if index == at && insert.is_empty() => {
                *delete += 1;
                return;
            }
            (ItemRepair::Insert(index, Value::Text(more)), Some((at, _, insert)))
                if index == at + insert.chars().count() as u64
                    && insert.len() + more.len() <= limits::INLINE_BYTES =>
            {
                insert.push_str(&more);
                return;
            }
            (ItemRepair::Remove(index), _) => (index, 1, String::new()),
            (ItemRepair::Insert(index, Value::Text(insert)), _) => (index, 0, insert),
            (ItemRepair::Insert(..), _) => return,
        };
        self.draft.ops.push(Op::SpliceText { container, index, delete, insert });
    }
}

const SINCE: &str = "it was changed since";

impl Before<'_> {
    fn cell(&self) -> &Cell {
        self.lives.iter().map(|live| &live.cell).find(|cell| cell.is_live()).unwrap_or(&Cell::Tombstone)
    }

    fn is_absent(&self) -> bool {
        !self.lives.iter().any(|live| live.cell.is_live())
    }

    /// Whether the key only said that an object is there, whose fields have keys of their own.
    fn is_object(&self) -> bool {
        !self.is_absent() && self.lives.iter().all(|live| live.cell.bears_fields())
    }

    fn had_fields(&self) -> bool {
        self.view.registers().iter().any(|(_, lives)| lives.iter().any(|live| live.cell.is_live()))
    }

    fn is_deleted(&self) -> bool {
        self.lives.iter().any(|live| live.cell == Cell::Value(Value::Bool(true)))
    }

    /// The value; where there were several, the one that they were made on, as the strategy `manual` shows it.
    fn content(&self, path: &Path) -> Option<Content> {
        let record = RecordId { ledger: LedgerId([0; 16]), collection: String::new(), key: String::new() };
        let manual = Policy::of(Strategy::Manual);
        project(&self.view, &manual, &Resolvers::default(), &record).content.at(path.as_str())
    }
}
