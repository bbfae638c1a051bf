//! Arguments that are JSON, paths, or parts of ids.

use std::fs::File;
use std::io::Read;
use std::path::Path as FilePath;

use serde_json::Value as Json;

use super::caller::Caller;
use super::stop::{Outcome, Stop, at_file};
use crate::event::limits::BLOB_BYTES;
use crate::event::{Path, json};
use crate::{Error, ErrorKind};

/// Reads a JSON argument: the JSON itself, `@FILE`, or `-` for stdin.
pub(crate) fn json(caller: &Caller, argument: &str) -> Outcome<Json> {
    let bytes = match argument.strip_prefix('@') {
        Some(file) => read(caller, FilePath::new(file))?,
        None if argument == "-" => read(caller, FilePath::new("-"))?,
        None => return Ok(json::parse(argument).map_err(crate::Error::from)?),
    };
    Ok(json::parse_bytes(&bytes).map_err(crate::Error::from)?)
}

/// Opens a file, or stdin as `-`.
pub(crate) fn open(caller: &Caller, file: &FilePath) -> Outcome<Box<dyn Read>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(caller.stdin.clone()));
    }
    Ok(Box::new(File::open(caller.path(file)).map_err(at_file(file))?))
}

fn read(caller: &Caller, file: &FilePath) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough for the parser to refuse it.
    open(caller, file)?.take(BLOB_BYTES + 1).read_to_end(&mut bytes).map_err(at_file(file))?;
    Ok(bytes)
}

/// Takes `POINTER=JSON` apart. A field's name may have `=` in it, so each one is tried.
pub(crate) fn assignment(caller: &Caller, argument: &str) -> Outcome<(Path, Json)> {
    let splits = argument.match_indices('=').map(|(at, _)| argument.split_at(at));
    let mut fault = None;
    for (pointer, value) in splits {
        let path = Path::parse(pointer).map_err(crate::Error::from)?;
        match json(caller, value.strip_prefix('=').unwrap_or_default()) {
            Ok(value) => return Ok((path, value)),
            Err(stop) => fault.get_or_insert(stop),
        };
    }
    let expected = || Stop::usage(format!("expected POINTER=JSON, got `{argument}`"));
    Err(fault.unwrap_or_else(expected).hint("as in '/status=\"open\"': a string stands in double quotes"))
}

/// A conflict's id or the beginning of it, as it was typed.
pub(crate) fn conflict(id: &str) -> Result<&str, Error> {
    if crate::shape::is_prefix(id) {
        return Ok(id);
    }
    let message = format!("`{id}` is no beginning of a conflict's id");
    Err(Error::new(ErrorKind::Validation, message).with_hint("`syncledger conflicts` shows the ids"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Color;

    #[test]
    fn an_assignment_finds_its_equals_sign() {
        let caller = Caller::here(Color::Never);
        let (path, value) = assignment(&caller, "/a=b=1").unwrap();
        assert_eq!((path.as_str(), value), ("/a=b", 1.into()));
        let (path, value) = assignment(&caller, "/a=\"x=y\"").unwrap();
        assert_eq!((path.as_str(), value), ("/a", "x=y".into()));
        for text in ["/a", "a=1", "/a=open", "/~2=1"] {
            assert!(assignment(&caller, text).is_err(), "{text}");
        }
    }
}
