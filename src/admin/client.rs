//! A blocking client of a node, for the managed server: finds the leader and asks for the cluster.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::member::Member;
use crate::base::{NodeId, Time};
use crate::codec::client::{Context, Format, FrameReader, PROTOCOL_VERSION, Request, Response};
use crate::runtime::clock::Clock;
use crate::runtime::connect::Connector;

/// No list of servers comes near this.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The time that is left for a piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    clock: Clock,
    end: Time,
}

impl Budget {
    /// This long from now.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self { clock: Clock::start(), end: Time::default().after(duration) }
    }

    /// What is left; `None` when nothing is.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        Some(self.end.since(self.clock.now())).filter(|left| !left.is_zero())
    }
}

/// A connection to one node.
pub struct Client {
    /// Any kind of stream socket: nothing here depends on its family.
    stream: TcpStream,
    frames: FrameReader,
}

impl Client {
    /// Connects and says which protocol it speaks.
    ///
    /// # Errors
    /// In words. The time that connecting takes is not bounded by the budget, only what comes after.
    pub fn connect(connector: &Connector, address: &str, budget: &Budget) -> Result<Self, String> {
        let fd = connector.connect(address).map_err(|error| format!("'{address}': {error}"))?;
        let mut client = Self { stream: TcpStream::from(fd), frames: FrameReader::new(ANSWER_BYTES_MAX) };
        let begun = client
            .stream
            .set_nonblocking(false)
            .and_then(|()| client.write(&PROTOCOL_VERSION.to_le_bytes(), budget));
        begun.map_err(|error| format!("'{address}': {error}"))?;
        Ok(client)
    }

    /// The node that leads; `None` when this one knows of none.
    ///
    /// # Errors
    /// In words.
    pub fn leader(&mut self, budget: &Budget) -> Result<Option<(NodeId, String)>, String> {
        self.ask(Request::Leader, budget, |response| match response {
            Response::Server { address: [], .. } => Ok(None),
            Response::Server { id, address } => {
                let address = String::from_utf8(address.to_vec());
                Ok(Some((id, address.map_err(|_| "leader: an address in UTF-8 expected".to_owned())?)))
            }
            other => Err(unexpected("the leader", &other)),
        })
    }

    /// The servers of the cluster, with their roles.
    ///
    /// # Errors
    /// In words.
    pub fn cluster(&mut self, budget: &Budget) -> Result<Vec<Member>, String> {
        self.ask(Request::Cluster { format: 1 }, budget, |response| match response {
            Response::Servers { servers, .. } => Ok(servers
                .iter()
                .map(|server| Member { id: server.id, address: server.address.to_vec(), role: server.role })
                .collect()),
            other => Err(unexpected("a list of servers", &other)),
        })
    }

    fn ask<R>(
        &mut self,
        request: Request<'_>,
        budget: &Budget,
        answer: impl FnOnce(Response<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let message = request.encode().ok_or("a request that fits into a message expected")?;
        self.write(&message, budget).map_err(|error| error.to_string())?;
        let mut chunk = [0; 4096];
        while self.frames.peek().is_none() {
            let len = self.read(&mut chunk, budget).map_err(|error| error.to_string())?;
            self.frames.feed(chunk.get(..len).unwrap_or_default());
        }
        let frame = self.frames.next_frame().map_err(|error| error.to_string())?;
        let frame = frame.ok_or("an answer expected")?;
        let context = Context { legacy: false, format: Format::Roles };
        answer(Response::decode(frame, context).map_err(|error| error.to_string())?)
    }

    fn write(&mut self, bytes: &[u8], budget: &Budget) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(budget)?))?;
        // The standard library sends with MSG_NOSIGNAL.
        self.stream.write_all(bytes)
    }

    fn read(&mut self, chunk: &mut [u8], budget: &Budget) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(budget)?))?;
        match self.stream.read(chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(len),
        }
    }
}

fn left(budget: &Budget) -> io::Result<Duration> {
    budget.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn unexpected(expected: &str, found: &Response<'_>) -> String {
    match found {
        Response::Failure { code, text } => {
            format!("{expected} expected, found failure {code} '{}'", String::from_utf8_lossy(text))
        }
        _ => format!("{expected} expected, found another answer"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;
    use crate::base::Role;
    use crate::codec::client::ServerEntry;

    /// A connector to a peer that answers each request with the next of `answers`, then closes.
    pub fn answering(answers: Vec<Response<'static>>) -> Connector {
        let answers = Mutex::new(answers);
        Connector::new(move |_| {
            let (near, mut far) = UnixStream::pair().map_err(|_| 1)?;
            let answers = std::mem::take(&mut *answers.lock().unwrap());
            let serve = move || {
                let mut word = [0; 8];
                far.read_exact(&mut word).unwrap();
                assert_eq!(u64::from_le_bytes(word), PROTOCOL_VERSION);
                for answer in answers {
                    let mut request = [0; 16];
                    far.read_exact(&mut request).unwrap();
                    far.write_all(&answer.encode()).unwrap();
                }
            };
            crate::runtime::threads::start("test-peer", serve).map_err(|_| 1)?;
            Ok(OwnedFd::from(near))
        })
    }

    const BUDGET: Duration = Duration::from_secs(30);

    #[test]
    fn the_leader_and_the_cluster_are_asked_for() {
        let entry = |id, address, role| ServerEntry { id: NodeId(id), address, role };
        let servers = vec![entry(1, b"a".as_slice(), Role::Voter), entry(2, b"b", Role::Spare)];
        let connector = answering(vec![
            Response::Server { id: NodeId(0), address: b"" },
            Response::Server { id: NodeId(2), address: b"b" },
            Response::Servers { format: Format::Roles, servers },
        ]);
        let budget = Budget::new(BUDGET);
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        assert_eq!(client.leader(&budget).unwrap(), None);
        assert_eq!(client.leader(&budget).unwrap(), Some((NodeId(2), "b".to_owned())));
        let member = |id, address: &[u8], role| Member { id: NodeId(id), address: address.to_vec(), role };
        assert_eq!(
            client.cluster(&budget).unwrap(),
            [member(1, b"a", Role::Voter), member(2, b"b", Role::Spare)]
        );
    }

    #[test]
    fn a_failure_and_a_closed_connection_are_errors_in_words() {
        let connector = answering(vec![Response::Failure { code: 1, text: b"no" }]);
        let budget = Budget::new(BUDGET);
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        assert_eq!(client.leader(&budget).unwrap_err(), "the leader expected, found failure 1 'no'");
        client.leader(&budget).unwrap_err();
    }

    #[test]
    fn a_silent_peer_costs_the_budget_and_no_more() {
        let silent = Mutex::new(Vec::new());
        let connector = Connector::new(move |_| {
            let (near, far) = UnixStream::pair().map_err(|_| 1)?;
            silent.lock().unwrap().push(far);
            Ok(OwnedFd::from(near))
        });
        let budget = Budget::new(Duration::from_millis(20));
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        client.leader(&budget).unwrap_err();
        assert_eq!(budget.left(), None);
    }
}
