//! A replica's stores, and how durable they are.
//!
//! There are two stores, because stalls are per store: the [`Log`], of which every write is synced,
//! and the [`Table`], which is never synced on its own, because the log is its write-ahead log. The
//! log is dropped only below what the table has made durable.
//!
//! Reads and writes of an open store cannot fail for their callers: the storage itself ends the
//! process after a disk error ([`fatal`], correctness rule 29). Opening can fail, with a named
//! error.

#[cfg(test)]
mod conformance;
pub mod directory;
mod lines;
pub mod memory;
pub mod rocksdb;
pub mod thread;
pub mod wal;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use base::codec::Denied;
use base::process::{Fatal, end};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, EntryId, HardState, Index};

/// One write to the log: atomic and synced. Its parts are in the order in which they take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Save {
    /// Term and vote, when they changed.
    pub hard_state: Option<HardState>,
    /// Drop every entry at or above this position (a term conflict, 5.3).
    pub truncate_from: Option<Index>,
    /// Append these, which continue the log without a gap; if the marker is beyond the log, they
    /// continue the marker.
    pub entries: Vec<Entry>,
    /// Drop every entry at or below this one and remember its id: the compaction marker. If it is
    /// beyond the last entry the log becomes empty and continues after the marker.
    pub marker: Option<EntryId>,
    /// From now on the log may lack acknowledged entries, up to this one; zero: it lacks nothing
    /// any more (correctness rule 62).
    pub promised: Option<EntryId>,
    /// Room for later fields, of the marker too.
    pub more: Denied,
}

/// The content of a log when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// Id of the last entry that was dropped; zero if none ever was.
    pub marker: EntryId,
    /// The entries after the marker, without a gap.
    pub entries: Vec<Entry>,
    /// The last entry that this server has acknowledged, if the log may lack it; zero if it lacks nothing
    /// (correctness rule 62).
    pub promised: EntryId,
}

/// The Raft log on stable storage: written always, read once, at start.
pub trait Log: Send {
    /// Everything that was saved.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] when an entry is missing, damaged or out of order (correctness rule
    /// 31).
    fn load(&mut self) -> Result<Restored, OpenError>;

    /// Makes `save` durable, atomically. Completes when it is durable. (It may block: the log has
    /// its own thread.)
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()>;

    /// Saves since this log was opened, each of which is a synced write.
    fn syncs(&self) -> u64;

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

    /// From this position on all entries are there.
    fn first(&self) -> Index;

    /// Entries after `prev`, up to `to` inclusive, which is compacted: at least one, and no more
    /// than fit into `bytes_max`. None: they are gone, or damaged.
    fn read(&self, prev: Index, to: Index, bytes_max: usize) -> Option<Run>;
}

/// Entries without a gap, after another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The entry before the first.
    pub prev: EntryId,
    /// Not empty.
    pub entries: Vec<Entry>,
}

