//! Sizes as operators write them: `500MiB`, `20GiB`, or a number of bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, ErrorKind, Result};

/// The units, from large to small, with the power of two of their bytes.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Error;

    /// # Errors
    /// `validation` where the text is no size.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let got = crate::shape::cut(text, 40);
            let message = format!("expected a size such as 500MiB or 20GiB, or a number of bytes, got `{got}`");
            Error::new(ErrorKind::Validation, message)
        };
        let (unit, power) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit)).unwrap_or(("", 0));
        let digits = text.get(..text.len() - unit.len()).unwrap_or_default().trim_end();
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = is_number.then(|| digits.parse().ok()).flatten();
        count.and_then(|count| count.checked_mul(1 << power)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, power)| self.0 > 0 && self.0.is_multiple_of(1 << power)) {
            Some((unit, power)) => write!(f, "{}{unit}", self.0 >> power),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 500MiB or 20GiB, or a number of bytes")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(|fault: Error| E::custom(fault.message()))
            }
        }
        deserializer.deserialize_any(Read).map_err(D::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written_and_nothing_else_is() {
        for (text, bytes) in [("0", 0), ("17", 17), ("500MiB", 500 << 20), ("20 GiB", 20 << 30), ("1024", 1024)] {
            let read: Size = text.parse().unwrap();
            assert_eq!(read, Size(bytes), "{text}");
            assert_eq!(read.to_string().parse::<Size>().unwrap(), read, "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "1GB", "99999999TiB", "1 000"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
