//! What the server answers, as an OpenAPI 3.1 document.

use axum::Router;
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::server::Server;
use crate::shape::set;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> axum::Json<Json> {
    axum::Json(described())
}

/// An operation: what it is asked with, and what it answers.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Query parameters and headers, by the names that [`parameter`] knows.
    parameters: &'static [&'static str],
    body: Option<Media>,
    answers: &'static [(u16, Option<Media>)],
    /// The refusals that it may give, besides those that any operation may.
    refusals: &'static [u16],
    /// Whether it needs no token.
    is_open: bool,
}

/// A media type, and the name of its schema.
type Media = (&'static str, &'static str);

const JSON: &str = "application/json";
const PATCH: &str = "application/merge-patch+json";
const LINES: &str = "application/x-ndjson";
const MESSAGES: &str = "application/vnd.syncledger.messages";

/// The parameters of every change.
const CHANGE: &[&str] = &["Idempotency-Key", "X-Reason", "reason", "occurred_at"];
const RECORD_CHANGE: &[&str] =
    &["Idempotency-Key", "X-Reason", "reason", "occurred_at", "base", "If-Match", "If-None-Match"];

/// An operation that reads.
const fn reads(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    answers: &'static [(u16, Option<Media>)],
) -> Operation {
    let refusals = &[400, 404];
    Operation { method: "get", path, summary, parameters, body: None, answers, refusals, is_open: false }
}

/// An operation that changes something.
const fn changes(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    body: Option<Media>,
    answers: &'static [(u16, Option<Media>)],
) -> Operation {
    let refusals = &[400, 403, 404, 409, 412, 413, 415, 422];
    Operation { method, path, summary, parameters, body, answers, refusals, is_open: false }
}

const fn open(operation: Operation, refusals: &'static [u16]) -> Operation {
    Operation { is_open: true, refusals, ..operation }
}

