//! Durable file operations: what journal, rows and blobs stand on.
//!
//! Each operation returns only once its effect would outlive a power cut, and its error names the path and what was
//! being done to it. It knows nothing of formats.
//!
//! Invariant: a file written by [`replace`] is either the old one or the new one, never a mixture.

use std::fs::{self, File};
use std::io;
#[cfg(not(unix))]
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

/// The end of the name of files that are not finished: whoever owns a directory removes them when opening it.
pub const UNFINISHED: &str = ".unfinished";

/// A file operation that the operating system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct DiskError {
    /// What was being done, as a verb: `write`.
    pub action: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// Pairs an operating system's error with what was being done; made for `map_err`.
    pub fn of<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// Whether the disk or the quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the file system forbids it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }

    fn hint(&self) -> &'static str {
        if self.is_forbidden() {
            "give this user write access to the directory, or choose one on a writable file system"
        } else if self.is_full() {
            "free disk space, then open the store again"
        } else {
            "check the path and the disk, then open the store again"
        }
    }
}

impl From<DiskError> for Error {
    fn from(fault: DiskError) -> Self {
        let kind = if fault.is_forbidden() { ErrorKind::Permission } else { ErrorKind::Storage };
        Error::new(kind, fault.to_string()).with_hint(fault.hint()).with_source(fault)
    }
}

/// Writes `bytes` to `path` as a whole: unfinished file, fsync, rename, fsync of the directory.
///
/// # Errors
/// What the operating system refuses; `path` is then unchanged, or replaced but perhaps not durably.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let unfinished = unfinished(path);
    write_synced(&unfinished, bytes)?;
    fs::rename(&unfinished, path).map_err(DiskError::of("replace", path))?;
    sync_dir(parent(path))
}

/// As [`replace`], of a file that only our user reads.
///
/// # Errors
/// As [`replace`].
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    put_private(path, bytes, File::sync_all)?;
    sync_dir(parent(path))
}

/// As [`replace_private`], but for a power cut in the next seconds, after which the file may be the old one, or none, or empty:
/// for what can be done without.
///
/// # Errors
/// As [`replace`].
pub fn replace_private_lightly(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    put_private(path, bytes, |_| Ok(()))
}

fn put_private(path: &Path, bytes: &[u8], sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), DiskError> {
    use std::io::Write as _;
    let unfinished = unfinished(path);
    // One that is there may be open to others.
    remove(&unfinished)?;
    let file = create_private(&unfinished).map_err(DiskError::of("create", &unfinished))?;
    let written = (&file).write_all(bytes).and_then(|()| sync(&file));
    written.map_err(DiskError::of("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(DiskError::of("replace", path))
}

/// Makes a new file that only our user reads.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes `bytes` to a new file at `path` and fsyncs it, but not the directory that names it.
///
/// # Errors
/// What the operating system refuses; a part of the file may then exist.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let file = File::create(path).map_err(DiskError::of("create", path))?;
    let mut appender = Appender::new(&file, path, 0);
    appender.push(bytes)?;
    appender.finish()?;
    file.sync_all().map_err(DiskError::of("fsync", path))
}

/// How many bytes are written before they are made durable: an fsync of much would hold up those of all other files of
/// the file system for as long.
const SLICE_BYTES: usize = 1 << 20;

/// Writes to a file from an offset on, slice by slice, each of which is durable before the next is written.
pub struct Appender<'a> {
    file: &'a File,
    path: &'a Path,
    /// Where what is pending will lie.
    end: u64,
    pending: Vec<u8>,
}

impl<'a> Appender<'a> {
    /// What is pushed will lie at `offset` and after it. Uses the file's own cursor.
    #[must_use]
    pub fn new(file: &'a File, path: &'a Path, offset: u64) -> Self {
        Self { file, path, end: offset, pending: Vec::new() }
    }

    /// Where what is pushed next will lie.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end + self.pending.len() as u64
    }

    /// Takes bytes, and writes those before them where they fill a slice.
    ///
    /// # Errors
    /// What the operating system refuses; what the file holds from the offset on is then unknown.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        let mut rest = bytes;
        while self.pending.len() + rest.len() >= SLICE_BYTES {
            let (now, later) = rest.split_at(SLICE_BYTES.saturating_sub(self.pending.len()));
            self.pending.extend_from_slice(now);
            self.write()?;
            rest = later;
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    fn write(&mut self) -> Result<(), DiskError> {
        write_all_at(self.file, &self.pending, self.end).map_err(DiskError::of("write", self.path))?;
        self.file.sync_data().map_err(DiskError::of("fsync", self.path))?;
        self.end = self.end();
        self.pending.clear();
        Ok(())
    }

    /// Writes what is pending; returns where it ends.
    ///
    /// # Errors
    /// As [`Appender::push`].
    pub fn finish(mut self) -> Result<u64, DiskError> {
        if !self.pending.is_empty() {
            self.write()?;
        }
        Ok(self.end)
    }
}

