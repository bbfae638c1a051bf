//! The integration tests, linked once.
#![allow(unreachable_pub, missing_docs, clippy::disallowed_methods)]

mod codec;
mod convergence;
mod fixtures;
mod histories;
mod oracle;
mod reference;
mod totality;
