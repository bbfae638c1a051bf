//! The shapes of bodies, by name: the fields of each, and what they are.

use serde_json::{Map, Value as Json, json};

/// A shape: its name, and its fields with what they are. A field with `?` may be missing.
type Shape = (&'static str, &'static [(&'static str, &'static str)]);

const SHAPES: &[Shape] = &[
    ("Answer", &[]),
    ("Value", &[]),
    ("Records", &[("records", "Record[]"), ("next", "string|null")]),
    (
        "Record",
        &[
            ("collection", "string"),
            ("key", "string"),
            ("value", "object"),
            ("deleted", "boolean"),
            ("heads", "string[]"),
            ("conflicts", "string[]"),
        ],
    ),
    ("Receipt", &[("status", "string"), ("events", "Placed[]"), ("run?", "string")]),
    ("Reverted", &[("status", "string"), ("events", "Placed[]"), ("run?", "string"), ("skipped", "Skipped[]")]),
    ("Placed", &[("event", "string"), ("position", "integer")]),
    ("Skipped", &[("collection", "string"), ("key", "string"), ("path", "string"), ("why", "string")]),
    ("History", &[("revisions", "Revision[]")]),
    (
        "Revision",
        &[
            ("event", "string"),
            ("position", "integer"),
            ("at", "string|integer"),
            ("occurred_at", "string|integer|null"),
            ("source", "string"),
            ("principal", "string|null"),
            ("reason", "string|null"),
            ("changes", "Difference[]"),
            ("before?", "object|null"),
            ("after?", "object|null"),
        ],
    ),
    ("Diff", &[("changes", "Difference[]")]),
    ("Difference", &[("path", "string"), ("before", "any"), ("after", "any")]),
    ("Blame", &[("lines", "Line[]")]),
    (
        "Line",
        &[
            ("path", "string"),
            ("value", "any"),
            ("event", "string|null"),
            ("source", "string|null"),
            ("principal", "string|null"),
            ("at", "string|integer|null"),
        ],
    ),
    ("Change", &[("op", "string"), ("collection", "string"), ("key", "string")]),
    ("Target", &[("event?", "string"), ("batch?", "string"), ("run?", "string")]),
    (
        "Event",
        &[
            ("position", "integer"),
            ("event", "string"),
            ("collection", "string"),
            ("key", "string"),
            ("parents", "string[]"),
            ("at", "string|integer"),
            ("source", "string"),
            ("principal", "string|null"),
            ("ops", "object[]"),
        ],
    ),
    ("Conflicts", &[("conflicts", "Conflict[]")]),
    (
        "Conflict",
        &[
            ("id", "string"),
            ("version", "string"),
            ("collection", "string"),
            ("key", "string"),
            ("path", "string"),
            ("kind", "string"),
            ("severity", "string"),
            ("status", "string"),
            ("candidates", "object[]"),
            ("history?", "object[]"),
        ],
    ),
    (
        "Settlement",
        &[("candidate?", "string|integer"), ("value?", "any"), ("base?", "boolean"), ("version?", "string")],
    ),
    ("Annotation", &[("assignee?", "string"), ("note?", "string")]),
    ("Decisions", &[("decisions", "object[]")]),
    ("Violations", &[("violations", "object[]")]),
    ("Digest", &[("digest", "string"), ("events", "integer"), ("position", "integer"), ("collections", "object")]),
    ("Enrolment", &[("code", "string"), ("device_id", "string"), ("name?", "string|null")]),
    ("Refreshment", &[("refresh_token", "string")]),
    (
        "Tokens",
        &[
            ("device_id", "string"),
            ("access_token", "string"),
            ("refresh_token", "string"),
            ("token_type", "string"),
            ("expires_in", "integer"),
        ],
    ),
    ("Beginning", &[("device_id?", "string|null"), ("app_version?", "string|null"), ("last_sync?", "string|null")]),
    (
        "Begun",
        &[
            ("server_time", "string|integer"),
            ("cursor", "string"),
            ("pending", "integer"),
            ("min_app_version", "string|null"),
        ],
    ),
    (
        "Upload",
        &[
            ("operation", "string"),
            ("model", "string"),
            ("object_id", "string|integer"),
            ("data?", "object|null"),
            ("timestamp", "string|integer"),
            ("device_id?", "string|null"),
        ],
    ),
    (
        "Taken",
        &[
            ("index", "integer"),
            ("status", "string"),
            ("model", "any"),
            ("object_id", "any"),
            ("conflict_ids", "string[]"),
            ("error", "object|string|null"),
        ],
    ),
    ("Rows", &[("rows", "Row[]"), ("cursor", "string"), ("more", "boolean")]),
    (
        "Row",
        &[
            ("operation", "string"),
            ("model", "string"),
            ("object_id", "string|integer"),
            ("data", "object|null"),
            ("timestamp", "string|integer"),
            ("deleted", "boolean"),
        ],
    ),
    (
        "Resolution",
        &[
            ("conflict_id", "string"),
            ("resolution", "string"),
            ("resolved_data?", "any"),
            ("device_id?", "string|null"),
        ],
    ),
    (
        "Problem",
        &[
            ("type", "string"),
            ("title", "string"),
            ("status", "integer"),
            ("detail", "string"),
            ("code", "string"),
            ("retryable", "boolean"),
            ("hint?", "string"),
            ("pointers?", "string[]"),
        ],
    ),
];

/// All shapes as JSON Schemas.
pub(super) fn all() -> Json {
    let mut all: Map<_, _> = SHAPES.iter().map(|(name, fields)| ((*name).to_owned(), object(fields))).collect();
    for (name, kind) in [
        ("Policy", "object|string"),
        ("Schema", "object|boolean|null"),
        ("Bytes", "string"),
        ("Uploads", "Upload[]"),
        ("Uploaded", "Taken[]"),
    ] {
        all.insert(name.to_owned(), of(kind));
    }
    all.into()
}

/// The name of a shape as a schema.
pub(super) fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(fields: &[(&str, &str)]) -> Json {
    let required: Vec<_> = fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<_, _> =
        fields.iter().map(|(name, kind)| (name.trim_end_matches('?').to_owned(), of(kind))).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The schema of `string`, `string|null`, `Record`, `Record[]` or `any`.
fn of(kind: &str) -> Json {
    if let Some(item) = kind.strip_suffix("[]") {
        return json!({ "type": "array", "items": of(item) });
    }
    match kind {
        "any" => json!({}),
        name if name.starts_with(|first: char| first.is_ascii_uppercase()) => reference(name),
        _ => match kind.split('|').collect::<Vec<_>>().as_slice() {
            [one] => json!({ "type": one }),
            several => json!({ "type": several }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_is_named_is_there() {
        let all = all();
        let text = all.to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(all.get(name).is_some(), "{name}");
        }
        assert_eq!(all["Settlement"]["required"], json!([]));
        assert_eq!(all["Records"]["properties"]["next"], json!({ "type": ["string", "null"] }));
    }
}
