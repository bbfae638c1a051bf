//! Blobs in memory: for tests and ledgers that need not outlive the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlobError, BlobHash, BlobStore, names};

/// The engine in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    blobs: Mutex<BTreeMap<BlobHash, Arc<[u8]>>>,
}

impl MemoryBlobs {
    /// The same blobs once more.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { blobs: Mutex::new(self.blobs().clone()) }
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.blobs().clear();
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<BlobHash, Arc<[u8]>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobStore for MemoryBlobs {
    fn put_many(&self, contents: &[&[u8]]) -> Result<Vec<BlobHash>, BlobError> {
        let names = names(contents)?;
        let mut blobs = self.blobs();
        for (name, content) in names.iter().zip(contents) {
            blobs.entry(*name).or_insert_with(|| Arc::from(*content));
        }
        Ok(names)
    }

    fn get(&self, hash: BlobHash) -> Result<Vec<u8>, BlobError> {
        let found = self.blobs().get(&hash).cloned();
        found.map(|content| content.to_vec()).ok_or(BlobError::NotFound { hash })
    }

    fn contains(&self, hash: BlobHash) -> Result<bool, BlobError> {
        Ok(self.blobs().contains_key(&hash))
    }

    fn list(&self) -> Result<Vec<BlobHash>, BlobError> {
        Ok(self.blobs().keys().copied().collect())
    }

    fn remove(&self, hash: BlobHash) -> Result<bool, BlobError> {
        Ok(self.blobs().remove(&hash).is_some())
    }

    fn bytes(&self) -> Result<u64, BlobError> {
        Ok(self.blobs().values().map(|content| content.len() as u64).sum())
    }
}
