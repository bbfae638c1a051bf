//! The values that operations carry.

use serde::{Deserialize, Serialize};

use super::json;

/// The blake3 derive-key hash of a large value's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(blake3::derive_key("syncledger 2026-11 blob v1", content))
    }
}

impl std::fmt::Display for BlobHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobHash({self})")
    }
}

/// What the bytes of a blob are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BlobForm {
    /// The UTF-8 bytes of a string.
    Text,
    /// Bytes.
    Bytes,
    /// Canonical JSON that is replaced as a whole.
    Json,
}

/// A value above [`limits::INLINE_BYTES`](super::limits::INLINE_BYTES), kept in a file beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobRef {
    /// The hash of its bytes, which is its name.
    pub hash: BlobHash,
    /// How many bytes it has.
    pub bytes: u64,
    /// What the bytes are.
    pub form: BlobForm,
}

/// One value of a field, an item of a list, or a member of a set.
///
/// Flat: an object is never a value (its fields are), unless it is [`Value::Atomic`].
/// Invariant: equal values have one form. [`Value::Uint`] is above `i64::MAX`, a [`Value::Float`] is finite and no
/// integer that the other two can hold, [`Value::Atomic`] is canonical JSON of an array or an object that is not
/// empty, and what exceeds [`limits::INLINE_BYTES`](super::limits::INLINE_BYTES) is a [`Value::Blob`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// JSON `null`, an ordinary value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A number with a fraction, or too large for an integer.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes; JSON shows them as `{"$bytes": "<hexadecimal>"}`.
    Bytes(Vec<u8>),
    /// `{}`.
    EmptyObject,
    /// An array or object that is replaced as a whole: canonical JSON.
    Atomic(String),
    /// A large value, by reference.
    Blob(BlobRef),
}

impl Value {
    /// The value of a normalised JSON value, with arrays and objects as [`Value::Atomic`]. Nothing becomes a blob here:
    /// what is too large is seen by [`Value::inline_bytes`].
    #[must_use]
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::from_number(number),
            Json::String(text) => Self::Text(text.clone()),
            Json::Object(fields) if fields.is_empty() => Self::EmptyObject,
            Json::Array(_) | Json::Object(_) => Self::Atomic(json::canonical(json)),
        }
    }

    fn from_number(number: &serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => Self::Int(int),
            (_, Some(uint), _) => Self::Uint(uint),
            (.., float) => Self::Float(float.unwrap_or_default()),
        }
    }

    /// The JSON that a reader sees, or the reference of the blob that holds it.
    ///
    /// # Errors
    /// The reference, when the value is a blob.
    pub fn to_json(&self) -> Result<serde_json::Value, BlobRef> {
        Ok(match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Float(value) => serde_json::Number::from_f64(*value).map_or(serde_json::Value::Null, Into::into),
            Self::Text(value) => value.as_str().into(),
            Self::Bytes(bytes) => serde_json::json!({ "$bytes": hex(bytes) }),
            Self::EmptyObject => serde_json::Map::new().into(),
            // Checked when the event was decoded; a fault here would be ours, and null shows it.
            Self::Atomic(text) => serde_json::from_str(text).unwrap_or_default(),
            Self::Blob(blob) => return Err(*blob),
        })
    }

    /// How many bytes the value holds inside its event, for values that may instead become a blob.
    #[must_use]
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Atomic(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// The bytes and form that this value has as a blob; `None` for what never becomes one.
    #[must_use]
    pub fn blob_content(&self) -> Option<(&[u8], BlobForm)> {
        match self {
            Self::Text(text) => Some((text.as_bytes(), BlobForm::Text)),
            Self::Atomic(text) => Some((text.as_bytes(), BlobForm::Json)),
            Self::Bytes(bytes) => Some((bytes, BlobForm::Bytes)),
            _ => None,
        }
    }

    /// The bytes of a value above [`limits::INLINE_BYTES`](super::limits::INLINE_BYTES), and the reference that stands
    /// for it in an event; `None` for what an event holds itself.
    #[must_use]
    pub fn large(&self) -> Option<(&[u8], BlobRef)> {
        let (content, form) = self.blob_content()?;
        let large = content.len() > super::limits::INLINE_BYTES;
        large.then(|| (content, BlobRef { hash: BlobHash::of(content), bytes: content.len() as u64, form }))
    }

    /// The text by which values are compared and ordered: canonical JSON, or the name of the blob that holds it.
    #[must_use]
    pub fn canonical(&self) -> String {
        match self.to_json() {
            Ok(value) => json::canonical(&value),
            Err(blob) => format!("blob {} {:?}", blob.hash, blob.form),
        }
    }
}

/// The hexadecimal form of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_prints_as_hexadecimal() {
        let hash = BlobHash([0xa5; 32]);
        assert_eq!(hash.to_string(), "a5".repeat(32));
        assert!(format!("{hash:?}").contains("a5a5"));
    }

    #[test]
    fn texts_bytes_and_atomic_json_may_become_blobs() {
        assert_eq!(Value::Text("x".into()).blob_content(), Some((&b"x"[..], BlobForm::Text)));
        assert_eq!(Value::Atomic("[1]".into()).blob_content(), Some((&b"[1]"[..], BlobForm::Json)));
        assert_eq!(Value::Bytes(vec![7]).blob_content(), Some((&[7][..], BlobForm::Bytes)));
        assert_eq!(Value::Int(1).blob_content(), None);
    }
}
