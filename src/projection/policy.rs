//! Policies: which strategy decides each field of a collection.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::event::Path;

/// How far a choice by time reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each field by itself.
    #[default]
    Field,
    /// The whole record: the fields that one writer saw together stay together.
    Record,
}

/// What is shown where candidates disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The latest by order; the conflict stays open.
    #[default]
    Merge,
    /// The latest by order.
    LastWriteWins(Scope),
    /// The earliest by order.
    FirstWriteWins(Scope),
    /// The candidate of the source that stands first, then the latest; sources that do not stand there come last.
    SourceWins(Vec<String>),
    /// The candidate of the source that stands last, then the latest; sources that do not stand there come last.
    TargetWins(Vec<String>),
    /// The value that the candidates were made on; the conflict stays open.
    Manual,
    /// What a registered function says.
    Custom(String),
}

/// What becomes of a record that was deleted and edited apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletes {
    /// It stays.
    #[default]
    EditWins,
    /// It goes.
    DeleteWins,
    /// It stays, and the conflict is open.
    Manual,
}

/// The strategies of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// For fields that have none of their own.
    pub default: Strategy,
    /// For a field and all that lives below it; the longest path counts.
    pub fields: BTreeMap<Path, Strategy>,
    /// For the record's being deleted.
    pub deletes: Deletes,
}

/// Why JSON or a short form is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// The strategy is unknown.
    #[error(
        "unknown strategy `{0}`: expected merge, last_write_wins, first_write_wins, source_wins:A,B, target_wins:A,B, manual or custom:NAME"
    )]
    UnknownStrategy(String),
    /// A part has the wrong type or value.
    #[error("at {pointer}: expected {expected}")]
    Malformed {
        /// Where.
        pointer: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl From<PolicyFault> for crate::Error {
    fn from(fault: PolicyFault) -> Self {
        let pointers = match &fault {
            PolicyFault::Malformed { pointer, .. } => vec![pointer.clone()],
            PolicyFault::UnknownStrategy(_) => Vec::new(),
        };
        Self::new(crate::ErrorKind::Validation, fault.to_string()).with_pointers(pointers)
    }
}

fn malformed(pointer: &str, expected: &'static str) -> PolicyFault {
    PolicyFault::Malformed { pointer: pointer.to_owned(), expected }
}

fn ranks(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|source| !source.is_empty()).map(str::to_owned).collect()
}

impl Strategy {
    /// The strategy's name: `source_wins`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::LastWriteWins(_) => "last_write_wins",
            Self::FirstWriteWins(_) => "first_write_wins",
            Self::SourceWins(_) => "source_wins",
            Self::TargetWins(_) => "target_wins",
            Self::Manual => "manual",
            Self::Custom(_) => "custom",
        }
    }

    /// Whether a conflict that the strategy shows a value for still waits for somebody.
    #[must_use]
    pub fn leaves_open(&self) -> bool {
        matches!(self, Self::Merge | Self::Manual)
    }

    /// How far the choice reaches.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::LastWriteWins(scope) | Self::FirstWriteWins(scope) => *scope,
            _ => Scope::Field,
        }
    }

    /// The strategy of a short form: `merge`, `last_write_wins:record`, `source_wins:jira,app`, `custom:mine`.
    ///
    /// # Errors
    /// When the name is unknown or lacks what it needs.
    pub fn parse(short: &str) -> Result<Self, PolicyFault> {
        let (name, rest) = short.split_once(':').unwrap_or((short, ""));
        let scope = || match rest {
            "" | "field" => Ok(Scope::Field),
            "record" => Ok(Scope::Record),
            _ => Err(malformed("/scope", "field or record")),
        };
        let rank = || match ranks(rest) {
            empty if empty.is_empty() => Err(malformed("/rank", "at least one source, as in source_wins:jira,app")),
            rank => Ok(rank),
        };
        match name {
            "merge" => Ok(Self::Merge),
            "manual" => Ok(Self::Manual),
            "last_write_wins" => scope().map(Self::LastWriteWins),
            "first_write_wins" => scope().map(Self::FirstWriteWins),
            "source_wins" => rank().map(Self::SourceWins),
            "target_wins" => rank().map(Self::TargetWins),
            "custom" if !rest.is_empty() => Ok(Self::Custom(rest.to_owned())),
            _ => Err(PolicyFault::UnknownStrategy(short.to_owned())),
        }
    }

    fn from_json(value: &Json, at: &str) -> Result<Self, PolicyFault> {
        let fields = match value {
            Json::String(short) => return Self::parse(short),
            Json::Object(fields) => fields,
            _ => return Err(malformed(at, "a strategy: an object, or its short form")),
        };
        only(fields, at, &["strategy", "rank", "scope", "name"], "only strategy, rank, scope and name")?;
        let Some(name) = fields.get("strategy").and_then(Json::as_str) else {
            return Err(malformed(&format!("{at}/strategy"), "the name of a strategy"));
        };
        let text = |field: &str| fields.get(field).and_then(Json::as_str);
        let short = match name {
            "source_wins" | "target_wins" => format!("{name}:{}", rank_from_json(fields.get("rank"), at)?.join(",")),
            "custom" => format!("{name}:{}", text("name").unwrap_or_default()),
            _ => text("scope").map_or_else(|| name.to_owned(), |scope| format!("{name}:{scope}")),
        };
        Self::parse(&short)
    }

    /// The strategy as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let name = self.name();
        match self {
            Self::LastWriteWins(Scope::Record) | Self::FirstWriteWins(Scope::Record) => {
                json!({ "strategy": name, "scope": "record" })
            }
            Self::SourceWins(rank) | Self::TargetWins(rank) => json!({ "strategy": name, "rank": rank }),
            Self::Custom(function) => json!({ "strategy": name, "name": function }),
            _ => json!({ "strategy": name }),
        }
    }
}

