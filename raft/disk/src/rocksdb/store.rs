//! How rows get into RocksDB: they wait in a [`Buffer`], and many go at a time, by a thread of the
//! table or of a caller that cannot wait; in [`Files`], or, if they are few, through RocksDB's
//! memory.
//!
//! ```text
//! write -> buffer --send_off--> a load --bring--> RocksDB --arrived--> the buffer forgets the rows
//!                               `carry` takes each load on the table's thread;
//!                               `drain` waits for those on their way, or brings the last itself;
//!                               `settle` waits until none is on its way
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use ::rocksdb::{DB, Error, Range, Snapshot, WriteBatch, WriteOptions};
use bytes::Bytes;

use super::buffer::{Buffer, Rows, SortedRow};
use super::files::Files;
use super::generations::{row_key, row_key_into};
use super::options::TableOptions;
use super::{lock, or_fatal};
use raft::storage::stand_back;

/// Rows that are written to RocksDB together, and their generation.
pub(super) type Load = (Arc<Rows>, u32);

/// RocksDB delays flushes from 19 unsorted files on (level 0), and slows down writes. With fewer
/// than this limit, and the files of one load more, it does neither.
const FILES_AT_LEVEL_0_MAX: u64 = 15;

/// How rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In files, if there are enough of them.
    Any,
    /// Through RocksDB's memory: a caller waits that should not wait for a disk longer than the
    /// present load does.
    Memory,
}

/// RocksDB, and the rows of the live generation in front of it.
pub(super) struct Store {
    pub(super) db: Arc<DB>,
    pub(super) files: Arc<Files>,
    file_bytes_min: usize,
    /// Held while files are added. Rows whose range holds no others are in every view that is taken
    /// meanwhile, the others in none.
    taking_over: Mutex<()>,
    unlogged: WriteOptions,
    pub(super) buffer: Mutex<Buffer>,
    /// Generation that reads and writes go to.
    pub(super) live: AtomicU32,
    /// Notified when no load is on its way any more.
    arrived: Condvar,
}

