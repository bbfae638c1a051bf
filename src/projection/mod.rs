//! Projections: what a reader sees of a record under a policy.
//!
//! The same events can be seen under any policy, so that a strategy can be changed afterwards and no losing value is
//! ever lost. Every decision says why.
//!
//! Invariant: a projection is a pure, total function of a document, a policy and the registered custom strategies. It
//! has no I/O, clock or chance, and never sees the order in which events arrived.

mod conflict;
mod containers;
mod content;
mod decide;
mod deletion;
mod layers;
pub(crate) mod plain;
mod policy;
mod project;
mod resolved;
mod resolver;
#[cfg(test)]
mod tests;
mod tree;

pub use conflict::{Candidate, Conflict, ConflictKind, DELETED, Severity, Status};
pub(crate) use containers::Containers;
pub use content::Content;
pub(crate) use decide::candidate_of;
pub(crate) use layers::Layers;
pub use policy::{Deletes, Policy, PolicyFault, Scope, Strategy};
pub(crate) use project::project_fields;
pub use project::{Blame, Projection, RecordId, project};
pub use resolved::resolved;
pub use resolver::{Choice, Dispute, Resolver, Resolvers, Verdict};
