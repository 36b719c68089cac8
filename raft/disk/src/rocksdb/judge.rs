//! Reads a table that no process has open, without changing anything.

use std::path::Path;

use ::rocksdb::{DB, Error};
use base::codec;

use super::generations::{NAMES_KEY, prefix, read_names};
use super::options::TableOptions;
use super::{corrupt, open_error};
use raft::storage::{APPLIED_KEY, Applied, JudgeRows, OpenError};
use raft::types::EntryId;

/// What a table holds.
#[derive(Debug)]
pub struct JudgedTable {
    /// The last entry applied.
    pub applied: Applied,
    /// The snapshot that the live generation was made from.
    pub installed: Option<EntryId>,
    /// Rows of the live generation.
    pub rows: u64,
    /// What is wrong with the first malformed row, and how many there are.
    pub wrong: Option<String>,
}

/// Reads all of the table in the directory `path` and passes each live row of the state machine to
/// `judge`.
///
/// # Errors
/// The error of a start, or what could not be read.
pub fn judge(path: &Path, judge: &mut dyn JudgeRows) -> Result<JudgedTable, OpenError> {
    if !path.join("CURRENT").exists() {
        return Err(corrupt(path, "the store that belongs here is gone"));
    }
    let failed = |error: Error| open_error(path, &error);
    let db = DB::open_for_read_only(&TableOptions::default().rocksdb(), path, false).map_err(failed)?;
    let names = db.get(NAMES_KEY).map_err(failed)?;
    let names = names.ok_or_else(|| corrupt(path, "the row that names the live generation is missing"))?;
    let names = read_names(path, &names)?;
    let live = prefix(names.live);
    let mut judged =
        JudgedTable { applied: Applied::default(), installed: names.installed, rows: 0, wrong: None };
    let mut wrong = 0_u64;
    let mut rows = db.raw_iterator();
    rows.seek_to_first();
    // Rows of generations that are not live are read too: a damaged block is found wherever it is.
    while let Some((key, value)) = rows.item() {
        if let Some(key) = key.strip_prefix(&live) {
            judged.rows += 1;
            let verdict = if key == APPLIED_KEY {
                codec::decode(value, 64)
                    .map(|applied| judged.applied = applied)
                    .map_err(|error| error.to_string())
            } else {
                judge.row(key, value)
            };
            if let Err(why) = verdict {
                wrong += 1;
                judged.wrong.get_or_insert_with(|| format!("row {}: {why}", shown(key)));
            }
        }
        rows.next();
    }
    rows.status().map_err(failed)?;
    if let (None, Err(why)) = (&judged.wrong, judge.end()) {
        judged.wrong = Some(why);
    }
    if let Some(first) = judged.wrong.as_mut().filter(|_| wrong > 1) {
        *first = format!("{first} (and {} more rows that are none)", wrong - 1);
    }
    Ok(judged)
}

/// A key in a form that people can search for.
///
fn shown(key: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    let bytes: String = key.iter().take(SHOWN_MAX).map(|byte| format!("{byte:02x}")).collect();
    if key.len() > SHOWN_MAX { format!("{bytes}...") } else { bytes }
}
