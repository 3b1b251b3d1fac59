//! Random SQL on the VFS and on stock SQLite in write-ahead mode: the same codes, rows and shape; and the same
//! bytes on a node that only sees the log.

use super::harness::{Sql, commit, database, image};
use crate::base::Prng;
use crate::pages::View;

struct Script {
    prng: Prng,
    tables: u64,
}

impl Script {
    fn below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    /// A statement that is right or wrong as it comes.
    fn statement(&mut self) -> String {
        let (id, other) = (self.below(400), self.below(400));
        let length = [10, 60, 900, 9_000, 40_000][usize::try_from(self.below(5)).unwrap()];
        match self.below(26) {
            0..6 => format!("INSERT INTO t VALUES ({id}, {other}, printf('%.{length}c', 'x'))"),
            6 => format!("INSERT INTO t(b) VALUES ({id}), ({other}), ({id}+1)"),
            7..10 => format!("UPDATE t SET b=b+1000, c=printf('%.{length}c', 'y') WHERE a={id}"),
            10 => format!("UPDATE t SET b=a*7919 % 1009 WHERE a BETWEEN {id} AND {id}+40"),
            11 => format!("UPDATE t SET b={other} WHERE a BETWEEN {id} AND {id}+5"),
            12 => format!("DELETE FROM t WHERE a BETWEEN {id} AND {id}+60"),
            13 => format!("REPLACE INTO t VALUES ({id}, {other}, 'replaced')"),
            14 => format!("INSERT INTO w VALUES ('key {id}', {other}) ON CONFLICT DO UPDATE SET v=v+1"),
            15 => format!("DELETE FROM w WHERE v < {id}"),
            16 => format!("INSERT INTO child VALUES ({id}, {other})"),
            17 => format!("INSERT INTO log VALUES ({id} - 10)"),
            18 => format!("SELECT a, b, length(c) FROM t WHERE a > {id} ORDER BY b, a LIMIT 20"),
            19 => "SELECT count(*), sum(a), sum(b), sum(length(c)) FROM t".to_owned(),
            20 => format!("DELETE FROM t WHERE b={id} RETURNING a, b"),
            21 => format!("PRAGMA user_version={id}"),
            22 => {
                self.tables += 1;
                format!("CREATE TABLE n{}(x UNIQUE, y)", self.tables)
            }
            23 => format!(
                "INSERT INTO n{} VALUES ({id}, {other}), ({other}, {id})",
                self.below(self.tables + 1)
            ),
            24 => format!("DROP TABLE n{}", self.below(self.tables + 1)),
            _ => self.rare(),
        }
    }

    fn rare(&mut self) -> String {
        let table = self.below(self.tables + 1);
        match self.below(7) {
            0 => "VACUUM".to_owned(),
            1 => "PRAGMA incremental_vacuum(7)".to_owned(),
            2 => format!("PRAGMA application_id={table}"),
            3 => "REINDEX".to_owned(),
            4 => format!("ALTER TABLE n{table} ADD COLUMN z DEFAULT 5"),
            5 => "DELETE FROM child".to_owned(),
            _ => "ANALYZE".to_owned(),
        }
    }

    /// What runs as one unit on one connection.
    fn unit(&mut self) -> Vec<String> {
        let count = 1 + self.below(5);
        let mut statements: Vec<_> = (0..count).map(|_| self.statement()).collect();
        match self.below(8) {
            0 => statements.insert(0, "BEGIN".to_owned()),
            1 => statements.insert(0, "BEGIN IMMEDIATE".to_owned()),
            2 => {
                statements.insert(0, "SAVEPOINT s".to_owned());
                statements.push("ROLLBACK TO s".to_owned());
                statements.push(self.statement());
                statements.push("RELEASE s".to_owned());
            }
            _ => return statements,
        }
        statements.push(if self.below(3) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
        statements
    }
}

const SCHEMA: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c); \
     CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX wv ON w(v); \
     CREATE TABLE child(x, parent REFERENCES t(a) ON DELETE CASCADE); \
     CREATE TABLE log(x CHECK (x > -9)); CREATE TABLE n0(x UNIQUE, y); \
     CREATE TRIGGER tr AFTER INSERT ON log WHEN new.x % 17 = 3 BEGIN SELECT RAISE(ABORT, 'no'); END; \
     CREATE TRIGGER td AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.a); END; \
     CREATE VIRTUAL TABLE text USING fts5(body); INSERT INTO text VALUES ('some words'), ('more words')";

