//! Expressions over a record: business rules, and what a migration makes of a record.

use std::sync::LazyLock;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind as Fault, UndefinedBehavior};
use serde_json::Value as Json;

use super::RULE_FUEL;
use super::fault::SchemaFault;

/// The bytes of a text that an expression makes.
const TEXT_BYTES: usize = 1 << 20;
/// The multiplications of one expression: each of a text or a list may take memory before it is refused.
const TIMES: usize = 4;
/// The bytes of an expression.
const SOURCE_BYTES: usize = 16_384;

/// What of minijinja's own is left out: what makes much of little, what says the same twice, what only templates need.
const FILTERS_LEFT_OUT: [&str; 13] = [
    "indent", "format", "batch", "slice", "zip", "chain", "groupby", "pprint", "safe", "escape", "e", "join",
    "replace",
];
const FUNCTIONS_LEFT_OUT: [&str; 3] = ["range", "debug", "namespace"];

/// What expressions may use. They see the record and nothing else: no file, clock, chance or environment.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(RULE_FUEL));
    environment.set_recursion_limit(32);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    FILTERS_LEFT_OUT.iter().for_each(|name| environment.remove_filter(name));
    FUNCTIONS_LEFT_OUT.iter().for_each(|name| environment.remove_global(name));
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

fn too_long() -> minijinja::Error {
    minijinja::Error::new(Fault::InvalidOperation, "the text would be longer than 1 MiB")
}

fn replace(text: String, from: String, to: String) -> Result<String, minijinja::Error> {
    let found = text.matches(&from).count();
    match found.checked_mul(to.len()).is_some_and(|added| added.saturating_add(text.len()) <= TEXT_BYTES) {
        true => Ok(text.replace(&from, &to)),
        false => Err(too_long()),
    }
}

fn join(items: Vec<Value>, between: Option<String>) -> Result<String, minijinja::Error> {
    let (between, mut joined) = (between.unwrap_or_default(), String::new());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            joined.push_str(&between);
        }
        joined.push_str(&item.to_string());
        if joined.len() > TEXT_BYTES {
            return Err(too_long());
        }
    }
    Ok(joined)
}

/// What went wrong, without any value of the record.
fn what(fault: &minijinja::Error) -> &'static str {
    match fault.kind() {
        Fault::UndefinedError => "it uses what the record does not have: test with `is defined` first",
        Fault::OutOfFuel => "it takes too many steps",
        Fault::UnknownFilter | Fault::UnknownFunction | Fault::UnknownMethod | Fault::UnknownTest => {
            "it uses what there is not"
        }
        _ => "it does not fit the record's values",
    }
}

/// An expression over `record`, its fields by their names, and `key`.
#[derive(Debug)]
pub struct Expression {
    source: String,
}

impl Expression {
    /// Reads an expression; `pointer` says where it stands.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn parse(source: &str, pointer: &str) -> Result<Self, SchemaFault> {
        let fault = |message: String| SchemaFault::Expression { pointer: pointer.to_owned(), message };
        if source.len() > SOURCE_BYTES {
            return Err(fault(format!("expected at most {SOURCE_BYTES} bytes, got {}", source.len())));
        }
        if source.matches('*').count() > TIMES {
            return Err(fault(format!("expected at most {TIMES} multiplications")));
        }
        let parsed = ENVIRONMENT.compile_expression(source);
        parsed.map_err(|error| fault(error.detail().unwrap_or("it cannot be read").to_owned()))?;
        Ok(Self { source: source.to_owned() })
    }

    /// The expression's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    fn value(&self, key: &str, record: &Json) -> Result<Value, &'static str> {
        let compiled = ENVIRONMENT.compile_expression(&self.source).map_err(|fault| what(&fault))?;
        compiled.eval(context(key, record)).map_err(|fault| what(&fault))
    }

    /// Whether the expression holds for a record.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn holds(&self, key: &str, record: &Json) -> Result<bool, &'static str> {
        let value = self.value(key, record)?;
        if value.is_undefined() {
            return Err("it uses what the record does not have: test with `is defined` first");
        }
        Ok(value.is_true())
    }

    /// What the expression makes of a record.
    ///
    /// # Errors
    /// Why it makes nothing.
    pub fn evaluate(&self, key: &str, record: &Json) -> Result<Json, &'static str> {
        to_json(&self.value(key, record)?)
    }
}

fn context(key: &str, record: &Json) -> Value {
    let fields = record.as_object().into_iter().flatten();
    let mut known: Vec<(String, Value)> =
        fields.map(|(name, value)| (name.clone(), Value::from(Serde(value)))).collect();
    known.push(("record".to_owned(), Value::from(Serde(record))));
    known.push(("key".to_owned(), Value::from(key)));
    Value::from_pairs(known)
}

fn to_json(value: &Value) -> Result<Json, &'static str> {
    match value.is_undefined() {
        true => Err("it uses what the record does not have: test with `is defined` first"),
        false => serde_json::to_value(value).map_err(|_| "what it makes is no JSON"),
    }
}

/// What a migration makes of a record: an expression, or an object whose strings may be `{{ expressions }}`.
#[derive(Debug)]
pub struct Template(Form);

#[derive(Debug)]
enum Form {
    Expression(Expression),
    Object(Vec<(String, Form)>),
    Array(Vec<Form>),
    /// A text with expressions inside.
    Text(String),
    Literal(Json),
}

impl Template {
    /// Reads a JSON object of texts and expressions, or one expression.
    ///
    /// # Errors
    /// When it is neither; the pointer says which part.
    pub fn parse(source: &str) -> Result<Self, SchemaFault> {
        match crate::event::json::parse(source) {
            Ok(object @ Json::Object(_)) => form(&object, "").map(Self),
            _ => Expression::parse(source, "").map(Form::Expression).map(Self),
        }
    }

