//! What the core asks of the disk, and what it gets back from it: the write of one round, the log
//! as it was found at the start, and entries that are no longer in memory.

use base::codec::Denied;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, EntryId, HardState, Index};

/// One write to the log: atomic and synced. Its parts are in the order in which they take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Save {
    /// Term and vote, when they changed.
    pub hard_state: Option<HardState>,
    /// Drop every entry at or above this position (a term conflict, 5.3).
    pub truncate_from: Option<Index>,
    /// Append these, which continue the log without a gap; if the marker is beyond the log, they
    /// continue the marker.
    pub entries: Vec<Entry>,
    /// Drop every entry at or below this one and remember its id: the compaction marker. If it is
    /// beyond the last entry the log becomes empty and continues after the marker.
    pub marker: Option<EntryId>,
    /// From now on the log may lack acknowledged entries, up to this one; zero: it lacks nothing
    /// any more (correctness rule 62).
    pub promised: Option<EntryId>,
    /// Room for later fields, of the marker too.
    pub more: Denied,
}

/// The content of a log when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// Id of the last entry that was dropped; zero if none ever was.
    pub marker: EntryId,
    /// The entries after the marker, without a gap.
    pub entries: Vec<Entry>,
    /// The last entry that this server has acknowledged, if the log may lack it; zero if it lacks nothing
    /// (correctness rule 62).
    pub promised: EntryId,
}

/// Entries without a gap, after another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The entry before the first.
    pub prev: EntryId,
    /// Not empty.
    pub entries: Vec<Entry>,
}

impl Run {
    /// The first of `entries` after `prev` that together fit into `bytes_max`, at least one, if
    /// they are undamaged and continue it.
    pub fn cut(prev: EntryId, entries: &[Entry], bytes_max: usize) -> Option<Self> {
        let (mut left, mut before, mut run) = (bytes_max, prev, Vec::new());
        for entry in entries {
            if entry.id.index != before.index.next() || entry.id.term < before.term || !entry.is_whole() {
                return None;
            }
            if !run.is_empty() && entry.weight() > left {
                break;
            }
            left = left.saturating_sub(entry.weight());
            before = entry.id;
            run.push(entry.clone());
        }
        (!run.is_empty()).then_some(Self { prev, entries: run })
    }
}
