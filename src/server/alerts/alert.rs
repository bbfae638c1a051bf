//! An alert: one record for each rule and subject, whatever becomes of it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;

use super::rules::{Finding, Severity};
use crate::shape::time;

/// A time in milliseconds since 1970, which is written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) i64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        time::to_json(self.0).serialize(into)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        time::from_json(&Json::deserialize(from)?).map(Self).map_err(de::Error::custom)
    }
}

/// Whether something is still wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Open,
    Resolved,
}

/// What somebody was told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// What they were told last.
    pub(super) state: State,
    /// When they were last told that it is open.
    pub(super) at: Moment,
}

/// An alert, as its record of `$alerts` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) rule: String,
    pub(super) subject: String,
    pub(super) severity: Severity,
    pub(super) state: State,
    pub(super) summary: String,
    pub(super) error: Option<String>,
    pub(super) link: String,
    pub(super) remedy: String,
    /// Since when it is open, or was.
    pub(super) since: Moment,
    pub(super) last_seen: Moment,
    /// How often it was found since then.
    pub(super) count: u64,
    pub(super) resolved_at: Option<Moment>,
    /// By the name of who is told.
    #[serde(default)]
    pub(super) told: BTreeMap<String, Told>,
}

/// The key of an alert's record.
pub(super) fn key(rule: &str, subject: &str) -> String {
    format!("{rule}:{subject}")
}

impl Alert {
    /// What a finding makes of the alert that there was before, if any.
    pub(super) fn found(before: Option<Self>, finding: &Finding, link: String, now_ms: i64) -> Self {
        let now = Moment(now_ms);
        let going_on = before.as_ref().filter(|before| before.state == State::Open);
        let (since, count) = going_on.map_or((now, 0), |before| (before.since, before.count));
        Self {
            rule: finding.rule.to_owned(),
            subject: finding.subject.clone(),
            severity: finding.severity,
            state: State::Open,
            summary: finding.summary.clone(),
            error: finding.error.clone(),
            link,
            remedy: finding.remedy.to_owned(),
            since,
            last_seen: now,
            count: count + 1,
            resolved_at: None,
            told: before.map(|before| before.told).unwrap_or_default(),
        }
    }

    /// The same once nothing is wrong any more.
    pub(super) fn resolved(mut self, now_ms: i64) -> Self {
        (self.state, self.resolved_at) = (State::Resolved, Some(Moment(now_ms)));
        self
    }

    /// Whether somebody is to be told now: that it is open, at most so often; and once that it is resolved, who was told that it is
    /// open.
    pub(super) fn is_due(&self, who: &str, repeat_ms: i64, now_ms: i64) -> bool {
        let told = self.told.get(who);
        match self.state {
            State::Open => told.is_none_or(|told| now_ms.saturating_sub(told.at.0) >= repeat_ms),
            State::Resolved => told.is_some_and(|told| told.state == State::Open),
        }
    }

    /// Somebody was told.
    pub(super) fn tell(&mut self, who: &str, state: State, now_ms: i64) {
        let at = match (state, self.told.get(who)) {
            (State::Resolved, Some(told)) => told.at,
            _ => Moment(now_ms),
        };
        self.told.insert(who.to_owned(), Told { state, at });
    }

    /// Whether the record has to say something new. That it was found once more is no news: a record that is written each minute
    /// would fill the log.
    pub(super) fn is_news_after(&self, written: Option<&Self>) -> bool {
        let Some(written) = written else { return true };
        let comparable = |alert: &Self| {
            (alert.state, alert.severity, alert.since, alert.link.clone(), alert.remedy.clone(), alert.told.clone())
        };
        comparable(self) != comparable(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn finding() -> Finding {
        Finding {
            rule: "violations",
            subject: "notes".into(),
            severity: Severity::Warning,
            summary: "broken".into(),
            error: None,
            remedy: "mend it",
        }
    }

    fn found(before: Option<Alert>, now_ms: i64) -> Alert {
        Alert::found(before, &finding(), "/x".into(), now_ms)
    }

    #[test]
    fn who_is_told_is_told_once_an_hour_while_it_is_open_and_once_when_it_is_resolved() {
        let mut alert = found(None, 0);
        assert!(alert.is_due("ops", HOUR, 0));
        alert.tell("ops", State::Open, 0);
        assert!(!alert.is_due("ops", HOUR, 0) && alert.is_due("others", HOUR, 0));
        alert = found(Some(alert), HOUR - 1);
        assert!(!alert.is_due("ops", HOUR, HOUR - 1) && alert.is_due("ops", HOUR, HOUR));
        alert = alert.resolved(HOUR);
        assert!(alert.is_due("ops", HOUR, HOUR) && !alert.is_due("others", HOUR, HOUR));
        alert.tell("ops", State::Resolved, HOUR);
        assert!(!alert.is_due("ops", HOUR, 99 * HOUR));
    }

    #[test]
    fn what_comes_back_within_the_hour_is_told_of_when_the_hour_is_over() {
        let mut alert = found(None, 0);
        alert.tell("ops", State::Open, 0);
        alert = alert.resolved(10);
        alert.tell("ops", State::Resolved, 10);
        alert = found(Some(alert), 20);
        assert_eq!((alert.since, alert.count, alert.resolved_at), (Moment(20), 1, None));
        assert!(!alert.is_due("ops", HOUR, 20) && alert.is_due("ops", HOUR, HOUR));
        // And what is gone before it was told of needs no word.
        assert!(!alert.resolved(30).is_due("ops", HOUR, 2 * HOUR));
    }

    #[test]
    fn the_record_holds_the_hour_and_reads_back_as_it_was() {
        let mut alert = found(found(None, 5).into(), 7);
        alert.tell("ops", State::Open, 7);
        let json = serde_json::to_value(&alert).unwrap();
        assert_eq!(json["told"]["ops"]["at"], "1970-01-01T00:00:00.007Z");
        assert_eq!(
            (&json["state"], &json["count"], &json["since"]),
            (&"open".into(), &2.into(), &"1970-01-01T00:00:00.005Z".into())
        );
        assert_eq!(serde_json::from_value::<Alert>(json).unwrap(), alert);
    }

    #[test]
    fn being_found_once_more_is_no_news() {
        let alert = found(None, 0);
        let again = found(Some(alert.clone()), 60_000);
        assert!(alert.is_news_after(None) && !again.is_news_after(Some(&alert)));
        assert!(again.clone().resolved(1).is_news_after(Some(&again)));
        let mut told = again.clone();
        told.tell("ops", State::Open, 1);
        assert!(told.is_news_after(Some(&again)));
    }
}
