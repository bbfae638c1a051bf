//! The files of backups, as their names say.
//!
//! ```text
//! <dir>/<ledger>/<set>-<nth>-<made>-<position>-<event>.slbk
//! 20261127T190000.000Z-000-20261127T190000.000Z-1204-5f3c….slbk     the whole ledger up to position 1204
//! 20261127T190000.000Z-001-20261128T190000.000Z-1310-b07a….slbk     what came after it
//! ```
//! A name tells all that is needed to go on: which set a file is of, and after which event the next one begins.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const ENDING: &str = ".slbk";
const TIME: &str = "%Y%m%dT%H%M%S.%3fZ";
const TIME_READ: &str = "%Y%m%dT%H%M%S%.fZ";

/// A file of a set, in order: sets by when they began, then the files of each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// When its set began, in milliseconds since 1970.
    pub(super) began_ms: i64,
    /// Its place in the set, from 0.
    pub(super) nth: u32,
    /// When it was made.
    pub(super) made_ms: i64,
    /// The position of the last event of the set up to here; 0 where there is none.
    pub(super) position: u64,
    /// That event; empty where there is none.
    pub(super) event: String,
}

impl Part {
    /// The name of its file.
    pub(super) fn name(&self) -> String {
        let Self { nth, position, event, .. } = self;
        let (began, made) = (time(self.began_ms), time(self.made_ms));
        format!("{began}-{nth:03}-{made}-{position}-{event}{ENDING}")
    }

    /// The file of this name; `None` where it is none of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(ENDING)?.split('-');
        let mut next = || parts.next();
        let (began_ms, nth) = (millis(next()?)?, next()?.parse().ok()?);
        let (made_ms, position, event) = (millis(next()?)?, next()?.parse().ok()?, next()?.to_owned());
        let part = Self { began_ms, nth, made_ms, position, event };
        // What is written another way than we do is somebody else's.
        (part.name() == name).then_some(part)
    }
}

fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |time| time.strftime(TIME).to_string())
}

fn millis(text: &str) -> Option<i64> {
    let read = DateTime::strptime(TIME_READ, text).ok()?;
    Some(read.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_was_made_of_and_other_names_nothing() {
        let part = Part {
            began_ms: 1_795_000_000_123,
            nth: 7,
            made_ms: 1_795_000_100_000,
            position: 12,
            event: "ab".into(),
        };
        let name = part.name();
        assert_eq!(Part::parse(&name), Some(part.clone()), "{name}");
        let empty = Part { position: 0, event: String::new(), ..part.clone() };
        assert_eq!(Part::parse(&empty.name()), Some(empty.clone()));
        let later = Part { nth: 8, ..part.clone() };
        assert!(part.name() < later.name() && part < later);
        for other in ["", "x.slbk", &name.replace("-007-", "-7-"), &format!("{name}.unfinished"), "a-0-b-1-c.slbk"] {
            assert_eq!(Part::parse(other), None, "{other}");
        }
    }
}
