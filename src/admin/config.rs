//! What a program may set before it starts a node, with the bounds and defaults of the C library.

use std::path::PathBuf;
use std::time::Duration;

use super::failure::{Code, Failure};
use crate::base::NodeId;

/// The longest network latency, in milliseconds: an hour.
const LATENCY_MS_MAX: u32 = 3_600_000;

/// The fewest entries that may stay in the log behind a snapshot.
const TRAILING_MIN: u32 = 4;

const BLOCK_BYTES_MIN: usize = 512;
const BLOCK_BYTES_MAX: usize = 262_144;

/// How much log stays behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailing {
    /// Always the number of entries that was set.
    Static,
    /// As many entries as are together as large as the snapshot, within the bounds that were set.
    Dynamic,
}

/// When snapshots are taken and what they leave in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotParams {
    /// Entries between two snapshots.
    pub threshold: u32,
    /// Entries that stay behind one.
    pub trailing: u32,
    /// What `trailing` means.
    pub strategy: Trailing,
}

/// The settings of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's id; any.
    pub id: NodeId,
    /// The address that it is known by; not bound, and not parsed before it is used.
    pub address: Vec<u8>,
    /// Its data directory.
    pub directory: PathBuf,
    /// The time between two heartbeats.
    pub heartbeat: Duration,
    /// The election timeout.
    pub election_timeout: Duration,
    /// Reported to whoever describes the node.
    pub failure_domain: u64,
    /// Snapshots, if they were set.
    pub snapshots: Option<SnapshotParams>,
    /// The unit of writes to the log, if it was set.
    pub block_size: Option<u64>,
    /// Whether damaged segments may be put aside.
    pub auto_recovery: bool,
    /// Whether snapshots are compressed.
    pub compression: bool,
    /// How long a writer waits for another one, if it was set.
    pub busy_timeout: Option<Duration>,
    /// Whether the node, when it leads, gives the servers their roles.
    pub role_management: bool,
    /// How many voters role management aims at.
    pub target_voters: i32,
    /// How many stand-bys role management aims at.
    pub target_standbys: i32,
    /// Threads for blocking work.
    pub pool_threads: u32,
}

impl NodeConfig {
    /// The defaults.
    #[must_use]
    pub fn new(id: NodeId, address: Vec<u8>, directory: PathBuf) -> Self {
        Self {
            id,
            address,
            directory,
            heartbeat: Duration::from_millis(500),
            election_timeout: Duration::from_millis(3000),
            failure_domain: 0,
            snapshots: None,
            block_size: None,
            auto_recovery: true,
            compression: true,
            busy_timeout: None,
            role_management: false,
            target_voters: 3,
            target_standbys: 0,
            pool_threads: 4,
        }
    }

    /// Sets the timeouts from the expected time of one way between nodes.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` outside of a millisecond to an hour.
    pub fn set_network_latency_ns(&mut self, nanoseconds: u64) -> Result<(), Failure> {
        // The bound is on the nanoseconds: an hour and a half millisecond is too much already.
        match u32::try_from(nanoseconds / 1_000_000) {
            Ok(ms @ 1..) if nanoseconds <= u64::from(LATENCY_MS_MAX) * 1_000_000 => {
                self.set_network_latency_ms(ms)
            }
            _ => Err(refused(format_args!(
                "network latency: 1 ms to an hour expected, found {nanoseconds} ns"
            ))),
        }
    }

    /// Sets the timeouts from the expected time of one way between nodes.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` outside of a millisecond to an hour.
    pub fn set_network_latency_ms(&mut self, milliseconds: u32) -> Result<(), Failure> {
        if !(1..=LATENCY_MS_MAX).contains(&milliseconds) {
            let text =
                format_args!("network latency: 1 to {LATENCY_MS_MAX} ms expected, found {milliseconds}");
            return Err(refused(text));
        }
        self.heartbeat = Duration::from_millis(u64::from(milliseconds) * 15 / 10);
        self.election_timeout = Duration::from_millis(u64::from(milliseconds) * 15);
        Ok(())
    }

