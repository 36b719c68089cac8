//! The views of the table from which snapshots are streamed: one for each follower.
//!
//! A chunk carries the checksum over all rows up to its end (correctness rule 66). So a view
//! remembers the checksums at the ends of its newest chunks. A follower may have staged rows from
//! an older view, or from another leader. If the snapshot is the same, the rows are the same. Then
//! the view reads the rows up to that place, for their checksum, and the stream continues after
//! them. A stream never starts over while the snapshot is the same: the follower would only answer
//! again how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::clock;
use bytes::Bytes;

use crate::core::message::Chunk;
use crate::core::ready::StreamOrder;
use crate::storage::{Read, ScanLimit, applied};
use crate::types::{EntryId, Membership, NodeId};

/// A view is closed when nothing was read from it for this long.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(10);

/// More than the chunks in flight to a follower.
const SUMS_MAX: usize = 32;

/// A view keeps the disk space of what it shows from being freed, so it lives only while rows are
/// read from it.
struct View {
    snapshot: EntryId,
    rows: Box<dyn Read>,
    used: clock::Instant,
    /// CRC32 of all rows up to a key, for the newest keys at which chunks ended.
    sums: VecDeque<(Bytes, u32)>,
}

/// The views of all followers.
#[derive(Default)]
pub struct Views {
    views: BTreeMap<NodeId, View>,
}

impl Views {
    /// Reads the chunk that `order` asks for. None: only a part of the rows before it was read; call
    /// again with the same order. `fresh` makes a view of the table, `live` is the table.
    pub fn read(
        &mut self,
        order: &StreamOrder,
        membership: &Membership,
        limit: ScanLimit,
        fresh: impl FnOnce() -> Box<dyn Read>,
        live: &dyn Read,
    ) -> Option<Chunk> {
        let is_held = |view: &View| Some(view.snapshot) == order.snapshot;
        if !self.views.get(&order.to).is_some_and(is_held) {
            self.views.insert(order.to, View::of(fresh()));
        }
        let view = self.views.get_mut(&order.to).expect("just put there");
        view.used = clock::now();
        let after = order.after.clone().filter(|_| Some(view.snapshot) == order.snapshot);
        let before = view.sum_up_to(after.as_ref(), limit)?;
        let source: &dyn Read = if base::mutant!("chunks-of-live-rows") { live } else { &*view.rows };
        let rows = source.scan(&after_key(after.as_ref()), None, limit);
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let full = bytes >= limit.bytes || rows.len() >= limit.rows;
        let mut chunk = Chunk::new(view.snapshot, membership.clone(), after, rows, !full);
        chunk.total = Chunk::sum_of(before, &chunk.rows);
        view.note(chunk.end(), chunk.total);
        Some(chunk)
    }

    /// Closes the views from which nothing was read for a while.
    pub(crate) fn close_idle(&mut self) {
        self.views.retain(|_, view| view.used.elapsed() < IDLE_MAX);
    }

    /// Whether no view is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Closes all of them.
    pub fn close(&mut self) {
        self.views.clear();
    }
}

impl View {
    fn of(rows: Box<dyn Read>) -> Self {
        let snapshot = applied(&*rows).id;
        Self { snapshot, rows, used: clock::now(), sums: VecDeque::new() }
    }

    /// The checksum of all rows up to `key`; none if more rows must be read first. One call reads
    /// one piece. There may be no row with this key: then the follower has other rows, and notices
    /// it by the checksum.
    fn sum_up_to(&mut self, key: Option<&Bytes>, limit: ScanLimit) -> Option<u32> {
        let Some(key) = key else { return Some(0) };
        let nearest = self.sums.iter().filter(|(at, _)| at <= key).max_by_key(|(at, _)| at);
        let (from, sum) = nearest.map_or((None, 0), |(at, sum)| (Some(at), *sum));
        if from == Some(key) {
            return Some(sum);
        }
        let rows = self.rows.scan(&after_key(from), Some(&after_key(Some(key))), limit);
        let sum = Chunk::sum_of(sum, &rows);
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let is_there = bytes < limit.bytes && rows.len() < limit.rows;
        let end = if is_there { Some(key) } else { rows.last().map(|(key, _)| key) };
        self.note(end, sum);
        is_there.then_some(sum)
    }

    fn note(&mut self, end: Option<&Bytes>, sum: u32) {
        let Some(end) = end else { return };
        if self.sums.iter().all(|(at, _)| at != end) {
            self.sums.push_back((end.clone(), sum));
            if self.sums.len() > SUMS_MAX {
                self.sums.pop_front();
            }
        }
    }
}

/// Where the rows after `key` begin.
fn after_key(key: Option<&Bytes>) -> Vec<u8> {
    key.map_or_else(Vec::new, |key| [key, &b"\0"[..]].concat())
}
