//! Whether a store keeps what was promised, whole, and shows what its log says.

use std::collections::BTreeMap;
use std::path::Path;

use syncledger::event::EventId;
use syncledger::ledger::{Entry, Ledger, LogQuery, Options, Query, Store, Which};
use syncledger::{Error, ErrorKind};

use crate::promise::{Promised, Promises, Standing};
use crate::work;

/// What is not as it was promised.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Acknowledged events that are not there, or are others.
    pub lost: Vec<String>,
    /// Batches of which only a part is there.
    pub torn: Vec<String>,
    /// What is refused, or shown otherwise than the log says.
    pub wrong: Vec<String>,
}

impl Findings {
    /// Everything found, each with its kind.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let lost = self.lost.iter().map(|found| ("lost", found));
        let torn = self.torn.iter().map(|found| ("torn", found));
        lost.chain(torn).chain(self.wrong.iter().map(|found| ("wrong", found)))
    }

    fn refused(&mut self, what: &str, fault: &Error) {
        self.wrong.push(format!("{what}: {:?}: {fault}", fault.kind()));
    }
}

/// Opens the store below `dir` and compares it with what was promised; with `verify` also by the ledger's own check.
pub fn check(dir: &Path, promises: &Promises, verify: bool, seed: u64) -> Findings {
    let mut findings = Findings::default();
    match Store::open_with(work::store_dir(dir), work::options(seed)) {
        Ok(store) => {
            check_store(&store, promises, verify, &mut findings);
            if let Err(fault) = store.close() {
                findings.refused("closing", &fault);
            }
        }
        Err(fault) => findings.refused("opening", &fault),
    }
    findings
}

fn check_store(store: &Store, promises: &Promises, verify: bool, findings: &mut Findings) {
    let nothing = Promised::default();
    let mut names: BTreeMap<String, &Promised> =
        store.ledgers().into_iter().map(|ledger| (ledger.name, &nothing)).collect();
    names.extend(promises.ledgers.iter().map(|(name, promised)| (name.clone(), promised)));
    for (name, promised) in names {
        match store.ledger(&name) {
            Ok(_) if promised.standing == Standing::Dropped => {
                findings.wrong.push(format!("{name}: it was dropped, and is there"));
            }
            Ok(ledger) => check_ledger(&name, &ledger, promised, verify, findings)
                .unwrap_or_else(|fault| findings.refused(&name, &fault)),
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                if promised.standing == Standing::Held {
                    findings.lost.push(format!("{name}: the ledger with its {} events", promised.events.len()));
                }
            }
            Err(fault) => findings.refused(&name, &fault),
        }
    }
}

fn check_ledger(
    name: &str,
    ledger: &Ledger,
    promised: &Promised,
    verify: bool,
    findings: &mut Findings,
) -> Result<(), Error> {
    let log = ledger.log(&LogQuery::default())?;
    if promised.standing == Standing::Held {
        findings.lost.extend(lost(name, &log, &promised.events));
    }
    // What is being dropped goes from its end, and is gone as a whole once it is opened again.
    findings.torn.extend(torn(name, &log));
    findings.wrong.extend(differences(ledger)?.into_iter().map(|what| format!("{name}: {what}")));
    if verify {
        let problems = ledger.verify()?.problems;
        findings.wrong.extend(problems.into_iter().map(|problem| format!("{name}: verify: {problem}")));
    }
    Ok(())
}

fn lost(name: &str, log: &[Entry], promised: &BTreeMap<u64, EventId>) -> Vec<String> {
    let held: BTreeMap<u64, EventId> = log.iter().map(|entry| (entry.position, entry.id)).collect();
    let missing = promised.iter().filter(|(position, id)| held.get(position) != Some(id));
    missing.map(|(position, id)| format!("{name}: event {id} at position {position} of {}", held.len())).collect()
}

/// A batch is there as a whole or not at all.
fn torn(name: &str, log: &[Entry]) -> Vec<String> {
    let mut parts = BTreeMap::<_, Vec<_>>::new();
    for batch in log.iter().filter_map(|entry| entry.event.batch) {
        parts.entry(batch.id).or_default().push((batch.index, batch.count));
    }
    let is_whole = |parts: &Vec<_>| parts.iter().enumerate().all(|(at, part)| *part == (at as _, parts.len() as _));
    let torn = parts.iter().filter(|(_, parts)| !is_whole(parts));
    torn.map(|(id, parts)| format!("{name}: batch {id} has (part, of) {parts:?}")).collect()
}

