//! The story as it is told: what is done in each step, what came of it, and what the reader can try next.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

use super::apart;
use super::check;
use super::replay;
use super::stage::Stage;
use super::{COLLECTION, Issue, broken};
use crate::cli::app::App;
use crate::cli::commands::blame::with_entries;
use crate::cli::interrupt::Interrupt;
use crate::cli::people;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style::{bold, dim, good, name, warn};
use crate::cli::table::{count, table, text, thousands};
use crate::ledger::{AsOf, Context, Ledger, RecordConflict, Settlement, Store, Which};
use crate::projection::{Policy, Status, Strategy};

/// The strategies that decide the same conflicts in turn.
const STRATEGIES: [&str; 3] = ["last_write_wins", "source_wins:jira,app", "manual"];

/// How many of an issue's latest events are shown, and of how many fields who wrote them.
const SHOWN: usize = 6;

/// Who tells the story.
pub(super) struct Story<'a> {
    app: &'a mut App,
    interrupt: Interrupt,
    step: u32,
    began: Instant,
}

/// The conflict that was settled.
pub(super) struct Settled {
    pub(super) key: String,
    pub(super) figures: Json,
}

impl<'a> Story<'a> {
    pub(super) fn new(app: &'a mut App, interrupt: Interrupt) -> Self {
        Self { app, interrupt, step: 0, began: now() }
    }

    /// Says something, to people only.
    fn say(&mut self, words: impl std::fmt::Display) -> Outcome {
        if self.app.out.json {
            return Ok(());
        }
        self.app.out.line(words)?;
        self.app.out.flush()
    }

    /// Begins a step.
    fn step(&mut self, title: &str) -> Outcome {
        self.end_if_interrupted()?;
        self.step += 1;
        let number = self.step;
        self.say(format!("\n{} {}", name(format!("{number}.")), bold(title)))
    }

    fn end_if_interrupted(&self) -> Outcome {
        match self.interrupt.is_set() {
            true => {
                Err(Stop::interrupted(format!("interrupted in step {}", self.step)).hint("what was done is durable"))
            }
            false => Ok(()),
        }
    }

    /// Something that was found to be so.
    fn fact(&mut self, words: impl std::fmt::Display) -> Outcome {
        self.say(format!("   {} {words}", good("✓")))
    }

    /// More of it.
    fn more(&mut self, words: &str) -> Outcome {
        let lines: Vec<_> = words.lines().map(|line| format!("     {line}")).collect();
        self.say(lines.join("\n"))
    }

    pub(super) fn title(&mut self, issues: &[Issue], data: Option<&FilePath>, stage: &Stage) -> Outcome {
        let edits: usize = issues.iter().map(|issue| issue.steps.len()).sum();
        let from = data.map_or_else(|| "Jira".to_owned(), |file| file.display().to_string());
        let title = format!("{} from {from}", count(issues.len(), "issue", "issues"));
        self.say(format!("{}: {title}, edited {} by people", bold("syncledger"), times(edits)))?;
        let who = match &stage.served {
            None => "Two replicas, office and laptop, work apart and come together.".to_owned(),
            Some(served) => {
                format!("Two devices of a server at {}, office and laptop, work apart and sync.", served.url())
            }
        };
        self.say(dim(format!("{who} Everything below is computed.")))
    }

    /// Step 1 and 2: one replica imports, the other pulls.
    pub(super) fn import(&mut self, stage: &Stage, issues: &[Issue]) -> Outcome<Json> {
        self.step("The office imports the issues as they were before all their edits; the laptop pulls")?;
        let created = stage.import(issues)?;
        self.fact(format!("office: {} imported", count(created, "issue", "issues")))?;
        let (pulled, _) = stage.exchange()?;
        self.fact(format!("laptop: {} pulled", count(pulled, "event", "events")))?;
        let digest = self.same_digest(stage)?;
        Ok(json!({ "created": created, "pulled": pulled, "digest": digest }))
    }

