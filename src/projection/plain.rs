//! Records in which nothing is disputed and every field is a plain value: what they show after an event on their heads
//! follows from what they showed before it, without their document.
//!
//! Invariant: what [`apply`] makes of a content is what [`project`](super::project()) shows of the document that the
//! same events derive to. Wherever that is not certain, [`is_plain`] and [`follows`] say no.

use serde_json::{Map, Value as Json};

use super::content::Content;
use super::project::Projection;
use crate::document::{Cell, Graph, Registers};
use crate::event::{FlatKey, Op, Path, Value};

/// Whether a record as it is now is such a one.
pub(crate) fn is_plain(graph: &Graph, registers: &Registers, shown: &Projection) -> bool {
    let is_plain_cell = |cell: &Cell| match cell {
        Cell::Tombstone => true,
        Cell::Value(value) => is_plain_value(value),
        Cell::Set | Cell::Member | Cell::Container(_) => false,
    };
    shown.conflicts.is_empty()
        && registers.counters.is_empty()
        && registers.iter().all(|(_, lives)| matches!(lives, [live] if is_plain_cell(&live.cell)))
        && !(graph.is_concurrent() && has_value_above_a_field(registers))
}

/// Whether a value lives above a field: two who did not know of each other may have written them.
fn has_value_above_a_field(registers: &Registers) -> bool {
    let is_value = |path: Path| registers.get(path.to_key().as_str()).iter().any(|live| !live.cell.bears_fields());
    registers.iter().filter(|(_, lives)| lives.iter().any(|live| live.cell.is_field())).any(|(key, _)| {
        let above = FlatKey::from_document(key).to_path().and_then(|path| path.parent());
        std::iter::successors(above, Path::parent).any(is_value)
    })
}

/// Whether an event of these operations leaves such a record one.
pub(crate) fn follows(ops: &[Op]) -> bool {
    ops.iter().all(|op| match op {
        Op::Put { value, .. } => is_plain_value(value),
        Op::PutAtomic { json, .. } => is_array(json),
        Op::Remove { .. } | Op::Delete | Op::Restore => true,
        Op::Increment { .. }
        | Op::MakeSet { .. }
        | Op::SetAdd { .. }
        | Op::SetRemove { .. }
        | Op::MakeList { .. }
        | Op::MakeText { .. }
        | Op::Insert { .. }
        | Op::RemoveAt { .. }
        | Op::SpliceText { .. } => false,
    })
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

/// Does what operations of which [`follows`] is true do to what such a record shows.
pub(crate) fn apply(content: &mut Content, deleted: &mut bool, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Put { path, value } => set(&mut content.json, path, value.to_json().unwrap_or_default()),
            Op::PutAtomic { path, json } => {
                set(&mut content.json, path, serde_json::from_str(json).unwrap_or_default());
            }
            Op::Remove { path } => remove(&mut content.json, path),
            Op::Delete => *deleted = true,
            Op::Restore => *deleted = false,
            _ => {}
        }
    }
}

/// Sets a field of a JSON object, making the objects on the way.
pub(crate) fn set(json: &mut Json, path: &Path, value: Json) {
    let mut at = json;
    for name in path.segments() {
        if !at.is_object() {
            *at = Json::Object(Map::new());
        }
        let Json::Object(fields) = at else { return };
        if !fields.contains_key(name.as_ref()) {
            fields.insert(name.to_string(), Json::Null);
        }
        let Some(field) = fields.get_mut(name.as_ref()) else { return };
        at = field;
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
    use super::super::{Policy, RecordId, Resolvers, project};
    use super::*;
    use crate::document::Document;
    use crate::event::{Event, EventId, LedgerId, Timestamp};
    use crate::testing::{History, Rng, event, op};

    const LEDGER: LedgerId = crate::testing::LEDGER;

    /// What a document shows, and whether it is plain.
    fn shown(document: &mut Document) -> (Content, bool, bool) {
        let record = RecordId { ledger: LEDGER, collection: "c".into(), key: "k".into() };
        let view = document.view().unwrap();
        let projection = project(&view, &Policy::default(), &Resolvers::default(), &record);
        let plain = is_plain(view.graph(), view.registers(), &projection);
        (projection.content, projection.deleted, plain)
    }

    /// Applies events one by one. Returns after how many the content followed from the one before.
    fn compare(seed: u64, events: &[(EventId, Event)]) -> usize {
        let (mut document, mut followed) = (Document::default(), 0);
        let (mut content, mut deleted, mut plain) = (Content::of_fields([]), false, true);
        for (id, event) in events {
            let on_heads = event.parents == document.graph().head_ids();
            if document.apply(*id, event).is_err() {
                return followed;
            }
            let expected = shown(&mut document);
            if plain && on_heads && follows(event.ops()) {
                apply(&mut content, &mut deleted, event.ops());
                assert_eq!((&content, deleted, true), (&expected.0, expected.1, expected.2), "seed {seed} {event:?}");
                followed += 1;
            }
            (content, deleted, plain) = expected;
        }
        followed
    }

    /// A record that one writer edits, mostly by operations that leave it plain.
    fn alone(rng: &mut Rng) -> Vec<(EventId, Event)> {
        let mut events: Vec<(EventId, Event)> = Vec::new();
        for nth in 1..=1 + rng.below(12) as u32 {
            let mut ops: Vec<Op> = (0..rng.below(4)).map(|_| op(rng, &[], &[])).collect();
            if !rng.one_in(20) {
                ops.retain(|op| follows(std::slice::from_ref(op)));
            }
            let (parents, at) = (events.last().map(|last| last.0), Timestamp::from_millis(i64::from(nth)));
            let parents = parents.into_iter().collect();
            let event = Event { nth, sequence: nth.into(), parents, at, ..event(ops) };
            events.push((event.identify(LEDGER).unwrap().0, event));
        }
        events
    }

    #[test]
    fn what_a_plain_record_shows_follows_from_what_it_showed() {
        let (mut in_line, mut apart) = (0, 0);
        for seed in 0..800 {
            in_line += compare(seed, &alone(&mut Rng::new(seed)));
            apart += compare(seed, &History::new(seed).events);
        }
        assert!(in_line > 2_000 && apart > 200, "{in_line} {apart}");
    }

    #[test]
    fn what_shows_as_something_else_is_not_plain() {
        let put = |value: Value| Op::Put { path: Path::parse("/f").unwrap(), value };
        let path = Path::parse("/f").unwrap();
        let json = "{\"a\":1}".to_owned();
        assert!(follows(&[put(Value::Null), put(Value::EmptyObject), Op::Remove { path: path.clone() }, Op::Delete]));
        for op in [
            put(Value::Bytes(vec![1])),
            Op::PutAtomic { path: path.clone(), json },
            Op::Increment { path: path.clone(), by: 1 },
            Op::MakeSet { path },
        ] {
            let mut document = Document::default();
            let event = event(vec![op.clone()]);
            document.apply(event.identify(LEDGER).unwrap().0, &event).unwrap();
            assert!(!follows(std::slice::from_ref(&op)) && !shown(&mut document).2, "{op:?}");
        }
    }
}
