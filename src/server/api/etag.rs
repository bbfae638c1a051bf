//! Versions of records as entity tags, and the conditions of requests on them.
//!
//! A tag is made of a record's heads: `"<event>.<event>"`. Where another policy than the usual one decides what is shown, a hash of
//! that policy follows after `-`: the same heads then show something else. Only the heads matter to an edit.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::ask::malformed;
use crate::event::limits::PARENTS;
use crate::event::{EventId, json};
use crate::projection::Policy;
use crate::{Error, ErrorKind, Result};

/// The tag of a record with these heads, as a policy shows it.
pub(super) fn of_shown(heads: &[EventId], policy: &Policy) -> String {
    let heads = joined(heads);
    if *policy == Policy::default() {
        return format!("\"{heads}\"");
    }
    let hash = blake3::hash(json::canonical(&policy.to_json()).as_bytes()).to_hex();
    let hash: String = hash.chars().take(16).collect();
    format!("\"{heads}-{hash}\"")
}

fn joined(heads: &[EventId]) -> String {
    heads.iter().map(EventId::to_string).collect::<Vec<_>>().join(".")
}

/// The header of a tag.
pub(super) fn header(tag: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((header::ETAG, HeaderValue::from_str(tag).ok()?))
}

/// The heads that a tag names, with or without its quotes.
///
/// # Errors
/// `client` where it is no tag of a record.
pub(super) fn heads(name: &str, tag: &str) -> Result<Vec<EventId>> {
    let fault = || malformed(name, tag, "an ETag of the record");
    let bare = tag.trim().trim_matches('"');
    let bare = bare.split_once('-').map_or(bare, |(heads, _)| heads);
    if bare.is_empty() {
        return Ok(Vec::new());
    }
    let mut heads = bare.split('.').map(str::parse).collect::<Result<Vec<EventId>, _>>().map_err(|_| fault())?;
    heads.sort_unstable();
    heads.dedup();
    if heads.len() > PARENTS { Err(fault()) } else { Ok(heads) }
}

/// Under which condition a change is made.
#[derive(Debug, PartialEq)]
pub(super) enum Guard {
    /// Under none.
    None,
    /// There is such a record.
    Exists,
    /// There is none.
    Absent,
    /// Its heads are one of these.
    OneOf(Vec<Vec<EventId>>),
}

impl Guard {
    /// The condition that the headers of a change state.
    ///
    /// # Errors
    /// `client` where they cannot be read, or contradict each other.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let (wanted, unwanted) = (tags(headers, &header::IF_MATCH)?, tags(headers, &header::IF_NONE_MATCH)?);
        match (wanted, unwanted) {
            (None, None) => Ok(Self::None),
            (Some(tags), None) if tags == ["*"] => Ok(Self::Exists),
            (None, Some(tags)) if tags == ["*"] => Ok(Self::Absent),
            // A weak tag never matches one of another state or its own.
            (Some(tags), None) => {
                let known = tags.iter().filter(|tag| !tag.starts_with("W/"));
                Ok(Self::OneOf(known.filter_map(|tag| heads("If-Match", tag).ok()).collect()))
            }
            _ => Err(Error::new(
                ErrorKind::Client,
                "expected `If-Match`, or `If-None-Match: *`, of a change, and one of them",
            )),
        }
    }
}

/// Whether the headers say that the reader has this version already.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> Result<bool> {
    let known = tags(headers, &header::IF_NONE_MATCH)?.unwrap_or_default();
    Ok(known.iter().any(|known| known == "*" || known.trim_start_matches("W/") == tag))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>> {
    let fault = |_| Error::new(ErrorKind::Client, format!("expected entity tags in `{name}`"));
    let lines =
        headers.get_all(name).iter().map(|line| line.to_str()).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let tags = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|tag| !tag.is_empty());
    let tags: Vec<_> = tags.map(str::to_owned).collect();
    Ok(Some(tags).filter(|_| !lines.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Strategy;

    #[test]
    fn a_tag_names_the_heads_and_another_policy_makes_another_tag() {
        let events = [EventId([1; 32]), EventId([2; 32])];
        let usual = of_shown(&events, &Policy::default());
        let other = of_shown(&events, &Policy::of(Strategy::Manual));
        assert_ne!(usual, other);
        for tag in [usual.as_str(), &other, usual.trim_matches('"')] {
            assert_eq!(heads("base", tag).unwrap(), events);
        }
        assert_eq!(heads("base", "\"\"").unwrap(), []);
        assert!(heads("base", "\"abc\"").is_err());
    }

    #[test]
    fn the_headers_of_a_change_state_its_condition() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            Guard::of(&pairs.collect())
        };
        assert_eq!(of(&[]).unwrap(), Guard::None);
        assert_eq!(of(&[(header::IF_MATCH, "*")]).unwrap(), Guard::Exists);
        assert_eq!(of(&[(header::IF_NONE_MATCH, "*")]).unwrap(), Guard::Absent);
        assert_eq!(of(&[(header::IF_MATCH, "\"other\", W/\"\"")]).unwrap(), Guard::OneOf(vec![]));
        assert!(of(&[(header::IF_NONE_MATCH, "\"\"")]).is_err());
        assert!(of(&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")]).is_err());
    }
}
