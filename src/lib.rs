//! An embeddable, event-sourced sync ledger with field-level merge.
//!
//! Every change of every record is appended as an immutable event to a durable log, and materialised into one Automerge
//! document per record. Edits made apart merge field by field; what really conflicts stays visible as a value, and
//! *strategies* are projections over the same events: they can be changed afterwards, and no losing value is ever lost.
//!
//! It is not a database to query, and not a server: a service embeds a [`Ledger`], and replicas exchange its events in
//! sessions ([`replication`]), over whatever carries their messages.
//!
//! ```
//! use serde_json::json;
//! use syncledger::Store;
//! use syncledger::ledger::{Context, Options, Which};
//!
//! let office = Store::in_memory(Options::default())?.create_ledger("main")?;
//! let laptop = Store::in_memory(Options::default())?.create_ledger("main")?;
//! let (ann, ravi) = (Context::from_source("app").by("ann"), Context::from_source("app").by("ravi"));
//!
//! office.put("issues", "EE-1", json!({ "title": "Crash", "status": "open" }), &ann)?;
//! laptop.pull(&office)?;
//!
//! // Apart, they edit different fields, and one field both.
//! office.patch("issues", "EE-1", json!({ "title": "Crash at start", "status": "done" }), &ann)?;
//! laptop.patch("issues", "EE-1", json!({ "priority": 1, "status": "blocked" }), &ravi)?;
//! office.pull(&laptop)?;
//! laptop.pull(&office)?;
//!
//! let record = office.get("issues", "EE-1")?.unwrap();
//! assert_eq!(record.value["title"], "Crash at start");
//! assert_eq!(record.value["priority"], 1);
//! let conflicts = office.conflicts(None, Which::Open, None)?;
//! assert_eq!(conflicts[0].conflict.path, "/status");
//! assert_eq!(office.digest()?, laptop.digest()?);
//! # Ok::<(), syncledger::Error>(())
//! ```
//!
//! The layers, each using only those below it: `cli`, [`ledger`], [`projection`], [`document`], [`event`], [`error`];
//! beside them [`merge`], which needs no store, [`schema`], [`segment`], [`replication`], and [`journal`] and [`blob`], the
//! storage seams. `docs/architecture.md` tells the rest.

#![cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, unused_imports, reason = "without the ledger some of what the pure layers do has no caller")
)]

#[cfg(not(target_arch = "wasm32"))]
pub mod blob;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(all(feature = "client", not(target_arch = "wasm32")))]
pub mod client;
#[cfg(not(target_arch = "wasm32"))]
pub mod disk;
pub mod document;
pub mod error;
pub mod event;
#[cfg(not(target_arch = "wasm32"))]
pub mod journal;
#[cfg(not(target_arch = "wasm32"))]
pub mod ledger;
pub mod merge;
pub mod projection;
#[cfg(not(target_arch = "wasm32"))]
pub mod replication;
#[cfg(any(feature = "client", feature = "server"))]
#[cfg_attr(not(feature = "client"), expect(unreachable_pub, reason = "what is public of it is the client's"))]
mod retry;
pub mod schema;
#[cfg(not(target_arch = "wasm32"))]
pub mod segment;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "cli", feature = "server"))]
mod shape;
#[cfg(not(target_arch = "wasm32"))]
mod sync;
#[cfg(all(any(test, feature = "testing"), not(target_arch = "wasm32")))]
pub mod testing;

pub use error::{Error, ErrorKind, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use ledger::{Ledger, Store};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
