//! An upload of the classic device API, in batches.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Served, line};
use crate::Result;
use crate::bench::COLLECTION;
use crate::record::{key, ten_fields};
use crate::report::{Report, Sample};
use crate::work::Sizes;

const RECORDS: usize = 1_000;
const A_BATCH: usize = 100;

pub fn classic(_: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut served = Served::start(&dir.path().join("store"), 1, false)?;
    let token = served.token("127.0.0.1", "classic")?;
    let asked = json!({ "device_id": "classic", "app_version": "1", "last_sync": null });
    served.post("/api/sync/initialize", Some(&token), &asked)?;
    let row = |nth: usize| {
        json!({ "operation": "create", "model": COLLECTION, "object_id": key(nth), "data": ten_fields(nth),
            "timestamp": 1_700_000_000_000_u64 + nth as u64, "device_id": "classic" })
    };
    let rows: Vec<Value> = (0..RECORDS).map(row).collect();
    let (started, mut steps) = (Instant::now(), Vec::new());
    for batch in rows.chunks(A_BATCH) {
        let began = Instant::now();
        let answers = line::post(&served.url, "127.0.0.1", "/api/sync/upload", Some(&token), &batch.into())?;
        steps.push(began.elapsed());
        let is_applied = |answer: &Value| answer["status"] == "applied";
        if !answers.as_array().is_some_and(|answers| answers.len() == batch.len() && answers.iter().all(is_applied)) {
            return Err(format!("expected all to be applied, got {answers}").into());
        }
    }
    report.figure(
        "1,000 records uploaded over the classic API, 100 a request",
        "ms",
        started.elapsed().as_secs_f64() * 1e3,
    );
    report.add("classic upload of records, 100 a request", Sample::of(RECORDS, "records").ledger(steps));
    Ok(())
}
