//! The integration tests, linked once.

mod ledger;
