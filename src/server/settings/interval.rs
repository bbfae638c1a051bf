//! Spans of time as operators write them: `30s`, `15m`, `24h`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, ErrorKind, Result};

/// The units, from large to small, with their seconds.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
/// The longest span: a century. What is longer is a mistake.
const MOST_SECONDS: u64 = 100 * 366 * 86_400;

/// A span of time of whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

impl Interval {
    /// So many seconds; at least one, at most a century.
    #[must_use]
    pub fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds.clamp(1, MOST_SECONDS)))
    }

    /// The span.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Interval {
    type Err = Error;

    /// # Errors
    /// `validation` where the text is no such span.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let message =
                format!("expected a time such as 30s, 15m, 24h or 7d, got `{}`", crate::shape::cut(text, 40));
            Error::new(ErrorKind::Validation, message)
        };
        let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let digits = text.strip_suffix(unit).unwrap_or_default();
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = is_number.then(|| digits.parse().ok()).flatten();
        let total = count.and_then(|count| count.checked_mul(seconds));
        total.filter(|total| (1..=MOST_SECONDS).contains(total)).map(Self::from_secs).ok_or_else(wrong)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let (unit, seconds) =
            UNITS.into_iter().find(|(_, seconds)| total.is_multiple_of(*seconds)).unwrap_or(("s", 1));
        write!(f, "{}{unit}", total / seconds)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|fault: Error| D::Error::custom(fault.message()))
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written_and_nothing_else_is() {
        for text in ["1s", "30s", "15m", "24h", "7d", "90s"] {
            let read: Interval = text.parse().unwrap();
            assert_eq!(read.to_string().parse::<Interval>().unwrap(), read, "{text}");
        }
        assert_eq!("90m".parse::<Interval>().unwrap().duration(), Duration::from_secs(5_400));
        assert_eq!("86400s".parse::<Interval>().unwrap().to_string(), "1d");
        for text in ["", "s", "30", "0s", "-1s", "+1s", "1.5h", "1 h", "1w", "1ss", "99999999999999999999d", "40000d"]
        {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
