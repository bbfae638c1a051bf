//! What the server answers, as an OpenAPI 3.1 document.

mod operations;
mod parameters;
mod shapes;

use axum::Router;
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::server::Server;
use crate::shape::set;
use operations::{Media, OPERATIONS, Operation, PATCH};
use parameters::parameter;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> axum::Json<Json> {
    axum::Json(described())
}

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
            "schemas": shapes::all(),
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
                set(&mut content, "application/json", json!({ "schema": shapes::reference(media.1) }));
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
        // A strategy that there is not.
        let of_strategy: &[u16] = if self.parameters.contains(&"strategy") { &[422] } else { &[] };
        let of_changes: &[u16] = if self.method == "get" { &[] } else { &[507] };
        for status in self.refusals.iter().chain(of_all).chain(of_strategy).chain(of_changes) {
            let problem = json!({ "description": meaning(*status), "content": content(("application/problem+json", "Problem")) });
            responses.insert(status.to_string(), problem);
        }
        responses.into()
    }
}

fn content((media, schema): Media) -> Json {
    json!({ media: { "schema": shapes::reference(schema) } })
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
        507 => "The ledger's quota is used up",
        503 => "Try again after the time in Retry-After",
        _ => "The server failed",
    }
}
