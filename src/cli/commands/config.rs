//! `config explain` and `config check`: the settings of the server, and where they come from.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::serve::ServeOptions;
use crate::cli::app::App;
use crate::cli::configuration::{Configuration, Origin, environment};
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table;

/// Show or check the settings of the server.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    Explain(Explain),
    Check(Check),
}

/// Show each setting that `serve` would run with, and where it comes from: built in, a file, the environment, a flag. Secrets are
/// not shown.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    options: ServeOptions,
}

/// Check a configuration file, with the environment as it is here.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The file.
    file: PathBuf,
}

impl Config {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        match self {
            Self::Explain(command) => command.run(app),
            Self::Check(command) => command.run(app),
        }
    }
}

impl Explain {
    fn run(self, app: &mut App) -> Outcome {
        let configuration = self.options.configuration(&app.globals)?;
        let explained = configuration.explained();
        let row = |(path, value, origin): &(String, Json, &Origin)| json!({ "setting": path, "value": value, "origin": origin.to_json() });
        let rows: Vec<Json> = explained.iter().map(row).collect();
        app.out.list(&rows, || {
            let mut table = table::table(&["setting", "value", "from"]);
            for (path, value, origin) in &explained {
                table.add_row([style::name(path), said(value), style::dim(origin)]);
            }
            table::text(table)
        })
    }
}

/// A value as the file would say it.
fn said(value: &Json) -> String {
    match value {
        Json::Null => "none".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Check {
    fn run(self, app: &mut App) -> Outcome {
        let file = app.caller.path(&self.file);
        let read = Configuration::read(Some(&file), environment, Vec::new()).and_then(|read| read.file.check());
        read.map_err(Stop::misconfigured)?;
        let name = self.file.display().to_string();
        app.out.answer(&json!({ "ok": true, "file": name }), || format!("{} {name}", style::good("ok:")))
    }
}
