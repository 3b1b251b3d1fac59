//! The client protocol against a whole node: what transcripts cannot show, such as many clients at once,
//! large values, interrupts, and clients that go away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "clients in threads, waiting times measured, dumps written")]

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod extension;
mod interrupts;
mod members;
mod pragmas;
mod readers;
mod restart;
mod statements;
mod transactions;
mod values;
mod writers;

use support::client::Client;
use support::node::TestNode;

/// The database of most tests.
const NAME: &str = "test";

/// A fresh node and a client of it.
fn serve() -> (TestNode, Client) {
    let node = TestNode::start();
    let client = connect(&node);
    (node, client)
}

/// Another client with the same database.
fn connect(node: &TestNode) -> Client {
    Client::with_database(node.address(), NAME)
}

/// The dump of a database, opened by plain SQLite: the directory keeps the file.
fn open_dump(client: &mut Client, name: &str) -> (tempfile::TempDir, rusqlite::Connection) {
    let files = match client.dump(name).ok() {
        support::client::Answer::Files(files) => files,
        other => panic!("files expected, found {other:?}"),
    };
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [name.to_owned(), format!("{name}-wal")]);
    assert_eq!((files[0].1.len() % 4096, files[1].1.len()), (0, 0));
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("dump");
    std::fs::write(&path, &files[0].1).unwrap();
    let plain = rusqlite::Connection::open(&path).unwrap();
    let check: String = plain.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    (directory, plain)
}
