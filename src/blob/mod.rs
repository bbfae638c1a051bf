//! Content-addressed files for values that are too large for an event.
//!
//! A blob's name is the hash of its content, so the same content is stored once, and what is read is proved to be what
//! was written. A [`BlobStore`] knows no events: who still needs a blob is for the layers above, which remove the
//! others.
//!
//! Invariant: `put` returns after content and name are durable, so an event may name the blob from then on.
//! Invariant: `get` returns the content that hashes to the name, or an error.

mod directory;
mod memory;

use std::path::PathBuf;

use crate::disk::DiskError;
use crate::error::{Error, ErrorKind};

pub use crate::event::BlobHash;
pub use directory::Blobs;
pub use memory::MemoryBlobs;

/// The most bytes of one blob: it is hashed, sent and read as a whole.
pub const MAX_BLOB_BYTES: usize = 256 << 20;

/// Why a blob was not stored or returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The operating system refused a file operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no such blob here.
    #[error("there is no blob {hash}")]
    NotFound {
        /// The blob that was asked for.
        hash: BlobHash,
    },
    /// The stored content has another hash.
    #[error("blob {hash} is damaged: {} has other content than its name says", path.display())]
    Corrupt {
        /// The blob that was asked for.
        hash: BlobHash,
        /// The file that is damaged.
        path: PathBuf,
    },
    /// The content is above [`MAX_BLOB_BYTES`].
    #[error("a value of {bytes} bytes is above the limit of {MAX_BLOB_BYTES}")]
    TooLarge {
        /// The size of the content.
        bytes: u64,
    },
}

impl BlobError {
    /// What kind of fault this is for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk(fault) if fault.is_forbidden() => ErrorKind::Permission,
            Self::Disk(_) => ErrorKind::Storage,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Disk(_) => "",
            Self::NotFound { .. } => "fetch it from a peer that has the ledger",
            Self::Corrupt { .. } => "remove it, then store it again or fetch it from a peer",
            Self::TooLarge { .. } => "keep the content elsewhere and a link to it in the record",
        }
    }
}

impl From<BlobError> for Error {
    fn from(fault: BlobError) -> Self {
        if let BlobError::Disk(fault) = fault {
            return fault.into();
        }
        Error::new(fault.kind(), fault.to_string()).with_hint(fault.hint()).with_source(fault)
    }
}

/// Where blobs are kept. Every method may be called from any thread.
pub trait BlobStore: Send + Sync {
    /// Stores these contents durably, in one go, and returns their names in order; what is known is not written again.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] without effect, or what the disk refuses.
    fn put_many(&self, contents: &[&[u8]]) -> Result<Vec<BlobHash>, BlobError>;

    /// The content with this name, verified.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Corrupt`], or what the disk refuses.
    fn get(&self, hash: BlobHash) -> Result<Vec<u8>, BlobError>;

    /// Whether there is a blob of this name, without reading it.
    ///
    /// # Errors
    /// What the disk refuses.
    fn contains(&self, hash: BlobHash) -> Result<bool, BlobError>;

    /// All names, in order.
    ///
    /// # Errors
    /// What the disk refuses.
    fn list(&self) -> Result<Vec<BlobHash>, BlobError>;

    /// Removes a blob that nothing names any more; `false` if there was none.
    ///
    /// # Errors
    /// What the disk refuses.
    fn remove(&self, hash: BlobHash) -> Result<bool, BlobError>;

    /// How many bytes all contents have.
    ///
    /// # Errors
    /// What the disk refuses.
    fn bytes(&self) -> Result<u64, BlobError>;

    /// Stores one content durably and returns its name.
    ///
    /// # Errors
    /// As [`BlobStore::put_many`].
    fn put(&self, content: &[u8]) -> Result<BlobHash, BlobError> {
        let hashes = self.put_many(&[content])?;
        Ok(hashes.first().copied().unwrap_or_else(|| BlobHash::of(content)))
    }
}

/// The names of these contents, none of which is too large.
fn names(contents: &[&[u8]]) -> Result<Vec<BlobHash>, BlobError> {
    match contents.iter().find(|content| content.len() > MAX_BLOB_BYTES) {
        Some(content) => Err(BlobError::TooLarge { bytes: content.len() as u64 }),
        None => Ok(contents.iter().map(|content| BlobHash::of(content)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a law for both engines.
    fn both(law: impl Fn(&dyn BlobStore)) {
        let dir = tempfile::tempdir().unwrap();
        law(&MemoryBlobs::default());
        law(&Blobs::open(dir.path().join("blobs")).unwrap());
    }

    #[test]
    fn the_name_of_a_content_stays_as_it_is() {
        assert_eq!(BlobHash::of(b"content").to_string()[..16], *"9ef255a84eb11812");
    }

    #[test]
    fn contents_come_back_by_name_and_are_stored_once() {
        both(|blobs| {
            let contents: [&[u8]; 4] = [b"one", b"", b"two", b"one"];
            let names = blobs.put_many(&contents).unwrap();
            for (name, content) in names.iter().zip(contents) {
                assert_eq!(blobs.get(*name).unwrap(), content);
                assert!(blobs.contains(*name).unwrap());
            }
            assert_eq!(blobs.put(b"two").unwrap(), names[2]);
            assert_eq!(blobs.bytes().unwrap(), 6);
            let mut sorted = names[..3].to_vec();
            sorted.sort();
            assert_eq!(blobs.list().unwrap(), sorted);
        });
    }

    #[test]
    fn a_removed_blob_is_not_found() {
        both(|blobs| {
            let name = blobs.put(b"content").unwrap();
            assert!(blobs.remove(name).unwrap());
            assert!(!blobs.remove(name).unwrap());
            assert!(!blobs.contains(name).unwrap());
            assert_eq!(blobs.get(name).unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!((blobs.list().unwrap(), blobs.bytes().unwrap()), (vec![], 0));
        });
    }

    #[test]
    fn a_content_above_the_limit_is_refused_and_nothing_is_written() {
        both(|blobs| {
            let large = vec![0; MAX_BLOB_BYTES + 1];
            assert_eq!(blobs.put_many(&[b"small", &large]).unwrap_err().kind(), ErrorKind::TooLarge);
            assert_eq!(blobs.list().unwrap(), []);
        });
    }
}
