//! The records of a collection, page by page.

use std::fmt::Write as _;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value as Json, json};

use super::ask::{Params, Place, malformed};
use crate::event::{Path, json as strict};
use crate::ledger::{Ledger, Query, Record};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape;
use crate::{Error, Result};

/// How many records a page has, and at most.
const PAGE: usize = 100;
const MOST: usize = 1_000;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/records/{collection}", get(list))
}

async fn list(caller: Caller, Place(collection): Place<String>, params: Params) -> Answer<Response> {
    params.only(&["after", "limit", "prefix", "where", "changed_since", "deleted", "strategy"])?;
    let limit = params.limit(PAGE, MOST)?;
    let query = query(&params)?;
    let name = collection.clone();
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&name)?;
        page(ledger, device, &name, query, limit)
    };
    let (records, next) = caller.with(work).await?;
    let rows: Vec<_> = records.iter().map(shape::record).collect();
    let link = next.as_ref().map(|next| link(&collection, &params, next));
    let mut response = axum::Json(json!({ "records": rows, "next": next })).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn query(params: &Params) -> Result<Query> {
    Ok(Query {
        prefix: params.text("prefix").unwrap_or_default().to_owned(),
        fields: params.all("where").map(demand).collect::<Result<_>>()?,
        changed_since: params.number("changed_since")?,
        deleted: params.flag("deleted")?,
        after: params.text("after").map(str::to_owned),
        limit: None,
        policy: params.strategy()?,
    })
}

/// Takes `POINTER=JSON` apart. A field's name may have `=` in it, so each one is tried.
fn demand(text: &str) -> Result<(Path, Json)> {
    let splits = text.match_indices('=').filter_map(|(at, _)| Some((text.get(..at)?, text.get(at + 1..)?)));
    let mut fault = None;
    for (pointer, value) in splits {
        let path = Path::parse(pointer).map_err(Error::from)?;
        match strict::parse(value) {
            Ok(value) => return Ok((path, value)),
            Err(why) => fault = Some(Error::from(why)),
        }
    }
    Err(fault.unwrap_or_else(|| malformed("where", text, "POINTER=JSON, as in /status=\"open\"")))
}

/// A page of what a device sees, and the cursor of the next one.
fn page(
    ledger: &Ledger,
    device: &Device,
    collection: &str,
    mut query: Query,
    limit: usize,
) -> Result<(Vec<Record>, Option<String>)> {
    let mut found: Vec<Record> = Vec::new();
    query.limit = Some(limit + 1);
    loop {
        let read = ledger.list(collection, &query)?;
        let is_last = read.len() <= limit;
        query.after = read.last().map(|record| record.key.clone());
        found.extend(read.into_iter().filter(|record| device.may_read(collection, &record.value)));
        if is_last || found.len() > limit {
            break;
        }
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|record| record.key.clone());
    Ok((found, next))
}

/// Where the next page is.
fn link(collection: &str, params: &Params, next: &str) -> String {
    let mut link = format!("</v1/records/{}?after={}", encoded(collection), encoded(next));
    for (name, value) in params.without("after") {
        let _ = write!(link, "&{}={}", encoded(name), encoded(value));
    }
    link + ">; rel=\"next\""
}

/// A text as a part of an address.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}
