//! Drafting: what a caller wants of a record becomes operations, against what the record showed as of the edit's base.
//!
//! Here kinds act, no-ops are dropped and large values leave for blobs. It writes nothing, and reads nothing but large
//! values that are edited inside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::request::{Act, Edit, Place};
use crate::document::{Cell, ContainerKind, Live, Registers, View};
use crate::event::{
    BlobForm, BlobRef, Container, EventId, FlatKey, Op, Path, Value,
    diff::{Leaf, PatchOp, merge_patch, removed},
    json, limits,
};
use crate::projection::{Blame, Conflict, Containers, Content, DELETED, Severity, plain};
use crate::schema::{FieldKind, Schema};
use crate::{Error, ErrorKind, Result};

/// What the fields of a record are, beside what they show.
pub(crate) enum Fields<'a, 'v> {
    /// As its live operations tell, and where each shown field comes from.
    Live(&'a View<'v>, &'a [Blame]),
    /// Plain values that nobody disputes, but for these lists and texts.
    Plain(&'a Containers),
}

/// A list, text or set that a field is. Lists and texts have a name.
pub(super) type Kept = (Cell, Option<Container>);

/// A record as of an edit's base.
pub(crate) struct Shown<'a, 'v> {
    pub(crate) fields: Fields<'a, 'v>,
    pub(crate) content: &'a Content,
    pub(crate) deleted: bool,
    pub(crate) conflicts: &'a [Conflict],
    /// Whether the record has any event there.
    pub(crate) exists: bool,
    /// Reads a large value.
    pub(crate) read: &'a dyn Fn(&BlobRef) -> Result<Json>,
    /// What says of which kinds the fields are.
    pub(crate) schema: Option<&'a Schema>,
}

impl Shown<'_, '_> {
    /// The live operations of what is not plain.
    fn registers(&self) -> &Registers {
        static PLAIN: Registers = Registers::new();
        match &self.fields {
            Fields::Live(view, _) => view.registers(),
            Fields::Plain(_) => &PLAIN,
        }
    }

    /// The list, text or set that a field is, where one operation alone made it.
    pub(super) fn kept(&self, path: &Path) -> Option<Kept> {
        match &self.fields {
            Fields::Live(view, _) => match view.registers().get(path.to_key().as_str()) {
                [live] if matches!(live.cell, Cell::Set | Cell::Container(_)) => {
                    Some((live.cell.clone(), view.container(live)))
                }
                _ => None,
            },
            Fields::Plain(containers) => {
                let made = containers.at(path)?;
                Some((Cell::Container(made.kind), Some(made.container())))
            }
        }
    }

    /// The list or text of a kind that is shown at a path, also where others dispute it.
    fn shown_at(&self, path: &Path, kind: ContainerKind) -> Option<Container> {
        match &self.fields {
            Fields::Live(view, blame) => {
                let lives = view.registers().get(path.to_key().as_str());
                let shown = blame.iter().find(|blame| blame.path == *path).and_then(|blame| blame.node);
                let live = lives.iter().filter(|live| live.cell == Cell::Container(kind));
                live.max_by_key(|live| Some(live.node) == shown).and_then(|live| view.container(live))
            }
            Fields::Plain(_) => self.kept(path).filter(|kept| kept.0 == Cell::Container(kind))?.1,
        }
    }

    /// What an operation of an event made: a list or a text, or neither.
    fn kind(&self, event: EventId, op: u32) -> Option<ContainerKind> {
        match &self.fields {
            Fields::Live(view, _) => view.kind(event, op),
            Fields::Plain(containers) => containers.find(event, op).map(|made| made.kind),
        }
    }

    /// How many items or characters the list or text has that an operation of an event made.
    fn length(&self, event: EventId, op: u32) -> Option<u64> {
        match &self.fields {
            Fields::Live(view, _) => view.length(event, op),
            Fields::Plain(containers) => {
                let made = containers.find(event, op)?;
                self.content.json.pointer(made.path.as_str()).map(length)
            }
        }
    }

    /// Whether a live operation holds an object that is replaced as a whole.
    fn is_atom(&self, live: &Live) -> bool {
        match &live.cell {
            Cell::Value(Value::Blob(blob)) if is_atom(&live.cell) => {
                (self.read)(blob).is_ok_and(|json| json.is_object())
            }
            cell => is_atom(cell),
        }
    }
}

/// How many items an array has, or characters a text.
pub(super) fn length(json: &Json) -> u64 {
    match json {
        Json::Array(items) => items.len() as u64,
        Json::String(text) => text.chars().count() as u64,
        _ => 0,
    }
}

/// What an act comes to.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) ops: Vec<Op>,
    /// The contents of the blobs that the operations name.
    pub(crate) blobs: Vec<Vec<u8>>,
}

pub(super) fn invalid(message: impl Into<String>, pointer: &Path) -> Error {
    Error::new(ErrorKind::Validation, message).with_pointers(vec![pointer.to_string()])
}

fn absent(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the record {what}"))
}

impl Draft {
    /// Drafts an act on what its writer was shown.
    pub(crate) fn new(act: &Act, shown: &Shown<'_, '_>) -> Result<Self> {
        let mut drafting = Drafting::new(shown);
        match act {
            Act::Put(value) => drafting.put_record(value)?,
            Act::Fields(fields) => {
                if shown.exists {
                    drafting.must_live()?;
                }
                drafting.put_fields(fields)?;
            }
            Act::Patch(patch) => {
                drafting.must_live()?;
                drafting.patch(patch)?;
            }
            Act::Edit(edits) => {
                let restores = edits.iter().any(|edit| matches!(edit, Edit::Restore | Edit::Delete));
                if shown.exists && !restores {
                    drafting.must_live()?;
                }
                edits.iter().try_for_each(|edit| drafting.edit(edit))?;
            }
            Act::Delete => {
                drafting.must_exist()?;
                drafting.edit(&Edit::Delete)?;
            }
            Act::Undelete => {
                drafting.must_exist()?;
                drafting.edit(&Edit::Restore)?;
            }
        }
        Ok(drafting.draft)
    }

