//! The thread that tells figures to whoever connects: one per address and process, for all nodes that name the
//! address. It sleeps while nobody asks, and ends with the last of its nodes.
//!
//! Any bytes may come, from anybody who can connect: few clients are served at a time, each sends a bounded request
//! and has its answer within a bounded time, or is dropped. The nodes do not notice.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};

use super::checksum::Checksums;
use super::http::{self, Asked, Request};
use super::text::Exposition;
use super::{Probe, table};
use crate::base::Time;
use crate::runtime::clock::Clock;
use crate::runtime::listen::Listener;
use crate::runtime::net::{Acceptor, Connection, ReadOutcome, WriteOutcome};
use crate::runtime::threads;

/// Clients that are served at a time: the oldest goes when there is another one.
pub const GUESTS_MAX: usize = 16;

/// How long one may take to ask and to take its answer.
const GUEST_PATIENCE: Duration = Duration::from_secs(5);

const WAKE: Token = Token(0);
const LISTEN: Token = Token(1);
const FIRST_GUEST: usize = 2;

/// The addresses that figures are told at.
static HUBS: Mutex<BTreeMap<Vec<u8>, Hub>> = Mutex::new(BTreeMap::new());

struct Hub {
    shared: Arc<Shared>,
    waker: Waker,
    thread: JoinHandle<()>,
    address: Option<SocketAddr>,
}

#[derive(Default)]
struct Shared {
    /// By number of the registration.
    probes: Mutex<BTreeMap<u64, Probe>>,
    stop: AtomicBool,
}

/// A node's figures are told as long as this is there.
#[derive(Debug)]
pub struct Registration {
    text: Vec<u8>,
    number: u64,
    address: Option<SocketAddr>,
}

impl Registration {
    /// Tells the figures of this node at an address, given as for `dqlite_node_set_bind_address`.
    ///
    /// # Errors
    /// In words: the text is no address, or the system does not give it away.
    pub fn new(text: &str, probe: Probe) -> Result<Self, String> {
        let mut hubs = lock(&HUBS);
        let text = text.as_bytes().to_vec();
        if !hubs.contains_key(&text) {
            hubs.insert(text.clone(), Hub::start(&text)?);
        }
        let Some(hub) = hubs.get(&text) else { return Err("no thread tells the figures".to_owned()) };
        let mut probes = lock(&hub.shared.probes);
        let number = probes.last_key_value().map_or(1, |(last, _)| last + 1);
        probes.insert(number, probe);
        Ok(Self { text, number, address: hub.address })
    }

    /// Where they are told, with the port that the system chose; none for a name.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut hubs = lock(&HUBS);
        let Some(hub) = hubs.get(&self.text) else { return };
        let empty = {
            let mut probes = lock(&hub.shared.probes);
            probes.remove(&self.number);
            probes.is_empty()
        };
        if empty && let Some(hub) = hubs.remove(&self.text) {
            // Under the lock: else a node that starts now would find the address in use.
            hub.end();
        }
    }
}

impl Hub {
    fn start(text: &[u8]) -> Result<Self, String> {
        let listener = Listener::bind(text).map_err(|error| error.to_string())?;
        listener.listen()?;
        let address = listener.ip_address();
        Self::spawn(listener, address).map_err(|error| format!("no thread tells the figures: {error}"))
    }

    fn spawn(listener: Listener, address: Option<SocketAddr>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let mut acceptor = Acceptor::from(listener);
        poll.registry().register(acceptor.source(), LISTEN, Interest::READABLE)?;
        let shared = Arc::<Shared>::default();
        let mut teller = Teller {
            poll,
            acceptor,
            guests: VecDeque::new(),
            next: FIRST_GUEST,
            clock: Clock::start(),
            shared: Arc::clone(&shared),
            checksums: Checksums::default(),
        };
        let thread = threads::start("dqlite-metrics", move || teller.serve())?;
        Ok(Self { shared, waker, thread, address })
    }

    fn end(self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            // Then it ends with the next client that connects, or with the process.
            log::debug!("the thread that tells figures was not woken: {error}");
        } else if self.thread.join().is_err() {
            log::error!("the thread that tells figures panicked");
        }
    }
}

/// A client.
struct Guest {
    token: Token,
    connection: Connection,
    request: Request,
    /// What is left of the answer, once there is one.
    answer: Option<VecDeque<u8>>,
    until: Time,
}

struct Teller {
    poll: Poll,
    acceptor: Acceptor,
    guests: VecDeque<Guest>,
    next: usize,
    clock: Clock,
    shared: Arc<Shared>,
    checksums: Checksums,
}

