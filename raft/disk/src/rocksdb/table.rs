//! The table in a separate RocksDB instance, without a write-ahead log.
//!
//! Durable is what was flushed. There is one column family, so that is always a prefix of the
//! writes. A read that skips rows that are only in memory shows how far the durable rows go.
//!
//! The key of a row is the number of its *generation* (32 bits, big-endian) and the row's own key.
//! Generation 0 holds one row, which names the live generation and the newest one ever begun;
//! numbers are never used twice. A switch (correctness rule 33) makes the staged generation
//! durable, names it live, flushes, and only then, with readers on the new one, removes the old.
//! After a crash in between, one of them is named and the next start removes the other.
//!
//! Writes first wait in a buffer and go into RocksDB many at a time, by a thread of the table
//! ([`Store`]). A caller that needs more than one row (a scan of waiting rows, a view, a flush)
//! first sends everything that waits, and waits for all of it. Rows of a snapshot bypass all that,
//! into separate files ([`Staging`]).
//!
//! Left out on purpose: syncing anything on its own, and knowing what rows mean.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use ::rocksdb::{DB, DBRawIterator, ReadOptions, ReadTier, Snapshot, WriteBatch};
use base::codec;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::buffer::Found;
use super::files::{Files, remove_leftovers};
use super::generations::{FORMAT, NAMES_KEY, Names, is_empty, leftovers, prefix, read_names, row_key};
use super::options::TableOptions;
use super::staging::Staging;
use super::store::{Load, Store, Way};
use super::{corrupt, lock, open, open_error, or_fatal, unavailable};
use raft::storage::{
    APPLIED_KEY, Applied, Batch, Change, OpenError, Read, Row, ScanLimit, Table, start_thread, unreadable,
};
use raft::types::EntryId;

/// Opens the table in the directory `path`.
///
/// # Errors
/// [`OpenError`].
pub fn open_table(path: &Path, options: &TableOptions) -> Result<Arc<dyn Table>, OpenError> {
    Ok(Arc::new(open_rocks(path, options)?))
}

fn open_rocks(path: &Path, options: &TableOptions) -> Result<RocksTable, OpenError> {
    let settings = options.rocksdb();
    let db = Arc::new(open(path, options.create, &settings)?);
    remove_leftovers(path).map_err(|error| unavailable(path, &error))?;
    let files = Arc::new(Files::new(Arc::clone(&db), settings, path));
    RocksTable::start(path, Store::new(db, files, options), options.write_buffer_bytes as u64)
}

struct RocksTable {
    store: Arc<Store>,
    inner: Arc<Mutex<Inner>>,
    /// Size of a snapshot's files.
    file_bytes: u64,
    /// Taken at the end.
    carrier: Option<Carrier>,
}

/// The thread that writes rows to RocksDB.
struct Carrier {
    loads: mpsc::Sender<Load>,
    thread: JoinHandle<()>,
}

struct Inner {
    names: Names,
    staged: Option<Staging>,
    /// Views held, by generation.
    views: BTreeMap<u32, usize>,
    /// Removed generations whose files may still be there.
    retired: Vec<u32>,
}

impl RocksTable {
    fn start(path: &Path, store: Store, file_bytes: u64) -> Result<Self, OpenError> {
        let found = store.db.get(NAMES_KEY).map_err(|error| open_error(path, &error))?;
        let mut names = match &found {
            Some(bytes) => read_names(path, bytes)?,
            None if is_empty(&store.db) => {
                Names { format: FORMAT, live: 1, newest: 1, installed: None, bad: 0 }
            }
            None => return Err(corrupt(path, "the row that names the live generation is missing")),
        };
        let leftovers = leftovers(&store.db, names.live);
        // Its rows may have become durable before its number was.
        names.newest = names.newest.max(leftovers.last().copied().unwrap_or_default());
        let inner = Inner { names, staged: None, views: BTreeMap::new(), retired: Vec::new() };
        store.live.store(names.live, Ordering::SeqCst);
        let (inner, store) = (Arc::new(Mutex::new(inner)), Arc::new(store));
        let (loads, receiver) = mpsc::channel();
        let carrying = Arc::clone(&store);
        let thread = start_thread("table-carrier", move || carrying.carry(&receiver));
        let table = Self { store, inner, file_bytes, carrier: Some(Carrier { loads, thread }) };
        // Even on a table that has this row: RocksDB skips rows in memory on a read of durable rows
        // only after its first write without a log.
        table.write_names(names);
        if found.is_none() {
            table.flush_now();
        }
        for generation in leftovers {
            table.remove(generation);
        }
        Ok(table)
    }

    /// Reads from the live generation. A switch meanwhile may have removed it: then it reads again.
    fn read_live<T>(&self, read: impl Fn(u32) -> T) -> T {
        loop {
            let generation = self.store.live();
            let found = read(generation);
            if generation == self.store.live() {
                return found;
            }
        }
    }

    fn write_names(&self, names: Names) {
        let mut batch = WriteBatch::default();
        batch.put(NAMES_KEY, codec::encode(&names));
        self.store.write(batch);
    }

