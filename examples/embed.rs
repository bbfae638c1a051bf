//! A service that embeds the ledger: ten lines to durable, merged, audited records.
//!
//! Run it with `cargo run --example embed`.

use serde::{Deserialize, Serialize};
use syncledger::Ledger;
use syncledger::ledger::Context;

#[derive(Debug, Serialize, Deserialize)]
struct Issue {
    title: String,
    status: String,
}

fn main() -> syncledger::Result<()> {
    let dir = std::env::temp_dir().join(format!("syncledger-embed-{}", std::process::id()));
    let ledger = Ledger::open(&dir)?;
    let issues = ledger.collection::<Issue>("issues");
    let me = Context::from_source("app").by("ann");

    issues.put("EE-1", &Issue { title: "Crash at start".into(), status: "open".into() }, &me)?;
    issues.update("EE-1", &me.because("fixed in 2.7"), |issue| issue.status = "done".into())?;

    println!("{:?}", issues.get("EE-1")?);
    for revision in ledger.history("issues", "EE-1")? {
        for change in revision.changes {
            println!("{} {:?} -> {:?}", change.path, change.before, change.after);
        }
    }
    ledger.store().close()?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
