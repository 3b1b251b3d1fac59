//! Requests: what a client asks.

use std::fmt;

use crate::base::limits::DATABASE_NAME_BYTES_MAX;
use crate::base::{DecodeError, NodeId, Reader, Role, Writer};

use super::failure::{REQUEST_SCHEMA, REQUEST_TYPE, STATEMENT_SCHEMA};
use super::frame::{begin, finish};
use super::value::append_text;
use super::{Failure, Frame, Params, Schema};

pub(super) mod kind {
    pub const LEADER: u8 = 0;
    pub const CLIENT: u8 = 1;
    pub const OPEN: u8 = 3;
    pub const PREPARE: u8 = 4;
    pub const EXEC: u8 = 5;
    pub const QUERY: u8 = 6;
    pub const FINALIZE: u8 = 7;
    pub const EXEC_SQL: u8 = 8;
    pub const QUERY_SQL: u8 = 9;
    pub const INTERRUPT: u8 = 10;
    pub const CONNECT: u8 = 11;
    pub const ADD: u8 = 12;
    pub const ASSIGN: u8 = 13;
    pub const REMOVE: u8 = 14;
    pub const DUMP: u8 = 15;
    pub const CLUSTER: u8 = 16;
    pub const TRANSFER: u8 = 17;
    pub const DESCRIBE: u8 = 18;
    pub const WEIGHT: u8 = 19;
}

/// The type of an interrupt, for whoever looks at headers alone.
pub const INTERRUPT: u8 = kind::INTERRUPT;

/// Of OPEN's flags: whoever opens is content with what a node that does not lead has, and may only read there. Every
/// released client sends 0.
pub const OPEN_ANYWHERE: u64 = 1;

/// A request. Texts are borrowed from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Who leads?
    Leader,
    /// Registers the client.
    Client {
        /// A number of the client's choice.
        id: u64,
    },
    /// Opens the connection's one database. The VFS name is ignored, and so are all flags but [`OPEN_ANYWHERE`].
    Open {
        /// The database's name.
        filename: &'a [u8],
        /// [`OPEN_ANYWHERE`], or 0.
        flags: u64,
        /// Unused.
        vfs: &'a [u8],
    },
    /// Prepares a statement.
    Prepare {
        /// V0: one statement only; V1: the first one, and the answer says where the next begins.
        schema: Schema,
        /// The database.
        db: u64,
        /// The text.
        sql: &'a [u8],
    },
    /// Runs a prepared statement that gives no rows.
    Exec {
        /// Layout of the tuple.
        schema: Schema,
        /// The database.
        db: u32,
        /// The statement.
        stmt: u32,
        /// What to bind.
        params: Params<'a>,
    },
    /// Runs a prepared statement that may give rows.
    Query {
        /// Layout of the tuple.
        schema: Schema,
        /// The database.
        db: u32,
        /// The statement.
        stmt: u32,
        /// What to bind.
        params: Params<'a>,
    },
    /// Forgets a prepared statement.
    Finalize {
        /// The database.
        db: u32,
        /// The statement.
        stmt: u32,
    },
    /// Runs all statements of a text.
    ExecSql {
        /// Layout of the tuple.
        schema: Schema,
        /// The database.
        db: u64,
        /// The text.
        sql: &'a [u8],
        /// What to bind.
        params: Params<'a>,
    },
    /// Runs the only statement of a text.
    QuerySql {
        /// Layout of the tuple.
        schema: Schema,
        /// The database.
        db: u64,
        /// The text.
        sql: &'a [u8],
        /// What to bind.
        params: Params<'a>,
    },
    /// Stops the query that runs.
    Interrupt {
        /// Unused.
        db: u64,
    },
    /// Turns the connection into one between peers.
    Connect {
        /// The peer's id.
        id: NodeId,
        /// The peer's address.
        address: &'a [u8],
    },
    /// Adds a spare.
    Add {
        /// The new server's id.
        id: NodeId,
        /// The new server's address.
        address: &'a [u8],
    },
    /// Makes a server a voter: the short form of assign.
    Promote {
        /// The server.
        id: NodeId,
    },
    /// Gives a server a role.
    Assign {
        /// The server.
        id: NodeId,
        /// The role; an unknown number is read as stand-by.
        role: Role,
    },
    /// Removes a server.
    Remove {
        /// The server.
        id: NodeId,
    },
    /// Asks for the bytes of a database.
    Dump {
        /// The database's name.
        filename: &'a [u8],
    },
    /// Asks for the servers of the cluster.
    Cluster {
        /// 0: without roles, 1: with roles; nothing else is known.
        format: u64,
    },
    /// Makes another voter the leader.
    Transfer {
        /// The voter; 0 for any.
        id: NodeId,
    },
    /// Asks for this node's failure domain and weight.
    Describe {
        /// 0; nothing else is known.
        format: u64,
    },
    /// Sets this node's weight.
    Weight {
        /// The weight.
        weight: u64,
    },
}