    /// Step 3: the real edits.
    pub(super) fn replay(&mut self, stage: &Stage, issues: &[Issue]) -> Outcome<Json> {
        self.step("Their real edits are replayed, half of the issues at the office, half on the laptop, at once")?;
        let began = now();
        let (office, laptop) = replay::replay(stage, issues, &self.interrupt)?;
        let took = began.elapsed();
        self.end_if_interrupted()?;
        for (replica, done) in [(&stage.office, office), (&stage.laptop, laptop)] {
            let (edits, fields) = (count(done.edits, "edit", "edits"), count(done.fields, "change", "changes"));
            let issues = count(done.issues, "issue", "issues");
            self.fact(format!(
                "{}: {edits} of {issues}, {fields} of fields, each one durable before the next",
                replica.name
            ))?;
        }
        let (to_laptop, to_office) = stage.exchange()?;
        let crossed = to_laptop + to_office;
        self.fact(format!("both pull: {} cross, {}", count(crossed, "event", "events"), took_words(took)))?;
        let digest = self.same_digest(stage)?;
        let chains = self.chains(&stage.laptop.ledger, issues)?;
        Ok(json!({
            "edits": office.edits + laptop.edits,
            "fields": office.fields + laptop.fields,
            "events": office.events + laptop.events,
            "office": office.edits,
            "laptop": laptop.edits,
            "crossed": crossed,
            "digest": digest,
            "chains": chains,
        }))
    }

    fn chains(&mut self, ledger: &Ledger, issues: &[Issue]) -> Outcome<Json> {
        let found = check::chains(ledger, issues)?;
        if found.wrong > 0 {
            return Err(broken(format!("{} of {} differ from the change log", found.wrong, found.chains)));
        }
        let (chains, steps) = (count(found.chains, "chain", "chains"), count(found.steps, "step", "steps"));
        self.fact(format!("status and assignee along every history equal Jira's own change log: {chains}, {steps}"))?;
        Ok(json!({ "count": found.chains, "steps": found.steps, "equal": found.chains - found.wrong }))
    }

    fn same_digest(&mut self, stage: &Stage) -> Outcome<String> {
        let digest = stage.common_digest()?.ok_or_else(|| broken("the replicas pulled and differ"))?;
        let short: String = digest.chars().take(16).collect();
        self.fact(format!("both hold the same events {}", dim(format!("digest {short}…"))))?;
        Ok(digest)
    }

    /// Step 4: edits made apart.
    pub(super) fn edit_apart(&mut self, stage: &Stage, issues: &[Issue]) -> Outcome<Json> {
        self.step("The laptop goes offline, and both edit every issue; then both pull")?;
        apart::prepare(stage, issues)?;
        let edits = apart::edit(stage, issues)?;
        if let Some(served) = &stage.served {
            let waiting = served.waiting()?;
            self.fact(format!("laptop, offline: {} in its outbox", count(waiting, "event waits", "events wait")))?;
        }
        let (to_laptop, to_office) = stage.exchange()?;
        let crossed = to_laptop + to_office;
        self.fact(format!("{} made apart, {} crossed", count(edits, "edit", "edits"), thousands(crossed)))?;
        let digest = self.same_digest(stage)?;
        let records = check::equal_records(&stage.office.ledger, &stage.laptop.ledger)?
            .ok_or_else(|| broken("the replicas show different records"))?;
        self.fact(format!("both show the same {}", count(records, "record", "records")))?;
        let pairs = self.pairs(stage, issues)?;
        Ok(json!({ "edits": edits, "crossed": crossed, "records": records, "digest": digest, "pairs": pairs }))
    }

    fn pairs(&mut self, stage: &Stage, issues: &[Issue]) -> Outcome<Json> {
        let mut figures = Map::new();
        let mut rows = table(&["what they did", "issues", "merged by itself"]);
        for (pair, all, merged) in apart::count(stage, issues)? {
            if !pair.collides() && merged < all {
                return Err(broken(format!("{}: {merged} of {all} merged", pair.words())));
            }
            let outcome = if pair.collides() { warn("disputed") } else { good(merged) };
            rows.add_row([pair.words().to_owned(), all.to_string(), outcome]);
            figures.insert(pair.name().to_owned(), json!({ "issues": all, "merged": merged }));
        }
        self.more(&text(rows))?;
        Ok(figures.into())
    }

