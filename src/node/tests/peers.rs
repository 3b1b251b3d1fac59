//! Connections that turn out to be another server's.

use super::*;
use crate::base::limits::{PEER_INBOUND_PER_ID_MAX, STRANGER_INBOUND_MAX};
use crate::codec::client::PROTOCOL_LEGACY;
use crate::codec::peer::{RequestVote, encode, encode_connect};

fn vote() -> Vec<u8> {
    let message = Message::RequestVote(RequestVote {
        term: Term(1),
        candidate: NodeId(2),
        last_index: Index(0),
        last_term: Term(0),
        disrupt_leader: false,
        pre_vote: true,
    });
    let mut bytes = Vec::new();
    encode(&message, &mut bytes).unwrap();
    bytes
}

fn opening(id: u64) -> Vec<u8> {
    let (word, connect) = encode_connect(NodeId(id), "127.0.0.1:9002");
    [&word[..], &connect].concat()
}

impl World {
    fn bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.core.handle_bytes(conn, bytes, self.now);
        self.collect();
    }
}

#[test]
fn a_server_that_connects_is_announced_and_its_messages_are_read_until_they_are_none() {
    let mut world = World::new();
    for (conn, cut) in [(A, 1), (B, 8), (C, 1000)] {
        world.core.handle_connected(conn);
        let stream = [opening(2), vote(), vote()].concat();
        stream.chunks(cut).for_each(|piece| world.bytes(conn, piece));
        assert!(world.core.wants_bytes(conn));
    }
    assert_eq!((&*world.peers, &*world.closed), ([NodeId(2); 3].as_slice(), [].as_slice()));
    world.bytes(B, &vote()[..9]);
    world.bytes(B, &[0xff; 7]);
    assert_eq!(world.closed, [B]);
    assert!(!world.core.wants_bytes(B));
    // The others go on, and so do clients.
    world.bytes(A, &vote());
    let client = ConnId(9);
    world.open(client);
    assert_eq!(world.closed, [B]);
}

#[test]
fn a_client_of_the_old_protocol_may_be_a_server_too() {
    let mut world = World::new();
    world.core.handle_connected(A);
    world.bytes(A, &PROTOCOL_LEGACY.to_le_bytes());
    world.bytes(A, &opening(2)[8..]);
    assert_eq!(world.peers, [NodeId(2)]);
}

#[test]
fn a_client_that_becomes_a_server_in_the_middle_of_a_transaction_has_it_rolled_back() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    assert_eq!(world.answers(A), ["result 0"]);
    world.exec(B, "UPDATE t SET a = 1");
    assert_eq!(world.jobs.len(), 0, "it waits for the transaction");
    world.bytes(A, &opening(2)[8..]);
    assert_eq!(world.peers, [NodeId(2)]);
    assert_eq!(world.run_write(false), B);
    world.sync();
    assert_eq!(world.answers(B), ["result 1"]);
    world.bytes(A, &vote());
    assert_eq!(world.closed, []);
    world.core.handle_gone(A, world.now);
    assert!(!world.core.wants_bytes(A));
}

#[test]
fn a_server_with_no_id_or_with_ours_is_turned_away() {
    let mut world = World::new();
    for (conn, id) in [(A, 0), (B, 1)] {
        world.core.handle_connected(conn);
        world.bytes(conn, &opening(id));
    }
    world.core.handle_connected(C);
    let not_text = Request::Connect { id: NodeId(2), address: b"\xff\xfe" }.encode().unwrap();
    world.bytes(C, &[&PROTOCOL_VERSION.to_le_bytes()[..], &not_text].concat());
    assert_eq!((&*world.peers, &*world.closed), ([].as_slice(), [A, B, C].as_slice()));
}

