//! The progress of pushes, for people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use clerk::api::{ConfigNum, ShardId};

/// How far each shard's push has come, by its mover's last answer: an observation of this replica,
/// for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<ShardId, (ConfigNum, u64)>>>);

impl Progress {
    pub(crate) fn set(&self, shard: ShardId, num: ConfigNum, rows: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, (num, rows));
    }

    pub(crate) fn forget(&self, shard: ShardId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
    }

    /// Rows the receiver had of a shard that is handed over with `num`.
    pub(crate) fn of(&self, shard: ShardId, num: ConfigNum) -> Option<u64> {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.get(&shard).and_then(|(of, rows)| (*of == num).then_some(*rows))
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
