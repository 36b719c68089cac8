//! How long something takes, counted in buckets: cheap enough for the path of every request.
//!
//! Left out on purpose: names, labels and formats. The caller that shows the counts gives them those.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in microseconds: 0.1 ms to 10 s. Longer times have a bucket of
/// their own.
pub const BOUNDS_MICROS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// Counts of times, shared between threads.
#[derive(Debug, Default)]
pub struct Times {
    counts: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many took at most each of [`BOUNDS_MICROS`].
    pub at_most: [u64; BOUNDS_MICROS.len()],
    /// How many there were.
    pub count: u64,
    /// What they took together, in microseconds.
    pub micros: u64,
}

impl Times {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far. Times that are noted meanwhile may be in a part of it.
    pub fn read(&self) -> Counted {
        let mut counted = Counted { micros: self.micros.load(Ordering::Relaxed), ..Counted::default() };
        for (bucket, count) in self.counts.iter().enumerate() {
            counted.count += count.load(Ordering::Relaxed);
            if let Some(at_most) = counted.at_most.get_mut(bucket) {
                *at_most = counted.count;
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_MICROS, Times};
    use std::time::Duration;

    #[test]
    fn a_time_is_counted_at_each_bound_that_it_does_not_exceed() {
        let times = Times::default();
        for micros in [0, 100, 101, 9_999_999, 10_000_001] {
            times.note(Duration::from_micros(micros));
        }
        let counted = times.read();
        assert_eq!((counted.count, counted.micros), (5, 20_000_201));
        assert_eq!(counted.at_most[..3], [2, 3, 3]);
        assert_eq!(counted.at_most[BOUNDS_MICROS.len() - 1], 4, "one took longer than the last bound");
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted_too() {
        let times = Times::default();
        times.note(Duration::MAX);
        assert_eq!((times.read().count, times.read().at_most), (1, [0; BOUNDS_MICROS.len()]));
    }
}
