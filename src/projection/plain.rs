//! Records of which every field is a plain value, a list or a text, or several plain values that nobody has settled: what
//! they show after an event on their heads follows from what they showed before it, without their document.
//!
//! Invariant: what [`apply`] makes of a content is what [`project`](super::project()) shows of the document that the
//! same events derive to. Wherever that is not certain, [`is_plain`] and [`follows`] say no.

use serde_json::{Map, Value as Json};

use super::conflict::{Conflict, DELETED};
use super::containers::{self, Containers};
use super::content::Content;
use super::project::Projection;
use crate::document::{Cell, ContainerKind, Graph, Live, Registers};
use crate::event::{EventId, FlatKey, Op, Path, Value};

/// Whether a record as it is now is such a one.
pub(crate) fn is_plain(graph: &Graph, registers: &Registers, shown: &Projection) -> bool {
    // Of the items of lists.
    shown.content.blobs.is_empty()
        && registers.counters.is_empty()
        && shown.conflicts.iter().all(|conflict| conflict.path != DELETED)
        && registers.get(FlatKey::deleted().as_str()).len() < 2
        && registers.iter().all(|(key, lives)| are_plain(key, lives, registers, &shown.conflicts))
        && !(graph.is_concurrent() && has_value_above_a_field(registers))
}

/// Whether what lives at a key is one plain value, list or text, or several plain values of which the reader is told. What is
/// disputed unseen, as a removal beside an object that has fields, would show once they are gone.
fn are_plain(key: &str, lives: &[Live], registers: &Registers, conflicts: &[Conflict]) -> bool {
    let is_plain_cell = |live: &Live| match &live.cell {
        Cell::Tombstone => true,
        Cell::Value(value) => is_plain_value(value),
        Cell::Container(_) => lives.len() == 1,
        Cell::Set | Cell::Member => false,
    };
    lives.iter().all(is_plain_cell)
        && (lives.len() == 1 || is_told(&FlatKey::from_document(key), registers, conflicts))
}

/// Whether a field without fields is known to be disputed.
fn is_told(key: &FlatKey, registers: &Registers, conflicts: &[Conflict]) -> bool {
    let told = key.to_path().is_some_and(|path| conflicts.iter().any(|conflict| conflict.path == path.as_str()));
    told && !registers.keys.range(key.below_range()).any(|(below, _)| FlatKey::from_document(below).is_below(key))
}

/// Whether a value lives above a field: two who did not know of each other may have written them.
fn has_value_above_a_field(registers: &Registers) -> bool {
    let is_value = |path: Path| registers.get(path.to_key().as_str()).iter().any(|live| !live.cell.bears_fields());
    registers.iter().filter(|(_, lives)| lives.iter().any(|live| live.cell.is_field())).any(|(key, _)| {
        let above = FlatKey::from_document(key).to_path().and_then(|path| path.parent());
        std::iter::successors(above, Path::parent).any(is_value)
    })
}

/// Whether an event of these operations, made on all that there is, leaves such a record one. `conflicts` are those that the
/// record shows: an operation inside a field that is disputed as a whole needs to know the values that it replaces.
pub(crate) fn follows(ops: &[Op], conflicts: &[Conflict]) -> bool {
    let follows = |op: &Op| match op {
        Op::Put { value, .. } => is_plain_value(value),
        Op::PutAtomic { json, .. } => is_array(json),
        // Nothing is below an item of a list: it may be any JSON.
        Op::Insert { value, .. } => !matches!(value, Value::Blob(_)),
        Op::Remove { .. }
        | Op::Delete
        | Op::Restore
        | Op::MakeList { .. }
        | Op::MakeText { .. }
        | Op::RemoveAt { .. }
        | Op::SpliceText { .. } => true,
        Op::Increment { .. } | Op::MakeSet { .. } | Op::SetAdd { .. } | Op::SetRemove { .. } => false,
    };
    let is_inside = |op: &Op| {
        let path = op.path().map_or("", Path::as_str);
        conflicts.iter().any(|conflict| path != conflict.path && is_above(&conflict.path, path))
    };
    ops.iter().all(|op| follows(op) && !is_inside(op))
        && ops.iter().filter(|op| is_make(op)).count() <= Containers::MOST
}

/// Whether operations of an event, made on all that there is, end a conflict: they replace all of its candidates.
pub(crate) fn settles(ops: &[Op], conflict: &Conflict) -> bool {
    ops.iter().filter_map(Op::path).any(|path| is_above(path.as_str(), &conflict.path))
}

