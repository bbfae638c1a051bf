//! The settings of `serve`: what is built in, then a file, then the environment, then flags, each over those before it; and of
//! each where it comes from.
//!
//! Invariant: a setting that nobody knows, or that says something else than it can, is refused with its place.

mod file;
mod nearest;
mod origin;
mod setting;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::{Error, ErrorKind, Result};

pub(crate) use file::{File, LogFormat, LogLevel, Logs};
pub(crate) use origin::Origin;
use setting::{SETTINGS, Setting};

/// The sections of a file that hold secrets.
const UNWRITTEN: [&str; 2] = ["alerts", "webhooks"];
/// The most bytes of a configuration file.
const MOST_BYTES: u64 = 1 << 20;

/// All settings, and where each comes from.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) file: File,
    tree: Json,
    /// What the file says of what is read and never written.
    sections: Map<String, Json>,
    /// By path; what is not here is built in.
    origins: BTreeMap<String, Origin>,
}

/// A setting that a flag names: its path, the flag, and what it says.
pub(crate) type Flag = (&'static str, &'static str, String);

impl Configuration {
    /// Reads the file, if there is one, the environment, and flags.
    ///
    /// # Errors
    /// `not_found`, `permission` or `storage` where the file cannot be read; `validation` where a setting is unknown or wrong.
    pub(crate) fn read(
        path: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
        flags: Vec<Flag>,
    ) -> Result<Self> {
        let tree = serde_json::to_value(File::default()).unwrap_or_default();
        let (file, sections, origins) = (File::default(), Map::new(), BTreeMap::new());
        let mut read = Self { file, tree, sections, origins };
        if let Some(path) = path {
            read.lay_file(path, &text(path)?)?;
        }
        for setting in &SETTINGS {
            let said =
                setting.variable.and_then(|name| Some((name, variable(name).filter(|text| !text.is_empty())?)));
            if let Some((name, text)) = said {
                read.lay(setting, Origin::Environment(name), &text)?;
            }
        }
        for (path, flag, text) in flags {
            read.lay(&Setting::of(path), Origin::Flag(flag), &text)?;
        }
        read.check()?;
        Ok(read)
    }

    fn lay_file(&mut self, path: &Path, text: &str) -> Result<()> {
        let name = path.display().to_string();
        self.file = yaml::read::<Option<File>>(&name, text)?.unwrap_or_default();
        self.tree = serde_json::to_value(&self.file).unwrap_or_default();
        let said = yaml::read::<Option<Map<String, Json>>>(&name, text)?.unwrap_or_default();
        self.sections = said.into_iter().filter(|(section, _)| UNWRITTEN.contains(&section.as_str())).collect();
        for (setting, line) in yaml::leaves(&name, text)? {
            self.origins.insert(setting.join("."), Origin::File { name: name.clone(), line });
        }
        Ok(())
    }

    /// Lays one setting over those that there are.
    fn lay(&mut self, setting: &Setting, origin: Origin, text: &str) -> Result<()> {
        let path: Vec<_> = setting.path.split('.').map(str::to_owned).collect();
        set(&mut self.tree, &path, setting.value(text));
        let File { alerts, webhooks, .. } = std::mem::take(&mut self.file);
        self.file = serde_json::from_value(self.tree.clone()).map_err(|fault| {
            Error::new(ErrorKind::Validation, format!("{origin}: {fault}"))
                .with_hint(format!("it is the setting {}: see `syncledger config explain`", setting.path))
        })?;
        (self.file.alerts, self.file.webhooks) = (alerts, webhooks);
        self.origins.insert(setting.path.to_owned(), origin);
        Ok(())
    }

    /// Checks what only settings together can get wrong.
    fn check(&self) -> Result<()> {
        let (cert, key) = (self.file.tls.cert.is_some(), self.file.tls.key.is_some());
        if cert != key {
            let (there, missing) = if cert { ("tls.cert", "tls.key") } else { ("tls.key", "tls.cert") };
            return Err(self.incomplete(there, missing));
        }
        let about_backups = self.origins.keys().find(|path| path.starts_with("backup."));
        match about_backups {
            Some(there) if self.file.backup.dir.is_none() => Err(self.incomplete(there, "backup.dir")),
            _ => Ok(()),
        }
    }

    fn incomplete(&self, there: &str, missing: &str) -> Error {
        let message = format!("expected {missing} beside {there} ({}), got none", self.origin(there));
        Error::new(ErrorKind::Validation, message).with_hint(format!("set {missing} too, or leave {there} out"))
    }

    /// Where a setting comes from.
    fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// Each setting with its value, without secrets, and where it comes from.
    pub(crate) fn explained(&self) -> Vec<(String, Json, &Origin)> {
        let mut leaves = Vec::new();
        let tree = serde_json::to_value(&self.file).unwrap_or_default();
        flatten(&tree, &mut Vec::new(), &mut leaves);
        if !self.sections.is_empty() {
            flatten(&Json::Object(self.sections.clone()), &mut Vec::new(), &mut leaves);
        }
        let explain = |(path, value): (Vec<String>, Json)| {
            let joined = path.join(".");
            let origin = self.origin(&joined);
            (joined, origin::shown(&path, value), origin)
        };
        leaves.into_iter().map(explain).collect()
    }
}

/// The text of a configuration file.
fn text(path: &Path) -> Result<String> {
    let failed = |fault: std::io::Error| {
        let kind = match fault.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            std::io::ErrorKind::InvalidData => ErrorKind::Validation,
            _ => ErrorKind::Storage,
        };
        Error::new(kind, format!("cannot read the configuration {}: {fault}", path.display()))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MOST_BYTES + 1), &mut text).map_err(failed)?;
    if text.len() as u64 > MOST_BYTES {
        let message = format!("expected a configuration of at most {MOST_BYTES} bytes in {}", path.display());
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(text)
}

/// Sets a leaf of a tree, making the objects on the way.
fn set(tree: &mut Json, path: &[String], value: Json) {
    let Some((first, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Json::Object(Map::new());
    }
    if let Json::Object(members) = tree {
        set(members.entry(first.clone()).or_insert(Json::Null), rest, value);
    }
}

/// The leaves of a tree, with their paths. What is empty is a leaf.
fn flatten(tree: &Json, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, Json)>) {
    match tree {
        Json::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(name, value)| within(name.clone(), value, path, leaves));
        }
        Json::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(nth, value)| within(nth.to_string(), value, path, leaves));
        }
        leaf => leaves.push((path.clone(), leaf.clone())),
    }
}

fn within(name: String, value: &Json, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, Json)>) {
    path.push(name);
    flatten(value, path, leaves);
    path.pop();
}

/// A variable of this process's environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A path as a flag says it.
pub(crate) fn path_flag(setting: &'static str, flag: &'static str, path: Option<&PathBuf>) -> Option<Flag> {
    path.map(|path| (setting, flag, path.display().to_string()))
}
