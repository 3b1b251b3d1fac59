//! Connections that say they are servers, and what they send then.

use std::io::ErrorKind;

use dqlite::base::{Entry, EntryKind, Index, NodeId, Payload, Prng, Term};
use dqlite::codec::client::{PROTOCOL_VERSION, Request};
use dqlite::codec::peer::{
    AppendEntries, AppendResult, Incoming, InstallSnapshot, Message, PeerReader, RequestVote, TimeoutNow,
    VoteResult, encode, encode_connect,
};

use crate::support::capture::{SETS, streams};
use crate::support::client::Client;
use crate::support::node::TestNode;
use crate::{Alone, resident_mib, while_others_are_served};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Memory that sockets, threads and caches may take beside what is tested.
const SLACK_MIB: u64 = 48;

fn opening(id: u64) -> Vec<u8> {
    let (word, connect) = encode_connect(NodeId(id), NOWHERE);
    [&word[..], &connect].concat()
}

fn connect(node: &TestNode, id: u64) -> Client {
    let mut client = Client::connect_silently(node.address()).unwrap();
    client.send(&opening(id)).unwrap();
    client
}

/// Waits until the node has closed the connection.
#[track_caller]
fn assert_closed(client: &mut Client, what: &str) {
    match client.read(&mut [0; 8]) {
        Ok(count) => assert_eq!(count, 0, "{what}: the node answered"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}: {error}"),
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The header of a snapshot with this configuration.
fn snapshot(configuration: &[u8], data_bytes: u64) -> Vec<u8> {
    let length = configuration.len() as u64;
    let head = words(&[5, 48 + length, 0, 10, 1, 1, length]);
    [head, configuration.to_vec(), data_bytes.to_le_bytes().to_vec()].concat()
}

/// What 1.18.7 closes a connection for, and what makes releases before it crash.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let entry = |kind: u64, length: u64| words(&[1, 56, 0, 0, 0, 0, 1, 1, kind | length << 32]);
    let mut endless = words(&[0x0101, 0x0100]);
    endless.resize(40, b'a');
    vec![
        ("a header of no bytes", words(&[1, 0])),
        ("a header above the limit", words(&[1, (4 << 20) + 8])),
        ("the longest header that can be announced", words(&[5, u64::MAX])),
        ("type 0", words(&[0, 24, 0, 0, 0])),
        ("type 99", words(&[99, 24, 0, 0, 0])),
        ("an answer to entries that is too long", words(&[2, 40])),
        ("a request for a vote that is too short", words(&[3, 24])),
        ("an answer to a vote that is too long", words(&[4, 32])),
        ("a call to take over that is too short", words(&[6, 16])),
        ("more entries than the header holds", words(&[1, 56, 0, 0, 0, 0, 2, 1, 1])),
        ("2^64 - 1 entries", words(&[1, 40, 0, 0, 0, 0, u64::MAX])),
        ("entries beyond the last index", words(&[1, 56, 0, u64::MAX, 0, 0, 1, 1, 2 | 8 << 32])),
        ("an entry of type 9", entry(9, 8)),
        ("an entry of 9 bytes", entry(1, 9)),
        ("an entry of 4 GiB", entry(1, 0xffff_fff8)),
        ("a configuration of format 2", snapshot(&words(&[2, 0]), 0)),
        ("a configuration whose address does not end", snapshot(&endless, 0)),
        ("a configuration of 2^56 servers", snapshot(&words(&[u64::MAX << 8 | 1, 0]), 0)),
        ("a configuration longer than the header", words(&[5, 48, 0, 10, 1, 1, 8, 0])),
        ("2^63 bytes of snapshot", snapshot(&words(&[1, 0]), 1 << 63)),
    ]
}

#[test]
fn bytes_that_are_no_message_close_their_connection_and_harm_nobody() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        for (what, bytes) in malformed() {
            let mut client = connect(&node, 2);
            client.send(&bytes).unwrap();
            assert_closed(&mut client, what);
        }
        for id in [0, 1] {
            assert_closed(&mut connect(&node, id), "an id that nobody else may have");
        }
        let no_text = Request::Connect { id: NodeId(2), address: b"\xff" }.encode().unwrap();
        let mut client = Client::connect(node.address()).unwrap();
        client.send(&no_text).unwrap();
        assert_closed(&mut client, "an address that is no text");
    });
    alone.assert_no_panic();
}

