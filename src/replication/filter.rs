//! Which records a replica wants.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which records are sent. The sender decides by what a record shows there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The collections, and of each those records that meet all conditions; `None` for all collections.
    pub collections: Option<BTreeMap<String, Vec<Condition>>>,
}

/// A demand on a field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The field, as a JSON Pointer.
    pub path: String,
    /// The values of which it has one, each as JSON text.
    pub any_of: Vec<String>,
}

impl Filter {
    /// Only these collections, of which all records.
    #[must_use]
    pub fn of<'a>(collections: impl IntoIterator<Item = &'a str>) -> Self {
        let all = collections.into_iter().map(|name| (name.to_owned(), Vec::new()));
        Self { collections: Some(all.collect()) }
    }

    /// Of a collection only records that have one of these values in this field, besides what was wanted before.
    #[must_use]
    pub fn and_where(mut self, collection: &str, path: &str, any_of: &[serde_json::Value]) -> Self {
        let condition =
            Condition { path: path.to_owned(), any_of: any_of.iter().map(serde_json::Value::to_string).collect() };
        let collections = self.collections.get_or_insert_default();
        collections.entry(collection.to_owned()).or_default().push(condition);
        self
    }

    /// The conditions on records of a collection; `None` where nothing of it is wanted.
    #[must_use]
    pub fn conditions(&self, collection: &str) -> Option<&[Condition]> {
        match &self.collections {
            None => Some(&[]),
            Some(collections) => collections.get(collection).map(Vec::as_slice),
        }
    }

    /// A short name of the filter, the same for equal ones: what cursors of filtered sessions are kept by. Empty where
    /// everything is wanted.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(collections) = &self.collections else { return String::new() };
        let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 replication filter v1");
        let mut put = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        for (collection, conditions) in collections {
            put(collection);
            put(&conditions.len().to_string());
            for condition in conditions {
                put(&condition.path);
                put(&condition.any_of.len().to_string());
                condition.any_of.iter().for_each(|one| put(one));
            }
        }
        hasher.finalize().to_hex().chars().take(16).collect()
    }

    /// Whether everything is wanted.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.collections.is_none()
    }
}

impl Condition {
    /// Whether a record that shows this value meets the condition. A field that is not there is `null`.
    #[must_use]
    pub fn is_met(&self, value: &serde_json::Value) -> bool {
        let found = value.pointer(&self.path).unwrap_or(&serde_json::Value::Null);
        self.any_of.iter().any(|one| serde_json::from_str::<serde_json::Value>(one).is_ok_and(|one| one == *found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_filter_names_collections_and_demands_on_fields() {
        let filter = Filter::of(["notes"]).and_where("issues", "/owner", &[json!("ann"), json!(null)]);
        assert_eq!(filter.conditions("notes"), Some(&[][..]));
        assert_eq!(filter.conditions("people"), None);
        let [condition] = filter.conditions("issues").unwrap() else { panic!() };
        assert!(condition.is_met(&json!({ "owner": "ann" })) && condition.is_met(&json!({})));
        assert!(!condition.is_met(&json!({ "owner": "ravi" })));
        assert!(Filter::default().is_everything() && Filter::default().conditions("any").is_some());
        assert_eq!((Filter::default().name().as_str(), filter.name().len()), ("", 16));
        assert_eq!(Filter::of(["b", "a"]).name(), Filter::of(["a", "b"]).name());
        assert_ne!(Filter::of(["a"]).name(), Filter::of(["a"]).and_where("a", "/x", &[json!(1)]).name());
    }
}
