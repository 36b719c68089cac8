//! Rows on their way into RocksDB, and rows used lately.
//!
//! Every command reads a row and writes two or three; in RocksDB each of these is a walk through a skip list
//! that does not fit the processor's caches. A table owes no durability before a flush, so writes wait here, in
//! a hash map, until there are enough of them to go into RocksDB as one batch in key order: neighbours then
//! share most of their way, and a row that changed often meanwhile (a session's) goes once. Rows that went, and
//! rows that were read, stay for a while.
//!
//! Held at all times:
//! * what is here is newer than RocksDB or equal to it; rows that are not here are as RocksDB has them;
//! * what went into RocksDB is a prefix of the writes, for everything that waits goes in one batch.
//!
//! Rows used lately lie in two generations: when the younger is full, it becomes the older one and whatever was
//! not used meanwhile is forgotten. Left out on purpose: scans, which go to RocksDB once nothing waits here.

use std::collections::HashMap;

use ::rocksdb::WriteBatch;
use bytes::Bytes;

use super::table::row_key;
use crate::storage::{Batch, Change};

/// What a row costs beside its bytes.
const OVERHEAD_BYTES: usize = 128;

/// A row; deleted ones have no value.
struct Slot {
    value: Option<Bytes>,
    waits: bool,
}

pub(super) struct Buffer {
    young: HashMap<Bytes, Slot>,
    /// Nothing in it waits.
    old: HashMap<Bytes, Slot>,
    /// Keys of the rows that wait.
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    young_bytes: usize,
    /// Writes so far.
    writes: u64,
    waiting_bytes_max: usize,
    young_bytes_max: usize,
}

/// What the buffer knows of a row.
pub(super) enum Found {
    /// All of it.
    Row(Option<Bytes>),
    /// Nothing; RocksDB has it, and may be believed as long as this many writes were made.
    Elsewhere(u64),
}

/// Whether a row is too large to be worth keeping: copying it costs more than finding it.
fn is_large(value: Option<&Bytes>) -> bool {
    value.is_some_and(|value| value.len() > 4096)
}

/// The first eight bytes, as a number that sorts as they do.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

fn weight(key: &Bytes, value: Option<&Bytes>) -> usize {
    OVERHEAD_BYTES + key.len() + value.map_or(0, Bytes::len)
}

impl Buffer {
    /// An empty buffer that holds back at most about `waiting_bytes_max`, and about `cache_bytes` in all.
    pub(super) fn new(waiting_bytes_max: usize, cache_bytes: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            young_bytes: 0,
            writes: 0,
            waiting_bytes_max,
            young_bytes_max: cache_bytes / 2,
        }
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Found {
        if let Some(slot) = self.young.get(key) {
            return Found::Row(slot.value.clone());
        }
        match self.old.remove_entry(key) {
            Some((key, slot)) => {
                self.keep(key, slot.value.clone());
                Found::Row(slot.value)
            }
            None => Found::Elsewhere(self.writes),
        }
    }

    /// Remembers a row that RocksDB had when `writes` writes were made, unless it may have changed.
    pub(super) fn read(&mut self, key: &[u8], value: &Bytes, writes: u64) {
        if self.writes == writes && !is_large(Some(value)) && !self.young.contains_key(key) {
            self.keep(Bytes::copy_from_slice(key), Some(value.clone()));
        }
    }

    fn keep(&mut self, key: Bytes, value: Option<Bytes>) {
        self.young_bytes += weight(&key, value.as_ref());
        self.young.insert(key, Slot { value, waits: false });
        self.age();
    }

