//! What is posted: changes of records as CloudEvents 1.0, several in one request.

use serde_json::{Value as Json, json};

use crate::Result;
use crate::event::{LedgerId, diff, hex};
use crate::ledger::{Entry, Ledger, LogQuery, Revision};
use crate::shape::{self, set, time};

/// How many bytes the changes of one request have, after which no more are added.
const MOST_BYTES: usize = 1 << 20;
/// How many events of the log are read for one request, whether they are wanted or not, and how many at once.
const MOST_SCANNED: u64 = 16_384;
const READ: usize = 256;
/// How many bytes a change has at most: a larger one comes without the record before and after it.
const MOST_OF_ONE: usize = 256 << 10;

/// Which changes are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The collections; all where there are none.
    pub(super) collections: Vec<String>,
    /// How many in one request.
    pub(super) most: usize,
}

impl Wanted {
    /// System collections are never wanted.
    fn is_met(&self, collection: &str) -> bool {
        let is_named = self.collections.is_empty() || self.collections.iter().any(|wanted| wanted == collection);
        is_named && !collection.starts_with('$')
    }
}

/// The changes of a part of the log, ready to be posted.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) changes: Vec<String>,
    /// Where it begins and ends: everything between is in it, or not wanted.
    pub(super) after: u64,
    pub(super) until: u64,
}

impl Parcel {
    /// What comes after a position.
    ///
    /// # Errors
    /// `corrupt` or `storage`; `not_found` where that part of the log is in an archive that is not there.
    pub(super) fn read(ledger: &Ledger, wanted: &Wanted, after: u64, head: u64) -> Result<Self> {
        let (mut parcel, mut bytes) = (Self { after, until: after, ..Self::default() }, 0);
        while parcel.until < head && parcel.until - after < MOST_SCANNED {
            let page = ledger.log(&LogQuery { after: parcel.until, limit: Some(READ), ..LogQuery::default() })?;
            if page.is_empty() {
                break;
            }
            for entry in page.into_iter().filter(|entry| entry.position <= head) {
                if wanted.is_met(&entry.event.collection) {
                    let change = change(ledger, &entry)?;
                    bytes += change.len();
                    if bytes > MOST_BYTES && !parcel.changes.is_empty() {
                        return Ok(parcel);
                    }
                    parcel.changes.push(change);
                }
                parcel.until = entry.position;
                if parcel.changes.len() >= wanted.most {
                    return Ok(parcel);
                }
            }
        }
        Ok(parcel)
    }

    /// The body, and its type: a list of changes, or the change itself where one is wanted at a time.
    pub(super) fn body(&self, is_list: bool) -> (String, &'static str) {
        match self.changes.as_slice() {
            [change] if !is_list => (change.clone(), "application/cloudevents+json; charset=utf-8"),
            changes => (format!("[{}]", changes.join(",")), "application/cloudevents-batch+json; charset=utf-8"),
        }
    }

    /// What the request is known by when it is sent again.
    pub(super) fn id(&self, ledger: LedgerId, name: &str, replays: u64) -> String {
        let text = format!("{ledger} {name} {replays} {} {}", self.after, self.until);
        let hash = blake3::derive_key("syncledger 2026-11 change webhook v1", text.as_bytes());
        format!("change_{}", hex(hash.split_at(16).0))
    }
}

/// An event as a CloudEvent, with what the record showed before and after it.
fn change(ledger: &Ledger, entry: &Entry) -> Result<String> {
    let (collection, key) = (&entry.event.collection, &entry.event.key);
    let shown = |position| -> Result<Option<Json>> {
        Ok(ledger.record_at(collection, key, position)?.map(|record| record.value))
    };
    let (before, after) = (shown(entry.position - 1)?, shown(entry.position)?);
    let changes = diff::diff(before.as_ref(), after.as_ref());
    let revision = Revision { entry: entry.clone(), changes, before, after };
    let whole = cloud_event(ledger, entry, shape::revision(&revision, true)).to_string();
    if whole.len() <= MOST_OF_ONE {
        return Ok(whole);
    }
    let mut data = shape::revision(&Revision { changes: Vec::new(), ..revision }, false);
    set(&mut data, "too_large", true);
    Ok(cloud_event(ledger, entry, data).to_string())
}

fn cloud_event(ledger: &Ledger, entry: &Entry, mut data: Json) -> Json {
    let (info, event) = (ledger.info(), &entry.event);
    set(&mut data, "ledger", info.name);
    set(&mut data, "collection", event.collection.as_str());
    set(&mut data, "key", event.key.as_str());
    json!({
        "specversion": "1.0",
        "id": entry.id.to_string(),
        "source": format!("urn:syncledger:ledger:{}", info.id),
        "type": "syncledger.record.changed.v1",
        "subject": format!("{}/{}", event.collection, event.key),
        "time": time::to_json(event.at.millis),
        "datacontenttype": "application/json",
        "data": data,
    })
}