    /// The operations that make a field show a content, whatever it shows now: of a resolution or a revert. `then` are
    /// the registers that the content comes from.
    pub(crate) fn settle(
        &mut self,
        path: &Path,
        content: Option<&Content>,
        kind: Option<Settled>,
        then: &Registers,
    ) -> Result<()> {
        let Some(content) = content else {
            self.ops.push(Op::Remove { path: path.clone() });
            return Ok(());
        };
        match kind {
            Some(Settled::List) if content.json.is_array() => self.make_list(path, content),
            Some(Settled::Text) if content.json.is_string() => self.make_text(path, content),
            Some(Settled::Set) if content.json.is_array() => self.make_set(path, content),
            None if content.json.is_object() => self.settle_object(path, content, then),
            _ => self.put(path, content.leaf_value("")),
        }
    }

    /// Field by field; what is more than a plain value stays what it is.
    fn settle_object(&mut self, path: &Path, content: &Content, then: &Registers) -> Result<()> {
        self.put(path, Value::EmptyObject)?;
        let kinds = kinds_below(path, then);
        for (below, value) in content.leaves_above(&kinds.keys().cloned().collect())? {
            let at = Path::parse(&format!("{path}{below}"))?;
            match (kinds.get(&below), content.at(below.as_str())) {
                (Some(kind), Some(inner)) => self.settle(&at, Some(&inner), Some(*kind), then)?,
                _ if below.is_root() => {}
                _ => self.put(&at, value)?,
            }
        }
        Ok(())
    }

    fn make_list(&mut self, path: &Path, content: &Content) -> Result<()> {
        let container = self.make(Op::MakeList { path: path.clone() });
        for (index, _) in content.json.as_array().into_iter().flatten().enumerate() {
            let value = content.leaf_value(&format!("/{index}"));
            let value = self.inline(path, value)?;
            self.ops.push(Op::Insert { container, index: index as u64, value });
        }
        Ok(())
    }

    fn make_text(&mut self, path: &Path, content: &Content) -> Result<()> {
        let text = content.json.as_str().unwrap_or_default();
        let container = self.make(Op::MakeText { path: path.clone() });
        self.splice(container, 0, 0, text);
        Ok(())
    }

    fn make_set(&mut self, path: &Path, content: &Content) -> Result<()> {
        self.ops.push(Op::MakeSet { path: path.clone() });
        for member in content.json.as_array().into_iter().flatten() {
            self.ops.push(Op::SetAdd { path: path.clone(), member: Value::from_json(member) });
        }
        Ok(())
    }

    fn make(&mut self, op: Op) -> Container {
        let made = Container::Own(u32::try_from(self.ops.len()).unwrap_or(u32::MAX));
        self.ops.push(op);
        made
    }

