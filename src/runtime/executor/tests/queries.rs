//! Rows: their types, their batches, rows of writes.

use super::*;

/// All messages of a query, and how many batches they came in.
fn all_messages(conn: &mut SqlConn, sql: &str) -> (Vec<(Message, usize)>, usize) {
    let (mut bytes, mut batches) = (Vec::new(), 0);
    let mut progress = start(conn, query_sql(sql, &[]));
    loop {
        match progress {
            Progress::Batch { messages, .. } => {
                bytes.extend(messages);
                batches += 1;
                progress = conn.resume();
            }
            Progress::Done(outcome) => {
                let Some(Reply::Message(last)) = outcome.reply else { panic!("{outcome:?}") };
                bytes.extend(last);
                break;
            }
            Progress::NeedsSlot => panic!("a reader waits for nothing"),
        }
    }
    let mut lengths = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some(words) = rest.first_chunk::<4>() {
        let length = u32::from_le_bytes(*words) as usize * 8;
        lengths.push(length);
        rest = &rest[8 + length..];
    }
    (decode(&bytes).into_iter().zip(lengths).collect(), batches)
}

fn numbers(count: usize) -> String {
    format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT {count}) SELECT n FROM s")
}

#[test]
fn a_message_ends_with_the_row_that_reaches_4096_bytes() {
    let (_database, mut conn) = with_table();
    let shape = |conn: &mut SqlConn, count| -> Vec<(usize, usize, RowsEnd)> {
        let (messages, _) = all_messages(conn, &numbers(count));
        messages.iter().map(|((_, rows, end), length)| (*length, rows.len(), *end)).collect()
    };
    assert_eq!(shape(&mut conn, 254), [(4088, 254, RowsEnd::Done)]);
    assert_eq!(shape(&mut conn, 255), [(4104, 255, RowsEnd::Part), (24, 0, RowsEnd::Done)]);
}

#[test]
fn a_large_result_comes_in_batches_and_loses_no_row() {
    let (_database, mut conn) = with_table();
    let (messages, batches) = all_messages(&mut conn, &numbers(20_000));
    assert!(batches >= 4, "{batches}");
    let rows: Vec<_> = messages.into_iter().flat_map(|((_, rows, _), _)| rows).collect();
    assert!(rows.iter().eq((1..=20_000).map(integer).collect::<Vec<_>>().iter()));
}

#[test]
fn declared_types_make_dates_and_booleans_and_odd_values_stay_as_they_are() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "CREATE TABLE d(n, x DATETIME, y timestamp, z Boolean, w BOOL, v DATETIME X)");
    exec(&mut conn, "INSERT INTO d VALUES(1, 7, 'now', 7, 1, 2)");
    exec(&mut conn, "INSERT INTO d(n) VALUES(2)");
    exec(&mut conn, "INSERT INTO d VALUES(3, 1.5, x'00', 'text', 1, 2)");
    database.commit_to(database.head_seq());
    let (int, null) = (Value::Integer, || (5, Value::Null));
    assert_eq!(
        query(&mut conn, "SELECT x, y AS other, z, w, v, x + 0 FROM d ORDER BY n"),
        [
            vec![
                (9, int(7)),
                (10, Value::Text(b"now".to_vec())),
                (11, int(7)),
                (1, int(1)),
                (1, int(2)),
                (1, int(7))
            ],
            vec![
                (10, Value::Text(Vec::new())),
                (10, Value::Text(Vec::new())),
                (11, int(0)),
                null(),
                null(),
                null()
            ],
            vec![
                (2, Value::Float(1.5)),
                (4, Value::Blob(vec![0])),
                (3, Value::Text(b"text".to_vec())),
                (1, int(1)),
                (1, int(2)),
                (2, Value::Float(1.5))
            ],
        ]
    );
}

#[test]
fn a_query_is_one_statement() {
    let (_database, mut conn) = with_table();
    let answer = |conn: &mut SqlConn, sql| failure_of(done(start(conn, query_sql(sql, &[]))));
    assert_eq!(answer(&mut conn, "SELECT 1; SELECT 2"), failure::NONEMPTY_TAIL);
    assert_eq!(answer(&mut conn, "SELECT 1; nonsense"), failure::NONEMPTY_TAIL);
    assert_eq!(answer(&mut conn, " -- nothing"), failure::EMPTY_STATEMENT);
    assert_eq!(answer(&mut conn, "SELECT nope").code, 1);
    assert_eq!(query(&mut conn, "SELECT 1; ; -- nothing more"), [integer(1)]);
}

#[test]
fn a_statement_without_columns_gives_no_rows() {
    let (database, mut conn) = with_table();
    let outcome = done(start(&mut conn, query_sql("INSERT INTO t VALUES(1, 1)", &[])));
    assert_eq!(messages(&outcome), [(vec![], vec![], RowsEnd::Done)]);
    assert_eq!(outcome.published, Some(database.head_seq()));
    let outcome = done(start(&mut conn, query_sql("BEGIN IMMEDIATE", &[])));
    assert!(outcome.holds_slot);
    let outcome = done(start(&mut conn, query_sql("COMMIT", &[])));
    assert!(!outcome.holds_slot);
}

