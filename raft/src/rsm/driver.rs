//! Drives a core: rounds of inputs, and the one law of effects.
//!
//! A *round* takes up to N peer messages, then up to M proposals and reads, then at most one tick.
//! (Two queues keep clients from crowding out peers; missed ticks collapse into one.) Then it
//! carries out one Ready: `appends -> save -> send -> apply`. This alone gives group commit. After
//! a disk stall the driver reads its heartbeats before its clock.
//!
//! Other tasks run beside the driver: the applier, and the tasks that flush the table before a
//! compaction and read snapshot chunks (`chores`). The driver waits for none of them. It passes
//! work to the applier once per round, because a wake-up costs more than an item.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::clock::{self, Ticker};
use base::process::{Fatal, end};
use bytes::Bytes;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::channels::{Chore, Counters, Event, Item, ReadOrder, Request};
use super::compaction::Compaction;
use super::held::Held;
use super::marks::Step;
use super::measured::add_one;
use super::saved::Saved;
use super::saves::Saves;
use super::status::{Leadership, Status};
use super::waiter::Waiter;
use crate::config::Config;
use crate::core::ready::{ReadId, Ready};
use crate::core::{Raft, Refused};
use crate::storage::{Applied, Kept, LogWriter};
use crate::transport::{Incoming, Mailbox, Transport};
use crate::types::ExecuteError;

pub(super) struct Driver<P, Q> {
    pub(super) raft: Raft,
    pub(super) config: Config,
    pub(super) log: Box<dyn LogWriter>,
    pub(super) kept: Arc<dyn Kept>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) mailbox: Mailbox,
    pub(super) mailbox_open: bool,
    pub(super) requests: mpsc::Receiver<Request<P, Q>>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) applier: mpsc::UnboundedSender<Vec<Item<P, Q>>>,
    /// Waiting callers, to be passed to the applier with its next item.
    pub(super) handing: Vec<Item<P, Q>>,
    /// Which of them are marked as saved.
    pub(super) marked: Saved,
    /// How long saves take.
    pub(super) saves: Saves,
    /// Commands that wait for their turn while a pace holds.
    pub(super) held: Held<P>,
    pub(super) chores: mpsc::UnboundedSender<Chore>,
    /// Reads for followers.
    pub(super) reads: mpsc::UnboundedSender<ReadOrder>,
    pub(super) disk_low: watch::Receiver<bool>,
    pub(super) status: Arc<watch::Sender<Status>>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
    pub(super) next_read: u64,
    pub(super) compaction: Compaction,
    pub(super) random: StdRng,
    /// The newest alarm, in words.
    pub(super) last_alarm: Option<Arc<str>>,
    /// The table is bad: code that answers clients checks this (correctness rule 69).
    pub(super) table_bad: Arc<AtomicBool>,
    /// How large the table is, roughly.
    pub(super) table_bytes: u64,
    /// What was applied at the last tick.
    pub(super) rested: Applied,
    /// The core checks itself in every round; used by simulations.
    pub(super) is_checked: bool,
}

