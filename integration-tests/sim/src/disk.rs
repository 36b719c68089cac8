//! A disk that takes time. A synced write takes about 0.2 ms, half of it before it is durable and
//! half after, so that a crash can fall on either side. Some writes stall. Faults make the disk
//! slow for a while, or stall its next synced write for long.
//!
//! It wraps the memory storages of the product. Saves are mirrored in a [`Journal`], which checks
//! that a restart finds exactly what was saved, and which the invariants read. Damage and setting
//! back are done to both: a restart finds what was left.
//!
//! Its table can be slow, and the disk can report that it is nearly full.
//!
//! Left out on purpose: errors, because a disk error ends a process, and that is a crash. Also
//! bytes: the storage suite tests what flipped bits, zeros and cuts make of a log's files. Here the
//! log lacks saves, and knows what it promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use raft::storage::memory::{MemoryDisk, Past};
use raft::storage::{
    Batch, Change, Kept, Log, LogWriter, OpenError, Read, Restored, Row, Save, ScanLimit, Table,
};
use raft::types::{EntryId, HardState, Index, Payload, Term};
use rand::RngExt;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::{Generator, Label, Name, World, lock};
use crate::record::What;

/// A synced write takes up to this long before, and again after, the moment it is durable.
const HALF_MAX_NS: u64 = 200_000;
/// One write in this many stalls.
const STALL_ONE_IN: u32 = 2000;
/// The longest stall.
const STALL_MAX_MS: u64 = 300;
/// While the disk is slow, every fourth half takes up to this long.
const SLOW_MAX_US: u64 = 8000;
/// While the table is slow, it waits up to this long before each write.
const SLOW_TABLE_MAX_US: u64 = 20_000;

/// How a disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// A synced write takes 0.2 ms on average and sometimes stalls; faults can make it worse.
    Moody,
    /// A synced write takes 0.2 ms on average.
    Steady,
}

/// One saved entry, as far as invariants care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub term: Term,
    /// Hash of what it carries.
    pub payload: u64,
}

/// What a node's log durably holds.
#[derive(Debug, Default)]
pub struct Journal {
    /// Term and vote.
    pub hard_state: HardState,
    /// The compaction marker.
    pub marker: EntryId,
    /// The last entry that was acknowledged, if the log may lack it.
    pub promised: EntryId,
    /// The entries after it.
    pub entries: BTreeMap<Index, Saved>,
    /// Entries saved since the last look: id, term of the entry before, hash.
    pub fresh: Vec<(EntryId, Term, u64)>,
}

fn saved(id: EntryId, payload: &Payload) -> Saved {
    let payload = match payload {
        Payload::Empty => 0,
        Payload::Command(bytes) => xxh3_64(bytes) | 1,
    };
    Saved { term: id.term, payload }
}

impl Journal {
    /// Term of the entry at `index`; none if it is not there or was compacted.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.marker.index {
            return Some(self.marker.term);
        }
        self.entries.get(&index).map(|entry| entry.term)
    }

    fn save(&mut self, save: &Save) {
        self.hard_state = save.hard_state.unwrap_or(self.hard_state);
        self.promised = save.promised.unwrap_or(self.promised);
        if let Some(from) = save.truncate_from {
            self.entries.split_off(&from);
        }
        for entry in &save.entries {
            let before = entry.id.index.previous();
            // A snapshot and the entries after it may be saved at once.
            let marked = save.marker.filter(|marker| marker.index == before).map(|marker| marker.term);
            let before = marked.or_else(|| self.term(before)).unwrap_or_default();
            let record = saved(entry.id, &entry.payload);
            self.fresh.push((entry.id, before, record.payload));
            self.entries.insert(entry.id.index, record);
        }
        if let Some(marker) = save.marker {
            self.marker = marker;
            self.entries = self.entries.split_off(&marker.index.next());
        }
    }

    /// The disk was harmed: this is what is left.
    fn replace(&mut self, left: &Restored) {
        (self.hard_state, self.marker, self.promised) = (left.hard_state, left.marker, left.promised);
        self.entries = entries(left);
    }

    /// Checks that a restart found what was saved.
    fn agrees(&self, restored: &Restored) -> Result<(), String> {
        let found = entries(restored);
        let kept = (self.hard_state, self.marker, self.promised);
        if (restored.hard_state, restored.marker, restored.promised) != kept || found != self.entries {
            return Err(format!(
                "the log came back different: {:?} {:?} with {} entries, saved were {:?} {:?} with {}",
                restored.hard_state,
                restored.marker,
                found.len(),
                self.hard_state,
                self.marker,
                self.entries.len()
            ));
        }
        Ok(())
    }
}

fn entries(restored: &Restored) -> BTreeMap<Index, Saved> {
    restored.entries.iter().map(|entry| (entry.id.index, saved(entry.id, &entry.payload))).collect()
}

pub struct Disk {
    world: World,
    name: Name,
    memory: MemoryDisk,
    journal: Arc<Mutex<Journal>>,
    random: Arc<Mutex<Generator>>,
    temper: Temper,
    trouble: Arc<Mutex<Trouble>>,
    low: watch::Sender<bool>,
    /// Its table was damaged and has not been replaced since.
    damaged: Arc<AtomicBool>,
}

