//! What the files of a log hold of entries below its marker, while it is open.

use std::collections::BTreeMap;

use raft::storage::{Run, Save};
use raft::types::{Entry, EntryId, Index};

#[derive(Default)]
pub(crate) struct Files {
    entries: BTreeMap<Index, Entry>,
}

impl Files {
    /// As they are when the log is opened.
    pub(crate) fn of(entries: &[Entry]) -> Self {
        Self { entries: entries.iter().map(|entry| (entry.id.index, entry.clone())).collect() }
    }

    /// `save` was kept. At or below the marker stay the wanted entries, the newest `most` of them.
    pub(crate) fn save(&mut self, save: &Save, marker: EntryId, wanted: Index, most: usize) {
        if let Some(from) = save.truncate_from {
            self.entries.split_off(&from);
        }
        let is_over = |(last, _): (&Index, &Entry)| *last < marker.index;
        if self.entries.last_key_value().is_none_or(is_over) && save.marker == Some(marker) {
            let reaches = save.entries.first().is_some_and(|first| first.id.index <= marker.index);
            if !reaches {
                self.entries.clear();
            }
        }
        self.entries.extend(save.entries.iter().map(|entry| (entry.id.index, entry.clone())));
        let below = self.entries.range(..=marker.index).count();
        let over = Index((marker.index.0 + 1).saturating_sub(most.min(below) as u64));
        self.entries = self.entries.split_off(&wanted.min(marker.index.next()).max(over));
    }

    /// From here on all entries are there.
    pub(crate) fn first(&self, marker: EntryId) -> Index {
        self.entries.keys().next().copied().unwrap_or(marker.index.next())
    }

    pub(crate) fn read(&self, prev: Index, upto: Index, bytes_max: usize) -> Option<Run> {
        let before = match prev {
            Index(0) => EntryId::ZERO,
            _ => self.entries.get(&prev)?.id,
        };
        let entries: Vec<Entry> =
            self.entries.range(prev.next()..=upto).map(|(_, entry)| entry.clone()).collect();
        Run::cut(before, &entries, bytes_max)
    }
}
