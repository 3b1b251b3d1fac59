//! Transcripts of the C library replayed, over sockets, against sessions whose node is a script: everything that
//! a session answers by itself. And the replay itself: it must see what differs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "a server in threads")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dqlite::base::{NodeId, Role};
use dqlite::codec::client::{OwnedParams, Param, RowsWriter, failure};
use dqlite::session::{Reply, ServerInfo, Session, SessionEvent, Sql};
use support::client::{Answer, Client, Value};
use support::transcript::{Step, Transcript, load_all};

mod support;

/// What the script knows, as a transcript's setup says.
struct Node {
    leading: bool,
    leader: &'static str,
    voters: &'static [&'static str],
    weight: Mutex<u64>,
    /// A planted bug: the fault that the replay must see.
    answers_weight: bool,
}

/// How long a silent node is watched.
const QUIET: Duration = Duration::from_millis(20);

const SINGLE: &[&str] = &["127.0.0.1:9001"];
const THREE: &[&str] = &["127.0.0.1:19780", "127.0.0.1:19781", "127.0.0.1:19782"];

impl Node {
    fn single() -> Self {
        Self { leading: true, leader: SINGLE[0], voters: SINGLE, weight: Mutex::new(0), answers_weight: true }
    }

    fn follower() -> Self {
        Self { leading: false, leader: THREE[0], voters: THREE, ..Self::single() }
    }

    fn reply(&self, event: &SessionEvent) -> Option<Reply> {
        Some(match event {
            SessionEvent::Leader { .. } => Reply::Server { id: NodeId(1), address: self.leader.into() },
            SessionEvent::Open { .. } => Reply::Opened,
            SessionEvent::Cluster => {
                let voters = (1..).zip(self.voters).map(|(id, address)| ServerInfo {
                    id: NodeId(id),
                    address: address.as_bytes().to_vec(),
                    role: Role::Voter,
                });
                Reply::Servers(voters.collect())
            }
            SessionEvent::Dump { .. } => Reply::Failure(failure::DATABASE_MISSING),
            SessionEvent::Describe => {
                Reply::Metadata { failure_domain: 0, weight: *self.weight.lock().unwrap() }
            }
            SessionEvent::Weight { weight } => {
                *self.weight.lock().unwrap() = if self.answers_weight { *weight } else { 0 };
                Reply::Empty
            }
            SessionEvent::Sql(Sql::QuerySql { params, .. }) => {
                assert_eq!(params, &OwnedParams::new(&[Param::Text(b"one")]));
                rows(0)
            }
            SessionEvent::MoreRows => rows(1),
            _ => return None,
        })
    }
}

/// One integer per message, the second message being the last.
fn rows(value: i64) -> Reply {
    let mut rows = RowsWriter::new(["n"]);
    rows.begin_row();
    rows.push(dqlite::codec::client::Cell::Integer(value));
    if value == 0 { Reply::RowsPart(rows.take_part()) } else { Reply::Message(rows.finish()) }
}

/// Runs `body` with the address of a server.
fn with_server<R>(node: &Node, body: impl FnOnce(&str) -> R) -> R {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let over = AtomicBool::new(false);
    /// Ends the accepting thread, also when `body` panics: else the failed test would never end.
    struct Stop<'a>(&'a AtomicBool, &'a str);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            TcpStream::connect(self.1).unwrap();
        }
    }
    thread::scope(|scope| {
        let _stop = Stop(&over, &address);
        scope.spawn(|| {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                scope.spawn(|| serve(node, stream));
            }
        });
        body(&address)
    })
}

