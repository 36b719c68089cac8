//! Which group has a shard that is awaited here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clerk::api::{ConfigNum, GroupId, ShardId};

/// Which groups have the shards that are awaited here, as far as they have offered them: one for
/// each shard, of its newest move.
#[derive(Default)]
pub(super) struct Offers(Mutex<BTreeMap<ShardId, (ConfigNum, GroupId)>>);

impl Offers {
    /// A group offered a shard that is awaited by the move `num`.
    pub(super) fn note(&self, shard: ShardId, num: ConfigNum, from: GroupId) {
        self.lock().insert(shard, (num, from));
    }

    /// The group that has a shard which is awaited by the move `num`.
    pub(super) fn of(&self, shard: ShardId, num: ConfigNum) -> Option<GroupId> {
        self.lock().get(&shard).filter(|(offered, _)| *offered == num).map(|(_, from)| *from)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, (ConfigNum, GroupId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
