//! Schemas: what the records of a collection should look like, and what several records have to agree on.
//!
//! A schema is a JSON Schema with keywords of our own: kinds of fields, unique fields, references, sums, business rules.
//! It never decides whether an event is valid. A local append that breaks a constraint is refused by the ledger; what a
//! merge breaks becomes a conflict.
//!
//! Invariant: pure. Violations are a function of the shown records and the schemas, whatever the order in which either
//! became known; an [`Index`] that was kept up step by step equals one that was made at once.
//!
//! Invariant: no schema, rule or record makes this layer loop, recurse without bound or fetch anything.

mod decimal;
mod expression;
mod facts;
mod fault;
mod index;
mod model;
mod violation;
mod walk;

pub use decimal::Decimal;
pub use expression::{Expression, Template};
pub(crate) use facts::value_text;
pub use facts::{Amount, Facts, Reference, Shown, Stamp, Term, Unique};
pub use fault::SchemaFault;
pub use index::{Before, Demands, Index};
pub use model::{Field, FieldKind, Schema, SumOf};
pub use violation::{Constraint, Violation};

/// The bytes of a schema as canonical JSON: it stands in its event itself, so that no replica can lack it.
pub const SCHEMA_BYTES: usize = crate::event::limits::INLINE_BYTES;

/// The nested containers of a schema.
pub const SCHEMA_DEPTH: usize = 32;

/// The subschemas of a schema with every `$ref` replaced by what it names: bounds what checking one value can cost.
pub const SUBSCHEMAS: usize = 10_000;

/// The regular expressions of a schema, and the bytes of each.
pub const PATTERNS: usize = 256;
/// The bytes of one regular expression.
pub const PATTERN_BYTES: usize = 1_024;

/// The rules of a schema.
pub const RULES: usize = 32;
/// The bytes of one rule.
pub const RULE_BYTES: usize = 1_024;
/// The steps that evaluating one rule may take.
pub const RULE_FUEL: u64 = 10_000;

/// The violations of one record that its schema and rules alone can come to: a list for people to work off.
pub const VIOLATIONS: usize = 64;
