//! `POST /api/sync/upload`: edits that a device made while it was away.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json as Body;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::object::Object;
use super::provisional::References;
use super::{check_device, invalid};
use crate::event::{hex, json};
use crate::ledger::{Apart, Context, Ledger, Outcome, Receipt, What};
use crate::projection::{Conflict, DELETED};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape::{set, time};
use crate::{Error, ErrorKind, Result};

/// How many items an upload has at most.
const MOST_ITEMS: usize = 1_000;

/// Takes in edits, and says of each what became of it.
pub(super) async fn upload(
    State(server): State<Server>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Body<Json>> {
    let (body, started_ms) = (body?, server.now_ms());
    let (context, bytes, uploading) = (caller.context(), body.len() as u64, server.clone());
    let answers = caller.with(move |ledger, device| uploading.upload(ledger, device, &context, &body)).await;
    server.report_upload(&caller, bytes, started_ms, &answers).await;
    Ok(Body(answers?.into()))
}

/// One item of an upload.
struct Item {
    model: String,
    object: Object,
    what: What,
    occurred_at: i64,
    /// What the item is known by when it comes again.
    name: String,
}

/// An item with what can be said of it in an answer, also where it is no good.
struct Sent {
    model: Json,
    object_id: Json,
    item: Result<Item>,
    /// The ids that were put in the place of provisional ones in its data.
    references: BTreeMap<String, String>,
}

impl Server {
    fn upload(&self, ledger: &Ledger, device: &Device, context: &Context, body: &[u8]) -> Result<Vec<Json>> {
        let mut sent = read(ledger, device, body)?;
        settle(ledger, device, &mut sent)?;
        let seen = self.0.classic.places.position(ledger, device)?;
        let edits = sent.iter().filter_map(|sent| sent.item.as_ref().ok()).map(|item| item.edit(context)).collect();
        let mut receipts = ledger.write_apart(edits, seen)?.into_iter();
        let made: Vec<(Sent, Option<Receipt>)> = sent
            .into_iter()
            .map(|mut sent| {
                let receipt = match sent.item {
                    Ok(_) => receipts.next().transpose().map_err(of_data),
                    Err(_) => Ok(None),
                };
                let receipt = receipt.unwrap_or_else(|fault| {
                    sent.item = Err(fault);
                    None
                });
                (sent, receipt)
            })
            .collect();
        check_own(&made)?;
        made.iter()
            .enumerate()
            .map(|(index, (sent, receipt))| answer(ledger, index, sent, receipt.as_ref()))
            .collect()
    }
}

/// Reads the items of an upload.
///
/// # Errors
/// `client` where it is no array, `too_large` where it has too many items, `permission` where one names another device.
fn read(ledger: &Ledger, device: &Device, body: &[u8]) -> Result<Vec<Sent>> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|fault| Error::new(ErrorKind::Client, format!("expected a JSON array of items, but {fault}")))?;
    if raw.len() > MOST_ITEMS {
        let message = format!("expected at most {MOST_ITEMS} items, got {}", raw.len());
        return Err(Error::new(ErrorKind::TooLarge, message).with_hint("upload them in several requests"));
    }
    raw.iter().map(|raw| Sent::read(ledger, device, raw.get())).collect()
}

impl Sent {
    fn read(ledger: &Ledger, device: &Device, text: &str) -> Result<Self> {
        let parsed = json::parse(text);
        let fields = parsed.as_ref().ok().cloned().unwrap_or_default();
        check_device(device, fields.get("device_id"))?;
        let item = parsed.map_err(Error::from).and_then(|fields| Item::read(ledger, device, fields));
        let named = |name: &str| fields.get(name).cloned().unwrap_or_default();
        Ok(Self { model: named("model"), object_id: named("object_id"), item, references: BTreeMap::new() })
    }
}

impl Item {
    fn read(ledger: &Ledger, device: &Device, fields: Json) -> Result<Self> {
        let Json::Object(mut fields) = fields else { return Err(invalid("", "expected an item that is an object")) };
        let model = match fields.get("model") {
            Some(Json::String(model)) => model.clone(),
            _ => return Err(invalid("/model", "expected a model: the name of a collection")),
        };
        check_model(device, &model)?;
        let object = Object::read(fields.get("object_id"), ledger.info().id, &device.id)?;
        let occurred_at = time::from_json(fields.get("timestamp").unwrap_or(&Json::Null))
            .map_err(|fault| fault.with_pointers(vec!["/timestamp".to_owned()]))?;
        let data = fields.remove("data").unwrap_or_default();
        let operation = fields.get("operation").and_then(Json::as_str).unwrap_or_default();
        let name = name(device, &(operation, &model, &object.sent, occurred_at), &data);
        Ok(Self { model, object, what: what(operation, data)?, occurred_at, name })
    }

    fn edit(&self, context: &Context) -> Apart {
        let context =
            Context { idempotency_key: Some(self.name.clone()), ..context.clone().occurred(self.occurred_at) };
        Apart { collection: self.model.clone(), key: self.object.key.clone(), what: self.what.clone(), context }
    }

    fn data(&self) -> Option<&Json> {
        match &self.what {
            What::Create(data) | What::Update(data) => Some(data),
            What::Delete => None,
        }
    }
}

fn check_model(device: &Device, model: &str) -> Result<()> {
    if device.may_write(model) {
        return Ok(());
    }
    let message = format!("the device may not write records of {model:?}");
    Err(Error::new(ErrorKind::Permission, message).with_pointers(vec!["/model".to_owned()]))
}

