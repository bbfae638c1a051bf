//! `batch`: many changes of many records, all or nothing.

mod line;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::input;
use crate::cli::options::WriteOptions;
use crate::cli::stop::{Outcome, Stop, at_file};
use crate::event::limits::{BATCH_EVENTS, BLOB_BYTES};
use crate::ledger::{Act, Write};
use crate::{Error, ErrorKind};
use line::{Change, Line};

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
        let mut writes = Vec::new();
        for (index, text) in file.split(b'\n').enumerate() {
            let text = text.map_err(at_file(&self.file))?;
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line = line::parse(&text).map_err(|error| at_line(index + 1, &error))?;
            add(&mut writes, line);
            if writes.len() > BATCH_EVENTS {
                return Err(too_many());
            }
        }
        if writes.is_empty() { Err(Stop::usage("the batch is empty")) } else { Ok(writes) }
    }
}

/// Adds a line: to the write before it where both are operations on fields of one record.
fn add(writes: &mut Vec<Write>, line: Line) {
    let Line { collection, key, change } = line;
    let edit = match change {
        Change::Record(act) => return writes.push(Write::new(collection, key, act)),
        Change::Field(edit) => edit,
    };
    match writes.last_mut() {
        Some(Write { collection: last, key: last_key, act: Act::Edit(edits), .. })
            if *last == collection && *last_key == key =>
        {
            edits.push(edit);
        }
        _ => writes.push(Write::new(collection, key, Act::Edit(vec![edit]))),
    }
}

fn at_line(number: usize, error: &Error) -> Stop {
    let message = format!("line {number}: {}; nothing was written", error.message());
    let named = Error::new(error.kind(), message).with_pointers(error.pointers().to_vec());
    match error.hint() {
        Some(hint) => named.with_hint(hint).into(),
        None => named.into(),
    }
}

fn too_many() -> Stop {
    Error::new(ErrorKind::TooLarge, format!("expected at most {BATCH_EVENTS} changes in a batch, got more"))
        .with_hint("split the file, or use `syncledger import`, which has no such limit")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_on_one_record_that_follow_each_other_are_one_write() {
        let mut writes = Vec::new();
        for text in [
            r#"{"op":"put","collection":"c","key":"1","path":"/a","value":1}"#,
            r#"{"op":"increment","collection":"c","key":"1","path":"/n","by":2}"#,
            r#"{"op":"put","collection":"c","key":"2","path":"/a","value":1}"#,
            r#"{"op":"delete","collection":"c","key":"2"}"#,
        ] {
            add(&mut writes, line::parse(text.as_bytes()).unwrap());
        }
        assert_eq!(writes.len(), 3);
        assert!(matches!(&writes[0].act, Act::Edit(edits) if edits.len() == 2));
        assert_eq!(writes[2].act, Act::Delete);
    }
}
