//! What is traced, and what never is.

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use syncledger::ledger::{Context, Delivery, Edit, Ledger, Options, Settlement, Store, Which, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down every span and event with all fields.
#[derive(Clone, Default)]
struct Capture {
    lines: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU64>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line("event".to_owned());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

const SECRETS: [&str; 8] = ["Sval", "Skey", "Sfield", "Swho", "Swhy", "Sidem", "Sblob", "Smember"];

fn use_everything(here: &Ledger, there: &Ledger) {
    let context = Context {
        principal: Some("Swho".into()),
        reason: Some("Swhy".into()),
        idempotency_key: Some("Sidem".into()),
        ..Context::default()
    };
    let plain = Context { idempotency_key: None, ..context.clone() };
    here.put("issues", "Skey", json!({"Sfield": "Sval", "big": "Sblob".repeat(10_000)}), &context).unwrap();
    there.pull(here).unwrap();
    for ledger in [here, there] {
        let value = format!("Sval {}", ledger.info().writer);
        ledger.patch("issues", "Skey", json!({ "Sfield": value }), &plain).unwrap();
    }
    let add = Edit::SetAdd(syncledger::event::Path::parse("/Sfield2").unwrap(), json!("Smember"));
    here.edit("issues", "Skey", vec![add], &plain).unwrap();
    here.batch(&plain, |batch| {
        batch.put("issues", "Skey1", json!({"x": "Sval"})).put("mails", "Skey2", json!({"x": "Sval"}));
    })
    .unwrap();
    let record = Delivery { key: "Skey3".into(), value: json!({"Sfield": "Sval"}), occurred_at: Some(1) };
    here.import("issues", vec![record], &plain).unwrap();
    there.pull(here).unwrap();
    let found = there.conflicts(None, Which::Open, None).unwrap().remove(0);
    there.resolve(found.conflict.id, Settlement::Value(json!("Sval")), None, &plain).unwrap();
    there.undo(&plain).unwrap();
    there.rebuild().unwrap();
    here.verify().unwrap();
    let event = there.log(&Default::default()).unwrap().pop().unwrap().event.encode().unwrap();
    here.apply(there.info().id, &[event]).unwrap();
    // Refusals too.
    assert!(here.patch("issues", "Skey missing", json!({"Sfield": "Sval"}), &plain).is_err());
    assert!(here.put("issues", "Skey", json!(["Sval"]), &plain).is_err());
    assert!(here.apply(here.info().id, &[b"Sval".to_vec()]).is_err());
    assert!(
        here.write(Write::new("issues", "Skey", syncledger::ledger::Act::Delete).expecting(vec![]), &plain).is_err()
    );
}

#[test]
fn every_step_is_a_span_with_counts_and_without_values() {
    let capture = Capture::default();
    // Each store has a thread of its own: what it traces is caught only by a subscriber for all of them. No other test
    // sets one, and this one looks only at its own ledger.
    tracing::subscriber::set_global_default(capture.clone()).unwrap();
    let memory = || Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    let (here, there) = (memory(), memory());
    use_everything(&here, &there);
    let id = here.info().id.to_string();
    let lines: Vec<String> = capture.lines.lock().unwrap().clone();
    let own: Vec<&String> = lines.iter().filter(|line| line.contains(&id)).collect();
    for (name, fields) in [
        ("append", &["collection=\"issues\"", "writes=1"][..]),
        ("append", &["collection=\"\"", "writes=2"]),
        ("append", &["collection=\"issues\"", "records=1"]),
        ("flush", &["events=1"]),
        ("flush", &["events=2"]),
        ("apply", &["events=1"]),
        ("resolve", &["collection=\"issues\"", "conflict="]),
        ("rebuild", &["events="]),
        ("pull", &[]),
    ] {
        let found = own.iter().any(|line| {
            line.starts_with(name) && line.contains("ledger=") && fields.iter().all(|field| line.contains(field))
        });
        assert!(found, "{name} {fields:?} in {own:#?}");
    }
    for line in &lines {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
