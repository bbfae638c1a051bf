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
            Self::PutAtomic { path, json } => atomic(json, limits::JSON_DEPTH - path.depth())?,
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
        // An item of a list does not say how deep its list is.
        let above = self.path().map_or(limits::PATH_DEPTH, super::Path::depth) + 1;
        self.value().map_or(Ok(()), |value| value.validate(limits::JSON_DEPTH - above))
    }
}

/// Whether `text` is canonical JSON of an array or an object that is not empty, of a size that stays inline, and of a
/// depth with which the whole record can still be read back as JSON.
fn atomic(text: &str, depth: usize) -> Result<(), &'static str> {
    if text.len() > limits::INLINE_BYTES {
        return Err("expected at most 16384 bytes inline: larger values are blobs");
    }
    let value = json::parse_canonical(text).map_err(|_| "expected canonical JSON")?;
    if nested(&value) > depth {
        return Err("expected a record of at most 64 nested objects and arrays");
    }
    match value {
        serde_json::Value::Array(_) => Ok(()),
        serde_json::Value::Object(fields) if !fields.is_empty() => Ok(()),
        _ => Err("expected an array, or an object that is not empty"),
    }
}

/// How many containers are nested in each other.
fn nested(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    match value {
        Json::Array(items) => 1 + items.iter().map(nested).max().unwrap_or(0),
        Json::Object(fields) => 1 + fields.values().map(nested).max().unwrap_or(0),
        _ => 0,
    }
}

