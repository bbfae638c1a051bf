//! One line of a batch.

use serde_json::{Map, Value as Json};

use crate::event::{Container, Path, json};
use crate::ledger::{Act, Edit, Place};
use crate::{Error, ErrorKind};

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) collection: String,
    pub(super) key: String,
    pub(super) change: Change,
}

/// A change of the whole record, or of a field.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Record(Act),
    Field(Edit),
}

/// Reads a line. A field that its operation does not have is refused: it would be lost.
pub(super) fn parse(text: &[u8]) -> Result<Line, Error> {
    let Json::Object(fields) = json::parse_bytes(text)? else {
        return Err(invalid("expected an object with op, collection and key", ""));
    };
    let mut fields = Fields(fields);
    let op = fields.text("op")?;
    let (collection, key) = (fields.text("collection")?, fields.text("key")?);
    let change = change(&op, &mut fields)?;
    match fields.0.keys().next() {
        Some(extra) => Err(invalid(&format!("`{op}` has no field `{extra}`"), extra)),
        None => Ok(Line { collection, key, change }),
    }
}

fn change(op: &str, fields: &mut Fields) -> Result<Change, Error> {
    let act = match op {
        "put" if !fields.has("path") => Act::Put(fields.json("value")?),
        "patch" => Act::Patch(fields.json("patch")?),
        "delete" => Act::Delete,
        "undelete" => Act::Undelete,
        _ => return edit(op, fields).map(Change::Field),
    };
    Ok(Change::Record(act))
}

fn edit(op: &str, fields: &mut Fields) -> Result<Edit, Error> {
    Ok(match op {
        "put" => Edit::Put(fields.path()?, fields.json("value")?),
        "put_atomic" => Edit::PutAtomic(fields.path()?, fields.atomic()?),
        "remove" => Edit::Remove(fields.path()?),
        "increment" => Edit::Increment(fields.path()?, fields.integer("by")?),
        "make_set" => Edit::MakeSet(fields.path()?),
        "set_add" => Edit::SetAdd(fields.path()?, fields.json("member")?),
        "set_remove" => Edit::SetRemove(fields.path()?, fields.json("member")?),
        "make_list" => Edit::MakeList(fields.path()?),
        "make_text" => Edit::MakeText(fields.path()?),
        "insert" => Edit::Insert(fields.place()?, fields.count("index")?, fields.json("value")?),
        "remove_at" => Edit::RemoveAt(fields.place()?, fields.count("index")?),
        "splice_text" => Edit::SpliceText {
            place: fields.place()?,
            index: fields.count("index")?,
            delete: if fields.has("delete") { fields.count("delete")? } else { 0 },
            insert: if fields.has("insert") { fields.text("insert")? } else { String::new() },
        },
        "restore" => Edit::Restore,
        _ => return Err(unknown(op)),
    })
}

/// The fields of a line that are not read yet.
struct Fields(Map<String, Json>);

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn json(&mut self, name: &str) -> Result<Json, Error> {
        self.0.remove(name).ok_or_else(|| invalid(&format!("`{name}` is missing"), name))
    }

    fn text(&mut self, name: &str) -> Result<String, Error> {
        match self.json(name)? {
            Json::String(text) => Ok(text),
            _ => Err(invalid(&format!("`{name}` is a string"), name)),
        }
    }

    fn integer(&mut self, name: &str) -> Result<i64, Error> {
        self.json(name)?.as_i64().ok_or_else(|| invalid(&format!("`{name}` is a 64-bit integer"), name))
    }

    fn count(&mut self, name: &str) -> Result<u64, Error> {
        self.json(name)?.as_u64().ok_or_else(|| invalid(&format!("`{name}` is an integer from 0"), name))
    }

    fn path(&mut self) -> Result<Path, Error> {
        Ok(Path::parse(&self.text("path")?)?)
    }

    /// What `put_atomic` sets: a value, or its JSON in a string as events hold it.
    fn atomic(&mut self) -> Result<Json, Error> {
        if self.has("value") { self.json("value") } else { Ok(json::parse(&self.text("json")?)?) }
    }

    fn place(&mut self) -> Result<Place, Error> {
        if self.has("path") {
            return self.path().map(Place::Path);
        }
        let value = self.json("container").map_err(|_| invalid("`path` or `container` is missing", "path"))?;
        container(&value).map(Place::Container).ok_or_else(|| {
            invalid("`container` is {\"own\": INDEX} or {\"of\": [EVENT, INDEX]}, with whole event ids", "container")
        })
    }
}

fn container(value: &Json) -> Option<Container> {
    let index = |value: &Json| value.as_u64().and_then(|index| u32::try_from(index).ok());
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    if let Some(own) = fields.get("own") {
        return index(own).map(Container::Own);
    }
    match fields.get("of")?.as_array()?.as_slice() {
        [event, at] => Some(Container::Of(event.as_str()?.parse().ok()?, index(at)?)),
        _ => None,
    }
}

fn invalid(message: &str, field: &str) -> Error {
    let pointers = if field.is_empty() { Vec::new() } else { vec![format!("/{}", crate::event::escape(field))] };
    Error::new(ErrorKind::Validation, message).with_pointers(pointers)
}

fn unknown(op: &str) -> Error {
    invalid(&format!("unknown op `{op}`"), "op").with_hint(
        "known are put, patch, delete, undelete, put_atomic, remove, increment, set_add, set_remove, make_set, \
         make_list, make_text, insert, remove_at, splice_text and restore",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change_of(fields: Json) -> Result<Change, Error> {
        let mut line = json!({ "collection": "c", "key": "k" });
        line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        parse(line.to_string().as_bytes()).map(|line| line.change)
    }

    #[test]
    fn a_put_with_a_path_is_of_a_field_and_without_one_of_the_record() {
        let of_record = change_of(json!({ "op": "put", "value": { "a": 1 } })).unwrap();
        assert_eq!(of_record, Change::Record(Act::Put(json!({ "a": 1 }))));
        let of_field = change_of(json!({ "op": "put", "path": "/a", "value": null })).unwrap();
        assert_eq!(of_field, Change::Field(Edit::Put(Path::parse("/a").unwrap(), Json::Null)));
    }

    #[test]
    fn a_container_is_named_by_the_operation_that_made_it() {
        let event = "ab".repeat(32);
        let change = change_of(json!({ "op": "remove_at", "container": { "of": [event, 2] }, "index": 0 })).unwrap();
        let place = Place::Container(Container::Of(event.parse().unwrap(), 2));
        assert_eq!(change, Change::Field(Edit::RemoveAt(place, 0)));
    }

    #[test]
    fn what_is_missing_unknown_or_too_much_is_named() {
        for (fields, part) in [
            (json!({ "op": "puts" }), "puts"),
            (json!({ "op": "put" }), "value"),
            (json!({ "op": "delete", "value": 1 }), "value"),
            (json!({ "op": "increment", "path": "/a", "by": 1.5 }), "by"),
            (json!({ "op": "insert", "index": 0, "value": 1 }), "path"),
            (json!({ "op": "insert", "container": { "own": -1 }, "index": 0, "value": 1 }), "container"),
        ] {
            let error = change_of(fields).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }
}
