//! Times as people and systems write them.

use serde_json::Value as Json;

use crate::Error;
use crate::ledger::AsOf;

/// Reads a time as milliseconds since 1970-01-01T00:00:00Z: RFC 3339, also with an offset without a colon as Jira
/// writes it, or an integer of milliseconds.
pub(crate) fn parse(text: &str) -> Result<i64, Error> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    parse_rfc3339(text).ok_or_else(|| {
        Error::new(crate::ErrorKind::Validation, format!("`{}` is no time", super::cut(text, 60)))
            .with_hint("write it as 2021-04-01T08:52:27.109+08:00, or as milliseconds since 1970")
    })
}

/// Reads a time that is a JSON string or integer.
pub(crate) fn from_json(value: &Json) -> Result<i64, Error> {
    match (value.as_str(), value.as_i64()) {
        (Some(text), _) => parse(text),
        (_, Some(millis)) => Ok(millis),
        _ => parse(&value.to_string()),
    }
}

/// Reads an RFC 3339 time, offsets without a colon too.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Reads a moment of a ledger: a number is a position, a time is RFC 3339.
pub(crate) fn moment(text: &str) -> Option<AsOf> {
    text.parse().map(AsOf::Position).ok().or_else(|| parse_rfc3339(text).map(AsOf::Time))
}

/// RFC 3339 with milliseconds in UTC; beyond the year 9999 the milliseconds themselves.
pub(crate) fn format(millis: i64) -> String {
    let formatted = |time: jiff::Timestamp| format!("{time:.3}");
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), formatted)
}

/// The same as JSON.
pub(crate) fn to_json(millis: i64) -> Json {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(_) => format(millis).into(),
        Err(_) => millis.into(),
    }
}

/// A time for people: `2021-04-01 00:52:27`.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the command line shows it"))]
pub(crate) fn people(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => millis.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_with_and_without_a_colon_and_milliseconds_are_the_same_moment() {
        let moment = 1_617_238_347_109;
        for text in [
            "2021-04-01T08:52:27.109+0800",
            "2021-04-01T08:52:27.109+08:00",
            "2021-04-01T00:52:27.109Z",
            "1617238347109",
        ] {
            assert_eq!(parse(text).unwrap(), moment, "{text}");
        }
        assert_eq!(format(moment), "2021-04-01T00:52:27.109Z");
        assert_eq!(people(moment), "2021-04-01 00:52:27");
    }

    #[test]
    fn what_is_no_time_is_refused_and_a_far_one_prints_as_it_is() {
        for text in ["", "yesterday", "2021-04-01", "1e3", "99999999999999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(format(i64::MAX), i64::MAX.to_string());
        assert_eq!(to_json(i64::MIN), Json::from(i64::MIN));
    }
}
