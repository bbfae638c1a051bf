use super::story::*;
use super::*;
use crate::event::{Container, Op, Value};

fn cells(story: &Story, key: &str) -> Vec<Cell> {
    story.document.registers().get(key).iter().map(|live| live.cell.clone()).collect()
}

fn int(value: i64) -> Cell {
    Cell::Value(Value::Int(value))
}

const EMPTY: Cell = Cell::Value(Value::EmptyObject);

#[test]
fn a_put_takes_the_place_of_what_lives_below_and_of_values_above() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a/x", 1), put("/a/y/z", 2)]).write(
        "b",
        &["a"],
        2,
        "app",
        vec![put("/a", 3)],
    );
    assert_eq!((cells(&story, "a"), cells(&story, "a/x")), (vec![int(3)], vec![Cell::Tombstone]));
    assert_eq!(cells(&story, "a/y/z"), [Cell::Tombstone]);
    story.write("c", &["b"], 3, "app", vec![put("/a/y/z", 4)]);
    assert_eq!((cells(&story, "a"), cells(&story, "a/y")), (vec![Cell::Tombstone], vec![]));
}

#[test]
fn a_put_leaves_the_mark_of_an_object_above_it_alone() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a", serde_json::json!({}))]).write(
        "b",
        &["a"],
        2,
        "app",
        vec![put("/a/x", 1)],
    );
    assert_eq!(cells(&story, "a"), [EMPTY]);
}

#[test]
fn a_removal_of_what_is_not_there_does_nothing() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a", 1)]).write(
        "b",
        &["a"],
        2,
        "app",
        vec![remove("/b"), remove("/a/x")],
    );
    assert_eq!((cells(&story, "a"), cells(&story, "b"), cells(&story, "a/x")), (vec![int(1)], vec![], vec![]));
}

#[test]
fn an_object_and_a_record_that_a_removal_empties_stay_objects() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a/x", 1)]).write("b", &["a"], 2, "app", vec![remove("/a/x")]);
    assert_eq!((cells(&story, "a"), cells(&story, "a/x")), (vec![EMPTY], vec![Cell::Tombstone]));
    story.write("c", &["b"], 3, "app", vec![remove("/a")]);
    assert_eq!((cells(&story, "a"), cells(&story, "$root")), (vec![Cell::Tombstone], vec![EMPTY]));
}

#[test]
fn an_object_stays_one_also_where_it_is_a_value_to_others() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("object", &["base"], 2, "app", vec![put("/a/x", 1)]);
    story.write("value", &["base"], 3, "jira", vec![put("/a", 5)]);
    story.write("emptied", &["object", "value"], 4, "app", vec![remove("/a/x")]);
    assert_eq!(cells(&story, "a"), [EMPTY]);
}

#[test]
fn a_path_to_a_member_removes_nothing_from_its_set() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![Op::MakeSet { path: path("/t") }, add("/t", "u")]);
    story.write("b", &["a"], 2, "app", vec![remove("/t/\"u\"")]);
    assert_eq!((cells(&story, "t"), cells(&story, "t/\"u\"")), (vec![Cell::Set], vec![Cell::Member]));
}

#[test]
fn taking_a_member_out_leaves_the_field_alone_that_has_its_key() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("set", &["base"], 2, "app", vec![Op::MakeSet { path: path("/t") }]);
    story.write("field", &["base"], 3, "jira", vec![put("/t/\"u\"", 1)]);
    story.write("take", &["set", "field"], 4, "app", vec![take("/t", "u")]);
    assert_eq!(cells(&story, "t/\"u\""), [int(1)]);
}

#[test]
fn set_operations_need_a_set_and_increments_a_number() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/t", "text"), put("/f", 1.5)]);
    story.write(
        "b",
        &["a"],
        2,
        "app",
        vec![add("/t", "u"), increment("/t", 1), increment("/f", 1), increment("/t/x", 0)],
    );
    assert_eq!(cells(&story, "t/\"u\""), []);
    assert_eq!(story.document.registers().counter("$#f"), 0);
    // Below a value nothing is, so that a count starts there, and the value goes.
    assert_eq!((cells(&story, "t"), cells(&story, "t/x")), (vec![Cell::Tombstone], vec![int(0)]));
}

