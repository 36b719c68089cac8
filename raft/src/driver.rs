//! Drives a core: rounds of inputs, and the one law of effects.
//!
//! A *round* takes up to N peer messages, then up to M proposals and reads (two queues, so that
//! clients cannot crowd out peers), then at most one tick (missed ones collapse), and then carries out
//! one Ready: `appends -> save -> send -> apply`. That is group commit without further machinery; and a
//! stalled disk wakes up reading its heartbeats before its clock.
//!
//! Beside the driver run the applier ([`crate::rsm`]) and the background task (here), which flushes the
//! table before a compaction and reads snapshot chunks. The driver waits for neither. What it has for the
//! applier it hands over once a round: a wake-up costs more than an item.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock::{self, Ticker};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::{Apply, ReadId, Ready, StreamOrder};
use crate::core::role::Role;
use crate::core::{ProposeError, Raft, Refused};
use crate::rsm::{ExecuteError, Leadership, Role as RoleName, Status};
use crate::storage::{Log, Read, ScanLimit, Table, applied};
use crate::transport::{Incoming, Mailbox, Transport};
use crate::types::{EntryId, Index, Membership, NodeId};

/// Who waits for a proposal or a read.
pub(crate) trait Waiter: Send + 'static {
    /// Tells it that nothing was done, and why.
    fn refuse(self, error: ExecuteError);

    /// Tells it, if it wants to know, that its command has a place in the log.
    fn placed(&mut self, _id: EntryId) {}
}

/// What clients of the replica want.
pub(crate) enum Request<P, Q> {
    /// A command.
    Propose { command: Bytes, freeing: bool, waiter: P },
    /// A linearizable read.
    Read { waiter: Q },
    /// Compact now, as far as is safe.
    Compact,
}

/// What the applier gets, in order.
pub(crate) enum Item<P, Q> {
    /// From the core.
    Apply(Apply),
    /// Who waits for the entry; the entry itself arrives behind it (architecture: idea 5).
    Proposed(EntryId, P),
    /// Who waits for the read; its confirmation arrives behind it.
    Asked(ReadId, Q),
}

/// What the applier and the background task tell the driver.
pub(crate) enum Event {
    /// Handed items of so many bytes are dealt with. Told now and then, not for every item.
    AppliedBytes(usize),
    /// Everything given of this snapshot is staged.
    Staged(EntryId),
    /// The table is the one of this snapshot.
    Installed(EntryId),
    /// This snapshot was not ahead of what is applied.
    NotInstalled(EntryId),
    /// A chunk for a follower was read.
    Chunk(NodeId, Chunk),
    /// The table is durable up to here.
    Durable(Index),
}

/// Work beside the driver.
pub(crate) enum Order {
    /// Make the table durable at least up to here, if it is not.
    Flush(Index),
    /// Read a snapshot chunk.
    Stream(StreamOrder),
}

/// Things worth counting. Shared with the handle.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refused_messages: AtomicU64,
    pub(crate) slow_saves: AtomicU64,
}

pub(crate) struct Driver<P, Q> {
    pub(crate) raft: Raft,
    pub(crate) config: Config,
    pub(crate) log: Box<dyn Log>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) mailbox: Mailbox,
    pub(crate) mailbox_open: bool,
    pub(crate) requests: mpsc::Receiver<Request<P, Q>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) applier: mpsc::UnboundedSender<Vec<Item<P, Q>>>,
    /// Who waits for what, to be handed to the applier with the next thing it has to do.
    pub(crate) handing: Vec<Item<P, Q>>,
    pub(crate) background: mpsc::UnboundedSender<Order>,
    pub(crate) disk_low: watch::Receiver<bool>,
    pub(crate) status: Arc<watch::Sender<Status>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: CancellationToken,
    pub(crate) next_read: u64,
    pub(crate) compaction: Compaction,
}

/// When to compact next.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    under_way: bool,
    /// Log bytes after the last attempt: try again when they have grown noticeably.
    bytes_then: usize,
    ticks_since: u32,
}

impl<P: Waiter, Q: Waiter> Driver<P, Q> {
    /// Runs until stopped, or until every handle is gone.
    pub(crate) async fn run(mut self, phase: Duration) {
        let mut ticker = Ticker::new(self.config.tick, phase);
        self.effects().await;
        while self.wait(&mut ticker).await {
            self.take_inputs(&mut ticker);
            self.effects().await;
            self.maybe_compact();
        }
    }

