//! The way of rows into RocksDB: they wait in a [`Buffer`], and go many at a time, by a thread of the table's own or of
//! somebody who cannot wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use ::rocksdb::{DB, WriteBatch, WriteOptions};

use super::buffer::{Buffer, Rows};
use super::options::TableOptions;
use super::{lock, or_fatal, stand_back};

/// Rows that go into RocksDB, and their generation.
pub(super) type Load = (Arc<Rows>, u32);

/// RocksDB, and the rows of the live generation in front of it.
pub(super) struct Store {
    pub(super) db: Arc<DB>,
    unlogged: WriteOptions,
    pub(super) buffer: Mutex<Buffer>,
    /// Generation that reads and writes go to.
    pub(super) live: AtomicU32,
    /// Told when nothing is going any more.
    arrived: Condvar,
}

impl Store {
    /// Nothing waits; which generation is live is not known yet.
    pub(super) fn new(db: Arc<DB>, options: &TableOptions) -> Self {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let buffer = Mutex::new(Buffer::new(options.waiting_bytes, options.row_cache_bytes));
        Self { db, unlogged, buffer, live: AtomicU32::new(0), arrived: Condvar::new() }
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::SeqCst)
    }

    pub(super) fn write(&self, batch: WriteBatch) {
        or_fatal("write the table", self.db.write_opt(batch, &self.unlogged));
    }

    /// Waits until nothing is going.
    fn settled(&self) -> MutexGuard<'_, Buffer> {
        self.settle(lock(&self.buffer))
    }

    pub(super) fn settle<'a>(&self, buffer: MutexGuard<'a, Buffer>) -> MutexGuard<'a, Buffer> {
        self.arrived.wait_while(buffer, |buffer| buffer.is_going()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends off what waits, and waits for it.
    pub(super) fn drain(&self) {
        let mut buffer = self.settled();
        if let Some(rows) = buffer.send_off() {
            self.write(rows.batch(self.live()));
            let forgotten = buffer.arrived();
            drop(buffer);
            // Without the lock: others wait for it.
            drop(forgotten);
        }
    }

    /// Brings into RocksDB what it is given.
    pub(super) fn carry(&self, loads: &mpsc::Receiver<Load>) {
        stand_back();
        for (rows, generation) in loads {
            self.write(rows.batch(generation));
            let forgotten = lock(&self.buffer).arrived();
            self.arrived.notify_all();
            // Without the lock: others wait for it.
            drop(forgotten);
        }
    }
}
