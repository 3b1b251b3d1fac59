//! How long something took, many times: turns of the loop, syncs, commits.
//!
//! Counted without a lock, so that anybody may look at any time. A turn of the loop lasts from the moment it was told
//! of events until it waits again; it lasts on while a statement runs on the loop's own thread, and ends with another
//! thread when that took over: what others wait for is what counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two of nanoseconds is cut into so many parts.
const PARTS: u64 = 4;
/// The last bucket takes everything from about four minutes on.
const BUCKETS: usize = 38 * 4;

/// A histogram of durations.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    longest_ns: AtomicU64,
    total_ns: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            longest_ns: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
        }
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: Vec<u64>,
    longest: Duration,
    total: Duration,
}

impl Latency {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        if ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// What was counted since the start.
    #[must_use]
    pub fn read(&self) -> Latencies {
        Latencies {
            counts: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            longest: Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed)),
            total: Duration::from_nanos(self.total_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Latencies {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest one.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }

    /// How many took less than 2 to the power of so many nanoseconds.
    #[must_use]
    pub fn below_power(&self, power: u32) -> u64 {
        let end = bucket_of(1_u64.checked_shl(power).unwrap_or(u64::MAX));
        self.counts.iter().take(end).sum()
    }

    /// What so many of a thousand stayed within, rounded up by a fifth at most.
    #[must_use]
    pub fn per_mille(&self, share: u64) -> Duration {
        let wanted = (self.count().saturating_mul(share)).div_ceil(1000);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(end_of(at)).min(self.longest);
            }
        }
        self.longest
    }

    /// How many were longer than this, give or take a fifth of it.
    #[must_use]
    pub fn beyond(&self, limit: Duration) -> u64 {
        let ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.counts.iter().skip(bucket_of(ns) + 1).sum()
    }

    /// The upper ends of the buckets in use, and how many ended in them.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let used = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(at, count)| (Duration::from_nanos(end_of(at)), *count))
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turns, half within {:?}, 99% within {:?}, 99.9% within {:?}, the longest {:?}, {} beyond 10 ms",
            self.count(),
            self.per_mille(500),
            self.per_mille(990),
            self.per_mille(999),
            self.longest,
            self.beyond(Duration::from_millis(10)),
        )
    }
}

fn bucket_of(ns: u64) -> usize {
    let ns = ns.max(PARTS);
    let power = u64::from(ns.ilog2());
    let part = (ns >> (power - 2)) % PARTS;
    usize::try_from((power - 2) * PARTS + part).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The first duration that is beyond the bucket, in nanoseconds.
fn end_of(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / PARTS + 2, bucket as u64 % PARTS);
    (PARTS + part + 1) << (power - 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Latency, bucket_of, end_of};

    #[test]
    fn buckets_follow_each_other_and_hold_what_is_put_into_them() {
        for at in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(end_of(at)), at + 1, "bucket {at}");
            assert_eq!(bucket_of(end_of(at) - 1), at, "bucket {at}");
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn what_was_counted_is_told_within_a_fifth() {
        let latency = Latency::default();
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us));
        }
        latency.record(Duration::from_millis(12));
        let found = latency.read();
        assert_eq!((found.count(), found.longest()), (1001, Duration::from_millis(12)));
        assert_eq!(found.beyond(Duration::from_millis(10)), 1);
        assert_eq!(found.total(), Duration::from_micros(500_500 + 12_000));
        // 2^19 ns are 524 us and a bit.
        assert_eq!((found.below_power(9), found.below_power(19), found.below_power(30)), (0, 524, 1001));
        let half = found.per_mille(500);
        assert!((Duration::from_micros(500)..Duration::from_micros(625)).contains(&half), "{half:?}");
        assert_eq!(found.per_mille(1000), Duration::from_millis(12));
        assert_eq!(found.buckets().map(|(_, count)| count).sum::<u64>(), 1001);
        assert!(found.to_string().starts_with("1001 turns, half within"), "{found}");
    }

    #[test]
    fn nothing_counted_is_told_as_nothing() {
        let found = Latency::default().read();
        assert_eq!((found.count(), found.per_mille(990)), (0, Duration::ZERO));
    }
}
