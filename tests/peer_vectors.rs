//! Requests to a node that has just bootstrapped, one after the other, and their answers: those of the C library,
//! recorded from releases 1.11.1 and 1.18.6, against ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "plays a server that the node connects to")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use dqlite::base::{Index, Term};
use dqlite::codec::client::{FrameReader, Request};
use dqlite::codec::peer::{Incoming, Message, PeerReader};
use dqlite::runtime::connect::Connector;
use support::capture::{Vector, vectors};
use support::client::{Answer, Client, PATIENCE};
use support::cluster::wait_for;
use support::node::TestNode;

mod support;

/// A request that any server answers, whatever its state: entries of a term that is over.
const STALE: [u64; 7] = [1, 40, 0, 123_456, 0, 0, 0];

fn messages(bytes: &[u8]) -> Vec<Message> {
    let (mut reader, mut found) = (PeerReader::new(), Vec::new());
    reader.push(bytes);
    while let Some(incoming) = reader.next_incoming().unwrap() {
        let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
        found.push(message);
    }
    assert!(reader.is_between_messages(), "half a message");
    found
}

/// What the node may answer in place of this.
fn permitted(what: &str, recorded: &Message, own_term: Term) -> Vec<Message> {
    let mut all = vec![recorded.clone()];
    match recorded {
        // What it has checked is all it vouches for; C tells the end of its log.
        Message::AppendResult(result) if what.contains("beyond prev+n") => {
            all.push(Message::AppendResult(dqlite::codec::peer::AppendResult {
                last_index: Index(1),
                ..*result
            }));
        }
        // It looks like a success to whoever leads this term by now, and must say nothing then.
        Message::AppendResult(result) if what.contains("term 0, prev 0") => {
            all.push(Message::AppendResult(dqlite::codec::peer::AppendResult {
                last_index: Index(0),
                ..*result
            }));
        }
        // The index to go on from: ours leaves out more that cannot agree, and saves rounds.
        Message::AppendResult(result) if result.rejected != 0 => {
            let hint = |last_index| dqlite::codec::peer::AppendResult { last_index, ..*result };
            all.extend((0..result.last_index.0).map(|last| Message::AppendResult(hint(Index(last)))));
        }
        Message::VoteResult(result) if result.pre_vote == Some(true) && !result.granted => {
            all.push(Message::VoteResult(dqlite::codec::peer::VoteResult { term: own_term, ..*result }));
        }
        Message::AppendEntries(_)
        | Message::AppendResult(_)
        | Message::RequestVote(_)
        | Message::VoteResult(_)
        | Message::InstallSnapshot(_)
        | Message::TimeoutNow(_) => {}
    }
    all
}

/// The long form of an answer, which releases before 1.17 do not write.
fn long(message: Message) -> Message {
    match message {
        Message::AppendResult(mut result) => {
            result.features = Some(result.features.unwrap_or(0));
            Message::AppendResult(result)
        }
        other => other,
    }
}

/// The next so many bytes of the connection that the node has opened.
fn read(stream: &mut TcpStream, count: usize, what: &str) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    bytes
}

fn replay(release: &str) {
    let (hello, vectors) = vectors(release);
    let (opening, address) = opening(&vectors[0]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let node = TestNode::start_with(|options| {
        options.address.clone_from(&address);
        // No election gets in between, however slow the machine.
        options.election_timeout = Duration::from_secs(600);
        // Wherever the other server says it is, it is here.
        options.connector =
            Connector::new(move |_| TcpStream::connect(place).map(OwnedFd::from).map_err(|_| 16));
    });
    let leads = Answer::Server { id: 1, address };
    wait_for("the node to lead", || {
        (Client::connect(node.address()).unwrap().leader() == leads).then_some(())
    });
    let mut out = TcpStream::connect(node.address()).unwrap();
    out.write_all(&hello).unwrap();
    let (mut back, mut own_term) = (None, Term(1));
    for Vector { what, send, reply } in &vectors {
        out.write_all(send).unwrap();
        let mut expected = reply.as_slice();
        if back.is_none() {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(read(&mut stream, opening.len(), what), opening, "{release}");
            back = Some(stream);
            expected = &expected[opening.len()..];
        }
        let stream = back.as_mut().unwrap();
        for recorded in messages(expected).into_iter().map(long) {
            let mut again = Vec::new();
            dqlite::codec::peer::encode(&recorded, &mut again).unwrap();
            let found = read(stream, again.len(), what);
            let [found] = <[Message; 1]>::try_from(messages(&found)).unwrap();
            let permitted = permitted(what, &recorded, own_term);
            assert!(permitted.contains(&found), "{release}, {what}: {recorded:?} expected, found {found:?}");
            if let Message::AppendResult(result) = found {
                own_term = result.term;
            }
        }
    }
    // Nothing came beside: the next answer is that to the next request.
    out.write_all(&STALE.map(u64::to_le_bytes).concat()).unwrap();
    let last = read(back.as_mut().unwrap(), 48, "the last answer");
    let [Message::AppendResult(last)] = messages(&last)[..] else { panic!("{last:?}") };
    assert_eq!((last.term, last.rejected), (own_term, 123_456), "{release}");
}

/// What the node begins its connection with, and its address.
fn opening(first: &Vector) -> (Vec<u8>, String) {
    let mut frames = FrameReader::new(1024);
    frames.feed(&first.reply);
    frames.next_word().unwrap();
    let frame = frames.next_frame().unwrap().unwrap();
    let length = 16 + frame.body.len();
    let Request::Connect { address, .. } = Request::decode(frame).unwrap() else { panic!("{frame:?}") };
    (first.reply[..length].to_vec(), String::from_utf8(address.to_vec()).unwrap())
}

#[test]
fn requests_are_answered_as_by_release_1_18_6() {
    replay("1186");
}

#[test]
fn requests_are_answered_as_by_release_1_11_1() {
    replay("1111");
}
