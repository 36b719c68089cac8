//! Configurations: which group serves which shard, and where groups are.
//!
//! All configurations of a cluster form one history: each carries the digest of the one before, so
//! equal digests mean equal configurations from number 0 on (correctness rule 55). The digest is
//! taken over the bytes that the maker wrote, and these bytes are kept and forwarded unchanged
//! ([`Sealed`]).

mod sealed;

use std::collections::{BTreeMap, BTreeSet};

use base::codec::Skipped;
use serde::{Deserialize, Deserializer, Serialize};

pub use sealed::{Place, Sealed};

use super::{Address, ConfigNum, Digest, GroupId, Incarnation, ShardId};

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
    /// Sessions that a shard (or the controller) keeps; beyond, the least recently used one is
    /// dropped.
    pub sessions_max: u32,
}

/// Longest key that a cluster may allow.
pub const KEY_BYTES_LIMIT: u32 = 65_536;
/// Longest value that a cluster may allow.
pub const VALUE_BYTES_LIMIT: u32 = 32 << 20;
/// Most sessions of a shard that a cluster may allow.
pub const SESSIONS_LIMIT: u32 = 1 << 20;

impl Params {
    /// Refuses limits that no cluster may have: they come from the network, and the code calculates
    /// with them (correctness rule 49).
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let within = |what: &str, value: u32, limit: u32| {
            if (1..=limit).contains(&value) {
                Ok(())
            } else {
                Err(format!("{value} {what}, allowed are 1 to {limit}"))
            }
        };
        within("shards", self.shard_count, SLOTS)?;
        within("bytes of a key", self.key_bytes_max, KEY_BYTES_LIMIT)?;
        within("bytes of a value", self.value_bytes_max, VALUE_BYTES_LIMIT)?;
        within("sessions of a shard", self.sessions_max, SESSIONS_LIMIT)
    }
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
    /// The newest owner in any *earlier* configuration, kept while there is none: the group that
    /// has the rows.
    pub last_owner: Option<GroupId>,
}

/// Group ids that a cluster remembers, including those that left. The address book is sent with
/// every answer, so it must be bounded (correctness rule 22b).
pub const GROUPS_MAX: u32 = 1024;
/// Servers of one group.
pub const ADDRESSES_MAX: usize = 9;
/// Bytes of one address: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;

/// Entries of a list of groups that are read at all.
const GROUPS_READ: usize = 4 * GROUPS_MAX as usize;
/// Addresses of one group that are read at all.
const ADDRESSES_READ: usize = 64;

/// Reads a map of groups with a bound on its entries (correctness rule 47).
pub(super) fn few_groups<'de, V, D>(deserializer: D) -> Result<BTreeMap<GroupId, V>, D::Error>
where
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let entries: Vec<(GroupId, V)> = base::codec::bounded::<GROUPS_READ, _, _>(deserializer)?;
    Ok(entries.into_iter().collect())
}

/// Reads a set of groups with a bound on its entries (correctness rule 47).
pub(super) fn few_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<GroupId>, D::Error> {
    let ids: Vec<GroupId> = base::codec::bounded::<GROUPS_READ, _, _>(deserializer)?;
    Ok(ids.into_iter().collect())
}

/// Reads a set of shards with a bound on its entries (correctness rule 47).
pub(super) fn few_shards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<ShardId>, D::Error> {
    let ids: Vec<ShardId> = base::codec::bounded::<{ SLOTS as usize }, _, _>(deserializer)?;
    Ok(ids.into_iter().collect())
}

/// A numbered configuration. Never changes once made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its number.
    pub num: ConfigNum,
    /// The key of its cluster, drawn at random when the controllers were made; never 0. Two clusters of
    /// one name differ in it.
    pub key: u64,
    /// The digest of the configuration before; of configuration 0: 0.
    pub before: Digest,
    /// The cluster's limits, the same in all configurations.
    pub params: Params,
    /// The assignment of each shard; position = [`ShardId`].
    #[serde(deserialize_with = "base::codec::bounded::<{ SLOTS as usize }, _, _>")]
    pub shards: Vec<Assignment>,
    /// The groups that have joined, each with the incarnation of its data.
    #[serde(deserialize_with = "few_groups")]
    pub groups: BTreeMap<GroupId, Incarnation>,
    /// The shards that this configuration declares lost: each begins a new, empty life at its owner, and
    /// whatever is left of it anywhere is dropped (correctness rule 143).
    #[serde(deserialize_with = "few_shards")]
    pub lost: BTreeSet<ShardId>,
    /// Room for later fields. Code that only reads skips them; code that acts by a configuration
    /// must not ([`Sealed::is_understood`]).
    pub more: Skipped,
}

