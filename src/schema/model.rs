//! The schema of a collection.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value as Json;

use super::SCHEMA_BYTES;
use super::expression::Expression;
use super::fault::SchemaFault;
use super::walk::Walk;
use crate::event::{Path, json};

/// How concurrent edits of a field merge. It acts when an edit is drafted, and stands in the event's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldKind {
    /// A string in which edits of different places are all kept.
    Text,
    /// An integer that counts what each writer added.
    Counter,
    /// An array whose members are added and removed one by one; their order is that of their canonical JSON.
    Set,
    /// An array in which items are inserted and removed one by one.
    List,
    /// A value that is replaced as a whole, also an object.
    Atomic,
}

impl FieldKind {
    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Text, Self::Counter, Self::Set, Self::List, Self::Atomic].into_iter().find(|kind| kind.name() == name)
    }

    /// The kind's name: `text`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::List => "list",
            Self::Atomic => "atomic",
        }
    }

    /// The JSON types of its values.
    pub(crate) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["string"],
            Self::Counter => &["integer"],
            Self::Set | Self::List => &["array"],
            Self::Atomic => &["null", "boolean", "integer", "number", "string", "array", "object"],
        }
    }

    /// Whether a value is of the kind.
    #[must_use]
    pub fn holds(self, value: &Json) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Counter => value.as_i64().is_some(),
            Self::Set | Self::List => value.is_array(),
            Self::Atomic => true,
        }
    }
}

/// A field that must equal the sum of a field of the records that refer to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SumOf {
    /// The collection of the referring records.
    pub collection: String,
    /// What of them is added up.
    pub field: Path,
    /// Where they name the record: its key.
    pub via: Path,
}

/// What a schema says of one field, beside what JSON Schema checks.
#[derive(Clone, Debug, Default)]
pub struct Field {
    /// How concurrent edits merge.
    pub kind: Option<FieldKind>,
    /// Whether no two records show the same value.
    pub unique: bool,
    /// The collection of which the field holds a key, or several.
    pub references: Option<String>,
    /// What it must be the sum of.
    pub sum: Option<SumOf>,
    /// Whether conflicts of the field are critical.
    pub critical: bool,
    /// Whether its object must have it.
    pub required: bool,
    /// The value where it is missing.
    pub default: Option<Json>,
    pub(crate) types: Option<BTreeSet<&'static str>>,
    /// Where the schema first speaks of it.
    pub(crate) pointer: String,
}

impl Field {
    /// Whether one of our own keywords stands at the field.
    pub(crate) fn is_own(&self) -> bool {
        self.kind.is_some() || self.unique || self.references.is_some() || self.sum.is_some() || self.critical
    }
}

/// A business rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) expression: Expression,
    pub(crate) message: String,
}

/// The schema of a collection, ready to check records.
#[derive(Debug)]
pub struct Schema {
    json: Json,
    pub(crate) fields: BTreeMap<Path, Field>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) validator: Validator,
    hash: u64,
}

/// How large a compiled regular expression may get, in bytes.
const PATTERN_PROGRAM_BYTES: usize = 1 << 20;

impl Schema {
    /// The schema of JSON.
    ///
    /// # Errors
    /// When it is no JSON Schema of an object, contradicts itself, refers out of itself or back to itself, or is too
    /// large.
    pub fn from_json(schema: &Json) -> Result<Self, SchemaFault> {
        let text = json::canonical(schema);
        if text.len() > SCHEMA_BYTES {
            return Err(SchemaFault::TooLarge { what: "bytes", most: SCHEMA_BYTES, got: text.len() });
        }
        let Walk { fields, rules, .. } = Walk::over(schema)?;
        let root = fields.get(&Path::root()).and_then(|root| root.types.as_ref());
        if root.is_some_and(|types| !types.contains("object")) {
            return Err(SchemaFault::contradictory("/type", "a record is an object"));
        }
        let validator = validator(schema)?;
        let hash =
            blake3::hash(text.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Self { json: schema.clone(), fields, rules, validator, hash })
    }

