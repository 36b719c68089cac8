//! When the log is compacted: at a length that differs from replica to replica.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::config::Config;

/// When to compact next.
#[derive(Debug)]
pub(super) struct Compaction {
    pub(super) under_way: bool,
    /// Log bytes after the last attempt: try again when they have grown noticeably.
    bytes_then: usize,
    pub(super) ticks_since: u32,
    /// Log bytes at which to begin. This is random, below the limit. The logs of a group grow
    /// alike, and while one replica flushes its table, the disks and processors of a majority
    /// should be free.
    begin_at: usize,
}

impl Compaction {
    /// The next compaction after an attempt that left `bytes_then` of log.
    pub(super) fn next(bytes_then: usize, config: &Config, random: &mut StdRng) -> Self {
        let early = random.random_range(0..=(config.log_bytes_max - config.log_keep_bytes) / 3);
        Self { under_way: false, bytes_then, ticks_since: 0, begin_at: config.log_bytes_max - early }
    }

    /// Whether a log of `bytes` bytes is to be compacted now.
    pub(super) fn is_due(&self, bytes: usize, config: &Config) -> bool {
        let grown = bytes > self.bytes_then.saturating_add(config.log_keep_bytes / 4);
        let is_long = bytes > self.begin_at && !base::mutant!("compact-never");
        (is_long || base::mutant!("compact-at-once"))
            && (grown || self.ticks_since >= config.election_ticks_max)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::Compaction;
    use crate::config::Config;

    #[test]
    fn replicas_begin_compactions_at_different_lengths_and_none_beyond_the_limit() {
        let config = Config::default();
        // The first length, to a part in a thousand, at which one begins.
        let begins_at = |seed| {
            let compaction = Compaction::next(0, &config, &mut StdRng::seed_from_u64(seed));
            (0..=1001)
                .map(|part| config.log_bytes_max / 1000 * part)
                .find(|bytes| compaction.is_due(*bytes, &config))
        };
        let all: BTreeSet<usize> = (0..100).filter_map(begins_at).collect();
        assert!(all.len() > 50, "{all:?}");
        assert!(
            all.last().is_some_and(|longest| *longest <= config.log_bytes_max + config.log_bytes_max / 1000)
        );
        // Each time two thirds of the log are dropped: flushes are not worth it for a few entries.
        assert!(all.first().is_some_and(|shortest| *shortest >= config.log_keep_bytes * 3), "{all:?}");
    }
}
