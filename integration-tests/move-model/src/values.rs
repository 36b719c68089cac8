//! What the search is made of, small enough to hash: rows, groups, and the world.
//!
//! Lists of rows and sets of messages (`messages`) are kept once and named by a number, so that a state of
//! the world is a few words. Rows are sent only when they are frozen here, so a list of rows is as new as
//! its last write. (Rows that are sent while they change: `copying`.)
//!
//! Left out on purpose: anything that happens.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use clerk::api::push::{Cursor, End, Pos, Reach};
use clerk::api::{ConfigNum, GroupId, Version};
use shardkv::shard::{Next, ShardState};

/// Groups and shards of the largest world.
pub(super) const GROUPS_MAX: usize = 3;
pub(super) const SHARDS_MAX: usize = 3;

/// A hasher that is quick and the same in every run; nothing here comes from outside.
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

/// A row: its key and its value. Key 0 is the shard's own row (version floor, counters): the number of the
/// last write, doubled, and 1 more if that deleted something. So one list of rows is made by one sequence
/// of writes, as long as there are one key and two writes.
pub(super) type Row = (u8, u8);

/// The number of a list of rows with ascending keys.
pub(super) type RowsId = u16;
pub(super) const NO_ROWS: RowsId = 0;

/// Every list of rows that was met, with the cursor at its end, and the counters that it makes.
pub(super) struct Library {
    lists: Vec<Vec<Row>>,
    cursors: Vec<Cursor>,
    ends: Vec<End>,
    ids: Table<Vec<Row>, RowsId>,
    chunks: Table<(RowsId, RowsId), Vec<RowsId>>,
}

impl Library {
    pub(super) fn new() -> Self {
        let (ids, chunks) = (Table::default(), Table::default());
        let mut library = Self { lists: Vec::new(), cursors: Vec::new(), ends: Vec::new(), ids, chunks };
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
        let own = rows.first().filter(|row| row.0 == 0).map_or(0, |row| u64::from(row.1));
        let reach = |(key, _): &Row| Reach::Key(Bytes::copy_from_slice(&[*key]));
        self.cursors.push(
            rows.last().map_or_else(Cursor::default, |last| Cursor {
                reach: reach(last),
                pos: Pos::end_of(own / 2),
            }),
        );
        let values = || rows.iter().filter(|row| row.0 > 0).map(|row| u64::from(row.1));
        let (count, bytes) = (values().count() as u64, values().sum());
        // (Of one key and two writes only the second can be a deletion.)
        self.ends.push(End { floor: Version(own % 2), rows: count, bytes });
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

    /// What a receiver counts that has these rows.
    pub(super) fn counted(&self, id: RowsId) -> End {
        self.ends[usize::from(id)]
    }

    /// The counters that a sender reads in these rows. Those of a shard are one of its rows: so the
    /// first row of a shard with one key counts that key, too, although it is not there.
    pub(super) fn said(&self, id: RowsId) -> End {
        match self.rows(id) {
            [(0, own)] if own % 2 == 0 => End { rows: 1, bytes: u64::from(own / 2), ..self.counted(id) },
            _ => self.counted(id),
        }
    }

    /// What a mover may send of `rows` when the cursor is at the end of `after`: every prefix
    /// of the rows after the cursor's last key, wherever it is cut. Empty if there are none.
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

    /// Every cut of a list in two places: what lies before the first, and between the two.
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

/// A shard in a group: its state, the newest move by which the group took it, its rows, and the rows before its
/// install cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) state: ShardState,
    pub(super) taken: Option<ConfigNum>,
    pub(super) rows: RowsId,
    pub(super) cursor: RowsId,
}

/// A group: one state machine with one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) num: Option<ConfigNum>,
    pub(super) running: bool,
    pub(super) shards: [Shard; SHARDS_MAX],
}

/// A group in one word.
pub(super) type Packed = u128;

const ROWS_BITS: u32 = 10;
const KIND_BITS: u32 = 3;
const NEXT_BITS: u32 = 2;
const GROUP_BITS: u32 = 2;
const MOVE_BITS: u32 = 3;
const NUM_BITS: u32 = 4;

/// The group with this position. Group 0 is no group.
pub(super) fn group_id(position: usize) -> GroupId {
    GroupId(position as u64 + 1)
}

/// The position of a group.
pub(super) fn position(group: GroupId) -> usize {
    usize::try_from(group.0 - 1).expect("a position")
}

/// Takes numbers out of a word that were put in the other way round.
struct Bits(Packed);

impl Bits {
    fn put(&mut self, bits: u32, low: Packed) {
        assert!(low < 1 << bits, "a small number");
        self.0 = (self.0 << bits) | low;
    }

    fn take(&mut self, bits: u32) -> Packed {
        let low = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        low
    }

    /// Group 0 is no group.
    fn put_group(&mut self, group: GroupId) {
        self.put(GROUP_BITS, group.0.into());
    }

