//! Configurations: which group serves which shard, and where groups are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Address, ConfigNum, GroupId, Incarnation, ShardId};

/// Slots of the key space, as in Redis Cluster.
pub const SLOTS: u32 = 16_384;

/// Limits that change results. Fixed when a cluster is created and replicated with configuration 0
/// (correctness rule 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Shards of the cluster, 1 to 16,384.
    pub shard_count: u32,
    /// Longest key in bytes.
    pub key_bytes_max: u32,
    /// Longest value in bytes, at most 32 MiB.
    pub value_bytes_max: u32,
    /// Sessions a shard (or the controller) keeps; beyond, the one used longest ago is dropped.
    pub sessions_max: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { shard_count: 64, key_bytes_max: 4096, value_bytes_max: 1 << 20, sessions_max: 4096 }
    }
}

/// Who serves a shard, and who did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The group that serves the shard in this configuration.
    pub owner: Option<GroupId>,
    /// The newest owner in any *earlier* configuration, kept while there is none: the place where
    /// the rows are.
    pub last_owner: Option<GroupId>,
}

/// A numbered configuration. Never changes once made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its number.
    pub num: ConfigNum,
    /// The cluster's limits, the same in all configurations.
    pub params: Params,
    /// The assignment of each shard; position = [`ShardId`].
    pub shards: Vec<Assignment>,
    /// The groups that are joined.
    pub groups: BTreeSet<GroupId>,
}

impl Config {
    /// Configuration 0: no groups, nobody ever owned anything.
    pub fn zero(params: Params) -> Self {
        let shards = vec![Assignment::default(); params.shard_count as usize];
        Self { num: ConfigNum(0), params, shards, groups: BTreeSet::new() }
    }

    /// The group that serves `shard`.
    pub fn owner(&self, shard: ShardId) -> Option<GroupId> {
        self.shards.get(shard.0 as usize).and_then(|assignment| assignment.owner)
    }

    /// Every shard with its assignment.
    pub fn assignments(&self) -> impl Iterator<Item = (ShardId, Assignment)> + '_ {
        (0..).map(ShardId).zip(self.shards.iter().copied())
    }
}

/// Where the groups are. Versioned by itself: the newest is used, whatever configuration is being
/// settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBook {
    /// Grows with every change.
    pub version: u64,
    /// The servers of every group that ever joined.
    pub groups: BTreeMap<GroupId, Vec<Address>>,
}

/// A group as it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// The life of its data: an id once used is accepted only with its first incarnation.
    pub incarnation: Incarnation,
    /// Its servers.
    pub addresses: Vec<Address>,
}

/// One shard that changes hands between two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// Who had it: the owner before or, if there was none, the group that holds its rows.
    pub from: Option<GroupId>,
    /// Who gets it.
    pub to: Option<GroupId>,
}

/// Slot of a key: CRC16/XMODEM of the key, or of the part in the first non-empty `{...}`, as in
/// Redis Cluster.
pub fn slot_of(key: &[u8]) -> u16 {
    const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS as u16
}

/// Shard of a slot when there are `shard_count`: contiguous ranges of slots.
pub fn shard_of_slot(slot: u16, shard_count: u32) -> ShardId {
    ShardId((u32::from(slot) * shard_count) >> 14)
}

/// Shard of a key.
pub fn shard_of(key: &[u8], shard_count: u32) -> ShardId {
    shard_of_slot(slot_of(key), shard_count)
}

/// The slots of a shard: from the first to before the second.
pub fn slots_of(shard: ShardId, shard_count: u32) -> std::ops::Range<u32> {
    let first = |shard: u32| (shard * SLOTS).div_ceil(shard_count);
    first(shard.0)..first(shard.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::{SLOTS, shard_of_slot, slot_of, slots_of};
    use crate::api::ShardId;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"{}x"), super::slot_of(b"{}x"));
        assert_ne!(slot_of(b"{}x"), slot_of(b"{}y"));
    }

    #[test]
    fn every_slot_lies_in_exactly_the_range_of_its_shard() {
        for count in [1, 3, 10, 12, 64, 1000, 16_384] {
            let mut next = 0;
            for shard in (0..count).map(ShardId) {
                let slots = slots_of(shard, count);
                assert_eq!(slots.start, next);
                next = slots.end;
                for slot in slots {
                    assert_eq!(shard_of_slot(slot as u16, count), shard);
                }
            }
            assert_eq!(next, SLOTS);
        }
    }
}
