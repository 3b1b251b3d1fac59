//! Which pragmas may be read and set.

use crate::support::client::{Client, Value};
use crate::{connect, serve};

/// The failure of a statement, by both requests that run texts and by prepare.
#[track_caller]
fn assert_not_authorized(client: &mut Client, sql: &str) {
    let prepare = dqlite::codec::client::Request::Prepare {
        schema: dqlite::codec::client::Schema::V0,
        db: 0,
        sql: sql.as_bytes(),
    };
    for answer in [client.exec(sql, &[]), client.query(sql, &[]), client.call(&prepare).unwrap()] {
        assert_eq!(answer.failure(), (23, "not authorized".to_owned()), "{sql}");
    }
}

#[test]
fn pragmas_of_the_engine_may_be_read_and_not_set() {
    let (_node, mut client) = serve();
    let text = |text: &str| Value::Text(text.to_owned());
    for (name, value) in [
        ("journal_mode", text("wal")),
        ("page_size", Value::Integer(4096)),
        ("wal_autocheckpoint", Value::Integer(1000)),
        ("synchronous", Value::Integer(0)),
    ] {
        for form in [format!("PRAGMA {name}"), format!("PRAGMA main.{name}")] {
            assert_eq!(client.query(&form, &[]).rows(), [[value.clone()]], "{form}");
        }
        let upper = name.to_uppercase();
        for form in
            [format!("{name}=1"), format!("main.{name}=1"), format!("{name}(1)"), format!("{upper} = 1")]
        {
            assert_not_authorized(&mut client, &format!("PRAGMA {form}"));
        }
    }
    for name in ["wal_checkpoint", "busy_timeout", "read_uncommitted", "locking_mode"] {
        for form in [name.to_owned(), format!("main.{name}"), format!("{name}=1")] {
            assert_not_authorized(&mut client, &format!("PRAGMA {form}"));
        }
    }
}

#[test]
fn other_pragmas_are_sqlites_own() {
    let (node, mut client) = serve();
    let mut other = connect(&node);
    assert_eq!(client.query("PRAGMA foreign_keys", &[]).integer(), 1);
    client.exec("PRAGMA foreign_keys = 0", &[]).ok();
    assert_eq!(client.query("PRAGMA foreign_keys", &[]).integer(), 0);
    assert_eq!(other.query("PRAGMA foreign_keys", &[]).integer(), 1, "each connection has its own");

    for name in ["user_version", "application_id"] {
        client.exec(&format!("PRAGMA {name} = 77"), &[]).ok();
        assert_eq!(other.query(&format!("PRAGMA {name}"), &[]).integer(), 77, "{name}");
    }
    client.exec("PRAGMA query_only = 1", &[]).ok();
    assert_eq!(client.exec("CREATE TABLE t(a)", &[]).code(), 8);
    client.exec("PRAGMA query_only = 0", &[]).ok();
    client.exec("PRAGMA cache_size = 10; CREATE TABLE t(a)", &[]).ok();
    assert_eq!(client.query("PRAGMA cache_size", &[]).integer(), 10);
    assert_eq!(client.query("PRAGMA no_such_pragma", &[]).rows(), [[]; 0]);
    client.exec("PRAGMA no_such_pragma = 1", &[]).ok();
    assert_eq!(client.query("PRAGMA integrity_check", &[]).rows(), [[Value::Text("ok".to_owned())]]);
    assert_eq!(client.query("PRAGMA table_info(t)", &[]).rows().len(), 1);
}

#[test]
fn foreign_keys_are_enforced_on_every_connection() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id))", &[]).ok();
    for _ in 0..3 {
        assert_eq!(connect(&node).exec("INSERT INTO c VALUES(1)", &[]).code(), 787);
    }
}
