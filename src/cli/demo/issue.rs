//! An issue as the demonstration keeps it: the record before its change log, and the edits that follow.
//!
//! A record holds what people see in Jira: a person, a status or a version stands by its display name, and a custom
//! field that the change log names stands under that name (`/Sprint`). So a field that the change log changes has one
//! path, and its values along the history are the change log's own `toString`s. Left out are fields that Jira computes,
//! those with a history of their own (comments, work), as they belong to the issue's last state and not to its first, and
//! custom fields that the change log does not name.

use serde_json::{Map, Value as Json};

use super::field::{Field, Kind};
use super::jira::{Item, RawEdit, RawIssue};
use crate::Error;
use crate::event::Path;
use crate::ledger::Edit;
use crate::shape::time;

/// The fields whose history is checked step by step against the change log.
const CHECKED: [&str; 2] = ["status", "assignee"];

/// Fields that only describe the end, or that Jira keeps elsewhere.
const LEFT_OUT: [&str; 18] = [
    "aggregateprogress",
    "aggregatetimeestimate",
    "aggregatetimeoriginalestimate",
    "aggregatetimespent",
    "closedSprints",
    "comment",
    "issuerestriction",
    "lastViewed",
    "progress",
    "resolutiondate",
    "sprint",
    "statuscategorychangedate",
    "timetracking",
    "updated",
    "votes",
    "watches",
    "worklog",
    "workratio",
];

/// An issue, and what became of it.
#[derive(Debug)]
pub(super) struct Issue {
    pub(super) key: String,
    /// When it was created, in milliseconds since 1970.
    pub(super) created: i64,
    /// The record before the change log.
    pub(super) initial: Json,
    /// The change log, oldest first.
    pub(super) steps: Vec<Step>,
    /// What the checked fields became, step by step.
    pub(super) chains: Vec<Chain>,
}

/// One edit of the change log.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) at: i64,
    pub(super) by: String,
    pub(super) edits: Vec<Edit>,
}

/// The values that a field went through.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) path: Path,
    pub(super) values: Vec<Option<String>>,
}

impl Issue {
    /// Takes an issue of Jira apart.
    pub(super) fn of(raw: &RawIssue) -> Result<Self, Error> {
        let log = in_order(&raw.changelog.histories)?;
        let items: Vec<&Item> = log.iter().flat_map(|(_, edit)| &edit.items).collect();
        let mut fields = Field::all(&raw.fields, &items)?;
        Ok(Self {
            key: raw.key.clone(),
            created: created(raw, &log)?,
            initial: initial(raw, &fields),
            chains: chains(&items)?,
            steps: steps(&log, &mut fields)?,
        })
    }
}

/// The edits of a change log, oldest first; of one moment by their ids.
fn in_order(edits: &[RawEdit]) -> Result<Vec<(i64, &RawEdit)>, Error> {
    let timed: Result<Vec<_>, Error> = edits.iter().map(|edit| Ok((edit.at()?, edit))).collect();
    let mut timed = timed?;
    timed.sort_by_cached_key(|(at, edit)| (*at, edit.id.parse::<u64>().unwrap_or(u64::MAX), edit.id.clone()));
    Ok(timed)
}

fn created(raw: &RawIssue, log: &[(i64, &RawEdit)]) -> Result<i64, Error> {
    match raw.fields.get("created") {
        Some(time) => time::from_json(time),
        None => Ok(log.first().map_or(0, |(at, _)| *at)),
    }
}

/// The record before the change log: what people see of the fields that it never changed, and what the others were.
fn initial(raw: &RawIssue, fields: &[Field]) -> Json {
    let is_left_out = |name: &str| LEFT_OUT.contains(&name) || name.starts_with("customfield_");
    let is_kept = |name: &str| !is_left_out(name) && !fields.iter().any(|field| field.covers(name));
    let kept = raw.fields.iter().filter(|(name, value)| is_kept(name) && !value.is_null());
    let mut record: Map<_, _> = kept.map(|(name, value)| (name.clone(), seen(value))).collect();
    record.insert("key".to_owned(), raw.key.as_str().into());
    record.extend(fields.iter().filter_map(|field| Some((field.name.clone(), field.initial()?))));
    record.into()
}

/// What people see of a value: its display name, where it has one.
fn seen(value: &Json) -> Json {
    match value {
        Json::Array(items) => items.iter().map(seen).collect::<Vec<_>>().into(),
        Json::Object(parts) => {
            let name = ["displayName", "name", "value", "key"].iter().find_map(|part| parts.get(*part));
            name.filter(|name| name.is_string()).unwrap_or(value).clone()
        }
        _ => value.clone(),
    }
}

