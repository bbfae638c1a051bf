//! A report as Markdown: medians over the rounds, and ratios of what was measured at one moment.

use std::fmt;

use crate::report::{Figure, Report, Sample, Took};

/// Picks the time of one contender.
type Pick = fn(&Sample) -> Option<&Took>;

const LEDGER: Pick = |sample| sample.ledger.as_ref();
const RAW: Pick = |sample| sample.raw.as_ref();
const SQLITE: Pick = |sample| sample.sqlite.as_ref();
const SAMOD: Pick = |sample| sample.samod.as_ref();
const SAMOD_SYNCED: Pick = |sample| sample.samod_synced.as_ref();
const POUCHDB: Pick = |sample| sample.pouchdb.as_ref();

/// The median of numbers in any order.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The samples of one piece of work.
struct Row<'a> {
    name: &'a str,
    samples: &'a [Sample],
}

impl Row<'_> {
    /// The median over the rounds of what a sample says.
    fn over(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(of))
    }

    fn rate(&self, pick: Pick) -> Option<f64> {
        self.over(|sample| Some(sample.rate(pick(sample)?)))
    }

    fn rate_text(&self, pick: Pick) -> String {
        let unit = self.samples.first().map_or("", |sample| &sample.unit);
        match self.rate(pick) {
            None => dash(),
            Some(rate) if rate >= 100_000.0 => format!("{:.0} k {unit}/s", rate / 1_000.0),
            Some(rate) if rate >= 1_000.0 => format!("{:.1} k {unit}/s", rate / 1_000.0),
            Some(rate) => format!("{rate:.1} {unit}/s"),
        }
    }

    /// The median of the ratios of each round: both were measured by one process, one after the other.
    fn ratio_to_floor(&self, floor: Pick) -> String {
        let ratio = |sample: &Sample| Some(sample.rate(LEDGER(sample)?) / sample.rate(floor(sample)?));
        ratio_text(self.over(ratio))
    }

    /// The ratio of the medians: peers have processes of their own.
    fn ratio_to_peer(&self, peer: Pick) -> String {
        ratio_text(self.rate(LEDGER).zip(self.rate(peer)).map(|(ledger, peer)| ledger / peer))
    }

    fn wait(&self, pick: Pick, percent: usize) -> Option<f64> {
        self.over(|sample| percentile(pick(sample)?, percent))
    }

    fn has(&self, pick: Pick) -> bool {
        self.samples.iter().any(|sample| pick(sample).is_some())
    }

    fn bytes(&self) -> String {
        match (self.over(|sample| Some(sample.bytes?.0)), self.over(|sample| Some(sample.bytes?.1))) {
            (Some(log), Some(rows)) => format!("{log:.0} + {rows:.0}"),
            _ => dash(),
        }
    }

    /// The peak, and what was held before the work began: mostly what it was given to do.
    fn memory(&self, pick: Pick) -> String {
        let of = |of: fn(&Took) -> Option<u64>| self.over(|sample| Some(of(pick(sample)?)? as f64));
        let peak = of(|took| Some(took.memory?.peak));
        let before = of(|took| Some(took.memory?.before));
        peak.zip(before).map_or_else(dash, |(peak, before)| format!("{:.0} ({:.0})", peak / 1e6, before / 1e6))
    }

    /// How many a contender did in a round.
    fn done(&self, pick: Pick) -> String {
        let done = self.over(|sample| pick(sample).map(|_| sample.count as f64));
        done.map_or_else(dash, |count| format!("{count:.0}"))
    }

    fn peer_bytes(&self, pick: Pick) -> String {
        let bytes = self.over(|sample| pick(sample).and(sample.peer_bytes));
        bytes.map_or_else(dash, |bytes| format!("{bytes:.0}"))
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| if ratio < 100.0 { format!("{ratio:.3}") } else { format!("{ratio:.0}") })
}

/// A place among the sorted steps, in microseconds.
fn percentile(took: &Took, percent: usize) -> Option<f64> {
    let mut steps = took.steps.clone();
    steps.sort_unstable();
    let at = (steps.len() * percent / 100).min(steps.len().checked_sub(1)?);
    Some(steps.get(at)?.as_secs_f64() * 1e6)
}

