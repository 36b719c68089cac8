//! One suite for both storages: the promises of a log and a table, each also across a crash.
//!
//! A crash of the stores on real files is simulated by copying the files while they are open: the
//! copy lacks what a process holds only in memory. It includes what the operating system holds only
//! in memory; that a save is synced is shown by counting syncs, and with strace by hand.

mod damage;
mod kept;
mod log;
mod rocks;
mod table;
mod wal;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::rocksdb::{TableOptions, open_table};
use super::wal::{LogOptions, open_log};
use raft::storage::memory::MemoryDisk;
use raft::storage::{ScanLimit, Stores};
use raft::types::{Entry, EntryId, Payload};

const ALL: ScanLimit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };

/// A disk under test.
trait Disk {
    /// Opens the stores as a start would.
    fn open(&mut self) -> Stores;

    /// The process dies and everything not durable is lost. Handles that are still there write nowhere
    /// that matters.
    fn crash(&mut self);
}

impl Disk for MemoryDisk {
    fn open(&mut self) -> Stores {
        MemoryDisk::open(self)
    }

    fn crash(&mut self) {
        self.power_cut();
    }
}

/// A table whose buffer is so small that rows are constantly moving into RocksDB and being
/// forgotten; some go in files.
fn hasty() -> TableOptions {
    TableOptions { waiting_bytes: 300, file_bytes_min: 400, row_cache_bytes: 2000, ..TableOptions::default() }
}

/// A log whose files are so small that it changes files all the time.
fn short() -> LogOptions {
    LogOptions { file_bytes: 600, keep_bytes: 2000, ..LogOptions::default() }
}

/// Real files in temporary directories, one for each life.
struct RealDisk {
    root: tempfile::TempDir,
    life: u32,
}

impl RealDisk {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), life: 0 }
    }

    fn path(&self, store: &str) -> PathBuf {
        self.root.path().join(self.life.to_string()).join(store)
    }
}

impl Disk for RealDisk {
    fn open(&mut self) -> Stores {
        let (log, table) = (self.path("raft"), self.path("state"));
        std::fs::create_dir_all(&log).unwrap();
        std::fs::create_dir_all(&table).unwrap();
        (open_log(&log, &short()).unwrap(), open_table(&table, &hasty()).unwrap())
    }

    fn crash(&mut self) {
        let (log, table) = (self.path("raft"), self.path("state"));
        self.life += 1;
        copy_open_files(&log, &self.path("raft"));
        copy_open_files(&table, &self.path("state"));
    }
}

/// Names of the files in `directory`, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Copies the files of an open store. Once more if its background work changed them meanwhile.
fn copy_open_files(from: &Path, to: &Path) {
    loop {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).unwrap();
        let before = names(from);
        // The files that a log's manifest names exist when it is copied; it does not name files
        // that are made meanwhile.
        let (manifest, others): (Vec<_>, Vec<_>) = before.iter().partition(|name| *name == "manifest");
        let copied = manifest
            .into_iter()
            .chain(others)
            .filter(|name| *name != "LOCK")
            .all(|name| std::fs::copy(from.join(name), to.join(name)).is_ok());
        if copied && names(from) == before {
            return;
        }
    }
}

/// Runs every case on both disks.
macro_rules! on_both_disks {
    ($($case:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&mut raft::storage::memory::MemoryDisk::new()).await;
            })+
        }
        mod on_real_files {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&mut crate::conformance::RealDisk::new()).await;
            })+
        }
    };
}
use on_both_disks;

fn entry(term: u64, index: u64) -> Entry {
    Entry::new(EntryId::new(term, index), Payload::Command(format!("{index} in {term}").into()))
}

/// Entries of one term with indexes `from..=to`.
fn entries(term: u64, from: u64, to: u64) -> Vec<Entry> {
    (from..=to).map(|index| entry(term, index)).collect()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
