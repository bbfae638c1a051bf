//! Events and segments as bytes, and events that no honest program makes.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use syncledger::Ledger;
use syncledger::event::{BatchId, BatchMember, Container, Event, EventId, Op, Path, Timestamp, Value, WriterId};
use syncledger::ledger::{Machine, Options, Query};
use syncledger::segment::{Head, Item, Reader};
use syncledger::testing::{LEDGER, event};

/// Bytes are an event in one way only, or a clear fault.
pub fn decode_event(bytes: &[u8]) {
    match Event::decode(bytes) {
        Ok(event) => {
            assert_eq!(event.validate(), Ok(()));
            assert_eq!(event.encode().unwrap(), bytes, "the bytes were taken, and are not canonical");
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// What a segment gives are events under their own ids, in the order of their positions.
pub fn decode_segment(bytes: &[u8]) {
    let Ok(length) = Head::bytes(bytes) else { return };
    let Some((head, mut rest)) = bytes.split_at_checked(length) else { return };
    let Ok(head) = Head::decode(head) else { return };
    let (ledger, mut last) = (head.ledger, 0);
    let mut reader = Reader::new(head);
    while let Some(block) = reader.next_block() {
        let Some((stored, after)) = rest.split_at_checked(block.stored) else { return };
        rest = after;
        let Ok(items) = reader.read(stored) else { return };
        for Item { position, id, event, .. } in items {
            assert!(position > last);
            last = position;
            assert_eq!(event.identify(ledger).unwrap().0, id);
        }
    }
    assert!(reader.into_index().is_some());
}

/// Events as somebody may make them who keeps to no rule: two ledgers that are offered them in other orders hold and show the same.
pub fn apply_hostile(bytes: &[u8]) {
    let events = hostile(&mut Unstructured::new(bytes));
    let [one, other] = [1, 2].map(|seed| {
        let machine = Machine::new(seed, 1_800_000_000_000);
        machine.open(Options::default()).unwrap().create_ledger("main").unwrap()
    });
    offer(&one, events.iter());
    // The other way round, until nothing more is taken: what waited for its parents, and was refused meanwhile, may come again.
    loop {
        let before = other.position();
        offer(&other, events.iter().rev());
        if other.position() == before {
            break;
        }
    }
    offer(&one, events.iter());
    for ledger in [&one, &other] {
        assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    }
    assert_eq!(held(&one), held(&other), "they hold others");
    assert_eq!(shown(&one), shown(&other), "they show others");
    if one.position() > 0 {
        assert_eq!(one.digest().unwrap().digest, other.digest().unwrap().digest);
    }
}

fn offer<'a>(ledger: &Ledger, events: impl Iterator<Item = &'a Vec<u8>>) {
    for bytes in events {
        let before = ledger.position();
        if ledger.apply(LEDGER, std::slice::from_ref(bytes)).is_err() {
            assert_eq!(ledger.position(), before, "refused, and taken");
        }
    }
}

fn held(ledger: &Ledger) -> Vec<EventId> {
    let mut ids: Vec<_> = ledger.log(&Default::default()).unwrap().into_iter().map(|entry| entry.id).collect();
    ids.sort();
    ids
}

fn shown(ledger: &Ledger) -> BTreeMap<(String, String), String> {
    let mut shown = BTreeMap::new();
    for info in ledger.collections().unwrap() {
        for record in ledger.list(&info.name, &Query::default()).unwrap() {
            let what = format!("{} {:?}", record.value, record.conflicts);
            shown.insert((info.name.clone(), record.key), what);
        }
    }
    shown
}

fn hostile(input: &mut Unstructured<'_>) -> Vec<Vec<u8>> {
    let (mut known, mut events) = (Vec::new(), Vec::new());
    while events.len() < 24 && !input.is_empty() {
        let Ok(event) = any_event(input, &known) else { break };
        // What `encode` refuses is for `decode_event`.
        if let Ok((id, bytes)) = event.identify(LEDGER) {
            known.push((id, event));
            events.push(bytes);
        }
    }
    events
}

fn any_event(input: &mut Unstructured<'_>, known: &[(EventId, Event)]) -> Result<Event> {
    let mut parents = Vec::new();
    for _ in 0..input.int_in_range(0..=2)? {
        match known {
            [] => parents.push(EventId([input.arbitrary()?; 32])),
            known => parents.push(input.choose(known)?.0),
        }
    }
    parents.sort();
    parents.dedup();
    let at = 1_000 * i64::from(input.int_in_range(1..=12_u8)?);
    // Now and then as the rules ask, or hardly anything would be taken.
    let last = parents.last().and_then(|id| known.iter().find(|(known, _)| known == id)).map(|(_, event)| event);
    let (sequence, nth, at) = match (last, input.ratio(7, 8)?) {
        (Some(last), true) => (last.sequence + 1, last.nth + 1, last.at.next()),
        _ => (input.int_in_range(1..=4)?, input.int_in_range(1..=4)?, Timestamp::from_millis(at)),
    };
    let collection = last.map_or_else(|| "c".to_owned(), |last| last.collection.clone());
    let count = input.int_in_range(0..=3)?;
    let ops = (0..count).map(|_| any_op(input, known)).collect::<Result<Vec<_>>>()?;
    Ok(Event {
        collection,
        key: (*input.choose(&["k", "k", "l"])?).to_owned(),
        writer: WriterId([input.int_in_range(1..=3)?; 16]),
        lane: input.int_in_range(0..=7_u32)?.saturating_sub(6),
        batch: if input.ratio(1, 8)? { Some(any_member(input)?) } else { None },
        reverts: if input.ratio(1, 8)? { known.last().map(|(id, _)| *id) } else { None },
        delivery: input.ratio(1, 6)?,
        source: (*input.choose(&["app", "jira"])?).to_owned(),
        at,
        parents,
        sequence,
        nth,
        ..event(ops)
    })
}

fn any_member(input: &mut Unstructured<'_>) -> Result<BatchMember> {
    let count = input.int_in_range(1..=3)?;
    Ok(BatchMember {
        id: BatchId([input.int_in_range(1..=2)?; 16]),
        index: input.int_in_range(0..=count - 1)?,
        count,
    })
}

fn any_op(input: &mut Unstructured<'_>, known: &[(EventId, Event)]) -> Result<Op> {
    let path =
        Path::parse(input.choose(&["/a", "/b", "/a/x", "/a/x/y", "/list", "/text", "/set", "/count"])?).unwrap();
    let container = match (known, input.ratio(1, 2)?) {
        ([], _) | (_, true) => Container::Own(input.int_in_range(0..=2)?),
        (known, _) => Container::Of(input.choose(known)?.0, input.int_in_range(0..=2)?),
    };
    let (index, value) = (input.int_in_range(0..=3)?, any_value(input)?);
    Ok(match input.int_in_range(0..=13)? {
        0..=2 => Op::Put { path, value },
        3 => Op::PutAtomic { path, json: (*input.choose(&["[]", "[1]", r#"{"a":[]}"#])?).to_owned() },
        4 => Op::Remove { path },
        5 => Op::Increment { path, by: input.int_in_range(-2..=2)? },
        6 => Op::SetAdd { path, member: value },
        7 => Op::SetRemove { path, member: value },
        8 => Op::MakeSet { path },
        9 => Op::MakeList { path },
        10 => Op::MakeText { path },
        11 => Op::Insert { container, index, value },
        12 => Op::Delete,
        _ => Op::Restore,
    })
}

fn any_value(input: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match input.int_in_range(0..=6)? {
        0 => Value::Null,
        1 => Value::Bool(input.arbitrary()?),
        2 => Value::Int(input.arbitrary()?),
        3 => Value::Float(0.5),
        4 => Value::EmptyObject,
        5 => Value::Bytes(vec![input.arbitrary()?]),
        _ => Value::Text((*input.choose(&["", "x", "y", "\u{1f600}"])?).to_owned()),
    })
}