#[test]
fn members_that_outlived_their_set_are_nothing_to_a_count() {
    let mut story = Story::default();
    story.write("set", &[], 1, "app", vec![put("/b", 0), Op::MakeSet { path: path("/t") }]);
    story.write("removed", &["set"], 2, "app", vec![remove("/t")]);
    story.write("added", &["set"], 3, "jira", vec![add("/t", "u")]);
    story.write("count", &["removed", "added"], 4, "app", vec![increment("/t", 1)]);
    assert_eq!((cells(&story, "t"), story.document.registers().counter("$#t")), (vec![int(0)], 1));
    assert_eq!(cells(&story, "t/\"u\""), [Cell::Tombstone]);
}

#[test]
fn a_value_put_beside_a_counter_is_what_is_missing_to_it() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![increment("/n", 5), put("/n", 3), increment("/n", 2)]);
    assert_eq!((cells(&story, "n"), story.document.registers().counter("$#n")), (vec![int(-2)], 7));
    story.write("b", &["a"], 2, "app", vec![put("/n", i64::MIN)]);
    assert_eq!(cells(&story, "n"), [int(i64::MIN.wrapping_sub(7))]);
}

#[test]
fn an_index_beyond_the_end_is_the_end_and_nothing_is_removed_there() {
    let mut story = Story::default();
    let ops = vec![
        Op::MakeList { path: path("/l") },
        insert(Container::Own(0), u64::MAX, "a"),
        insert(Container::Own(0), 9, "b"),
        Op::RemoveAt { container: Container::Own(0), index: 2 },
        Op::MakeText { path: path("/m") },
        splice(Container::Own(4), u64::MAX, u64::MAX, "né🦀"),
        splice(Container::Own(4), 1, u64::MAX, "x"),
        splice(Container::Own(0), 0, 1, "of the wrong kind"),
        insert(Container::Own(4), 0, "of the wrong kind"),
    ];
    story.write("a", &[], 1, "app", ops);
    let view = story.document.view().unwrap();
    let (list, text) = (view.registers().get("l")[0].clone(), view.registers().get("m")[0].clone());
    assert_eq!(view.list(&list), [Value::Text("a".into()), Value::Text("b".into())]);
    assert_eq!(view.text(&text), "nx");
}

#[test]
fn an_operation_in_a_container_that_is_no_ancestor_does_nothing() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("list", &["base"], 2, "app", vec![Op::MakeList { path: path("/l") }]);
    let list = Container::Of(story.id("list"), 0);
    story.write("apart", &["base"], 3, "jira", vec![insert(list, 0, "lost")]);
    story.write("on it", &["list"], 4, "app", vec![insert(list, 0, "kept")]);
    let view = story.document.view().unwrap();
    assert_eq!(view.list(&view.registers().get("l")[0]), [Value::Text("kept".into())]);
}

#[test]
fn the_ancestors_decide_whether_an_event_is_refused() {
    let mut story = Story::default();
    story.write("a", &[], 5, "app", vec![put("/b", 0)]).write("b", &["a"], 6, "app", vec![]);
    let draft = story.draft(&["b"], 7, "app", vec![]);
    assert_eq!(story.refusal(&draft), None);
    let wrong = Event { nth: 2, ..draft.clone() };
    assert_eq!(story.refusal(&wrong), Some(PlaceFault::WrongNth { expected: 3, got: 2 }));
    let early = story.draft(&["b"], 6, "app", vec![]);
    assert_eq!(story.refusal(&early), Some(PlaceFault::NotAfterParents));
    let nested = Event {
        parents: [story.id("a"), story.id("b")]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect(),
        ..draft.clone()
    };
    assert_eq!(story.refusal(&nested), Some(PlaceFault::ParentsNotHeads));
    let orphan = Event { parents: vec![EventId([9; 32])], ..draft };
    assert_eq!(story.refusal(&orphan), Some(PlaceFault::MissingParents(vec![EventId([9; 32])])));
}

