//! Whether what was read after a damage may be so.
//!
//! Invariant: a wrong answer, and an event that is missing without an error, are problems whatever the damage was.

use std::collections::BTreeMap;

use super::damage::Kind;
use super::look::{Fault, Looked, Seen};

/// The kinds of errors that say that stored bytes are not what was written, or cannot be read. A version that is not
/// known, and a ledger or file that is none, are what flipped bits look like.
const TOLD: [&str; 6] = ["corrupt", "storage", "upgrade_needed", "problem", "consistency", "not_found"];
/// What a backup file's head may look like besides.
const TOLD_OF_BACKUPS: [&str; 2] = ["validation", "ledger_mismatch"];

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An error said so, at this stage: `opening`, `reading`, `verify`, …
    Detected(String),
    /// All is as it was.
    Sound,
    /// The end of the log after the last checkpoint is gone, so many events: what is not promised.
    Tail(u64),
    Problem(String),
}

/// What there was before the damage.
pub struct Expected<'a> {
    pub looked: &'a Looked,
    /// How far each ledger's log was recorded as durable, by id in hexadecimal: to its end where the store was closed.
    pub marks: &'a BTreeMap<String, u64>,
}

/// Judges what was read of a store after one of its files was damaged.
pub fn store(kind: Kind, expected: &Expected<'_>, looked: &Looked) -> Outcome {
    if let Some(problem) = unknown_fault(&looked.faults, &TOLD) {
        return Outcome::Problem(problem);
    }
    let mut missing = 0;
    for (name, before) in &expected.looked.ledgers {
        match looked.ledgers.get(name).map(|seen| ledger(name, before, seen)) {
            // Without an error nothing may be missing.
            None if looked.faults.is_empty() => return Outcome::Problem(format!("{name} is not there")),
            None => {}
            Some(Ok(shorter)) => {
                if let Some(problem) = tail(kind, expected, before, shorter, &looked.faults) {
                    return Outcome::Problem(format!("{name}: {problem}"));
                }
                missing += shorter;
            }
            Some(Err(problem)) => return Outcome::Problem(format!("{problem}; {}", told(&looked.faults))),
        }
    }
    if let Some(name) = looked.ledgers.keys().find(|name| !expected.looked.ledgers.contains_key(*name)) {
        return Outcome::Problem(format!("{name} was never there"));
    }
    match (looked.faults.first(), missing) {
        // What is derived is made again by opening, or told, and then by whoever was told.
        (Some(fault), _) if kind.is_derived() && fault.stage == "opening" => {
            Outcome::Problem(format!("it is derived, and {}: {}", fault.stage, fault.words))
        }
        (Some(fault), _) => Outcome::Detected(fault.stage.clone()),
        (None, 0) => Outcome::Sound,
        (None, missing) => Outcome::Tail(missing),
    }
}

/// Why a log may not be so much shorter.
fn tail(kind: Kind, expected: &Expected<'_>, before: &Seen, shorter: u64, faults: &[Fault]) -> Option<String> {
    let length = before.log.as_ref().map_or(0, Vec::len) as u64;
    if shorter == 0 || !faults.is_empty() {
        return None;
    }
    let what = format!("{shorter} of {length} events are missing without an error");
    if !kind.holds_the_tail() {
        return Some(what);
    }
    let mark = expected.marks.get(&before.id).copied().unwrap_or_default();
    (length - shorter < mark).then(|| format!("{what}, though the log was recorded as durable up to {mark}"))
}

/// By how many events a log is shorter, or what is wrong with what was read.
fn ledger(name: &str, before: &Seen, seen: &Seen) -> Result<u64, String> {
    let wrong = |call: &str| format!("{name}: `{call}` answered otherwise");
    let none = Vec::new();
    let (log, held) = (before.log.as_ref().unwrap_or(&none), seen.log.as_ref());
    if held.is_some_and(|held| !log.starts_with(held)) {
        return Err(wrong("log"));
    }
    let shorter = held.map_or(0, |held| log.len() - held.len()) as u64;
    // A shorter log shows what it says, which `verify` has compared.
    if shorter > 0 {
        return Ok(shorter);
    }
    let differs = seen.answers.iter().find(|(call, answer)| before.answers.get(*call) != Some(answer));
    differs.map_or(Ok(0), |(call, _)| Err(wrong(call)))
}

