//! Lengths of time as people write them in settings: `30s`, `15m`, `24h`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, ErrorKind};

/// The units, from the longest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A length of time: a whole number of one unit, `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    millis: u64,
}

impl Period {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1_000))
    }

    /// So many hours.
    #[must_use]
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_secs(hours.saturating_mul(3_600))
    }

    /// In milliseconds, as times are counted.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.millis).unwrap_or(i64::MAX)
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        Self::from_millis(period.millis)
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let each = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, each)| *each);
        let millis = each.zip(number.parse::<u64>().ok()).and_then(|(each, count)| count.checked_mul(each));
        millis.map(Self::from_millis).ok_or_else(|| {
            let got = crate::shape::cut(text, 40);
            let message = format!("expected a time such as 30s, 15m, 24h or 7d, got `{got}`");
            Error::new(ErrorKind::Validation, message)
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, each) = match UNITS.iter().find(|(_, each)| self.millis > 0 && self.millis.is_multiple_of(*each)) {
            Some(unit) => *unit,
            None => ("s", 1_000),
        };
        write!(f, "{}{name}", self.millis / each)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_of_one_unit_and_prints_as_the_longest_that_fits() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("15m", 900_000, "15m"),
            ("24h", 86_400_000, "1d"),
            ("7d", 604_800_000, "7d"),
            ("90m", 5_400_000, "90m"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!((period.as_millis(), period.to_string().as_str()), (millis, printed));
        }
        let read: Period = serde_json::from_str("\"15m\"").unwrap();
        assert_eq!(read, Period::from_secs(900));
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in
            ["", "s", "10", "1.5h", "-1s", "1 h", "1w", "99999999999999999999s", "18446744073709551615d", "\u{661}s"]
        {
            assert_eq!(text.parse::<Period>().unwrap_err().kind(), ErrorKind::Validation, "{text}");
        }
        assert!(serde_json::from_str::<Period>("15").is_err());
    }
}
