//! The key-value seam for derived state, which may be lost at any time.
//!
//! Rows are what the ledger computed from its log: whoever reads them looks at the [`Rows::mark`] to see up to what
//! they were computed, and after an error of the kind `corrupt` clears them and computes them again. So an engine may
//! forget everything, or the last writes; what it must never do is to mix states or return other bytes than were
//! written.
//!
//! Invariant: the rows are always those of one whole write, together with its mark.

mod file;
mod memory;

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::error::{Error, ErrorKind};

pub use file::FileRows;
pub use memory::MemoryRows;

/// The most bytes of one key.
pub const MAX_KEY_BYTES: usize = 4 << 10;
/// The most bytes of one value: a projected record of many fields, without its blobs.
pub const MAX_VALUE_BYTES: usize = 64 << 20;

/// The most bytes of a mark: it is written again with every write.
pub const MAX_MARK_BYTES: usize = 64 << 10;

/// Rows to set (`Some`) and to remove (`None`); of equal keys the last counts.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Why rows could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The operating system refused a file operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A stored row is not what was written.
    #[error("the derived rows in {} are damaged: {what}", path.display())]
    Corrupt {
        /// The file that is damaged.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// A write failed earlier: what is on the disk is unknown until the rows are opened again.
    #[error("the derived rows in {} have stopped after a failed write", path.display())]
    Stopped {
        /// The rows' directory.
        path: PathBuf,
    },
    /// A key or value is above its limit.
    #[error("a {what} of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// `key`, `value` or `mark`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl RowsError {
    /// What kind of fault this is for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(fault) if fault.is_forbidden() => ErrorKind::Permission,
            Self::Disk(_) | Self::Stopped { .. } => ErrorKind::Storage,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Disk(_) => "",
            Self::Corrupt { .. } => "nothing is lost: rebuild the derived state from the log",
            Self::Stopped { .. } => "free space or repair the disk, and open the store again",
            Self::TooLarge { .. } => "keep large values in blobs",
        }
    }
}

impl From<RowsError> for Error {
    fn from(fault: RowsError) -> Self {
        if let RowsError::Disk(fault) = fault {
            return fault.into();
        }
        Error::new(fault.kind(), fault.to_string()).with_hint(fault.hint()).with_source(fault)
    }
}

/// Derived rows, sorted by key. Every method may be called from any thread; readers never wait for a disk write.
pub trait Rows: Send + Sync {
    /// The row's value.
    ///
    /// # Errors
    /// [`RowsError::Corrupt`] if the stored bytes are not what was written.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;

    /// Makes all these changes and sets the mark, as one.
    ///
    /// # Errors
    /// [`RowsError::TooLarge`] without effect; what the disk refuses, after which nothing is written any more.
    fn write(&self, changes: Changes, mark: &[u8]) -> Result<(), RowsError>;

    /// The mark of the last write; `None` if nothing was written, or everything was lost.
    fn mark(&self) -> Option<Vec<u8>>;

    /// At most `limit` rows whose key starts with `prefix` and is greater than `after`, by key.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, RowsError>;

    /// [`Rows::scan`] without the values.
    ///
    /// # Errors
    /// As [`Rows::get`].
    fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, RowsError>;

    /// Removes all rows and the mark; this also repairs what was corrupt.
    ///
    /// # Errors
    /// What the disk refuses.
    fn clear(&self) -> Result<(), RowsError>;

    /// How many bytes the rows take on the disk.
    fn bytes_on_disk(&self) -> u64;
}

fn check_sizes(changes: &Changes, mark: &[u8]) -> Result<(), RowsError> {
    if mark.len() > MAX_MARK_BYTES {
        return Err(RowsError::TooLarge { what: "mark", bytes: mark.len(), limit: MAX_MARK_BYTES });
    }
    for (key, value) in changes {
        let bytes = value.as_ref().map_or(0, Vec::len);
        let sizes = [("key", key.len(), MAX_KEY_BYTES), ("value", bytes, MAX_VALUE_BYTES)];
        if let Some((what, bytes, limit)) = sizes.into_iter().find(|(_, bytes, limit)| bytes > limit) {
            return Err(RowsError::TooLarge { what, bytes, limit });
        }
    }
    Ok(())
}

