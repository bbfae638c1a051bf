//! The rules that an event's bytes alone decide. Those that its ancestors decide are in `document::admit`.

use super::{Body, Container, Event, Op, Value, json, limits};

/// A rule of events that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventFault {
    /// A text is empty or too long.
    #[error("{what} must have 1 to {limit} bytes, got {got}")]
    TextLength {
        /// Which text.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The length that came.
        got: usize,
    },
    /// There are too many of something.
    #[error("an event has at most {limit} {what}, got {got}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The count that came.
        got: usize,
    },
    /// The parents are not sorted, or one stands twice.
    #[error("an event's parents must be sorted and unique")]
    ParentsNotSorted,
    /// A number that counts from 1 is 0.
    #[error("an event's {0} counts from 1, got 0")]
    Zero(&'static str),
    /// The place in a batch is not in the batch.
    #[error("an event's place in a batch must be below the batch's count of 1 to {limit}, got {index} of {count}", limit = limits::BATCH_EVENTS)]
    BatchPlace {
        /// The place.
        index: u32,
        /// The count.
        count: u32,
    },
    /// A value is not in its one form.
    #[error("operation {op}: {fault}")]
    Value {
        /// The operation's index.
        op: usize,
        /// What is wrong.
        fault: &'static str,
    },
}

fn text(what: &'static str, text: &str, limit: usize) -> Result<(), EventFault> {
    if text.is_empty() || text.len() > limit {
        return Err(EventFault::TextLength { what, limit, got: text.len() });
    }
    Ok(())
}

fn at_most(what: &'static str, got: usize, limit: usize) -> Result<(), EventFault> {
    if got > limit { Err(EventFault::TooMany { what, limit, got }) } else { Ok(()) }
}

impl Event {
    /// Checks every rule that the event alone decides.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), EventFault> {
        self.validate_head()?;
        let Body::Ops(ops) = &self.body;
        at_most("operations", ops.len(), limits::EVENT_OPS)?;
        for (index, op) in ops.iter().enumerate() {
            op.validate(index).map_err(|fault| EventFault::Value { op: index, fault })?;
        }
        Ok(())
    }

    fn validate_head(&self) -> Result<(), EventFault> {
        text("a collection's name", &self.collection, limits::COLLECTION_BYTES)?;
        text("a record's key", &self.key, limits::KEY_BYTES)?;
        text("a source", &self.source, limits::NAME_BYTES)?;
        self.principal.iter().try_for_each(|name| text("a principal", name, limits::NAME_BYTES))?;
        self.reason.iter().try_for_each(|reason| text("a reason", reason, limits::REASON_BYTES))?;
        self.idempotency.iter().try_for_each(|key| text("an idempotency key", &key.key, limits::NAME_BYTES))?;
        at_most("parents", self.parents.len(), limits::PARENTS)?;
        if !self.parents.is_sorted_by(|a, b| a < b) {
            return Err(EventFault::ParentsNotSorted);
        }
        if self.sequence == 0 {
            return Err(EventFault::Zero("sequence"));
        }
        if self.nth == 0 {
            return Err(EventFault::Zero("nth"));
        }
        match self.batch {
            Some(batch) if batch.index >= batch.count || batch.count as usize > limits::BATCH_EVENTS => {
                Err(EventFault::BatchPlace { index: batch.index, count: batch.count })
            }
            _ => Ok(()),
        }
    }
}

impl Op {
    /// `index` is the operation's own, which a container made in the same event must precede.
    fn validate(&self, index: usize) -> Result<(), &'static str> {
        if let Some(Container::Own(made)) = self.container()
            && made as usize >= index
        {
            return Err("expected a list or text that an earlier operation of the event makes");
        }
        match self {
            Self::Put { value: Value::Atomic(_), .. } => return Err("expected an array or object in put_atomic"),
            Self::Put { path, value } if path.is_root() && *value != Value::EmptyObject => {
                return Err("expected {} at the root of a record: its fields are put one by one");
            }
            Self::PutAtomic { json, .. } => atomic(json)?,
            Self::Increment { by, .. } if by.unsigned_abs() > limits::INCREMENT_MAX => {
                return Err("expected an increment of at most 4294967296 either way");
            }
            Self::SetAdd { member: Value::Blob(_), .. } | Self::SetRemove { member: Value::Blob(_), .. } => {
                return Err("expected a set's member inline, not as a blob");
            }
            Self::SetAdd { member, .. } | Self::SetRemove { member, .. }
                if member.canonical().len() > limits::KEY_BYTES =>
            {
                return Err("expected a set's member of at most 256 bytes of canonical JSON");
            }
            Self::SpliceText { insert, .. } if insert.len() > limits::INLINE_BYTES => {
                return Err("expected at most 16384 bytes in one splice: use several");
            }
            _ => {}
        }
        if !matches!(self, Self::Put { .. }) && self.path().is_some_and(super::Path::is_root) {
            return Err("expected the path of a field: the root is the record itself");
        }
        self.value().map_or(Ok(()), Value::validate)
    }
}

/// Whether `text` is canonical JSON of an array or an object that is not empty, of a size that stays inline.
fn atomic(text: &str) -> Result<(), &'static str> {
    if text.len() > limits::INLINE_BYTES {
        return Err("expected at most 16384 bytes inline: larger values are blobs");
    }
    let value = json::parse_canonical(text).map_err(|_| "expected canonical JSON")?;
    match value {
        serde_json::Value::Array(_) => Ok(()),
        serde_json::Value::Object(fields) if !fields.is_empty() => Ok(()),
        _ => Err("expected an array, or an object that is not empty"),
    }
}

impl Value {
    /// Checks that the value is in the one form that its kind has.
    fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::Uint(value) if i64::try_from(*value).is_ok() => Err("expected an integer in its signed form"),
            Self::Float(value) if !canonical_float(*value) => Err("expected a finite number that is no integer"),
            Self::Text(_) | Self::Bytes(_) if self.inline_bytes() > limits::INLINE_BYTES => {
                Err("expected at most 16384 bytes inline: larger values are blobs")
            }
            Self::Atomic(text) => atomic(text),
            Self::Blob(blob) if blob.bytes > limits::BLOB_BYTES => Err("expected a blob of at most 256 MiB"),
            Self::Blob(blob) if blob.bytes <= limits::INLINE_BYTES as u64 => {
                Err("expected a value of at most 16384 bytes inline, not as a blob")
            }
            _ => Ok(()),
        }
    }
}

/// Whether a float is finite and not an integer that i64 or u64 holds exactly.
fn canonical_float(value: f64) -> bool {
    let integer =
        value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&value);
    value.is_finite() && !integer
}