    /// Replaces a part of a text, in pieces that an operation holds.
    fn splice(&mut self, container: Container, index: u64, delete: u64, insert: &str) {
        let (mut index, mut delete, mut rest) = (index, delete, insert);
        loop {
            let mut end = rest.len().min(limits::INLINE_BYTES);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            self.ops.push(Op::SpliceText { container, index, delete, insert: piece.to_owned() });
            (index, delete, rest) = (index + piece.chars().count() as u64, 0, after);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Puts a value at a path, in the form that its size and kind need.
    pub(super) fn put(&mut self, path: &Path, value: Value) -> Result<()> {
        let op = match self.inline(path, value)? {
            Value::Atomic(json) => Op::PutAtomic { path: path.clone(), json },
            value => Op::Put { path: path.clone(), value },
        };
        self.ops.push(op);
        Ok(())
    }

    /// A value that an event can hold: itself, or the reference of the blob that it becomes.
    fn inline(&mut self, path: &Path, value: Value) -> Result<Value> {
        let Some((content, reference)) = value.large() else { return Ok(value) };
        if reference.bytes > limits::BLOB_BYTES {
            return Err(Error::new(ErrorKind::TooLarge, "expected a value of at most 256 MiB")
                .with_pointers(vec![path.to_string()]));
        }
        self.blobs.push(content.to_vec());
        Ok(Value::Blob(reference))
    }
}

/// The value by which a field is compared: a large one by its reference.
fn comparable(value: Value) -> Value {
    value.large().map(|(_, reference)| Value::Blob(reference)).unwrap_or(value)
}

/// Whether JSON that names no large value is this value, where that is told at once.
fn is_plainly(value: &Value, shown: &Json) -> Option<bool> {
    match (value, shown) {
        (Value::Text(text), Json::String(shown)) => Some(text == shown),
        (Value::Bool(value), Json::Bool(shown)) => Some(value == shown),
        (Value::Int(value), Json::Number(shown)) if shown.is_i64() => Some(shown.as_i64() == Some(*value)),
        (Value::Null, shown) => Some(shown.is_null()),
        _ => None,
    }
}

/// Whether a content is this value.
fn is_same(value: &Value, content: &Content) -> bool {
    match value {
        // Large as a whole, but its fields are shown one by one.
        Value::Atomic(json) if content.blobs.is_empty() => *json == json::canonical(&content.json),
        value => content.leaf_value("").canonical() == comparable(value.clone()).canonical(),
    }
}

/// What the fields below an object are made as, where they are more than plain values, by their paths from there.
fn kinds_below(path: &Path, then: &Registers) -> BTreeMap<Path, Settled> {
    let kind = |(key, lives): (&str, &[Live])| {
        let at = FlatKey::from_document(key).to_path().filter(|at| path.is_prefix_of(at))?;
        let below = Path::parse(at.as_str().strip_prefix(path.as_str())?).ok()?;
        let kind = lives.iter().find_map(|live| match &live.cell {
            cell if is_atom(cell) => Some(Settled::Atomic),
            Cell::Set | Cell::Container(_) => Settled::of(&live.cell),
            _ => None,
        })?;
        Some((below, kind))
    };
    then.iter().filter_map(kind).collect()
}

/// Whether a cell holds an object that is replaced as a whole. Of a large value only the reader knows; it counts as one.
fn is_atom(cell: &Cell) -> bool {
    match cell {
        Cell::Value(Value::Atomic(json)) => json.starts_with('{'),
        Cell::Value(Value::Blob(blob)) => blob.form == BlobForm::Json,
        _ => false,
    }
}

/// What a settled field is made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// A list.
    List,
    /// A text.
    Text,
    /// A set.
    Set,
    /// A value that is replaced as a whole.
    Atomic,
}

impl Settled {
    /// What a live operation's cell is made as; `None` for a plain value.
    pub(crate) fn of(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Container(ContainerKind::List) => Some(Self::List),
            Cell::Container(ContainerKind::Text) => Some(Self::Text),
            Cell::Set => Some(Self::Set),
            Cell::Value(Value::EmptyObject) => None,
            _ => Some(Self::Atomic),
        }
    }
}

pub(super) struct Drafting<'a, 'v> {
    pub(super) shown: &'a Shown<'a, 'v>,
    pub(super) draft: Draft,
    /// Lists, texts and sets that the draft itself makes.
    pub(super) made: BTreeMap<Path, Kept>,
    /// Fields that the draft already changes: what was shown of them says nothing any more.
    pub(super) touched: BTreeSet<Path>,
    /// Objects replaced as a whole, as the draft changes fields inside them.
    atoms: BTreeMap<Path, Json>,
    /// Members that the draft adds or removes, by the canonical JSON of each.
    pub(super) members: BTreeMap<(Path, String), bool>,
    /// The lengths of the lists and texts that the draft works in.
    pub(super) lengths: BTreeMap<Container, u64>,
    /// Whether the draft leaves the record deleted, where it says anything of that.
    deleted: Option<bool>,
}

impl<'a, 'v> Drafting<'a, 'v> {
    fn new(shown: &'a Shown<'a, 'v>) -> Self {
        let (draft, made, touched, atoms) = Default::default();
        let (members, lengths, deleted) = Default::default();
        Self { shown, draft, made, touched, atoms, members, lengths, deleted }
    }
}

impl Drafting<'_, '_> {
    /// The draft writes a field anew: nothing that it did at, above or below it counts any more.
    pub(super) fn touch(&mut self, path: &Path) {
        let apart = |other: &Path| other != path && !other.is_prefix_of(path) && !path.is_prefix_of(other);
        self.made.retain(|other, _| apart(other));
        self.atoms.retain(|other, _| apart(other));
        self.members.retain(|(other, _), _| apart(other));
        self.touched.insert(path.clone());
    }

