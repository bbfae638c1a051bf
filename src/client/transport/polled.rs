//! A session over requests: `push` brings messages, `pull` waits for them.
//!
//! One request is made after another: answers that overtake each other would put the messages out of order.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response};
use tokio::sync::mpsc;

use super::{Line, Meter, broke_off, with_token};
use crate::client::answer::Fault;
use crate::client::http;
use crate::client::tokens::Tokens;
use crate::ledger::Carrier;
use crate::replication::{MOST_MESSAGE_BYTES, join, split};
use crate::{Error, ErrorKind, Result};

/// The header that names the session.
const SESSION: &str = "sync-session";
/// The header of the last answer.
const ENDED: &str = "sync-ended";
/// For how many seconds the server may wait for words: what is to be said meanwhile waits as long.
const WAIT_SECONDS: u64 = 1;
/// About how many bytes a request brings: one message may be as long as this alone.
const REQUEST_BYTES: usize = MOST_MESSAGE_BYTES;
/// An answer has fewer messages than these: the server has as many under way as a session may.
const MOST_MESSAGES: usize = 1 << 16;
/// How long what came may take to be answered, before the server is asked for more.
const SOON: Duration = Duration::from_millis(50);
/// How many bytes an answer may have.
const ANSWER_BYTES: usize = 2 * MOST_MESSAGE_BYTES + (1 << 10);

/// A session that is asked about.
struct Polling {
    tokens: Tokens,
    session: Option<HeaderValue>,
    meter: Meter,
}

/// What is to be said.
struct Words {
    to_say: mpsc::Receiver<Vec<u8>>,
    /// What did not fit the request before.
    held: Option<Vec<u8>>,
}

/// What an answer brought.
struct Answered {
    messages: Vec<Vec<u8>>,
    has_ended: bool,
}

/// Opens a line. Whether anybody is there shows with the first words.
pub(super) async fn open(tokens: &Tokens, meter: &Meter) -> Result<Line, Fault> {
    let mut polling = Polling { tokens: tokens.clone(), session: None, meter: meter.clone() };
    let first = polling.push(&[]).await?;
    Ok(Line::new("requests", meter, move |ends| tokio::spawn(polling.carry(ends, first))))
}

impl Polling {
    async fn carry(mut self, ends: Carrier, first: Answered) {
        let Carrier { tell, to_say } = ends;
        if let Err(fault) = self.talk(&tell, Words { to_say, held: None }, first).await {
            let _ = tell.send(Err(fault)).await;
        }
    }

    /// Talks until nobody wants to hear or to say any more.
    async fn talk(
        &mut self,
        tell: &mpsc::Sender<Result<Vec<u8>>>,
        mut to_say: Words,
        mut answered: Answered,
    ) -> Result<()> {
        loop {
            let has_come = !answered.messages.is_empty();
            for message in answered.messages {
                // A session that has ended hears no more; its last words are still brought.
                let _ = tell.send(Ok(message)).await;
            }
            if answered.has_ended {
                return Err(broke_off("the server has ended the session"));
            }
            if has_come {
                to_say.wait().await;
            }
            let (words, is_last) = to_say.take();
            let asked = match words.is_empty() {
                true if is_last => return Ok(()),
                true => self.pull().await,
                false => self.push(&words).await,
            };
            answered = asked.map_err(in_session)?;
            if is_last {
                // The server notes what became of the session: who begins another one before that is told everything again.
                let _ = self.pull().await;
                return Ok(());
            }
        }
    }

    async fn push(&mut self, words: &[Vec<u8>]) -> Result<Answered, Fault> {
        let mut body = Vec::new();
        words.iter().for_each(|word| join(&mut body, word));
        self.meter.sent(body.len()).await;
        self.ask("v1/sync/push", body, http::REQUEST).await
    }

    async fn pull(&mut self) -> Result<Answered, Fault> {
        let patience = http::REQUEST + Duration::from_secs(WAIT_SECONDS);
        self.ask(&format!("v1/sync/pull?wait={WAIT_SECONDS}"), Vec::new(), patience).await
    }

