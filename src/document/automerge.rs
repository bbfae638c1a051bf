//! The Automerge document of a record: built from derived changes, and read as of any moment.
//!
//! Invariant: nothing but what [`super::derive`] made, or a snapshot of it that this replica wrote, ever reaches
//! Automerge's parsers, which panic on hostile bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::OnceLock;

use automerge::legacy::{ElementId, Key, ObjectId, Op as LegacyOp, OpId, OpType};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ExpandedChange, LoadOptions, ObjId, ReadDoc, ScalarValue,
    TextEncoding,
};

use super::cell::Cell;
use super::derive::{ChangeOp, Derived, ObjectRef, OpRef};
use super::graph::{Graph, NodeIx};
use crate::event::{Value, hash};

/// The encoding is always named: any dependency may switch the default.
const ENCODING: TextEncoding = TextEncoding::UnicodeCodePoint;

/// A record's Automerge document, with the hash of each event's change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Materialised {
    /// Made when it is first asked for: an empty one takes more memory than a record's registers, and most records
    /// never need one.
    doc: OnceLock<Box<Automerge>>,
    hashes: Vec<ChangeHash>,
    births: BTreeMap<String, ChangeHash>,
}

impl Materialised {
    /// Applies the changes of events, which must follow those applied before in the graph's order.
    pub(crate) fn apply(&mut self, graph: &Graph, pending: &[(NodeIx, i64, Derived)]) -> Result<(), AutomergeError> {
        let mut changes = Vec::with_capacity(pending.len());
        for (ix, seconds, derived) in pending {
            let mut born = BTreeSet::new();
            for key in &derived.births {
                let birth = birth(key);
                born.insert(birth.hash());
                if self.births.insert(key.clone(), birth.hash()).is_none() {
                    changes.push(birth);
                }
            }
            let change = Change::from(self.expand(graph, *ix, *seconds, derived, born));
            self.hashes.push(change.hash());
            changes.push(change);
        }
        self.document();
        self.doc.get_mut().map_or(Ok(()), |doc| doc.apply_changes(changes))
    }

    fn expand(
        &self,
        graph: &Graph,
        ix: NodeIx,
        seconds: i64,
        derived: &Derived,
        mut deps: BTreeSet<ChangeHash>,
    ) -> ExpandedChange {
        let actor = ActorId::from(graph.actor_of(ix));
        let parents = graph.node(ix).map(|node| node.parents.clone()).unwrap_or_default();
        deps.extend(parents.into_iter().chain(graph.previous_of_actor(ix)).filter_map(|ix| self.hash(ix)));
        ExpandedChange {
            operations: derived.ops.iter().map(legacy_op).collect(),
            actor_id: actor,
            hash: None,
            seq: graph.node(ix).map_or(1, |node| u64::from(node.seq)),
            start_op: NonZeroU64::new(derived.start_op).unwrap_or(NonZeroU64::MIN),
            time: seconds,
            message: None,
            deps: deps.into_iter().collect(),
            extra_bytes: Vec::new(),
            author: None,
        }
    }

    pub(crate) fn hash(&self, ix: NodeIx) -> Option<ChangeHash> {
        self.hashes.get(ix as usize).copied()
    }

    /// The hashes of some events' changes.
    pub(crate) fn hashes(&self, nodes: &[NodeIx]) -> Vec<ChangeHash> {
        nodes.iter().filter_map(|&ix| self.hash(ix)).collect()
    }

    /// The change with a hash.
    pub(crate) fn change(&self, hash: &ChangeHash) -> Option<Change> {
        self.document().get_change_by_hash(hash)
    }

    pub(crate) fn document(&self) -> &Automerge {
        self.doc.get_or_init(|| Box::new(Automerge::new_with_encoding(ENCODING)))
    }

    /// Whether there is an Automerge document in memory.
    pub(crate) fn is_made(&self) -> bool {
        self.doc.get().is_some()
    }

    /// The saved document, for [`Materialised::load`]; nothing where there is none.
    pub(crate) fn save(&self) -> Vec<u8> {
        self.doc.get().map_or_else(Vec::new, |doc| doc.save_nocompress())
    }

    /// A document from what [`Materialised::save`] gave, with what a graph does not hold.
    pub(crate) fn load(bytes: &[u8], hashes: Vec<ChangeHash>, births: Vec<String>) -> Result<Self, AutomergeError> {
        let doc = match bytes {
            [] => OnceLock::new(),
            bytes => {
                let doc = Automerge::load_with_options(bytes, LoadOptions::new().text_encoding(ENCODING))?;
                OnceLock::from(Box::new(doc))
            }
        };
        let births = births.into_iter().map(|key| (key.clone(), birth(&key).hash())).collect();
        Ok(Self { doc, hashes, births })
    }

    pub(crate) fn birth_keys(&self) -> Vec<String> {
        self.births.keys().cloned().collect()
    }

    pub(crate) fn all_hashes(&self) -> &[ChangeHash] {
        &self.hashes
    }
}

