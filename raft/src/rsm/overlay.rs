//! The changes of the commands of one turn, over the table to which they will be written.
//!
//! Commands see the changes of earlier ones, and everything reaches the table in one batch,
//! together with the applied row (correctness rule 20). The hash in that row is chained change by
//! change and command by command, so it does not depend on how commands are grouped into batches:
//! it is equal on all replicas at the same entry (rule 21).
//!
//! Deleted ranges are kept disjoint and *below* the points: a range absorbs the points that it
//! covers, and a later point is on top. Left out on purpose: undoing a command; `apply` cannot
//! fail.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::machine::Rows;
use crate::storage::{APPLIED_KEY, Applied, Batch, Change, Read, Row, ScanLimit, Table};
use crate::types::EntryId;

/// A table and changes over it.
pub(crate) struct Overlay<'a> {
    table: &'a dyn Table,
    applied: Applied,
    /// Set or (`None`) deleted rows.
    points: BTreeMap<Bytes, Option<Bytes>>,
    /// Deleted ranges: start, end. Disjoint.
    ranges: BTreeMap<Bytes, Bytes>,
    /// The chained hash with the changes of the present command.
    hash: u64,
}

impl<'a> Overlay<'a> {
    /// No changes yet over `table`, to which `applied` was the last entry applied.
    pub(crate) fn new(table: &'a dyn Table, applied: Applied) -> Self {
        Self { table, applied, points: BTreeMap::new(), ranges: BTreeMap::new(), hash: applied.hash }
    }

    /// How far the finished commands got.
    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    /// The command of entry `id` has made all its changes.
    pub(crate) fn finish_command(&mut self, id: EntryId) {
        self.mix(b"#", &id.index.0.to_le_bytes(), &id.term.0.to_le_bytes());
        self.applied = Applied { id, hash: self.hash };
    }

    /// What is to be written to the table: ranges first, because points are on top of them.
    pub(crate) fn into_batch(self) -> Batch {
        let ranges = self.ranges.into_iter().map(|(start, end)| Change::DeleteRange(start, end));
        let points = self.points.into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
        let applied = Change::Put(Bytes::from_static(APPLIED_KEY), base::codec::encode(&self.applied));
        ranges.chain(points).chain([applied]).collect()
    }

    /// Each part is hashed with the hash so far as its seed, so where parts end matters.
    fn mix(&mut self, kind: &[u8], first: &[u8], second: &[u8]) {
        for part in [kind, first, second] {
            self.hash = xxh3_64_with_seed(part, self.hash);
        }
    }

    /// End of the deleted range that covers `key`.
    fn deleted_to(&self, key: &[u8]) -> Option<&Bytes> {
        let (_, end) = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (&end[..] > key).then_some(end)
    }

    /// Start of the first deleted range after `key`.
    fn next_deleted(&self, key: &[u8]) -> Option<&Bytes> {
        let beyond = (Bound::Excluded(key), Bound::Unbounded);
        self.ranges.range::<[u8], _>(beyond).next().map(|(start, _)| start)
    }

    /// The next stretch of a scan: rows from `start` on, and where the stretch ends (`None`: at the
    /// end of everything). A stretch is a deleted range, or a page of the table before the next
    /// one.
    fn stretch(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: ScanLimit,
    ) -> (BTreeMap<Bytes, Bytes>, Option<Bytes>) {
        let until = |bound: Option<&Bytes>| match (bound, end) {
            (Some(bound), Some(end)) if &bound[..] >= end => Some(Bytes::copy_from_slice(end)),
            (Some(bound), _) => Some(bound.clone()),
            (None, end) => end.map(Bytes::copy_from_slice),
        };
        let (page, stop) = match self.deleted_to(start) {
            Some(to) => (Vec::new(), until(Some(to))),
            None => {
                let stop = until(self.next_deleted(start));
                let page = self.table.scan(start, stop.as_deref(), limit);
                let bytes: usize = page.iter().map(|(key, value)| key.len() + value.len()).sum();
                let full = page.len() >= limit.rows || bytes >= limit.bytes;
                let cut = page.last().filter(|_| full).map(|(key, _)| successor(key));
                (page, cut.or(stop))
            }
        };
        let mut rows: BTreeMap<Bytes, Bytes> = page.into_iter().collect();
        let upper = stop.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.points.range::<[u8], _>((Bound::Included(start), upper)) {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        (rows, stop)
    }
}

/// The smallest key after `key`.
fn successor(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}

impl Read for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.points.get(key) {
            Some(value) => value.clone(),
            None if self.deleted_to(key).is_some() => None,
            None => self.table.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let mut found: Vec<Row> = Vec::new();
        let mut bytes = 0;
        let mut from = Bytes::copy_from_slice(start);
        while end.is_none_or(|end| &from[..] < end) {
            let (rows, stop) = self.stretch(&from, end, limit);
            for row in rows {
                bytes += row.0.len() + row.1.len();
                found.push(row);
                if found.len() >= limit.rows || bytes >= limit.bytes {
                    return found;
                }
            }
            match stop {
                Some(stop) => from = stop,
                None => break,
            }
        }
        found
    }
}

impl Rows for Overlay<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.mix(b"+", &key, &value);
        self.points.insert(key, Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.mix(b"-", key, b"");
        self.points.insert(Bytes::copy_from_slice(key), None);
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.mix(b"/", start, end);
        if start >= end {
            return;
        }
        let covered = (Bound::Included(start), Bound::Excluded(end));
        let points: Vec<Bytes> = self.points.range::<[u8], _>(covered).map(|(key, _)| key.clone()).collect();
        for key in points {
            self.points.remove(&key);
        }
        // Absorb the ranges that touch this one.
        let (mut start, mut end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        while let Some((before, to)) = self.ranges.range(..=end.clone()).next_back()
            && *to >= start
        {
            let before = before.clone();
            end = self.ranges.remove(&before).expect("just seen").max(end);
            start = before.min(start);
        }
        self.ranges.insert(start, end);
    }
}

#[cfg(test)]
mod tests;
