//! `merge`: two versions of a JSON file and what both were made on become one; no store is needed.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path as FilePath, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::cli::app::App;
use crate::cli::input;
use crate::cli::options::ViewOptions;
use crate::cli::stop::{Exit, Outcome, Stop, at_file};
use crate::cli::style;
use crate::cli::table::{count, short_or};
use crate::event::json as strict;
use crate::event::limits::BLOB_BYTES;
use crate::merge::{Candidate, Conflict, Merged, Version, merge_versions, write_like};
use crate::projection::{Policy, Resolvers, Status};
use crate::shape;
use crate::shape::time;
use crate::{Error, ErrorKind};

/// Merge two versions of a JSON file, field by field. Exits with 1 where conflicts stay open (the result then shows what
/// the policy shows), with 2 where nothing could be merged: as a merge driver of git does.
#[derive(Debug, Args)]
#[command(
    after_help = "As a merge driver of git: git config merge.syncledger.driver 'syncledger merge %O %A %B -o %A'"
)]
pub(crate) struct Merge {
    /// What both were made on; an empty file where there was nothing.
    base: PathBuf,
    /// The first version, whose layout is kept.
    a: PathBuf,
    /// The second version.
    b: PathBuf,
    /// Write here; to stdout where it is missing, or -.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    view: ViewOptions,
    /// The source of the first version, for policies that rank sources.
    #[arg(long, value_name = "NAME", default_value = "local")]
    a_source: String,
    /// The source of the second version.
    #[arg(long, value_name = "NAME", default_value = "remote")]
    b_source: String,
    /// When the first version was written. The second counts as the later where no times are given.
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "b_at", default_value = "1", hide_default_value = true)]
    a_at: i64,
    /// When the second version was written.
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "a_at", default_value = "2", hide_default_value = true)]
    b_at: i64,
}

impl Merge {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        // Git takes every exit code but 0 for conflicts; scripts can tell what could not be merged.
        let merged = self.merge(app).map_err(|stop| stop.with_exit(Exit::Usage))?;
        report(app, &merged);
        app.out.flush()?;
        if merged.has_open() { Err(Stop::silent(Exit::Failed)) } else { Ok(()) }
    }

    fn merge(&self, app: &mut App) -> Outcome<Merged> {
        let policy = self.view.policy(&app.caller)?.unwrap_or_default();
        let (base, a, b) = (read(app, &self.base)?, read(app, &self.a)?, read(app, &self.b)?);
        let merged = self.merge_texts(&policy, &base, &a, &b)?;
        let value = merged.value.as_ref().unwrap_or(&Json::Null);
        let texts: Vec<&str> =
            [&a, &b, &base].into_iter().filter(|text| !is_blank(text)).map(String::as_str).collect();
        self.write(app, value, &merged, &write_like(value, &texts)?)?;
        Ok(merged)
    }

    fn merge_texts(&self, policy: &Policy, base: &str, a: &str, b: &str) -> Outcome<Merged> {
        let base = if is_blank(base) { None } else { Some(parse(&self.base, base)?) };
        let version = |file: &FilePath, text: &str, source: &str, at: i64| {
            Ok::<_, Stop>(Version::new(parse(file, text)?, source, at))
        };
        let a = version(&self.a, a, &self.a_source, self.a_at)?;
        let b = version(&self.b, b, &self.b_source, self.b_at)?;
        Ok(merge_versions(base.as_ref(), &a, &b, policy, &Resolvers::default())?)
    }

    fn write(&self, app: &mut App, value: &Json, merged: &Merged, text: &str) -> Outcome {
        if let Some(file) = self.output.as_deref().filter(|file| file.as_os_str() != "-") {
            replace(file, text).map_err(at_file(file))?;
        } else if !app.out.json {
            return Ok(app.out.write_all(text.as_bytes())?);
        }
        if app.out.json {
            let conflicts: Vec<Json> = merged.conflicts.iter().map(object).collect();
            let status = if merged.has_open() { "conflicts" } else { "merged" };
            app.out.object(&json!({ "status": status, "value": value, "conflicts": conflicts }))?;
        }
        Ok(())
    }
}