#[test]
fn a_view_reads_the_past_though_the_document_was_never_asked_for() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a", 1)]).write("b", &["a"], 2, "app", vec![put("/a", 2)]);
    let first = story.document.graph().find(&story.id("a")).unwrap();
    let view = story.document.view().unwrap();
    assert_eq!(view.document.pending.len(), 2, "nothing is handed to Automerge");
    let past = view.graph().closure([first]);
    assert_eq!(view.at(past.clone()).registers().get("a")[0].cell, int(1));
    assert_eq!(view.field_at(past.clone(), &path("/a").to_key()).registers().get("a")[0].cell, int(1));
    assert_eq!(view.written(first).iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(view.at(past.clone()).at(view.clock().clone()).registers(), view.registers());
}

#[test]
fn events_given_again_and_again_are_derived_once() {
    let mut story = Story::default();
    story.write("e0", &[], 1, "app", vec![put("/a", 1)]);
    let names: Vec<&'static str> = (1..200).map(|n| &*format!("e{n}").leak()).collect();
    let mut last = "e0";
    for (at, name) in (2..).zip(names) {
        story.write(name, &[last], at, "app", vec![put("/a", at)]);
        last = name;
    }
    let twice = story.events.iter().chain(&story.events).map(|(id, event)| (*id, event));
    let mut document = Document::derive_all(twice).unwrap();
    assert_eq!(document.work().derived, 200);
    assert_eq!(document.automerge().unwrap().get_heads(), story.document.automerge().unwrap().get_heads());
}

/// Puts one field `changes` times, and lets the document be seen between.
fn long_record(changes: u32) -> (Document, Vec<EventId>, Event) {
    let mut document = Document::default();
    let mut event = Story::default().draft(&[], 1, "app", vec![put("/a", 0)]);
    let mut ids = Vec::new();
    for nth in 1..=changes {
        event.nth = nth;
        event.sequence = u64::from(nth);
        event.at = crate::event::Timestamp::from_millis(i64::from(nth));
        event.body = crate::event::Body::Ops(vec![put("/a", nth), put("/b", nth % 7)]);
        let (id, _) = event.identify(LEDGER).unwrap();
        document.apply(id, &event).unwrap();
        ids.push(id);
        event.parents = vec![id];
    }
    document.materialise().unwrap();
    (document, ids, event)
}

/// The work of one patch on the heads and of one on an old state, each seen afterwards.
fn work_of_patches(changes: u32) -> [Work; 2] {
    let (mut document, ids, mut event) = long_record(changes);
    let mut works = Vec::new();
    event.at = crate::event::Timestamp::from_millis(i64::from(changes) + 1);
    for (lane, nth, parent) in [(0, changes + 1, changes - 1), (1, 1, changes / 2)] {
        (event.lane, event.nth, event.parents) = (lane, nth, vec![ids[parent as usize]]);
        event.sequence += 1;
        let before = document.work();
        document.apply(event.identify(LEDGER).unwrap().0, &event).unwrap();
        assert_eq!(document.view().unwrap().registers().get("b").len(), 1 + lane as usize);
        let after = document.work();
        let materialised = after.materialised - before.materialised;
        works.push(Work { derived: after.derived - before.derived, materialised });
    }
    works.try_into().unwrap()
}

#[test]
fn a_patch_costs_the_same_on_a_record_with_a_hundred_changes_and_with_ten_thousand() {
    let [young, old] = [100, 10_000].map(work_of_patches);
    assert_eq!(young, old);
    let [linear, apart] = old;
    assert_eq!([linear, apart], [Work { derived: 1, materialised: 0 }; 2]);
}

