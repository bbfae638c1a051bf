//! A circuit breaker: after failures in a row nothing is tried for a while, then one attempt.
//!
//! Pure: the time is an argument.

use crate::{Error, ErrorKind, Result};

/// When a [`Circuit`] opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaking {
    /// After how many failures in a row it opens.
    pub after_failures: u32,
    /// How long nothing is tried then, in milliseconds.
    pub pause_ms: u64,
}

impl Default for Breaking {
    /// After 5 failures, for 5 minutes.
    fn default() -> Self {
        Self { after_failures: 5, pause_ms: 300_000 }
    }
}

/// Whether attempts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Attempts are made.
    Closed,
    /// None is made before this time, in milliseconds since 1970.
    Open(u64),
    /// One attempt decides.
    HalfOpen,
}

impl CircuitState {
    /// Its name: `closed`, `open`, `half_open`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Counts failures in a row, and suspends attempts after too many.
#[derive(Clone, Debug, Default)]
pub struct Circuit {
    breaking: Breaking,
    failures: u32,
    /// Until when nothing is tried.
    opened_until: Option<u64>,
}

impl Circuit {
    /// A closed one.
    #[must_use]
    pub fn new(breaking: Breaking) -> Self {
        Self { breaking, ..Self::default() }
    }

    /// How many attempts failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether attempts are made at a time, in milliseconds since 1970.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> CircuitState {
        match self.opened_until {
            None => CircuitState::Closed,
            // Further away than the pause is long, the clock was set back meanwhile: then it is not known how much of it is left.
            Some(until) if now_ms < until && until - now_ms <= self.breaking.pause_ms => CircuitState::Open(until),
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// Whether an attempt may be made now.
    ///
    /// # Errors
    /// `circuit_open`, with when it will be.
    pub fn check(&self, now_ms: u64) -> Result<()> {
        let CircuitState::Open(until) = self.state(now_ms) else { return Ok(()) };
        let seconds = until.saturating_sub(now_ms).div_ceil(1_000);
        let message = format!("{} attempts in a row have failed: none is made for {seconds} s", self.failures);
        Err(Error::new(ErrorKind::CircuitOpen, message).with_hint("wait, or try now by hand"))
    }

    /// An attempt was good.
    pub fn succeeded(&mut self) {
        (self.failures, self.opened_until) = (0, None);
    }

    /// An attempt failed at a time. One that was let through half open opens it again.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.breaking.after_failures.max(1) {
            self.opened_until = Some(now_ms.saturating_add(self.breaking.pause_ms));
        }
    }

    /// Somebody wants an attempt now.
    pub fn let_through(&mut self) {
        self.opened_until = self.opened_until.map(|_| 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_at(now: u64) -> Circuit {
        let mut circuit = Circuit::default();
        (0..5).for_each(|_| circuit.failed(now));
        circuit
    }

    #[test]
    fn it_opens_after_five_failures_in_a_row_and_not_before() {
        let mut circuit = Circuit::default();
        (0..4).for_each(|_| circuit.failed(7));
        assert_eq!(circuit.state(7), CircuitState::Closed);
        circuit.succeeded();
        (0..4).for_each(|_| circuit.failed(7));
        assert!(circuit.check(7).is_ok());
        circuit.failed(7);
        assert_eq!(circuit.state(7), CircuitState::Open(300_007));
        let fault = circuit.check(7).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::CircuitOpen);
        assert!(fault.message().contains("300 s"), "{fault}");
    }

    #[test]
    fn after_five_minutes_one_attempt_decides() {
        let mut circuit = broken_at(0);
        assert_eq!(circuit.state(299_999), CircuitState::Open(300_000));
        assert_eq!(circuit.state(300_000), CircuitState::HalfOpen);
        circuit.failed(300_000);
        assert_eq!(circuit.state(300_001), CircuitState::Open(600_000));
        circuit.succeeded();
        assert_eq!((circuit.state(300_001), circuit.failures()), (CircuitState::Closed, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_it_open_for_longer() {
        let circuit = broken_at(90_000_000);
        assert_eq!(circuit.state(90_000_000), CircuitState::Open(90_300_000));
        assert_eq!(circuit.state(3_600_000), CircuitState::HalfOpen);
    }

    #[test]
    fn whoever_wants_an_attempt_now_gets_one() {
        let mut circuit = broken_at(5);
        circuit.let_through();
        assert_eq!(circuit.state(6), CircuitState::HalfOpen);
        circuit.failed(6);
        assert_eq!(circuit.state(6), CircuitState::Open(300_006));
        let mut closed = Circuit::default();
        closed.let_through();
        assert_eq!(closed.state(0), CircuitState::Closed);
    }
}
