//! What differs between two JSON values, what a patch asks for, and which fields a record consists of.
//!
//! Invariant: objects are taken apart into their members; everything else, arrays too, is one value.
//!
//! Invariant: results are sorted by path, and equality is equality of canonical JSON; so neither depends on the order
//! of keys in the input.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::json::canonical;
use super::path::{Path, PathError};

/// A part of a record that is not taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Leaf<'a> {
    /// Null, a boolean, a number or a string.
    Scalar(&'a Value),
    /// An array, whole.
    Array(&'a Value),
    /// An object without members.
    EmptyObject,
}

impl<'a> Leaf<'a> {
    /// The leaf that a value is; none for an object with members.
    #[must_use]
    pub fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Object(members) if members.is_empty() => Some(Self::EmptyObject),
            Value::Object(_) => None,
            Value::Array(_) => Some(Self::Array(value)),
            scalar => Some(Self::Scalar(scalar)),
        }
    }

    /// The leaf as a value.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Scalar(value) | Self::Array(value) => value.clone(),
            Self::EmptyObject => Value::Object(Map::new()),
        }
    }
}

/// Takes a record apart into its leaves, sorted by path.
///
/// # Errors
/// When a leaf's path exceeds a limit.
pub fn leaves(value: &Value) -> Result<Vec<(Path, Leaf<'_>)>, PathError> {
    let mut found = Vec::new();
    collect_leaves(Path::root(), value, &mut found)?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn collect_leaves<'a>(path: Path, value: &'a Value, found: &mut Vec<(Path, Leaf<'a>)>) -> Result<(), PathError> {
    if let Some(leaf) = Leaf::of(value) {
        found.push((path, leaf));
        return Ok(());
    }
    let mut members = value.as_object().into_iter().flatten();
    members.try_for_each(|(key, member)| collect_leaves(path.join(key)?, member, found))
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which field.
    pub path: Path,
    /// What it was; none if it was absent.
    pub before: Option<Value>,
    /// What it is; none if it is absent.
    pub after: Option<Value>,
}

/// The fields in which two values differ, sorted by path.
///
/// Two objects are compared member by member, anything else whole. An object that appears or disappears is reported
/// per leaf. An object too deep for its members to have paths is one value, so that any two values can be compared.
#[must_use]
pub fn diff(before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    collect_changes(Path::root(), before, after, &mut changes);
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn collect_changes(path: Path, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if is_same(before, after) {
        return;
    }
    match members(&path, before, after) {
        Some(members) => {
            for (key, path) in members {
                collect_changes(path, member(before, key), member(after, key), changes);
            }
        }
        None => changes.push(Change { path, before: before.cloned(), after: after.cloned() }),
    }
}

fn is_same(before: Option<&Value>, after: Option<&Value>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before == after || canonical(before) == canonical(after),
        (before, after) => before.is_none() && after.is_none(),
    }
}

/// The members to compare one by one: none where the values are to be compared whole.
fn members<'a>(path: &Path, before: Option<&'a Value>, after: Option<&'a Value>) -> Option<Vec<(&'a str, Path)>> {
    let sides: Vec<_> = [before, after].into_iter().flatten().collect();
    if !sides.iter().all(|side| side.is_object()) {
        return None;
    }
    let keys: BTreeSet<_> = sides.iter().filter_map(|side| side.as_object()).flat_map(Map::keys).collect();
    if keys.is_empty() {
        return None;
    }
    keys.into_iter().map(|key| path.join(key).ok().map(|path| (key.as_str(), path))).collect()
}

fn member<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    value?.as_object()?.get(key)
}

/// What a patch asks of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchOp {
    /// The field is this value, no object with members.
    Put(Value),
    /// The field is absent.
    Remove,
    /// The field is an object: its members stay if it is one already, otherwise it becomes an empty one.
    MergeObject,
}

