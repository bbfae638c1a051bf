//! `syncledger`: an embeddable, event-sourced sync ledger with field-level merge.

pub mod document;
pub mod error;
pub mod event;
pub mod projection;

pub use error::{Error, ErrorKind, Result};