    /// The schema as JSON.
    #[must_use]
    pub fn to_json(&self) -> &Json {
        &self.json
    }

    /// What schemas are told apart by.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// What the schema says of a field.
    #[must_use]
    pub fn field(&self, path: &Path) -> Option<&Field> {
        self.fields.get(path)
    }

    /// The fields that it speaks of, by path.
    pub fn fields(&self) -> impl Iterator<Item = (&Path, &Field)> {
        self.fields.iter()
    }

    /// How concurrent edits of a field merge, where the schema says so.
    #[must_use]
    pub fn kind(&self, path: &Path) -> Option<FieldKind> {
        self.fields.get(path).and_then(|field| field.kind)
    }

    /// The fields of a kind.
    pub fn of_kind(&self, kind: FieldKind) -> impl Iterator<Item = &Path> {
        self.fields.iter().filter(move |(_, field)| field.kind == Some(kind)).map(|(path, _)| path)
    }

    /// Whether conflicts at a path are critical: of a field that is, or that lies in one.
    #[must_use]
    pub fn is_critical(&self, path: &Path) -> bool {
        let mut up = std::iter::successors(Some(path.clone()), Path::parent);
        up.any(|path| self.fields.get(&path).is_some_and(|field| field.critical))
    }

    /// Whether any field is critical.
    #[must_use]
    pub fn has_critical(&self) -> bool {
        self.fields.values().any(|field| field.critical)
    }
}