#[test]
fn a_patch_on_a_loaded_document_derives_only_itself() {
    let (mut document, _, mut event) = long_record(1_000);
    let mut loaded = Document::load(&document.save().unwrap()).unwrap();
    event.nth += 1;
    event.at = crate::event::Timestamp::from_millis(5_000);
    loaded.apply(event.identify(LEDGER).unwrap().0, &event).unwrap();
    loaded.view().unwrap();
    assert_eq!(loaded.work(), Work { derived: 1, materialised: 0 });
}

#[test]
fn bytes_that_are_no_snapshot_of_this_version_are_refused() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a", 1)]);
    let saved = story.document.save().unwrap();
    assert!(Document::load(&[]).is_err());
    assert!(Document::load(&saved[..20]).is_err());
    assert!(Document::load(&[&[1], &saved[1..]].concat()).is_err());
    assert_eq!(Document::load(&saved).unwrap().registers(), story.document.registers());
}

/// Counts what deriving reads.
struct Counting<'a>(&'a Registers, std::cell::Cell<usize>);

impl State for Counting<'_> {
    fn lives(&self, key: &str) -> Cow<'_, [Live]> {
        self.1.set(self.1.get() + 1);
        self.0.lives(key)
    }

    fn keys(&self, range: &KeyRange) -> Vec<String> {
        let keys = State::keys(self.0, range);
        self.1.set(self.1.get() + keys.len());
        keys
    }

    fn counter(&self, counter_key: &str) -> Option<i64> {
        State::counter(self.0, counter_key)
    }

    fn items(&self, _: &ObjectRef) -> Vec<OpRef> {
        Vec::new()
    }
}

#[test]
fn an_event_looks_through_a_large_record_once_however_many_operations_it_has() {
    let mut story = Story::default();
    let fields = |from: i64| (from..from + 1_000).map(|n| put(&format!("/a/{n}"), n)).collect();
    story.write("a", &[], 1, "app", fields(0)).write("b", &["a"], 2, "app", fields(1_000));
    for op in [put("/a", 1), remove("/a"), remove("/a/x/y"), increment("/a", 1), put("/a/7/x", 1)] {
        let event = story.draft(&["b"], 3, "app", vec![op.clone(); 1_000]);
        let place = story.document.graph.place(EventId([1; 32]), &event).unwrap();
        let state = Counting(story.document.registers(), std::cell::Cell::new(0));
        derive::derive(&story.document.graph, &place, &event, &state, &mut Items::default());
        assert!(state.1.get() < 10_000, "{op:?} reads {} keys", state.1.get());
    }
}

#[test]
fn the_set_of_what_was_stamped_until_a_time_and_the_last_stamp_of_a_writer() {
    let mut story = Story::default();
    story.write("one", &[], 5, "app", vec![put("/a", 1)]).write("two", &["one"], 7, "app", vec![put("/a", 2)]);
    assert!(!story.document.graph().is_concurrent());
    story.write("apart", &["one"], 6, "jira", vec![put("/a", 3)]);
    let graph = story.document.graph();
    assert!(graph.is_concurrent());
    let at = crate::event::Timestamp::from_millis;
    let until = |millis: i64| -> Vec<&str> {
        let clock = graph.until(at(millis));
        let held = graph.nodes().filter(|(ix, _)| graph.contains(&clock, *ix));
        let held: Vec<_> = held.map(|(_, node)| story.name(node.id)).collect();
        assert_eq!((clock.len(), clock.is_empty()), (held.len() as u64, held.is_empty()));
        held
    };
    assert_eq!([until(4), until(5), until(6), until(7)].map(|held| held.len()), [0, 1, 2, 3]);
    assert_eq!(until(6), ["one", "apart"]);
    assert_eq!(graph.until(at(4)), Clock::default());
    assert_eq!(graph.until(at(5)), graph.closure(graph.find(&story.id("one"))));
    let last = |name: &str| graph.last_stamp(story.events.iter().find(|(_, e)| e.source == name).unwrap().1.writer);
    assert_eq!((last("app"), last("jira")), (Some(at(7)), Some(at(6))));
    assert_eq!(graph.last_stamp(crate::event::WriterId([9; 16])), None);
    let mut heads = [story.id("two"), story.id("apart")];
    heads.sort();
    assert_eq!(graph.head_ids(), heads);
    assert_eq!(graph.forked_writers().count(), 0);
}

