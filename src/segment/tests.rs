use super::assemble::{Reading, Spare, assemble};
use super::item::{Held, Ids};
use super::shred::Start;
use super::writer::block_hash;
use super::*;
use crate::ErrorKind;
use crate::event::{
    BatchId, BatchMember, BlobForm, BlobHash, BlobRef, Body, ConflictId, Container, Event, EventId, Idempotency,
    LedgerId, Op, Path, RunId, Timestamp, Value, WriterId,
};

const LEDGER: LedgerId = LedgerId([7; 16]);

/// A small generator: xorshift, so that a case is its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn word(&mut self) -> String {
        ["a", "bé", "word", "🦀", "long ".repeat(9).as_str()][self.below(5) as usize].to_owned()
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn any_path(chance: &mut Chance) -> Path {
    path(["/a", "/b/c", "/$x", "/~0~1", "/title"][chance.below(5) as usize])
}

fn value(chance: &mut Chance) -> Value {
    let form = [BlobForm::Text, BlobForm::Bytes, BlobForm::Json][chance.below(3) as usize];
    match chance.below(11) {
        0 => Value::Null,
        1 => Value::Bool(chance.one_in(2)),
        2 | 3 => Value::Int(chance.below(1 << 40) as i64 - (1 << 39)),
        4 => Value::Uint(u64::MAX - chance.below(9)),
        5 => Value::Float(chance.below(100) as f64 + 0.5),
        6 => Value::Bytes(vec![chance.below(256) as u8; chance.below(4) as usize]),
        7 => Value::EmptyObject,
        8 => Value::Blob(BlobRef { hash: BlobHash([3; 32]), bytes: 20_000 + chance.below(9), form }),
        _ => Value::Text(chance.word()),
    }
}

fn ops(chance: &mut Chance, of: Option<EventId>) -> Vec<Op> {
    let mut ops = vec![Op::MakeList { path: path("/list") }, Op::MakeText { path: path("/text") }];
    let container = |chance: &mut Chance, own| match of.filter(|_| chance.one_in(2)) {
        Some(event) => Container::Of(event, chance.below(3) as u32),
        None => Container::Own(own),
    };
    for _ in 0..chance.below(6) {
        let at = any_path(chance);
        ops.push(match chance.below(13) {
            0 => Op::PutAtomic { path: at, json: "[1,{\"a\":null}]".into() },
            1 => Op::Remove { path: at },
            2 => Op::Increment { path: at, by: chance.below(9) as i64 - 4 },
            3 => Op::SetAdd { path: at, member: Value::Text(chance.word()) },
            4 => Op::SetRemove { path: at, member: Value::Atomic("{\"x\":1}".into()) },
            5 => Op::MakeSet { path: at },
            6 => Op::Insert { container: container(chance, 0), index: chance.below(300), value: value(chance) },
            7 => Op::RemoveAt { container: container(chance, 0), index: u64::MAX },
            8 => Op::SpliceText {
                container: container(chance, 1),
                index: chance.below(9),
                delete: chance.below(2),
                insert: chance.word(),
            },
            9 => Op::Delete,
            10 => Op::Restore,
            _ => Op::Put { path: at, value: value(chance) },
        });
    }
    if chance.one_in(5) { Vec::new() } else { ops }
}

fn some<T>(chance: &mut Chance, make: impl FnOnce(&mut Chance) -> T) -> Option<T> {
    if chance.one_in(3) { Some(make(chance)) } else { None }
}

fn parents(chance: &mut Chance, before: &[Item]) -> Vec<EventId> {
    let mut parents = Vec::new();
    for _ in 0..chance.below(4) {
        let known = before.get(chance.below(before.len() as u64 + 2) as usize).map(|item| item.id);
        parents.push(known.unwrap_or(EventId([chance.below(256) as u8; 32])));
    }
    parents.sort();
    parents.dedup();
    parents
}