/// Where a scan begins: after `after`, but not before `prefix`.
fn start<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> std::ops::Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => std::ops::Bound::Excluded(after),
        _ => std::ops::Bound::Included(prefix),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Runs a law for both engines.
    fn both(law: impl Fn(&dyn Rows)) {
        let dir = tempfile::tempdir().unwrap();
        law(&MemoryRows::default());
        law(&FileRows::open(dir.path().join("rows")).unwrap());
    }

    fn set(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        (key.into(), Some(value.into()))
    }

    #[test]
    fn rows_come_back_with_the_mark_of_the_last_write() {
        both(|rows| {
            assert_eq!(rows.mark(), None);
            rows.write(vec![set("a", "1"), set("b", "2"), set("a", "3")], b"one").unwrap();
            rows.write(vec![(b"b".to_vec(), None), set("c", "")], b"two").unwrap();
            assert_eq!(rows.get(b"a").unwrap().as_deref(), Some(b"3".as_slice()));
            assert_eq!(rows.get(b"b").unwrap(), None);
            assert_eq!(rows.get(b"c").unwrap().as_deref(), Some(b"".as_slice()));
            assert_eq!(rows.mark().as_deref(), Some(b"two".as_slice()));
        });
    }

    #[test]
    fn a_scan_is_sorted_and_ends_with_its_prefix_and_its_limit() {
        both(|rows| {
            let keys = ["b/2", "a/1", "b/1", "b/10", "c", "b"];
            rows.write(keys.map(|key| set(key, key)).to_vec(), b"").unwrap();
            let scan = |after: Option<&str>, limit| {
                let found = rows.scan(b"b/", after.map(str::as_bytes), limit).unwrap();
                assert!(found.iter().all(|(key, value)| key == value));
                let keys = rows.keys(b"b/", after.map(str::as_bytes), limit).unwrap();
                assert!(found.iter().map(|(key, _)| key).eq(&keys));
                keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(scan(None, 9), ["b/1", "b/10", "b/2"]);
            assert_eq!(scan(None, 2), ["b/1", "b/10"]);
            assert_eq!(scan(Some("b/1"), 9), ["b/10", "b/2"]);
            assert_eq!(scan(Some("a"), 1), ["b/1"], "after a key before the prefix");
            assert_eq!(scan(Some("c"), 9), [""; 0]);
            assert_eq!(rows.keys(b"", None, 9).unwrap().len(), 6);
        });
    }

    #[test]
    fn cleared_rows_have_no_mark_and_can_be_written_again() {
        both(|rows| {
            rows.write(vec![set("a", "1")], b"one").unwrap();
            rows.clear().unwrap();
            assert_eq!((rows.get(b"a").unwrap(), rows.mark()), (None, None));
            rows.write(vec![set("a", "2")], b"two").unwrap();
            assert_eq!(rows.get(b"a").unwrap().as_deref(), Some(b"2".as_slice()));
        });
    }

    #[test]
    fn oversize_is_refused_without_effect() {
        both(|rows| {
            let long = vec![0; MAX_KEY_BYTES + 1];
            let refused = rows.write(vec![set("a", "1"), (long, None)], b"one").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TooLarge);
            assert_eq!(rows.write(vec![], &[0; MAX_MARK_BYTES + 1]).unwrap_err().kind(), ErrorKind::TooLarge);
            assert_eq!((rows.get(b"a").unwrap(), rows.mark()), (None, None));
            rows.write(vec![set("a", "1")], b"one").unwrap();
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<(u8, Option<(u8, usize)>)>),
        Reopen,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        // Large values, so that compaction happens within a history.
        let value = proptest::option::weighted(0.7, (any::<u8>(), prop_oneof![0..50_usize, 50_000..200_000_usize]));
        prop_oneof![
            20 => proptest::collection::vec((0..12_u8, value), 0..5).prop_map(Step::Write),
            3 => Just(Step::Reopen),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_history_reads_like_a_map(steps in proptest::collection::vec(step(), 1..60)) {
            let dir = tempfile::tempdir().unwrap();
            let (mut file, memory) = (FileRows::open(dir.path()).unwrap(), MemoryRows::default());
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for (step, mark) in steps.into_iter().zip(0_u32..) {
                match step {
                    Step::Write(changes) => {
                        let changes: Changes = changes.into_iter()
                            .map(|(key, value)| (vec![key / 4, key], value.map(|(byte, length)| vec![byte; length])))
                            .collect();
                        file.write(changes.clone(), &mark.to_le_bytes()).unwrap();
                        memory.write(changes.clone(), &mark.to_le_bytes()).unwrap();
                        for (key, value) in changes {
                            match value {
                                Some(value) => model.insert(key, value),
                                None => model.remove(&key),
                            };
                        }
                    }
                    Step::Reopen => {
                        drop(file);
                        file = FileRows::open(dir.path()).unwrap();
                    }
                    Step::Clear => {
                        file.clear().unwrap();
                        memory.clear().unwrap();
                        model.clear();
                    }
                }
                let expected: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(&file.scan(b"", None, usize::MAX).unwrap(), &expected);
                prop_assert_eq!(&memory.scan(b"", None, usize::MAX).unwrap(), &expected);
                prop_assert_eq!(file.mark(), memory.mark());
                let live: usize = model.values().map(Vec::len).sum();
                prop_assert!(file.bytes_on_disk() < 2 * live as u64 + (5 << 20), "dead rows go");
            }
        }
    }
}
