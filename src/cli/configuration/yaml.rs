//! YAML, and where in it things stand. The only place that knows the library which reads it.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, Options, Spanned};

use super::{nearest, setting};
use crate::{Error, ErrorKind, Result};

/// How deep and how large a configuration may be. None refers to other parts of itself, so none grows when it is read.
const MOST_DEPTH: usize = 16;
const MOST_NODES: usize = 20_000;

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 4 * MOST_NODES,
            max_nodes: MOST_NODES,
            max_depth: MOST_DEPTH,
            flow_nesting_limit: MOST_DEPTH,
            max_aliases: 0,
            max_anchors: 0,
            max_documents: 1,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
    }
}

/// Reads a value of YAML.
///
/// # Errors
/// `validation`, with the file's name, line and column, what was expected, and the nearest key that is known.
pub(super) fn read<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|fault| refusal(name, fault.without_snippet()))
}

/// A leaf: its path, and its line, from 1.
pub(super) type Leaf = (Vec<String>, u64);

/// The leaves of a text of YAML.
///
/// # Errors
/// As [`read`].
pub(super) fn leaves(name: &str, text: &str) -> Result<Vec<Leaf>> {
    let root: Option<Spanned<Node>> = read(name, text)?;
    let mut leaves = Vec::new();
    if let Some(root) = root {
        root.value.gather(root.referenced.line(), &mut Vec::new(), &mut leaves);
    }
    Ok(leaves)
}

/// What a fault of the library comes to. What a wrong setting says is not repeated: it may be a secret in the wrong place.
fn refusal(name: &str, fault: &serde_saphyr::Error) -> Error {
    use serde_saphyr::Error as Fault;
    let place = fault.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
    let (message, hint) = match fault {
        Fault::SerdeUnknownField { field, expected, .. } => unknown(field, expected),
        Fault::SerdeUnknownVariant { variant, expected, .. } => {
            let (named, known) = (crate::shape::cut(variant, 60), expected.join(", "));
            (format!("expected one of {known}, got `{named}`"), meant(variant, expected))
        }
        Fault::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            (format!("expected each key once, got `{}` again", crate::shape::cut(key, 60)), None)
        }
        Fault::InvalidScalar { ty, .. } => {
            let expected = if ty.starts_with(['u', 'i']) { "a whole number" } else { ty };
            (format!("expected {expected}, got something else, or too much"), None)
        }
        Fault::SerdeInvalidType { unexpected, expected, .. }
        | Fault::SerdeInvalidValue { unexpected, expected, .. } => {
            let expected = expected.replace("a nonzero u32", "a whole number from 1");
            (format!("expected {expected}, got {}", kind(unexpected)), None)
        }
        other => {
            let said = other.to_string();
            let line = said.lines().next().unwrap_or("this is no YAML");
            // The place is told already.
            let said = line.split(" at line ").next().unwrap_or(line);
            let said = said.replace("mapping start", "keys with values, got something else");
            (said.replace("sequence start", "a list, got something else"), None)
        }
    };
    let refused = Error::new(ErrorKind::Validation, format!("{name}{place}: {message}"));
    match hint {
        Some(hint) => refused.with_hint(hint),
        None => refused,
    }
}

fn unknown(field: &str, expected: &[&'static str]) -> (String, Option<String>) {
    let message = format!("unknown key `{}`; known here: {}", crate::shape::cut(field, 60), expected.join(", "));
    // Its own name, elsewhere, is nearer than any that is only like it.
    let elsewhere = setting::ending(field).map(|path| format!("did you mean `{path}`?"));
    (message, elsewhere.or_else(|| meant(field, expected)))
}

fn meant(word: &str, known: &[&'static str]) -> Option<String> {
    nearest::nearest(word, known.iter().copied()).map(|known| format!("did you mean `{known}`?"))
}

/// The kind of a value that serde describes as `string "its text"`.
fn kind(described: &str) -> &str {
    described.split(['"', '`']).next().unwrap_or_default().trim_end()
}

/// The parts of a value of YAML, which know where they stand. A leaf has none.
struct Node(Vec<(String, Spanned<Node>)>);

impl Node {
    fn gather(self, line: u64, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
        if self.0.is_empty() {
            leaves.push((path.clone(), line));
        }
        for (name, part) in self.0 {
            path.push(name);
            part.value.gather(part.referenced.line(), path, leaves);
            path.pop();
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Parts)
    }
}

struct Parts;

fn leaf<E>() -> Result<Node, E> {
    Ok(Node(Vec::new()))
}

impl<'de> Visitor<'de> for Parts {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        leaf()
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        leaf()
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        leaf()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        leaf()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        leaf()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        leaf()
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        leaf()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut parts: Vec<(String, Spanned<Node>)> = Vec::new();
        while let Some(part) = access.next_element()? {
            parts.push((parts.len().to_string(), part));
        }
        Ok(Node(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = access.next_entry()? {
            parts.push(part);
        }
        Ok(Node(parts))
    }
}
