//! The loop: waits for events and messages, and steps the state.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::{Desk, Message, Phase, Shell};
use crate::base::limits;
use crate::engine::ConnId;
use crate::runtime::{inline, lone, threads};

/// The token of the waker.
pub const WAKE: Token = Token(0);
/// The token of the listening socket.
pub const LISTEN: Token = Token(1);
/// The token of the first client.
pub(super) const FIRST_CONNECTION: usize = 2;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// A turn that took longer is worth a line for whoever looks into delays.
const LONG_TURN: Duration = Duration::from_millis(10);

/// What the thread on duty waits with.
pub struct Duty {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
}

impl Duty {
    /// The duty of waiting on this poll.
    #[must_use]
    pub fn new(poll: Poll) -> Self {
        Self { poll, events: Events::with_capacity(256), buffer: vec![0; READ_BYTES] }
    }
}

/// Closes the slot if the thread on duty panics, so that nobody waits for it.
struct CloseOnPanic<'a>(&'a Desk);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("the loop panicked: the node serves nobody any more");
            self.0.journal.tell();
            self.0.slot.close(true);
        }
    }
}

/// How a thread's duty ended.
enum End {
    /// The node stopped.
    Stopped,
    /// Another thread took over.
    Overtaken,
}

/// Starts a thread that serves until the node is stopped. It calls others when it needs them.
///
/// # Errors
/// The system has no room for the thread.
pub fn start(desk: &Desk, shell: Box<Shell>, duty: Box<Duty>) -> io::Result<()> {
    recruit(desk, Some((shell, duty)))
}

fn recruit(desk: &Desk, duty: Option<(Box<Shell>, Box<Duty>)>) -> io::Result<()> {
    let own = desk.clone();
    let thread = threads::start("dqlite-loop", move || work(&own, duty))?;
    let mut crew = desk.crew.lock().unwrap_or_else(PoisonError::into_inner);
    crew.retain(|thread| !thread.is_finished());
    crew.push(thread);
    Ok(())
}

/// One thread of the crew: on duty, then standing by, in turn.
fn work(desk: &Desk, mut duty: Option<(Box<Shell>, Box<Duty>)>) {
    let _member = desk.slot.join();
    while let Some((shell, kit)) = duty.take().or_else(|| desk.slot.stand_by()) {
        match serve(desk, shell, kit) {
            End::Stopped => return,
            End::Overtaken => {}
        }
    }
}

/// Serves until stopped or overtaken. While it waits, the state lies in the slot.
fn serve(desk: &Desk, mut shell: Box<Shell>, mut duty: Box<Duty>) -> End {
    let slot = &*desk.slot;
    let _closed_on_panic = CloseOnPanic(desk);
    let clock = shell.clock;
    if !slot.has_standby()
        && let Err(error) = recruit(desk, None)
    {
        log::warn!("no thread stands by, so other threads run all statements: {error}");
    }
    loop {
        shell.turn(&mut duty.buffer);
        match work_here(desk, shell, duty) {
            Some(back) => (shell, duty) = back,
            None => return End::Overtaken,
        }
        if matches!(shell.phase, Phase::Done) {
            drop(shell);
            slot.close(false);
            return End::Stopped;
        }
        let timeout = shell.doze();
        let took = clock.now().since(shell.turn_began);
        shell.meters.turns.record(took);
        if took > LONG_TURN {
            log::debug!("a turn of the loop took {took:?}");
        }
        slot.park(shell);
        let polled = duty.poll.poll(&mut duty.events, timeout);
        let turn_began = clock.now();
        let Some(taken) = slot.take() else { return End::Stopped };
        shell = taken;
        shell.turn_began = turn_began;
        shell.inbox.rouse();
        if let Err(error) = polled
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("waiting for events failed, the node serves nobody any more: {error}");
            slot.close(true);
            return End::Stopped;
        }
        shell.handle_events(&duty.events, &mut duty.buffer);
    }
}

/// Runs short statements, and writes a lone writer's commit. `None` when another thread took over.
fn work_here(desk: &Desk, mut shell: Box<Shell>, mut duty: Box<Duty>) -> Option<(Box<Shell>, Box<Duty>)> {
    for _ in 0..limits::INLINE_PER_TURN_MAX {
        shell.core.begin_burst();
        (shell, duty) = if let Some(work) = shell.ready.pop_front() {
            shell.storing.hand_over();
            inline::run(desk, shell, duty, work)?
        } else if shell.end_burst() {
            (shell, duty)
        } else if let Some(work) = shell.storing.take_own_work() {
            lone::run(desk, shell, duty, work)?
        } else {
            break;
        };
    }
    shell.end_burst();
    shell.storing.hand_over();
    Some((shell, duty))
}

impl Shell {
    fn handle_events(&mut self, events: &Events, buffer: &mut [u8]) {
        let now = self.clock.now();
        self.core.gather_reads(true);
        for event in events {
            match event.token() {
                WAKE => {}
                LISTEN => self.accept(),
                Token(at) => {
                    let conn = ConnId(at.saturating_sub(FIRST_CONNECTION) as u64);
                    if self.peers.owns(conn) {
                        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                        self.peers.handle_ready(conn, readable, buffer, now);
                        continue;
                    }
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
        // The turn that follows asks for their proof.
        self.core.gather_reads(false);
    }

    /// Older messages first, then this one, and what follows from it.
    pub(in crate::runtime) fn step(&mut self, message: Message) {
        let now = self.clock.now();
        self.handle_messages(now);
        self.handle_message(message, now);
        self.step_phase(now);
        self.settle();
    }

    /// No short statement follows at once: what waited for one goes on. Whether anything did.
    fn end_burst(&mut self) -> bool {
        let waited = self.core.end_burst(self.clock.now());
        if waited {
            self.settle();
        }
        waited
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
        self.peers.handle_time(now);
        self.read_on(buffer, now);
        self.sockets.to_flush.append(&mut self.sockets.to_flush_on);
        self.step_phase(now);
        self.settle();
        self.tell_figures(now);
    }
}
