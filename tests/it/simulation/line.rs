//! A connection of a device with the server: what is under way on it comes whole and in order, until it is cut.

use std::collections::VecDeque;

use syncledger::client::{Driven, Synced};
use syncledger::ledger::{Peer, Transfer};
use syncledger::replication::Message;
use syncledger::{Error, ErrorKind, Result};

/// The server's end of a line, and the device's.
pub const SERVER: usize = 0;
pub const DEVICE: usize = 1;

pub struct Line {
    pub server: Peer,
    /// None where the device has given it up.
    device: Option<Driven>,
    /// What is under way to each.
    pub under_way: [VecDeque<Vec<u8>>; 2],
    /// Whether the session goes on once both have what there is.
    follows: bool,
}

impl Line {
    pub fn open(mut server: Peer, (device, said): (Driven, Vec<Message>), follows: bool) -> Self {
        let of_server = server.begin();
        let mut line = Self { server, device: Some(device), under_way: Default::default(), follows };
        line.say(SERVER, of_server);
        line.say(DEVICE, said);
        line
    }

    fn peer(&mut self, side: usize) -> Option<&mut Peer> {
        match side {
            SERVER => Some(&mut self.server),
            _ => self.device.as_mut().map(Driven::peer),
        }
    }

    /// Puts what a side says on its way.
    pub fn say(&mut self, side: usize, messages: Vec<Message>) {
        for message in messages {
            let bytes = self.peer(side).unwrap().encode(message).unwrap();
            self.under_way[1 - side].push_back(bytes);
        }
    }

    /// Delivers what is next for a side. Whether there was anything.
    pub fn deliver(&mut self, side: usize) -> bool {
        let Some(bytes) = self.under_way[side].pop_front() else { return false };
        self.hear(side, &bytes);
        true
    }

    pub fn hear(&mut self, side: usize, bytes: &[u8]) {
        self.step(side, |peer| match peer.decode(bytes) {
            Ok(message) => peer.hear(message),
            Err(fault) => peer.fail(fault),
        });
    }

    pub fn grown(&mut self, side: usize) {
        if self.follows || side == SERVER {
            self.step(side, Peer::grown);
        }
    }

    pub fn tick(&mut self, now_ms: i64) {
        for side in [SERVER, DEVICE] {
            self.step(side, |peer| if peer.due() <= now_ms.cast_unsigned() { peer.tick() } else { Vec::new() });
        }
    }

    fn step(&mut self, side: usize, step: impl FnOnce(&mut Peer) -> Vec<Message>) {
        let Some(peer) = self.peer(side) else { return };
        let mut said = step(peer);
        if side == DEVICE {
            said.extend(self.device.iter_mut().flat_map(Driven::note));
        }
        self.say(side, said);
    }

    pub fn is_ended(&mut self) -> bool {
        [SERVER, DEVICE].into_iter().all(|side| self.peer(side).is_none_or(|peer| peer.is_ended()))
    }

    /// What the session came to that has ended on both sides.
    pub fn finish(mut self) -> (Result<Transfer>, Result<Synced>) {
        (self.server.finish(), self.device.take().unwrap().finish(None))
    }

    /// The device notices that the line is cut.
    pub fn give_up(&mut self) {
        if let Some(device) = self.device.take() {
            let _ = device.finish(Some(Error::new(ErrorKind::Network, "the line was cut")));
        }
    }

    /// The device is gone, and notes nothing any more.
    pub fn lose_device(&mut self) {
        self.device = None;
    }
}
