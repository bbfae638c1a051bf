//! The same changes read by `automerge` 0.6.1, an almost independent implementation of the format.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ReadDoc as _;
use automerge_06::ReadDoc as _;

use crate::histories::{History, Rng, for_histories, held_by};

/// Every candidate of every key, list item and text, as text.
type Dump = BTreeMap<String, Vec<String>>;

macro_rules! dump {
    ($automerge:ident, $doc:expr) => {{
        let doc = $doc;
        let mut dump = Dump::new();
        let mut todo: Vec<(String, $automerge::ObjId, $automerge::ObjType)> = Vec::new();
        let mut note = |at: String, all: Vec<($automerge::Value<'_>, $automerge::ObjId)>| {
            let lines = all.into_iter().map(|(value, id)| match value {
                $automerge::Value::Object(kind) => {
                    todo.push((format!("{at} {id}"), id.clone(), kind));
                    format!("{kind} {id}")
                }
                $automerge::Value::Scalar(scalar) if scalar.is_counter() => {
                    format!("counter {:?} {id}", scalar.to_i64())
                }
                $automerge::Value::Scalar(scalar) => format!("{scalar:?} {id}"),
            });
            lines.collect::<Vec<_>>()
        };
        for key in doc.keys($automerge::ROOT) {
            let lines = note(key.clone(), doc.get_all($automerge::ROOT, key.as_str()).unwrap());
            dump.insert(key, lines);
        }
        for (at, id, kind) in todo {
            if kind == $automerge::ObjType::Text {
                dump.insert(at, vec![doc.text(&id).unwrap()]);
            } else {
                let item = |index| {
                    format!(
                        "{:?}",
                        doc.get_all(&id, index)
                            .unwrap()
                            .into_iter()
                            .map(|(value, id)| format!("{value:?} {id}"))
                            .collect::<Vec<_>>()
                    )
                };
                dump.insert(at, (0..doc.length(&id)).map(item).collect());
            }
        }
        dump
    }};
}

/// Compares what both versions read in the changes of a history, each candidate of each key, item and text.
///
/// # Panics
/// Where they differ.
#[allow(deprecated)]
pub fn compare(history: &History, rng: &mut Rng) -> BTreeSet<&'static str> {
    let mut replica = history.deliver(rng);
    let document = replica.document.automerge().unwrap();
    let bytes = document.get_changes(&[]).into_iter().map(|change| change.raw_bytes().to_vec());
    let changes = bytes.map(|bytes| automerge_06::Change::from_bytes(bytes).unwrap());
    let mut older = automerge_06::Automerge::new();
    older.apply_changes(changes.collect::<Vec<_>>()).unwrap();
    let heads: Vec<[u8; 32]> = document.get_heads().into_iter().map(|hash| hash.0).collect();
    assert_eq!(heads, older.get_heads().into_iter().map(|hash| hash.0).collect::<Vec<_>>());
    assert_eq!(dump!(automerge, document), dump!(automerge_06, &older));
    held_by(&mut replica)
}

#[test]
fn an_older_automerge_reads_the_same_from_the_same_changes() {
    for_histories("oracle", 2_000, compare);
}
