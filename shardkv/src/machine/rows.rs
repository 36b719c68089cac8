//! The rows of a group's table.
//!
//! The first byte of a key is its kind; kind 0 belongs to the Raft library. The rows that travel with
//! a shard are three ascending ranges: its meta row (version floor, counters), its sessions with their
//! counter (correctness rule 39), and its values, ordered by (slot, key). So push, delete and scan are
//! range operations. Rows about the shard that stay in the group (its state, its copy's cursor) have
//! a separate kind that is never pushed.
//!
//! | kind | rest of the key | value |
//! |---|---|---|
//! | `0x01` | `c`, number BE u64 | that configuration, as its author wrote it ([`Sealed`]): the adopted one and some before |
//! | `0x01` | `f`, shard BE u32 | [`Frozen`] while `Handing` |
//! | `0x01` | `h`, number BE u64 | the [`Digest`] of each configuration that was adopted |
//! | `0x01` | `i` | the [`Incarnation`] |
//! | `0x01` | `j` | number of the first adopted configuration that names the group |
//! | `0x01` | `l`, shard BE u32 | while `Leaving`: index of the last entry that changed the shard, u64 |
//! | `0x01` | `n` | number of the adopted configuration (4 KiB are not decoded to compare a number) |
//! | `0x01` | `s`, shard BE u32 | [`ShardState`], unless `Absent` |
//! | `0x01` | `t`, shard BE u32 | number of the newest move by which the group took the shard; stays when it leaves |
//! | `0x01` | `u`, shard BE u32 | [`Copied`] while `Awaiting` |
//! | `0x10` | shard BE u32 | [`Meta`] |
//! | `0x11` | shard BE u32, ... | the shard's sessions (`raft::rsm::sessions`) |
//! | `0x12` | slot BE u16, key | flags u8, version BE u64, value |
//!
//! All rows except those of values are encoded with `base::codec`.
//! Left out on purpose: any decision. This file only knows keys and values.

