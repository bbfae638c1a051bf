//! A field that a change log changes: how its items become edits, and what it was before them.

use serde_json::{Map, Value as Json, json};

use super::jira::Item;
use crate::Error;
use crate::event::Path;
use crate::ledger::Edit;

/// How a change log speaks of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From one value to another.
    Plain,
    /// An item adds a member, or removes one: a set.
    Members,
    /// An item adds, touches or removes a link, which has an id: an object of them.
    Links,
}

/// Fields of which an item names one member.
const MEMBERS: [&str; 7] = ["Attachment", "Component", "Epic Child", "Fix Version", "Link", "Version", "WorklogId"];

/// The field whose items name a link. Jira writes an item each time that it hears of the link again, with nothing
/// changed: that moment is all that such an item says, so it is kept.
const LINKS: &str = "RemoteIssueLink";

impl Kind {
    pub(super) fn of(item: &Item) -> Self {
        match item.field.as_str() {
            LINKS => Self::Links,
            field if MEMBERS.contains(&field) => Self::Members,
            _ => Self::Plain,
        }
    }
}

/// A field that the change log changes.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in the record.
    pub(super) name: String,
    /// Its id in Jira, under which the last state has it.
    id: Option<String>,
    path: Path,
    before: Before,
}

/// What a field was before the change log.
#[derive(Debug)]
enum Before {
    Plain(Option<Json>),
    /// The members, and whether the record has them as a set yet: an import brings an array.
    Members(Vec<Member>, bool),
    Links(Map<String, Json>),
}

/// A member by its id and its name. Names change in Jira, ids do not.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    id: Option<String>,
    name: String,
}

impl Field {
    /// The name of an item's field in the record: Jira's id of it, but for custom fields, whose ids say nothing.
    pub(super) fn name_of(item: &Item) -> &str {
        item.field_id.as_deref().filter(|id| !id.starts_with("customfield_")).unwrap_or(&item.field)
    }

    /// All fields that the items of a change log, oldest first, change; `last` is the state after them.
    pub(super) fn all(last: &Map<String, Json>, items: &[&Item]) -> Result<Vec<Self>, Error> {
        let mut fields: Vec<Self> = Vec::new();
        for item in items {
            if fields.iter().any(|field| field.is_of(item)) {
                continue;
            }
            let name = Self::name_of(item);
            let own: Vec<_> = items.iter().copied().filter(|other| Self::name_of(other) == name).collect();
            let path = Path::root().join(name)?;
            let before = Before::of(item, &own, last);
            fields.push(Self { name: name.to_owned(), id: item.field_id.clone(), path, before });
        }
        Ok(fields)
    }

    /// Whether an item changes this field.
    pub(super) fn is_of(&self, item: &Item) -> bool {
        Self::name_of(item) == self.name
    }

    /// Whether the last state has this field under `name`.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.name == name || self.id.as_deref() == Some(name)
    }

    /// The field's value before the change log; none where it was absent.
    pub(super) fn initial(&self) -> Option<Json> {
        match &self.before {
            Before::Plain(value) => value.clone(),
            Before::Members(members, _) if members.is_empty() => None,
            Before::Members(members, _) => Some(members.iter().map(|member| member.name.as_str()).collect()),
            Before::Links(links) if links.is_empty() => None,
            Before::Links(links) => Some(links.clone().into()),
        }
    }

    /// The edits that an item means.
    pub(super) fn edits(&mut self, item: &Item, created: &str) -> Result<Vec<Edit>, Error> {
        match &mut self.before {
            Before::Plain(_) => Ok(vec![put_or_remove(self.path.clone(), value(item, item.to_string.as_deref()))]),
            Before::Members(members, is_set) => {
                let mut edits = if *is_set { Vec::new() } else { make_set(&self.path, members) };
                *is_set = true;
                let member = |name: &Option<String>| name.clone().map(Json::from);
                edits.extend(member(&item.from_string).map(|name| Edit::SetRemove(self.path.clone(), name)));
                edits.extend(member(&item.to_string).map(|name| Edit::SetAdd(self.path.clone(), name)));
                Ok(edits)
            }
            Before::Links(_) => link(&self.path, item, created),
        }
    }
}

impl Before {
    fn of(first: &Item, items: &[&Item], last: &Map<String, Json>) -> Self {
        match Kind::of(first) {
            Kind::Plain => Self::Plain(value(first, first.from_string.as_deref())),
            Kind::Members => {
                let members = first.field_id.as_ref().and_then(|id| last.get(id)).map(members).unwrap_or_default();
                Self::Members(items.iter().rev().fold(members, undo), false)
            }
            Kind::Links => Self::Links(links(items)),
        }
    }
}

/// The value that people see; durations are numbers of seconds, as they are in the fields.
fn value(item: &Item, text: Option<&str>) -> Option<Json> {
    let is_duration = item.field_id.as_deref().is_some_and(|id| id.starts_with("time"));
    let text = text?;
    match text.parse::<i64>() {
        Ok(seconds) if is_duration => Some(seconds.into()),
        _ => Some(text.into()),
    }
}

fn put_or_remove(path: Path, value: Option<Json>) -> Edit {
    match value {
        Some(value) => Edit::Put(path, value),
        None => Edit::Remove(path),
    }
}

/// Makes a set of what an import brought as an array. Where there was nothing, the first member makes the set.
fn make_set(path: &Path, members: &[Member]) -> Vec<Edit> {
    if members.is_empty() {
        return Vec::new();
    }
    let add = |member: &Member| Edit::SetAdd(path.clone(), member.name.as_str().into());
    [Edit::MakeSet(path.clone())].into_iter().chain(members.iter().map(add)).collect()
}

/// The members that a field of the last state has.
fn members(value: &Json) -> Vec<Member> {
    let text = |value: &Json, part: &str| value.get(part).and_then(Json::as_str).map(str::to_owned);
    let member = |value: &Json| {
        let name = value.as_str().map(str::to_owned).or_else(|| text(value, "name"))?;
        Some(Member { id: text(value, "id"), name })
    };
    value.as_array().into_iter().flatten().filter_map(member).collect()
}

/// The members before an item.
fn undo(mut members: Vec<Member>, item: &&Item) -> Vec<Member> {
    let is_added = |member: &Member| match (&item.to, &member.id) {
        (Some(added), Some(id)) => added == id,
        _ => item.to_string.as_ref() == Some(&member.name),
    };
    members.retain(|member| !is_added(member));
    members.extend(item.from_string.clone().map(|name| Member { id: item.from.clone(), name }));
    members
}

/// The links before the change log: those that their first item does not add.
fn links(items: &[&Item]) -> Map<String, Json> {
    let mut seen = Vec::new();
    let mut links = Map::new();
    for item in items {
        let id = link_id(item);
        if !seen.contains(&id) {
            seen.push(id);
            if let Some(title) = &item.from_string {
                links.insert(id.to_owned(), json!({ "title": title }));
            }
        }
    }
    links
}

fn link_id(item: &Item) -> &str {
    item.to.as_deref().or(item.from.as_deref()).unwrap_or("unknown")
}

fn link(path: &Path, item: &Item, created: &str) -> Result<Vec<Edit>, Error> {
    let at = path.join(link_id(item))?;
    let Some(title) = &item.to_string else { return Ok(vec![Edit::Remove(at)]) };
    let touched = Edit::Put(at.join("touched")?, created.into());
    let named = Edit::Put(at.join("title")?, title.as_str().into());
    Ok(if item.from_string.as_ref() == Some(title) { vec![touched] } else { vec![named, touched] })
}
