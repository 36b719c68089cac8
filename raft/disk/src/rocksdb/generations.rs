//! Generations of a table: the row that names them, and keys that begin with a generation's number.

use std::path::Path;

use ::rocksdb::DB;
use base::codec::{self, DecodeError};
use serde::{Deserialize, Serialize};

use super::{corrupt, or_fatal};
use raft::storage::OpenError;
use raft::types::EntryId;

pub(super) const NAMES_KEY: &[u8] = b"\0\0\0\0generations";
pub(super) const FORMAT: u32 = base::codec::DISK as u32;

/// The row that names generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    pub(super) format: u32,
    pub(super) live: u32,
    /// The newest one begun.
    pub(super) newest: u32,
    /// The snapshot from which the live one was made.
    pub(super) installed: Option<EntryId>,
    /// The generation whose rows are bad (correctness rule 69); 0 if none is. It is in the row that
    /// names the live one, so that a switch to another one needs no second step to end it.
    pub(super) bad: u32,
}

pub(super) fn read_names(path: &Path, bytes: &[u8]) -> Result<Names, OpenError> {
    let another = |found| {
        let (path, supported) = (path.display().to_string(), FORMAT);
        if found > supported {
            OpenError::NewerFormat { path, found, supported }
        } else {
            OpenError::OlderFormat { path, found, supported }
        }
    };
    match codec::decode::<Names>(bytes, 64) {
        Ok(names) if names.format != FORMAT => Err(another(names.format)),
        Ok(names) => Ok(names),
        Err(DecodeError::Version { found, .. }) => Err(another(u32::from(found))),
        Err(error) => Err(corrupt(path, format!("the row that names the live generation: {error}"))),
    }
}

/// Generations that a crash left, in order.
pub(super) fn leftovers(db: &DB, live: u32) -> Vec<u32> {
    let mut rows = db.raw_iterator();
    let mut found = Vec::new();
    let mut next = 1;
    loop {
        rows.seek(prefix(next));
        let at = rows.key().and_then(|key| key.first_chunk::<4>()).map(|at| u32::from_be_bytes(*at));
        let Some(generation) = at else { break };
        if generation != live {
            found.push(generation);
        }
        next = generation + 1;
    }
    or_fatal("read the table", rows.status());
    found
}

pub(super) fn is_empty(db: &DB) -> bool {
    let mut rows = db.raw_iterator();
    rows.seek_to_first();
    !rows.valid()
}

pub(super) fn prefix(generation: u32) -> [u8; 4] {
    generation.to_be_bytes()
}

pub(super) fn row_key(generation: u32, key: &[u8]) -> Vec<u8> {
    [&prefix(generation)[..], key].concat()
}

/// The key of a row, written into a reused buffer.
pub(super) fn row_key_into(place: &mut Vec<u8>, generation: u32, key: &[u8]) {
    place.clear();
    place.extend_from_slice(&prefix(generation));
    place.extend_from_slice(key);
}
