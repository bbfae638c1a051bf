//! The two replicas of the demonstration, each in a store of its own.

use std::path::{Path as FilePath, PathBuf};

use super::{COLLECTION, Issue};
use crate::Result;
use crate::ledger::{Context, Delivered, Delivery, Ledger, Store, Transfer};

/// One of the two replicas.
pub(super) struct Replica {
    pub(super) name: &'static str,
    pub(super) ledger: Ledger,
}

/// Both replicas, and where they are.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    /// It hears from Jira.
    pub(super) office: Replica,
    /// It is often offline.
    pub(super) laptop: Replica,
}

impl Replica {
    fn open(dir: &FilePath, name: &'static str) -> Result<Self> {
        let ledger = Store::open(dir.join(name))?.ledger_or_create("main")?;
        Ok(Self { name, ledger })
    }
}

impl Stage {
    /// Makes two empty replicas.
    pub(super) fn build(dir: &FilePath) -> Result<Self> {
        let (office, laptop) = (Replica::open(dir, "office")?, Replica::open(dir, "laptop")?);
        Ok(Self { dir: dir.to_owned(), office, laptop })
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

    /// Both take over what the other has: what the laptop got, and what the office got.
    pub(super) fn pull_both_ways(&self) -> Result<(Transfer, Transfer)> {
        let to_laptop = self.laptop.ledger.pull(&self.office.ledger)?;
        let to_office = self.office.ledger.pull(&self.laptop.ledger)?;
        Ok((to_laptop, to_office))
    }

    /// The digest that both have; none where they differ.
    pub(super) fn common_digest(&self) -> Result<Option<String>> {
        let (office, laptop) = (self.office.ledger.digest()?, self.laptop.ledger.digest()?);
        Ok((office.digest == laptop.digest && office.events == laptop.events).then_some(office.digest))
    }
}
