//! Carrying a session over channels of an asynchronous program: a task, whatever the bytes go over.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::stream::{Decoder, broke_off};
use super::{Peer, steps};
use crate::ledger::recent::Recent;
use crate::ledger::{Ledger, Transfer};
use crate::replication::Message;
use crate::{Error, ErrorKind, Result};

/// How long one wait for growth takes: only to notice that nobody follows any more.
const WAIT: Duration = Duration::from_millis(500);
/// How long nobody is told of growth after everybody was, for each that was told, and at most: where many follow, to look at what is not
/// for them would else cost more than everything else.
const REST: Duration = Duration::from_micros(50);
const LONGEST_REST: Duration = Duration::from_millis(20);
/// How many messages may wait to be carried. The window keeps a side that reads what it is sent far below that.
const UNREAD: usize = 64;
/// How many messages are read ahead: the others wait with who sends them.
const AHEAD: usize = 8;
/// From how many bytes on a message is decoded while the one before it is taken in.
const LARGE: usize = 4 << 10;

/// Tells any number of sessions when a ledger's log has grown, from one thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Growth {
    told: watch::Receiver<u64>,
    recent: Option<Recent>,
}

impl Growth {
    /// Watches a ledger.
    ///
    /// # Errors
    /// `storage` where no thread can be had.
    pub fn of(ledger: &Ledger) -> Result<Self> {
        Self::watch(ledger, None)
    }

    /// The same, and keeps what was appended last for the sessions that are carried with it, so that they need not read it.
    ///
    /// # Errors
    /// `storage` where no thread can be had.
    pub fn kept(ledger: &Ledger) -> Result<Self> {
        Self::watch(ledger, Some(ledger.shared().followed.follow(ledger.id())))
    }

    fn watch(ledger: &Ledger, recent: Option<Recent>) -> Result<Self> {
        let (tell, told) = watch::channel(ledger.position());
        let (ledger, kept) = (ledger.clone(), recent.clone());
        super::stream::spawn("syncledger-growth", move || tell_all(&ledger, &tell, kept.as_ref()))?;
        Ok(Self { told, recent })
    }

    /// Waits until the log has grown since it was last asked, and returns its last position.
    ///
    /// # Errors
    /// `cancelled` where the thread has ended.
    pub async fn next(&mut self) -> Result<u64> {
        let ended = |_| Error::new(ErrorKind::Cancelled, "nobody watches the log any more");
        self.told.changed().await.map_err(ended)?;
        Ok(*self.told.borrow_and_update())
    }
}

fn tell_all(ledger: &Ledger, tell: &watch::Sender<u64>, kept: Option<&Recent>) {
    let mut writer = ledger.info().writer;
    while !tell.is_closed() {
        let stamps_as = ledger.info().writer;
        if stamps_as != writer {
            // The log was written again: its positions are others.
            writer = stamps_as;
            tell.send_replace(ledger.position());
        }
        let seen = *tell.borrow();
        let position = ledger.shared().await_shown(ledger.id(), seen + 1, WAIT);
        if position > seen {
            tell.send_replace(position);
            std::thread::sleep(REST.saturating_mul(tell.receiver_count() as u32).min(LONGEST_REST));
        }
        if let Some(kept) = kept {
            kept.forget(ledger.shared().now_ms());
        }
    }
}

/// What carries a session's messages: each is the bytes of one, whole.
#[derive(Debug)]
pub struct Channels {
    /// What the other side says; an error where it will not be heard any more.
    pub heard: mpsc::Receiver<Result<Vec<u8>>>,
    /// What is said to it. Closed once there is no more.
    pub said: mpsc::Sender<Vec<u8>>,
}

/// The other ends of [`Channels`], for who carries what goes through them.
#[derive(Debug)]
pub struct Carrier {
    /// Takes what came of the other side.
    pub tell: mpsc::Sender<Result<Vec<u8>>>,
    /// Gives what is to be sent to it.
    pub to_say: mpsc::Receiver<Vec<u8>>,
}

impl Channels {
    /// Channels that hold as many messages as a session has under way, and their other ends.
    #[must_use]
    pub fn new() -> (Self, Carrier) {
        let ((tell, heard), (said, to_say)) = (mpsc::channel(AHEAD), mpsc::channel(UNREAD));
        (Self { heard, said }, Carrier { tell, to_say })
    }
}

