//! Small files that are replaced as a whole: magic, version, body, checksum.
//!
//! Those of version 1 are written and read by [`write`] and [`read`].
//!
//! Invariant: what is read is a body that was written under the same magic, whole, or an error.

use std::path::Path;

use super::error::JournalError;
use crate::disk;

const CONTEXT: &str = "syncledger 2026-11 store file checksum v1";
const FIRST: u8 = 1;
const PREFIX_BYTES: usize = 5;

/// Replaces the file at `path` durably.
pub(super) fn write(path: &Path, magic: [u8; 4], body: &[u8]) -> Result<(), JournalError> {
    write_as(path, magic, FIRST, body)
}

/// Replaces the file at `path` durably by one of this version.
pub(super) fn write_as(path: &Path, magic: [u8; 4], version: u8, body: &[u8]) -> Result<(), JournalError> {
    let mut bytes = magic.to_vec();
    bytes.push(version);
    bytes.extend_from_slice(body);
    let checksum = blake3::derive_key(CONTEXT, &bytes);
    bytes.extend_from_slice(&checksum);
    Ok(disk::replace(path, &bytes)?)
}

/// The body of the file at `path`, or `None` where there is no file.
pub(super) fn read(path: &Path, magic: [u8; 4]) -> Result<Option<Vec<u8>>, JournalError> {
    Ok(read_up_to(path, magic, FIRST)?.map(|(_, body)| body))
}

/// The version and the body of the file at `path`, of any version up to this one.
pub(super) fn read_up_to(path: &Path, magic: [u8; 4], newest: u8) -> Result<Option<(u8, Vec<u8>)>, JournalError> {
    disk::read(path)?.map(|bytes| open(path, magic, newest, &bytes)).transpose()
}

/// An error that says that the file at `path` is not what was written.
pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> JournalError {
    JournalError::CorruptStore { path: path.to_owned(), what: what.into() }
}

fn open(path: &Path, magic: [u8; 4], newest: u8, bytes: &[u8]) -> Result<(u8, Vec<u8>), JournalError> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().ok_or_else(|| corrupt(path, "it is too short"))?;
    let [m0, m1, m2, m3, version] = *prefix;
    if [m0, m1, m2, m3] != magic {
        return Err(corrupt(path, "it is no file of a syncledger store"));
    }
    if !(FIRST..=newest).contains(&version) {
        let what = path.display().to_string();
        return Err(JournalError::UpgradeNeeded { what, found: version, supported: newest });
    }
    let (body, found) = rest.split_last_chunk::<32>().ok_or_else(|| corrupt(path, "it is too short"))?;
    let checked = bytes.get(..PREFIX_BYTES + body.len()).unwrap_or_default();
    if blake3::derive_key(CONTEXT, checked) != *found {
        return Err(corrupt(path, "its checksum does not fit its bytes"));
    }
    Ok((version, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const MAGIC: [u8; 4] = *b"TEST";

    #[test]
    fn a_body_reads_back_and_every_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, MAGIC, b"body").unwrap();
        assert_eq!(read(&path, MAGIC).unwrap().as_deref(), Some(b"body".as_slice()));
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&path, MAGIC, FIRST, &flipped).is_err(), "bit {bit}");
        }
        (0..bytes.len()).for_each(|length| assert!(open(&path, MAGIC, FIRST, &bytes[..length]).is_err(), "{length}"));
    }

    #[test]
    fn another_version_needs_an_upgrade_and_another_magic_is_corrupt() {
        let path = Path::new("some/file");
        for (newest, version) in [(1, b"TEST\x02whatever"), (2, b"TEST\x03whatever"), (2, b"TEST\x00whatever")] {
            assert_eq!(open(path, MAGIC, newest, version).unwrap_err().kind(), ErrorKind::UpgradeNeeded);
        }
        assert_eq!(open(path, MAGIC, FIRST, b"ELSE\x01whatever").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
