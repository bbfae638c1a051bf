//! `syncledger`: an embeddable, event-sourced sync ledger with field-level merge.

#[cfg(not(target_arch = "wasm32"))]
pub mod blob;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(not(target_arch = "wasm32"))]
pub mod disk;
pub mod document;
pub mod error;
pub mod event;
#[cfg(not(target_arch = "wasm32"))]
pub mod journal;
#[cfg(not(target_arch = "wasm32"))]
pub mod ledger;
pub mod projection;

pub use error::{Error, ErrorKind, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use ledger::{Ledger, Store};
