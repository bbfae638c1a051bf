//! Carrying a session over byte streams: a socket, a pipe, the standard input and output of another program.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::Peer;
use super::named::{Named, Roots};
use crate::ledger::{Ledger, Transfer};
use crate::replication::{Framing, MOST_MESSAGE_BYTES, Message, decode, encode};
use crate::{Error, ErrorKind, Result};

/// How many messages are read ahead: as many batches as may be under way, and some words.
const AHEAD: usize = 8;
/// How many messages may wait to be written. The window keeps a side that reads what it is sent far below that.
const UNREAD: usize = 64;
/// How long it may take to write the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long is listened to an other side that hears nothing any more: what it said last is here by then, or nowhere.
const LISTENED: Duration = Duration::from_millis(100);
/// How long one wait for growth takes: only to notice that the session has ended.
const WAIT: Duration = Duration::from_millis(500);

/// What happens while a session is carried.
enum Happened {
    Came(Vec<u8>),
    /// Nothing more comes.
    Broke(Error),
    /// Nothing more is heard by the other side.
    Deaf(Error),
    Grown,
}

impl Peer {
    /// Carries the session over two byte streams until it ends: a message is its length (u32, little-endian) and its
    /// bytes. `progress` is told after each batch, and may end the session by an error.
    ///
    /// Each stream has a thread of its own, which ends when the stream does: whoever wants to have it back closes it. An
    /// other side that says nothing for 45 seconds, or does not read what it is sent, is given up, whatever limits of
    /// time the streams have.
    ///
    /// # Errors
    /// What ended the session; `network` where a stream broke off before its end; `timeout`; what `progress` returns.
    pub fn carry(
        &mut self,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
        progress: &mut dyn FnMut(Transfer) -> Result<()>,
    ) -> Result<Transfer> {
        let ((tell, told), (say, to_say), (tell_said, all_said)) =
            (sync_channel(AHEAD), sync_channel(UNREAD), sync_channel(1));
        let ended = Arc::new(AtomicBool::new(false));
        spawn("syncledger-input", {
            let tell = tell.clone();
            move || read_messages(input, &tell)
        })?;
        spawn("syncledger-output", {
            let tell = tell.clone();
            move || write_messages(output, &to_say, &tell, &tell_said)
        })?;
        if self.follows {
            let (ledger, ended) = (self.ledger.clone(), ended.clone());
            spawn("syncledger-growth", move || watch(&ledger, &tell, &ended))?;
        }
        let outcome = self.converse(&told, &say, progress);
        ended.store(true, Ordering::Relaxed);
        // The last words are on their way: whether they are heard does not matter to who has ended.
        drop(say);
        let _ = all_said.recv_timeout(LAST_WORDS);
        outcome.and_then(|()| self.finish())
    }

    /// Talks until the session ends. An error is one of the streams.
    fn converse(
        &mut self,
        told: &Receiver<Happened>,
        say: &SyncSender<Vec<u8>>,
        progress: &mut dyn FnMut(Transfer) -> Result<()>,
    ) -> Result<()> {
        let mut said = self.begin();
        loop {
            match self.say(said, say) {
                _ if self.is_ended() => return Ok(()),
                said => said?,
            }
            let before = self.transfer();
            said = match told.recv_timeout(self.patience()) {
                Ok(Happened::Came(bytes)) => match self.decode(&bytes) {
                    Ok(message) => self.hear(message),
                    Err(fault) => self.fail(fault),
                },
                Ok(Happened::Grown) => self.grown(),
                Ok(Happened::Deaf(fault)) => return self.hear_last_words(told, fault),
                Ok(Happened::Broke(fault)) => return Err(fault),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return Err(broke_off("it was closed")),
            };
            if self.transfer() != before
                && let Err(fault) = progress(self.transfer())
            {
                said.extend(self.fail(fault));
            }
        }
    }

    /// The other side hears nothing any more: it may have said why.
    fn hear_last_words(&mut self, told: &Receiver<Happened>, fault: Error) -> Result<()> {
        while let Ok(happened) = told.recv_timeout(LISTENED) {
            match happened {
                Happened::Came(bytes) => {
                    if let Ok(bye @ Message::Bye(_)) = self.decode(&bytes) {
                        self.hear(bye);
                        return Ok(());
                    }
                }
                Happened::Broke(_) => break,
                Happened::Grown | Happened::Deaf(_) => {}
            }
        }
        Err(fault)
    }

