//! As much of HTTP as a campaign needs: a request a connection.
#![allow(clippy::disallowed_methods, reason = "a campaign is about the time that passes")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::Result;

/// For so long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<Json> {
        Ok(serde_json::from_str(&self.body)?)
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A client of the API: with the tokens of a device, or without.
#[derive(Clone, Default)]
pub struct Api {
    tokens: Arc<Mutex<Option<Tokens>>>,
}

#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Result<Self> {
        let json = answer.json()?;
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
        match (text("access_token"), text("refresh_token")) {
            (Some(access), Some(refresh)) => Ok(Self { access, refresh }),
            _ => Err(format!("no tokens were given: {}", answer.status).into()),
        }
    }
}

impl Api {
    /// Enrols as a device, with a code.
    pub fn enrol(address: SocketAddr, code: &str, id: &str) -> Result<Self> {
        let asked = json!({ "code": code, "device_id": id, "name": id }).to_string();
        let answer = Self::default().ask(address, "POST /v1/devices/enrol", Some(&asked))?;
        Ok(Self { tokens: Arc::new(Mutex::new(Some(Tokens::of(&answer)?))) })
    }

    /// Asks, and reads the whole answer. Where the token is out of date a new one is fetched.
    pub fn ask(&self, address: SocketAddr, what: &str, body: Option<&str>) -> Result<Answer> {
        let ask = || read(BufReader::new(self.send(address, what, body)?));
        let answer = ask()?;
        let tokens = self.tokens().clone();
        match tokens {
            Some(Tokens { refresh, .. }) if answer.status == 401 => {
                let asked = json!({ "refresh_token": refresh }).to_string();
                let refreshed = Self::default().ask(address, "POST /v1/devices/refresh", Some(&asked))?;
                if refreshed.status == 401 {
                    return Ok(answer);
                }
                *self.tokens() = Some(Tokens::of(&refreshed)?);
                ask()
            }
            _ => Ok(answer),
        }
    }

    fn tokens(&self) -> MutexGuard<'_, Option<Tokens>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what a stream of events says for a while: how many lines.
    pub fn listen(&self, address: SocketAddr, what: &str, life: Duration) -> Result<u64> {
        let stream = self.send(address, what, None)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (began, mut lines, mut chunk) = (Instant::now(), 0, [0; 4096]);
        let mut stream = stream;
        while began.elapsed() < life {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => lines += chunk.iter().take(read).filter(|byte| **byte == b'\n').count() as u64,
                Err(_) => {}
            }
        }
        Ok(lines)
    }

    fn send(&self, address: SocketAddr, what: &str, body: Option<&str>) -> Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let token = self.tokens().as_ref().map(|tokens| format!("authorization: Bearer {}\r\n", tokens.access));
        let kind = if what.contains("/batch") { "application/x-ndjson" } else { "application/json" };
        let length = body.map(|body| format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len()));
        let head = format!("{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        let request = format!(
            "{head}{}{}\r\n{}",
            token.unwrap_or_default(),
            length.unwrap_or_default(),
            body.unwrap_or_default()
        );
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }
}

fn read(mut from: BufReader<TcpStream>) -> Result<Answer> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no answer: {line:?}"))?;
    let (mut etag, mut length, mut is_chunked) = (None, None, false);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "etag" => etag = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse::<u64>().ok(),
            "transfer-encoding" => is_chunked = value.contains("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    match (is_chunked, length) {
        (true, _) => read_chunks(&mut from, &mut body)?,
        (false, Some(length)) => drop(from.take(length).read_to_end(&mut body)?),
        (false, None) => drop(from.read_to_end(&mut body)?),
    }
    if length.is_some_and(|length| length != body.len() as u64) {
        return Err("the answer ends early".into());
    }
    Ok(Answer { status, etag, body: String::from_utf8(body)? })
}

fn read_chunks(from: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| format!("not a chunk: {line:?}"))?;
        from.take(length).read_to_end(body)?;
        from.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(());
        }
    }
}
