//! What every command has at hand: the global options, the output, and the store.

use std::path::Path as FilePath;

use super::args::Globals;
use super::output::Output;
use super::stop::{Outcome, Stop};
use crate::ErrorKind;
use crate::ledger::{Ledger, Options, Store};

/// One run of the program.
pub(crate) struct App {
    pub(crate) globals: Globals,
    pub(crate) out: Output,
}

impl App {
    /// A run with these options.
    pub(crate) fn new(globals: Globals) -> Self {
        let out = Output::new(globals.json, globals.quiet);
        Self { globals, out }
    }

    /// The store of `--store`, which must exist.
    pub(crate) fn store(&self) -> Outcome<Store> {
        open_store(&self.globals.store)
    }

    /// The ledger of `--ledger` in it, which must exist.
    pub(crate) fn ledger(&self) -> Outcome<Ledger> {
        find_ledger(&self.store()?, &self.globals.ledger)
    }
}

/// Opens the store of a directory, which must exist.
pub(crate) fn open_store(dir: &FilePath) -> Outcome<Store> {
    let options = Options { create: false, ..Options::default() };
    Store::open_with(dir, options).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Stop::no_store(dir),
        _ => error.into(),
    })
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