impl Value {
    /// Checks that the value is in the one form that its kind has, and no deeper than `depth`.
    fn validate(&self, depth: usize) -> Result<(), &'static str> {
        match self {
            Self::Uint(value) if i64::try_from(*value).is_ok() => Err("expected an integer in its signed form"),
            Self::Float(value) if !canonical_float(*value) => Err("expected a finite number that is no integer"),
            Self::Text(_) | Self::Bytes(_) if self.inline_bytes() > limits::INLINE_BYTES => {
                Err("expected at most 16384 bytes inline: larger values are blobs")
            }
            Self::Atomic(text) => atomic(text, depth),
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

#[cfg(test)]
mod tests {
    use super::super::{BatchId, BatchMember, BlobForm, BlobHash, BlobRef, EventId, Idempotency, Path};
    use super::*;
    use crate::testing::event;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn put(value: Value) -> Op {
        Op::Put { path: path("/a"), value }
    }

    fn blob(bytes: u64) -> Value {
        Value::Blob(BlobRef { hash: BlobHash([1; 32]), bytes, form: BlobForm::Json })
    }

    fn add(member: Value) -> Op {
        Op::SetAdd { path: path("/a"), member }
    }

    fn atomic(at: &str, json: &str) -> Op {
        Op::PutAtomic { path: path(at), json: json.into() }
    }

    fn item(value: Value) -> Vec<Op> {
        vec![Op::MakeList { path: path("/l") }, Op::Insert { container: Container::Own(0), index: 0, value }]
    }

    fn arrays(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    fn is_valid(ops: Vec<Op>) -> bool {
        event(ops).validate().is_ok()
    }

    #[test]
    fn a_value_has_one_form() {
        for value in [
            Value::Uint(i64::MAX as u64),
            Value::Float(1.0),
            Value::Float(-0.0),
            Value::Float(f64::NAN),
            Value::Float(f64::INFINITY),
            Value::Float(-9_223_372_036_854_775_808.0),
            Value::Text("x".repeat(limits::INLINE_BYTES + 1)),
            Value::Bytes(vec![0; limits::INLINE_BYTES + 1]),
            Value::Atomic("[1]".into()),
        ] {
            assert!(!is_valid(vec![put(value.clone())]), "{value:?}");
            assert!(value == Value::Atomic("[1]".into()) || !is_valid(item(value.clone())), "{value:?}");
        }
        let largest = Value::Text("x".repeat(limits::INLINE_BYTES));
        for value in [Value::Uint(1 << 63), Value::Float(1e300), Value::Float(18_446_744_073_709_551_616.0), largest]
        {
            assert!(is_valid(vec![put(value.clone())]), "{value:?}");
        }
    }

    #[test]
    fn a_blob_is_larger_than_what_stays_inline_and_never_a_member() {
        assert!(is_valid(vec![put(blob(limits::INLINE_BYTES as u64 + 1))]));
        assert!(is_valid(item(blob(256 << 20))));
        assert!(!is_valid(vec![put(blob(limits::INLINE_BYTES as u64))]));
        assert!(!is_valid(vec![put(blob((256 << 20) + 1))]));
        assert!(!is_valid(vec![add(blob(20_000))]));
        assert!(!is_valid(vec![Op::SetRemove { path: path("/a"), member: blob(20_000) }]));
    }

    #[test]
    fn a_member_has_at_most_256_bytes_of_json() {
        assert!(is_valid(vec![add(Value::Text("x".repeat(254)))]));
        assert!(!is_valid(vec![add(Value::Text("x".repeat(255)))]));
        assert!(!is_valid(vec![add(Value::Atomic("not JSON".into()))]));
    }

    #[test]
    fn an_atomic_value_is_canonical_and_an_array_or_fields() {
        for (json, valid) in [
            ("[]", true),
            ("{\"a\":1,\"b\":[1.5]}", true),
            ("{}", false),
            ("1", false),
            ("[1.0]", false),
            ("[ ]", false),
            ("{\"b\":1,\"a\":1}", false),
            ("[1", false),
        ] {
            assert_eq!(is_valid(vec![atomic("/a", json)]), valid, "{json}");
        }
        assert!(!is_valid(vec![atomic("/a", &format!("[\"{}\"]", "x".repeat(limits::INLINE_BYTES)))]));
    }

    #[test]
    fn a_record_never_nests_deeper_than_json_is_read() {
        assert!(is_valid(vec![atomic("/a", &arrays(63))]) && !is_valid(vec![atomic("/a", &arrays(64))]));
        let deep = "/a".repeat(16);
        assert!(is_valid(vec![atomic(&deep, &arrays(48))]) && !is_valid(vec![atomic(&deep, &arrays(49))]));
        let nested = |depth| Value::Atomic(arrays(depth));
        assert!(is_valid(item(nested(47))) && !is_valid(item(nested(48))));
        assert!(is_valid(vec![add(nested(62))]) && !is_valid(vec![add(nested(63))]));
    }

    #[test]
    fn the_root_takes_an_empty_object_only() {
        let root = Path::root;
        assert!(is_valid(vec![Op::Put { path: root(), value: Value::EmptyObject }]));
        assert!(!is_valid(vec![Op::Put { path: root(), value: Value::Null }]));
        for op in [atomic("", "[1]"), Op::Remove { path: root() }, Op::MakeList { path: root() }] {
            assert!(!is_valid(vec![op]));
        }
    }

    #[test]
    fn an_increment_and_a_splice_are_bounded() {
        let by = |by| vec![Op::Increment { path: path("/n"), by }];
        assert!(is_valid(by(1 << 32)) && is_valid(by(-(1 << 32))));
        assert!(!is_valid(by((1 << 32) + 1)) && !is_valid(by(i64::MIN)));
        let container = Container::Own(0);
        let splice = |length| {
            let insert = "x".repeat(length);
            vec![Op::MakeText { path: path("/m") }, Op::SpliceText { container, index: 0, delete: 0, insert }]
        };
        assert!(is_valid(splice(limits::INLINE_BYTES)) && !is_valid(splice(limits::INLINE_BYTES + 1)));
    }

    #[test]
    fn a_container_of_the_same_event_is_made_before() {
        let remove = |made| Op::RemoveAt { container: Container::Own(made), index: 0 };
        assert!(is_valid(vec![Op::Delete, remove(0)]));
        assert!(!is_valid(vec![Op::Delete, remove(1)]));
    }

    #[test]
    fn the_head_is_within_its_limits() {
        let ids = |count: u8| (0..count).map(|n| EventId([n; 32])).collect::<Vec<_>>();
        let batch = |index, count| Some(BatchMember { id: BatchId([1; 16]), index, count });
        let key = |length| Some(Idempotency { key: "k".repeat(length), request_hash: [0; 32] });
        let valid = event(Vec::new());
        for (event, fault) in [
            (Event { collection: String::new(), ..valid.clone() }, "collection"),
            (Event { collection: "c".repeat(65), ..valid.clone() }, "collection"),
            (Event { key: "k".repeat(257), ..valid.clone() }, "key"),
            (Event { source: String::new(), ..valid.clone() }, "source"),
            (Event { principal: Some(String::new()), ..valid.clone() }, "principal"),
            (Event { reason: Some("r".repeat(1_025)), ..valid.clone() }, "reason"),
            (Event { idempotency: key(257), ..valid.clone() }, "idempotency"),
            (Event { parents: ids(65), ..valid.clone() }, "parents"),
            (Event { parents: vec![EventId([1; 32]); 2], ..valid.clone() }, "sorted"),
            (Event { parents: ids(2).into_iter().rev().collect(), ..valid.clone() }, "sorted"),
            (Event { sequence: 0, ..valid.clone() }, "sequence"),
            (Event { nth: 0, ..valid.clone() }, "nth"),
            (Event { batch: batch(0, 0), ..valid.clone() }, "batch"),
            (Event { batch: batch(1, 1), ..valid.clone() }, "batch"),
            (Event { batch: batch(0, 4_097), ..valid.clone() }, "batch"),
            (Event { body: Body::Ops(vec![Op::Delete; 4_097]), ..valid.clone() }, "operations"),
        ] {
            let refusal = event.validate().unwrap_err().to_string();
            assert!(refusal.contains(fault), "{refusal}");
        }
        let largest = Event {
            parents: ids(64),
            batch: batch(4_095, 4_096),
            idempotency: key(256),
            key: "k".repeat(256),
            ..valid
        };
        assert_eq!(largest.validate(), Ok(()));
    }

    #[test]
    fn atomic_json_is_inline_up_to_the_limits_of_size_and_depth() {
        let of_bytes = |bytes: usize| format!("[\"{}\"]", "x".repeat(bytes - 4));
        assert_eq!(super::atomic(&of_bytes(limits::INLINE_BYTES), 9), Ok(()));
        assert!(super::atomic(&of_bytes(limits::INLINE_BYTES + 1), 9).is_err());
        for nest in [
            |depth: usize| "[".repeat(depth) + &"]".repeat(depth),
            |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1),
        ] {
            assert_eq!((super::atomic(&nest(5), 5), super::atomic(&nest(6), 6)), (Ok(()), Ok(())));
            assert!(super::atomic(&nest(6), 5).is_err(), "{}", nest(6));
        }
    }
}
