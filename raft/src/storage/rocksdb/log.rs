//! The Raft log in RocksDB.
//!
//! One row per save holds a *run* of entries under the index of its first; so a save costs one row however
//! many entries it has. Where runs overlap, the later index wins: a truncation inside a run leaves its row
//! and writes the new entries under a higher key. Rows:
//!
//! * `e` + first index (big-endian): a run, each entry with format version, id, checksum, payload;
//! * `h`: term and vote; `m`: the compaction marker.

use std::collections::BTreeMap;
use std::path::Path;

use ::rocksdb::{DB, DBRecoveryMode, IteratorMode, WriteBatch, WriteOptions};
use bytes::{Buf, BufMut, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::{Log, OpenError, Restored, Save, fatal};
use super::{FORMAT, FORMAT_KEY, check_format, common_options, unavailable};
use crate::types::{Entry, EntryId, HardState, Index, Payload};

const HARD_STATE_KEY: &[u8] = b"h";
const MARKER_KEY: &[u8] = b"m";
const ENTRY_FORMAT: u8 = 1;
const EMPTY: u8 = 0;
const COMMAND: u8 = 1;
/// Format, term, index, kind, length, checksum.
const HEADER_BYTES: usize = 1 + 8 + 8 + 1 + 4 + 4;

/// A log on disk.
pub struct RocksLog {
    db: DB,
    path: String,
    synced: WriteOptions,
    /// First and (logical) last index of each run on disk.
    runs: BTreeMap<Index, Index>,
    syncs: u64,
}

/// Opens the log at `path`. `write_buffer_bytes`: twice the log bytes that start a compaction, so that
/// compacted entries mostly die in memory.
///
/// # Errors
/// [`OpenError`]
pub fn open_log(path: &Path, write_buffer_bytes: usize) -> Result<RocksLog, OpenError> {
    let mut options = common_options();
    // Rule 30: the default stops silently at the first bad record in mid-log and opens.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    let db = DB::open(&options, path).map_err(|error| unavailable(path, &error))?;
    let found = db.get(FORMAT_KEY).map_err(|error| unavailable(path, &error))?;
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    if !check_format(path, found)? {
        db.put_opt(FORMAT_KEY, FORMAT.to_be_bytes(), &synced).map_err(|error| unavailable(path, &error))?;
    }
    Ok(RocksLog { db, path: path.display().to_string(), synced, runs: BTreeMap::new(), syncs: 0 })
}

fn run_key(first: Index) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&first.0.to_be_bytes());
    key
}

fn checksum(id: EntryId, kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.term.0.to_be_bytes());
    hasher.update(&id.index.0.to_be_bytes());
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

fn encode_run(entries: &[Entry]) -> Vec<u8> {
    let bytes = entries.iter().map(|entry| HEADER_BYTES + entry.weight()).sum();
    let mut run = Vec::with_capacity(bytes);
    for entry in entries {
        let (kind, payload): (u8, &[u8]) = match &entry.payload {
            Payload::Empty => (EMPTY, &[]),
            Payload::Command(command) => (COMMAND, command),
        };
        run.put_u8(ENTRY_FORMAT);
        run.put_u64(entry.id.term.0);
        run.put_u64(entry.id.index.0);
        run.put_u8(kind);
        run.put_u32(u32::try_from(payload.len()).unwrap_or_else(|error| fatal("log an entry", &error)));
        run.put_u32(checksum(entry.id, kind, payload));
        run.put_slice(payload);
    }
    run
}

fn decode_entry(run: &mut Bytes) -> Result<Entry, String> {
    if run.remaining() < HEADER_BYTES {
        return Err("an entry is cut short".to_owned());
    }
    let format = run.get_u8();
    if format != ENTRY_FORMAT {
        return Err(format!("an entry of format {format}: a newer build wrote it"));
    }
    let id = EntryId::new(run.get_u64(), run.get_u64());
    let kind = run.get_u8();
    let length = run.get_u32() as usize;
    let expected = run.get_u32();
    if run.remaining() < length {
        return Err(format!("entry {id} is cut short"));
    }
    let payload = run.split_to(length);
    if checksum(id, kind, &payload) != expected {
        return Err(format!("the checksum of entry {id} is wrong"));
    }
    match kind {
        EMPTY => Ok(Entry { id, payload: Payload::Empty }),
        COMMAND => Ok(Entry { id, payload: Payload::Command(payload) }),
        _ => Err(format!("entry {id} is of the unknown kind {kind}")),
    }
}

