//! How long to wait before trying again: exponential backoff with full jitter, and what a server asks for.
//!
//! Pure: the time and the chance are arguments.

use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

/// The longest wait that a server is granted, in milliseconds: an hour.
const MOST_ASKED_MS: u64 = 3_600_000;

/// When to try again after failures in a row.
///
/// After the n-th, a time between nothing and `first_ms` × 2ⁿ⁻¹, at most `most_ms`, each as likely as any other: many clients
/// that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The longest wait after the first failure, in milliseconds.
    pub first_ms: u64,
    /// The longest wait at all, in milliseconds.
    pub most_ms: u64,
}

impl Default for Retry {
    /// 1, 2, 4 s …, at most a minute.
    fn default() -> Self {
        Self { first_ms: 1_000, most_ms: 60_000 }
    }
}

impl Retry {
    /// The longest wait after so many failures in a row, in milliseconds.
    #[must_use]
    pub fn longest_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(63);
        self.first_ms.saturating_mul(1 << doublings).min(self.most_ms)
    }

    /// How long to wait after so many failures in a row, in milliseconds. `chance` is any number, all equally likely.
    #[must_use]
    pub fn wait_ms(&self, failures: u32, chance: u64) -> u64 {
        let choices = u128::from(self.longest_ms(failures)) + 1;
        u64::try_from((choices * u128::from(chance)) >> 64).unwrap_or(self.most_ms)
    }
}

/// How long a `Retry-After` asks to wait, in milliseconds, at most an hour: seconds, or a date in one of the three forms of
/// HTTP (RFC 9110, 5.6.7). `None` where it is neither.
#[must_use]
pub fn retry_after_ms(header: &str, now_ms: i64) -> Option<u64> {
    let header = header.trim();
    let is_number = !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit());
    let asked = match is_number {
        // More digits than a number has are still a long time.
        true => header.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000),
        false => http_date_ms(header)?.saturating_sub(now_ms).max(0).cast_unsigned(),
    };
    Some(asked.min(MOST_ASKED_MS))
}

/// A date of HTTP as milliseconds since 1970.
fn http_date_ms(text: &str) -> Option<i64> {
    let usual = || rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    usual().map(|at| at.as_millisecond()).or_else(|| {
        let forms = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
        forms.iter().find_map(|form| utc_ms(strtime::parse(form, text).ok()?.to_datetime().ok()?))
    })
}

fn utc_ms(at: DateTime) -> Option<i64> {
    at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_up_to_the_most() {
        let retry = Retry::default();
        let longest: Vec<u64> = (0..9).map(|failures| retry.longest_ms(failures)).collect();
        assert_eq!(longest, [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(retry.longest_ms(u32::MAX), 60_000);
        assert_eq!(Retry { first_ms: u64::MAX, most_ms: u64::MAX }.longest_ms(70), u64::MAX);
    }

    #[test]
    fn a_wait_is_anything_from_nothing_to_the_longest() {
        let retry = Retry::default();
        assert_eq!((retry.wait_ms(3, 0), retry.wait_ms(3, u64::MAX)), (0, 4_000));
        assert_eq!(retry.wait_ms(3, u64::MAX / 2), 2_000);
        assert_eq!(Retry { first_ms: 0, most_ms: 0 }.wait_ms(9, u64::MAX), 0);
        assert_eq!(Retry { first_ms: u64::MAX, most_ms: u64::MAX }.wait_ms(1, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_in_any_form_of_http() {
        let now = 784_111_777_000 - 90_000;
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(retry_after_ms(date, now), Some(90_000), "{date}");
            assert_eq!(retry_after_ms(date, now + 100_000), Some(0), "{date} is over");
        }
        assert_eq!(retry_after_ms(" 120 ", now), Some(120_000));
        assert_eq!(retry_after_ms("0", now), Some(0));
    }

    #[test]
    fn a_retry_after_that_is_none_is_not_believed_and_a_long_one_is_cut() {
        for text in ["", "soon", "-1", "1.5", "1e3", "Sun, 99 Nov 1994 08:49:37 GMT", "\u{661}"] {
            assert_eq!(retry_after_ms(text, 0), None, "{text:?}");
        }
        for text in ["86400", "99999999999999999999999999", "Thu, 31 Dec 2099 23:59:59 GMT"] {
            assert_eq!(retry_after_ms(text, 0), Some(3_600_000), "{text}");
        }
    }
}
