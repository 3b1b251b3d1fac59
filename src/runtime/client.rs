//! A blocking client of a node, for threads that ask other nodes about the cluster, or for changes of it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::connect::Connector;
use crate::base::{NodeId, Role, Time};
use crate::codec::client::{Context, Format, FrameReader, PROTOCOL_VERSION, Request, Response};
use crate::roles::Metadata;

/// No list of servers comes near this.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How soon a client that waits sees that it is to give up.
const CANCEL_DELAY: Duration = Duration::from_millis(20);

/// A server of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub address: Vec<u8>,
    /// Its role.
    pub role: Role,
}

/// The time that is left for a piece of work.
#[derive(Clone, Debug)]
pub struct Budget {
    clock: Clock,
    end: Time,
    cancelled: Arc<AtomicBool>,
}

impl Budget {
    /// This long from now.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self::cancellable(duration, &Arc::default())
    }

    /// This long from now, or until `cancelled` is set.
    #[must_use]
    pub fn cancellable(duration: Duration, cancelled: &Arc<AtomicBool>) -> Self {
        let end = Time::default().after(duration);
        Self { clock: Clock::start(), end, cancelled: Arc::clone(cancelled) }
    }

    /// What is left; `None` when nothing is.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = self.end.since(self.clock.now());
        (!left.is_zero() && !self.cancelled.load(Ordering::Acquire)).then_some(left)
    }

    /// How long to wait for something at once, for it has to be looked whether to give up.
    fn slice(&self) -> io::Result<Duration> {
        let left = self.left().ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(left.min(CANCEL_DELAY))
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The node answered with a failure.
    Refused {
        /// Its code.
        code: u64,
        /// Its text.
        text: String,
    },
    /// There is no answer: in words.
    Broken(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } => write!(f, "failure {code} '{text}'"),
            Self::Broken(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for AskError {}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A connection to one node.
pub struct Client {
    /// Any kind of stream socket: nothing here depends on its family.
    stream: TcpStream,
    address: String,
    frames: FrameReader,
}

impl Client {
    /// Where the node is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects and says which protocol it speaks.
    ///
    /// # Errors
    /// In words. The time that connecting takes is not bounded by the budget, only what comes after.
    pub fn connect(connector: &Connector, address: &str, budget: &Budget) -> Result<Self, String> {
        let fd = connector.connect(address).map_err(|error| format!("'{address}': {error}"))?;
        let frames = FrameReader::new(ANSWER_BYTES_MAX);
        let mut client = Self { stream: TcpStream::from(fd), address: address.to_owned(), frames };
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
    /// As [`AskError`] says.
    pub fn leader(&mut self, budget: &Budget) -> Result<Option<(NodeId, String)>, AskError> {
        self.ask(Request::Leader, budget, |response| match response {
            Response::Server { address: [], .. } => Ok(None),
            Response::Server { id, address } => {
                let address = String::from_utf8(address.to_vec());
                let address = address.map_err(|_| broken("leader: an address in UTF-8 expected"))?;
                Ok(Some((id, address)))
            }
            other => Err(unexpected("the leader", &other)),
        })
    }

    /// The servers of the cluster, with their roles.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn cluster(&mut self, budget: &Budget) -> Result<Vec<Member>, AskError> {
        self.ask(Request::Cluster { format: 1 }, budget, |response| match response {
            Response::Servers { servers, .. } => Ok(servers
                .iter()
                .map(|server| Member { id: server.id, address: server.address.to_vec(), role: server.role })
                .collect()),
            other => Err(unexpected("a list of servers", &other)),
        })
    }

    /// The failure domain and the weight of the node.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn describe(&mut self, budget: &Budget) -> Result<Metadata, AskError> {
        self.ask(Request::Describe { format: 0 }, budget, |response| match response {
            Response::Metadata { failure_domain, weight } => Ok(Metadata { failure_domain, weight }),
            other => Err(unexpected("a description", &other)),
        })
    }

    /// Has the leader add a server, which becomes a spare.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn add(&mut self, id: NodeId, address: &[u8], budget: &Budget) -> Result<(), AskError> {
        self.order(Request::Add { id, address }, budget)
    }

    /// Has the leader give a server another role.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn assign(&mut self, id: NodeId, role: Role, budget: &Budget) -> Result<(), AskError> {
        self.order(Request::Assign { id, role }, budget)
    }

    fn order(&mut self, request: Request<'_>, budget: &Budget) -> Result<(), AskError> {
        self.ask(request, budget, |response| match response {
            Response::Empty => Ok(()),
            other => Err(unexpected("an empty answer", &other)),
        })
    }

    fn ask<R>(
        &mut self,
        request: Request<'_>,
        budget: &Budget,
        answer: impl FnOnce(Response<'_>) -> Result<R, AskError>,
    ) -> Result<R, AskError> {
        let message =
            request.encode().ok_or_else(|| broken("a request that fits into a message expected"))?;
        self.write(&message, budget)?;
        let mut chunk = [0; 4096];
        while self.frames.peek().is_none() {
            let len = self.read(&mut chunk, budget)?;
            self.frames.feed(chunk.get(..len).unwrap_or_default());
        }
        let frame = self.frames.next_frame().map_err(|error| AskError::Broken(error.to_string()))?;
        let frame = frame.ok_or_else(|| broken("an answer expected"))?;
        let context = Context { legacy: false, format: Format::Roles };
        answer(Response::decode(frame, context).map_err(|error| AskError::Broken(error.to_string()))?)
    }

    fn write(&mut self, bytes: &[u8], budget: &Budget) -> io::Result<()> {
        self.stream.set_write_timeout(Some(budget.left().ok_or(io::ErrorKind::TimedOut)?))?;
        // The standard library sends with MSG_NOSIGNAL.
        self.stream.write_all(bytes)
    }

    fn read(&mut self, chunk: &mut [u8], budget: &Budget) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(budget.slice()?))?;
            match self.stream.read(chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn broken(text: &str) -> AskError {
    AskError::Broken(text.to_owned())
}

fn unexpected(expected: &str, found: &Response<'_>) -> AskError {
    match found {
        Response::Failure { code, text } => {
            AskError::Refused { code: *code, text: String::from_utf8_lossy(text).into_owned() }
        }
        _ => AskError::Broken(format!("{expected} expected, found another answer")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;
    use crate::base::Role;
    use crate::codec::client::ServerEntry;

    /// A connector to a peer that answers each request with the next of `answers`, then closes.
    pub fn answering(answers: Vec<Response<'static>>) -> Connector {
        recording(answers).0
    }

    /// The types of the requests that a peer got.
    pub type Asked = Arc<Mutex<Vec<u8>>>;

    /// As [`answering`]; tells also what it was asked.
    pub fn recording(answers: Vec<Response<'static>>) -> (Connector, Asked) {
        let answers = Mutex::new(answers);
        let asked = Asked::default();
        let record = Arc::clone(&asked);
        let connector = Connector::new(move |_| {
            let (near, mut far) = UnixStream::pair().map_err(|_| 1)?;
            let answers = std::mem::take(&mut *answers.lock().unwrap());
            let record = Arc::clone(&record);
            let serve = move || {
                let mut word = [0; 8];
                far.read_exact(&mut word).unwrap();
                assert_eq!(u64::from_le_bytes(word), PROTOCOL_VERSION);
                for answer in answers {
                    let mut head = [0; 8];
                    far.read_exact(&mut head).unwrap();
                    let words = u32::from_le_bytes(head[..4].try_into().unwrap());
                    far.read_exact(&mut vec![0; words as usize * 8]).unwrap();
                    record.lock().unwrap().push(head[4]);
                    far.write_all(&answer.encode()).unwrap();
                }
            };
            crate::runtime::threads::start("test-peer", serve).map_err(|_| 1)?;
            Ok(OwnedFd::from(near))
        });
        (connector, asked)
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
    fn a_server_is_described_added_and_given_a_role() {
        let metadata = Response::Metadata { failure_domain: 3, weight: 4 };
        let (connector, asked) = recording(vec![metadata, Response::Empty, Response::Empty]);
        let budget = Budget::new(BUDGET);
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        assert_eq!(client.describe(&budget), Ok(Metadata { failure_domain: 3, weight: 4 }));
        assert_eq!(client.add(NodeId(2), b"b", &budget), Ok(()));
        assert_eq!(client.assign(NodeId(2), Role::Voter, &budget), Ok(()));
        assert_eq!(*asked.lock().unwrap(), [18, 12, 13]);
    }

    #[test]
    fn a_failure_and_a_closed_connection_are_errors_in_words() {
        let connector = answering(vec![Response::Failure { code: 1, text: b"no" }]);
        let budget = Budget::new(BUDGET);
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        let refused = AskError::Refused { code: 1, text: "no".to_owned() };
        assert_eq!(client.leader(&budget).unwrap_err(), refused);
        assert_eq!(refused.to_string(), "failure 1 'no'");
        assert!(matches!(client.leader(&budget).unwrap_err(), AskError::Broken(_)));
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

    #[test]
    fn whoever_waits_for_an_answer_can_be_called_off() {
        let (near, _far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        let connector = Connector::new(move |_| near.try_clone().map_err(|_| 1));
        let cancelled = Arc::default();
        let budget = Budget::cancellable(Duration::from_secs(3600), &cancelled);
        let mut client = Client::connect(&connector, "x", &budget).unwrap();
        let waiting = crate::runtime::threads::start("test-client", move || {
            client.leader(&budget).unwrap_err();
        });
        cancelled.store(true, Ordering::Release);
        waiting.unwrap().join().unwrap();
    }
}
