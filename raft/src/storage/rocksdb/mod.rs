//! Both stores on disk: two RocksDB instances, because write stalls are per instance and a table that is
//! busy compacting must not stall the log.
//!
//! * [`log`]: every write synced; recovery refuses a log with a hole (correctness rule 30).
//! * [`table`]: never a write-ahead log; the Raft log is its write-ahead log.

pub mod log;
pub mod table;

use std::path::Path;

use ::rocksdb::Options;

use super::OpenError;

/// Row that names the format of an instance.
const FORMAT_KEY: &[u8] = b"\0format";
/// Format this build writes, and the newest it reads.
const FORMAT: u32 = 1;

fn common_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_max_open_files(512);
    options.set_stats_dump_period_sec(0);
    options
}

fn unavailable(path: &Path, error: &::rocksdb::Error) -> OpenError {
    use ::rocksdb::ErrorKind;
    let (path, what) = (path.display().to_string(), error.to_string());
    match error.kind() {
        ErrorKind::Corruption => OpenError::Corrupt { path, what },
        _ => OpenError::Unavailable { path, what },
    }
}

fn check_format(path: &Path, found: Option<Vec<u8>>) -> Result<bool, OpenError> {
    let path = path.display().to_string();
    match found {
        None => Ok(false),
        Some(bytes) => match bytes.as_slice().try_into().map(u32::from_be_bytes) {
            Ok(found) if found <= FORMAT => Ok(true),
            Ok(found) => Err(OpenError::NewerFormat { path, found, supported: FORMAT }),
            Err(_) => Err(OpenError::Corrupt { path, what: "the format row is damaged".to_owned() }),
        },
    }
}