    /// Sets when snapshots are taken. `strategy`: 0 static, 1 dynamic.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` when fewer entries would stay than a snapshot needs, or for an unknown strategy.
    pub fn set_snapshot_params(
        &mut self,
        threshold: u32,
        trailing: u32,
        strategy: i32,
    ) -> Result<(), Failure> {
        let strategy = match strategy {
            0 => Trailing::Static,
            1 => Trailing::Dynamic,
            found => {
                let text = format_args!("snapshot parameters: 0 or 1 expected as strategy, found {found}");
                return Err(refused(text));
            }
        };
        let least = TRAILING_MIN.max(threshold);
        if trailing < least {
            let text = format_args!(
                "snapshot parameters: at least {least} trailing entries expected, found {trailing}"
            );
            return Err(refused(text));
        }
        self.snapshots = Some(SnapshotParams { threshold, trailing, strategy });
        Ok(())
    }

    /// Sets the unit of writes to the log.
    ///
    /// # Errors
    /// `DQLITE_ERROR`, unlike every other setter, for anything but a power of two from 512 to 262144.
    pub fn set_block_size(&mut self, bytes: usize) -> Result<(), Failure> {
        if !bytes.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes) {
            let text = format_args!(
                "block size: a power of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX} expected, found {bytes}"
            );
            return Err(Failure::logged(Code::Error, text));
        }
        self.block_size = Some(bytes as u64);
        Ok(())
    }
}

fn refused(text: std::fmt::Arguments<'_>) -> Failure {
    Failure::logged(Code::Misuse, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig::new(NodeId(1), b"1".to_vec(), PathBuf::from("d"))
    }

    const MISUSE: Result<(), Failure> = Err(Failure { code: Code::Misuse, text: None });

    #[test]
    fn latency_sets_heartbeat_and_election_timeout() {
        let mut config = config();
        assert_eq!(config.set_network_latency_ms(5), Ok(()));
        assert_eq!((config.heartbeat, config.election_timeout), (ms(7), ms(75)));
        assert_eq!(config.set_network_latency_ns(3_999_999), Ok(()));
        assert_eq!((config.heartbeat, config.election_timeout), (ms(4), ms(45)));
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latency_is_between_a_millisecond_and_an_hour() {
        let mut config = config();
        for (ns, result) in [
            (0, MISUSE),
            (999_999, MISUSE),
            (1_000_000, Ok(())),
            (3_600_000_000_000, Ok(())),
            (3_600_000_000_001, MISUSE),
            (3_600_001_000_000, MISUSE),
            (u64::MAX, MISUSE),
        ] {
            assert_eq!(config.set_network_latency_ns(ns), result, "{ns}");
        }
        for (ms, result) in
            [(0, MISUSE), (1, Ok(())), (3_600_000, Ok(())), (3_600_001, MISUSE), (u32::MAX, MISUSE)]
        {
            assert_eq!(config.set_network_latency_ms(ms), result, "{ms}");
        }
    }

    #[test]
    fn a_refused_setting_changes_nothing() {
        let mut config = config();
        config.set_network_latency_ms(0).unwrap_err();
        config.set_snapshot_params(10, 9, 0).unwrap_err();
        config.set_block_size(1).unwrap_err();
        assert_eq!(config, self::config());
    }

    #[test]
    fn snapshots_leave_at_least_four_entries_and_the_threshold() {
        let mut config = config();
        for (threshold, trailing, strategy, result) in [
            (0, 4, 0, Ok(())),
            (0, 3, 0, MISUSE),
            (5, 5, 1, Ok(())),
            (6, 5, 0, MISUSE),
            (1, 4, 2, MISUSE),
            (1, 4, -1, MISUSE),
        ] {
            let got = config.set_snapshot_params(threshold, trailing, strategy);
            assert_eq!(got, result, "{threshold} {trailing} {strategy}");
        }
        let last = SnapshotParams { threshold: 5, trailing: 5, strategy: Trailing::Dynamic };
        assert_eq!(config.snapshots, Some(last));
    }

    #[test]
    fn a_block_is_a_power_of_two_from_512_to_262144() {
        let mut config = config();
        let error = Err(Failure::silent(Code::Error));
        for (bytes, result) in [
            (0, error.clone()),
            (256, error.clone()),
            (512, Ok(())),
            (1000, error.clone()),
            (262_144, Ok(())),
            (524_288, error.clone()),
            (usize::MAX, error),
        ] {
            assert_eq!(config.set_block_size(bytes), result, "{bytes}");
        }
        assert_eq!(config.block_size, Some(262_144));
    }
}