    /// Waits for any input and takes it; false: stop.
    async fn wait(&mut self, ticker: &mut Ticker) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return false,
            event = self.events.recv() => match event {
                Some(event) => self.on_event(event),
                None => return false,
            },
            incoming = self.mailbox.receive(), if self.mailbox_open => match incoming {
                Some(incoming) => self.on_incoming(incoming),
                // No transport can reach this replica any more; alone it may go on.
                None => self.mailbox_open = false,
            },
            request = self.requests.recv() => match request {
                Some(request) => self.on_request(request),
                None => return false,
            },
            () = ticker.tick() => self.on_tick(),
        }
        true
    }

    fn take_inputs(&mut self, ticker: &mut Ticker) {
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event);
        }
        for _ in 0..self.config.round_messages_max {
            let Some(incoming) = self.mailbox.try_receive() else { break };
            self.on_incoming(incoming);
        }
        for _ in 0..self.config.round_proposals_max {
            let Ok(request) = self.requests.try_recv() else { break };
            self.on_request(request);
        }
        if ticker.due() {
            self.on_tick();
        }
    }

    fn on_tick(&mut self) {
        self.raft.set_disk_low(*self.disk_low.borrow());
        self.compaction.ticks_since = self.compaction.ticks_since.saturating_add(1);
        self.raft.tick();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::AppliedBytes(bytes) => self.raft.applied_bytes(bytes),
            Event::Staged(snapshot) => self.raft.staged(snapshot),
            Event::Installed(snapshot) => self.raft.installed(snapshot),
            Event::NotInstalled(snapshot) => self.raft.not_installed(snapshot),
            Event::Chunk(to, chunk) => self.raft.chunk_read(to, chunk),
            Event::Durable(index) => {
                self.raft.compact(index);
                let bytes_then = self.raft.log().bytes();
                self.compaction = Compaction { under_way: false, bytes_then, ticks_since: 0 };
            }
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Unreachable(peer) => self.raft.unreachable(peer),
            Incoming::Message(from, message) => match self.raft.step(from, message) {
                Ok(()) => {}
                // Rule 13: going on would make the damage worse.
                Err(Refused::SafetyViolation(what)) => {
                    crate::storage::fatal("keep the group's promises", &what);
                }
                Err(refused) => {
                    self.counters.refused_messages.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%from, %refused, "message refused");
                }
            },
        }
    }

    fn on_request(&mut self, request: Request<P, Q>) {
        match request {
            Request::Propose { command, freeing, mut waiter } => match self.raft.propose(command, freeing) {
                Ok(id) => {
                    waiter.placed(id);
                    self.handing.push(Item::Proposed(id, waiter));
                }
                Err(error) => waiter.refuse(error.into()),
            },
            Request::Read { waiter } => {
                let id = ReadId(self.next_read);
                self.next_read += 1;
                match self.raft.read(id) {
                    Ok(()) => {
                        self.handing.push(Item::Asked(id, waiter));
                    }
                    Err(error) => waiter.refuse(error.into()),
                }
            }
            Request::Compact => self.start_compaction(),
        }
    }

    /// The law: `appends -> save -> send -> apply`, finished before the next inputs.
    async fn effects(&mut self) {
        loop {
            let ready = self.raft.take_ready();
            if ready.is_empty() {
                break;
            }
            self.carry_out(ready).await;
        }
        self.publish();
    }

    async fn carry_out(&mut self, mut ready: Ready) {
        base::mutant!("answer-before-save", ready.appends.append(&mut ready.send));
        for envelope in ready.appends {
            self.transport.send(envelope.to, envelope.message);
        }
        if let Some(save) = ready.save {
            let start = clock::now();
            self.log.save(&save).await;
            if start.elapsed() > self.config.tick * self.config.election_ticks_min {
                self.counters.slow_saves.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(took = ?start.elapsed(), "a synced write took longer than an election timeout");
            }
            self.raft.saved();
        }
        for envelope in ready.send {
            self.transport.send(envelope.to, envelope.message);
        }
        // Waiters alone give the applier nothing to do: they go with the next of these.
        if !ready.apply.is_empty() {
            self.handing.extend(ready.apply.into_iter().map(Item::Apply));
            let _ = self.applier.send(std::mem::take(&mut self.handing));
        }
        for order in ready.streams {
            let _ = self.background.send(Order::Stream(order));
        }
    }

    fn publish(&self) {
        let raft = &self.raft;
        let role = match raft.role() {
            Role::Follower { .. } => RoleName::Follower,
            Role::PreCandidate { .. } => RoleName::PreCandidate,
            Role::Candidate { .. } => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        };
        let syncs = self.log.syncs();
        let leadership = Leadership { role, term: raft.term(), leader: raft.leader() };
        let news = *self.leadership.borrow() != leadership;
        if news {
            let (term, leader, commit) = (raft.term().0, raft.leader().map(|id| id.0), raft.commit().0);
            tracing::info!(?role, term, ?leader, commit, "role");
        }
        self.status.send_if_modified(|status| {
            let next = Status {
                me: raft.me(),
                role,
                term: raft.term(),
                leader: raft.leader(),
                commit: raft.commit(),
                applied: status.applied,
                log_bytes: raft.log().bytes(),
                uncommitted_bytes: raft.uncommitted_bytes(),
                uncommitted_bytes_max: self.config.uncommitted_bytes_max,
                syncs,
            };
            let changed = *status != next;
            *status = next;
            changed
        });
        if news {
            self.leadership.send_replace(leadership);
        }
    }

    fn maybe_compact(&mut self) {
        let bytes = self.raft.log().bytes();
        let grown = bytes > self.compaction.bytes_then.saturating_add(self.config.log_keep_bytes / 4);
        let due = grown || self.compaction.ticks_since >= self.config.election_ticks_max;
        let is_long = bytes > self.config.log_bytes_max && !base::mutant!("compact-never");
        if (is_long || base::mutant!("compact-at-once")) && due {
            self.start_compaction();
        }
    }

    fn start_compaction(&mut self) {
        let applied = self.status.borrow().applied.id.index;
        let wanted = self.raft.log().compaction_point(applied, self.config.log_keep_bytes);
        if let (Some(point), false) = (wanted, self.compaction.under_way) {
            self.compaction.under_way = true;
            let _ = self.background.send(Order::Flush(point.index));
        }
    }
}

