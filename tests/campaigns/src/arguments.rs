//! Words and `--names` from the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Result;

/// Names that stand alone: all others take a value.
const SWITCHES: [&str; 3] = ["ext4", "broken-fsync", "broken-restore"];
/// Names that take a value, or stand alone.
const EITHER: [&str; 1] = ["image"];

/// What the command line says.
pub struct Arguments {
    words: Vec<String>,
    named: BTreeMap<String, String>,
}

impl Arguments {
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut words, mut named) = (Vec::new(), BTreeMap::new());
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                words.push(argument);
                continue;
            };
            let is_alone = EITHER.contains(&name) && arguments.peek().is_none_or(|next| next.starts_with("--"));
            let value = match is_alone || SWITCHES.contains(&name) {
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

#[cfg(all(test, feature = "stores"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_alone_or_takes_a_value() {
        let read = |words: &str| Arguments::read(words.split(' ').map(str::to_owned));
        let alone = read("io --image --runs 3 --ext4 more").unwrap();
        assert_eq!((alone.words(), alone.number("runs").unwrap()), (vec!["io", "more"], Some(3)));
        assert!(alone.switch("image") && alone.switch("ext4") && !alone.switch("seed"));
        assert_eq!(read("power --image 7").unwrap().number("image").unwrap(), Some(7));
        assert!(read("io --image").unwrap().switch("image"));
        assert!(read("io --runs").is_err());
    }
}
