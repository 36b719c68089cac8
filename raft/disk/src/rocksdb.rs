//! The table on RocksDB, without RocksDB's write-ahead log, because the Raft log is one. Durable is
//! what was flushed.
//!
//! Nothing else in the workspace names RocksDB. Left out on purpose: column families (a flush must
//! make durable a prefix of all writes), transactions, backups.

mod buffer;
mod files;
mod generations;
mod judge;
mod options;
mod staging;
mod store;
mod table;

pub use judge::{JudgedTable, judge};
pub use options::TableOptions;
pub use table::open_table;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::rocksdb::{DB, Error, ErrorKind, Options};
use base::process::{Fatal, end};

use super::lines::{corrupt, unavailable};
use raft::storage::{OpenError, fatal, stand_back, start_thread};

fn open(path: &Path, create: bool, options: &Options) -> Result<DB, OpenError> {
    // Without this RocksDB would make a new, empty instance when only this file is lost.
    if !create && !path.join("CURRENT").exists() {
        return Err(corrupt(path, "the store that belongs here is gone"));
    }
    // RocksDB's own threads, which flush and compact, inherit the priority of the thread that
    // starts them: this one.
    let (settings, place) = (options.clone(), path.to_owned());
    let opening = start_thread("table-open", move || {
        stand_back();
        DB::open(&settings, place)
    });
    match opening.join() {
        Ok(opened) => opened.map_err(|error| open_error(path, &error)),
        Err(_) => end(Fatal::Bug, &"the thread that opens the table panicked"),
    }
}

fn open_error(path: &Path, error: &Error) -> OpenError {
    match error.kind() {
        ErrorKind::Corruption => corrupt(path, error),
        _ => unavailable(path, error),
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn or_fatal<T>(doing: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| fatal(doing, &error))
}
