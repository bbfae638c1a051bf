//! Varied copies of the 33 real Jira issues, with the edits of their change logs replayed on each, half of them on a second
//! replica that knew nothing of the first: everything that one does with a ledger, on records as people really edit them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use syncledger::ledger::{Act, BackupOptions, Context, Delivery, Ledger, Store, Which, Write, verify_backup};
use syncledger::projection::{Policy, Strategy};

use crate::Result;
use crate::bench::{BATCH, Bench};
use crate::report::{Report, Sample, Watch};
use crate::work::Sizes;

const ISSUES: &str = include_str!("../../../tests/fixtures/jira-issues.jsonl");

/// An issue: what it was before its change log, and what each edit of that set, oldest first.
struct Issue {
    key: String,
    initial: Map<String, Value>,
    edits: Vec<Map<String, Value>>,
}

impl Issue {
    fn all() -> Result<Vec<Self>> {
        ISSUES.lines().map(|line| Self::of(&serde_json::from_str(line)?)).collect()
    }

    fn of(raw: &Value) -> Result<Self> {
        let key = raw["key"].as_str().ok_or("expected a key")?.to_owned();
        let fields = &raw["fields"];
        let mut initial = Map::new();
        initial.insert("summary".to_owned(), fields["summary"].clone());
        initial.insert("labels".to_owned(), json!(fields["labels"].as_array().cloned().unwrap_or_default()));
        initial.insert("description".to_owned(), json!(fields["description"].as_str().unwrap_or_default()));
        let mut log: Vec<&Value> = raw["changelog"]["histories"].as_array().into_iter().flatten().collect();
        log.sort_by_key(|edit| edit["created"].as_str().unwrap_or_default());
        let mut before: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut edits = Vec::new();
        for edit in log {
            let items: Vec<&Value> = edit["items"].as_array().into_iter().flatten().collect();
            for item in &items {
                before.entry(item["field"].as_str().unwrap_or_default()).or_insert(&item["fromString"]);
            }
            let set =
                |item: &&Value| (item["field"].as_str().unwrap_or_default().to_owned(), item["toString"].clone());
            edits.push(items.iter().map(set).collect());
        }
        let known = before.into_iter().filter(|(_, value)| !value.is_null());
        initial.extend(known.map(|(field, value)| (field.to_owned(), value.clone())));
        Ok(Self { key, initial, edits })
    }

    /// The copy's first state. Copies differ in their keys and summaries, and refer to a copy of the same issue.
    fn copy(&self, copy: usize) -> Value {
        let mut record = self.initial.clone();
        record.insert("key".to_owned(), self.key_of(copy).into());
        let summary = record.get("summary").and_then(Value::as_str).unwrap_or_default();
        record.insert("summary".to_owned(), format!("{summary} ({copy})").into());
        if copy > 0 {
            record.insert("related".to_owned(), self.key_of(copy / 2).into());
        }
        Value::Object(record)
    }

    fn key_of(&self, copy: usize) -> String {
        format!("{}-{copy}", self.key)
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["key", "summary"],
        "properties": {
            "key": { "type": "string", "x-unique": true },
            "summary": { "type": "string", "x-kind": "text" },
            "labels": { "type": "array", "items": { "type": "string" }, "x-kind": "set" },
            "related": { "type": "string", "x-references": "issues" },
            "status": { "x-critical": true }
        },
        "x-rules": [{ "rule": "related is not defined or related != key", "message": "an issue is not related to itself" }]
    })
}

/// The edits of all copies in the order of their change logs: the first edits of all, then the second.
fn edits(issues: &[Issue], copies: usize) -> Vec<(usize, Write)> {
    let longest = issues.iter().map(|issue| issue.edits.len()).max().unwrap_or(0);
    let mut edits = Vec::new();
    for nth in 0..longest {
        for copy in 0..copies {
            let issue = &issues[copy % issues.len()];
            if let Some(patch) = issue.edits.get(nth) {
                let act = Act::Patch(Value::Object(patch.clone()));
                edits.push((nth, Write::new("issues", issue.key_of(copy / issues.len()), act)));
            }
        }
    }
    edits
}

fn write(ledger: &Ledger, source: &str, writes: &[Write]) -> Result<()> {
    for batch in writes.chunks(BATCH) {
        ledger.write_all(batch.to_vec(), &Context::from_source(source))?;
    }
    Ok(())
}

