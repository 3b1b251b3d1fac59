//! A snapshot on its way to a peer, on a connection and a thread of its own: it may take minutes, and what else is
//! said to the peer must not wait for it.
//!
//! Success is the peer's answer, which comes to consensus. Until it does, the connection is watched: a peer that
//! goes away is known at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::limits::{PEER_PAYLOAD_BYTES_MAX, SNAPSHOT_INSTALL_BYTES_PER_SECOND};
use crate::base::{Index, NodeId, Term};
use crate::codec::peer::{InstallSnapshot, Message, encode};
use crate::disk::Disk;
use crate::storage::snapshots::SnapshotSource;

/// How much is read and written at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What is to be sent, and to whom.
#[derive(Clone, Debug)]
pub struct TransferJob {
    /// The peer.
    pub to: NodeId,
    /// The leader's term.
    pub term: Term,
    /// The snapshot that consensus wants sent: its term and its index.
    pub wanted: (Term, Index),
}

/// Ends a transfer from elsewhere. Cheap to clone.
#[derive(Clone, Default)]
pub struct TransferEnd(Arc<Mutex<End>>);

#[derive(Default)]
struct End {
    over: bool,
    socket: Option<TcpStream>,
}

impl TransferEnd {
    /// Nobody wants it any more: it ends soon, and well.
    pub fn end(&self) {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        end.over = true;
        if let Some(socket) = end.socket.take() {
            // It may be closed already, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).over
    }

    fn watch(&self, socket: &TcpStream) -> io::Result<()> {
        let socket = socket.try_clone()?;
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !end.over {
            end.socket = Some(socket);
        }
        Ok(())
    }
}

/// Why a snapshot did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub text: String,
    /// It cannot be read here: no fault of the peer's.
    pub unreadable: bool,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, unreadable: false }
    }
}

fn unreadable(text: String) -> Failure {
    Failure { text, unreadable: true }
}

/// Sends the snapshot over `socket`, on which the opening bytes are written, and waits for its end: that of the
/// peer's connection, or that of patience. It is good only if [`TransferEnd::end`] was called.
///
/// # Errors
/// Why the peer cannot have it, or when it is not known to have it after so long.
pub fn run<D: Disk + Clone>(
    disk: &D,
    job: &TransferJob,
    socket: OwnedFd,
    end: &TransferEnd,
    patience: Duration,
) -> Result<(), Failure> {
    // The calls are the same for sockets of other families.
    let mut socket = TcpStream::from(socket);
    let sent = send(disk, job, &mut socket, end, patience);
    let closed = sent.and_then(|bytes| {
        let installing = Duration::from_secs(bytes / SNAPSHOT_INSTALL_BYTES_PER_SECOND);
        wait(&mut socket, patience.saturating_add(installing), bytes).map_err(Failure::from)
    });
    // Also the copy for whoever ends it: the connection is to close.
    end.0.lock().unwrap_or_else(PoisonError::into_inner).socket = None;
    if end.is_over() { Ok(()) } else { closed }
}

/// As [`run`] says, also where it panics: whoever waits for it must hear of its end.
///
/// # Errors
/// Those of `run`, or the panic.
pub fn guarded(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failure::from("the thread that sends it panicked".to_owned())))
}

