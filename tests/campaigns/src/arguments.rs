//! Words and `--names` from the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Result;

/// Names that stand alone: all others take a value.
const SWITCHES: [&str; 3] = ["ext4", "broken-fsync", "broken-restore"];

/// What the command line says.
pub struct Arguments {
    words: Vec<String>,
    named: BTreeMap<String, String>,
}

impl Arguments {
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut words, mut named) = (Vec::new(), BTreeMap::new());
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                words.push(argument);
                continue;
            };
            let value = match SWITCHES.contains(&name) {
                true => String::new(),
                false => arguments.next().ok_or_else(|| format!("expected a value after --{name}"))?,
            };
            named.insert(name.to_owned(), value);
        }
        Ok(Self { words, named })
    }

    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    pub fn switch(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let value = self.named.get(name);
        let number =
            value.map(|value| value.parse().map_err(|_| format!("expected a number after --{name}, got {value}")));
        Ok(number.transpose()?)
    }

    /// Texts with commas between them.
    #[cfg(feature = "stores")]
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.named.get(name).map(|texts| texts.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.named.get(name).map(PathBuf::from)
    }
}