/// The troubles of a disk.
#[derive(Debug, Default)]
struct Trouble {
    slow: bool,
    slow_table: bool,
    /// Bytes that its table takes per second, and those that it took and has not waited for.
    table_speed: Option<(u64, u64)>,
    /// The stall of the next synced write.
    stall: Option<Duration>,
}

impl Disk {
    /// An empty disk.
    pub fn new(world: &World, name: &Name, temper: Temper) -> Self {
        let random = Arc::new(Mutex::new(world.generator(&format!("disk {name}"))));
        let memory = MemoryDisk::new();
        if temper == Temper::Moody {
            // (The other runs show what snapshots do.)
            let mut random = world.generator(&format!("log files of {name}"));
            memory.keep_for_others([0, 0, 8 << 10, 1 << 20][random.random_range(0..4)]);
        }
        Self {
            world: world.clone(),
            name: Arc::clone(name),
            memory,
            journal: Arc::default(),
            random,
            temper,
            trouble: Arc::default(),
            low: watch::Sender::new(false),
            damaged: Arc::default(),
        }
    }

    /// A copy of what is durable, as the disk of the node `name`.
    pub fn copied(&self, name: &Name) -> Self {
        let mut journal = Journal::default();
        journal.replace(&self.memory.restored());
        let copy = Self::new(&self.world, name, self.temper);
        Self { memory: self.memory.copied(None), journal: Arc::new(Mutex::new(journal)), ..copy }
    }

    /// Whether its table was damaged and not replaced since.
    pub fn damaged(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.damaged)
    }

    /// Changes one row of its table without the replica's knowledge; false: there is no such row.
    pub fn corrupt(&self, key: &[u8], change: impl Fn(&Bytes) -> Bytes) -> bool {
        let found = self.memory.corrupt_row(key, change);
        self.damaged.fetch_or(found, Ordering::Relaxed);
        found
    }

    /// Makes the disk slow, or well again.
    pub fn set_slow(&self, slow: bool) {
        lock(&self.trouble).slow = slow;
    }

    /// Makes the writes of its table slow, or fast again.
    pub fn set_slow_table(&self, slow: bool) {
        lock(&self.trouble).slow_table = slow;
    }

    /// Lets its table take only so many bytes per second, or as many as there are.
    pub fn set_table_speed(&self, bytes_per_second: Option<u64>) {
        lock(&self.trouble).table_speed = bytes_per_second.map(|speed| (speed, 0));
    }

    /// Makes the disk nearly full, or not.
    pub fn set_low(&self, low: bool) {
        self.low.send_replace(low);
    }

    /// Whether it is nearly full.
    pub fn low(&self) -> watch::Receiver<bool> {
        self.low.subscribe()
    }

    /// Stalls its next synced write.
    pub fn stall(&self, lasts: Duration) {
        lock(&self.trouble).stall = Some(lasts);
    }

    /// What its log holds.
    pub fn journal(&self) -> Arc<Mutex<Journal>> {
        Arc::clone(&self.journal)
    }

    pub fn open(&self) -> (Box<dyn Log>, Arc<dyn Table>) {
        let (log, table) = self.memory.open();
        let pace = Pace {
            world: self.world.clone(),
            name: Arc::clone(&self.name),
            random: Arc::clone(&self.random),
            temper: self.temper,
            trouble: Arc::clone(&self.trouble),
        };
        let log = SlowLog { inner: log, pace: pace.clone(), journal: self.journal() };
        (Box::new(log), Arc::new(SlowTable { inner: table, pace, damaged: self.damaged() }))
    }

    /// Bytes that the log keeps below its marker, and how many it may keep.
    pub fn kept(&self) -> (usize, usize) {
        self.memory.kept_bytes()
    }

    /// Bytes of the log and the hard state, and of the durable rows.
    pub fn bytes(&self) -> (usize, usize) {
        (self.memory.log_bytes(), self.memory.table_bytes())
    }

    /// Its log loses what the last saves wrote, and knows what it promised. The node is down.
    pub fn damage(&self, saves: usize) {
        self.memory.damage(saves);
        lock(&self.journal).replace(&self.memory.restored());
    }

    /// The durable state now.
    pub fn past(&self) -> Past {
        self.memory.past()
    }

    /// The disk returns to that older state and does not know it. The node is down.
    pub fn set_back(&self, past: Past) {
        self.memory.set_back(past);
        lock(&self.journal).replace(&self.memory.restored());
    }

    /// Loses everything that is not durable, and cuts off any task that still holds the stores.
    pub fn power_cut(&self) {
        self.memory.power_cut();
    }
}

/// How long writes take.
#[derive(Clone)]
struct Pace {
    world: World,
    name: Name,
    random: Arc<Mutex<Generator>>,
    temper: Temper,
    trouble: Arc<Mutex<Trouble>>,
}