/// Makes the directory and those above it, where they are missing, and makes the names of these and of the directory
/// durable: one that is there may have been made by a process that ended before it did that.
///
/// # Errors
/// What the operating system refuses.
pub fn create_dir(path: &Path) -> Result<(), DiskError> {
    let missing = std::iter::successors(Some(path), |below| Some(parent(below)).filter(|above| !above.is_dir()));
    let named: Vec<&Path> = missing.collect();
    fs::create_dir_all(path).map_err(DiskError::of("create the directory", path))?;
    named.into_iter().rev().try_for_each(|dir| sync_dir(parent(dir)))
}

/// As [`create_dir`], of a directory that only our user enters, also where it is there already.
///
/// # Errors
/// What the operating system refuses.
pub fn create_private_dir(path: &Path) -> Result<(), DiskError> {
    create_dir(parent(path))?;
    make_private_dir(path).map_err(DiskError::of("create the directory", path))?;
    sync_dir(parent(path))
}

#[cfg(unix)]
fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Makes the names in a directory durable. Windows does this by itself.
///
/// # Errors
/// What the operating system refuses.
pub fn sync_dir(path: &Path) -> Result<(), DiskError> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path).and_then(|dir| dir.sync_all()).map_err(DiskError::of("fsync the directory", path))
}

/// The file's bytes, or `None` where there is no such file.
///
/// # Errors
/// What the operating system refuses.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiskError { action: "read", path: path.to_owned(), source }),
    }
}

/// Removes a file; that it is not there is no error. Durable only after [`sync_dir`].
///
/// # Errors
/// What the operating system refuses.
pub fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DiskError { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The names in a directory, sorted; names that are no UTF-8 are left out, for we never make such.
///
/// # Errors
/// What the operating system refuses.
pub fn names(path: &Path) -> Result<Vec<String>, DiskError> {
    let fault = |source| DiskError { action: "list", path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(fault)? {
        names.extend(entry.map_err(fault)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Removes what unfinished writes of an earlier process left in a directory.
///
/// # Errors
/// What the operating system refuses.
pub fn remove_unfinished(dir: &Path) -> Result<(), DiskError> {
    names(dir)?.iter().filter(|name| name.ends_with(UNFINISHED)).try_for_each(|name| remove(&dir.join(name)))
}

/// Fills `buffer` from `offset` without moving the file's own cursor.
///
/// # Errors
/// `UnexpectedEof` if the file ends before, and what else the operating system refuses.
#[cfg(unix)]
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// `UnexpectedEof` if the file ends before, and what else the operating system refuses.
#[cfg(not(unix))]
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::Read as _;
    // A second handle shares the cursor, so readers must not overlap.
    static CURSOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = CURSOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// Writes `bytes` at `offset` without moving the file's own cursor.
///
/// # Errors
/// What the operating system refuses.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes `bytes` at `offset`: nobody else may use the file's cursor meanwhile.
///
/// # Errors
/// What the operating system refuses.
#[cfg(not(unix))]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_leaves_nothing_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(b"new".as_slice()));
        assert_eq!(names(dir.path()).unwrap(), ["file"]);
    }

    #[test]
    fn what_is_appended_in_any_pieces_lies_where_it_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..3 * SLICE_BYTES + 7).map(|n| (n / 255) as u8).collect();
        for piece in [1_000, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, bytes.len()] {
            fs::write(&path, b"headxxxx").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            let mut appender = Appender::new(&file, &path, 4);
            for part in bytes.chunks(piece) {
                appender.push(part).unwrap();
            }
            assert_eq!(
                (appender.end(), appender.finish().unwrap()),
                (4 + bytes.len() as u64, 4 + bytes.len() as u64)
            );
            assert!(fs::read(&path).unwrap() == [b"head", bytes.as_slice()].concat());
        }
    }

    #[test]
    fn a_directory_is_made_with_those_above_it_once_or_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two/three");
        for _ in 0..2 {
            create_dir(&path).unwrap();
            assert!(path.is_dir());
        }
    }

    #[test]
    fn unfinished_files_are_removed_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept", "torn.unfinished"] {
            write_synced(&dir.path().join(name), b"x").unwrap();
        }
        remove_unfinished(dir.path()).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["kept"]);
    }

    #[test]
    fn a_missing_file_reads_as_none_and_removes_without_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("none")).unwrap(), None);
        remove(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn a_forbidden_path_is_a_permission_error_that_names_it() {
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let error = Error::from(DiskError { action: "write", path: "some/store".into(), source });
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert!(error.to_string().contains("some/store"), "{error}");
    }
}
