//! Edits that the office and the laptop make without knowing of each other.
//!
//! Most of them do not touch: other fields, members of a set, a counter, other places of a text, the same value. The rest
//! collide: two values, a value and a removal, an edit and a deletion. Which issue gets which depends on its place in the
//! data only.

use serde_json::{Value as Json, json};

use super::check;
use super::stage::{Replica, Stage};
use super::{COLLECTION, Issue};
use crate::Result;
use crate::event::Path;
use crate::ledger::{Act, Context, Edit, Place, Write};

/// How two edits of an issue made apart relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pair {
    /// Both set the status.
    Statuses,
    /// They set different fields.
    Fields,
    /// Both add a member to a set.
    Members,
    /// One assigns the issue, the other unassigns it.
    Assignee,
    /// Both count.
    Counts,
    /// Both write into one text.
    Text,
    /// One edits the issue, the other deletes it.
    Deletion,
    /// Both make the same edit.
    Same,
}

const MINUTE: i64 = 60_000;

/// The note that both write into, as the office left it.
const NOTE: &str = "Talked to the customer.";

impl Pair {
    const ALL: [Self; 8] = [
        Self::Statuses,
        Self::Fields,
        Self::Members,
        Self::Assignee,
        Self::Counts,
        Self::Text,
        Self::Deletion,
        Self::Same,
    ];

    /// The pair of an issue, by its place.
    fn of(index: usize) -> Self {
        let [first, ..] = Self::ALL;
        Self::ALL.get(index % Self::ALL.len()).copied().unwrap_or(first)
    }

    /// Whether the edits collide.
    pub(super) fn collides(self) -> bool {
        matches!(self, Self::Statuses | Self::Assignee | Self::Deletion)
    }

    /// What was done, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Statuses => "two statuses for one issue",
            Self::Fields => "other fields of one issue",
            Self::Members => "two members added to one set",
            Self::Assignee => "assigned here, unassigned there",
            Self::Counts => "two increments of one counter",
            Self::Text => "two insertions into one text",
            Self::Deletion => "edited here, deleted there",
            Self::Same => "the same edit twice",
        }
    }

    /// A short name, for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Statuses => "statuses",
            Self::Fields => "fields",
            Self::Members => "members",
            Self::Assignee => "assignee",
            Self::Counts => "counts",
            Self::Text => "text",
            Self::Deletion => "deletion",
            Self::Same => "same",
        }
    }

    /// What the office does.
    fn at_office(self) -> Result<Act> {
        Ok(match self {
            Self::Statuses => put("/status", json!("In Review"))?,
            Self::Fields => put("/priority", json!("Highest"))?,
            Self::Members => Act::Edit(vec![Edit::SetAdd(Path::parse("/reviewers")?, json!("Mona"))]),
            Self::Assignee => put("/assignee", json!("Mona"))?,
            Self::Counts => Act::Edit(vec![Edit::Increment(Path::parse("/customers")?, 2)]),
            Self::Text => splice(0, "Monday: ")?,
            Self::Deletion => put("/priority", json!("Highest"))?,
            Self::Same => put("/priority", json!("Low"))?,
        })
    }

    /// What the laptop does.
    fn on_laptop(self) -> Result<Act> {
        Ok(match self {
            Self::Statuses => put("/status", json!("Blocked"))?,
            Self::Fields => put("/duedate", json!("2030-01-31"))?,
            Self::Members => Act::Edit(vec![Edit::SetAdd(Path::parse("/reviewers")?, json!("Ravi"))]),
            Self::Assignee => Act::Edit(vec![Edit::Remove(Path::parse("/assignee")?)]),
            Self::Counts => Act::Edit(vec![Edit::Increment(Path::parse("/customers")?, 3)]),
            Self::Text => splice(NOTE.chars().count() as u64, " They agree.")?,
            Self::Deletion => Act::Delete,
            Self::Same => put("/priority", json!("Low"))?,
        })
    }

    /// What a merged record shows; nothing for what collides.
    fn merged(self) -> Vec<(&'static str, Json)> {
        match self {
            Self::Fields => vec![("/priority", json!("Highest")), ("/duedate", json!("2030-01-31"))],
            Self::Members => vec![("/reviewers", json!(["Mona", "Ravi"]))],
            Self::Counts => vec![("/customers", json!(5))],
            Self::Text => vec![("/note", json!(format!("Monday: {NOTE} They agree.")))],
            Self::Same => vec![("/priority", json!("Low"))],
            Self::Statuses | Self::Assignee | Self::Deletion => Vec::new(),
        }
    }
}