    /// Refuses an edit of what is no field: it lies inside an array, a list or a text.
    fn is_field(&self, path: &Path) -> Result<()> {
        let mut above = std::iter::successors(path.parent(), Path::parent).filter(|above| !above.is_root());
        let is_array = |above: &Path| {
            let shown = self.is_untouched(above) && self.content_at(above).is_some_and(|shown| shown.json.is_array());
            shown || self.made.contains_key(above)
        };
        match above.find(is_array) {
            None => Ok(()),
            Some(array) => Err(invalid(format!("expected the path of a field: `{array}` is an array"), path)
                .with_hint("insert and remove its items, or put it as a whole")),
        }
    }

    /// Refuses to make anything but a plain value inside an object that is replaced as a whole.
    fn is_free(&self, path: &Path) -> Result<()> {
        self.is_field(path)?;
        match self.atom_above(path) {
            None => Ok(()),
            Some((atom, _)) => Err(invalid(format!("expected a plain value: `{atom}` is replaced as a whole"), path)),
        }
    }

    fn must_exist(&self) -> Result<()> {
        if self.shown.exists { Ok(()) } else { Err(absent("does not exist")) }
    }

    fn must_live(&self) -> Result<()> {
        self.must_exist()?;
        if self.shown.deleted {
            return Err(absent("is deleted").with_hint("bring it back with undelete, or put it anew"));
        }
        Ok(())
    }

    pub(super) fn content_at(&self, path: &Path) -> Option<Content> {
        if self.shown.exists { self.shown.content.at(path.as_str()) } else { None }
    }

    /// Whether candidates disagree at the path, above or below it.
    pub(super) fn is_disputed(&self, path: &Path) -> bool {
        self.shown.conflicts.iter().any(|conflict| {
            Path::parse(&conflict.path)
                .is_ok_and(|other| other == *path || other.is_prefix_of(path) || path.is_prefix_of(&other))
        })
    }

    /// Whether the draft has left the path, what is above and what is below as they were shown.
    pub(super) fn is_untouched(&self, path: &Path) -> bool {
        !self.touched.iter().any(|other| other == path || other.is_prefix_of(path) || path.is_prefix_of(other))
    }

    /// Whether a field shows exactly one distinct value, and it is this one.
    fn shows(&self, path: &Path, value: Option<&Value>) -> bool {
        let content = self.shown.content;
        let plainly = value.filter(|_| self.shown.exists && content.blobs.is_empty());
        let plainly = plainly.and_then(|value| is_plainly(value, content.json.pointer(path.as_str())?));
        let same = || match (value, self.content_at(path)) {
            (None, None) => true,
            (Some(value), Some(content)) => is_same(value, &content),
            _ => false,
        };
        plainly.unwrap_or_else(same) && !self.is_disputed(path) && self.is_untouched(path)
    }

    // --- whole records -------------------------------------------------------------------------------------------

    fn put_record(&mut self, value: &Json) -> Result<()> {
        let Json::Object(_) = value else {
            return Err(invalid("expected a JSON object: a record is one", &Path::root()));
        };
        let value = json::normalized(value)?;
        if self.shown.deleted && self.shown.exists {
            self.draft.ops.push(Op::Restore);
        }
        if value.as_object().is_some_and(serde_json::Map::is_empty) && self.shows_something() {
            return self.draft.put(&Path::root(), Value::EmptyObject);
        }
        let atoms = self.atoms();
        if !self.shown.exists && atoms.is_empty() {
            return leaves(&value, &[])?.into_iter().try_for_each(|(path, value)| self.put_leaf(&path, value));
        }
        let after = leaves_above(&value, &[], &atoms)?;
        let before = match self.shown.exists {
            true => self.shown.content.leaves_above(&atoms)?,
            false => BTreeMap::new(),
        };
        self.put_leaves(&before, after)
    }

    /// Sets fields of a record, each as a whole.
    fn put_fields(&mut self, fields: &Json) -> Result<()> {
        let Json::Object(names) = fields else {
            return Err(invalid("expected a JSON object of fields", &Path::root()));
        };
        if names.is_empty() {
            return Ok(());
        }
        let atoms = self.atoms();
        let after = leaves_above(&*json::normalized(fields)?, &[], &atoms)?;
        let mut before = match self.shown.exists {
            true => self.shown.content.leaves_above(&atoms)?,
            false => BTreeMap::new(),
        };
        before.retain(|path, _| path.segments().next().is_some_and(|name| names.contains_key(name.as_ref())));
        self.put_leaves(&before, after)
    }

    /// Makes some fields' leaves these.
    fn put_leaves(&mut self, before: &BTreeMap<Path, Value>, after: BTreeMap<Path, Value>) -> Result<()> {
        for path in removed(before, &after) {
            self.draft.ops.push(Op::Remove { path });
        }
        for (path, value) in after {
            let same = before.get(&path).is_some_and(|old| old.canonical() == comparable(value.clone()).canonical());
            if !same {
                self.put_leaf(&path, value)?;
            }
        }
        Ok(())
    }

    fn shows_something(&self) -> bool {
        let shown = &self.shown.content.json;
        self.shown.exists && shown.as_object().is_some_and(|fields| !fields.is_empty())
    }

