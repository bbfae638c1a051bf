//! `export`: the records of a collection, as `import` reads them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path as FilePath, PathBuf};

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::list::each_page;
use crate::cli::app::App;
use crate::cli::options;
use crate::cli::stop::{Outcome, Stop, at_file};
use crate::cli::table::count;
use crate::event::{Path, json::canonical};
use crate::ledger::{Ledger, Query, Record};
use crate::{Error, ErrorKind};

/// Write the records of a collection as one JSON object a line, which `import` reads.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The collection.
    collection: String,
    /// The file; stdout where it is missing, or -.
    file: Option<PathBuf>,
    /// Write the key here too: a JSON Pointer. Not needed where the records have it already, as imported ones do.
    #[arg(long, value_name = "POINTER", value_parser = options::pointer)]
    key_field: Option<Path>,
}

impl Export {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        match self.file.as_deref().filter(|file| file.as_os_str() != "-") {
            None => self.write(&ledger, &mut app.out).map(|_| ()),
            Some(file) => self.write_file(app, &ledger, file),
        }
    }

    fn write_file(&self, app: &mut App, ledger: &Ledger, file: &FilePath) -> Outcome {
        let mut writer = BufWriter::new(File::create(app.caller.path(file)).map_err(at_file(file))?);
        let records = self.write(ledger, &mut writer)?;
        writer.flush().and_then(|()| writer.get_ref().sync_all()).map_err(at_file(file))?;
        let object = json!({ "collection": self.collection, "records": records, "file": file.display().to_string() });
        app.out.answer(&object, || format!("{} in {}", count(records, "record", "records"), file.display()))
    }

    fn write(&self, ledger: &Ledger, writer: &mut impl Write) -> Outcome<u64> {
        let mut records = 0;
        each_page(ledger, &self.collection, Query::default(), |page| {
            records += page.len() as u64;
            page.iter().try_for_each(|record| Ok(writeln!(writer, "{}", canonical(&self.value(record)?))?))
        })?;
        Ok(records)
    }

    fn value(&self, record: &Record) -> Outcome<Json> {
        let mut value = record.value.clone();
        if let Some(path) = &self.key_field {
            let place = place(&mut value, path).ok_or_else(|| no_place(record, path))?;
            *place = record.key.as_str().into();
        }
        Ok(value)
    }
}

/// The place of a path in an object, made where it is missing; none where something else is on the way.
fn place<'a>(value: &'a mut Json, path: &Path) -> Option<&'a mut Json> {
    path.segments().try_fold(value, |value, segment| {
        if value.is_null() {
            *value = Map::new().into();
        }
        Some(value.as_object_mut()?.entry(segment.into_owned()).or_insert(Json::Null))
    })
}

fn no_place(record: &Record, path: &Path) -> Stop {
    let message = format!("{}/{} has no room for its key at {path}", record.collection, record.key);
    Error::new(ErrorKind::Validation, message).with_pointers(vec![path.to_string()]).into()
}
