//! Slow work beside the driver and the applier: compaction's chores, and reading what followers
//! lack.
//!
//! Two tasks: the flusher waits for disks and nobody waits for it; the streamer serves followers
//! that wait for every read. They get orders from the driver and report back to it; neither knows
//! of the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::{RunOrder, StreamOrder};
use crate::driver::Event;
use crate::storage::{Kept, Read, ScanLimit, Table, applied};
use crate::types::{Entry, EntryId, Index, Membership, NodeId};

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

/// A view being streamed. It holds back the disk space of what it shows, so it lives only while it moves.
struct View {
    snapshot: EntryId,
    rows: Box<dyn Read>,
    used: clock::Instant,
    /// CRC32 of all rows up to the key: of the newest places, from which the stream may go on.
    sums: VecDeque<(Option<Bytes>, u32)>,
}

/// More than the chunks in flight to a follower.
const SUMS_MAX: usize = 32;

impl Streamer {
    pub(crate) async fn run(mut self) {
        const IDLE_MAX: Duration = Duration::from_secs(10);
        let mut views: BTreeMap<NodeId, View> = BTreeMap::new();
        loop {
            let order = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                order = self.orders.recv() => order,
                () = clock::sleep(IDLE_MAX), if !views.is_empty() => {
                    views.retain(|_, view| view.used.elapsed() < IDLE_MAX);
                    continue;
                }
            };
            let Some(order) = order else { break };
            views.retain(|_, view| view.used.elapsed() < IDLE_MAX);
            let event = match order {
                ReadOrder::Chunk(order) => Event::Chunk(order.to, self.read_chunk(&mut views, order)),
                ReadOrder::Entries(order) => {
                    let run = self.kept.read(order.prev, order.upto, order.bytes);
                    Event::Entries(order, run)
                }
            };
            let _ = self.events.send(event);
        }
    }

    fn read_chunk(&self, views: &mut BTreeMap<NodeId, View>, order: StreamOrder) -> Chunk {
        let sum_of = |view: &View| view.sums.iter().find(|(key, _)| *key == order.after).map(|(_, sum)| *sum);
        let held = views.get(&order.to).filter(|view| Some(view.snapshot) == order.snapshot).and_then(sum_of);
        if held.is_none() {
            let rows = self.table.view();
            let snapshot = applied(&*rows).id;
            let sums = VecDeque::from([(None, 0)]);
            views.insert(order.to, View { snapshot, rows, used: clock::now(), sums });
        }
        let (after, before) = held.map_or((None, 0), |before| (order.after, before));
        let view = views.get_mut(&order.to).expect("just put there");
        view.used = clock::now();
        let start = after.as_ref().map_or_else(Vec::new, |key| [key, &b"\0"[..]].concat());
        let limit = ScanLimit { rows: self.config.chunk_rows, bytes: self.config.chunk_bytes };
        let source: &dyn Read = if base::mutant!("chunks-of-live-rows") { &*self.table } else { &*view.rows };
        let rows = source.scan(&start, None, limit);
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let full = bytes >= limit.bytes || rows.len() >= limit.rows;
        let mut chunk = Chunk::new(view.snapshot, self.membership.clone(), after, rows, !full);
        chunk.total = Chunk::sum_of(before, &chunk.rows);
        let end = (chunk.end().cloned(), chunk.total);
        if !view.sums.contains(&end) {
            view.sums.push_back(end);
            if view.sums.len() > SUMS_MAX {
                view.sums.pop_front();
            }
        }
        chunk
    }
}
