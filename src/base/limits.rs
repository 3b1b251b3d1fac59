//! Every limit in one place: its value, the reason, and what happens when it is reached.

use std::time::Duration;

/// The largest body of a client request, in bytes. SQLite itself refuses values and statements above
/// 1,000,000,000 bytes; a longer message closes the connection before it is buffered.
pub const CLIENT_REQUEST_BYTES_MAX: u64 = 1_073_741_824;

/// A database name of an OPEN request, in bytes. A longer one closes the connection, as in C.
pub const DATABASE_NAME_BYTES_MAX: usize = 504;

/// Body bytes of a rows message at which it ends with the part marker: the machine's page in C.
pub const ROWS_MESSAGE_BYTES: usize = 4096;

/// Bytes that a client may send ahead while its request is being answered; then its socket is not read until
/// the answer is out. Room for an interrupt behind any usual pipeline.
pub const CLIENT_PIPELINE_BYTES_MAX: usize = 1 << 20;

/// How long a statement may run whose interrupt had arrived along with it: time for one that ends by itself to
/// give all its rows, as C lets it.
pub const EARLY_INTERRUPT_GRACE: Duration = Duration::from_secs(1);

/// How long a writer waits for the writer slot when the program set no busy timeout; then code 5.
pub const WRITER_PATIENCE: Duration = Duration::from_secs(10);

/// How long an explicit transaction may idle on the writer slot while others wait; then it is rolled back.
pub const SLOT_IDLE_MAX: Duration = Duration::from_secs(60);

/// Proposals of one database in flight above which its finished transactions wait and merge into one.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 3;

/// Finished transactions of one database that wait for a short statement which follows at once, to share its sync.
pub const BURST_TRANSACTIONS_MAX: usize = 16;

/// Pages of one merged FRAMES entry; a single transaction may hold more, and is never split.
pub const GROUP_PAGES_MAX: usize = 256;

/// Bytes of finished transactions that are not yet committed, per database; then no slot is granted.
pub const SPECULATIVE_BYTES_MAX: usize = 64 << 20;

/// Finished transactions that are not yet committed, per database; then no slot is granted.
pub const SPECULATIVE_TRANSACTIONS_MAX: usize = 4096;

/// Page bytes of one transaction; more is refused with code 13 at the commit.
pub const TRANSACTION_BYTES_MAX: u64 = 1 << 30;

/// Payload bytes of recent log entries kept in memory; older ones are read from the segments. A node may take 64 MiB
/// more than its databases have.
pub const LOG_CACHE_BYTES_MAX: usize = 16 << 20;

/// The size of a log segment file, in bytes: C's.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// Entries of one batch on disk; C takes a larger count for damage.
pub const BATCH_ENTRIES_MAX: u64 = 262_144;

/// Bytes of entries that share a write. They are in memory once more while they are written, so that more of them,
/// of a server that catches up, are written one part after another.
pub const WRITE_BYTES_MAX: usize = 4 << 20;

/// The length of an encoded configuration in a snapshot's metadata, in bytes.
pub const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;

/// Bytes of prepared statements' text kept per connection for reuse, and how many statements.
pub const STATEMENT_CACHE_BYTES_MAX: usize = 64 << 10;

/// Statements kept per connection for reuse.
pub const STATEMENT_CACHE_COUNT_MAX: usize = 32;

/// Texts of statements whose usual duration the node remembers; with more it begins anew.
pub const STATEMENT_HABITS_MAX: usize = 4096;

/// Statements that the loop runs one after another before it looks at sockets again.
pub const INLINE_PER_TURN_MAX: usize = 64;

/// Bytes that the loop writes to one client before it looks at the others again: a client that reads as fast as they
/// are written would have it for itself, for as long as a dump takes.
pub const FLUSH_PER_TURN_BYTES: usize = 256 << 10;

/// Threads of the loop that are still in statements which it left behind; with more, all statements go to workers.
pub const OVERTAKEN_MAX: usize = 64;

/// Bytes of entries at which a message to a lagging peer ends, where it may.
pub const APPEND_BYTES: u64 = 4 << 20;

/// Bytes of entries on their way to one peer above which no more are read from disk for it.
pub const APPEND_BYTES_IN_FLIGHT: u64 = 8 << 20;

/// Servers whose address for answers is remembered, whatever ids connect; with more it is learnt anew from each
/// message.
pub const CALLERS_MAX: usize = 1024;

/// How long a server waits before it tries again to write to a disk that was full.
pub const DISK_SPACE_RETRY: Duration = Duration::from_secs(1);

/// Memory of all temporary files of the process together; what does not fit goes to an unlinked file on disk.
pub const TEMPORARY_BYTES_MAX: usize = 64 << 20;

/// Bytes of finished rows messages that a query gathers before it stops for them to be written.
pub const ROWS_BATCH_BYTES: usize = 64 << 10;

/// Bytes of rows of a statement that commits by itself, kept until it is done; more fails it with code 18.
pub const HELD_ROWS_BYTES_MAX: usize = 64 << 20;

/// Bytes that may wait for one peer; entries beyond count as lost, and the leader sends them again when the peer
/// answers. A single message may be larger.
pub const PEER_QUEUE_BYTES_MAX: usize = 32 << 20;

/// Messages that may wait for one peer; with more the oldest goes.
pub const PEER_QUEUE_MESSAGES_MAX: usize = 1024;

