//! The table in RocksDB.
//!
//! Keys carry their generation as a prefix, in one column family: what is durable is then always a
//! prefix of the writes, with no write-ahead log at all. A row of generation 0 names the live generation
//! and the snapshot it was made from.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use ::rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, ReadOptions, ReadTier, Snapshot, WriteBatch,
    WriteOptions,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use self_cell::self_cell;
use serde::{Deserialize, Serialize};

use super::super::{APPLIED_KEY, Applied, Batch, Change, OpenError, Read, Row, ScanLimit, Table, fatal};
use super::{FORMAT, FORMAT_KEY, check_format, common_options, unavailable};
use crate::types::EntryId;

const LIVE_KEY: &[u8] = b"\0\0\0\0live";
const PREFIX_BYTES: usize = 4;

/// Memory of a table.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// Rows not flushed yet; two such buffers may exist. Default 24 MiB.
    pub write_buffer_bytes: usize,
    /// Blocks read from disk. Default 48 MiB.
    pub block_cache_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { write_buffer_bytes: 24 << 20, block_cache_bytes: 48 << 20 }
    }
}

/// Which generation is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Live {
    generation: u32,
    installed: Option<EntryId>,
}

const FIRST: Live = Live { generation: 1, installed: None };

/// A table on disk.
pub struct RocksTable {
    db: Arc<DB>,
    unlogged: WriteOptions,
    live: Mutex<Live>,
    /// The live generation again, for readers.
    generation: AtomicU32,
}

/// Opens the table at `path`.
///
/// # Errors
/// [`OpenError`]
pub fn open_table(path: &Path, table: TableOptions) -> Result<RocksTable, OpenError> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(table.block_cache_bytes));
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = common_options();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(table.write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    let db = DB::open(&options, path).map_err(|error| unavailable(path, &error))?;
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    let fail = |error: ::rocksdb::Error| unavailable(path, &error);
    if !check_format(path, db.get(FORMAT_KEY).map_err(fail)?)? {
        db.put_opt(FORMAT_KEY, FORMAT.to_be_bytes(), &unlogged).map_err(fail)?;
        db.flush_opt(&waiting()).map_err(fail)?;
    }
    let live = match db.get(LIVE_KEY).map_err(fail)? {
        None => FIRST,
        Some(bytes) => base::codec::decode(&bytes, 64).map_err(|error| OpenError::Corrupt {
            path: path.display().to_string(),
            what: format!("the row that names the live generation: {error}"),
        })?,
    };
    // What a crash left of other generations.
    let mut batch = WriteBatch::default();
    batch.delete_range(prefix(1), prefix(live.generation));
    batch.delete_range(prefix(live.generation + 1), prefix(u32::MAX));
    db.write_opt(batch, &unlogged).map_err(fail)?;
    let generation = AtomicU32::new(live.generation);
    Ok(RocksTable { db: Arc::new(db), unlogged, live: Mutex::new(live), generation })
}

fn prefix(generation: u32) -> [u8; PREFIX_BYTES] {
    generation.to_be_bytes()
}

fn waiting() -> FlushOptions {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    options
}

fn in_generation(generation: u32, key: &[u8]) -> Vec<u8> {
    [&prefix(generation)[..], key].concat()
}

/// Rows behind `start`, by an iterator that sees what `options` sees.
fn scan_with(
    db: &DB,
    mut options: ReadOptions,
    generation: u32,
    start: &[u8],
    end: Option<&[u8]>,
    limit: ScanLimit,
) -> Vec<Row> {
    let from = in_generation(generation, start);
    let to = match end {
        Some(end) => in_generation(generation, end),
        None => prefix(generation + 1).to_vec(),
    };
    let mut found = Vec::new();
    if from >= to {
        return found;
    }
    options.set_iterate_upper_bound(to);
    let mut rows = db.raw_iterator_opt(options);
    rows.seek(from);
    let mut bytes = 0;
    while let Some((key, value)) = rows.item() {
        let key = Bytes::copy_from_slice(&key[PREFIX_BYTES..]);
        let value = Bytes::copy_from_slice(value);
        bytes += key.len() + value.len();
        found.push((key, value));
        if found.len() >= limit.rows || bytes >= limit.bytes {
            return found;
        }
        rows.next();
    }
    if let Err(error) = rows.status() {
        fatal("read the table", &error);
    }
    found
}

