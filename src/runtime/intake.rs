//! A leader's snapshot on its way in: the loop hands over the bytes as they arrive, a thread stores and checks them.
//!
//! No more than [`INTAKE_BYTES_MAX`] wait between the two: then the loop leaves the connection unread, and the thread
//! wakes it when there is room again. Dropping an [`Intake`] before all bytes came ends it without a trace.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{threads, verify};
use crate::base::limits::INTAKE_BYTES_MAX;
use crate::disk::Disk;
use crate::pages::Database;
use crate::storage::snapshots::{FinishedSnapshot, SnapshotHeader, receive_snapshot};

/// What is to be received, and how it is stored.
#[derive(Clone, Debug)]
pub struct IntakeJob {
    /// What the head of the message said.
    pub header: SnapshotHeader,
    /// How many bytes follow it.
    pub data_bytes: u64,
    /// Whether the file is to be compressed.
    pub compress: bool,
}

/// A snapshot that arrived: durable under temporary names, and sound.
#[derive(Debug)]
pub struct Arrived {
    /// The files.
    pub files: FinishedSnapshot,
    /// What is in them.
    pub databases: Vec<Arc<Database>>,
}

/// The loop's end.
#[derive(Debug)]
pub struct Intake {
    chunks: Sender<Vec<u8>>,
    gauge: Arc<Gauge>,
}

/// How much is on its way from the loop to the thread.
#[derive(Debug, Default)]
struct Gauge {
    waiting: AtomicUsize,
    /// The loop waits for room.
    paused: AtomicBool,
}

impl Intake {
    /// Starts the thread. `wake` is called on it when there is room again after [`Intake::is_full`] was true, and
    /// `report` at its end.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start<D: Disk + Send + 'static>(
        disk: D,
        job: IntakeJob,
        wake: impl Fn() + Send + 'static,
        report: impl FnOnce(Result<Arrived, String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (chunks, arriving) = unbounded();
        let gauge = Arc::new(Gauge::default());
        let source =
            Arriving { chunks: arriving, chunk: Vec::new(), given: 0, gauge: Arc::clone(&gauge), wake };
        threads::start("dqlite-intake", move || {
            let received = catch_unwind(AssertUnwindSafe(|| receive(disk, &job, source)));
            report(received.unwrap_or_else(|_| Err("the thread panicked".to_owned())));
        })?;
        Ok(Self { chunks, gauge })
    }

    /// The next bytes of the snapshot.
    pub fn push(&self, chunk: Vec<u8>) {
        self.gauge.waiting.fetch_add(chunk.len(), Ordering::SeqCst);
        if self.chunks.send(chunk).is_err() {
            // It failed and says so itself; what still comes goes nowhere, and takes no room.
            self.gauge.waiting.store(0, Ordering::SeqCst);
        }
    }

    /// Whether the connection should be left unread until the thread wakes the loop.
    #[must_use]
    pub fn is_full(&self) -> bool {
        if self.gauge.waiting.load(Ordering::SeqCst) < INTAKE_BYTES_MAX {
            return false;
        }
        self.gauge.paused.store(true, Ordering::SeqCst);
        // In between the thread may have made room without knowing that somebody waits for it.
        let full = self.gauge.waiting.load(Ordering::SeqCst) > INTAKE_BYTES_MAX / 2;
        if !full {
            self.gauge.paused.store(false, Ordering::SeqCst);
        }
        full
    }
}

fn receive<D: Disk>(mut disk: D, job: &IntakeJob, source: impl Read) -> Result<Arrived, String> {
    let judge = |found: Vec<_>| verify::databases(&found);
    receive_snapshot(&mut disk, &job.header, source, job.data_bytes, job.compress, judge)
        .map(|(files, databases)| Arrived { files, databases })
        .map_err(|error| error.to_string())
}

/// The bytes as the thread reads them; they end when the loop drops its end.
struct Arriving<W: Fn()> {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    given: usize,
    gauge: Arc<Gauge>,
    wake: W,
}

impl<W: Fn()> Arriving<W> {
    fn make_room(&self, count: usize) {
        let before = self.gauge.waiting.fetch_sub(count, Ordering::SeqCst);
        let left = before.saturating_sub(count);
        if left <= INTAKE_BYTES_MAX / 2 && self.gauge.paused.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }
}

impl<W: Fn()> Read for Arriving<W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            self.make_room(chunk.len());
            (self.chunk, self.given) = (chunk, 0);
        }
        let rest = self.chunk.get(self.given..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(bytes)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(bytes);
        }
        self.given += len;
        Ok(len)
    }
}

