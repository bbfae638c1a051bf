//! The real edits of the change logs, replayed on both replicas at the same time.

use std::panic::resume_unwind;
use std::thread;

use super::issue::Step;
use super::stage::{Replica, Stage};
use super::{COLLECTION, Issue};
use crate::Result;
use crate::cli::interrupt::Interrupt;
use crate::ledger::{Act, Context, Outcome, Write};

/// What a replica replayed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replayed {
    pub(super) issues: u64,
    pub(super) edits: u64,
    pub(super) fields: u64,
    pub(super) events: u64,
}

/// Replays the change logs, every other issue at the office and the rest on the laptop, each in order of time: what the
/// office did, and what the laptop did.
pub(super) fn replay(stage: &Stage, issues: &[Issue], interrupt: &Interrupt) -> Result<(Replayed, Replayed)> {
    let share = |odd: usize| issues.iter().skip(odd).step_by(2).collect::<Vec<_>>();
    thread::scope(|scope| {
        let laptop = scope.spawn(|| replay_on(&stage.laptop, &share(1), interrupt));
        let office = replay_on(&stage.office, &share(0), interrupt);
        let laptop = laptop.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((office?, laptop?))
    })
}

fn replay_on(replica: &Replica, issues: &[&Issue], interrupt: &Interrupt) -> Result<Replayed> {
    let mut done = Replayed { issues: issues.len() as u64, ..Replayed::default() };
    for (issue, step) in by_time(issues) {
        if interrupt.is_set() {
            break;
        }
        let receipt = replica.ledger.write(write(issue, step), &context(step, replica.source))?;
        done.edits += 1;
        done.fields += step.edits.len() as u64;
        done.events += if receipt.outcome == Outcome::Appended { receipt.events.len() as u64 } else { 0 };
    }
    Ok(done)
}

fn by_time<'a>(issues: &[&'a Issue]) -> Vec<(&'a Issue, &'a Step)> {
    let mut steps: Vec<_> = issues.iter().flat_map(|issue| issue.steps.iter().map(|step| (*issue, step))).collect();
    steps.sort_by_key(|(_, step)| step.at);
    steps
}

fn write(issue: &Issue, step: &Step) -> Write {
    Write::new(COLLECTION, issue.key.as_str(), Act::Edit(step.edits.clone()))
}

fn context(step: &Step, source: &str) -> Context {
    Context::from_source(source).by(step.by.as_str()).occurred(step.at)
}
