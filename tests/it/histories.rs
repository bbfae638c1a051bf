//! Properties over the random histories of the testing kit.
//!
//! A case says what it held ([`held_by`]); a property fails unless enough of its cases held each of the things that make it
//! worth asking.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use syncledger::document::{Cell, Clock, ContainerKind, Document, NodeIx, View};
use syncledger::event::{EventId, FlatKey, Path, Value};
use syncledger::projection::{ConflictKind, Content, DELETED, Policy, Projection, Resolvers, Verdict, project};
pub use syncledger::testing::{History, LEDGER, Replica, Rng, any_value, record};

/// What a case held, for [`Coverage`].
pub fn held_by(replica: &mut Replica) -> BTreeSet<&'static str> {
    let mut held = BTreeSet::new();
    let mut note = |what, is: bool| held.extend(is.then_some(what));
    note("waiting", replica.waited > 0);
    note("duplicates", replica.duplicates > 0);
    note("late fork", replica.late_forks > 0);
    note("forked writer", replica.document.graph().forked_writers().next().is_some());
    note("no forked writer", replica.document.graph().forked_writers().next().is_none());
    note("merge event", replica.events.values().any(|event| event.parents.len() > 1));
    note("several lanes", replica.events.values().any(|event| event.lane > 0));
    note("resolution", replica.events.values().any(|event| event.resolves.is_some()));
    let view = replica.document.view().unwrap();
    for (_, lives) in view.registers().iter() {
        for live in lives {
            match live.cell {
                Cell::Container(ContainerKind::List) => note("list", !view.list(live).is_empty()),
                Cell::Container(ContainerKind::Text) => note("text", !view.text(live).is_empty()),
                Cell::Member => note("set", true),
                _ => {}
            }
        }
    }
    note("counter", view.registers().counter("$#n") != 0);
    let projection = project(&view, &Policy::default(), &resolvers(), &record());
    for conflict in &projection.conflicts {
        note(kind_name(conflict.kind), true);
        note("disputed delete", conflict.path == DELETED);
    }
    let deleted = view.registers().get(FlatKey::deleted().as_str());
    note("deleted", deleted.iter().any(|live| live.cell == Cell::Value(Value::Bool(true))));
    held
}

fn kind_name(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::UpdateUpdate => "update-update",
        ConflictKind::UpdateDelete => "update-delete",
        ConflictKind::DeleteUpdate => "delete-update",
        ConflictKind::CreateCreate => "create-create",
        ConflictKind::Type => "type",
        ConflictKind::Constraint => "constraint",
    }
}

/// What every property must have met in a tenth of its cases.
pub const WANTED: [&str; 19] = [
    "waiting",
    "duplicates",
    "late fork",
    "forked writer",
    "no forked writer",
    "deleted",
    "merge event",
    "several lanes",
    "resolution",
    "list",
    "text",
    "set",
    "counter",
    "update-update",
    "update-delete",
    "delete-update",
    "create-create",
    "type",
    "disputed delete",
];

/// How many cases held what.
#[derive(Debug, Default)]
pub struct Coverage {
    cases: usize,
    held: BTreeMap<&'static str, usize>,
}

impl Coverage {
    fn note(&mut self, held: BTreeSet<&'static str>) {
        self.cases += 1;
        held.into_iter().for_each(|what| *self.held.entry(what).or_default() += 1);
    }

    fn check(&self, name: &str) {
        println!("{name}: {} cases held {:?}", self.cases, self.held);
        for what in WANTED {
            let cases = self.held.get(what).copied().unwrap_or_default();
            assert!(cases * 10 >= self.cases, "{name}: only {cases} of {} cases held: {what}", self.cases);
        }
    }
}

