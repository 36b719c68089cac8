//! The stores of a replica on real files: the log of this project, and a table in RocksDB.
//!
//! [`directory`] is a server's data directory, which holds both. [`wal`] and [`rocksdb`] implement
//! the traits of [`raft::storage`]; `docs/storage.md` tells how. [`check`] judges a directory without
//! changing it.
//!
//! The invariant: what was acknowledged is on the disk, and damage is noticed before it is used.
//!
//! ```
//! use raft::storage::{Change, Read as _, Save, Table as _};
//! use raft_disk::rocksdb::{TableOptions, open_table};
//! use raft_disk::wal::{LogOptions, open_log};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let options = LogOptions { create: true, ..LogOptions::default() };
//! let mut log = open_log(&directory.path().join("log"), &options)?;
//! assert_eq!(log.load()?.entries, []);
//! log.save(&Save { hard_state: Some(Default::default()), ..Save::default() }).await; // durable
//!
//! let options = TableOptions { create: true, ..TableOptions::default() };
//! let table = open_table(&directory.path().join("table"), &options)?;
//! table.write(vec![Change::Put("key".into(), "value".into())]); // not durable yet
//! assert_eq!(table.get(b"key"), Some("value".into()));
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

pub mod check;
#[cfg(test)]
mod conformance;
pub mod directory;
mod lines;
pub mod rocksdb;
pub mod wal;
