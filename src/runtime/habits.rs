//! Which statements are short enough to run on the loop's own thread: what is known of each text.
//!
//! Only a guess: a statement that takes longer than it used to is left behind by the loop.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::base::limits;
use crate::engine::ConnId;
use crate::engine::jobs::SqlRequest;
use crate::session::Sql;

/// A statement that takes longer on average goes to a worker.
pub const SHORT: Duration = Duration::from_micros(200);

/// A longer text is not looked at.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// A text with more statements goes to a worker.
const STATEMENTS_MAX: usize = 8;

/// These take long, or make others wait.
const LONG_WORDS: [&[u8]; 6] = [b"CREATE", b"DROP", b"ALTER", b"VACUUM", b"REINDEX", b"ANALYZE"];

/// How long something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of the processor's time: on a busy machine the clock would tell of others. Not known when it was not
    /// measured and the clock says that it may have been long.
    pub cpu: Option<Duration>,
    /// The loop went on without it.
    pub overtaken: bool,
}

/// What is known of statements.
#[derive(Debug, Default)]
pub struct Habits {
    /// The texts of the statements that each client prepared.
    kept: HashMap<ConnId, HashMap<u32, Text>>,
    /// What each client runs.
    running: HashMap<ConnId, Text>,
    known: HashMap<u64, Known>,
}

/// A statement's text, by its hash, and whether it is long whatever is known.
#[derive(Clone, Copy, Debug)]
struct Text {
    hash: u64,
    long: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    average: Duration,
    /// How often in a row the loop went on without it.
    overtaken: u32,
}

impl Text {
    fn new(sql: &[u8]) -> Self {
        if sql.len() > TEXT_BYTES_MAX {
            return Self { hash: 0, long: true };
        }
        let mut hasher = DefaultHasher::new();
        sql.hash(&mut hasher);
        Self { hash: hasher.finish(), long: looks_long(sql) }
    }
}

fn looks_long(sql: &[u8]) -> bool {
    let word = sql.trim_ascii_start().split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    LONG_WORDS.iter().any(|long| word.eq_ignore_ascii_case(long))
        || sql.iter().filter(|byte| **byte == b';').count() > STATEMENTS_MAX
}

impl Habits {
    /// The client is about to run this: whether it is likely to be short.
    pub fn is_short(&mut self, conn: ConnId, request: &SqlRequest) -> bool {
        let text = match request {
            SqlRequest::Client(Sql::Prepare { stmt, sql, .. }) => {
                self.kept.entry(conn).or_default().insert(*stmt, Text::new(sql));
                None
            }
            SqlRequest::Client(Sql::Exec { stmt, .. } | Sql::Query { stmt, .. }) => {
                self.kept.get(&conn).and_then(|kept| kept.get(stmt)).copied()
            }
            SqlRequest::Client(Sql::ExecSql { sql, .. } | Sql::QuerySql { sql, .. }) => Some(Text::new(sql)),
            SqlRequest::Client(Sql::Finalize { stmt }) => {
                if let Some(kept) = self.kept.get_mut(&conn) {
                    kept.remove(stmt);
                }
                None
            }
            SqlRequest::Abandon | SqlRequest::Rollback => None,
        };
        match text {
            Some(text) => self.running.insert(conn, text),
            None => self.running.remove(&conn),
        };
        self.goes_on_short(conn)
    }

    /// The client is about to go on with what it runs: whether that is likely to be short.
    pub fn goes_on_short(&self, conn: ConnId) -> bool {
        let Some(text) = self.running.get(&conn) else { return true };
        let known = self.known.get(&text.hash).copied().unwrap_or_default();
        !text.long && known.average <= SHORT && known.overtaken < 2
    }

