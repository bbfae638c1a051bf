//! One session with the server, and what is noted of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::answer::Fault;
use super::conflicts::Watch;
use super::lifecycle::{Happened, Phase, Progress, Synced};
use super::notes::{Known, is_for_stamp};
use super::outbox;
use super::transport::{Bytes, Farewell, Line};
use super::{Client, Inner};
use crate::ledger::{Growth, Ledger, Peer, SessionOptions, Transfer};
use crate::replication::Filter;
use crate::{Error, ErrorKind, Result};

/// How often progress is told, and written down, at most, in milliseconds.
const TOLD_EVERY_MS: u64 = 100;
const NOTED_EVERY_MS: u64 = 500;

/// What a session is for.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    pub(super) sends: bool,
    pub(super) wants: Option<Filter>,
    pub(super) follows: bool,
    /// Whether everything of the server is looked through again.
    pub(super) again: bool,
}

/// What is known of a session while it goes on.
pub(super) struct Watched {
    client: Arc<Inner>,
    bytes: Arc<Bytes>,
    began_ms: u64,
    /// The log's end, the acknowledged position, and the events of collections when it began.
    head: u64,
    acknowledged: u64,
    counts: BTreeMap<String, u64>,
    rejected: u64,
    /// What was refused in it.
    refused: Vec<String>,
    /// Where the server's knowledge of the log began.
    began_after: Option<u64>,
    /// What was known when it began, of this session too.
    before: Known,
    /// Whether the whole log is sent again: that the server has it is known none the less.
    is_again: bool,
    told_ms: u64,
    noted_ms: u64,
    is_settled: bool,
    /// Whether the server's clock was asked for already.
    knows_offset: bool,
    /// Whether something was refused for its stamp or its writer.
    has_to_stamp: bool,
    /// Whether the session was ended so that the next one begins with what is stamped anew.
    begins_again: bool,
}

/// Ends a session when it is told to.
pub(super) async fn cancelled(mut cancels: watch::Receiver<u64>) -> Error {
    if cancels.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Error::new(ErrorKind::Cancelled, "the sync was cancelled; what was done until then is durable")
}

impl Client {
    /// Runs one session, to its end.
    pub(super) async fn converse(&self, purpose: &Purpose, cancels: watch::Receiver<u64>) -> Result<Synced, Fault> {
        let inner = &self.0;
        let mut stop = Box::pin(cancelled(cancels));
        let line = tokio::select! {
            line = Line::open(&inner.tokens, inner.options.carries, inner.options.max_bytes_per_second) => line?,
            fault = &mut stop => return Err(Fault::from(fault)),
        };
        let (peer, growth) = self.begin(purpose).await?;
        let mut watched = Watched::begin(inner, &line.bytes)?;
        let mut conflicts = Watch::begin(&inner.ledger, &inner.happened).await;
        inner.statistics().connected = Some(line.carrier);
        let (channels, farewell) = Farewell::of(line);
        let (peer, outcome) = {
            let session =
                peer.carry_over(channels, growth.clone(), stop, |peer| watched.after_each(peer, purpose.follows));
            match &mut conflicts {
                None => session.await,
                Some(conflicts) => tokio::select! {
                    done = session => done,
                    never = conflicts.follow(growth) => match never {},
                },
            }
        };
        inner.statistics().connected = None;
        farewell.wait().await;
        if let Some(conflicts) = &mut conflicts {
            conflicts.look().await;
        }
        let done = spawn_blocking(move || watched.conclude(peer, outcome)).await;
        done.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))?
    }

    async fn begin(&self, purpose: &Purpose) -> Result<(Peer, Growth)> {
        let (client, purpose) = (self.clone(), purpose.clone());
        let begun = spawn_blocking(move || client.begin_now(&purpose)).await;
        begun.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))?
    }

    pub(super) fn begin_now(&self, purpose: &Purpose) -> Result<(Peer, Growth)> {
        let Inner { ledger, notes, .. } = &*self.0;
        let Purpose { sends, wants, follows, again } = purpose.clone();
        // Before the session: what is written between the two is told of.
        let growth = if follows { Growth::kept(ledger)? } else { Growth::of(ledger)? };
        let first = self.0.options.first.clone();
        let mut peer = ledger.session(&SessionOptions { sends, wants, follows, edge: None, first })?;
        if sends && notes.known().sends_again() {
            peer.send_all_again();
        }
        if again {
            peer.want_all_again();
        }
        let (in_full, whole_ids) = notes.known().names();
        if !in_full {
            peer.name_in_part();
        }
        if whole_ids {
            peer.want_whole_ids();
        }
        if purpose.wants.is_some() {
            let after = ledger.position();
            notes.change(|known| known.begin(peer.run(), after))?;
        }
        Ok((peer, growth))
    }
}

