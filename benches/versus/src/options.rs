//! What to run, as the command line says it.

use std::path::PathBuf;

use crate::{Result, work};

/// What is said where arguments are wrong, and for `--help`.
pub const USAGE: &str = "\
cargo bench --bench versus -- [--rounds N] [--scale N] [--only TEXT] [--write PATH]

  --rounds N    how often everything is measured; the medians are shown (5)
  --scale N     divides every size, for a quick look (1)
  --only TEXT   only the work whose name contains TEXT
  --write PATH  also puts the tables between the marks of this page

Without any argument: --rounds 5 --write docs/benchmarks.md";

pub struct Options {
    pub rounds: usize,
    pub scale: usize,
    pub only: String,
    pub write: Option<PathBuf>,
    /// The one piece of work that this process measures for its parent.
    pub child: Option<String>,
    /// What this process serves for its parent.
    pub serve: Option<Serve>,
    pub help: bool,
}

/// What a server's process is told.
pub struct Serve {
    pub dir: PathBuf,
    /// For how many devices it makes codes.
    pub devices: usize,
    /// Whether each of them has a collection of its own, and no other.
    pub apart: bool,
}

impl Options {
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options =
            Self { rounds: 5, scale: 1, only: String::new(), write: None, child: None, serve: None, help: false };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--rounds" => options.rounds = number(&name, arguments.next())?,
                "--scale" => options.scale = number(&name, arguments.next())?,
                "--only" => options.only = value(&name, arguments.next())?,
                "--write" => options.write = Some(value(&name, arguments.next())?.into()),
                "--child" => options.child = Some(value(&name, arguments.next())?),
                "--serve" => {
                    options.serve =
                        Some(Serve { dir: value(&name, arguments.next())?.into(), devices: 0, apart: false });
                }
                "--devices" => {
                    let devices = number(&name, arguments.next())?;
                    options.serve.iter_mut().for_each(|serve| serve.devices = devices);
                }
                "--apart" => options.serve.iter_mut().for_each(|serve| serve.apart = true),
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("there is no argument `{name}`\n\n{USAGE}").into()),
            }
        }
        options.names()?;
        Ok(options)
    }

    /// The work to do; at least one piece.
    pub fn names(&self) -> Result<Vec<&'static str>> {
        let all = || work::ALL.iter().map(|(name, _)| *name);
        let names: Vec<_> = all().filter(|name| name.contains(&self.only)).collect();
        if names.is_empty() {
            let all = all().collect::<Vec<_>>().join(", ");
            return Err(format!("no work has `{}` in its name; there are: {all}", self.only).into());
        }
        Ok(names)
    }

    /// The command that does the same again.
    pub fn command(&self) -> String {
        let mut words = format!("cargo bench --bench versus -- --rounds {}", self.rounds);
        if self.scale > 1 {
            words += &format!(" --scale {}", self.scale);
        }
        if !self.only.is_empty() {
            words += &format!(" --only {}", self.only);
        }
        words
    }
}

fn value(name: &str, value: Option<String>) -> Result<String> {
    Ok(value.ok_or_else(|| format!("expected a value after {name}\n\n{USAGE}"))?)
}

fn number(name: &str, given: Option<String>) -> Result<usize> {
    let text = value(name, given)?;
    let number = text.parse().ok().filter(|number| *number > 0);
    Ok(number.ok_or_else(|| format!("expected a whole number from 1 on after {name}, got `{text}`"))?)
}
