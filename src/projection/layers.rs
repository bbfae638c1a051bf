//! What a plain record shows, with its latest changes apart from what it showed before: the row after an event shares all
//! but the field that changed with the row before it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use smallvec::SmallVec;

use super::containers::Containers;
use super::content::Content;
use super::plain::{self, Fields};
use crate::event::{EventId, Op, Path};

/// How many changed fields are kept apart: more are laid into a copy of the whole.
const MOST: usize = 8;

/// A field of the record, and what it shows now; `None` where it is removed.
type Field = Arc<(String, Option<Json>)>;

/// A content that is cheap to copy, and to change in one field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    base: Arc<Content>,
    /// The fields that changed since, each once.
    over: SmallVec<[Field; 4]>,
}

impl From<Content> for Layers {
    fn from(content: Content) -> Self {
        Self { base: Arc::new(content), over: SmallVec::new() }
    }
}

impl PartialEq for Layers {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole()
    }
}

impl Layers {
    /// All of it.
    pub(crate) fn whole(&self) -> Cow<'_, Content> {
        if self.over.is_empty() {
            return Cow::Borrowed(&self.base);
        }
        let mut content = Content::clone(&self.base);
        for field in &self.over {
            lay(&mut content.json, field);
        }
        Cow::Owned(content)
    }

    /// All of it, to be kept.
    pub(crate) fn into_whole(self) -> Content {
        match self.whole() {
            Cow::Owned(content) => content,
            Cow::Borrowed(_) => Arc::unwrap_or_clone(self.base),
        }
    }

    /// Some fields of a record that is plain; a path may go on below a field.
    pub(crate) fn only(&self, fields: &BTreeSet<Path>) -> Content {
        let mut object = Map::new();
        for name in fields.iter().filter_map(|path| path.segments().next()) {
            if let Some(value) = self.field(&name) {
                object.insert(name.into_owned(), value.clone());
            }
        }
        Content::of(object.into())
    }

    fn field(&self, name: &str) -> Option<&Json> {
        match self.over.iter().find(|field| field.0 == name) {
            Some(field) => field.1.as_ref(),
            None => self.base.json.get(name),
        }
    }

    /// Does what the operations of an event on a plain record do: see [`plain::apply`](super::plain::apply).
    pub(crate) fn apply(&mut self, deleted: &mut bool, containers: &mut Containers, event: EventId, ops: &[Op]) {
        if ops.len() > MOST {
            let mut content = std::mem::take(self).into_whole();
            plain::apply(&mut content, deleted, containers, event, ops);
            *self = content.into();
            return;
        }
        plain::apply(self, deleted, containers, event, ops);
        if self.over.len() > MOST {
            *self = std::mem::take(self).into_whole().into();
        }
    }

    /// Shows a value, or none, in the field that a path is in or below.
    fn lay(&mut self, path: &Path, value: Option<Json>) {
        let Some(name) = path.segments().next() else { return };
        let changed = |name: Cow<'_, str>| Arc::new((name.into_owned(), value));
        match self.over.iter_mut().find(|field| field.0 == name) {
            Some(field) => *field = changed(name),
            None => self.over.push(changed(name)),
        }
    }

    /// Changes the field that a path is in or below, in an object of that field alone.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut Json)) {
        let Some(name) = path.segments().next() else { return };
        let mut object = Map::new();
        if let Some(value) = self.field(&name) {
            object.insert(name.to_string(), value.clone());
        }
        let mut object = Json::Object(object);
        change(&mut object);
        let value = object.get_mut(name.as_ref()).map(Json::take);
        self.lay(path, value);
    }
}

impl Fields for Layers {
    fn set(&mut self, path: &Path, value: Json) {
        match path.depth() {
            0 => *self = Content::of(value).into(),
            1 => self.lay(path, Some(value)),
            _ => self.change(path, |object| plain::set(object, path, value)),
        }
    }

    fn remove(&mut self, path: &Path) {
        match path.depth() {
            1 => self.lay(path, None),
            _ => self.change(path, |object| plain::remove(object, path)),
        }
    }

    /// In place, but for a copy of a field that is shared with the row before.
    fn edit(&mut self, path: &Path, edit: impl FnOnce(&mut Json)) {
        let Some(name) = path.segments().next() else { return };
        if !self.over.iter().any(|field| field.0 == name) {
            let Some(value) = self.base.json.get(name.as_ref()).cloned() else { return };
            self.lay(path, Some(value));
        }
        let Some(field) = self.over.iter_mut().find(|field| field.0 == name) else { return };
        if let Some(shown) = Arc::make_mut(field).1.as_mut().and_then(|value| value.pointer_mut(below(path))) {
            edit(shown);
        }
    }
}

/// What a path's pointer says behind its first name.
fn below(path: &Path) -> &str {
    let names = path.as_str().strip_prefix('/').unwrap_or_default();
    names.find('/').and_then(|end| names.get(end..)).unwrap_or_default()
}

fn lay(json: &mut Json, field: &Field) {
    if !json.is_object() {
        *json = Json::Object(Map::new());
    }
    let Json::Object(object) = json else { return };
    match &field.1 {
        Some(value) => drop(object.insert(field.0.clone(), value.clone())),
        None => drop(object.remove(&field.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::ContainerKind;
    use crate::event::Container;
    use crate::testing::{Rng, op};

    /// What was done, and the same copies that nothing may change any more.
    #[derive(Clone, Default)]
    struct Shown<T> {
        fields: T,
        deleted: bool,
        containers: Containers,
    }

    #[test]
    fn layers_show_what_one_content_shows() {
        let mut inside = 0;
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            let mut whole = Shown { fields: Content::of_fields([]), ..Shown::default() };
            let mut layers = Shown { fields: Layers::from(whole.fields.clone()), ..Shown::default() };
            let (mut before, mut makes) = (Vec::new(), Vec::new());
            for nth in 0..30 {
                let mut ops: Vec<Op> = Vec::new();
                for _ in 0..if rng.one_in(9) { 15 } else { rng.below(4) } {
                    let op = op(&mut rng, &ops, &makes);
                    ops.extend(Some(op).filter(|op| plain::follows(std::slice::from_ref(op), &[])));
                }
                let id = EventId([nth; 32]);
                before.push((layers.fields.clone(), whole.fields.clone()));
                let Shown { fields, deleted, containers } = &mut whole;
                plain::apply(fields, deleted, containers, id, &ops);
                let Shown { fields, deleted, containers } = &mut layers;
                fields.apply(deleted, containers, id, &ops);
                assert_eq!(*layers.fields.whole(), whole.fields, "seed {seed} {ops:?}");
                assert_eq!((layers.deleted, &layers.containers), (whole.deleted, &whole.containers), "seed {seed}");
                for path in ops.iter().filter_map(Op::path).filter(|path| !path.is_root()) {
                    let name = path.segments().next().unwrap().into_owned();
                    let only = layers.fields.only(&[path.clone()].into());
                    assert_eq!(only.json.get(&name), whole.fields.json.get(&name), "seed {seed} {path}");
                }
                for (index, op) in (0..).zip(&ops) {
                    match op {
                        Op::MakeList { .. } => makes.push((Container::Of(id, index), ContainerKind::List)),
                        Op::MakeText { .. } => makes.push((Container::Of(id, index), ContainerKind::Text)),
                        _ => inside += usize::from(op.container().is_some()),
                    }
                }
            }
            for (layers, whole) in before {
                assert_eq!(layers.into_whole(), whole, "seed {seed}: a copy changed with what came after it");
            }
        }
        assert!(inside > 2_000, "{inside}");
    }
}
