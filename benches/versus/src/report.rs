//! What was measured, as Markdown: medians over the rounds, and ratios to the floor of the same run.

use std::fmt;
use std::time::Duration;

/// How long something took, and each step of it where that was measured.
#[derive(Clone, Default)]
pub struct Took {
    total: Duration,
    steps: Vec<Duration>,
}

impl From<Duration> for Took {
    fn from(total: Duration) -> Self {
        Self { total, steps: Vec::new() }
    }
}

impl From<Vec<Duration>> for Took {
    fn from(steps: Vec<Duration>) -> Self {
        Self { total: steps.iter().sum(), steps }
    }
}

impl Took {
    /// Steps that ran beside each other and took `total` together.
    pub fn beside(total: Duration, steps: Vec<Duration>) -> Self {
        Self { total, steps }
    }
}

/// One round of one piece of work.
#[derive(Clone, Default)]
pub struct Sample {
    /// How many of `unit` were done.
    pub count: usize,
    pub unit: &'static str,
    pub ledger: Took,
    pub raw: Option<Took>,
    pub sqlite: Option<Took>,
    /// Bytes on disk of an event: of the log, and of the derived rows.
    pub bytes: Option<(f64, f64)>,
}

/// All rounds, in the order of first mention.
#[derive(Default)]
pub struct Report(Vec<(String, Vec<Sample>)>);

impl Report {
    pub fn add(&mut self, name: impl Into<String>, sample: Sample) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((name, vec![sample])),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The median over the rounds of what a sample says.
fn over(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    median(samples.iter().filter_map(of))
}

fn rate(count: usize, took: &Took) -> f64 {
    count as f64 / took.total.as_secs_f64()
}

fn rate_text(rate: Option<f64>, unit: &str) -> String {
    match rate {
        None => "–".to_owned(),
        Some(rate) if rate >= 100_000.0 => format!("{:.0} k {unit}/s", rate / 1_000.0),
        Some(rate) if rate >= 1_000.0 => format!("{:.1} k {unit}/s", rate / 1_000.0),
        Some(rate) => format!("{rate:.1} {unit}/s"),
    }
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.3}"))
}

/// A place among the sorted steps, in microseconds.
fn percentile(took: &Took, percent: usize) -> Option<f64> {
    let mut steps = took.steps.clone();
    steps.sort_unstable();
    let at = (steps.len() * percent / 100).min(steps.len().checked_sub(1)?);
    Some(steps.get(at)?.as_secs_f64() * 1e6)
}

fn micros(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0} µs"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| work | ledger | file + fdatasync | SQLite WAL | ledger : file | ledger : SQLite | log + rows, bytes an event |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        for (name, samples) in &self.0 {
            let unit = samples.first().map_or("", |sample| sample.unit);
            let ledger = over(samples, |s| Some(rate(s.count, &s.ledger)));
            let raw = over(samples, |s| Some(rate(s.count, s.raw.as_ref()?)));
            let sqlite = over(samples, |s| Some(rate(s.count, s.sqlite.as_ref()?)));
            let to = |floor: Option<f64>| Some(ledger? / floor?);
            let bytes = match (over(samples, |s| Some(s.bytes?.0)), over(samples, |s| Some(s.bytes?.1))) {
                (Some(log), Some(rows)) => format!("{log:.0} + {rows:.0}"),
                _ => "–".to_owned(),
            };
            let [ours, file, table] = [ledger, raw, sqlite].map(|rate| rate_text(rate, unit));
            let [to_file, to_table] = [to(raw), to(sqlite)].map(ratio_text);
            writeln!(f, "| {name} | {ours} | {file} | {table} | {to_file} | {to_table} | {bytes} |")?;
        }
        self.latencies(f)
    }
}

impl Report {
    /// The work whose steps a caller waits for.
    fn latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| a caller waits | ledger p50 | p99 | file + fdatasync p50 | SQLite WAL p50 | ledger : file |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|")?;
        for (name, samples) in &self.0 {
            let of = |percent: usize| over(samples, |s| percentile(&s.ledger, percent));
            let Some(half) = of(50) else { continue };
            let raw = over(samples, |s| percentile(s.raw.as_ref()?, 50));
            let sqlite = over(samples, |s| percentile(s.sqlite.as_ref()?, 50));
            let ratio = ratio_text(raw.map(|raw| half / raw));
            let [half, most, raw, sqlite] = [Some(half), of(99), raw, sqlite].map(micros);
            writeln!(f, "| {name} | {half} | {most} | {raw} | {sqlite} | {ratio} |")?;
        }
        Ok(())
    }
}
