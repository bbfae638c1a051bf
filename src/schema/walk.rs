//! The walk over a schema: its limits, its references, and the keywords of our own with the fields that they are of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::expression::Expression;
use super::fault::SchemaFault;
use super::model::{Field, FieldKind, Rule, SumOf};
use super::{PATTERN_BYTES, PATTERNS, RULE_BYTES, RULES, SCHEMA_DEPTH, SUBSCHEMAS};
use crate::event::{Path, escape, limits};

type Done = Result<(), SchemaFault>;

/// Which field a subschema is of.
#[derive(Clone, Debug)]
enum At {
    /// One field, whatever the record.
    Field(Path),
    /// No single field: an item, one of several forms, any member.
    Elsewhere,
    /// A definition, which counts only where it is named.
    Unused,
}

/// Keywords whose value is one subschema of the value's parts, or of some values only.
const ONE: [&str; 12] = [
    "not",
    "if",
    "then",
    "else",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "additionalItems",
    "contains",
    "items",
    "contentSchema",
];
/// Keywords whose value is an array of subschemas.
const ARRAYS: [&str; 4] = ["anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value is an object of subschemas.
const OBJECTS: [&str; 3] = ["patternProperties", "dependentSchemas", "dependencies"];
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
const REFUSED: [&str; 5] = ["$id", "$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor"];
const DRAFTS: [&str; 3] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
/// Lower and upper bounds of one thing.
const BOUNDS: [(&str, &str); 4] = [
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
];

/// What the walk finds.
#[derive(Debug, Default)]
pub(crate) struct Walk<'a> {
    root: Option<&'a Json>,
    pub(crate) fields: BTreeMap<Path, Field>,
    pub(crate) rules: Vec<Rule>,
    /// The references that the walk is inside of.
    inside: Vec<String>,
    subschemas: usize,
    patterns: usize,
}

impl<'a> Walk<'a> {
    /// Walks a whole schema.
    pub(crate) fn over(schema: &'a Json) -> Result<Self, SchemaFault> {
        let Json::Object(root) = schema else {
            return Err(SchemaFault::malformed("", "a JSON object: the schema of a record"));
        };
        check_depth(schema, SCHEMA_DEPTH)?;
        check_draft(root)?;
        let mut walk = Self { root: Some(schema), ..Self::default() };
        walk.inside.push("#".to_owned());
        walk.rules(root)?;
        walk.subschema(schema, "", &At::Field(Path::root()))?;
        walk.check_fields()?;
        Ok(walk)
    }

    fn subschema(&mut self, schema: &'a Json, pointer: &str, at: &At) -> Done {
        self.subschemas += 1;
        if self.subschemas > SUBSCHEMAS {
            let (what, most, got) = ("subschemas, each counted wherever it is named", SUBSCHEMAS, self.subschemas);
            return Err(SchemaFault::TooLarge { what, most, got });
        }
        let Json::Object(keywords) = schema else { return Ok(()) };
        check_keywords(keywords, pointer)?;
        check_bounds(keywords, pointer)?;
        self.pattern(keywords, pointer)?;
        match at {
            At::Field(path) => self.field(keywords, pointer, path)?,
            At::Elsewhere => no_own_keywords(keywords, pointer)?,
            At::Unused => {}
        }
        self.reference(keywords, pointer, at)?;
        self.below(keywords, pointer, at)
    }