fn what(operation: &str, data: Json) -> Result<What> {
    match (operation, data) {
        ("create", data @ Json::Object(_)) => Ok(What::Create(data)),
        ("update", data @ Json::Object(_)) => Ok(What::Update(data)),
        ("create" | "update", _) => Err(invalid("/data", "expected data that is an object of fields")),
        ("delete", _) => Ok(What::Delete),
        _ => Err(invalid("/operation", "expected an operation: create, update or delete")),
    }
}

/// The name by which an item is known when it comes again: of the same device, operation, object and time with the same data.
fn name(device: &Device, (operation, model, object, occurred_at): &(&str, &str, &Json, i64), data: &Json) -> String {
    let text = json::canonical(&json!([device.id, operation, model, text(object), occurred_at, data]));
    let hash = blake3::derive_key("syncledger 2026-11 classic upload v1", text.as_bytes());
    format!("classic-{}", hex(hash.split_at(16).0))
}

/// An object's id as text: an integer and its digits are the same.
fn text(object: &Json) -> String {
    object.as_str().map_or_else(|| object.to_string(), str::to_owned)
}

/// Puts ids in the place of provisional ones in the items' data.
fn settle(ledger: &Ledger, device: &Device, sent: &mut [Sent]) -> Result<()> {
    let is_create = |item: &&Item| matches!(item.what, What::Create(_));
    let items = sent.iter().filter_map(|sent| sent.item.as_ref().ok()).filter(is_create);
    let made: BTreeSet<String> = items.filter_map(|item| item.object.provisional.clone()).collect();
    let mut references = References::new(ledger, &device.id, made);
    for sent in sent {
        if let Ok(Item { what: What::Create(data) | What::Update(data), .. }) = &mut sent.item {
            sent.references = references.settle(data)?;
        }
    }
    Ok(())
}

/// A fault that the ledger finds in a record, which an item has in its data.
fn of_data(fault: Error) -> Error {
    let pointers = fault.pointers().iter().map(|pointer| format!("/data{pointer}")).collect();
    fault.with_pointers(pointers)
}

/// Checks that the server itself did not fail: then an item is not at fault, and is to come again.
fn check_own(made: &[(Sent, Option<Receipt>)]) -> Result<()> {
    let own = [ErrorKind::Storage, ErrorKind::Corrupt, ErrorKind::Server, ErrorKind::Cancelled];
    let mut faults = made.iter().filter_map(|(sent, _)| sent.item.as_ref().err());
    match faults.find(|fault| own.contains(&fault.kind())) {
        Some(fault) => Err(Error::new(fault.kind(), fault.message())),
        None => Ok(()),
    }
}

/// What became of an item.
fn answer(ledger: &Ledger, index: usize, sent: &Sent, receipt: Option<&Receipt>) -> Result<Json> {
    let item = match &sent.item {
        Ok(item) => item,
        Err(fault) => return Ok(shape(index, "rejected", sent, &sent.object_id, &[], error(fault))),
    };
    let conflicts = match receipt {
        Some(receipt) if receipt.outcome != Outcome::Duplicate => conflicts(ledger, item, receipt)?,
        _ => Vec::new(),
    };
    let status = match receipt.map(|receipt| receipt.outcome) {
        Some(Outcome::Duplicate) => "duplicate",
        _ if conflicts.is_empty() => "applied",
        _ => "conflict",
    };
    let mut answer = shape(index, status, sent, &item.object.named(), &conflicts, Json::Null);
    if let Some(id) = &item.object.provisional {
        set(&mut answer, "provisional_id", id.as_str());
    }
    if !sent.references.is_empty() {
        set(&mut answer, "references", json!(sent.references));
    }
    Ok(answer)
}

fn shape(index: usize, status: &str, sent: &Sent, object: &Json, conflicts: &[String], error: Json) -> Json {
    json!({
        "index": index,
        "status": status,
        "model": sent.model,
        "object_id": object,
        "conflict_ids": conflicts,
        "error": error,
    })
}

fn error(fault: &Error) -> Json {
    let mut error = json!({ "code": fault.code(), "message": fault.message() });
    if !fault.pointers().is_empty() {
        set(&mut error, "pointers", fault.pointers());
    }
    if let Some(hint) = fault.hint() {
        set(&mut error, "hint", hint);
    }
    error
}

/// The conflicts that wait for somebody in which an item takes part.
fn conflicts(ledger: &Ledger, item: &Item, receipt: &Receipt) -> Result<Vec<String>> {
    let open = ledger.open_conflicts(&item.model, &item.object.key)?;
    let taking_part = open.iter().filter(|conflict| takes_part(conflict, item, receipt));
    Ok(taking_part.map(|conflict| conflict.id.to_string()).collect())
}

/// Whether a candidate of a conflict is an item's, or the same as an item's that another has written too.
fn takes_part(conflict: &Conflict, item: &Item, receipt: &Receipt) -> bool {
    let made = |event| receipt.events.iter().any(|(id, _)| *id == event);
    if conflict.candidates.iter().any(|candidate| made(candidate.event)) {
        return true;
    }
    if conflict.path == DELETED {
        return matches!(item.what, What::Delete);
    }
    let Some(value) = item.data().and_then(|data| data.pointer(&conflict.path)) else { return false };
    let mut values = conflict.candidates.iter().filter_map(|candidate| candidate.value.as_ref());
    values.any(|candidate| candidate.json == *value)
}