    fn flush_now(&self) {
        self.store.drain(Way::Any);
        or_fatal("flush the table", self.store.db.flush());
    }

    /// Deletes the rows of a generation that only views read.
    fn remove(&self, generation: u32) {
        let mut batch = WriteBatch::default();
        batch.delete_range(prefix(generation), prefix(generation + 1));
        self.store.write(batch);
        lock(&self.inner).retired.push(generation);
        self.reclaim();
    }

    /// Deletes complete files of removed generations at once, instead of compacting them away.
    /// Views do not protect files from that, so a generation that still has a view waits for the
    /// next flush; so does one with files that are being written or compacted.
    fn reclaim(&self) {
        let free: Vec<u32> = {
            let inner = lock(&self.inner);
            inner.retired.iter().copied().filter(|generation| !inner.views.contains_key(generation)).collect()
        };
        if free.is_empty() {
            return;
        }
        for generation in &free {
            let (from, to) = (prefix(*generation), [&prefix(*generation)[..], &[0xff; 16]].concat());
            or_fatal("delete files of the table", self.store.db.delete_file_in_range(&from[..], &to[..]));
        }
        let files = or_fatal("list the files of the table", self.store.db.live_files());
        let edges = files.iter().flat_map(|file| [&file.start_key, &file.end_key]).flatten();
        let left: Vec<u32> =
            edges.filter_map(|key| key.first_chunk()).map(|at| u32::from_be_bytes(*at)).collect();
        let gone = |generation: u32| free.contains(&generation) && !left.contains(&generation);
        lock(&self.inner).retired.retain(|generation| !gone(*generation));
    }

    fn switch_now(&self, snapshot: EntryId) {
        let (staged, before) = {
            let mut inner = lock(&self.inner);
            (inner.staged.take().expect("what is switched to was staged"), inner.names)
        };
        let generation = staged.finish();
        let names = Names { live: generation, installed: Some(snapshot), ..before };
        self.write_names(names);
        self.flush_now();
        {
            let mut buffer = lock(&self.store.buffer);
            let mut inner = lock(&self.inner);
            inner.names = names;
            self.store.live.store(generation, Ordering::SeqCst);
            // Nothing waits: the writer is the task that switches.
            buffer.clear();
        }
        self.remove(before.live);
    }

    /// A row as far as it is durable.
    fn durable(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        or_fatal("read the table", self.store.db.get_opt(key, &options))
    }
}

fn add(rows: &mut WriteBatch, generation: u32, change: Change) {
    match change {
        Change::Put(key, value) => rows.put(row_key(generation, &key), value),
        Change::Delete(key) => rows.delete(row_key(generation, &key)),
        Change::DeleteRange(start, end) if start < end => {
            rows.delete_range(row_key(generation, &start), row_key(generation, &end));
        }
        Change::DeleteRange(..) => {}
    }
}

/// Bounds of a scan in `generation`; `None` if no row can be between them.
fn bounds(generation: u32, start: &[u8], end: Option<&[u8]>) -> Option<ReadOptions> {
    if end.is_some_and(|end| end <= start) {
        return None;
    }
    let upper = end.map_or_else(|| prefix(generation + 1).to_vec(), |end| row_key(generation, end));
    let mut options = ReadOptions::default();
    options.set_iterate_range(row_key(generation, start)..upper);
    Some(options)
}

fn collect(mut rows: DBRawIterator<'_>, limit: ScanLimit) -> Vec<Row> {
    let mut found = Vec::new();
    let mut bytes = 0;
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        let key = Bytes::copy_from_slice(&key[prefix(0).len()..]);
        bytes += key.len() + value.len();
        found.push((key, Bytes::copy_from_slice(value)));
        if found.len() >= limit.rows || bytes >= limit.bytes {
            return found;
        }
        rows.next();
    }
    or_fatal("read the table", rows.status());
    found
}

impl Read for RocksTable {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let found = lock(&self.store.buffer).get(key);
        let writes = match found {
            Found::Row(value) => return value,
            Found::Elsewhere(writes) => writes,
        };
        let (generation, value) = self.read_live(|generation| {
            let value = or_fatal("read the table", self.store.db.get_pinned(row_key(generation, key)));
            (generation, value.map(|value| Bytes::copy_from_slice(&value)))
        });
        if let Some(value) = &value {
            let mut buffer = lock(&self.store.buffer);
            if generation == self.store.live() {
                buffer.read(key, value, writes);
            }
        }
        value
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        if lock(&self.store.buffer).holds_back(start, end) {
            self.store.drain(Way::Memory);
        }
        self.read_live(|generation| match bounds(generation, start, end) {
            None => Vec::new(),
            Some(options) => collect(self.store.db.raw_iterator_opt(options), limit),
        })
    }
}

impl Drop for RocksTable {
    fn drop(&mut self) {
        if let Some(Carrier { loads, thread }) = self.carrier.take() {
            drop(loads);
            // A panic of that thread has already been reported by the panic hook.
            let _ = thread.join();
        }
        // As long as it runs the database is open.
        let staged = lock(&self.inner).staged.take();
        if let Some(staged) = staged {
            staged.finish();
        }
        // RocksDB flushes what it has when it is closed.
        self.store.drain(Way::Memory);
    }
}

