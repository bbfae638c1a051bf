//! One look after another at each ledger: what is wrong is written down, and who is to be told of it is found out.

use std::collections::BTreeMap;

use super::Plan;
use super::alert::{Alert, State, key};
use super::figures::{self, Outcomes};
use super::rules::{Figures, Finding, findings};
use super::sinks::Message;
use crate::event::{LedgerId, hex};
use crate::ledger::{Act, Context, Ledger, Query, Write};
use crate::retry::Retry;
use crate::server::Server;
use crate::server::outgoing::chance;
use crate::{Error, Result};

const ALERTS: &str = "$alerts";
/// How many records are written at once.
const WRITES: usize = 256;
/// How many messages are given to each sink in one round; the others wait for the next.
const MOST_MESSAGES: usize = 20;
/// How long to wait after a sink has failed: 30 s, 1, 2, 4 … 60 min, with full jitter.
const RETRY: Retry = Retry { first_ms: 30_000, most_ms: 3_600_000 };
/// The ledger that answers for the store, where there is one of that name; else the first.
const MAIN: &str = "main";

/// What is known of the ledgers.
#[derive(Default)]
pub(super) struct Watch {
    ledgers: BTreeMap<LedgerId, Watched>,
    /// By sink: how often it has failed in a row, and when it is tried again.
    put_off: BTreeMap<String, (u32, i64)>,
}

/// What is known of a ledger.
#[derive(Default)]
struct Watched {
    outcomes: Outcomes,
    /// At which position conflicts and violations were counted.
    counted_at: Option<u64>,
    conflicts: u64,
    violations: BTreeMap<String, u64>,
    /// The alerts that are open or still to be told of; `None` before they were read.
    alerts: Option<BTreeMap<String, Alert>>,
    /// The same as they are written down.
    written: BTreeMap<String, Alert>,
}

impl Watch {
    /// Looks at every ledger of a store, and returns whom to tell of what. A ledger that cannot be read keeps no other from being
    /// looked at. Blocks.
    pub(super) fn look(&mut self, server: &Server, plan: &Plan) -> Vec<Message> {
        let infos = server.0.store.ledgers();
        let main = infos.iter().find(|info| info.name == MAIN).or(infos.first()).map(|info| info.id);
        self.ledgers.retain(|id, _| infos.iter().any(|info| info.id == *id));
        let mut messages = Vec::new();
        for info in infos {
            let watched = self.ledgers.entry(info.id).or_default();
            let looked = server.ledger(info.id).and_then(|ledger| {
                watched.look(server, plan, &ledger, main == Some(info.id))?;
                Ok(watched.messages(plan, &ledger, server.now_ms()))
            });
            match looked {
                Ok(found) => messages.extend(found),
                Err(fault) => {
                    tracing::warn!(ledger = %info.id, code = fault.code(), "a ledger could not be looked at");
                }
            }
        }
        self.chosen(plan, messages, server.now_ms())
    }

    /// So many messages for each sink that takes any now.
    fn chosen(&self, plan: &Plan, mut messages: Vec<Message>, now_ms: i64) -> Vec<Message> {
        for sink in &plan.sinks {
            let waits = self.put_off.get(sink.name()).is_some_and(|(_, until)| *until > now_ms);
            let mut room = if waits { 0 } else { MOST_MESSAGES };
            messages.retain(|message| {
                let is_other = message.sink != sink.name();
                let has_room = room > 0;
                room -= usize::from(!is_other && has_room);
                is_other || has_room
            });
        }
        messages
    }

    /// Takes note of who was told, and of who could not be. Blocks.
    pub(super) fn note(&mut self, server: &Server, plan: &Plan, told: Vec<(Message, Result<()>)>) {
        let now_ms = server.now_ms();
        for (message, outcome) in told {
            match outcome {
                Ok(()) => {
                    self.put_off.remove(&message.sink);
                    let watched = self.ledgers.get_mut(&message.ledger);
                    let alert = watched.and_then(|watched| watched.alerts.as_mut()?.get_mut(&message.key));
                    alert.into_iter().for_each(|alert| alert.tell(&message.sink, message.alert.state, now_ms));
                }
                Err(fault) => self.put_off(&message.sink, &fault, now_ms),
            }
        }
        for (id, watched) in &mut self.ledgers {
            if let Err(fault) = server.ledger(*id).and_then(|ledger| watched.write(plan, &ledger)) {
                tracing::warn!(ledger = %id, code = fault.code(), "alerts could not be written down");
            }
        }
    }

    fn put_off(&mut self, sink: &str, fault: &Error, now_ms: i64) {
        tracing::warn!(sink, code = fault.code(), "nobody could be told of an alert: {}", fault.message());
        let failures = self.put_off.get(sink).map_or(0, |(failures, _)| *failures).saturating_add(1);
        let wait = RETRY.wait_ms(failures, chance());
        self.put_off.insert(sink.to_owned(), (failures, now_ms.saturating_add_unsigned(wait)));
    }
}

impl Watched {
    fn look(&mut self, server: &Server, plan: &Plan, ledger: &Ledger, is_main: bool) -> Result<()> {
        self.read(plan, ledger)?;
        let figures = self.figures(server, ledger, is_main)?;
        self.take(plan, ledger, findings(&plan.settings.rules, &figures), figures.now_ms)?;
        server.0.seen.save(ledger.info().id)?;
        // Who is told is told even where nothing can be written down.
        self.write(plan, ledger).or_else(|fault| {
            tracing::warn!(code = fault.code(), "alerts could not be written down");
            Ok(())
        })
    }