fn unknown_fault(faults: &[Fault], known: &[&str]) -> Option<String> {
    let unknown = faults.iter().find(|fault| !known.contains(&fault.kind.as_str()));
    unknown.map(|fault| format!("{} failed with `{}`: {}", fault.stage, fault.kind, fault.words))
}

fn told(faults: &[Fault]) -> String {
    match faults.first() {
        None => "no error told".to_owned(),
        Some(fault) => format!("{} said `{}`: {}", fault.stage, fault.kind, fault.words),
    }
}

/// Judges what restoring from backup files gave: all that there was, or an error; with `partial` the first part of it,
/// up to where it says.
pub fn restored(before: &Seen, looked: &Looked, partial: bool) -> Outcome {
    let known: Vec<&str> = TOLD.iter().chain(&TOLD_OF_BACKUPS).copied().collect();
    if let Some(problem) = unknown_fault(&looked.faults, &known) {
        return Outcome::Problem(problem);
    }
    let Some(seen) = looked.ledgers.get("main") else {
        return match looked.faults.first() {
            Some(fault) => Outcome::Detected(fault.stage.clone()),
            None => Outcome::Problem("nothing was restored, and no error told".to_owned()),
        };
    };
    let mut seen = seen.clone();
    let (missing, events) = (seen.answers.remove("missing"), seen.answers.remove("restored"));
    match ledger("restored", before, &seen) {
        Err(problem) => Outcome::Problem(problem),
        Ok(0) if missing.is_none() && looked.faults.is_empty() => Outcome::Sound,
        Ok(_) if partial && missing.is_some() => {
            let held = seen.log.map_or(0, |log| log.len()).to_string();
            match events {
                Some(events) if events == held => Outcome::Detected("restoring a part".to_owned()),
                events => Outcome::Problem(format!("{held} events were restored, and {events:?} told")),
            }
        }
        // What a copy lacks of the damage was told by `verify_backup`, and restored for all that.
        Ok(shorter) => Outcome::Problem(format!(
            "restored with {shorter} events missing, missing: {missing:?}; {}",
            told(&looked.faults)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(log: &[&str], answers: &[(&str, &str)]) -> Seen {
        let answers = answers.iter().map(|(call, answer)| ((*call).to_owned(), (*answer).to_owned())).collect();
        Seen { id: "ab".into(), log: Some(log.iter().map(|id| (*id).to_owned()).collect()), answers }
    }

    fn looked(seen: Option<Seen>, faults: &[(&str, &str)]) -> Looked {
        let fault = |(stage, kind): &(&str, &str)| Fault {
            stage: (*stage).to_owned(),
            kind: (*kind).to_owned(),
            words: String::new(),
        };
        let ledgers = seen.map(|seen| ("main".to_owned(), seen)).into_iter().collect();
        Looked { ledgers, faults: faults.iter().map(fault).collect() }
    }

    fn judged(kind: Kind, mark: u64, after: &Looked) -> Outcome {
        let before = looked(Some(seen(&["1", "2", "3"], &[("get a", "x")])), &[]);
        let marks = [("ab".to_owned(), mark)].into();
        store(kind, &Expected { looked: &before, marks: &marks }, after)
    }

    fn is_problem(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Problem(_))
    }

    #[test]
    fn the_same_is_sound_and_an_error_is_detected() {
        let whole = || Some(seen(&["1", "2", "3"], &[("get a", "x")]));
        assert_eq!(judged(Kind::Front, 3, &looked(whole(), &[])), Outcome::Sound);
        let detected = Outcome::Detected("opening".into());
        assert_eq!(judged(Kind::Catalog, 3, &looked(None, &[("opening", "corrupt")])), detected);
        // What could not be read is missing from the answers.
        let unread = Seen { log: None, ..seen(&[], &[]) };
        let detected = Outcome::Detected("reading".into());
        assert_eq!(judged(Kind::Segment, 3, &looked(Some(unread), &[("reading", "corrupt")])), detected);
        let outcome = judged(Kind::Segment, 3, &looked(whole(), &[("verify", "problem")]));
        assert_eq!(outcome, Outcome::Detected("verify".into()));
    }

    #[test]
    fn wrong_answers_are_problems_even_where_an_error_is_told() {
        for faults in [&[][..], &[("verify", "problem")]] {
            let wrong = looked(Some(seen(&["1", "2", "3"], &[("get a", "y")])), faults);
            assert!(is_problem(&judged(Kind::SledLog, 0, &wrong)));
            let other = looked(Some(seen(&["1", "9", "3"], &[])), faults);
            assert!(is_problem(&judged(Kind::SledLog, 0, &other)));
            let invented = looked(Some(seen(&["1", "2", "3", "4"], &[])), faults);
            assert!(is_problem(&judged(Kind::SledLog, 0, &invented)));
        }
        assert!(is_problem(&judged(Kind::Catalog, 3, &looked(None, &[]))));
        assert!(is_problem(&judged(Kind::Catalog, 3, &looked(None, &[("opening", "clock_ahead")]))));
    }

    #[test]
    fn only_what_comes_after_the_mark_may_be_missing_and_only_with_its_file() {
        let short = looked(Some(seen(&["1", "2"], &[("get a", "w")])), &[]);
        assert_eq!(judged(Kind::Front, 2, &short), Outcome::Tail(1));
        assert!(is_problem(&judged(Kind::Front, 3, &short)));
        assert!(is_problem(&judged(Kind::Segment, 2, &short)));
    }

    #[test]
    fn derived_files_do_not_keep_a_store_from_opening() {
        let whole = Some(seen(&["1", "2", "3"], &[("get a", "x")]));
        assert_eq!(judged(Kind::Values, 3, &looked(whole.clone(), &[])), Outcome::Sound);
        let told = Outcome::Detected("reading".into());
        assert_eq!(judged(Kind::Values, 3, &looked(whole.clone(), &[("reading", "corrupt")])), told);
        assert!(is_problem(&judged(Kind::Values, 3, &looked(whole, &[("opening", "corrupt")]))));
    }

    #[test]
    fn a_damaged_backup_gives_all_or_says_up_to_where() {
        let before = seen(&["1", "2", "3"], &[("get a", "x")]);
        let all = seen(&["1", "2", "3"], &[("get a", "x"), ("restored", "3")]);
        assert_eq!(restored(&before, &looked(Some(all.clone()), &[]), false), Outcome::Sound);
        // Restored as whole, though the file was known to be damaged.
        assert!(is_problem(&restored(&before, &looked(Some(all), &[("verify", "corrupt")]), false)));
        let refused = looked(None, &[("verify", "corrupt"), ("restoring", "corrupt")]);
        assert_eq!(restored(&before, &refused, false), Outcome::Detected("verify".into()));
        let part = |events| seen(&["1", "2"], &[("get a", "w"), ("restored", events), ("missing", "3 to 3")]);
        let part = |events| looked(Some(part(events)), &[("verify", "corrupt")]);
        assert_eq!(restored(&before, &part("2"), true), Outcome::Detected("restoring a part".into()));
        assert!(is_problem(&restored(&before, &part("3"), true)));
        assert!(is_problem(&restored(&before, &part("2"), false)));
        let short = looked(Some(seen(&["1", "2"], &[("get a", "w"), ("restored", "2")])), &[]);
        assert!(is_problem(&restored(&before, &short, true)));
    }
}
