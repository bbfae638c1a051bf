//! Jira issues as its REST API returns them: what a demonstration reads of them.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::event::json;
use crate::shape::time;
use crate::{Error, ErrorKind};

/// An issue with its change log.
#[derive(Debug, Deserialize)]
pub(super) struct RawIssue {
    pub(super) key: String,
    pub(super) fields: Map<String, Json>,
    #[serde(default)]
    pub(super) changelog: ChangeLog,
}

/// All edits of an issue, in any order.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ChangeLog {
    #[serde(default)]
    pub(super) histories: Vec<RawEdit>,
}

/// What one person changed at one moment.
#[derive(Debug, Deserialize)]
pub(super) struct RawEdit {
    pub(super) id: String,
    pub(super) created: String,
    pub(super) author: Option<Author>,
    pub(super) items: Vec<Item>,
}

/// A person.
#[derive(Debug, Deserialize)]
pub(super) struct Author {
    #[serde(rename = "displayName")]
    pub(super) display_name: Option<String>,
}

/// One changed field, as ids and as people see it.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    pub(super) field: String,
    #[serde(rename = "fieldId")]
    pub(super) field_id: Option<String>,
    pub(super) from: Option<String>,
    #[serde(rename = "fromString")]
    pub(super) from_string: Option<String>,
    pub(super) to: Option<String>,
    #[serde(rename = "toString")]
    pub(super) to_string: Option<String>,
}

/// Reads issues, one a line.
pub(super) fn read(text: &str) -> Result<Vec<RawIssue>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| issue(line).map_err(|error| at_line(index + 1, &error))).collect()
}

fn issue(line: &str) -> Result<RawIssue, Error> {
    let value = json::parse(line)?;
    serde_json::from_value(value)
        .map_err(|fault| Error::new(ErrorKind::Validation, format!("this is no Jira issue: {fault}")))
}

fn at_line(number: usize, error: &Error) -> Error {
    Error::new(error.kind(), format!("line {number}: {}", error.message()))
        .with_hint("one issue a line, as Jira's REST API returns it with expand=changelog")
}

impl RawEdit {
    /// When the edit was made, in milliseconds since 1970.
    pub(super) fn at(&self) -> Result<i64, Error> {
        time::parse(&self.created)
    }

    /// Who made it.
    pub(super) fn by(&self) -> String {
        let name = self.author.as_ref().and_then(|author| author.display_name.clone());
        name.unwrap_or_else(|| "somebody".to_owned())
    }
}
