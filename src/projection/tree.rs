//! The live operations of a record as a tree of fields.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Cell, Live, Registers};
use crate::event::{FlatKey, Path, Value};

/// A field: its own live operations and the fields below it.
#[derive(Debug, Default)]
pub(crate) struct Branch<'a> {
    pub(crate) path: Path,
    pub(crate) lives: &'a [Live],
    /// By name, without escapes.
    pub(crate) fields: BTreeMap<String, Branch<'a>>,
    /// The canonical JSON of the present members of the set that this field is, in byte order.
    pub(crate) members: BTreeSet<String>,
    /// What is added to integers here.
    pub(crate) count: i64,
}

impl<'a> Branch<'a> {
    /// The record as a tree.
    pub(crate) fn record(registers: &'a Registers) -> Self {
        let mut root = Self::default();
        for (key, lives) in registers.iter() {
            root.add(key, lives, registers);
        }
        root
    }

    /// Some fields of the record, which are no fields of fields, with all that lies below them, as a tree.
    pub(crate) fn of_fields(registers: &'a Registers, fields: &BTreeSet<Path>) -> Self {
        let mut root = Self::default();
        for field in fields {
            let key = field.to_key();
            let own = registers.keys.get_key_value(key.as_str());
            for (key, lives) in own.into_iter().chain(registers.keys.range(key.below_range())) {
                root.add(key, lives, registers);
            }
        }
        root
    }

    fn add(&mut self, key: &str, lives: &'a [Live], registers: &Registers) {
        let key = FlatKey::from_document(key);
        if lives.iter().any(|live| live.cell == Cell::Member) {
            self.add_member(&key);
            // A field may have the key of a member: one who did not see the set put it.
            if !lives.iter().any(|live| live.cell.is_field()) {
                return;
            }
        }
        let Some(path) = key.to_path() else { return };
        let branch = self.branch(&path);
        branch.lives = lives;
        if !registers.counters.is_empty() {
            branch.count = registers.counter(FlatKey::counter(&path).as_str());
        }
    }

    fn add_member(&mut self, key: &FlatKey) {
        if let Some((set, member)) = key.split_member() {
            self.branch(&set).members.insert(member);
        }
    }

    fn branch(&mut self, path: &Path) -> &mut Self {
        let mut branch = self;
        for name in path.segments() {
            let below = branch.path.join(&name).unwrap_or_default();
            branch = branch.fields.entry(name.into_owned()).or_default();
            branch.path = below;
        }
        branch
    }

    /// The field at a path.
    pub(crate) fn get(&self, path: &Path) -> Option<&Self> {
        path.segments().try_fold(self, |branch, name| branch.fields.get(name.as_ref()))
    }

    /// Whether any field lives here or below.
    pub(crate) fn is_live(&self) -> bool {
        self.lives.iter().any(|live| live.cell.is_field()) || self.has_fields()
    }

    /// Whether any field lives below.
    pub(crate) fn has_fields(&self) -> bool {
        self.fields.values().any(Self::is_live)
    }

    /// The live operations that make this an object: of the fields below, and `{}` here.
    pub(crate) fn object_lives(&self) -> Vec<&'a Live> {
        let mut lives: Vec<&Live> = self.lives.iter().filter(|live| is_empty_object(&live.cell)).collect();
        let mut below: Vec<&Self> = self.fields.values().collect();
        while let Some(branch) = below.pop() {
            lives.extend(branch.lives.iter().filter(|live| live.cell.is_field()));
            below.extend(branch.fields.values());
        }
        lives
    }
}

/// Whether the cell is the mark of an object without fields.
pub(crate) fn is_empty_object(cell: &Cell) -> bool {
    *cell == Cell::Value(Value::EmptyObject)
}
