//! Whether a record is deleted, where it was deleted and edited apart.
//!
//! A live delete is *disputed* when some update is neither its ancestor nor its descendant: one did not know of the
//! other.

use super::conflict::{Candidate, Conflict, ConflictKind, DELETED, Severity, Status};
use super::content::Content;
use super::decide::{candidate_of, order};
use super::policy::{Deletes, Policy};
use super::project::RecordId;
use crate::document::{Cell, NodeIx, View};
use crate::event::{FlatKey, Value, conflict_id, conflict_version};

/// Whether the record is deleted, and the conflict where that is disputed.
pub(crate) fn decide(view: &View<'_>, policy: &Policy, record: &RecordId) -> (bool, Option<Conflict>) {
    let deletes = live_deletes(view);
    if deletes.is_empty() {
        return (false, None);
    }
    let disputed: Vec<(NodeIx, Vec<NodeIx>)> =
        deletes.iter().map(|&delete| (delete, disputing(view, delete))).filter(|(_, by)| !by.is_empty()).collect();
    let deleted = match policy.deletes {
        Deletes::DeleteWins => true,
        Deletes::EditWins | Deletes::Manual => disputed.len() < deletes.len(),
    };
    let conflict = (!disputed.is_empty()).then(|| conflict(view, policy, record, deleted, &disputed));
    (deleted, conflict)
}

fn live_deletes(view: &View<'_>) -> Vec<NodeIx> {
    let lives = view.registers().get(FlatKey::deleted().as_str());
    lives.iter().filter(|live| live.cell == Cell::Value(Value::Bool(true))).map(|live| live.node).collect()
}

/// The latest updates that did not know of a delete, nor it of them.
fn disputing(view: &View<'_>, delete: NodeIx) -> Vec<NodeIx> {
    let graph = view.graph();
    let apart = |(ix, node): (NodeIx, &crate::document::Node)| {
        let disputes = node.update && graph.contains(view.clock(), ix) && graph.are_concurrent(ix, delete);
        disputes.then_some(ix)
    };
    let updates: Vec<NodeIx> = graph.nodes().filter_map(apart).collect();
    graph.maximal(&updates)
}

fn conflict(
    view: &View<'_>,
    policy: &Policy,
    record: &RecordId,
    deleted: bool,
    disputed: &[(NodeIx, Vec<NodeIx>)],
) -> Conflict {
    let graph = view.graph();
    let mut deletes: Vec<NodeIx> = disputed.iter().map(|(delete, _)| *delete).collect();
    let mut updates: Vec<NodeIx> = disputed.iter().flat_map(|(_, updates)| updates.iter().copied()).collect();
    updates.sort_unstable();
    updates.dedup();
    let by_order = |ix: &NodeIx| order(graph, *ix);
    deletes.sort_by_key(by_order);
    let events = graph.ids(deletes.iter().chain(&updates).copied());
    let latest = |nodes: &[NodeIx]| nodes.iter().map(by_order).max();
    let (open, rule) = match policy.deletes {
        Deletes::Manual => (true, "manual"),
        Deletes::EditWins => (false, "edit_wins"),
        Deletes::DeleteWins => (false, "delete_wins"),
    };
    let candidates = candidates(view, &deletes, &updates);
    Conflict {
        id: conflict_id(record.ledger, &record.collection, &record.key, DELETED),
        version: conflict_version(&events),
        path: DELETED.to_owned(),
        kind: if latest(&deletes) > latest(&updates) {
            ConflictKind::UpdateDelete
        } else {
            ConflictKind::DeleteUpdate
        },
        severity: Severity::High,
        status: if open { Status::Open } else { Status::Auto { rule: rule.to_owned() } },
        base: None,
        taken: candidates.iter().position(|candidate| candidate.value.is_none() == deleted),
        candidates,
        shown: (!deleted).then(|| Content::of(false.into())),
        because: match (open, deleted) {
            (true, _) => "deletes are manual: the record stays until somebody settles it".to_owned(),
            (false, true) if rule == "edit_wins" => {
                "edit_wins: the record goes, since another delete knew of every update".to_owned()
            }
            (false, true) => "delete_wins: the record goes, since one deleted it".to_owned(),
            (false, false) => {
                "edit_wins: the record stays, since one edited it without knowing of the delete".to_owned()
            }
        },
    }
}

/// The deletes as removals, and the updates that dispute them as the record's not being deleted, by order.
fn candidates(view: &View<'_>, deletes: &[NodeIx], updates: &[NodeIx]) -> Vec<Candidate> {
    let graph = view.graph();
    let removed = deletes.iter().map(|&ix| (order(graph, ix), candidate_of(graph, ix, None)));
    let kept = updates.iter().map(|&ix| (order(graph, ix), candidate_of(graph, ix, Some(Content::of(false.into())))));
    let mut candidates: Vec<_> = removed.chain(kept).collect();
    candidates.sort_by_key(|(order, _)| *order);
    candidates.into_iter().filter_map(|(_, candidate)| candidate).collect()
}
