//! Both stores in memory, with an explicit line between durable and volatile, so that a simulated
//! power cut loses exactly what was not made durable.
//!
//! A [`MemoryDisk`] survives the replica that opened it. Opening it again, or cutting its power,
//! detaches older handles: writes of a zombie go nowhere. A [`DiskHook`] is called before and after
//! the moment at which something becomes durable, so that a test can delay or kill on either side
//! of it.
//!
//! Left out on purpose: errors (they end a process, which is a kill), and rows that become durable
//! on their own: a real table may have flushed more than it was asked to.

mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    Batch, Change, Kept, Log, LogWriter, OpenError, Read, Restored, Row, Save, ScanLimit, Stores, Table,
    applied,
};
use crate::types::{Entry, EntryId, HardState, Index};
use kept::Archive;

type RowMap = Arc<BTreeMap<Bytes, Bytes>>;

/// One generation of a table.
#[derive(Clone, Debug, Default)]
struct Generation {
    rows: RowMap,
    installed: Option<EntryId>,
    bad: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts openings and power cuts: handles of an earlier life are detached.
    life: u64,
    restored: Restored,
    /// How the last saves are undone, the newest last.
    undo: VecDeque<Undo>,
    live: Generation,
    durable: Generation,
    staged: BTreeMap<Bytes, Bytes>,
    archive: Archive,
}

/// What a save removed or replaced.
#[derive(Debug)]
struct Undo {
    hard_state: HardState,
    marker: EntryId,
    promised: EntryId,
    /// The last entries that it left unchanged are before this position of the log.
    kept: usize,
    /// Entries that it dropped, or moved below the marker, and those it appended.
    truncated: Vec<Entry>,
    compacted: Vec<Entry>,
}

/// Saves that can be undone.
const UNDO_MAX: usize = 64;

/// An earlier state of a disk: its log and its durable table.
#[derive(Clone, Debug)]
pub struct Past {
    restored: Restored,
    durable: Generation,
}

/// A point in a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskStep {
    /// A save begins; nothing of it is durable.
    Save,
    /// A save is durable, but the caller does not know yet.
    Saved,
    /// A flush begins.
    Flush,
    /// A flush is durable, but the caller does not know yet.
    Flushed,
    /// A switch begins; the old generation is the durable one.
    Switch,
    /// The new generation is the durable one, but the caller does not know yet.
    Switched,
}

/// Delays a write at a step.
pub trait DiskHook: Send + Sync {
    /// The write continues when the future completes.
    fn before(&self, step: DiskStep) -> BoxFuture<'static, ()>;
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    hook: Option<Box<dyn DiskHook>>,
}

