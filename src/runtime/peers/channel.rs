//! The outgoing channel to one peer: what waits to be sent, and whether there is a connection for it.
//!
//! Sans-io: messages come in through [`Channel::send`], what became of dials and writes through `handle_*`; what to
//! do comes out of [`Channel::poll_action`], the bytes to write out of [`Channel::gather`].
//!
//! Rules, those of the C library where not said otherwise: the first message dials; a failed dial leaves the newest
//! three messages and is repeated; a connection on which a write failed is replaced at once. Beyond that, the pause
//! before a dial is repeated is short at first and never as long as C's, what waits is bounded (entries that find no
//! room count as lost, and consensus sends them again), a peer that closes its side is noticed before a message is
//! lost on it, and one that connects to us is dialed without waiting.
//!
//! A peer that closes its side stops, as a rule, and nobody listens at its address. C loses the next message to it, and
//! dials with the one after; programs rely on that pause (connect functions that must not fail while a program takes
//! its servers down). So here too it is the second message that dials, but the first one is kept.
//!
//! A message that was written may be lost all the same: only consensus knows what arrived.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::base::limits::{
    PEER_CLOSED_PAUSE, PEER_DIAL_RETRY, PEER_DIAL_RETRY_MAX, PEER_KEPT_MESSAGES, PEER_QUEUE_BYTES_MAX,
    PEER_QUEUE_MESSAGES_MAX,
};
use crate::base::{Payload, Piece, Time};
use crate::codec::peer::{Message, Unsendable, encode, encode_head};

#[cfg(test)]
mod tests;

/// Parts of messages that one write takes.
const PARTS_PER_WRITE: usize = 256;

/// A message on its way out. What entries carry is shared, never copied.
#[derive(Debug)]
pub struct Outgoing {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Entries or a heartbeat: its loss changes how the leader goes on with the peer.
    append: bool,
    /// Says something about this moment only: an order to lead at once, which would depose a leader when it comes
    /// to a peer that was away.
    fleeting: bool,
}

impl Outgoing {
    /// A message of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes: len, pieces: VecDeque::from([Piece::Owned(bytes)]), append: false, fleeting: false }
    }

    /// A message in the form of the wire.
    ///
    /// # Errors
    /// No peer could read it.
    pub fn encode(message: &Message) -> Result<Self, Unsendable> {
        if let Message::AppendEntries(append) = message {
            let payloads = append.entries.iter().map(|entry| &entry.payload);
            return Ok(Self::append(encode_head(append)?, payloads));
        }
        let mut bytes = Vec::new();
        encode(message, &mut bytes)?;
        Ok(Self { fleeting: matches!(message, Message::TimeoutNow(_)), ..Self::new(bytes) })
    }

    /// Entries: the bytes before what they carry, and that.
    pub fn append<'a>(head: Vec<u8>, payloads: impl Iterator<Item = &'a Payload>) -> Self {
        let mut message = Self { append: true, ..Self::new(head) };
        for payload in payloads {
            message.bytes = message.bytes.saturating_add(payload.len());
            let parts = payload.shared_parts().filter(|part| !part.is_empty());
            message.pieces.extend(parts.map(|part| Piece::Shared(Arc::clone(part))));
        }
        message
    }
}

/// What a channel wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to this address; [`Channel::handle_connected`] or [`Channel::handle_refused`] says how it went.
    Dial {
        /// Names the attempt.
        attempt: u64,
        /// Where to.
        address: String,
    },
    /// Drop the connection.
    HangUp,
    /// Tell consensus that an append will not arrive.
    Lost,
}

#[derive(Debug)]
enum State {
    /// Nothing was to be sent since there was last a connection.
    Idle,
    /// Somebody tries to connect.
    Dialing,
    /// The last attempt failed; the next one is then.
    Waiting(Time),
    /// The peer has closed its side while nothing was to be sent. The next attempt is then, if not sooner.
    Closed(Time),
    Open {
        /// A whole message was written: this is not a peer that closes whatever it accepts.
        proven: bool,
    },
}

/// The channel to one peer.
#[derive(Debug)]
pub struct Channel {
    address: String,
    state: State,
    attempt: u64,
    /// How long to wait after the next failure: attempts have failed since a message was last written whole.
    pause: Duration,
    queue: VecDeque<Outgoing>,
    /// Bytes in the queue that are not written.
    waiting: usize,
    /// Bytes written of the first message's first piece, and whether any of that message were.
    written: usize,
    begun: bool,
    actions: VecDeque<Action>,
}

impl Channel {
    /// A channel without a connection.
    #[must_use]
    pub fn new(address: String) -> Self {
        Self {
            address,
            state: State::Idle,
            attempt: 0,
            pause: PEER_DIAL_RETRY,
            queue: VecDeque::new(),
            waiting: 0,
            written: 0,
            begun: false,
            actions: VecDeque::new(),
        }
    }

