//! Options that several commands share.

use clap::Args;

use super::caller::Caller;
use super::input;
use super::stop::{Outcome, Stop};
use crate::event::{EventId, Path};
use crate::ledger::{AsOf, Context, Ledger, Write};
use crate::projection::{Policy, PolicyFault, Strategy};
use crate::shape::{self, time};

/// Who edits, and why.
#[derive(Debug, Args)]
pub(crate) struct WriteOptions {
    /// The system that the edit comes from.
    #[arg(long, default_value = "app", value_name = "NAME")]
    pub(crate) source: String,
    /// The user or service in that system.
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// When the source says that it happened: RFC 3339, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) occurred_at: Option<i64>,
    /// Why, for the audit trail.
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// The name of the request: made a second time, it answers with the first receipt.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl WriteOptions {
    /// The same for the ledger.
    pub(crate) fn context(&self) -> Context {
        Context {
            source: self.source.clone(),
            principal: self.principal.clone(),
            reason: self.reason.clone(),
            occurred_at: self.occurred_at,
            run: None,
            idempotency_key: self.idempotency_key.clone(),
        }
    }
}

/// Which state of the record an edit is made on.
#[derive(Debug, Args)]
pub(crate) struct BaseOptions {
    /// Make the edit on these older events: what came since is concurrent with it.
    #[arg(long, value_name = "EVENT,…", value_delimiter = ',')]
    pub(crate) base: Option<Vec<String>>,
    /// Fail unless these are the record's heads.
    #[arg(long, value_name = "EVENT,…", value_delimiter = ',')]
    pub(crate) expect: Option<Vec<String>>,
}

impl BaseOptions {
    /// The write with the base and the heads that these options name.
    pub(crate) fn apply(&self, ledger: &Ledger, mut write: Write) -> Outcome<Write> {
        let (collection, key) = (&write.collection, &write.key);
        let base = events(ledger, collection, key, self.base.as_deref())?;
        let expect = events(ledger, collection, key, self.expect.as_deref())?;
        (write.base, write.expect) = (base, expect);
        Ok(write)
    }
}

/// The events of a record that these prefixes name. No prefix at all (`--expect ''`) means that there is none.
fn events(
    ledger: &Ledger,
    collection: &str,
    key: &str,
    prefixes: Option<&[String]>,
) -> Outcome<Option<Vec<EventId>>> {
    let Some(prefixes) = prefixes else { return Ok(None) };
    let named = prefixes.iter().map(|prefix| prefix.trim()).filter(|prefix| !prefix.is_empty());
    let found: Result<_, _> = named.map(|prefix| ledger.heads_by_prefix(collection, key, prefix)).collect();
    Ok(Some(found?))
}

/// The policy to look under, where it is not the collection's own.
#[derive(Debug, Args)]
pub(crate) struct ViewOptions {
    /// Look under this strategy: merge, last_write_wins, source_wins:jira,app …
    #[arg(long, value_name = "STRATEGY", value_parser = Strategy::parse, conflicts_with = "policy")]
    pub(crate) strategy: Option<Strategy>,
    /// Look under this policy.
    #[arg(long, value_name = "JSON")]
    pub(crate) policy: Option<String>,
}

impl ViewOptions {
    /// The policy, where one is named.
    pub(crate) fn policy(&self, caller: &Caller) -> Outcome<Option<Policy>> {
        match (&self.strategy, &self.policy) {
            (Some(strategy), _) => Ok(Some(Policy::of(strategy.clone()))),
            (_, Some(argument)) => policy(caller, argument).map(Some),
            _ => Ok(None),
        }
    }
}

/// Reads a policy: JSON, `@FILE`, `-`, or a strategy's short form.
pub(crate) fn policy(caller: &Caller, argument: &str) -> Outcome<Policy> {
    let is_bare = argument.starts_with(|first: char| first.is_ascii_alphabetic());
    let parsed = match is_bare {
        true => Strategy::parse(argument).map(Policy::of),
        false => Policy::from_json(&input::json(caller, argument)?),
    };
    parsed.map_err(|fault: PolicyFault| crate::Error::from(fault).into())
}

/// Reads a JSON Pointer.
pub(crate) fn pointer(text: &str) -> Result<Path, String> {
    Path::parse(text).map_err(|fault| fault.to_string())
}

/// Reads a moment of a record: a number is a position, a time is RFC 3339, anything else begins an event's id.
pub(crate) fn as_of(ledger: &Ledger, collection: &str, key: &str, text: &str) -> Outcome<AsOf> {
    shape::moment(ledger, (collection, key), text)?.ok_or_else(|| no_moment(text))
}

/// Reads a moment of a ledger: a position or a time.
pub(crate) fn until(text: &str) -> Outcome<AsOf> {
    time::moment(text).ok_or_else(|| no_moment(text))
}

fn no_moment(text: &str) -> Stop {
    Stop::usage(format!("`{text}` is no position, time or event"))
        .hint("a position is a number, a time looks like 2021-04-01T08:52:27+08:00, an event is the start of its id")
}
