//! Readers that keep old pages in memory for too long.

use std::time::Duration;

use crate::NAME;
use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;

/// Pages of the table that is written again and again: 2 MiB.
const ROWS: usize = 512;

const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 512) \
                    INSERT INTO t SELECT i, zeroblob(3900) FROM n";

fn serve() -> (TestNode, Client) {
    let node = TestNode::start_with(|options| {
        options.settings.readers.age = Duration::from_millis(200);
        options.settings.readers.bytes = 1 << 20;
    });
    let mut writer = Client::with_database(node.address(), NAME);
    writer.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", &[]).ok();
    writer.exec(FILL, &[]).ok();
    (node, writer)
}

fn failed(answer: &Answer) -> bool {
    match answer {
        Answer::Failure { code, text } => {
            assert_eq!(*code, 9, "{text}");
            assert!(text.contains("kept too many replaced pages"), "{text}");
            true
        }
        _ => false,
    }
}

/// Writes every page anew until the other client has been stopped.
fn write_until(writer: &mut Client, mut stopped: impl FnMut() -> bool) {
    for round in 0..10_000 {
        writer.exec("UPDATE t SET b = randomblob(3900)", &[]).ok();
        if stopped() {
            return;
        }
        assert!(round < 9_999, "the reader was never stopped");
    }
}

#[test]
fn a_statement_that_runs_on_an_old_version_is_stopped_and_its_connection_goes_on() {
    let (node, mut writer) = serve();
    let mut reader = Client::with_database(node.address(), NAME);
    let endless = "SELECT count(*) FROM t x, t y, t z, t u, t v";
    reader.begin_query(endless);
    reader.set_patience(Duration::from_millis(1)).unwrap();
    write_until(&mut writer, || reader.answer().is_ok_and(|answer| failed(&answer)));
    reader.set_patience(crate::support::client::PATIENCE).unwrap();
    assert_eq!(reader.query("SELECT count(*) FROM t", &[]).integer(), ROWS as i64);
}

#[test]
fn a_transaction_that_reads_an_old_version_is_rolled_back_and_its_next_statement_says_so() {
    let (node, mut writer) = serve();
    let mut reader = Client::with_database(node.address(), NAME);
    reader.exec("BEGIN", &[]).ok();
    reader.query("SELECT count(*) FROM t", &[]).ok();
    write_until(&mut writer, || failed(&reader.query("SELECT 1", &[])));
    assert!(failed(&reader.query("SELECT 1", &[])), "until its client ends it");
    reader.exec("ROLLBACK", &[]);
    assert_eq!(reader.query("SELECT count(*) FROM t", &[]).integer(), ROWS as i64);
}
