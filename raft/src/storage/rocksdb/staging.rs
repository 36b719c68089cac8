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

use super::generations::row_key_into;
use super::stand_back;
use crate::storage::{Row, fatal, start_thread};

/// What names of files begin with that RocksDB has not taken over.
const PREFIX: &str = "staged.";
const DOING: &str = "write a snapshot's rows";

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
    generation: u32,
    /// Where its rows go in, in key order.
    pub(super) entrance: SyncSender<Vec<Row>>,
    thread: JoinHandle<()>,
}

impl Staging {
    pub(super) fn start(place: Arc<Place>, generation: u32) -> Self {
        // One piece is written while the next one is fetched.
        let (entrance, pieces) = mpsc::sync_channel(0);
        let write = move || {
            stand_back();
            place.write(generation, &pieces).unwrap_or_else(|error| fatal(DOING, &error));
        };
        Self { generation, entrance, thread: start_thread("table-staging", write) }
    }

    /// Waits until RocksDB has all of it, durably; its number.
    pub(super) fn finish(self) -> u32 {
        drop(self.entrance);
        if self.thread.join().is_err() {
            fatal(DOING, &"the thread that does it panicked");
        }
        self.generation
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
