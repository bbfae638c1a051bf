//! Whatever a valid event asks of whatever state, nothing panics and the document can be saved and loaded.

use std::collections::BTreeMap;

use syncledger::document::Document;
use syncledger::event::{Body, Container, Event, EventId, Op, Path, Timestamp, Value, WriterId, json};

use crate::histories::{History, LEDGER, Replica, Rng, any_value, policies, registers, resolvers};

const NAMES: [&str; 12] = ["a", "x", "y", "$", "$deleted", "#", "", "\"u\"", "0", "~", "/", "🦀"];

fn wild_path(rng: &mut Rng) -> Path {
    if rng.one_in(3) {
        return Path::parse(rng.pick::<&str>(&["/a", "/a/x", "/a/y"])).unwrap();
    }
    let depth = if rng.one_in(8) { 16 } else { 1 + rng.below(3) };
    let path = Path::from_segments((0..depth).map(|_| *rng.pick(&NAMES))).unwrap();
    if rng.one_in(10) { path.parent().unwrap().join(&"n".repeat(900)).unwrap_or(path) } else { path }
}

fn wild_value(rng: &mut Rng) -> Value {
    match rng.below(10) {
        0 => Value::Int(*rng.pick(&[i64::MIN, i64::MAX, -1])),
        1 => Value::Float(*rng.pick(&[f64::MAX, f64::MIN_POSITIVE, -0.5, 1e300])),
        2 => Value::Text(rng.pick(&["\0", "", "\u{10ffff}"]).repeat(1 + rng.below(4_000))),
        3 => Value::Bytes(vec![0; rng.below(100)]),
        _ => any_value(rng),
    }
}

fn wild_json(rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => format!("{}{}", "[".repeat(47), "]".repeat(47)),
        1 => "{\"$bytes\":\"00\"}".into(),
        _ => "[1,{}]".into(),
    }
}

fn wild_member(rng: &mut Rng) -> Value {
    match rng.below(4) {
        0 => Value::Text("m".repeat(254)),
        1 => Value::Bytes(vec![1; 100]),
        2 => Value::Atomic(wild_json(rng)),
        _ => Value::Text((*rng.pick(&["u", "/", "~", ""])).into()),
    }
}

fn wild_container(rng: &mut Rng, index: u32, events: &[EventId]) -> Container {
    if index > 0 && (events.is_empty() || rng.one_in(2)) {
        return Container::Own(rng.below(index as usize) as u32);
    }
    let event = if events.is_empty() { EventId([1; 32]) } else { *rng.pick(events) };
    Container::Of(event, rng.below(4) as u32)
}

fn wild_op(rng: &mut Rng, index: u32, events: &[EventId]) -> Op {
    let at = |rng: &mut Rng| if rng.one_in(3) { rng.next() } else { rng.below(4) as u64 };
    match rng.below(20) {
        0..=3 => Op::Put { path: wild_path(rng), value: wild_value(rng) },
        4 => Op::PutAtomic { path: wild_path(rng), json: wild_json(rng) },
        5 | 6 => Op::Remove { path: wild_path(rng) },
        7 | 8 => Op::Increment { path: wild_path(rng), by: *rng.pick(&[1 << 32, -(1 << 32), 0, 1]) },
        9 | 10 => Op::SetAdd { path: wild_path(rng), member: wild_member(rng) },
        11 => Op::SetRemove { path: wild_path(rng), member: wild_member(rng) },
        12 => Op::MakeSet { path: wild_path(rng) },
        13 => Op::MakeList { path: wild_path(rng) },
        14 => Op::MakeText { path: wild_path(rng) },
        15 => Op::Insert {
            container: wild_container(rng, index, events),
            index: at(rng),
            value: if rng.one_in(4) { Value::Atomic(wild_json(rng)) } else { wild_value(rng) },
        },
        16 => Op::RemoveAt { container: wild_container(rng, index, events), index: at(rng) },
        17 => Op::SpliceText {
            container: wild_container(rng, index, events),
            index: at(rng),
            delete: at(rng),
            insert: (*rng.pick(&["", "é🦀\0", "text"])).into(),
        },
        18 => rng.pick(&[Op::Delete, Op::Restore]).clone(),
        _ => Op::Put { path: Path::root(), value: Value::EmptyObject },
    }
}

/// A valid event on any state, at the ends of time.
fn wild_event(rng: &mut Rng, replica: &Replica, template: &Event) -> Event {
    let ids: Vec<EventId> = replica.events.keys().copied().collect();
    let graph = replica.document.graph();
    let some = |rng: &mut Rng| graph.find(rng.pick(&ids)).unwrap();
    let base = match rng.below(4) {
        0 if !ids.is_empty() => graph.maximal(&[some(rng), some(rng)]),
        1 => Vec::new(),
        _ => graph.heads().collect(),
    };
    let writer = WriterId([1 + rng.below(2) as u8; 16]);
    let (lane, nth) = graph.free_lane(writer, &graph.closure(base.iter().copied()));
    let now = *rng.pick(&[i64::MIN, 0, i64::MAX]);
    let stamps = base.iter().map(|&ix| graph.node(ix).unwrap().at);
    let at = if rng.one_in(10) { Timestamp::MAX } else { Timestamp::stamp(now, stamps) };
    let count = if rng.one_in(30) { 300 } else { rng.below(12) };
    let ops = (0..count as u32).map(|index| wild_op(rng, index, &ids));
    let ops = ops.collect();
    let occurred_at = *rng.pick(&[None, Some(i64::MIN), Some(i64::MAX)]);
    let parents = graph.ids(base.iter().copied());
    Event {
        writer,
        lane,
        nth,
        parents,
        at,
        occurred_at,
        sequence: rng.next().max(1),
        body: Body::Ops(ops),
        ..template.clone()
    }
}

#[test]
fn no_valid_event_is_too_much_for_any_state() {
    let template = History::new(1).events.swap_remove(0).1;
    let mut did: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 1..=1_000 {
        let rng = &mut Rng::new(seed);
        let mut replica = Replica::default();
        for _ in 0..6 {
            let event = wild_event(rng, &replica, &template);
            // Only where 300 large operations do not fit an event.
            let Ok((id, bytes)) = event.identify(LEDGER) else { continue };
            assert_eq!(Event::decode(&bytes).unwrap(), event);
            replica.receive(id, &event);
            event.ops().iter().for_each(|op| *did.entry(op.name()).or_default() += 1);
        }
        let mut loaded = Document::load(&replica.document.save().unwrap()).unwrap();
        assert_eq!(loaded.registers(), replica.document.registers(), "seed {seed}");
        let mut again = replica.derived_again();
        let expected = registers(&again.view().unwrap());
        assert_eq!(registers(&loaded.view().unwrap()), expected, "seed {seed}");
        for policy in policies() {
            let content = replica.project(&policy, &resolvers()).content;
            assert_eq!(json::parse(&json::canonical(&content.json)), Ok(content.json), "seed {seed}");
        }
    }
    assert!(did.len() == 14 && did.values().all(|&times| times > 500), "{did:?}");
}