use base::codec::{self, Denied};
use bytes::{BufMut, Bytes, BytesMut};
use clerk::api::config::{Place, SLOTS, Sealed, shard_of_slot, slot_of, slots_of};
use clerk::api::push::{Copied, Pos};
use clerk::api::{ConfigNum, Digest, Incarnation, ShardId, Version};
use raft::rsm::Rows;
use raft::storage::{Read, ScanLimit, unreadable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::shard::ShardState;

const GROUP: u8 = 0x01;
const META: u8 = 0x10;
const SESSIONS: u8 = 0x11;
const VALUES: u8 = 0x12;

const JOINED_KEY: &[u8] = &[GROUP, b'j'];
const INCARNATION_KEY: &[u8] = &[GROUP, b'i'];
const NUM_KEY: &[u8] = &[GROUP, b'n'];

/// Rows of state that are read together.
const PAGE: ScanLimit = ScanLimit { rows: 4096, bytes: 1 << 20 };

fn of_shard(kind: &[u8], shard: ShardId) -> Bytes {
    let mut key = BytesMut::with_capacity(kind.len() + 4);
    key.put_slice(kind);
    key.put_u32(shard.0);
    key.freeze()
}

fn state_key(shard: ShardId) -> Bytes {
    of_shard(&[GROUP, b's'], shard)
}

fn taken_key(shard: ShardId) -> Bytes {
    of_shard(&[GROUP, b't'], shard)
}

fn copied_key(shard: ShardId) -> Bytes {
    of_shard(&[GROUP, b'u'], shard)
}

fn frozen_key(shard: ShardId) -> Bytes {
    of_shard(&[GROUP, b'f'], shard)
}

fn last_change_key(shard: ShardId) -> Bytes {
    of_shard(&[GROUP, b'l'], shard)
}

fn meta_key(shard: ShardId) -> Bytes {
    of_shard(&[META], shard)
}

/// The prefix of the keys of a shard's sessions.
pub(crate) fn sessions_prefix(shard: ShardId) -> Bytes {
    of_shard(&[SESSIONS], shard)
}

/// Key of a value's row.
pub(crate) fn value_key(key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(3 + key.len());
    row.put_u8(VALUES);
    row.put_u16(slot_of(key));
    row.put_slice(key);
    row.freeze()
}

/// The client's key in the key of a value's row.
pub(crate) fn key_of(row: &Bytes) -> Bytes {
    row.slice(3.min(row.len())..)
}

/// A value in the form of its row.
pub(crate) fn value_row(version: Version, parts: &[&[u8]]) -> Bytes {
    let bytes = VALUE_HEAD_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut row = BytesMut::with_capacity(bytes);
    row.put_u8(0);
    row.put_u64(version.0);
    for part in parts {
        row.put_slice(part);
    }
    row.freeze()
}

/// Flags and version are in front of a value. A flag says that more data is between them and the
/// value (an expiry, a type). This build knows no flags.
const VALUE_HEAD_BYTES: usize = 1 + 8;

/// Version and value of a value's row.
///
/// # Errors
/// Says what is wrong with the row.
pub(crate) fn check_value_row(row: &Bytes) -> Result<(Version, Bytes), String> {
    match row.split_first_chunk::<VALUE_HEAD_BYTES>() {
        Some(([0, version @ ..], _)) => {
            Ok((Version(u64::from_be_bytes(*version)), row.slice(VALUE_HEAD_BYTES..)))
        }
        Some(([flags, ..], _)) => Err(format!("unknown flags {flags:#04x}: a newer build wrote it")),
        None => Err("it is shorter than flags and a version".to_owned()),
    }
}

/// The same for rows of this group's own table.
pub(crate) fn parse_value(row: &Bytes) -> (Version, Bytes) {
    check_value_row(row).unwrap_or_else(|why| unreadable("read a value", &why))
}

pub(crate) fn try_decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, codec::DecodeError> {
    codec::decode(bytes, bytes.len().saturating_mul(2).max(64))
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> T {
    try_decode(bytes).unwrap_or_else(|error| unreadable(&format!("decode {what}"), &error))
}

/// The kind of a row that travels with a shard, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// The shard's own row.
    Meta,
    /// A row of its sessions: the part of the key after their prefix.
    Session(&'a [u8]),
    /// A client's key, and its slot.
    Value { slot: u16, key: &'a [u8] },
}

/// The kind of a row that travels with a shard.
pub(crate) fn kind_of(key: &[u8]) -> Option<Kind<'_>> {
    match key {
        [META, _, _, _, _] => Some(Kind::Meta),
        [SESSIONS, _, _, _, _, rest @ ..] => Some(Kind::Session(rest)),
        [VALUES, one, two, key @ ..] => Some(Kind::Value { slot: u16::from_be_bytes([*one, *two]), key }),
        _ => None,
    }
}

/// The shard that a row travels with.
pub(crate) fn shard_of_row(key: &[u8], shard_count: u32) -> Option<ShardId> {
    match key {
        [META | SESSIONS, one, two, three, four, ..] => {
            Some(ShardId(u32::from_be_bytes([*one, *two, *three, *four])))
        }
        [VALUES, one, two, ..] => Some(shard_of_slot(u16::from_be_bytes([*one, *two]), shard_count)),
        _ => None,
    }
}

/// Keys and bytes that a row counts in its shard's counters.
pub(crate) fn counted(key: &[u8], value: &[u8]) -> (u64, u64) {
    match kind_of(key) {
        Some(Kind::Value { key, .. }) => {
            (1, (key.len() + value.len().saturating_sub(VALUE_HEAD_BYTES)) as u64)
        }
        _ => (0, 0),
    }
}

/// A shard's facts besides sessions and values. They travel with the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The highest version that was ever deleted. A new key starts above it, so no version of a key
    /// ever returns.
    pub floor: Version,
    /// The number of keys.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Room for later fields.
    pub more: Denied,
}

pub(crate) fn meta(rows: &dyn Read, shard: ShardId) -> Meta {
    rows.get(&meta_key(shard)).map_or_else(Meta::default, |bytes| decode("a shard's meta row", &bytes))
}

pub(crate) fn put_meta(rows: &mut dyn Rows, shard: ShardId, meta: &Meta) {
    rows.put(meta_key(shard), codec::encode(meta));
}

pub(crate) fn incarnation(rows: &dyn Read) -> Option<Incarnation> {
    rows.get(INCARNATION_KEY).map(|bytes| decode("the incarnation row", &bytes))
}

pub(crate) fn put_incarnation(rows: &mut dyn Rows, incarnation: Incarnation) {
    rows.put(Bytes::from_static(INCARNATION_KEY), codec::encode(&incarnation));
}

/// Limits for the configurations that are kept: their number, and the assignments in them. Lost
/// controllers can be rebuilt from them, for groups that lag. (They are few, because the labs count
/// each byte that a server keeps, H12.)
const KEPT_ASSIGNMENTS: u32 = 16 * SLOTS;
const KEPT_CONFIGS: u32 = 4;

fn numbered(kind: u8, num: ConfigNum) -> Bytes {
    let mut key = BytesMut::with_capacity(10);
    key.put_slice(&[GROUP, kind]);
    key.put_u64(num.0);
    key.freeze()
}

fn unseal(value: &Bytes) -> Sealed {
    Sealed::read(value.clone()).unwrap_or_else(|error| unreadable("decode a configuration", &error))
}

/// The adopted configuration.
pub(crate) fn config(rows: &dyn Read) -> Option<Sealed> {
    let key = numbered(b'c', config_num(rows)?);
    let Some(row) = rows.get(&key) else { unreadable("read the adopted configuration", &"it is missing") };
    Some(unseal(&row))
}

/// The adopted configuration and the kept ones before it, ascending.
pub(crate) fn configs(rows: &dyn Read) -> Vec<Sealed> {
    let (start, end) = (numbered(b'c', ConfigNum(0)), [GROUP, b'c' + 1]);
    let limit = ScanLimit { rows: KEPT_CONFIGS as usize + 1, bytes: usize::MAX };
    rows.scan(&start, Some(&end), limit).iter().map(|(_, value)| unseal(value)).collect()
}

pub fn config_num(rows: &dyn Read) -> Option<ConfigNum> {
    rows.get(NUM_KEY).map(|bytes| decode("the configuration number", &bytes))
}

/// The digest of a configuration that was adopted.
pub(crate) fn digest(rows: &dyn Read, num: ConfigNum) -> Option<Digest> {
    rows.get(&numbered(b'h', num)).map(|bytes| decode("the digest of a configuration", &bytes))
}

/// The adopted configuration, by number and digest.
pub(crate) fn place(rows: &dyn Read) -> Option<Place> {
    let num = config_num(rows)?;
    Some(Place { num, digest: digest(rows, num)? })
}

/// Writes the configuration that is adopted now, and drops the newest one that is no longer kept.
pub(crate) fn put_config(rows: &mut dyn Rows, config: &Sealed) {
    let kept = (KEPT_ASSIGNMENTS / config.params.shard_count.max(1)).clamp(2, KEPT_CONFIGS);
    rows.put(numbered(b'c', config.num), config.bytes().clone());
    rows.put(numbered(b'h', config.num), codec::encode(&config.digest()));
    rows.put(Bytes::from_static(NUM_KEY), codec::encode(&config.num));
    if let Some(old) = config.num.0.checked_sub(u64::from(kept)) {
        rows.delete(&numbered(b'c', ConfigNum(old)));
    }
}

/// The first adopted configuration that names the group.
pub(crate) fn joined(rows: &dyn Read) -> Option<ConfigNum> {
    rows.get(JOINED_KEY).map(|bytes| decode("the row of the first configuration", &bytes))
}

pub(crate) fn put_joined(rows: &mut dyn Rows, num: ConfigNum) {
    rows.put(Bytes::from_static(JOINED_KEY), codec::encode(&num));
}

pub fn state(rows: &dyn Read, shard: ShardId) -> ShardState {
    rows.get(&state_key(shard)).map_or(ShardState::Absent, |bytes| decode("a shard's state", &bytes))
}

pub(crate) fn put_state(rows: &mut dyn Rows, shard: ShardId, state: ShardState) {
    match state {
        ShardState::Absent => rows.delete(&state_key(shard)),
        state => rows.put(state_key(shard), codec::encode(&state)),
    }
}

/// Every shard that is not `Absent`, ascending.
pub(crate) fn states(rows: &dyn Read) -> Vec<(ShardId, ShardState)> {
    let end = [GROUP, b's' + 1];
    let mut start = Bytes::from_static(&[GROUP, b's']);
    let mut states = Vec::new();
    loop {
        let page = rows.scan(&start, Some(&end), PAGE);
        let Some((last, _)) = page.last() else { return states };
        start = successor(last);
        states.extend(page.iter().filter_map(|(key, value)| {
            let shard = key.get(2..)?.first_chunk::<4>()?;
            Some((ShardId(u32::from_be_bytes(*shard)), decode("a shard's state", value)))
        }));
    }
}

/// The newest move by which the group took the shard.
pub(crate) fn taken(rows: &dyn Read, shard: ShardId) -> Option<ConfigNum> {
    rows.get(&taken_key(shard)).map(|bytes| decode("the row of the last move of a shard", &bytes))
}

pub(crate) fn put_taken(rows: &mut dyn Rows, shard: ShardId, num: ConfigNum) {
    rows.put(taken_key(shard), codec::encode(&num));
}

/// What is here of a shard that is awaited.
pub fn copied(rows: &dyn Read, shard: ShardId) -> Copied {
    rows.get(&copied_key(shard)).map_or_else(Copied::default, |bytes| decode("a copy's cursor", &bytes))
}

pub(crate) fn put_copied(rows: &mut dyn Rows, shard: ShardId, copied: &Copied) {
    rows.put(copied_key(shard), codec::encode(copied));
}

pub(crate) fn delete_copied(rows: &mut dyn Rows, shard: ShardId) {
    rows.delete(&copied_key(shard));
}

/// What a Seal names: the changes that a receiver lacks whose copy is complete and has the changes
/// up to `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// A copy that does not have these changes starts over.
    pub from: Pos,
    /// No entry after this one changed the shard.
    pub upto: u64,
    /// The rows that changed after `from`.
    pub keys: Vec<Bytes>,
}

