//! Devices: records of `$devices`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Invitation, unknown_token};
use crate::event::{Path, WriterId};
use crate::ledger::{Act, Context, Edge, Edit, Ledger, Query, Record, Room, Write, Writers};
use crate::replication::Filter;
use crate::{Error, ErrorKind, Result};

/// The system collection of devices, by their ids.
pub(crate) const DEVICES: &str = "$devices";

/// How many bytes a device's id and its name may have.
const MOST_ID_BYTES: usize = 128;
const MOST_NAME_CHARS: usize = 200;

/// What a device may do, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Reads what its rights let it.
    Reader,
    /// And writes what its rights let it.
    Writer,
    /// And sees runs, errors and devices, and settles conflicts of others.
    Operator,
    /// And sets policies and schemas, and invites and revokes devices.
    Admin,
}

impl Role {
    /// The role's name: `writer`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let all = [Self::Reader, Self::Writer, Self::Operator, Self::Admin];
        all.into_iter().find(|role| role.name() == name).ok_or_else(|| {
            let message = format!("expected a role (reader, writer, operator, admin), got {name:?}");
            Error::new(ErrorKind::Validation, message)
        })
    }
}

/// What a device is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rights {
    /// Its role.
    pub(crate) role: Role,
    /// The source that its edits come from.
    pub(crate) source: String,
    /// The collections, and of each the conditions, that it may read.
    pub(crate) reads: Filter,
    /// The user collections that it may write; `None` for all.
    pub(crate) writes: Option<BTreeSet<String>>,
}

/// Whether a device is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Revoked,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// A device as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) rights: Rights,
    /// The writers that its stores stamp under.
    pub(crate) writers: BTreeSet<WriterId>,
}

impl Device {
    /// The device of an id, if it may do anything.
    ///
    /// # Errors
    /// `authentication` where there is none, or it was revoked.
    pub(crate) fn of(ledger: &Ledger, id: &str) -> Result<Self> {
        let found = Self::find(ledger, id)?;
        found.filter(|device| device.state == State::Active).ok_or_else(unknown_token)
    }

    /// The device of an id, whatever its state.
    pub(crate) fn find(ledger: &Ledger, id: &str) -> Result<Option<Self>> {
        let found = ledger.get(DEVICES, id)?.filter(|record| !record.deleted);
        found.map(|record| Self::read(&record)).transpose()
    }

    /// All devices of a ledger, by their ids, but those whose records say nothing: they keep nobody else out.
    pub(crate) fn list(ledger: &Ledger) -> Result<Vec<Self>> {
        let records = ledger.list(DEVICES, &Query::default())?;
        let read = |record: &Record| {
            Self::read(record)
                .inspect_err(|fault| tracing::warn!(device = record.key, code = fault.code(), "a device is left out"))
        };
        Ok(records.iter().filter_map(|record| read(record).ok()).collect())
    }

    /// Whose the writers are that devices stamp under.
    pub(crate) fn writers(ledger: &Ledger) -> Result<Writers> {
        let devices = Self::list(ledger)?.into_iter();
        let owned =
            devices.flat_map(|device| device.writers.into_iter().map(move |writer| (writer, device.id.clone())));
        Ok(Writers::of(owned))
    }

    /// What a session with the device is held to.
    pub(crate) fn edge(&self, writers: Writers, room: Room) -> Edge {
        let writes = if self.rights.role < Role::Writer { Some(BTreeSet::new()) } else { self.rights.writes.clone() };
        let (device, source) = (self.id.clone(), Some(self.rights.source.clone()));
        Edge { device, source, reads: self.rights.reads.clone(), writes, writers, room }
    }

