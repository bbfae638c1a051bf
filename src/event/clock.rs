//! The hybrid logical clock: wall time that never runs backwards along an event's past.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014), with one difference: receiving an event alone does not move
//! the clock; only its being a *parent* of the next own event does.

use serde::{Deserialize, Serialize};

/// A moment of the hybrid logical clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z; negative before.
    pub millis: i64,
    /// Tells apart, and orders, what happened within one millisecond.
    pub counter: u32,
}

impl Timestamp {
    /// The last moment there is; what follows it is equal to it.
    pub const MAX: Self = Self { millis: i64::MAX, counter: u32::MAX };

    /// The first moment of a millisecond.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self { millis, counter: 0 }
    }

    /// The moment right after this one; [`Timestamp::MAX`] follows itself.
    #[must_use]
    pub fn next(self) -> Self {
        match (self.counter.checked_add(1), self.millis.checked_add(1)) {
            (Some(counter), _) => Self { counter, ..self },
            (None, Some(millis)) => Self { millis, counter: 0 },
            (None, None) => Self::MAX,
        }
    }

    /// Whether an event stamped `self` may have a parent stamped `parent`: later, or both at the maximum.
    #[must_use]
    pub fn may_follow(self, parent: Self) -> bool {
        self > parent || self == Self::MAX
    }

    /// The stamp of a new event: `now_ms`, but after every one of `past` (the writer's own last event on the record
    /// and all parents).
    #[must_use]
    pub fn stamp(now_ms: i64, past: impl IntoIterator<Item = Self>) -> Self {
        past.into_iter().map(Self::next).fold(Self::from_millis(now_ms), Self::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_now_unless_the_past_is_later() {
        let past = Timestamp { millis: 50, counter: 7 };
        assert_eq!(Timestamp::stamp(60, [past]), Timestamp::from_millis(60));
        assert_eq!(Timestamp::stamp(40, [past]), Timestamp { millis: 50, counter: 8 });
        assert_eq!(Timestamp::stamp(50, [past]), Timestamp { millis: 50, counter: 8 });
    }

    #[test]
    fn the_clock_saturates_and_its_maximum_may_follow_itself() {
        assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
        assert!(Timestamp::MAX.may_follow(Timestamp::MAX));
        assert!(!Timestamp::from_millis(1).may_follow(Timestamp::from_millis(1)));
        let full = Timestamp { millis: 1, counter: u32::MAX };
        assert_eq!(full.next(), Timestamp::from_millis(2));
    }
}