const OPERATIONS: &[Operation] = &[
    reads(
        "/v1/records/{collection}",
        "The records of a collection, page by page",
        &["after", "limit", "prefix", "where", "changed_since", "deleted", "strategy"],
        &[(200, Some((JSON, "Records")))],
    ),
    reads(
        "/v1/records/{collection}/{key}",
        "A record's value, now or as of a moment",
        &["as_of", "strategy", "If-None-Match"],
        &[(200, Some((JSON, "Value"))), (304, None)],
    ),
    changes(
        "put",
        "/v1/records/{collection}/{key}",
        "Makes a record this object",
        RECORD_CHANGE,
        Some((JSON, "Value")),
        &[(200, Some((JSON, "Receipt"))), (201, Some((JSON, "Receipt")))],
    ),
    changes(
        "patch",
        "/v1/records/{collection}/{key}",
        "Applies a merge patch (RFC 7396) to a record",
        RECORD_CHANGE,
        Some((PATCH, "Value")),
        &[(200, Some((JSON, "Receipt")))],
    ),
    changes(
        "delete",
        "/v1/records/{collection}/{key}",
        "Deletes a record",
        RECORD_CHANGE,
        None,
        &[(200, Some((JSON, "Receipt")))],
    ),
    changes(
        "post",
        "/v1/records/{collection}/{key}/undelete",
        "Brings a deleted record back",
        RECORD_CHANGE,
        None,
        &[(200, Some((JSON, "Receipt"))), (201, Some((JSON, "Receipt")))],
    ),
    reads(
        "/v1/records/{collection}/{key}/history",
        "Who changed a record, when, why, and each field before and after",
        &["full"],
        &[(200, Some((JSON, "History")))],
    ),
    reads(
        "/v1/records/{collection}/{key}/diff",
        "What differs between two moments of a record",
        &["from", "to"],
        &[(200, Some((JSON, "Diff")))],
    ),
    reads(
        "/v1/records/{collection}/{key}/blame",
        "Who wrote each field of a record",
        &[],
        &[(200, Some((JSON, "Blame")))],
    ),
    changes(
        "post",
        "/v1/batch",
        "Many changes of many records, all or nothing",
        CHANGE,
        Some((LINES, "Change")),
        &[(200, Some((JSON, "Receipt")))],
    ),
    changes(
        "post",
        "/v1/revert",
        "Takes an event, a batch or a run back",
        CHANGE,
        Some((JSON, "Target")),
        &[(200, Some((JSON, "Reverted")))],
    ),
    changes(
        "post",
        "/v1/undo",
        "Takes the device's own last change back",
        CHANGE,
        None,
        &[(200, Some((JSON, "Reverted")))],
    ),
    reads(
        "/v1/events",
        "Events of the log after a position, waiting for some",
        &["after", "limit", "wait", "collection", "key"],
        &[(200, Some((LINES, "Event")))],
    ),
    reads(
        "/v1/events/stream",
        "Events of the log after a position, and those to come",
        &["after", "collection", "key", "Last-Event-ID"],
        &[(200, Some(("text/event-stream", "Event")))],
    ),
    reads(
        "/v1/conflicts",
        "Conflicts, by record and path",
        &["collection", "which", "strategy"],
        &[(200, Some((JSON, "Conflicts")))],
    ),
    reads("/v1/conflicts/{id}", "A conflict with its history", &[], &[(200, Some((JSON, "Conflict")))]),
    changes(
        "post",
        "/v1/conflicts/{id}/resolve",
        "Settles a conflict",
        CHANGE,
        Some((JSON, "Settlement")),
        &[(200, Some((JSON, "Receipt")))],
    ),
    changes(
        "post",
        "/v1/conflicts/{id}/reopen",
        "Opens a settled conflict again",
        CHANGE,
        None,
        &[(200, Some((JSON, "Reverted")))],
    ),
    changes(
        "post",
        "/v1/conflicts/{id}/annotate",
        "Says who looks after a conflict, or something about it (operator)",
        CHANGE,
        Some((JSON, "Annotation")),
        &[(200, Some((JSON, "Receipt")))],
    ),
    reads(
        "/v1/policies/{collection}",
        "How the conflicts of a collection are decided",
        &[],
        &[(200, Some((JSON, "Policy")))],
    ),
    changes(
        "put",
        "/v1/policies/{collection}",
        "Sets how the conflicts of a collection are decided (admin)",
        CHANGE,
        Some((JSON, "Policy")),
        &[(200, Some((JSON, "Receipt")))],
    ),
    changes(
        "post",
        "/v1/policies/{collection}/try",
        "What another policy would have decided otherwise",
        &["since"],
        Some((JSON, "Policy")),
        &[(200, Some((JSON, "Decisions")))],
    ),
    reads(
        "/v1/schemas/{collection}",
        "What the records of a collection should look like",
        &[],
        &[(200, Some((JSON, "Schema")))],
    ),
    changes(
        "put",
        "/v1/schemas/{collection}",
        "Sets or, by null, removes a schema (admin)",
        &["Idempotency-Key", "X-Reason", "reason", "occurred_at", "dry_run"],
        Some((JSON, "Schema")),
        &[(200, Some((JSON, "Answer")))],
    ),
    reads(
        "/v1/violations",
        "The constraints that records break",
        &["collection"],
        &[(200, Some((JSON, "Violations")))],
    ),
    reads("/v1/digest", "A hash of all events", &[], &[(200, Some((JSON, "Digest")))]),
    Operation {
        refusals: &[400, 403, 404],
        ..reads("/v1/status", "Counts, conflicts and sizes (operator)", &["since"], &[(200, Some((JSON, "Answer")))])
    },
    Operation {
        refusals: &[400, 404, 426],
        ..reads("/v1/sync", "A replication session over WebSocket", &[], &[(101, None)])
    },
    Operation {
        refusals: &[400, 404, 413, 429],
        ..changes(
            "post",
            "/v1/sync/push",
            "Messages of a replication session",
            &["Sync-Session"],
            Some((MESSAGES, "Messages")),
            &[(200, Some((MESSAGES, "Messages")))],
        )
    },
    Operation {
        refusals: &[400, 404, 413],
        ..changes(
            "post",
            "/v1/sync/pull",
            "What a replication session has to say",
            &["Sync-Session", "wait"],
            None,
            &[(200, Some((MESSAGES, "Messages")))],
        )
    },
    open(
        changes(
            "post",
            "/v1/devices/enrol",
            "Makes a device of who has an invitation's code",
            &[],
            Some((JSON, "Enrolment")),
            &[(200, Some((JSON, "Tokens")))],
        ),
        &[400, 401, 403, 409, 413, 415, 422],
    ),
    open(
        changes(
            "post",
            "/v1/devices/refresh",
            "Gives new tokens for a refresh token",
            &[],
            Some((JSON, "Refreshment")),
            &[(200, Some((JSON, "Tokens")))],
        ),
        &[400, 401, 413, 415, 422],
    ),
    open(reads("/livez", "Whether the process answers", &[], &[(200, Some((JSON, "Answer")))]), &[]),
    open(reads("/readyz", "Whether the store takes work", &[], &[(200, Some((JSON, "Answer")))]), &[]),
    open(reads("/openapi.json", "This document", &[], &[(200, Some((JSON, "Answer")))]), &[]),
];

