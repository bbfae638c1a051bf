//! Rows in memory: for tests and ledgers that need not outlive the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::PoisonError;

use super::{Changes, Row, Rows, RowsError, check_sizes, start};
use crate::sync::{Mutex, MutexGuard};

/// The engine in memory.
#[derive(Debug, Default)]
pub struct MemoryRows {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    mark: Option<Vec<u8>>,
}

impl MemoryRows {
    /// The same rows once more.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn range(&self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let range = self.rows.range::<[u8], _>((start(prefix, after), Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.state().rows.get(key).cloned())
    }

    fn write(&self, changes: Changes, mark: &[u8]) -> Result<(), RowsError> {
        check_sizes(&changes, mark)?;
        let mut state = self.state();
        for (key, value) in changes {
            match value {
                Some(value) => state.rows.insert(key, value),
                None => state.rows.remove(&key),
            };
        }
        state.mark = Some(mark.to_vec());
        Ok(())
    }

    fn mark(&self) -> Option<Vec<u8>> {
        self.state().mark.clone()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, RowsError> {
        let state = self.state();
        let rows = state.range(prefix, after).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Vec<u8>>, RowsError> {
        Ok(self.state().range(prefix, after).take(limit).map(|(key, _)| key.clone()).collect())
    }

    fn clear(&self) -> Result<(), RowsError> {
        *self.state() = State::default();
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        0
    }
}
