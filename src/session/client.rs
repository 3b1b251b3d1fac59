//! What the connection knows of its client, and what each request needs.
//!
//! The order of the checks is C's: schema and body (done by the codec), leadership, database, statement.

use crate::base::{NodeId, Role};
use crate::codec::client::failure::{
    ALREADY_OPEN, CLUSTER_FORMAT, DESCRIBE_FORMAT, LEADERSHIP_LOST, NO_DATABASE, NO_STATEMENT, NOT_LEADER,
};
use crate::codec::client::request::OPEN_ANYWHERE;
use crate::codec::client::{Failure, Format, HEARTBEAT_TIMEOUT_MS, Request, Response, Schema, ServerEntry};

use super::event::{CloseReason, Reply, ServerInfo, SessionEvent, Sql};
use super::statements::Statements;

/// The client's side of a session.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// It began with the legacy word.
    pub(super) legacy: bool,
    /// The number it gave itself.
    pub(super) id: u64,
    /// The statements of its database, if that is open.
    pub(super) database: Option<Statements>,
    /// It wants that database to be served by a node that does not lead, too.
    pub(super) anywhere: bool,
}

/// The request in the node's hands, as far as its answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Open {
        anywhere: bool,
    },
    Prepare {
        schema: Schema,
        stmt: u32,
    },
    /// Anything that steps statements, and so can be interrupted.
    Run,
    Cluster(Format),
    Other,
}

/// What to do with a request.
pub(super) enum Next {
    /// Ask the node.
    Ask(Asked, SessionEvent),
    /// Send this.
    Answer(Vec<u8>),
    Close(CloseReason),
    Upgrade {
        id: NodeId,
        address: Vec<u8>,
    },
}

impl Next {
    pub(super) fn failure(failure: &Failure) -> Self {
        Self::Answer(Response::from(failure).encode())
    }

    fn other(event: SessionEvent) -> Result<Self, Failure> {
        Ok(Self::Ask(Asked::Other, event))
    }

    fn run(sql: Sql) -> Result<Self, Failure> {
        Ok(Self::Ask(Asked::Run, SessionEvent::Sql(sql)))
    }
}

impl Client {
    pub(super) fn dispatch(&mut self, request: Request<'_>, leading: bool) -> Next {
        self.check(request, leading).unwrap_or_else(|failure| Next::failure(&failure))
    }

    fn check(&mut self, request: Request<'_>, leading: bool) -> Result<Next, Failure> {
        let leader_only = if leading { Ok(()) } else { Err(NOT_LEADER) };
        // The node looks at statements again: it serves no writes.
        let served = if self.anywhere { Ok(()) } else { leader_only.clone() };
        match request {
            Request::Leader => Next::other(SessionEvent::Leader { legacy: self.legacy }),
            Request::Client { id } => Ok(self.welcome(id)),
            Request::Open { filename, flags, .. } => {
                let anywhere = flags & OPEN_ANYWHERE != 0;
                if !anywhere {
                    leader_only?;
                }
                self.open(filename, anywhere)
            }
            Request::Prepare { schema, db, sql } => served.and_then(|()| self.prepare(schema, db, sql)),
            Request::Exec { db, stmt, params, .. } => {
                served?;
                self.live(db, stmt)?;
                Next::run(Sql::Exec { stmt, params: params.to_owned() })
            }
            Request::Query { db, stmt, params, .. } => {
                served?;
                self.live(db, stmt)?;
                Next::run(Sql::Query { stmt, params: params.to_owned() })
            }
            Request::Finalize { db, stmt } => {
                self.live(db, stmt)?.free(stmt);
                Next::other(SessionEvent::Sql(Sql::Finalize { stmt }))
            }
            Request::ExecSql { db, sql, params, .. } => {
                served?;
                self.statements(db)?;
                Next::run(Sql::ExecSql { sql: sql.to_vec(), params: params.to_owned() })
            }
            Request::QuerySql { db, sql, params, .. } => {
                served?;
                self.statements(db)?;
                Next::run(Sql::QuerySql { sql: sql.to_vec(), params: params.to_owned() })
            }
            // An interrupt that is read as a request found nothing running, or nothing any more.
            Request::Interrupt { .. } => Ok(Next::Answer(Response::Empty.encode())),
            Request::Connect { id, address } => Ok(Next::Upgrade { id, address: address.to_vec() }),
            Request::Add { id, address } => {
                leader_only.and_then(|()| Next::other(SessionEvent::Add { id, address: address.to_vec() }))
            }
            Request::Promote { id } => {
                leader_only.and_then(|()| Next::other(SessionEvent::Assign { id, role: Role::Voter }))
            }
            Request::Assign { id, role } => {
                leader_only.and_then(|()| Next::other(SessionEvent::Assign { id, role }))
            }
            Request::Remove { id } => leader_only.and_then(|()| Next::other(SessionEvent::Remove { id })),
            Request::Dump { filename } => Next::other(SessionEvent::Dump { name: filename.to_vec() }),
            Request::Cluster { format } => {
                let format = Format::from_code(format).ok_or(CLUSTER_FORMAT)?;
                Ok(Next::Ask(Asked::Cluster(format), SessionEvent::Cluster))
            }
            Request::Transfer { id } => leader_only.and_then(|()| Next::other(SessionEvent::Transfer { id })),
            Request::Describe { format: 0 } => Next::other(SessionEvent::Describe),
            Request::Describe { .. } => Err(DESCRIBE_FORMAT),
            Request::Weight { weight } => Next::other(SessionEvent::Weight { weight }),
        }
    }