fn compare(seed: u64, units: u64, fetch: bool) {
    let directory = tempfile::tempdir().unwrap();
    let plain = Sql::plain(&directory.path().join("plain"));
    let (db, follower) = (database(), database());
    let connections = [(); 3].map(|()| Sql::open(&db, fetch));
    let mut script = Script { prng: Prng::new(seed), tables: 0 };
    // A connection remembers what it was told of the vacuum mode until it vacuums: tell each.
    let mode = ["PRAGMA auto_vacuum=NONE", "PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA auto_vacuum=FULL"];
    let mode = mode[usize::try_from(seed % 3).unwrap()];
    connections.iter().chain([&plain]).for_each(|sql| drop(sql.run(mode)));
    assert_eq!(connections[0].run(SCHEMA), plain.run(SCHEMA));
    assert_eq!(connections[1].run("VACUUM"), plain.run("VACUUM"));
    for unit in 0..units {
        let sql = &connections[usize::try_from(script.below(3)).unwrap()];
        for statement in script.unit() {
            let (ours, stock) = (sql.rows(&statement), plain.rows(&statement));
            assert_eq!(ours, stock, "seed {seed} unit {unit}: {statement}");
        }
        assert_eq!((sql.in_transaction(), db.slot_holder()), (plain.in_transaction(), None));
        if script.below(3) == 0 && commit(&db, &follower).is_some() {
            let equal = image(&db, View::Committed) == image(&follower, View::Committed);
            assert!(equal, "seed {seed} unit {unit}");
        }
        if unit % 40 == 39 {
            let dump = sql.dump();
            let stock = plain.dump();
            for (line, other) in dump.lines().zip(stock.lines()) {
                let end = line.len().min(200);
                assert!(
                    line == other,
                    "seed {seed} unit {unit}: {}\n{}",
                    &line[..end],
                    &other[..end.min(other.len())]
                );
            }
            assert_eq!(dump.lines().count(), stock.lines().count());
            let reader = Sql::open(&follower, fetch);
            assert_eq!(reader.run("PRAGMA integrity_check(3)"), "ok", "seed {seed} unit {unit}");
        }
    }
    while commit(&db, &follower).is_some() {}
    assert_eq!(Sql::open(&follower, fetch).dump(), plain.dump(), "seed {seed}");
}

#[test]
fn random_sql_gives_the_same_as_stock_sqlite() {
    compare(1, 400, false);
    compare(2, 400, true);
    compare(3, 400, true);
}

/// Random SQL with speculative tails dropped at random: afterwards each connection sees what the log says.
fn discard(seed: u64, fetch: bool) {
    let (db, follower) = (database(), database());
    let connections = [(); 3].map(|()| Sql::open(&db, fetch));
    let mut script = Script { prng: Prng::new(seed), tables: 0 };
    connections[0].run(SCHEMA);
    commit(&db, &follower).unwrap();
    let witness = Sql::open(&follower, fetch);
    for unit in 0..150 {
        let sql = &connections[usize::try_from(script.below(3)).unwrap()];
        for statement in script.unit() {
            let _either_way_is_fine = sql.rows(&statement);
        }
        match script.below(6) {
            0 => while commit(&db, &follower).is_some() {},
            1 => drop(db.discard_speculative()),
            2 => {
                drop(commit(&db, &follower));
                db.discard_speculative();
            }
            _ => continue,
        }
        let expected = witness.dump();
        for (at, sql) in connections.iter().enumerate() {
            assert!(sql.dump() == expected, "seed {seed} unit {unit} connection {at}");
        }
    }
}

#[test]
fn after_a_discard_every_connection_sees_what_the_log_says() {
    discard(11, false);
    discard(12, true);
}
