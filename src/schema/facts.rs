//! What the constraints need to know of one record.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::VIOLATIONS;
use super::decimal::Decimal;
use super::index::Demands;
use super::model::{Schema, SumOf};
use super::violation::{Constraint, Violation};
use crate::event::{EventId, Path, Timestamp, diff, escape, json};

/// When and by what a shown value was written: of two that show one unique value, the lesser holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// When the event was stamped.
    pub at: Timestamp,
    /// The event.
    pub event: EventId,
}

/// A value of a unique field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The field.
    pub path: Path,
    /// The value, as canonical JSON; its hash where that is long.
    pub value: String,
    /// Who wrote it when.
    pub stamp: Stamp,
}

/// A key that a field holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The field.
    pub path: Path,
    /// The JSON Pointer of the key: the field's, or one of its items'.
    pub at: String,
    /// The collection of the record that is named.
    pub collection: String,
    /// Its key.
    pub target: String,
}

/// The value of a field that should be a sum; `None` where it is no number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The field.
    pub path: Path,
    /// Its value.
    pub value: Option<Decimal>,
}

/// What a record adds to a sum of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The collection of the record that has the sum.
    pub collection: String,
    /// Its key.
    pub target: String,
    /// The field that should be the sum.
    pub path: Path,
    /// What is added.
    pub value: Decimal,
}

/// What the constraints need to know of one record, under the demands of its collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The hash of the demands.
    pub demands: u64,
    /// Whether the record is shown: it is there and not deleted.
    pub alive: bool,
    /// What it breaks alone: of its schema and rules.
    pub broken: Vec<Violation>,
    /// Its values of unique fields.
    pub unique: Vec<Unique>,
    /// The records that it names.
    pub references: Vec<Reference>,
    /// Its fields that should be sums.
    pub amounts: Vec<Amount>,
    /// What it adds to sums of others.
    pub terms: Vec<Term>,
}

/// A record as it is shown.
pub struct Shown<'a> {
    /// Its collection.
    pub collection: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its value; `None` where it is deleted.
    pub json: Option<&'a Json>,
    /// The JSON Pointers of large values that cannot be read here: nothing is said of them.
    pub unread: &'a [String],
    /// Who wrote what is shown of a field.
    pub stamp: &'a dyn Fn(&Path) -> Stamp,
}

/// Above so many bytes a unique value is told from others by its hash.
const VALUE_BYTES: usize = 256;

impl Demands {
    /// What the constraints need to know of a record; `None` where they say nothing of its collection.
    #[must_use]
    pub fn facts(&self, shown: &Shown<'_>) -> Option<Arc<Facts>> {
        let mut facts = Facts { demands: self.hash(shown.collection)?, ..Facts::default() };
        if let Some(json) = shown.json {
            facts.alive = true;
            facts.terms = self.sums_over(shown.collection).flat_map(|sum| term(sum, json)).collect();
            if let Some(schema) = self.schema(shown.collection) {
                facts.add_schema(schema, shown, json);
            }
        }
        Some(Arc::new(facts))
    }
}

impl Facts {
    fn add_schema(&mut self, schema: &Schema, shown: &Shown<'_>, json: &Json) {
        self.broken = broken(schema, shown, json);
        for (path, field) in schema.fields() {
            let value = diff::get(json, path).filter(|value| !value.is_null() && !is_unread(shown, path.as_str()));
            if let Some(value) = value.filter(|_| field.unique) {
                self.unique.push(Unique { path: path.clone(), value: value_text(value), stamp: (shown.stamp)(path) });
            }
            if let (Some(collection), Some(value)) = (&field.references, value) {
                self.references.extend(references(path, collection, value));
            }
            if field.sum.is_some() {
                self.amounts.push(Amount { path: path.clone(), value: amount(value) });
            }
        }
    }
}

/// The value of a sum; where there is none it counts as zero.
fn amount(value: Option<&Json>) -> Option<Decimal> {
    value.map_or_else(|| Some(Decimal::default()), Decimal::of)
}

