//! Custom strategies: pure functions that an embedder registers by name.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::event::{EventId, Timestamp};

/// One of the values that disagree, as a custom strategy sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The value; `None` where the field was removed. A value above 16 KiB stands as null.
    pub value: Option<Json>,
    /// The event that wrote it.
    pub event: EventId,
    /// The system that it came from.
    pub source: String,
    /// The user or service there.
    pub principal: Option<String>,
    /// When the source says that it happened, in milliseconds since 1970.
    pub occurred_at: Option<i64>,
    /// When it was stamped.
    pub at: Timestamp,
    /// The record as the candidate's writer saw it, its own edit included.
    pub record: Json,
}

/// A field whose candidates disagree.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispute {
    /// The field's JSON Pointer.
    pub path: String,
    /// The value that the candidates were made on.
    pub base: Option<Json>,
    /// The candidates, by order.
    pub candidates: Vec<Choice>,
}

/// What a custom strategy says of a dispute.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Show this candidate, counted from 0.
    Take(usize),
    /// Show this value.
    Value(Json),
    /// Act as `manual`.
    Undecided,
}

/// A custom strategy: a pure function of the dispute. It must depend on nothing else, or replicas diverge.
pub type Resolver = dyn Fn(&Dispute) -> Verdict + Send + Sync;

/// The custom strategies of a program, by name.
#[derive(Clone, Default)]
pub struct Resolvers(BTreeMap<String, Arc<Resolver>>);

impl std::fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Resolvers {
    /// Registers a function under a name; a second one replaces the first.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        resolver: impl Fn(&Dispute) -> Verdict + Send + Sync + 'static,
    ) {
        self.0.insert(name.into(), Arc::new(resolver));
    }

    /// Whether a function has this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What the function of this name says, or why it says nothing.
    pub(crate) fn decide(&self, name: &str, dispute: &Dispute) -> Result<Verdict, String> {
        let resolver = self.0.get(name).ok_or_else(|| format!("custom strategy `{name}` is not registered here"))?;
        match catch_unwind(AssertUnwindSafe(|| resolver(dispute))) {
            Ok(Verdict::Take(index)) if index >= dispute.candidates.len() => {
                Err(format!("custom strategy `{name}` took candidate {index} of {}", dispute.candidates.len()))
            }
            Ok(verdict) => Ok(verdict),
            Err(_) => Err(format!("custom strategy `{name}` panicked")),
        }
    }
}
