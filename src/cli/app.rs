//! What every command has at hand: the global options, the caller, the output, and the store.

use std::path::Path as FilePath;

use super::args::Globals;
use super::caller::Caller;
use super::output::Output;
use super::stop::{Outcome, Stop};
use crate::ErrorKind;
use crate::ledger::{Ledger, Options, Store};

/// One run of a command.
pub(crate) struct App {
    pub(crate) globals: Globals,
    pub(crate) caller: Caller,
    pub(crate) out: Output,
}

impl App {
    /// A run with these options, for this caller.
    pub(crate) fn new(globals: Globals, caller: Caller) -> Self {
        let out = Output::new(globals.json, globals.quiet, &caller);
        Self { globals, caller, out }
    }

    /// The store of `--store`, which must exist. The caller's is that store already, wherever the path leads here.
    pub(crate) fn store(&self) -> Outcome<Store> {
        self.caller.store.clone().map_or_else(|| self.open_store(&self.globals.store), Ok)
    }

    /// The store of `--store`, made where there is none.
    pub(crate) fn store_or_create(&self) -> Outcome<Store> {
        let open = || Ok(Store::open(self.caller.path(&self.globals.store))?);
        self.caller.store.clone().map_or_else(open, Ok)
    }

    /// The ledger of `--ledger` in it, which must exist.
    pub(crate) fn ledger(&self) -> Outcome<Ledger> {
        let ledger = find_ledger(&self.store()?, &self.globals.ledger)?;
        // Whatever the client's notes look like, edits can be made.
        #[cfg(feature = "client")]
        if let Err(fault) = crate::client::correct_clock(&ledger) {
            tracing::warn!(code = fault.code(), "edits are stamped by the clock as it is: {fault}");
        }
        Ok(ledger)
    }

    /// Opens the store of a directory, which must exist.
    pub(crate) fn open_store(&self, dir: &FilePath) -> Outcome<Store> {
        let options = Options { create: false, ..Options::default() };
        Store::open_with(self.caller.path(dir), options).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Stop::no_store(dir),
            _ => error.into(),
        })
    }
}

/// The ledger of this name, which must exist.
pub(crate) fn find_ledger(store: &Store, name: &str) -> Outcome<Ledger> {
    store.ledger(name).map_err(|error| {
        let is_missing = error.kind() == ErrorKind::NotFound;
        let stop = Stop::from(error);
        if is_missing {
            stop.hint(format!("see `syncledger ledger list`, or `syncledger ledger create {name}`"))
        } else {
            stop
        }
    })
}
