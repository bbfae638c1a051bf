//! JSON that anybody sends.

use serde_json::Value as Json;
use syncledger::event::json::{canonical, is_canonical, parse_bytes, parse_canonical};
use syncledger::ledger::{Context, Ledger, Machine, Options};
use syncledger::projection::{Policy, Resolvers};
use syncledger::testing::{History, Rng};

fn ledger() -> Ledger {
    Machine::new(1, 1_800_000_000_000).open(Options::default()).unwrap().create_ledger("main").unwrap()
}

/// JSON that is taken has one canonical form, and a record that is put shows what was put; the bytes before a line end are put
/// first, so that what comes behind it is an edit.
pub fn json_roundtrip(bytes: &[u8]) {
    let ledger = ledger();
    for part in bytes.split(|byte| *byte == b'\n').take(4) {
        let Ok(value) = parse_bytes(part) else { continue };
        let text = canonical(&value);
        assert!(is_canonical(&text), "{text}");
        assert_eq!(parse_canonical(&text).unwrap(), value);
        assert_eq!(canonical(&parse_bytes(text.as_bytes()).unwrap()), text);
        match ledger.put("c", "k", value.clone(), &Context::default()) {
            Ok(_) => assert_eq!(canonical(&ledger.get("c", "k").unwrap().unwrap().value), text),
            Err(fault) => assert!(!fault.message().is_empty()),
        }
    }
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
}

/// What is a policy is one after it was written down, and replicas show the same under it, in whatever order events came.
pub fn policy(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Json>(bytes) else { return };
    let Ok(policy) = Policy::from_json(&value) else { return };
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
    let seed = bytes.iter().fold(0, |seed, byte| seed * 31 % 4_093 + u64::from(*byte));
    let (history, mut rng) = (History::new(seed), Rng::new(seed));
    let [mut one, mut other] = [history.deliver(&mut rng), history.deliver(&mut rng)];
    let resolvers = Resolvers::default();
    let (one, other) = (one.project(&policy, &resolvers), other.project(&policy, &resolvers));
    assert_eq!(one.content, other.content);
    assert_eq!(one.deleted, other.deleted);
    assert_eq!(one.conflicts, other.conflicts);
}
