//! Conflicts that somebody settled.

use std::collections::BTreeMap;

use super::conflict::{Conflict, DELETED, Severity, Status};
use super::content::Content;
use super::decide::order;
use super::policy::Policy;
use super::project::{Projection, RecordId, project};
use super::resolver::Resolvers;
use crate::document::{NodeIx, View};
use crate::event::ConflictId;

/// The conflicts of a record that a resolution settled and that have not come back, each as it stood before and with
/// what is shown now.
#[must_use]
pub fn resolved(
    view: &View<'_>,
    now: &Projection,
    policy: &Policy,
    resolvers: &Resolvers,
    record: &RecordId,
) -> Vec<Conflict> {
    if !view.graph().is_concurrent() {
        // Nobody ever disagreed.
        return Vec::new();
    }
    let mut latest: BTreeMap<ConflictId, NodeIx> = BTreeMap::new();
    for (ix, node) in view.graph().nodes().filter(|(ix, _)| view.graph().contains(view.clock(), *ix)) {
        let Some(id) = node.resolves.filter(|id| now.conflicts.iter().all(|open| open.id != *id)) else { continue };
        let by = latest.entry(id).or_insert(ix);
        if order(view.graph(), ix) > order(view.graph(), *by) {
            *by = ix;
        }
    }
    latest.into_iter().filter_map(|(id, ix)| settled(view, now, policy, resolvers, record, id, ix)).collect()
}

fn settled(
    view: &View<'_>,
    now: &Projection,
    policy: &Policy,
    resolvers: &Resolvers,
    record: &RecordId,
    id: ConflictId,
    by: NodeIx,
) -> Option<Conflict> {
    let before = view.at(view.graph().ancestors(by));
    let before = project(&before, policy, resolvers, record);
    let mut conflict = before.conflicts.into_iter().find(|conflict| conflict.id == id)?;
    let node = view.graph().node(by)?;
    conflict.status =
        Status::Resolved { event: node.id, principal: node.principal.clone(), reason: node.reason.clone() };
    conflict.severity = Severity::Low;
    conflict.shown = match conflict.path.as_str() {
        DELETED => (!now.deleted).then(|| Content::of(false.into())),
        path => now.content.at(path),
    };
    conflict.taken = conflict.candidates.iter().position(|candidate| candidate.value == conflict.shown);
    conflict.because = format!("settled by {}", node.principal.as_deref().unwrap_or(&node.source));
    Some(conflict)
}
