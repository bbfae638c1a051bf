//! Which conflicts come and go while a client syncs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::spawn_blocking;

use super::lifecycle::Happened;
use crate::Result;
use crate::event::ConflictId;
use crate::ledger::{Growth, Ledger, Which};

/// How often it is looked at most.
const LOOKS: Duration = Duration::from_millis(200);

/// The open conflicts of a ledger, with their records.
type Open = BTreeMap<ConflictId, (String, String)>;

fn open(ledger: &Ledger) -> Result<Open> {
    let found = ledger.conflicts(None, Which::Open, None)?;
    Ok(found.into_iter().map(|found| (found.conflict.id, (found.collection, found.key))).collect())
}

/// What happened between two looks.
fn between(before: Open, now: &Open) -> Vec<Happened> {
    let detected = now.iter().filter(|(id, _)| !before.contains_key(id)).map(|(conflict, (collection, key))| {
        let (conflict, collection, key) = (*conflict, collection.clone(), key.clone());
        Happened::ConflictDetected { conflict, collection, key }
    });
    let detected: Vec<_> = detected.collect();
    let resolved = before.into_iter().filter(|(id, _)| !now.contains_key(id));
    let resolved =
        resolved.map(|(conflict, (collection, key))| Happened::ConflictResolved { conflict, collection, key });
    detected.into_iter().chain(resolved).collect()
}

/// Conflicts as they were when it was looked last.
pub(super) struct Watch {
    ledger: Ledger,
    seen: Open,
    tell: broadcast::Sender<Happened>,
}

impl Watch {
    /// Looks for the first time; `None` where nobody listens, or a look fails: an attempt does not fail by that.
    pub(super) async fn begin(ledger: &Ledger, tell: &broadcast::Sender<Happened>) -> Option<Self> {
        if tell.receiver_count() == 0 {
            return None;
        }
        let at = ledger.clone();
        let seen = spawn_blocking(move || open(&at)).await.ok()?.ok()?;
        Some(Self { ledger: ledger.clone(), seen, tell: tell.clone() })
    }

    /// Looks again.
    pub(super) async fn look(&mut self) {
        let at = self.ledger.clone();
        let Ok(Ok(now)) = spawn_blocking(move || open(&at)).await else { return };
        for happened in between(std::mem::take(&mut self.seen), &now) {
            // Nobody may listen.
            let _ = self.tell.send(happened);
        }
        self.seen = now;
    }

    /// Looks whenever the log has grown, until it is dropped.
    pub(super) async fn follow(&mut self, mut growth: Growth) -> Infallible {
        while growth.next().await.is_ok() {
            self.look().await;
            tokio::time::sleep(LOOKS).await;
        }
        std::future::pending().await
    }
}
