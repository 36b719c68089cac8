//! What the log in memory keeps below its marker (correctness rule 79), while it is open.

use std::collections::VecDeque;

use super::{Handle, MemoryDisk};
use crate::storage::{Kept, NothingKept, Run};
use crate::types::{Entry, EntryId, Index};

/// Entries up to the marker, without a gap.
#[derive(Debug, Default)]
pub(super) struct Archive {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    wanted: Option<Index>,
}

impl MemoryDisk {
    /// From its next opening on its log keeps this many bytes below the marker for lagging members.
    /// At first: none.
    pub fn keep_for_others(&self, bytes_max: usize) {
        self.lock().archive.bytes_max = bytes_max;
    }

    /// How many bytes it keeps there, and how many it may keep.
    pub fn kept_bytes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.archive.bytes, inner.archive.bytes_max)
    }
}

impl Archive {
    /// The log is opened anew.
    pub(super) fn clear(&mut self) {
        *self = Self { bytes_max: self.bytes_max, ..Self::default() };
    }

    /// These entries went below the marker.
    pub(super) fn add(&mut self, compacted: &[Entry], marker: EntryId) {
        self.entries.extend(compacted.iter().cloned());
        self.bytes += compacted.iter().map(Entry::weight).sum::<usize>();
        if self.entries.back().is_some_and(|last| last.id != marker) {
            // A snapshot is beyond them.
            self.clear();
        }
        let wanted = self.wanted.unwrap_or(Index::NEVER);
        while self.entries.front().is_some_and(|first| first.id.index < wanted || self.bytes > self.bytes_max)
        {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.weight());
        }
    }

    fn position(&self, index: Index) -> Option<usize> {
        let first = self.entries.front()?.id.index;
        let at = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    fn read(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run> {
        let before = match prev {
            Index(0) => EntryId::ZERO,
            _ => self.entries[self.position(prev)?].id,
        };
        let from = self.position(prev.next())?;
        let entries: Vec<Entry> =
            self.entries.range(from..).take_while(|entry| entry.id.index <= to).cloned().collect();
        Run::cut(before, &entries, bytes_max)
    }
}

impl Kept for Handle {
    fn keep_from(&self, from: Index) {
        self.change(|inner| inner.archive.wanted = Some(from));
    }

    fn bytes_max(&self) -> u64 {
        match self.disk.lock().archive.bytes_max {
            0 => NothingKept.bytes_max(),
            bytes => bytes as u64,
        }
    }

    fn first(&self) -> Index {
        let inner = self.disk.lock();
        let kept = inner.archive.entries.front().map(|entry| entry.id.index);
        if inner.life == self.life {
            kept.unwrap_or(inner.restored.marker.index.next())
        } else {
            Index::NEVER
        }
    }

    fn read(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run> {
        let inner = self.disk.lock();
        (inner.life == self.life).then(|| inner.archive.read(prev, to, bytes_max)).flatten()
    }
}
