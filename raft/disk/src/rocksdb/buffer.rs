//! Rows on their way into RocksDB, and rows used lately.
//!
//! Every command reads a row and writes two or three. In RocksDB each of these walks a skip list
//! that does not fit the processor's caches. A table owes no durability before a flush. So writes
//! wait here, in a hash map, until there are enough of them to go into RocksDB together in key
//! order. Neighbours then share most of the walk, and a row that changed often meanwhile (a
//! session's) goes once. While one of the table's threads writes them, the next ones gather.
//!
//! A row is looked up in the waiting rows, in the rows on their way, and then in *generations*:
//! maps of rows that were written or read, newest first. The oldest generation is forgotten when
//! there are too many bytes of them.
//!
//! Invariants:
//! * a row is as the first map that has it says, and as RocksDB has it if none does;
//! * what went into RocksDB is a prefix of the writes, because everything that waits goes at once,
//!   and later writes go after it.
//!
//! Left out on purpose: scans, which go to RocksDB once no row of their range waits here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ::rocksdb::WriteBatch;
use bytes::Bytes;
use foldhash::fast::RandomState;

use super::generations::row_key_into;
use raft::storage::{Batch, Change};

/// The cost of a row besides its bytes.
const OVERHEAD_BYTES: usize = 128;
/// The limit of generations: a row that is nowhere is looked up in each of them.
const GENERATIONS_MAX: usize = 8;

/// Rows by key; deleted ones have no value.
type Map = HashMap<Bytes, Option<Bytes>, RandomState>;

/// A row with the first bytes of its key: most comparisons then need no other memory.
pub(super) type SortedRow<'a> = (u64, &'a Bytes, &'a Option<Bytes>);

/// Rows, and their weight.
#[derive(Default)]
pub(super) struct Rows {
    map: Map,
    bytes: usize,
    /// The bytes of the large rows among them.
    large_bytes: usize,
    /// The key prefixes of rows that were written.
    prefixes: Prefixes,
}

/// The first three bytes of each key: usually its kind and part of its slot.
#[derive(Default)]
struct Prefixes {
    some: BTreeSet<[u8; 3]>,
    /// There are shorter keys.
    shorter: bool,
}

impl Prefixes {
    /// Adds the prefix of a key; none for a shorter key.
    fn add(&mut self, prefix: Option<[u8; 3]>) {
        match prefix {
            Some(prefix) => _ = self.some.insert(prefix),
            None => self.shorter = true,
        }
    }

    /// Whether there may be keys from `start` (inclusive) to `end` (exclusive).
    fn meet(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let mut from = [0; 3];
        let length = start.len().min(from.len());
        from[..length].copy_from_slice(&start[..length]);
        let first = self.some.range(from..).next();
        self.shorter || first.is_some_and(|prefix| end.is_none_or(|end| &prefix[..] < end))
    }
}

pub(super) struct Buffer {
    waiting: Rows,
    going: Option<Arc<Rows>>,
    /// Newest first. New ones are put into the first.
    generations: VecDeque<Arc<Rows>>,
    /// Rows that were read lately: newer than all generations.
    read: Rows,
    generations_bytes: usize,
    /// Rows are changing in RocksDB: reads from there are not remembered.
    is_aside: bool,
    /// Writes so far.
    writes: u64,
    /// Loads that RocksDB has taken so far.
    arrivals: u64,
    waiting_bytes_max: usize,
    cache_bytes: usize,
}

/// The buffer's knowledge of a row.
pub(super) enum Found {
    /// The row itself.
    Row(Option<Bytes>),
    /// Nothing; RocksDB has it, and its answer is valid as long as there were only this many
    /// writes.
    Elsewhere(u64),
}

/// Whether a row is too large to be worth keeping: its space would hold many others.
fn is_large(value: &[u8]) -> bool {
    value.len() > 4096
}

fn large_bytes(value: Option<&Bytes>) -> usize {
    value.filter(|value| is_large(value)).map_or(0, Bytes::len)
}

