//! Responses: what a node answers.

use crate::base::{DecodeError, NodeId, Reader, Role, Writer};

use super::failure::TOO_BIG;
use super::frame::{begin, finish};
use super::request::{role_code, role_from_code};
use super::value::append_text;
use super::{Failure, Frame, Rows, Schema};

pub(super) mod kind {
    pub const FAILURE: u8 = 0;
    pub const SERVER: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const SERVERS: u8 = 3;
    pub const DB: u8 = 4;
    pub const STMT: u8 = 5;
    pub const RESULT: u8 = 6;
    pub const ROWS: u8 = 7;
    pub const EMPTY: u8 = 8;
    pub const FILES: u8 = 9;
    pub const METADATA: u8 = 10;
}

/// Whether a list of servers tells their roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Format 0: id and address.
    Addresses,
    /// Format 1: id, address and role.
    Roles,
}

impl Format {
    /// The format with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Addresses),
            1 => Some(Self::Roles),
            _ => None,
        }
    }
}

/// What a client must know of its own requests to read the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The connection began with the legacy word.
    pub legacy: bool,
    /// The format that the cluster request asked for.
    pub format: Format,
}

impl Default for Context {
    fn default() -> Self {
        Self { legacy: false, format: Format::Roles }
    }
}

/// One server of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerEntry<'a> {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub address: &'a [u8],
    /// Its role; not sent in format 0 (then read as voter).
    pub role: Role,
}

/// One file of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its bytes. A multiple of 8, or else clients misread what follows: there is no padding.
    pub bytes: &'a [u8],
}

/// A response. Texts are borrowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Response<'a> {
    /// The request failed.
    Failure {
        /// What went wrong, for programs.
        code: u64,
        /// What went wrong, for people.
        text: &'a [u8],
    },
    /// The leader; id 0 and an empty address when there is none.
    Server {
        /// Its id.
        id: NodeId,
        /// Its address.
        address: &'a [u8],
    },
    /// The leader, on a connection that began with the legacy word.
    ServerLegacy {
        /// Its address.
        address: &'a [u8],
    },
    /// The client is registered.
    Welcome {
        /// How often to send heartbeats, which nobody does.
        heartbeat_timeout_ms: u64,
    },
    /// The servers of the cluster.
    Servers {
        /// Whether roles are sent.
        format: Format,
        /// The servers.
        servers: Vec<ServerEntry<'a>>,
    },
    /// The database is open.
    Db {
        /// Its id on this connection: always 0.
        id: u32,
    },
    /// The statement is prepared.
    Stmt {
        /// The database.
        db: u32,
        /// The statement's id.
        id: u32,
        /// Its highest parameter index.
        params: u64,
        /// Where the next statement begins in the text; sent in schema 1 only.
        tail: Option<u64>,
    },
    /// The statement is done.
    Result {
        /// The connection's last row id.
        last_insert_id: u64,
        /// The connection's last count of changed rows.
        rows_affected: u64,
    },
    /// Rows. Only read from bytes in this form; `RowsWriter` makes them.
    Rows(Rows<'a>),
    /// Done; nothing to tell.
    Empty,
    /// A database.
    Files(Vec<File<'a>>),
    /// This node's placement.
    Metadata {
        /// Its failure domain.
        failure_domain: u64,
        /// Its weight.
        weight: u64,
    },
}

impl<'a> From<&'a Failure> for Response<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self::Failure { code: failure.code, text: &failure.text }
    }
}

impl<'a> Response<'a> {
    /// The response in a message.
    ///
    /// # Errors
    /// [`DecodeError`] when the type is unknown or the body does not hold it. Bytes behind it are ignored.
    pub fn decode(frame: Frame<'a>, context: Context) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame.body);
        Ok(match frame.header.kind {
            kind::FAILURE => Self::Failure { code: r.u64("code")?, text: r.text("message")? },
            kind::SERVER if context.legacy => Self::ServerLegacy { address: r.text("address")? },
            kind::SERVER => Self::Server { id: NodeId(r.u64("id")?), address: r.text("address")? },
            kind::WELCOME => Self::Welcome { heartbeat_timeout_ms: r.u64("heartbeat timeout")? },
            kind::SERVERS => decode_servers(&mut r, context.format)?,
            kind::DB => {
                let id = r.u32("database")?;
                r.u32("unused")?;
                Self::Db { id }
            }
            kind::STMT => {
                let (db, id) = (r.u32("database")?, r.u32("statement")?);
                let params = r.u64("parameter count")?;
                let with_tail = Schema::from_code(frame.header.schema) == Some(Schema::V1);
                let tail = if with_tail { Some(r.u64("tail")?) } else { None };
                Self::Stmt { db, id, params, tail }
            }
            kind::RESULT => {
                let last_insert_id = r.u64("last insert id")?;
                Self::Result { last_insert_id, rows_affected: r.u64("rows affected")? }
            }
            kind::ROWS => Self::Rows(Rows::decode(&mut r)?),
            kind::EMPTY => {
                r.u64("unused")?;
                Self::Empty
            }
            kind::FILES => decode_files(&mut r)?,
            kind::METADATA => {
                Self::Metadata { failure_domain: r.u64("failure domain")?, weight: r.u64("weight")? }
            }
            found => {
                let (field, expected) = ("response type", "0 to 10");
                return Err(DecodeError::Value { field, expected, found: u64::from(found) });
            }
        })
    }