/// Whether one pointer is another, or that of an object which the other is in.
fn is_above(above: &str, below: &str) -> bool {
    below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether an operation makes a list or text.
pub(crate) fn is_make(op: &Op) -> bool {
    matches!(op, Op::MakeList { .. } | Op::MakeText { .. })
}

/// Whether a value shows as JSON that could be no other value's. Bytes, and objects that are replaced as a whole, show
/// as objects with fields do.
fn is_plain_value(value: &Value) -> bool {
    match value {
        Value::Atomic(json) => is_array(json),
        Value::Bytes(_) | Value::Blob(_) => false,
        _ => true,
    }
}

fn is_array(json: &str) -> bool {
    json.starts_with('[')
}

/// What operations change: the fields that a record shows.
pub(super) trait Fields {
    /// Shows a value in a field, in the place of what was there, above and below.
    fn set(&mut self, path: &Path, value: Json);
    /// Shows a field no longer; the object that it leaves stays.
    fn remove(&mut self, path: &Path);
    /// Changes what a field shows, where it shows anything.
    fn edit(&mut self, path: &Path, edit: impl FnOnce(&mut Json));
}

impl Fields for Content {
    fn set(&mut self, path: &Path, value: Json) {
        set(&mut self.json, path, value);
    }

    fn remove(&mut self, path: &Path) {
        remove(&mut self.json, path);
    }

    fn edit(&mut self, path: &Path, edit: impl FnOnce(&mut Json)) {
        if let Some(shown) = self.json.pointer_mut(path.as_str()) {
            edit(shown);
        }
    }
}

/// Does what the operations of an event, of which [`follows`] is true, do to what such a record shows.
pub(super) fn apply(
    fields: &mut impl Fields,
    deleted: &mut bool,
    containers: &mut Containers,
    event: EventId,
    ops: &[Op],
) {
    for (index, op) in (0..).zip(ops) {
        match op {
            Op::Put { path, value } => put(fields, containers, path, value.to_json().unwrap_or_default()),
            Op::PutAtomic { path, json } => {
                put(fields, containers, path, serde_json::from_str(json).unwrap_or_default());
            }
            Op::Remove { path } => {
                containers.remove(path);
                fields.remove(path);
            }
            Op::MakeList { path } => {
                containers.make(path, event, index, ContainerKind::List);
                fields.set(path, Json::Array(Vec::new()));
            }
            Op::MakeText { path } => {
                containers.make(path, event, index, ContainerKind::Text);
                fields.set(path, Json::String(String::new()));
            }
            Op::Delete => *deleted = true,
            Op::Restore => *deleted = false,
            op => {
                // One that no field is any more shows nothing, whatever is done in it.
                if let Some(path) = containers.path_of(event, op) {
                    fields.edit(path, |shown| containers::edit(shown, op));
                }
            }
        }
    }
}

fn put(fields: &mut impl Fields, containers: &mut Containers, path: &Path, value: Json) {
    containers.put(path);
    fields.set(path, value);
}

/// Sets a field of a JSON object, making the objects on the way.
pub(crate) fn set(json: &mut Json, path: &Path, value: Json) {
    let mut at = json;
    for name in path.segments() {
        if !at.is_object() {
            *at = Json::Object(Map::new());
        }
        let Json::Object(fields) = at else { return };
        at = fields.entry(name).or_insert(Json::Null);
    }
    *at = value;
}

/// Removes a field of a JSON object, where it is there; the object that it leaves stays.
pub(crate) fn remove(json: &mut Json, path: &Path) {
    let mut names = path.segments();
    let Some(last) = names.next_back() else { return };
    let object = names.try_fold(json, |at, name| at.as_object_mut()?.get_mut(name.as_ref()));
    if let Some(Json::Object(fields)) = object {
        fields.remove(last.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Policy, RecordId, Resolvers, Scope, Strategy, project};
    use super::*;
    use crate::document::story::edited_apart;
    use crate::document::{Document, NodeIx};
    use crate::event::{Container, Event, LedgerId, Timestamp, WriterId};
    use crate::testing::{History, Makes, Rng, any_value, event, op};

    const LEDGER: LedgerId = crate::testing::LEDGER;

    /// What a plain record shows, which of its fields are lists and texts, and what nobody has settled.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Seen {
        content: Content,
        deleted: bool,
        containers: Containers,
        conflicts: Vec<Conflict>,
    }

    /// What a document shows, and whether it is plain.
    fn shown(document: &mut Document, policy: &Policy) -> (Seen, bool) {
        let record = RecordId { ledger: LEDGER, collection: "c".into(), key: "k".into() };
        let view = document.view().unwrap();
        let projection = project(&view, policy, &Resolvers::default(), &record);
        let plain = is_plain(view.graph(), view.registers(), &projection);
        let containers = Containers::of(view.graph(), view.registers());
        let Projection { content, deleted, conflicts, .. } = projection;
        (Seen { content, deleted, containers, conflicts }, plain)
    }

    /// How many events followed from what was shown before them, how many of them changed a list or text, and how many
    /// conflicts they left and ended.
    #[derive(Debug, Default)]
    struct Followed {
        events: usize,
        inside: usize,
        left: usize,
        ended: usize,
    }

    /// Applies events one by one, and compares what followed from what was shown before.
    fn compare(seed: u64, events: &[(EventId, Event)], followed: &mut Followed) {
        let mut document = Document::default();
        let rank = || vec!["jira".to_owned(), "app".to_owned()];
        let strategies =
            [Strategy::Merge, Strategy::Manual, Strategy::SourceWins(rank()), Strategy::TargetWins(rank())];
        let by_field = [Strategy::FirstWriteWins(Scope::Field), Strategy::LastWriteWins(Scope::Field)];
        let policy = Policy::of(strategies.into_iter().chain(by_field).nth(seed as usize % 6).unwrap());
        let (mut seen, mut plain) = (Seen { content: Content::of_fields([]), ..Seen::default() }, true);
        for (id, event) in events {
            let on_heads = event.parents == document.graph().head_ids();
            if document.apply(*id, event).is_err() {
                return;
            }
            let expected = shown(&mut document, &policy);
            if plain && on_heads && follows(event.ops(), &seen.conflicts) {
                let before = seen.clone();
                let Seen { content, deleted, containers, conflicts } = &mut seen;
                apply(content, deleted, containers, *id, event.ops());
                conflicts.retain(|conflict| !settles(event.ops(), conflict));
                followed.left += conflicts.len();
                followed.ended += before.conflicts.len() - conflicts.len();
                assert_eq!((&seen, true), (&expected.0, expected.1), "seed {seed} {before:?} {event:?}");
                followed.events += 1;
                let changed = event.ops().iter().any(|op| op.container().is_some()) && seen.content != before.content;
                followed.inside += usize::from(changed);
            }
            (seen, plain) = expected;
        }
    }

    fn index(rng: &mut Rng) -> u64 {
        if rng.one_in(9) { u64::MAX } else { rng.below(9) as u64 }
    }

    /// An operation in a list or text, of the event or one before it; a new one where there is none.
    fn inside(rng: &mut Rng, before: &[Op], makes: &Makes) -> Op {
        let path = Path::parse(rng.pick::<&str>(&["/l", "/m", "/a", "/a/x", "/a/y", "/a/y/z"])).unwrap();
        let kind = |op: &Op| match op {
            Op::MakeList { .. } => Some(ContainerKind::List),
            Op::MakeText { .. } => Some(ContainerKind::Text),
            _ => None,
        };
        let own = (0..).zip(before).filter_map(|(index, op)| Some((Container::Own(index), kind(op)?)));
        let all: Vec<_> = makes.iter().copied().chain(own).collect();
        if all.is_empty() || rng.one_in(12) {
            return if rng.one_in(2) { Op::MakeList { path } } else { Op::MakeText { path } };
        }
        // Mostly the latest ones: the others are seldom shown any more.
        let oldest = if rng.one_in(4) { 0 } else { all.len().saturating_sub(3) };
        let (container, kind) = *rng.pick(&all[oldest..]);
        let is_list = (kind == ContainerKind::List) != rng.one_in(30);
        let index = index(rng);
        match rng.below(8) {
            0..=2 if is_list => Op::RemoveAt { container, index },
            3 if is_list => {
                Op::Insert { container, index, value: Value::Atomic((*rng.pick(&["{\"x\":1}", "[[]]"])).into()) }
            }
            _ if is_list => Op::Insert { container, index, value: any_value(rng) },
            _ => {
                let insert = (*rng.pick(&["", "x", "👩\u{200d}👧", "ab\u{301}c", "🏳️\u{200d}🌈é", "long"])).into();
                Op::SpliceText { container, index, delete: rng.below(4) as u64, insert }
            }
        }
    }

    /// A record that two writers edit, mostly by operations that leave it plain: in line, or now and then on an older state.
    fn random(rng: &mut Rng, apart: bool) -> Vec<(EventId, Event)> {
        let (mut events, mut makes, mut document) = (Vec::new(), Vec::new(), Document::default());
        for nth in 1..=1 + rng.below(14) as u32 {
            let mut ops: Vec<Op> = Vec::new();
            for _ in 0..rng.below(5) {
                let op = if rng.one_in(2) { inside(rng, &ops, &makes) } else { op(rng, &ops, &makes) };
                if rng.one_in(40) || follows(std::slice::from_ref(&op), &[]) {
                    ops.push(op);
                }
            }
            let graph = document.graph();
            let base: Vec<NodeIx> = match apart && !graph.is_empty() && rng.one_in(3) {
                true => vec![rng.below(graph.len()) as NodeIx],
                false => graph.heads().collect(),
            };
            let writer = WriterId([1 + rng.below(2) as u8; 16]);
            let (lane, place) = graph.free_lane(writer, &graph.closure(base.iter().copied()));
            let (parents, at) = (graph.ids(base), Timestamp::from_millis(i64::from(nth)));
            let event = Event { writer, lane, nth: place, sequence: nth.into(), parents, at, ..event(ops) };
            let id = event.identify(LEDGER).unwrap().0;
            document.apply(id, &event).unwrap();
            for (index, op) in (0..).zip(event.ops()) {
                match op {
                    Op::MakeList { .. } => makes.push((Container::Of(id, index), ContainerKind::List)),
                    Op::MakeText { .. } => makes.push((Container::Of(id, index), ContainerKind::Text)),
                    _ => {}
                }
            }
            events.push((id, event));
        }
        events
    }

    #[test]
    fn what_a_plain_record_shows_follows_from_what_it_showed() {
        let (mut in_line, mut apart) = (Followed::default(), Followed::default());
        for seed in 0..600 {
            compare(seed, &random(&mut Rng::new(seed), false), &mut in_line);
            compare(seed, &random(&mut Rng::new(seed), true), &mut apart);
            compare(seed, &History::new(seed).events, &mut apart);
            compare(seed, &edited_apart(&mut Rng::new(seed), 12), &mut apart);
        }
        assert!(in_line.events > 2_000 && in_line.inside > 700, "{in_line:?}");
        assert!(apart.events > 1_200 && apart.inside > 200, "{apart:?}");
        assert!(apart.left > 250 && apart.ended > 100, "{apart:?}");
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    /// A document of events in line, each of these operations.
    fn in_line(events: &[Vec<Op>]) -> Document {
        let mut document = Document::default();
        for (nth, ops) in (1..).zip(events) {
            let (parents, at) = (document.graph().head_ids(), Timestamp::from_millis(nth));
            let (nth, sequence) = (nth as u32, nth as u64);
            let event = Event { nth, sequence, parents, at, ..event(ops.clone()) };
            document.apply(event.identify(LEDGER).unwrap().0, &event).unwrap();
        }
        document
    }

    #[test]
    fn what_shows_as_something_else_is_not_plain() {
        let put = |value: Value| Op::Put { path: path("/f"), value };
        let json = "{\"a\":1}".to_owned();
        assert!(follows(
            &[put(Value::Null), put(Value::EmptyObject), Op::Remove { path: path("/f") }, Op::Delete],
            &[]
        ));
        for op in [
            put(Value::Bytes(vec![1])),
            Op::PutAtomic { path: path("/f"), json },
            Op::Increment { path: path("/f"), by: 1 },
            Op::MakeSet { path: path("/f") },
        ] {
            let mut document = in_line(&[vec![op.clone()]]);
            assert!(
                !follows(std::slice::from_ref(&op), &[]) && !shown(&mut document, &Policy::default()).1,
                "{op:?}"
            );
        }
    }

    #[test]
    fn a_list_is_plain_but_for_large_values() {
        use crate::event::{BlobForm, BlobHash, BlobRef};
        let large = Value::Blob(BlobRef { hash: BlobHash([3; 32]), bytes: 20_000, form: BlobForm::Text });
        let insert = |value| Op::Insert { container: Container::Own(0), index: 0, value };
        for (value, is_plain) in
            [(Value::Atomic("{\"x\":1}".into()), true), (Value::Bytes(vec![1]), true), (large, false)]
        {
            let ops = vec![Op::MakeList { path: path("/l") }, insert(value)];
            let mut document = in_line(std::slice::from_ref(&ops));
            assert_eq!((follows(&ops, &[]), shown(&mut document, &Policy::default()).1), (is_plain, is_plain));
        }
    }
}
