//! Carrying a session over channels of an asynchronous program: a task, whatever the bytes go over.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::recent::Recent;
use super::stream::broke_off;
use super::{Peer, steps};
use crate::ledger::{Ledger, Transfer};
use crate::replication::Message;
use crate::{Error, ErrorKind, Result};

/// How long one wait for growth takes: only to notice that nobody follows any more.
const WAIT: Duration = Duration::from_millis(500);
/// How many messages may wait to be carried. The window keeps a side that reads what it is sent far below that.
const UNREAD: usize = 64;
/// How many messages are read ahead: as many batches as may be under way, and some words.
const AHEAD: usize = 8;

/// Tells any number of sessions when a ledger's log has grown, from one thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Growth {
    told: watch::Receiver<u64>,
    recent: Recent,
}

impl Growth {
    /// Watches a ledger.
    ///
    /// # Errors
    /// `storage` where no thread can be had.
    pub fn of(ledger: &Ledger) -> Result<Self> {
        let (tell, told) = watch::channel(ledger.position());
        let (ledger, recent) = (ledger.clone(), Recent::default());
        let shared = recent.clone();
        super::stream::spawn("syncledger-growth", move || tell_all(&ledger, &tell, &shared))?;
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

fn tell_all(ledger: &Ledger, tell: &watch::Sender<u64>, recent: &Recent) {
    let mut writer = ledger.info().writer;
    while !tell.is_closed() {
        let stamps_as = ledger.info().writer;
        if stamps_as != writer {
            // The log was written again: its positions are others.
            writer = stamps_as;
            recent.clear();
            tell.send_replace(ledger.position());
        }
        let seen = *tell.borrow();
        let position = ledger.shared().await_shown(ledger.id(), seen + 1, WAIT);
        if position > seen {
            recent.grow(ledger, seen, position);
            tell.send_replace(position);
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
    Came(Vec<u8>),
    Grown,
    DueNow,
    Stopped(Error),
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
        mut self,
        channels: Channels,
        mut growth: Growth,
        stop: impl Future<Output = Error> + Send,
        mut after_each: impl FnMut(&mut Self) -> Result<()> + Send,
    ) -> (Option<Self>, Result<Transfer>) {
        let Channels { mut heard, said } = channels;
        let (mut stop, mut has_stopped) = (pin!(stop), false);
        self.recent = Some(growth.recent.clone());
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
                came = heard.recv() => match came {
                    Some(Ok(bytes)) => Happened::Came(bytes),
                    Some(Err(fault)) => return (Some(self), Err(fault)),
                    None => return (Some(self), Err(broke_off("it was closed"))),
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
                match steps::run(move || self.step(happened)).await {
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
            Happened::Came(bytes) => {
                self.traffic.received_bytes += bytes.len() as u64;
                match self.decode(&bytes) {
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