/// Takes a JSON Merge Patch (RFC 7396) apart, sorted by path, so that an object is made before its members go.
///
/// `null` removes, objects recurse, anything else puts. An object of the patch that puts nothing below itself (it is
/// empty, or has only nulls) still makes its field an object, which is said by [`PatchOp::MergeObject`]; the record
/// itself always is one.
///
/// # Errors
/// When a path exceeds a limit.
pub fn merge_patch(patch: &Value) -> Result<Vec<(Path, PatchOp)>, PathError> {
    let mut ops = Vec::new();
    match patch {
        Value::Object(members) => collect_members(&Path::root(), members, &mut ops)?,
        whole => ops.push((Path::root(), PatchOp::Put(whole.clone()))),
    }
    ops.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(ops)
}

type PatchOps = Vec<(Path, PatchOp)>;

fn collect_members(path: &Path, members: &Map<String, Value>, ops: &mut PatchOps) -> Result<(), PathError> {
    members.iter().try_for_each(|(key, member)| collect_ops(path.join(key)?, member, ops))
}

fn collect_ops(path: Path, patch: &Value, ops: &mut PatchOps) -> Result<(), PathError> {
    match patch {
        Value::Null => ops.push((path, PatchOp::Remove)),
        Value::Object(members) => {
            collect_members(&path, members, ops)?;
            if members.values().all(Value::is_null) {
                ops.push((path, PatchOp::MergeObject));
            }
        }
        value => ops.push((path, PatchOp::Put(value.clone()))),
    }
    Ok(())
}

/// What stands at a path, through objects and the indexes of arrays.
#[must_use]
pub fn get<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    value.pointer(path.as_str())
}

/// The fields to remove so that only those of `after` stay: the topmost of which nothing stays. What lies at, above or
/// below a field that is put goes with that.
#[must_use]
pub fn removed<V>(before: &BTreeMap<Path, V>, after: &BTreeMap<Path, V>) -> BTreeSet<Path> {
    let mut removed = BTreeSet::new();
    for path in before.keys().filter(|path| !path.is_root() && !stays(after, path) && !lies_below(after, path)) {
        let mut topmost = path.clone();
        while let Some(parent) = topmost.parent().filter(|parent| !parent.is_root() && !stays(after, parent)) {
            topmost = parent;
        }
        removed.insert(topmost);
    }
    removed
}

/// Whether the fields hold this path or one below it.
fn stays<V>(fields: &BTreeMap<Path, V>, path: &Path) -> bool {
    // Siblings such as `/a!` are sorted between `/a` and what lies below `/a`.
    let first_below = path.join("").ok().and_then(|below| fields.range(below..).next());
    fields.contains_key(path) || first_below.is_some_and(|(next, _)| path.is_prefix_of(next))
}

