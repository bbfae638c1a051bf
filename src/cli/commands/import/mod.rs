//! `import`: the records of a file, as a source delivers them.

mod lines;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

use crate::cli::app::App;
use crate::cli::input;
use crate::cli::options::{self, WriteOptions};
use crate::cli::progress;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, thousands};
use crate::event::{Path, RunId};
use crate::ledger::{Context, Delivered, Delivery, Ledger, Receipt};
use crate::shape;
use crate::shape::time;
use crate::{Error, ErrorKind};
use lines::Lines;

/// How many records are made durable at a time: what Ctrl-C waits for, and what one flush is shared by.
const CHUNK: usize = 256;

/// Import the records of a file as a source's state: what did not change since its last delivery makes no event, and
/// what people edited here meanwhile is kept. Lines that are refused go to stderr; the others are imported.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The collection.
    collection: String,
    /// The file, or - for stdin.
    file: PathBuf,
    /// Where in each record its key stands: a JSON Pointer to a string or an integer.
    #[arg(long, value_name = "POINTER", value_parser = options::pointer)]
    key_field: Path,
    /// The form of the file; by its name where this is missing.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Where in each record the time of its version stands.
    #[arg(long, value_name = "POINTER", value_parser = options::pointer)]
    occurred_at_field: Option<Path>,
    #[command(flatten)]
    write: WriteOptions,
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A header line of field names, then a record a line; values are strings, empty ones absent.
    Csv,
}

/// What an import did so far.
#[derive(Debug, Default)]
struct Tally {
    read: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
    first_position: Option<u64>,
    last_position: Option<u64>,
}

impl Import {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let interrupt = app.caller.interrupt()?;
        let run = ledger.new_run()?;
        let context = Context { run: Some(run), ..self.write.context() };
        let (mut lines, bar) = self.open(app)?;
        let mut tally = Tally::default();
        while !interrupt.is_set() && self.chunk(app, &ledger, &context, &mut lines, &bar, &mut tally)? {}
        bar.finish_and_clear();
        let is_whole = !interrupt.is_set();
        self.answer(app, &tally, run)?;
        self.end(&tally, is_whole)
    }

    fn open(&self, app: &App) -> Outcome<(Lines, ProgressBar)> {
        let size = std::fs::metadata(app.caller.path(&self.file)).map_or(0, |facts| facts.len());
        let bar = progress::over_bytes(size, &app.out).with_message("importing");
        let file = bar.wrap_read(input::open(&app.caller, &self.file)?);
        let lines = match self.format() {
            Format::Jsonl => Lines::jsonl(file),
            Format::Csv => Lines::csv(file)?,
        };
        Ok((lines, bar))
    }

    fn format(&self) -> Format {
        let is_csv = || self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        self.format.unwrap_or_else(|| if is_csv() { Format::Csv } else { Format::Jsonl })
    }

    /// Imports the next records; false at the end of the file.
    fn chunk(
        &self,
        app: &App,
        ledger: &Ledger,
        context: &Context,
        lines: &mut Lines,
        bar: &ProgressBar,
        tally: &mut Tally,
    ) -> Outcome<bool> {
        let (mut numbers, mut deliveries) = (Vec::new(), Vec::new());
        let mut is_end = false;
        while deliveries.len() < CHUNK {
            let Some((number, record)) = lines.next() else {
                is_end = true;
                break;
            };
            tally.read += 1;
            match record.and_then(|record| self.delivery(record)) {
                Ok(delivery) => {
                    numbers.push(number);
                    deliveries.push(delivery);
                }
                Err(error) => bar.suspend(|| tally.refuse(app, number, &error)),
            }
        }
        if !deliveries.is_empty() {
            let delivered = match self.write.dry_run {
                true => ledger.dry_run().import(&self.collection, deliveries, context)?,
                false => ledger.import(&self.collection, deliveries, context)?,
            };
            let each = numbers.into_iter().zip(delivered);
            bar.suspend(|| each.for_each(|(number, delivered)| tally.add(app, number, &delivered)));
        }
        Ok(!is_end)
    }

    fn delivery(&self, value: Json) -> Result<Delivery, Error> {
        let key = key_of(&value, &self.key_field)?;
        let occurred_at = match self.occurred_at_field.as_ref().and_then(|path| value.pointer(path.as_str())) {
            None | Some(Json::Null) => self.write.occurred_at,
            Some(time) => Some(time::from_json(time)?),
        };
        Ok(Delivery { key, value, occurred_at })
    }

    fn answer(&self, app: &mut App, tally: &Tally, run: RunId) -> Outcome {
        let mut object = json!({
            "read": tally.read,
            "created": tally.created,
            "updated": tally.updated,
            "unchanged": tally.unchanged,
            "failed": tally.failed,
        });
        if self.write.dry_run {
            shape::set(&mut object, "dry_run", true);
        } else {
            shape::set(&mut object, "run", run.to_string());
            shape::set(&mut object, "first_position", tally.first_position);
            shape::set(&mut object, "last_position", tally.last_position);
        }
        app.out.answer(&object, || tally.text((!self.write.dry_run).then_some(run)))?;
        app.out.flush()
    }

    fn end(&self, tally: &Tally, is_whole: bool) -> Outcome {
        let read = count(tally.read, "record", "records");
        if !is_whole {
            let stop = Stop::interrupted(format!("interrupted after {read}; what is counted above is durable"));
            return Err(stop.hint("run the same import again: what is there already makes no event"));
        }
        match tally.failed {
            0 => Ok(()),
            failed => Err(Stop::partly_failed(format!("{failed} of {read} refused"))
                .hint("mend these lines and import the file again: what is there already makes no event")),
        }
    }
}