fn serve(node: &Node, mut stream: TcpStream) {
    let (mut session, mut chunk) = (Session::new(), [0; 4096]);
    loop {
        while let Some(event) = session.poll_event(node.leading) {
            match event {
                SessionEvent::Close(_) => return,
                // What the peer sends is nobody's business here; it hangs up in the end.
                SessionEvent::PeerUpgrade { .. } => {
                    while stream.read(&mut chunk).is_ok_and(|len| len > 0) {}
                    return;
                }
                event => {
                    if let Some(reply) = node.reply(&event) {
                        session.handle_reply(reply);
                    }
                }
            }
        }
        if session.output().is_empty() {
            match stream.read(&mut chunk) {
                Ok(len) if len > 0 => session.handle_bytes(&chunk[..len]),
                Ok(_) => session.handle_eof(),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => session.handle_eof(),
                Err(error) => panic!("{error}"),
            }
        } else {
            let written = stream.write(session.output()).unwrap();
            session.handle_written(written);
        }
    }
}

fn transcript(name: &str) -> Transcript {
    load_all().into_iter().find(|transcript| transcript.name == name).unwrap()
}

fn differences(node: &Node, transcript: &Transcript) -> Vec<String> {
    with_server(node, |address| transcript.replay(address, None, QUIET))
}

#[test]
fn sessions_answer_as_c_does_wherever_the_node_has_no_say() {
    let single = ["01-handshake", "02-envelope-errors", "03-open-and-lookup"];
    for (name, node) in single.map(|name| (name, Node::single())) {
        assert_eq!(differences(&node, &transcript(name)), [""; 0], "{name}");
    }
    assert_eq!(differences(&Node::follower(), &transcript("14-follower")), [""; 0]);
}

#[test]
fn the_replay_sees_a_wrong_answer_a_missing_one_a_surplus_one_and_a_connection_that_lives_or_dies() {
    let wrong = differences(&Node { answers_weight: false, ..Node::single() }, &transcript("01-handshake"));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("01-handshake step 8"), "{wrong:?}");

    let changed = |name, number: usize, change: fn(&mut Step)| {
        let mut transcript = transcript(name);
        change(&mut transcript.steps[number]);
        transcript.steps.drain(number + 1..);
        let found = differences(&Node::single(), &transcript);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    // The answers of a node that talks too much, dies, says too little, or lives.
    let silent = |step: &mut Step| (step.recv, step.closed, step.silent) = (vec![], false, true);
    assert!(changed("01-handshake", 1, silent).ends_with("unexpected data"));
    assert!(changed("01-handshake", 13, silent).ends_with("closed by the node"));
    assert!(changed("01-handshake", 13, |step| step.recv = vec![0; 8]).ends_with("closed by the node"));
    let closed = |step: &mut Step| (step.recv, step.closed) = (vec![], true);
    assert!(changed("01-handshake", 1, closed).ends_with("unexpected data"));
    let expected = |step: &mut Step| step.expect = Some("failure 12 other".to_owned());
    assert!(changed("03-open-and-lookup", 1, expected).ends_with("want failure 12 other"));
    let defect = |step: &mut Step| step.defect = true;
    assert!(changed("01-handshake", 1, defect).contains("a failure expected"));
}

#[test]
fn what_c_does_not_survive_is_answered_as_decided() {
    let all = transcript("18-c-crashes");
    // The other groups run SQL or change members.
    for (group, node) in [(6, Node::single()), (9, Node::single())] {
        let found = with_server(&node, |address| all.replay(address, Some(group), QUIET));
        assert_eq!(found, [""; 0], "group {group}");
    }
    assert_eq!(all.groups().len(), 9);
}

#[test]
fn the_client_puts_the_parts_of_a_query_together() {
    with_server(&Node::single(), |address| {
        let mut client = Client::with_database(address, "test");
        let rows = client.query("SELECT n", &[Param::Text(b"one")]).rows();
        assert_eq!(rows, [[Value::Integer(0)], [Value::Integer(1)]]);
        assert_eq!(client.weight(3), Answer::Empty);
        assert_eq!(client.describe(), Answer::Metadata { failure_domain: 0, weight: 3 });
        assert_eq!(client.open("test").code(), 5);
        let leader = Answer::Server { id: 0, address: SINGLE[0].to_owned() };
        assert_eq!(Client::connect_legacy(address).unwrap().leader(), leader);
    });
}