/// A wait, given in microseconds.
fn wait_text(micros: Option<f64>) -> String {
    match micros {
        None => dash(),
        Some(micros) if micros < 10_000.0 => format!("{micros:.0} µs"),
        Some(micros) => format!("{:.0} ms", micros / 1e3),
    }
}

/// One line of a table.
fn line(f: &mut fmt::Formatter<'_>, cells: &[String]) -> fmt::Result {
    writeln!(f, "| {} |", cells.join(" | "))
}

/// The head of a table: the first column to the left, the others, which hold numbers, to the right.
fn head(f: &mut fmt::Formatter<'_>, names: &[&str]) -> fmt::Result {
    writeln!(f, "\n| {} |", names.join(" | "))?;
    writeln!(f, "|---|{}", "---:|".repeat(names.len().saturating_sub(1)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Row<'_>> = self.rows.iter().map(|(name, samples)| Row { name, samples }).collect();
        rates(f, &rows)?;
        waits(f, &rows)?;
        peers(f, &rows)?;
        figures(f, &self.figures)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

fn rates(f: &mut fmt::Formatter<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut rows = rows.iter().filter(|row| row.has(LEDGER)).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    head(
        f,
        &[
            "work",
            "ledger",
            "file + fdatasync",
            "SQLite WAL",
            "ledger : file",
            "ledger : SQLite",
            "log + rows, bytes an event",
            "peak memory (before), MB",
        ],
    )?;
    for row in rows {
        let [ledger, raw, sqlite] = [LEDGER, RAW, SQLITE].map(|pick| row.rate_text(pick));
        let [to_raw, to_sqlite] = [RAW, SQLITE].map(|pick| row.ratio_to_floor(pick));
        line(f, &[row.name.to_owned(), ledger, raw, sqlite, to_raw, to_sqlite, row.bytes(), row.memory(LEDGER)])?;
    }
    Ok(())
}

/// The work whose steps a caller waits for.
fn waits(f: &mut fmt::Formatter<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut rows = rows.iter().filter(|row| row.wait(LEDGER, 50).is_some()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let names = ["a caller waits", "ledger p50", "p99", "file p50", "p99", "SQLite p50", "p99", "ledger : file, p50"];
    head(f, &names)?;
    for row in rows {
        let ratio = row.wait(LEDGER, 50).zip(row.wait(RAW, 50)).map(|(ledger, raw)| ledger / raw);
        let mut cells = vec![row.name.to_owned()];
        for pick in [LEDGER, RAW, SQLITE] {
            cells.extend([50, 99].map(|percent| wait_text(row.wait(pick, percent))));
        }
        cells.push(ratio_text(ratio));
        line(f, &cells)?;
    }
    Ok(())
}

/// The work that peers did too, each contender on as many as its speed allows.
fn peers(f: &mut fmt::Formatter<'_>, rows: &[Row<'_>]) -> fmt::Result {
    for (name, pick) in [("samod", SAMOD), ("samod, each file synced", SAMOD_SYNCED), ("PouchDB", POUCHDB)] {
        let mut rows = rows.iter().filter(|row| row.has(pick)).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let mut names = vec!["work", "ledger", name, "ledger : peer", "the peer did", "p50", "p99"];
        names.extend(["bytes on disk for each", "peak memory (before), MB"]);
        head(f, &names)?;
        for row in rows {
            let [ledger, peer] = [LEDGER, pick].map(|pick| row.rate_text(pick));
            let [half, most] = [50, 99].map(|percent| wait_text(row.wait(pick, percent)));
            let mut cells = vec![row.name.to_owned(), ledger, peer, row.ratio_to_peer(pick), row.done(pick)];
            cells.extend([half, most, row.peer_bytes(pick), row.memory(pick)]);
            line(f, &cells)?;
        }
    }
    Ok(())
}

fn figures(f: &mut fmt::Formatter<'_>, figures: &[Figure]) -> fmt::Result {
    if figures.is_empty() {
        return Ok(());
    }
    head(f, &["figure", "median", "unit"])?;
    for figure in figures {
        let value = median(figure.values.iter().copied()).unwrap_or(0.0);
        let text = if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        line(f, &[figure.name.clone(), text, figure.unit.clone()])?;
    }
    Ok(())
}
