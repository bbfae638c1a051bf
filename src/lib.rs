//! `syncledger`: an embeddable, event-sourced sync ledger with field-level merge.

pub mod error;
pub mod event;

pub use error::{Error, ErrorKind, Result};
