//! `put` and `patch`: writes a record, or some of its fields.

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::input;
use crate::cli::options::{BaseOptions, WriteOptions};
use crate::cli::stop::{Outcome, Stop};
use crate::ledger::{Act, Edit};

/// Make a record this object. Only fields that differ from what is there become edits.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    /// The record: JSON, @FILE, or - for stdin.
    #[arg(value_name = "JSON")]
    value: String,
    #[command(flatten)]
    base: BaseOptions,
    #[command(flatten)]
    write: WriteOptions,
}

impl Put {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let act = Act::Put(input::json(&app.caller, &self.value)?);
        write::one(app, (self.collection, self.key), act, &self.write, &self.base)
    }
}

/// Change some fields of a record. With JSON as a merge patch (RFC 7396: null removes), or field by field.
#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// The collection.
    collection: String,
    /// The record's key.
    key: String,
    /// The merge patch: JSON, @FILE, or - for stdin.
    #[arg(value_name = "JSON")]
    patch: Option<String>,
    /// Set one field; here null is a value. May be repeated.
    #[arg(long, value_name = "POINTER=JSON", conflicts_with = "patch")]
    set: Vec<String>,
    #[command(flatten)]
    base: BaseOptions,
    #[command(flatten)]
    write: WriteOptions,
}

impl Patch {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let act = match &self.patch {
            Some(argument) => Act::Patch(input::json(&app.caller, argument)?),
            None if self.set.is_empty() => return Err(Stop::usage("expected a merge patch, or --set POINTER=JSON")),
            None => Act::Edit(self.edits(&app.caller)?),
        };
        write::one(app, (self.collection, self.key), act, &self.write, &self.base)
    }

    fn edits(&self, caller: &Caller) -> Outcome<Vec<Edit>> {
        let edit = |set: &String| input::assignment(caller, set).map(|(path, value)| Edit::Put(path, value));
        self.set.iter().map(edit).collect()
    }
}