    /// Step 5: the same conflicts under three strategies.
    pub(super) fn decide(&mut self, stage: &Stage) -> Outcome<Json> {
        self.step("What is disputed is decided by a strategy, which can be changed at any time: nothing is lost")?;
        let mut figures = Map::new();
        let all = stage.laptop.ledger.conflicts(Some(COLLECTION), Which::All, None)?;
        let example_of =
            first(&all).map(|found| format!("{} {}", found.key, found.conflict.path)).unwrap_or_default();
        let mut rows = table(&["strategy", "open", "by rule", &example_of, "because"]);
        for strategy in STRATEGIES {
            let policy = Policy::of(Strategy::parse(strategy).map_err(crate::Error::from)?);
            let found = stage.laptop.ledger.conflicts(Some(COLLECTION), Which::All, Some(&policy))?;
            let open = found.iter().filter(|found| found.conflict.status == Status::Open).count();
            let [shown, because] = example(&found);
            rows.add_row([strategy.to_owned(), open.to_string(), (found.len() - open).to_string(), shown, because]);
            let name = strategy.split(':').next().unwrap_or(strategy).to_owned();
            figures.insert(name, json!({ "all": found.len(), "open": open, "auto": found.len() - open }));
        }
        self.more(&text(rows))?;
        Ok(figures.into())
    }

    /// Step 6: one conflict is settled.
    pub(super) fn settle(&mut self, stage: &Stage) -> Outcome<Settled> {
        self.step("One of them is settled on the laptop, and is settled at the office after a pull")?;
        let laptop = &stage.laptop.ledger;
        let open = laptop.conflicts(Some(COLLECTION), Which::Open, None)?;
        let found = first(&open).ok_or_else(|| broken("two statuses were set apart, and there is no conflict"))?;
        self.more(&people::conflict_in_full(found))?;
        let context = Context::from_source("app").by("Ravi").because("agreed in the stand-up");
        let (id, take) = (found.conflict.id, Settlement::TakeSource("app".to_owned()));
        laptop.resolve(id, take, Some(found.conflict.version), &context)?;
        stage.exchange()?;
        let left = [laptop, &stage.office.ledger].map(|ledger| settled(ledger, found));
        let [on_laptop, at_office] = left;
        if on_laptop? != at_office? {
            return Err(broken("the replicas show the settled conflict differently"));
        }
        let shown = stage.office.ledger.find_conflict(&id.to_string())?;
        let words = people::content(shown.conflict.shown.as_ref(), 40);
        self.fact(format!("taken on the laptop: {}; the office shows it too", good(words)))?;
        let open_now = laptop.conflicts(Some(COLLECTION), Which::Open, None)?.len();
        self.fact(format!("open conflicts: {} before, {open_now} now", open.len()))?;
        let figures = json!({
            "id": id.to_string(),
            "key": found.key,
            "path": found.conflict.path,
            "open_before": open.len(),
            "open_now": open_now,
        });
        Ok(Settled { key: found.key.clone(), figures })
    }

    /// Step 7: what happened to one issue, and who wrote what.
    pub(super) fn audit(&mut self, stage: &Stage, key: &str) -> Outcome {
        self.step(&format!("Everything that ever happened to {key} is there, with before and after"))?;
        let history = stage.office.ledger.history(COLLECTION, key)?;
        let earlier = history.len().saturating_sub(SHOWN);
        if earlier > 0 {
            self.more(&dim(format!("… {} before", count(earlier, "event", "events"))))?;
        }
        for revision in history.iter().skip(earlier) {
            self.more(&people::revision(revision, 3))?;
        }
        let mut lines = stage.office.ledger.blame(COLLECTION, key)?;
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        lines.truncate(SHOWN);
        self.say(format!("\n   {}", bold("and who wrote what it shows now, latest first:")))?;
        let lines = with_entries(&stage.office.ledger, lines)?;
        self.more(&people::blame(&lines))
    }

