//! What operators want of the placement of shards: how much each group is to carry, which shards stay
//! where they are, and how fast shards may move.
//!
//! It lies beside the configurations, with a version of its own, because it says what the *next*
//! configuration is to be. Every Join, Leave and change of a weight reads it (correctness rule
//! 140). Of all this the groups hear only the rate.

use std::collections::{BTreeMap, BTreeSet};

use base::codec::Denied;
use serde::{Deserialize, Deserializer, Serialize};

use super::config::{SLOTS, few_groups};
use super::{GroupId, ShardId};

/// The weight of a group unless told otherwise.
pub const WEIGHT: u32 = 100;
/// The largest weight of a group. Weights are multiplied by numbers of shards.
pub const WEIGHT_MAX: u32 = 10_000;

/// The highest limit of moves, in MiB a second.
pub const MOVE_RATE_MAX: u32 = 100_000;

/// The wishes of operators. Only what differs from the default is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Grows with every change.
    pub version: u64,
    /// The groups whose weight is not [`WEIGHT`]. A group gets shards in proportion to its weight; one
    /// of weight 0 gets none.
    #[serde(deserialize_with = "few_groups")]
    pub weights: BTreeMap<GroupId, u32>,
    /// The shards that stay at a group.
    #[serde(deserialize_with = "few_pins")]
    pub pins: BTreeMap<ShardId, GroupId>,
    /// MiB a second that the leader of a group sends of shards that move; none: as fast as it can.
    pub move_rate: Option<u32>,
    /// Room for later fields. No build may act by a part of it.
    pub more: Denied,
}

impl Placement {
    /// The weight of a group.
    pub fn weight(&self, group: GroupId) -> u32 {
        self.weights.get(&group).copied().unwrap_or(WEIGHT)
    }

    /// The group that a shard is pinned to.
    pub fn pin(&self, shard: ShardId) -> Option<GroupId> {
        self.pins.get(&shard).copied()
    }

    /// The shards that are pinned to a group.
    pub fn pinned_to(&self, group: GroupId) -> impl Iterator<Item = ShardId> + '_ {
        self.pins.iter().filter(move |(_, it)| **it == group).map(|(shard, _)| *shard)
    }

    /// Whether one of these groups gets shards.
    pub fn weighs(&self, groups: &BTreeSet<GroupId>) -> bool {
        groups.iter().any(|group| self.weight(*group) > 0)
    }

    /// The same with another weight of a group.
    #[must_use]
    pub fn weighed(&self, group: GroupId, weight: u32) -> Self {
        let mut next = self.clone();
        match weight {
            WEIGHT => next.weights.remove(&group),
            weight => next.weights.insert(group, weight),
        };
        next
    }

    /// The same for a cluster of these groups: a group that leaves takes its weight and its pins with
    /// it.
    #[must_use]
    pub fn of(&self, groups: &BTreeSet<GroupId>) -> Self {
        let mut next = self.clone();
        next.weights.retain(|group, _| groups.contains(group));
        next.pins.retain(|_, group| groups.contains(group));
        next
    }
}

/// Reads a map of shards with a bound on its entries (correctness rule 47).
pub(super) fn few_pins<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ShardId, GroupId>, D::Error> {
    let entries: Vec<(ShardId, GroupId)> = base::codec::bounded::<{ SLOTS as usize }, _, _>(deserializer)?;
    Ok(entries.into_iter().collect())
}
