//! The progress of pushes, for people: what this leader saw of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::clock;
use clerk::api::push::{Copied, Cursor};
use clerk::api::status::{CopyStatus, CopyStep, Moved};
use clerk::api::{ConfigNum, ShardId};

/// How far each shard's push has come, and what the moves that ended were like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    pushes: BTreeMap<ShardId, Push>,
    moved: Moved,
    rows_sent: u64,
}

#[derive(Debug)]
struct Push {
    num: ConfigNum,
    copy: CopyStatus,
    /// When the present copy began, and what was there.
    began: (clock::Instant, u64),
    /// How far the receiver is, and since when.
    at: Option<Cursor>,
    since: clock::Instant,
}

impl Push {
    fn of(num: ConfigNum) -> Self {
        let now = clock::now();
        Self { num, copy: CopyStatus::default(), began: (now, 0), at: None, since: now }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, shard: ShardId, num: ConfigNum, note: impl FnOnce(&mut Push)) {
        let mut seen = self.lock();
        let push = seen.pushes.entry(shard).or_insert_with(|| Push::of(num));
        if push.num != num {
            *push = Push::of(num);
        }
        note(push);
    }

    /// The push is at this step.
    pub(crate) fn step(&self, shard: ShardId, num: ConfigNum, step: CopyStep) {
        self.with(shard, num, |push| push.copy.step = step);
    }

    /// The receiver has this, and so many rows have changed since.
    pub(crate) fn reached(&self, shard: ShardId, num: ConfigNum, copied: &Copied, changed: u64) {
        self.with(shard, num, |push| {
            let is_new = push.copy.rows == 0 || copied.rows < push.copy.rows / 2;
            if is_new {
                push.began = (clock::now(), copied.bytes);
            }
            let (at, before) = push.began;
            let seconds = at.elapsed().as_secs_f64();
            let sent = copied.bytes.saturating_sub(before);
            let bytes_per_second = if seconds > 0.0 { (sent as f64 / seconds) as u64 } else { 0 };
            let Copied { rows, bytes, wipes, .. } = *copied;
            push.copy = CopyStatus { rows, bytes, wipes, changed, bytes_per_second, ..push.copy };
            if push.at.as_ref() != Some(&copied.cursor) {
                (push.at, push.since) = (Some(copied.cursor.clone()), clock::now());
            }
        });
    }

    /// A receiver took so many rows, values or others.
    pub(crate) fn sent(&self, rows: usize) {
        self.lock().rows_sent += rows as u64;
    }

    /// All rows that receivers took.
    pub(crate) fn rows_sent(&self) -> u64 {
        self.lock().rows_sent
    }

    /// For how long the push that waits longest has got nowhere.
    pub(crate) fn stalled(&self) -> Duration {
        let seen = self.lock();
        seen.pushes.values().map(|push| push.since.elapsed()).max().unwrap_or_default()
    }

    /// A hold did not end with a Seal.
    pub(crate) fn hold_failed(&self, shard: ShardId, num: ConfigNum) {
        self.with(shard, num, |push| push.copy.failed_holds += 1);
    }

    /// The copy starts over.
    pub(crate) fn starts_over(&self, shard: ShardId, num: ConfigNum) {
        self.with(shard, num, |push| push.copy.restarts += 1);
    }

    /// A shard has moved; its clients were not served for so long.
    pub(crate) fn moved(&self, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let moved = &mut self.lock().moved;
        moved.shards += 1;
        moved.last_pause_micros = micros;
        moved.longest_pause_micros = moved.longest_pause_micros.max(micros);
    }

    pub(crate) fn forget(&self, shard: ShardId) {
        self.lock().pushes.remove(&shard);
    }

    /// How the copy of a shard goes by the move `num`.
    pub(crate) fn of(&self, shard: ShardId, num: ConfigNum) -> Option<CopyStatus> {
        self.lock().pushes.get(&shard).filter(|push| push.num == num).map(|push| push.copy)
    }

    /// The moves that ended here.
    pub(crate) fn ended(&self) -> Moved {
        self.lock().moved
    }

    /// This leader pushes nothing any more.
    pub(crate) fn clear(&self) {
        self.lock().pushes.clear();
    }
}
