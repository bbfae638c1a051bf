//! What a server is at the moment, in the text format of Prometheus: read when somebody asks, so that it costs nothing else.

use std::fmt::Write as _;
use std::sync::PoisonError;

use super::Server;
use super::access::{Device, State};
use crate::Result;
use crate::ledger::{Flushed, Ledger};

impl Server {
    /// The gauges, and how long appends took. Blocks.
    ///
    /// # Errors
    /// `corrupt` or `storage` where devices cannot be read.
    pub(super) fn gauges(&self) -> Result<String> {
        let mut text = String::new();
        let ((waiting, at_work), flushed) = (self.0.jobs.counts(), self.0.store.flushed());
        gauge(&mut text, "requests_waiting", "Requests that wait for a thread.", &[("", waiting as f64)]);
        gauge(&mut text, "requests_at_work", "Requests that a thread works on.", &[("", at_work as f64)]);
        let what = "Changes that wait until they are durable.";
        gauge(&mut text, "changes_waiting", what, &[("", flushed.waiting as f64)]);
        let (active, revoked) = self.devices()?;
        let connected = self.0.seats.devices() as u64;
        let states = [("connected", connected), ("away", active.saturating_sub(connected)), ("revoked", revoked)];
        let states = states.map(|(state, count)| (state, count as f64));
        gauge(
            &mut text,
            "peers",
            "Devices: with a session, without one, and those that are let in no more.",
            &states,
        );
        if let Some(age) = self.backup_age_s() {
            let what = "How long ago the ledger that waits longest was backed up, in seconds.";
            gauge(&mut text, "backup_age_seconds", what, &[("", age)]);
        }
        histogram(&mut text, &flushed);
        Ok(text)
    }

    /// How many devices the ledgers have that somebody has asked for: those that are let in, and those that were revoked.
    fn devices(&self) -> Result<(u64, u64)> {
        let (mut active, mut revoked) = (0, 0);
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let ledgers: Vec<Ledger> = open.values().map(|opened| opened.ledger.clone()).collect();
        drop(open);
        for ledger in ledgers {
            for device in Device::list(&ledger)? {
                let count = if device.state == State::Active { &mut active } else { &mut revoked };
                *count += 1;
            }
        }
        Ok((active, revoked))
    }
}

/// A gauge; its values by state, or one without.
pub(super) fn gauge(text: &mut String, name: &str, what: &str, values: &[(&str, f64)]) {
    // Writing into a string does not fail.
    let _ = write!(text, "# HELP syncledger_{name} {what}\n# TYPE syncledger_{name} gauge\n");
    for (state, value) in values {
        let label = if state.is_empty() { String::new() } else { format!("{{state=\"{state}\"}}") };
        let _ = writeln!(text, "syncledger_{name}{label} {value}");
    }
    text.push('\n');
}

fn histogram(text: &mut String, flushed: &Flushed) {
    let name = "syncledger_fsync_seconds";
    let what = "How long appends to the log took until they were durable.";
    let _ = write!(text, "# HELP {name} {what}\n# TYPE {name} histogram\n");
    for (bound, count) in &flushed.within {
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let (count, total) = (flushed.count, flushed.total.as_secs_f64());
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {total}\n{name}_count {count}\n");
}