    fn take_group(&mut self) -> GroupId {
        GroupId(self.take(GROUP_BITS) as u64)
    }

    /// Move 0 is no move.
    fn put_move(&mut self, num: ConfigNum) {
        self.put(MOVE_BITS, num.0.into());
    }

    fn take_move(&mut self) -> ConfigNum {
        ConfigNum(self.take(MOVE_BITS) as u64)
    }

    fn put_state(&mut self, state: ShardState) {
        let (none, first) = (GroupId::default(), ConfigNum::default());
        let (kind, to, num, next) = match state {
            ShardState::Absent => (0, none, first, Next::Unchanged),
            ShardState::Awaiting { num } => (1, none, num, Next::Unchanged),
            ShardState::Serving => (2, none, first, Next::Unchanged),
            ShardState::Parked => (3, none, first, Next::Unchanged),
            ShardState::Leaving { to, num } => (4, to, num, Next::Unchanged),
            ShardState::Handing { to, num, next } => (5, to, num, next),
        };
        let (next, later, by) = match next {
            Next::Unchanged => (0, none, first),
            Next::Mine { num } => (1, none, num),
            Next::Others { to, num } => (2, to, num),
            Next::Nobodys => (3, none, first),
        };
        self.put(KIND_BITS, kind);
        self.put_group(to);
        self.put_move(num);
        self.put(NEXT_BITS, next);
        self.put_group(later);
        self.put_move(by);
    }

    fn take_state(&mut self) -> ShardState {
        let (by, later) = (self.take_move(), self.take_group());
        let next = match self.take(NEXT_BITS) {
            0 => Next::Unchanged,
            1 => Next::Mine { num: by },
            2 => Next::Others { to: later, num: by },
            _ => Next::Nobodys,
        };
        let (num, to) = (self.take_move(), self.take_group());
        match self.take(KIND_BITS) {
            0 => ShardState::Absent,
            1 => ShardState::Awaiting { num },
            2 => ShardState::Serving,
            3 => ShardState::Parked,
            4 => ShardState::Leaving { to, num },
            _ => ShardState::Handing { to, num, next },
        }
    }
}

impl Group {
    /// Before it knows any configuration.
    pub(super) fn new() -> Self {
        Self { num: None, running: true, shards: [Shard::default(); SHARDS_MAX] }
    }

    pub(super) fn pack(&self) -> Packed {
        let mut bits = Bits(0);
        bits.put(NUM_BITS, self.num.map_or(0, |num| Packed::from(num.0) + 1));
        bits.put(1, self.running.into());
        for shard in &self.shards {
            bits.put_state(shard.state);
            bits.put_move(shard.taken.unwrap_or_default());
            bits.put(ROWS_BITS, shard.rows.into());
            bits.put(ROWS_BITS, shard.cursor.into());
        }
        bits.0
    }

    pub(super) fn unpack(packed: Packed) -> Self {
        let mut bits = Bits(packed);
        let mut shards = [Shard::default(); SHARDS_MAX];
        for shard in shards.iter_mut().rev() {
            let (cursor, rows) = (bits.take(ROWS_BITS) as RowsId, bits.take(ROWS_BITS) as RowsId);
            let taken = Some(bits.take_move()).filter(|taken| taken.0 > 0);
            *shard = Shard { state: bits.take_state(), taken, rows, cursor };
        }
        let running = bits.take(1) == 1;
        let num = bits.take(NUM_BITS).checked_sub(1).map(|num| ConfigNum(num as u64));
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
    /// The rows that acknowledged writes made of each shard, plus 1; 0 before anybody served it.
    pub(super) truth: [u16; SHARDS_MAX],
    /// Everything that was ever sent.
    pub(super) sent: SetId,
    /// The group that died, plus 1; 0 while none did.
    pub(super) dead: u8,
}

impl World {
    pub(super) fn new(groups: usize) -> Self {
        let mut packed = [0; GROUPS_MAX];
        packed[..groups].fill(Group::new().pack());
        Self { groups: packed, truth: [0; SHARDS_MAX], sent: SetId::default(), dead: 0 }
    }

    /// The group that died.
    pub(super) fn dead(&self) -> Option<usize> {
        usize::from(self.dead).checked_sub(1)
    }

    /// The world without a group: it says and does nothing any more, and what it has nobody else gets.
    pub(super) fn without(mut self, group: usize) -> Self {
        let dead = Group { running: false, ..Group::unpack(self.groups[group]) };
        self.groups[group] = dead.pack();
        self.dead = group as u8 + 1;
        self
    }

    pub(super) fn truth(&self, shard: usize) -> Option<RowsId> {
        self.truth[shard].checked_sub(1)
    }

    pub(super) fn set_truth(&mut self, shard: usize, rows: RowsId) {
        self.truth[shard] = rows + 1;
    }
}