    /// Step 8: the log alone is enough.
    pub(super) fn rebuild(&mut self, stage: &Stage) -> Outcome<Json> {
        self.step("The log alone gives all of it back, in a fresh directory")?;
        let dir = stage.dir.join("rebuilt");
        let done = stage.office.ledger.rebuild_into(&dir, None::<AsOf>)?;
        let rebuilt = Store::open(&dir)?.ledger(&stage.office.ledger.info().name)?;
        let (old, new) = (stage.office.ledger.digest()?, rebuilt.digest()?);
        if old.digest != new.digest {
            return Err(broken("the rebuilt ledger has another digest"));
        }
        let records = check::equal_records(&stage.office.ledger, &rebuilt)?
            .ok_or_else(|| broken("the rebuilt ledger shows other records"))?;
        let words = count(done.events, "event", "events");
        self.fact(format!("{words} replayed in {:.2} s: the same digest", done.seconds))?;
        self.fact(format!("all {} equal to the byte", count(records, "record", "records")))?;
        Ok(json!({ "events": done.events, "records": records, "digest": new.digest, "equal": true }))
    }

    /// What to try next.
    pub(super) fn close(&mut self, dir: &FilePath, issues: &[Issue]) -> Outcome {
        let took = took_words(self.began.elapsed());
        self.say(format!("\n{} {took}. The stores stay in {}", good("Done"), name(dir.display())))?;
        let key = issues.first().map(|issue| issue.key.as_str()).unwrap_or_default();
        let export = format!("export SYNCLEDGER_STORE={}", quoted(&dir.join("office")));
        self.say(format!("Look around, with {}:", bold(export)))?;
        let program = program();
        for (command, what) in [
            (format!("get {COLLECTION} {key}"), "the record"),
            (format!("history {COLLECTION} {key}"), "who changed what, when"),
            ("conflicts --strategy manual".to_owned(), "what is open under a strategy"),
            ("resolve ID --take jira".to_owned(), "settle one"),
            (format!("policy set {COLLECTION} source_wins:jira,app"), "or decide all of them by a rule"),
            ("verify".to_owned(), "check every byte"),
        ] {
            self.say(format!(
                "  {:<width$} {}",
                format!("{program} {command}"),
                dim(what),
                width = program.len() + 42
            ))?;
        }
        Ok(())
    }
}

/// The conflict that examples are made of: about a status where there is one.
fn first(found: &[RecordConflict]) -> Option<&RecordConflict> {
    found.iter().find(|found| found.conflict.path == "/status").or_else(|| found.first())
}

/// What is shown in the example, and why; the strategy's name, which begins the reason, stands beside it already.
fn example(found: &[RecordConflict]) -> [String; 2] {
    let cells = |found: &RecordConflict| {
        let because = &found.conflict.because;
        let because = because.split_once(": ").map_or(because.as_str(), |(_, reason)| reason);
        [people::content(found.conflict.shown.as_ref(), 24), dim(because)]
    };
    first(found).map(cells).unwrap_or_default()
}

/// What a ledger shows of a conflict that must be settled.
fn settled(ledger: &Ledger, of: &RecordConflict) -> Outcome<(String, String)> {
    let conflict = ledger.find_conflict(&of.conflict.id.to_string())?.conflict;
    match conflict.status {
        Status::Resolved { event, .. } => {
            Ok((event.to_string(), conflict.shown.map(|shown| shown.canonical()).unwrap_or_default()))
        }
        Status::Open | Status::Auto { .. } => Err(broken("a settled conflict is open")),
    }
}

fn times(number: usize) -> String {
    count(number, "time", "times")
}

fn took_words(took: Duration) -> String {
    format!("in {:.1} s", took.as_secs_f64())
}

/// The program as it was called, so that what is suggested can be typed.
fn program() -> String {
    let called = std::env::args().next().filter(|name| name.contains('/'));
    called.map_or_else(|| "syncledger".to_owned(), |name| quoted(FilePath::new(&name)))
}

/// A path as a shell reads it.
fn quoted(path: &FilePath) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[expect(clippy::disallowed_methods, reason = "how long a demonstration takes is told, and decides nothing")]
fn now() -> Instant {
    Instant::now()
}