fn validator(schema: &Json) -> Result<Validator, SchemaFault> {
    // The linear-time engine: no pattern can make matching explode.
    let patterns = PatternOptions::regex().size_limit(PATTERN_PROGRAM_BYTES).dfa_size_limit(PATTERN_PROGRAM_BYTES);
    let options = jsonschema::options().offline().with_pattern_options(patterns).should_validate_formats(true);
    let options = match schema.get("$schema") {
        None => options.with_draft(Draft::Draft202012),
        Some(_) => options,
    };
    options.build(schema).map_err(|fault| SchemaFault::Invalid {
        pointer: fault.instance_path().to_string(),
        message: fault.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fault(schema: Json) -> String {
        Schema::from_json(&schema).unwrap_err().to_string()
    }

    fn at(field: Json) -> Json {
        json!({ "properties": { "a": field } })
    }

    #[test]
    fn keywords_are_found_below_properties_forms_of_all_and_references() {
        let schema = Schema::from_json(&json!({
            "$defs": { "person": { "type": "string", "x-references": "people" } },
            "properties": {
                "a": { "allOf": [{ "x-kind": "text" }, { "x-critical": true, "type": "string" }] },
                "o": { "properties": { "by": { "$ref": "#/$defs/person" }, "n": { "default": 1 } }, "required": ["n"] },
                "t": { "x-sum": { "collection": "lines", "field": "/amount", "via": "/order" } }
            }
        }))
        .unwrap();
        let path = |text: &str| Path::parse(text).unwrap();
        assert_eq!(schema.kind(&path("/a")), Some(FieldKind::Text));
        assert!(schema.is_critical(&path("/a/below")) && !schema.is_critical(&path("/o")));
        assert_eq!(schema.field(&path("/o/by")).unwrap().references.as_deref(), Some("people"));
        assert!(schema.field(&path("/o/n")).unwrap().required);
        assert_eq!(schema.field(&path("/t")).unwrap().sum.as_ref().unwrap().via, path("/order"));
    }

    #[test]
    fn what_is_no_schema_says_where() {
        for (schema, part) in [
            (json!(true), "a JSON object"),
            (json!({ "type": "array" }), "/type"),
            (json!({ "type": "objekt" }), "/type"),
            (json!({ "properties": 1 }), "/properties"),
            (at(json!({ "x-kind": "txt" })), "text, counter, set, list or atomic"),
            (at(json!({ "x-uniqe": true })), "x-unique"),
            (at(json!({ "x-unique": "yes" })), "/properties/a/x-unique"),
            (at(json!({ "x-references": "$runs" })), "the name of a collection"),
            (at(json!({ "x-sum": { "collection": "t" } })), "\\\"via\\\""),
            (json!({ "x-kind": "atomic" }), "below properties"),
            (at(json!({ "x-rules": [] })), "at the top"),
            (at(json!({ "items": { "x-unique": true } })), "at one field"),
            (json!({ "anyOf": [at(json!({ "x-unique": true }))] }), "at one field"),
            (json!({ "x-rules": [{ "rule": "a ==", "message": "" }] }), "/x-rules/0/rule"),
            (json!({ "x-rules": [{ "rule": "a" }] }), "/x-rules/0"),
            (at(json!({ "pattern": "(" })), "/properties/a/pattern"),
            (at(json!({ "pattern": "(?=a)b" })), "/properties/a/pattern"),
            (json!({ "$schema": "http://example.org" }), "/$schema"),
            (json!({ "$id": "https://example.org/a" }), "/$id"),
        ] {
            let fault = fault(schema.clone());
            assert!(fault.contains(part.replace("\\\"", "\"").as_str()), "{schema}: {fault}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (schema, part) in [
            (at(json!({ "allOf": [{ "x-kind": "text" }, { "x-kind": "list" }] })), "says otherwise"),
            (at(json!({ "x-kind": "text", "type": "number" })), "is a text"),
            (at(json!({ "allOf": [{ "type": "string" }, { "type": "number" }] })), "all types"),
            (at(json!({ "minimum": 3, "maximum": 2 })), "minimum is above maximum"),
            (at(json!({ "const": 1, "enum": [2] })), "none of enum"),
            (at(json!({ "x-kind": "atomic", "properties": { "b": { "x-unique": true } } })), "no field of its own"),
            (at(json!({ "x-kind": "counter", "x-unique": true })), "cannot be unique"),
            (at(json!({ "type": "integer", "x-references": "b" })), "holds no key"),
            (
                at(json!({ "type": "string", "x-sum": { "collection": "b", "field": "/c", "via": "/d" } })),
                "no number",
            ),
            (at(json!({ "x-kind": "set", "default": 1 })), "default"),
        ] {
            let fault = fault(schema.clone());
            assert!(fault.contains(part), "{schema}: {fault}");
        }
    }

    #[test]
    fn nothing_is_fetched() {
        for target in ["https://example.org/s.json", "other.json", "#/nowhere", "#anchor", "file:///etc/passwd"] {
            let fault = fault(at(json!({ "$ref": target })));
            assert!(fault.contains("inside the schema"), "{fault}");
        }
    }

    #[test]
    fn what_would_never_end_is_refused() {
        for schema in [
            json!({ "allOf": [{ "$ref": "#" }] }),
            at(json!({ "$ref": "#" })),
            json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } }, "$ref": "#/$defs/a" }),
            json!({ "$defs": { "a": { "items": { "$ref": "#/$defs/a" } } } }),
        ] {
            let fault = fault(schema.clone());
            assert!(fault.contains("leads back"), "{schema}: {fault}");
        }
    }

    #[test]
    fn what_is_huge_is_refused() {
        let mut defs = serde_json::Map::new();
        for level in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/{}", level + 1) });
            defs.insert(level.to_string(), json!({ "anyOf": [next, next] }));
        }
        defs.insert("40".to_owned(), json!({ "type": "string" }));
        assert!(fault(json!({ "$defs": defs })).contains("subschemas"));
        let deep = (0..40).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert!(fault(deep).contains("levels"));
        assert!(fault(at(json!({ "description": "x".repeat(20_000) }))).contains("bytes"));
        assert!(fault(at(json!({ "pattern": "a".repeat(2_000) }))).contains("1024 bytes"));
        assert!(fault(at(json!({ "pattern": "((a{1000}){1000}){1000}" }))).contains("/properties/a/pattern"));
        let rules = vec![json!({ "rule": "true", "message": "" }); 33];
        assert!(fault(json!({ "x-rules": rules })).contains("32 rules"));
    }
}