#[test]
fn rows_of_a_write_come_with_the_version_it_made() {
    let (database, mut conn) = with_table();
    let returning = "INSERT INTO t(b) VALUES('x'), ('y') RETURNING a";
    let outcome = done(start(&mut conn, query_sql(returning, &[])));
    assert_eq!(messages(&outcome)[0].1, [integer(1), integer(2)]);
    assert_eq!((outcome.published, outcome.holds_slot), (Some(database.head_seq()), false));
    // However many they are.
    let many = format!("INSERT INTO t(b) {} RETURNING a", numbers(20_000));
    let outcome = done(start(&mut conn, query_sql(&many, &[])));
    assert_eq!(messages(&outcome).iter().map(|message| message.1.len()).sum::<usize>(), 20_000);
}

#[test]
fn more_rows_of_a_write_than_may_be_kept_fail_it_and_nothing_is_written() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "INSERT INTO t VALUES(1, 1)");
    let before = database.head_seq();
    let row_bytes = 1 << 20;
    let rows = limits::HELD_ROWS_BYTES_MAX / row_bytes + 2;
    let huge = format!("INSERT INTO t(b) {} RETURNING zeroblob({row_bytes})", numbers(rows));
    let outcome = done(start(&mut conn, query_sql(&huge, &[])));
    assert_eq!((outcome.published, outcome.holds_slot), (None, false));
    assert_eq!(failure_of(outcome), failure::TOO_BIG);
    assert_eq!((database.head_seq(), database.slot_holder()), (before, None));
    // Inside a transaction rows need not be kept, as nothing is committed before COMMIT.
    exec(&mut conn, "BEGIN");
    let progress = start(&mut conn, query_sql(&huge, &[]));
    assert!(matches!(progress, Progress::Batch { .. }));
    assert!(done(conn.start(SqlRequest::Abandon)).holds_slot);
    exec(&mut conn, "COMMIT");
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 1 + i64::try_from(rows).unwrap());
}

#[test]
fn an_error_between_rows_is_a_plain_failure() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "INSERT INTO t VALUES(1, 1), (2, -9223372036854775808)");
    database.commit_to(database.head_seq());
    let outcome = done(start(&mut conn, query_sql("SELECT abs(b) FROM t", &[])));
    assert_eq!(told(failure_of(outcome)), (1, "integer overflow".to_owned()));
    // Also after parts of it are out.
    let late = format!(
        "SELECT abs(CASE n WHEN 20000 THEN -9223372036854775808 ELSE n END) FROM ({})",
        numbers(20_000)
    );
    let mut progress = start(&mut conn, query_sql(&late, &[]));
    let mut batches = 0;
    while let Progress::Batch { .. } = progress {
        batches += 1;
        progress = conn.resume();
    }
    assert!(batches > 0);
    assert_eq!(failure_of(done(progress)).code, 1);
    assert_eq!(count(&mut conn), 2);
}

#[test]
fn a_half_read_query_sees_its_version_while_others_write_and_can_be_abandoned() {
    let (database, mut conn) = with_table();
    let mut other = open(&database, 2);
    exec(&mut other, &format!("INSERT INTO t(b) {}", numbers(10_000)));
    database.commit_to(database.head_seq());
    let Progress::Batch { read_seq, .. } = start(&mut conn, query_sql("SELECT a FROM t", &[])) else {
        panic!("more rows than a batch")
    };
    assert_eq!(read_seq, Some(database.committed_seq()));
    exec(&mut other, "DELETE FROM t");
    database.commit_to(database.head_seq());
    let Progress::Batch { .. } = conn.resume() else { panic!("all rows are still there") };
    let outcome = done(conn.start(SqlRequest::Abandon));
    assert!(outcome.reply.is_none());
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn an_interrupted_stream_of_rows_ends_with_code_9() {
    let (_database, mut conn) = with_table();
    let interrupter = conn.interrupter();
    let Progress::Batch { .. } = start(&mut conn, query_sql(&numbers(100_000), &[])) else {
        panic!("more rows than a batch")
    };
    interrupter.interrupt();
    assert_eq!(failure_of(done(conn.resume())), failure::INTERRUPTED);
}

#[test]
fn the_header_of_a_statement_prepared_before_a_schema_change_is_the_old_one() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "INSERT INTO t VALUES(1, 2)");
    prepare(&mut conn, 0, "SELECT * FROM t");
    exec(&mut conn, "ALTER TABLE t ADD COLUMN c DEFAULT 3");
    database.commit_to(database.head_seq());
    let columns = |conn: &mut SqlConn| {
        let outcome = done(start(conn, Sql::Query { stmt: 0, params: OwnedParams::default() }));
        let (names, rows, _) = messages(&outcome).remove(0);
        (names.len(), rows[0].len())
    };
    assert_eq!(columns(&mut conn), (2, 2));
    assert_eq!(columns(&mut conn), (3, 3));
}

#[test]
fn explain_needs_no_slot() {
    let (database, mut conn) = with_table();
    let mut other = open(&database, 2);
    exec(&mut other, "BEGIN IMMEDIATE");
    for sql in ["EXPLAIN INSERT INTO t VALUES(1, 1)", "EXPLAIN QUERY PLAN DELETE FROM t WHERE a = 1"] {
        assert!(!query(&mut conn, sql).is_empty(), "{sql}");
    }
}