/// Runs a property over `cases` histories. `SYNCLEDGER_SEED=n` runs only that one, `SYNCLEDGER_CASES=n` that many.
pub fn for_histories(name: &str, cases: u64, property: impl Fn(&History, &mut Rng) -> BTreeSet<&'static str>) {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let only = from_env("SYNCLEDGER_SEED");
    let seeds = only.map_or(1..=from_env("SYNCLEDGER_CASES").unwrap_or(cases), |seed| seed..=seed);
    let mut coverage = Coverage::default();
    for seed in seeds {
        let case = || property(&shared(seed), &mut Rng::new(seed ^ 0xca5e));
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(held) => coverage.note(held),
            Err(panic) => {
                eprintln!("{name} fails: run it again with SYNCLEDGER_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    if only.is_none() {
        coverage.check(name);
    }
}

/// The histories made so far: every property looks at the same ones.
static MADE: Mutex<BTreeMap<u64, Arc<History>>> = Mutex::new(BTreeMap::new());

fn shared(seed: u64) -> Arc<History> {
    let made = MADE.lock().unwrap_or_else(PoisonError::into_inner).get(&seed).cloned();
    made.unwrap_or_else(|| {
        let history = Arc::new(History::new(seed));
        MADE.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, Arc::clone(&history));
        history
    })
}

/// A custom strategy that uses all that it is given, and often has no answer.
pub fn resolvers() -> Resolvers {
    let mut resolvers = Resolvers::default();
    resolvers.register("mixed", |dispute| {
        let numbers: Option<Vec<i64>> = dispute.candidates.iter().map(|c| c.value.as_ref()?.as_i64()).collect();
        let with_b = dispute.candidates.iter().position(|choice| choice.record.get("b").is_some());
        match (numbers, with_b) {
            (Some(numbers), _) => Verdict::Value(numbers.iter().sum::<i64>().into()),
            (None, Some(index)) => Verdict::Take(index),
            _ if dispute.base.is_some() => Verdict::Take(9),
            _ => Verdict::Undecided,
        }
    });
    resolvers
}

/// Policies of every strategy, scope and rule for deletes.
pub fn policies() -> Vec<Policy> {
    let short = [
        "merge",
        "last_write_wins",
        "last_write_wins:record",
        "first_write_wins",
        "first_write_wins:record",
        "source_wins:jira,app",
        "target_wins:jira,app,github",
        "manual",
        "custom:mixed",
        "custom:missing",
    ];
    let mut policies: Vec<Policy> = short.iter().map(|s| Policy::from_json(&serde_json::json!(s)).unwrap()).collect();
    let mixed = serde_json::json!({
        "default": "last_write_wins:record",
        "fields": { "/a": "manual", "/a/x": "source_wins:github", "/n": "first_write_wins:record" },
        "deletes": "delete_wins"
    });
    policies.push(Policy::from_json(&mixed).unwrap());
    policies.push(Policy::from_json(&serde_json::json!({ "default": "manual", "deletes": "manual" })).unwrap());
    policies
}

/// The live operations of a view, with events by their ids, so that replicas can be compared.
pub fn registers(view: &View<'_>) -> Vec<String> {
    let graph = view.graph();
    let mut lines = Vec::new();
    for (key, lives) in view.registers().iter() {
        let mut cells: Vec<String> = lives
            .iter()
            .map(|live| {
                let inside = match live.cell {
                    Cell::Container(ContainerKind::List) => format!("{:?}", view.list(live)),
                    Cell::Container(ContainerKind::Text) => view.text(live),
                    _ => String::new(),
                };
                let id = graph.node(live.node).unwrap().id;
                format!("{key} {id} {:?} {inside} {:?}", live.cell, view.container(live))
            })
            .collect();
        cells.sort();
        lines.extend(cells);
        let counter = FlatKey::from_document(key).to_path().map(|path| FlatKey::counter(&path));
        lines.extend(counter.map(|counter| format!("{counter} {}", view.registers().counter(counter.as_str()))));
    }
    lines
}

/// A projection with events by their ids, so that replicas can be compared.
pub fn shown(document: &mut Document, policy: &Policy) -> (Projection, Vec<(Path, Content, Option<EventId>)>) {
    let view = document.view().unwrap();
    let mut projection = project(&view, policy, &resolvers(), &record());
    let by_id = |ix: NodeIx| view.graph().node(ix).unwrap().id;
    let blame = std::mem::take(&mut projection.blame);
    let blame = blame.into_iter().map(|blame| (blame.path, blame.content, blame.node.map(by_id))).collect();
    (projection, blame)
}

/// The clock of a set of events of a document.
pub fn clock(document: &Document, past: &BTreeSet<EventId>) -> Clock {
    let graph = document.graph();
    graph.closure(past.iter().map(|id| graph.find(id).unwrap()))
}

/// The hashes of all Automerge changes of a document.
pub fn changes(document: &mut Document) -> BTreeSet<[u8; 32]> {
    document.automerge().unwrap().get_changes(&[]).iter().map(|change| change.hash().0).collect()
}