#[test]
fn increments_and_edits_of_items_are_told_by_event() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/n", 1), Op::MakeList { path: path("/l") }, put("/gone", 1)]);
    let list = Container::Of(story.id("base"), 1);
    story.write("edit", &["base"], 2, "app", vec![increment("/n", 5), insert(list, 0, "p"), insert(list, 1, "q")]);
    let out =
        vec![Op::RemoveAt { container: list, index: 0 }, remove("/gone"), increment("/n", 7), increment("/n", 8)];
    story.write("out", &["edit"], 3, "app", out);
    let ids = ["base", "edit", "out"].map(|name| (name, story.id(name)));
    let id = |name: &str| ids.iter().find(|(known, _)| *known == name).unwrap().1;
    story.document.materialise().unwrap();
    let view = story.document.view().unwrap();
    let ix = |name: &str| view.graph().find(&id(name)).unwrap();
    assert_eq!(view.increments(ix("edit")), [("$#n".to_owned(), 5)]);
    assert_eq!(view.increments(ix("out")), [("$#n".to_owned(), 7), ("$#n".to_owned(), 8)]);
    assert_eq!(view.increments(ix("base")), []);
    assert_eq!([view.item_edits(ix("base")).len(), view.item_edits(ix("edit")).len()], [0, 1]);
    let (edit, out) = (view.item_edits(ix("edit")).remove(0), view.item_edits(ix("out")).remove(0));
    assert_eq!((edit.kind, edit.container), (ContainerKind::List, list));
    assert!(out.took_out(&edit) && !edit.took_out(&out));
    let (event, op) = (id("base"), 1);
    assert_eq!((view.kind(event, op), view.length(event, op)), (Some(ContainerKind::List), Some(1)));
    assert_eq!((view.kind(event, 0), view.length(event, 7)), (None, None));
    assert!(view.single("l").is_some() && view.single("none").is_none() && view.single("gone").is_none());
    let live = &view.registers().get("l")[0];
    assert_eq!((view.container(live), view.list(live)), (Some(list), vec![Value::Text("q".into())]));
}

#[test]
fn sets_of_the_same_events_are_equal_whatever_they_were_made_from() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/a", 1)]).write("a2", &["a"], 3, "app", vec![put("/a", 2)]);
    story.write("b", &[], 2, "jira", vec![put("/b", 1)]).write("b2", &["a", "b"], 4, "jira", vec![put("/b", 2)]);
    let graph = story.document.graph();
    let ix = |name: &str| graph.find(&story.id(name)).unwrap();
    assert_eq!(graph.common_ancestors([ix("b2"), ix("a2")]), graph.closure([ix("a")]));
    assert_eq!(graph.common_ancestors([ix("b2"), ix("b")]), Clock::default());
}

#[test]
fn only_lists_and_texts_need_automerge() {
    let mut story = Story::default();
    story.write("base", &[], 1, "app", vec![put("/b", 0)]);
    story.write("field", &["base"], 2, "app", vec![put("/a/x", 1), increment("/n", 1)]);
    story.write("value", &["base"], 3, "jira", vec![put("/a", 1), put("/b", 2)]);
    let clock = story.document.graph().closure(story.document.graph().find(&story.id("field")));
    assert_eq!(story.document.view_at(clock).unwrap().registers().get("b").len(), 1);
    assert!(story.document.view().is_ok() && !story.document.holds_automerge());
    story.write("text", &["base"], 4, "github", vec![Op::MakeText { path: path("/t") }]);
    assert!(story.document.view().is_ok() && story.document.holds_automerge());
}

