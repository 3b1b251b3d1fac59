//! What a SQL job is: data that travels to whoever owns the connection, and data that comes back.

use crate::session::{Reply, Sql};

/// Something to run on a client's connection.
#[derive(Clone, Debug)]
pub enum SqlRequest {
    /// A client's request.
    Client(Sql),
    /// Reset the query whose rows nobody wants any more. Nobody is answered.
    Abandon,
    /// Roll back the open transaction. Nobody is answered.
    Rollback,
}

const WRITE_WORDS: [&[u8]; 9] =
    [b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"CREATE", b"DROP", b"ALTER", b"VACUUM", b"REINDEX"];

/// Whether the first word of `sql`, or of a BEGIN the second, is one that writes.
#[must_use]
pub fn text_looks_like_write(sql: &[u8]) -> bool {
    let mut words =
        sql.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return false };
    if first.eq_ignore_ascii_case(b"BEGIN") {
        return words.next().is_some_and(|second| {
            second.eq_ignore_ascii_case(b"IMMEDIATE") || second.eq_ignore_ascii_case(b"EXCLUSIVE")
        });
    }
    WRITE_WORDS.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Whether the text begins or ends a transaction: whoever sends it does not think of the one before as open.
#[must_use]
pub fn text_bounds_transaction(sql: &[u8]) -> bool {
    let mut words = sql.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return false };
    let is = |names: &[&[u8]]| names.iter().any(|name| first.eq_ignore_ascii_case(name));
    // ROLLBACK TO goes back to a savepoint, and the transaction goes on.
    is(&[b"BEGIN", b"COMMIT", b"END"])
        || is(&[b"ROLLBACK"]) && !words.take(2).any(|word| word.eq_ignore_ascii_case(b"TO"))
}

/// How far a request came.
#[derive(Debug)]
pub enum Progress {
    /// It ended.
    Done(Outcome),
    /// Full messages of rows; more follow once they were written.
    Batch {
        /// The framed messages.
        messages: Vec<u8>,
        /// The version that the rows were read from.
        read_seq: Option<u64>,
    },
    /// Another connection has the writer slot, or too much is not committed yet. The statement was reset and
    /// nothing of it happened, though earlier ones of the same text may be done; it runs again when resumed.
    NeedsSlot,
}

/// The end of a request, and the state it left its connection in.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The answer, if somebody is answered.
    pub reply: Option<Reply>,
    /// The newest version that the request made.
    pub published: Option<u64>,
    /// The newest version that the request read.
    pub read_seq: Option<u64>,
    /// Whether the connection has the writer slot.
    pub holds_slot: bool,
    /// Whether the rollback that was asked for ended a transaction.
    pub rolled_back: bool,
    /// Whether the statement that was prepared is likely to write.
    pub prepared_writes: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::{text_bounds_transaction, text_looks_like_write};

    #[test]
    fn the_first_word_tells_where_a_transaction_begins_or_ends() {
        for sql in ["BEGIN IMMEDIATE", "commit", " End;", "ROLLBACK", "ROLLBACK TRANSACTION"] {
            assert!(text_bounds_transaction(sql.as_bytes()), "{sql}");
        }
        for sql in ["", "SELECT 1", "ROLLBACK TO x", "rollback transaction to savepoint x", "SAVEPOINT x"] {
            assert!(!text_bounds_transaction(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn the_first_word_tells_writers_from_readers() {
        for sql in ["INSERT INTO t VALUES(1)", "  update t set a=1", "BEGIN IMMEDIATE", "begin\n exclusive"] {
            assert!(text_looks_like_write(sql.as_bytes()), "{sql}");
        }
        for sql in ["SELECT 1", "BEGIN", "BEGIN DEFERRED", "COMMIT", "", "inserted", "PRAGMA user_version=1"]
        {
            assert!(!text_looks_like_write(sql.as_bytes()), "{sql}");
        }
    }
}