fn encode_id(id: EntryId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.term.0.to_be_bytes());
    bytes[8..].copy_from_slice(&id.index.0.to_be_bytes());
    bytes
}

impl RocksLog {
    fn corrupt(&self, what: String) -> OpenError {
        OpenError::Corrupt { path: self.path.clone(), what }
    }

    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, OpenError> {
        let row = self.db.get(key).map_err(|error| self.corrupt(error.to_string()))?;
        Ok(row.map(Bytes::from))
    }

    fn read(&mut self) -> Result<Restored, OpenError> {
        let hard_state = match self.row(HARD_STATE_KEY)? {
            None => HardState::default(),
            Some(bytes) => base::codec::decode(&bytes, 64)
                .map_err(|error| self.corrupt(format!("term and vote: {error}")))?,
        };
        let marker = match self.row(MARKER_KEY)? {
            None => EntryId::ZERO,
            Some(mut bytes) if bytes.len() == 16 => EntryId::new(bytes.get_u64(), bytes.get_u64()),
            Some(_) => return Err(self.corrupt("the compaction marker is damaged".to_owned())),
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut runs = BTreeMap::new();
        let start = run_key(Index(0));
        for row in self.db.iterator(IteratorMode::From(&start, ::rocksdb::Direction::Forward)) {
            let (key, run) = row.map_err(|error| self.corrupt(error.to_string()))?;
            if key.first() != Some(&b'e') {
                break;
            }
            let mut run = Bytes::from(run.into_vec());
            let mut first = None;
            while run.has_remaining() {
                let entry = decode_entry(&mut run).map_err(|what| self.corrupt(what))?;
                if first.is_none() {
                    if key[..] != run_key(entry.id.index) {
                        return Err(self.corrupt(format!("entry {} lies under another index", entry.id)));
                    }
                    first = Some(entry.id.index);
                    // The later index wins where runs overlap.
                    while entries.last().is_some_and(|last| last.id.index >= entry.id.index) {
                        entries.pop();
                    }
                    if let Some(before) = runs.values_mut().next_back() {
                        *before = entry.id.index.previous().min(*before);
                    }
                }
                runs.insert(first.unwrap_or(entry.id.index), entry.id.index);
                if entry.id.index > marker.index {
                    entries.push(entry);
                }
            }
        }
        self.runs = runs;
        self.check(hard_state, marker, &entries)?;
        Ok(Restored { hard_state, marker, entries })
    }

    /// Rule 31: every index from the marker to the last is present, terms never fall.
    fn check(&self, hard_state: HardState, marker: EntryId, entries: &[Entry]) -> Result<(), OpenError> {
        let mut before = marker;
        for entry in entries {
            if entry.id.index != before.index.next() {
                let what = format!("entry {} is missing: {} follows {before}", before.index.next(), entry.id);
                return Err(self.corrupt(what));
            }
            if entry.id.term < before.term {
                return Err(self.corrupt(format!("terms fall from {before} to {}", entry.id)));
            }
            before = entry.id;
        }
        if before.term > hard_state.term {
            return Err(self.corrupt(format!("entry {before} is later than the term {}", hard_state.term)));
        }
        Ok(())
    }

    fn batch(&mut self, save: &Save) -> WriteBatch {
        let mut batch = WriteBatch::default();
        if let Some(hard_state) = &save.hard_state {
            batch.put(HARD_STATE_KEY, base::codec::encode(hard_state));
        }
        if let Some(from) = save.truncate_from {
            for first in self.runs.split_off(&from).keys() {
                batch.delete(run_key(*first));
            }
            if let Some(last) = self.runs.values_mut().next_back() {
                *last = from.previous().min(*last);
            }
        }
        if let (Some(first), Some(last)) = (save.entries.first(), save.entries.last()) {
            batch.put(run_key(first.id.index), encode_run(&save.entries));
            self.runs.insert(first.id.index, last.id.index);
        }
        if let Some(marker) = save.marker {
            while let Some(run) = self.runs.first_entry().filter(|run| *run.get() <= marker.index) {
                batch.delete(run_key(*run.key()));
                run.remove();
            }
            batch.put(MARKER_KEY, encode_id(marker));
        }
        batch
    }
}

impl Log for RocksLog {
    fn load(&mut self) -> Result<Restored, OpenError> {
        self.read()
    }

    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        let batch = self.batch(save);
        if let Err(error) = self.db.write_opt(batch, &self.synced) {
            fatal("write the log", &error);
        }
        self.syncs += 1;
        futures::future::ready(()).boxed()
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }
}
