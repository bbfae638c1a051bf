//! `batch`: many changes of many records, all or nothing.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::input;
use crate::cli::options::WriteOptions;
use crate::cli::stop::{Outcome, Stop, at_file};
use crate::event::limits::BLOB_BYTES;
use crate::ledger::Write;
use crate::shape::batch::Lines;

/// Make many changes of many records, all or nothing. Each line of the file is an object with `op`, `collection` and
/// `key`: put (with `value`), patch (with `patch`), delete, undelete, or an operation on a field such as
/// {"op":"increment","path":"/votes","by":1}. Operations on the same record that follow each other are one event, and a
/// later one finds by its path the list or text that an earlier one made.
#[derive(Debug, Args)]
pub(crate) struct Batch {
    /// The file, or - for stdin.
    file: PathBuf,
    #[command(flatten)]
    write: WriteOptions,
}

impl Batch {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let writes = self.writes(&app.caller)?;
        if self.write.dry_run {
            return write::plan(app, &ledger, writes, &self.write.context());
        }
        let receipt = ledger.write_all(writes, &self.write.context())?;
        write::print(app, &receipt)
    }

    fn writes(&self, caller: &Caller) -> Outcome<Vec<Write>> {
        // A batch is held in memory whole, so a file beyond what one may hold is refused before it is read.
        let file = BufReader::new(input::open(caller, &self.file)?.take(BLOB_BYTES));
        let mut lines = Lines::default();
        for text in file.split(b'\n') {
            lines.add(&text.map_err(at_file(&self.file))?)?;
        }
        let writes = lines.writes();
        if writes.is_empty() { Err(Stop::usage("the batch is empty")) } else { Ok(writes) }
    }
}
