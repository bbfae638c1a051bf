//! In a program without the server or the client the demonstration has no server.

use std::path::Path as FilePath;

use super::stage::Replica;
use crate::ledger::Ledger;
use crate::{Error, ErrorKind, Result};

pub(super) enum Served {}

impl Served {
    pub(super) fn start(_: &FilePath, _: &Replica, _: &Replica) -> Result<Self> {
        let fault = Error::new(ErrorKind::Client, "this program was built without the sync server or its client");
        Err(fault.with_hint("leave out --server"))
    }

    pub(super) fn ledger(&self) -> &Ledger {
        match *self {}
    }

    pub(super) fn url(&self) -> &str {
        match *self {}
    }

    pub(super) fn exchange(&self) -> Result<(u64, u64)> {
        match *self {}
    }

    pub(super) fn waiting(&self) -> Result<u64> {
        match *self {}
    }
}
