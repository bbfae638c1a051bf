//! The program as server and as devices: each a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value as Json;

use super::cli::{Bench, Run};

/// A server of a bench's store, until dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn of(bench: &Bench, listen: &str) -> Self {
        let mut child =
            bench.command(["serve", "--listen", listen, "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let (line, _) = first_line(&mut child);
        Self { child, url: line["listening"].as_str().unwrap().to_owned() }
    }

    /// The address without the scheme.
    fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }
}

impl Drop for Serving {
    /// Ends it as a power cut does.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of what a process prints, and the rest: who closes that ends the process with its next line.
fn first_line(child: &mut Child) -> (Json, BufReader<ChildStdout>) {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    (serde_json::from_str(&line).expect(&line), stdout)
}

fn enrol(office: &Bench, device: &Bench, url: &str, id: &str) {
    let code = office.json(["device", "create", "--name", id, "--role", "writer", "--source", "app"]);
    let enrolled = device.json(["enrol", url, code["code"].as_str().unwrap(), "--id", id, "--name", id]);
    assert_eq!(enrolled["device_id"], id);
}

fn digest(bench: &Bench) -> Json {
    bench.json(["digest"])["collections"]["issues"].clone()
}

#[test]
fn two_stores_converge_through_a_server_that_is_killed_in_between() {
    let (office, laptop, phone) = (Bench::new(), Bench::empty(), Bench::empty());
    let serving = Serving::of(&office, "127.0.0.1:0");
    let (url, address) = (serving.url.clone(), serving.address());
    enrol(&office, &laptop, &url, "laptop");
    enrol(&office, &phone, &url, "phone");
    laptop.ok(["put", "issues", "EE-1", r#"{"title":"Crash","status":"open"}"#]);
    assert_eq!(laptop.lines(["queue"])[0]["status"], "pending");
    assert_eq!(laptop.json(["sync"])["sent"], 1);
    assert_eq!(laptop.lines(["queue"]), Vec::<Json>::new());
    phone.ok(["pull", &url]);

    // Offline: the server is gone, and edits go on.
    drop(serving);
    laptop.ok(["patch", "issues", "EE-1", "--set", "/title=\"Crash at start\""]);
    phone.ok(["patch", "issues", "EE-1", "--set", "/status=\"done\""]);
    phone.refused(["sync"], 13, "network");
    let queued = phone.lines(["queue"]);
    assert_eq!((&queued[0]["last_error_code"], &queued[0]["retry_count"]), (&"network".into(), &1.into()));

    let serving = Serving::of(&office, &address);
    laptop.ok(["push", &url]);
    assert_eq!(phone.json(["sync"])["received"], 1);
    assert_eq!(laptop.json(["sync"])["received"], 1);
    assert_eq!(digest(&laptop), digest(&phone));
    assert_eq!(digest(&laptop), digest(&office));
    let record = laptop.json(["get", "issues", "EE-1"]);
    assert_eq!((&record["value"]["title"], &record["value"]["status"]), (&"Crash at start".into(), &"done".into()));
    let peers = laptop.lines(["peers"]);
    assert_eq!((&peers[0]["device_id"], &peers[0]["failures"]), (&"laptop".into(), &0.into()));
    assert_eq!(laptop.lines(["queue"]), Vec::<Json>::new(), "what came from the server does not wait for it");
    drop(serving);
}

#[test]
fn a_revoked_device_ends_with_12_and_a_refused_edit_with_3_and_the_reason_is_in_the_queue() {
    let (office, laptop) = (Bench::new(), Bench::empty());
    let serving = Serving::of(&office, "127.0.0.1:0");
    let code = office.json(["device", "create", "--name", "laptop", "--source", "app", "--writes", "issues"]);
    laptop.ok(["enrol", &serving.url, code["code"].as_str().unwrap(), "--id", "laptop"]);
    laptop.ok(["put", "secrets", "k", r#"{"n":1}"#]);
    let run = Run::of(&laptop.command(["sync", "--json"]).output().unwrap());
    assert_eq!(
        (run.code, &run.lines()[0]["rejected"], &run.error()["code"]),
        (3, &1.into(), &"partly_failed".into())
    );
    let queued = &laptop.lines(["queue"])[0];
    assert_eq!((&queued["status"], &queued["last_error_code"]), (&"failed".into(), &"permission".into()));
    assert!(queued["last_error"].as_str().unwrap().contains("secrets"), "{queued}");
    office.ok(["device", "revoke", "laptop"]);
    laptop.refused(["sync"], 12, "authentication");
    laptop.refused(["enrol", &serving.url, "no-such-code"], 12, "authentication");
}

#[test]
fn refused_edits_are_taken_back_by_their_ids_or_all_at_once_and_the_next_sync_is_whole() {
    let (office, laptop) = (Bench::new(), Bench::empty());
    let serving = Serving::of(&office, "127.0.0.1:0");
    let code = office.json(["device", "create", "--name", "laptop", "--source", "app", "--writes", "issues"]);
    laptop.ok(["enrol", &serving.url, code["code"].as_str().unwrap(), "--id", "laptop"]);
    for key in ["one", "two", "three"] {
        laptop.ok(["put", "secrets", key, r#"{"n":1}"#]);
    }
    laptop.ok(["patch", "secrets", "one", "--set", "/n=2"]);
    laptop.ok(["put", "issues", "EE-1", r#"{"n":1}"#]);
    assert_eq!(Run::of(&laptop.command(["sync", "--json"]).output().unwrap()).code, 3);
    let queued = laptop.lines(["queue"]);
    let of = |rows: &[Json]| rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of(&queued), ["one", "two", "three", "one"]);
    laptop.refused(["queue", "--take-back", "zz"], 1, "not_found");
    let two = queued[1]["id"].as_str().unwrap();
    assert_eq!(of(&laptop.lines(["queue", "--take-back", two])), ["two"]);
    let words = laptop.ok(["queue", "--take-back", "all"]);
    assert!(words.contains("secrets/one") && words.contains("secrets/three"), "{words}");
    assert_eq!(laptop.lines(["queue"]), Vec::<Json>::new());
    assert_eq!(laptop.lines(["queue", "--take-back", "all"]), Vec::<Json>::new());
    laptop.refused(["get", "secrets", "one"], 1, "not_found");
    let synced = laptop.json(["sync"]);
    assert_eq!((&synced["sent"], &synced["rejected"]), (&0.into(), &0.into()));
    assert_eq!(digest(&laptop), digest(&office));
    laptop.ok(["put", "issues", "EE-2", r#"{"n":2}"#]);
    assert_eq!(laptop.json(["sync"])["sent"], 1);
    assert_eq!(digest(&laptop), digest(&office));
}

#[test]
fn commands_stamp_by_what_the_client_has_learned_of_a_wrong_clock() {
    let (office, laptop) = (Bench::new(), Bench::empty());
    let serving = Serving::of(&office, "127.0.0.1:0");
    enrol(&office, &laptop, &serving.url, "laptop");
    laptop.json(["sync"]);
    let notes = laptop.path("ledger/client/main.state.json");
    let mut known: Json = serde_json::from_slice(&std::fs::read(&notes).unwrap()).unwrap();
    assert_eq!(known["clock_offset_ms"], 0);
    // The clock is ahead by two days.
    known["clock_offset_ms"] = (-2 * 86_400_000).into();
    std::fs::write(&notes, known.to_string()).unwrap();
    laptop.ok(["put", "issues", "EE-1", r#"{"n":1}"#]);
    // What cannot be read keeps nobody from editing.
    std::fs::write(&notes, "{").unwrap();
    laptop.ok(["put", "issues", "EE-2", r#"{"n":2}"#]);
    let days: Vec<String> =
        laptop.lines(["log"]).iter().map(|event| event["at"].as_str().unwrap()[..10].to_owned()).collect();
    assert!(days[0] < days[1], "{days:?}");
}

#[test]
fn a_store_that_is_no_device_is_told_so() {
    let bench = Bench::new();
    bench.refused(["sync"], 12, "authentication");
    bench.refused(["queue"], 12, "authentication");
    bench.refused(["pull", "http://127.0.0.1:9"], 12, "authentication");
    assert_eq!(bench.lines(["peers"]), Vec::<Json>::new());
    bench.refused(["enrol", "http://127.0.0.1:9", "code"], 13, "network");
    bench.refused(["enrol", "ftp://127.0.0.1", "code"], 1, "validation");
}

#[test]
fn whoever_follows_runs_the_commands_of_others_and_brings_their_edits_over_at_once() {
    let (office, laptop) = (Bench::new(), Bench::empty());
    let serving = Serving::of(&office, "127.0.0.1:0");
    enrol(&office, &laptop, &serving.url, "laptop");
    let mut following = laptop.command(["sync", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let (line, _stdout) = first_line(&mut following);
    assert_eq!(line["event"], "started");
    laptop.ok(["put", "issues", "EE-1", r#"{"n":1}"#]);
    let mut looks = 0;
    while office.run(["get", "issues", "EE-1"]).code != 0 {
        looks += 1;
        assert!(looks < 400, "it does not come over");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(Command::new("kill").args(["-INT", &following.id().to_string()]).status().unwrap().success());
    assert_eq!(following.wait().unwrap().code(), Some(130));
    assert_eq!(laptop.json(["sync"])["sent"], 0);
}

/// A certificate of the loopback, its key, and the authority that it comes from, as PEM files.
fn certify(dir: &Path) -> [PathBuf; 3] {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem();
    let files = [("cert.pem", certificate), ("key.pem", key.serialize_pem()), ("root.pem", root)];
    files.map(|(name, pem)| {
        let path = dir.join(name);
        std::fs::write(&path, pem).unwrap();
        path
    })
}

#[test]
fn a_device_talks_to_a_server_with_tls_if_it_trusts_its_certificate() {
    let (office, laptop, dir) = (Bench::new(), Bench::empty(), tempfile::tempdir().unwrap());
    let [certificate, key, root] = certify(dir.path());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--json", "--tls-cert", certificate, "--tls-key", key];
    let mut child = office.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let (line, _stdout) = first_line(&mut child);
    let serving = Serving { child, url: line["listening"].as_str().unwrap().to_owned() };
    assert!(serving.url.starts_with("https://"));

    let code = office.json(["device", "create", "--name", "laptop"])["code"].as_str().unwrap().to_owned();
    assert_eq!(laptop.run(["enrol", &serving.url, &code]).code, 13, "nobody vouches for the certificate");
    let trusting = |arguments: &[&str]| {
        let mut command = laptop.command(arguments.iter().copied());
        assert!(command.env("SSL_CERT_FILE", &root).output().unwrap().status.success(), "{arguments:?}");
    };
    trusting(&["enrol", &serving.url, &code]);
    laptop.ok(["put", "notes", "1", r#"{"n":1}"#]);
    for over in ["socket", "requests"] {
        trusting(&["sync", "--over", over]);
    }
    office.ok(["get", "notes", "1"]);
}

#[test]
fn what_is_no_certificate_and_key_is_told_apart_from_what_is_not_there() {
    let (office, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let [certificate, key, _] = certify(dir.path());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    for (certificate, key, code) in
        [(key, certificate, "validation"), ("nowhere", key, "not_found"), (certificate, "nowhere", "not_found")]
    {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--json", "--tls-cert", certificate, "--tls-key", key];
        office.refused(arguments, 1, code);
    }
}
