//! Receivers on the loopback of what a server sends of itself: an address, and an e-mail server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Came {
    pub headers: HeaderMap,
    pub body: String,
}

impl Came {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// An address that keeps what it is sent, and answers with the statuses that it was told to, then with 200.
#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    came: Vec<Came>,
    answers: VecDeque<(u16, Option<&'static str>)>,
    delay: Duration,
}

impl Receiver {
    /// The receiver, and its address.
    pub async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, format!("http://{address}/hook"))
    }

    /// Answers the next requests with these statuses, and `Retry-After`.
    pub fn answer(&self, answers: &[(u16, Option<&'static str>)]) {
        self.0.lock().unwrap().answers.extend(answers);
    }

    /// Answers so late from now on.
    pub fn delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub fn came(&self) -> Vec<Came> {
        self.0.lock().unwrap().came.clone()
    }

    /// What came, once it is so many requests.
    pub async fn await_count(&self, count: usize) -> Vec<Came> {
        self.await_that(|came| came.len() >= count).await
    }

    /// What came, once it is as wanted.
    pub async fn await_that(&self, is_wanted: impl Fn(&[Came]) -> bool) -> Vec<Came> {
        for _ in 0..1_000 {
            let came = self.came();
            if is_wanted(&came) {
                return came;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not as wanted: {:?}", self.came());
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let (answer, delay) = {
        let mut kept = receiver.0.lock().unwrap();
        kept.came.push(Came { headers, body });
        (kept.answers.pop_front(), kept.delay)
    };
    tokio::time::sleep(delay).await;
    match answer {
        None => StatusCode::OK.into_response(),
        Some((status, after)) => {
            let mut answer = StatusCode::from_u16(status).unwrap().into_response();
            if status / 100 == 3 {
                answer.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            }
            after
                .into_iter()
                .for_each(|after| drop(answer.headers_mut().insert("retry-after", after.parse().unwrap())));
            answer
        }
    }
}

/// An e-mail server that takes everything, and keeps it.
pub async fn mail_server() -> (Arc<Mutex<Vec<String>>>, u16) {
    let (mails, listener) = (Arc::new(Mutex::new(Vec::new())), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let kept = mails.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take_mail(stream, kept.clone()));
        }
    });
    (mails, port)
}

async fn take_mail(stream: tokio::net::TcpStream, kept: Arc<Mutex<Vec<String>>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 here\r\n").await.unwrap();
    let mut mail = None::<String>;
    while let Ok(Some(line)) = lines.next_line().await {
        let answer: &[u8] = match &mut mail {
            Some(text) if line == "." => {
                kept.lock().unwrap().push(std::mem::take(text));
                mail = None;
                b"250 taken\r\n"
            }
            Some(text) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            None if line.starts_with("DATA") => {
                mail = Some(String::new());
                b"354 go on\r\n"
            }
            None if line.starts_with("QUIT") => b"221 bye\r\n",
            None => b"250 well\r\n",
        };
        if write.write_all(answer).await.is_err() {
            return;
        }
    }
}