fn steps(log: &[(i64, &RawEdit)], fields: &mut [Field]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (at, raw) in log {
        for items in apart(&raw.items) {
            let mut edits = Vec::new();
            for item in items {
                if let Some(field) = fields.iter_mut().find(|field| field.is_of(item)) {
                    edits.extend(field.edits(item, &raw.created)?);
                }
            }
            steps.push(Step { at: *at, by: raw.by(), edits });
        }
    }
    Ok(steps)
}

/// The items of an edit, in as few groups as have each plain field once: a second value would hide the first.
fn apart(items: &[Item]) -> Vec<Vec<&Item>> {
    let mut groups: Vec<Vec<&Item>> = vec![Vec::new()];
    for item in items {
        let is_again =
            |group: &Vec<&Item>| Kind::of(item) == Kind::Plain && group.iter().any(|other| other.field == item.field);
        match groups.last_mut() {
            Some(group) if !is_again(group) => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    groups
}

/// The values that each checked field went through; one equal to that before it is no step.
fn chains(items: &[&Item]) -> Result<Vec<Chain>, Error> {
    let mut chains = Vec::new();
    for name in CHECKED {
        let items: Vec<_> = items.iter().filter(|item| Field::name_of(item) == name).collect();
        let Some(first) = items.first() else { continue };
        let mut values = vec![first.from_string.clone()];
        values.extend(items.iter().map(|item| item.to_string.clone()));
        values.dedup();
        values.remove(0);
        chains.push(Chain { path: Path::root().join(name)?, values });
    }
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::demo::jira;

    fn issue(raw: Json) -> Issue {
        Issue::of(&jira::read(&raw.to_string()).unwrap()[0]).unwrap()
    }

    fn edit(id: u32, created: &str, items: Json) -> Json {
        json!({ "id": id.to_string(), "created": created, "author": { "displayName": "Ada" }, "items": items })
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn the_first_state_is_what_the_oldest_edits_came_from() {
        let issue = issue(json!({
            "key": "A-1",
            "fields": {
                "created": "2020-01-01T00:00:00.000+0000", "updated": "2021-01-01T00:00:00.000+0000",
                "status": { "name": "Done" }, "assignee": null, "summary": "x", "environment": null,
                "fixVersions": [{ "id": "2", "name": "renamed" }], "reporter": { "displayName": "Bo", "name": "b" }
            },
            "changelog": { "histories": [
                edit(9, "2020-01-03T00:00:00.000+0000", json!([
                    { "field": "status", "fieldId": "status", "fromString": "Doing", "toString": "Done" },
                    { "field": "Fix Version", "fieldId": "fixVersions", "from": "1", "fromString": "v1" },
                    { "field": "Fix Version", "fieldId": "fixVersions", "to": "2", "toString": "v2" }
                ])),
                edit(10, "2020-01-02T00:00:00.000+0000", json!([
                    { "field": "status", "fieldId": "status", "fromString": "Open", "toString": "Doing" },
                    { "field": "assignee", "fieldId": "assignee", "fromString": "Bo", "toString": null }
                ])),
            ] }
        }));
        let expected = json!({
            "key": "A-1", "created": "2020-01-01T00:00:00.000+0000", "status": "Open", "assignee": "Bo",
            "summary": "x", "fixVersions": ["v1"], "reporter": "Bo"
        });
        assert_eq!(issue.initial, expected);
        assert_eq!(
            issue.steps[0].edits,
            [Edit::Put(path("/status"), "Doing".into()), Edit::Remove(path("/assignee"))]
        );
        let versions = path("/fixVersions");
        let sets = [
            Edit::MakeSet(versions.clone()),
            Edit::SetAdd(versions.clone(), "v1".into()),
            Edit::SetRemove(versions.clone(), "v1".into()),
            Edit::SetAdd(versions, "v2".into()),
        ];
        assert_eq!(issue.steps[1].edits[1..], sets);
    }

    #[test]
    fn a_plain_field_that_changes_twice_at_one_moment_makes_two_steps() {
        let status = |from: &str, to: &str| json!({ "field": "status", "fromString": from, "toString": to });
        let log = edit(1, "2020-01-02T00:00:00.000+0000", json!([status("a", "b"), status("b", "c")]));
        let issue = issue(json!({ "key": "A-1", "fields": {}, "changelog": { "histories": [log] } }));
        assert_eq!(issue.steps.len(), 2);
        assert_eq!(issue.chains[0].values, [Some("b".to_owned()), Some("c".to_owned())]);
    }

    #[test]
    fn every_item_of_the_embedded_issues_becomes_an_edit() {
        let issues: Vec<_> = jira::read(crate::cli::demo::EMBEDDED).unwrap();
        for raw in &issues {
            let issue = Issue::of(raw).unwrap();
            assert_eq!(issue.steps.len(), raw.changelog.histories.len());
            assert!(issue.steps.iter().all(|step| !step.edits.is_empty()), "{}", issue.key);
        }
    }
}