    /// Reads the alerts of earlier processes that are not over.
    fn read(&mut self, plan: &Plan, ledger: &Ledger) -> Result<()> {
        if self.alerts.is_some() {
            return Ok(());
        }
        let records = ledger.list(ALERTS, &Query::default())?;
        let read = |record: crate::ledger::Record| Some((record.key, serde_json::from_value(record.value).ok()?));
        self.written = records.into_iter().filter_map(read).filter(|(_, alert)| plan.concerns(alert)).collect();
        self.alerts = Some(self.written.clone());
        Ok(())
    }

    fn figures(&mut self, server: &Server, ledger: &Ledger, is_main: bool) -> Result<Figures> {
        let (now_ms, position) = (server.now_ms(), ledger.position());
        self.outcomes.follow(ledger)?;
        // Conflicts grow older too, but none comes without an event.
        if self.counted_at != Some(position) || self.conflicts > 0 {
            self.conflicts = figures::conflicts_last_hour(ledger, now_ms)?;
            self.violations = figures::violations(ledger)?;
            self.counted_at = Some(position);
        }
        Ok(Figures {
            now_ms,
            devices: figures::devices(server, ledger, &self.outcomes)?,
            conflicts_last_hour: self.conflicts,
            violations: self.violations.clone(),
            storage: server.0.store.dir().filter(|_| is_main).and_then(figures::storage),
            backup_at_ms: server.last_backup_ms().or_else(|| server.0.alerts.backup_at_ms()).filter(|_| is_main),
        })
    }

    /// Opens, keeps open and resolves alerts by what was found.
    fn take(&mut self, plan: &Plan, ledger: &Ledger, found: Vec<Finding>, now_ms: i64) -> Result<()> {
        let mut before = self.alerts.take().unwrap_or_default();
        let mut after = BTreeMap::new();
        for finding in found {
            let key = key(finding.rule, &finding.subject);
            let known = match before.remove(&key) {
                None => self.recall(ledger, &key)?,
                known => known,
            };
            let alert = Alert::found(known, &finding, plan.link(&key), now_ms);
            after.insert(key, alert);
        }
        for (key, alert) in before {
            let alert = if alert.state == State::Open { alert.resolved(now_ms) } else { alert };
            after.insert(key, alert);
        }
        self.alerts = Some(after);
        Ok(())
    }

    /// An alert that was over, as its record has it.
    fn recall(&mut self, ledger: &Ledger, key: &str) -> Result<Option<Alert>> {
        let record = ledger.get(ALERTS, key)?;
        let alert: Option<Alert> = record.and_then(|record| serde_json::from_value(record.value).ok());
        alert.iter().for_each(|alert| drop(self.written.insert(key.to_owned(), alert.clone())));
        Ok(alert)
    }

    /// Writes what is new, and forgets what is over.
    fn write(&mut self, plan: &Plan, ledger: &Ledger) -> Result<()> {
        let alerts = self.alerts.get_or_insert_default();
        let news: Vec<(String, Alert)> = alerts
            .iter()
            .filter(|(key, alert)| alert.is_news_after(self.written.get(*key)))
            .map(|(key, alert)| (key.clone(), alert.clone()))
            .collect();
        for some in news.chunks(WRITES) {
            let writes: Vec<Write> = some.iter().map(|(key, alert)| write(key, alert)).collect();
            ledger.write_own(writes, &Context::from_source("syncledger"))?;
            self.written.extend(some.iter().cloned());
        }
        alerts.retain(|_, alert| plan.concerns(alert));
        self.written.retain(|key, _| alerts.contains_key(key));
        Ok(())
    }

    fn messages(&self, plan: &Plan, ledger: &Ledger, now_ms: i64) -> Vec<Message> {
        let (info, repeat_ms) = (ledger.info(), plan.settings.repeat.as_millis());
        let mut messages = Vec::new();
        for (key, alert) in self.alerts.iter().flatten() {
            for sink in plan.sinks.iter().filter(|sink| alert.is_due(sink.name(), repeat_ms, now_ms)) {
                messages.push(Message {
                    id: message_id(info.id, key, alert, sink.name()),
                    ledger: info.id,
                    ledger_name: info.name.clone(),
                    key: key.clone(),
                    sink: sink.name().to_owned(),
                    alert: alert.clone(),
                    at_ms: now_ms,
                });
            }
        }
        messages
    }
}

fn write(key: &str, alert: &Alert) -> Write {
    Write::new(ALERTS, key, Act::Put(serde_json::to_value(alert).unwrap_or_default()))
}

/// What a message is known by when it is sent again.
fn message_id(ledger: LedgerId, key: &str, alert: &Alert, sink: &str) -> String {
    let last = alert.told.get(sink).map(|told| told.at.0);
    let text = format!("{ledger} {key} {:?} {} {last:?}", alert.state, alert.since.0);
    let hash = blake3::derive_key("syncledger 2026-11 alert message v1", text.as_bytes());
    format!("alert_{}", hex(hash.split_at(16).0))
}
