//! Stands between the nodes of a test and writes down what they say to each other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use dqlite::runtime::connect::Connector;

use super::capture::Recorded;

/// What was said so far.
#[derive(Clone)]
pub struct Tap {
    begun: Instant,
    lines: Arc<Mutex<Vec<Recorded>>>,
}

impl Tap {
    /// One that has heard nothing yet.
    pub fn new() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    /// Connects as `inner` does, listens in, and calls who is there by `name`.
    pub fn around(
        &self,
        inner: Connector,
        name: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Connector {
        let tap = self.clone();
        Connector::new(move |address| {
            let there = TcpStream::from(inner.connect(address).map_err(|_| 16)?);
            let (here, given) = UnixStream::pair().map_err(|_| 16)?;
            tap.listen(name(address), &here, &there).map_err(|_| 16)?;
            Ok(OwnedFd::from(given))
        })
    }

    fn listen(&self, to: String, here: &UnixStream, there: &TcpStream) -> io::Result<()> {
        there.set_nonblocking(false)?;
        let number = {
            let mut lines = self.lines.lock().unwrap();
            lines.push(Recorded { to, ..Recorded::default() });
            lines.len() - 1
        };
        let (tap, from, onward) = (self.clone(), here.try_clone()?, there.try_clone()?);
        let both = (here.try_clone()?, there.try_clone()?);
        thread::spawn(move || {
            tap.pass(number, from, onward, |recorded, at, bytes| recorded.sent.push((at, bytes)));
            tap.end(number, &both);
        });
        let (tap, from, onward) = (self.clone(), there.try_clone()?, here.try_clone()?);
        let both = (here.try_clone()?, there.try_clone()?);
        thread::spawn(move || {
            tap.pass(number, from, onward, |recorded, _, bytes| recorded.answered.extend(bytes));
            tap.end(number, &both);
        });
        Ok(())
    }

    /// Passes bytes on until one side ends.
    fn pass(
        &self,
        number: usize,
        mut from: impl Read,
        mut onward: impl Write,
        note: impl Fn(&mut Recorded, f64, Vec<u8>),
    ) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let now = self.begun.elapsed().as_secs_f64();
            note(&mut self.lines.lock().unwrap()[number], now, buffer[..count].to_vec());
            if onward.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }

    fn end(&self, number: usize, (here, there): &(UnixStream, TcpStream)) {
        let now = self.begun.elapsed().as_secs_f64();
        self.lines.lock().unwrap()[number].closed.get_or_insert(now);
        // They may have ended already.
        let _ended = (here.shutdown(Shutdown::Both), there.shutdown(Shutdown::Both));
    }

    /// All connections so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.lines.lock().unwrap().clone()
    }
}
