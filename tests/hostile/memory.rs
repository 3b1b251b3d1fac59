//! What clients can make the node keep.

use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;
use crate::{Alone, resident_mib, while_others_are_served};

/// About 60 MB of rows in 15,000 messages.
const MANY_ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
                         SELECT i, hex(zeroblob(1000)) FROM n";

/// Memory that sockets, threads and caches may take beside what is tested.
const SLACK_MIB: u64 = 48;

#[test]
fn half_messages_take_no_more_memory_than_their_bytes() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        let before = resident_mib();
        let mut clients = Vec::new();
        for number in 0..1000_u32 {
            // From half the limit to the limit: each says that up to 1 GiB follows.
            let words = 0x0400_0000 + number * 0x1_0000;
            let mut client = Client::connect(node.address()).unwrap();
            client.send(&words.to_le_bytes()).unwrap();
            client.send(&[8, 0, 0, 0]).unwrap();
            client.send(&[0; 600]).unwrap();
            clients.push(client);
        }
        // Each of them was read by the time a later one is answered.
        Client::connect(node.address()).unwrap().leader().ok();
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for 1,000 half messages");
    });
    alone.assert_no_panic();
}

#[test]
fn a_message_above_the_limit_closes_its_connection_before_it_is_read() {
    let alone = Alone::new();
    let node = TestNode::start();
    for words in [0x0800_0001_u32, 0x2000_0000, 0x7fff_ffff, u32::MAX] {
        let mut client = Client::connect(node.address()).unwrap();
        client.send(&words.to_le_bytes()).unwrap();
        client.send(&[8, 0, 0, 0]).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "{words:#x} words");
    }
    alone.assert_no_panic();
}

/// Reads the rest of a result and counts its rows and messages.
fn count_rows(client: &mut Client) -> (usize, usize) {
    let (mut rows, mut messages) = (0, 0);
    loop {
        match client.answer().unwrap().ok() {
            Answer::Rows { rows: part, more, .. } => {
                rows += part.len();
                messages += 1;
                if !more {
                    return (rows, messages);
                }
            }
            other => panic!("rows expected, found {other:?}"),
        }
    }
}

#[test]
fn clients_that_do_not_read_their_rows_make_the_node_wait_and_not_grow() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        let mut slow: Vec<_> = (0..4).map(|_| Client::with_database(node.address(), "slow")).collect();
        let mut quick = Client::with_database(node.address(), "slow");
        let before = resident_mib();
        for client in &mut slow {
            client.begin_query(MANY_ROWS);
        }
        // By the time this one has all its rows, the others would have all theirs in the node's memory.
        quick.begin_query(MANY_ROWS);
        let (rows, messages) = count_rows(&mut quick);
        assert_eq!(rows, 30_000);
        assert!(messages > 10_000, "{messages}");
        let grown = resident_mib().saturating_sub(before);
        assert!(grown < SLACK_MIB, "{grown} MiB for 240 MB of rows that nobody reads");
        for client in &mut slow[..2] {
            assert_eq!(count_rows(client).0, 30_000);
        }
    });
    alone.assert_no_panic();
}

#[test]
fn connections_that_read_a_whole_database_once_cost_little() {
    let alone = Alone::new();
    let node = TestNode::start();
    let mut first = Client::with_database(node.address(), "large");
    first.exec("CREATE TABLE t(a, b)", &[]).ok();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
                INSERT INTO t SELECT i, zeroblob(3900) FROM n";
    first.exec(fill, &[]).ok();
    let scan = |client: &mut Client| client.query("SELECT sum(length(b)) FROM t", &[]).integer();
    scan(&mut first);
    let before = resident_mib();
    let clients: Vec<_> = (0..400)
        .map(|_| {
            let mut client = Client::with_database(node.address(), "large");
            assert_eq!(scan(&mut client), 500 * 3900);
            client
        })
        .collect();
    let grown = resident_mib().saturating_sub(before);
    // With pages of its own, or SQLite's usual room for them, each would take 100 KiB or more.
    assert!(grown < 30, "{grown} MiB for {} connections", clients.len());
    alone.assert_no_panic();
}
