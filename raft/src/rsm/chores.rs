//! Slow work beside the driver and the applier: compaction's chores, and reading what followers
//! lack.
//!
//! Two tasks: the flusher waits for disks and nobody waits for it; the streamer serves followers
//! that wait for every read. They get orders from the driver and report back to it; neither knows
//! of the other.

use std::collections::VecDeque;
use std::sync::Arc;

use base::clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channels::{Chore, Event, ReadOrder};
use super::views::{IDLE_MAX, Views};
use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::StreamOrder;
use crate::storage::{Kept, ScanLimit, Table};
use crate::types::Membership;

/// Does the chores of compaction.
pub(super) struct Flusher {
    pub(super) table: Arc<dyn Table>,
    pub(super) chores: mpsc::UnboundedReceiver<Chore>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) stop: CancellationToken,
}

impl Flusher {
    pub(super) async fn run(mut self) {
        while let Some(Some(chore)) = self.stop.run_until_cancelled(self.chores.recv()).await {
            match chore {
                Chore::Flush(wanted) => {
                    if self.table.durable_applied().index < wanted {
                        self.table.flush().await;
                    }
                    let durable = self.table.durable_applied().index;
                    let _ = self.events.send(Event::Durable(durable, self.table.bytes()));
                }
                Chore::Free(dropped) => drop(dropped),
            }
        }
    }
}

/// Reads chunks of snapshots, and entries from the log's files, for followers.
pub(super) struct Streamer {
    pub(super) table: Arc<dyn Table>,
    pub(super) kept: Arc<dyn Kept>,
    pub(super) membership: Membership,
    pub(super) config: Config,
    pub(super) orders: mpsc::UnboundedReceiver<ReadOrder>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) stop: CancellationToken,
}

impl Streamer {
    pub(super) async fn run(mut self) {
        let mut views = Views::default();
        // Orders whose rows before the chunk are not all read yet. Others get their turn in between.
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