fn event(chance: &mut Chance, before: &[Item]) -> Event {
    let parents = parents(chance, before);
    let body = Body::Ops(ops(chance, parents.first().copied()));
    let batch = |chance: &mut Chance| BatchMember { id: BatchId([8; 16]), index: chance.below(3) as u32, count: 9 };
    Event {
        collection: ["issues", "notes"][chance.below(2) as usize].into(),
        key: format!("K-{}", chance.below(5)),
        writer: WriterId([chance.below(3) as u8; 16]),
        sequence: 1 + if chance.one_in(9) { chance.below(u64::MAX) } else { chance.below(60) },
        lane: chance.below(3) as u32,
        nth: 1 + chance.below(5) as u32,
        parents,
        at: Timestamp { millis: chance.below(1 << 41) as i64 - (1 << 40), counter: chance.below(2) as u32 },
        occurred_at: some(chance, |chance| [i64::MIN, i64::MAX, 5][chance.below(3) as usize]),
        source: ["app", "jira"][chance.below(2) as usize].into(),
        principal: some(chance, |chance| chance.word()),
        reason: some(chance, |chance| chance.word()),
        run: some(chance, |chance| RunId([chance.below(3) as u8; 16])),
        delivery: chance.one_in(3),
        idempotency: some(chance, |chance| Idempotency { key: chance.word(), request_hash: [9; 32] }),
        batch: some(chance, batch),
        resolves: some(chance, |_| ConflictId([4; 32])),
        reverts: before.last().filter(|_| chance.one_in(4)).map(|item| item.id),
        body,
    }
}

fn items(seed: u64, count: usize) -> Vec<Item> {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut items, mut position): (Vec<Item>, u64) = (Vec::new(), chance.below(1 << 20));
    while items.len() < count {
        position += 1 + if chance.one_in(7) { chance.below(1_000) } else { 0 };
        let previous = items.last().filter(|_| chance.one_in(2)).map_or(0, |item| item.position);
        let event = event(&mut chance, &items);
        let id = event.identify(LEDGER).unwrap().0;
        let run = if chance.one_in(2) { event.run } else { some(&mut chance, |_| RunId([2; 16])) };
        let received_at = event.at.millis.wrapping_add(chance.below(9) as i64);
        if items.iter().all(|item| item.id != id) {
            items.push(Item { position, previous, received_at, run, id, event });
        }
    }
    items
}

fn write(items: &[Item], shape: Shape) -> (Head, Vec<u8>) {
    let mut writer = Writer::new(LEDGER, shape);
    items.iter().for_each(|item| writer.add(item.clone()).unwrap());
    writer.finish().unwrap().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Item>, Index), SegmentFault> {
    let length = Head::bytes(bytes)?;
    let head = Head::decode(bytes.get(..length).ok_or(SegmentFault::BreaksOff("head"))?)?;
    let (mut reader, mut rest, mut found) = (Reader::new(head), &bytes[length..], Vec::new());
    while let Some(stored) = reader.next_block().map(|block| block.stored) {
        let (block, after) = rest.split_at_checked(stored).ok_or(SegmentFault::BreaksOff("blocks"))?;
        found.extend(reader.read(block)?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(SegmentFault::Head("bytes are left over"));
    }
    Ok((found, reader.into_index().unwrap()))
}

const PLAIN: Shape = Shape { codec: Codec::Plain, level: 0, block_events: 7 };

#[test]
fn any_events_come_back_and_any_block_alone() {
    for seed in 0..150 {
        let events = items(seed, 1 + seed as usize % 40);
        for shape in [Shape::LARGE, PLAIN] {
            let (head, bytes) = write(&events, shape);
            let (found, index) = read(&bytes).unwrap();
            assert_eq!(found, events, "seed {seed}");
            assert_eq!(head.events(), events.len());
            let body = bytes.len() - head.body_bytes() as usize;
            for item in &events {
                let (block, offset) = index.block_of(item.position).unwrap();
                let start = body + offset as usize;
                let stored = &bytes[start..start + head.blocks[block].stored];
                assert!(index.read(block, stored).unwrap().contains(item));
            }
            assert_eq!(index.block_of(head.last + 1), None);
        }
    }
}

#[test]
fn a_segment_cut_anywhere_or_with_any_byte_changed_is_refused() {
    for shape in [Shape { block_events: 7, ..Shape::LARGE }, PLAIN] {
        let (_, bytes) = write(&items(5, 20), shape);
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "length {length}");
        }
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut flipped = bytes.clone();
                flipped[at] ^= bit;
                let fault = read(&flipped).map(drop).unwrap_err();
                assert!(at >= 4 || fault == SegmentFault::NotASegment, "{at}");
                assert!(at != 4 || fault.kind() == ErrorKind::UpgradeNeeded, "{at}");
            }
        }
    }
}

