//! Rows of a snapshot on their way into RocksDB.
//!
//! They arrive in key order and nobody reads them before the switch, so they need no memory to be sorted in and
//! nothing that sorts them later: a thread writes them to files as RocksDB has them, and RocksDB takes each over
//! as it is, synced, below everything else.
//!
//! Left out on purpose: an end without taking over what arrived. The generation of rows that are not wanted any
//! more is removed, whatever there is of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use ::rocksdb::{DB, Error, IngestExternalFileOptions, Options, SstFileWriter};

use super::table::row_key_into;
use crate::storage::thread::stand_back;
use crate::storage::{Row, fatal};

/// What names of files begin with that RocksDB has not taken over.
const PREFIX: &str = "staged.";

/// How and where files are made.
pub(super) struct Place {
    pub(super) db: Arc<DB>,
    /// Of the database.
    pub(super) settings: Options,
    pub(super) directory: PathBuf,
    /// A file is taken over when it reaches this size.
    pub(super) file_bytes: u64,
}

/// A generation that is being made.
pub(super) struct Staging {
    pub(super) generation: u32,
    entrance: Entrance,
    thread: JoinHandle<()>,
}

/// Where its rows go in.
#[derive(Clone)]
pub(super) struct Entrance(SyncSender<Vec<Row>>);

impl Entrance {
    /// Adds rows, in key order and behind those before. Waits until those before are written.
    pub(super) fn add(&self, rows: Vec<Row>) {
        // Only a panic of the thread, which ends the process, leaves nobody there.
        let _ = self.0.send(rows);
    }
}

impl Staging {
    pub(super) fn start(place: Arc<Place>, generation: u32) -> Self {
        // One piece is written while the next one is fetched.
        let (entrance, pieces) = mpsc::sync_channel(0);
        let write = move || {
            stand_back();
            place.write(generation, &pieces).unwrap_or_else(|error| fatal("write a snapshot's rows", &error));
        };
        let thread = std::thread::Builder::new().name("table-staging".to_owned()).spawn(write);
        let thread = thread.unwrap_or_else(|error| fatal("start a thread", &error));
        Self { generation, entrance: Entrance(entrance), thread }
    }

    pub(super) fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Waits until RocksDB has everything.
    pub(super) fn finish(self) {
        drop(self.entrance);
        if self.thread.join().is_err() {
            fatal("write a snapshot's rows", &"the thread that does it panicked");
        }
    }
}

impl Place {
    fn write(&self, generation: u32, pieces: &Receiver<Vec<Row>>) -> Result<(), Error> {
        let mut rows = pieces.iter().flatten().peekable();
        let mut key = Vec::new();
        for number in 0_u32.. {
            if rows.peek().is_none() {
                break;
            }
            let path = self.directory.join(format!("{PREFIX}{generation}.{number}"));
            let mut file = SstFileWriter::create(&self.settings);
            file.open(&path)?;
            while file.file_size() < self.file_bytes
                && let Some((row, value)) = rows.next()
            {
                row_key_into(&mut key, generation, &row);
                file.put(&key, value)?;
            }
            file.finish()?;
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.db.ingest_external_file_opts(&options, vec![path])?;
        }
        Ok(())
    }
}

/// Removes files that a crash left behind.
pub(super) fn remove_leftovers(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
