//! What was changed in the shards that leave, in the memory of every replica: so a copy can go on
//! while clients write, and under another leader.
//!
//! For each shard it has the rows that were changed after a position, `since`, each with the position
//! of its last change. It is no part of the replicated state. It is bounded: the oldest changes go
//! first, and `since` becomes the newest that went. A copy that does not have the changes up to
//! `since` starts over (correctness rule 38).
//!
//! `Noting` is the only way for a command to the rows, so no change is left out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clerk::api::push::Pos;
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::Rows;
use raft::storage::{Read, Row, ScanLimit};
use raft::types::Index;

use crate::machine::rows;

/// Rows of one shard, their bytes, and bytes of all shards, as `cost` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one shard.
    pub rows: usize,
    /// Bytes of one shard.
    pub shard_bytes: usize,
    /// Bytes of all shards.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 64 << 10, shard_bytes: 16 << 20, bytes: 64 << 20 }
    }
}

/// What an entry of both maps takes besides its key.
const ENTRY_BYTES: usize = 160;

fn cost(key: &Bytes) -> usize {
    key.len() + ENTRY_BYTES
}

/// Upper bounds for what was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Rows.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Rows that were changed, in the order of their last changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Each with the position of its last change.
    pub keys: Vec<(Pos, Bytes)>,
    /// Whether there are more.
    pub more: bool,
}

/// The changes of all shards that leave.
#[derive(Debug, Default)]
pub struct Changes {
    limits: Limits,
    /// Shards that leave: told without a lock, for commands while no shard moves.
    leaving: AtomicUsize,
    shards: Mutex<Shards>,
}

#[derive(Debug, Default)]
struct Shards {
    of: BTreeMap<ShardId, OfShard>,
    bytes: usize,
}

#[derive(Debug)]
struct OfShard {
    /// The move.
    num: ConfigNum,
    since: Pos,
    by_key: BTreeMap<Bytes, Pos>,
    by_pos: BTreeMap<Pos, Noted>,
    bytes: usize,
    /// All that was ever noted.
    total: Lag,
}

#[derive(Debug)]
struct Noted {
    key: Bytes,
    /// All that was noted before it.
    before: Lag,
}

impl Shards {
    /// Forgets the oldest changes of all shards, until they take no more than this.
    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let first = |of: &OfShard| of.by_pos.first_key_value().map(|(pos, _)| *pos);
            let of_shards = self.of.values_mut().filter(|of| !of.by_pos.is_empty());
            let Some(oldest) = of_shards.min_by_key(|of| first(of)) else { return };
            // As many as a shard may have: it is not looked for again for each of them.
            let enough = oldest.bytes / 2;
            while oldest.bytes > enough && self.bytes > bytes {
                self.bytes -= oldest.forget_oldest();
            }
        }
    }
}

impl OfShard {
    fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.by_pos.first_key_value().map(|(pos, _)| *pos) else { return 0 };
        self.since = self.since.max(oldest);
        self.forget(oldest)
    }

    fn forget(&mut self, pos: Pos) -> usize {
        let Some(noted) = self.by_pos.remove(&pos) else { return 0 };
        self.by_key.remove(&noted.key);
        self.bytes -= cost(&noted.key);
        cost(&noted.key)
    }
}

impl Changes {
    /// With other limits.
    pub fn with(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no shard leaves.
    fn is_idle(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) == 0
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.lock() = Shards::default();
        self.leaving.store(0, Ordering::Relaxed);
    }

    /// From now on the shard leaves by the move `num`: notes its changes after `since`.
    pub fn start(&self, shard: ShardId, num: ConfigNum, since: Pos) {
        self.stop(shard);
        let (by_key, by_pos) = (BTreeMap::new(), BTreeMap::new());
        let of = OfShard { num, since, by_key, by_pos, bytes: 0, total: Lag::default() };
        self.lock().of.insert(shard, of);
        self.leaving.fetch_add(1, Ordering::Relaxed);
    }

