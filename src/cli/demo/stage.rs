//! The two replicas of the demonstration, each in a store of its own, and what lies between them.

use std::path::{Path as FilePath, PathBuf};

use super::served::Served;
use super::{COLLECTION, Issue};
use crate::Result;
use crate::ledger::{Context, Delivered, Delivery, Digest, Ledger, Store};

/// One of the two replicas.
pub(super) struct Replica {
    pub(super) name: &'static str,
    pub(super) ledger: Ledger,
    /// Where the edits of the change logs come from that are made on it. A server takes of a device only what is its own.
    pub(super) source: &'static str,
}

/// Both replicas, and where they are.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    /// It hears from Jira.
    pub(super) office: Replica,
    /// It is often offline.
    pub(super) laptop: Replica,
    /// The server whose devices they are; without one each pulls from the other.
    pub(super) served: Option<Served>,
}

impl Replica {
    fn open(dir: &FilePath, name: &'static str, source: &'static str) -> Result<Self> {
        let ledger = Store::open(dir.join(name))?.ledger_or_create("main")?;
        Ok(Self { name, ledger, source })
    }
}

impl Stage {
    /// Makes two empty replicas, devices of a server or not.
    pub(super) fn build(dir: &FilePath, is_served: bool) -> Result<Self> {
        let of_laptop = if is_served { "app" } else { "jira" };
        let (office, laptop) = (Replica::open(dir, "office", "jira")?, Replica::open(dir, "laptop", of_laptop)?);
        let served = is_served.then(|| Served::start(dir, &office, &laptop)).transpose()?;
        Ok(Self { dir: dir.to_owned(), office, laptop, served })
    }

    /// Imports the issues at the office as they were before their change logs: what is new, and what was refused.
    pub(super) fn import(&self, issues: &[Issue]) -> Result<u64> {
        let delivery = |issue: &Issue| Delivery {
            key: issue.key.clone(),
            value: issue.initial.clone(),
            occurred_at: Some(issue.created),
        };
        let deliveries = issues.iter().map(delivery).collect();
        let mut created = 0;
        for delivered in self.office.ledger.import(COLLECTION, deliveries, &Context::from_source("jira"))? {
            match delivered {
                Delivered::Failed(error) => return Err(error),
                Delivered::Created(_) => created += 1,
                Delivered::Updated(_) | Delivered::Unchanged => {}
            }
        }
        Ok(created)
    }

    /// Both take over what the other has: how many events the laptop got, and the office.
    pub(super) fn exchange(&self) -> Result<(u64, u64)> {
        match &self.served {
            Some(served) => served.exchange(),
            None => {
                let to_laptop = self.laptop.ledger.pull(&self.office.ledger)?;
                let to_office = self.office.ledger.pull(&self.laptop.ledger)?;
                Ok((to_laptop.applied, to_office.applied))
            }
        }
    }

    /// The digest that both have, and the server; none where they differ.
    pub(super) fn common_digest(&self) -> Result<Option<String>> {
        let office = self.office.ledger.digest()?;
        // A server has collections of its own besides: its devices, and what they did.
        let of_users = |digest: &Digest| {
            let of_users = digest.collections.iter().filter(|(name, _)| !name.starts_with('$'));
            of_users.cloned().collect::<Vec<_>>()
        };
        for ledger in self.served.as_ref().map(Served::ledger).into_iter().chain([&self.laptop.ledger]) {
            if of_users(&ledger.digest()?) != of_users(&office) {
                return Ok(None);
            }
        }
        Ok(Some(office.digest))
    }
}