    /// What the client ran ended, or pauses.
    pub fn handle_ran(&mut self, conn: ConnId, spent: Spent) {
        let Some(text) = self.running.get(&conn) else { return };
        if self.known.len() >= limits::STATEMENT_HABITS_MAX && !self.known.contains_key(&text.hash) {
            // Whatever is long shows so again.
            self.known.clear();
        }
        let known = self.known.entry(text.hash).or_default();
        if let Some(cpu) = spent.cpu {
            known.average = if known.average.is_zero() { cpu } else { (known.average * 7 + cpu) / 8 };
            if spent.overtaken && cpu > SHORT {
                // Once is enough: what it did wait for is not its average.
                known.average = known.average.max(cpu);
            }
        }
        known.overtaken = if spent.overtaken { known.overtaken.saturating_add(1) } else { 0 };
    }

    /// The client's connection is closed.
    pub fn forget(&mut self, conn: ConnId) {
        self.kept.remove(&conn);
        self.running.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Habits, SHORT, Spent};
    use crate::base::limits;
    use crate::codec::client::{OwnedParams, Schema};
    use crate::engine::ConnId;
    use crate::engine::jobs::SqlRequest;
    use crate::session::Sql;

    const A: ConnId = ConnId(1);

    fn text(sql: &str) -> SqlRequest {
        SqlRequest::Client(Sql::ExecSql { sql: sql.into(), params: OwnedParams::new(&[]) })
    }

    fn spent(micros: u64, overtaken: bool) -> Spent {
        Spent { cpu: Some(Duration::from_micros(micros)), overtaken }
    }

    #[test]
    fn the_text_alone_tells_that_some_are_long() {
        let mut habits = Habits::default();
        for sql in ["VACUUM", " create index i ON t(a)", "drop table t", &"SELECT 1;".repeat(9)] {
            assert!(!habits.is_short(A, &text(sql)), "{sql}");
        }
        for sql in ["INSERT INTO t VALUES(1)", "SELECT 1; SELECT 2", "BEGIN", ""] {
            assert!(habits.is_short(A, &text(sql)), "{sql}");
        }
    }

    #[test]
    fn a_prepared_statement_that_was_long_is_long_for_other_clients_too_until_it_is_short_again() {
        let mut habits = Habits::default();
        let prepare = |stmt| {
            SqlRequest::Client(Sql::Prepare { schema: Schema::V0, stmt, sql: b"SELECT slow(?)".to_vec() })
        };
        let query = |stmt| SqlRequest::Client(Sql::Query { stmt, params: OwnedParams::new(&[]) });
        assert!(habits.is_short(A, &prepare(3)));
        assert!(habits.is_short(A, &query(3)));
        habits.handle_ran(A, spent(5_000, true));
        assert!(!habits.goes_on_short(A));
        let other = ConnId(2);
        habits.is_short(other, &prepare(0));
        assert!(!habits.is_short(other, &query(0)));
        let mut runs = 0;
        while !habits.is_short(other, &query(0)) {
            habits.handle_ran(other, spent(10, false));
            runs += 1;
            assert!(runs < 100);
        }
        assert!(runs > 8);
    }

    #[test]
    fn one_that_waits_rather_than_works_is_long_when_overtaken_twice() {
        let mut habits = Habits::default();
        for expected in [true, true, false] {
            assert_eq!(habits.is_short(A, &text("SELECT waits()")), expected);
            habits.handle_ran(A, spent(20, true));
        }
        habits.handle_ran(A, spent(20, false));
        assert!(habits.is_short(A, &text("SELECT waits()")));
        habits.handle_ran(A, Spent { cpu: None, overtaken: false });
        assert!(habits.is_short(A, &text("SELECT waits()")), "nobody knows how long it was");
        assert!(SHORT > Duration::from_micros(20));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut habits = Habits::default();
        for number in 0..limits::STATEMENT_HABITS_MAX + 10 {
            habits.is_short(A, &text(&format!("SELECT {number}")));
            habits.handle_ran(A, spent(1, false));
            assert!(habits.known.len() <= limits::STATEMENT_HABITS_MAX);
        }
        habits.forget(A);
        assert!(habits.running.is_empty() && habits.kept.is_empty());
    }
}
