//! A replica's stores, and how durable they are.
//!
//! There are two stores, because stalls are per store: the [`Log`], of which every write is synced,
//! and the [`Table`], which is never synced on its own, because the log is its write-ahead log. The
//! log is dropped only below what the table has made durable.
//!
//! Reads and writes of an open store cannot fail for their callers: the storage itself ends the
//! process after a disk error ([`fatal`], correctness rule 29). Opening can fail, with a named
//! error.

mod error;
pub mod memory;
mod thread;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use self::error::{OpenError, fatal, unreadable};
pub use self::thread::{LogThread, no_runtime, stand_back, start_thread};
pub use crate::core::stable::{Restored, Run, Save};
pub use crate::types::Row;
use crate::types::{EntryId, Index};

/// A log that was loaded: it is only written from then on.
pub trait LogWriter: Send {
    /// Makes `save` durable, atomically. Completes when it is durable. (It may block: the log has
    /// its own thread.)
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()>;

    /// Saves since this log was opened, each of which is a synced write.
    fn syncs(&self) -> u64;
}

/// The Raft log on stable storage: written always, read once, at start.
pub trait Log: LogWriter {
    /// Everything that was saved.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] when an entry is missing, damaged or out of order (correctness rule
    /// 31).
    fn load(&mut self) -> Result<Restored, OpenError>;

    /// There is no save at present: time for work that need not be durable at once (correctness
    /// rule 61). One call does one piece of it, for a save may come; it returns whether there may be
    /// more.
    fn rest(&mut self) -> bool {
        false
    }

    /// How many files could not be read at the load, and were not needed (correctness rule 79).
    fn unreadable_files(&self) -> usize {
        0
    }

    /// The entries at or below the marker that are still there.
    fn kept(&self) -> Arc<dyn Kept> {
        Arc::new(NothingKept)
    }
}

/// Entries of a log at or below its marker, for lagging members (correctness rule 79). No promise
/// depends on them: a member that needs one that is gone gets a snapshot. Another thread reads them
/// beside the saves.
pub trait Kept: Send + Sync {
    /// From now on the entries from this position on are kept, as far as the log's limit on their
    /// bytes allows.
    fn keep_from(&self, from: Index);

    /// The table has roughly so many bytes now: the log may keep half as many.
    fn set_table_bytes(&self, _bytes: u64) {}

    /// How many bytes may be kept at present. By default there is no bound: a log that keeps nothing
    /// is not a disk without space, for which a leader gives members up (correctness rule 133).
    fn bytes_max(&self) -> u64 {
        u64::MAX
    }

    /// Bytes of all files of the log, if it has any.
    fn file_bytes(&self) -> u64 {
        0
    }

    /// From this position on all entries are there.
    fn first(&self) -> Index;

    /// Entries after `prev`, up to `to` inclusive, which is compacted: at least one, and no more
    /// than fit into `bytes_max`. None: they are gone, or damaged.
    fn read(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run>;
}

/// For a log that keeps nothing.
#[derive(Debug)]
pub struct NothingKept;

impl Kept for NothingKept {
    fn keep_from(&self, _: Index) {}

    fn first(&self) -> Index {
        Index::NEVER
    }

    fn read(&self, _: Index, _: Index, _: usize) -> Option<Run> {
        None
    }
}

/// Where a scan stops. It returns at least one row if there is any.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimit {
    /// At most this many rows.
    pub rows: usize,
    /// Stop after the row that reaches this many bytes of keys and values.
    pub bytes: usize,
}

/// Reading rows, live or from a view.
pub trait Read: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Bytes>;

    /// Rows with `start <= key`, and `key < end` if there is an end, ascending.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row>;
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set a row.
    Put(Bytes, Bytes),
    /// Remove a row.
    Delete(Bytes),
    /// Remove every row with `.0 <= key < .1`.
    DeleteRange(Bytes, Bytes),
}

/// Changes that take effect together, in order.
pub type Batch = Vec<Change>;

/// How far a table is: the last entry applied to it, and a hash chained over every change made by
/// the entries up to there, equal on all replicas at the same entry (correctness rule 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last entry applied.
    pub id: EntryId,
    /// The chained hash.
    pub hash: u64,
}

/// Key of the row that holds [`Applied`]; keys starting with a zero byte belong to this library.
pub const APPLIED_KEY: &[u8] = b"\0applied";

/// The ordered rows in which all replicated state lives, [`Applied`] among them.
///
/// Tables have *generations*: a snapshot is staged beside the live rows in a fresh generation and
/// becomes the live one in one durable step.
pub trait Table: Read {
    /// Applies `batch` atomically. Not durable before a flush; what is durable is always a prefix
    /// of the writes.
    fn write(&self, batch: Batch);

    /// A future to await before the next [`Self::write`], if any. (RocksDB waits inside of it.)
    fn ready(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// Unchanging rows as of now.
    fn view(&self) -> Box<dyn Read>;

    /// Makes everything written so far durable. Completes when it is.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// Roughly how many bytes its rows take. (It may take a while.)
    fn bytes(&self) -> u64;

    /// The applied row as far as it is durable.
    fn durable_applied(&self) -> EntryId;

    /// The snapshot from which the live generation was made, if it was made from one.
    fn installed(&self) -> Option<EntryId>;

    /// Durably marks the rows of the live generation as bad (correctness rule 69). A
    /// [`Self::switch`] removes the mark together with the rows that it is about.
    fn mark_bad(&self) -> BoxFuture<'_, ()>;

    /// Whether the live generation is marked so.
    fn is_bad(&self) -> bool;

    /// Drops what is staged and starts a fresh generation.
    fn stage_start(&self);

    /// Drops what is staged.
    fn stage_drop(&self);

    /// Adds rows to the staged generation, in key order and after those before.
    fn stage(&self, rows: Vec<Row>);

    /// Makes the staged generation durable, then durably makes it the live one, made from `snapshot`, and
    /// drops the old one. A crash at any point leaves one or the other (correctness rule 33).
    fn switch(&self, snapshot: EntryId) -> BoxFuture<'_, ()>;
}

/// What a state machine knows of its rows, which come in the order of their keys.
pub trait JudgeRows {
    /// Judges one.
    ///
    /// # Errors
    /// In words, what is wrong.
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String>;

    /// Judges all of them together, after the last.
    ///
    /// # Errors
    /// In words, what is wrong.
    fn end(&mut self) -> Result<(), String>;
}

/// Both stores of a replica.
pub type Stores = (Box<dyn Log>, Arc<dyn Table>);

/// The applied row of `rows`; the zero id for a table to which nothing was applied.
pub fn applied(rows: &dyn Read) -> Applied {
    rows.get(APPLIED_KEY).map_or_else(Applied::default, |bytes| {
        base::codec::decode(&bytes, 64).unwrap_or_else(|error| unreadable("decode the applied row", &error))
    })
}
