//! Drives a core: rounds of inputs, and the one law of effects.
//!
//! A *round* takes up to N peer messages, then up to M proposals and reads, then at most one tick.
//! (Two queues keep clients from crowding out peers; missed ticks collapse into one.) Then it
//! carries out one Ready: `appends -> save -> send -> apply`. This alone gives group commit. After
//! a disk stall the driver reads its heartbeats before its clock.
//!
//! Other tasks run beside the driver: the applier ([`crate::rsm`]), and the tasks that flush the
//! table before a compaction and read snapshot chunks ([`crate::background`]). The driver waits for
//! none of them. It passes work to the applier once per round, because a wake-up costs more than an
//! item.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::clock::{self, Ticker};
use base::process::{Fatal, end};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::background::{Chore, ReadOrder};
use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::{Apply, ReadId, Ready, RunOrder};
use crate::core::role::Role;
use crate::core::{ProposeError, Raft, Refused};
use crate::rsm::{ExecuteError, Follower, Leadership, Role as RoleName, Status};
use crate::storage::{Applied, Kept, Log, Run};
use crate::transport::{Incoming, Mailbox, Transport};
use crate::types::{EntryId, Index, NodeId};

/// A caller that waits for a proposal or a read.
pub(crate) trait Waiter: Send + 'static {
    /// Tells it that nothing was done, and why.
    fn refuse(self, error: ExecuteError);

    /// Tells it, if it wants to know, that its command has a place in the log.
    fn placed(&mut self, _id: EntryId) {}
}

/// Requests of the replica's clients.
pub(crate) enum Request<P, Q> {
    /// A command.
    Propose { command: Bytes, freeing: bool, waiter: P },
    /// A linearizable read.
    Read { waiter: Q },
    /// Compact now, as far as is safe.
    Compact,
}

/// The applier's items, in order.
pub(crate) enum Item<P, Q> {
    /// From the core.
    Apply(Apply),
    /// The caller that waits for the entry; the entry itself arrives after it (architecture: idea
    /// 5).
    Proposed(EntryId, P),
    /// The caller that waits for the read; its confirmation arrives after it.
    Asked(ReadId, Q),
}

/// Reports to the driver from the applier and the tasks beside it.
pub(crate) enum Event {
    /// This many bytes of entries have been applied. Reported in batches.
    AppliedBytes(usize),
    /// Every chunk of this snapshot so far is staged.
    Staged(EntryId),
    /// The table is the one of this snapshot.
    Installed(EntryId),
    /// This snapshot was not ahead of what is applied.
    NotInstalled(EntryId),
    /// This many confirmed reads were answered. Reported in batches.
    AnsweredReads(usize),
    /// The table is now the one of this snapshot.
    Chunk(NodeId, Chunk),
    /// Entries for a follower were read from the log's files, or are gone.
    Entries(RunOrder, Option<Run>),
    /// The table is durable up to here.
    Durable(Index),
    /// The table had this hash after the entry at this position was applied.
    Hashed(Index, u64),
}

/// Counters that are shared with the handle.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refused_messages: AtomicU64,
    pub(crate) slow_saves: AtomicU64,
    pub(crate) alarms: AtomicU64,
}

pub(crate) struct Driver<P, Q> {
    pub(crate) raft: Raft,
    pub(crate) config: Config,
    pub(crate) log: Box<dyn Log>,
    pub(crate) kept: Arc<dyn Kept>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) mailbox: Mailbox,
    pub(crate) mailbox_open: bool,
    pub(crate) requests: mpsc::Receiver<Request<P, Q>>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) applier: mpsc::UnboundedSender<Vec<Item<P, Q>>>,
    /// Waiting callers, to be passed to the applier with its next item.
    pub(crate) handing: Vec<Item<P, Q>>,
    pub(crate) chores: mpsc::UnboundedSender<Chore>,
    /// Reads for followers.
    pub(crate) reads: mpsc::UnboundedSender<ReadOrder>,
    pub(crate) disk_low: watch::Receiver<bool>,
    pub(crate) status: Arc<watch::Sender<Status>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: CancellationToken,
    pub(crate) next_read: u64,
    pub(crate) compaction: Compaction,
    pub(crate) random: StdRng,
    /// The newest alarm, in words.
    pub(crate) last_alarm: Option<Arc<str>>,
    /// The table is bad: code that answers clients checks this (correctness rule 69).
    pub(crate) table_bad: Arc<AtomicBool>,
    /// What was applied at the last tick.
    pub(crate) rested: Applied,
    /// The core checks itself in every round; used by simulations.
    pub(crate) is_checked: bool,
}

