//! The session: both halves, from the first word to the last.

use std::collections::{BTreeSet, VecDeque};

use super::message::{BatchNumber, Bye, Cursor, Hello, Message, Refusal, ShortId, Wants};
use super::receiving::{Receiving, no_blob};
use super::sending::{Sending, broken, misused};
use super::{Filter, VERSIONS};
use crate::event::{BlobHash, LedgerId, WriterId};
use crate::segment::Item;
use crate::{Error, ErrorKind, Result};

/// After so long without a word the other side is asked whether it is there, in milliseconds.
const PING_AFTER_MS: u64 = 15_000;
/// After so long without a word it is taken to be gone, in milliseconds.
const GONE_AFTER_MS: u64 = 45_000;
/// How long a side that follows is not told that the log has grown by what it does not want, in milliseconds.
const TOLD_AFTER_MS: u64 = 2_000;
/// How many batches may be under way at once, unless it is said otherwise.
const WINDOW: u16 = 16;

/// What a session is for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This replica.
    pub replica: WriterId,
    /// The ledger.
    pub ledger: LedgerId,
    /// Whether it holds no event yet, and becomes a replica of another.
    pub adopts: bool,
    /// The last position of its log.
    pub head: u64,
    /// Whether its events are sent.
    pub sends: bool,
    /// Whether the session goes on after both sides have what there is, and sends what comes.
    pub follows: bool,
    /// Collections whose events are sent before those of others where much waits, in this order.
    pub first: Vec<String>,
}

impl Wants {
    /// Everything that meets a filter after a cursor.
    #[must_use]
    pub fn after(cursor: Option<Cursor>, filter: Filter) -> Self {
        Self { filter, cursor, window: WINDOW, ..Self::default() }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// It was taken in, durably, but for what was refused.
    Whole {
        /// Whether any event of the session waits for its parents.
        waits: bool,
        /// What was refused.
        refused: Vec<Refusal>,
    },
    /// It names large values that are not here. It is given again once they are.
    Lacks {
        /// The batch's events.
        events: Vec<Item>,
        /// The large values.
        blobs: Vec<BlobHash>,
    },
}

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// This came from the other side.
    Received(Message),
    /// The ledger's log has grown up to this position.
    Grown(u64),
    /// Answers [`Output::Choose`].
    Chosen(Option<Wants>),
    /// Answers [`Output::Begin`]: after which position to send (0 where the cursor is not one of this log), and the
    /// collections of which both sides hold the same up to another position.
    From {
        /// The position.
        position: u64,
        /// A name for what the other side may be sent.
        scope: String,
        /// Up to where collections are alike, and which.
        alike: (u64, BTreeSet<String>),
    },
    /// Answers [`Output::Adopt`].
    Adopted(Result<()>),
    /// Answers [`Output::Read`]: events in the order of their positions, and up to where the log was looked through,
    /// further than before.
    Read {
        /// The events.
        events: Vec<Item>,
        /// Up to where.
        upto: Cursor,
    },
    /// Answers [`Output::Known`]: a bit for each id, set where the event is *not* here.
    Known {
        /// The offer.
        batch: BatchNumber,
        /// The bits.
        bits: Vec<u8>,
    },
    /// Answers [`Output::Apply`].
    Applied {
        /// The batch.
        batch: BatchNumber,
        /// What became of it.
        outcome: Result<Applied>,
    },
    /// Answers [`Output::ReadBlob`]: how many bytes it has as a whole, and some of them; `None` where it is not here.
    BlobRead {
        /// The large value.
        hash: BlobHash,
        /// Where the part begins.
        offset: u64,
        /// The length of the whole, and the part.
        part: Option<(u64, Vec<u8>)>,
    },
    /// Answers [`Output::StoreBlob`].
    BlobStored {
        /// The large value.
        hash: BlobHash,
        /// Whether it was stored.
        outcome: Result<()>,
    },
    /// Time went by.
    Tick,
    /// Whatever was asked for could not be done, or nobody wants the session any more.
    Failed(Error),
}