    async fn ask(&mut self, path: &str, body: Vec<u8>, patience: Duration) -> Result<Answered, Fault> {
        let tokens = self.tokens.clone();
        let (address, now_ms) = (tokens.address(), tokens.now_ms());
        let request = |token: String| {
            let post = tokens.http().post(address.at(path)).timeout(patience).bearer_auth(token);
            let request = named(post, self.session.as_ref()).body(body.clone());
            http::send(address, request, now_ms)
        };
        let response = with_token(&tokens, request).await?;
        self.session = response.headers().get(SESSION).cloned().or(self.session.take());
        let has_ended = response.headers().contains_key(ENDED);
        let messages = self.messages_of(response).await?;
        Ok(Answered { messages, has_ended })
    }

    async fn messages_of(&self, response: Response) -> Result<Vec<Vec<u8>>, Fault> {
        let address = self.tokens.address();
        if !is_of_messages(&response) {
            let message = format!("the server at {address} answered something else than messages");
            return Err(Error::new(ErrorKind::Server, message)
                .with_hint("is this the address of a syncledger server?")
                .into());
        }
        let body = http::body(address, response, ANSWER_BYTES).await?;
        self.meter.received(body.len()).await;
        let whole = split(&body, MOST_MESSAGES).filter(|messages| messages.len() < MOST_MESSAGES);
        let messages = whole.ok_or_else(|| broke_off("an answer is cut, or no list of messages"))?;
        Ok(messages.into_iter().map(<[u8]>::to_vec).collect())
    }
}

impl Words {
    /// Waits a moment for the first word: what came is answered soon, and the server may wait for just that.
    async fn wait(&mut self) {
        if self.held.is_none()
            && let Ok(word) = tokio::time::timeout(SOON, self.to_say.recv()).await
        {
            self.held = word;
        }
    }

    /// What waits to be said and fits a request, and whether that is all there will ever be.
    fn take(&mut self) -> (Vec<Vec<u8>>, bool) {
        let (mut words, mut bytes) = (Vec::new(), 0);
        loop {
            let word = match self.held.take().map_or_else(|| self.to_say.try_recv(), Ok) {
                Ok(word) => word,
                Err(fault) => return (words, fault == mpsc::error::TryRecvError::Disconnected),
            };
            bytes += word.len() + 4;
            if bytes > REQUEST_BYTES && !words.is_empty() {
                self.held = Some(word);
                return (words, false);
            }
            words.push(word);
        }
    }
}

fn named(request: RequestBuilder, session: Option<&HeaderValue>) -> RequestBuilder {
    let request = request.header(CONTENT_TYPE, "application/vnd.syncledger.messages");
    match session {
        Some(name) => request.header(SESSION, name),
        None => request,
    }
}

fn is_of_messages(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/vnd.syncledger.messages"))
}

/// A session that the server does not know any more is over: another can begin.
fn in_session(fault: Fault) -> Error {
    match fault.error.kind() {
        ErrorKind::NotFound => broke_off(fault.error.message()),
        _ => fault.error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_said_together_and_the_end_is_told_apart_from_a_pause() {
        let (say, to_say) = mpsc::channel(4);
        let mut words = Words { to_say, held: None };
        assert_eq!(words.take(), (vec![], false));
        say.try_send(vec![1]).unwrap();
        say.try_send(vec![2]).unwrap();
        assert_eq!(words.take(), (vec![vec![1], vec![2]], false));
        say.try_send(vec![3]).unwrap();
        drop(say);
        assert_eq!(words.take(), (vec![vec![3]], true));
    }

    #[test]
    fn no_request_is_longer_than_one_message_may_be() {
        let (say, to_say) = mpsc::channel(4);
        let mut words = Words { to_say, held: None };
        for bytes in [REQUEST_BYTES - 10, 100, REQUEST_BYTES] {
            say.try_send(vec![0; bytes]).unwrap();
        }
        drop(say);
        let lengths = |words: Vec<Vec<u8>>| words.iter().map(Vec::len).collect::<Vec<_>>();
        let taken: Vec<_> = (0..3).map(|_| words.take()).map(|(taken, last)| (lengths(taken), last)).collect();
        let expected = [REQUEST_BYTES - 10, 100, REQUEST_BYTES].map(|bytes| vec![bytes]);
        assert_eq!(taken, expected.into_iter().zip([false, false, true]).collect::<Vec<_>>());
    }
}
