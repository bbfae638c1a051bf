//! The integration tests, linked once.

#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_commands;
#[cfg(feature = "cli")]
mod cli_refusals;
mod codec;
mod convergence;
#[cfg(feature = "cli")]
mod demo;
mod histories;
mod ledger;
mod oracle;
mod reference;
