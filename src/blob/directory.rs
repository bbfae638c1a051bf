//! Blobs in a directory: `ab/cdef…`, one file per content.
//!
//! Invariant: a file under its final name was written and fsynced whole; everything unfinished goes at opening.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{BlobError, BlobHash, BlobStore, MAX_BLOB_BYTES, names};
use crate::disk::{self, DiskError, UNFINISHED};

/// The engine in a directory. Held by one handle at a time, under the lock of the store it belongs to.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    /// Who writes: one at a time, so that nobody takes another's unfinished rename for a durable blob.
    writing: Mutex<()>,
}

impl Blobs {
    /// Opens the directory, makes it where there is none, and removes what unfinished writes left.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let dir = dir.into();
        disk::create_dir(&dir)?;
        disk::remove_unfinished(&dir)?;
        Ok(Self { dir, writing: Mutex::new(()) })
    }

    fn path(&self, hash: BlobHash) -> PathBuf {
        let name = hash.to_string();
        let (shard, rest) = name.split_at(2);
        self.dir.join(shard).join(rest)
    }

    fn unfinished_path(&self, hash: BlobHash) -> PathBuf {
        self.dir.join(format!("{hash}{UNFINISHED}"))
    }

    /// Gives every blob that is not known its final name, and returns the directories that changed.
    fn write(&self, blobs: &[(BlobHash, &[u8])]) -> Result<BTreeSet<PathBuf>, BlobError> {
        let mut shards = BTreeSet::new();
        for (hash, content) in blobs {
            let path = self.path(*hash);
            // A known one too: an earlier process may have ended before it fsynced the directory.
            let shard = path.parent().unwrap_or(&self.dir).to_owned();
            if !self.is_whole(&path, content)? {
                disk::create_dir(&shard)?;
                self.write_one(*hash, content, &path)?;
            }
            shards.insert(shard);
        }
        Ok(shards)
    }

    fn write_one(&self, hash: BlobHash, content: &[u8], path: &Path) -> Result<(), BlobError> {
        let unfinished = self.unfinished_path(hash);
        disk::write_synced(&unfinished, content)?;
        Ok(fs::rename(&unfinished, path).map_err(DiskError::of("name", path))?)
    }

    /// Whether the file has the content's length; a damaged one of another length is written again.
    fn is_whole(&self, path: &Path, content: &[u8]) -> Result<bool, BlobError> {
        Ok(size(path)?.is_some_and(|bytes| bytes == content.len() as u64))
    }

    fn each(&self, mut visit: impl FnMut(BlobHash) -> Result<(), BlobError>) -> Result<(), BlobError> {
        for shard in disk::names(&self.dir)?.into_iter().filter(|name| name.len() == 2) {
            for name in disk::names(&self.dir.join(&shard))? {
                // Names that are no hashes are not ours.
                if let Some(hash) = parse(&format!("{shard}{name}")) {
                    visit(hash)?;
                }
            }
        }
        Ok(())
    }
}

impl BlobStore for Blobs {
    fn put_many(&self, contents: &[&[u8]]) -> Result<Vec<BlobHash>, BlobError> {
        let names = names(contents)?;
        let blobs: Vec<_> = names.iter().copied().zip(contents.iter().copied()).collect();
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&blobs)?.iter().try_for_each(|shard| disk::sync_dir(shard))?;
        Ok(names)
    }

    fn get(&self, hash: BlobHash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        match size(&path)? {
            None => return Err(BlobError::NotFound { hash }),
            Some(bytes) if bytes > MAX_BLOB_BYTES as u64 => return Err(BlobError::Corrupt { hash, path }),
            Some(_) => {}
        }
        let content = disk::read(&path)?.ok_or(BlobError::NotFound { hash })?;
        match BlobHash::of(&content) == hash {
            true => Ok(content),
            false => Err(BlobError::Corrupt { hash, path }),
        }
    }

    fn contains(&self, hash: BlobHash) -> Result<bool, BlobError> {
        Ok(size(&self.path(hash))?.is_some())
    }

    fn list(&self) -> Result<Vec<BlobHash>, BlobError> {
        let mut hashes = Vec::new();
        self.each(|hash| {
            hashes.push(hash);
            Ok(())
        })?;
        Ok(hashes)
    }

    fn remove(&self, hash: BlobHash) -> Result<bool, BlobError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(hash);
        if size(&path)?.is_none() {
            return Ok(false);
        }
        disk::remove(&path)?;
        disk::sync_dir(path.parent().unwrap_or(&self.dir))?;
        Ok(true)
    }

    fn bytes(&self) -> Result<u64, BlobError> {
        let mut bytes = 0;
        self.each(|hash| {
            bytes += size(&self.path(hash))?.unwrap_or(0);
            Ok(())
        })?;
        Ok(bytes)
    }
}

fn size(path: &Path) -> Result<Option<u64>, BlobError> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiskError { action: "look at", path: path.to_owned(), source }.into()),
    }
}

fn parse(name: &str) -> Option<BlobHash> {
    let hash = blake3::Hash::from_hex(name).ok()?;
    // Upper case is read too, but never written.
    let hash = BlobHash(*hash.as_bytes());
    (hash.to_string() == name).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn open() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        (dir, blobs)
    }

    #[test]
    fn a_blob_lies_under_its_first_two_digits_and_outlives_its_handle() {
        let (dir, blobs) = open();
        let hash = blobs.put(b"content").unwrap();
        let name = hash.to_string();
        assert!(dir.path().join(&name[..2]).join(&name[2..]).is_file());
        drop(blobs);
        assert_eq!(Blobs::open(dir.path()).unwrap().get(hash).unwrap(), b"content");
    }

    #[test]
    fn a_changed_or_cut_file_is_corrupt_and_names_the_file() {
        let (_dir, blobs) = open();
        let hash = blobs.put(b"content").unwrap();
        let path = blobs.path(hash);
        for damage in [b"Content".as_slice(), b"conten", b""] {
            fs::write(&path, damage).unwrap();
            let error = blobs.get(hash).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&path.display().to_string()));
        }
        blobs.put(b"content").unwrap();
        assert_eq!(blobs.get(hash).unwrap(), b"content", "a cut file is written again");
    }

    #[test]
    fn what_was_unfinished_is_removed_and_never_listed() {
        let (dir, blobs) = open();
        let hash = BlobHash::of(b"content");
        fs::write(blobs.unfinished_path(hash), b"cont").unwrap();
        fs::create_dir(dir.path().join("ab")).unwrap();
        fs::write(dir.path().join("ab/notes.txt"), b"not ours").unwrap();
        assert!(!blobs.contains(hash).unwrap());
        assert_eq!(blobs.list().unwrap(), []);
        drop(blobs);
        Blobs::open(dir.path()).unwrap();
        assert_eq!(disk::names(dir.path()).unwrap(), ["ab"]);
    }
}