/// A reader is told the truth by the head: what a hostile writer can make, who hashes whatever he writes.
fn with_fitting_head(head: &Head, raw: &[u8]) -> Option<Vec<u8>> {
    let mut block = head.blocks[0];
    let mut ids = Ids::default();
    let start = Start { place: 0, due: block.first };
    let reading = Reading { ledger: LEDGER, start, events: block.events, past: &Alone };
    let (items, _) = assemble(raw, reading, &mut Held::Growing(&mut ids)).ok()?;
    (block.raw, block.stored) = (raw.len(), raw.len());
    block.hash = block_hash(LEDGER, 0, raw, items.iter().map(|item| item.id));
    let mut bytes = Head::new(LEDGER, block.first, items.last()?.position, vec![block]).encode();
    bytes.extend_from_slice(raw);
    Some(bytes)
}

#[test]
fn hostile_columns_are_refused_or_are_the_encoding_of_valid_events() {
    let shape = Shape { block_events: 40, ..PLAIN };
    let (mut refused, mut valid, mut not_canonical) = (0, 0, 0);
    for seed in 0..4 {
        let (head, bytes) = write(&items(seed, 6), shape);
        let raw = &bytes[bytes.len() - head.blocks[0].stored..];
        assert_eq!(with_fitting_head(&head, raw).as_deref(), Some(bytes.as_slice()));
        for at in 0..raw.len() {
            for change in [1, 0x7f, 0x80] {
                let mut changed = raw.to_vec();
                changed[at] ^= change;
                let Some(bytes) = with_fitting_head(&head, &changed) else {
                    refused += 1;
                    continue;
                };
                match read(&bytes) {
                    Ok((found, _)) => {
                        assert_eq!(write(&found, shape).1, bytes, "seed {seed}, byte {at}");
                        valid += 1;
                    }
                    Err(_) => not_canonical += 1,
                }
            }
        }
    }
    assert!(refused > 500 && valid > 300 && not_canonical > 50, "{refused} {valid} {not_canonical}");
}

#[test]
fn few_bytes_that_stand_for_very_many_are_refused() {
    // A path of a kilobyte that each of many operations names: every event is valid, all together are too much.
    let long = path(&format!("/{}", "x".repeat(1_000)));
    let mut template = items(1, 1).remove(0);
    template.event.body = Body::Ops(vec![Op::Remove { path: long }; 60]);
    let events = |count: u64| -> Vec<Item> {
        let numbered = |n| {
            let mut item = Item { position: 1 + n, previous: 0, ..template.clone() };
            item.event.sequence = 1 + n;
            item.id = item.event.identify(LEDGER).unwrap().0;
            item
        };
        (0..count).map(numbered).collect()
    };
    for (count, fits) in [(20, true), (200, false)] {
        let (events, start, mut ids) = (events(count), Start { place: 0, due: 1 }, Ids::default());
        events.iter().for_each(|item| assert!(ids.add(item.position, item.id)));
        let mut raw = Vec::new();
        super::shred::shred(&events, start, &ids, &Alone, &mut super::sheet::Sheet::default(), &mut raw);
        assert!(raw.len() < 40_000);
        let reading = Reading { ledger: LEDGER, start, events: events.len(), past: &Alone };
        assert_eq!(assemble(&raw, reading, &mut Held::Growing(&mut Ids::default())).is_ok(), fits);
    }
}

#[test]
fn what_does_not_follow_is_refused_by_the_writer() {
    let events = items(3, 3);
    let mut writer = Writer::new(LEDGER, Shape::default());
    writer.add(events[1].clone()).unwrap();
    for wrong in [
        events[0].clone(),
        Item { position: events[2].position, ..events[1].clone() },
        Item { previous: events[2].position, ..events[2].clone() },
        Item { position: u64::MAX, ..events[2].clone() },
    ] {
        assert_eq!(writer.add(wrong).unwrap_err().kind(), ErrorKind::Validation);
    }
    writer.add(events[2].clone()).unwrap();
    assert!(Writer::new(LEDGER, Shape::default()).finish().unwrap().is_none());
}