impl Watched {
    /// Of a session that has begun, and has said nothing yet.
    pub(super) fn begin(client: &Arc<Inner>, bytes: &Arc<Bytes>) -> Result<Self> {
        let known = client.notes.known();
        let began_ms = client.now_ms();
        Ok(Self {
            client: client.clone(),
            bytes: bytes.clone(),
            began_ms,
            head: client.ledger.position(),
            acknowledged: known.acknowledged,
            counts: counts(&client.ledger)?,
            rejected: 0,
            refused: Vec::new(),
            began_after: None,
            is_again: known.sends_again(),
            before: known,
            told_ms: 0,
            noted_ms: began_ms,
            is_settled: false,
            knows_offset: false,
            has_to_stamp: false,
            begins_again: false,
        })
    }

    /// Notes what happened in the session. Writes small files, on a thread of the runtime: what is refused has to be durable
    /// before the session goes on.
    pub(super) fn after_each(&mut self, peer: &mut Peer, follows: bool) -> Result<()> {
        self.learn_offset(peer)?;
        self.keep_refusals(peer)?;
        let now_ms = self.client.now_ms();
        self.began_after = self.began_after.or(peer.acknowledged());
        if let Some(position) = self.acknowledged_by(peer) {
            self.note(position, now_ms)?;
            if follows && !self.is_settled && position >= self.head {
                self.settle(now_ms)?;
            }
        }
        if now_ms.saturating_sub(self.told_ms) >= TOLD_EVERY_MS {
            self.told_ms = now_ms;
            self.tell(peer, now_ms);
        }
        match self.is_settled && std::mem::take(&mut self.has_to_stamp) {
            true => self.begin_again_where_due(),
            false => Ok(()),
        }
    }

    /// Ends a session that would go on: what was refused for its stamp is stamped anew before the next.
    fn begin_again_where_due(&mut self) -> Result<()> {
        if self.client.notes.known().to_stamp().is_empty() {
            return Ok(());
        }
        self.begins_again = true;
        Err(Error::new(ErrorKind::Cancelled, "edits are stamped anew, and sent in the next session"))
    }

    /// A clock that is far off is put right, for what is edited from now on.
    fn learn_offset(&mut self, peer: &Peer) -> Result<()> {
        let Some(offset_ms) = peer.clock_offset_ms().filter(|_| !self.knows_offset) else { return Ok(()) };
        self.knows_offset = true;
        let notes = &self.client.notes;
        notes.change(|known| known.learn_offset(offset_ms))?;
        self.client.ledger.set_clock_offset_ms(notes.known().clock_offset_ms);
        Ok(())
    }

    fn keep_refusals(&mut self, peer: &mut Peer) -> Result<()> {
        let refusals = peer.take_refusals();
        if refusals.is_empty() {
            return Ok(());
        }
        self.rejected += refusals.len() as u64;
        self.has_to_stamp |= refusals.iter().any(|refusal| is_for_stamp(&refusal.code));
        self.refused.extend(refusals.iter().map(|refusal| refusal.event.to_string()));
        let now_ms = self.client.now_ms().cast_signed();
        self.client.notes.change(|known| known.refuse(refusals, now_ms))
    }

    /// Up to where the server has the log.
    fn acknowledged_by(&self, peer: &Peer) -> Option<u64> {
        let known = if self.is_again { self.acknowledged } else { 0 };
        peer.acknowledged().map(|position| position.max(known))
    }

    /// Writes down how far the server has the log, where that is due.
    fn note(&mut self, position: u64, now_ms: u64) -> Result<()> {
        let head = self.client.ledger.position();
        let is_due = position >= head || now_ms.saturating_sub(self.noted_ms) >= NOTED_EVERY_MS;
        if position == self.client.notes.known().acknowledged || !is_due {
            return Ok(());
        }
        self.noted_ms = now_ms;
        self.client.notes.change(|known| known.reach(position))
    }

