//! What the ledger is compared with: the least that makes the same bytes durable.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::Result;

/// A plain file that events are appended to.
pub struct Raw {
    file: File,
    path: PathBuf,
}

impl Raw {
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join("raw");
        let file = File::create(&path)?;
        file.sync_all()?;
        Ok(Self { file, path })
    }

    /// Appends events, `per_commit` between two `fdatasync`s. Returns how long each commit took.
    pub fn append(&mut self, events: &[Vec<u8>], per_commit: usize) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(events.len() / per_commit + 1);
        for commit in events.chunks(per_commit) {
            let started = Instant::now();
            self.file.write_all(&commit.concat())?;
            self.file.sync_data()?;
            took.push(started.elapsed());
        }
        Ok(took)
    }

    /// Reads the file as a whole.
    pub fn read(&self) -> Result<Duration> {
        let started = Instant::now();
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        std::hint::black_box(bytes);
        Ok(started.elapsed())
    }
}

/// A table of events, and one of records as they are shown, without any merging or history.
pub struct Table(Connection);

impl Table {
    pub fn create(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("table.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, record TEXT NOT NULL, body BLOB NOT NULL);
             CREATE TABLE records (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
        )?;
        Ok(Self(connection))
    }

    /// Inserts events, `per_commit` a transaction. Returns how long each transaction took.
    pub fn append(&mut self, events: &[Vec<u8>], per_commit: usize) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(events.len() / per_commit + 1);
        for commit in events.chunks(per_commit) {
            let started = Instant::now();
            let transaction = self.0.transaction()?;
            {
                let mut insert =
                    transaction.prepare_cached("INSERT INTO events (record, body) VALUES ('ISSUE-000000', ?1)")?;
                for event in commit {
                    insert.execute([event])?;
                }
            }
            transaction.commit()?;
            took.push(started.elapsed());
        }
        Ok(took)
    }

    /// Moves what the WAL holds into the table.
    pub fn checkpoint(&self) -> Result<Duration> {
        let started = Instant::now();
        self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(started.elapsed())
    }

    /// Another connection, with a cache of so many bytes.
    pub fn with_cache(dir: &Path, bytes: usize) -> Result<Self> {
        let connection = Connection::open(dir.join("table.db"))?;
        connection.pragma_update(None, "cache_size", -((bytes >> 10) as i64))?;
        Ok(Self(connection))
    }

    /// Reads all events, in order.
    pub fn read(&self) -> Result<Duration> {
        let started = Instant::now();
        let mut select = self.0.prepare("SELECT body FROM events ORDER BY position")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            std::hint::black_box(row.get::<_, Vec<u8>>(0)?);
        }
        Ok(started.elapsed())
    }

    /// Makes records as they are shown, by key.
    pub fn put(&mut self, records: impl Iterator<Item = (String, String)>) -> Result<()> {
        let transaction = self.0.transaction()?;
        for record in records {
            transaction.execute("INSERT INTO records VALUES (?1, ?2)", [record.0, record.1])?;
        }
        Ok(transaction.commit()?)
    }

    /// Gets records as JSON values.
    pub fn get<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<Duration> {
        let started = Instant::now();
        let mut select = self.0.prepare("SELECT value FROM records WHERE key = ?1")?;
        for key in keys {
            let text: String = select.query_row([key], |row| row.get(0))?;
            std::hint::black_box(serde_json::from_str::<serde_json::Value>(&text)?);
        }
        Ok(started.elapsed())
    }

    /// Gets records as JSON text.
    pub fn get_text<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<Duration> {
        let started = Instant::now();
        let mut select = self.0.prepare("SELECT value FROM records WHERE key = ?1")?;
        for key in keys {
            std::hint::black_box(select.query_row([key], |row| row.get::<_, String>(0))?);
        }
        Ok(started.elapsed())
    }
}
