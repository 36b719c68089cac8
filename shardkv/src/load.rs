//! How much a replica is asked for each shard: reads, writes and bytes a second, for people and for
//! `clerk balance`.
//!
//! A request adds to two counters of its shard, without a lock. Once a second a task turns what was
//! added into rates, which decay: after [`FADING`] without any request a rate has fallen to a third.
//! Only a leader is asked, so only a leader has rates; a new one begins with none. Nothing of this is
//! replicated or stored.
//!
//! Left out on purpose: what a request costs. A scan is one read, however long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::ShardId;
use clerk::api::kv::KvReply;
use clerk::api::status::ShardLoad;

/// How often rates are brought up to date.
const PERIOD: Duration = Duration::from_secs(1);
/// The time in which a rate falls to a third if nothing is asked (exactly: to 1/e).
const FADING: Duration = Duration::from_secs(10);

/// What was asked for a shard since the last period.
#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
}

/// A second's worth of the same.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    reads: f64,
    writes: f64,
    bytes: f64,
}

/// The load of each shard. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// One for each shard of the cluster, made with the first request.
    counts: OnceLock<Box<[Counts]>>,
    rates: Mutex<Vec<Rates>>,
}

impl Loads {
    /// A read was answered.
    pub(crate) fn read(&self, shard: ShardId, shard_count: impl FnOnce() -> u32, reply: &KvReply) {
        let bytes = match reply {
            KvReply::Value { value, .. } => value.as_ref().map_or(0, |value| value.len()),
            KvReply::Page { items, .. } => items.iter().map(|item| item.key.len() + item.value.len()).sum(),
            _ => 0,
        };
        self.add(shard, shard_count, |counts| &counts.reads, 1, bytes);
    }

    /// So many writes of so many bytes were admitted.
    pub(crate) fn write(&self, shard: ShardId, shard_count: u32, writes: usize, bytes: usize) {
        self.add(shard, || shard_count, |counts| &counts.writes, writes, bytes);
    }

    fn add(
        &self,
        shard: ShardId,
        shard_count: impl FnOnce() -> u32,
        which: impl Fn(&Counts) -> &AtomicU64,
        operations: usize,
        bytes: usize,
    ) {
        let made = || (0..shard_count()).map(|_| Counts::default()).collect();
        if let Some(counts) = self.0.counts.get_or_init(made).get(shard.0 as usize) {
            which(counts).fetch_add(operations as u64, Ordering::Relaxed);
            counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The present load of a shard.
    pub(crate) fn of(&self, shard: ShardId) -> ShardLoad {
        let rates = self.0.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let Rates { reads, writes, bytes } = rates.get(shard.0 as usize).copied().unwrap_or_default();
        let whole = |rate: f64| rate.round() as u64;
        ShardLoad { reads: whole(reads), writes: whole(writes), bytes: whole(bytes) }
    }

    /// Keeps the rates up to date until it is dropped.
    pub(crate) async fn follow(self) {
        let mut last = clock::now();
        loop {
            clock::sleep(PERIOD).await;
            let now = clock::now();
            self.turn(now, std::mem::replace(&mut last, now));
        }
    }

    fn turn(&self, now: Instant, last: Instant) {
        let Some(counts) = self.0.counts.get() else { return };
        let seconds = now.since(last).as_secs_f64().max(1e-3);
        let kept = (-seconds / FADING.as_secs_f64()).exp();
        let turned = |rate: f64, count: &AtomicU64| {
            let fresh = count.swap(0, Ordering::Relaxed) as f64 / seconds;
            kept * rate + (1.0 - kept) * fresh
        };
        let mut rates = self.0.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.resize(counts.len(), Rates::default());
        for (rate, counts) in rates.iter_mut().zip(counts) {
            rate.reads = turned(rate.reads, &counts.reads);
            rate.writes = turned(rate.writes, &counts.writes);
            rate.bytes = turned(rate.bytes, &counts.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;
    use clerk::api::kv::KvReply;
    use clerk::api::status::ShardLoad;
    use clerk::api::{ShardId, Version};

    use super::Loads;

    /// Rule 142.
    #[tokio::test(start_paused = true)]
    async fn a_rate_is_what_was_asked_a_second_and_decays_when_nothing_is_asked() {
        let loads = Loads::default();
        let task = tokio::spawn(loads.clone().follow());
        assert_eq!(loads.of(ShardId(3)), ShardLoad::default());
        let got = KvReply::Value { value: Some(vec![b'v'; 90].into()), version: Version(1) };
        for _ in 0..600 {
            for _ in 0..5 {
                loads.read(ShardId(3), || 8, &got);
            }
            loads.write(ShardId(3), 8, 2, 50);
            clock::sleep(Duration::from_millis(100)).await;
        }
        let close = |is: u64, should: u64| is.abs_diff(should) <= should / 20;
        let load = loads.of(ShardId(3));
        assert!(close(load.reads, 50) && close(load.writes, 20) && close(load.bytes, 5000), "{load:?}");
        assert_eq!(loads.of(ShardId(2)), ShardLoad::default(), "of its shard alone");
        assert_eq!(loads.of(ShardId(8)), ShardLoad::default(), "there is no such shard");
        loads.write(ShardId(8), 8, 1, 1);
        clock::sleep(Duration::from_secs(10)).await;
        let later = loads.of(ShardId(3));
        assert!((15..=21).contains(&later.reads), "{later:?}");
        clock::sleep(Duration::from_secs(100)).await;
        assert_eq!(loads.of(ShardId(3)), ShardLoad::default());
        task.abort();
    }
}