/// When to compact next.
#[derive(Debug)]
pub(crate) struct Compaction {
    under_way: bool,
    /// Log bytes after the last attempt: try again when they have grown noticeably.
    bytes_then: usize,
    ticks_since: u32,
    /// Log bytes at which to begin. This is random, below the limit. The logs of a group grow
    /// alike, and while one replica flushes its table, the disks and processors of a majority
    /// should be free.
    begin_at: usize,
}

impl Compaction {
    /// The next compaction after an attempt that left `bytes_then` of log.
    pub(crate) fn next(bytes_then: usize, config: &Config, random: &mut StdRng) -> Self {
        let early = random.random_range(0..=(config.log_bytes_max - config.log_keep_bytes) / 3);
        Self { under_way: false, bytes_then, ticks_since: 0, begin_at: config.log_bytes_max - early }
    }

    /// Whether a log of `bytes` bytes is to be compacted now.
    fn is_due(&self, bytes: usize, config: &Config) -> bool {
        let grown = bytes > self.bytes_then.saturating_add(config.log_keep_bytes / 4);
        let is_long = bytes > self.begin_at && !base::mutant!("compact-never");
        (is_long || base::mutant!("compact-at-once"))
            && (grown || self.ticks_since >= config.election_ticks_max)
    }
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
        self.raft.set_disk_low(*self.disk_low.borrow());
        self.compaction.ticks_since = self.compaction.ticks_since.saturating_add(1);
        self.raft.tick();
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
            }
            Event::NotInstalled(snapshot) => self.raft.not_installed(snapshot),
            Event::Chunk(to, chunk) => self.raft.chunk_read(to, chunk),
            Event::Entries(order, run) => {
                self.raft.set_kept(self.kept.first());
                self.raft.entries_read(&order, run);
            }
            Event::Hashed(index, hash) => self.raft.hashed(index, hash),
            Event::Durable(index) => {
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
            if start.elapsed() > self.config.tick * self.config.election_ticks_min {
                self.counters.slow_saves.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(took = ?start.elapsed(), "a synced write took longer than an election timeout");
            }
            self.raft.set_kept(self.kept.first());
            self.raft.saved();
        }
        for envelope in ready.send {
            self.transport.send(envelope.to, envelope.message);
        }
        // Waiters alone give the applier nothing to do: they go with the next item.
        if !ready.apply.is_empty() {
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
                unapplied_bytes: raft.unapplied_bytes(),
                disk_full: raft.is_disk_full(),
                syncs,
                slow_syncs: self.counters.slow_saves.load(Ordering::Relaxed),
                followers: Follower::of(raft, self.config.tick),
                owes: raft.owes(),
                refused_messages: self.counters.refused_messages.load(Ordering::Relaxed),
                alarms: self.counters.alarms.load(Ordering::Relaxed),
                last_alarm: self.last_alarm.clone(),
                table_bad: raft.is_table_bad(),
                disbelieved: raft.disbelieved().iter().copied().collect(),
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

impl From<ProposeError> for ExecuteError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { hint } => Self::NotLeader { hint },
            ProposeError::Busy => Self::Busy,
            ProposeError::DiskFull => Self::DiskFull,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::Compaction;
    use crate::config::Config;

    #[test]
    fn replicas_begin_compactions_at_different_lengths_and_none_beyond_the_limit() {
        let config = Config::default();
        // The first length, to a part in a thousand, at which one begins.
        let begins_at = |seed| {
            let compaction = Compaction::next(0, &config, &mut StdRng::seed_from_u64(seed));
            (0..=1001)
                .map(|part| config.log_bytes_max / 1000 * part)
                .find(|bytes| compaction.is_due(*bytes, &config))
        };
        let all: BTreeSet<usize> = (0..100).filter_map(begins_at).collect();
        assert!(all.len() > 50, "{all:?}");
        assert!(
            all.last().is_some_and(|longest| *longest <= config.log_bytes_max + config.log_bytes_max / 1000)
        );
        // Each time two thirds of the log are dropped: flushes are not worth it for a few entries.
        assert!(all.first().is_some_and(|shortest| *shortest >= config.log_keep_bytes * 3), "{all:?}");
    }
}