    fn welcome(&mut self, id: u64) -> Next {
        self.id = id;
        Next::Answer(Response::Welcome { heartbeat_timeout_ms: HEARTBEAT_TIMEOUT_MS }.encode())
    }

    fn open(&mut self, name: &[u8], anywhere: bool) -> Result<Next, Failure> {
        if self.database.is_some() {
            return Err(ALREADY_OPEN);
        }
        Ok(Next::Ask(Asked::Open { anywhere }, SessionEvent::Open { name: name.to_vec(), anywhere }))
    }

    fn prepare(&mut self, schema: Schema, db: u64, sql: &[u8]) -> Result<Next, Failure> {
        let stmt = self.statements(db)?.next_id();
        let event = SessionEvent::Sql(Sql::Prepare { schema, stmt, sql: sql.to_vec() });
        Ok(Next::Ask(Asked::Prepare { schema, stmt }, event))
    }

    /// The statements of database `db`; there is only number 0.
    fn statements(&mut self, db: impl Into<u64>) -> Result<&mut Statements, Failure> {
        self.database.as_mut().filter(|_| db.into() == 0).ok_or(NO_DATABASE)
    }

    fn live(&mut self, db: u32, stmt: u32) -> Result<&mut Statements, Failure> {
        let statements = self.statements(db)?;
        if statements.is_live(stmt) { Ok(statements) } else { Err(NO_STATEMENT) }
    }

    /// The message for the last reply to a request, which changes what is open.
    pub(super) fn encode(&mut self, asked: Asked, reply: Reply) -> Vec<u8> {
        match reply {
            Reply::Failure(failure) => Response::from(&failure).encode(),
            Reply::Server { address, .. } if self.legacy => {
                Response::ServerLegacy { address: &address }.encode()
            }
            Reply::Server { id, address } => Response::Server { id, address: &address }.encode(),
            Reply::Servers(servers) => encode_servers(asked, &servers),
            Reply::Opened => {
                let Asked::Open { anywhere } = asked else { panic!("opened is no reply to {asked:?}") };
                (self.database, self.anywhere) = (Some(Statements::default()), anywhere);
                Response::Db { id: 0 }.encode()
            }
            Reply::Prepared { params, tail } => self.encode_prepared(asked, params, tail),
            Reply::Result { last_insert_id, rows_affected } => {
                Response::Result { last_insert_id, rows_affected }.encode()
            }
            Reply::Empty => Response::Empty.encode(),
            Reply::Metadata { failure_domain, weight } => {
                Response::Metadata { failure_domain, weight }.encode()
            }
            Reply::RowsPart(messages) | Reply::Message(messages) => messages,
            Reply::Parts(parts) | Reply::SomeParts(parts) => parts.concat(),
        }
    }

    fn encode_prepared(&mut self, asked: Asked, params: u64, tail: u64) -> Vec<u8> {
        let Asked::Prepare { schema, stmt } = asked else {
            panic!("prepared is no reply to {asked:?}");
        };
        let Some(statements) = &mut self.database else {
            // The database went while the statement was being prepared.
            return Response::from(&LEADERSHIP_LOST).encode();
        };
        statements.take(stmt);
        let tail = match schema {
            Schema::V0 => None,
            Schema::V1 => Some(tail),
        };
        Response::Stmt { db: 0, id: stmt, params, tail }.encode()
    }
}

fn encode_servers<'a>(asked: Asked, servers: &'a [ServerInfo]) -> Vec<u8> {
    let Asked::Cluster(format) = asked else { panic!("a list of servers is no reply to {asked:?}") };
    let entry = |it: &'a ServerInfo| ServerEntry { id: it.id, address: &it.address, role: it.role };
    Response::Servers { format, servers: servers.iter().map(entry).collect() }.encode()
}