/// A message of every kind, of a term that is over.
fn stale_messages() -> Vec<Vec<u8>> {
    let (term, last_index, last_term) = (Term(0), Index(7), Term(0));
    let payload = Payload::from_bytes(&[7; 64]);
    let entry =
        |index| Entry { index: Index(index), term, kind: EntryKind::Command, payload: payload.clone() };
    let append = |prev: u64, count: u64| {
        let entries = (1..=count).map(|nth| entry(prev + nth)).collect();
        let (prev_index, prev_term, commit) = (Index(prev), term, Index(u64::MAX));
        Message::AppendEntries(AppendEntries { term, prev_index, prev_term, commit, entries })
    };
    let vote = |disrupt_leader, pre_vote| {
        let candidate = NodeId(2);
        Message::RequestVote(RequestVote { term, candidate, last_index, last_term, disrupt_leader, pre_vote })
    };
    let result = |rejected, features| {
        Message::AppendResult(AppendResult { term, rejected, last_index: Index(u64::MAX), features })
    };
    let messages = [
        append(0, 3),
        append(40, 100),
        append(u64::MAX, 0),
        append(1 << 62, 0),
        vote(false, false),
        vote(true, false),
        vote(false, true),
        result(0, None),
        result(u64::MAX, Some(u64::MAX)),
        Message::VoteResult(VoteResult { term, granted: true, pre_vote: Some(false) }),
        Message::VoteResult(VoteResult { term, granted: true, pre_vote: None }),
        Message::TimeoutNow(TimeoutNow { term, last_index, last_term }),
    ];
    let encoded = messages.iter().map(|message| {
        let mut out = Vec::new();
        encode(message, &mut out).unwrap();
        out
    });
    encoded.chain([[snapshot(&words(&[1, 0]), 5000), vec![9; 5000]].concat()]).collect()
}

#[test]
fn servers_of_a_term_that_is_over_and_random_bytes_disturb_no_leader() {
    let alone = Alone::new();
    let node = TestNode::start();
    let messages = stale_messages();
    while_others_are_served(&node, || {
        let mut open = Vec::new();
        for seed in 0..400 {
            let mut prng = Prng::new(seed);
            let mut below = |limit: usize| usize::try_from(prng.next_u64() % limit as u64).unwrap();
            let mut bytes = opening(2 + below(5) as u64);
            let hello = bytes.len();
            match below(3) {
                0 => bytes.extend((0..below(300)).map(|_| below(256).to_le_bytes()[0])),
                1 => (0..below(40)).for_each(|_| bytes.extend(&messages[below(messages.len())])),
                _ => {
                    (0..1 + below(8)).for_each(|_| bytes.extend(&messages[below(messages.len())]));
                    bytes.truncate(hello + below(bytes.len() - hello));
                }
            }
            let mut client = Client::connect_silently(node.address()).unwrap();
            // The node may have closed it by now.
            let _closed_already = client.send(&bytes);
            open.push(client);
            if open.len() > 8 {
                let client = open.swap_remove(below(8));
                if seed % 2 == 0 { client.abort() } else { drop(client) }
            }
        }
    });
    alone.assert_no_panic();
}

/// The messages of a recorded stream, without its opening, each with the data that follow it.
fn recorded_messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let connect = 8 + 8 + usize::try_from(u32::from_le_bytes(bytes[8..12].try_into().unwrap())).unwrap() * 8;
    let (mut messages, mut rest) = (Vec::new(), &bytes[connect..]);
    while !rest.is_empty() {
        // One byte at a time: the reader does not tell how far a message went.
        let mut reader = PeerReader::new();
        let length = (1..=rest.len()).find(|length| {
            reader.push(&rest[length - 1..*length]);
            loop {
                match reader.next_incoming().unwrap() {
                    Some(Incoming::Message(Message::InstallSnapshot(InstallSnapshot { .. }))) | None => {
                        return false;
                    }
                    Some(Incoming::SnapshotBytes(_)) => {}
                    Some(Incoming::Message(_) | Incoming::SnapshotEnd) => return true,
                }
            }
        });
        let Some(length) = length else { break };
        messages.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    messages
}

#[test]
fn recorded_streams_with_every_message_mutated_never_crash_a_node() {
    let alone = Alone::new();
    for (number, set) in SETS.iter().enumerate() {
        let recorded: Vec<_> = streams(set).iter().map(|it| recorded_messages(&it.bytes())).collect();
        let mut prng = Prng::new(number as u64);
        let mut below = |limit: usize| usize::try_from(prng.next_u64() % limit as u64).unwrap();
        // Some mutations are right and proper messages of another term: they may take the leadership, or show
        // the node that its log is not the cluster's, which ends its part. So a fresh one now and then.
        for _ in 0..4 {
            let node = TestNode::start();
            for _ in 0..12 {
                let messages = &recorded[below(recorded.len())];
                let mut bytes = opening(2 + below(3) as u64);
                for _ in 0..60 {
                    let mut message = messages[below(messages.len())].clone();
                    for _ in 0..below(3) {
                        // Headers rather than pages.
                        let reach = 17 + below(200);
                        let at = below(message.len().min(reach));
                        message[at] = if below(2) == 0 {
                            below(4).to_le_bytes()[0]
                        } else {
                            below(256).to_le_bytes()[0]
                        };
                    }
                    bytes.extend(message);
                }
                let mut client = Client::connect_silently(node.address()).unwrap();
                // The node may have closed it by now.
                let _closed_already = client.send(&bytes);
                Client::connect(node.address()).unwrap().leader();
            }
        }
    }
    alone.assert_no_panic();
}

