//! Documents as bytes, for this replica alone: derived, never sent, never needed.
//!
//! Invariant: what is loaded was written by this program on this machine; the row file's checksum says so.

use serde::{Deserialize, Serialize};

use super::automerge::Materialised;
use super::items::Items;
use super::writes::{Past, Writes};
use super::{Document, Graph, Pending, Work};

/// Why bytes are not a snapshot that this program reads. The record is derived from its events instead.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot cannot be read: {0}")]
pub struct SnapshotFault(String);

/// Of a document with all of its events.
const WHOLE: u8 = 3;
/// Of one that forgot its first events: followed by how many of each actor.
const RECENT: u8 = 4;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u8,
    graph: Graph,
    writes: Writes,
    /// Empty where there is none.
    automerge: Vec<u8>,
    /// What it does not hold yet.
    pending: Vec<Pending>,
    hashes: Vec<[u8; 32]>,
    births: Vec<String>,
}

fn fault(fault: impl std::fmt::Display) -> SnapshotFault {
    SnapshotFault(fault.to_string())
}

fn options() -> impl bincode::Options {
    use bincode::Options as _;
    bincode::DefaultOptions::new().with_limit(1 << 32)
}

impl Document {
    /// The document's bytes.
    ///
    /// # Errors
    /// When Automerge refuses a derived change, or the document is absurdly large.
    pub fn save(&mut self) -> Result<Vec<u8>, SnapshotFault> {
        use bincode::Options as _;
        // Where nothing asks it anything, Automerge is not woken to be saved.
        self.materialise_items().map_err(fault)?;
        let snapshot = Snapshot {
            version: if self.forgetful { RECENT } else { WHOLE },
            graph: self.graph.clone(),
            writes: self.writes.clone(),
            automerge: self.materialised.save(),
            pending: self.pending.clone(),
            hashes: self.materialised.all_hashes().iter().map(|hash| hash.0).collect(),
            births: self.materialised.birth_keys(),
        };
        let mut bytes = options().serialize(&snapshot).map_err(fault)?;
        if self.forgetful {
            bytes.extend(options().serialize(&self.graph.forgotten()).map_err(fault)?);
        }
        Ok(bytes)
    }

    /// The document that [`Document::save`] gave these bytes for.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn load(bytes: &[u8]) -> Result<Self, SnapshotFault> {
        use bincode::Options as _;
        let forgetful = match bytes.first() {
            Some(&WHOLE) => false,
            Some(&RECENT) => true,
            _ => return Err(SnapshotFault("another version wrote it".into())),
        };
        let mut rest = bytes;
        let mut snapshot: Snapshot = options().allow_trailing_bytes().deserialize_from(&mut rest).map_err(fault)?;
        if forgetful {
            snapshot.graph.set_forgotten(options().deserialize(rest).map_err(fault)?);
        } else if !rest.is_empty() {
            return Err(SnapshotFault("bytes are left over".into()));
        }
        let hashes = snapshot.hashes.into_iter().map(::automerge::ChangeHash).collect();
        let materialised = Materialised::load(&snapshot.automerge, hashes, snapshot.births).map_err(fault)?;
        let Snapshot { graph, writes, pending, .. } = snapshot;
        let now = Past { writes: &writes, graph: &graph, clock: &graph.everything() }.registers();
        let (items, trial, work, cuts) = (Items::default(), None, Work::default(), Vec::new());
        Ok(Self { graph, now, writes, materialised, pending, items, trial, work, cuts, forgetful })
    }
}
