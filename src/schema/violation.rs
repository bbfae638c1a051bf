//! Violations: what of a record is not as its schema says.

use serde::{Deserialize, Serialize};

/// What kind of constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// A keyword of JSON Schema.
    Schema,
    /// The value is not of the field's kind.
    Kind,
    /// Another record holds the value of a unique field.
    Unique,
    /// The record that the field names is absent or deleted.
    Reference,
    /// The field is not the sum that it should be.
    Sum,
    /// A business rule.
    Rule,
}

impl Constraint {
    /// The constraint's name: `reference`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Kind => "kind",
            Self::Unique => "unique",
            Self::Reference => "reference",
            Self::Sum => "sum",
            Self::Rule => "rule",
        }
    }
}

/// One constraint that one record breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Violation {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// The field's JSON Pointer.
    pub path: String,
    /// What kind of constraint.
    pub constraint: Constraint,
    /// Which one: JSON Schema's keyword, the rule, the key that is named, the canonical JSON of the value that is held.
    pub subject: String,
    /// What was expected. It never holds the record's value.
    pub message: String,
    /// Whether the schema calls the field critical.
    pub critical: bool,
}

impl Violation {
    /// What the violation is told from others of its record by: it stays the same while the value changes and the
    /// constraint stays broken.
    #[must_use]
    pub fn identity(&self) -> (Constraint, &str, &str) {
        (self.constraint, &self.path, &self.subject)
    }
}