/// The first eight bytes, as a number that sorts as they do.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// Bytes that a row occupies.
fn weight(key: &Bytes, value: &Option<Bytes>) -> usize {
    OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)
}

impl Rows {
    /// Whether the row is new here.
    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> bool {
        let (key_bytes, added) = (key.len(), weight(&key, &value));
        self.bytes += added;
        self.large_bytes += large_bytes(value.as_ref());
        let Some(before) = self.map.insert(key, value) else { return true };
        self.large_bytes -= large_bytes(before.as_ref());
        self.bytes -= OVERHEAD_BYTES + key_bytes + before.map_or(0, |value| value.len());
        false
    }

    /// Sets a row that a scan may have to wait for.
    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        let prefix = key.first_chunk().copied();
        if self.set(key, value) {
            self.prefixes.add(prefix);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them in key order.
    pub(super) fn sorted(&self) -> Vec<SortedRow<'_>> {
        let mut rows: Vec<SortedRow<'_>> =
            self.map.iter().map(|(key, value)| (first_bytes(key), key, value)).collect();
        rows.sort_unstable_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        rows
    }

    /// All of them in key order, for RocksDB.
    pub(super) fn batch(&self, generation: u32) -> WriteBatch {
        let mut batch = WriteBatch::default();
        let mut place = Vec::new();
        for (_, key, value) in self.sorted() {
            row_key_into(&mut place, generation, key);
            match value {
                Some(value) => batch.put(&place, value),
                None => batch.delete(&place),
            }
        }
        batch
    }
}