    /// Checks that it may still do what it might when this was read. For what goes on after a request was authenticated.
    ///
    /// # Errors
    /// `authentication`.
    pub(crate) fn check_still(&self, ledger: &Ledger) -> Result<()> {
        let now = Self::find(ledger, &self.id)?;
        if now.is_some_and(|now| now.state == self.state && now.rights == self.rights) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Authentication, "the device's rights have changed")
            .with_hint("connect again: where that is refused, the device was revoked"))
    }

    /// Whether it may write records of a collection.
    pub(crate) fn may_write(&self, collection: &str) -> bool {
        self.rights.role >= Role::Writer
            && !collection.starts_with('$')
            && self.rights.writes.as_ref().is_none_or(|writes| writes.contains(collection))
    }

    /// Checks that an invitation may make a device of this id, and returns the writers that such a device stamped under before.
    ///
    /// # Errors
    /// `conflict` where there is such a device already, and the invitation was not made for it; `authentication` where it was
    /// revoked since the invitation was used.
    pub(super) fn check_free(ledger: &Ledger, id: &str, invitation: &Invitation) -> Result<BTreeSet<WriterId>> {
        let is_meant = invitation.device.as_deref() == Some(id);
        let known = match Self::find(ledger, id) {
            // A new record takes the place of one that says nothing.
            Err(fault) if is_meant && fault.kind() == ErrorKind::Consistency => None,
            found => found?,
        };
        let Some(known) = known else { return Ok(BTreeSet::new()) };
        let is_again = invitation.was_used_by(id);
        if is_again && known.state == State::Revoked {
            return Err(unknown_token());
        }
        if is_meant || is_again {
            return Ok(known.writers);
        }
        Err(Error::new(ErrorKind::Conflict, format!("there is a device `{id}` already"))
            .with_hint("take another id, or have a code made for this device with `device create --id`"))
    }

    /// Makes the record of a device that was invited.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn enrol(
        ledger: &Ledger,
        id: &str,
        name: Option<&str>,
        invitation: &Invitation,
        writers: BTreeSet<WriterId>,
    ) -> Result<()> {
        let name = name.unwrap_or(&invitation.name).chars().take(MOST_NAME_CHARS).collect();
        let (id, rights) = (id.to_owned(), invitation.rights.clone());
        let device = Self { id, name, state: State::Active, rights, writers };
        write(ledger, &device.id, Act::Put(device.to_json()))
    }

    /// Lets a device in, or no more.
    pub(super) fn set_state(ledger: &Ledger, id: &str, state: State) -> Result<()> {
        if Self::find(ledger, id)?.is_none() {
            let message = format!("there is no device `{id}`");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint("see `syncledger device list`"));
        }
        write(ledger, id, Act::Patch(json!({ "state": state.name() })))
    }

    /// Writes down that the device stamps under a writer.
    pub(crate) fn bind(&self, ledger: &Ledger, writer: WriterId) -> Result<()> {
        let edit = Edit::SetAdd(Path::root().join("writers")?, writer.to_string().into());
        write(ledger, &self.id, Act::Edit(vec![edit]))
    }

    fn to_json(&self) -> Json {
        let rights = &self.rights;
        let writers: Vec<_> = self.writers.iter().map(ToString::to_string).collect();
        let mut object = json!({
            "name": self.name,
            "state": self.state.name(),
            "role": rights.role.name(),
            "source": rights.source,
            "reads": rights.reads,
        });
        if let Some(writes) = &rights.writes {
            crate::shape::set(&mut object, "writes", writes.iter().cloned().collect::<Vec<_>>());
        }
        if !writers.is_empty() {
            crate::shape::set(&mut object, "writers", writers);
        }
        object
    }

    /// Reads the record. What cannot be understood gives no rights.
    fn read(record: &Record) -> Result<Self> {
        let damaged = || {
            let message = format!("the record of the device `{}` does not say what it may do", record.key);
            Error::new(ErrorKind::Consistency, message).with_hint("enrol the device again, by a code made for it")
        };
        let text = |name: &str| record.value.get(name).and_then(Json::as_str);
        let list = |name: &str| record.value.get(name).and_then(Json::as_array);
        let reads = record.value.get("reads").cloned().unwrap_or_default();
        let writers = list("writers").into_iter().flatten().filter_map(|writer| writer.as_str()?.parse().ok());
        let named = |names: &Vec<Json>| names.iter().filter_map(Json::as_str).map(str::to_owned).collect();
        Ok(Self {
            id: record.key.clone(),
            name: text("name").unwrap_or_default().to_owned(),
            state: if text("state") == Some("active") { State::Active } else { State::Revoked },
            rights: Rights {
                role: text("role").map(Role::parse).transpose()?.ok_or_else(damaged)?,
                source: text("source").ok_or_else(damaged)?.to_owned(),
                reads: serde_json::from_value(reads).map_err(|_| damaged())?,
                writes: list("writes").map(named),
            },
            writers: writers.collect(),
        })
    }
}

fn write(ledger: &Ledger, id: &str, act: Act) -> Result<()> {
    let context = Context::from_source("syncledger");
    ledger.write_own(vec![Write::new(DEVICES, id, act)], &context).map(drop)
}

/// Checks the id that a device gives itself.
pub(super) fn check_id(id: &str) -> Result<()> {
    let is_sound = !id.is_empty() && id.len() <= MOST_ID_BYTES && !id.chars().any(char::is_control);
    if is_sound {
        return Ok(());
    }
    let message = format!("expected a device's id of 1 to {MOST_ID_BYTES} bytes without control characters");
    Err(Error::new(ErrorKind::Validation, message).with_pointers(vec!["/device_id".to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::ledger::Options;

    #[test]
    fn a_record_that_says_nothing_keeps_nobody_else_out_and_a_code_made_for_it_mends_it() {
        let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
        write(&ledger, "damaged", Act::Put(json!({ "name": "x", "state": "active" }))).unwrap();
        let (role, source, reads, writes) = (Role::Writer, "app".to_owned(), Filter::default(), None);
        let rights = Rights { role, source, reads, writes };
        let invited = |id: Option<&str>| {
            Invitation::new(ledger.info().id, "x".to_owned(), id.map(str::to_owned), rights.clone(), i64::MAX)
        };
        Device::enrol(&ledger, "tablet", None, &invited(None), BTreeSet::new()).unwrap();
        assert_eq!(Device::list(&ledger).unwrap().iter().map(|device| &*device.id).collect::<Vec<_>>(), ["tablet"]);
        assert_eq!(Device::of(&ledger, "damaged").unwrap_err().kind(), ErrorKind::Consistency);
        assert!(Device::check_free(&ledger, "damaged", &invited(None)).is_err());
        let meant = invited(Some("damaged"));
        let writers = Device::check_free(&ledger, "damaged", &meant).unwrap();
        Device::enrol(&ledger, "damaged", None, &meant, writers).unwrap();
        assert_eq!(Device::of(&ledger, "damaged").unwrap().rights, rights);
    }
}
