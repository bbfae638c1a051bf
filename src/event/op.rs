//! The operations that an event consists of: what its writer meant, on the past that it had seen.

use serde::{Deserialize, Serialize};

use super::{EventId, Path, Value};

/// The list or text that an operation works in, named by the operation that made it: a path would mean another one
/// wherever two were made apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Container {
    /// Made by the operation of this index in the same event.
    Own(u32),
    /// Made by the operation of this index in an earlier event.
    Of(EventId, u32),
}

/// One operation. `document::derive` says what each one does in every state; none can fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Sets a field.
    Put {
        /// Which field.
        path: Path,
        /// Its value; never [`Value::Atomic`].
        value: Value,
    },
    /// Sets a field to an array or object that is replaced as a whole.
    PutAtomic {
        /// Which field.
        path: Path,
        /// Canonical JSON.
        json: String,
    },
    /// Removes a field and what lives below it.
    Remove {
        /// Which field.
        path: Path,
    },
    /// Adds to a counter.
    Increment {
        /// Which field.
        path: Path,
        /// How much; at most [`limits::INCREMENT_MAX`](super::limits::INCREMENT_MAX) either way.
        by: i64,
    },
    /// Adds a member to a set.
    SetAdd {
        /// Which set.
        path: Path,
        /// The member.
        member: Value,
    },
    /// Removes a member from a set.
    SetRemove {
        /// Which set.
        path: Path,
        /// The member.
        member: Value,
    },
    /// Makes the field an empty set.
    MakeSet {
        /// Which field.
        path: Path,
    },
    /// Makes the field an empty list.
    MakeList {
        /// Which field.
        path: Path,
    },
    /// Makes the field an empty text.
    MakeText {
        /// Which field.
        path: Path,
    },
    /// Inserts an item into a list.
    Insert {
        /// Which list.
        container: Container,
        /// Before which item; beyond the end means at the end.
        index: u64,
        /// The item.
        value: Value,
    },
    /// Removes an item from a list.
    RemoveAt {
        /// Which list.
        container: Container,
        /// Which item; beyond the end means none.
        index: u64,
    },
    /// Replaces a part of a text.
    SpliceText {
        /// Which text.
        container: Container,
        /// Where, in Unicode code points; beyond the end means at the end.
        index: u64,
        /// How many code points go; at most those there are.
        delete: u64,
        /// What comes in their place.
        insert: String,
    },
    /// Deletes the record.
    Delete,
    /// Brings a deleted record back.
    Restore,
}

impl Op {
    /// The field that the operation names; `None` where it works in a container or on the whole record.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Put { path, .. }
            | Self::PutAtomic { path, .. }
            | Self::Remove { path }
            | Self::Increment { path, .. }
            | Self::SetAdd { path, .. }
            | Self::SetRemove { path, .. }
            | Self::MakeSet { path }
            | Self::MakeList { path }
            | Self::MakeText { path } => Some(path),
            Self::Insert { .. } | Self::RemoveAt { .. } | Self::SpliceText { .. } | Self::Delete | Self::Restore => {
                None
            }
        }
    }

    /// The container that the operation works in.
    #[must_use]
    pub fn container(&self) -> Option<Container> {
        match self {
            Self::Insert { container, .. }
            | Self::RemoveAt { container, .. }
            | Self::SpliceText { container, .. } => Some(*container),
            _ => None,
        }
    }

    /// The value that the operation carries.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Put { value, .. } | Self::Insert { value, .. } => Some(value),
            Self::SetAdd { member, .. } | Self::SetRemove { member, .. } => Some(member),
            _ => None,
        }
    }

    /// Whether the operation changes fields, and so is an *update* that a concurrent deletion disputes.
    #[must_use]
    pub fn is_update(&self) -> bool {
        !matches!(self, Self::Delete)
    }

    /// The operation's name in the log and on the command line: `set_add`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::PutAtomic { .. } => "put_atomic",
            Self::Remove { .. } => "remove",
            Self::Increment { .. } => "increment",
            Self::SetAdd { .. } => "set_add",
            Self::SetRemove { .. } => "set_remove",
            Self::MakeSet { .. } => "make_set",
            Self::MakeList { .. } => "make_list",
            Self::MakeText { .. } => "make_text",
            Self::Insert { .. } => "insert",
            Self::RemoveAt { .. } => "remove_at",
            Self::SpliceText { .. } => "splice_text",
            Self::Delete => "delete",
            Self::Restore => "restore",
        }
    }
}
