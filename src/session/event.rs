//! What a session tells the node, and what the node replies.

use std::fmt;
use std::sync::Arc;

use crate::base::{DecodeError, NodeId, Role};
use crate::codec::client::{Failure, FrameError, OwnedParams, Schema};

/// Something for the node to do. Up to [`SessionEvent::Weight`] they are requests: each is to be answered by
/// [`super::Session::handle_reply`], and there is no other before that.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// Who leads? To be answered with [`Reply::Server`].
    Leader {
        /// An old client: it gets the leader's address from stand-bys and spares too.
        legacy: bool,
    },
    /// Open this database: [`Reply::Opened`].
    Open {
        /// Its name, as it came.
        name: Vec<u8>,
        /// To read from it even if this node does not lead.
        anywhere: bool,
    },
    /// Do something with SQL, on the connection's database.
    Sql(Sql),
    /// List the cluster's servers: [`Reply::Servers`].
    Cluster,
    /// Add a spare: [`Reply::Empty`].
    Add {
        /// Its id.
        id: NodeId,
        /// Its address.
        address: Vec<u8>,
    },
    /// Give a server a role: [`Reply::Empty`].
    Assign {
        /// The server.
        id: NodeId,
        /// The role.
        role: Role,
    },
    /// Remove a server: [`Reply::Empty`].
    Remove {
        /// The server.
        id: NodeId,
    },
    /// Hand leadership over: [`Reply::Empty`].
    Transfer {
        /// To this voter; 0 for any.
        id: NodeId,
    },
    /// Send a database's bytes, a `Response::Files`: [`Reply::SomeParts`] any number of times, then
    /// [`Reply::Parts`].
    Dump {
        /// Its name.
        name: Vec<u8>,
    },
    /// Tell failure domain and weight: [`Reply::Metadata`].
    Describe,
    /// Set the weight: [`Reply::Empty`].
    Weight {
        /// The weight.
        weight: u64,
    },

    /// Stop the running statement, whose own reply is still due. The session answers the interrupt itself.
    Interrupt,
    /// The last rows are written out: make the next ones.
    MoreRows,
    /// The client wants no more rows: reset the statement. The request is over, no reply is due.
    RowsAbandoned,
    /// The connection turned into one between peers. The session is over.
    PeerUpgrade {
        /// The peer's id.
        id: NodeId,
        /// The peer's address.
        address: Vec<u8>,
        /// Bytes of the peer protocol that came along.
        rest: Vec<u8>,
    },
    /// Close the socket and undo whatever the connection has under way. The session is over.
    Close(CloseReason),
}

/// SQL to run. The statement ids are live when they come.
#[derive(Clone, Debug, PartialEq)]
pub enum Sql {
    /// Prepare a statement and keep it under this id: [`Reply::Prepared`].
    Prepare {
        /// V0: the text holds one statement; V1: prepare its first.
        schema: Schema,
        /// The id, free until the reply.
        stmt: u32,
        /// The text.
        sql: Vec<u8>,
    },
    /// Run a prepared statement that gives no rows: [`Reply::Result`].
    Exec {
        /// The statement.
        stmt: u32,
        /// What to bind.
        params: OwnedParams,
    },
    /// Run a prepared statement: [`Reply::RowsPart`] any number of times, then [`Reply::Message`].
    Query {
        /// The statement.
        stmt: u32,
        /// What to bind.
        params: OwnedParams,
    },
    /// Forget a prepared statement, whose id is free from now on: [`Reply::Empty`].
    Finalize {
        /// The statement.
        stmt: u32,
    },
    /// Run all statements of a text: [`Reply::Result`].
    ExecSql {
        /// The text.
        sql: Vec<u8>,
        /// What to bind.
        params: OwnedParams,
    },
    /// Run the only statement of a text: as for [`Sql::Query`].
    QuerySql {
        /// The text.
        sql: Vec<u8>,
        /// What to bind.
        params: OwnedParams,
    },
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it, or the socket failed.
    Gone,
    /// It did not begin with a protocol word that we know.
    Protocol(u64),
    /// A message's length is none that we read.
    Frame(FrameError),
    /// A message's body is not what its header says.
    Body(DecodeError),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("closed by the client"),
            Self::Protocol(word) => write!(f, "protocol word: 1 expected, found {word:#x}"),
            Self::Frame(error) => error.fmt(f),
            Self::Body(error) => error.fmt(f),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The request failed.
    Failure(Failure),
    /// The leader; id 0 and no address when there is none.
    Server {
        /// Its id.
        id: NodeId,
        /// Its address.
        address: Vec<u8>,
    },
    /// The cluster's servers.
    Servers(Vec<ServerInfo>),
    /// The database is open.
    Opened,
    /// The statement is prepared; its id is taken now.
    Prepared {
        /// Its highest parameter index.
        params: u64,
        /// Where the next statement begins in the text.
        tail: u64,
    },
    /// The statement is done.
    Result {
        /// The connection's last row id.
        last_insert_id: u64,
        /// The connection's last count of changed rows.
        rows_affected: u64,
    },
    /// Encoded rows messages with the part marker; several at once, a little more than
    /// `limits::ROWS_BATCH_BYTES` in all, save a wake-up for each.
    RowsPart(Vec<u8>),
    /// Done; nothing to tell.
    Empty,
    /// The node's placement.
    Metadata {
        /// Its failure domain.
        failure_domain: u64,
        /// Its weight.
        weight: u64,
    },
    /// Encoded messages that end the answer: the last rows, or files.
    Message(Vec<u8>),
    /// The same in parts that the page store shares.
    Parts(Vec<Arc<[u8]>>),
    /// Parts of a message that goes on: [`SessionEvent::MoreRows`] when they are written.
    SomeParts(Vec<Arc<[u8]>>),
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub address: Vec<u8>,
    /// Its role.
    pub role: Role,
}
