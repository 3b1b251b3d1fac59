//! The state machine of one connection.

use crate::base::limits::{CLIENT_PIPELINE_BYTES_MAX, CLIENT_REQUEST_BYTES_MAX};
use crate::codec::client::{FrameReader, PROTOCOL_LEGACY, PROTOCOL_VERSION, Refused, Request, request};

use super::client::{Asked, Client, Next};
use super::event::{CloseReason, Reply, SessionEvent};
use super::output::Output;

/// One client connection.
#[derive(Debug)]
pub struct Session {
    frames: FrameReader,
    state: State,
    client: Client,
    out: Output,
}

#[derive(Debug)]
enum State {
    /// The protocol word has not come yet.
    Handshake,
    /// Between requests.
    Idle,
    /// The node works on a request.
    Busy(Job),
    /// To be closed; the event for it is still to be told.
    Closing(CloseReason),
    /// Over.
    Over,
}

/// A request that the node works on.
#[derive(Debug)]
struct Job {
    asked: Asked,
    phase: Phase,
    /// Bytes that had come when it began. An interrupt that was there already was meant for afterwards: C
    /// answers a query and an interrupt sent in one go with all the rows.
    began_at: u64,
}

#[derive(Debug)]
enum Phase {
    /// The node is at it.
    Running {
        /// The node was told to stop.
        interrupted: bool,
    },
    /// The reply is made, and waits for what it reports to be committed.
    Held(Reply),
    /// Rows or parts went out, more will follow.
    Parked,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that waits for the protocol word.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: FrameReader::new(CLIENT_REQUEST_BYTES_MAX),
            state: State::Handshake,
            client: Client::default(),
            out: Output::default(),
        }
    }

    /// Takes bytes from the socket. Ask [`Session::wants_read`] before reading them.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        match self.state {
            State::Closing(_) | State::Over => {}
            State::Handshake | State::Idle | State::Busy(_) => self.frames.feed(bytes),
        }
    }

    /// The client closed the connection, or the socket failed. What it had sent ahead is not looked at.
    pub fn handle_eof(&mut self) {
        if !matches!(self.state, State::Over) {
            self.close(CloseReason::Gone);
        }
    }

    /// Takes the answer to the request in hand, or its next rows. A reply that was held is dropped for it.
    /// Ignored once the session is over: the node may not have known yet.
    ///
    /// # Panics
    /// When no request is in hand.
    pub fn handle_reply(&mut self, reply: Reply) {
        let job = match &mut self.state {
            State::Busy(job) => job,
            State::Closing(_) | State::Over => return,
            State::Handshake | State::Idle => panic!("a reply to no request: {reply:?}"),
        };
        let asked = job.asked;
        if let Reply::RowsPart(messages) = reply {
            job.phase = Phase::Parked;
            self.out.push(messages);
            return;
        }
        if let Reply::SomeParts(parts) = reply {
            job.phase = Phase::Parked;
            self.out.push_shared(parts);
            return;
        }
        self.state = State::Idle;
        match reply {
            Reply::Parts(parts) => self.out.push_shared(parts),
            other => self.out.push(self.client.encode(asked, other)),
        }
    }

    /// Keeps the last reply to the request in hand until [`Session::release_held`]. Meanwhile an interrupt
    /// has nothing to stop.
    ///
    /// # Panics
    /// When no request is in hand.
    pub fn hold_reply(&mut self, reply: Reply) {
        match &mut self.state {
            State::Busy(job) => job.phase = Phase::Held(reply),
            State::Closing(_) | State::Over => {}
            State::Handshake | State::Idle => panic!("a reply to no request: {reply:?}"),
        }
    }

    /// Sends the reply that was held, if there is one.
    pub fn release_held(&mut self) {
        let State::Busy(job) = &mut self.state else { return };
        match std::mem::replace(&mut job.phase, Phase::Running { interrupted: false }) {
            Phase::Held(reply) => self.handle_reply(reply),
            other => job.phase = other,
        }
    }

    /// The node closed the connection's database, as when it stopped leading. Its statements are gone. A request in
    /// hand still wants its reply.
    pub fn handle_database_closed(&mut self) {
        (self.client.database, self.client.anywhere) = (None, false);
    }

    /// Whether the connection has a database.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.client.database.is_some()
    }

    /// The number that the client gave itself.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.client.id
    }

    /// Whether the socket should be read. Always, except when the client sent much ahead of its answers.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        match self.state {
            State::Closing(_) | State::Over => false,
            State::Handshake | State::Idle if self.out.is_empty() => true,
            State::Handshake | State::Idle | State::Busy(_) => {
                self.frames.waiting() < CLIENT_PIPELINE_BYTES_MAX
            }
        }
    }

    /// Bytes to send; empty when there are none.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.rest()
    }

    /// The first `len` bytes of [`Session::output`] were written.
    pub fn handle_written(&mut self, len: usize) {
        self.out.advance(len);
    }

    /// What to do next, on a node that leads or not. `None`: nothing until more bytes come, or more are
    /// written, or a reply is given.
    pub fn poll_event(&mut self, leading: bool) -> Option<SessionEvent> {
        loop {
            match &mut self.state {
                State::Handshake => match self.frames.next_word()? {
                    PROTOCOL_VERSION => self.state = State::Idle,
                    PROTOCOL_LEGACY => {
                        self.client.legacy = true;
                        self.state = State::Idle;
                    }
                    word => self.close(CloseReason::Protocol(word)),
                },
                State::Idle if !self.out.is_empty() => return None,
                State::Idle => {
                    if let Some(event) = self.next_request(leading)? {
                        return Some(event);
                    }
                }
                State::Busy(_) => return self.poll_busy(),
                State::Closing(_) => {
                    let State::Closing(reason) = std::mem::replace(&mut self.state, State::Over) else {
                        return None;
                    };
                    return Some(SessionEvent::Close(reason));
                }
                State::Over => return None,
            }
        }
    }

    /// When the request in hand began, if its interrupt was there already.
    ///
    /// Sent in one go the two mean a query with all its rows, and then an answer to the interrupt. But they may
    /// only have arrived so, and the request may never end by itself: after a while,
    /// [`Session::hear_interrupt`].
    #[must_use]
    pub fn interrupt_that_came_along(&self) -> Option<u64> {
        let State::Busy(Job { asked: Asked::Run, began_at, .. }) = self.state else { return None };
        let came_at = self.interrupt_waiting()?;
        (came_at <= began_at).then_some(began_at)
    }

    /// Lets an interrupt stop the request that began at `began_at`, if that is still in hand.
    pub fn hear_interrupt(&mut self, began_at: u64) {
        if let State::Busy(job) = &mut self.state
            && job.began_at == began_at
        {
            job.began_at = 0;
        }
    }

    /// Whether the request in hand is being stopped.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(&self.state, State::Busy(Job { phase: Phase::Running { interrupted: true }, .. }))
    }

    /// How many bytes had come with the next message, if that is an interrupt.
    fn interrupt_waiting(&self) -> Option<u64> {
        let (header, came_at) = self.frames.peek()?;
        (header.kind == request::INTERRUPT && header.schema == 0).then_some(came_at)
    }

    fn poll_busy(&mut self) -> Option<SessionEvent> {
        let came_at = self.interrupt_waiting();
        let State::Busy(job) = &mut self.state else { return None };
        let interrupt =
            matches!(job.asked, Asked::Run) && came_at.is_some_and(|came_at| came_at > job.began_at);
        match &mut job.phase {
            Phase::Running { interrupted } if interrupt && !*interrupted => {
                *interrupted = true;
                Some(SessionEvent::Interrupt)
            }
            Phase::Running { .. } | Phase::Held(_) => None,
            Phase::Parked if interrupt => {
                self.state = State::Idle;
                Some(SessionEvent::RowsAbandoned)
            }
            Phase::Parked if self.out.is_empty() => {
                job.phase = Phase::Running { interrupted: false };
                Some(SessionEvent::MoreRows)
            }
            Phase::Parked => None,
        }
    }

    /// Reads a request. Outer `None`: none has arrived; inner: it was dealt with here.
    fn next_request(&mut self, leading: bool) -> Option<Option<SessionEvent>> {
        let frame = match self.frames.next_frame() {
            Ok(frame) => frame?,
            Err(error) => {
                self.close(CloseReason::Frame(error));
                return Some(None);
            }
        };
        let next = match Request::decode(frame) {
            Ok(request) => self.client.dispatch(request, leading),
            Err(Refused::Answer(failure)) => Next::failure(&failure),
            Err(Refused::Close(error)) => Next::Close(CloseReason::Body(error)),
        };
        match next {
            Next::Ask(asked, event) => {
                let phase = Phase::Running { interrupted: false };
                self.state = State::Busy(Job { asked, phase, began_at: self.frames.fed() });
                return Some(Some(event));
            }
            Next::Answer(message) => self.out.push(message),
            Next::Close(reason) => self.close(reason),
            Next::Upgrade { id, address } => {
                let frames = std::mem::replace(&mut self.frames, FrameReader::new(0));
                self.state = State::Over;
                return Some(Some(SessionEvent::PeerUpgrade { id, address, rest: frames.into_rest() }));
            }
        }
        Some(None)
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closing(reason);
        self.frames = FrameReader::new(0);
        self.out = Output::default();
    }
}
