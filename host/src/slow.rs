//! The requests of a server that took long, and where their time went.
//!
//! A request costs an allocation, and a few marks on its way ([`raft::rsm::Marks`]). Only one that took
//! long takes the lock. What is remembered is bounded, and has no keys and no values in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::ShardId;
use clerk::api::server::{SLOW_REQUESTS_MAX, SlowRequest, Stage};
use raft::rsm::{Marks, Step};

/// No shard.
const NONE: u32 = u32::MAX;

/// The way of one request, as far as it is known.
#[derive(Debug)]
pub struct Trace {
    start: Instant,
    shard: AtomicU32,
    is_queued: AtomicBool,
    marks: Marks,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            start: clock::now(),
            shard: AtomicU32::new(NONE),
            is_queued: AtomicBool::new(false),
            marks: Marks::default(),
        }
    }
}

impl Trace {
    /// It is about this shard.
    pub fn about(&self, shard: ShardId) {
        self.shard.store(shard.0, Ordering::Relaxed);
    }

    /// The marks of a request that now goes through the replica.
    pub fn marks(&self) -> &Marks {
        self.is_queued.store(true, Ordering::Relaxed);
        &self.marks
    }

    /// How long ago it began.
    pub(crate) fn took(&self) -> Duration {
        self.start.elapsed()
    }

    /// Where its time went, if it ends after `took`. Each stage lasts until the next one begins.
    fn stages(&self, took: Duration) -> Vec<(Stage, u64)> {
        if !self.is_queued.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let start = self.start.as_nanos();
        let since = |step| self.marks.nanos(step).map(|nanos| nanos.saturating_sub(start) / 1000);
        let is_read = since(Step::Asked).is_some();
        let last = if is_read { Stage::Read } else { Stage::Apply };
        let begun = [
            (Stage::Queue, Some(0)),
            (Stage::Sync, since(Step::Placed)),
            (Stage::Replicate, since(Step::Saved)),
            (Stage::Confirm, since(Step::Asked)),
            (last, since(Step::Agreed)),
        ];
        let begun: Vec<(Stage, u64)> =
            begun.into_iter().filter_map(|(stage, at)| Some((stage, at?))).collect();
        let ends = begun.iter().skip(1).map(|(_, at)| *at).chain([micros(took)]);
        begun.iter().zip(ends).map(|((stage, at), end)| (*stage, end.saturating_sub(*at))).collect()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The slow requests of a server.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    /// What took as long as this is slow; none: nothing is.
    limit: Option<Duration>,
    /// Verbs that wait on purpose.
    patient: &'static [&'static str],
    ring: Mutex<VecDeque<SlowRequest>>,
    count: AtomicU64,
}

