//! `schema set` and `show`, `violations` and `migrate`: what the records of a collection should look like.

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::write;
use crate::cli::app::App;
use crate::cli::input;
use crate::cli::options::WriteOptions;
use crate::cli::people;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{self, count};
use crate::ledger::{Edit, Ledger, Migrated, Repaired};
use crate::schema::Violation;
use crate::shape;

/// Set or show what the records of a collection should look like.
#[derive(Debug, Subcommand)]
pub(crate) enum Schemas {
    Set(Set),
    /// Show the schema of a collection.
    Show {
        /// The collection.
        collection: String,
    },
}

/// Set the schema of a collection: JSON Schema with x-kind, x-unique, x-references, x-sum, x-critical and x-rules. Records
/// that are not as it says stay as they are, and are listed by `violations`; null removes the schema.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The collection.
    collection: String,
    /// The schema: JSON, @FILE, or - for stdin.
    #[arg(value_name = "JSON")]
    schema: String,
    #[command(flatten)]
    write: WriteOptions,
}

impl Schemas {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::Set(command) => command.run(app),
            Self::Show { collection } => show(app, &collection),
        }
    }
}

fn show(app: &mut App, collection: &str) -> Outcome {
    let schema = app.ledger()?.schema(collection)?.ok_or_else(|| {
        Stop::from(crate::Error::new(crate::ErrorKind::NotFound, format!("`{collection}` has no schema")))
            .hint(format!("set one with `syncledger schema set {collection} @schema.json`"))
    })?;
    app.out.answer(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default())
}

impl Set {
    fn run(self, app: &mut App) -> Outcome {
        let (schema, ledger) = (input::json(&app.caller, &self.schema)?, app.ledger()?);
        let context = self.write.context();
        if schema.is_null() && self.write.dry_run {
            return list(app, &[], true);
        }
        if schema.is_null() {
            let receipt = ledger.remove_schema(&self.collection, &context)?;
            return write::print(app, &receipt);
        }
        if self.write.dry_run {
            let broken = ledger.try_schema(&self.collection, &schema, &context)?;
            return list(app, &broken, true);
        }
        let receipt = ledger.set_schema(&self.collection, &schema, &context)?;
        write::print(app, &receipt)?;
        let broken = ledger.violations(Some(&self.collection))?.len();
        if broken > 0 {
            let broken = count(broken, "constraint is", "constraints are");
            app.out.note(style::warn(format!("{broken} broken: see `syncledger violations {}`", self.collection)));
        }
        Ok(())
    }
}

/// List the constraints that records break: of their schema, unique fields, references, sums and rules.
#[derive(Debug, Args)]
pub(crate) struct Violations {
    /// Only this collection.
    collection: Option<String>,
    /// Repair what can be repaired in one way only: set sums, fill in defaults, remove references to nothing.
    #[arg(long)]
    fix: bool,
    #[command(flatten)]
    write: WriteOptions,
}

impl Violations {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        if self.fix { self.repair(app, &ledger) } else { self.list(app, &ledger) }
    }

    fn list(&self, app: &mut App, ledger: &Ledger) -> Outcome {
        list(app, &ledger.violations(self.collection.as_deref())?, false)
    }

    fn repair(&self, app: &mut App, ledger: &Ledger) -> Outcome {
        let (collection, dry_run) = (self.collection.as_deref(), self.write.dry_run);
        let repaired = ledger.repair(collection, dry_run, &self.write.context())?;
        app.out.answer(&repaired_shape(&repaired, dry_run), || repaired_text(&repaired, dry_run))
    }
}

/// Lists what is broken, or would be.
fn list(app: &mut App, broken: &[Violation], dry_run: bool) -> Outcome {
    let rows: Vec<Json> = broken.iter().map(shape::violation).collect();
    if !broken.is_empty() {
        app.out.list(&rows, || text(broken))?;
    }
    let mut records: Vec<_> = broken.iter().map(|found| (&found.collection, &found.key)).collect();
    records.dedup();
    let verb = if dry_run { "would be broken" } else { "broken" };
    let records = count(records.len(), "record", "records");
    app.out.note(match broken.len() {
        0 => format!("no constraint {}{verb}", if dry_run { "" } else { "is " }),
        some => format!("{} {verb}, in {records}", count(some, "constraint", "constraints")),
    });
    Ok(())
}