/// Why a message is not a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// To be answered; the connection goes on.
    Answer(Failure),
    /// The connection is to be closed without an answer.
    Close(DecodeError),
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self::Close(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(failure) => f.write_str(&String::from_utf8_lossy(&failure.text)),
            Self::Close(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl<'a> Request<'a> {
    /// The request in a message. Type and schema are looked at before the body; bytes behind a complete
    /// body are ignored.
    ///
    /// # Errors
    /// [`Refused`], which says whether the connection survives.
    pub fn decode(frame: Frame<'a>) -> Result<Self, Refused> {
        let schema = check_schema(frame.header.kind, frame.header.schema).map_err(Refused::Answer)?;
        let mut r = Reader::new(frame.body);
        Ok(match frame.header.kind {
            kind::LEADER => {
                r.u64("unused")?;
                Self::Leader
            }
            kind::CLIENT => Self::Client { id: r.u64("client id")? },
            kind::OPEN => decode_open(&mut r)?,
            kind::PREPARE => Self::Prepare { schema, db: r.u64("database")?, sql: r.text("sql")? },
            kind::EXEC => {
                let (db, stmt) = (r.u32("database")?, r.u32("statement")?);
                Self::Exec { schema, db, stmt, params: Params::decode(&mut r, schema)? }
            }
            kind::QUERY => {
                let (db, stmt) = (r.u32("database")?, r.u32("statement")?);
                Self::Query { schema, db, stmt, params: Params::decode(&mut r, schema)? }
            }
            kind::FINALIZE => Self::Finalize { db: r.u32("database")?, stmt: r.u32("statement")? },
            kind::EXEC_SQL => {
                let (db, sql) = (r.u64("database")?, r.text("sql")?);
                Self::ExecSql { schema, db, sql, params: Params::decode(&mut r, schema)? }
            }
            kind::QUERY_SQL => {
                let (db, sql) = (r.u64("database")?, r.text("sql")?);
                Self::QuerySql { schema, db, sql, params: Params::decode(&mut r, schema)? }
            }
            kind::INTERRUPT => Self::Interrupt { db: r.u64("database")? },
            kind::CONNECT => Self::Connect { id: id(&mut r)?, address: r.text("address")? },
            kind::ADD => Self::Add { id: id(&mut r)?, address: r.text("address")? },
            kind::ASSIGN => decode_assign(&mut r)?,
            kind::REMOVE => Self::Remove { id: id(&mut r)? },
            kind::DUMP => Self::Dump { filename: r.text("filename")? },
            kind::CLUSTER => Self::Cluster { format: r.u64("format")? },
            kind::TRANSFER => Self::Transfer { id: id(&mut r)? },
            kind::DESCRIBE => Self::Describe { format: r.u64("format")? },
            kind::WEIGHT => Self::Weight { weight: r.u64("weight")? },
            _ => return Err(Refused::Answer(REQUEST_TYPE)),
        })
    }

    /// The whole message, header included. `None` when it is too long for a header (32 GiB).
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (mut w, schema) = (begin(), self.schema());
        self.encode_body(&mut w, schema);
        finish(w, self.kind(), schema.code())
    }

    fn encode_body(&self, w: &mut Writer, schema: Schema) {
        match *self {
            Self::Leader => w.u64(0),
            Self::Client { id } => w.u64(id),
            Self::Open { filename, flags, vfs } => append_text(append_text(w, filename).u64(flags), vfs),
            Self::Prepare { db, sql, .. } => append_text(w.u64(db), sql),
            Self::Exec { db, stmt, params, .. } | Self::Query { db, stmt, params, .. } => {
                params.encode(w.u32(db).u32(stmt), schema);
                w
            }
            Self::Finalize { db, stmt } => w.u32(db).u32(stmt),
            Self::ExecSql { db, sql, params, .. } | Self::QuerySql { db, sql, params, .. } => {
                params.encode(append_text(w.u64(db), sql), schema);
                w
            }
            Self::Interrupt { db } => w.u64(db),
            Self::Connect { id, address } | Self::Add { id, address } => append_text(w.u64(id.0), address),
            Self::Promote { id } | Self::Remove { id } | Self::Transfer { id } => w.u64(id.0),
            Self::Assign { id, role } => w.u64(id.0).u64(role_code(role)),
            Self::Dump { filename } => append_text(w, filename),
            Self::Cluster { format } | Self::Describe { format } => w.u64(format),
            Self::Weight { weight } => w.u64(weight),
        };
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Leader => kind::LEADER,
            Self::Client { .. } => kind::CLIENT,
            Self::Open { .. } => kind::OPEN,
            Self::Prepare { .. } => kind::PREPARE,
            Self::Exec { .. } => kind::EXEC,
            Self::Query { .. } => kind::QUERY,
            Self::Finalize { .. } => kind::FINALIZE,
            Self::ExecSql { .. } => kind::EXEC_SQL,
            Self::QuerySql { .. } => kind::QUERY_SQL,
            Self::Interrupt { .. } => kind::INTERRUPT,
            Self::Connect { .. } => kind::CONNECT,
            Self::Add { .. } => kind::ADD,
            Self::Promote { .. } | Self::Assign { .. } => kind::ASSIGN,
            Self::Remove { .. } => kind::REMOVE,
            Self::Dump { .. } => kind::DUMP,
            Self::Cluster { .. } => kind::CLUSTER,
            Self::Transfer { .. } => kind::TRANSFER,
            Self::Describe { .. } => kind::DESCRIBE,
            Self::Weight { .. } => kind::WEIGHT,
        }
    }

    /// The schema to send; more parameters than 8 bits can count need the wide one, whatever was asked for.
    fn schema(&self) -> Schema {
        match *self {
            Self::Prepare { schema, .. } => schema,
            Self::Exec { schema, params, .. }
            | Self::Query { schema, params, .. }
            | Self::ExecSql { schema, params, .. }
            | Self::QuerySql { schema, params, .. } => schema.wide_enough(params.len()),
            _ => Schema::V0,
        }
    }
}

