//! The offline-first client against a real server in this process, over lines that are cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use syncledger::client::{Carries, Client, ClientOptions, Happened, QueueStatus, Retry, Tokens};
use syncledger::ledger::{Context, Options, Which};
use syncledger::server::{Invite, Server};
use syncledger::{ErrorKind, Ledger, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::served::{invite, serve};

fn me() -> Context {
    Context::from_source("app").by("ann")
}

/// A server of a store in a directory.
struct Office {
    server: Server,
    ledger: Ledger,
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    store: Store,
    dir: TempDir,
}

impl Office {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ledger = store.create_ledger("main").unwrap();
        let server = Server::new(store.clone()).unwrap();
        let (address, end) = serve(&server);
        Self { server, ledger, address, end: Some(end), store, dir }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn code(&self, device: &str, change: impl FnOnce(&mut Invite)) -> String {
        let mut invite = Invite { name: device.to_owned(), ..invite("writer") };
        change(&mut invite);
        self.server.invite(&self.ledger, invite).unwrap().code
    }

    /// A device, by the address of the server or of what stands before it.
    async fn device(&self, name: &str, url: &str) -> Device {
        self.device_with(name, url, |_| {}).await
    }

    async fn device_with(&self, name: &str, url: &str, change: impl FnOnce(&mut Invite)) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let code = self.code(name, change);
        let tokens = Tokens::enrol(&ledger, url, &code, Some(name), Some(name)).await.unwrap();
        Device { client: client(&ledger, url, tokens, Carries::Either), ledger, dir }
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        let _ = self.store.close();
    }
}

struct Device {
    client: Client,
    ledger: Ledger,
    dir: TempDir,
}

/// A client that does not wait long, as tests do not.
fn client(ledger: &Ledger, url: &str, tokens: Tokens, carries: Carries) -> Client {
    let retry = Retry { first_ms: 20, most_ms: 50 };
    Client::of(ledger, url, tokens, ClientOptions { retry, carries, ..ClientOptions::default() }).unwrap()
}

impl Device {
    fn over(&self, url: &str, carries: Carries) -> Client {
        client(&self.ledger, url, Tokens::of(&self.ledger).unwrap(), carries)
    }

    fn pending(&self) -> usize {
        self.client.queue(usize::MAX).unwrap().len()
    }
}

