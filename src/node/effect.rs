//! What the core wants done.

use std::sync::Arc;

use crate::base::{Entry, Index, NodeId, Payload, Term};
use crate::codec::membership::{Configuration, Server};
use crate::codec::peer::Message;
use crate::engine::ConnId;
use crate::engine::jobs::SqlRequest;
use crate::pages::{Database, Garbage, Version};

/// A snapshot to write: versions that are pinned at one applied entry.
#[derive(Clone, Debug)]
pub struct SnapshotJob {
    /// The applied entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The last committed configuration.
    pub configuration: Configuration,
    /// Where the log holds it.
    pub configuration_index: Index,
    /// Every database, in the order in which the node met them.
    pub databases: Vec<(Vec<u8>, Arc<Version>)>,
}

/// How the hand-over of a node's duties goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverStep {
    /// It goes on: these are the servers. `Settled` follows, after an election timeout at the latest.
    Begun(Configuration),
    /// Leadership is where it will be.
    Settled {
        /// The address of the server that leads; `None` if none is known, or it is still this one.
        leader: Option<String>,
    },
    /// Nobody can take over.
    Impossible,
}

/// What the head of a leader's snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingSnapshot {
    /// The last entry that it covers.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Where the log holds the configuration.
    pub configuration_index: Index,
    /// The configuration, encoded as it came.
    pub configuration: Vec<u8>,
    /// How many bytes follow.
    pub data_bytes: u64,
}

/// What nobody may need any more, and takes long to give back.
#[derive(Debug, Default)]
pub struct Waste {
    /// What databases left behind.
    pub garbage: Vec<Garbage>,
    /// Payloads of entries.
    pub payloads: Vec<Payload>,
}

/// One thing to do. Later events answer those that take time.
#[derive(Debug)]
pub enum Effect {
    /// The client has output to be sent: `Core::output`, then `Core::handle_written`.
    Flush {
        /// To whom.
        conn: ConnId,
    },
    /// Close a client's connection now.
    Close {
        /// Whose.
        conn: ConnId,
    },
    /// Make a connection to the database. Answered by `handle_sql_opened`.
    OpenSql {
        /// For whom.
        conn: ConnId,
        /// To what.
        database: Arc<Database>,
    },
    /// Run a request on the client's connection. Answered by `handle_sql_ran`.
    RunSql {
        /// Whose.
        conn: ConnId,
        /// What.
        request: SqlRequest,
    },
    /// Go on with the client's request: its rows were written, or it has the writer slot now. Answered by
    /// `handle_sql_ran`.
    ResumeSql {
        /// Whose.
        conn: ConnId,
    },
    /// Stop what runs on the client's connection; it ends by itself with an error.
    InterruptSql {
        /// Whose.
        conn: ConnId,
    },
    /// Roll back and close the client's connection. Answered by `handle_sql_closed`.
    CloseSql {
        /// Whose.
        conn: ConnId,
    },
    /// Make entries, term and vote durable, in the order of these effects. Answered by `handle_persisted` or
    /// `handle_persist_failed`.
    Persist {
        /// Names it in the answer.
        ticket: u64,
        /// The first index to go, before anything is appended.
        truncate_from: Option<Index>,
        /// New entries.
        entries: Vec<Entry>,
        /// Term and vote.
        metadata: Option<(Term, NodeId)>,
    },
    /// Another server has connected: it can be reached again.
    PeerConnected {
        /// Which.
        id: NodeId,
    },
    /// Send this to a peer. Where it is known not to arrive: `handle_send_failed`.
    SendPeer {
        /// The peer.
        to: NodeId,
        /// Where it is.
        address: String,
        /// What.
        message: Message,
    },
    /// Read entries that have left the memory from the segments. Answered by `handle_entries_read`.
    ReadEntries {
        /// The first.
        first: Index,
        /// The last.
        last: Index,
    },
    /// Store the bytes of a leader's snapshot that will come now. Answered by `handle_intake_stored` or
    /// `handle_intake_failed`. Another one that is still coming is given up.
    TakeSnapshot(IncomingSnapshot),
    /// The next bytes of it.
    SnapshotBytes {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// No more bytes of it will come: give it up.
    DropSnapshot,
    /// Send a peer the snapshot at `wanted`, or a newer one, on a connection of its own. `handle_snapshot_unsent`
    /// when it does not arrive; `awaits_snapshot` says whether it is still needed.
    SendSnapshot {
        /// The peer.
        to: NodeId,
        /// Where it is.
        address: String,
        /// The term of this leader.
        term: Term,
        /// The snapshot's term and index.
        wanted: (Term, Index),
    },
    /// Write a snapshot, put it in place, keep `trailing` entries before it. Answered by `handle_snapshot`.
    Snapshot {
        /// What.
        job: SnapshotJob,
        /// Entries that stay.
        trailing: u64,
    },
    /// Ask these servers about themselves. Answered by `handle_described`.
    Describe {
        /// Names it in the answer.
        round: u64,
        /// The servers.
        servers: Vec<Server>,
    },
    /// Give this back where nobody waits for it.
    Drop(Waste),
    /// For whoever called `handle_handover`.
    Handover(HandoverStep),
}