impl<P: Waiter, Q: Waiter> Driver<P, Q> {
    /// Runs until stopped, or until every handle is gone.
    pub(super) async fn run(mut self, phase: Duration) {
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
                // No transport can reach this replica any more; it continues alone.
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
        self.counters.ticked.store(clock::now().as_nanos(), Ordering::Relaxed);
        self.raft.set_disk_low(*self.disk_low.borrow());
        self.compaction.ticks_since = self.compaction.ticks_since.saturating_add(1);
        self.raft.set_room(self.kept.bytes_max(), self.table_bytes);
        self.raft.tick();
        self.release();
        if let Some(is_disturbed) = self.saves.tick(self.raft.is_somebody_catching_up()) {
            self.raft.catch_up_with_less(is_disturbed);
        }
        self.kept.keep_from(self.raft.wanted());
        // Nothing was left to apply for a tick, so all servers of the group come to rest at the
        // same position.
        let applied = self.status.borrow().applied;
        if applied == self.rested && applied.id.index == self.raft.commit() {
            self.raft.hashed(applied.id.index, applied.hash);
        }
        self.rested = applied;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::AppliedBytes(bytes) => self.raft.applied_bytes(bytes),
            Event::AnsweredReads(count) => self.raft.answered_reads(count),
            Event::Staged(snapshot) => self.raft.staged(snapshot),
            Event::Installed(snapshot) => {
                let installed = self.raft.installed(snapshot);
                installed.unwrap_or_else(|refused| end(Fatal::Safety, &refused));
                add_one(&self.counters.measures.snapshots_installed);
            }
            Event::NotInstalled(snapshot) => self.raft.not_installed(snapshot),
            Event::Chunk(to, chunk) => self.raft.chunk_read(to, chunk),
            Event::Entries(order, run) => {
                self.raft.set_kept(self.kept.first());
                self.raft.entries_read(&order, run);
            }
            Event::Hashed(index, hash) => self.raft.hashed(index, hash),
            Event::Durable(index, table_bytes) => {
                self.table_bytes = table_bytes;
                self.kept.set_table_bytes(table_bytes);
                let dropped = self.raft.compact(index);
                let _ = self.chores.send(Chore::Free(dropped));
                let bytes_then = self.raft.log().bytes();
                self.compaction = Compaction::next(bytes_then, &self.config, &mut self.random);
            }
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Unreachable(peer) => self.raft.unreachable(peer),
            Incoming::Message(from, message) => match self.raft.step(from, message) {
                Ok(()) => {}
                // Rule 13: continuing would make the damage worse.
                Err(Refused::SafetyViolation(what)) => {
                    end(Fatal::Safety, &what);
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
            Request::Propose { command, freeing, waiter } if freeing || !self.is_paced() => {
                self.propose(command, freeing, waiter);
            }
            Request::Propose { command, waiter, .. } => {
                let a_second = self.raft.pace().unwrap_or(u64::MAX);
                if let Err(waiter) = self.held.push(command, waiter, a_second) {
                    waiter.refuse(ExecuteError::Busy);
                }
            }
            Request::Read { waiter } if base::mutant!("reads-paced") && self.is_paced() => {
                waiter.refuse(ExecuteError::Busy);
            }
            Request::Read { waiter } => {
                let id = ReadId(self.next_read);
                self.next_read += 1;
                match self.raft.read(id) {
                    Ok(()) => {
                        waiter.marks(|marks| marks.set(Step::Asked));
                        self.handing.push(Item::Asked(id, waiter));
                    }
                    Err(error) => waiter.refuse(error),
                }
            }
            Request::Compact => self.start_compaction(),
        }
    }

    fn propose(&mut self, command: Bytes, freeing: bool, mut waiter: P) {
        match self.raft.propose(command, freeing) {
            Ok(id) => {
                waiter.placed(id);
                waiter.marks(|marks| marks.set(Step::Placed));
                self.handing.push(Item::Proposed(id, waiter));
            }
            Err(error) => waiter.refuse(error),
        }
    }

    /// Whether a client's write has to wait (correctness rule 133).
    fn is_paced(&self) -> bool {
        self.raft.is_held_back() || !self.held.is_empty()
    }

    /// Proposes commands that waited, as many as the pace allows; all of them, if it ended.
    fn release(&mut self) {
        while !self.raft.is_held_back()
            && let Some((command, waiter)) = self.held.pop(P::is_gone)
        {
            self.propose(command, false, waiter);
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
        if self.is_checked {
            self.raft.check();
        }
        self.publish();
    }

    async fn carry_out(&mut self, mut ready: Ready) {
        base::mutant!("answer-before-save", ready.appends.append(&mut ready.send));
        self.table_bad.store(self.raft.is_table_bad(), Ordering::Relaxed);
        for alarm in &ready.alarms {
            self.counters.alarms.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%alarm, "alarm");
            self.last_alarm = Some(alarm.to_string().into());
        }
        for envelope in ready.appends {
            self.transport.send(envelope.to, envelope.message);
        }
        if let Some(save) = ready.save {
            // (Before the save that may drop them.)
            self.kept.keep_from(self.raft.wanted());
            let start = clock::now();
            self.log.save(&save).await;
            let end = clock::now();
            let took = end.since(start);
            self.saves.note(took);
            self.counters.measures.saved(took, save.entries.len());
            self.marked.mark(&self.handing, end);
            if took > self.config.tick * self.config.election_ticks_min {
                self.counters.slow_saves.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(?took, "a synced write took longer than an election timeout");
            }
            self.raft.set_kept(self.kept.first());
            self.raft.saved();
        }
        for envelope in ready.send {
            self.counters.measures.sends(&envelope.message);
            self.transport.send(envelope.to, envelope.message);
        }
        // Waiters alone give the applier nothing to do: they go with the next item.
        if !ready.apply.is_empty() {
            self.marked.clear();
            self.handing.push(Item::Agreed(clock::now()));
            self.handing.extend(ready.apply.into_iter().map(Item::Apply));
            let _ = self.applier.send(std::mem::take(&mut self.handing));
        }
        let chunks = ready.streams.into_iter().map(ReadOrder::Chunk);
        for order in chunks.chain(ready.reads.into_iter().map(ReadOrder::Entries)) {
            let _ = self.reads.send(order);
        }
    }

    fn publish(&self) {
        let raft = &self.raft;
        let syncs = self.log.syncs();
        let leadership = Leadership::of(raft);
        let news = *self.leadership.borrow() != leadership;
        if news {
            let (term, leader, commit) = (raft.term().0, raft.leader().map(|id| id.0), raft.commit().0);
            tracing::info!(role = ?leadership.role, term, ?leader, commit, "role");
        }
        self.status.send_if_modified(|status| {
            let next = Status {
                syncs,
                slow_syncs: self.counters.slow_saves.load(Ordering::Relaxed),
                held_bytes: self.held.bytes(),
                refused_messages: self.counters.refused_messages.load(Ordering::Relaxed),
                alarms: self.counters.alarms.load(Ordering::Relaxed),
                last_alarm: self.last_alarm.clone(),
                ..Status::of(raft, &self.config, status.applied)
            };
            let changed = *status != next;
            self.counters.measures.changes(status, &next);
            *status = next;
            changed
        });
        if news {
            self.leadership.send_replace(leadership);
        }
    }

    fn maybe_compact(&mut self) {
        if self.compaction.is_due(self.raft.log().bytes(), &self.config) {
            self.start_compaction();
        }
    }

    fn start_compaction(&mut self) {
        // This check comes first: searching for the point walks the log, and during a flush every
        // round comes here.
        if self.compaction.under_way {
            return;
        }
        let applied = self.status.borrow().applied.id.index;
        if let Some(point) = self.raft.log().compaction_point(applied, self.config.log_keep_bytes) {
            self.compaction.under_way = true;
            let _ = self.chores.send(Chore::Flush(point.index));
        }
    }
}
