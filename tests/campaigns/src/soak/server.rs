//! What a process of a server uses.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::verdict::Sample;
use crate::Result;
use crate::faults::process::Server;

/// The latencies since the last sample.
#[derive(Default)]
pub struct Latencies(Mutex<Vec<Duration>>);

impl Latencies {
    pub fn add(&self, latency: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
    }

    /// The median and the 99th percentile in milliseconds, of those that are forgotten then.
    fn take(&self) -> (f64, f64) {
        let mut taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        taken.sort_unstable();
        let at = |percent: usize| taken.get(taken.len() * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e3);
        (at(50), at(99))
    }
}

/// A server that is looked at.
pub struct Watched<'a> {
    server: &'a Server,
    process: PathBuf,
}

impl<'a> Watched<'a> {
    pub fn of(server: &'a Server) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{}", server.process()?));
        Ok(Self { server, process })
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.status("State").is_ok_and(|state| !state.starts_with('Z'))
    }

    pub fn sample(&self, seconds: f64, latencies: &Latencies) -> Result<Sample> {
        let (p50_ms, p99_ms) = latencies.take();
        let number = |text: String| text.split(' ').next().and_then(|number| number.parse().ok());
        Ok(Sample {
            seconds,
            resident_kib: number(self.status("VmRSS")?).ok_or("the process does not say what it uses")?,
            descriptors: std::fs::read_dir(self.process.join("fd"))?.count() as f64,
            threads: number(self.status("Threads")?).unwrap_or_default(),
            disk_bytes: taken(&self.server.store()) as f64,
            events: self.events()?,
            p50_ms,
            p99_ms,
        })
    }

    fn status(&self, name: &str) -> Result<String> {
        let status = std::fs::read_to_string(self.process.join("status"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.ok_or("the process does not say how it is")?.trim().to_owned())
    }

    fn events(&self) -> Result<f64> {
        let last = self.server.json(&["log", "--reverse", "--limit", "1"])?;
        Ok(last.first().and_then(|entry| entry.get("position")).and_then(Json::as_f64).unwrap_or_default())
    }
}

/// How many bytes a directory takes on the disk. Files come and go meanwhile.
fn taken(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => taken(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
