//! The integration tests, linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its helpers are no tests to clippy"
)]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside sees this crate")]

mod codec;
mod convergence;
mod fixtures;
mod histories;
mod ledger;
mod oracle;
mod reference;
mod totality;