fn rank_from_json(rank: Option<&Json>, at: &str) -> Result<Vec<String>, PolicyFault> {
    let fault = || malformed(&format!("{at}/rank"), "an array of sources, none of them with a comma");
    let rank = rank.and_then(Json::as_array).ok_or_else(fault)?;
    let source = |source: &Json| source.as_str().filter(|name| !name.contains(',')).map(str::to_owned);
    rank.iter().map(source).collect::<Option<Vec<_>>>().ok_or_else(fault)
}

fn only(fields: &Map<String, Json>, at: &str, known: &[&str], expected: &'static str) -> Result<(), PolicyFault> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(malformed(&format!("{at}/{field}"), expected)),
        None => Ok(()),
    }
}

impl Policy {
    /// The policy that one strategy decides every field.
    #[must_use]
    pub fn of(default: Strategy) -> Self {
        Self { default, ..Self::default() }
    }

    /// The strategy of a field.
    #[must_use]
    pub fn strategy(&self, path: &Path) -> &Strategy {
        let covers = |(at, _): &(&Path, &Strategy)| *at == path || at.is_prefix_of(path);
        let longest = self.fields.iter().filter(covers).max_by_key(|(at, _)| at.depth());
        longest.map_or(&self.default, |(_, strategy)| strategy)
    }

    /// Whether any field follows the record of one writer.
    #[must_use]
    pub fn has_record_scope(&self) -> bool {
        self.fields.values().chain([&self.default]).any(|strategy| strategy.scope() == Scope::Record)
    }

    /// The policy of JSON: an object with `default`, `fields` and `deletes`, or a strategy's short form.
    ///
    /// # Errors
    /// When a part is unknown or malformed; the pointer says which.
    pub fn from_json(value: &Json) -> Result<Self, PolicyFault> {
        let parts = match value {
            Json::String(short) => return Strategy::parse(short).map(Self::of),
            Json::Object(parts) => parts,
            _ => return Err(malformed("", "a policy: an object with default, fields and deletes, or a short form")),
        };
        only(parts, "", &["default", "fields", "deletes"], "only default, fields and deletes")?;
        let default = parts.get("default").map_or(Ok(Strategy::Merge), |s| Strategy::from_json(s, "/default"))?;
        let deletes = match parts.get("deletes").map(|deletes| deletes.as_str().unwrap_or_default()) {
            None | Some("edit_wins") => Deletes::EditWins,
            Some("delete_wins") => Deletes::DeleteWins,
            Some("manual") => Deletes::Manual,
            Some(_) => return Err(malformed("/deletes", "edit_wins, delete_wins or manual")),
        };
        Ok(Self { default, fields: fields_from_json(parts.get("fields"))?, deletes })
    }

    /// The policy as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let fields: Map<String, Json> =
            self.fields.iter().map(|(path, strategy)| (path.to_string(), strategy.to_json())).collect();
        let deletes = match self.deletes {
            Deletes::EditWins => "edit_wins",
            Deletes::DeleteWins => "delete_wins",
            Deletes::Manual => "manual",
        };
        json!({ "default": self.default.to_json(), "fields": fields, "deletes": deletes })
    }
}

fn fields_from_json(fields: Option<&Json>) -> Result<BTreeMap<Path, Strategy>, PolicyFault> {
    let Some(fields) = fields else { return Ok(BTreeMap::new()) };
    let fields =
        fields.as_object().ok_or_else(|| malformed("/fields", "an object from JSON Pointers to strategies"))?;
    let field = |(pointer, strategy): (&String, &Json)| {
        let at = format!("/fields/{pointer}");
        let path = Path::parse(pointer).map_err(|_| malformed(&at, "a JSON Pointer such as /status"))?;
        Ok((path, Strategy::from_json(strategy, &at)?))
    };
    fields.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_back_what_it_prints() {
        let text = json!({
            "default": { "strategy": "source_wins", "rank": ["jira", "app"] },
            "fields": { "/status": { "strategy": "manual" }, "/a/b": "last_write_wins:record", "/c": "custom:sum" },
            "deletes": "delete_wins"
        });
        let policy = Policy::from_json(&text).unwrap();
        assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
        assert_eq!(policy.strategy(&Path::parse("/a/b/c").unwrap()), &Strategy::LastWriteWins(Scope::Record));
        assert_eq!(policy.strategy(&Path::parse("/a").unwrap()).name(), "source_wins");
    }

    #[test]
    fn what_is_no_policy_says_where() {
        for (value, part) in [
            (json!({ "defaults": "merge" }), "/defaults"),
            (json!({ "fields": { "status": "merge" } }), "/fields/status"),
            (json!({ "deletes": 1 }), "/deletes"),
            (json!({ "default": { "strategy": "source_wins" } }), "/default/rank"),
            (json!("newest"), "newest"),
            (json!("source_wins:"), "/rank"),
            (json!("custom"), "unknown strategy `custom`"),
            (json!("last_write_wins:row"), "/scope"),
            (json!(7), "expected a policy"),
        ] {
            let fault = Policy::from_json(&value).unwrap_err().to_string();
            assert!(fault.contains(part), "{fault}");
        }
    }
}
