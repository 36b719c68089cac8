//! Rows of a snapshot on their way into RocksDB.
//!
//! They arrive in key order and nobody reads them before the switch. So they need no memory for
//! sorting, and no later sorting either: a thread writes them to files in RocksDB's format, and
//! RocksDB adds each file unchanged, synced, below everything else.
//!
//! Left out on purpose: stopping without adding the rows that have arrived. The generation of rows
//! that are no longer needed is removed, whatever there is of it.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use ::rocksdb::Error;
use base::process::{Fatal, end};

use super::files::Files;
use super::generations::row_key_into;
use raft::storage::{Row, fatal, stand_back, start_thread};

const DOING: &str = "write a snapshot's rows";

/// A generation that is being made.
pub(super) struct Staging {
    generation: u32,
    /// Where its rows are sent, in key order.
    pub(super) entrance: SyncSender<Vec<Row>>,
    thread: JoinHandle<()>,
}

impl Staging {
    /// Begins `generation`. A file is added to RocksDB when it reaches `file_bytes`.
    pub(super) fn start(files: Arc<Files>, file_bytes: u64, generation: u32) -> Self {
        // One piece is written while the next one is fetched.
        let (entrance, pieces) = mpsc::sync_channel(0);
        let write = move || {
            stand_back();
            write_rows(&files, file_bytes, generation, &pieces).unwrap_or_else(|error| fatal(DOING, &error));
        };
        Self { generation, entrance, thread: start_thread("table-staging", write) }
    }

    /// Waits until RocksDB has all of it, durably; returns its number.
    pub(super) fn finish(self) -> u32 {
        drop(self.entrance);
        if self.thread.join().is_err() {
            end(Fatal::Bug, &"the thread that writes files of the table panicked");
        }
        self.generation
    }
}

fn write_rows(
    files: &Files,
    file_bytes: u64,
    generation: u32,
    pieces: &Receiver<Vec<Row>>,
) -> Result<(), Error> {
    let mut rows = pieces.iter().flatten().peekable();
    let mut key = Vec::new();
    while rows.peek().is_some() {
        let made = files.make(|file| {
            while file.file_size() < file_bytes
                && let Some((row, value)) = rows.next()
            {
                row_key_into(&mut key, generation, &row);
                file.put(&key, value)?;
            }
            Ok(())
        })?;
        files.take_over(vec![made])?;
    }
    Ok(())
}
