//! What stands in for disks and the state machine: the saved log, and a table whose rows are the
//! applied entries themselves, so that "the same rows" means "the same history".

use bytes::Bytes;
use raft::core::message::Chunk;
use raft::storage::{APPLIED_KEY, Applied, Read, Restored, Row, Save, ScanLimit};
use raft::types::{Entry, EntryId, Index};

/// Every entry applied, from the first on. A snapshot of it is its rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Entry>,
    /// So many rows survive a crash.
    durable: usize,
    pub(crate) staged: Vec<Entry>,
    /// The snapshot that the live rows began with.
    pub(crate) installed: Option<EntryId>,
    /// Durably marked as not what it should be.
    pub(crate) bad: bool,
    /// What a broken disk mixed into the hash of the rows.
    pub(crate) damage: u64,
}

impl Table {
    pub(crate) fn applied(&self) -> EntryId {
        self.rows.last().map_or(EntryId::ZERO, |entry| entry.id)
    }

    pub(crate) fn durable_applied(&self) -> EntryId {
        self.rows[..self.durable].last().map_or(EntryId::ZERO, |entry| entry.id)
    }

    /// Applies the next entry; false: a snapshot was ahead of it.
    pub(crate) fn apply(&mut self, entry: &Entry) -> bool {
        if entry.id.index <= self.applied().index {
            return false;
        }
        assert_eq!(
            entry.id.index,
            self.applied().index.next(),
            "entries are applied in order, none left out"
        );
        self.rows.push(entry.clone());
        true
    }

    /// A hash chained over all rows, as the replica's table has one.
    pub(crate) fn hash(&self) -> u64 {
        let ids = self.rows.iter().map(|entry| entry.id);
        ids.fold(self.damage, |hash, id| hash.wrapping_mul(31).wrapping_add(id.index.0 ^ id.term.0 << 32))
    }

    pub(crate) fn flush(&mut self) {
        self.durable = self.rows.len();
    }

    pub(crate) fn stage(&mut self, chunk: &Chunk) {
        if chunk.after.is_none() {
            self.staged.clear();
        }
        self.staged.extend(chunk.rows.iter().map(entry_of));
    }

    pub(crate) fn switch(&mut self, snapshot: EntryId) {
        self.rows = std::mem::take(&mut self.staged);
        for (entry, index) in self.rows.iter().zip(1..) {
            assert_eq!(entry.id.index.0, index, "a snapshot has all its rows, each once");
        }
        assert_eq!(self.applied(), snapshot, "a snapshot's rows name the snapshot");
        self.durable = self.rows.len();
        self.installed = Some(snapshot);
        (self.bad, self.damage) = (false, 0);
    }

    /// Makes the table an older one: without rows after `index`.
    pub(crate) fn forget_after(&mut self, index: Index) {
        self.rows.retain(|entry| entry.id.index <= index);
        self.flush();
        self.installed = None;
    }

    pub(crate) fn after_crash(mut self) -> Self {
        self.rows.truncate(self.durable);
        self.staged.clear();
        self
    }

    /// Rows 1 to `applied`, as if they had been applied and flushed long ago.
    pub(crate) fn fill(&mut self, rows: Vec<Entry>) {
        self.rows = rows;
        self.flush();
    }
}

pub(crate) fn row_of(entry: &Entry) -> Row {
    let value = base::codec::encode(entry);
    (Bytes::copy_from_slice(&entry.id.index.0.to_be_bytes()), value)
}

fn entry_of((_, value): &Row) -> Entry {
    base::codec::decode(value, 1 << 20).expect("a row of this table")
}

/// The rows of a table as of some moment.
#[derive(Clone)]
pub(crate) struct Rows(pub(crate) Vec<Entry>);

impl Read for Rows {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        assert_eq!(key, APPLIED_KEY, "nobody asks for others");
        let id = self.0.last()?.id;
        Some(base::codec::encode(&Applied { id, hash: 0 }))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let is_in = |(key, _): &Row| &key[..] >= start && end.is_none_or(|end| &key[..] < end);
        self.0.iter().map(row_of).filter(is_in).take(limit.rows).collect()
    }
}

/// What a save means for the log, checked hard: a hole or an overlap is the core's mistake.
pub(crate) fn keep(disk: &mut Restored, save: &Save) {
    if let Some(hard_state) = save.hard_state {
        assert!(hard_state.term >= disk.hard_state.term, "terms never fall");
        let voted = disk.hard_state.vote.filter(|_| hard_state.term == disk.hard_state.term);
        assert!(voted.is_none() || hard_state.vote == voted, "a vote is given once in a term");
        disk.hard_state = hard_state;
    }
    disk.promised = save.promised.unwrap_or(disk.promised);
    if let Some(from) = save.truncate_from {
        disk.entries.retain(|entry| entry.id.index < from);
    }
    disk.entries.extend(save.entries.iter().cloned());
    if let Some(marker) = save.marker {
        assert!(marker.index > disk.marker.index, "the compaction marker only rises");
        disk.entries.retain(|entry| entry.id.index > marker.index);
        disk.marker = marker;
    }
    for (entry, index) in disk.entries.iter().zip(disk.marker.index.0 + 1..) {
        assert_eq!(entry.id.index.0, index, "the saved log has neither holes nor overlaps");
    }
}

/// The log's last entry.
pub(crate) fn last(disk: &Restored) -> EntryId {
    disk.entries.last().map_or(disk.marker, |entry| entry.id)
}

/// The entry before `index`, as far as the saved log knows it.
pub(crate) fn id_before(disk: &Restored, index: Index) -> Option<EntryId> {
    let before = index.previous();
    let ids = disk.entries.iter().map(|entry| entry.id).chain([disk.marker]);
    ids.into_iter().find(|id| id.index == before)
}

/// The start rule of the replica: what the log and the table say must fit.
pub(crate) fn start_rule(disk: &mut Restored, applied: EntryId, installed: Option<EntryId>) {
    let known = disk.marker == applied || disk.entries.iter().any(|entry| entry.id == applied);
    if !known {
        let is_ahead = disk.promised > last(disk) && applied.index > disk.marker.index;
        assert!(is_ahead || installed == Some(applied), "the table is at an entry that the log holds");
        disk.entries.clear();
        disk.marker = applied;
    }
}