/// A disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Shared>);

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk whose writes `hook` may hold up.
    pub fn with_hook(hook: Box<dyn DiskHook>) -> Self {
        Self(Arc::new(Shared { hook: Some(hook), ..Shared::default() }))
    }

    /// Opens both stores, as a start after a crash would: what was not durable is gone.
    pub fn open(&self) -> Stores {
        self.power_cut();
        let life = self.lock().life;
        let handle = Handle { disk: self.clone(), life };
        (Box::new(MemoryLog { handle: handle.clone(), syncs: 0 }), Arc::new(MemoryTable { handle }))
    }

    /// Loses what is not durable, and detaches all handles.
    pub fn power_cut(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.live = inner.durable.clone();
        inner.staged.clear();
        inner.archive.clear();
    }

    /// Another disk with what is durable on this one, like a data directory that was copied while its server was down.
    #[must_use]
    pub fn copied(&self, hook: Option<Box<dyn DiskHook>>) -> Self {
        let inner = self.lock();
        let (live, durable) = (inner.durable.clone(), inner.durable.clone());
        let copy = Inner { restored: inner.restored.clone(), live, durable, ..Inner::default() };
        Self(Arc::new(Shared { inner: Mutex::new(copy), hook }))
    }

    /// The log loses what its last `saves` saves wrote (of the last 64), except what the mark keeps
    /// of them: term and vote, and the id of the last entry (correctness rules 61, 62). Handles are
    /// detached.
    pub fn damage(&self, saves: usize) {
        let mut inner = self.lock();
        inner.life += 1;
        let Restored { hard_state, promised, .. } = inner.restored;
        let promised = promised.max(last(&inner.restored));
        for _ in 0..saves {
            let Some(undo) = inner.undo.pop_back() else { break };
            undo.apply(&mut inner.restored);
        }
        inner.restored.hard_state = hard_state;
        base::mutant!("marks-vote-ignored", inner.restored.hard_state.vote = None);
        inner.restored.promised = promised;
        inner.undo.clear();
    }

    /// What is durable now.
    pub fn past(&self) -> Past {
        let inner = self.lock();
        Past { restored: inner.restored.clone(), durable: inner.durable.clone() }
    }

    /// Sets the disk back to what was durable then, without a trace. Handles are detached.
    pub fn set_back(&self, past: Past) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.restored = past.restored;
        inner.live = past.durable.clone();
        inner.durable = past.durable;
        inner.staged.clear();
        inner.undo.clear();
    }

    /// Bytes of the log and the hard state ("persisted raft state" of the labs).
    pub fn log_bytes(&self) -> usize {
        const HARD_STATE_BYTES: usize = 16;
        HARD_STATE_BYTES + self.lock().restored.entries.iter().map(Entry::weight).sum::<usize>()
    }

    /// Bytes of the durable rows ("snapshot" of the labs).
    pub fn table_bytes(&self) -> usize {
        self.lock().durable.rows.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// What a restart would find in the log.
    pub fn restored(&self) -> Restored {
        self.lock().restored.clone()
    }

    /// Changes a row without the knowledge of the table's user, as a disk might; false: there is no
    /// such row. Everything applied becomes durable first: otherwise a crash would undo the damage
    /// along with rows that are not durable.
    pub fn corrupt_row(&self, key: &[u8], change: impl Fn(&Bytes) -> Bytes) -> bool {
        let mut inner = self.lock();
        let Some(value) = Arc::make_mut(&mut inner.live.rows).get_mut(key) else { return false };
        *value = change(value);
        inner.durable = inner.live.clone();
        true
    }

    /// The live rows.
    pub fn rows(&self) -> Vec<Row> {
        self.lock().live.rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
struct Handle {
    disk: MemoryDisk,
    life: u64,
}

impl Handle {
    /// Changes the disk, unless this handle belongs to an earlier life.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.disk.lock();
        if inner.life == self.life {
            change(&mut inner);
        }
    }

    async fn before(&self, step: DiskStep) {
        if let Some(hook) = &self.disk.0.hook {
            hook.before(step).await;
        }
    }
}

struct MemoryLog {
    handle: Handle,
    syncs: u64,
}

impl LogWriter for MemoryLog {
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        async {
            self.handle.before(DiskStep::Save).await;
            self.handle.change(|inner| {
                let undo = keep(&mut inner.restored, save);
                if let Some(marker) = save.marker {
                    inner.archive.add(&undo.compacted, marker);
                }
                inner.undo.push_back(undo);
                if inner.undo.len() > UNDO_MAX {
                    inner.undo.pop_front();
                }
            });
            self.syncs += 1;
            self.handle.before(DiskStep::Saved).await;
        }
        .boxed()
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }
}

impl Log for MemoryLog {
    fn load(&mut self) -> Result<Restored, OpenError> {
        Ok(self.handle.disk.restored())
    }

    fn kept(&self) -> Arc<dyn Kept> {
        Arc::new(self.handle.clone())
    }
}

fn last(restored: &Restored) -> EntryId {
    restored.entries.last().map_or(restored.marker, |entry| entry.id)
}

/// Makes `save` part of the log; returns how to undo it.
fn keep(restored: &mut Restored, save: &Save) -> Undo {
    let Restored { hard_state, marker, promised, .. } = *restored;
    restored.hard_state = save.hard_state.unwrap_or(hard_state);
    restored.promised = save.promised.unwrap_or(promised);
    let entries = &mut restored.entries;
    let position =
        |index: Index| usize::try_from(index.0.saturating_sub(marker.index.0 + 1)).unwrap_or(usize::MAX);
    let kept = save.truncate_from.map_or(usize::MAX, position).min(entries.len());
    let truncated = entries.split_off(kept);
    entries.extend(save.entries.iter().cloned());
    let mut compacted = Vec::new();
    if let Some(marker) = save.marker {
        let covered = entries.partition_point(|entry| entry.id.index <= marker.index);
        compacted = entries.drain(..covered).collect();
        restored.marker = marker;
    }
    assert_eq!(
        last(restored).index.0,
        restored.marker.index.0 + restored.entries.len() as u64,
        "a log without gaps was asked to keep one"
    );
    Undo { hard_state, marker, promised, kept, truncated, compacted }
}