/// The whole document.
fn described() -> Json {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let at = paths.entry(operation.path).or_insert_with(|| json!({}));
        set(at, operation.method, operation.described());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "syncledger",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Records, events, conflicts and replication of a ledger.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "device": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "device": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "schemas": schemas(),
        },
    })
}

impl Operation {
    fn described(&self) -> Json {
        let mut object = json!({
            "summary": self.summary,
            "operationId": self.id(),
            "parameters": self.parameters(),
            "responses": self.responses(),
        });
        if let Some(media) = self.body {
            let is_required = !self.path.ends_with("/push");
            let mut content = content(media);
            // A merge patch may also come as plain JSON.
            if media.0 == PATCH {
                set(&mut content, JSON, json!({ "schema": reference(media.1) }));
            }
            set(&mut object, "requestBody", json!({ "required": is_required, "content": content }));
        }
        if self.is_open {
            set(&mut object, "security", json!([]));
        }
        object
    }

    /// The method and the parts of the path: `put_records_collection_key`.
    fn id(&self) -> String {
        let parts =
            self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty() && *part != "v1");
        [self.method].into_iter().chain(parts).collect::<Vec<_>>().join("_")
    }

    fn parameters(&self) -> Vec<Json> {
        let of_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let of_path = of_path.map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
        });
        of_path.chain(self.parameters.iter().map(|name| parameter(name))).collect()
    }

    fn responses(&self) -> Json {
        let mut responses = Map::new();
        for (status, media) in self.answers {
            let mut answer = json!({ "description": meaning(*status) });
            if let Some(media) = media {
                set(&mut answer, "content", content(*media));
            }
            responses.insert(status.to_string(), answer);
        }
        let of_all: &[u16] = if self.is_open { &[429, 500, 503] } else { &[401, 429, 500, 503] };
        for status in self.refusals.iter().chain(of_all) {
            let problem = json!({ "description": meaning(*status), "content": content(("application/problem+json", "Problem")) });
            responses.insert(status.to_string(), problem);
        }
        responses.into()
    }
}

fn content((media, schema): Media) -> Json {
    json!({ media: { "schema": reference(schema) } })
}

fn reference(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn meaning(status: u16) -> &'static str {
    match status {
        101 => "The WebSocket is open",
        200 => "Done",
        201 => "There was no such record before",
        304 => "The reader has this version",
        400 => "The request is malformed",
        401 => "The token is missing, or good for nothing here",
        403 => "The device may not do this",
        404 => "There is no such thing, or the device may not read it",
        409 => "It does not fit what is there now",
        412 => "The condition of the request does not hold",
        413 => "Too large",
        415 => "The body is of another media type",
        422 => "The content breaks a rule",
        426 => "Expected a WebSocket handshake",
        429 => "Too many requests: try again after the time in Retry-After",
        503 => "Try again after the time in Retry-After",
        _ => "The server failed",
    }
}

/// A parameter of the query, or a header: those have names with a capital.
fn parameter(name: &str) -> Json {
    let is_header = name.starts_with(|first: char| first.is_ascii_uppercase());
    let schema = match name {
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
        "changed_since" => json!({ "type": "integer", "minimum": 0 }),
        "wait" => json!({ "type": "integer", "minimum": 0 }),
        "deleted" | "full" | "dry_run" => json!({ "type": "boolean" }),
        "which" => json!({ "enum": ["open", "auto", "resolved", "all"] }),
        "where" => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({ "type": "string" }),
    };
    let is_required = matches!(name, "from" | "to");
    let place = if is_header { "header" } else { "query" };
    json!({ "name": name, "in": place, "required": is_required, "description": purpose(name), "schema": schema })
}