impl Store {
    /// Nothing waits; the live generation is not known yet.
    pub(super) fn new(db: Arc<DB>, files: Arc<Files>, options: &TableOptions) -> Self {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let buffer = Mutex::new(Buffer::new(options.waiting_bytes, options.row_cache_bytes));
        let file_bytes_min = options.file_bytes_min;
        let (taking_over, live, arrived) = (Mutex::default(), AtomicU32::new(0), Condvar::new());
        Self { db, files, file_bytes_min, taking_over, unlogged, buffer, live, arrived }
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::SeqCst)
    }

    pub(super) fn write(&self, batch: WriteBatch) {
        or_fatal("write the table", self.db.write_opt(batch, &self.unlogged));
    }

    /// Waits until no load is on its way.
    pub(super) fn settle<'a>(&self, buffer: MutexGuard<'a, Buffer>) -> MutexGuard<'a, Buffer> {
        self.arrived.wait_while(buffer, |buffer| buffer.is_going()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings everything that was written so far into RocksDB: waits until it has arrived, or sends
    /// it.
    pub(super) fn drain(&self, way: Way) {
        let buffer = lock(&self.buffer);
        // Not until no load is on its way: others may send later writes, again and again.
        let last = buffer.arrivals() + buffer.loads();
        let wait = |buffer: &mut Buffer| buffer.is_going() && buffer.arrivals() < last;
        let mut buffer = self.arrived.wait_while(buffer, wait).unwrap_or_else(PoisonError::into_inner);
        if buffer.arrivals() >= last {
            return;
        }
        let (rows, generation) = (buffer.send_off(), self.live());
        // Without the lock from here on: others wait for it.
        drop(buffer);
        if let Some(rows) = rows {
            self.bring(&rows, generation, way);
        }
    }

    /// Writes the loads that it gets to RocksDB.
    pub(super) fn carry(&self, loads: &mpsc::Receiver<Load>) {
        stand_back();
        for (rows, generation) in loads {
            self.bring(&rows, generation, Way::Any);
        }
    }

    fn bring(&self, rows: &Rows, generation: u32, way: Way) {
        match way {
            Way::Any if rows.bytes() >= self.file_bytes_min && self.has_room_for_files() => {
                or_fatal("write files of the table", self.bring_in_files(rows, generation));
            }
            Way::Any | Way::Memory => self.write(rows.batch(generation)),
        }
        let forgotten = lock(&self.buffer).arrived();
        self.tell_arrival();
        drop(forgotten);
    }

    pub(super) fn tell_arrival(&self) {
        self.arrived.notify_all();
    }

    /// Whether files may be added now. While compactions lag, RocksDB throttles writes through its
    /// memory but not added files.
    fn has_room_for_files(&self) -> bool {
        let files = self.db.property_int_value("rocksdb.num-files-at-level0");
        or_fatal("read the table", files).is_none_or(|files| files < FILES_AT_LEVEL_0_MAX)
    }

    fn bring_in_files(&self, rows: &Rows, generation: u32) -> Result<(), Error> {
        // These become durable at once, and what is durable is always a prefix of the writes.
        self.db.flush()?;
        let sorted = rows.sorted();
        let mut files = Vec::new();
        let mut place = Vec::new();
        for piece in self.pieces(&sorted, generation) {
            files.push(self.files.make(|file| {
                for (_, key, value) in piece {
                    row_key_into(&mut place, generation, key);
                    match value {
                        Some(value) => file.put(&place, value)?,
                        None => file.delete(&place)?,
                    }
                }
                Ok(())
            })?);
        }
        let _no_view = lock(&self.taking_over);
        self.files.take_over(files)
    }

    /// Divides rows into files. Usually there is one file: RocksDB compacts files that span
    /// everything once there are four of them. But if nearly no other rows are among those of the
    /// heaviest kind (an arriving shard, rows in the order of their keys), these get a separate
    /// file, which falls straight to its final level. In one file with the row that every batch
    /// writes, which comes before all others, they would span everything too.
    fn pieces<'a, 'b>(&self, sorted: &'a [SortedRow<'b>], generation: u32) -> Vec<&'a [SortedRow<'b>]> {
        let pieces = around_heaviest(sorted);
        let heaviest = pieces[1];
        let (Some((_, first, _)), Some((_, last, _))) = (heaviest.first(), heaviest.last()) else {
            return Vec::new();
        };
        let (first, last) = (row_key(generation, first), row_key(generation, last));
        let among: u64 = self.db.get_approximate_sizes(&[Range::new(&first, &last)]).iter().sum();
        // RocksDB's rows are compressed.
        if among > bytes(heaviest) as u64 / 16 {
            vec![sorted]
        } else {
            pieces.into_iter().filter(|rows| !rows.is_empty()).collect()
        }
    }

    /// Unchanging rows as of now, each load completely or not at all.
    pub(super) fn snapshot<'a>(&self, db: &'a DB) -> Snapshot<'a> {
        let _no_files = lock(&self.taking_over);
        db.snapshot()
    }
}

/// The rows before those of the heaviest kind, these, and the rows after them.
fn around_heaviest<'a, 'b>(sorted: &'a [SortedRow<'b>]) -> [&'a [SortedRow<'b>]; 3] {
    let kind = |(_, key, _): &SortedRow<'_>| key.first().copied();
    let kinds = sorted.chunk_by(|one, other| kind(one) == kind(other));
    let heaviest = kinds.max_by_key(|rows| bytes(rows)).and_then(|rows| kind(rows.first()?));
    let (before, rest) = sorted.split_at(sorted.partition_point(|row| kind(row) < heaviest));
    let (heaviest, after) = rest.split_at(rest.partition_point(|row| kind(row) == heaviest));
    [before, heaviest, after]
}

fn bytes(rows: &[SortedRow<'_>]) -> usize {
    rows.iter().map(|(_, key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::around_heaviest;

    #[test]
    fn the_heaviest_kind_is_cut_out_of_the_rows_around_it() {
        let cut = |keys: &[&'static str]| -> [usize; 3] {
            let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
            let sorted: Vec<_> = keys.iter().map(|key| (0, key, &None)).collect();
            around_heaviest(&sorted).map(<[_]>::len)
        };
        assert_eq!(cut(&["", "a1", "b1", "b2", "b3", "c1", "c2", "d"]), [2, 3, 3]);
        assert_eq!(cut(&["b1", "b2", "c1"]), [0, 2, 1]);
        assert_eq!(cut(&["a1", "b1", "b2"]), [1, 2, 0]);
        assert_eq!(cut(&["b1", "b2"]), [0, 2, 0]);
        assert_eq!(cut(&["", ""]), [0, 2, 0]);
        assert_eq!(cut(&[]), [0, 0, 0]);
    }
}