    /// The subschemas of a subschema.
    fn below(&mut self, keywords: &'a Map<String, Json>, pointer: &str, at: &At) -> Done {
        let elsewhere = if matches!(at, At::Unused) { At::Unused } else { At::Elsewhere };
        for (name, value) in keywords {
            let pointer = format!("{pointer}/{}", escape(name));
            match value {
                Json::Object(members) if name == "properties" => self.properties(members, &pointer, at)?,
                Json::Array(all) if name == "allOf" => self.array(all, &pointer, at)?,
                Json::Array(some) if ARRAYS.contains(&name.as_str()) => self.array(some, &pointer, &elsewhere)?,
                Json::Object(some) if OBJECTS.contains(&name.as_str()) => self.object(some, &pointer, &elsewhere)?,
                Json::Object(some) if DEFINITIONS.contains(&name.as_str()) => {
                    self.object(some, &pointer, &At::Unused)?;
                }
                value if ONE.contains(&name.as_str()) => self.subschema(value, &pointer, &elsewhere)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn array(&mut self, schemas: &'a [Json], pointer: &str, at: &At) -> Done {
        let mut each = schemas.iter().enumerate();
        each.try_for_each(|(index, schema)| self.subschema(schema, &format!("{pointer}/{index}"), at))
    }

    fn object(&mut self, schemas: &'a Map<String, Json>, pointer: &str, at: &At) -> Done {
        let mut each = schemas.iter();
        each.try_for_each(|(name, schema)| self.subschema(schema, &format!("{pointer}/{}", escape(name)), at))
    }

    fn properties(&mut self, members: &'a Map<String, Json>, pointer: &str, at: &At) -> Done {
        for (name, schema) in members {
            let pointer = format!("{pointer}/{}", escape(name));
            let at = match at {
                At::Field(path) => match path.join(name) {
                    Ok(path) => At::Field(path),
                    Err(fault) => return Err(SchemaFault::malformed(&pointer, format!("a field: {fault}"))),
                },
                other => other.clone(),
            };
            self.subschema(schema, &pointer, &at)?;
        }
        Ok(())
    }

    fn reference(&mut self, keywords: &'a Map<String, Json>, pointer: &str, at: &At) -> Done {
        let Some(Json::String(target)) = keywords.get("$ref") else { return Ok(()) };
        let pointer = format!("{pointer}/$ref");
        let remote = || SchemaFault::Remote { pointer: pointer.clone(), target: target.clone() };
        let inside = target.strip_prefix('#').filter(|inside| !inside.contains('%')).ok_or_else(remote)?;
        let named = self.root.and_then(|root| root.pointer(inside)).ok_or_else(remote)?;
        if self.inside.contains(target) || pointer.strip_prefix(inside).is_some_and(|rest| rest.starts_with('/')) {
            return Err(SchemaFault::Recursive { pointer });
        }
        self.inside.push(target.clone());
        self.subschema(named, inside, at)?;
        self.inside.pop();
        Ok(())
    }

    fn pattern(&mut self, keywords: &Map<String, Json>, pointer: &str) -> Done {
        let members = keywords.get("patternProperties").and_then(Json::as_object);
        let names = members.into_iter().flat_map(Map::keys).map(String::as_str);
        let patterns: Vec<&str> = names.chain(keywords.get("pattern").and_then(Json::as_str)).collect();
        self.patterns += patterns.len();
        if self.patterns > PATTERNS {
            return Err(SchemaFault::TooLarge { what: "patterns", most: PATTERNS, got: self.patterns });
        }
        match patterns.iter().find(|pattern| pattern.len() > PATTERN_BYTES) {
            Some(_) => Err(SchemaFault::malformed(pointer, format!("a pattern of at most {PATTERN_BYTES} bytes"))),
            None => Ok(()),
        }
    }

    // --- our own keywords ------------------------------------------------------------------------------------------

    fn field(&mut self, keywords: &Map<String, Json>, pointer: &str, path: &Path) -> Done {
        for (keyword, value) in keywords.iter().filter(|(keyword, _)| keyword.starts_with("x-")) {
            let pointer = format!("{pointer}/{keyword}");
            if path.is_root() && !matches!(keyword.as_str(), "x-rules" | "x-critical") {
                return Err(SchemaFault::malformed(&pointer, "this keyword at a field, below properties"));
            }
            self.keyword(keyword, value, &pointer, path)?;
        }
        self.types(keywords, pointer, path)?;
        let required = keywords.get("required").and_then(Json::as_array);
        for name in required.into_iter().flatten().filter_map(Json::as_str) {
            if let Ok(path) = path.join(name) {
                self.at(&path, pointer).required = true;
            }
        }
        if let Some(default) = keywords.get("default") {
            self.at(path, pointer).default = Some(default.clone());
        }
        Ok(())
    }

    fn at(&mut self, path: &Path, pointer: &str) -> &mut Field {
        let fresh = || Field { pointer: pointer.to_owned(), ..Field::default() };
        self.fields.entry(path.clone()).or_insert_with(fresh)
    }

    fn keyword(&mut self, keyword: &str, value: &Json, pointer: &str, path: &Path) -> Done {
        match keyword {
            "x-kind" => self.kind(value, pointer, path),
            "x-unique" => {
                self.at(path, pointer).unique |= boolean(value, pointer)?;
                Ok(())
            }
            "x-critical" => {
                self.at(path, pointer).critical |= boolean(value, pointer)?;
                Ok(())
            }
            "x-references" => {
                let collection = collection(value, pointer)?;
                let field = self.at(path, pointer);
                once(&mut field.references, collection, pointer)
            }
            "x-sum" => {
                let sum = sum_of(value, pointer)?;
                once(&mut self.at(path, pointer).sum, sum, pointer)
            }
            "x-rules" if path.is_root() && pointer == "/x-rules" => Ok(()),
            "x-rules" => Err(SchemaFault::malformed(pointer, "x-rules only at the top of the schema")),
            _ => {
                let known = "x-kind, x-unique, x-references, x-critical, x-sum or x-rules";
                Err(SchemaFault::malformed(pointer, known))
            }
        }
    }

    fn kind(&mut self, value: &Json, pointer: &str, path: &Path) -> Done {
        let kind = value.as_str().and_then(FieldKind::parse);
        let kind = kind.ok_or_else(|| SchemaFault::malformed(pointer, "text, counter, set, list or atomic"))?;
        once(&mut self.at(path, pointer).kind, kind, pointer)
    }

    fn types(&mut self, keywords: &Map<String, Json>, pointer: &str, path: &Path) -> Done {
        let Some(value) = keywords.get("type") else { return Ok(()) };
        let pointer = format!("{pointer}/type");
        let named: Option<BTreeSet<&'static str>> = match value {
            Json::String(name) => known_type(name).map(|name| BTreeSet::from([name])),
            Json::Array(names) => names.iter().map(|name| name.as_str().and_then(known_type)).collect(),
            _ => None,
        };
        let named = named.filter(|named| !named.is_empty());
        let mut named = named.ok_or_else(|| SchemaFault::malformed(&pointer, "the name of a type, or several"))?;
        if named.contains("number") {
            named.insert("integer");
        }
        let field = self.at(path, &pointer);
        let both = field.types.as_ref().map_or(named.clone(), |before| &named & before);
        if both.is_empty() {
            return Err(SchemaFault::contradictory(
                &pointer,
                format!("no value of `{path}` has all types that are asked"),
            ));
        }
        field.types = Some(both);
        Ok(())
    }

    fn rules(&mut self, root: &Map<String, Json>) -> Done {
        let Some(value) = root.get("x-rules") else { return Ok(()) };
        let expected = "an array of {\"rule\": an expression, \"message\": a text}";
        let rules = value.as_array().ok_or_else(|| SchemaFault::malformed("/x-rules", expected))?;
        if rules.len() > RULES {
            return Err(SchemaFault::TooLarge { what: "rules", most: RULES, got: rules.len() });
        }
        for (index, rule) in rules.iter().enumerate() {
            let pointer = format!("/x-rules/{index}");
            let text = |name: &str| rule.get(name).and_then(Json::as_str);
            let only = rule.as_object().is_some_and(|parts| parts.len() == 2);
            let (Some(source), Some(message)) = (text("rule").filter(|_| only), text("message")) else {
                return Err(SchemaFault::malformed(&pointer, expected));
            };
            if source.len() > RULE_BYTES || message.len() > RULE_BYTES {
                return Err(SchemaFault::malformed(&pointer, format!("texts of at most {RULE_BYTES} bytes")));
            }
            let expression = Expression::parse(source, &format!("{pointer}/rule"))?;
            self.rules.push(Rule { expression, message: message.to_owned() });
        }
        Ok(())
    }

    // --- what fields say together ----------------------------------------------------------------------------------

    fn check_fields(&self) -> Done {
        self.fields.iter().try_for_each(|(path, field)| {
            check_kind(path, field)?;
            check_roles(path, field)?;
            self.check_above(path, field)
        })
    }

    /// A field with a kind is one value: nothing below it is a field.
    fn check_above(&self, path: &Path, field: &Field) -> Done {
        let mut above = std::iter::successors(path.parent(), Path::parent);
        let kind = |path: &Path| self.fields.get(path).and_then(|field| field.kind);
        match above.find(|above| kind(above).is_some()) {
            Some(above) if field.is_own() => Err(SchemaFault::contradictory(
                &field.pointer,
                format!("`{path}` is no field of its own: `{above}` has an x-kind"),
            )),
            _ => Ok(()),
        }
    }
}

fn check_depth(json: &Json, left: usize) -> Done {
    let below: Vec<&Json> = match json {
        Json::Array(items) => items.iter().collect(),
        Json::Object(members) => members.values().collect(),
        _ => return Ok(()),
    };
    if left == 0 {
        return Err(SchemaFault::TooLarge { what: "levels", most: SCHEMA_DEPTH, got: SCHEMA_DEPTH + 1 });
    }
    below.into_iter().try_for_each(|json| check_depth(json, left - 1))
}

fn check_draft(root: &Map<String, Json>) -> Done {
    let Some(draft) = root.get("$schema") else { return Ok(()) };
    let known = draft.as_str().is_some_and(|draft| DRAFTS.contains(&draft.trim_end_matches('#')));
    let expected = "no draft, or JSON Schema 2020-12, 2019-09 or draft-07";
    if known { Ok(()) } else { Err(SchemaFault::malformed("/$schema", expected)) }
}

fn check_keywords(keywords: &Map<String, Json>, pointer: &str) -> Done {
    let refused = keywords.iter().find(|(name, value)| REFUSED.contains(&name.as_str()) && !value.is_object());
    match refused {
        Some((name, _)) => Err(SchemaFault::malformed(
            &format!("{pointer}/{name}"),
            "a schema without it: it is found by its collection, and its parts by #/… pointers",
        )),
        None => Ok(()),
    }
}

fn check_bounds(keywords: &Map<String, Json>, pointer: &str) -> Done {
    let number = |name: &str| keywords.get(name).and_then(Json::as_f64);
    for (low, high) in BOUNDS {
        if let (Some(least), Some(most)) = (number(low), number(high))
            && least > most
        {
            return Err(SchemaFault::contradictory(&format!("{pointer}/{low}"), format!("{low} is above {high}")));
        }
    }
    if let (Some(constant), Some(Json::Array(values))) = (keywords.get("const"), keywords.get("enum"))
        && !values.contains(constant)
    {
        return Err(SchemaFault::contradictory(&format!("{pointer}/const"), "const is none of enum"));
    }
    Ok(())
}

fn no_own_keywords(keywords: &Map<String, Json>, pointer: &str) -> Done {
    match keywords.keys().find(|name| name.starts_with("x-")) {
        Some(name) => Err(SchemaFault::malformed(
            &format!("{pointer}/{name}"),
            "this keyword at one field: below properties, allOf or a $ref, and not inside forms, items or patterns",
        )),
        None => Ok(()),
    }
}

fn known_type(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

fn boolean(value: &Json, pointer: &str) -> Result<bool, SchemaFault> {
    value.as_bool().ok_or_else(|| SchemaFault::malformed(pointer, "true or false"))
}

/// Says a thing of a field that may be said only once, or twice alike.
fn once<T: PartialEq>(slot: &mut Option<T>, value: T, pointer: &str) -> Done {
    match slot {
        Some(before) if *before != value => {
            Err(SchemaFault::contradictory(pointer, "another part of the schema says otherwise of this field"))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn collection(value: &Json, pointer: &str) -> Result<String, SchemaFault> {
    let fits = |name: &&str| {
        (1..=limits::COLLECTION_BYTES).contains(&name.len())
            && !name.starts_with('$')
            && !name.chars().any(char::is_control)
    };
    let name = value.as_str().filter(fits);
    name.map(str::to_owned).ok_or_else(|| SchemaFault::malformed(pointer, "the name of a collection"))
}

fn sum_of(value: &Json, pointer: &str) -> Result<SumOf, SchemaFault> {
    let expected = "{\"collection\": a name, \"field\": a JSON Pointer, \"via\": a JSON Pointer}";
    let parts = value.as_object().filter(|parts| parts.len() == 3);
    let parts = parts.ok_or_else(|| SchemaFault::malformed(pointer, expected))?;
    let path = |name: &str| {
        let text = parts.get(name).and_then(Json::as_str);
        let path = text.and_then(|text| Path::parse(text).ok()).filter(|path| !path.is_root());
        path.ok_or_else(|| SchemaFault::malformed(&format!("{pointer}/{name}"), "a JSON Pointer such as /amount"))
    };
    let collection = collection(parts.get("collection").unwrap_or(&Json::Null), &format!("{pointer}/collection"))?;
    Ok(SumOf { collection, field: path("field")?, via: path("via")? })
}

fn allows(field: &Field, types: &[&str]) -> bool {
    field.types.as_ref().is_none_or(|named| types.iter().any(|name| named.contains(name)))
}

fn check_kind(path: &Path, field: &Field) -> Done {
    let Some(kind) = field.kind else { return Ok(()) };
    if !allows(field, kind.types()) {
        let why = format!("`{path}` is a {}, but no value of that kind has the type that is asked", kind.name());
        return Err(SchemaFault::contradictory(&field.pointer, why));
    }
    let default = field.default.as_ref().filter(|default| !default.is_null());
    match default {
        Some(default) if !kind.holds(default) => {
            Err(SchemaFault::contradictory(&field.pointer, format!("the default of `{path}` is not of its kind")))
        }
        _ => Ok(()),
    }
}

fn check_roles(path: &Path, field: &Field) -> Done {
    let refuse = |why: &str| Err(SchemaFault::contradictory(&field.pointer, format!("`{path}` {why}")));
    let (kind, is_number) = (field.kind, allows(field, &["number", "integer"]));
    if field.unique && kind == Some(FieldKind::Counter) {
        return refuse("cannot be unique: counts that were made apart add up");
    }
    if field.references.is_some() && !allows(field, &["string", "array"]) {
        return refuse("refers to records, but holds no key: a string, or an array of strings");
    }
    if field.sum.is_some() && (!is_number || !matches!(kind, None | Some(FieldKind::Counter))) {
        return refuse("is a sum, but no number");
    }
    Ok(())
}
