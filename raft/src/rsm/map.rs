//! Rows in a map, to try a state machine command by command, without a replica.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::machine::Rows;
use crate::storage::{Read, Row, ScanLimit};

/// Rows in a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapRows(pub BTreeMap<Bytes, Bytes>);

impl Read for MapRows {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let mut bytes = 0;
        let rows = self.0.range(Bytes::copy_from_slice(start)..);
        rows.take_while(|(key, _)| end.is_none_or(|end| key[..] < *end))
            .take(limit.rows)
            .take_while(|(key, value)| {
                let more = bytes < limit.bytes;
                bytes += key.len() + value.len();
                more
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Rows for MapRows {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.0.retain(|key, _| key[..] < *start || key[..] >= *end);
    }
}
