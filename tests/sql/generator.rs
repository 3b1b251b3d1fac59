//! Statements of every kind, made from a seed. Each is text only, so that two databases can be given the same.

use dqlite::base::Prng;

/// What a statement is expected to be run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Gives no rows.
    Exec(String),
    /// Gives rows, perhaps none.
    Query(String),
}

const TABLES: [&str; 6] = ["a", "b", "c", "w", "strict_t", "child"];
const COLLATIONS: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];

/// The schema that the statements work on.
pub fn schema() -> Vec<String> {
    [
        "CREATE TABLE a(id INTEGER PRIMARY KEY, x INT, y TEXT, z)",
        "CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, x REAL, y TEXT COLLATE NOCASE, z BLOB, UNIQUE(y))",
        "CREATE TABLE c(id INTEGER PRIMARY KEY, x INT CHECK(x <> 13), y TEXT NOT NULL DEFAULT 'd', z NUMERIC, \
         g INT GENERATED ALWAYS AS (x * 2) VIRTUAL, s TEXT GENERATED ALWAYS AS (upper(y)) STORED)",
        "CREATE TABLE w(id INT, x INT, y TEXT, z, PRIMARY KEY(id, x)) WITHOUT ROWID",
        "CREATE TABLE strict_t(id INTEGER PRIMARY KEY, x INTEGER, y TEXT, z ANY) STRICT",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, x INT REFERENCES a(id) ON DELETE CASCADE, y TEXT, z)",
        "CREATE TABLE log(n INTEGER PRIMARY KEY, what TEXT, old, new)",
        "CREATE INDEX ax ON a(x)",
        "CREATE INDEX ay ON a(y COLLATE NOCASE, z)",
        "CREATE INDEX bx ON b(x) WHERE x > 0",
        "CREATE INDEX cx ON c(abs(x))",
        "CREATE VIEW v AS SELECT a.id AS aid, a.x AS ax, b.y AS bname FROM a LEFT JOIN b ON a.x = b.id",
        "CREATE TRIGGER a_update AFTER UPDATE ON a BEGIN INSERT INTO log(what, old, new) \
         VALUES('update', old.x, new.x); END",
        "CREATE TRIGGER c_insert BEFORE INSERT ON c WHEN new.x = 99 BEGIN SELECT RAISE(ABORT, 'no 99'); END",
        "CREATE TRIGGER v_insert INSTEAD OF INSERT ON v BEGIN INSERT INTO a(x) VALUES(new.ax); END",
        "CREATE VIRTUAL TABLE docs USING fts5(title, body)",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Statements from a seed.
pub struct Generator {
    prng: Prng,
    in_transaction: bool,
    savepoints: u32,
    serial: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { prng: Prng::new(seed), in_transaction: false, savepoints: 0, serial: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn value(&mut self) -> String {
        match self.below(14) {
            0 => "NULL".to_owned(),
            1 => format!("{}.5", self.below(1000)),
            2 => format!("x'{:06x}'", self.below(1 << 24)),
            3 => format!("'text {}'", self.below(50)),
            4 => "''".to_owned(),
            5 => format!("zeroblob({})", self.below(3000)),
            6 => "9223372036854775807".to_owned(),
            7 => format!("'{}'", "long ".repeat(self.below(400) as usize)),
            8 => "1e300".to_owned(),
            9 => "'äöü 日本'".to_owned(),
            _ => format!("{}", self.below(40) as i64 - 5),
        }
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth == 0 {
            return match self.below(4) {
                0 => "x".to_owned(),
                1 => "y".to_owned(),
                2 => "id".to_owned(),
                _ => self.value(),
            };
        }
        let (left, right) = (self.expression(depth - 1), self.expression(depth - 1));
        match self.below(16) {
            0 => format!("({left} + {right})"),
            1 => format!("({left} || {right})"),
            2 => format!("CASE WHEN {left} > {right} THEN 1 ELSE y END"),
            3 => format!("coalesce({left}, {right})"),
            4 => format!("length({left})"),
            5 => format!("substr({left}, 2, 5)"),
            6 => format!("CAST({left} AS {})", self.pick(&["TEXT", "INTEGER", "REAL", "BLOB", "NUMERIC"])),
            7 => format!("({left} BETWEEN {right} AND 100)"),
            8 => format!("(x IN (1, 2, {left}))"),
            9 => format!("typeof({left})"),
            10 => format!("({left} IS NOT {right})"),
            11 => format!("round(abs(CAST({left} AS REAL)) % 1000, 3)"),
            12 => format!("json_extract('{{\"k\": [1, {}]}}', '$.k[1]')", self.below(9)),
            13 => format!("hex({left})"),
            14 => format!("replace({left}, 'e', {right})"),
            _ => format!("printf('%s-%d', {left}, {right})"),
        }
    }

    fn condition(&mut self) -> String {
        match self.below(7) {
            0 => format!("id = {}", self.below(60)),
            1 => format!("x > {} AND id < {}", self.below(20), self.below(80)),
            2 => "y LIKE '%tex%'".to_owned(),
            3 => "x IS NULL".to_owned(),
            4 => format!("y = 'TEXT {}' COLLATE {}", self.below(50), self.pick(&COLLATIONS)),
            5 => format!("id IN (SELECT id FROM {} WHERE x < {})", self.pick(&TABLES), self.below(30)),
            _ => format!("{} > {}", self.expression(1), self.value()),
        }
    }

    fn insert(&mut self) -> Statement {
        let table = self.pick(&TABLES);
        let verb = self.pick(&[
            "INSERT",
            "INSERT",
            "INSERT OR IGNORE",
            "INSERT OR REPLACE",
            "REPLACE",
            "INSERT OR FAIL",
        ]);
        let rows: Vec<String> = (0..1 + self.below(4))
            .map(|_| {
                let id = if self.below(3) == 0 { "NULL".to_owned() } else { self.below(90).to_string() };
                format!("({id}, {}, {}, {})", self.value(), self.value(), self.value())
            })
            .collect();
        let mut sql = format!("{verb} INTO {table}(id, x, y, z) VALUES {}", rows.join(", "));
        match self.below(8) {
            0 if verb == "INSERT" && table != "b" => {
                let target = if table == "w" { "(id, x)" } else { "(id)" };
                sql.push_str(&format!(" ON CONFLICT{target} DO UPDATE SET y = excluded.y"));
                Statement::Exec(sql)
            }
            1 => Statement::Query(format!("{sql} RETURNING id, x, typeof(y), z")),
            _ => Statement::Exec(sql),
        }
    }

    fn select(&mut self) -> String {
        let table = self.pick(&TABLES);
        let condition = self.condition();
        match self.below(16) {
            0 => format!("SELECT * FROM {table} WHERE {condition} ORDER BY id, x"),
            1 => format!(
                "SELECT count(*), sum(id), min(x), max(y), avg(id), group_concat(id) FROM (SELECT * FROM {table} ORDER BY id, x)"
            ),
            2 => format!("SELECT {} AS e FROM {table} ORDER BY id, x, e", self.expression(2)),
            3 => format!("SELECT x, count(*) FROM {table} GROUP BY x HAVING count(*) > 1 ORDER BY x"),
            4 => format!("SELECT DISTINCT typeof(z) FROM {table} ORDER BY 1"),
            5 => format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i, (SELECT count(*) FROM {table} WHERE id = i) FROM n",
                5 + self.below(300)
            ),
            6 => format!(
                "SELECT id, row_number() OVER (PARTITION BY x ORDER BY id), sum(id) OVER (ORDER BY id, x ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM {table} ORDER BY id, x"
            ),
            7 => "SELECT * FROM v ORDER BY aid, ax, bname".to_owned(),
            8 => format!("SELECT a.id, c.id FROM a JOIN c ON a.id = c.id WHERE a.{condition}"),
            9 => format!("SELECT id FROM a UNION SELECT id FROM {table} EXCEPT SELECT id FROM c ORDER BY 1"),
            10 => format!(
                "SELECT quote(z), y COLLATE {} FROM {table} ORDER BY y COLLATE NOCASE, id, x",
                self.pick(&COLLATIONS)
            ),
            11 => format!(
                "SELECT json_group_array(id), json_object('k', max(x)) FROM (SELECT id, x FROM {table} ORDER BY id, x)"
            ),
            12 => format!("EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE {condition}"),
            13 => format!(
                "SELECT title FROM docs WHERE docs MATCH '{}' ORDER BY rank, rowid",
                self.pick(&["alpha", "beta", "alpha AND beta", "gam*"])
            ),
            14 => "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name".to_owned(),
            _ => format!("VALUES (1, {}), (2, {})", self.value(), self.value()),
        }
    }

    fn transaction(&mut self) -> Statement {
        let text = match self.below(8) {
            0 | 1 if !self.in_transaction => {
                self.in_transaction = true;
                self.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]).to_owned()
            }
            2 if self.in_transaction => {
                self.savepoints += 1;
                format!("SAVEPOINT s{}", self.savepoints)
            }
            3 if self.savepoints > 0 => format!("ROLLBACK TO s{}", self.savepoints),
            4 if self.savepoints > 0 => {
                self.savepoints -= 1;
                format!("RELEASE s{}", self.savepoints + 1)
            }
            5 if self.in_transaction => {
                (self.in_transaction, self.savepoints) = (false, 0);
                "ROLLBACK".to_owned()
            }
            _ => {
                (self.in_transaction, self.savepoints) = (false, 0);
                // An error outside of a transaction, which must be the same error.
                "COMMIT".to_owned()
            }
        };
        Statement::Exec(text)
    }

    fn ddl(&mut self) -> Statement {
        self.serial += 1;
        let n = self.serial;
        Statement::Exec(match self.below(14) {
            0 => format!("CREATE TABLE extra{n}(p INTEGER PRIMARY KEY, q TEXT DEFAULT 'q{n}')"),
            1 => format!("CREATE TABLE extra{n} AS SELECT * FROM {}", self.pick(&TABLES)),
            2 => format!("DROP TABLE IF EXISTS extra{}", self.below(n + 1)),
            3 => format!("CREATE INDEX i{n} ON {}(y, x)", self.pick(&TABLES)),
            4 => format!("DROP INDEX IF EXISTS i{}", self.below(n + 1)),
            5 => format!("ALTER TABLE a ADD COLUMN n{n} INT DEFAULT {}", self.below(9)),
            6 => "ALTER TABLE log RENAME COLUMN what TO what2".to_owned(),
            7 => "ALTER TABLE log RENAME COLUMN what2 TO what".to_owned(),
            8 => "REINDEX".to_owned(),
            9 => "ANALYZE".to_owned(),
            10 => "VACUUM".to_owned(),
            11 => format!("CREATE TEMP TABLE temp{n} AS SELECT id FROM a"),
            12 => format!("PRAGMA user_version = {n}"),
            _ => format!("ALTER TABLE extra{} RENAME TO renamed{n}", self.below(n + 1)),
        })
    }

    fn write(&mut self) -> Statement {
        let table = self.pick(&TABLES);
        let condition = self.condition();
        Statement::Exec(match self.below(9) {
            0 => format!("DELETE FROM {table} WHERE {condition}"),
            1 => format!("UPDATE OR IGNORE {table} SET x = x + 1 WHERE {condition}"),
            2 => format!(
                "UPDATE {table} SET z = {}, y = {} WHERE {condition}",
                self.value(),
                self.expression(1)
            ),
            3 => format!(
                "INSERT INTO a(x, y) SELECT x, y FROM {table} ORDER BY id, x LIMIT {}",
                self.below(20)
            ),
            4 => format!(
                "INSERT INTO docs(title, body) VALUES('{}', 'alpha beta {}')",
                self.pick(&["alpha", "gamma"]),
                self.below(9)
            ),
            5 => format!("DELETE FROM docs WHERE rowid = {}", self.below(30)),
            6 => format!(
                "WITH t AS (SELECT id FROM {table} WHERE {condition}) DELETE FROM log WHERE n IN (SELECT id FROM t)"
            ),
            7 => "INSERT INTO v(ax) VALUES(7)".to_owned(),
            _ => format!("UPDATE a SET x = b.id FROM b WHERE a.id = b.id AND b.{condition}"),
        })
    }

    fn odd(&mut self) -> Statement {
        let sql = self.pick(&[
            "SELECT",
            "SELECT * FROM nowhere",
            "INSERT INTO a(nothing) VALUES(1)",
            "SELEC 1",
            "SELECT 1 +",
            "SELECT abs(1, 2)",
            "INSERT INTO a VALUES(1)",
            "DROP TABLE nowhere",
            "RELEASE nowhere",
            "SELECT x'0'",
            "CREATE TABLE a(x)",
            "SELECT abs(-9223372036854775808)",
            "SELECT json('{')",
            "INSERT INTO c(x) VALUES(13)",
            "INSERT INTO c(x) VALUES(99)",
            "INSERT INTO c(y) VALUES(NULL)",
            "INSERT INTO child(x) VALUES(-77)",
            "INSERT INTO strict_t(x) VALUES('text')",
            "PRAGMA foreign_keys",
            "PRAGMA table_info(c)",
            "PRAGMA index_list(a)",
            "PRAGMA user_version",
            "PRAGMA integrity_check",
            "PRAGMA page_count",
            "PRAGMA freelist_count",
            "PRAGMA nothing_known",
            "SELECT sqlite_version()",
            "SELECT changes(), last_insert_rowid()",
            "SELECT total(x) FROM b",
        ]);
        Statement::Query(sql.to_owned())
    }

    /// The next statement.
    pub fn next(&mut self) -> Statement {
        match self.below(100) {
            0..=27 => self.insert(),
            28..=54 => Statement::Query(self.select()),
            55..=74 => self.write(),
            75..=83 => self.transaction(),
            84..=90 => self.ddl(),
            _ => self.odd(),
        }
    }
}