fn purpose(name: &str) -> &'static str {
    match name {
        "after" => "Only what comes after this cursor",
        "limit" => "At most so many",
        "prefix" => "Only keys that start with this",
        "where" => "Only records that show this value: POINTER=JSON",
        "changed_since" => "Only records that an event after this position changed",
        "deleted" => "Deleted records too",
        "strategy" => "Look under this strategy, in its short form: last_write_wins, source_wins:jira,app",
        "as_of" => "As of a position, a time (RFC 3339), or an event of the record",
        "from" | "to" => "A position, a time (RFC 3339), or an event of the record",
        "since" => "Only what held or came after this position or time",
        "base" => "The ETag of the state that the edit is made on: what came since is concurrent with it",
        "full" => "With the whole record before and after each event",
        "which" => "Which conflicts",
        "wait" => "For how many seconds to wait, at most 30, where there is nothing yet",
        "collection" => "Only this collection",
        "key" => "Only records with this key",
        "dry_run" => "Only say what would be broken",
        "reason" | "X-Reason" => "Why, for the audit trail",
        "occurred_at" => "When it happened, as the source says: RFC 3339, or milliseconds since 1970",
        "Idempotency-Key" => "The name of the request: made a second time, it answers with the first receipt",
        "If-Match" => "Only in a state with one of these ETags",
        "If-None-Match" => "Only in a state without these ETags; of a change only `*`",
        "Last-Event-ID" => "The position after which to go on",
        _ => "The session, as the first answer named it",
    }
}

/// The shapes of bodies.
fn schemas() -> Json {
    let (text, count) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 0 }));
    let texts = json!({ "type": "array", "items": text });
    let object = |required: &[&str], properties: Json| json!({ "type": "object", "required": required, "properties": properties });
    let many = |name: &str, of: Json| object(&[name], json!({ name: { "type": "array", "items": of } }));
    let any = json!({ "type": "object" });
    let event = object(&["event", "position"], json!({ "event": text, "position": count }));
    let receipt = json!({
        "status": { "enum": ["appended", "duplicate", "unchanged"] },
        "events": { "type": "array", "items": event },
        "run": text,
    });
    let mut reverted = receipt.clone();
    set(&mut reverted, "skipped", json!({ "type": "array", "items": any }));
    let record = json!({
        "collection": text, "key": text, "value": any, "deleted": { "type": "boolean" }, "heads": texts, "conflicts": texts,
    });
    let mut records =
        many("records", object(&["collection", "key", "value", "deleted", "heads", "conflicts"], record));
    if let Some(properties) = records.get_mut("properties") {
        set(properties, "next", json!({ "type": ["string", "null"] }));
    }
    json!({
        "Answer": any,
        "Value": any,
        "Records": records,
        "Receipt": object(&["status", "events"], receipt),
        "Reverted": object(&["status", "events", "skipped"], reverted),
        "History": many("revisions", any.clone()),
        "Diff": many("changes", any.clone()),
        "Blame": many("lines", any.clone()),
        "Change": object(&["op", "collection", "key"], json!({ "op": text, "collection": text, "key": text })),
        "Target": object(&[], json!({ "event": text, "batch": text, "run": text })),
        "Event": object(&["position", "event", "collection", "key", "ops"], json!({ "position": count, "event": text, "collection": text, "key": text, "ops": { "type": "array", "items": any } })),
        "Conflicts": many("conflicts", reference("Conflict")),
        "Conflict": object(&["id", "version", "collection", "key", "path", "kind", "severity", "status", "candidates"], json!({ "id": text, "version": text, "collection": text, "key": text, "path": text, "kind": text, "severity": text, "status": text, "candidates": { "type": "array", "items": any } })),
        "Settlement": object(&[], json!({ "candidate": { "type": ["integer", "string"] }, "value": {}, "base": { "const": true }, "version": text })),
        "Annotation": object(&[], json!({ "assignee": text, "note": text })),
        "Policy": { "type": ["object", "string"] },
        "Decisions": many("decisions", any.clone()),
        "Schema": { "type": ["object", "boolean", "null"] },
        "Violations": many("violations", any.clone()),
        "Digest": object(&["digest", "events", "position", "collections"], json!({ "digest": text, "events": count, "position": count, "collections": any })),
        "Enrolment": object(&["code", "device_id"], json!({ "code": text, "device_id": text, "name": { "type": ["string", "null"] } })),
        "Refreshment": object(&["refresh_token"], json!({ "refresh_token": text })),
        "Tokens": object(&["device_id", "access_token", "refresh_token", "token_type", "expires_in"], json!({ "device_id": text, "access_token": text, "refresh_token": text, "token_type": { "const": "Bearer" }, "expires_in": count })),
        "Messages": { "type": "string", "contentEncoding": "binary" },
        "Problem": object(&["type", "title", "status", "detail", "code", "retryable"], json!({ "type": text, "title": text, "status": count, "detail": text, "code": text, "retryable": { "type": "boolean" }, "hint": text, "pointers": texts })),
    })
}