/// What a session wants done. All but [`Output::Send`], [`Output::Begun`], [`Output::Refused`], [`Output::Note`],
/// [`Output::Reached`] and [`Output::Ended`] are answered by an input.
#[derive(Debug)]
pub enum Output {
    /// Say this to the other side.
    Send(Message),
    /// This is the other side: what is wanted of it?
    Choose(Hello),
    /// The other side sends what follows a position of its log: what lies before is here.
    Begun {
        /// The position.
        after: u64,
        /// The other side's name for what it may send.
        scope: String,
    },
    /// The other side did not take these events in.
    Refused(Vec<Refusal>),
    /// The other side wants this: where does it begin?
    Begin(Wants),
    /// Become a replica of this ledger.
    Adopt(LedgerId),
    /// Read the log after a position: as many events as make a batch.
    Read {
        /// The position.
        after: u64,
        /// Which records are wanted.
        filter: Filter,
    },
    /// Which of these events are here?
    Known {
        /// The offer.
        batch: BatchNumber,
        /// The ids.
        ids: Vec<ShortId>,
    },
    /// Take these events in.
    Apply {
        /// The batch.
        batch: BatchNumber,
        /// Up to where of the other log this is all.
        upto: Cursor,
        /// The events.
        events: Vec<Item>,
    },
    /// Read a part of a large value.
    ReadBlob {
        /// The large value.
        hash: BlobHash,
        /// From which byte on.
        offset: u64,
    },
    /// Store a large value.
    StoreBlob {
        /// Its hash, which it has.
        hash: BlobHash,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Everything up to here of the other log is here: worth remembering for the next session.
    Note(Cursor),
    /// Everything is here that the other side has and that is wanted, for now.
    Reached,
    /// Nothing more comes, and nothing more is listened to.
    Ended(Result<()>),
}

/// How far a session is.
enum Stage {
    /// The other side has not said who it is.
    Greeting,
    /// An empty ledger becomes a replica of the other's, whose hello this is.
    Adopting(Hello),
    /// Events go to and fro.
    Open,
    Ended,
}

/// One session of two replicas, on one side.
pub struct Session {
    settings: Settings,
    stage: Stage,
    outputs: VecDeque<Output>,
    /// Whether it was said what this side wants, and heard what the other wants.
    chosen: (bool, bool),
    /// What the other side wants, before it is known where that begins.
    beginning: Option<Wants>,
    /// `None` where this side sends nothing, or does not know yet what.
    sending: Option<Sending>,
    receiving: Option<Receiving>,
    other: Option<Hello>,
    was_left: bool,
    heard: u64,
    said: u64,
    /// How many pings were said, and answered.
    pings: (u64, u64),
    /// Since when the log was looked through without the other side being told.
    passed_since: Option<u64>,
}

impl Session {
    /// Begins a session at a moment, in milliseconds.
    #[must_use]
    pub fn new(now: u64, settings: Settings) -> Self {
        let Settings { replica, ledger, adopts, sends, .. } = settings;
        let hello = Hello { versions: VERSIONS, ledger, adopts, replica, sends, now_ms: now };
        let outputs = VecDeque::from([Output::Send(Message::Hello(hello))]);
        let (stage, heard, said) = (Stage::Greeting, now, now);
        let (chosen, beginning, sending, receiving, other, was_left) = Default::default();
        let (pings, passed_since) = Default::default();
        Self {
            settings,
            stage,
            outputs,
            chosen,
            beginning,
            sending,
            receiving,
            other,
            was_left,
            heard,
            said,
            pings,
            passed_since,
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Who the other side is, once it has said so.
    #[must_use]
    pub fn other(&self) -> Option<&Hello> {
        self.other.as_ref()
    }

    /// Whether the other side ended it.
    #[must_use]
    pub fn was_left(&self) -> bool {
        self.was_left
    }

    /// Up to which position of this side's log the other side has everything that it wants, or has refused it; `None` where
    /// it wants nothing, or has not said yet what.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.sending.as_ref().map(Sending::held)
    }

    /// Up to which position of this side's log it was read for the other side; `None` as long as that is not known.
    #[must_use]
    pub fn read(&self) -> Option<u64> {
        self.sending.as_ref().map(Sending::read)
    }

    /// Which records the other side wants; `None` as long as that is not known, or where it wants nothing.
    #[must_use]
    pub fn wanted_by_other(&self) -> Option<&Filter> {
        self.sending.as_ref().map(Sending::filter)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// When [`Input::Tick`] is due at the latest, in milliseconds.
    #[must_use]
    pub fn due(&self) -> u64 {
        let ping = self.said.max(self.heard).saturating_add(PING_AFTER_MS);
        let told = self.passed_since.map_or(u64::MAX, |since| since.saturating_add(TOLD_AFTER_MS));
        ping.min(self.heard.saturating_add(GONE_AFTER_MS)).min(told)
    }

    /// Tells the session something at a moment, in milliseconds. After its end nothing is listened to.
    pub fn handle(&mut self, now: u64, input: Input) {
        if self.is_ended() {
            return;
        }
        if matches!(input, Input::Received(_)) {
            self.heard = self.heard.max(now);
        }
        let before = self.outputs.len();
        match self.take(now, input) {
            Ok(()) => {
                self.tell_passed(now);
                self.end_when_done();
            }
            Err(fault) => self.fail(fault),
        }
        if self.outputs.iter().skip(before).any(|output| matches!(output, Output::Send(_))) {
            self.said = self.said.max(now);
        }
    }

    /// Tells the other side how far the log was looked through, where that is due.
    fn tell_passed(&mut self, now: u64) {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.has_passed()) else {
            self.passed_since = None;
            return;
        };
        let since = *self.passed_since.get_or_insert(now);
        if now >= since.saturating_add(TOLD_AFTER_MS) {
            sending.tell_passed(&mut self.outputs);
            // Where none may be sent now, it is after the next answer.
            self.passed_since = Some(now).filter(|_| sending.has_passed());
        }
    }

    /// Ends the session, and tells the other side why.
    fn fail(&mut self, fault: Error) {
        self.outputs.push_back(Output::Send(Message::Bye(Bye::of(&fault))));
        self.end(Err(fault));
    }

    fn end(&mut self, outcome: Result<()>) {
        self.stage = Stage::Ended;
        self.outputs.push_back(Output::Ended(outcome));
    }

    fn take(&mut self, now: u64, input: Input) -> Result<()> {
        match input {
            Input::Received(message) => self.hear(message),
            Input::Grown(head) => {
                self.settings.head = self.settings.head.max(head);
                match &mut self.sending {
                    Some(sending) if self.settings.follows => sending.grown(head, &mut self.outputs),
                    _ => {}
                }
                Ok(())
            }
            Input::Chosen(wants) => self.choose(wants),
            Input::From { position, scope, alike } => self.begin(position, scope, alike),
            Input::Adopted(outcome) => {
                outcome?;
                match std::mem::replace(&mut self.stage, Stage::Open) {
                    Stage::Adopting(hello) => self.open(hello),
                    _ => Err(misused("an answer to what was not asked")),
                }
            }
            Input::Read { events, upto } => sending(&mut self.sending)?.was_read(upto, events, &mut self.outputs),
            Input::Known { batch, bits } => {
                self.outputs.push_back(Output::Send(Message::Want { batch, bits }));
                Ok(())
            }
            Input::Applied { batch, outcome } => self.applied(batch, outcome?),
            Input::BlobRead { hash, offset, part } => {
                self.outputs.push_back(Output::Send(match part {
                    Some((total, bytes)) => Message::Blob { hash, total, offset, bytes },
                    None => Message::NoBlob(hash),
                }));
                Ok(())
            }
            Input::BlobStored { hash, outcome } => {
                outcome?;
                receiving(&mut self.receiving)?.stored(hash, &mut self.outputs)
            }
            Input::Tick => self.tick(now),
            Input::Failed(fault) => Err(fault),
        }
    }
}

impl Session {
    fn hear(&mut self, message: Message) -> Result<()> {
        match (message, &self.stage) {
            (Message::Hello(hello), Stage::Greeting) => self.greet(hello),
            (Message::Bye(bye), _) => {
                self.was_left = true;
                // Who leaves in peace has heard what became of everything that it sent.
                if let Some(receiving) = self.receiving.as_mut().filter(|_| bye.code.is_none()) {
                    receiving.heard(u64::MAX, &mut self.outputs);
                }
                self.end(bye.into_error().map_or(Ok(()), Err));
                Ok(())
            }
            (Message::Ping, _) => {
                self.outputs.push_back(Output::Send(Message::Pong));
                Ok(())
            }
            (Message::Pong, _) => {
                self.pings.1 += 1;
                if let Some(receiving) = &mut self.receiving {
                    receiving.heard(self.pings.1, &mut self.outputs);
                }
                Ok(())
            }
            (message, Stage::Open) => self.converse(message),
            _ => Err(broken("it speaks before it has said who it is")),
        }
    }

