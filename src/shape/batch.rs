//! A batch as lines of JSON: what the command line and the server read.

use super::line::{self, Change, Line};
use crate::event::limits::BATCH_EVENTS;
use crate::ledger::{Act, Write};
use crate::{Error, ErrorKind, Result};

/// The lines of a batch that were read so far. Each is an object with `op`, `collection` and `key`; operations on the same
/// record that follow each other are one write.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    writes: Vec<Write>,
    read: usize,
}

impl Lines {
    /// Reads a line. An empty one says nothing.
    ///
    /// # Errors
    /// What is wrong with it, with its number; `too_large` where it is one change too many.
    pub(crate) fn add(&mut self, text: &[u8]) -> Result<()> {
        self.read += 1;
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        let line = line::parse(text).map_err(|error| at_line(self.read, &error))?;
        self.join(line);
        if self.writes.len() > BATCH_EVENTS { Err(too_many()) } else { Ok(()) }
    }

    /// The writes of the lines.
    pub(crate) fn writes(self) -> Vec<Write> {
        self.writes
    }

    /// Adds a line: to the write before it where both are operations on fields of one record.
    fn join(&mut self, line: Line) {
        let Line { collection, key, change } = line;
        let edit = match change {
            Change::Record(act) => return self.writes.push(Write::new(collection, key, act)),
            Change::Field(edit) => edit,
        };
        match self.writes.last_mut() {
            Some(Write { collection: last, key: last_key, act: Act::Edit(edits), .. })
                if *last == collection && *last_key == key =>
            {
                edits.push(edit);
            }
            _ => self.writes.push(Write::new(collection, key, Act::Edit(vec![edit]))),
        }
    }
}

fn at_line(number: usize, error: &Error) -> Error {
    let message = format!("line {number}: {}; nothing was written", error.message());
    let named = Error::new(error.kind(), message).with_pointers(error.pointers().to_vec());
    match error.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
}

fn too_many() -> Error {
    Error::new(ErrorKind::TooLarge, format!("expected at most {BATCH_EVENTS} changes in a batch, got more"))
        .with_hint("split the file, or use `syncledger import`, which has no such limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_on_one_record_that_follow_each_other_are_one_write() {
        let mut lines = Lines::default();
        for text in [
            r#"{"op":"put","collection":"c","key":"1","path":"/a","value":1}"#,
            r#"{"op":"increment","collection":"c","key":"1","path":"/n","by":2}"#,
            "",
            r#"{"op":"put","collection":"c","key":"2","path":"/a","value":1}"#,
            r#"{"op":"delete","collection":"c","key":"2"}"#,
        ] {
            lines.add(text.as_bytes()).unwrap();
        }
        assert!(lines.add(b"{}").unwrap_err().message().starts_with("line 6: "));
        let writes = lines.writes();
        assert_eq!(writes.len(), 3);
        assert!(matches!(&writes[0].act, Act::Edit(edits) if edits.len() == 2));
        assert_eq!(writes[2].act, Act::Delete);
    }
}
