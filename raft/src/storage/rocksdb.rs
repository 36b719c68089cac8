//! The table on RocksDB, without its write-ahead log, since the Raft log is one; durable is what was flushed.
//!
//! Nothing else in the workspace names RocksDB. Left out on purpose: column families (a flush must make durable a
//! prefix of all writes), transactions, backups.

mod buffer;
mod staging;
mod table;

pub use table::{TableOptions, open_table};

use std::path::Path;

use ::rocksdb::{DB, DBCompressionType, Error, ErrorKind, LogLevel, Options};

use super::OpenError;
use super::lines::{corrupt, unavailable};

const MIB: usize = 1 << 20;

/// What is not a matter of size.
fn common(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_max_manifest_file_size(16 * MIB);
    // RocksDB's own log is for its developers; ours says what matters.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(MIB);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

/// Lets other threads go before the calling one, for which nobody waits. Where that is not allowed, no matter. (Only
/// Linux has priorities of threads.)
fn stand_back() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 5);
}

fn open(path: &Path, create: bool, options: &Options) -> Result<DB, OpenError> {
    // Without this RocksDB would make a new, empty instance when only this file is lost.
    if !create && !path.join("CURRENT").exists() {
        return Err(corrupt(path, "the store that belongs here is gone"));
    }
    DB::open(options, path).map_err(|error| open_error(path, &error))
}

fn open_error(path: &Path, error: &Error) -> OpenError {
    match error.kind() {
        ErrorKind::Corruption => corrupt(path, error),
        _ => unavailable(path, error),
    }
}
