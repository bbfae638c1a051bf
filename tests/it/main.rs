//! The integration tests, linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and its helpers are no tests to clippy"
)]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside sees this crate")]

mod archives;
#[cfg(feature = "tokio")]
mod asynchronous;
mod backups;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_backups;
#[cfg(feature = "cli")]
mod cli_commands;
#[cfg(feature = "cli")]
mod cli_control;
#[cfg(feature = "cli")]
mod cli_refusals;
#[cfg(feature = "cli")]
mod cli_schemas;
#[cfg(all(feature = "client", feature = "server"))]
mod client;
#[cfg(all(unix, feature = "cli", feature = "client", feature = "server"))]
mod client_program;
mod codec;
#[cfg(all(unix, feature = "cli", feature = "server"))]
mod configuration;
mod convergence;
mod crashes;
#[cfg(feature = "cli")]
mod demo;
mod drafting;
mod edges;
mod fixtures;
#[cfg(feature = "server")]
mod fuzzing;
#[cfg(feature = "cli")]
mod git;
mod histories;
mod hostile;
mod ledger;
mod merging;
mod naive;
mod oracle;
mod priorities;
#[cfg(all(feature = "cli", feature = "client", feature = "server"))]
mod readme;
mod real_edits;
#[cfg(feature = "server")]
mod receivers;
mod reference;
#[cfg(all(feature = "client", feature = "server"))]
mod rekeying;
mod replicas;
mod schemas;
mod sealing;
#[cfg(feature = "server")]
mod served;
#[cfg(feature = "server")]
mod server_alerts;
#[cfg(feature = "server")]
mod server_classic;
#[cfg(feature = "server")]
mod server_devices;
#[cfg(feature = "server")]
mod server_limits;
#[cfg(feature = "server")]
mod server_operations;
#[cfg(feature = "server")]
mod server_records;
#[cfg(feature = "server")]
mod server_security;
mod server_webhooks;
mod sessions;
mod settling;
#[cfg(feature = "client")]
mod simulation;
mod spans;
mod texts;
mod tidy;
mod totality;
mod trying;
mod work;
mod workflow;
