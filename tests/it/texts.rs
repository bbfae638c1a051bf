//! Records with lists and texts: their rows follow from the rows before, and tell what the documents of the same events do.

use serde_json::{Value, json};
use syncledger::document::Document;
use syncledger::event::{Container, Op, Path};
use syncledger::ledger::{Act, AsOf, Context, Edit, Entry, Ledger, LogQuery, Look, Options, Place, Store, Write};
use syncledger::projection::{Policy, Resolvers, project};
use syncledger::testing::{Rng, record};

fn app() -> Context {
    Context::default()
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn at(text: &str) -> Place {
    Place::Path(path(text))
}

fn splice(place: &str, index: u64, delete: u64, insert: &str) -> Edit {
    Edit::SpliceText { place: at(place), index, delete, insert: insert.into() }
}

fn memory() -> Ledger {
    Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
}

fn value(ledger: &Ledger) -> Value {
    ledger.get("c", "k").unwrap().unwrap().value
}

/// The names of the operations that an act would come to.
fn planned(ledger: &Ledger, act: Act) -> Vec<&'static str> {
    let planned = ledger.dry_run().write_all(vec![Write::new("c", "k", act)], &app()).unwrap();
    planned.iter().flat_map(|planned| &planned.ops).map(Op::name).collect()
}

/// A random edit of the record that [`fill`] makes.
fn edit(rng: &mut Rng) -> Edit {
    let index = if rng.one_in(20) { u64::MAX } else { rng.below(60) as u64 };
    let text = *rng.pick(&["", "a", "word ", "👩\u{200d}👧", "e\u{301}", "🏳️\u{200d}🌈 "]);
    match rng.below(10) {
        0..=4 => splice("/body/text", index, rng.below(5) as u64, text),
        5 => splice("/note", index, rng.below(3) as u64, text),
        6 | 7 => Edit::Insert(at("/tags"), index % 9, json!(*rng.pick(&["x", "y", "[1]"]))),
        8 => Edit::RemoveAt(at("/tags"), index % 12),
        _ => Edit::Put(path("/n"), json!(index % 7)),
    }
}

/// Makes what [`edit`] edits anew, in the place of what was there.
fn fill(nth: usize) -> Vec<Edit> {
    vec![
        Edit::MakeText(path("/body/text")),
        splice("/body/text", 0, 0, &format!("begun {nth} times é")),
        Edit::MakeText(path("/note")),
        Edit::MakeList(path("/tags")),
        Edit::Insert(at("/tags"), 0, json!({ "first": nth })),
    ]
}

/// One random change of the record.
fn change(rng: &mut Rng, nth: usize) -> Write {
    let act = match nth {
        // What was there is put anew: as a text, as a plain value, above and below.
        60 | 170 | 300 => Act::Edit(fill(nth)),
        90 => Act::Edit(vec![Edit::Put(path("/note"), json!("plain")), Edit::MakeText(path("/note"))]),
        130 => Act::Edit(vec![Edit::Put(path("/body"), json!({ "other": 1 })), Edit::MakeText(path("/body/text"))]),
        200 => Act::Edit(vec![Edit::Delete, Edit::Restore, splice("/note", 0, 0, "back")]),
        _ if nth % 40 == 7 => Act::Patch(json!({ "note": format!("whole note {nth} 👩\u{200d}👧") })),
        _ if nth % 40 == 27 => Act::Patch(json!({ "tags": ["a", nth, ["b"], { "c": null }] })),
        _ => Act::Edit((0..=rng.below(3)).map(|_| edit(rng)).collect()),
    };
    Write::new("c", "k", act)
}

/// What documents say of a record's events: its value as of each, and as of each position.
struct Told {
    entries: Vec<Entry>,
    all: Document,
}

impl Told {
    fn by(ledger: &Ledger) -> Self {
        let entries = ledger.log(&LogQuery::default()).unwrap();
        let all = Document::derive_all(entries.iter().map(|entry| (entry.id, &entry.event))).unwrap();
        Self { entries, all }
    }

    fn as_of(&mut self, entry: &Entry) -> Value {
        let node = self.all.graph().find(&entry.id).unwrap();
        let clock = self.all.graph().closure([node]);
        project(&self.all.view_at(clock).unwrap(), &Policy::default(), &Resolvers::default(), &record()).content.json
    }

    fn at(&self, position: u64) -> Value {
        let until = self.entries.iter().filter(|entry| entry.position <= position);
        let mut document = Document::derive_all(until.map(|entry| (entry.id, &entry.event))).unwrap();
        project(&document.view().unwrap(), &Policy::default(), &Resolvers::default(), &record()).content.json
    }
}