/// What the Seal of a shard named.
pub fn frozen(rows: &dyn Read, shard: ShardId) -> Frozen {
    rows.get(&frozen_key(shard)).map_or_else(Frozen::default, |bytes| decode("a seal", &bytes))
}

pub(crate) fn put_frozen(rows: &mut dyn Rows, shard: ShardId, frozen: &Frozen) {
    rows.put(frozen_key(shard), codec::encode(frozen));
}

pub(crate) fn delete_frozen(rows: &mut dyn Rows, shard: ShardId) {
    rows.delete(&frozen_key(shard));
}

/// The last entry that changed a shard that leaves; 0 if none did since it leaves.
pub(crate) fn last_change(rows: &dyn Read, shard: ShardId) -> u64 {
    rows.get(&last_change_key(shard)).map_or(0, |bytes| decode("the last change of a shard", &bytes))
}

pub(crate) fn put_last_change(rows: &mut dyn Rows, shard: ShardId, index: u64) {
    rows.put(last_change_key(shard), codec::encode(&index));
}

pub(crate) fn delete_last_change(rows: &mut dyn Rows, shard: ShardId) {
    rows.delete(&last_change_key(shard));
}

/// A range of keys: from the first to before the second.
pub(crate) type KeyRange = (Bytes, Bytes);

