//! What a reader sees of a value: JSON, in which large values stand by reference until the ledger fills them in.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::event::{BlobRef, Value, escape, json};

/// A projected value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The JSON, with null in the place of each large value.
    pub json: Json,
    /// The JSON Pointer and reference of each large value, in order.
    pub blobs: Vec<(String, BlobRef)>,
}

impl Content {
    /// The content of plain JSON.
    #[must_use]
    pub fn of(json: Json) -> Self {
        Self { json, blobs: Vec::new() }
    }

    /// The content of one value.
    #[must_use]
    pub fn of_value(value: &Value) -> Self {
        match value.to_json() {
            Ok(json) => Self::of(json),
            Err(blob) => Self { json: Json::Null, blobs: vec![(String::new(), blob)] },
        }
    }

    /// The content of an array.
    #[must_use]
    pub fn of_items<'a>(items: impl IntoIterator<Item = &'a Value>) -> Self {
        let (mut array, mut blobs) = (Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            let content = Self::of_value(item);
            blobs.extend(content.blobs.into_iter().map(|(_, blob)| (format!("/{index}"), blob)));
            array.push(content.json);
        }
        Self { json: array.into(), blobs }
    }

    /// The content of an object.
    #[must_use]
    pub fn of_fields(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let (mut object, mut blobs) = (Map::new(), Vec::new());
        for (name, content) in fields {
            if !content.blobs.is_empty() {
                let at = format!("/{}", escape(&name));
                blobs.extend(content.blobs.into_iter().map(|(below, blob)| (format!("{at}{below}"), blob)));
            }
            object.insert(name, content.json);
        }
        Self { json: object.into(), blobs }
    }

    /// The text by which contents are compared: canonical JSON and the names of large values.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = json::canonical(&self.json);
        for (at, blob) in &self.blobs {
            text.push_str(&format!("\u{0}{at}\u{0}{}{:?}", blob.hash, blob.form));
        }
        text
    }

    /// The part at a JSON Pointer, where there is one.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<Self> {
        let json = self.json.pointer(pointer)?.clone();
        let below = |(at, blob): &(String, BlobRef)| Some((at.strip_prefix(pointer)?.to_owned(), *blob));
        let inside = |(below, _): &(String, BlobRef)| below.is_empty() || below.starts_with('/');
        Some(Self { json, blobs: self.blobs.iter().filter_map(below).filter(inside).collect() })
    }

    /// The JSON with every large value read by `read`.
    ///
    /// # Errors
    /// The first error of `read`.
    pub fn fill<E>(&self, mut read: impl FnMut(&BlobRef) -> Result<Json, E>) -> Result<Json, E> {
        let mut filled = self.json.clone();
        for (at, blob) in &self.blobs {
            let value = read(blob)?;
            if let Some(place) = filled.pointer_mut(at) {
                *place = value;
            }
        }
        Ok(filled)
    }
}
