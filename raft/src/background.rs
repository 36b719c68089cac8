//! Slow work beside the driver and the applier: compaction's chores, and reading what followers
//! lack.
//!
//! Two tasks: the flusher waits for disks and nobody waits for it; the streamer serves followers
//! that wait for every read. They get orders from the driver and report back to it; neither knows
//! of the other.

pub mod views;

use std::collections::VecDeque;
use std::sync::Arc;

use base::clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::{RunOrder, StreamOrder};
use crate::driver::Event;
use crate::storage::{Kept, ScanLimit, Table};
use crate::types::{Entry, Index, Membership};
use views::{IDLE_MAX, Views};

/// The work of compaction that nobody waits for.
pub(crate) enum Chore {
    /// Make the table durable at least up to here, if it is not.
    Flush(Index),
    /// Free what was dropped: tens of thousands of entries take milliseconds.
    Free(VecDeque<Entry>),
}

/// Does the chores of compaction.
pub(crate) struct Flusher {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) chores: mpsc::UnboundedReceiver<Chore>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) stop: CancellationToken,
}

impl Flusher {
    pub(crate) async fn run(mut self) {
        while let Some(Some(chore)) = self.stop.run_until_cancelled(self.chores.recv()).await {
            match chore {
                Chore::Flush(wanted) => {
                    if self.table.durable_applied().index < wanted {
                        self.table.flush().await;
                    }
                    let _ = self.events.send(Event::Durable(self.table.durable_applied().index));
                }
                Chore::Free(dropped) => drop(dropped),
            }
        }
    }
}

/// A read for a follower.
pub(crate) enum ReadOrder {
    /// A chunk of a snapshot.
    Chunk(StreamOrder),
    /// Entries that are not in memory.
    Entries(RunOrder),
}

/// Reads chunks of snapshots, and entries from the log's files, for followers.
pub(crate) struct Streamer {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) kept: Arc<dyn Kept>,
    pub(crate) membership: Membership,
    pub(crate) config: Config,
    pub(crate) orders: mpsc::UnboundedReceiver<ReadOrder>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) stop: CancellationToken,
}

impl Streamer {
    pub(crate) async fn run(mut self) {
        let mut views = Views::default();
        // Of which something is left to be read first. Others have their turn in between.
        let mut begun: VecDeque<StreamOrder> = VecDeque::new();
        loop {
            let order = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                order = self.orders.recv() => order,
                () = std::future::ready(()), if !begun.is_empty() => begun.pop_front().map(ReadOrder::Chunk),
                () = clock::sleep(IDLE_MAX), if !views.is_empty() => {
                    views.close_idle();
                    continue;
                }
            };
            let Some(order) = order else { break };
            views.close_idle();
            let event = match order {
                ReadOrder::Chunk(order) => match self.read_chunk(&mut views, &order) {
                    Some(chunk) => Event::Chunk(order.to, chunk),
                    None => {
                        begun.push_back(order);
                        tokio::task::yield_now().await;
                        continue;
                    }
                },
                ReadOrder::Entries(order) => {
                    let run = self.kept.read(order.prev, order.upto, order.bytes);
                    Event::Entries(order, run)
                }
            };
            let _ = self.events.send(event);
        }
    }

    fn read_chunk(&self, views: &mut Views, order: &StreamOrder) -> Option<Chunk> {
        let limit = ScanLimit { rows: self.config.chunk_rows, bytes: self.config.chunk_bytes };
        views.read(order, &self.membership, limit, || self.table.view(), &*self.table)
    }
}
