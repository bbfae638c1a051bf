//! Reads everything that there is in a store, by a process of its own, and tells what it was.
//!
//! What is read is told as JSON; values by their hash, for the same program reads them before and after the damage.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use serde_json::{Value as Json, json};
use syncledger::Error;
use syncledger::ledger::{AsOf, BackupOptions, Ledger, LogQuery, Look, Options, Query, Store, Which, verify_backup};

use crate::Result;
use crate::work;

/// A call that reported an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub stage: String,
    pub kind: String,
    pub words: String,
}

/// What was read of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its id, in hexadecimal.
    pub id: String,
    /// The ids of its events, by position from 1 on.
    pub log: Option<Vec<String>>,
    /// What every other call answered: a hash each.
    pub answers: BTreeMap<String, String>,
}

/// What was read of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub ledgers: BTreeMap<String, Seen>,
    pub faults: Vec<Fault>,
}

impl Looked {
    /// What a process printed.
    pub fn read(printed: &str) -> Result<Self> {
        let told: Json = serde_json::from_str(printed)?;
        let list = |value: Option<&Json>| value.and_then(Json::as_array).cloned().unwrap_or_default();
        let faults = list(told.get("faults")).into_iter().map(|fault| Fault {
            stage: text(fault.get(0)),
            kind: text(fault.get(1)),
            words: text(fault.get(2)),
        });
        let faults = faults.collect();
        let mut ledgers = BTreeMap::new();
        for (name, seen) in told.get("ledgers").and_then(Json::as_object).into_iter().flatten() {
            let log = seen.get("log").filter(|log| log.is_array());
            let log = log.map(|log| list(Some(log)).iter().map(|id| text(Some(id))).collect());
            let answers = seen.get("answers").and_then(Json::as_object).into_iter().flatten();
            let answers = answers.map(|(call, answer)| (call.clone(), text(Some(answer)))).collect();
            ledgers.insert(name.clone(), Seen { id: text(seen.get("id")), log, answers });
        }
        Ok(Self { ledgers, faults })
    }

    fn told(&self) -> Json {
        let faults: Vec<Json> =
            self.faults.iter().map(|fault| json!([fault.stage, fault.kind, fault.words])).collect();
        let ledgers: BTreeMap<&String, Json> = self
            .ledgers
            .iter()
            .map(|(name, seen)| (name, json!({ "id": seen.id, "log": seen.log, "answers": seen.answers })))
            .collect();
        json!({ "faults": faults, "ledgers": ledgers })
    }

    fn fault(&mut self, stage: &str, fault: &Error) {
        let (stage, kind) = (stage.to_owned(), fault.kind().code().to_owned());
        self.faults.push(Fault { stage, kind, words: fault.to_string() });
    }

    /// The answer of a call, or `None` with its fault.
    fn took<T>(&mut self, stage: &str, called: std::result::Result<T, Error>) -> Option<T> {
        called.map_err(|fault| self.fault(stage, &fault)).ok()
    }
}