    /// What to do now, if anything.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_time`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if let State::Waiting(until) | State::Closed(until) = self.state { Some(until) } else { None }
    }

    /// Whether nothing waits and nobody is connected or connecting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Sends a message to the peer, whose address is this now.
    pub fn send(&mut self, address: &str, message: Outgoing) {
        if self.address != address {
            address.clone_into(&mut self.address);
            self.abort();
        }
        if message.fleeting && matches!(self.state, State::Waiting(_)) {
            return;
        }
        let urgent = message.fleeting;
        let full = self.waiting.saturating_add(message.bytes) > PEER_QUEUE_BYTES_MAX;
        if full && message.append && !self.queue.is_empty() {
            return self.lose(&message);
        }
        self.waiting = self.waiting.saturating_add(message.bytes);
        self.queue.push_back(message);
        if self.queue.len() > PEER_QUEUE_MESSAGES_MAX {
            // The oldest that can still be taken back: newer ones say more.
            self.drop_at(usize::from(self.begun));
        }
        let dials = match self.state {
            State::Idle => true,
            State::Closed(_) => self.queue.len() > 1 || urgent,
            _ => false,
        };
        if dials {
            self.dial();
        }
    }

    /// The attempt has led to a connection. False if it is not wanted any more.
    #[must_use]
    pub fn handle_connected(&mut self, attempt: u64) -> bool {
        let wanted = attempt == self.attempt && matches!(self.state, State::Dialing);
        if wanted {
            self.state = State::Open { proven: false };
        }
        wanted
    }

    /// The attempt has failed.
    pub fn handle_refused(&mut self, attempt: u64, now: Time) {
        if attempt == self.attempt && matches!(self.state, State::Dialing) {
            while let Some(at) = self.queue.iter().position(|message| message.fleeting) {
                self.drop_at(at);
            }
            while self.queue.len() > PEER_KEPT_MESSAGES {
                self.drop_at(0);
            }
            self.wait(now);
        }
    }

    /// Time went on.
    pub fn handle_time(&mut self, now: Time) {
        if matches!(self.state, State::Waiting(until) | State::Closed(until) if until <= now) {
            if self.queue.is_empty() {
                self.state = State::Idle;
            } else {
                self.dial();
            }
        }
    }

    /// The peer has connected to us: it is there.
    pub fn handle_heard(&mut self) {
        if let State::Waiting(until) | State::Closed(until) = &mut self.state {
            *until = Time(0);
        }
    }

    /// Whether there are bytes and a connection for them.
    #[must_use]
    pub fn has_output(&self) -> bool {
        matches!(self.state, State::Open { .. }) && !self.queue.is_empty()
    }

    /// The next bytes to write, in their parts.
    pub fn gather<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>) {
        let pieces = self.queue.iter().flat_map(|message| &message.pieces).map(Piece::bytes);
        for (number, bytes) in pieces.take(PARTS_PER_WRITE).enumerate() {
            let from = if number == 0 { self.written } else { 0 };
            slices.push(IoSlice::new(bytes.get(from..).unwrap_or_default()));
        }
    }

    /// So many bytes of them were written.
    pub fn handle_written(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
        self.written = self.written.saturating_add(count);
        self.begun |= count > 0;
        while let Some(message) = self.queue.front_mut() {
            let Some(piece) = message.pieces.front() else {
                self.queue.pop_front();
                self.begun = self.written > 0;
                if let State::Open { proven } = &mut self.state {
                    *proven = true;
                    self.pause = PEER_DIAL_RETRY;
                }
                continue;
            };
            let len = piece.bytes().len();
            if self.written < len {
                return;
            }
            self.written -= len;
            message.bytes = message.bytes.saturating_sub(len);
            message.pieces.pop_front();
        }
    }

    /// The connection is gone: a write failed, or the peer closed it.
    pub fn handle_broken(&mut self, now: Time) {
        let State::Open { proven } = self.state else { return };
        self.actions.push_back(Action::HangUp);
        if self.begun {
            // The peer has the beginning, and the rest has no meaning to it on another connection.
            self.drop_at(0);
        }
        if self.queue.is_empty() {
            self.state = State::Closed(now.after(PEER_CLOSED_PAUSE));
        } else if proven {
            self.dial();
        } else {
            self.wait(now);
        }
    }

    /// The attempt led to nothing: the next one is made after a pause, which grows.
    fn wait(&mut self, now: Time) {
        self.state = State::Waiting(now.after(self.pause));
        self.pause = self.pause.saturating_mul(2).min(PEER_DIAL_RETRY_MAX);
    }

    /// Gives up everything.
    fn abort(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            self.actions.push_back(Action::HangUp);
        }
        while !self.queue.is_empty() {
            self.drop_at(0);
        }
        (self.state, self.pause) = (State::Idle, PEER_DIAL_RETRY);
    }

    fn dial(&mut self) {
        self.attempt += 1;
        self.state = State::Dialing;
        self.actions.push_back(Action::Dial { attempt: self.attempt, address: self.address.clone() });
    }

    fn drop_at(&mut self, at: usize) {
        let Some(message) = self.queue.remove(at) else { return };
        let written = if at == 0 { std::mem::take(&mut self.written) } else { 0 };
        self.begun &= at > 0;
        self.waiting = self.waiting.saturating_sub(message.bytes.saturating_sub(written));
        self.lose(&message);
    }

    fn lose(&mut self, message: &Outgoing) {
        // Once says it all.
        if message.append && !self.actions.contains(&Action::Lost) {
            self.actions.push_back(Action::Lost);
        }
    }
}
