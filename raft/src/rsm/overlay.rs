//! The changes of the commands of one turn, over the table they will be written to.
//!
//! Commands see what the ones before them did. The hash in the applied row is chained command by
//! command, so it does not depend on how commands are grouped into batches.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Rows;
use crate::storage::{APPLIED_KEY, Applied, Batch, Change, Read, Row, ScanLimit, Table};
use crate::types::EntryId;

pub(crate) struct Overlay<'a> {
    table: &'a dyn Table,
    applied: Applied,
    points: BTreeMap<Bytes, Option<Bytes>>,
    ranges: Vec<(Bytes, Bytes)>,
    hash: u64,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(table: &'a dyn Table, applied: Applied) -> Self {
        Self { table, applied, points: BTreeMap::new(), ranges: Vec::new(), hash: applied.hash }
    }

    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    pub(crate) fn finish_command(&mut self, id: EntryId) {
        self.mix(b"#", &id.index.0.to_le_bytes(), &id.term.0.to_le_bytes());
        self.applied = Applied { id, hash: self.hash };
    }

    pub(crate) fn into_batch(self) -> Batch {
        let ranges = self.ranges.into_iter().map(|(start, end)| Change::DeleteRange(start, end));
        let points = self.points.into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
        let applied = Change::Put(Bytes::from_static(APPLIED_KEY), base::codec::encode(&self.applied));
        ranges.chain(points).chain([applied]).collect()
    }

    fn mix(&mut self, kind: &[u8], first: &[u8], second: &[u8]) {
        let length = (first.len() as u64).to_le_bytes();
        for part in [kind, &length, first, second] {
            self.hash = xxh3_64_with_seed(part, self.hash);
        }
    }

    fn in_range(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|(start, end)| key >= &start[..] && key < &end[..])
    }
}

impl Read for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.points.get(key) {
            Some(value) => value.clone(),
            None if self.in_range(key) => None,
            None => self.table.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let mut found: Vec<Row> = Vec::new();
        let mut bytes = 0;
        let mut from = Bytes::copy_from_slice(start);
        if end.is_some_and(|end| end <= start) {
            return found;
        }
        loop {
            let page = self.table.scan(&from, end, limit);
            let upper = match page.last() {
                Some((key, _)) => Bound::Included(key.clone()),
                None => end.map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::copy_from_slice(end))),
            };
            let mut merged: BTreeMap<Bytes, Bytes> =
                page.iter().filter(|(key, _)| !self.in_range(key)).cloned().collect();
            for (key, value) in self.points.range((Bound::Included(from.clone()), upper)) {
                match value {
                    Some(value) => merged.insert(key.clone(), value.clone()),
                    None => merged.remove(key),
                };
            }
            for row in merged {
                bytes += row.0.len() + row.1.len();
                found.push(row);
                if found.len() >= limit.rows || bytes >= limit.bytes {
                    return found;
                }
            }
            match page.last() {
                Some((key, _)) => from = [&key[..], b"\0"].concat().into(),
                None => return found,
            }
        }
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
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let gone: Vec<Bytes> =
            self.points.range(start.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.points.remove(&key);
        }
        self.ranges.push((start, end));
    }
}