/// The schema to decode with. Which failure refuses an unknown one depends on the request's type.
fn check_schema(kind: u8, schema: u8) -> Result<Schema, Failure> {
    match kind {
        kind::PREPARE | kind::EXEC | kind::QUERY | kind::EXEC_SQL | kind::QUERY_SQL => {
            Schema::from_code(schema).ok_or(STATEMENT_SCHEMA)
        }
        kind::CONNECT => Ok(Schema::V0),
        2 | 20.. => Err(REQUEST_TYPE),
        _ if schema == 0 => Ok(Schema::V0),
        _ => Err(REQUEST_SCHEMA),
    }
}

fn decode_open<'a>(r: &mut Reader<'a>) -> Result<Request<'a>, DecodeError> {
    let (field, filename) = ("filename", r.text("filename")?);
    let (max, found) = (DATABASE_NAME_BYTES_MAX as u64, filename.len() as u64);
    if found > max {
        return Err(DecodeError::Range { field, max, found });
    }
    Ok(Request::Open { filename, flags: r.u64("flags")?, vfs: r.text("vfs")? })
}

fn decode_assign<'a>(r: &mut Reader<'a>) -> Result<Request<'a>, DecodeError> {
    let id = id(r)?;
    if r.is_empty() {
        return Ok(Request::Promote { id });
    }
    Ok(Request::Assign { id, role: role_from_code(r.u64("role")?).unwrap_or(Role::StandBy) })
}

fn id(r: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    Ok(NodeId(r.u64("server id")?))
}

/// The number of a role in this protocol, as in the C API and in lists of members; the log has others.
#[must_use]
pub fn role_code(role: Role) -> u64 {
    match role {
        Role::Voter => 0,
        Role::StandBy => 1,
        Role::Spare => 2,
    }
}

/// The role with this number in this protocol.
pub(super) fn role_from_code(code: u64) -> Option<Role> {
    match code {
        0 => Some(Role::Voter),
        1 => Some(Role::StandBy),
        2 => Some(Role::Spare),
        _ => None,
    }
}
