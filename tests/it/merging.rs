//! Merging plain JSON shows what two ledgers show.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use syncledger::event::json::canonical;
use syncledger::ledger::{Act, Context, Ledger, Look, Options, Store, Which, Write};
use syncledger::merge::{self, Change, Version, compare, merge_versions};
use syncledger::projection::{Conflict, Content, DELETED, Policy};

use crate::histories::{Rng, policies, resolvers};

fn memory() -> Ledger {
    Store::in_memory(Options { resolvers: resolvers(), ..Options::default() }).unwrap().create_ledger("main").unwrap()
}

fn scalar(rng: &mut Rng) -> Json {
    match rng.below(8) {
        0 => json!(null),
        1 => json!(rng.one_in(2)),
        2 => json!(["x", "y", ""][rng.below(3)]),
        3 => json!(1.5),
        4 if rng.one_in(8) => json!(["x", "y"][rng.below(2)].repeat(20_000)),
        _ => json!(rng.below(4)),
    }
}

fn tree(rng: &mut Rng, depth: usize) -> Json {
    match rng.below(6) {
        0 | 1 if depth > 0 => object(rng, depth),
        2 => json!([scalar(rng), scalar(rng)]),
        _ => scalar(rng),
    }
}

fn object(rng: &mut Rng, depth: usize) -> Json {
    let names = ["a", "b", "n", "o", "a!", "", "$deleted", "x/~y"];
    let fields = (0..1 + rng.below(8)).map(|_| ((*rng.pick(&names)).to_owned(), tree(rng, depth - 1)));
    fields.collect::<Map<_, _>>().into()
}

/// A version that somebody made of a value.
fn edited(rng: &mut Rng, value: &Json, depth: usize) -> Json {
    let mut value = value.clone();
    let Some(fields) = value.as_object_mut() else { return tree(rng, 1) };
    for (name, field) in object(rng, 2).as_object().unwrap() {
        match rng.below(4) {
            0 => drop(fields.remove(name)),
            1 => drop(fields.insert(name.clone(), field.clone())),
            _ if depth > 0 && fields.get(name).is_some_and(Json::is_object) => {
                let before = fields.get(name).cloned().unwrap_or_default();
                fields.insert(name.clone(), edited(rng, &before, depth - 1));
            }
            _ => drop(fields.insert(name.clone(), field.clone())),
        }
    }
    if rng.one_in(12) { json!({}) } else { value }
}

/// A base, and what two made of it.
struct Case {
    base: Option<Json>,
    sides: [Version; 2],
}

impl Case {
    fn new(rng: &mut Rng) -> Self {
        let base = (!rng.one_in(5)).then(|| object(rng, 3));
        let first = 10 + rng.below(2) as i64;
        let times = if rng.one_in(2) { [first, 20] } else { [20, first] };
        let sides = times.map(|at| {
            let value = edited(rng, base.as_ref().unwrap_or(&json!({})), 2);
            let source = *rng.pick(&["app", "jira", "github"]);
            let version = Version::new(value, source, at).by(*rng.pick(&["ann", "ravi"]));
            match rng.below(10) {
                0 if base.is_some() => Version { value: None, ..version },
                1 => Version { value: base.clone().or(version.value), ..version },
                _ => version,
            }
        });
        Self { base, sides }
    }

    /// Two ledgers that made the versions apart and then exchanged them; the first of them.
    fn ledger(&self) -> Ledger {
        let (here, there) = (memory(), memory());
        here.put("other", "k", json!({}), &Context::default()).unwrap();
        if let Some(base) = &self.base {
            here.put("c", "k", base.clone(), &Context::from_source("base").occurred(1)).unwrap();
        }
        there.pull(&here).unwrap();
        for (ledger, version) in [&here, &there].into_iter().zip(&self.sides) {
            let who = Context::from_source(version.source.clone()).by(version.principal.clone().unwrap());
            let act = version.value.clone().map_or(Act::Delete, Act::Put);
            ledger.write(Write::new("c", "k", act), &who.occurred(version.at)).unwrap();
        }
        here.pull(&there).unwrap();
        here
    }
}

/// What is said of a conflict: path, kind, severity, status, base, candidates, shown, taken, why.
type Said = (
    String,
    String,
    Option<Json>,
    Vec<(Option<Json>, String, Option<String>, i64)>,
    Option<Json>,
    Option<usize>,
    String,
);

fn said_by_ledger(ledger: &Ledger, conflict: &Conflict) -> Said {
    let blobs = &ledger.get("c", "k").unwrap().unwrap();
    let fill = |content: &Content| {
        // A large value is compared by its length; the record's value shows all of it.
        content.fill(|blob| Ok::<_, ()>(json!(["large", blob.bytes]))).unwrap()
    };
    assert_eq!(blobs.key, "k");
    let candidates = conflict.candidates.iter();
    let candidates = candidates
        .map(|c| (c.value.as_ref().map(fill), c.source.clone(), c.principal.clone(), c.occurred_at.unwrap()));
    (
        conflict.path.clone(),
        format!("{:?} {:?} {:?}", conflict.kind, conflict.severity, conflict.status),
        conflict.base.as_ref().map(fill),
        candidates.collect(),
        conflict.shown.as_ref().map(fill),
        conflict.taken,
        conflict.because.clone(),
    )
}