#[test]
fn the_items_at_hand_are_those_that_automerge_tells() {
    let mut seen = 0;
    for seed in 0..150 {
        let mut document = Document::default();
        for (id, event) in crate::testing::History::new(seed).events {
            if document.apply(id, &event).is_err() {
                break;
            }
            let mut told = document.clone();
            told.materialise().unwrap();
            let moment = Moment { materialised: &told.materialised, at: None };
            for (object, items) in document.items.iter() {
                assert_eq!(*items, moment.items(object), "seed {seed}");
                seen += items.len();
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn events_in_line_inside_a_text_ask_automerge_once() {
    let mut story = Story::default();
    story.write("0", &[], 1, "app", vec![Op::MakeText { path: path("/t") }]);
    let text = Container::Of(story.id("0"), 0);
    let write = |story: &mut Story, nth: i64| {
        let (name, parent) = (nth.to_string().leak(), (nth - 1).to_string().leak());
        story.write(name, &[parent], nth + 1, "app", vec![splice(text, nth as u64 / 2, 1, "ab")]);
    };
    (1..200).for_each(|nth| write(&mut story, nth));
    assert_eq!(story.document.work().materialised, 0);
    story.document = Document::load(&story.document.save().unwrap()).unwrap();
    (200..300).for_each(|nth| write(&mut story, nth));
    assert_eq!((story.document.work().derived, story.document.work().materialised), (100, 0));
    assert!(story.document.holds_automerge());
}

#[test]
fn one_field_of_the_past_has_the_counter_that_it_had() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/n", 1), increment("/n", 4)]);
    story.write("b", &["a"], 2, "app", vec![increment("/n", 2)]);
    let first = story.document.graph().find(&story.id("a")).unwrap();
    let view = story.document.view().unwrap();
    let past = view.field_at(view.graph().closure([first]), &path("/n").to_key());
    assert_eq!((past.registers().get("n")[0].cell.clone(), past.registers().counter("$#n")), (int(1), 4));
}

#[test]
fn a_loaded_document_has_its_past_and_its_counters() {
    let mut story = Story::default();
    story.write("a", &[], 1, "app", vec![put("/n", 1), increment("/n", 4)]);
    story.write("b", &["a"], 2, "app", vec![put("/n", 9)]);
    // Automerge has nothing, a part or all of it: what it lacks is saved beside it.
    let saved = |document: &mut Document| Document::load(&document.save().unwrap()).unwrap();
    let asleep = saved(&mut story.document);
    assert!(!asleep.holds_automerge() && asleep.materialised.birth_keys().is_empty());
    story.document.materialise().unwrap();
    let awake = saved(&mut story.document);
    assert_eq!(awake.materialised.birth_keys(), ["$#n"]);
    story.write("c", &["b"], 3, "app", vec![increment("/n", 2), increment("/m", 1)]);
    let half = saved(&mut story.document);
    let (id, event) = story.events.iter().find(|(id, _)| *id == story.id("c")).cloned().unwrap();
    for mut loaded in [asleep, awake, half] {
        loaded.apply(id, &event).unwrap();
        let past = loaded.graph().closure(loaded.graph().find(&story.id("a")));
        assert_eq!(loaded.view_at(past).unwrap().registers().get("n")[0].cell, int(1));
        let heads = loaded.automerge().unwrap().get_heads();
        assert_eq!(heads, story.document.automerge().unwrap().get_heads());
    }
}

// --- taking back ---------------------------------------------------------------------------------------------------

/// What a list or text would be without some events, the latest first, and the repairs, which make it that.
fn taken_back(story: &mut Story, key: &str, names: &[&str]) -> (Vec<Value>, Vec<ItemRepair>) {
    let ids: Vec<EventId> = names.iter().map(|name| story.id(name)).collect();
    let view = story.document.view().unwrap();
    let made_on = |ix| (view.item_edits(ix).remove(0), view.at(view.graph().ancestors(ix)));
    let edits: Vec<_> = ids.iter().map(|id| made_on(view.graph().find(id).unwrap())).collect();
    let live = &view.registers().get(key)[0];
    let repairs = view.repair_items(&edits);
    let mut items = view.items_without(live, &[]);
    for repair in repairs.clone() {
        match repair {
            ItemRepair::Remove(index) => drop(items.remove(index as usize)),
            ItemRepair::Insert(index, value) => items.insert(index as usize, value),
        }
    }
    assert_eq!(items, view.items_without(live, &edits));
    (items, repairs)
}

/// A text that `base` makes.
fn text_of_base(story: &mut Story, text: &str) -> Container {
    let make = vec![Op::MakeText { path: path("/t") }, splice(Container::Own(0), 0, 0, text)];
    story.write("base", &[], 1, "app", make);
    Container::Of(story.id("base"), 0)
}

fn text_without(story: &mut Story, names: &[&str]) -> (String, Vec<ItemRepair>) {
    let (items, repairs) = taken_back(story, "t", names);
    let text = |item: &Value| item.to_json().unwrap().as_str().unwrap().to_owned();
    (items.iter().map(text).collect(), repairs)
}

fn gone(index: u64) -> ItemRepair {
    ItemRepair::Remove(index)
}

fn comes(index: u64, letter: &str) -> ItemRepair {
    ItemRepair::Insert(index, Value::Text(letter.into()))
}

#[test]
fn what_edits_removed_comes_back_in_its_order_and_what_they_inserted_goes() {
    let mut story = Story::default();
    let text = text_of_base(&mut story, "abcdefgh");
    story.write("one", &["base"], 2, "app", vec![splice(text, 1, 2, "X")]);
    story.write("two", &["one"], 3, "app", vec![splice(text, 5, 1, "YZ")]);
    story.write("other", &["two"], 4, "jira", vec![splice(text, 0, 1, "")]);
    let (left, repairs) = text_without(&mut story, &["two", "one"]);
    assert_eq!(left, "bcdefgh");
    assert_eq!(repairs, [gone(0), comes(0, "b"), comes(1, "c"), gone(5), gone(5), comes(5, "g")]);
    assert_eq!(text_without(&mut story, &["two"]).0, "Xdefgh");
    assert_eq!(text_without(&mut story, &["other", "two", "one"]).0, "abcdefgh");
    assert_eq!(text_without(&mut story, &[]), ("XdefYZh".to_owned(), vec![]));
}

#[test]
fn where_an_item_goes_and_an_equal_one_comes_nothing_is_done() {
    let mut story = Story::default();
    let text = text_of_base(&mut story, "abcdefghi");
    story.write("one", &["base"], 2, "app", vec![splice(text, 1, 3, "bXd")]);
    story.write("two", &["one"], 3, "app", vec![splice(text, 5, 3, "fYYh")]);
    let (left, repairs) = text_without(&mut story, &["two", "one"]);
    assert_eq!(left, "abcdefghi");
    assert_eq!(repairs, [gone(2), comes(2, "c"), gone(6), gone(6), comes(6, "g")]);
}

#[test]
fn an_item_that_two_took_out_comes_back_once() {
    let mut story = Story::default();
    let text = text_of_base(&mut story, "abc");
    story.write("one", &["base"], 2, "app", vec![splice(text, 1, 1, "")]);
    story.write("two", &["base"], 3, "jira", vec![splice(text, 1, 2, "Z")]);
    assert_eq!(text_without(&mut story, &["two", "one"]).0, "abc");
    assert_eq!(text_without(&mut story, &["one"]).0, "abZ");
}

#[test]
fn items_of_a_list_come_back_with_their_values() {
    let mut story = Story::default();
    let own = Container::Own(0);
    let make = vec![Op::MakeList { path: path("/l") }, insert(own, 0, 1), insert(own, 1, 2)];
    story.write("base", &[], 1, "app", make);
    let list = Container::Of(story.id("base"), 0);
    let out = |index| Op::RemoveAt { container: list, index };
    story.write("one", &["base"], 2, "app", vec![out(0), insert(list, 1, "x"), out(0)]);
    let item = |index, value| ItemRepair::Insert(index, Value::Int(value));
    let (left, repairs) = taken_back(&mut story, "l", &["one"]);
    assert_eq!(left, [Value::Int(1), Value::Int(2)]);
    assert_eq!(repairs, [gone(0), item(0, 1), item(1, 2)]);
}