/// Whether the fields hold one above this path.
fn lies_below<V>(fields: &BTreeMap<Path, V>, path: &Path) -> bool {
    std::iter::successors(path.parent(), Path::parent).any(|above| fields.contains_key(&above))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::json::tests::values;
    use super::super::limits::PATH_DEPTH;
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    /// A diff as `path: before -> after`, `-` for absent.
    fn shown(before: Option<Value>, after: Option<Value>) -> Vec<String> {
        let side = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), canonical);
        let line = |change: &Change| format!("{}: {} -> {}", change.path, side(&change.before), side(&change.after));
        diff(before.as_ref(), after.as_ref()).iter().map(line).collect()
    }

    fn nested(depth: usize, leaf: &Value) -> Value {
        (0..depth).fold(leaf.clone(), |value, _| json!({ "a": value }))
    }

    fn is_object(value: &Value) -> bool {
        value.is_object()
    }

    /// RFC 7396, section 2, word for word: the oracle.
    fn rfc_merge(target: Value, patch: &Value) -> Value {
        let Value::Object(members) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => Map::new(),
        };
        for (key, value) in members {
            if value.is_null() {
                target.remove(key);
            } else {
                let old = target.remove(key).unwrap_or(Value::Null);
                target.insert(key.clone(), rfc_merge(old, value));
            }
        }
        Value::Object(target)
    }

    /// Makes everything on the way to the path an object, and gives its last one and the last name.
    fn holder<'a>(target: &'a mut Value, path: &Path) -> (&'a mut Map<String, Value>, String) {
        let mut names: Vec<_> = path.segments().map(String::from).collect();
        let last = names.pop().unwrap();
        let place = names.into_iter().fold(target, |value, name| {
            if !value.is_object() {
                *value = json!({});
            }
            value.as_object_mut().unwrap().entry(name).or_insert(Value::Null)
        });
        if !place.is_object() {
            *place = json!({});
        }
        (place.as_object_mut().unwrap(), last)
    }

    fn apply(target: &mut Value, path: &Path, op: &PatchOp) {
        if path.is_root() {
            let PatchOp::Put(value) = op else { panic!("nothing else is asked of the root") };
            *target = value.clone();
            return;
        }
        let is_there = path.parent().is_some_and(|parent| get(target, &parent).is_some_and(Value::is_object));
        if matches!(op, PatchOp::Remove) && !is_there {
            return;
        }
        let (object, name) = holder(target, path);
        match op {
            PatchOp::Put(value) => drop(object.insert(name, value.clone())),
            PatchOp::Remove => drop(object.remove(&name)),
            PatchOp::MergeObject => {
                let place = object.entry(name).or_insert(Value::Null);
                if !place.is_object() {
                    *place = json!({});
                }
            }
        }
    }

    #[test]
    fn a_record_is_taken_apart_into_its_leaves() {
        let record = json!({"b": [1, {"x": 1}], "a": {"d": {}, "c": null}, "a!": 1.5, "": "s"});
        let found: Vec<_> =
            leaves(&record).unwrap().into_iter().map(|(path, leaf)| (path.to_string(), leaf)).collect();
        let expected = [
            ("/", Leaf::Scalar(&record[""])),
            ("/a!", Leaf::Scalar(&record["a!"])),
            ("/a/c", Leaf::Scalar(&record["a"]["c"])),
            ("/a/d", Leaf::EmptyObject),
            ("/b", Leaf::Array(&record["b"])),
        ];
        assert_eq!(found, expected.map(|(path, leaf)| (path.to_owned(), leaf)));
        assert_eq!(leaves(&json!({})).unwrap(), [(Path::root(), Leaf::EmptyObject)]);
    }

    #[test]
    fn a_record_deeper_than_a_path_is_refused() {
        assert!(leaves(&nested(PATH_DEPTH, &json!(1))).is_ok());
        assert!(matches!(leaves(&nested(PATH_DEPTH + 1, &json!(1))), Err(PathError::TooDeep { .. })));
        assert!(merge_patch(&nested(PATH_DEPTH + 1, &json!(1))).is_err());
    }

    #[test]
    fn objects_are_compared_by_member_and_the_rest_whole() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1, 2], "d": {"k": 1}, "same": 1.0});
        let after = json!({"a": 2, "b": {"x": 1, "z": {"q": 3, "e": {}}}, "c": [1], "d": "text", "same": 1});
        let expected = [
            "/a: 1 -> 2",
            "/b/y: 2 -> -",
            "/b/z/e: - -> {}",
            "/b/z/q: - -> 3",
            "/c: [1,2] -> [1]",
            "/d: {\"k\":1} -> \"text\"",
        ];
        assert_eq!(shown(Some(before), Some(after)), expected);
    }

    #[test]
    fn a_record_appears_and_disappears_per_leaf() {
        let record = json!({"b": {}, "a": {"x": null}});
        assert_eq!(shown(None, Some(record.clone())), ["/a/x: - -> null", "/b: - -> {}"]);
        assert_eq!(shown(Some(record), None), ["/a/x: null -> -", "/b: {} -> -"]);
        assert_eq!(shown(None, Some(json!({}))), [": - -> {}"]);
        assert_eq!(shown(Some(json!({"a": {"b": 1}})), Some(json!({"a": {}}))), ["/a/b: 1 -> -"]);
        assert!(shown(None, None).is_empty());
    }

    #[test]
    fn what_is_too_deep_for_a_path_is_compared_whole() {
        let changes = diff(Some(&nested(20, &json!(1))), Some(&nested(20, &json!(2))));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].path.depth(), PATH_DEPTH);
    }

    #[test]
    fn a_patch_is_taken_apart() {
        let patch =
            json!({"a": null, "b": {"c": null}, "d": {}, "e": {"f": 1, "g": null}, "h": [null], "i": {"j": {}}});
        let ops: Vec<_> = merge_patch(&patch).unwrap().into_iter().map(|(path, op)| (path.to_string(), op)).collect();
        let expected = [
            ("/a", PatchOp::Remove),
            ("/b", PatchOp::MergeObject),
            ("/b/c", PatchOp::Remove),
            ("/d", PatchOp::MergeObject),
            ("/e/f", PatchOp::Put(json!(1))),
            ("/e/g", PatchOp::Remove),
            ("/h", PatchOp::Put(json!([null]))),
            ("/i/j", PatchOp::MergeObject),
        ];
        assert_eq!(ops, expected.map(|(path, op)| (path.to_owned(), op)));
        assert!(merge_patch(&json!({})).unwrap().is_empty());
        assert_eq!(merge_patch(&json!(1)).unwrap(), [(Path::root(), PatchOp::Put(json!(1)))]);
    }

    #[test]
    fn values_are_found_in_objects_and_arrays() {
        let value = json!({"a/b": {"~": [10, {"": 11}]}});
        assert_eq!(get(&value, &path("/a~1b/~0/1/")), Some(&json!(11)));
        assert_eq!(get(&value, &Path::root()), Some(&value));
        for absent in ["/x", "/a~1b/~0/2", "/a~1b/~0/01", "/a~1b/~0/-", "/a~1b/~0/0/x"] {
            assert_eq!(get(&value, &path(absent)), None, "{absent}");
        }
    }

    proptest! {
        #[test]
        fn every_leaf_is_found_at_its_path_and_nothing_else_is(value in values()) {
            let found = leaves(&value).unwrap_or_default();
            for (path, leaf) in &found {
                prop_assert_eq!(get(&value, path), Some(&leaf.to_value()));
            }
            prop_assert!(found.is_sorted_by(|(a, _), (b, _)| a < b));
            prop_assert!(found.iter().all(|(a, _)| found.iter().all(|(b, _)| !a.is_prefix_of(b))));
        }

        #[test]
        fn a_diff_is_empty_exactly_where_values_are_equal(a in values(), b in values()) {
            prop_assert!(diff(Some(&a), Some(&a)).is_empty());
            prop_assert_eq!(diff(Some(&a), Some(&b)).is_empty(), canonical(&a) == canonical(&b));
        }

        #[test]
        fn a_diff_says_what_stands_on_each_side(
            a in values().prop_filter("an object", is_object),
            b in values().prop_filter("an object", is_object),
        ) {
            let changes = diff(Some(&a), Some(&b));
            for change in &changes {
                prop_assert_eq!(get(&a, &change.path), change.before.as_ref());
                prop_assert_eq!(get(&b, &change.path), change.after.as_ref());
            }
            let back = diff(Some(&b), Some(&a));
            let swapped = changes.into_iter().map(|c| Change { path: c.path, before: c.after, after: c.before });
            prop_assert_eq!(back, swapped.collect::<Vec<_>>());
        }

        #[test]
        fn patch_ops_do_what_the_rfc_says(target in values(), patch in values()) {
            let mut patched = target.clone();
            // A record is an object before it is patched.
            if patch.is_object() && !patched.is_object() {
                patched = json!({});
            }
            for (path, op) in merge_patch(&patch).unwrap() {
                apply(&mut patched, &path, &op);
            }
            prop_assert_eq!(patched, rfc_merge(target, &patch));
        }
    }
}