    /// Forgets what was not used for long, and nothing that waits.
    fn age(&mut self) {
        if self.young_bytes <= self.young_bytes_max {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        self.young_bytes = self.waiting_bytes;
        for key in &self.waiting {
            self.young.extend(self.old.remove_entry(key));
        }
    }

    /// Takes in a batch. What it returns is to be written to RocksDB at once, before anything else.
    pub(super) fn write(&mut self, batch: Batch, generation: u32) -> Option<WriteBatch> {
        self.writes += 1;
        if batch.iter().any(|change| matches!(change, Change::DeleteRange(..))) {
            let mut rows = self.drain(generation).unwrap_or_default();
            batch.into_iter().for_each(|change| add(&mut rows, generation, change));
            self.clear();
            return Some(rows);
        }
        for change in batch {
            match change {
                Change::Put(key, value) => self.set(key, Some(value)),
                Change::Delete(key) => self.set(key, None),
                Change::DeleteRange(..) => unreachable!("looked for above"),
            }
        }
        if self.waiting_bytes < self.waiting_bytes_max {
            return None;
        }
        self.drain(generation)
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let weight_now = weight(&key, value.as_ref());
        self.old.remove(&key);
        self.young_bytes += weight_now;
        self.waiting_bytes += weight_now;
        match self.young.get_mut(&key) {
            Some(slot) => {
                let before = weight(&key, slot.value.as_ref());
                self.young_bytes -= before;
                match slot.waits {
                    true => self.waiting_bytes -= before,
                    false => self.waiting.push(key),
                }
                *slot = Slot { value, waits: true };
            }
            None => {
                self.waiting.push(key.clone());
                self.young.insert(key, Slot { value, waits: true });
            }
        }
    }

    /// Everything that waits, in key order; none if nothing does.
    pub(super) fn drain(&mut self, generation: u32) -> Option<WriteBatch> {
        if self.waiting.is_empty() {
            return None;
        }
        self.waiting_bytes = 0;
        // The first bytes beside each key: most comparisons then need not look elsewhere in memory.
        let mut keys: Vec<(u64, Bytes)> =
            self.waiting.drain(..).map(|key| (first_bytes(&key), key)).collect();
        keys.sort_unstable();
        let mut rows = WriteBatch::default();
        for (_, key) in keys {
            let slot = self.young.get_mut(&key).expect("a row that waits is young");
            slot.waits = false;
            match &slot.value {
                Some(value) => rows.put(row_key(generation, &key), value),
                None => rows.delete(row_key(generation, &key)),
            }
            if is_large(slot.value.as_ref()) {
                self.young_bytes -= weight(&key, slot.value.as_ref());
                self.young.remove(&key);
            }
        }
        self.age();
        Some(rows)
    }

    /// Forgets everything that does not wait.
    pub(super) fn clear(&mut self) {
        assert!(self.waiting.is_empty(), "what waits is not forgotten");
        self.young.clear();
        self.old.clear();
        self.young_bytes = 0;
    }
}

fn add(rows: &mut WriteBatch, generation: u32, change: Change) {
    match change {
        Change::Put(key, value) => rows.put(row_key(generation, &key), value),
        Change::Delete(key) => rows.delete(row_key(generation, &key)),
        Change::DeleteRange(start, end) if start < end => {
            rows.delete_range(row_key(generation, &start), row_key(generation, &end));
        }
        Change::DeleteRange(..) => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Buffer, Found};
    use crate::storage::Change;

    fn put(key: &'static str, value: &'static str) -> Change {
        Change::Put(Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    fn row(buffer: &mut Buffer, key: &str) -> Option<Option<Bytes>> {
        match buffer.get(key.as_bytes()) {
            Found::Row(value) => Some(value),
            Found::Elsewhere(_) => None,
        }
    }

    #[test]
    fn a_row_that_changed_often_goes_once_and_what_went_is_still_known() {
        let mut buffer = Buffer::new(1 << 20, 1 << 20);
        for value in ["1", "2", "3"] {
            assert!(buffer.write(vec![put("b", value), put("a", value)], 1).is_none());
        }
        assert_eq!(buffer.drain(1).map(|rows| rows.len()), Some(2));
        assert!(buffer.drain(1).is_none());
        assert_eq!(row(&mut buffer, "a"), Some(Some("3".into())));
        buffer.write(vec![Change::Delete("a".into())], 1);
        assert_eq!(row(&mut buffer, "a"), Some(None), "a deleted row is not looked for elsewhere");
        assert_eq!(row(&mut buffer, "c"), None);
    }

    #[test]
    fn a_full_buffer_and_a_deleted_range_go_at_once() {
        let mut buffer = Buffer::new(200, 1 << 20);
        assert!(buffer.write(vec![put("a", "1")], 1).is_none());
        assert_eq!(buffer.write(vec![put("b", "1")], 1).map(|rows| rows.len()), Some(2));
        buffer.write(vec![put("c", "1")], 1);
        let range = Change::DeleteRange("a".into(), "b".into());
        assert_eq!(buffer.write(vec![range, put("d", "1")], 1).map(|rows| rows.len()), Some(3));
        assert_eq!(row(&mut buffer, "a"), None, "RocksDB knows better now");
    }

    #[test]
    fn a_large_row_is_not_kept_once_it_went() {
        let mut buffer = Buffer::new(1 << 20, 1 << 20);
        let large = Bytes::from(vec![0; 5000]);
        buffer.write(vec![Change::Put("a".into(), large.clone()), put("b", "1")], 1);
        assert_eq!(row(&mut buffer, "a"), Some(Some(large.clone())), "it waits");
        assert_eq!(buffer.drain(1).map(|rows| rows.len()), Some(2));
        let Found::Elsewhere(writes) = buffer.get(b"a") else { panic!("kept") };
        buffer.read(b"a", &large, writes);
        assert_eq!(row(&mut buffer, "a"), None);
        assert_eq!(row(&mut buffer, "b"), Some(Some("1".into())));
    }

    #[test]
    fn what_was_read_before_a_write_is_not_believed() {
        let mut buffer = Buffer::new(1 << 20, 1 << 20);
        let Found::Elsewhere(writes) = buffer.get(b"a") else { panic!("empty") };
        buffer.write(vec![put("b", "1")], 1);
        buffer.read(b"a", &"stale, perhaps".into(), writes);
        assert_eq!(row(&mut buffer, "a"), None);
        let Found::Elsewhere(writes) = buffer.get(b"a") else { panic!("not kept") };
        buffer.read(b"a", &"fresh".into(), writes);
        assert_eq!(row(&mut buffer, "a"), Some(Some("fresh".into())));
    }

    #[test]
    fn what_is_not_used_is_forgotten_and_what_waits_never_is() {
        let mut buffer = Buffer::new(1 << 20, 4000);
        buffer.write(vec![put("waits", "1")], 1);
        for number in 0..100_u32 {
            let Found::Elsewhere(writes) = buffer.get(&number.to_be_bytes()) else { panic!("never read") };
            buffer.read(&number.to_be_bytes(), &"v".into(), writes);
        }
        assert_eq!(row(&mut buffer, "waits"), Some(Some("1".into())));
        buffer.drain(1);
        for number in 100..200_u32 {
            let Found::Elsewhere(writes) = buffer.get(&number.to_be_bytes()) else { panic!("never read") };
            buffer.read(&number.to_be_bytes(), &"v".into(), writes);
        }
        assert_eq!(row(&mut buffer, "waits"), None);
        let known = buffer.young.len() + buffer.old.len();
        assert!((10..40).contains(&known), "{known} rows of about 130 bytes fit 4,000");
    }
}