impl Buffer {
    /// An empty buffer that begins to send rows to RocksDB when about `waiting_bytes_max` wait, and
    /// keeps about `cache_bytes` of written or read rows.
    pub(super) fn new(waiting_bytes_max: usize, cache_bytes: usize) -> Self {
        Self {
            waiting: Rows::default(),
            going: None,
            generations: VecDeque::new(),
            read: Rows::default(),
            generations_bytes: 0,
            is_aside: false,
            writes: 0,
            arrivals: 0,
            waiting_bytes_max,
            cache_bytes,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Found {
        let first = [Some(&self.waiting), self.going.as_deref(), Some(&self.read)];
        let maps = first.into_iter().flatten().chain(self.generations.iter().map(|rows| &**rows));
        for rows in maps.filter(|rows| !rows.map.is_empty()) {
            if let Some(value) = rows.map.get(key) {
                return Found::Row(value.clone());
            }
        }
        Found::Elsewhere(self.writes)
    }

    /// Remembers a row that RocksDB had after `writes` writes, unless it may have changed.
    pub(super) fn read(&mut self, key: &[u8], value: &Bytes, writes: u64) {
        if self.writes == writes && !self.is_aside && !is_large(value) {
            self.read.set(Bytes::copy_from_slice(key), Some(value.clone()));
            self.age_if_many();
        }
    }

    /// Applies changes of rows.
    pub(super) fn write(&mut self, batch: Batch) {
        self.writes += 1;
        for change in batch {
            match change {
                Change::Put(key, value) => self.waiting.write(key, Some(value)),
                Change::Delete(key) => self.waiting.write(key, None),
                Change::DeleteRange(..) => unreachable!("those go past the buffer"),
            }
        }
    }

    /// Whether RocksDB may lack a row from `start` to before `end`.
    pub(super) fn holds_back(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let mut late = [Some(&self.waiting), self.going.as_deref()].into_iter().flatten();
        late.any(|rows| rows.prefixes.meet(start, end))
    }

    /// Whether enough rows wait to be sent to RocksDB.
    pub(super) fn is_full(&self) -> bool {
        self.holds(self.waiting_bytes_max)
    }

    /// Whether so many rows wait that the ones before must arrive first.
    pub(super) fn is_crowded(&self) -> bool {
        self.holds(2 * self.waiting_bytes_max)
    }

    /// Large rows gain little by waiting, and use the memory of many small ones: half as many of
    /// their bytes are enough.
    fn holds(&self, bytes: usize) -> bool {
        self.waiting.bytes >= bytes || self.waiting.large_bytes >= bytes / 2
    }

    /// Loads that RocksDB has taken so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// The number of loads after which everything written so far has arrived.
    pub(super) fn loads(&self) -> u64 {
        u64::from(self.going.is_some()) + u64::from(!self.waiting.map.is_empty())
    }

    /// Whether rows are on their way.
    pub(super) fn is_going(&self) -> bool {
        self.going.is_some()
    }

    /// Everything that waits, to be written to RocksDB; none if nothing does. These rows are on
    /// their way until [`Self::arrived`].
    ///
    /// # Panics
    /// When others are on their way.
    pub(super) fn send_off(&mut self) -> Option<Arc<Rows>> {
        assert!(self.going.is_none(), "one batch after the other");
        if self.waiting.map.is_empty() {
            return None;
        }
        // As much room as was needed this time.
        let room = Map::with_capacity_and_hasher(self.waiting.map.len(), RandomState::default());
        let gone = std::mem::replace(&mut self.waiting, Rows { map: room, ..Rows::default() });
        self.going = Some(Arc::new(gone));
        self.going.clone()
    }

    /// The rows on their way are in RocksDB now. Returns what was forgotten to make room: freeing
    /// that takes time.
    pub(super) fn arrived(&mut self) -> Vec<Arc<Rows>> {
        let Some(rows) = self.going.take() else { return Vec::new() };
        self.arrivals += 1;
        // Rows that were read are older than the ones that arrived.
        if rows.bytes < self.waiting_bytes_max / 8 {
            // Too few for a separate generation: a scan was in a hurry.
            for (key, value) in &rows.map {
                self.read.set(key.clone(), value.clone());
            }
            return self.age_if_many();
        }
        let mut forgotten = self.age();
        if rows.large_bytes > rows.bytes / 2 {
            // Older generations no longer count for these rows.
            forgotten.extend(self.generations.drain(..));
            self.generations_bytes = 0;
            forgotten.push(rows);
        } else {
            forgotten.extend(self.keep(rows));
        }
        forgotten
    }

    /// Makes the read rows a generation once they are a quarter of what is kept.
    fn age_if_many(&mut self) -> Vec<Arc<Rows>> {
        if self.read.bytes > self.cache_bytes / 4 { self.age() } else { Vec::new() }
    }

    /// Makes the read rows a generation.
    fn age(&mut self) -> Vec<Arc<Rows>> {
        let read = std::mem::take(&mut self.read);
        if read.map.is_empty() { Vec::new() } else { self.keep(Arc::new(read)) }
    }

    fn keep(&mut self, rows: Arc<Rows>) -> Vec<Arc<Rows>> {
        let mut forgotten = Vec::new();
        self.generations_bytes += rows.bytes;
        self.generations.push_front(rows);
        while self.generations_bytes > self.cache_bytes || self.generations.len() > GENERATIONS_MAX {
            let Some(oldest) = self.generations.pop_back() else { break };
            self.generations_bytes -= oldest.bytes;
            forgotten.push(oldest);
        }
        forgotten
    }

    fn forget(&mut self) {
        self.generations.clear();
        self.generations_bytes = 0;
        self.read = Rows::default();
    }

    /// A range of keys is about to be deleted in RocksDB: all reads go there until [`Self::clear`].
    pub(super) fn step_aside(&mut self) {
        assert!(self.waiting.map.is_empty() && self.going.is_none(), "what waits is not forgotten");
        self.is_aside = true;
        self.forget();
    }

    /// A range of keys was deleted in RocksDB, or the table has another generation: forgets
    /// everything.
    pub(super) fn clear(&mut self) {
        assert!(self.waiting.map.is_empty() && self.going.is_none(), "what waits is not forgotten");
        self.writes += 1;
        self.is_aside = false;
        self.forget();
    }
}

#[cfg(test)]
mod tests;