fn put(pointer: &str, value: Json) -> Result<Act> {
    Ok(Act::Edit(vec![Edit::Put(Path::parse(pointer)?, value)]))
}

fn splice(index: u64, insert: &str) -> Result<Act> {
    Ok(Act::Edit(vec![Edit::SpliceText { place: note()?, index, delete: 0, insert: insert.to_owned() }]))
}

fn note() -> Result<Place> {
    Ok(Place::Path(Path::parse("/note")?))
}

/// The issues, each with how it is edited apart.
pub(super) fn pairs(issues: &[Issue]) -> impl Iterator<Item = (usize, &Issue, Pair)> {
    issues.iter().enumerate().map(|(index, issue)| (index, issue, Pair::of(index)))
}

/// What both need before they part: the notes, the counters, and somebody to unassign.
pub(super) fn prepare(stage: &Stage, issues: &[Issue]) -> Result<()> {
    let context = Context::from_source("jira").by("Mona").occurred(evening(issues));
    for (_, issue, pair) in pairs(issues) {
        if let Some(act) = preparation(pair)? {
            stage.office.ledger.write(Write::new(COLLECTION, issue.key.as_str(), act), &context)?;
        }
    }
    stage.exchange().map(|_| ())
}

fn preparation(pair: Pair) -> Result<Option<Act>> {
    Ok(match pair {
        Pair::Text => {
            let write = Edit::SpliceText { place: note()?, index: 0, delete: 0, insert: NOTE.to_owned() };
            Some(Act::Edit(vec![Edit::MakeText(Path::parse("/note")?), write]))
        }
        Pair::Members => Some(Act::Edit(vec![Edit::MakeSet(Path::parse("/reviewers")?)])),
        Pair::Counts => Some(put("/customers", json!(0))?),
        Pair::Assignee => Some(put("/assignee", json!("Kim"))?),
        Pair::Statuses | Pair::Fields | Pair::Deletion | Pair::Same => None,
    })
}

/// Makes all edits of one side; nothing is pulled meanwhile. Who is first takes turns, so that the latest is now one and
/// now the other.
pub(super) fn edit(stage: &Stage, issues: &[Issue]) -> Result<u64> {
    let mut edits = 0;
    for (index, issue, pair) in pairs(issues) {
        let noon = evening(issues) + (index as i64 + 1) * 10 * MINUTE;
        let (office, laptop) = if (index / Pair::ALL.len()).is_multiple_of(2) { (0, 5) } else { (5, 0) };
        let jira = Context::from_source("jira").by("Mona").occurred(noon + office * MINUTE);
        let app = Context::from_source("app").by("Ravi").occurred(noon + laptop * MINUTE);
        edits += write(&stage.office, issue, pair.at_office()?, &jira)?;
        edits += write(&stage.laptop, issue, pair.on_laptop()?, &app)?;
    }
    Ok(edits)
}

fn write(replica: &Replica, issue: &Issue, act: Act, context: &Context) -> Result<u64> {
    let receipt = replica.ledger.write(Write::new(COLLECTION, issue.key.as_str(), act), context)?;
    Ok(receipt.events.len() as u64)
}

/// An hour after the last real edit, when the story goes on.
fn evening(issues: &[Issue]) -> i64 {
    let last = |issue: &Issue| issue.steps.last().map_or(issue.created, |step| step.at);
    issues.iter().map(last).max().unwrap_or(0) + 60 * MINUTE
}

/// How many pairs there are of each kind, and of those that do not collide how many merged as they should, on both.
pub(super) fn count(stage: &Stage, issues: &[Issue]) -> Result<Vec<(Pair, u64, u64)>> {
    let mut counts: Vec<_> = Pair::ALL.iter().map(|pair| (*pair, 0, 0)).collect();
    for (_, issue, pair) in pairs(issues) {
        let is_merged = !pair.collides() && is_merged(stage, issue, pair)?;
        if let Some((_, all, merged)) = counts.iter_mut().find(|(kind, ..)| *kind == pair) {
            *all += 1;
            *merged += u64::from(is_merged);
        }
    }
    counts.retain(|(_, all, _)| *all > 0);
    Ok(counts)
}

fn is_merged(stage: &Stage, issue: &Issue, pair: Pair) -> Result<bool> {
    let wanted = pair.merged();
    let shows = |replica: &Replica| check::shows(&replica.ledger, &issue.key, &wanted);
    Ok(shows(&stage.office)? && shows(&stage.laptop)?)
}
