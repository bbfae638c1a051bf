//! A connection of a device with the server: what is under way on it comes whole and in order, until it is cut.

use std::collections::VecDeque;

use syncledger::Result;
use syncledger::ledger::{Ledger, Peer, SessionOptions, Transfer};
use syncledger::replication::Message;

/// The server's end of a line, and the device's.
pub const SERVER: usize = 0;
pub const DEVICE: usize = 1;

pub struct Line {
    pub peers: [Peer; 2],
    /// What is under way to each.
    pub under_way: [VecDeque<Vec<u8>>; 2],
    /// Whether the session goes on once both have what there is.
    pub follows: bool,
}

impl Line {
    pub fn open(ledgers: [&Ledger; 2], options: [&SessionOptions; 2], again: bool, in_part: bool) -> Result<Self> {
        let peers = [ledgers[0].session(options[0])?, ledgers[1].session(options[1])?];
        let follows = options[DEVICE].follows;
        let mut line = Self { peers, under_way: Default::default(), follows };
        if again {
            line.peers[DEVICE].send_all_again();
        }
        if in_part {
            line.peers[DEVICE].name_in_part();
        }
        for side in [SERVER, DEVICE] {
            let said = line.peers[side].begin();
            line.say(side, said);
        }
        Ok(line)
    }

    /// Puts what a side says on its way.
    pub fn say(&mut self, side: usize, messages: Vec<Message>) {
        for message in messages {
            let bytes = self.peers[side].encode(message).unwrap();
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
        let peer = &mut self.peers[side];
        let said = match peer.decode(bytes) {
            Ok(message) => peer.hear(message),
            Err(fault) => peer.fail(fault),
        };
        self.say(side, said);
    }

    pub fn grown(&mut self, side: usize) {
        if self.follows || side == SERVER {
            let said = self.peers[side].grown();
            self.say(side, said);
        }
    }

    pub fn tick(&mut self, now_ms: i64) {
        for side in [SERVER, DEVICE] {
            if self.peers[side].due() <= now_ms.cast_unsigned() {
                let said = self.peers[side].tick();
                self.say(side, said);
            }
        }
    }

    pub fn is_ended(&self) -> bool {
        self.peers.iter().all(Peer::is_ended)
    }

    pub fn finish(mut self) -> [Result<Transfer>; 2] {
        [self.peers[0].finish(), self.peers[1].finish()]
    }
}
