//! The operations that the server offers.

/// An operation: what it is asked with, and what it answers.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// Query parameters and headers, by the names that `parameters` knows.
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Option<Media>,
    pub(super) answers: &'static [(u16, Option<Media>)],
    /// The refusals that it may give, besides those that any operation may.
    pub(super) refusals: &'static [u16],
    /// Whether it needs no token.
    pub(super) is_open: bool,
}

/// A media type, and the name of its schema.
pub(super) type Media = (&'static str, &'static str);

const JSON: &str = "application/json";
pub(super) const PATCH: &str = "application/merge-patch+json";
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

pub(super) const OPERATIONS: &[Operation] = &[
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
            Some((MESSAGES, "Bytes")),
            &[(200, Some((MESSAGES, "Bytes")))],
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
            &[(200, Some((MESSAGES, "Bytes")))],
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
    Operation {
        refusals: &[400, 403, 413, 415, 422, 426],
        ..changes(
            "post",
            "/api/sync/initialize",
            "Classic: a device says who and where it is",
            &[],
            Some((JSON, "Beginning")),
            &[(200, Some((JSON, "Begun")))],
        )
    },
    Operation {
        refusals: &[400, 403, 413, 415, 422],
        ..changes(
            "post",
            "/api/sync/upload",
            "Classic: edits that a device made while it was away",
            &[],
            Some((JSON, "Uploads")),
            &[(200, Some((JSON, "Uploaded")))],
        )
    },
    Operation {
        refusals: &[400, 403, 422],
        ..reads(
            "/api/sync/download",
            "Classic: what changed since a cursor",
            &["since"],
            &[(200, Some((JSON, "Rows")))],
        )
    },
    Operation {
        refusals: &[400, 403, 404, 409, 413, 415, 422],
        ..changes(
            "post",
            "/api/sync/resolve-conflict",
            "Classic: settles a conflict",
            &[],
            Some((JSON, "Resolution")),
            &[(200, Some((JSON, "Answer")))],
        )
    },
    open(
        reads("/metrics", "The server's figures, for Prometheus", &[], &[(200, Some(("text/plain", "Bytes")))]),
        &[],
    ),
    open(reads("/livez", "Whether the process answers", &[], &[(200, Some((JSON, "Answer")))]), &[]),
    open(reads("/readyz", "Whether the store takes work", &[], &[(200, Some((JSON, "Answer")))]), &[]),
    open(reads("/openapi.json", "This document", &[], &[(200, Some((JSON, "Answer")))]), &[]),
];
