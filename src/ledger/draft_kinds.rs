//! Kinds from the schema, as an edit is drafted: a plain value of a text, set, list or counter becomes what differs.

use super::draft::{Drafting, Settled, invalid, length};
use crate::Result;
use crate::document::{Cell, ContainerKind, Registers};
use crate::event::{Container, Op, Path, Value, json, limits};
use crate::projection::Content;
use crate::schema::FieldKind;

/// How many increments a change of a counter may take; a greater one is a new value.
const INCREMENTS: u64 = 16;

impl Drafting<'_, '_> {
    /// The kind of a field, where the schema says.
    pub(super) fn kind(&self, path: &Path) -> Option<FieldKind> {
        self.shown.schema.and_then(|schema| schema.kind(path))
    }

    /// Sets a field of a kind to a value of the kind; false where it has none, or the value is of another.
    pub(super) fn put_kind(&mut self, path: &Path, value: &Value) -> Result<bool> {
        let Some(kind) = self.kind(path) else { return Ok(false) };
        match (kind, value) {
            (FieldKind::Text, Value::Text(text)) => self.put_text(path, text)?,
            (FieldKind::List, Value::Atomic(array)) if array.starts_with('[') => self.put_list(path, array)?,
            (FieldKind::Set, Value::Atomic(array)) if array.starts_with('[') => self.put_set(path, array)?,
            (FieldKind::Counter, value) => return self.count_to(path, value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The list, text or set that is shown, where the draft has left it and nobody disputes it.
    fn container(&self, path: &Path, cell: Cell) -> Option<Option<Container>> {
        self.shown.kept(path).filter(|kept| kept.0 == cell && self.is_untouched(path)).map(|kept| kept.1)
    }

    fn put_text(&mut self, path: &Path, text: &str) -> Result<()> {
        match self.container(path, Cell::Container(ContainerKind::Text)) {
            Some(container) => self.change_text(path, container, text),
            None => self.make_anew(path, &Content::of(text.into()), Settled::Text),
        }
    }

    fn put_list(&mut self, path: &Path, array: &str) -> Result<()> {
        match self.container(path, Cell::Container(ContainerKind::List)) {
            Some(container) => self.change_list(path, container, array),
            None => self.make_anew(path, &Content::of(json::parse(array)?), Settled::List),
        }
    }

    fn put_set(&mut self, path: &Path, array: &str) -> Result<()> {
        match self.container(path, Cell::Set) {
            Some(_) => self.change_set(path, array),
            None => self.make_anew(path, &Content::of(json::parse(array)?), Settled::Set),
        }
    }

    /// Makes a list, text or set of this content, whatever was there.
    fn make_anew(&mut self, path: &Path, content: &Content, kind: Settled) -> Result<()> {
        self.touch(path);
        let made = Container::Own(u32::try_from(self.draft.ops.len()).unwrap_or(u32::MAX));
        self.draft.settle(path, Some(content), Some(kind), &Registers::default())?;
        let (cell, container) = match kind {
            Settled::Text => (Cell::Container(ContainerKind::Text), Some(made)),
            Settled::List => (Cell::Container(ContainerKind::List), Some(made)),
            Settled::Set | Settled::Atomic => (Cell::Set, None),
        };
        for member in content.json.as_array().into_iter().flatten().filter(|_| kind == Settled::Set) {
            self.members.insert((path.clone(), json::canonical(member)), true);
        }
        self.lengths.extend(container.map(|container| (container, length(&content.json))));
        self.made.insert(path.clone(), (cell, container));
        Ok(())
    }

    /// Counts from what is shown to a value; false where something else must be done.
    fn count_to(&mut self, path: &Path, value: &Value) -> Result<bool> {
        let shown = self.content_at(path).filter(|_| self.is_untouched(path) && !self.is_disputed(path));
        let before = shown.and_then(|shown| shown.json.as_i64());
        let after = value.to_json().ok().and_then(|value| value.as_i64());
        let (Some(before), Some(after)) = (before, after) else { return Ok(false) };
        let difference = i128::from(after) - i128::from(before);
        let most = i128::from(limits::INCREMENT_MAX);
        if difference.unsigned_abs() > u128::from(limits::INCREMENT_MAX * INCREMENTS) {
            return Ok(false);
        }
        let mut left = difference;
        while left != 0 {
            let step = left.clamp(-most, most);
            self.draft.ops.push(Op::Increment { path: path.clone(), by: i64::try_from(step).unwrap_or(0) });
            left -= step;
        }
        if difference != 0 {
            self.touched.insert(path.clone());
        }
        Ok(true)
    }

    /// Puts a field below an object that is put anew.
    pub(super) fn put_fresh(&mut self, path: &Path, value: Value) -> Result<()> {
        match self.kind(path) {
            Some(FieldKind::Text | FieldKind::List | FieldKind::Set) if self.put_kind(path, &value)? => Ok(()),
            _ => self.draft.put(path, value),
        }
    }

    /// The fields below a path that the schema does not take apart, by their paths from there.
    pub(super) fn whole_below(&self, path: &Path) -> std::collections::BTreeSet<Path> {
        let atomic = self.shown.schema.into_iter().flat_map(|schema| schema.of_kind(FieldKind::Atomic));
        let below = atomic.filter(|at| path.is_prefix_of(at) || path.is_root());
        below.filter_map(|at| Path::parse(at.as_str().strip_prefix(path.as_str())?).ok()).collect()
    }

    /// Refuses to make a field something else than the schema says.
    pub(super) fn must_be(&self, path: &Path, cell: &Cell) -> Result<()> {
        let made = match cell {
            Cell::Set => FieldKind::Set,
            Cell::Container(ContainerKind::List) => FieldKind::List,
            Cell::Container(ContainerKind::Text) => FieldKind::Text,
            _ => return Ok(()),
        };
        match self.kind(path).filter(|kind| *kind != made) {
            Some(kind) => {
                Err(invalid(format!("expected no {} at `{path}`: its kind is {}", made.name(), kind.name()), path)
                    .with_hint("the schema says so: see `syncledger schema show`"))
            }
            None => Ok(()),
        }
    }
}
