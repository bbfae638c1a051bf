//! `syncledger`: an embeddable, event-sourced sync ledger with field-level merge.

#[cfg(feature = "cli")]
pub mod cli;
pub mod document;
pub mod error;
pub mod event;
pub mod ledger;
pub mod projection;

pub use error::{Error, ErrorKind, Result};
