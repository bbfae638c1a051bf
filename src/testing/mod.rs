//! A kit for the tests of those who embed the ledger: random histories, replicas that get them in any order, and a check
//! that a custom strategy decides alike everywhere. Behind the feature `testing`.
//!
//! A custom strategy must be a pure function of the dispute that it is asked to decide, or replicas that hold the same
//! events show different records. [`assert_convergent_with`] catches one that depends on the order in which it was asked,
//! on the clock, or on chance:
//!
//! ```
//! use syncledger::projection::{Policy, Resolvers, Strategy, Verdict};
//! use syncledger::testing::assert_convergent_with;
//!
//! // The longest text wins.
//! fn resolvers() -> Resolvers {
//!     let mut resolvers = Resolvers::default();
//!     resolvers.register("longest", |dispute| {
//!         let length = |place: &usize| dispute.candidates[*place].value.as_ref().map_or(0, |value| value.to_string().len());
//!         (0..dispute.candidates.len()).max_by_key(length).map_or(Verdict::Undecided, Verdict::Take)
//!     });
//!     resolvers
//! }
//!
//! assert_convergent_with(&Policy::of(Strategy::Custom("longest".into())), resolvers);
//! ```
//!
//! [`History`] makes the events of several devices that edit one record apart, from a seed: a property test takes any
//! `u64` for one. Of a hundred, most hold conflicts, and a tenth or more forked writers, lists, texts, counters, sets,
//! deletions that edits dispute, and resolutions. [`Network`] delivers them to replicas late, twice, out of order, and
//! not at all while it is partitioned.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and this is a kit for tests"
)]

mod convergence;
mod history;
mod network;
mod rng;

pub use convergence::{Cause, Convergence, Divergence, Met, assert_convergent, assert_convergent_with};
pub use history::{FIELDS, History, Makes, Replica, any_value, op};
pub use network::Network;
pub use rng::Rng;

use crate::event::{Body, Event, LedgerId, Op, Timestamp, WriterId};
use crate::projection::RecordId;

/// The ledger of every history.
pub const LEDGER: LedgerId = LedgerId([7; 16]);

/// The record of every history.
#[must_use]
pub fn record() -> RecordId {
    RecordId { ledger: LEDGER, collection: "tasks".into(), key: "T-1".into() }
}

/// A valid event of these operations, the first of its writer and record: `app` made it, one second after 1970 began.
/// Tests change what they are about: `Event { source: "jira".into(), ..event(ops) }`.
#[must_use]
pub fn event(ops: Vec<Op>) -> Event {
    let RecordId { collection, key, .. } = record();
    Event {
        collection,
        key,
        writer: WriterId([1; 16]),
        sequence: 1,
        lane: 0,
        nth: 1,
        parents: Vec::new(),
        at: Timestamp::from_millis(1_000),
        occurred_at: None,
        source: "app".into(),
        principal: None,
        reason: None,
        run: None,
        delivery: false,
        idempotency: None,
        batch: None,
        resolves: None,
        reverts: None,
        body: Body::Ops(ops),
    }
}

#[cfg(test)]
mod tests;