/// The change that makes a counter, identical on every replica.
fn birth(key: &str) -> Change {
    Change::from(ExpandedChange {
        operations: vec![put(key, ScalarValue::counter(0))],
        actor_id: ActorId::from(hash::counter_actor(key)),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

fn op_id(op: &OpRef) -> OpId {
    OpId(op.counter, ActorId::from(op.actor))
}

fn put(key: &str, value: ScalarValue) -> LegacyOp {
    root_op(key, OpType::Put(value), Vec::new())
}

fn root_op(key: &str, action: OpType, pred: Vec<OpId>) -> LegacyOp {
    LegacyOp { action, obj: ObjectId::Root, key: Key::Map(key.into()), pred: pred.into(), insert: false }
}

fn legacy_op(op: &ChangeOp) -> LegacyOp {
    match op {
        ChangeOp::Clear { key, live } => root_op(key, OpType::Delete, live.iter().map(op_id).collect()),
        ChangeOp::Set { key, cell } => match (cell.to_scalar(), cell) {
            (Some(scalar), _) => put(key, scalar),
            (None, Cell::Container(kind)) => root_op(key, OpType::Make(kind.object()), Vec::new()),
            (None, _) => put(key, ScalarValue::Null),
        },
        ChangeOp::Increment { key, by } => {
            let counter = OpId(1, ActorId::from(hash::counter_actor(key)));
            root_op(key, OpType::Increment(*by), vec![counter])
        }
        ChangeOp::Insert { object, after, item } => LegacyOp {
            action: OpType::Put(Cell::Value(item.clone()).to_scalar().unwrap_or(ScalarValue::Null)),
            obj: ObjectId::Id(op_id(&object.op)),
            key: Key::Seq(after.as_ref().map_or(ElementId::Head, |op| ElementId::Id(op_id(op)))),
            pred: Vec::new().into(),
            insert: true,
        },
        ChangeOp::RemoveItem { object, item } => LegacyOp {
            action: OpType::Delete,
            obj: ObjectId::Id(op_id(&object.op)),
            key: Key::Seq(ElementId::Id(op_id(item))),
            pred: vec![op_id(item)].into(),
            insert: false,
        },
    }
}

fn object_id(object: &ObjectRef) -> ObjId {
    ObjId::Id(object.op.counter, ActorId::from(object.op.actor), 0)
}

/// The lists and texts of a document as of some events.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) materialised: &'a Materialised,
    /// `None`: now.
    pub(crate) at: Option<&'a [ChangeHash]>,
}

impl Moment<'_> {
    /// The values of a list's items.
    pub(crate) fn list(&self, object: &ObjectRef) -> Vec<Value> {
        let id = object_id(object);
        let doc = self.materialised.document();
        let items = match self.at {
            None => doc.list_range(&id, ..),
            Some(heads) => doc.list_range_at(&id, .., heads),
        };
        let value = |item: automerge::iter::ListRangeItem<'_>| match Cell::from_automerge(&item.value.into_value())? {
            Cell::Value(value) => Some(value),
            _ => None,
        };
        items.filter_map(value).collect()
    }

    /// The content of a text.
    pub(crate) fn text(&self, object: &ObjectRef) -> String {
        let id = object_id(object);
        let doc = self.materialised.document();
        match self.at {
            None => doc.text(&id),
            Some(heads) => doc.text_at(&id, heads),
        }
        .unwrap_or_default()
    }

    /// The operations that made the items of a list or text, in order.
    pub(crate) fn items(&self, container: &ObjectRef) -> Vec<OpRef> {
        let id = object_id(container);
        let doc = self.materialised.document();
        let items = match self.at {
            None => doc.list_range(&id, ..),
            Some(heads) => doc.list_range_at(&id, .., heads),
        };
        let op = |id: ObjId| match id {
            ObjId::Id(counter, actor, _) => Some(OpRef { counter, actor: actor.to_bytes().try_into().ok()? }),
            ObjId::Root => None,
        };
        items.filter_map(|item| op(item.id())).collect()
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ROOT, Value as AmValue};

    use super::super::registers::{Live, Lives, Registers};
    use super::super::{Clock, Document};
    use super::*;
    use crate::testing::{History, Rng};

    /// The registers of a record as its Automerge document has them, as of some events.
    fn registers(document: &Document, at: &[ChangeHash]) -> Registers {
        let (doc, graph) = (document.materialised.document(), document.graph());
        let live = |(value, id): (AmValue<'_>, ObjId)| {
            let ObjId::Id(counter, actor, _) = id else { return None };
            let node = graph.node_of_op(counter, actor.to_bytes())?;
            Some(Live { counter, node, cell: Cell::from_automerge(&value)? })
        };
        let mut registers = Registers::default();
        for key in doc.keys_at(ROOT, at) {
            let all = doc.get_all_at(ROOT, key.as_str(), at).unwrap();
            if key.starts_with("$#") {
                registers.counters.insert(key, all[0].0.as_i64().unwrap());
            } else {
                let lives: Lives = all.into_iter().filter_map(live).collect();
                registers.keys.insert(key, lives);
            }
        }
        registers
    }

    #[test]
    fn what_lived_at_any_moment_is_what_automerge_says() {
        let (mut disputed, mut counted) = (0, 0);
        for seed in 0..300 {
            let rng = &mut Rng::new(seed);
            let history = History::new(seed);
            let mut document = history.deliver(rng).document;
            document.materialise().unwrap();
            let everything = document.graph().everything();
            let pasts: Vec<Clock> = (0..6)
                .map(|_| {
                    let past = history.some_past(rng);
                    let nodes: Vec<NodeIx> = past.iter().filter_map(|id| document.graph().find(id)).collect();
                    document.graph().closure(nodes)
                })
                .chain([everything])
                .collect();
            for past in pasts {
                let hashes = document.materialised.hashes(&document.graph().heads_of(&past));
                let expected = registers(&document, &hashes);
                let view = document.view_at(past).unwrap();
                assert_eq!(*view.registers(), expected, "seed {seed}");
                disputed += usize::from(expected.iter().any(|(_, lives)| lives.len() > 1));
                counted += usize::from(!expected.counters.is_empty());
            }
            let now = document.view().unwrap().registers().clone();
            let hashes = document.materialised.document().get_heads();
            assert_eq!(now, registers(&document, &hashes), "seed {seed}");
        }
        assert!(disputed > 300 && counted > 300, "{disputed} {counted}");
    }
}