fn send<D: Disk + Clone>(
    disk: &D,
    job: &TransferJob,
    socket: &mut TcpStream,
    end: &TransferEnd,
    patience: Duration,
) -> Result<u64, Failure> {
    let mut source = SnapshotSource::open(disk, job.wanted).map_err(unreadable)?;
    let bytes = source.data_bytes;
    let SnapshotSource { name, .. } = source;
    log::info!("node {} gets the snapshot at {}: {bytes} bytes", job.to, name.index);
    if bytes > PEER_PAYLOAD_BYTES_MAX {
        log::warn!(
            "the snapshot for node {} has {bytes} bytes: the C library 1.18.7 closes the connection at more than \
             {PEER_PAYLOAD_BYTES_MAX}, and such a node cannot be brought up to date; other releases take it",
            job.to
        );
    }
    let head = Message::InstallSnapshot(InstallSnapshot {
        term: job.term,
        last_index: name.index,
        last_term: name.term,
        configuration_index: source.meta.configuration_index,
        configuration: source.meta.configuration.clone(),
        configuration_bytes: Vec::new(),
        data_bytes: bytes,
    });
    let mut chunk = Vec::new();
    encode(&head, &mut chunk).map_err(|error| format!("the head of the snapshot: {error}"))?;
    let failed = |sent: u64, error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("nothing was taken for {patience:?}")
            }
            _ => error.to_string(),
        };
        format!("after {sent} of {bytes} bytes: {why}")
    };
    let prepared = socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(patience)));
    prepared.and_then(|()| end.watch(socket)).map_err(|error| failed(0, error))?;
    let mut sent = 0;
    loop {
        socket.write_all(&chunk).map_err(|error| failed(sent, error))?;
        chunk.resize(CHUNK_BYTES, 0);
        let len = source.read(&mut chunk).map_err(|error| unreadable(error.to_string()))?;
        if len == 0 {
            return Ok(bytes);
        }
        if end.is_over() {
            return Err("nobody wants it any more".to_owned().into());
        }
        chunk.truncate(len);
        sent += len as u64;
    }
}

