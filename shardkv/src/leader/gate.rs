//! Who may write to a shard that leaves. For a moment, nobody may: then the shard is sealed.
//!
//! A request that writes passes the gate of its shard, and stays within until its command is applied.
//! To *hold* a shard is to wait until nobody is within, while new requests wait in front of it. This
//! only saves time: a Seal is judged by the shard's last change, wherever it came from.
//!
//! Left out on purpose: reads. They go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clerk::api::ShardId;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// The gates of the shards that leave.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    /// How many there are: told without a lock, for requests while no shard moves.
    count: AtomicUsize,
    gates: Mutex<BTreeMap<ShardId, Arc<RwLock<()>>>>,
}

/// The gate of a shard, until it is dropped.
pub(crate) struct Gate {
    shard: ShardId,
    gates: Arc<Gates>,
    pub(crate) gate: Arc<RwLock<()>>,
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, Arc<RwLock<()>>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a gate before a shard. Requests that are under way already are not counted.
    pub(crate) fn put(self: &Arc<Self>, shard: ShardId) -> Gate {
        let mut gates = self.lock();
        let gate = Arc::clone(gates.entry(shard).or_default());
        self.count.store(gates.len(), Ordering::Relaxed);
        Gate { shard, gates: Arc::clone(self), gate }
    }

    /// Passes the gate of a shard, as soon as it is not held.
    pub(crate) async fn pass(&self, shard: ShardId) -> Option<OwnedRwLockReadGuard<()>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let gate = self.lock().get(&shard).cloned()?;
        Some(gate.read_owned().await)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut gates = self.gates.lock();
        gates.remove(&self.shard);
        self.gates.count.store(gates.len(), Ordering::Relaxed);
    }
}
