//! The records of a file, one by one, whatever its form.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value as Json};

use crate::cli::stop::Outcome;
use crate::event::json;
use crate::event::limits::BLOB_BYTES;
use crate::{Error, ErrorKind};

/// A line's number, from 1, and its record or why it is none.
type Line = (u64, Result<Json, Error>);

/// The records of a file. Never more than one is in memory.
pub(super) enum Lines {
    Jsonl { reader: BufReader<Box<dyn Read>>, number: u64, is_broken: bool },
    Csv { reader: Box<csv::Reader<Box<dyn Read>>>, header: csv::StringRecord, is_broken: bool },
}

impl Lines {
    /// One JSON object a line; empty lines are skipped.
    pub(super) fn jsonl(file: impl Read + 'static) -> Self {
        Self::Jsonl { reader: BufReader::new(Box::new(file)), number: 0, is_broken: false }
    }

    /// A header line of field names, then a record a line.
    pub(super) fn csv(file: impl Read + 'static) -> Outcome<Self> {
        let file: Box<dyn Read> = Box::new(file);
        let mut reader = csv::ReaderBuilder::new().from_reader(file);
        let header = reader.headers().map_err(|fault| csv_error(&fault))?.clone();
        Ok(Self::Csv { reader: Box::new(reader), header, is_broken: false })
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let (line, is_over) = match self {
            Self::Jsonl { is_broken: true, .. } | Self::Csv { is_broken: true, .. } => return None,
            Self::Jsonl { reader, number, .. } => next_json(reader, number)?,
            Self::Csv { reader, header, .. } => next_csv(reader, header)?,
        };
        let (Self::Jsonl { is_broken, .. } | Self::Csv { is_broken, .. }) = self;
        *is_broken = is_over;
        Some(line)
    }
}

/// The next record, and whether the file cannot be read on.
fn next_json(reader: &mut BufReader<Box<dyn Read>>, number: &mut u64) -> Option<(Line, bool)> {
    loop {
        *number += 1;
        let mut line = Vec::new();
        // One byte more than allowed is enough for the parser to refuse it; the rest of such a line is skipped.
        let read = reader.by_ref().take(BLOB_BYTES + 1).read_until(b'\n', &mut line);
        let skipped = match read {
            Ok(_) if line.len() as u64 > BLOB_BYTES && !line.ends_with(b"\n") => reader.skip_until(b'\n').map(|_| ()),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = skipped {
            return Some(((*number, Err(storage(&fault))), true));
        }
        if line.is_empty() {
            return None;
        }
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| *number == 1).unwrap_or(&line).trim_ascii();
        if !text.is_empty() {
            return Some(((*number, object(text)), false));
        }
    }
}

fn object(text: &[u8]) -> Result<Json, Error> {
    let value = json::parse_bytes(text)?;
    if value.is_object() { Ok(value) } else { Err(Error::new(ErrorKind::Validation, "a record is a JSON object")) }
}

fn next_csv(reader: &mut csv::Reader<Box<dyn Read>>, header: &csv::StringRecord) -> Option<(Line, bool)> {
    let mut row = csv::StringRecord::new();
    match reader.read_record(&mut row) {
        Ok(false) => None,
        Ok(true) => {
            let number = row.position().map_or(0, csv::Position::line);
            Some(((number, Ok(fields(header, &row))), false))
        }
        Err(fault) => {
            let number = fault.position().map_or(0, csv::Position::line);
            let is_over = matches!(fault.kind(), csv::ErrorKind::Io(_));
            Some(((number, Err(csv_error(&fault))), is_over))
        }
    }
}

fn fields(header: &csv::StringRecord, row: &csv::StringRecord) -> Json {
    let pairs = header.iter().zip(row).filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>().into()
}

fn csv_error(fault: &csv::Error) -> Error {
    let message = match fault.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} values as in the header, got {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "expected UTF-8".to_owned(),
        _ => fault.to_string(),
    };
    Error::new(ErrorKind::Validation, message)
}

fn storage(fault: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("the file cannot be read on: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: Lines) -> Vec<(u64, Option<Json>)> {
        lines.map(|(number, record)| (number, record.ok())).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does_and_bad_ones_do_not_end_the_file() {
        let text: &[u8] = b"\xef\xbb\xbf{\"a\":1}\r\n\n{bad\n[1]\n{\"a\":2}";
        let read = read(Lines::jsonl(text));
        let good = |number| Some(serde_json::json!({ "a": number }));
        assert_eq!(read, [(1, good(1)), (3, None), (4, None), (5, good(2))]);
    }

    #[test]
    fn an_empty_csv_value_is_absent_and_a_row_of_another_length_is_refused() {
        let text: &[u8] = b"id,name\n1,\n2,\"a,b\"\n3\n4,d\n";
        let Ok(lines) = Lines::csv(text) else { panic!("a header was read") };
        let values: Vec<_> =
            read(lines).into_iter().map(|(_, record)| record.map(|record| record.to_string())).collect();
        let good = |text: &str| Some(text.to_owned());
        let expected = [
            good("{\"id\":\"1\"}"),
            good("{\"id\":\"2\",\"name\":\"a,b\"}"),
            None,
            good("{\"id\":\"4\",\"name\":\"d\"}"),
        ];
        assert_eq!(values, expected);
    }
}