    /// The new record.
    ///
    /// # Errors
    /// Why there is none.
    pub fn evaluate(&self, key: &str, record: &Json) -> Result<Json, &'static str> {
        self.0.evaluate(key, record)
    }
}

fn form(json: &Json, pointer: &str) -> Result<Form, SchemaFault> {
    let below = |name: &str| format!("{pointer}/{}", crate::event::escape(name));
    Ok(match json {
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| Ok((name.clone(), form(value, &below(name))?));
            Form::Object(members.iter().map(member).collect::<Result<_, SchemaFault>>()?)
        }
        Json::Array(items) => {
            let item = |(index, value): (usize, &Json)| form(value, &below(&index.to_string()));
            Form::Array(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        Json::String(text) => text_form(text, pointer)?,
        other => Form::Literal(other.clone()),
    })
}

fn text_form(text: &str, pointer: &str) -> Result<Form, SchemaFault> {
    let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(inner) = inner.filter(|inner| !inner.contains("{{")) {
        return Expression::parse(inner, pointer).map(Form::Expression);
    }
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(Form::Literal(text.into()));
    }
    let fault = |message: String| SchemaFault::Expression { pointer: pointer.to_owned(), message };
    if text.matches('*').count() > TIMES {
        return Err(fault(format!("expected at most {TIMES} multiplications")));
    }
    let parsed = ENVIRONMENT.template_from_str(text);
    parsed.map_err(|error| fault(error.detail().unwrap_or("it cannot be read").to_owned()))?;
    Ok(Form::Text(text.to_owned()))
}

impl Form {
    fn evaluate(&self, key: &str, record: &Json) -> Result<Json, &'static str> {
        match self {
            Self::Expression(expression) => expression.evaluate(key, record),
            Self::Object(members) => {
                let member = |(name, form): &(String, Self)| Ok((name.clone(), form.evaluate(key, record)?));
                members.iter().map(member).collect::<Result<serde_json::Map<_, _>, _>>().map(Json::Object)
            }
            Self::Array(items) => items.iter().map(|form| form.evaluate(key, record)).collect(),
            Self::Text(text) => {
                let made = ENVIRONMENT.render_str(text, context(key, record)).map_err(|fault| what(&fault))?;
                if made.len() > TEXT_BYTES { Err("the text would be longer than 1 MiB") } else { Ok(made.into()) }
            }
            Self::Literal(json) => Ok(json.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(source: &str, record: &Json) -> Result<bool, &'static str> {
        Expression::parse(source, "").unwrap().holds("EE-1", record)
    }

    #[test]
    fn a_rule_sees_the_record_its_fields_and_its_key() {
        let record = json!({ "start": 1, "due": 3, "tags": ["a", "b"], "o": { "n": null } });
        for rule in [
            "due >= start",
            "record.due is defined and late is not defined",
            "key.startswith is undefined or true",
            "'a' in tags and tags|length == 2",
            "o.n is none",
            "tags|join('-') == 'a-b'",
            "key|replace('EE', 'AA') == 'AA-1'",
        ] {
            assert_eq!(holds(rule, &record), Ok(true), "{rule}");
        }
        assert_eq!(holds("start > due", &record), Ok(false));
    }

    #[test]
    fn what_a_record_lacks_or_does_not_fit_is_no_answer() {
        let record = json!({ "a": "text" });
        for rule in ["b > 1", "b", "record.o.x == 1", "a > 1 and a - 1 > 0", "a|nofilter", "a / 0 == 1"] {
            assert!(Expression::parse(rule, "").map_or(true, |rule| rule.holds("k", &record).is_err()), "{rule}");
        }
    }

    #[test]
    fn no_rule_runs_for_long_or_takes_much_memory() {
        let record = json!({ "a": "x".repeat(1_000), "n": (0..20_000).collect::<Vec<_>>() });
        for rule in [
            "(a * 1000)|replace('x', a * 1000) == ''",
            "(a * 100000000) == ''",
            "([a] * 100000)|join(a) == ''",
            "range(100000)|length > 0",
            "'x'|indent(1000000000) == ''",
        ] {
            assert!(Expression::parse(rule, "").unwrap().holds("k", &record).is_err(), "{rule}");
        }
        assert!(Expression::parse(&"a * ".repeat(10), "").is_err());
        assert!(Expression::parse(&"(".repeat(5_000), "").is_err());
        let loops = r#"{"a": "{% for i in n %}{% for j in n %}{{ i }}{% endfor %}{% endfor %}"}"#;
        assert_eq!(Template::parse(loops).unwrap().evaluate("k", &record), Err("it takes too many steps"));
    }

    #[test]
    fn a_migration_is_an_expression_or_an_object_of_them() {
        let record = json!({ "title": "Crash", "n": 2, "o": { "x": [1] } });
        let make = |source: &str| Template::parse(source).unwrap().evaluate("EE-1", &record).unwrap();
        assert_eq!(make("dict(record, n=n + 1)"), json!({ "title": "Crash", "n": 3, "o": { "x": [1] } }));
        assert_eq!(make("{'summary': title}"), json!({ "summary": "Crash" }));
        assert_eq!(
            make(r#"{"s": "{{ title }}", "x": "{{ o.x }}", "id": "{{ key }}: {{ n }}", "l": ["a", 1, null]}"#),
            json!({ "s": "Crash", "x": [1], "id": "EE-1: 2", "l": ["a", 1, null] })
        );
        assert!(Template::parse(r#"{"s": "{{ title"}"#).is_err());
        assert!(Template::parse("record.").is_err());
        assert!(Template::parse("missing").unwrap().evaluate("k", &record).is_err());
    }
}
