//! The Raft log in a RocksDB instance of its own.
//!
//! Rows: term and vote; the compaction marker; and one row for the entries of each save, keyed by the
//! index of the first. A save is one synced batch. A truncation deletes the rows at or above it; a row
//! that reaches over it stays, and what follows overrides its tail when the log is read: by the next run,
//! or by an empty one if the save brought no entries. A compaction deletes the runs wholly below the
//! marker; a run that reaches over it stays.
//!
//! Recovery refuses a log with a hole in it (correctness rule 30): a record cut off at the very end was
//! never acknowledged and is dropped, anything else is damage, and files that are missing are noticed.
//!
//! Most entries die in memory, before RocksDB sorts them to disk: the write buffer is large, and it is
//! flushed by hand right behind a compaction, when the least of it is alive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::rocksdb::{DB, DBRecoveryMode, FlushOptions, ReadOptions, WriteBatch, WriteOptions};
use base::codec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::run::{self, Fault};
use super::{MIB, common, corrupt, open, open_error};
use crate::storage::{Log, OpenError, Restored, Save, fatal};
use crate::types::{Entry, EntryId, HardState, Index, Term};

const HARD_STATE: &[u8] = b"hard state";
const MARKER: &[u8] = b"marker";
/// First byte of a run's key; the index of its first entry follows, big-endian.
const RUN: u8 = b'e';
/// Behind the last run.
const RUNS_END: &[u8] = &[RUN + 1];

/// Settings of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Make it if it is not there.
    pub create: bool,
    /// RocksDB's write buffer. At least twice `log_bytes_hard_max`, so that it never has to be flushed
    /// while everything in it is alive. Default 128 MiB.
    pub write_buffer_bytes: usize,
    /// The write buffer is flushed behind a compaction once so much was written to it. Bounds memory, and
    /// the time a start takes. Default 16 MiB.
    pub flush_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { create: true, write_buffer_bytes: 128 * MIB, flush_bytes: 16 * MIB }
    }
}

impl LogOptions {
    /// Settings that fit a replica with these limits.
    pub fn for_limits(log_bytes_max: usize, log_bytes_hard_max: usize) -> Self {
        Self {
            write_buffer_bytes: log_bytes_hard_max.saturating_mul(2).max(8 * MIB),
            flush_bytes: log_bytes_max.max(MIB),
            ..Self::default()
        }
    }
}

/// Opens the log in the directory `path`.
///
/// # Errors
/// [`OpenError`], naming the damage if there is any.
pub fn open_log(path: &Path, options: &LogOptions) -> Result<Box<dyn Log>, OpenError> {
    let mut settings = common(options.create);
    settings.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    settings.set_track_and_verify_wals_in_manifest(true);
    settings.set_write_buffer_size(options.write_buffer_bytes);
    settings.set_allow_concurrent_memtable_write(false);
    // In an instance without column families this only bounds how much disk is set aside in advance.
    settings.set_max_total_wal_size(16 * MIB as u64);
    let db = open(path, options.create, &settings)?;
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    Ok(Box::new(RocksLog {
        db,
        path: path.to_owned(),
        synced,
        flush_bytes: options.flush_bytes,
        shape: None,
        syncs: 0,
        unflushed_bytes: 0,
    }))
}

struct RocksLog {
    db: DB,
    path: PathBuf,
    synced: WriteOptions,
    flush_bytes: usize,
    /// Known once loaded.
    shape: Option<Shape>,
    syncs: u64,
    unflushed_bytes: usize,
}

/// Which rows there are, so that a save needs no reading.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    marker: Index,
    last: Index,
    /// First index of a run, and its last one that counts: what a later run overrides does not.
    runs: BTreeMap<Index, Index>,
}

impl Log for RocksLog {
    fn load(&mut self) -> Result<Restored, OpenError> {
        let hard_state: HardState = self.read_row(HARD_STATE)?.unwrap_or_default();
        let marker: EntryId = self.read_row(MARKER)?.unwrap_or_default();
        let (runs, mut entries) = self.read_runs()?;
        let first = entries.first().map_or(marker.index.next(), |entry| entry.id.index);
        if first > marker.index.next() {
            return Err(corrupt(&self.path, format!("entry {} is missing", marker.index.next())));
        }
        let below = entries.partition_point(|entry| entry.id.index <= marker.index);
        entries.drain(..below);
        check_terms(marker, &entries, hard_state.term).map_err(|what| corrupt(&self.path, what))?;
        let last = entries.last().map_or(marker.index, |entry| entry.id.index);
        self.shape = Some(Shape { marker: marker.index, last, runs });
        Ok(Restored { hard_state, marker, entries })
    }

    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        let shape = self.shape.as_mut().expect("a log is loaded before it is written");
        let batch = shape.batch(save);
        self.unflushed_bytes += batch.size_in_bytes();
        self.db.write_opt(batch, &self.synced).unwrap_or_else(|error| fatal("write the log", &error));
        self.syncs += 1;
        if save.marker.is_some() && self.unflushed_bytes >= self.flush_bytes {
            self.unflushed_bytes = 0;
            let mut background = FlushOptions::default();
            background.set_wait(false);
            self.db.flush_opt(&background).unwrap_or_else(|error| fatal("flush the log", &error));
        }
        futures::future::ready(()).boxed()
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }
}