/// Where a ledger shows something else than one that was derived, in memory, from its log alone.
fn differences(ledger: &Ledger) -> Result<Vec<String>, Error> {
    let derived = Store::in_memory(Options::default())?.create_ledger("derived")?;
    derived.pull(ledger)?;
    let mut found = Vec::new();
    let (here, there) = (ledger.digest()?, derived.digest()?);
    if (&here.digest, here.events, &here.collections) != (&there.digest, there.events, &there.collections) {
        found.push(format!(
            "digest {} of {} events, not {} of {}",
            here.digest, here.events, there.digest, there.events
        ));
    }
    let (here, there) = (ledger.conflicts(None, Which::All, None)?, derived.conflicts(None, Which::All, None)?);
    if here != there {
        found.push(format!("{} conflicts, not the {} that the log says", here.len(), there.len()));
    }
    for collection in derived.collections()? {
        found.extend(differing_records(ledger, &derived, &collection.name)?);
    }
    Ok(found)
}

fn differing_records(ledger: &Ledger, derived: &Ledger, collection: &str) -> Result<Vec<String>, Error> {
    let all = Query { deleted: true, ..Query::default() };
    let (listed, expected) = (ledger.list(collection, &all)?, derived.list(collection, &all)?);
    let mut found = Vec::new();
    if listed.len() != expected.len() {
        found.push(format!("{} records in {collection}, not {}", listed.len(), expected.len()));
    }
    for record in expected {
        let (shown, expected) = (ledger.get(collection, &record.key)?, derived.get(collection, &record.key)?);
        if shown != expected {
            found.push(format!("{collection}/{}: shown {shown:?}, not {expected:?}", record.key));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use syncledger::ledger::Context;

    use super::*;

    /// A store with a put and a batch of two in `main`, and what was promised of it.
    fn kept() -> (tempfile::TempDir, Promises) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(work::store_dir(dir.path())).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        let mut promised = Promised::default();
        let put = ledger.put("c", "k", json!({ "n": 1 }), &Context::default()).unwrap();
        let both = ledger.batch(&Context::default(), |batch| {
            batch.put("c", "k", json!({ "n": 2 })).put("c", "l", json!({ "n": 2 }));
        });
        for receipt in [put, both.unwrap()] {
            promised.events.extend(receipt.events.into_iter().map(|(id, position)| (position, id)));
        }
        store.close().unwrap();
        (dir, Promises { ledgers: [("main".to_owned(), promised)].into(), ..Promises::default() })
    }

    fn found(dir: &Path, promises: &Promises) -> [usize; 3] {
        let findings = check(dir, promises, true, 1);
        [findings.lost.len(), findings.torn.len(), findings.wrong.len()]
    }

    #[test]
    fn what_is_as_promised_is_not_told() {
        let (dir, promises) = kept();
        assert_eq!(found(dir.path(), &promises), [0, 0, 0]);
        let mut said = Promises::default();
        said.take(&promises.lines());
        assert_eq!((said.events(), found(dir.path(), &said)), (3, [0, 0, 0]));
    }

    #[test]
    fn events_and_ledgers_that_are_not_there_are_lost() {
        let (dir, promises) = kept();
        let mut more = promises.clone();
        more.take(&format!("event main 2 {0}\nevent main 9 {0}\nledger other\n", EventId([7; 32])));
        assert_eq!(found(dir.path(), &more), [3, 0, 0]);
        // A line that breaks off was not said; what is dropped may be gone, and then has to be.
        let mut less = promises;
        less.take("dropping other\nledger oth");
        assert_eq!(found(dir.path(), &less), [0, 0, 0]);
        less.take("dropped main\n");
        assert_eq!(found(dir.path(), &less), [0, 0, 1]);
    }

    #[test]
    fn half_a_batch_is_torn() {
        let (dir, _) = kept();
        let store = Store::open(work::store_dir(dir.path())).unwrap();
        let log = store.ledger("main").unwrap().log(&LogQuery::default()).unwrap();
        assert_eq!(torn("main", &log).len(), 0);
        assert_eq!(torn("main", &log[..2]).len(), 1);
        assert_eq!(torn("main", &log[2..]).len(), 1);
    }

    #[test]
    fn a_store_that_is_refused_is_wrong() {
        let (dir, promises) = kept();
        std::fs::write(work::store_dir(dir.path()).join("catalog"), "no catalogue").unwrap();
        assert_eq!(found(dir.path(), &promises), [0, 0, 1]);
    }
}
