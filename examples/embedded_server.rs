//! The sync server's routes inside an axum application of one's own.
//!
//! ```console
//! $ cargo run --example embedded_server
//! ```

use std::error::Error;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use syncledger::Store;
use syncledger::ledger::Context;
use syncledger::server::{Invite, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path())?;
    let ledger = store.ledger_or_create("main")?;
    ledger.put("notes", "first", json!({ "text": "from the application" }), &Context::from_source("app"))?;

    // Its own routes, and those of the sync server, whose devices it invites itself.
    let sync = Server::new(store.clone())?;
    let app = Router::new().route("/", get(|| async { "an application" })).merge(sync.router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let ending = sync.clone();
    let serving = tokio::spawn(async move {
        axum::serve(listener, app).with_graceful_shutdown(async move { ending.ended().await }).await
    });

    println!("{url} says: {}", reqwest::get(&url).await?.text().await?);
    let code = sync.invite(
        &ledger,
        Invite {
            name: "Ann's tablet".into(),
            role: "reader".into(),
            source: "app".into(),
            device: None,
            reads: None,
            writes: None,
            valid_ms: 60_000,
        },
    )?;
    let http = reqwest::Client::new();
    let enrolment = json!({ "code": code.code, "device_id": "tablet", "name": "Ann's tablet" });
    let tokens: Value = http.post(format!("{url}/v1/devices/enrol")).json(&enrolment).send().await?.json().await?;
    let given = |name: &str| tokens.get(name).cloned().unwrap_or_default();
    println!("a device has enrolled: {} for {} s", given("device_id"), given("expires_in"));

    let note = http.get(format!("{url}/v1/records/notes/first"));
    let note = note.bearer_auth(given("access_token").as_str().unwrap_or_default()).send().await?;
    println!("it reads: {} {}", note.status(), note.text().await?);

    sync.end();
    serving.await??;
    drop(sync);
    store.close()?;
    Ok(())
}
