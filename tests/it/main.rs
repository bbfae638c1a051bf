//! The integration tests, linked once.

#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_commands;
#[cfg(feature = "cli")]
mod cli_refusals;
#[cfg(feature = "cli")]
mod demo;