impl Shape {
    /// The batch of `save`, its parts in the order in which they take effect: entries behind a marker that lies
    /// beyond the log continue that one.
    fn batch(&mut self, save: &Save) -> WriteBatch {
        let mut batch = WriteBatch::default();
        if let Some(hard_state) = &save.hard_state {
            batch.put(HARD_STATE, seal(hard_state));
        }
        let cut = save.truncate_from.filter(|from| *from <= self.last);
        if let Some(from) = cut {
            self.truncate(&mut batch, from);
        }
        let jumps = |marker: &EntryId| {
            marker.index > self.last && save.entries.first().is_none_or(|first| first.id.index > marker.index)
        };
        let jump = save.marker.filter(jumps);
        if let Some(marker) = jump {
            self.mark(&mut batch, marker);
        }
        if let (Some(first), Some(last)) = (save.entries.first(), save.entries.last()) {
            assert_eq!(first.id.index, self.last.next(), "entries continue the log");
            batch.put(run_key(first.id.index), run::encode(&save.entries));
            self.runs.insert(first.id.index, last.id.index);
            self.last = last.id.index;
        } else if let (Some(from), None) = (cut, jump) {
            // Overrides the tail of a run that reaches over the cut.
            batch.put(run_key(from), run::encode(&[]));
            self.runs.insert(from, self.last);
        }
        if let (Some(marker), None) = (save.marker, jump) {
            self.mark(&mut batch, marker);
        }
        batch
    }

    fn mark(&mut self, batch: &mut WriteBatch, marker: EntryId) {
        batch.put(MARKER, seal(&marker));
        self.drop_prefix(batch, marker.index);
    }

    fn truncate(&mut self, batch: &mut WriteBatch, from: Index) {
        assert!(from > self.marker, "what was compacted is never truncated (rule 13)");
        batch.delete_range(&run_key(from)[..], RUNS_END);
        self.runs.split_off(&from);
        self.last = from.previous();
        if let Some(mut reaching) = self.runs.last_entry() {
            let last = (*reaching.get()).min(self.last);
            reaching.insert(last);
        }
    }

    fn drop_prefix(&mut self, batch: &mut WriteBatch, marker: Index) {
        let kept = self.runs.iter().find(|(_, last)| **last > marker).map(|(first, _)| *first);
        let above = kept.map_or_else(Default::default, |first| self.runs.split_off(&first));
        if !std::mem::replace(&mut self.runs, above).is_empty() {
            let end = kept.map_or_else(|| RUNS_END.to_vec(), |first| run_key(first).to_vec());
            batch.delete_range(&[RUN][..], &end);
        }
        self.marker = marker;
        self.last = self.last.max(marker);
    }
}

type Runs = BTreeMap<Index, Index>;

impl RocksLog {
    fn read_row<T: DeserializeOwned>(&self, key: &'static [u8]) -> Result<Option<T>, OpenError> {
        let Some(bytes) = self.db.get_pinned(key).map_err(|error| open_error(&self.path, &error))? else {
            return Ok(None);
        };
        let name = String::from_utf8_lossy(key);
        unseal(&bytes).map(Some).map_err(|what| corrupt(&self.path, format!("the {name} row: {what}")))
    }

    /// The runs, and the entries they make together, later ones overriding.
    fn read_runs(&self) -> Result<(Runs, Vec<Entry>), OpenError> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(&[RUN][..]..RUNS_END);
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_opt(options);
        let mut runs = Runs::new();
        let mut entries: Vec<Entry> = Vec::new();
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let first = key.get(1..).and_then(|index| index.try_into().ok()).map(u64::from_be_bytes);
            let first = Index(first.ok_or_else(|| corrupt(&self.path, "a run's key is not an index"))?);
            let run = run::decode(value).map_err(|fault| self.fault(fault))?;
            let expected = entries.last().map_or(first, |entry| entry.id.index.next());
            if first > expected {
                return Err(corrupt(&self.path, format!("entry {expected} is missing")));
            }
            if let Some((at, entry)) = (first.0..).zip(&run).find(|(at, entry)| entry.id.index.0 != *at) {
                return Err(corrupt(&self.path, format!("entry {} stands at position {at}", entry.id)));
            }
            entries.truncate(entries.partition_point(|entry| entry.id.index < first));
            if let Some(mut overridden) = runs.last_entry() {
                let last = (*overridden.get()).min(first.previous());
                overridden.insert(last);
            }
            runs.insert(first, run.last().map_or(first.previous(), |entry| entry.id.index));
            entries.extend(run);
            rows.next();
        }
        rows.status().map_err(|error| open_error(&self.path, &error))?;
        Ok((runs, entries))
    }

    fn fault(&self, fault: Fault) -> OpenError {
        match fault {
            Fault::Damaged(what) => corrupt(&self.path, what),
            Fault::Newer(found) => OpenError::NewerFormat {
                path: self.path.display().to_string(),
                found: u32::from(found),
                supported: u32::from(run::FORMAT),
            },
        }
    }
}

/// Terms never fall, and none is above the current one (rule 31).
fn check_terms(marker: EntryId, entries: &[Entry], current: Term) -> Result<(), String> {
    let mut before = marker;
    for entry in entries {
        if entry.id.term < before.term {
            return Err(format!("terms fall from entry {before} to entry {}", entry.id));
        }
        before = entry.id;
    }
    if before.term > current {
        return Err(format!("entry {before} is of a later term than the current one, {current}"));
    }
    Ok(())
}

fn run_key(first: Index) -> [u8; 9] {
    let mut key = [RUN; 9];
    key[1..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// A small row behind its checksum.
fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let bytes = codec::encode(value);
    [&crc32fast::hash(&bytes).to_be_bytes()[..], &bytes].concat()
}

fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first_chunk::<4>() {
        Some((checksum, body)) if crc32fast::hash(body) == u32::from_be_bytes(*checksum) => {
            codec::decode(body, body.len()).map_err(|error| error.to_string())
        }
        _ => Err("its checksum does not match".to_owned()),
    }
}
