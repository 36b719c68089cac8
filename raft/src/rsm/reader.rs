//! Reads of the table beside the applier's (correctness rule 80).

use std::sync::Arc;

use base::process::{Fatal, end};
use tokio::sync::Semaphore;

use super::task::Threads;
use crate::storage::Table;

/// The limit of concurrent reads.
const READS_MAX: u32 = 4;

/// Reads the table elsewhere: in production on threads of the runtime, in a simulation in the
/// caller itself.
pub(super) struct Reader {
    table: Arc<dyn Table>,
    threads: Threads,
    room: Arc<Semaphore>,
}

impl Reader {
    pub(super) fn new(table: Arc<dyn Table>, threads: Threads) -> Self {
        Self { table, threads, room: Arc::new(Semaphore::new(READS_MAX as usize)) }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Table) -> T + Send + 'static,
    ) -> T {
        let table = Arc::clone(&self.table);
        if self.threads == Threads::Shared {
            return read(&*table);
        }
        // (Never closed.) It stays with the reading thread, even if the caller goes away.
        let room = Arc::clone(&self.room).acquire_owned().await;
        let reading = tokio::task::spawn_blocking(move || {
            let _room = room;
            read(&*table)
        });
        reading
            .await
            .unwrap_or_else(|error| end(Fatal::Bug, &format_args!("a reader of rows ended: {error}")))
    }

    /// Waits until no read is running.
    pub(super) async fn end(&self) {
        let _ = self.room.acquire_many(READS_MAX).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{Reader, Threads};
    use crate::storage::memory::MemoryDisk;

    #[tokio::test]
    async fn what_is_read_holds_up_nobody_else() {
        let (_log, table) = MemoryDisk::new().open();
        let reader = Reader::new(table, Threads::Own);
        let (go_on, told) = mpsc::channel();
        let reading = reader.read(move |_| told.recv());
        // (On this one thread: it would wait forever.)
        let others = async { go_on.send(7).unwrap() };
        let (read, ()) = tokio::join!(reading, others);
        assert_eq!(read, Ok(7));
        reader.end().await;
    }
}
