//! PouchDB 9 on LevelDB, in Node, where both Node and npm are there. It does not sync what it writes: its rates are of work
//! that a loss of power may undo.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;
use crate::memory::Memory;
use crate::record::{Rng, key, one_field, ten_fields};
use crate::report::{Report, Sample, Took};
use crate::work::{self, Sizes};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pouchdb.mjs");
/// Where npm puts PouchDB: beside what cargo builds, kept from run to run.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pouchdb");

/// What the script says of one piece of work.
#[derive(Deserialize)]
struct Measured {
    name: String,
    count: usize,
    seconds: f64,
    /// In milliseconds.
    steps: Vec<f64>,
    bytes: f64,
    memory: Memory,
}

impl Measured {
    /// The row that its sample stands in, and the unit there.
    fn row(&self) -> (&'static str, &'static str) {
        match self.name.as_str() {
            "create" => (work::CREATES, "events"),
            "patch" => (work::EVEN, "events"),
            "alone" => (work::ALONE, "events"),
            "get" => (work::HOT, "gets"),
            _ => (work::PULLED, "events"),
        }
    }

    fn sample(self) -> Sample {
        let steps = self.steps.iter().map(|millis| Duration::from_secs_f64(millis / 1e3)).collect();
        let took = Took { total: Duration::from_secs_f64(self.seconds), steps, memory: Some(self.memory) };
        let is_all = matches!(self.name.as_str(), "create" | "replicate");
        let peer_bytes = is_all.then(|| self.bytes / self.count.max(1) as f64);
        Sample { pouchdb: Some(took), peer_bytes, ..Sample::of(self.count, self.row().1) }
    }
}

/// Creates, patches, gets and replication; a note where PouchDB cannot be had.
pub fn pouchdb(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let modules = match installed() {
        Ok(modules) => modules,
        Err(fault) => {
            report.note(format!("PouchDB is left out: {fault}."));
            return Ok(());
        }
    };
    let dir = tempfile::tempdir()?;
    for measured in run(&modules, dir.path(), &job(sizes))? {
        report.add(measured.row().0, measured.sample());
    }
    report.note(
        "PouchDB does not sync what it writes. Its creates and patches are `bulkDocs` of 1,000, where the ledger's batches \
         have 256; a patch reads the document first, since it has to name its revision.",
    );
    Ok(())
}

/// The directory with PouchDB in it, fetched by npm where it is not there yet.
fn installed() -> Result<PathBuf> {
    let modules = PathBuf::from(MODULES);
    answers("node")?;
    if modules.join("node_modules/pouchdb/package.json").exists() {
        return Ok(modules);
    }
    answers("npm")?;
    std::fs::create_dir_all(&modules)?;
    std::fs::write(modules.join("package.json"), json!({ "private": true }).to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "pouchdb@9"])
        .current_dir(&modules)
        .stdout(Stdio::null());
    match npm.status()?.success() {
        true => Ok(modules),
        false => Err("npm could not fetch pouchdb@9".into()),
    }
}

fn answers(program: &str) -> Result<()> {
    let asked = Command::new(program).arg("--version").output();
    match asked.is_ok_and(|output| output.status.success()) {
        true => Ok(()),
        false => Err(format!("there is no {program} here").into()),
    }
}

/// What the script is to do, with the very records and patches that the ledger gets.
fn job(sizes: &Sizes) -> Value {
    let mut rng = Rng(1);
    let records: Vec<_> = (0..sizes.peers * 5).map(|number| (key(number), ten_fields(number))).collect();
    let patches: Vec<_> = (0..records.len()).map(|nth| (key(nth), one_field(nth))).collect();
    let alone: Vec<_> = (0..sizes.peers_alone).map(|nth| (key(rng.below(records.len())), one_field(nth))).collect();
    json!({ "records": records, "patches": patches, "alone": alone, "replicated": sizes.peers })
}

fn run(modules: &Path, dir: &Path, job: &Value) -> Result<Vec<Measured>> {
    let mut node = Command::new("node");
    node.arg(SCRIPT).args([modules, dir]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = node.spawn()?;
    // The script reads all of it before it prints anything.
    if let Some(mut stdin) = node.stdin.take() {
        stdin.write_all(job.to_string().as_bytes())?;
    }
    let output = node.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the script of PouchDB ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
