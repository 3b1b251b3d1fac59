//! The loop: waits for events and messages, and steps the state.

use std::io;

use mio::{Events, Poll, Token};

use super::{Phase, Shell};
use crate::engine::ConnId;
use crate::runtime::slot::Slot;

/// The token of the waker.
pub const WAKE: Token = Token(0);
/// The token of the listening socket.
pub const LISTEN: Token = Token(1);
/// The token of the first client.
pub(super) const FIRST_CONNECTION: usize = 2;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// Closes the slot if the loop panics, so that nobody waits for it.
struct CloseAtEnd<'a>(&'a Slot<Shell>);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("the loop panicked: the node serves nobody any more");
        }
        self.0.close(std::thread::panicking());
    }
}

/// Serves until stopped. While it waits, the state lies in the slot.
pub fn run(slot: &Slot<Shell>, mut shell: Box<Shell>, mut poll: Poll) {
    let _closed_at_end = CloseAtEnd(slot);
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        shell.turn(&mut buffer);
        if matches!(shell.phase, Phase::Done) {
            return;
        }
        let timeout = shell.doze();
        slot.park(shell);
        let polled = poll.poll(&mut events, timeout);
        let Some(taken) = slot.take() else { return };
        shell = taken;
        shell.inbox.rouse();
        if let Err(error) = polled
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("waiting for events failed: {error}");
            return;
        }
        shell.handle_events(&events, &mut buffer);
    }
}

impl Shell {
    fn handle_events(&mut self, events: &Events, buffer: &mut [u8]) {
        let now = self.clock.now();
        for event in events {
            match event.token() {
                WAKE => {}
                LISTEN => self.accept(),
                Token(at) => {
                    let conn = ConnId(at.saturating_sub(FIRST_CONNECTION) as u64);
                    if event.is_writable() {
                        self.sockets.to_flush.insert(conn);
                    }
                    let ends = event.is_read_closed() || event.is_error();
                    if ends || event.is_readable() {
                        self.read(conn, buffer, ends, now);
                    }
                }
            }
        }
    }

    /// Everything but waiting: messages, time, what the core wants.
    fn turn(&mut self, buffer: &mut [u8]) {
        let now = self.clock.now();
        if self.sockets.accept_again.take_if(|at| *at <= now).is_some() {
            self.accept();
        }
        self.handle_messages(now);
        self.core.handle_time(now);
        self.pool.handle_timeout(now);
        self.read_on(buffer, now);
        self.step_phase(now);
        self.settle();
    }
}
