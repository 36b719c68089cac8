//! Rows of a shard on their way to another group: chunks of them, and what a receiver counts.
//!
//! A receiver knows how far its copy is ([`Cursor`]), and how many keys and bytes of clients it has.
//! At the end it compares these with the sender's counters. They are kept up row by row, so that
//! nobody has to read all rows at the end.
//!
//! Left out on purpose: a hash over the rows. The sender would have to read all of them for it while
//! clients wait.

use bytes::Bytes;
use clerk::api::ShardId;
use clerk::api::push::{Change, Copied, Cursor, End, Reach};
use raft::rsm::Rows;
use raft::storage::{Read, Row, ScanLimit};

use crate::machine::rows::{self, Meta};

/// A chunk of a shard ends at so many bytes. A single larger row travels alone.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// A chunk ends at so many rows. This bounds the memory for small rows.
pub const CHUNK_ROWS: usize = 4096;
/// Rows that are counted together.
const PAGE: ScanLimit = ScanLimit { rows: 4096, bytes: 1 << 20 };

/// The bytes that a row counts.
pub(crate) fn weight((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

pub(crate) fn row_weight((key, value): &Row) -> usize {
    key.len() + value.len()
}

/// The next rows of a shard after `after`, at most so many, and whether they are the last ones.
pub fn chunk(
    table: &dyn Read,
    shard: ShardId,
    shard_count: u32,
    after: &Reach,
    limit: ScanLimit,
) -> (Vec<Change>, bool) {
    let mut chunk: Vec<Row> = Vec::new();
    let mut bytes = 0;
    let from = match after {
        Reach::Start => Bytes::new(),
        Reach::Key(last) => rows::successor(last),
        Reach::End => return (Vec::new(), true),
    };
    let mut is_last = true;
    for (start, end) in rows::pushed_ranges(shard, shard_count) {
        let start = from.clone().max(start);
        if start >= end {
            continue;
        }
        let rest = ScanLimit { rows: limit.rows - chunk.len(), bytes: limit.bytes - bytes };
        let page = table.scan(&start, Some(&end), rest);
        bytes += page.iter().map(row_weight).sum::<usize>();
        chunk.extend(page);
        if bytes >= limit.bytes || chunk.len() >= limit.rows {
            // A scan stops *after* the row that reaches the limit.
            if bytes > limit.bytes && chunk.len() > 1 {
                chunk.pop();
            }
            is_last = false;
            break;
        }
    }
    (chunk.into_iter().map(|(key, value)| (key, Some(value))).collect(), is_last)
}

/// Whether a copy that is so far may have the row.
pub(crate) fn is_within(reach: &Reach, key: &[u8]) -> bool {
    match reach {
        Reach::Start => false,
        Reach::Key(last) => key <= &last[..],
        Reach::End => true,
    }
}

/// The counters of a copy with these rows, each of another key.
pub(crate) fn end_with(table: &dyn Read, shard: ShardId, copied: &Copied, changes: &[Change]) -> End {
    let mut end = End { floor: rows::meta(table, shard).floor, rows: copied.rows, bytes: copied.bytes };
    for (key, value) in changes {
        if let (Some(rows::Kind::Meta), Some(value)) = (rows::kind_of(key), value) {
            end.floor = rows::try_decode::<Meta>(value).map(|meta| meta.floor).unwrap_or_default();
        }
        // Beyond the reach there is nothing yet.
        let old = is_within(&copied.cursor.reach, key).then(|| table.get(key)).flatten();
        let (fewer, smaller) = old.map_or((0, 0), |old| rows::counted(key, &old));
        let (more, larger) = value.as_ref().map_or((0, 0), |value| rows::counted(key, value));
        end.rows = end.rows.saturating_sub(fewer).saturating_add(more);
        end.bytes = end.bytes.saturating_sub(smaller).saturating_add(larger);
    }
    end
}

/// The counters of a shard whose rows are all here. After a copy did not match them, the rows are
/// counted.
pub fn end(table: &dyn Read, shard: ShardId, shard_count: u32, is_counted: bool) -> End {
    let meta = rows::meta(table, shard);
    let mut end = End { floor: meta.floor, rows: meta.rows, bytes: meta.bytes };
    if is_counted {
        (end.rows, end.bytes) = (0, 0);
        let (mut start, last) = rows::values_range(shard, shard_count);
        loop {
            let page = table.scan(&start, Some(&last), PAGE);
            let Some((key, _)) = page.last() else { break };
            start = rows::successor(key);
            for (key, value) in &page {
                let (more, larger) = rows::counted(key, value);
                (end.rows, end.bytes) = (end.rows + more, end.bytes + larger);
            }
        }
    }
    end
}

/// Writes rows of another group.
pub(crate) fn write(table: &mut dyn Rows, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => table.put(key, value),
            None => table.delete(&key),
        }
    }
}

/// Whether the rows belong to the shard, and a copy with this cursor has them: a sender must not
/// write elsewhere.
pub(crate) fn belong(shard: ShardId, shard_count: u32, to: &Cursor, changes: &[Change]) -> bool {
    let ranges = rows::pushed_ranges(shard, shard_count);
    changes.iter().all(|(key, _)| {
        is_within(&to.reach, key) && ranges.iter().any(|(start, end)| start <= key && key < end)
    })
}
