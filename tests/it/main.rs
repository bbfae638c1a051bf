//! The integration tests, linked once.

mod codec;
mod convergence;
mod histories;
mod ledger;
mod oracle;
mod reference;