/// How many of the messages that wait for a peer stay after a failed attempt to connect: C's.
pub const PEER_KEPT_MESSAGES: usize = 3;

/// From a failed attempt to connect to a peer to the next; doubled with each failure in a row, up to
/// [`PEER_DIAL_RETRY_MAX`].
pub const PEER_DIAL_RETRY: Duration = Duration::from_millis(100);

/// The longest pause between two attempts to connect to a peer. C waits a second each time: for so long a server that
/// is there again would hear nothing of its leader, and a refused attempt costs next to nothing.
pub const PEER_DIAL_RETRY_MAX: Duration = Duration::from_millis(500);

/// How long a peer that has closed its side is left alone while there is one message for it: C's second.
pub const PEER_CLOSED_PAUSE: Duration = Duration::from_secs(1);

/// Peers for which channels are kept; beyond, the one goes that was not used for the longest time.
pub const PEER_CHANNELS_MAX: usize = 256;

/// Attempts to connect to peers that are under way at once; one more counts as failed. Connect functions may hang.
pub const PEER_DIALS_MAX: usize = 64;

/// With so many under way none is begun to a server that is no member as far as is known here: whoever connects says
/// where answers go, and members must not wait for that.
pub const STRANGER_DIALS_MAX: usize = 16;

/// Connections that one server may have made to this one: one for messages, one for a snapshot, and some that are dead
/// and not known to be. With more, that goes from which nothing came for the longest time.
pub const PEER_INBOUND_PER_ID_MAX: usize = 8;

/// Connections of servers that are no members as far as is known here, all together. With more, that goes from which
/// nothing came for the longest time. One that is being added, or has no log yet, knows nobody.
pub const STRANGER_INBOUND_MAX: usize = 64;

/// How long a peer's machine may leave bytes of ours unconfirmed before its connection, or the attempt to make one,
/// counts as broken. The system's own rule is a quarter of an hour, and a minute or two of silence after a network
/// has come back.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The longest header of a message between servers, in bytes. A longer one closes the connection, as in C 1.18.7.
pub const PEER_HEADER_BYTES_MAX: u64 = 4 << 20;

/// Bytes of all entries of a message between servers. C 1.18.7 closes a connection that announces more, and would
/// again when the message is repeated: we never send it, and close too.
pub const PEER_PAYLOAD_BYTES_MAX: u64 = 524_288_000;

/// Entries of a message between servers: what a header of the longest size has room for.
pub const PEER_ENTRIES_MAX: usize = 262_141;

/// Bytes of a snapshot between servers. They are never held as a whole, so this only stops a nonsensical length;
/// C 1.18.7 takes no more than [`PEER_PAYLOAD_BYTES_MAX`], releases before it set no limit.
pub const PEER_SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// How old, in election timeouts, what a node that does not lead has applied may be when it answers a read; then it
/// refuses. An election takes less as a rule, so that reads go on meanwhile; a node that is cut off stops soon.
pub const READ_AGE_MAX_ELECTION_TIMEOUTS: u32 = 2;

/// How long a reader may stay on an old version, whatever that keeps in memory; see [`READER_BYTES_MAX`].
pub const READER_AGE_MAX: Duration = Duration::from_secs(60);

/// Bytes of replaced pages per database that readers older than [`READER_AGE_MAX`] may keep in memory, or a
/// quarter of the database where that is more; beyond, those that began first are interrupted.
pub const READER_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a leader's snapshot that have arrived and wait to be stored; with more its connection is not read.
pub const INTAKE_BYTES_MAX: usize = 4 << 20;

/// How long a peer may take nothing of a snapshot, or not answer to all of it, before it is sent anew: C's.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// From a snapshot that a peer did not get to the next one for it; doubled with each failure in a row, up to
/// [`SNAPSHOT_RETRY_MAX`].
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// The longest pause between two snapshots for a peer that does not get them, and between two that are made for the
/// sake of a peer and fail.
pub const SNAPSHOT_RETRY_MAX: Duration = Duration::from_secs(32);

/// Of the patience with a peer that has all of a snapshot: a second more for each so many bytes, since it has to
/// write, read and check them.
pub const SNAPSHOT_INSTALL_BYTES_PER_SECOND: u64 = 4 << 20;

/// Threads that ask other servers about themselves at the same time, for one purpose; more servers take turns.
pub const INQUIRY_THREADS_MAX: usize = 16;

/// Threads that ask one server about itself, when it does not answer; then it is not asked any more.
pub const INQUIRIES_PER_SERVER_MAX: usize = 2;

/// Page buffers of 4 KiB that the process keeps for later use; more go back to the system.
pub const FREE_PAGES_MAX: usize = 8192;

/// Bytes of pages that go back to the allocator before it is asked to give the system what it holds free: it keeps
/// nearly all of it otherwise, for ever.
pub const RECLAIM_BYTES: usize = 32 << 20;

/// From one such request to the next, at least: it walks through all that is free, and whoever allocates from there
/// waits meanwhile.
pub const RECLAIM_PAUSE: Duration = Duration::from_secs(3);

/// Pages that SQLite's own cache of a connection keeps beside those that it changed. It allocates them all with the
/// first one, and pages are read in place anyhow.
pub const CONNECTION_CACHE_PAGES: u32 = 8;

/// Changed pages that a connection collects before it hands the first ones to the page store.
pub const CONNECTION_CHANGED_PAGES: u32 = 64;