    /// The server has what was here when the session began: the attempt is good, though it goes on.
    fn settle(&mut self, now_ms: u64) -> Result<()> {
        self.is_settled = true;
        self.client.circuit().succeeded();
        self.client.notes.change(|known| known.succeed(now_ms.cast_signed()))
    }

    fn tell(&self, peer: &Peer, now_ms: u64) {
        let phase = if self.is_settled { Phase::Following } else { Phase::Exchanging };
        let (done, all) = self.share(peer.acknowledged());
        let took_ms = now_ms.saturating_sub(self.began_ms);
        self.client.tell(Happened::Progress(Progress {
            phase,
            received: peer.transfer().applied,
            collections: self.grown(),
            bytes: self.bytes.counted(),
            percent: (all > 0).then(|| done as f64 * 100.0 / all as f64),
            time_left_ms: (done > 0).then(|| took_ms.saturating_mul(all.saturating_sub(done)) / done),
        }));
    }

    /// How much of what waited when the session began the server has, and all of it, in positions of the log.
    fn share(&self, acknowledged: Option<u64>) -> (u64, u64) {
        let done = acknowledged.unwrap_or(self.acknowledged).min(self.head);
        (done.saturating_sub(self.acknowledged), self.head.saturating_sub(self.acknowledged))
    }

    /// How many events came to each collection.
    fn grown(&self) -> BTreeMap<String, u64> {
        let now = counts(&self.client.ledger).unwrap_or_default();
        let since = |name: &String, count: u64| count.saturating_sub(self.counts.get(name).copied().unwrap_or(0));
        let grown = now.into_iter().map(|(name, count)| (since(&name, count), name));
        grown.filter(|(count, _)| *count > 0).map(|(count, name)| (name, count)).collect()
    }

    /// What a session came to that has ended.
    pub(super) fn conclude(self, peer: Option<Peer>, outcome: Result<Transfer>) -> Result<Synced, Fault> {
        let (ledger, notes) = (&self.client.ledger, &self.client.notes);
        let acknowledged = peer.as_ref().and_then(|peer| self.acknowledged_by(peer));
        // What the sessions until then brought; of that is forgotten what the server has by now.
        let mut before = self.before.clone();
        before.rejected = notes.known().rejected;
        if let Some(position) = acknowledged {
            notes.change(|known| known.reach(position))?;
        }
        let transfer = match (outcome, &peer) {
            (Err(fault), Some(peer)) if self.begins_again && fault.kind() == ErrorKind::Cancelled => peer.transfer(),
            (outcome, _) => outcome.map_err(|fault| Fault::in_session(fault, !notes.known().names().1))?,
        };
        let accepted = match (self.began_after, acknowledged) {
            (Some(after), Some(upto)) => self.accept(after, upto)?,
            _ => 0,
        };
        let sent = match acknowledged {
            Some(upto) => outbox::taken(ledger, &before, self.acknowledged, upto)? + accepted,
            None => 0,
        };
        let now_ms = self.client.now_ms();
        Ok(Synced {
            sent,
            received: transfer.applied,
            rejected: self.rejected,
            collections: self.grown(),
            bytes: self.bytes.counted(),
            took_ms: now_ms.saturating_sub(self.began_ms),
            clock_offset_ms: peer.and_then(|peer| peer.clock_offset_ms()).unwrap_or(0),
        })
    }

    /// What was refused before and was sent again without a word about it is taken. Returns how many events that are.
    fn accept(&self, after: u64, upto: u64) -> Result<u64> {
        let known = self.client.notes.known();
        let was_refused: Vec<&String> = known.rejected.keys().filter(|event| !self.refused.contains(event)).collect();
        if was_refused.is_empty() {
            return Ok(0);
        }
        let taken = outbox::between(&self.client.ledger, after, upto, &was_refused)?;
        self.client.notes.change(|known| known.rejected.retain(|event, _| !taken.contains(event)))?;
        Ok(taken.len() as u64)
    }
}

fn counts(ledger: &Ledger) -> Result<BTreeMap<String, u64>> {
    Ok(ledger.collections()?.into_iter().map(|info| (info.name, info.events)).collect())
}