/// Waits for the peer to close its side; it writes nothing.
fn wait(socket: &mut TcpStream, patience: Duration, bytes: u64) -> Result<(), String> {
    let said = |why: String| Err(format!("after all {bytes} bytes: {why}"));
    if let Err(error) = socket.set_read_timeout(Some(patience)) {
        return said(error.to_string());
    }
    match socket.read(&mut [0]) {
        Ok(0) => said("the peer closed the connection before it answered".to_owned()),
        Ok(_) => said("silence expected, found bytes".to_owned()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            said(format!("no answer for {patience:?}"))
        }
        Err(error) => said(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{Failure, TransferEnd, TransferJob, guarded, run};
    use crate::base::{Index, NodeId, Term};
    use crate::codec::membership::Configuration;
    use crate::codec::peer::{Incoming, Message, PeerReader};
    use crate::disk::{Disk, FaultDisk};
    use crate::format::names::{SnapshotName, snapshot_meta_name, snapshot_name};
    use crate::format::{lz4, snapshot};

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    /// A directory with a snapshot at 9 of term 2.
    fn directory(content: &[u8]) -> FaultDisk {
        let disk = FaultDisk::new(1);
        let name = SnapshotName { term: Term(2), index: Index(9), time: 4 };
        let mut data = Vec::new();
        lz4::compress(content, content.len() as u64, &mut data).unwrap();
        let meta = snapshot::encode_meta(Index(8), &Configuration::default().encode());
        disk.put(&snapshot_meta_name(name), &meta);
        disk.put(&snapshot_name(name), &data);
        disk
    }

    fn job() -> TransferJob {
        TransferJob { to: NodeId(2), term: Term(3), wanted: (Term(2), Index(9)) }
    }

    fn pair() -> (OwnedFd, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (near.into(), far)
    }

    #[test]
    fn a_transfer_that_panics_has_failed() {
        let panicked = guarded(|| panic!("planned"));
        assert_eq!(panicked, Err(Failure::from("the thread that sends it panicked".to_owned())));
        assert_eq!(guarded(|| Ok(())), Ok(()));
    }

    #[test]
    fn the_peer_reads_a_head_and_all_the_data_and_the_connection_stays_until_it_is_over() {
        let content = [snapshot::encode_payload_header(0), vec![5; 3_000_000]].concat();
        let (disk, (near, mut far), end) = (directory(&content), pair(), TransferEnd::default());
        let outcome = std::thread::scope(|scope| {
            let sender = scope.spawn(|| run(&disk, &job(), near, &end, LONG));
            let (mut reader, mut buffer) = (PeerReader::new(), vec![0; 10_000]);
            let (mut head, mut data, mut ended) = (None, Vec::new(), false);
            while !ended {
                let count = far.read(&mut buffer).unwrap();
                assert!(count > 0, "closed too early");
                reader.push(&buffer[..count]);
                while let Some(incoming) = reader.next_incoming().unwrap() {
                    match incoming {
                        Incoming::Message(Message::InstallSnapshot(message)) => head = Some(message),
                        Incoming::SnapshotBytes(bytes) => data.extend(bytes),
                        Incoming::SnapshotEnd => ended = true,
                        Incoming::Message(other) => panic!("{other:?}"),
                    }
                }
            }
            let head = head.unwrap();
            assert_eq!((head.term, head.last_term, head.last_index), (Term(3), Term(2), Index(9)));
            assert_eq!((head.configuration_index, head.data_bytes), (Index(8), content.len() as u64));
            assert!(data == content);
            assert!(!sender.is_finished());
            end.end();
            assert_eq!(far.read(&mut buffer).unwrap(), 0);
            sender.join().unwrap()
        });
        assert_eq!(outcome, Ok(()));
    }

    #[test]
    fn a_peer_that_goes_away_or_takes_nothing_or_says_nothing_is_a_failure_in_words() {
        let content = vec![5; 3_000_000];
        let (disk, end) = (directory(&content), TransferEnd::default());
        let (near, far) = pair();
        drop(far);
        let text = run(&disk, &job(), near, &end, LONG).unwrap_err().text;
        assert!(text.starts_with("after 0 of 3000000 bytes: "), "{text}");

        let (near, _far) = pair();
        let text = run(&disk, &job(), near, &end, SHORT).unwrap_err().text;
        assert!(text.ends_with("of 3000000 bytes: nothing was taken for 50ms"), "{text}");

        let small = directory(&[7; 100]);
        let (near, _far) = pair();
        let text = run(&small, &job(), near, &end, SHORT).unwrap_err().text;
        assert_eq!(text, "after all 100 bytes: no answer for 50ms");

        let (near, mut far) = pair();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| run(&small, &job(), near, &end, LONG));
            far.read_exact(&mut [0; 150]).unwrap();
            drop(far);
            let text = sender.join().unwrap().unwrap_err().text;
            assert!(text.starts_with("after all 100 bytes: "), "{text}");
        });

        let (near, _far) = pair();
        let text = run(&FaultDisk::new(1), &job(), near, &end, LONG).unwrap_err().text;
        assert_eq!(text, "a snapshot at 9 or later expected, none found");
    }

    #[test]
    fn that_it_cannot_be_read_here_is_no_fault_of_the_peers() {
        let content = vec![5; 3_000_000];
        let disk = directory(&content);
        let name = snapshot_name(SnapshotName { term: Term(2), index: Index(9), time: 4 });
        let mut bytes = disk.clone().read_all(&name).unwrap();
        let at = bytes.len() - 2;
        bytes[at] ^= 1;
        disk.put(&name, &bytes);
        let (near, mut far) = pair();
        std::thread::scope(|scope| {
            scope.spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
            let failure = run(&disk, &job(), near, &TransferEnd::default(), LONG).unwrap_err();
            assert!(failure.unreadable && failure.text.contains(&name), "{failure:?}");
        });
        let (near, far) = pair();
        drop(far);
        assert!(
            !run(&directory(&content), &job(), near, &TransferEnd::default(), LONG).unwrap_err().unreadable
        );
    }

    #[test]
    fn one_that_is_over_ends_well_wherever_it_is() {
        let disk = directory(&vec![5; 3_000_000]);
        let (near, _far) = pair();
        let end = TransferEnd::default();
        end.end();
        assert_eq!(run(&disk, &job(), near, &end, LONG), Ok(()));

        // Nobody reads: it hangs in a write.
        let ((near, mut far), end) = (pair(), TransferEnd::default());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| run(&disk, &job(), near, &end, LONG));
            far.read_exact(&mut [0; 1000]).unwrap();
            end.end();
            assert_eq!(sender.join().unwrap(), Ok(()));
        });
    }
}
