//! Parameters and values at the edges of what the protocol can say.

use dqlite::codec::client::Param;

use crate::support::client::{Answer, Value};
use crate::{connect, serve};

/// As many integers as asked for, their sum, and placeholders `(?),(?)...` for them.
fn integers(count: usize) -> (Vec<Param<'static>>, i64, String) {
    let params: Vec<_> = (1..=i64::try_from(count).unwrap()).map(Param::Integer).collect();
    let sum = (1..=i64::try_from(count).unwrap()).sum();
    (params, sum, vec!["(?)"; count].join(","))
}

/// The highest parameter number of this machine's SQLite: 32,766 unless it was built for more.
fn highest_parameter() -> usize {
    let plain = rusqlite::Connection::open_in_memory().unwrap();
    let (mut fits, mut too_many) = (1, 1 << 30);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if plain.prepare(&format!("SELECT ?{middle}")).is_ok() { fits = middle } else { too_many = middle }
    }
    fits
}

#[test]
fn every_parameter_arrives_also_beyond_8_and_15_bits() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let counts = [1, 3, 4, 7, 8, 255, 256, 257, 32766, 32767];
    for count in counts.into_iter().filter(|count| *count <= highest_parameter()) {
        let (params, sum, places) = integers(count);
        client.exec("DELETE FROM t", &[]).ok();
        let rows = u64::try_from(count).unwrap();
        let inserted = client.exec(&format!("INSERT INTO t VALUES{places}"), &params).ok();
        assert!(matches!(inserted, Answer::Result { rows_affected, .. } if rows_affected == rows), "{count}");
        assert_eq!(client.query("SELECT sum(a) FROM t", &[]).integer(), sum, "{count}");

        let stmt = client.prepare(&format!("INSERT INTO t VALUES{places}"));
        client.exec_prepared(stmt, &params).ok();
        assert_eq!(client.query("SELECT sum(a) FROM t", &[]).integer(), 2 * sum, "{count} prepared");
        client.finalize(stmt).ok();

        let query = format!("WITH v(a) AS (VALUES{places}) SELECT sum(a) FROM v");
        assert_eq!(client.query(&query, &params).integer(), sum, "{count} queried");
        let stmt = client.prepare(&query);
        assert_eq!(client.query_prepared(stmt, &params).integer(), sum, "{count} queried, prepared");
        client.finalize(stmt).ok();
    }
}

#[test]
fn one_parameter_more_than_there_are_is_an_error_or_ignored_and_never_a_wrong_row() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let highest = highest_parameter();
    let (params, ..) = integers(highest + 1);
    let text = format!("variable number must be between ?1 and ?{highest}");
    let insert = client.exec(&format!("INSERT INTO t VALUES(?{})", highest + 1), &params);
    assert_eq!(insert.failure(), (1, text.clone()));
    let query = client.query(&format!("SELECT ?1, ?{}", highest + 1), &params);
    assert_eq!(query.failure(), (1, text));
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 0);
    let last = client.query(&format!("SELECT ?{highest}"), &params[..highest]).integer();
    assert_eq!(last, i64::try_from(highest).unwrap());
    // Values beyond those of the statement: no error of an exec, one of a query.
    client.exec("INSERT INTO t VALUES(?1)", &params).ok();
    assert_eq!(client.query("SELECT a FROM t", &[]).integer(), 1);
    assert_eq!(client.query("SELECT ?1", &params).failure(), (10, "leader exec failed".to_owned()));
}

#[test]
fn a_row_of_20_megabytes_comes_back_as_it_went() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(b BLOB, c TEXT)", &[]).ok();
    let blob: Vec<u8> = (0..20_000_003_u32).map(|at| at.to_le_bytes()[usize::from(at % 251 == 0)]).collect();
    let text = "x".repeat(5_000_000);
    client.exec("INSERT INTO t VALUES(?, ?)", &[Param::Blob(&blob), Param::Text(text.as_bytes())]).ok();
    let rows = connect(&node).query("SELECT b, c FROM t", &[]).rows();
    // Not compared by a macro that would print them.
    assert!(rows == [[Value::Blob(blob), Value::Text(text)]]);
    assert_eq!(client.exec("DELETE FROM t", &[]), Answer::Result { last_insert_id: 1, rows_affected: 1 });
}

#[test]
fn a_row_has_as_many_columns_as_sqlite_allows() {
    let (_node, mut client) = serve();
    for count in [15, 16, 17, 255, 256, 257, 2000_i64] {
        let columns: Vec<_> = (1..=count).map(|number| format!("{number} AS c{number}")).collect();
        let answer = client.query(&format!("SELECT {}", columns.join(",")), &[]);
        let Answer::Rows { columns, rows, .. } = &answer else { panic!("{count}: {answer:?}") };
        assert_eq!(columns.last(), Some(&format!("c{count}")));
        assert_eq!(rows, &[(1..=count).map(Value::Integer).collect::<Vec<_>>()]);
    }
    let columns = vec!["1"; 2001].join(",");
    assert_eq!(client.query(&format!("SELECT {columns}"), &[]).code(), 1);
}

#[test]
fn values_of_every_type_come_back_at_their_limits() {
    let (_node, mut client) = serve();
    let floats = [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, 0.1];
    for float in floats {
        let rows = client.query("SELECT ?", &[Param::Float(float)]).rows();
        assert!(matches!(rows[0][0], Value::Float(found) if found.to_bits() == float.to_bits()), "{rows:?}");
    }
    assert_eq!(client.query("SELECT ?", &[Param::Float(f64::NAN)]).rows(), [[Value::Null]]);
    for integer in [0, 1, -1, i64::MIN, i64::MAX] {
        assert_eq!(client.query("SELECT ?", &[Param::Integer(integer)]).integer(), integer);
    }
    for length in [0, 1, 6, 7, 8, 9, 4095, 4096, 4097] {
        let (text, blob) = ("t".repeat(length), vec![7; length]);
        let params = [Param::Text(text.as_bytes()), Param::Blob(&blob)];
        let rows = client.query("SELECT ?, ?", &params).rows();
        assert_eq!(rows, [[Value::Text(text.clone()), Value::Blob(blob.clone())]], "{length}");
    }
}
