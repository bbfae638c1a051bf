//! Comparing two versions with what they were made on.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::event::{Path, json::canonical};

/// Who changed a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The first version only.
    A,
    /// The second version only.
    B,
    /// Both, alike.
    Alike,
    /// Both, and they disagree.
    Apart,
}

/// A field that one of the versions has otherwise than the base.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which field.
    pub path: Path,
    /// What it was; `None` if it was absent.
    pub base: Option<Json>,
    /// What it is in the first version.
    pub a: Option<Json>,
    /// What it is in the second.
    pub b: Option<Json>,
    /// Who changed it.
    pub change: Change,
}

/// The fields in which two versions differ from what they were made on, by path. `None` is absence: of the base where
/// there was nothing before, of a version that deletes it.
///
/// Objects are compared member by member, anything else whole; values are equal where their canonical JSON is. An
/// object too deep for its members to have paths is one value, so that any values can be compared.
#[must_use]
pub fn compare<'a>(
    base: impl Into<Option<&'a Json>>,
    a: impl Into<Option<&'a Json>>,
    b: impl Into<Option<&'a Json>>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    collect(Path::root(), [base.into(), a.into(), b.into()], &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(path: Path, sides: [Option<&Json>; 3], found: &mut Vec<Difference>) {
    let Some(change) = change(sides) else { return };
    match members(&path, sides) {
        Some(members) => members.into_iter().for_each(|(name, path)| {
            collect(path, sides.map(|side| side?.as_object()?.get(name)), found);
        }),
        None => {
            let [base, a, b] = sides.map(|side| side.cloned());
            found.push(Difference { path, base, a, b, change });
        }
    }
}

/// Who changed what stands here; `None` where nobody did.
fn change([base, a, b]: [Option<&Json>; 3]) -> Option<Change> {
    match (same(base, a), same(base, b), same(a, b)) {
        (true, true, _) => None,
        (false, true, _) => Some(Change::A),
        (true, false, _) => Some(Change::B),
        (false, false, true) => Some(Change::Alike),
        (false, false, false) => Some(Change::Apart),
    }
}

fn same(one: Option<&Json>, other: Option<&Json>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || canonical(one) == canonical(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// The members to compare one by one; `None` where the values are to be compared whole: one of them is no object, or
/// there is no member.
fn members<'a>(path: &Path, sides: [Option<&'a Json>; 3]) -> Option<Vec<(&'a str, Path)>> {
    let there = || sides.into_iter().flatten();
    if !there().all(Json::is_object) {
        return None;
    }
    let names: BTreeSet<&str> =
        there().filter_map(Json::as_object).flat_map(|object| object.keys().map(String::as_str)).collect();
    if names.is_empty() {
        return None;
    }
    names.into_iter().map(|name| path.join(name).ok().map(|path| (name, path))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `path: change base|a|b`, `-` for absent.
    fn lines(base: impl Into<Option<Json>>, a: impl Into<Option<Json>>, b: impl Into<Option<Json>>) -> Vec<String> {
        let (base, a, b) = (base.into(), a.into(), b.into());
        let side = |value: &Option<Json>| value.as_ref().map_or("-".to_owned(), canonical);
        let line =
            |d: &Difference| format!("{}: {:?} {}|{}|{}", d.path, d.change, side(&d.base), side(&d.a), side(&d.b));
        compare(base.as_ref(), a.as_ref(), b.as_ref()).iter().map(line).collect()
    }

    #[test]
    fn who_changed_what_is_told_field_by_field() {
        let base = json!({ "a": 1, "b": 1, "c": 1, "d": 1, "same": { "x": [1] } });
        let a = json!({ "a": 2, "c": 3, "d": 1.0, "same": { "x": [1] }, "e": { "x": 1 } });
        let b = json!({ "a": 1, "b": 4, "c": 3, "d": 1, "same": { "x": [1] }, "e": { "y": 2 } });
        let expected = ["/a: A 1|2|1", "/b: Apart 1|-|4", "/c: Alike 1|3|3", "/e/x: A -|1|-", "/e/y: B -|-|2"];
        assert_eq!(lines(base, a, b), expected);
    }

    #[test]
    fn what_is_no_object_is_compared_whole() {
        assert_eq!(lines(json!([1]), json!([1, 2]), json!([1])), [": A [1]|[1,2]|[1]"]);
        assert_eq!(
            lines(json!({ "a": { "x": 1 } }), json!({ "a": 1 }), json!({ "a": { "x": 2 } })),
            [r#"/a: Apart {"x":1}|1|{"x":2}"#]
        );
        assert_eq!(lines(None, json!({}), json!({ "a": 1 })), ["/a: B -|-|1"]);
        assert_eq!(lines(None, json!({}), None), [": A -|{}|-"]);
        assert_eq!(lines(json!({ "a": 1 }), None, json!({ "a": 1 })), ["/a: A 1|-|1"]);
        assert_eq!(lines(None, None, None), [""; 0]);
        assert_eq!(lines(json!(null), json!(null), json!(0)), [": B null|null|0"]);
    }

    #[test]
    fn what_is_too_deep_for_a_path_is_one_value() {
        let deep = |leaf: i64| (0..40).fold(json!(leaf), |value, _| json!({ "a": value }));
        let found = compare(&deep(0), &deep(1), &deep(2));
        assert_eq!((found.len(), found[0].path.depth(), found[0].change), (1, 16, Change::Apart));
    }
}