#[test]
fn half_messages_of_servers_take_no_more_memory_than_their_bytes() {
    let alone = Alone::new();
    let node = TestNode::start();
    // Each says that much more follows: entries, a header, a snapshot.
    let halves = [
        words(&[1, 56, 0, 0, 0, 0, 1, 1, 1 | 524_288_000 << 32]),
        words(&[1, 4 << 20]),
        words(&[5, 4 << 20]),
        snapshot(&words(&[1, 0]), 1 << 40),
    ];
    while_others_are_served(&node, || {
        let before = resident_mib();
        let clients: Vec<_> = (0..1000)
            .map(|number| {
                let mut client = connect(&node, 2 + number as u64 % 300);
                client.send(&halves[number % halves.len()]).unwrap();
                client.send(&[0; 600]).unwrap();
                client
            })
            .collect();
        // Each of them was read by the time a later one is answered.
        Client::connect(node.address()).unwrap().leader().ok();
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for 1,000 half messages");
        drop(clients);
    });
    alone.assert_no_panic();
}

#[test]
fn thousands_of_servers_that_come_and_go_leave_nothing_behind() {
    let alone = Alone::new();
    let node = TestNode::start();
    let messages = stale_messages().concat();
    while_others_are_served(&node, || {
        let before = resident_mib();
        for number in 0..3000 {
            let mut client = connect(&node, 2 + number);
            let _closed_already = client.send(&messages);
            match number % 3 {
                0 => client.abort(),
                _ => drop(client),
            }
        }
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for 3,000 servers");
    });
    alone.assert_no_panic();
}

#[test]
fn answers_for_a_server_that_nobody_reaches_do_not_pile_up() {
    let alone = Alone::new();
    let node = TestNode::start();
    let asked = {
        let messages = stale_messages();
        [messages[0].clone(), messages[4].clone()].concat().repeat(1000)
    };
    while_others_are_served(&node, || {
        let before = resident_mib();
        let mut client = connect(&node, 2);
        for _ in 0..100 {
            client.send(&asked).unwrap();
        }
        client.send(&words(&[99, 24])).unwrap();
        // All of it was read by then.
        assert_closed(&mut client, "type 99");
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for 200,000 answers");
    });
    alone.assert_no_panic();
}

#[test]
fn a_snapshot_of_a_term_that_is_over_is_read_and_not_kept() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        let before = resident_mib();
        let mut client = connect(&node, 2);
        client.send(&snapshot(&words(&[1, 0]), 128 << 20)).unwrap();
        for _ in 0..128 {
            client.send(&vec![7; 1 << 20]).unwrap();
        }
        client.send(&words(&[99, 24])).unwrap();
        assert_closed(&mut client, "type 99");
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for a snapshot of 128 MiB");
    });
    alone.assert_no_panic();
}

#[test]
fn a_client_of_any_standing_may_turn_out_to_be_a_server() {
    let alone = Alone::new();
    let node = TestNode::start();
    let connect = opening(2)[8..].to_vec();
    while_others_are_served(&node, || {
        let mut holder = Client::with_database(node.address(), "test");
        holder.exec("CREATE TABLE t(a)", &[]).ok();
        holder.exec("BEGIN IMMEDIATE", &[]).ok();
        holder.exec("INSERT INTO t VALUES(1)", &[]).ok();
        holder.send(&[connect.as_slice(), &stale_messages().concat()].concat()).unwrap();
        // Its transaction is rolled back at once: a waiter would be turned away only after ten seconds.
        let mut other = Client::with_database(node.address(), "test");
        other.exec("INSERT INTO t VALUES(2)", &[]).ok();
        assert_eq!(other.query("SELECT sum(a) FROM t", &[]).integer(), 2);
        holder.send(&words(&[99, 24])).unwrap();
        assert_closed(&mut holder, "type 99");
    });
    assert_eq!(PROTOCOL_VERSION.to_le_bytes(), opening(2)[..8]);
    alone.assert_no_panic();
}
