//! Connections that claim to be members of the cluster and speak in its present term. The protocol proves nobody's
//! identity; what is sent still has to make sense.

use dqlite::base::{Index, NodeId, Role, Term};
use dqlite::codec::membership::{Configuration, Server};
use dqlite::codec::peer::{InstallSnapshot, Message, encode, encode_connect};

use crate::NAME;
use crate::liveness::stored_term;
use crate::support::client::Client;
use crate::support::cluster::{Cluster, declared, integers};

fn members(numbers: &[usize]) -> Configuration {
    let server = |&number| Server { id: NodeId(number as u64), address: declared(number), role: Role::Voter };
    Configuration { servers: numbers.iter().map(server).collect() }
}

/// A connection of `from`, over which a snapshot comes.
fn send_snapshot(address: &str, from: u64, head: InstallSnapshot, data: &[u8]) -> Client {
    let (word, connect) = encode_connect(NodeId(from), &declared(usize::try_from(from).unwrap()));
    let mut message = Vec::new();
    encode(&Message::InstallSnapshot(head), &mut message).unwrap();
    let mut client = Client::connect_silently(address).unwrap();
    for bytes in [&word[..], &connect, &message, data] {
        client.send(bytes).unwrap();
    }
    client
}

#[test]
fn snapshots_of_the_present_term_that_make_no_sense_change_nothing() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    let term = Term(stored_term(&mut cluster, 1));
    let addresses = cluster.addresses();
    let (all, others) = (members(&[1, 2, 3]), members(&[1, 2]));
    let damaged = [9_u64, 1, u64::MAX, 7].map(u64::to_le_bytes).concat();
    let promised = [1_u64, 1 << 40].map(u64::to_le_bytes).concat();
    let noise: Vec<u8> =
        (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut written = 0;
    let mut open = Vec::new();
    // Who it says it is, to whom, the last entry, the configuration, the data.
    let cases = [
        (1, 3, 1_000_000, &all, &damaged),
        (1, 3, 1_000_000, &all, &promised),
        (1, 3, 1_000_000, &all, &noise),
        (1, 3, 1_000_000, &others, &noise),
        (1, 3, u64::MAX, &all, &damaged),
        (1, 3, 2, &all, &noise),
        (1, 3, 0, &all, &noise),
        (2, 3, 1_000_000, &all, &noise),
        (9, 3, 1_000_000, &all, &noise),
        (2, 1, 1_000_000, &all, &noise),
    ];
    for (from, to, last, configuration, data) in cases {
        let head = InstallSnapshot {
            term,
            last_index: Index(last),
            last_term: term,
            configuration_index: Index(1),
            configuration: configuration.clone(),
            configuration_bytes: Vec::new(),
            data_bytes: data.len() as u64,
        };
        open.push(send_snapshot(&addresses[to - 1], from, head, data));
        // The connection serves only as long as the node leads.
        for _ in 0..5 {
            client.exec(&format!("INSERT INTO t VALUES({written})"), &[]).ok();
            written += 1;
        }
        cluster.equal_dumps(NAME);
    }
    // Node 3 counts: there is no majority without it.
    cluster.node(2).stop();
    client.exec("INSERT INTO t VALUES(-1)", &[]).ok();
    assert_eq!(integers(&mut client, "SELECT count(*) FROM t"), [written + 1]);
    cluster.node(3).restart();
    cluster.equal_dumps(NAME);
    assert_eq!(Term(stored_term(&mut cluster, 1)), term);
}