impl Table for RocksTable {
    fn write(&self, batch: Batch) {
        if batch.iter().any(|change| matches!(change, Change::DeleteRange(..))) {
            self.store.drain(Way::Memory);
            let (mut rows, generation) = (WriteBatch::default(), self.store.live());
            batch.into_iter().for_each(|change| add(&mut rows, generation, change));
            // No reader may find rows in the buffer that are no longer in RocksDB. Nothing waits in
            // it, because this is the only writer. RocksDB runs without the buffer's lock: readers
            // need it, and RocksDB delays a write while its flushes lag (rule 80).
            lock(&self.store.buffer).step_aside();
            self.store.write(rows);
            lock(&self.store.buffer).clear();
            return;
        }
        let mut buffer = lock(&self.store.buffer);
        buffer.write(batch);
        if buffer.is_crowded() {
            buffer = self.store.settle(buffer);
        }
        if buffer.is_full()
            && !buffer.is_going()
            && let Some(rows) = buffer.send_off()
            && let Some(carrier) = &self.carrier
        {
            let _ = carrier.loads.send((rows, self.store.live()));
        }
    }

    fn view(&self) -> Box<dyn Read> {
        self.store.drain(Way::Memory);
        // Under the lock, so that the generation is counted before a switch can retire it.
        let mut inner = lock(&self.inner);
        let generation = inner.names.live;
        *inner.views.entry(generation).or_default() += 1;
        let held = Held::new(Arc::clone(&self.store.db), |db| self.store.snapshot(db));
        Box::new(View { held, generation, inner: Arc::clone(&self.inner) })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            self.flush_now();
            self.reclaim();
        }
        .boxed()
    }

    fn bytes(&self) -> u64 {
        let bytes = self.store.db.property_int_value("rocksdb.estimate-live-data-size");
        or_fatal("read the table", bytes).unwrap_or(0)
    }

    fn durable_applied(&self) -> EntryId {
        // The generation, too, as far as its name is durable: during a switch it is the old one.
        let Some(names) = self.durable(NAMES_KEY) else { return EntryId::ZERO };
        let decoded = codec::decode::<Names>(&names, 64);
        let live = decoded.unwrap_or_else(|error| unreadable("decode the generations row", &error)).live;
        let Some(applied) = self.durable(&row_key(live, APPLIED_KEY)) else { return EntryId::ZERO };
        codec::decode::<Applied>(&applied, 64)
            .unwrap_or_else(|error| unreadable("decode the applied row", &error))
            .id
    }

    fn installed(&self) -> Option<EntryId> {
        lock(&self.inner).names.installed
    }

    fn mark_bad(&self) -> BoxFuture<'_, ()> {
        async {
            let names = {
                let mut inner = lock(&self.inner);
                inner.names.bad = inner.names.live;
                inner.names
            };
            self.write_names(names);
            self.flush_now();
        }
        .boxed()
    }

    fn is_bad(&self) -> bool {
        let names = lock(&self.inner).names;
        names.bad == names.live
    }

    fn stage_start(&self) {
        let names = {
            let mut inner = lock(&self.inner);
            inner.names.newest += 1;
            inner.names
        };
        self.write_names(names);
        self.stage_drop();
        lock(&self.inner).staged =
            Some(Staging::start(Arc::clone(&self.store.files), self.file_bytes, names.newest));
    }

    fn stage_drop(&self) {
        let dropped = lock(&self.inner).staged.take();
        if let Some(dropped) = dropped {
            self.remove(dropped.finish());
        }
    }

    fn stage(&self, rows: Vec<Row>) {
        let entrance = lock(&self.inner).staged.as_ref().expect("staging was started").entrance.clone();
        // Without the lock: this waits until the rows before these are written. The channel closes
        // only after a panic, which ends the process.
        let _ = entrance.send(rows);
    }

    fn switch(&self, snapshot: EntryId) -> BoxFuture<'_, ()> {
        async move { self.switch_now(snapshot) }.boxed()
    }
}

self_cell::self_cell!(
    struct Held {
        owner: Arc<DB>,
        #[not_covariant]
        dependent: Snapshot,
    }
);

/// Rows of a moment.
struct View {
    held: Held,
    generation: u32,
    inner: Arc<Mutex<Inner>>,
}

impl Drop for View {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        if let Some(count) = inner.views.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                inner.views.remove(&self.generation);
            }
        }
    }
}

impl Read for View {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let key = row_key(self.generation, key);
        self.held.with_dependent(|_, snapshot| {
            or_fatal("read the table", snapshot.get_pinned(key)).map(|value| Bytes::copy_from_slice(&value))
        })
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let Some(mut options) = bounds(self.generation, start, end) else { return Vec::new() };
        // Views are read from end to end, once: what they read is not worth keeping.
        options.fill_cache(false);
        self.held.with_dependent(|_, snapshot| collect(snapshot.raw_iterator_opt(options), limit))
    }
}

#[cfg(test)]
mod tests;
