//! What one live operation of a key holds: a value, or one of the marks that Automerge's scalars lack.
//!
//! In the Automerge document a cell is a scalar, or tagged bytes whose first byte says what they are. The tags are part
//! of the format.

use automerge::{ObjType, ScalarValue};
use serde::{Deserialize, Serialize};

use crate::event::{BlobForm, BlobHash, BlobRef, Op, Value};

const TOMBSTONE: u8 = 0;
const BYTES: u8 = 1;
const EMPTY_OBJECT: u8 = 2;
const ATOMIC: u8 = 3;
const BLOB: u8 = 4;
const SET: u8 = 5;
const MEMBER: u8 = 6;

/// Whether a container is a list or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ContainerKind {
    /// A list of values.
    List,
    /// A text of Unicode code points.
    Text,
}

impl ContainerKind {
    /// Of what an operation works in; `None` where it works in neither.
    pub(crate) fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Insert { .. } | Op::RemoveAt { .. } => Some(Self::List),
            Op::SpliceText { .. } => Some(Self::Text),
            _ => None,
        }
    }

    pub(crate) fn object(self) -> ObjType {
        match self {
            Self::List => ObjType::List,
            Self::Text => ObjType::Text,
        }
    }
}

/// What one live operation of a key holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// The field was removed.
    Tombstone,
    /// A value.
    Value(Value),
    /// The field is a set; its members are at the keys below.
    Set,
    /// This key is a member of the set above it.
    Member,
    /// A list or text that this operation made.
    Container(ContainerKind),
}

impl Cell {
    /// Whether the cell is anything but a tombstone.
    #[must_use]
    pub fn is_live(&self) -> bool {
        *self != Self::Tombstone
    }

    /// Whether the cell makes what is above it an object.
    #[must_use]
    pub fn is_field(&self) -> bool {
        !matches!(self, Self::Tombstone | Self::Member)
    }

    /// Whether a put below this cell leaves it alone: it says nothing of what lives there.
    pub(crate) fn bears_fields(&self) -> bool {
        matches!(self, Self::Tombstone | Self::Value(Value::EmptyObject))
    }

    /// The Automerge scalar; `None` for a container, which is an object.
    pub(crate) fn to_scalar(&self) -> Option<ScalarValue> {
        Some(match self {
            Self::Tombstone => tagged(TOMBSTONE, &[]),
            Self::Set => tagged(SET, &[]),
            Self::Member => tagged(MEMBER, &[]),
            Self::Value(value) => value_to_scalar(value),
            Self::Container(_) => return None,
        })
    }

    /// The cell of an Automerge value that a derivation wrote; `None` for any other.
    pub(crate) fn from_automerge(value: &automerge::Value<'_>) -> Option<Self> {
        match value {
            automerge::Value::Object(ObjType::List) => Some(Self::Container(ContainerKind::List)),
            automerge::Value::Object(ObjType::Text) => Some(Self::Container(ContainerKind::Text)),
            automerge::Value::Object(_) => None,
            automerge::Value::Scalar(scalar) => Self::from_scalar(scalar),
        }
    }

    fn from_scalar(scalar: &ScalarValue) -> Option<Self> {
        Some(Self::Value(match scalar {
            ScalarValue::Null => Value::Null,
            ScalarValue::Boolean(value) => Value::Bool(*value),
            ScalarValue::Int(value) => Value::Int(*value),
            ScalarValue::Uint(value) => Value::Uint(*value),
            ScalarValue::F64(value) => Value::Float(*value),
            ScalarValue::Str(value) => Value::Text(value.to_string()),
            ScalarValue::Bytes(bytes) => return Self::from_tagged(bytes),
            _ => return None,
        }))
    }

    fn from_tagged(bytes: &[u8]) -> Option<Self> {
        let (tag, content) = bytes.split_first()?;
        Some(match *tag {
            TOMBSTONE => Self::Tombstone,
            BYTES => Self::Value(Value::Bytes(content.to_vec())),
            EMPTY_OBJECT => Self::Value(Value::EmptyObject),
            ATOMIC => Self::Value(Value::Atomic(String::from_utf8(content.to_vec()).ok()?)),
            BLOB => Self::Value(Value::Blob(blob_from_bytes(content)?)),
            SET => Self::Set,
            MEMBER => Self::Member,
            _ => return None,
        })
    }
}

fn value_to_scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::Boolean(*value),
        Value::Int(value) => ScalarValue::Int(*value),
        Value::Uint(value) => ScalarValue::Uint(*value),
        Value::Float(value) => ScalarValue::F64(*value),
        Value::Text(value) => ScalarValue::Str(value.as_str().into()),
        Value::Bytes(bytes) => tagged(BYTES, bytes),
        Value::EmptyObject => tagged(EMPTY_OBJECT, &[]),
        Value::Atomic(text) => tagged(ATOMIC, text.as_bytes()),
        Value::Blob(blob) => tagged(BLOB, &blob_to_bytes(blob)),
    }
}

fn tagged(tag: u8, content: &[u8]) -> ScalarValue {
    let mut bytes = Vec::with_capacity(content.len() + 1);
    bytes.push(tag);
    bytes.extend_from_slice(content);
    ScalarValue::Bytes(bytes)
}

fn blob_to_bytes(blob: &BlobRef) -> Vec<u8> {
    let form = match blob.form {
        BlobForm::Text => 0,
        BlobForm::Bytes => 1,
        BlobForm::Json => 2,
    };
    [&[form][..], &blob.bytes.to_le_bytes(), &blob.hash.0].concat()
}

fn blob_from_bytes(bytes: &[u8]) -> Option<BlobRef> {
    let (form, rest) = bytes.split_first()?;
    let (length, hash) = rest.split_first_chunk::<8>()?;
    let form = match form {
        0 => BlobForm::Text,
        1 => BlobForm::Bytes,
        2 => BlobForm::Json,
        _ => return None,
    };
    Some(BlobRef { hash: BlobHash(hash.try_into().ok()?), bytes: u64::from_le_bytes(*length), form })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_to_a_large_value_reads_back_what_it_was() {
        for form in [BlobForm::Text, BlobForm::Bytes, BlobForm::Json] {
            let blob = BlobRef { hash: BlobHash([7; 32]), bytes: 20_000, form };
            assert_eq!(blob_from_bytes(&blob_to_bytes(&blob)), Some(blob));
        }
        let mut other = blob_to_bytes(&BlobRef { hash: BlobHash([7; 32]), bytes: 1, form: BlobForm::Text });
        other[0] = 3;
        assert_eq!(blob_from_bytes(&other), None);
        assert_eq!(blob_from_bytes(&other[..20]), None);
    }
}
