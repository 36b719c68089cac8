//! What the group that has a shard sends next: a pure function of its rows, its memory of changes,
//! and the receiver's cursor.
//!
//! While the shard is served, rows are sent in the order of their keys, then the changes that were
//! made since, round after round. Rows are read from the table as it is: each is as new as the
//! cursor's position at least, which is all that a copy needs. The cursor says: a row within its
//! reach that differs from the sender's was changed after its position (correctness rule 38). Three
//! things keep that true. The position to which changes are sent is read from the table *before* the
//! memory of changes, which is ahead of the table. Nothing is read from a table that is behind the
//! cursor. And a copy of which the memory does not know all later changes starts over.
//!
//! When few changes are missing, the shard is sealed while nobody writes to it. The Seal names them.
//! Once it is sealed the rows are frozen, and no memory is needed.
//!
//! Left out on purpose: time, and the receiver (`push`).

use bytes::Bytes;
use clerk::api::push::{Change, Copied, Cursor, End, Pos, Reach};
use clerk::api::{ConfigNum, GroupId, ShardId};
use raft::storage::{Read, ScanLimit, applied};

use crate::machine::changes::{Changes, Lag};
use crate::machine::copy::{self, CHUNK_BYTES, CHUNK_ROWS};
use crate::machine::rows::{self, Frozen};
use crate::machine::shard::ShardState;

/// How much is sent at once.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A chunk ends at so much. A single larger row travels alone.
    pub chunk: ScanLimit,
    /// The changes that a Seal names, at most, with their rows.
    pub seal: ScanLimit,
    /// A shard is held when no more than this is missing: some rounds of changes fit a hold.
    pub hold: Lag,
    /// While rows are sent, so many changes are sent in between, before the memory loses them.
    pub round: Lag,
    /// Or after so many entries: the memory of all shards loses its oldest changes.
    pub round_entries: u64,
}

impl Sizes {
    /// Those of the product.
    pub const USUAL: Self = Self {
        chunk: ScanLimit { rows: CHUNK_ROWS, bytes: CHUNK_BYTES },
        seal: ScanLimit { rows: 256, bytes: 256 * 1024 },
        hold: Lag { rows: 4096, bytes: 1 << 20 },
        round: Lag { rows: 16 << 10, bytes: 4 << 20 },
        round_entries: 32 << 10,
    };
}

/// A move at its source.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// The move.
    pub num: ConfigNum,
    /// The group that gets it.
    pub to: GroupId,
    /// Shards of the cluster.
    pub shard_count: u32,
    /// How much is sent at once.
    pub sizes: Sizes,
}

/// How far a move is at its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Served here.
    Served,
    /// Frozen.
    Sealed,
}

/// What is sent next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Rows, or changes, or that the copy starts over.
    Install {
        /// The cursor with them.
        to: Cursor,
        /// The rows.
        rows: Vec<Change>,
    },
    /// The last rows of a shard that is sealed.
    Activate {
        /// The rows.
        rows: Vec<Change>,
        /// The counters of the shard.
        end: End,
    },
    /// So little is missing that the shard may be sealed.
    Hold,
    /// The table does not have all yet of what the receiver has.
    Lags,
}

/// What a Seal would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// This.
    Seal(Frozen),
    /// Too much is missing: this is sent first.
    First(Cursor, Vec<Change>),
    /// Nothing, now.
    Not,
}

impl Move {
    /// How far the move is; none if it is over. Read this before the rows, never after.
    pub fn stage(&self, table: &dyn Read) -> Option<Stage> {
        match rows::state(table, self.shard) {
            ShardState::Leaving { to, num } if (to, num) == (self.to, self.num) => Some(Stage::Served),
            ShardState::Handing { to, num, .. } if (to, num) == (self.to, self.num) => Some(Stage::Sealed),
            _ => None,
        }
    }

    /// What is sent after a receiver has this; none if the move is over.
    pub fn next(&self, table: &dyn Read, changes: &Changes, copied: &Copied) -> Option<Next> {
        match self.stage(table)? {
            Stage::Served => Some(self.next_served(table, changes, &copied.cursor)),
            Stage::Sealed => Some(self.next_sealed(table, copied)),
        }
    }

    fn next_served(&self, table: &dyn Read, changes: &Changes, at: &Cursor) -> Next {
        let now = Pos::end_of(applied(table).id.index.0);
        if at.pos > now && !base::mutant!("rows-older-than-the-copy") {
            return Next::Lags;
        }
        if at.reach == Reach::Start {
            if self.is_tiny(table) {
                return Next::Hold;
            }
            return self.rows_after(table, at, now);
        }
        let Some(lag) = changes.lag(self.shard, self.num, at.pos) else { return start_over() };
        let is_little = |most: Lag| lag.rows <= most.rows && lag.bytes <= most.bytes;
        let Sizes { hold, round, round_entries, .. } = self.sizes;
        let entries = now.index - at.pos.index;
        if at.reach != Reach::End && is_little(round) && entries <= round_entries {
            return self.rows_after(table, at, at.pos);
        }
        if at.reach == Reach::End && is_little(hold) && entries <= round_entries {
            return Next::Hold;
        }
        match self.changes_after(table, changes, at, now) {
            None => start_over(),
            Some((to, _)) if to == *at => Next::Lags,
            Some((to, rows)) => Next::Install { to, rows },
        }
    }