impl Run {
    /// The first of `entries` after `prev` that together fit into `bytes_max`, at least one, if
    /// they are undamaged and continue it.
    pub fn cut(prev: EntryId, entries: &[Entry], bytes_max: usize) -> Option<Self> {
        let (mut left, mut before, mut run) = (bytes_max, prev, Vec::new());
        for entry in entries {
            if entry.id.index != before.index.next() || entry.id.term < before.term || !entry.is_whole() {
                return None;
            }
            if !run.is_empty() && entry.weight() > left {
                break;
            }
            left = left.saturating_sub(entry.weight());
            before = entry.id;
            run.push(entry.clone());
        }
        (!run.is_empty()).then_some(Self { prev, entries: run })
    }
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

/// A row: key and value.
pub type Row = (Bytes, Bytes);

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

/// Both stores of a replica.
pub type Stores = (Box<dyn Log>, Arc<dyn Table>);

/// The applied row of `rows`; the zero id for a table to which nothing was applied.
pub fn applied(rows: &dyn Read) -> Applied {
    rows.get(APPLIED_KEY).map_or_else(Applied::default, |bytes| {
        base::codec::decode(&bytes, 64).unwrap_or_else(|error| unreadable("decode the applied row", &error))
    })
}

/// A store that cannot be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data contradict themselves.
    #[error(
        "{path}: damaged: {what}; this replica cannot be used: its group goes on without it while a majority is up; keep the directory and see docs/when-it-refuses.md"
    )]
    Corrupt {
        /// Where.
        path: String,
        /// What was found.
        what: String,
    },
    /// Written by a newer build.
    #[error("{path}: data format {found}, this build reads up to {supported}: run a newer build")]
    NewerFormat {
        /// Where.
        path: String,
        /// Format found.
        found: u32,
        /// Newest format this build reads.
        supported: u32,
    },
    /// Written by an older build, in a format that is not read any more.
    #[error(
        "{path}: data format {found}, this build reads {supported}: dump with the build that wrote it (`clerk dump`), and load that into a new cluster"
    )]
    OlderFormat {
        /// Where.
        path: String,
        /// Format found.
        found: u32,
        /// The format this build reads.
        supported: u32,
    },
    /// No data, and the start was not told to make any (correctness rule 32).
    #[error(
        "{path}: no server's data is here; if this server never ran, start it once with --new; if it did, its data is gone: it must not come back under its old member id"
    )]
    Absent {
        /// Where.
        path: String,
    },
    /// Data, where none was expected.
    #[error(
        "{path}: a server's data is already here: start without --new, which is for the first start only"
    )]
    AlreadyThere {
        /// Where.
        path: String,
    },
    /// Data of another server.
    #[error(
        "{path}: this is the data of {found}, not of {expected}: check --data-dir, --cluster, --group and --id"
    )]
    AnotherServer {
        /// Where.
        path: String,
        /// Whose data it is.
        found: String,
        /// Whose data was expected.
        expected: String,
    },
    /// Made with other members (correctness rule 50).
    #[error(
        "{path}: the data of a group with the members {found}, and --members names {expected}: nothing was started; a \
         group keeps its ids (give these same ids; their addresses may change)"
    )]
    OtherMembers {
        /// Where.
        path: String,
        /// The ids it was made with.
        found: String,
        /// The ids given.
        expected: String,
    },
    /// Of a level that this build does not know.
    #[error(
        "{path}: data of level {found}, this build knows level {supported}: nothing was started, run a newer build"
    )]
    HigherLevel {
        /// Where.
        path: String,
        /// The level found.
        found: u32,
        /// The highest level this build knows.
        supported: u32,
    },
    /// Another process has it open.
    #[error("{path}: in use by {holder}: one process at a time")]
    InUse {
        /// Where.
        path: String,
        /// The process, as far as it is known.
        holder: String,
    },
    /// The operating system or RocksDB refused.
    #[error("{path}: cannot open: {what}")]
    Unavailable {
        /// Where.
        path: String,
        /// Its words.
        what: String,
    },
}

/// Starts a thread; ends the process if there is none to be had.
pub(crate) fn start_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.unwrap_or_else(|error| end(Fatal::System, &format_args!("cannot start a thread: {error}")))
}

/// Ends the process: the operating system gives no runtime to a thread.
pub(crate) fn no_runtime(error: &std::io::Error) -> ! {
    end(Fatal::System, &format_args!("cannot start a runtime: {error}"))
}

/// Lowers the calling thread's priority: usually nobody waits for it. Best effort; Linux only.
pub(crate) fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Ok(now) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, now + 5);
    }
}

/// Ends the process after a disk error: the content of memory and disk is no longer known, and
/// retrying a failed sync has lost data elsewhere (correctness rule 29). Other causes:
/// [`base::process::end`].
pub fn fatal(doing: &str, error: &dyn fmt::Display) -> ! {
    end(Fatal::Disk, &format_args!("cannot {doing}: {error}"))
}

/// Ends the process over its own data that it cannot read: every replica of this build would read
/// them the same way, so continuing without them would be a guess.
pub fn unreadable(doing: &str, error: &dyn fmt::Display) -> ! {
    end(Fatal::Format, &format_args!("cannot {doing}: {error}"))
}