    fn converse(&mut self, message: Message) -> Result<()> {
        let outputs = &mut self.outputs;
        match message {
            Message::Wants(wants) => self.wanted(wants),
            Message::Begins { after, scope } => receiving(&mut self.receiving)?.begun(after, scope, outputs),
            Message::Offer { batch, ids } => receiving(&mut self.receiving)?.offer(batch, ids, outputs),
            Message::Want { batch, bits } => sending(&mut self.sending)?.wanted(batch, &bits, outputs),
            Message::Batch { batch, upto, events } => {
                if let Some(sending) = &mut self.sending {
                    events.iter().for_each(|item| sending.came(item.id));
                }
                receiving(&mut self.receiving)?.batch(batch, upto, events, outputs)
            }
            Message::Ack { batch, cursor, refused } => {
                sending(&mut self.sending)?.acked(batch, cursor, outputs)?;
                if !refused.is_empty() {
                    outputs.push_back(Output::Refused(refused));
                }
                Ok(())
            }
            Message::Reached => receiving(&mut self.receiving)?.reached(outputs),
            Message::WantBlob { hash, offset } => {
                if !self.settings.sends {
                    return Err(broken("it asks for what it is not sent"));
                }
                outputs.push_back(Output::ReadBlob { hash, offset });
                Ok(())
            }
            Message::Blob { hash, total, offset, bytes } => {
                receiving(&mut self.receiving)?.blob(hash, (total, offset), &bytes, outputs)
            }
            Message::NoBlob(hash) => Err(no_blob(hash)),
            Message::Hello(_) => Err(broken("it says twice who it is")),
            // These were heard before.
            Message::Ping | Message::Pong | Message::Bye(_) => Ok(()),
        }
    }