#[test]
fn the_largest_events_make_blocks_that_can_be_read() {
    let text = "x".repeat(crate::event::limits::INLINE_BYTES);
    let mut events = items(9, 200);
    for (index, item) in events.iter_mut().enumerate() {
        let op = |nth: usize| Op::Put { path: path(&format!("/p{nth}")), value: Value::Text(text.clone()) };
        let many = (0..4_096).map(|_| Op::Delete).collect();
        item.event.body = Body::Ops(if index % 2 == 0 { (0..3).map(op).collect() } else { many });
        item.event.sequence = index as u64 + 1;
        item.event.parents.clear();
        item.event.reverts = None;
        item.id = item.event.identify(LEDGER).unwrap().0;
    }
    let (head, bytes) = write(&events, Shape::LARGE);
    assert!(head.blocks.len() > 3 && head.blocks.iter().all(|block| block.raw < MOST_BLOCK_BYTES));
    assert_eq!(read(&bytes).unwrap().0, events);
}

/// Writers and numbers of some events.
struct Both<'a>(&'a [Item]);

impl Past for Both<'_> {
    fn place(&self, _: &Event, of: &EventId) -> Option<(WriterId, u64)> {
        self.0.iter().find(|item| item.id == *of).map(|item| (item.event.writer, item.event.sequence))
    }

    fn find(&self, collection: &str, key: &str, writer: WriterId, sequence: u64) -> Option<EventId> {
        let is_it = |item: &&Item| {
            let event = &item.event;
            (event.writer, event.sequence) == (writer, sequence)
                && (event.collection.as_str(), event.key.as_str()) == (collection, key)
        };
        self.0.iter().find(is_it).map(|item| item.id)
    }
}

/// Patches of one field of records that are picked at random, by one writer.
fn patches(records: u64, count: u64) -> Vec<Item> {
    let mut chance = Chance(99);
    let mut items: Vec<Item> = Vec::new();
    let mut last: Vec<Option<usize>> = vec![None; records as usize];
    for n in 0..count {
        let record = if n < records { n } else { chance.below(records) };
        let before = last[record as usize].replace(n as usize).map(|before| items[before].clone());
        let key = format!("EE-{:05}", record.wrapping_mul(7_919) % 100_000);
        let event = Event {
            collection: "issues".into(),
            key,
            writer: WriterId([5; 16]),
            sequence: n + 1,
            lane: 0,
            nth: before.as_ref().map_or(1, |item| item.event.nth + 1),
            parents: before.iter().map(|item| item.id).collect(),
            at: Timestamp { millis: 1_790_000_000_000 + n as i64 / 9, counter: 0 },
            occurred_at: None,
            source: "app".into(),
            principal: Some("ann".into()),
            reason: None,
            run: None,
            delivery: false,
            idempotency: None,
            batch: None,
            resolves: None,
            reverts: None,
            body: Body::Ops(vec![Op::Put {
                path: path(["/status", "/priority", "/estimate"][chance.below(3) as usize]),
                value: Value::Int(chance.below(100_000) as i64),
            }]),
        };
        let id = event.identify(LEDGER).unwrap().0;
        let received_at = event.at.millis + 1;
        let previous = before.map_or(0, |item| item.position);
        items.push(Item { position: n + 1, previous, received_at, run: None, id, event });
    }
    items
}

#[test]
fn a_patch_of_one_field_takes_few_bytes() {
    let events = patches(5_000, 20_000);
    let (_, bytes) = write(&events[5_000..], Shape::LARGE);
    let of_a_backup = bytes.len() as f64 / 15_000.0;
    let batch = &events[10_000..10_256];
    let past = Both(&events[5_000..10_256]);
    let mut writer = Writer::with_past(LEDGER, Shape { level: 9, ..Shape::LARGE }, &past);
    // A receiver has positions of his own: those of the sender are no use to him.
    batch.iter().for_each(|item| writer.add(Item { previous: 0, ..item.clone() }).unwrap());
    let (head, sent) = writer.finish().unwrap().unwrap();
    let of_a_batch = sent.len() as f64 / 256.0;
    println!("bytes per one-field patch: {of_a_backup:.1} in a backup, {of_a_batch:.1} in a batch of 256");
    let mut reader = Reader::with_past(head.clone(), &past);
    let found = reader.read(&sent[sent.len() - head.body_bytes() as usize..]).unwrap();
    assert!(found.iter().zip(batch).all(|(found, item)| found.event == item.event && found.id == item.id));
    assert!(of_a_backup < 26.0, "{of_a_backup}");
    assert!(of_a_batch < 22.0, "{of_a_batch}");
}