/// The text of a file.
fn read(app: &App, file: &FilePath) -> Outcome<String> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough for the parser to refuse it.
    input::open(&app.caller, file)?.take(BLOB_BYTES + 1).read_to_end(&mut bytes).map_err(at_file(file))?;
    let not_utf8 = |fault: std::string::FromUtf8Error| {
        in_file(file, strict::JsonError::NotUtf8 { offset: fault.utf8_error().valid_up_to() }.into())
    };
    Ok(String::from_utf8(bytes).map_err(not_utf8)?)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn parse(file: &FilePath, text: &str) -> Outcome<Json> {
    if is_blank(text) {
        let fault = Error::new(ErrorKind::Validation, "expected JSON, but the file is empty");
        return Err(in_file(file, fault).into());
    }
    Ok(strict::parse(text).map_err(|fault| in_file(file, fault.into()))?)
}

fn in_file(file: &FilePath, fault: Error) -> Error {
    let message = format!("{}: {}", file.display(), fault.message());
    Error::new(fault.kind(), message).with_pointers(fault.pointers().to_vec())
}

/// Gives a file this content, or leaves it as it was. What is no ordinary file is written as it is.
fn replace(file: &FilePath, text: &str) -> std::io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let known = fs::metadata(&file).ok();
    if known.as_ref().is_some_and(|known| !known.is_file()) {
        return fs::write(&file, text);
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let write = || {
        let mut writer = fs::File::create(&new)?;
        writer.write_all(text.as_bytes())?;
        if let Some(known) = known {
            writer.set_permissions(known.permissions())?;
        }
        writer.sync_all()?;
        fs::rename(&new, &file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

// --- what is said of conflicts -----------------------------------------------------------------------------------------

fn report(app: &App, merged: &Merged) {
    for conflict in &merged.conflicts {
        match conflict.is_open() {
            true => app.out.fault(&object(conflict), text(conflict)),
            false => app.out.note(text(conflict)),
        }
    }
    let open = merged.conflicts.iter().filter(|conflict| conflict.is_open()).count();
    if open > 0 {
        app.out.note(style::warn(format!(
            "{} open: the result shows what is said above",
            count(open, "conflict is", "conflicts are")
        )));
    }
}

fn text(conflict: &Conflict) -> String {
    let status = match &conflict.status {
        Status::Open => style::bad("conflict"),
        _ => style::good("decided"),
    };
    let path = if conflict.path.is_empty() { "the whole" } else { &conflict.path };
    let says = |candidate: &Candidate| {
        format!("{} {}", candidate.source, short_or(candidate.value.as_ref(), "removed", WIDTH))
    };
    let says: Vec<String> = conflict.candidates.iter().map(says).collect();
    format!(
        "{status} {}: {}, before {}; shown {} ({})",
        style::name(path),
        says.join(", "),
        short_or(conflict.base.as_ref(), "absent", WIDTH),
        short_or(conflict.shown.as_ref(), "absent", WIDTH),
        conflict.because
    )
}

/// How many characters of a value are shown.
const WIDTH: usize = 40;

fn object(conflict: &Conflict) -> Json {
    let candidate = |candidate: &Candidate| {
        let mut object = json!({
            "source": candidate.source,
            "principal": candidate.principal,
            "at": time::to_json(candidate.at),
        });
        match &candidate.value {
            Some(value) => shape::set(&mut object, "value", value.clone()),
            None => shape::set(&mut object, "removed", true),
        }
        object
    };
    let mut object = json!({
        "path": conflict.path,
        "kind": shape::name(conflict.kind),
        "status": conflict.status.name(),
        "base": conflict.base,
        "candidates": conflict.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "shown": conflict.shown,
        "taken": conflict.taken.map(|index| index + 1),
        "because": conflict.because,
    });
    for (part, flag) in [(&conflict.base, "base_absent"), (&conflict.shown, "shown_absent")] {
        if part.is_none() {
            shape::set(&mut object, flag, true);
        }
    }
    object
}