    fn greet(&mut self, hello: Hello) -> Result<()> {
        let ((our_oldest, our_newest), (oldest, newest)) = (VERSIONS, hello.versions);
        if oldest > our_newest || newest < our_oldest {
            let message = format!(
                "the other replica speaks versions {oldest} to {newest} of the protocol, this one {our_oldest} to {our_newest}"
            );
            return Err(Error::new(ErrorKind::UpgradeNeeded, message).with_hint("upgrade the older of the two"));
        }
        let (ours, theirs) = (self.settings.ledger, hello.ledger);
        // Of two that are empty, one becomes a replica of the other: both know which.
        let adopts = ours != theirs && self.settings.adopts && (!hello.adopts || ours > theirs);
        if adopts {
            self.stage = Stage::Adopting(hello);
            self.outputs.push_back(Output::Adopt(theirs));
            return Ok(());
        }
        if ours != theirs && !hello.adopts {
            let message = format!("expected events of ledger {ours}, got those of {theirs}");
            return Err(Error::new(ErrorKind::LedgerMismatch, message)
                .with_hint("pull into an empty ledger: it becomes a replica of the one that it pulls first"));
        }
        self.open(hello)
    }

    /// Both know who the other is.
    fn open(&mut self, hello: Hello) -> Result<()> {
        self.stage = Stage::Open;
        self.other = Some(hello.clone());
        self.outputs.push_back(Output::Choose(hello));
        Ok(())
    }

