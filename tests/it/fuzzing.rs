//! The fuzz targets, with the inputs that are kept in `fuzz/corpus` and changes of these, by chance: what `cargo fuzz` searches for
//! much longer and guided by coverage.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use syncledger::event::Event;
use syncledger::segment::{Codec, Head, Item, Reader, Shape, Writer};
use syncledger::testing::{History, LEDGER, Rng};

/// How many changed inputs each target gets, unless `SYNCLEDGER_CASES` says otherwise.
const CASES: usize = 300;
/// How long an input that is all chance is at most.
const MOST_BYTES: usize = 512;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One of the inputs, changed here and there, or another one.
fn changed(rng: &mut Rng, inputs: &[Vec<u8>]) -> Vec<u8> {
    if rng.one_in(4) {
        let length = rng.below(MOST_BYTES);
        return (0..length).map(|_| rng.next().to_le_bytes()[0]).collect();
    }
    let mut bytes = rng.pick(inputs).clone();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next().to_le_bytes()[0]),
            2 => bytes.extend_from_within(at..),
            3 => {
                let other = rng.pick(inputs);
                let from = rng.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
    }
    bytes
}

fn give(name: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| targets::run(name, bytes))) {
        let kept = std::env::temp_dir().join(format!("syncledger-fuzz-{name}"));
        std::fs::write(&kept, bytes).unwrap();
        eprintln!("{name} fails with what is in {}: keep it in fuzz/corpus/{name}", kept.display());
        resume_unwind(panic);
    }
}

fn stands(name: &str) {
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "there is no corpus of {name}");
    inputs.iter().for_each(|bytes| give(name, bytes));
    let cases = std::env::var("SYNCLEDGER_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let mut rng = Rng::new(name.len() as u64);
    (0..cases).for_each(|_| give(name, &changed(&mut rng, &inputs)));
}

macro_rules! targets_stand {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            stands(stringify!($name));
        })*

        #[test]
        fn each_target_is_a_test_here_and_one_of_cargo_fuzz() {
            let here = [$(stringify!($name)),*];
            assert_eq!(targets::TARGETS.map(|(name, _)| name), here);
            let manifest = include_str!("../../fuzz/Cargo.toml");
            for name in here {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
                let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                assert!(std::fs::read_to_string(source).unwrap().contains(&format!("run(\"{name}\"")), "{name}");
            }
        }
    };
}

targets_stand! {
    decode_event
    decode_segment
    apply_hostile
    journal_model
    json_roundtrip
    policy
    session_frames
    replication_converges
    http_bodies
}

#[test]
fn the_corpora_of_the_decoders_are_of_the_forms_of_today() {
    let stale = "written in another form: run `write_the_corpora_of_the_decoders`";
    for bytes in corpus("decode_event") {
        Event::decode(&bytes).expect(stale);
    }
    for bytes in corpus("decode_segment") {
        let (head, mut body) = bytes.split_at(Head::bytes(&bytes).expect(stale));
        let mut reader = Reader::new(Head::decode(head).expect(stale));
        while let Some(block) = reader.next_block() {
            let (stored, rest) = body.split_at(block.stored);
            body = rest;
            assert!(!reader.read(stored).expect(stale).is_empty());
        }
        assert!(body.is_empty(), "{stale}");
    }
}

/// Makes the inputs of the decoders, where their forms have changed.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_the_corpora_of_the_decoders() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let write = |name: String, bytes: Vec<u8>| std::fs::write(dir.join(name), bytes).unwrap();
    for seed in 1..=3 {
        let events = History::new(seed).events;
        for (nth, (_, event)) in events.iter().enumerate().step_by(9) {
            write(format!("decode_event/history-{seed}-{nth}"), event.encode().unwrap());
        }
        let shape = Shape { codec: Codec::Plain, block_events: 8, ..Shape::default() };
        let mut writer = Writer::new(LEDGER, shape);
        for (place, (id, event)) in events.into_iter().enumerate() {
            let position = place as u64 + 1;
            let (previous, received_at, run) = (position - 1, 1_000, None);
            writer.add(Item { position, previous, received_at, run, id, event }).unwrap();
        }
        let (_, bytes) = writer.finish().unwrap().unwrap();
        write(format!("decode_segment/history-{seed}"), bytes);
    }
}