/// What happens while a session is carried.
enum Happened {
    Came(Came),
    Grown,
    DueNow,
    Stopped(Error),
}

/// A message that came: its bytes, or their number and what they were decoded to.
enum Came {
    Bytes(Vec<u8>),
    Message(usize, Result<Message>),
}

/// What the other side says, in its order. A large message is decoded while the one before it is taken in: what it names is here
/// by then, as the other side was told before it named it.
struct Hearing {
    heard: mpsc::Receiver<Result<Vec<u8>>>,
    next: Option<Next>,
}

/// What was heard and not yet told.
enum Next {
    /// Whatever came; `None` where nothing more will.
    Came(Option<Result<Vec<u8>>>),
    /// So many bytes, which are being decoded.
    Decoding(usize, oneshot::Receiver<Result<Message>>),
}

impl Hearing {
    /// The next message; dropping what waits for it loses none.
    async fn next(&mut self) -> Result<Came> {
        if self.next.is_none() {
            self.next = Some(Next::Came(self.heard.recv().await));
        }
        let decoded = match &mut self.next {
            Some(Next::Decoding(bytes, message)) => {
                let lost = |_| Err(Error::new(ErrorKind::Server, "a message could not be decoded"));
                Some((*bytes, message.await.unwrap_or_else(lost)))
            }
            _ => None,
        };
        match (self.next.take(), decoded) {
            (_, Some((bytes, message))) => Ok(Came::Message(bytes, message)),
            (Some(Next::Came(Some(came))), None) => came.map(Came::Bytes),
            _ => Err(broke_off("it was closed")),
        }
    }

    /// Hears the next message, if any comes before `step` has ended, and has it decoded where it is large. Returns what the step
    /// came to.
    async fn beside<T>(&mut self, step: oneshot::Receiver<T>, decoder: &Decoder) -> Option<T> {
        let mut step = pin!(step);
        if self.next.is_none() {
            tokio::select! {
                biased;
                done = &mut step => return done.ok(),
                came = self.heard.recv() => self.next = Some(decoder.begin(came)),
            }
        }
        step.await.ok()
    }
}

impl Decoder {
    /// Begins to decode what came, where it is large.
    fn begin(&self, came: Option<Result<Vec<u8>>>) -> Next {
        match came {
            Some(Ok(bytes)) if bytes.len() >= LARGE => {
                let decoder = self.clone();
                Next::Decoding(bytes.len(), steps::begin(move || decoder.decode(&bytes)))
            }
            came => Next::Came(came),
        }
    }
}

impl Peer {
    /// Carries the session over channels until it ends. `stop` ends it with an error, once it is ready; `after_each` is asked after
    /// everything that happened, and may end it too. Returns the peer as well, unless a step of it panicked.
    ///
    /// All work on the ledger that may wait for the disk is done on threads for such work.
    ///
    /// # Errors
    /// What ended the session; `network` where the channels broke off before its end.
    pub async fn carry_over(
        self,
        channels: Channels,
        growth: Growth,
        stop: impl Future<Output = Error> + Send,
        after_each: impl FnMut(&mut Self) -> Result<()> + Send,
    ) -> (Option<Self>, Result<Transfer>) {
        let (peer, outcome) = self.talk_over(channels, growth, stop, after_each).await;
        let Some(mut peer) = peer else { return (None, outcome) };
        // A session that broke off has what it took in to note, which waits for the disk.
        let noted = steps::begin(move || {
            let _ = peer.note(true);
            peer
        });
        (noted.await.ok(), outcome)
    }

