//! The parameters of queries and the headers of requests, which mean the same wherever they are.

use serde_json::{Value as Json, json};

/// A parameter of the query, or a header: those have names with a capital.
pub(super) fn parameter(name: &str) -> Json {
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