fn text(value: Option<&Json>) -> String {
    value.and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn hash(answer: &impl std::fmt::Debug) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{answer:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Prints what is read of the store below `dir`.
pub fn look(dir: &Path, seed: u64) {
    let mut looked = Looked::default();
    if let Some(store) = looked.took("opening", Store::open_with(work::store_dir(dir), work::options(seed))) {
        for name in store.ledgers().into_iter().map(|ledger| ledger.name) {
            if let Some(ledger) = looked.took("opening", store.ledger(&name)) {
                let seen = read(&ledger, &mut looked);
                looked.ledgers.insert(name, seen);
            }
        }
        looked.took("closing", store.close());
    }
    println!("{}", looked.told());
}

/// Everything that can be read of a ledger, and then what it says of itself.
fn read(ledger: &Ledger, looked: &mut Looked) -> Seen {
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut seen = Seen { id: hexadecimal(ledger.info().id.as_bytes()), ..Seen::default() };
    let log = looked.took("reading", ledger.log(&LogQuery::default()));
    seen.log = log.map(|log| log.into_iter().map(|entry| entry.id.to_string()).collect());
    let mut answers = Answers { looked, answers: BTreeMap::new() };
    answers.add("digest", ledger.digest());
    answers.add("conflicts", ledger.conflicts(None, Which::All, None));
    let status = ledger.status().map(|status| (status.events, status.records, status.conflicts));
    answers.add("status", status);
    for collection in answers.add("collections", ledger.collections()).unwrap_or_default() {
        read_collection(ledger, &collection.name, &mut answers);
    }
    seen.answers = answers.answers;
    match ledger.verify() {
        Ok(found) => looked.faults.extend(found.problems.into_iter().map(|words| Fault {
            stage: "verify".to_owned(),
            kind: "problem".to_owned(),
            words,
        })),
        Err(fault) => looked.fault("verify", &fault),
    }
    seen
}

fn read_collection(ledger: &Ledger, name: &str, answers: &mut Answers<'_>) {
    let query = Query { deleted: true, ..Query::default() };
    let middle = Look { as_of: Some(AsOf::Position(ledger.position() / 2)), policy: None };
    for record in answers.add(&format!("list {name}"), ledger.list(name, &query)).unwrap_or_default() {
        let key = &record.key;
        answers.add(&format!("get {name}/{key}"), ledger.get(name, key));
        answers.add(&format!("as of the middle {name}/{key}"), ledger.look(name, key, &middle));
        answers.add(&format!("history {name}/{key}"), ledger.history(name, key));
        answers.add(&format!("blame {name}/{key}"), ledger.blame(name, key));
    }
}

struct Answers<'a> {
    looked: &'a mut Looked,
    answers: BTreeMap<String, String>,
}

impl Answers<'_> {
    fn add<T: std::fmt::Debug>(&mut self, call: &str, called: std::result::Result<T, Error>) -> Option<T> {
        let answer = self.looked.took("reading", called)?;
        self.answers.insert(call.to_owned(), hash(&answer));
        Some(answer)
    }
}

/// Derives everything again, of all ledgers.
pub fn rebuild(dir: &Path, seed: u64) -> Result<()> {
    let store = Store::open_with(work::store_dir(dir), work::options(seed))?;
    for ledger in store.ledgers() {
        store.ledger(&ledger.name)?.rebuild()?;
    }
    Ok(store.close()?)
}

/// Backs the main ledger up, from after a position on, and prints its last position.
pub fn back_up(dir: &Path, file: &Path, seed: u64, since: u64) -> Result<()> {
    let store = Store::open_with(work::store_dir(dir), work::options(seed))?;
    let info = store.ledger("main")?.backup(file, &BackupOptions { since, ..BackupOptions::default() })?;
    println!("{}", info.last_position);
    Ok(store.close()?)
}

/// Proves backup files and restores the main ledger from them, and tells what it then is; in part where that was asked
/// for. `missing` is what restoring said is.
pub fn restore(files: &[&str], partial: bool) {
    let mut looked = Looked::default();
    for file in files {
        looked.took("verify", verify_backup(file));
    }
    let made = Store::in_memory(Options::default());
    let Some(store) = looked.took("opening", made) else { return println!("{}", looked.told()) };
    if let Some(restored) = looked.took("restoring", store.restore("main", files, partial))
        && let Some(ledger) = looked.took("restoring", store.ledger("main"))
    {
        let mut seen = read(&ledger, &mut looked);
        if let Some(missing) = restored.missing {
            seen.answers.insert("missing".to_owned(), missing);
        }
        seen.answers.insert("restored".to_owned(), restored.events.to_string());
        looked.ledgers.insert("main".to_owned(), seen);
    }
    println!("{}", looked.told());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_told_whole() {
        let fault = Fault { stage: "reading".into(), kind: "corrupt".into(), words: "words".into() };
        let answers = [("get c/k".to_owned(), "00ff".to_owned())].into();
        let seen = Seen { id: "ab".into(), log: Some(vec!["e1".into(), "e2".into()]), answers };
        let unread = Seen::default();
        let ledgers = [("main".to_owned(), seen), ("north".to_owned(), unread)].into();
        let looked = Looked { ledgers, faults: vec![fault] };
        assert_eq!(Looked::read(&looked.told().to_string()).unwrap(), looked);
    }
}
