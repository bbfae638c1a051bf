//! What was recorded: every change below a directory, every fsync and everything said, in one order. The bytes are those
//! that `shim.c` writes.

use std::path::Path;

use crate::Result;

const HEAD_BYTES: usize = 32;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A process begins; the inode is the directory's own.
    Begin {
        inode: u64,
    },
    Create {
        inode: u64,
        path: String,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    Write {
        inode: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        inode: u64,
        path: String,
    },
    RemoveDir {
        path: String,
    },
    /// An fsync of a file or directory begins …
    SyncBegin {
        inode: u64,
        number: u64,
    },
    /// … and has succeeded; of a file's data alone where it was an fdatasync.
    SyncEnd {
        number: u64,
        data_only: bool,
    },
    Said {
        words: String,
    },
}

impl Record {
    /// Whether it changes what names there are: where most can go wrong.
    pub fn is_of_names(&self) -> bool {
        use Record::{Create, MakeDir, RemoveDir, Rename, Unlink};
        matches!(self, Create { .. } | Rename { .. } | Unlink { .. } | MakeDir { .. } | RemoveDir { .. })
    }
}

/// Reads a file of records.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = std::fs::read(path)?;
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (record, after) = next(rest).ok_or_else(|| format!("{} is no trace", path.display()))?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (kind, flag) = (*head.first()?, *head.get(1)?);
    let (path, rest) = rest.split_at_checked(length(head, 4)?)?;
    let (other, rest) = rest.split_at_checked(length(head, 8)?)?;
    let (data, rest) = rest.split_at_checked(length(head, 12)?)?;
    let (inode, number) = (long(head, 16)?, long(head, 24)?);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let path = text(path)?;
    let record = match kind {
        0 => Record::Begin { inode },
        1 => Record::Create { inode, path },
        2 => Record::Truncate { inode, length: number as usize },
        3 => Record::Write { inode, offset: number as usize, bytes: data.to_vec() },
        4 => Record::Rename { from: path, to: text(other)? },
        5 => Record::Unlink { path },
        6 => Record::MakeDir { inode, path },
        7 => Record::RemoveDir { path },
        8 => Record::SyncBegin { inode, number },
        9 => Record::SyncEnd { number, data_only: flag == 1 },
        10 => Record::Said { words: text(data)? },
        _ => return None,
    };
    Some((record, rest))
}

fn length(head: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize)
}

fn long(head: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?))
}