impl Teller {
    fn serve(&mut self) {
        let mut events = Events::with_capacity(32);
        loop {
            let timeout = self.guests.front().map(|guest| guest.until.since(self.clock.now()));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("figures are told no more: {error}");
                return;
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let now = self.clock.now();
            while self.guests.front().is_some_and(|guest| guest.until <= now) {
                self.dismiss(0);
            }
            for event in &events {
                match event.token() {
                    WAKE => {}
                    LISTEN => self.accept(now),
                    token => self.serve_guest(token),
                }
            }
        }
    }

    fn accept(&mut self, now: Time) {
        loop {
            let stream = match self.acceptor.accept_any() {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(error) => {
                    log::debug!("nobody is told figures now: {error}");
                    return;
                }
            };
            while self.guests.len() >= GUESTS_MAX {
                self.dismiss(0);
            }
            let token = self.next_token();
            match Connection::new(stream, self.poll.registry(), token) {
                Ok(connection) => {
                    let until = now.after(GUEST_PATIENCE);
                    let request = Request::default();
                    self.guests.push_back(Guest { token, connection, request, answer: None, until });
                    self.serve_guest(token);
                }
                Err(error) => log::debug!("a client that wants figures cannot be served: {error}"),
            }
        }
    }

    fn next_token(&mut self) -> Token {
        let token = Token(self.next);
        self.next = self.next.checked_add(1).unwrap_or(FIRST_GUEST);
        token
    }

    fn dismiss(&mut self, at: usize) {
        if let Some(mut guest) = self.guests.remove(at) {
            guest.connection.deregister(self.poll.registry());
        }
    }

    /// Reads what it asks, and writes what it takes of the answer.
    fn serve_guest(&mut self, token: Token) {
        let Some(at) = self.guests.iter().position(|guest| guest.token == token) else { return };
        if let Some(guest) = self.guests.get_mut(at)
            && guest.answer.is_none()
        {
            match guest.read() {
                Heard::Nothing => return,
                Heard::Gone => return self.dismiss(at),
                Heard::Asked(asked) => {
                    let answer = self.answer(asked);
                    if let Some(guest) = self.guests.get_mut(at) {
                        guest.answer = Some(answer.into());
                    }
                }
            }
        }
        if self.guests.get_mut(at).is_some_and(|guest| guest.write()) {
            self.dismiss(at);
        }
    }

    fn answer(&mut self, asked: Asked) -> Vec<u8> {
        let probes: Vec<Probe> = lock(&self.shared.probes).values().cloned().collect();
        let mut page = Exposition::default();
        match asked {
            Asked::Refused(status) => http::answer(status, &format!("{status}\n")),
            Asked::Metrics => {
                probes.iter().for_each(|probe| probe.collect(&mut page));
                http::answer("200 OK", &page.render(table::METRICS))
            }
            Asked::Checksums => {
                probes.iter().for_each(|probe| self.add_checksums(probe, &mut page));
                http::answer("200 OK", &page.render(table::CHECKSUMS))
            }
        }
    }

    fn add_checksums(&mut self, probe: &Probe, page: &mut Exposition) {
        let Some(report) = probe.ask() else { return };
        let figures = &report.figures;
        let sums = self.checksums.of(probe.id, &figures.databases, &self.shared.stop);
        let id = probe.id.to_string();
        for (name, sum) in sums.into_iter().flatten() {
            let name = String::from_utf8_lossy(name);
            let labels: &[(&str, &str)] = &[("node", &id), ("database", &name)];
            page.add("dqlite_database_checksum", labels, u64::from(sum));
        }
        page.add("dqlite_database_checksum_index", &[("node", &id)], figures.applied.0);
    }
}

/// What came of reading from a client.
enum Heard {
    Nothing,
    Gone,
    Asked(Asked),
}

impl Guest {
    fn read(&mut self) -> Heard {
        let mut buffer = [0; http::REQUEST_BYTES_MAX];
        loop {
            match self.connection.read(&mut buffer) {
                ReadOutcome::Bytes(count) => {
                    if let Some(asked) = self.request.push(buffer.get(..count).unwrap_or_default()) {
                        return Heard::Asked(asked);
                    }
                }
                ReadOutcome::Nothing => return Heard::Nothing,
                ReadOutcome::Gone => return Heard::Gone,
            }
        }
    }

    /// Whether it is done with.
    fn write(&mut self) -> bool {
        let Some(answer) = &mut self.answer else { return false };
        while !answer.is_empty() {
            match self.connection.write(answer.make_contiguous()) {
                WriteOutcome::Bytes(count) => drop(answer.drain(..count.min(answer.len()))),
                WriteOutcome::Blocked => return false,
                WriteOutcome::Gone => return true,
            }
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
