//! Two devices and a server: one of them is offline, and no edit is lost. `cargo run --example offline_device`.

use std::net::TcpListener;

use serde_json::json;
use syncledger::client::{Client, Tokens};
use syncledger::ledger::{Context, Which};
use syncledger::server::{Invite, Server};
use syncledger::{Ledger, Result, Store};

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dirs = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);

    // A server. In production it is a process of its own: `syncledger serve`.
    let store = Store::open(dirs.0.path())?;
    let office = store.create_ledger("main")?;
    let server = Server::new(store)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener, None, std::future::pending()).await });

    // Two devices, each with a store of its own, enrol with a code.
    let (laptop, phone) = (Ledger::open(dirs.1.path())?, Ledger::open(dirs.2.path())?);
    let ann = enrol(&server, &office, &laptop, &url, "laptop").await?;
    let ravi = enrol(&server, &office, &phone, &url, "phone").await?;
    let (by_ann, by_ravi) = (Context::from_source("app").by("ann"), Context::from_source("app").by("ravi"));

    laptop.put("issues", "EE-1", json!({ "title": "Crash", "status": "open" }), &by_ann)?;
    println!("laptop: {} event(s) sent", ann.sync(&[]).await?.sent);
    println!("phone: {} event(s) received", ravi.sync(&[]).await?.received);

    // The phone is offline: edits are durable there, and wait.
    phone.patch("issues", "EE-1", json!({ "priority": 1, "status": "blocked" }), &by_ravi)?;
    laptop.patch("issues", "EE-1", json!({ "title": "Crash at start", "status": "done" }), &by_ann)?;
    ann.sync(&[]).await?;
    for queued in ravi.queue(10)? {
        println!(
            "phone, offline: {} {}/{} is {}",
            queued.operation,
            queued.collection,
            queued.key,
            queued.status.name()
        );
    }

    // It comes back. Both edits are there; the one field that both changed is a conflict, with both values.
    ravi.sync(&[]).await?;
    ann.sync(&[]).await?;
    let record = laptop.get("issues", "EE-1")?.ok_or("the record is there")?;
    println!("both show: {}", record.value);
    for found in laptop.conflicts(None, Which::Open, None)? {
        println!("in conflict: {} of {}/{}", found.conflict.path, found.collection, found.key);
    }
    println!("alike: {}", laptop.digest()?.digest == phone.digest()?.digest);
    Ok(())
}

async fn enrol(server: &Server, office: &Ledger, device: &Ledger, url: &str, name: &str) -> Result<Client> {
    let invite = Invite {
        name: name.to_owned(),
        role: "writer".to_owned(),
        source: "app".to_owned(),
        device: None,
        reads: None,
        writes: None,
        valid_ms: 60_000,
    };
    let invited = server.invite(office, invite)?;
    let tokens = Tokens::enrol(device, url, &invited.code, Some(name), Some(name)).await?;
    Client::open(device.store(), url, tokens)
}