impl From<ProposeError> for ExecuteError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { hint } => Self::NotLeader { hint },
            ProposeError::Busy => Self::Busy,
            ProposeError::DiskFull => Self::DiskFull,
        }
    }
}

/// The background task: flushes the table and reads snapshot chunks.
pub(crate) struct Background {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) membership: Membership,
    pub(crate) config: Config,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) stop: CancellationToken,
}

/// A view being streamed. It holds back the disk space of what it shows, so its life is bounded.
struct View {
    snapshot: EntryId,
    rows: Box<dyn Read>,
    opened: clock::Instant,
    used: clock::Instant,
}

impl Background {
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
            let event = match order {
                None => break,
                Some(Order::Flush(wanted)) => {
                    if self.table.durable_applied().index < wanted {
                        self.table.flush().await;
                    }
                    Event::Durable(self.table.durable_applied().index)
                }
                Some(Order::Stream(order)) => {
                    views.retain(|_, view| view.opened.elapsed() < self.config.snapshot_view_max);
                    let to = order.to;
                    Event::Chunk(to, self.read_chunk(&mut views, order))
                }
            };
            let _ = self.events.send(event);
        }
    }

    fn read_chunk(&self, views: &mut BTreeMap<NodeId, View>, order: StreamOrder) -> Chunk {
        let now = clock::now();
        let held = views.get(&order.to).is_some_and(|view| Some(view.snapshot) == order.snapshot);
        let after = order.after.filter(|_| held);
        if !held {
            let rows = self.table.view();
            let snapshot = applied(&*rows).id;
            views.insert(order.to, View { snapshot, rows, opened: now, used: now });
        }
        let view = views.get_mut(&order.to).expect("just put there");
        view.used = now;
        let start = after.as_ref().map_or_else(Vec::new, |key| [key, &b"\0"[..]].concat());
        let limit = ScanLimit { rows: usize::MAX, bytes: self.config.chunk_bytes };
        let source: &dyn Read = if base::mutant!("chunks-of-live-rows") { &*self.table } else { &*view.rows };
        let rows = source.scan(&start, None, limit);
        let full = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() >= limit.bytes;
        Chunk { snapshot: view.snapshot, membership: self.membership.clone(), after, rows, done: !full }
    }
}