fn compare(ledger: &Ledger, every: usize) {
    let mut told = Told::by(ledger);
    let revisions = ledger.history("c", "k").unwrap();
    assert_eq!(revisions.len(), told.entries.len());
    for revision in revisions.iter().step_by(every) {
        let expected = told.as_of(&revision.entry);
        assert_eq!(revision.after, Some(expected), "position {}", revision.entry.position);
    }
    let last = told.entries.last().unwrap().position;
    for position in (1..=last).step_by(3 * every).chain([last]) {
        let look = Look { as_of: Some(AsOf::Position(position)), policy: None };
        let found = ledger.look("c", "k", &look).unwrap().unwrap();
        assert_eq!(found.value, told.at(position), "position {position}");
    }
    assert_eq!(value(ledger), told.at(last));
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

/// Edits a record so often, reopening the store now and then, some changes apart from those before them.
fn edited(seed: u64, changes: usize, apart: &[usize]) {
    let (dir, mut rng) = (tempfile::tempdir().unwrap(), Rng::new(seed));
    let mut ledger = Store::open(dir.path()).unwrap().create_ledger("main").unwrap();
    ledger.edit("c", "k", fill(0), &app()).unwrap();
    let mut heads = Vec::new();
    for nth in 1..=changes {
        let write = change(&mut rng, nth);
        let old = heads.len().saturating_sub(5);
        let write = if apart.contains(&nth) { write.on(vec![heads[old]]) } else { write };
        heads.extend(ledger.write(write, &app()).unwrap().events.last().map(|event| event.0));
        if nth % 97 == 0 {
            drop(ledger);
            ledger = Ledger::open(dir.path()).unwrap();
        }
    }
    compare(&ledger, 11);
    let replica = memory();
    replica.pull(&ledger).unwrap();
    assert_eq!(value(&replica), value(&ledger));
    assert_eq!(replica.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_text_that_is_edited_in_line_tells_what_documents_do() {
    edited(1, 330, &[]);
}

#[test]
fn a_text_that_is_also_edited_apart_tells_what_documents_do() {
    edited(2, 330, &[20, 21, 145, 146, 260]);
}

#[test]
fn a_whole_text_or_list_becomes_what_differs_without_its_document() {
    let ledger = memory();
    ledger.edit("c", "k", fill(1), &app()).unwrap();
    ledger.edit("c", "k", vec![splice("/note", 0, 0, "é👩\u{200d}👧 same")], &app()).unwrap();
    for (after, inserted) in
        [("é👩\u{200d}👦 same", "👦"), ("è👩\u{200d}👦 same", "è"), ("è same", ""), ("", ""), ("ab", "ab")]
    {
        let dry = vec![Write::new("c", "k", Act::Patch(json!({ "note": after })))];
        match &ledger.dry_run().write_all(dry, &app()).unwrap()[0].ops[..] {
            [Op::SpliceText { insert, .. }] => assert_eq!(insert, inserted, "{after}"),
            ops => panic!("{ops:?}"),
        }
        ledger.patch("c", "k", json!({ "note": after }), &app()).unwrap();
        assert_eq!(value(&ledger)["note"], after);
    }
    let patch = Act::Patch(json!({ "tags": [{ "first": 1 }, "z"], "body": { "text": "begun 2 times é" } }));
    assert_eq!(planned(&ledger, patch), ["splice_text", "insert"]);
    let mut whole = value(&ledger);
    whole["tags"] = json!([]);
    assert_eq!(planned(&ledger, Act::Put(whole)), ["remove_at"]);
}

#[test]
fn a_batch_edits_what_it_found_and_what_it_makes() {
    let ledger = memory();
    ledger.edit("c", "k", fill(1), &app()).unwrap();
    let edit = |edits: Vec<Edit>| Write::new("c", "k", Act::Edit(edits));
    let found = vec![
        edit(vec![splice("/note", 0, 0, "one ")]),
        edit(vec![splice("/note", 4, 0, "three"), Edit::RemoveAt(at("/tags"), 0)]),
        edit(vec![splice("/note", 4, 0, "two "), Edit::Insert(at("/tags"), 9, json!("t"))]),
        edit(vec![Edit::Put(path("/n"), json!(1))]),
    ];
    ledger.write_all(found, &app()).unwrap();
    assert_eq!((&value(&ledger)["note"], &value(&ledger)["tags"]), (&json!("one two three"), &json!(["t"])));
    let made = vec![
        edit(vec![splice("/note", 0, 4, "")]),
        edit(vec![Edit::MakeText(path("/note")), splice("/note", 0, 0, "new")]),
        edit(vec![splice("/note", 3, 0, "er")]),
        Write::new("c", "k", Act::Patch(json!({ "note": "newest" }))),
    ];
    ledger.write_all(made, &app()).unwrap();
    assert_eq!(value(&ledger)["note"], "newest");
    // One that a write of the batch took away is none for the next.
    let gone = vec![edit(vec![Edit::Put(path("/note"), json!(5))]), edit(vec![splice("/note", 0, 0, "x")])];
    ledger.write_all(gone, &app()).unwrap_err();
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

#[test]
fn an_edit_names_a_container_that_is_shown_no_more() {
    let ledger = memory();
    let id = ledger.edit("c", "k", vec![Edit::MakeText(path("/t"))], &app()).unwrap().events[0].0;
    ledger.edit("c", "k", vec![splice("/t", 0, 0, "text")], &app()).unwrap();
    ledger.edit("c", "k", vec![Edit::Put(path("/t"), json!("value"))], &app()).unwrap();
    let inside = |index| Edit::SpliceText {
        place: Place::Container(Container::Of(id, 0)),
        index,
        delete: 1,
        insert: "x".into(),
    };
    assert_eq!(ledger.edit("c", "k", vec![inside(2)], &app()).unwrap().events.len(), 1);
    assert_eq!(value(&ledger)["t"], "value");
    compare(&ledger, 1);
}

#[test]
fn a_record_of_more_texts_than_a_row_names_is_derived() {
    let ledger = memory();
    for nth in 0..70 {
        let name = format!("/t{nth}");
        ledger.edit("c", "k", vec![Edit::MakeText(path(&name)), splice(&name, 0, 0, "a")], &app()).unwrap();
        ledger.edit("c", "k", vec![splice(&name, 1, 0, &nth.to_string())], &app()).unwrap();
    }
    let shown = value(&ledger);
    assert!((0..70).all(|nth| shown[format!("t{nth}")] == format!("a{nth}")), "{shown}");
    for nth in 0..10 {
        ledger.edit("c", "k", vec![Edit::Remove(path(&format!("/t{nth}")))], &app()).unwrap();
    }
    ledger.edit("c", "k", vec![splice("/t69", 0, 1, "b")], &app()).unwrap();
    assert_eq!(value(&ledger)["t69"], "b69");
    let many = (0..80).map(|nth| Edit::MakeList(path(&format!("/l{nth}")))).collect();
    ledger.edit("c", "k", many, &app()).unwrap();
    compare(&ledger, 7);
}

#[test]
fn a_large_item_is_read_and_taken_out_again() {
    let ledger = memory();
    ledger.edit("c", "k", fill(1), &app()).unwrap();
    let large = "large ".repeat(4_000);
    ledger.edit("c", "k", vec![Edit::Insert(at("/tags"), 0, json!(large))], &app()).unwrap();
    ledger.edit("c", "k", vec![splice("/note", 0, 0, "beside it")], &app()).unwrap();
    assert_eq!((&value(&ledger)["tags"][0], &value(&ledger)["note"]), (&json!(large), &json!("beside it")));
    ledger.edit("c", "k", vec![Edit::RemoveAt(at("/tags"), 0)], &app()).unwrap();
    ledger.edit("c", "k", vec![splice("/note", 0, 6, "")], &app()).unwrap();
    assert_eq!(value(&ledger)["tags"], json!([{ "first": 1 }]));
    assert_eq!(value(&ledger)["note"], " it");
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_long_text_is_made_in_several_events() {
    let ledger = memory();
    let long = "é👩\u{200d}👧 ".repeat(5_000);
    let edits = vec![Edit::MakeText(path("/t")), splice("/t", 0, 0, &long), splice("/t", 2, 1, "-")];
    assert!(ledger.edit("c", "k", edits, &app()).unwrap().events.len() > 1);
    ledger.edit("c", "k", vec![splice("/t", 24_990, 9, "+")], &app()).unwrap();
    let mut expected: Vec<char> = long.chars().collect();
    expected[2] = '-';
    expected.splice(24_990..24_999, ['+']);
    assert_eq!(value(&ledger)["t"], expected.into_iter().collect::<String>());
    assert_eq!(ledger.verify().unwrap().problems, [""; 0]);
}