    async fn talk_over(
        mut self,
        channels: Channels,
        mut growth: Growth,
        stop: impl Future<Output = Error> + Send,
        mut after_each: impl FnMut(&mut Self) -> Result<()> + Send,
    ) -> (Option<Self>, Result<Transfer>) {
        let Channels { heard, said } = channels;
        let (mut stop, mut has_stopped) = (pin!(stop), false);
        let mut hearing = Hearing { heard, next: None };
        self.recent.clone_from(&growth.recent);
        let mut words = self.begin();
        loop {
            if let Err(fault) = self.say_over(words, &said)
                && !self.is_ended()
            {
                return (Some(self), Err(fault));
            }
            if self.is_ended() {
                let outcome = self.finish();
                return (Some(self), outcome);
            }
            let patience = self.patience();
            let happened = tokio::select! {
                fault = &mut stop, if !has_stopped => Happened::Stopped(fault),
                came = hearing.next() => match came {
                    Ok(came) => Happened::Came(came),
                    Err(fault) => return (Some(self), Err(fault)),
                },
                grown = growth.next(), if self.follows => grown.map_or_else(Happened::Stopped, |_| Happened::Grown),
                () = tokio::time::sleep(patience) => Happened::DueNow,
            };
            has_stopped |= matches!(happened, Happened::Stopped(_));
            // No further than that: what is beyond it is in the log, and told of next.
            let soon = Some(()).filter(|()| matches!(happened, Happened::Grown)).and_then(|()| self.soon_read());
            if let Some(upto) = soon {
                words = self.grown_to(upto);
            } else {
                let decoder = self.decoder();
                match hearing.beside(steps::begin(move || self.step(happened)), &decoder).await {
                    Some((peer, said)) => (self, words) = (peer, said),
                    None => return (None, Err(Error::new(ErrorKind::Server, "a step of the session failed"))),
                }
            }
            if let Err(fault) = after_each(&mut self)
                && !self.is_ended()
            {
                words.extend(self.fail(fault));
            }
        }
    }

    fn step(mut self, happened: Happened) -> (Self, Vec<Message>) {
        let words = match happened {
            Happened::Came(came) => {
                let (bytes, message) = match came {
                    Came::Bytes(bytes) => (bytes.len(), self.decode(&bytes)),
                    Came::Message(bytes, message) => (bytes, message),
                };
                self.traffic.received_bytes += bytes as u64;
                match message {
                    Ok(message) => self.hear(message),
                    Err(fault) => self.fail(fault),
                }
            }
            Happened::Grown => self.grown(),
            Happened::DueNow => self.tick(),
            Happened::Stopped(fault) => self.fail(fault),
        };
        (self, words)
    }

    fn say_over(&mut self, words: Vec<Message>, said: &mpsc::Sender<Vec<u8>>) -> Result<()> {
        for message in words {
            let bytes = self.encode(message)?;
            self.traffic.sent_bytes += bytes.len() as u64;
            said.try_send(bytes).map_err(|fault| match fault {
                mpsc::error::TrySendError::Full(_) => broke_off("the other side does not read what it is sent"),
                mpsc::error::TrySendError::Closed(_) => broke_off("it was closed"),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BlobHash;
    use crate::ledger::{Options, SessionOptions, Store};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_during_a_step_is_heard_in_its_order_and_large_messages_are_decoded_meanwhile() {
        let ledger = Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap();
        let peer = ledger.session(&SessionOptions::default()).unwrap();
        let large = Message::Blob { hash: BlobHash([1; 32]), total: 9_000, offset: 0, bytes: vec![7; 9_000] };
        let said = [Message::Ping, large.clone(), Message::Pong].map(|message| peer.encode(message).unwrap());
        let (tell, heard) = mpsc::channel(AHEAD);
        let mut hearing = Hearing { heard, next: None };
        for bytes in [said[0].clone(), said[1].clone(), said[1][..6_000].to_vec(), said[2].clone()] {
            tell.send(Ok(bytes)).await.unwrap();
        }
        drop(tell);
        let mut order = Vec::new();
        for step in 0..5 {
            let (end, ended) = oneshot::channel();
            let meanwhile = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                end.send(step).unwrap();
            };
            let decoder = peer.decoder();
            let (done, ()) = tokio::join!(hearing.beside(ended, &decoder), meanwhile);
            assert_eq!(done, Some(step));
            order.push(match hearing.next().await {
                Ok(Came::Bytes(bytes)) => format!("{:?}", peer.decode(&bytes).unwrap()),
                Ok(Came::Message(count, Ok(message))) => format!("{count} bytes, {}", message == large),
                Ok(Came::Message(count, Err(fault))) => format!("{count} bytes, {}", fault.code()),
                Err(fault) => fault.code().to_owned(),
            });
        }
        let expected = ["Ping", "9042 bytes, true", "6000 bytes, validation", "Pong", "network"];
        assert_eq!(order[..1], expected[..1]);
        assert!(order[1].ends_with("bytes, true"), "{order:?}");
        assert_eq!(order[2..], expected[2..]);
    }
}