    /// The fields that hold an object which is replaced as a whole.
    fn atoms(&self) -> BTreeSet<Path> {
        let holds = |(_, lives): &(&str, &[Live])| lives.iter().any(|live| self.shown.is_atom(live));
        let atoms = self.shown.registers().iter().filter(holds);
        let atoms = atoms.filter_map(|(key, _)| FlatKey::from_document(key).to_path());
        atoms.chain(self.whole_below(&Path::root())).collect()
    }

    /// The object replaced as a whole that a field lies in, as the draft has made it so far.
    fn atom_above(&self, path: &Path) -> Option<(Path, Json)> {
        let mut above = std::iter::successors(path.parent(), Path::parent).take_while(|above| !above.is_root());
        above.find_map(|above| {
            if let Some(json) = self.atoms.get(&above) {
                return Some((above, json.clone()));
            }
            if self.kind(&above) == Some(FieldKind::Atomic) && self.is_untouched(&above) {
                let shown = self.content_at(&above).map(|content| content.fill(|blob| (self.shown.read)(blob)));
                return Some((above, shown.and_then(Result::ok).unwrap_or_else(|| json!({}))));
            }
            let [live] = self.shown.registers().get(above.to_key().as_str()) else { return None };
            let here = self.is_untouched(&above) && self.shown.is_atom(live);
            let content = self.content_at(&above).filter(|_| here)?;
            let json = content.fill(|blob| (self.shown.read)(blob)).ok()?;
            Some((above, json))
        })
    }

    /// Changes a field inside an object that is replaced as a whole; false where it lies in none.
    fn change_atom(&mut self, path: &Path, value: Option<&Value>) -> Result<bool> {
        let Some((atom, mut json)) = self.atom_above(path) else { return Ok(false) };
        let below = path.as_str().strip_prefix(atom.as_str()).unwrap_or_default();
        match value {
            Some(value) => plain::set(&mut json, &Path::parse(below)?, value.to_json().unwrap_or_default()),
            None => plain::remove(&mut json, &Path::parse(below)?),
        }
        self.touch(&atom);
        self.draft.put(&atom, Value::from_json(&json))?;
        self.atoms.insert(atom, json);
        Ok(true)
    }

    /// Sets a field of a whole record: a list, text or set that it is takes only what differs.
    fn put_leaf(&mut self, path: &Path, value: Value) -> Result<()> {
        if self.put_kind(path, &value)? {
            return Ok(());
        }
        let (cell, container) = self.shown.kept(path).unzip();
        match (&cell, &value) {
            (Some(Cell::Container(ContainerKind::Text)), Value::Text(text)) => {
                self.change_text(path, container.flatten(), text)
            }
            (Some(Cell::Container(ContainerKind::List)), Value::Atomic(json)) if json.starts_with('[') => {
                self.change_list(path, container.flatten(), json)
            }
            (Some(Cell::Set), Value::Atomic(json)) if json.starts_with('[') => self.change_set(path, json),
            _ if self.change_atom(path, Some(&value))? => Ok(()),
            _ => self.draft.put(path, value),
        }
    }

    pub(super) fn change_text(&mut self, path: &Path, container: Option<Container>, text: &str) -> Result<()> {
        let Some(container) = container else { return self.draft.put(path, Value::Text(text.to_owned())) };
        let shown = self.shown.content.json.pointer(path.as_str()).filter(|_| self.shown.exists);
        let (start, old, new) = middle_of_texts(shown.and_then(Json::as_str).unwrap_or_default(), text);
        self.draft.splice(container, start, old.chars().count() as u64, new);
        Ok(())
    }

    pub(super) fn change_list(&mut self, path: &Path, container: Option<Container>, json: &str) -> Result<()> {
        let Some(container) = container else { return self.draft.put(path, Value::Atomic(json.to_owned())) };
        let items = |content: &Content| -> Vec<Value> {
            let count = content.json.as_array().map_or(0, Vec::len);
            (0..count).map(|index| content.leaf_value(&format!("/{index}"))).collect()
        };
        let before = self.content_at(path).map_or_else(Vec::new, |content| items(&content));
        let after = items(&Content::of(json::parse(json)?));
        let key =
            |values: &[Value]| values.iter().map(|value| comparable(value.clone()).canonical()).collect::<Vec<_>>();
        let (start, old, new) = {
            let (before, after) = (key(&before), key(&after));
            let (start, old, new) = middle(&before, &after);
            (start, old.len(), new.len())
        };
        for _ in 0..old {
            self.draft.ops.push(Op::RemoveAt { container, index: start as u64 });
        }
        for (index, value) in after.into_iter().enumerate().skip(start).take(new) {
            let value = self.draft.inline(path, value)?;
            self.draft.ops.push(Op::Insert { container, index: index as u64, value });
        }
        Ok(())
    }