    /// The whole message, header included. One that no header can describe (above 32 GiB) becomes a failure.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = begin();
        let (kind, schema) = self.encode_body(&mut w);
        finish(w, kind, schema.code()).unwrap_or_else(too_big)
    }

    fn encode_body(&self, w: &mut Writer) -> (u8, Schema) {
        let mut schema = Schema::V0;
        let kind = match self {
            Self::Failure { code, text } => {
                append_text(w.u64(*code), text);
                kind::FAILURE
            }
            Self::Server { id, address } => {
                append_text(w.u64(id.0), address);
                kind::SERVER
            }
            Self::ServerLegacy { address } => {
                append_text(w, address);
                kind::SERVER
            }
            Self::Welcome { heartbeat_timeout_ms } => {
                w.u64(*heartbeat_timeout_ms);
                kind::WELCOME
            }
            Self::Servers { format, servers } => {
                encode_servers(w, *format, servers);
                kind::SERVERS
            }
            Self::Db { id } => {
                w.u32(*id).u32(0);
                kind::DB
            }
            Self::Stmt { db, id, params, tail } => {
                w.u32(*db).u32(*id).u64(*params);
                if let Some(tail) = tail {
                    w.u64(*tail);
                    schema = Schema::V1;
                }
                kind::STMT
            }
            Self::Result { last_insert_id, rows_affected } => {
                w.u64(*last_insert_id).u64(*rows_affected);
                kind::RESULT
            }
            Self::Rows(rows) => {
                rows.encode(w);
                kind::ROWS
            }
            Self::Empty => {
                w.u64(0);
                kind::EMPTY
            }
            Self::Files(files) => {
                encode_files(w, files);
                kind::FILES
            }
            Self::Metadata { failure_domain, weight } => {
                w.u64(*failure_domain).u64(*weight);
                kind::METADATA
            }
        };
        (kind, schema)
    }
}

/// The answer in place of one that is too long.
pub(super) fn too_big() -> Vec<u8> {
    Response::from(&TOO_BIG).encode()
}

fn decode_servers<'a>(r: &mut Reader<'a>, format: Format) -> Result<Response<'a>, DecodeError> {
    let server_count = r.count("server count", u64::MAX, 16)?;
    let mut servers = Vec::with_capacity(server_count);
    for _ in 0..server_count {
        let (id, address) = (NodeId(r.u64("id")?), r.text("address")?);
        let role = match format {
            Format::Addresses => Role::Voter,
            Format::Roles => decode_role(r)?,
        };
        servers.push(ServerEntry { id, address, role });
    }
    Ok(Response::Servers { format, servers })
}

fn decode_role(r: &mut Reader<'_>) -> Result<Role, DecodeError> {
    let found = r.u64("role")?;
    role_from_code(found).ok_or(DecodeError::Value { field: "role", expected: "0 to 2", found })
}

fn encode_servers(w: &mut Writer, format: Format, servers: &[ServerEntry<'_>]) {
    w.u64(servers.len() as u64);
    for server in servers {
        append_text(w.u64(server.id.0), server.address);
        match format {
            Format::Addresses => {}
            Format::Roles => {
                w.u64(role_code(server.role));
            }
        }
    }
}

fn decode_files<'a>(r: &mut Reader<'a>) -> Result<Response<'a>, DecodeError> {
    let file_count = r.count("file count", u64::MAX, 16)?;
    let mut files = Vec::with_capacity(file_count);
    for _ in 0..file_count {
        let name = r.text("file name")?;
        let file_bytes = r.count("file length", u64::MAX, 1)?;
        files.push(File { name, bytes: r.take("file", file_bytes)? });
    }
    Ok(Response::Files(files))
}

fn encode_files(w: &mut Writer, files: &[File<'_>]) {
    w.u64(files.len() as u64);
    for file in files {
        append_text(w, file.name).u64(file.bytes.len() as u64).bytes(file.bytes);
    }
}