fn digest(ledger: &Ledger) -> String {
    ledger
        .digest()
        .unwrap()
        .collections
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(_, sum)| sum.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_edit_apart_converge_over_either_carrier() {
    let office = Office::open().await;
    for carries in [Carries::Socket, Carries::Requests] {
        let name = format!("{carries:?}").to_lowercase();
        let laptop = office.device(&format!("laptop-{name}"), &office.url()).await;
        let phone = office.device(&format!("phone-{name}"), &office.url()).await;
        let (on_laptop, on_phone) = (laptop.over(&office.url(), carries), phone.over(&office.url(), carries));
        laptop.ledger.put("issues", &name, json!({ "title": "Crash", "status": "open" }), &me()).unwrap();
        assert_eq!(laptop.pending(), 1);
        let synced = on_laptop.sync(&[]).await.unwrap();
        assert_eq!((synced.sent, synced.rejected, laptop.pending()), (1, 0, 0), "{carries:?}");
        on_phone.sync(&[]).await.unwrap();

        laptop.ledger.patch("issues", &name, json!({ "title": "Crash at start", "status": "done" }), &me()).unwrap();
        phone.ledger.patch("issues", &name, json!({ "priority": 1, "status": "blocked" }), &me()).unwrap();
        phone.ledger.put("issues", &format!("{name}-2"), json!({ "title": "Other" }), &me()).unwrap();
        on_laptop.sync(&[]).await.unwrap();
        let synced = on_phone.sync(&[]).await.unwrap();
        assert_eq!((synced.sent, synced.received), (2, 1), "{carries:?}");
        on_laptop.sync(&[]).await.unwrap();
        assert_eq!(digest(&laptop.ledger), digest(&phone.ledger));
        assert_eq!(digest(&laptop.ledger), digest(&office.ledger));
        let record = laptop.ledger.get("issues", &name).unwrap().unwrap();
        assert_eq!((&record.value["title"], &record.value["priority"]), (&json!("Crash at start"), &json!(1)));
        assert_eq!((laptop.pending(), phone.pending()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_events_of_its_own_does_not_become_a_device_of_another_and_stays_as_it_is() {
    let office = Office::open().await;
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.put("issues", "k", json!({ "n": 1 }), &me()).unwrap();
    let id = ledger.info().id;
    let fault = Tokens::enrol(&ledger, &office.url(), &office.code("x", |_| {}), None, None).await.unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::LedgerMismatch);
    assert_eq!(ledger.info().id, id);
    assert_eq!(Tokens::of(&ledger).unwrap_err().kind(), ErrorKind::Authentication);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_collections_that_are_named_come_and_everything_goes() {
    let office = Office::open().await;
    office.ledger.put("wanted", "k", json!({ "n": 1 }), &me()).unwrap();
    office.ledger.put("other", "k", json!({ "n": 1 }), &me()).unwrap();
    let laptop = office.device("laptop", &office.url()).await;
    laptop.client.sync(&["wanted"]).await.unwrap();
    assert!(laptop.ledger.get("wanted", "k").unwrap().is_some());
    assert!(laptop.ledger.get("other", "k").unwrap().is_none());
    laptop.ledger.put("third", "k", json!({ "n": 1 }), &me()).unwrap();
    laptop.client.sync(&["wanted"]).await.unwrap();
    assert!(office.ledger.get("third", "k").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_is_old_or_not_taken_is_renewed_once_and_the_new_tokens_are_kept() {
    let office = Office::open().await;
    let laptop = office.device("laptop", &office.url()).await;
    let path = laptop.dir.path().join("client/main.tokens.json");
    let change = |name: &str, value: serde_json::Value| {
        let mut held: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        held[name] = value;
        std::fs::write(&path, held.to_string()).unwrap();
    };
    let refresh_token = || {
        let held: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        held["refresh_token"].as_str().unwrap().to_owned()
    };
    for (name, value) in [("expires_at_ms", json!(1)), ("access_token", json!("bad"))] {
        for carries in [Carries::Socket, Carries::Requests] {
            let before = refresh_token();
            change(name, value.clone());
            laptop.over(&office.url(), carries).sync(&[]).await.unwrap();
            assert_ne!(refresh_token(), before, "{name} over {carries:?}");
        }
    }
    let debug = format!("{:?} {:?}", Tokens::of(&laptop.ledger).unwrap(), laptop.client);
    assert!(!debug.contains(&refresh_token()), "{debug}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_one_ledger_renew_their_tokens_without_taking_them_from_each_other() {
    let office = Office::open().await;
    let laptop = office.device("laptop", &office.url()).await;
    let path = laptop.dir.path().join("client/main.tokens.json");
    let expire = || {
        let mut held: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (held["expires_at_ms"], held["access_token"]) = (json!(1), json!("bad"));
        std::fs::write(&path, held.to_string()).unwrap();
    };
    expire();
    // This one has read the first refresh token alone; the others renew theirs twice before it does.
    let slow = laptop.over(&office.url(), Carries::Either);
    for _ in 0..2 {
        expire();
        let clients: Vec<_> = (0..3).map(|_| laptop.over(&office.url(), Carries::Either)).collect();
        let syncs = clients.iter().map(|client| client.sync(&[]));
        for done in futures_util::future::join_all(syncs).await {
            done.unwrap();
        }
    }
    // So late that a token which was used is not taken once more.
    for family in std::fs::read_dir(office.dir.path().join("server/families")).unwrap() {
        let family = family.unwrap().path();
        let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&family).unwrap()).unwrap();
        kept["used"].as_array_mut().unwrap().iter_mut().for_each(|used| used[1] = json!(0));
        std::fs::write(&family, kept.to_string()).unwrap();
    }
    slow.sync(&[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_revoked_is_told_that_it_is_not_authenticated() {
    let office = Office::open().await;
    let laptop = office.device("laptop", &office.url()).await;
    laptop.client.sync(&[]).await.unwrap();
    office.server.revoke(&office.ledger, "laptop").unwrap();
    laptop.ledger.put("issues", "k", json!({ "n": 1 }), &me()).unwrap();
    for carries in [Carries::Socket, Carries::Requests] {
        let fault = laptop.over(&office.url(), carries).sync(&[]).await.unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Authentication, "{fault}");
        let fault = laptop.over(&office.url(), carries).follow(&[]).await.unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Authentication, "it does not try for ever: {fault}");
    }
    assert_eq!(laptop.pending(), 1, "the edit stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_listed_with_the_reason_and_can_be_sent_again() {
    let office = Office::open().await;
    let may_write = |invite: &mut Invite| invite.writes = Some(vec!["issues".to_owned()]);
    let laptop = office.device_with("laptop", &office.url(), may_write).await;
    laptop.ledger.put("issues", "good", json!({ "n": 1 }), &me()).unwrap();
    laptop.ledger.put("secrets", "bad", json!({ "n": 1 }), &me()).unwrap();
    laptop.ledger.patch("secrets", "bad", json!({ "n": 2 }), &me()).unwrap();
    let synced = laptop.client.sync(&[]).await.unwrap();
    assert_eq!((synced.sent, synced.rejected), (1, 2));
    let look = |client: &Client| {
        let queued = client.queue(9).unwrap();
        let each = queued.iter().map(|queued| {
            let code = queued.last_error.as_ref().unwrap().0.clone();
            (queued.operation, queued.key.clone(), queued.status, code, queued.retry_count)
        });
        each.collect::<Vec<_>>()
    };
    let refused =
        |operation, times| (operation, "bad".to_owned(), QueueStatus::Failed, "permission".to_owned(), times);
    assert_eq!(look(&laptop.client), [refused("create", 0), refused("update", 0)]);
    // Another session says nothing of it, a later client still knows it, and the record is as it was edited.
    laptop.client.sync(&[]).await.unwrap();
    let later = laptop.over(&office.url(), Carries::Requests);
    assert_eq!(look(&later), [refused("create", 0), refused("update", 0)]);
    assert_eq!(laptop.ledger.get("secrets", "bad").unwrap().unwrap().value["n"], 2);
    // Sent again, it is refused again.
    assert_eq!(later.retry(&[]).unwrap(), 2);
    assert_eq!(later.sync(&[]).await.unwrap().rejected, 2);
    assert_eq!(look(&later), [refused("create", 1), refused("update", 1)]);
    // With the right to write it, it is taken, and the list is empty.
    let code = office.code("laptop", |invite| invite.device = Some("laptop".to_owned()));
    let tokens = Tokens::enrol(&laptop.ledger, &office.url(), &code, Some("laptop"), None).await.unwrap();
    let again = client(&laptop.ledger, &office.url(), tokens, Carries::Either);
    again.retry(&[]).unwrap();
    let synced = again.sync(&[]).await.unwrap();
    assert_eq!((synced.sent, synced.rejected), (2, 0), "what was refused before and is taken now was sent now");
    assert_eq!(look(&again), []);
    assert_eq!(office.ledger.get("secrets", "bad").unwrap().unwrap().value["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_opens_the_circuit_and_trying_by_hand_goes_through() {
    let office = Office::open().await;
    let laptop = office.device("laptop", &office.url()).await;
    let proxy = Proxy::before(office.address).await;
    let (url, code) = (proxy.url(), office.code("laptop", |_| {}));
    let tokens = Tokens::enrol(&laptop.ledger, &url, &code, Some("laptop2"), None).await.unwrap();
    let through = client(&laptop.ledger, &url, tokens, Carries::Either);
    proxy.cut_after(0);
    laptop.ledger.put("issues", "k", json!({ "n": 1 }), &me()).unwrap();
    for _ in 0..5 {
        assert_eq!(through.sync(&[]).await.unwrap_err().kind(), ErrorKind::Network);
    }
    assert_eq!(through.sync(&[]).await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!(through.statistics().circuit.name(), "open");
    let queued = through.queue(9).unwrap();
    assert_eq!((queued[0].status, queued[0].retry_count), (QueueStatus::Pending, 5));
    assert_eq!(queued[0].last_error.as_ref().unwrap().0, "network");
    proxy.let_all_through();
    through.try_now();
    through.sync(&[]).await.unwrap();
    assert_eq!((through.statistics().circuit.name(), laptop.pending()), ("closed", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_sent_to_no_other_server() {
    let (office, other) = (Office::open().await, Office::open().await);
    let laptop = office.device("laptop", &office.url()).await;
    let tokens = Tokens::of(&laptop.ledger).unwrap();
    let fault = Client::of(&laptop.ledger, &other.url(), tokens, ClientOptions::default()).unwrap_err();
    assert_eq!(fault.kind(), ErrorKind::Authentication);
    let fresh = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
    assert_eq!(Tokens::of(&fresh).unwrap_err().kind(), ErrorKind::Authentication);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_gets_each_edit_and_hears_of_conflicts_until_cancelled() {
    let office = Office::open().await;
    for carries in [Carries::Socket, Carries::Requests] {
        let name = format!("{carries:?}").to_lowercase();
        let laptop = office.device(&format!("laptop-{name}"), &office.url()).await;
        let phone = office.device(&format!("phone-{name}"), &office.url()).await;
        laptop.ledger.put("issues", &name, json!({ "n": 0 }), &me()).unwrap();
        laptop.client.sync(&[]).await.unwrap();
        phone.client.sync(&[]).await.unwrap();
        laptop.ledger.patch("issues", &name, json!({ "n": 1 }), &me()).unwrap();
        phone.ledger.patch("issues", &name, json!({ "n": 2 }), &me()).unwrap();
        let follower = phone.over(&office.url(), carries);
        let mut happened = follower.watch();
        let following = tokio::spawn({
            let follower = follower.clone();
            async move { follower.follow(&[]).await }
        });
        laptop.client.sync(&[]).await.unwrap();
        let conflict = heard(&mut happened, |what| match what {
            Happened::ConflictDetected { conflict, key, .. } if *key == name => Some(*conflict),
            _ => None,
        });
        let conflict = conflict.await;
        assert!(
            phone.ledger.conflicts(None, Which::Open, None).unwrap().iter().any(|one| one.conflict.id == conflict)
        );
        assert_eq!(follower.sync(&[]).await.unwrap_err().kind(), ErrorKind::Locked);
        // What is edited while connected goes out at once.
        phone.ledger.put("issues", &format!("{name}-live"), json!({ "n": 3 }), &me()).unwrap();
        until(|| office.ledger.get("issues", &format!("{name}-live")).unwrap().is_some()).await;
        until(|| phone.pending() == 0).await;
        follower.cancel();
        following.await.unwrap().unwrap();
        assert_eq!(follower.statistics().connected, None);
    }
}

async fn heard<T>(
    happened: &mut tokio::sync::broadcast::Receiver<Happened>,
    find: impl Fn(&Happened) -> Option<T>,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = find(&happened.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it happens")
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

/// Stands before a server and cuts each connection after so many bytes, both ways together.
struct Proxy {
    address: SocketAddr,
    most: Arc<AtomicU64>,
}

impl Proxy {
    async fn before(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, most) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(u64::MAX)));
        let left = most.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let left = left.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    let far = TcpStream::connect(server).await.unwrap();
                    let left = Arc::new(AtomicU64::new(left));
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pass(near_in, far_out, &left) => {}
                        () = pass(far_in, near_out, &left) => {}
                    }
                });
            }
        });
        Self { address, most }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cut_after(&self, bytes: u64) {
        self.most.store(bytes, Ordering::SeqCst);
    }

    fn let_all_through(&self) {
        self.cut_after(u64::MAX);
    }
}

/// Passes bytes on until there are none left to pass: what is cut ends in the middle of whatever it is.
async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, left: &AtomicU64) {
    let mut buffer = vec![0; 4_096];
    while let Ok(count) = from.read(&mut buffer).await {
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(count as u64)));
        let passed = count.min(usize::try_from(before.unwrap()).unwrap_or(usize::MAX));
        if count == 0 || to.write_all(&buffer[..passed]).await.is_err() || passed < count {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_early_a_line_is_cut_nothing_is_lost_or_doubled_and_the_outbox_empties() {
    let office = Office::open().await;
    let proxy = Proxy::before(office.address).await;
    for carries in [Carries::Socket, Carries::Requests] {
        let laptop = office.device(&format!("laptop-{carries:?}"), &proxy.url()).await;
        let through = laptop.over(&proxy.url(), carries);
        let mut edits = 0;
        // Where heads of requests and answers end, and hello, wants, batches and acknowledgements, in steps that hit all.
        for bytes in (0..2_600).step_by(97) {
            office.ledger.put("there", &format!("{bytes}"), json!({ "n": bytes }), &me()).unwrap();
            laptop.ledger.put("here", &format!("{carries:?}{bytes}"), json!({ "n": bytes }), &me()).unwrap();
            edits += 1;
            proxy.cut_after(bytes);
            through.try_now();
            let _ = through.sync(&[]).await;
        }
        proxy.let_all_through();
        through.try_now();
        through.sync(&[]).await.unwrap();
        assert_eq!(laptop.pending(), 0);
        assert_eq!(digest(&laptop.ledger), digest(&office.ledger), "{carries:?}");
        let here = laptop.ledger.collections().unwrap().into_iter().find(|info| info.name == "here").unwrap();
        assert!(here.events >= edits && here.events == here.records, "each edit once: {here:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_looks_through_everything_again_and_keeps_what_waits() {
    let office = Office::open().await;
    for n in 0..300 {
        office.ledger.put("issues", &n.to_string(), json!({ "n": n }), &me()).unwrap();
    }
    let laptop = office.device("laptop", &office.url()).await;
    let client = laptop.over(&office.url(), Carries::Socket);
    client.sync(&[]).await.unwrap();
    let once = client.sync(&[]).await.unwrap();
    laptop.ledger.put("issues", "mine", json!({}), &me()).unwrap();
    let again = client.reset(&[]).await.unwrap();
    // All ids are told again, and no body.
    assert!(again.bytes.1 > once.bytes.1 + 300 * 16, "{:?} after {:?}", again.bytes, once.bytes);
    assert_eq!((again.sent, again.received, laptop.pending()), (1, 0, 0));
    assert_eq!(digest(&laptop.ledger), digest(&office.ledger));
}
