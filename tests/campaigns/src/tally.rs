//! What a piece of a campaign came to: told in one shape, and kept in a file of lines, so that a campaign can be run in pieces.
//!
//! A line is a JSON object: `campaign`, `commit` (with a `+` where the sources differ from it), `seed`, `from` (the first number),
//! `runs`, `counts` by what was counted, `problems`, `seconds`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::Result;
use crate::arguments::Arguments;

/// The commit that this program was built from.
pub const COMMIT: &str = env!("COMMIT");

/// What a piece came to so far.
pub struct Tally {
    campaign: &'static str,
    seed: u64,
    from: u64,
    began: Instant,
    pub runs: u64,
    counts: BTreeMap<String, u64>,
    problems: u64,
}

impl Tally {
    /// Of a campaign, with its seed and the first number that is run under it.
    #[allow(clippy::disallowed_methods, reason = "it tells how long a campaign took")]
    pub fn begin(campaign: &'static str, seed: u64, from: u64) -> Self {
        Self { campaign, seed, from, began: Instant::now(), runs: 0, counts: BTreeMap::new(), problems: 0 }
    }

    /// Counts something.
    pub fn count(&mut self, what: &str, times: u64) {
        match self.counts.get_mut(what) {
            Some(count) => *count += times,
            None => drop(self.counts.insert(what.to_owned(), times)),
        }
    }

    /// Keeps the most of something, whose name begins with `at most`.
    pub fn at_most(&mut self, what: &str, number: u64) {
        let most = self.counts.entry(what.to_owned()).or_default();
        *most = number.max(*most);
    }

    /// How often something was counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Tells a problem: what, where, and how it is run again.
    pub fn problem(&mut self, told: &str) {
        println!("{}: PROBLEM: {told}", self.campaign);
        self.problems += 1;
    }

    /// Tells all, and appends it to the file that `--record` names. Whether there was no problem.
    pub fn end(self, arguments: &Arguments) -> Result<bool> {
        let line = json!({
            "campaign": self.campaign, "commit": COMMIT, "seed": self.seed, "from": self.from, "runs": self.runs,
            "counts": self.counts, "problems": self.problems, "seconds": self.began.elapsed().as_secs(),
        });
        println!("{}", told(&line));
        if let Some(file) = arguments.path("record") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
            file.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(self.problems == 0)
    }
}

/// A piece, or several together, in a sentence.
fn told(line: &Json) -> String {
    let text =
        |name: &str| line.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let text = |name: &str| text(name).unwrap_or_default();
    let counts = line.get("counts").and_then(Json::as_object).into_iter().flatten();
    let counts: Vec<String> = counts.map(|(what, count)| format!("{count} {what}")).collect();
    let (runs, problems) = (number(line, "runs"), number(line, "problems"));
    format!(
        "{} at {}, seed {}, from {}: {runs} runs in {} s; {}: {problems} problems{}",
        text("campaign"),
        text("commit"),
        text("seed"),
        text("from"),
        text("seconds"),
        counts.join(", "),
        bound(runs, problems)
    )
}

/// What so many runs without a failure say (the rule of three).
fn bound(runs: u64, problems: u64) -> String {
    match problems {
        0 if runs > 0 => format!(" (at 95 % less than one run in {} fails)", runs / 3),
        _ => String::new(),
    }
}

fn number(line: &Json, name: &str) -> u64 {
    line.get(name).and_then(Json::as_u64).unwrap_or_default()
}

/// Sums up the pieces of a file, a row of Markdown for each campaign. Whether there was no problem.
pub fn report(file: &Path) -> Result<bool> {
    let mut all: BTreeMap<String, Sum> = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines() {
        let line: Json = serde_json::from_str(line).map_err(|fault| format!("{}: {fault}", file.display()))?;
        let name = line.get("campaign").and_then(Json::as_str).unwrap_or_default();
        all.entry(name.to_owned()).or_default().add(&line);
    }
    println!(
        "| campaign | pieces | runs | problems | bound at 95 % | hours | counted |\n|---|---:|---:|---:|---|---:|---|"
    );
    all.iter().for_each(|(name, sum)| println!("{}", sum.row(name)));
    Ok(all.values().all(|sum| sum.problems == 0))
}

/// Several pieces of one campaign.
#[derive(Default)]
struct Sum {
    pieces: u64,
    runs: u64,
    problems: u64,
    seconds: u64,
    counts: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, line: &Json) {
        self.pieces += 1;
        self.runs += number(line, "runs");
        self.problems += number(line, "problems");
        self.seconds += number(line, "seconds");
        for (what, count) in line.get("counts").and_then(Json::as_object).into_iter().flatten() {
            let count = count.as_u64().unwrap_or_default();
            let sum = self.counts.entry(what.clone()).or_default();
            // What is the most of anything is no sum.
            *sum = if what.starts_with("at most ") { count.max(*sum) } else { *sum + count };
        }
    }

    fn row(&self, name: &str) -> String {
        let Self { pieces, runs, problems, seconds, counts } = self;
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let bound = if *problems == 0 { format!("1 in {}", runs / 3) } else { "–".to_owned() };
        let hours = *seconds as f64 / 3600.0;
        format!("| `{name}` | {pieces} | {runs} | {problems} | {bound} | {hours:.1} | {} |", counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_appended_and_summed_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results");
        let words = ["--record".to_owned(), file.display().to_string()];
        let arguments = Arguments::read(words.into_iter()).unwrap();
        for (from, problems) in [(1, 0), (11, 1)] {
            let mut tally = Tally::begin("kill", 7, from);
            tally.runs = 10;
            tally.count("events", 5);
            tally.count("at most ms", from);
            (0..problems).for_each(|_| tally.problem("planted"));
            assert_eq!(tally.end(&arguments).unwrap(), problems == 0);
        }
        let mut sum = Sum::default();
        let kept = std::fs::read_to_string(&file).unwrap();
        kept.lines().for_each(|line| sum.add(&serde_json::from_str(line).unwrap()));
        assert_eq!((sum.pieces, sum.runs, sum.problems), (2, 20, 1));
        assert_eq!((sum.counts["events"], sum.counts["at most ms"]), (10, 11));
        assert!(!report(&file).unwrap());
    }
}
