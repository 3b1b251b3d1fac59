//! Failures that a client can meet: codes and exact texts, in one table.

use std::borrow::Cow;

/// A failure answer: a SQLite result code (extended) or one of the protocol's own, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that clients act on.
    pub code: u64,
    /// The text that people read; bytes, since SQLite quotes what it was given.
    pub text: Cow<'static, [u8]>,
}

impl Failure {
    /// A failure with a text made at run time. A NUL byte ends the text.
    #[must_use]
    pub fn new(code: u64, text: impl Into<Vec<u8>>) -> Self {
        Self { code, text: Cow::Owned(text.into()) }
    }

    const fn fixed(code: u64, text: &'static str) -> Self {
        Self { code, text: Cow::Borrowed(text.as_bytes()) }
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Failure = Failure::fixed($code, $text);)*

        /// Every failure of this file.
        pub const ALL: &[Failure] = &[$($name),*];
    };
}

table! {
    /// The text holds no statement. The code is really 0; Go takes it for a broken connection.
    EMPTY_STATEMENT = 0 "empty statement";
    /// Something other than blanks and comments follows the only statement.
    NONEMPTY_TAIL = 1 "nonempty statement tail";
    /// A parameter of exec or `exec_sql` cannot be bound.
    BIND_PARAMETERS = 1 "bind parameters";
    /// An exec met a row.
    ROWS_IN_EXEC = 1 "rows yielded when none expected for EXEC request";
    /// The schema byte of prepare, exec, query, `exec_sql` or `query_sql`.
    STATEMENT_SCHEMA = 1 "unrecognized schema version";
    /// The schema byte of any other request.
    REQUEST_SCHEMA = 1005 "unrecognized schema version";
    /// No request has this type.
    REQUEST_TYPE = 1005 "unrecognized request type";
    /// The format field of cluster.
    CLUSTER_FORMAT = 1005 "unrecognized cluster format";
    /// The format field of describe.
    DESCRIBE_FORMAT = 15 "bad format version";
    /// The transfer did not end in time.
    TRANSFER_FAILED = 1 "leadership transfer failed";
    /// There is no room on the disk for what was to be written.
    FULL = 13 "database or disk is full";
    /// Another connection holds the database.
    LOCKED = 5 "database is locked";
    /// The snapshot read is older than the last write.
    STALE_SNAPSHOT = 517 "database is locked";
    /// A second open on one connection.
    ALREADY_OPEN = 5 "a database for this connection is already open";
    /// One change of the configuration at a time.
    CHANGE_PENDING = 5 "a configuration change is already in progress";
    /// Everything else that goes wrong in a statement, such as bad parameters of a query.
    EXEC_FAILED = 10 "leader exec failed";
    /// This node does not lead.
    NOT_LEADER = 10250 "not leader";
    /// This node stopped leading; the fate of the write is unknown.
    LEADERSHIP_LOST = 10506 "leadership lost";
    /// This node stopped leading between the check and the submission of a membership change.
    MEMBERSHIP_NOT_LEADER = 10250 "server is not the leader";
    /// This node stopped leading during a membership change.
    MEMBERSHIP_LEADERSHIP_LOST = 10506 "server has lost leadership";
    /// No database is open on this connection, or the id is not its.
    NO_DATABASE = 12 "no database opened";
    /// No prepared statement has this id.
    NO_STATEMENT = 12 "no statement with the given id";
    /// Dump of a database that does not exist (the grammar is C's).
    DATABASE_MISSING = 1002 "database does not exists";
    /// Add: the id is taken.
    ID_IN_USE = 1 "server ID already in use";
    /// Add: the address is taken.
    ADDRESS_IN_USE = 1 "server address already in use";
    /// Assign: the id is unknown; transfer: there is no candidate.
    RESOURCE_NOT_FOUND = 1 "Resource not found";
    /// Assign: the server has this role already.
    BAD_ROLE = 1 "server role is not valid";
    /// Remove: the id is unknown; transfer: it is not another voter.
    BAD_ID = 1 "server ID is not valid";
    /// The statement was interrupted.
    INTERRUPTED = 9 "interrupted";
    /// An answer longer than a message can be.
    TOO_BIG = 18 "string or blob too big";
}

/// Why a database of this name is not created: C nodes that met it in the log would die for good.
#[must_use]
pub fn name_not_allowed(name: &[u8]) -> Failure {
    let mut text = b"unable to open database file: name ".to_vec();
    text.extend_from_slice(name);
    text.extend_from_slice(b" is not allowed");
    Failure::new(14, text)
}