/// A reader who knows other events than the writer thinks.
struct Other<'a>(Both<'a>);

impl Past for Other<'_> {
    fn place(&self, event: &Event, of: &EventId) -> Option<(WriterId, u64)> {
        self.0.place(event, of)
    }

    fn find(&self, _: &str, _: &str, _: WriterId, _: u64) -> Option<EventId> {
        Some(EventId([1; 32]))
    }
}

#[test]
fn a_block_that_does_not_read_back_is_refused() {
    let events = patches(50, 100);
    let (before, after) = events.split_at(60);
    let write = |past: &dyn Past, proved: bool| {
        let writer = Writer::with_past(LEDGER, Shape::LARGE, past);
        let mut writer = if proved { writer.proved() } else { writer };
        after.iter().for_each(|item| writer.add(item.clone()).unwrap());
        writer.finish().map(|segment| segment.unwrap().0.events())
    };
    assert_eq!(write(&Both(before), true), Ok(40));
    assert_eq!(write(&Other(Both(before)), false), Ok(40), "what is not proved is written as it is");
    let refusal = write(&Other(Both(before)), true).unwrap_err();
    assert!(matches!(refusal, SegmentFault::Refused { position: 61, .. }), "{refusal}");
}

/// Changes one field of an event, or what stands beside it: another for each number.
fn change(item: &mut Item, which: usize) {
    let event = &mut item.event;
    match which {
        0 => event.key.push('x'),
        1 => event.collection.push('x'),
        2 => event.writer.0[0] ^= 1,
        3 => event.sequence ^= 1,
        4 => event.lane ^= 1,
        5 => event.nth ^= 1,
        6 => event.parents.push(EventId([255; 32])),
        7 => event.at.millis ^= 1,
        8 => event.at.counter ^= 1,
        9 => event.occurred_at = event.occurred_at.xor(Some(3)),
        10 => event.source.push('x'),
        11 => event.principal = event.principal.take().xor(Some("x".into())),
        12 => event.reason = event.reason.take().xor(Some("x".into())),
        13 => event.run = event.run.xor(Some(RunId([77; 16]))),
        14 => event.delivery ^= true,
        15 => {
            event.idempotency =
                event.idempotency.take().xor(Some(Idempotency { key: "x".into(), request_hash: [1; 32] }))
        }
        16 => event.batch = event.batch.xor(Some(BatchMember { id: BatchId([1; 16]), index: 0, count: 1 })),
        17 => event.resolves = event.resolves.xor(Some(ConflictId([1; 32]))),
        18 => event.reverts = event.reverts.xor(Some(EventId([1; 32]))),
        19 => {
            let Body::Ops(ops) = &mut event.body;
            ops.push(Op::Delete);
        }
        20 => item.id.0[31] ^= 1,
        21 => item.received_at ^= 1,
        22 => item.previous ^= 1,
        23 => item.run = item.run.xor(Some(RunId([77; 16]))),
        _ => item.position ^= 1,
    }
}

#[test]
fn reading_back_tells_every_field_of_every_event() {
    let (mut sheet, mut raw, mut spare) = (super::sheet::Sheet::default(), Vec::new(), Spare::default());
    for seed in 0..30 {
        let events = items(seed, 9);
        let mut ids = Ids::default();
        events.iter().for_each(|item| assert!(ids.add(item.position, item.id)));
        let start = Start { place: 0, due: events[0].position };
        super::shred::shred(&events, start, &ids, &Alone, &mut sheet, &mut raw);
        let reading = Reading { ledger: LEDGER, start, events: events.len(), past: &Alone };
        let mut is_of =
            |items: &[Item]| super::assemble::is_of(&raw, reading, &mut Held::Whole(&ids.places), items, &mut spare);
        assert!(is_of(&events), "seed {seed}");
        assert!(!is_of(&events[1..]) && !is_of(&[&events[..], &events[..1]].concat()));
        for which in 0..25 {
            for at in 0..events.len() {
                let mut changed = events.clone();
                change(&mut changed[at], which);
                assert!(!is_of(&changed), "seed {seed}, event {at}, change {which}");
            }
        }
        assert!(is_of(&events), "what was kept of events before changes none");
    }
}