    /// The shard does not leave any more.
    pub(crate) fn stop(&self, shard: ShardId) {
        let mut shards = self.lock();
        if let Some(of) = shards.of.remove(&shard) {
            shards.bytes -= of.bytes;
            self.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes a change. Returns whether the shard leaves.
    pub fn note(&self, shard: ShardId, key: &Bytes, weight: usize, pos: Pos) -> bool {
        let mut shards = self.lock();
        let Shards { of, bytes } = &mut *shards;
        let Some(of) = of.get_mut(&shard) else { return false };
        if let Some(before) = of.by_key.get(key).copied() {
            *bytes -= of.forget(before);
        }
        of.by_key.insert(key.clone(), pos);
        of.by_pos.insert(pos, Noted { key: key.clone(), before: of.total });
        of.total.rows += 1;
        of.total.bytes += weight as u64;
        of.bytes += cost(key);
        *bytes += cost(key);
        while of.by_key.len() > self.limits.rows || of.bytes > self.limits.shard_bytes {
            *bytes -= of.forget_oldest();
        }
        if *bytes > self.limits.bytes {
            shards.shrink(self.limits.bytes - self.limits.bytes / 64);
        }
        true
    }

    /// Notes that a range of keys was deleted: every copy starts over. Returns which shards leave
    /// of which it deleted something.
    fn note_range(&self, shard_count: u32, start: &[u8], end: &[u8], pos: Pos) -> Vec<ShardId> {
        let mut shards = self.lock();
        let Shards { of, bytes } = &mut *shards;
        let touched = of.iter_mut().filter(|(shard, _)| {
            let ranges = rows::pushed_ranges(**shard, shard_count);
            ranges.iter().any(|(from, to)| &from[..] < end && start < &to[..])
        });
        let touched = touched.map(|(shard, of)| {
            *bytes -= std::mem::take(&mut of.bytes);
            of.by_key.clear();
            of.by_pos.clear();
            of.since = pos;
            *shard
        });
        touched.collect()
    }

    /// At most so much was changed after `after`. None if that is not known.
    pub fn lag(&self, shard: ShardId, num: ConfigNum, after: Pos) -> Option<Lag> {
        let shards = self.lock();
        let of = shards.of.get(&shard).filter(|of| of.num == num && of.knows(after))?;
        let first = of.by_pos.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).next();
        let before = first.map_or(of.total, |(_, noted)| noted.before);
        Some(Lag { rows: of.total.rows - before.rows, bytes: of.total.bytes - before.bytes })
    }

    /// The rows that were changed after `after` and last up to `upto`, at most so many. None if that
    /// is not known.
    pub fn missing(
        &self,
        shard: ShardId,
        num: ConfigNum,
        after: Pos,
        upto: Pos,
        count: usize,
    ) -> Option<Missing> {
        use std::ops::Bound::{Excluded, Included};
        let shards = self.lock();
        let of = shards.of.get(&shard).filter(|of| of.num == num && of.knows(after))?;
        if after >= upto {
            return Some(Missing::default());
        }
        let mut range = of.by_pos.range((Excluded(after), Included(upto)));
        let keys = range.by_ref().take(count).map(|(pos, noted)| (*pos, noted.key.clone())).collect();
        Some(Missing { keys, more: range.next().is_some() })
    }

    /// Rows that are remembered, of all shards.
    pub fn rows(&self) -> usize {
        self.lock().of.values().map(|of| of.by_key.len()).sum()
    }

    /// Bytes that all shards take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl OfShard {
    /// Whether all changes after `after` are here.
    fn knows(&self, after: Pos) -> bool {
        self.since <= after || base::mutant!("memory-ignores-since")
    }
}

/// The rows of a command, with its changes noted.
pub(crate) struct Noting<'a> {
    rows: &'a mut dyn Rows,
    changes: &'a Changes,
    shard_count: u32,
    pos: Pos,
    /// Shards that leave and that the command changed.
    changed: Vec<ShardId>,
}

impl<'a> Noting<'a> {
    /// Does a command of the entry `index` on the rows. The last change of a shard that leaves is a
    /// row, too: the Seal is judged by it.
    pub(crate) fn apply<T>(
        rows: &'a mut dyn Rows,
        changes: &'a Changes,
        shard_count: u32,
        index: Index,
        act: impl FnOnce(&mut dyn Rows) -> T,
    ) -> T {
        if changes.is_idle() {
            return act(rows);
        }
        let pos = Pos { index: index.0, change: 0 };
        let mut noting = Noting { rows, changes, shard_count, pos, changed: Vec::new() };
        let done = act(&mut noting);
        for shard in noting.changed {
            rows::put_last_change(noting.rows, shard, index.0);
        }
        done
    }

    fn note(&mut self, key: &Bytes, weight: usize) {
        let Some(shard) = rows::shard_of_row(key, self.shard_count) else { return };
        self.pos.change += 1;
        if self.changes.note(shard, key, weight, self.pos) && !self.changed.contains(&shard) {
            self.changed.push(shard);
        }
    }
}

impl Read for Noting<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        self.rows.scan(start, end, limit)
    }
}

impl Rows for Noting<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.note(&key, key.len() + value.len());
        self.rows.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.note(&Bytes::copy_from_slice(key), key.len());
        self.rows.delete(key);
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.pos.change += 1;
        let touched = self.changes.note_range(self.shard_count, start, end, self.pos);
        for shard in touched {
            if !self.changed.contains(&shard) {
                self.changed.push(shard);
            }
        }
        self.rows.delete_range(start, end);
    }
}

#[cfg(test)]
mod tests;