    /// Whether the shard is so small that it is not copied before it is sealed.
    fn is_tiny(&self, table: &dyn Read) -> bool {
        let Sizes { seal, .. } = self.sizes;
        let limit = ScanLimit { rows: seal.rows + 1, bytes: seal.bytes };
        copy::chunk(table, self.shard, self.shard_count, &Reach::Start, limit).1
    }

    /// Rows beyond the cursor. They are as new as `pos`.
    fn rows_after(&self, table: &dyn Read, at: &Cursor, pos: Pos) -> Next {
        let (rows, is_last) = self.chunk(table, at);
        let reach = match rows.last() {
            Some((last, _)) if !is_last => Reach::Key(last.clone()),
            _ => Reach::End,
        };
        Next::Install { to: Cursor { reach, pos }, rows }
    }

    fn chunk(&self, table: &dyn Read, at: &Cursor) -> (Vec<Change>, bool) {
        copy::chunk(table, self.shard, self.shard_count, &at.reach, self.sizes.chunk)
    }

    /// The changes between the cursor and `now`, or the first of them, with the rows as they are.
    /// None if the memory does not know them all.
    fn changes_after(
        &self,
        table: &dyn Read,
        changes: &Changes,
        at: &Cursor,
        now: Pos,
    ) -> Option<(Cursor, Vec<Change>)> {
        let missing = changes.missing(self.shard, self.num, at.pos, now, self.sizes.chunk.rows)?;
        let (mut rows, mut bytes, mut pos) = (Vec::new(), 0, at.pos);
        let mut is_cut = missing.more;
        for (changed, key) in missing.keys {
            // What lies beyond the reach is sent with the other rows.
            if copy::is_within(&at.reach, &key) {
                let row = (key.clone(), table.get(&key));
                bytes += copy::weight(&row);
                if bytes > self.sizes.chunk.bytes && !rows.is_empty() {
                    is_cut = true;
                    break;
                }
                rows.push(row);
            }
            pos = changed;
        }
        let pos = if is_cut { pos } else { now.max(pos) };
        Some((Cursor { reach: at.reach.clone(), pos }, rows))
    }

    /// The Seal of a shard whose receiver is so far. It is proposed while nobody changes the shard;
    /// if somebody does, it does nothing.
    pub fn sealing(&self, table: &dyn Read, changes: &Changes, at: &Cursor) -> Sealing {
        if self.stage(table) != Some(Stage::Served) {
            return Sealing::Not;
        }
        let upto = applied(table).id.index.0;
        let now = Pos::end_of(upto);
        if at.reach == Reach::Start && self.is_tiny(table) {
            return Sealing::Seal(Frozen { from: now, upto, keys: Vec::new() });
        }
        if at.reach != Reach::End || at.pos > now {
            return Sealing::Not;
        }
        let Some(missing) = changes.missing(self.shard, self.num, at.pos, now, self.sizes.seal.rows) else {
            return Sealing::Not;
        };
        let keys: Vec<Bytes> = missing.keys.into_iter().map(|(_, key)| key).collect();
        let bytes: usize = keys.iter().map(|key| table.get(key).map_or(0, |row| key.len() + row.len())).sum();
        if !missing.more && bytes <= self.sizes.seal.bytes {
            let mut keys = keys;
            base::mutant!("seal-drops-a-key", drop(keys.pop()));
            return Sealing::Seal(Frozen { from: at.pos, upto, keys });
        }
        match self.changes_after(table, changes, at, now) {
            Some((to, rows)) if to != *at => Sealing::First(to, rows),
            _ => Sealing::Not,
        }
    }

    /// Frozen rows: those beyond the cursor, and at the end those that the Seal named.
    fn next_sealed(&self, table: &dyn Read, copied: &Copied) -> Next {
        let (frozen, at) = (rows::frozen(table, self.shard), &copied.cursor);
        if at.reach != Reach::Start && at.pos < frozen.from {
            return start_over();
        }
        let (mut rows, is_last) = self.chunk(table, at);
        if !is_last && !base::mutant!("activate-before-rows") {
            let pos = at.pos.max(Pos::end_of(frozen.upto));
            let pos = if at.reach == Reach::Start { pos } else { at.pos };
            let reach = rows.last().map_or(Reach::End, |(last, _)| Reach::Key(last.clone()));
            return Next::Install { to: Cursor { reach, pos }, rows };
        }
        if at.reach != Reach::Start {
            let beyond = |key: &Bytes| copy::is_within(&at.reach, key);
            rows.extend(frozen.keys.into_iter().filter(beyond).map(|key| {
                let value = table.get(&key);
                (key, value)
            }));
        }
        let end = copy::end(table, self.shard, self.shard_count, copied.wipes > 0);
        Next::Activate { rows, end }
    }
}

fn start_over() -> Next {
    Next::Install { to: Cursor::default(), rows: Vec::new() }
}
