//! The records and edits that are measured: all from one seed, alike in every round.

use serde_json::{Value, json};

/// A seeded generator (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Picks places so that few are picked often: place n with a weight of 1 / (n + 1).
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    pub fn new(places: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=places).map(|place| 1.0 / place as f64);
        Self {
            sums: weights
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        }
    }

    pub fn pick(&self, rng: &mut Rng) -> usize {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let at = rng.next() as f64 / u64::MAX as f64 * total;
        self.sums.partition_point(|sum| *sum < at).min(self.sums.len().saturating_sub(1))
    }
}

pub fn key(number: usize) -> String {
    format!("ISSUE-{number:06}")
}

/// A record of ten fields.
pub fn ten_fields(number: usize) -> Value {
    json!({
        "title": format!("The export of report {number} breaks off"),
        "status": "open",
        "priority": number % 5,
        "assignee": format!("person-{}", number % 97),
        "reporter": format!("person-{}", number % 89),
        "project": "reports",
        "estimate": 1.5 + (number % 16) as f64,
        "blocked": number.is_multiple_of(3),
        "version": format!("4.{}.{}", number % 12, number % 7),
        "environment": "production",
    })
}

/// A patch of one field, to a value that it did not have.
pub fn one_field(nth: usize) -> Value {
    match nth % 4 {
        0 => json!({ "status": format!("state-{nth}") }),
        1 => json!({ "priority": 1_000 + nth }),
        2 => json!({ "assignee": format!("person-{}", 1_000 + nth) }),
        _ => json!({ "version": format!("5.{nth}") }),
    }
}