    /// Says what this side wants.
    fn choose(&mut self, wants: Option<Wants>) -> Result<()> {
        if std::mem::replace(&mut self.chosen.0, true) {
            return Err(misused("a second choice of what is wanted"));
        }
        let wants = wants.filter(|_| self.other.as_ref().is_some_and(|other| other.sends));
        self.receiving = wants.as_ref().map(|wants| Receiving::new(wants.window, wants.cursor));
        self.outputs.push_back(Output::Send(Message::Wants(wants)));
        Ok(())
    }

    /// Hears what the other side wants.
    fn wanted(&mut self, wants: Option<Wants>) -> Result<()> {
        if std::mem::replace(&mut self.chosen.1, true) {
            return Err(broken("it says twice what it wants"));
        }
        let Some(wants) = wants else { return Ok(()) };
        if !self.settings.sends {
            return Err(broken("it wants what it was told that it is not sent"));
        }
        self.beginning = Some(wants.clone());
        self.outputs.push_back(Output::Begin(wants));
        Ok(())
    }

    fn begin(&mut self, position: u64, scope: String, alike: (u64, BTreeSet<String>)) -> Result<()> {
        let wants = self.beginning.take().ok_or_else(|| misused("a beginning that was not asked for"))?;
        self.outputs.push_back(Output::Send(Message::Begins { after: position, scope }));
        let sending = Sending::new(wants, position, self.settings.head, alike, self.settings.follows);
        let mut sending = sending.first(&self.settings.first);
        sending.go_on(&mut self.outputs);
        self.sending = Some(sending);
        Ok(())
    }

    fn applied(&mut self, batch: BatchNumber, applied: Applied) -> Result<()> {
        let refuses = matches!(&applied, Applied::Whole { refused, .. } if !refused.is_empty());
        let receiving = receiving(&mut self.receiving)?;
        if refuses {
            receiving.refused_before(self.pings.0 + 1);
        }
        receiving.applied(batch, applied, &mut self.outputs)?;
        if refuses {
            self.ping();
        }
        Ok(())
    }

    fn tick(&mut self, now: u64) -> Result<()> {
        if now >= self.heard.saturating_add(GONE_AFTER_MS) {
            return Err(Error::new(ErrorKind::Timeout, "the other replica has said nothing for 45 seconds")
                .with_hint("connect again: what was taken in stays"));
        }
        if now >= self.said.max(self.heard).saturating_add(PING_AFTER_MS) {
            self.ping();
        }
        Ok(())
    }

    fn ping(&mut self) {
        self.pings.0 += 1;
        self.outputs.push_back(Output::Send(Message::Ping));
    }

    /// A session that does not follow ends once both sides have what there was.
    fn end_when_done(&mut self) {
        let is_open = self.chosen == (true, true) && !self.settings.follows && self.beginning.is_none();
        let sent = self.sending.as_ref().is_none_or(Sending::is_done);
        let received = self.receiving.as_ref().is_none_or(Receiving::is_done);
        if is_open && sent && received {
            self.outputs.push_back(Output::Send(Message::Bye(Bye::well())));
            self.end(Ok(()));
        }
    }
}

fn sending(half: &mut Option<Sending>) -> Result<&mut Sending> {
    half.as_mut().ok_or_else(|| broken("it answers what it was not sent"))
}

fn receiving(half: &mut Option<Receiving>) -> Result<&mut Receiving> {
    half.as_mut().ok_or_else(|| broken("it sends what nobody asked for"))
}