#[test]
fn what_was_sent_in_an_earlier_term_on_a_replaced_connection_gets_no_answer_that_reads_as_success() {
    let mut world = World::new();
    let append = |prev| {
        let append = crate::codec::peer::AppendEntries {
            term: Term(0),
            prev_index: Index(prev),
            prev_term: Term(0),
            commit: Index(0),
            entries: Vec::new(),
        };
        let mut bytes = Vec::new();
        encode(&Message::AppendEntries(append), &mut bytes).unwrap();
        bytes
    };
    let answers = |world: &World| {
        world.sent.iter().filter(|message| matches!(message, Message::AppendResult(_))).count()
    };
    for conn in [A, B] {
        world.core.handle_connected(conn);
        world.bytes(conn, &opening(2));
        world.bytes(conn, &append(0));
    }
    assert_eq!(answers(&world), 2);
    world.bytes(A, &append(0));
    assert_eq!(answers(&world), 2, "the server has connected again since");
    world.bytes(A, &append(1));
    world.bytes(B, &append(0));
    assert_eq!(answers(&world), 4);
}

#[test]
fn connections_of_servers_are_limited_and_the_silent_ones_go_first() {
    let mut world = World::new();
    // Two of each of the first ids, which say something all the time.
    let real: Vec<ConnId> = (0..4).map(ConnId).collect();
    for conn in &real {
        world.core.handle_connected(*conn);
        world.bytes(*conn, &opening(2 + conn.0 / 2));
    }
    for number in 0..1000 {
        world.now = world.now.after(Duration::from_millis(1));
        let conn = ConnId(100 + number);
        world.core.handle_connected(conn);
        // Half of them claim the id of a server that is there, the others one each.
        world.bytes(conn, &opening(if number % 2 == 0 { 2 } else { 1000 + number }));
        assert!(world.core.inbound.len() <= STRANGER_INBOUND_MAX);
        let same = world.core.inbound.values().filter(|inbound| inbound.id() == NodeId(2)).count();
        assert!(same <= PEER_INBOUND_PER_ID_MAX);
        real.iter().for_each(|conn| world.bytes(*conn, &vote()));
    }
    assert!(world.closed.len() > 900);
    assert!(real.iter().all(|conn| world.core.wants_bytes(*conn) && !world.closed.contains(conn)));
    // Clients do not count.
    let client = ConnId(9999);
    world.open(client);
}

#[test]
fn an_id_belongs_to_who_uses_it_at_the_address_that_the_members_know() {
    let (member, other, moved) = (ConnId(11), ConnId(12), ConnId(13));
    let claim = |address| {
        let (word, connect) = encode_connect(NodeId(2), address);
        [&word[..], &connect].concat()
    };
    let mut world = World::new();
    world.connect(A);
    world.send(A, &Request::Add { id: NodeId(2), address: b"127.0.0.1:9002" });
    world.sync();
    assert_eq!(world.answers(A), ["empty"]);
    // As long as nobody else says to be it, a server may have another address than the members know.
    for conn in [other, member, moved] {
        world.core.handle_connected(conn);
    }
    world.bytes(other, &[claim("127.0.0.1:7000"), vote()].concat());
    assert_eq!(world.closed, []);
    world.bytes(member, &[opening(2), vote()].concat());
    world.bytes(other, &vote());
    assert_eq!(world.closed, [other], "the member is there");
    world.bytes(moved, &claim("127.0.0.1:7001"));
    assert_eq!(world.closed, [other, moved]);
    world.bytes(member, &vote());
    assert_eq!(world.closed, [other, moved]);
    // The member is silent: its machine may be gone, and it lives elsewhere now. Not where another was before.
    world.pass(Duration::from_secs(60));
    let (later, again) = (ConnId(14), ConnId(15));
    world.core.handle_connected(later);
    world.bytes(later, &[claim("127.0.0.1:7002"), vote()].concat());
    world.core.handle_connected(again);
    world.bytes(again, &claim("127.0.0.1:7001"));
    assert_eq!(world.closed, [other, moved, again]);
}