    /// How long to wait for a word.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.due().saturating_sub(self.ledger.shared().now_ms()).max(1))
    }

    /// The bytes of a message that this side says. Events that the other side has are named by a part of their ids.
    ///
    /// # Errors
    /// `too_large` where it has more than 16 MiB.
    pub fn encode(&self, message: Message) -> Result<Vec<u8>> {
        let past = Named::new(&self.ledger, &self.roots);
        encode(message, &Framing { ledger: self.ledger(), past: &past })
    }

    /// The message of the other side that bytes are. To be decoded after everything before it was heard: what it names has to
    /// be here.
    ///
    /// # Errors
    /// `validation` for bytes that are none; `too_large`; `ledger_mismatch`; `corrupt` for events that are not what their hashes
    /// say, or name events that are not here.
    pub fn decode(&self, bytes: &[u8]) -> Result<Message> {
        self.decoder().decode(bytes)
    }

    pub(super) fn decoder(&self) -> Decoder {
        Decoder { ledger: self.ledger.clone(), is_known: self.other.is_some(), is_at_edge: self.guard.is_some() }
    }

    fn say(&self, messages: Vec<Message>, say: &SyncSender<Vec<u8>>) -> Result<()> {
        for message in messages {
            let bytes = self.encode(message)?;
            match say.try_send(bytes) {
                // Who writes has told already why it ended.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => return Err(broke_off("the other side does not read what it is sent")),
            }
        }
        Ok(())
    }
}

/// Decodes what the other side says.
#[derive(Clone)]
pub(super) struct Decoder {
    ledger: Ledger,
    /// Whether the other side has said who it is.
    is_known: bool,
    is_at_edge: bool,
}

impl Decoder {
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Message> {
        // What it names is found by the ledger alone.
        let (roots, ledger) = (Roots::default(), Some(self.ledger.id()).filter(|_| self.is_known));
        let past = Named::new(&self.ledger, &roots);
        let decoded = decode(bytes, &Framing { ledger, past: &past });
        decoded.map_err(|fault| if self.is_at_edge { unsaid(fault) } else { fault })
    }
}

pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    let no_thread = |fault| Error::new(ErrorKind::Storage, format!("no thread could be started: {fault}"));
    started.map(drop).map_err(no_thread)
}

/// A device is not told which of the events that its batch names are here.
fn unsaid(fault: Error) -> Error {
    if fault.kind() != ErrorKind::Corrupt {
        return fault;
    }
    Error::new(ErrorKind::Corrupt, "the events of a batch are damaged, or are built on events that are not here")
        .with_hint("connect again, and name what they are built on by whole ids")
}

pub(super) fn broke_off(what: &str) -> Error {
    Error::new(ErrorKind::Network, format!("the connection to the other replica broke off: {what}"))
        .with_hint("connect again: what was taken in stays")
}

/// Writes messages until there are no more, or the stream takes none.
fn write_messages(
    mut output: impl Write,
    to_say: &Receiver<Vec<u8>>,
    tell: &SyncSender<Happened>,
    all_said: &SyncSender<()>,
) {
    for bytes in to_say {
        let length = (bytes.len() as u32).to_le_bytes();
        let written = output.write_all(&length).and_then(|()| output.write_all(&bytes)).and_then(|()| output.flush());
        if let Err(fault) = written {
            let _ = tell.send(Happened::Deaf(broke_off(&fault.to_string())));
            break;
        }
    }
    let _ = all_said.try_send(());
}

/// Reads messages until the stream ends, or nobody wants them.
fn read_messages(mut input: impl Read, tell: &SyncSender<Happened>) {
    loop {
        let happened = read_message(&mut input).map_or_else(Happened::Broke, Happened::Came);
        let ends = matches!(happened, Happened::Broke(_));
        if tell.send(happened).is_err() || ends {
            return;
        }
    }
}

fn read_message(input: &mut impl Read) -> Result<Vec<u8>> {
    let of_stream = |fault: std::io::Error| match fault.kind() {
        IoKind::UnexpectedEof => broke_off("it ended before the session did"),
        _ => broke_off(&fault.to_string()),
    };
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(of_stream)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_MESSAGE_BYTES {
        let limit = MOST_MESSAGE_BYTES >> 20;
        let message = format!("a message has at most {limit} MiB, and this one is said to have {length} bytes");
        return Err(Error::new(ErrorKind::TooLarge, message).with_hint("is the other side a syncledger replica?"));
    }
    // Memory grows with what comes, not with what is promised.
    let mut bytes = Vec::new();
    let read = input.take(length as u64).read_to_end(&mut bytes).map_err(of_stream)?;
    if read < length { Err(broke_off("it ended in a message")) } else { Ok(bytes) }
}

/// Tells of each growth of a log until the session has ended.
fn watch(ledger: &Ledger, tell: &SyncSender<Happened>, ended: &AtomicBool) {
    // Also of what came between the session's beginning and this.
    let mut seen = 0;
    while !ended.load(Ordering::Relaxed) {
        let position = ledger.shared().await_shown(ledger.id(), seen + 1, WAIT);
        if position > seen {
            seen = position;
            if tell.send(Happened::Grown).is_err() {
                return;
            }
        }
    }
}