impl SlowLog {
    /// Keeps what takes `limit` or longer; zero: nothing.
    pub(crate) fn new(limit: Duration, patient: &'static [&'static str]) -> Self {
        Self { limit: Some(limit).filter(|limit| !limit.is_zero()), patient, ..Self::default() }
    }

    /// A request ended.
    pub(crate) fn note(&self, verb: &'static str, trace: &Trace, took: Duration, outcome: &'static str) {
        if self.limit.is_none_or(|limit| took < limit) || self.patient.contains(&verb) {
            return;
        }
        let shard = Some(trace.shard.load(Ordering::Relaxed)).filter(|shard| *shard != NONE);
        let request = SlowRequest {
            at: clock::unix_millis(),
            verb: verb.to_owned(),
            shard: shard.map(ShardId),
            outcome: outcome.to_owned(),
            micros: micros(took),
            stages: trace.stages(took),
        };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.truncate(SLOW_REQUESTS_MAX - 1);
        ring.push_front(request);
        // (Within the lock: who sees the number sees the request.)
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Those that are remembered, the newest first.
    pub(crate) fn read(&self) -> Vec<SlowRequest> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;
    use bytes::Bytes;
    use clerk::api::ShardId;
    use clerk::api::server::{SLOW_REQUESTS_MAX, Stage};
    use raft::rsm::toy::{Command, Toy};
    use raft::rsm::{self, Parts, Role};
    use raft::transport::memory::Network;
    use raft::types::{Membership, NodeId};

    use super::{SlowLog, Trace};
    use crate::measures::{Ended, Measures};

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_kept_and_what_does_not_is_not() {
        let measures = Measures::new(&["get", "watch"]).with_slow(LIMIT, &["watch"]);
        for (verb, millis) in [(0, 99), (0, 100), (1, 1000)] {
            let running = measures.begin(verb);
            running.trace().about(ShardId(7));
            clock::sleep(Duration::from_millis(millis)).await;
            running.end(Ended::Busy);
        }
        let slow = measures.slow();
        assert_eq!((slow.len(), measures.slow_count()), (1, 1), "{slow:?}");
        assert_eq!((slow[0].verb.as_str(), slow[0].outcome.as_str()), ("get", "busy"));
        assert_eq!((slow[0].shard, slow[0].micros), (Some(ShardId(7)), 100_000));
        assert_eq!(slow[0].stages, [], "it never went through the replica");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_zero_keeps_nothing() {
        let measures = Measures::new(&["get"]).with_slow(Duration::ZERO, &[]);
        let running = measures.begin(0);
        clock::sleep(Duration::from_secs(9)).await;
        drop(running);
        assert_eq!((measures.slow(), measures.slow_count()), (Vec::new(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_are_remembered_the_newest_first() {
        let log = SlowLog::new(LIMIT, &[]);
        let took = |number: usize| LIMIT + Duration::from_micros(number as u64);
        for number in 0..SLOW_REQUESTS_MAX + 3 {
            log.note("put", &Trace::default(), took(number), "ok");
        }
        let kept = log.read();
        assert_eq!((kept.len(), log.count()), (SLOW_REQUESTS_MAX, SLOW_REQUESTS_MAX as u64 + 3));
        assert_eq!(u128::from(kept[0].micros), took(SLOW_REQUESTS_MAX + 2).as_micros());
        assert_eq!(u128::from(kept[SLOW_REQUESTS_MAX - 1].micros), took(3).as_micros());
    }

    /// A leader whose messages are lost cannot commit; the caller gives up before that is over.
    #[tokio::test(start_paused = true)]
    async fn a_put_that_waits_for_a_majority_says_so_and_its_stages_add_up() {
        let network = Network::default();
        let members = Membership::of([1, 2, 3].map(NodeId));
        let mut replicas = Vec::new();
        for id in [1, 2, 3].map(NodeId) {
            replicas.push(rsm::start(Parts::in_memory(id, &members, &network), Toy).await.unwrap());
        }
        clock::sleep(Duration::from_secs(3)).await;
        let leader = replicas.iter().find(|it| it.status().role == Role::Leader).expect("a leader");
        let measures = Measures::new(&["put", "get"]).with_slow(LIMIT, &[]);
        let put = async |deadline: Duration| {
            let running = measures.begin(0);
            let marks = running.trace().marks();
            let answer = leader.execute_marked(&Command::put("k", "v"), false, deadline, marks).await;
            running.end(if answer.is_ok() { Ended::Ok } else { Ended::Unknown });
        };
        put(Duration::from_secs(1)).await;
        assert_eq!(measures.slow(), [], "with a majority it is fast");
        network.lose(|_, _, _| true);
        put(Duration::from_millis(200)).await;
        let slow = measures.slow().remove(0);
        let names: Vec<_> = slow.stages.iter().map(|(stage, _)| stage.name()).collect();
        assert_eq!((slow.outcome.as_str(), &names[..]), ("unknown", &["queue", "sync", "replicate"][..]));
        assert!(slow.stages[2].1 > 190_000, "{slow:?}");
        assert_eq!(slow.stages.iter().map(|(_, micros)| micros).sum::<u64>(), slow.micros);

        let heals = async {
            clock::sleep(Duration::from_millis(150)).await;
            network.heal();
        };
        tokio::join!(put(Duration::from_secs(5)), heals);
        let slow = measures.slow().remove(0);
        let last = slow.stages.last().map(|(stage, _)| *stage);
        assert_eq!((slow.outcome.as_str(), last), ("ok", Some(Stage::Apply)), "{slow:?}");
        assert!(slow.stages[2].1 > 140_000, "{slow:?}");

        network.lose(|_, _, _| true);
        let running = measures.begin(1);
        let (key, limit) = (Bytes::from_static(b"k"), Duration::from_millis(300));
        let answer = leader.query_marked(key, limit, running.trace().marks()).await;
        assert!(answer.is_err());
        drop(running);
        let slow = measures.slow().remove(0);
        let names: Vec<_> = slow.stages.iter().map(|(stage, _)| stage.name()).collect();
        assert_eq!(names, ["queue", "confirm"]);
    }
}