fn text(broken: &[Violation]) -> String {
    let mut table = table::table(&["record", "field", "constraint", "expected"]);
    for found in broken {
        let constraint =
            if found.critical { style::bad(found.constraint.name()) } else { found.constraint.name().into() };
        let record = format!("{}/{}", found.collection, found.key);
        table.add_row([record, style::name(&found.path), constraint, found.message.clone()]);
    }
    table::text(table)
}

fn repaired_shape(repaired: &Repaired, dry_run: bool) -> Json {
    let mut object = shape::receipt(&repaired.receipt);
    let made = repaired.repairs.iter().map(|repair| {
        let mut object = shape::violation(&repair.violation);
        shape::set(&mut object, "repair", edit(&repair.edit));
        object
    });
    let left = repaired.left.iter().map(|(found, why)| {
        let mut object = shape::violation(found);
        shape::set(&mut object, "why", why.as_str());
        object
    });
    shape::set(&mut object, "left", left.collect::<Vec<_>>());
    shape::set(&mut object, "repairs", made.collect::<Vec<_>>());
    shape::set(&mut object, "dry_run", dry_run);
    object
}

/// A repair as `batch` reads edits.
fn edit(edit: &Edit) -> Json {
    match edit {
        Edit::Put(path, value) => json!({ "op": "put", "path": path, "value": value }),
        Edit::Remove(path) => json!({ "op": "remove", "path": path }),
        _ => Json::Null,
    }
}

fn words(edit: &Edit) -> String {
    match edit {
        Edit::Put(path, value) => format!("{path} becomes {value}"),
        Edit::Remove(path) => format!("{path} is removed"),
        _ => String::new(),
    }
}

fn repaired_text(repaired: &Repaired, dry_run: bool) -> String {
    let place = |found: &Violation| format!("{}/{} {}", found.collection, found.key, style::name(&found.path));
    let verb = style::good(if dry_run { "would repair" } else { "repaired" });
    let made = repaired
        .repairs
        .iter()
        .map(|repair| format!("{verb} {}: {}", place(&repair.violation), shape::cut(&words(&repair.edit), 80)));
    let left = repaired
        .left
        .iter()
        .map(|(found, why)| format!("{} {}: {} ({why})", style::warn("left"), place(found), found.message));
    let lines: Vec<String> = made.chain(left).collect();
    if lines.is_empty() { "nothing to repair".to_owned() } else { lines.join("\n") }
}

/// Bring the records of a collection to a new shape: all of them, or none.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The collection.
    collection: String,
    /// The new record: a minijinja expression over `record`, its fields and `key`, as in dict(record, status='open'), or
    /// a JSON object whose strings may be {{ expressions }}.
    #[arg(value_name = "EXPR")]
    expression: String,
    #[command(flatten)]
    write: WriteOptions,
}

impl Migrate {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let migrated =
            ledger.migrate(&self.collection, &self.expression, self.write.dry_run, &self.write.context())?;
        if !self.write.dry_run {
            return write::print(app, &migrated.receipt);
        }
        app.out.answer(&migrated_shape(&migrated), || migrated_text(&migrated))
    }
}

fn migrated_shape(migrated: &Migrated) -> Json {
    let mut object = shape::planned(&migrated.planned);
    shape::set(&mut object, "broken", migrated.broken.iter().map(shape::violation).collect::<Vec<_>>());
    object
}

fn migrated_text(migrated: &Migrated) -> String {
    let planned = people::planned(&migrated.planned);
    match migrated.broken.is_empty() {
        true => planned,
        false => format!("{planned}\n{}\n{}", style::bad("it would be refused: it breaks"), text(&migrated.broken)),
    }
}