impl Undo {
    fn apply(self, restored: &mut Restored) {
        let Self { hard_state, marker, promised, kept, truncated, compacted } = self;
        restored.entries.splice(0..0, compacted);
        restored.entries.truncate(kept);
        restored.entries.extend(truncated);
        (restored.hard_state, restored.marker, restored.promised) = (hard_state, marker, promised);
    }
}

/// Rows of a moment.
struct View(RowMap);

fn scan_rows(rows: &BTreeMap<Bytes, Bytes>, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
    if end.is_some_and(|end| end <= start) {
        return Vec::new();
    }
    let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = Vec::new();
    let mut bytes = 0;
    for (key, value) in rows.range::<[u8], _>((Bound::Included(start), upper)) {
        bytes += key.len() + value.len();
        found.push((key.clone(), value.clone()));
        if found.len() >= limit.rows || bytes >= limit.bytes {
            break;
        }
    }
    found
}

impl Read for View {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        scan_rows(&self.0, start, end, limit)
    }
}

struct MemoryTable {
    handle: Handle,
}

impl MemoryTable {
    fn rows(&self) -> RowMap {
        Arc::clone(&self.handle.disk.lock().live.rows)
    }
}

impl Read for MemoryTable {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.handle.disk.lock().live.rows.get(key).cloned()
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        scan_rows(&self.rows(), start, end, limit)
    }
}

impl Table for MemoryTable {
    fn write(&self, batch: Batch) {
        self.handle.change(|inner| {
            let rows = Arc::make_mut(&mut inner.live.rows);
            for change in batch {
                match change {
                    Change::Put(key, value) => {
                        rows.insert(key, value);
                    }
                    Change::Delete(key) => {
                        rows.remove(&key);
                    }
                    Change::DeleteRange(start, end) => rows.retain(|key, _| *key < start || *key >= end),
                }
            }
        });
    }

    fn view(&self) -> Box<dyn Read> {
        Box::new(View(self.rows()))
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            self.handle.before(DiskStep::Flush).await;
            self.handle.change(|inner| inner.durable = inner.live.clone());
            self.handle.before(DiskStep::Flushed).await;
        }
        .boxed()
    }

    fn bytes(&self) -> u64 {
        self.rows().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn durable_applied(&self) -> EntryId {
        let rows = Arc::clone(&self.handle.disk.lock().durable.rows);
        applied(&View(rows)).id
    }

    fn installed(&self) -> Option<EntryId> {
        self.handle.disk.lock().live.installed
    }

    fn mark_bad(&self) -> BoxFuture<'_, ()> {
        async {
            self.handle.before(DiskStep::Flush).await;
            // The durable rows are the same generation's: a switch makes both one.
            self.handle.change(|inner| (inner.live.bad, inner.durable.bad) = (true, true));
            self.handle.before(DiskStep::Flushed).await;
        }
        .boxed()
    }

    fn is_bad(&self) -> bool {
        self.handle.disk.lock().live.bad
    }

    fn stage_start(&self) {
        self.handle.change(|inner| inner.staged.clear());
    }

    fn stage_drop(&self) {
        self.handle.change(|inner| inner.staged.clear());
    }

    fn stage(&self, rows: Vec<Row>) {
        self.handle.change(|inner| inner.staged.extend(rows));
    }

    fn switch(&self, snapshot: EntryId) -> BoxFuture<'_, ()> {
        async move {
            self.handle.before(DiskStep::Switch).await;
            self.handle.change(|inner| {
                let rows = Arc::new(std::mem::take(&mut inner.staged));
                inner.live = Generation { rows, installed: Some(snapshot), bad: false };
                inner.durable = inner.live.clone();
            });
            self.handle.before(DiskStep::Switched).await;
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