impl Config {
    /// Configuration 0 of the cluster with this key: no groups, nobody ever owned anything.
    pub fn zero(key: u64, params: Params) -> Self {
        let shards = vec![Assignment::default(); params.shard_count as usize];
        let (before, groups, lost) = (Digest::default(), BTreeMap::new(), BTreeSet::new());
        Self { num: ConfigNum(0), key, before, params, shards, groups, lost, more: Skipped::NONE }
    }

    /// Refuses a configuration that contradicts itself, or exceeds a limit.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        self.params.check()?;
        let (shards, expected) = (self.shards.len(), self.params.shard_count);
        let named = |group: GroupId| self.groups.contains_key(&group);
        if shards != expected as usize {
            Err(format!("{shards} assignments for {expected} shards"))
        } else if self.num >= ConfigNum::LIMIT {
            Err(format!("the number {}", self.num))
        } else if self.key == 0 {
            Err("no cluster key".to_owned())
        } else if self.num == ConfigNum(0) && self.before != Digest::default() {
            Err("a configuration 0 that follows another one".to_owned())
        } else if named(GroupId::CONTROLLERS) || self.groups.len() > GROUPS_MAX as usize {
            Err(format!("{} groups, or the group 0", self.groups.len()))
        } else if let Some(owner) = self.shards.iter().filter_map(|it| it.owner).find(|it| !named(*it)) {
            Err(format!("shards of group {owner}, which is not joined"))
        } else if let Some(shard) = self.lost.iter().find(|shard| self.owner(**shard).is_none()) {
            Err(format!("the lost shard {shard}, which has no owner"))
        } else {
            Ok(())
        }
    }

    /// The ids of the groups that are joined.
    pub fn group_ids(&self) -> BTreeSet<GroupId> {
        self.groups.keys().copied().collect()
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

/// The addresses of the groups. It has its own version: the newest is used, whatever configuration
/// is being settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBook {
    /// Grows with every change.
    pub version: u64,
    /// The key of its cluster; 0: nobody wrote it yet.
    pub key: u64,
    /// Every group that ever joined.
    #[serde(deserialize_with = "few_groups")]
    pub groups: BTreeMap<GroupId, Registered>,
    /// Room for later fields.
    pub more: Skipped,
}

/// What the controllers know of a group besides its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The incarnation of its data. A group with another one lost its data (correctness rule 57).
    pub incarnation: Incarnation,
    /// Its servers.
    #[serde(deserialize_with = "base::codec::bounded::<ADDRESSES_READ, _, _>")]
    pub addresses: Vec<Address>,
    /// Room for later fields.
    pub more: Skipped,
}

impl Registered {
    /// A group with this data and these servers.
    pub fn new(incarnation: Incarnation, addresses: Vec<Address>) -> Self {
        Self { incarnation, addresses, more: Skipped::NONE }
    }
}

impl AddressBook {
    /// The servers of a group; none of one that never joined.
    pub fn addresses(&self, group: GroupId) -> &[Address] {
        self.groups.get(&group).map_or(&[], |group| &group.addresses)
    }

    /// The incarnation of a group's data that the cluster knows.
    pub fn incarnation(&self, group: GroupId) -> Option<Incarnation> {
        self.groups.get(&group).map(|group| group.incarnation)
    }
}

/// A group as it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// The key of the cluster that its data belongs to. It comes with configuration 0, from the group's own
    /// controllers; 0, "not known yet", is refused.
    pub key: u64,
    /// The incarnation of its data: an id once used is accepted only with its first incarnation.
    pub incarnation: Incarnation,
    /// Its servers.
    #[serde(deserialize_with = "base::codec::bounded::<ADDRESSES_READ, _, _>")]
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