    pub(super) fn change_set(&mut self, path: &Path, json: &str) -> Result<()> {
        let members = |array: &Json| -> BTreeMap<String, Json> {
            array.as_array().into_iter().flatten().map(|member| (json::canonical(member), member.clone())).collect()
        };
        let before = self.content_at(path).map_or_else(BTreeMap::new, |content| members(&content.json));
        let after = members(&json::parse(json)?);
        for (_, gone) in before.iter().filter(|(member, _)| !after.contains_key(*member)) {
            self.draft.ops.push(Op::SetRemove { path: path.clone(), member: Value::from_json(gone) });
        }
        for (_, come) in after.iter().filter(|(member, _)| !before.contains_key(*member)) {
            self.draft.ops.push(Op::SetAdd { path: path.clone(), member: Value::from_json(come) });
        }
        Ok(())
    }

    fn patch(&mut self, patch: &Json) -> Result<()> {
        let Json::Object(_) = patch else {
            return Err(invalid("expected a JSON object: a merge patch of a record is one", &Path::root()));
        };
        for (path, op) in merge_patch(&*json::normalized(patch)?)? {
            match op {
                PatchOp::Remove => self.remove(&path)?,
                PatchOp::MergeObject if self.content_at(&path).is_some_and(|shown| shown.json.is_object()) => {}
                PatchOp::MergeObject if self.kind(&path) == Some(FieldKind::Atomic) => {
                    self.put_atomic(&path, &json!({}))?;
                }
                PatchOp::MergeObject => self.put_value(&path, Value::EmptyObject)?,
                PatchOp::Put(value) => {
                    let value = Value::from_json(&value);
                    if !self.shows(&path, Some(&value)) {
                        self.put_leaf(&path, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    // --- single edits --------------------------------------------------------------------------------------------

    fn edit(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Put(path, value) => self.put(path, value),
            Edit::PutAtomic(path, value) => self.put_atomic(path, value),
            Edit::Remove(path) => self.is_field(path).and_then(|()| self.remove(path)),
            Edit::Increment(path, by) => self.increment(path, *by),
            Edit::MakeSet(path) => self.make(path, Cell::Set, Op::MakeSet { path: path.clone() }),
            Edit::MakeList(path) => {
                self.make(path, Cell::Container(ContainerKind::List), Op::MakeList { path: path.clone() })
            }
            Edit::MakeText(path) => {
                self.make(path, Cell::Container(ContainerKind::Text), Op::MakeText { path: path.clone() })
            }
            Edit::SetAdd(path, member) => self.member(path, member, true),
            Edit::SetRemove(path, member) => self.member(path, member, false),
            Edit::Insert(place, index, value) => self.insert(place, *index, value),
            Edit::RemoveAt(place, index) => self.remove_at(place, *index),
            Edit::SpliceText { place, index, delete, insert } => self.splice(place, *index, *delete, insert),
            Edit::Delete => self.delete(),
            Edit::Restore => self.restore(),
        }
    }

    fn push(&mut self, op: Op) -> Result<()> {
        self.draft.ops.push(op);
        Ok(())
    }

    fn put(&mut self, path: &Path, value: &Json) -> Result<()> {
        self.is_field(path)?;
        let value = json::normalized(value)?;
        if value.is_object() && self.kind(path) == Some(FieldKind::Atomic) {
            return self.put_atomic(path, &value);
        }
        let fields = match &*value {
            Json::Object(fields) if !fields.is_empty() => leaves_above(&value, &[], &self.whole_below(path))?,
            _ if path.is_root() && !value.is_object() => {
                return Err(invalid("expected a JSON object at the root: a record is one", path));
            }
            _ => return self.put_value(path, Value::from_json(&value)),
        };
        let whole = Value::from_json(&value);
        if self.shows(path, Some(&whole)) || self.change_atom(path, Some(&whole))? {
            return Ok(());
        }
        self.touch(path);
        self.draft.put(path, Value::EmptyObject)?;
        for (below, value) in fields {
            self.put_fresh(&Path::parse(&format!("{path}{below}"))?, value)?;
        }
        Ok(())
    }

    fn put_atomic(&mut self, path: &Path, value: &Json) -> Result<()> {
        self.is_field(path)?;
        let json = json::normalized(value)?;
        let before = self.draft.ops.len();
        self.put_value(path, Value::from_json(&json))?;
        // Later edits of the draft find it, unless it went into another one.
        if json.is_object() && self.draft.ops.len() > before && self.atom_above(path).is_none() {
            self.atoms.insert(path.clone(), json.into_owned());
        }
        Ok(())
    }

    fn put_value(&mut self, path: &Path, value: Value) -> Result<()> {
        if self.shows(path, Some(&value)) || self.put_kind(path, &value)? || self.change_atom(path, Some(&value))? {
            return Ok(());
        }
        self.touch(path);
        self.draft.put(path, value)
    }

    fn remove(&mut self, path: &Path) -> Result<()> {
        if path.is_root() {
            return Err(invalid("expected the path of a field", path).with_hint("use delete to delete the record"));
        }
        if self.shows(path, None) || self.change_atom(path, None)? {
            return Ok(());
        }
        self.touch(path);
        self.push(Op::Remove { path: path.clone() })
    }

    fn increment(&mut self, path: &Path, by: i64) -> Result<()> {
        self.is_free(path)?;
        let shown = self.content_at(path).filter(|_| self.is_untouched(path));
        if shown.is_some_and(|content| content.json.as_i64().is_none()) {
            return Err(invalid(format!("expected an integer or nothing at `{path}`, to count from"), path));
        }
        if by.unsigned_abs() > limits::INCREMENT_MAX {
            return Err(invalid("expected an increment of at most 4294967296 either way", path));
        }
        if by == 0 {
            return Ok(());
        }
        self.touched.insert(path.clone());
        self.push(Op::Increment { path: path.clone(), by })
    }

    fn make(&mut self, path: &Path, cell: Cell, op: Op) -> Result<()> {
        self.is_free(path)?;
        self.must_be(path, &cell)?;
        let is_there = self.shown.kept(path).is_some_and(|kept| kept.0 == cell) && self.is_untouched(path);
        let is_empty = self
            .content_at(path)
            .is_some_and(|content| matches!(content.json.as_str(), Some("")) || content.json == json!([]));
        if is_there && is_empty {
            return Ok(());
        }
        self.touch(path);
        let container = match cell {
            Cell::Container(_) => Some(self.draft.make(op)),
            _ => {
                self.push(op)?;
                None
            }
        };
        self.lengths.extend(container.map(|container| (container, 0)));
        self.made.insert(path.clone(), (cell, container));
        Ok(())
    }

    fn member(&mut self, path: &Path, member: &Json, add: bool) -> Result<()> {
        self.is_free(path)?;
        let member = json::normalized(member)?;
        let text = json::canonical(&member);
        if !self.is_set(path) {
            if !add || self.touched.contains(path) || self.content_at(path).is_some() {
                return Err(
                    invalid(format!("expected a set at `{path}`"), path).with_hint("make it one with make_set")
                );
            }
            self.make(path, Cell::Set, Op::MakeSet { path: path.clone() })?;
        }
        let at = (path.clone(), text);
        if self.is_member(&at) == add {
            return Ok(());
        }
        let (path, member) = (path.clone(), Value::from_json(&member));
        self.members.insert(at, add);
        self.push(if add { Op::SetAdd { path, member } } else { Op::SetRemove { path, member } })
    }

    fn is_set(&self, path: &Path) -> bool {
        if let Some((cell, _)) = self.made.get(path) {
            return *cell == Cell::Set;
        }
        let lives = self.shown.registers().get(path.to_key().as_str());
        self.is_untouched(path) && lives.iter().any(|live| live.cell == Cell::Set)
    }

    fn is_member(&self, at: &(Path, String)) -> bool {
        if let Some(is_member) = self.members.get(at) {
            return *is_member;
        }
        let shown = self.content_at(&at.0).filter(|_| !self.made.contains_key(&at.0));
        let members = shown.and_then(|content| content.json.as_array().cloned()).unwrap_or_default();
        members.iter().any(|other| json::canonical(other) == at.1)
    }

    fn insert(&mut self, place: &Place, index: u64, value: &Json) -> Result<()> {
        let container = self.place(place, ContainerKind::List)?;
        let value = Value::from_json(&*json::normalized(value)?);
        let value = self.draft.inline(&Path::root(), value)?;
        *self.length(container) += 1;
        self.push(Op::Insert { container, index, value })
    }

    fn remove_at(&mut self, place: &Place, index: u64) -> Result<()> {
        let container = self.place(place, ContainerKind::List)?;
        let length = self.length(container);
        if index >= *length {
            return Ok(());
        }
        *length -= 1;
        self.push(Op::RemoveAt { container, index })
    }

    fn splice(&mut self, place: &Place, index: u64, delete: u64, insert: &str) -> Result<()> {
        let container = self.place(place, ContainerKind::Text)?;
        let length = self.length(container);
        let index = index.min(*length);
        let delete = delete.min(*length - index);
        *length = *length - delete + insert.chars().count() as u64;
        if delete > 0 || !insert.is_empty() {
            self.draft.splice(container, index, delete, insert);
        }
        Ok(())
    }

    /// How many items or characters a list or text has, as the draft leaves it.
    fn length(&mut self, container: Container) -> &mut u64 {
        let shown = self.shown;
        self.lengths.entry(container).or_insert_with(|| match container {
            Container::Of(event, op) => shown.length(event, op).unwrap_or(0),
            Container::Own(_) => 0,
        })
    }

    /// The container that an edit works in.
    fn place(&self, place: &Place, kind: ContainerKind) -> Result<Container> {
        let name = if kind == ContainerKind::List { "list" } else { "text" };
        match place {
            Place::Path(path) => self.container_of(path, kind).ok_or_else(|| {
                invalid(format!("expected a {name} at `{path}`"), path)
                    .with_hint(format!("make it one with make_{name}"))
            }),
            Place::Container(container) if self.is_made(*container, kind) => Ok(*container),
            Place::Container(container) => {
                Err(Error::new(ErrorKind::Validation, format!("expected a {name}, but {container:?} made none"))
                    .with_hint("name the event, and the index of its operation, that made it"))
            }
        }
    }

    fn is_made(&self, container: Container, kind: ContainerKind) -> bool {
        match container {
            Container::Own(op) => match self.draft.ops.get(op as usize) {
                Some(Op::MakeList { .. }) => kind == ContainerKind::List,
                Some(Op::MakeText { .. }) => kind == ContainerKind::Text,
                _ => false,
            },
            Container::Of(event, op) => self.shown.kind(event, op) == Some(kind),
        }
    }

    /// The list or text that is shown at a path, as the draft leaves it.
    fn container_of(&self, path: &Path, kind: ContainerKind) -> Option<Container> {
        if let Some((cell, made)) = self.made.get(path) {
            return made.filter(|_| *cell == Cell::Container(kind));
        }
        if !self.is_untouched(path) {
            return None;
        }
        self.shown.shown_at(path, kind)
    }

    fn delete(&mut self) -> Result<()> {
        self.must_exist()?;
        self.set_deleted(true, Op::Delete)
    }

    fn restore(&mut self) -> Result<()> {
        self.must_exist()?;
        self.set_deleted(false, Op::Restore)
    }

    fn set_deleted(&mut self, deleted: bool, op: Op) -> Result<()> {
        let is_deletion = |conflict: &Conflict| conflict.path == DELETED && conflict.severity == Severity::High;
        let disputed = self.deleted.is_none() && self.shown.conflicts.iter().any(is_deletion);
        if self.deleted.unwrap_or(self.shown.deleted) == deleted && !disputed {
            return Ok(());
        }
        self.deleted = Some(deleted);
        self.push(op)
    }
}

/// Where two sequences differ: how many items they share at the start, and the parts between that and what they share
/// at the end.
fn middle<'a, T: PartialEq>(before: &'a [T], after: &'a [T]) -> (usize, &'a [T], &'a [T]) {
    let start = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (before, after) = (before.get(start..).unwrap_or_default(), after.get(start..).unwrap_or_default());
    let end = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    let cut = |items: &'a [T]| items.get(..items.len() - end).unwrap_or_default();
    (start, cut(before), cut(after))
}

/// Where two texts differ, as [`middle`] of their characters, which are many.
fn middle_of_texts<'a>(before: &'a str, after: &'a str) -> (u64, &'a str, &'a str) {
    let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    let start = (0..=same).rev().find(|&at| before.is_char_boundary(at) && after.is_char_boundary(at)).unwrap_or(0);
    let ((same, before), (_, after)) = (before.split_at(start), after.split_at(start));
    let behind = before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count();
    let end = (0..=behind).rev().find(|behind| before.is_char_boundary(before.len() - behind)).unwrap_or(0);
    let cut = |text: &'a str| text.split_at(text.len() - end).0;
    (same.chars().count() as u64, cut(before), cut(after))
}

impl Content {
    /// The value at a JSON Pointer, as an event holds it: arrays and objects whole, large values by reference.
    pub(crate) fn leaf_value(&self, pointer: &str) -> Value {
        if let Some((_, blob)) = self.blobs.iter().find(|(at, _)| at == pointer) {
            return Value::Blob(*blob);
        }
        self.json.pointer(pointer).map_or(Value::Null, Value::from_json)
    }

    /// The fields of an object with their values, where some fields are not taken apart.
    fn leaves_above(&self, whole: &BTreeSet<Path>) -> Result<BTreeMap<Path, Value>> {
        leaves_above(&self.json, &self.blobs, whole)
    }
}

/// The fields of an object with their values, by path; the object itself where it has none.
fn leaves(json: &Json, blobs: &[(String, BlobRef)]) -> Result<Vec<(Path, Value)>> {
    let value = |(path, leaf): (Path, Leaf<'_>)| {
        let blob = blobs.iter().find(|(at, _)| at == path.as_str()).map(|(_, blob)| Value::Blob(*blob));
        let value = blob.unwrap_or_else(|| match leaf {
            Leaf::Scalar(json) | Leaf::Array(json) => Value::from_json(json),
            Leaf::EmptyObject => Value::EmptyObject,
        });
        (path, value)
    };
    Ok(crate::event::diff::leaves(json)?.into_iter().map(value).collect())
}

/// The fields of an object with their values, where some fields are not taken apart.
fn leaves_above(json: &Json, blobs: &[(String, BlobRef)], whole: &BTreeSet<Path>) -> Result<BTreeMap<Path, Value>> {
    let mut leaves: BTreeMap<Path, Value> = leaves(json, blobs)?.into_iter().collect();
    let content =
        if whole.is_empty() { Content::default() } else { Content { json: json.clone(), blobs: blobs.to_vec() } };
    for path in whole {
        let Some(content) = content.at(path.as_str()) else { continue };
        leaves.retain(|leaf, _| !path.is_prefix_of(leaf));
        leaves.insert(path.clone(), content.leaf_value(""));
    }
    Ok(leaves)
}