/// The key of a record: a string, or an integer in decimal.
fn key_of(record: &Json, field: &Path) -> Result<String, Error> {
    let fault = |what: &str| {
        Error::new(ErrorKind::Validation, format!("expected a key at {field}: a string or an integer, got {what}"))
            .with_pointers(vec![field.to_string()])
    };
    match record.pointer(field.as_str()) {
        None => Err(fault("nothing")),
        Some(Json::String(key)) if key.is_empty() => Err(fault("an empty string")),
        Some(Json::String(key)) => Ok(key.clone()),
        Some(Json::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        Some(Json::Number(_)) => Err(fault("a fraction")),
        Some(Json::Null) => Err(fault("null")),
        Some(Json::Bool(_)) => Err(fault("a truth value")),
        Some(Json::Array(_) | Json::Object(_)) => Err(fault("an array or object")),
    }
}

impl Tally {
    fn add(&mut self, app: &App, number: u64, delivered: &Delivered) {
        match delivered {
            Delivered::Created(receipt) => {
                self.created += 1;
                self.reach(receipt);
            }
            Delivered::Updated(receipt) => {
                self.updated += 1;
                self.reach(receipt);
            }
            Delivered::Unchanged => self.unchanged += 1,
            Delivered::Failed(error) => self.refuse(app, number, error),
        }
    }

    fn reach(&mut self, receipt: &Receipt) {
        for (_, position) in &receipt.events {
            self.first_position = Some(self.first_position.map_or(*position, |first| first.min(*position)));
            self.last_position = self.last_position.max(Some(*position));
        }
    }

    fn refuse(&mut self, app: &App, number: u64, error: &Error) {
        self.failed += 1;
        let object = json!({
            "line": number,
            "code": error.code(),
            "message": error.message(),
            "retryable": error.is_retryable(),
            "pointers": error.pointers(),
        });
        app.out.fault(&object, format!("{} {}", style::bad(format!("line {number}:")), error.message()));
    }

    /// The counts, and the run that brought the records; none in a dry run.
    fn text(&self, run: Option<RunId>) -> String {
        let failed =
            if self.failed > 0 { style::bad(format!(", {} refused", thousands(self.failed))) } else { String::new() };
        let [read, created, updated, unchanged] =
            [self.read, self.created, self.updated, self.unchanged].map(thousands);
        let counts = format!("{read} read: {created} created, {updated} updated, {unchanged} unchanged{failed}");
        let what_now = match run {
            Some(run) => format!("run {run}: `syncledger revert --run {}` takes it back", run.short()),
            None => "nothing is written: this is a dry run".to_owned(),
        };
        format!("{counts}\n{}", style::dim(what_now))
    }
}