/// Says how long work on so many took.
fn timed<T>(
    report: &mut Report,
    name: &str,
    count: usize,
    unit: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    eprintln!("  {name}: {count} {unit}");
    let watch = Watch::start();
    let done = work()?;
    report.add(format!("Jira copies: {name}"), Sample::of(count, unit).ledger(watch.stop()));
    Ok(done)
}

/// The same edits without a schema: all in the order of their change logs, on one replica, in batches.
pub fn edits_alone(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (issues, bench) = (Issue::all()?, Bench::new()?);
    let put = |number: usize| {
        let (issue, copy) = (&issues[number % issues.len()], number / issues.len());
        Write::new("issues", issue.key_of(copy), Act::Put(issue.copy(copy)))
    };
    bench.write((0..sizes.copies).map(put).collect())?;
    let after = bench.ledger.position();
    let took = bench.write(edits(&issues, sizes.copies).into_iter().map(|(_, write)| write).collect())?;
    report.add("real Jira edits of copies, no schema, 256 a batch", bench.sample(after, BATCH, took)?);
    Ok(())
}

pub fn copies(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (issues, dir) = (Issue::all()?, tempfile::tempdir()?);
    let copies = sizes.copies;
    let (here, there) = (Ledger::open(dir.path().join("here"))?, Ledger::open(dir.path().join("there"))?);
    here.set_schema("issues", &schema(), &Context::default())?;
    let delivery = |number: usize| {
        let (issue, copy) = (&issues[number % issues.len()], number / issues.len());
        Delivery { key: issue.key_of(copy), value: issue.copy(copy), occurred_at: Some(1_600_000_000_000) }
    };
    timed(report, "imported under a schema", copies, "records", || {
        for chunk in (0..copies).collect::<Vec<_>>().chunks(BATCH) {
            here.import(
                "issues",
                chunk.iter().map(|number| delivery(*number)).collect(),
                &Context::from_source("jira"),
            )?;
        }
        Ok(())
    })?;
    timed(report, "pulled by an empty replica", copies, "records", || Ok(there.pull(&here)?))?;
    let (even, odd): (Vec<_>, Vec<_>) = edits(&issues, copies).into_iter().partition(|(nth, _)| nth % 2 == 0);
    let writes = |edits: Vec<(usize, Write)>| edits.into_iter().map(|(_, write)| write).collect::<Vec<_>>();
    let (even, odd) = (writes(even), writes(odd));
    timed(report, "edits here, 256 a batch, held to the schema", even.len(), "edits", || {
        write(&here, "jira", &even)
    })?;
    write(&there, "app", &odd)?;
    let pulled = timed(report, "edits made apart, pulled", odd.len(), "edits", || Ok(here.pull(&there)?))?;
    let events = here.position() as usize;
    let open = timed(report, "open conflicts listed", copies, "records", || {
        Ok(here.conflicts(None, Which::Open, None)?.len())
    })?;
    let broken = timed(report, "violations listed", copies, "records", || Ok(here.violations(None)?.len()))?;
    let other = Policy::of(Strategy::parse("source_wins:jira,app")?);
    let tried = timed(report, "another policy tried on all history", events, "events", || {
        Ok(here.try_policy("issues", &other, None)?.len())
    })?;
    let file = dir.path().join("all.slbk");
    let info = timed(report, "backup", events, "events", || Ok(here.backup(&file, &BackupOptions::default())?))?;
    timed(report, "backup proved", events, "events", || Ok(verify_backup(&file)?))?;
    let restored = Store::open(dir.path().join("restored"))?;
    timed(report, "restored", events, "events", || Ok(restored.restore("main", &[&file], false)?))?;
    assert_eq!(restored.ledger("main")?.digest()?, here.digest()?);
    let strategy = Strategy::parse("last_write_wins")?;
    let settled = timed(report, "all conflicts settled", open, "conflicts", || {
        Ok(here.resolve_all(None, &strategy, &Context::default())?.events.len())
    })?;
    eprintln!(
        "{copies} copies: {events} events ({} edits apart), {open} open conflicts, {settled} settled, {broken} violations, {tried} spans decided otherwise, {:.1} bytes an event in the backup",
        pulled.applied,
        info.bytes as f64 / info.events as f64
    );
    Ok(())
}