impl<W: Fn()> Drop for Arriving<W> {
    fn drop(&mut self) {
        // Nobody reads any more: a loop that waits for room must not wait for ever.
        self.gauge.waiting.store(0, Ordering::SeqCst);
        if self.gauge.paused.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::sync::Arc;
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::{Arrived, Arriving, Gauge, INTAKE_BYTES_MAX, Intake, IntakeJob};
    use crate::base::{Index, PageNo, Term};
    use crate::codec::membership::Configuration;
    use crate::disk::{Disk, FaultDisk};
    use crate::format::snapshot::{encode_database_header, encode_payload_header};
    use crate::pages::{Database, View};
    use crate::storage::SnapshotHeader;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A snapshot of an empty database, of which SQLite says that it is sound; or not, with another first page.
    fn payload(sound: bool) -> Vec<u8> {
        let pinned = Database::new(b"test", 4096, 3_040_001).pin(View::Committed);
        let mut page = pinned.page(PageNo(1)).unwrap().as_slice().to_vec();
        if !sound {
            page[100] = 77;
        }
        [encode_payload_header(1), encode_database_header(b"test", 4096), page].concat()
    }

    type Outcome = Receiver<Result<Arrived, String>>;

    fn start(disk: &FaultDisk, data_bytes: u64) -> (Intake, Outcome) {
        let header = SnapshotHeader {
            term: Term(2),
            index: Index(9),
            time: 1,
            configuration_index: Index(1),
            configuration: Configuration::default().encode(),
        };
        let job = IntakeJob { header, data_bytes, compress: true };
        let (report, reported) = bounded(1);
        let done = move |result| report.send(result).unwrap();
        (Intake::start(disk.clone(), job, || {}, done).unwrap(), reported)
    }

    #[test]
    fn bytes_that_come_in_pieces_become_files_and_databases() {
        for size in [1, 7, 4096, 1 << 20] {
            let (disk, bytes) = (FaultDisk::new(1), payload(true));
            let (intake, reported) = start(&disk, bytes.len() as u64);
            bytes.chunks(size).for_each(|chunk| intake.push(chunk.to_vec()));
            // The connection may end now: all that was announced has come.
            drop(intake);
            let arrived = reported.recv_timeout(PATIENCE).unwrap().unwrap();
            assert_eq!(arrived.databases.len(), 1);
            assert_eq!(arrived.databases[0].name(), b"test");
            assert_eq!(arrived.files.name.index, Index(9));
            assert_eq!(disk.clone().list().unwrap().len(), 2);
        }
    }

    #[test]
    fn a_database_that_sqlite_finds_damaged_is_refused_and_so_is_half_a_snapshot() {
        let (disk, bytes) = (FaultDisk::new(1), payload(false));
        let (intake, reported) = start(&disk, bytes.len() as u64);
        intake.push(bytes.clone());
        let text = reported.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert!(text.contains("database 'test': PRAGMA quick_check"), "{text}");

        let (intake, reported) = start(&disk, bytes.len() as u64);
        intake.push(bytes[..100].to_vec());
        drop(intake);
        let text = reported.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert!(text.contains("bytes more expected, none came"), "{text}");
        assert_eq!(disk.clone().list().unwrap(), []);
    }

    #[test]
    fn whoever_is_told_to_wait_is_woken_once_when_there_is_room() {
        let ((chunks, arriving), gauge) = (unbounded(), Arc::new(Gauge::default()));
        let woken = Cell::new(0);
        let mut source = Arriving {
            chunks: arriving,
            chunk: Vec::new(),
            given: 0,
            gauge: Arc::clone(&gauge),
            wake: || woken.set(woken.get() + 1),
        };
        let intake = Intake { chunks, gauge };
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..2 {
            for _ in 0..INTAKE_BYTES_MAX / buffer.len() {
                assert!(!intake.is_full());
                intake.push(buffer.clone());
            }
            assert!(intake.is_full());
            woken.set(0);
            for _ in 0..INTAKE_BYTES_MAX / buffer.len() {
                source.read_exact(&mut buffer).unwrap();
            }
            assert_eq!(woken.get(), 1);
        }
        // And when nobody reads any more: nothing is kept of what still comes.
        (0..5).for_each(|_| intake.push(buffer.clone()));
        assert!(intake.is_full());
        drop(source);
        assert_eq!(woken.get(), 2);
        (0..5).for_each(|_| intake.push(buffer.clone()));
        assert!(!intake.is_full());
    }
}