impl Pace {
    async fn half(&self, kind: &'static str) {
        let delay = {
            let mut random = lock(&self.random);
            let stall = self.temper == Temper::Moody && random.random_range(0..STALL_ONE_IN) == 0;
            let mut delay = Duration::from_nanos(random.random_range(0..HALF_MAX_NS));
            if stall {
                delay += Duration::from_millis(random.random_range(0..STALL_MAX_MS));
            }
            let mut trouble = lock(&self.trouble);
            if trouble.slow && random.random_range(0..4) == 0 {
                delay += Duration::from_micros(random.random_range(0..SLOW_MAX_US));
            }
            delay + trouble.stall.take().unwrap_or_default()
        };
        self.world.pause(delay, Label::of(kind, &self.name)).await;
        self.world.record(Some(&self.name), None, || What::Saved { kind: kind.to_owned() });
    }
}

impl Pace {
    /// A slow table waits before a write.
    async fn table_write(&self) {
        let delay = match &mut lock(&self.trouble).table_speed {
            Some((speed, taken)) => Duration::from_micros(std::mem::take(taken) * 1_000_000 / *speed),
            None => Duration::from_micros(lock(&self.random).random_range(0..SLOW_TABLE_MAX_US)),
        };
        self.world.pause(delay, Label::of("table", &self.name)).await;
    }
}

struct SlowLog {
    inner: Box<dyn Log>,
    pace: Pace,
    journal: Arc<Mutex<Journal>>,
}

impl LogWriter for SlowLog {
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.pace.half("save").await;
            self.inner.save(save).await;
            lock(&self.journal).save(save);
            self.pace.half("saved").await;
        })
    }

    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }
}

impl Log for SlowLog {
    fn load(&mut self) -> Result<Restored, OpenError> {
        let restored = self.inner.load()?;
        if let Err(what) = lock(&self.journal).agrees(&restored) {
            self.pace.world.fail(format!("{}: {what}", self.pace.name));
        }
        Ok(restored)
    }

    fn kept(&self) -> Arc<dyn Kept> {
        self.inner.kept()
    }
}

/// Dropped when a damaged table is out of use.
struct Sound<'a>(&'a AtomicBool);

impl Drop for Sound<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct SlowTable {
    inner: Arc<dyn Table>,
    pace: Pace,
    damaged: Arc<AtomicBool>,
}

impl Read for SlowTable {
    fn get(&self, key: &[u8]) -> Option<bytes::Bytes> {
        self.inner.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        self.inner.scan(start, end, limit)
    }
}

impl Table for SlowTable {
    fn write(&self, batch: Batch) {
        if let Some((_, taken)) = &mut lock(&self.pace.trouble).table_speed {
            let bytes = |change: &Change| match change {
                Change::Put(key, value) => key.len() + value.len(),
                _ => 0,
            };
            *taken += batch.iter().map(bytes).sum::<usize>() as u64;
        }
        self.inner.write(batch);
    }

    fn ready(&self) -> Option<BoxFuture<'_, ()>> {
        let trouble = lock(&self.pace.trouble);
        let is_slow = trouble.slow_table || trouble.table_speed.is_some();
        is_slow.then(|| self.pace.table_write().boxed())
    }

    fn view(&self) -> Box<dyn Read> {
        self.inner.view()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.pace.half("flush").await;
            self.inner.flush().await;
            self.pace.half("flushed").await;
        })
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn durable_applied(&self) -> EntryId {
        self.inner.durable_applied()
    }

    fn installed(&self) -> Option<EntryId> {
        self.inner.installed()
    }

    fn mark_bad(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.pace.half("mark").await;
            self.inner.mark_bad().await;
            self.pace.half("marked").await;
        })
    }

    fn is_bad(&self) -> bool {
        self.inner.is_bad()
    }

    fn stage_start(&self) {
        self.inner.stage_start();
    }

    fn stage_drop(&self) {
        self.inner.stage_drop();
    }

    fn stage(&self, rows: Vec<Row>) {
        self.inner.stage(rows);
    }

    fn switch(&self, snapshot: EntryId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.pace.half("switch").await;
            self.inner.switch(snapshot).await;
            // Until this ends the replica's status still describes the old table. A crash ends it
            // as well.
            let _sound = Sound(&self.damaged);
            self.pace.half("switched").await;
        })
    }
}

#[cfg(test)]
mod tests {
    use raft::storage::Save;
    use raft::types::{Entry, EntryId, Index, Payload, Term};

    use super::Journal;

    #[test]
    fn an_entry_saved_with_the_snapshot_before_it_follows_that() {
        let entry = |term, index| Entry::new(EntryId::new(term, index), Payload::Empty);
        let mut journal = Journal::default();
        journal.save(&Save { entries: vec![entry(1, 1), entry(2, 2)], ..Save::default() });
        let (truncate_from, marker) = (Some(Index(1)), Some(EntryId::new(3, 30)));
        journal.save(&Save { truncate_from, entries: vec![entry(4, 31)], marker, ..Save::default() });
        let before: Vec<Term> = journal.fresh.iter().map(|(_, before, _)| *before).collect();
        assert_eq!(before, [Term(0), Term(1), Term(3)]);
        assert_eq!(journal.entries.keys().copied().collect::<Vec<_>>(), [Index(31)]);
    }
}
