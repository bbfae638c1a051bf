//! `delete` and `undelete`.

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::options::{BaseOptions, WriteOptions};
use crate::cli::stop::Outcome;
use crate::ledger::Act;

/// Delete a record. Its history stays, and `undelete` brings it back.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    #[command(flatten)]
    base: BaseOptions,
    #[command(flatten)]
    write: WriteOptions,
}

impl Delete {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        write::one(app, (self.collection, self.key), Act::Delete, &self.write, &self.base)
    }
}

/// Bring a deleted record back as it was.
#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    #[command(flatten)]
    base: BaseOptions,
    #[command(flatten)]
    write: WriteOptions,
}

impl Undelete {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        write::one(app, (self.collection, self.key), Act::Undelete, &self.write, &self.base)
    }
}
