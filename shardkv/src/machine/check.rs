//! Checks rows that another group pushes: one pure function judges them before they are logged, and
//! again when they are applied (correctness rules 49, 58).
//!
//! Rows are decoded later, where an error means a damaged store and ends the process (rule 29). So
//! rows from the network must be decoded before they are stored. Each must be of a kind that moves
//! with a shard, belong to the shard, have the lengths that the cluster allows, and hold valid
//! content for its kind, with counters that can still grow.
//!
//! Left out on purpose: whether the rows are the ones that the sender has. Activate compares counters.

use clerk::api::config::{Params, slot_of};
use clerk::api::push::{Change, Cursor, Pos, Reach};
use clerk::api::{ShardId, Version};
use raft::rsm::sessions::Sessions;

use crate::machine::copy;
use crate::machine::kv::Recorded;
use crate::machine::rows::{self, Kind, Meta};

/// Counters from outside must be smaller than this: they are added to.
const COUNTER_LIMIT: u64 = 1 << 62;
/// The same for rows and bytes of a shard: those of all shards are summed up.
const SIZE_LIMIT: u64 = 1 << 48;
/// Bytes in front of a client's key in any row's key, with room.
const PREFIX_BYTES_MAX: usize = 16;

/// Why these rows cannot take a copy of the shard from `after` to `to`. Rows that do not move it are
/// refused: a late repeat of them would put old rows over newer ones.
///
/// # Errors
/// In words.
pub fn chunk(
    shard: ShardId,
    params: Params,
    after: &Cursor,
    to: &Cursor,
    changes: &[Change],
) -> Result<(), String> {
    let starts_over = to.reach == Reach::Start;
    let moves = if starts_over {
        to.pos == Pos::default() && after.reach != Reach::Start && changes.is_empty()
    } else {
        to.reach >= after.reach && to.pos >= after.pos && to != after
    };
    if !moves {
        return Err("the rows do not move the cursor forward".to_owned());
    }
    rows_of(shard, params, to, changes)
}

/// Why these cannot be the last rows of a copy of the shard.
///
/// # Errors
/// In words.
pub fn last(shard: ShardId, params: Params, changes: &[Change]) -> Result<(), String> {
    rows_of(shard, params, &Cursor { reach: Reach::End, ..Cursor::default() }, changes)
}

fn rows_of(shard: ShardId, params: Params, to: &Cursor, changes: &[Change]) -> Result<(), String> {
    if shard.0 >= params.shard_count {
        return Err(format!("there is no shard {shard}"));
    }
    if !copy::belong(shard, params.shard_count, to, changes) {
        return Err("the rows lie beyond the cursor, or belong to another shard".to_owned());
    }
    base::mutant!("rows-not-checked", return Ok(()));
    let one = |(key, value): &Change| match value {
        Some(value) => row(params, key, value).map_err(|why| format!("a row that is none: {why}")),
        None => Ok(()),
    };
    changes.iter().try_for_each(one)
}

/// Whether a cursor is valid: it is logged, and must not make an entry that no frame can carry.
///
/// # Errors
/// In words.
pub fn cursor(cursor: &Cursor, params: Params) -> Result<(), String> {
    let longest = PREFIX_BYTES_MAX + params.key_bytes_max as usize;
    match &cursor.reach {
        Reach::Key(key) if key.len() > longest => {
            Err(format!("a cursor at a key of more than {longest} bytes"))
        }
        _ => Ok(()),
    }
}

fn row(params: Params, key: &[u8], value: &bytes::Bytes) -> Result<(), String> {
    match rows::kind_of(key) {
        Some(Kind::Meta) => meta(value),
        Some(Kind::Session(rest)) => session(rest, value),
        Some(Kind::Value { slot, key }) => {
            let bytes = key.len();
            if bytes == 0 || bytes > params.key_bytes_max as usize {
                return Err(format!("a key of {bytes} bytes"));
            }
            if slot != slot_of(key) {
                return Err(format!("a key in slot {slot}, where it does not belong"));
            }
            let (Version(version), value) = rows::check_value_row(value)?;
            if version == 0 || version >= COUNTER_LIMIT {
                return Err(format!("version {version}"));
            }
            if value.len() > params.value_bytes_max as usize {
                Err(format!("a value of {} bytes", value.len()))
            } else {
                Ok(())
            }
        }
        None => Err("its key is of no kind that travels".to_owned()),
    }
}

fn meta(value: &[u8]) -> Result<(), String> {
    let meta: Meta = rows::try_decode(value).map_err(|error| error.to_string())?;
    let counters = [meta.floor.0, meta.rows, meta.bytes];
    let sane = meta.floor.0 < COUNTER_LIMIT && meta.rows < SIZE_LIMIT && meta.bytes < SIZE_LIMIT;
    if sane { Ok(()) } else { Err(format!("counters of a shard beyond all reason: {counters:?}")) }
}

fn session(rest: &[u8], value: &[u8]) -> Result<(), String> {
    match Sessions::check_row(rest, value)? {
        // Opened, and not used yet.
        None => Ok(()),
        Some(reply) => Recorded::check(&reply),
    }
}

#[cfg(test)]
mod tests;