fn said_by_merge(conflict: &merge::Conflict) -> Said {
    let candidates = conflict.candidates.iter();
    let candidates = candidates.map(|c| (c.value.as_ref().map(short), c.source.clone(), c.principal.clone(), c.at));
    (
        conflict.path.clone(),
        format!("{:?} {:?} {:?}", conflict.kind, conflict.severity, conflict.status),
        conflict.base.as_ref().map(short),
        candidates.collect(),
        conflict.shown.as_ref().map(short),
        conflict.taken,
        conflict.because.clone(),
    )
}

/// Large values by their length.
fn short(value: &Json) -> Json {
    match value {
        Json::String(text) if text.len() > 16 << 10 => json!(["large", text.len()]),
        Json::Array(_) if canonical(value).len() > 16 << 10 => json!(["large", canonical(value).len()]),
        Json::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), short(field))).collect::<Map<_, _>>().into()
        }
        value => value.clone(),
    }
}

#[test]
fn a_merge_equals_what_two_ledgers_show_under_every_strategy() {
    let (mut kinds, mut deleted): (BTreeMap<String, usize>, usize) = (BTreeMap::new(), 0);
    for seed in 0..1_000 {
        let case = Case::new(&mut Rng::new(seed));
        let ledger = case.ledger();
        for policy in policies() {
            let [a, b] = &case.sides;
            let merged = merge_versions(case.base.as_ref(), a, b, &policy, &resolvers()).unwrap();
            let look = Look { as_of: None, policy: Some(policy.clone()) };
            let record = ledger.look("c", "k", &look).unwrap().unwrap();
            let at = || format!("seed {seed}, {policy:?}: {:?} {:?}", case.base, case.sides);
            assert_eq!((merged.value, merged.deleted), (Some(record.value), record.deleted), "{}", at());
            let conflicts = ledger.conflicts(Some("c"), Which::All, Some(&policy)).unwrap();
            let expected: Vec<Said> =
                conflicts.iter().map(|found| said_by_ledger(&ledger, &found.conflict)).collect();
            let found: Vec<Said> = merged.conflicts.iter().map(said_by_merge).collect();
            assert_eq!(found, expected, "{}", at());
            if policy == Policy::default() {
                deleted += usize::from(merged.conflicts.iter().any(|conflict| conflict.path == DELETED));
                merged.conflicts.iter().for_each(|c| *kinds.entry(format!("{:?}", c.kind)).or_default() += 1);
            }
        }
    }
    for kind in ["UpdateUpdate", "UpdateDelete", "DeleteUpdate", "CreateCreate", "Type"] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 30), "{kind} of {kinds:?}");
    }
    assert!(deleted > 60, "{deleted}");
}

#[test]
fn what_nobody_changed_apart_is_what_comparing_says() {
    let mut apart = 0;
    for seed in 0..2_000 {
        let case = Case::new(&mut Rng::new(seed));
        let [Some(a), Some(b)] = case.sides.clone().map(|side| side.value) else { continue };
        let merged = merge::merge(case.base.as_ref(), &a, &b, &Policy::default()).unwrap();
        let found = compare(case.base.as_ref(), &a, &b);
        let alone = found.iter().filter(|difference| difference.change != Change::Apart);
        // Below, at or above a conflict the merge shows what the policy takes.
        let disputed = |path: &str| {
            let is_below = |at: &str, above: &str| at == above || at.starts_with(&format!("{above}/"));
            merged.conflicts.iter().any(|c| is_below(path, &c.path) || is_below(&c.path, path))
                || found.iter().any(|d| {
                    d.change == Change::Apart && (is_below(path, d.path.as_str()) || is_below(d.path.as_str(), path))
                })
        };
        for difference in alone.filter(|difference| !disputed(difference.path.as_str())) {
            let side = if difference.change == Change::B { &difference.b } else { &difference.a };
            let shown = merged.value.as_ref().unwrap().pointer(difference.path.as_str()).cloned();
            // An object that lost its members to one side may have others from the other.
            if side.as_ref().is_none_or(|value| !value.is_object()) && !shown.as_ref().is_some_and(Json::is_object) {
                assert_eq!(&shown, side, "seed {seed}: {difference:?}");
            }
        }
        apart += usize::from(!merged.conflicts.is_empty());
        if merged.conflicts.is_empty() {
            let again = merge::merge(case.base.as_ref(), &b, &a, &Policy::default()).unwrap();
            assert_eq!(again.value, merged.value, "seed {seed}");
        }
    }
    assert!(apart > 500, "{apart}");
}
