//! A sync server in a process of its own, and devices of this one that talk to it over the loopback.

mod catch_up;
mod classic;
mod editing;
mod fresh;
mod idle;
mod line;
mod live;
pub mod server;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use syncledger::Ledger;
use syncledger::client::{Carries, Client, ClientOptions, Tokens};
use tokio::runtime::Runtime;

use crate::Result;
use crate::report::Report;

pub use catch_up::catch_up;
pub use classic::classic;
pub use editing::editing;
pub use fresh::fresh;
pub use idle::idle;
pub use live::live;

/// A server's process, which ends with this.
pub struct Served {
    process: Child,
    /// Its address, as `http://127.0.0.1:PORT`.
    pub url: String,
    /// Codes for devices, of which each is good once.
    codes: Vec<String>,
}

impl Served {
    /// Serves the store in a directory, with codes for so many devices. `apart`: each has a collection of its own.
    pub fn start(dir: &Path, devices: usize, apart: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(dir).args(["--devices", &devices.to_string()]);
        if apart {
            command.arg("--apart");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("the server has no output")?).read_line(&mut line)?;
        let server::Ready { url, codes } = serde_json::from_str(&line)?;
        Ok(Self { process, url, codes })
    }

    fn code(&mut self) -> Result<String> {
        Ok(self.codes.pop().ok_or("no code is left")?)
    }

    /// Makes a device of a ledger. A server lets only so many enrol from one address in a second.
    pub async fn enrol(&mut self, ledger: &Ledger, name: &str) -> Result<Client> {
        let url = self.url.clone();
        self.enrol_at(ledger, name, &url).await
    }

    /// As [`Served::enrol`], at an address that leads to the server.
    pub async fn enrol_at(&mut self, ledger: &Ledger, name: &str, url: &str) -> Result<Client> {
        let code = self.code()?;
        let tokens = loop {
            match Tokens::enrol(ledger, url, &code, Some(name), Some(name)).await {
                Err(fault) if fault.code() == "rate_limit" => tokio::time::sleep(Duration::from_millis(200)).await,
                other => break other?,
            }
        };
        let options = ClientOptions { carries: Carries::Socket, ..ClientOptions::default() };
        Ok(Client::of(ledger, url, tokens, options)?)
    }

    /// Bytes that the server's process holds in memory.
    pub fn resident(&self) -> Option<u64> {
        crate::memory::resident_of(self.process.id())
    }

    /// Bytes that the server's process has read from files, from caches of the system or not.
    pub fn read_bytes(&self) -> Option<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.process.id())).ok()?;
        io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
    }

    /// What anybody may ask of it by a request without a connection kept.
    pub fn post(&self, path: &str, token: Option<&str>, body: &serde_json::Value) -> Result<serde_json::Value> {
        line::post(&self.url, "127.0.0.1", path, token, body)
    }

    /// Enrols a device by hand, from an address of the loopback, and gives its access token.
    pub fn token(&mut self, from: &str, device: &str) -> Result<String> {
        let asked = json!({ "code": self.code()?, "device_id": device, "name": device });
        let answer = line::post(&self.url, from, "/v1/devices/enrol", None, &asked)?;
        Ok(answer["access_token"].as_str().ok_or_else(|| format!("expected tokens, got {answer}"))?.to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Its input ends, and it with that; what does not end is ended.
        drop(self.process.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(15) {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The middle and the 95th and 99th of a hundred, as figures in milliseconds.
fn tell_waits(report: &mut Report, name: &str, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    for percent in [50, 95, 99] {
        let at = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
        let wait = waits.get(at).copied().unwrap_or_default();
        report.figure(format!("{name}, p{percent}"), "ms", wait.as_secs_f64() * 1e3);
    }
}
