//! A custom strategy: of two estimates made apart, the larger one counts.
//!
//! A strategy is a pure function of the dispute that it is given. It must depend on nothing else (no clock, no chance,
//! no state), or two replicas would show different values.
//!
//! Run it with `cargo run --example custom_resolver`.

use serde_json::json;
use syncledger::Store;
use syncledger::ledger::{Context, Options};
use syncledger::projection::{Dispute, Policy, Verdict};

/// Takes the candidate with the largest number; what is no number leaves the field to a person.
fn largest(dispute: &Dispute) -> Verdict {
    let number = |index: usize| dispute.candidates.get(index)?.value.as_ref()?.as_f64();
    let indices = 0..dispute.candidates.len();
    if indices.clone().any(|index| number(index).is_none()) {
        return Verdict::Undecided;
    }
    indices
        .max_by(|&a, &b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)))
        .map_or(Verdict::Undecided, Verdict::Take)
}

fn options() -> Options {
    let mut options = Options::default();
    options.resolvers.register("largest", largest);
    options
}

fn main() -> syncledger::Result<()> {
    let here = Store::in_memory(options())?.create_ledger("main")?;
    let there = Store::in_memory(options())?.create_ledger("main")?;
    let (app, jira) = (Context::from_source("app"), Context::from_source("jira"));

    let policy = Policy::from_json(&json!({ "fields": { "/estimate": "custom:largest" } }))?;
    here.set_policy("issues", &policy, &app)?;
    here.put("issues", "EE-1", json!({ "estimate": 3 }), &app)?;
    there.pull(&here)?;

    here.patch("issues", "EE-1", json!({ "estimate": 8 }), &app)?;
    there.patch("issues", "EE-1", json!({ "estimate": 5 }), &jira)?;
    here.pull(&there)?;
    there.pull(&here)?;

    for ledger in [&here, &there] {
        let record = ledger.get("issues", "EE-1")?;
        let estimate = record.and_then(|record| record.value.get("estimate").cloned());
        assert_eq!(estimate, Some(json!(8)), "both replicas show the larger estimate");
    }
    for found in here.conflicts(None, syncledger::ledger::Which::Auto, None)? {
        println!("{}: {}", found.conflict.path, found.conflict.because);
    }
    Ok(())
}
