//! What the demonstration claims, checked against what the ledger answers.

use serde_json::Value as Json;

use super::issue::Chain;
use super::{COLLECTION, Issue};
use crate::Result;
use crate::event::Op;
use crate::event::json::canonical;
use crate::ledger::{Ledger, Query, Revision};

/// The chains of the change logs along the histories.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chains {
    pub(super) chains: u64,
    pub(super) steps: u64,
    /// Chains that the history does not show as the change log has them.
    pub(super) wrong: u64,
}

/// Compares the checked fields along every issue's history with the issue's own change log.
pub(super) fn chains(ledger: &Ledger, issues: &[Issue]) -> Result<Chains> {
    let mut found = Chains::default();
    for issue in issues {
        let history = ledger.history(COLLECTION, &issue.key)?;
        for chain in &issue.chains {
            found.chains += 1;
            found.steps += chain.values.len() as u64;
            found.wrong += u64::from(along(&history, chain) != chain.values);
        }
    }
    Ok(found)
}

/// The values that a field had after each event that wrote it.
fn along(history: &[Revision], chain: &Chain) -> Vec<Option<String>> {
    let writes = |revision: &&Revision| {
        let event = &revision.entry.event;
        !event.delivery && event.ops().iter().filter_map(Op::path).any(|path| *path == chain.path)
    };
    let value = |revision: &Revision| {
        let after = revision.after.as_ref()?.pointer(chain.path.as_str())?;
        after.as_str().map(str::to_owned)
    };
    history.iter().filter(writes).map(value).collect()
}

/// How many records two ledgers have, where every one is the same to the byte in both.
pub(super) fn equal_records(one: &Ledger, other: &Ledger) -> Result<Option<u64>> {
    let (one, other) = (all(one)?, all(other)?);
    Ok((one == other).then_some(one.len() as u64))
}

/// Every record of every collection, as text.
fn all(ledger: &Ledger) -> Result<Vec<String>> {
    let mut records = Vec::new();
    for collection in ledger.collections()? {
        let query = Query { deleted: true, ..Query::default() };
        for record in ledger.list(&collection.name, &query)? {
            let heads: Vec<_> = record.heads.iter().map(ToString::to_string).collect();
            let conflicts: Vec<_> = record.conflicts.iter().map(ToString::to_string).collect();
            let value = canonical(&record.value);
            records.push(format!(
                "{} {} {value} {} {heads:?} {conflicts:?}",
                record.collection, record.key, record.deleted
            ));
        }
    }
    Ok(records)
}

/// Whether a record shows these values.
pub(super) fn shows(ledger: &Ledger, key: &str, wanted: &[(&str, Json)]) -> Result<bool> {
    let Some(record) = ledger.get(COLLECTION, key)? else { return Ok(false) };
    Ok(wanted.iter().all(|(pointer, value)| record.value.pointer(pointer) == Some(value)))
}
