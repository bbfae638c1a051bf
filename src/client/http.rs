//! Requests to a server, and what comes back.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};

use super::address::Address;
use super::answer::{Answer, Fault};
use crate::{Error, ErrorKind, Result};

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// How long a request may take that waits for nothing.
pub(super) const REQUEST: Duration = Duration::from_secs(30);
/// How many bytes an answer that tells of a fault may have.
const MOST_FAULT_BYTES: usize = 64 << 10;

/// What makes requests. Redirections are not followed: tokens are for one address.
pub(super) fn client() -> Result<Client> {
    let built = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(Policy::none())
        .user_agent(concat!("syncledger/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|fault| Error::new(ErrorKind::Storage, format!("no requests can be made: {}", words(fault))))
}

/// Makes a request, and returns the answer where it is what was hoped for.
pub(super) async fn send(address: &Address, request: RequestBuilder, now_ms: i64) -> Result<Response, Fault> {
    let mut response = request.send().await.map_err(|fault| failed(address, fault))?;
    let status = response.status().as_u16();
    if response.status().is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = read(&mut response, MOST_FAULT_BYTES).await.unwrap_or_default();
    Err(Answer { status, retry_after: retry_after.as_deref(), body: &body }.fault(now_ms))
}

/// The body of an answer, of at most so many bytes.
pub(super) async fn body(address: &Address, mut response: Response, most: usize) -> Result<Vec<u8>, Fault> {
    let read = read(&mut response, most).await.map_err(|fault| failed(address, fault))?;
    if read.len() > most {
        let message = format!("the server at {address} answered more than {most} bytes");
        return Err(Error::new(ErrorKind::TooLarge, message).into());
    }
    Ok(read)
}

/// The body up to the chunk with which it is longer than `most`.
async fn read(response: &mut Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            break;
        }
    }
    Ok(body)
}

fn failed(address: &Address, fault: reqwest::Error) -> Fault {
    match fault.is_timeout() {
        true => Fault::too_late(&address.to_string()),
        false => Fault::unreachable(&address.to_string(), words(fault)),
    }
}

/// What went wrong, down to the cause: the outermost words alone say little.
fn words(fault: reqwest::Error) -> String {
    let fault = fault.without_url();
    let causes = std::iter::successors(std::error::Error::source(&fault), |cause| cause.source());
    causes.last().map_or_else(|| fault.to_string(), ToString::to_string)
}
