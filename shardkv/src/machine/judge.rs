//! Checks a group's complete table offline (correctness rule 72): rows must decode and be where
//! they belong, and each settled shard must have as many rows and bytes as its own row says.
//!
//! Left out on purpose: whether the values are the right ones. The table's hash compares replicas,
//! this does not.

use std::collections::{BTreeMap, BTreeSet};

use base::codec;
use bytes::Bytes;
use clerk::api::ShardId;
use clerk::api::config::slot_of;
use raft::storage::JudgeRows;
use serde::de::DeserializeOwned;

use crate::machine::rows::{self, Meta};
use crate::machine::shard::ShardState;

/// Judges the rows of a table.
#[derive(Debug, Default)]
pub struct Table {
    /// Shards whose rows do not come and go.
    settled: BTreeSet<ShardId>,
    /// What all shards together should have, by their own rows.
    expected: BTreeMap<ShardId, Meta>,
    /// Rows and bytes of all values.
    found: (u64, u64),
}

fn decoded<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    codec::decode(value, value.len().saturating_mul(2).max(64)).map_err(|error| error.to_string())
}

fn shard_of(bytes: &[u8]) -> Result<ShardId, String> {
    let shard: [u8; 4] = bytes.try_into().map_err(|_| "a shard's number of another length".to_owned())?;
    Ok(ShardId(u32::from_be_bytes(shard)))
}

impl JudgeRows for Table {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            // A shard's state.
            [0x01, b's', shard @ ..] => {
                let (shard, state) = (shard_of(shard)?, decoded::<ShardState>(value)?);
                if matches!(state, ShardState::Serving | ShardState::Handing { .. } | ShardState::Parked) {
                    self.settled.insert(shard);
                }
                Ok(())
            }
            [0x10, shard @ ..] => {
                let (shard, meta) = (shard_of(shard)?, decoded(value)?);
                self.expected.insert(shard, meta);
                Ok(())
            }
            [0x12, one, two, key @ ..] => {
                let slot = u16::from_be_bytes([*one, *two]);
                if slot != slot_of(key) {
                    return Err(format!("a key in slot {slot}, where it does not belong"));
                }
                let (_, value) = rows::check_value_row(&Bytes::copy_from_slice(value))?;
                self.found = (self.found.0 + 1, self.found.1 + (key.len() + value.len()) as u64);
                Ok(())
            }
            // The group itself, and sessions: their checksums are RocksDB's.
            [0x01 | 0x11, ..] => Ok(()),
            _ => Err("its key is of no kind that this build knows".to_owned()),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        // While a shard is being filled its own row is ahead of its values.
        if self.expected.keys().any(|shard| !self.settled.contains(shard)) {
            return Ok(());
        }
        let sum = |of: fn(&Meta) -> u64| self.expected.values().map(of).sum::<u64>();
        let (expected, found) = ((sum(|meta| meta.rows), sum(|meta| meta.bytes)), self.found);
        if expected == found {
            Ok(())
        } else {
            Err(format!(
                "its shards should have {} rows of {} bytes together, and have {} of {}",
                expected.0, expected.1, found.0, found.1
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clerk::api::{ShardId, Version};
    use raft::rsm::{MapRows, Rows};
    use raft::storage::JudgeRows;
    use raft::storage::{Read, ScanLimit};

    use super::Table;
    use crate::machine::rows::{self, Meta};
    use crate::machine::shard::ShardState;

    /// A group that serves one shard with two keys.
    fn table() -> MapRows {
        let mut table = MapRows::default();
        rows::put_state(&mut table, ShardId(0), ShardState::Serving);
        rows::put_meta(&mut table, ShardId(0), &Meta { rows: 2, bytes: 8, ..Meta::default() });
        for key in [b"k1", b"k2"] {
            table.put(rows::value_key(key), rows::value_row(Version(1), &[b"vv"]));
        }
        table
    }

    fn judged(table: &MapRows) -> Result<(), String> {
        let all = table.scan(b"", None, ScanLimit { rows: usize::MAX, bytes: usize::MAX });
        let mut judge = Table::default();
        all.iter().try_for_each(|(key, value)| judge.row(key, value))?;
        judge.end()
    }

    #[test]
    fn rows_that_cannot_be_read_or_are_too_few_are_told() {
        assert_eq!(judged(&table()), Ok(()));
        type Harm = fn(&mut MapRows);
        let harms: [(Harm, &str); 6] = [
            (|table| table.delete(&rows::value_key(b"k1")), "2 rows of 8 bytes together, and have 1 of 4"),
            (|table| table.put(rows::value_key(b"k1"), Bytes::from_static(b"\0")), "shorter"),
            (|table| table.put(rows::value_key(b"k1"), Bytes::from_static(&[9; 20])), "unknown flags"),
            (|table| table.put(Bytes::from_static(b"\x12\0\0k"), rows::value_row(Version(1), &[])), "slot 0"),
            (
                |table| table.put(Bytes::from_static(b"\x01s\0\0\0\0"), Bytes::from_static(&[0xff; 9])),
                "version",
            ),
            (|table| table.put(Bytes::from_static(b"\x77"), Bytes::new()), "no kind"),
        ];
        for (harm, said) in harms {
            let mut table = table();
            harm(&mut table);
            let why = judged(&table).unwrap_err();
            assert!(why.contains(said), "{why:?} should contain {said:?}");
        }
    }
}
