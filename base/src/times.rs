//! How long something takes, or how many things come together, counted in buckets: cheap enough for
//! the path of every request.
//!
//! Left out on purpose: names, labels and formats. The caller that shows the counts gives them those.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 16;

/// The upper bounds of the buckets of [`Times`], in microseconds: 0.1 ms to 10 s. Longer times have a
/// bucket of their own.
pub const BOUNDS_MICROS: [u64; BUCKETS] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// The upper bounds of the buckets of [`Amounts`]. Larger amounts have a bucket of their own.
pub const BOUNDS_AMOUNTS: [u64; BUCKETS] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768];

/// Counts of times, shared between threads.
#[derive(Debug, Default)]
pub struct Times(Buckets);

/// Counts of amounts, shared between threads.
#[derive(Debug, Default)]
pub struct Amounts(Buckets);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many were at most each of the bounds.
    pub at_most: [u64; BUCKETS],
    /// How many there were.
    pub count: u64,
    /// All of them together; of times in microseconds.
    pub sum: u64,
}

impl Times {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        self.0.note(&BOUNDS_MICROS, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was counted so far. Times that are noted meanwhile may be in a part of it.
    pub fn read(&self) -> Counted {
        self.0.read()
    }
}

impl Amounts {
    /// Counts one.
    pub fn note(&self, amount: usize) {
        self.0.note(&BOUNDS_AMOUNTS, amount as u64);
    }

    /// What was counted so far. Amounts that are noted meanwhile may be in a part of it.
    pub fn read(&self) -> Counted {
        self.0.read()
    }
}

impl Buckets {
    fn note(&self, bounds: &[u64; BUCKETS], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self) -> Counted {
        let mut counted = Counted { sum: self.sum.load(Ordering::Relaxed), ..Counted::default() };
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
    use super::{Amounts, BOUNDS_AMOUNTS, BOUNDS_MICROS, Times};
    use std::time::Duration;

    #[test]
    fn a_time_is_counted_at_each_bound_that_it_does_not_exceed() {
        let times = Times::default();
        for micros in [0, 100, 101, 9_999_999, 10_000_001] {
            times.note(Duration::from_micros(micros));
        }
        let counted = times.read();
        assert_eq!((counted.count, counted.sum), (5, 20_000_201));
        assert_eq!(counted.at_most[..3], [2, 3, 3]);
        assert_eq!(counted.at_most[BOUNDS_MICROS.len() - 1], 4, "one took longer than the last bound");
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted_too() {
        let times = Times::default();
        times.note(Duration::MAX);
        assert_eq!((times.read().count, times.read().at_most), (1, [0; BOUNDS_MICROS.len()]));
    }

    #[test]
    fn amounts_have_bounds_of_their_own() {
        let amounts = Amounts::default();
        for amount in [1, 2, 3, 32_768, 32_769] {
            amounts.note(amount);
        }
        let counted = amounts.read();
        assert_eq!((counted.count, counted.sum, &counted.at_most[..3]), (5, 65_543, &[1, 2, 3][..]));
        assert_eq!(counted.at_most[BOUNDS_AMOUNTS.len() - 1], 4);
    }
}
