//! What the search is made of, small enough to hash: rows, groups, and the world.
//!
//! Lists of rows and sets of messages (`messages`) are stored once and named by a number, so that a
//! state of the world is a few words. A cursor is ideal: its hash is the number of the exact list
//! of rows before it. So equal cursors name equal prefixes, which is what the product's rolling
//! hash promises.
//!
//! Left out on purpose: anything that happens.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use clerk::api::push::Cursor;
use clerk::api::{ConfigNum, GroupId};
use shardkv::shard::ShardState;

/// Groups and shards of the largest world.
pub(super) const GROUPS_MAX: usize = 3;
pub(super) const SHARDS_MAX: usize = 3;

/// A hasher that is fast and the same in every run; no input comes from outside.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mixed = self.0.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.chunks(8).for_each(|part| {
            self.word(part.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        });
    }

    fn write_u8(&mut self, value: u8) {
        self.word(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.word(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.word(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.word(value as u64);
        self.word((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }
}

pub(super) type Table<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// A row: its key and its value. Key 0 is the shard's own row (version floor, counters): the number
/// of the last write, doubled, plus 1 if that was a delete. So one list of rows is made by one
/// sequence of writes, as long as there are one key and two writes.
pub(super) type Row = (u8, u8);

/// The number of a list of rows with ascending keys.
pub(super) type RowsId = u16;
pub(super) const NO_ROWS: RowsId = 0;

/// Every list of rows that was met, with the cursor at its end.
pub(super) struct Library {
    lists: Vec<Vec<Row>>,
    cursors: Vec<Cursor>,
    ids: Table<Vec<Row>, RowsId>,
    chunks: Table<(RowsId, RowsId), Vec<RowsId>>,
}

impl Library {
    pub(super) fn new() -> Self {
        let mut library =
            Self { lists: Vec::new(), cursors: Vec::new(), ids: Table::default(), chunks: Table::default() };
        assert_eq!(library.id(&[]), NO_ROWS);
        library
    }

    /// The number of a list.
    pub(super) fn id(&mut self, rows: &[Row]) -> RowsId {
        if let Some(id) = self.ids.get(rows) {
            return *id;
        }
        let id = RowsId::try_from(self.lists.len()).expect("few lists");
        assert!(id < 1 << ROWS_BITS, "few lists");
        let last = rows.last().map(|(key, _)| Bytes::copy_from_slice(&[*key]));
        self.cursors.push(Cursor { last, rows: rows.len() as u64, hash: id.into() });
        self.lists.push(rows.to_vec());
        self.ids.insert(rows.to_vec(), id);
        id
    }

    pub(super) fn rows(&self, id: RowsId) -> &[Row] {
        &self.lists[usize::from(id)]
    }

    /// The cursor at the end of a list.
    pub(super) fn cursor(&self, id: RowsId) -> &Cursor {
        &self.cursors[usize::from(id)]
    }

    /// What a mover may send of `rows` when the cursor is at the end of `after`: every prefix of
    /// the rows after the cursor's last key. Empty if there are none.
    pub(super) fn chunks(&mut self, rows: RowsId, after: RowsId) -> Vec<RowsId> {
        if let Some(chunks) = self.chunks.get(&(rows, after)) {
            return chunks.clone();
        }
        let last = self.rows(after).last().map(|(key, _)| *key);
        let rest: Vec<Row> =
            self.rows(rows).iter().copied().filter(|(key, _)| last.is_none_or(|last| last < *key)).collect();
        let chunks: Vec<RowsId> = (1..=rest.len()).map(|end| self.id(&rest[..end])).collect();
        self.chunks.insert((rows, after), chunks.clone());
        chunks
    }

    /// Every cut of a list in two places: the part before the first, and the part between them.
    pub(super) fn cuts(&mut self, rows: RowsId) -> Vec<(RowsId, RowsId)> {
        let rows = self.rows(rows).to_vec();
        let mut cuts = Vec::new();
        for start in 0..rows.len() {
            for end in start + 1..=rows.len() {
                cuts.push((self.id(&rows[..start]), self.id(&rows[start..end])));
            }
        }
        cuts
    }

    /// Whether `rows` begins with `beginning`.
    pub(super) fn begins(&self, rows: RowsId, beginning: RowsId) -> bool {
        self.rows(rows).starts_with(self.rows(beginning))
    }
}

/// A shard in a group: its state and its rows, and the rows before its install cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) state: ShardState,
    pub(super) rows: RowsId,
    pub(super) cursor: RowsId,
}

/// A group: one state machine driven by one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) num: Option<ConfigNum>,
    pub(super) running: bool,
    pub(super) shards: [Shard; SHARDS_MAX],
}

/// A group in one word.
pub(super) type Packed = u128;

const ROWS_BITS: u32 = 12;
const STATE_BITS: u32 = 4;
const NUM_BITS: u32 = 4;

/// The group with this position. Group 0 is no group.
pub(super) fn group_id(position: usize) -> GroupId {
    GroupId(position as u64 + 1)
}

/// The position of a group.
pub(super) fn position(group: GroupId) -> usize {
    usize::try_from(group.0 - 1).expect("a position")
}

fn state_code(state: ShardState) -> u128 {
    match state {
        ShardState::Absent => 0,
        ShardState::Awaiting => 1,
        ShardState::Serving => 2,
        ShardState::Parked => 3,
        ShardState::Handing { to } => 4 + position(to) as u128,
    }
}

fn state_of(code: u128) -> ShardState {
    match code {
        0 => ShardState::Absent,
        1 => ShardState::Awaiting,
        2 => ShardState::Serving,
        3 => ShardState::Parked,
        to => ShardState::Handing { to: group_id(to as usize - 4) },
    }
}

impl Group {
    /// A group before it knows any configuration.
    pub(super) fn new() -> Self {
        Self { num: None, running: true, shards: [Shard::default(); SHARDS_MAX] }
    }

    pub(super) fn pack(&self) -> Packed {
        let mut packed = self.num.map_or(0, |num| Packed::from(num.0) + 1);
        let mut put = |bits: u32, low: Packed| packed = (packed << bits) | low;
        put(1, self.running.into());
        for shard in &self.shards {
            put(STATE_BITS, state_code(shard.state));
            put(ROWS_BITS, shard.rows.into());
            put(ROWS_BITS, shard.cursor.into());
        }
        packed
    }

    pub(super) fn unpack(packed: Packed) -> Self {
        let mut rest = packed;
        let mut take = |bits: u32| {
            let low = rest & ((1 << bits) - 1);
            rest >>= bits;
            low
        };
        let mut shards = [Shard::default(); SHARDS_MAX];
        for shard in shards.iter_mut().rev() {
            let (cursor, rows) = (take(ROWS_BITS) as RowsId, take(ROWS_BITS) as RowsId);
            *shard = Shard { state: state_of(take(STATE_BITS)), rows, cursor };
        }
        let running = take(1) == 1;
        let num = take(NUM_BITS).checked_sub(1).map(|num| ConfigNum(num as u64));
        Self { num, running, shards }
    }
}

/// The number of a set of messages; the empty one is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct SetId(pub(super) u32);

/// The state of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) groups: [Packed; GROUPS_MAX],
    /// The rows that acknowledged writes made of each shard, plus 1; 0 before any group served it.
    pub(super) truth: [u16; SHARDS_MAX],
    /// Everything that was ever sent.
    pub(super) sent: SetId,
}

impl World {
    pub(super) fn new(groups: usize) -> Self {
        let mut packed = [0; GROUPS_MAX];
        packed[..groups].fill(Group::new().pack());
        Self { groups: packed, truth: [0; SHARDS_MAX], sent: SetId::default() }
    }

    pub(super) fn truth(&self, shard: usize) -> Option<RowsId> {
        self.truth[shard].checked_sub(1)
    }

    pub(super) fn set_truth(&mut self, shard: usize, rows: RowsId) {
        self.truth[shard] = rows + 1;
    }
}