/// The value rows of a shard.
pub(crate) fn values_range(shard: ShardId, shard_count: u32) -> KeyRange {
    // One past the last slot does not fit two bytes. The next kind begins there.
    let bound = |slot: u32| match u16::try_from(slot) {
        Ok(slot) => [&[VALUES][..], &slot.to_be_bytes()].concat().into(),
        Err(_) => Bytes::from_static(&[VALUES + 1]),
    };
    let slots = slots_of(shard, shard_count);
    (bound(slots.start), bound(slots.end))
}

/// The rows that travel with a shard, ascending.
pub(crate) fn pushed_ranges(shard: ShardId, shard_count: u32) -> [KeyRange; 3] {
    let next = ShardId(shard.0 + 1);
    let meta_end = if base::mutant!("version-floor-left-behind") { shard } else { next };
    let sessions_end = if base::mutant!("sessions-left-behind") { shard } else { next };
    [
        (meta_key(shard), meta_key(meta_end)),
        (sessions_prefix(shard), sessions_prefix(sessions_end)),
        values_range(shard, shard_count),
    ]
}

/// A range with fewer rows than this is deleted row by row.
const FEW: ScanLimit = ScanLimit { rows: 257, bytes: 256 * 1024 };

/// Drops every row that travels with a shard.
///
/// A range delete takes as long for any number of rows, but costs every other shard something: the
/// table forgets the rows that it keeps at hand, and each later read looks through the ranges that
/// were deleted. Thousands of small shards may leave in a second, so a range with few rows is
/// deleted row by row.
pub(crate) fn delete_shard(rows: &mut dyn Rows, shard: ShardId, shard_count: u32) {
    for (start, end) in pushed_ranges(shard, shard_count) {
        let few = rows.scan(&start, Some(&end), FEW);
        let bytes: usize = few.iter().map(|(key, value)| key.len() + value.len()).sum();
        if few.len() < FEW.rows && bytes < FEW.bytes {
            few.iter().for_each(|(key, _)| rows.delete(key));
        } else {
            rows.delete_range(&start, &end);
        }
    }
}

/// The smallest key after `key`.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