/// What a value of a unique field is told from others by.
pub(crate) fn value_text(value: &Json) -> String {
    let text = json::canonical(value);
    if text.len() <= VALUE_BYTES { text } else { format!("blake3 {}", blake3::hash(text.as_bytes()).to_hex()) }
}

fn references<'a>(path: &'a Path, collection: &'a str, value: &'a Json) -> impl Iterator<Item = Reference> + 'a {
    let items = value.as_array().into_iter().flatten().enumerate();
    let items = items.map(move |(index, item)| (format!("{path}/{index}"), item));
    let all = std::iter::once((path.to_string(), value)).chain(items);
    all.filter_map(move |(at, value)| {
        let target = value.as_str()?.to_owned();
        Some(Reference { path: path.clone(), at, collection: collection.to_owned(), target })
    })
}

fn term((collection, path, sum): (&str, &Path, &SumOf), json: &Json) -> Option<Term> {
    let target = diff::get(json, &sum.via)?.as_str()?.to_owned();
    let value = Decimal::of(diff::get(json, &sum.field)?)?;
    Some(Term { collection: collection.to_owned(), target, path: path.clone(), value })
}

fn is_unread(shown: &Shown<'_>, at: &str) -> bool {
    let here = |unread: &String| {
        at.strip_prefix(unread.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    shown.unread.iter().any(here)
}

/// What a record breaks of its schema and rules, by path.
fn broken(schema: &Schema, shown: &Shown<'_>, json: &Json) -> Vec<Violation> {
    let mut found: BTreeMap<(String, Constraint, String), String> = BTreeMap::new();
    for fault in schema.validator.iter_errors(json) {
        let (keyword, message) = (fault.kind().keyword().to_owned(), fault.masked_with("the value").to_string());
        for path in places(&fault) {
            found.entry((path, Constraint::Schema, keyword.clone())).or_insert_with(|| message.clone());
        }
    }
    for (path, kind) in schema.fields().filter_map(|(path, field)| Some((path, field.kind?))) {
        let value = diff::get(json, path).filter(|value| !value.is_null() && !kind.holds(value));
        if value.is_some() && !found.contains_key(&(path.to_string(), Constraint::Schema, "type".to_owned())) {
            let expected = format!("expected a value of the kind {}: {}", kind.name(), kind.types().join(", "));
            found.insert((path.to_string(), Constraint::Kind, kind.name().to_owned()), expected);
        }
    }
    found.retain(|(path, ..), _| !is_unread(shown, path));
    // A rule may be about any field: it is told only of what can be read whole.
    for rule in schema.rules.iter().filter(|_| shown.unread.is_empty()) {
        let message = match rule.expression.holds(shown.key, json) {
            Ok(true) => continue,
            Ok(false) => rule.message.clone(),
            Err(why) => format!("{} (the rule cannot be decided: {why})", rule.message),
        };
        found.insert((String::new(), Constraint::Rule, rule.expression.source().to_owned()), message);
    }
    let violation = |((path, constraint, subject), message): ((String, Constraint, String), String)| Violation {
        collection: shown.collection.to_owned(),
        key: shown.key.to_owned(),
        critical: Path::parse(&path).is_ok_and(|path| schema.is_critical(&path)),
        path,
        constraint,
        subject,
        message,
    };
    found.into_iter().take(VIOLATIONS).map(violation).collect()
}

/// The fields at which a value is not as its schema says: a missing or unexpected member rather than its object.
fn places(fault: &ValidationError<'_>) -> Vec<String> {
    let at = fault.instance_path().to_string();
    let member = |name: &str| format!("{at}/{}", escape(name));
    match fault.kind() {
        ValidationErrorKind::Required { property } => vec![property.as_str().map_or(at.clone(), member)],
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| member(name)).collect()
        }
        _ => vec![at],
    }
}
