//! What is counted while a node runs, by whichever thread does it: no locks, no clocks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::latency::Latency;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Steps of [`Sizes`]: the last one takes everything from 2^15 on.
const STEPS: usize = 17;

/// A histogram of small numbers, in powers of two.
#[derive(Debug, Default)]
pub struct Sizes {
    steps: [AtomicU64; STEPS],
    total: AtomicU64,
}

impl Sizes {
    /// Counts one of this size.
    pub fn record(&self, size: usize) {
        let step = usize::try_from(size.max(1).next_power_of_two().ilog2()).unwrap_or(STEPS).min(STEPS - 1);
        if let Some(counter) = self.steps.get(step) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// Up to which size, and how many there were of up to that size. The last one has no limit.
    pub fn up_to(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let counts = self.steps.iter().map(|step| step.load(Ordering::Relaxed));
        counts.enumerate().scan(0_u64, |sum, (at, count)| {
            *sum += count;
            Some(((at + 1 < STEPS).then_some(1 << at), *sum))
        })
    }

    /// All sizes together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// What a disk was asked for.
#[derive(Debug)]
pub struct DiskMeter {
    /// Syncs of files and of the directory, and how long each took.
    pub syncs: Latency,
    /// Bytes handed to the system.
    pub bytes: Counter,
    /// Nanoseconds of a monotonic clock.
    pub now_ns: fn() -> u64,
}

impl DiskMeter {
    /// Nothing counted yet; `now_ns` tells the time.
    #[must_use]
    pub fn new(now_ns: fn() -> u64) -> Self {
        Self { syncs: Latency::default(), bytes: Counter::default(), now_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;

    #[test]
    fn sizes_are_counted_up_to_powers_of_two() {
        let sizes = Sizes::default();
        for size in [0, 1, 2, 3, 4, 5, 100, usize::MAX >> 1] {
            sizes.record(size);
        }
        let found: Vec<_> = sizes.up_to().collect();
        assert_eq!(found[..4], [(Some(1), 2), (Some(2), 3), (Some(4), 5), (Some(8), 6)]);
        assert_eq!((found[7], found[16]), ((Some(128), 7), (None, 8)));
    }
}
