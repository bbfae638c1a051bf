//! The bytes of events: one encoding each, and nothing that hostile bytes could do.

use syncledger::ErrorKind;
use syncledger::event::{Body, DecodeError, Event, LedgerId, Op, Path, Value, event_id};

use crate::histories::{History, LEDGER, Rng};

fn events() -> impl Iterator<Item = Event> {
    (1..=60).flat_map(|seed| History::new(seed).events).map(|(_, event)| event)
}

fn kind(fault: DecodeError) -> ErrorKind {
    syncledger::Error::from(fault).kind()
}

/// Decodes, and where that succeeds, nothing else has these bytes.
fn is_refused_or_canonical(bytes: &[u8]) -> bool {
    Event::decode(bytes).is_ok_and(|event| {
        assert_eq!(event.encode().unwrap(), bytes);
        true
    })
}

#[test]
fn an_event_reads_back_what_it_was() {
    let mut count = 0;
    for event in events() {
        let bytes = event.encode().unwrap();
        assert_eq!(Event::decode(&bytes).unwrap(), event);
        let (id, same) = event.identify(LEDGER).unwrap();
        assert_eq!((id, &same), (event_id(LEDGER, &bytes), &bytes));
        assert_ne!(id, event.identify(LedgerId([8; 16])).unwrap().0);
        count += 1;
    }
    assert!(count > 1_000);
}

#[test]
fn changed_bytes_are_refused_or_the_encoding_of_another_event() {
    let mut rng = Rng::new(1);
    let (mut refused, mut accepted) = (0, 0);
    for event in events() {
        let bytes = event.encode().unwrap();
        for _ in 0..40 {
            let mut changed = bytes.clone();
            let at = rng.below(bytes.len());
            changed[at] ^= 1 << rng.below(8);
            if is_refused_or_canonical(&changed) { accepted += 1 } else { refused += 1 }
        }
        let shorter = rng.below(bytes.len());
        assert!(Event::decode(&bytes[..shorter]).is_err());
        assert!(Event::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
    assert!(refused > 1_000 && accepted > 1_000, "{refused} refused, {accepted} accepted");
}

#[test]
fn every_truncation_of_an_event_is_refused() {
    for event in events().take(20) {
        let bytes = event.encode().unwrap();
        assert!((0..bytes.len()).all(|length| Event::decode(&bytes[..length]).is_err()));
    }
}

/// Where the sequence stands: after magic, version, "tasks", "T-1" and the writer.
const SEQUENCE: usize = 5 + 6 + 4 + 16;

#[test]
fn a_number_in_more_bytes_than_it_needs_is_refused() {
    for event in events().take(200) {
        let bytes = event.encode().unwrap();
        assert_eq!(u64::from(bytes[SEQUENCE]), event.sequence);
        for longer in [vec![251, bytes[SEQUENCE], 0], vec![252, bytes[SEQUENCE], 0, 0, 0]] {
            let changed = [&bytes[..SEQUENCE], &longer, &bytes[SEQUENCE + 1..]].concat();
            assert_eq!(Event::decode(&changed), Err(DecodeError::NotCanonical));
        }
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut rng = Rng::new(2);
    for round in 0..100_000 {
        let mut bytes: Vec<u8> = (0..rng.below(300)).map(|_| rng.next() as u8).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, *b"SLEV\x01");
        }
        is_refused_or_canonical(&bytes);
    }
}

#[test]
fn a_length_that_the_bytes_cannot_have_is_refused_at_once() {
    for event in events().take(40) {
        let bytes = event.encode().unwrap();
        for at in 5..bytes.len() {
            for long in
                [&[251, 255, 255][..], &[252, 255, 255, 255, 255], &[253, 255, 255, 255, 255, 255, 255, 255, 255]]
            {
                let changed = [&bytes[..at], long, &bytes[at + 1..]].concat();
                is_refused_or_canonical(&changed);
            }
        }
    }
    assert!(matches!(Event::decode(&vec![0; 65_537]), Err(DecodeError::TooLarge(65_537))));
}

fn with(ops: Vec<Op>) -> Event {
    let event = events().next().unwrap();
    Event { body: Body::Ops(ops), ..event }
}

#[test]
fn what_a_newer_program_wrote_asks_for_an_upgrade() {
    let mut bytes = with(vec![Op::Delete]).encode().unwrap();
    bytes[4] = 2;
    let fault = Event::decode(&bytes).unwrap_err();
    assert_eq!(fault, DecodeError::UnknownVersion(2));
    assert_eq!(kind(fault), ErrorKind::UpgradeNeeded);
    // The last byte is the operation, the one before it their count, the one before that the body.
    let bytes = with(vec![Op::Delete]).encode().unwrap();
    for (from_end, unknown) in [(1, 14), (1, 200), (3, 1)] {
        let mut bytes = bytes.clone();
        let at = bytes.len() - from_end;
        bytes[at] = unknown;
        let fault = Event::decode(&bytes).unwrap_err();
        assert_eq!(fault, DecodeError::UnknownOp);
        assert_eq!(kind(fault), ErrorKind::UpgradeNeeded);
    }
}

#[test]
fn words_in_an_event_never_pass_for_an_unknown_operation() {
    let put =
        Op::Put { path: Path::parse("/invalid value: integer, expected variant index").unwrap(), value: Value::Null };
    let mut bytes = with(vec![put]).encode().unwrap();
    let at = bytes.windows(8).position(|window| window == b"/invalid").unwrap();
    bytes[at] = b'x';
    assert!(matches!(Event::decode(&bytes), Err(DecodeError::Malformed(_))));
}