type BorrowedSnapshot<'a> = Snapshot<'a>;

self_cell!(
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[not_covariant]
        dependent: BorrowedSnapshot,
    }
);

struct View {
    snapshot: OwnedSnapshot,
    generation: u32,
}

impl Read for View {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let key = in_generation(self.generation, key);
        self.snapshot.with_dependent(|_, snapshot| match snapshot.get(&key) {
            Ok(value) => value.map(Bytes::from),
            Err(error) => fatal("read the table", &error),
        })
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        self.snapshot.with_dependent(|db, snapshot| {
            let mut options = ReadOptions::default();
            options.set_snapshot(snapshot);
            scan_with(db, options, self.generation, start, end, limit)
        })
    }
}

impl RocksTable {
    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    fn write_batch(&self, batch: WriteBatch) {
        if let Err(error) = self.db.write_opt(batch, &self.unlogged) {
            fatal("write the table", &error);
        }
    }

    fn flush_now(&self) {
        if let Err(error) = self.db.flush_opt(&waiting()) {
            fatal("flush the table", &error);
        }
    }

    fn persisted(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        self.db.get_opt(key, &options).unwrap_or_else(|error| fatal("read the table", &error))
    }
}

impl Read for RocksTable {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.db.get(in_generation(self.generation(), key)) {
            Ok(value) => value.map(Bytes::from),
            Err(error) => fatal("read the table", &error),
        }
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        scan_with(&self.db, ReadOptions::default(), self.generation(), start, end, limit)
    }
}

impl Table for RocksTable {
    fn write(&self, changes: Batch) {
        let generation = self.generation();
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                Change::Put(key, value) => batch.put(in_generation(generation, &key), value),
                Change::Delete(key) => batch.delete(in_generation(generation, &key)),
                Change::DeleteRange(start, end) => {
                    batch.delete_range(in_generation(generation, &start), in_generation(generation, &end));
                }
            }
        }
        self.write_batch(batch);
    }

    fn view(&self) -> Box<dyn Read> {
        let generation = self.generation();
        let snapshot = OwnedSnapshot::new(Arc::clone(&self.db), |db| db.snapshot());
        Box::new(View { snapshot, generation })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        self.flush_now();
        futures::future::ready(()).boxed()
    }

    fn durable_applied(&self) -> EntryId {
        let live = self.persisted(LIVE_KEY).map_or(FIRST, |bytes| {
            base::codec::decode(&bytes, 64).unwrap_or_else(|error| fatal("read the table", &error))
        });
        self.persisted(&in_generation(live.generation, APPLIED_KEY)).map_or(EntryId::ZERO, |bytes| {
            let applied: Applied =
                base::codec::decode(&bytes, 64).unwrap_or_else(|error| fatal("read the table", &error));
            applied.id
        })
    }

    fn installed(&self) -> Option<EntryId> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).installed
    }

    fn stage_start(&self) {
        let next = self.generation() + 1;
        let mut batch = WriteBatch::default();
        batch.delete_range(prefix(next), prefix(next + 1));
        self.write_batch(batch);
    }

    fn stage(&self, rows: Vec<Row>) {
        let next = self.generation() + 1;
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(in_generation(next, &key), value);
        }
        self.write_batch(batch);
    }

    fn switch(&self, snapshot: EntryId) -> BoxFuture<'_, ()> {
        let before = self.generation();
        let next = Live { generation: before + 1, installed: Some(snapshot) };
        // The staged rows first: the row that names them must never be durable without them (rule 33).
        self.flush_now();
        let mut batch = WriteBatch::default();
        batch.put(LIVE_KEY, base::codec::encode(&next));
        batch.delete_range(prefix(before), prefix(before + 1));
        self.write_batch(batch);
        self.flush_now();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.generation.store(next.generation, Ordering::Release);
        futures::future::ready(()).boxed()
    }
}
