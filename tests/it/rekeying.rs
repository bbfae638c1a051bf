//! Devices whose edits are refused for their stamps, their writer or their rights: they stamp anew or take back, and converge.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use syncledger::client::{Client, ClientOptions, Happened, QueueStatus, Retry, Tokens};
use syncledger::event::{Container, Op, Path as Pointer};
use syncledger::ledger::{Context, Edit, LogQuery, Machine, Options, Place};
use syncledger::server::Invite;
use syncledger::{ErrorKind, Ledger, Store};

use crate::served::{Served, invite};

const DAY_MS: i64 = 86_400_000;

fn me() -> Context {
    Context::from_source("app").by("ann")
}

fn path(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

async fn enrolled(office: &Served, ledger: &Ledger, name: &str) -> Client {
    let code = office.code(Invite { name: name.to_owned(), ..invite("writer") });
    let tokens = Tokens::enrol(ledger, &office.url, &code, Some(name), Some(name)).await.unwrap();
    client(ledger, &office.url, tokens)
}

fn client(ledger: &Ledger, url: &str, tokens: Tokens) -> Client {
    let retry = Retry { first_ms: 20, most_ms: 50 };
    Client::of(ledger, url, tokens, ClientOptions { retry, ..ClientOptions::default() }).unwrap()
}

/// A device whose clock is so far off.
async fn device_off_by(office: &Served, name: &str, by_ms: i64) -> (Machine, Client) {
    let machine = Machine::new(name.len() as u64 + 1_000, now_ms() + by_ms);
    let ledger = machine.open(Options::default()).unwrap().create_ledger("main").unwrap();
    let client = enrolled(office, &ledger, name).await;
    (machine, client)
}

fn digests(ledger: &Ledger) -> Vec<(String, String)> {
    let digest = ledger.digest().unwrap();
    digest.collections.into_iter().filter(|(name, _)| !name.starts_with('$')).collect()
}

fn value(ledger: &Ledger, key: &str) -> Json {
    ledger.get("issues", key).unwrap().map_or(Json::Null, |record| record.value)
}

fn alike(ledger: &Ledger, office: &Served) {
    assert_eq!(digests(ledger), digests(&office.ledger));
    assert_eq!(ledger.verify().unwrap().problems, Vec::<String>::new());
    assert_eq!(office.ledger.status().unwrap().waiting, 0);
}

/// What a log says that a field was, edit by edit.
fn edits(ledger: &Ledger, key: &str) -> Vec<Json> {
    let log = ledger.log(&LogQuery::default()).unwrap().into_iter();
    let of = log.filter(|entry| entry.event.collection == "issues" && entry.event.key == key);
    let values = of.flat_map(|entry| entry.event.ops().to_vec()).filter_map(|op| match op {
        Op::Put { path, value } if path.as_str() == "/n" => value.to_json().ok(),
        _ => None,
    });
    values.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_is_two_days_ahead_stamps_its_edits_anew_by_itself_and_they_arrive_in_their_order() {
    let office = Served::start().await;
    let (_machine, client) = device_off_by(&office, "early", 2 * DAY_MS).await;
    let ledger = client.ledger().clone();
    office.ledger.put("issues", "shared", json!({ "n": 0, "title": "t" }), &me()).unwrap();
    client.go(syncledger::client::Ways::Pull, &[]).await.unwrap();
    // What was learned from the server says how late it is: as if nothing had been learned yet.
    assert!((ledger.clock_offset_ms() + 2 * DAY_MS).abs() < 60_000);
    ledger.set_clock_offset_ms(0);
    for n in 1..4 {
        ledger.patch("issues", "shared", json!({ "n": n }), &me()).unwrap();
        ledger.put("issues", &format!("own{n}"), json!({ "n": n }), &me()).unwrap();
    }
    let make = vec![Edit::MakeText(path("/text")), Edit::MakeList(path("/list"))];
    ledger.edit("issues", "shared", make, &me()).unwrap();
    let place = |name: &str| Place::Path(path(name));
    let splice = Edit::SpliceText { place: place("/text"), index: 0, delete: 0, insert: "hello".to_owned() };
    ledger.edit("issues", "shared", vec![splice, Edit::Insert(place("/list"), 0, json!("first"))], &me()).unwrap();
    ledger.edit("issues", "shared", vec![Edit::Increment(path("/count"), 5)], &me()).unwrap();
    let expected = value(&ledger, "shared");

    let refused = client.sync(&[]).await.unwrap();
    assert_eq!((refused.sent, refused.rejected), (0, 9));
    let codes: Vec<_> = client.queue(99).unwrap().into_iter().map(|queued| queued.last_error.unwrap().0).collect();
    assert!(codes.iter().all(|code| code == "clock_ahead" || code == "conflict"), "{codes:?}");
    // Meanwhile the office goes on.
    office.ledger.patch("issues", "shared", json!({ "title": "other" }), &me()).unwrap();
    let mut happened = client.watch();
    let synced = client.sync(&[]).await.unwrap();
    assert_eq!((synced.sent, synced.rejected), (9, 0));
    assert_eq!(happened.recv().await.unwrap(), Happened::StampedAgain { events: 9 });
    assert_eq!((client.statistics().stamped_again, client.queue(99).unwrap().len()), (9, 0));
    alike(&ledger, &office);
    assert_eq!(edits(&office.ledger, "shared"), [json!(0), json!(1), json!(2), json!(3)]);
    let here = value(&office.ledger, "shared");
    assert_eq!(here, value(&ledger, "shared"));
    for field in ["n", "text", "list", "count"] {
        assert_eq!(here[field], expected[field], "{field}");
    }
    assert_eq!(here["title"], "other");
    // Of those made anew each is later than the one before, and none is in the future.
    let log = office.ledger.log(&LogQuery::default()).unwrap();
    let writer = ledger.info().writer;
    let stamps: Vec<_> =
        log.iter().filter(|entry| entry.event.writer == writer).map(|entry| entry.event.at).collect();
    assert!(stamps.len() == 9 && stamps.windows(2).all(|two| two[0] < two[1]));
    assert!(stamps.iter().all(|stamp| stamp.millis < now_ms() + 60_000));
    // From now on the clock is put right.
    ledger.put("issues", "later", json!({ "n": 1 }), &me()).unwrap();
    assert_eq!(client.sync(&[]).await.unwrap().rejected, 0);
    alike(&ledger, &office);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_with_a_wrong_clock_begins_again_by_itself() {
    let office = Served::start().await;
    let (_machine, client) = device_off_by(&office, "following", 3 * 3_600_000).await;
    let ledger = client.ledger().clone();
    for n in 0..5 {
        ledger.put("issues", &format!("k{n}"), json!({ "n": n }), &me()).unwrap();
    }
    let following = tokio::spawn({
        let client = client.clone();
        async move { client.follow(&[]).await }
    });
    until(|| office.ledger.get("issues", "k4").unwrap().is_some()).await;
    ledger.patch("issues", "k4", json!({ "n": 9 }), &me()).unwrap();
    until(|| value(&office.ledger, "k4") == json!({ "n": 9 })).await;
    let fault = client.take_back(&[]).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Locked, "{fault}");
    until(|| client.queue(9).unwrap().is_empty()).await;
    client.cancel();
    following.await.unwrap().unwrap();
    assert_eq!((client.statistics().stamped_again, client.statistics().failed), (5, 0));
    alike(&ledger, &office);
}

async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come to be so");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_store_takes_a_writer_of_its_own_and_all_edits_of_both_arrive() {
    let office = Served::start().await;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let small = Options { seal_events: 16, ..Options::default() };
    let first = Store::open_with(dir.path(), small.clone()).unwrap().create_ledger("main").unwrap();
    let on_first = enrolled(&office, &first, "laptop").await;
    for n in 0..50 {
        first.put("issues", &format!("k{}", n % 5), json!({ "n": n }), &me()).unwrap();
    }
    on_first.sync(&[]).await.unwrap();
    drop(on_first);
    first.store().close().unwrap();
    drop(first);
    copy(dir.path(), other.path());
    let open = |dir: &Path| Store::open_with(dir, small.clone()).unwrap().ledger("main").unwrap();
    let (first, second) = (open(dir.path()), open(other.path()));
    let over = |ledger: &Ledger| client(ledger, &office.url, Tokens::of(ledger).unwrap());
    let (on_first, on_second) = (over(&first), over(&second));
    assert_eq!(first.info().writer, second.info().writer);

    for round in 0..4 {
        for (ledger, name) in [(&first, "first"), (&second, "second")] {
            ledger.patch("issues", "k1", json!({ name: round }), &me()).unwrap();
            ledger.edit("issues", "k2", vec![Edit::Increment(path("/count"), 1)], &me()).unwrap();
            ledger.put("issues", &format!("{name}{round}"), json!({ "n": round }), &me()).unwrap();
        }
        on_first.sync(&[]).await.unwrap();
        on_second.sync(&[]).await.unwrap();
    }
    for _ in 0..3 {
        on_first.sync(&[]).await.unwrap();
        on_second.sync(&[]).await.unwrap();
    }
    assert_ne!(first.info().writer, second.info().writer);
    assert!(on_second.statistics().stamped_again > 0);
    for (ledger, client) in [(&first, &on_first), (&second, &on_second)] {
        assert_eq!(client.queue(99).unwrap(), []);
        alike(ledger, &office);
    }
    assert_eq!(value(&office.ledger, "k2")["count"], 8, "each edit counts once");
    let there = value(&office.ledger, "k1");
    assert_eq!((&there["first"], &there["second"]), (&json!(3), &json!(3)));
    for round in 0..4 {
        assert!(["first", "second"].iter().all(|name| !value(&office.ledger, &format!("{name}{round}")).is_null()));
    }
    // What comes after is taken at once.
    second.put("issues", "after", json!({}), &me()).unwrap();
    assert_eq!(on_second.sync(&[]).await.unwrap().rejected, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_store_that_is_enrolled_as_a_device_of_its_own_takes_a_writer_of_its_own() {
    let office = Served::start().await;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Ledger::open(dir.path()).unwrap();
    let on_first = enrolled(&office, &first, "laptop").await;
    first.put("issues", "k", json!({ "n": 1 }), &me()).unwrap();
    on_first.sync(&[]).await.unwrap();
    drop(on_first);
    first.store().close().unwrap();
    copy(dir.path(), other.path());
    std::fs::remove_dir_all(other.path().join("client")).unwrap();
    let second = Ledger::open(other.path()).unwrap();
    let on_second = enrolled(&office, &second, "tablet").await;
    second.patch("issues", "k", json!({ "n": 2 }), &me()).unwrap();
    second.put("issues", "more", json!({ "n": 3 }), &me()).unwrap();
    assert_eq!(on_second.sync(&[]).await.unwrap().rejected, 2);
    let codes: Vec<_> = on_second.queue(9).unwrap().into_iter().map(|queued| queued.last_error.unwrap().0).collect();
    assert_eq!(codes, ["consistency"; 2]);
    let synced = on_second.sync(&[]).await.unwrap();
    assert_eq!((synced.sent, synced.rejected), (2, 0));
    assert_eq!(value(&office.ledger, "k"), json!({ "n": 2 }));
    alike(&second, &office);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_edit_that_is_taken_back_leaves_what_the_server_has_and_further_edits_are_taken() {
    let office = Served::start().await;
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let client = enrolled(&office, &ledger, "laptop").await;
    office.ledger.put("issues", "k", json!({ "n": 1 }), &me()).unwrap();
    client.sync(&[]).await.unwrap();
    // In the name of another source: that is refused, and what is made on it too.
    let refused = ledger.patch("issues", "k", json!({ "n": 2 }), &Context::from_source("jira")).unwrap().events[0].0;
    let built_on = ledger.patch("issues", "k", json!({ "more": true }), &me()).unwrap().events[0].0;
    assert_eq!(client.sync(&[]).await.unwrap().rejected, 2);
    client.sync(&[]).await.unwrap();
    assert_eq!(client.statistics().stamped_again, 0, "its stamp is not why it was refused");
    // While another client of the ledger has a session, nobody writes the log again.
    let other_client = self::client(&ledger, &office.url, Tokens::of(&ledger).unwrap());
    let mut happened = other_client.watch();
    let following = tokio::spawn({
        let other_client = other_client.clone();
        async move { other_client.follow(&["nothing"]).await }
    });
    assert_eq!(happened.recv().await.unwrap(), Happened::Started);
    let locked = client.take_back(&[refused]).unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::Locked, "{locked}");
    other_client.cancel();
    following.await.unwrap().unwrap();
    let after = ledger.patch("issues", "k", json!({ "unsent": 1 }), &me()).unwrap().events[0].0;
    let other = ledger.put("issues", "other", json!({ "n": 7 }), &me()).unwrap().events[0].0;

    let unknown = client.take_back(&[other]).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
    assert_eq!(client.take_back(&[]).unwrap(), []);
    let gone = client.take_back(&[refused]).unwrap();
    let seen: Vec<_> = gone.iter().map(|queued| (queued.id, queued.status)).collect();
    let failed = QueueStatus::Failed;
    assert_eq!(seen, [(refused, failed), (built_on, failed), (after, QueueStatus::Pending)]);
    assert_eq!(value(&ledger, "k"), json!({ "n": 1 }));
    let waits: Vec<_> = client.queue(9).unwrap().into_iter().map(|queued| (queued.id, queued.status)).collect();
    assert_eq!(waits, [(other, QueueStatus::Pending)], "what was not refused waits untouched");

    ledger.patch("issues", "k", json!({ "n": 3 }), &me()).unwrap();
    let synced = client.sync(&[]).await.unwrap();
    assert_eq!((synced.sent, synced.rejected, client.queue(9).unwrap().len()), (2, 0, 0));
    assert_eq!(value(&office.ledger, "k"), json!({ "n": 3 }));
    alike(&ledger, &office);
    // A later client of the same store finds everything as it is.
    drop(client);
    ledger.store().close().unwrap();
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    let client = self::client(&ledger, &office.url, Tokens::of(&ledger).unwrap());
    assert_eq!((client.acknowledged(), client.queue(9).unwrap().len()), (ledger.position(), 0));
    alike(&ledger, &office);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_texts_keep_what_others_made_in_them_when_ours_are_stamped_anew() {
    let office = Served::start().await;
    let (_machine, client) = device_off_by(&office, "writing", DAY_MS).await;
    let ledger = client.ledger().clone();
    office.ledger.edit("issues", "k", vec![Edit::MakeList(path("/list"))], &me()).unwrap();
    let insert = |value: &str| Edit::Insert(Place::Path(path("/list")), 9, json!(value));
    office.ledger.edit("issues", "k", vec![insert("a"), insert("b")], &me()).unwrap();
    client.sync(&[]).await.unwrap();
    ledger.set_clock_offset_ms(0);
    ledger.edit("issues", "k", vec![insert("c")], &me()).unwrap();
    let made = ledger.edit("issues", "k", vec![Edit::MakeText(path("/text"))], &me()).unwrap().events[0].0;
    let place = Place::Container(Container::Of(made, 0));
    let write = |text: &str| Edit::SpliceText { place, index: 99, delete: 0, insert: text.to_owned() };
    ledger.edit("issues", "k", vec![write("x"), Edit::RemoveAt(Place::Path(path("/list")), 0)], &me()).unwrap();
    client.sync(&[]).await.unwrap();
    office.ledger.edit("issues", "k", vec![insert("d")], &me()).unwrap();
    client.sync(&[]).await.unwrap();
    let there = value(&office.ledger, "k");
    assert_eq!(there["text"], "x");
    let mut items: Vec<_> = there["list"].as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect();
    items.sort_unstable();
    assert_eq!(items, ["b", "c", "d"]);
    alike(&ledger, &office);
}
