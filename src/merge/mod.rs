//! Merging plain JSON: for those who want the merge and no store.
//!
//! [`compare`] says where two versions of an object differ from what they were both made on, and [`merge`] makes one of
//! them, with the conflicts and why each is decided as it is. Both are pure functions: no file, no clock, no chance.
//!
//! ```
//! use serde_json::json;
//! use syncledger::merge::merge;
//! use syncledger::projection::Policy;
//!
//! let base = json!({ "title": "Crash", "status": "open" });
//! let ours = json!({ "title": "Crash at start", "status": "done" });
//! let theirs = json!({ "title": "Crash", "status": "blocked", "priority": 1 });
//! let merged = merge(&base, &ours, &theirs, &Policy::default())?;
//! assert_eq!(merged.value.unwrap(), json!({ "title": "Crash at start", "status": "blocked", "priority": 1 }));
//! assert_eq!(merged.conflicts[0].path, "/status");
//! # Ok::<(), syncledger::Error>(())
//! ```
//!
//! Invariant: a merge shows what a ledger would show of the same three states, put by the same sources at the same
//! times: it drafts their events and projects them, by the same code.

mod compare;
mod conflict;
mod draft;
mod text;

use serde_json::Value as Json;

pub use compare::{Change, Difference, compare};
pub use conflict::{Candidate, Conflict, Side};
pub use text::{Style, write_like};

use crate::Result;
use crate::projection::{Policy, Resolvers};
use draft::Record;

/// One of the two versions that a merge is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The JSON; `None` where this side deleted it.
    pub value: Option<Json>,
    /// The system that it comes from, which policies rank: `local`, `jira`. At most 256 bytes.
    pub source: String,
    /// The user or service there, as conflicts tell.
    pub principal: Option<String>,
    /// When it was written, in milliseconds since 1970; later versions win under `merge` and `last_write_wins`. Of equal
    /// times the second side's counts as the later.
    pub at: i64,
}

impl Version {
    /// A version of this source and time, in milliseconds since 1970.
    #[must_use]
    pub fn new(value: Json, source: impl Into<String>, at: i64) -> Self {
        Self { value: Some(value), source: source.into(), principal: None, at }
    }

    /// The deletion of what there was.
    #[must_use]
    pub fn deleted(source: impl Into<String>, at: i64) -> Self {
        Self { value: None, source: source.into(), principal: None, at }
    }

    /// The same, by this user or service.
    #[must_use]
    pub fn by(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }
}

/// What a merge comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The merged JSON; the last one where [`Merged::deleted`]. `None` where no side ever had one.
    pub value: Option<Json>,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Where the sides disagree, by path: open ones, and those that the policy decided.
    pub conflicts: Vec<Conflict>,
}

impl Merged {
    /// Whether any conflict waits for somebody.
    #[must_use]
    pub fn has_open(&self) -> bool {
        self.conflicts.iter().any(Conflict::is_open)
    }
}

/// Merges two versions of an object that were both made on `base` (`None` where there was nothing before). The sources
/// are called `local` and `remote`, and the second version counts as the later.
///
/// Fields merge by name, at any depth; arrays are replaced as a whole. Where one of the three is no object, all of it is
/// one value.
///
/// # Errors
/// `validation` and `too_large` where a value is no record: deeper than 16 objects or 64 levels, names or paths beyond
/// the limits of events, numbers that no `i64`, `u64` or `f64` holds.
pub fn merge<'a>(base: impl Into<Option<&'a Json>>, a: &Json, b: &Json, policy: &Policy) -> Result<Merged> {
    let (a, b) = (Version::new(a.clone(), "local", 1), Version::new(b.clone(), "remote", 2));
    merge_versions(base.into(), &a, &b, policy, &Resolvers::default())
}

/// [`merge`] of versions that say where and when they come from, with custom strategies.
///
/// # Errors
/// As [`merge`]; also where the name of a source or principal is empty or too long.
pub fn merge_versions(
    base: Option<&Json>,
    a: &Version,
    b: &Version,
    policy: &Policy,
    resolvers: &Resolvers,
) -> Result<Merged> {
    let sides = [base, a.value.as_ref(), b.value.as_ref()];
    if sides.into_iter().flatten().all(Json::is_object) {
        return Record::of(base, a, b)?.project(policy, resolvers);
    }
    let boxed = |version: &Version| Version { value: version.value.clone().map(draft::boxed), ..version.clone() };
    let base = base.cloned().map(draft::boxed);
    let merged =
        Record::of(base.as_ref(), &boxed(a), &boxed(b))?.project(&draft::boxed_policy(policy)?, resolvers)?;
    Ok(draft::unboxed(merged))
}

#[cfg(test)]
mod tests;
