//! The lists and texts that fields of a plain record are, and what edits inside do to what is shown of them.
//!
//! Invariant: an edit does to the shown items what derivation does to the items: `document::derive` has the table.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::document::{Cell, ContainerKind, Graph, Live, Registers};
use crate::event::{Container, EventId, FlatKey, Op, Path};

/// A list or text that a field is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) path: Path,
    /// The event and the index of its operation that made it.
    event: EventId,
    op: u32,
    pub(crate) kind: ContainerKind,
}

impl Made {
    /// The name by which edits in it call it.
    pub(crate) fn container(&self) -> Container {
        Container::Of(self.event, self.op)
    }

    fn of(graph: &Graph, key: &str, live: &Live) -> Option<Self> {
        let Cell::Container(kind) = live.cell else { return None };
        let (path, node) = (FlatKey::from_document(key).to_path()?, graph.node(live.node)?);
        let op = node.makes.iter().find(|make| make.1 == live.counter)?.0;
        Some(Self { path, event: node.id, op, kind })
    }
}

/// The lists and texts that fields of a record are, each by one operation, by path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Containers(Vec<Made>);

impl Containers {
    /// How many there may be at most: a record of more is derived from its document.
    pub(crate) const MOST: usize = 64;

    /// Those of a record in which nothing is disputed.
    pub(crate) fn of(graph: &Graph, registers: &Registers) -> Self {
        let lives = registers.iter().flat_map(|(key, lives)| lives.iter().map(move |live| (key, live)));
        let mut made: Vec<Made> = lives.filter_map(|(key, live)| Made::of(graph, key, live)).collect();
        made.sort_by(|a, b| a.path.cmp(&b.path));
        Self(made)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one that a field is.
    pub(crate) fn at(&self, path: &Path) -> Option<&Made> {
        let place = self.0.binary_search_by(|made| made.path.cmp(path)).ok()?;
        self.0.get(place)
    }

    /// The one that an operation of an event made.
    pub(crate) fn find(&self, event: EventId, op: u32) -> Option<&Made> {
        self.0.iter().find(|made| (made.event, made.op) == (event, op))
    }

    /// Where the one is that an operation of `event` works in.
    pub(super) fn path_of(&self, event: EventId, op: &Op) -> Option<&Path> {
        let made = match op.container()? {
            Container::Own(op) => self.find(event, op),
            Container::Of(event, op) => self.find(event, op),
        };
        made.filter(|made| Some(made.kind) == ContainerKind::of(op)).map(|made| &made.path)
    }

    /// A field is made one.
    pub(super) fn make(&mut self, path: &Path, event: EventId, op: u32, kind: ContainerKind) {
        self.put(path);
        let place = self.0.partition_point(|made| made.path < *path);
        self.0.insert(place, Made { path: path.clone(), event, op, kind });
    }

    /// A field is put: it is none any more, nor is what is below it or above.
    pub(super) fn put(&mut self, path: &Path) {
        self.remove(path);
        self.0.retain(|made| !made.path.is_prefix_of(path));
    }

    /// A field is removed, and what is below it.
    pub(super) fn remove(&mut self, path: &Path) {
        self.0.retain(|made| made.path != *path && !path.is_prefix_of(&made.path));
    }
}

/// Does what an operation in a list or text does to what is shown of it.
pub(super) fn edit(shown: &mut Json, op: &Op) {
    match (shown, op) {
        (Json::Array(items), Op::Insert { index, value, .. }) => {
            let at = usize::try_from(*index).map_or(items.len(), |index| index.min(items.len()));
            items.insert(at, value.to_json().unwrap_or_default());
        }
        (Json::Array(items), Op::RemoveAt { index, .. }) => {
            let at = usize::try_from(*index).ok().filter(|at| *at < items.len());
            at.map(|at| items.remove(at));
        }
        (Json::String(text), Op::SpliceText { index, delete, insert, .. }) => splice(text, *index, *delete, insert),
        _ => {}
    }
}

/// Replaces `delete` code points of a text by others. What comes is put in before what goes is taken out behind it, so that
/// it is one replacement.
fn splice(text: &mut String, index: u64, delete: u64, insert: &str) {
    let (_, behind) = text.split_at(offset(text, index));
    let start = text.len() - behind.len();
    let end = start + offset(behind, delete);
    text.replace_range(start..end, insert);
}

/// Where so many code points of a text end, in bytes; its end where it has no more.
fn offset(text: &str, count: u64) -> usize {
    let mut rest = text.chars();
    if let Some(before) = count.checked_sub(1) {
        rest.nth(usize::try_from(before).unwrap_or(usize::MAX));
    }
    text.len() - rest.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_spliced_by_code_points() {
        for (index, delete, expected) in [
            (0, 0, "+a👩‍👧é"),
            (1, 0, "a+👩‍👧é"),
            (2, 1, "a👩+👧é"),
            (1, 3, "a+é"),
            (4, 9, "a👩‍👧+"),
            (9, 9, "a👩‍👧é+"),
            (u64::MAX, u64::MAX, "a👩‍👧é+"),
            (0, u64::MAX, "+"),
        ] {
            let mut text = "a👩‍👧é".to_owned();
            splice(&mut text, index, delete, "+");
            assert_eq!(text, expected, "{index} {delete}");
        }
    }
}
