//! The applier: one FIFO, in which everything that touches the table has its turn.
//!
//! A turn takes the queued items, applies their commands to an overlay, writes that in one batch,
//! and only then answers: commands in their order, then the confirmed reads whose index is applied.
//! The answers of a run leave together, through a task that sends them on the callers' runtime
//! ([`respond`]): one wake-up per run, and answers to one connection go in one write. The caller
//! that waits for a command was queued before the command itself, so its answer follows from the
//! ids (rule 28). The same id: its output. Another term at its index: not executed. Passed by a
//! snapshot, or a newer term seen: unknown.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::clock::Instant;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::channels::{Event, Item};
use super::machine::{StateMachine, decode_command};
use super::marks::Step;
use super::overlay::Overlay;
use super::status::Status;
use super::waiter::{CommandWaiter, QueryWaiter, Reply, Verdict, Waiter};
use crate::config::Config;
use crate::core::message::Chunk;
use crate::core::ready::{Apply, ReadId};
use crate::storage::{self, APPLIED_KEY, Applied, Table};
use crate::types::{Entry, EntryId, ExecuteError, Index, Payload};

type Queue<S> = mpsc::UnboundedReceiver<Vec<Item<CommandWaiter<S>, QueryWaiter<S>>>>;

/// Sends the answers of a turn.
pub(super) type Responses = Box<dyn FnOnce() + Send>;

/// Sends answers on the runtime of the callers that wait for them.
pub(super) async fn respond(mut turns: mpsc::UnboundedReceiver<Responses>) {
    while let Some(answer_all) = turns.recv().await {
        answer_all();
    }
}

pub(super) struct Applier<S: StateMachine> {
    pub(super) machine: S,
    pub(super) table: Arc<dyn Table>,
    pub(super) queue: Queue<S>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) responses: mpsc::UnboundedSender<Responses>,
    pub(super) status: Arc<watch::Sender<Status>>,
    pub(super) stop: CancellationToken,
    pub(super) applied: Applied,
    /// The table is marked bad.
    pub(super) is_bad: bool,
    /// The driver's flag for that, which is set first.
    pub(super) table_bad: Arc<AtomicBool>,
    /// The snapshot that is being staged.
    pub(super) staging: Option<EntryId>,
    /// Reports to the driver, in batches.
    pub(super) done: Done,
    /// Callers that wait for commands, by position.
    pub(super) waiters: VecDeque<(EntryId, CommandWaiter<S>)>,
    /// Reads not confirmed yet.
    pub(super) asked: BTreeMap<ReadId, QueryWaiter<S>>,
    /// Confirmed reads that wait for their index.
    pub(super) confirmed: VecDeque<(Index, QueryWaiter<S>)>,
    /// When the items of this round were agreed on.
    pub(super) agreed: Instant,
}

/// Finished work that was not reported to the driver yet, and how much is reported at once: a
/// wake-up costs more than an entry. The unreported rest is a small part of every limit
/// (correctness rule 77).
#[derive(Debug)]
pub(super) struct Done {
    bytes: usize,
    reads: usize,
    bytes_told_at: usize,
    reads_told_at: usize,
}

impl Done {
    pub(super) fn new(config: &Config) -> Self {
        let bytes = config.apply_backlog_bytes_max.min(config.unapplied_bytes_max);
        Self {
            bytes: 0,
            reads: 0,
            bytes_told_at: (bytes / 4).max(1),
            reads_told_at: (config.pending_reads_max / 4).max(1),
        }
    }

    fn tell(&mut self, events: &mpsc::UnboundedSender<Event>) {
        if self.bytes >= self.bytes_told_at {
            let _ = events.send(Event::AppliedBytes(std::mem::take(&mut self.bytes)));
        }
        if self.reads >= self.reads_told_at {
            let _ = events.send(Event::AnsweredReads(std::mem::take(&mut self.reads)));
        }
    }
}

/// The chained hash is reported at every position that this divides: the same ones on every server.
const HASHED_EVERY: u64 = 256;

/// The number of commands and reads that are answered together. It is small enough that half of a
/// crowd of closed-loop clients is already sending again while the other half is applied.
const RUN_MAX: usize = 32;

/// The answers to commands and reads of a run.
struct Answers<S: StateMachine> {
    commands: Vec<(CommandWaiter<S>, Verdict<S::Output>)>,
    reads: Vec<(Reply<S::Answer>, S::Answer)>,
}

impl<S: StateMachine> Answers<S> {
    /// Rule 69: whether the table is bad is checked when the answers leave, on the thread that
    /// finds it out.
    fn leave(self, responses: &mpsc::UnboundedSender<Responses>, table_bad: &Arc<AtomicBool>) {
        if self.commands.is_empty() && self.reads.is_empty() {
            return;
        }
        let table_bad = Arc::clone(table_bad);
        let _ = responses.send(Box::new(move || {
            let is_bad = table_bad.load(Ordering::Relaxed);
            for (waiter, answer) in self.commands {
                let _ = waiter.reply.send(if is_bad { Err(ExecuteError::Unknown) } else { answer });
            }
            for (reply, answer) in self.reads {
                let nobody = Err(ExecuteError::NotLeader { hint: None });
                let _ = reply.send(if is_bad { nobody } else { Ok(answer) });
            }
        }));
    }
}

/// An item that ends a run: it changes the whole table.
enum Turning {
    Chunk(Chunk),
    Bad,
}

impl<S: StateMachine> Applier<S> {
    pub(super) async fn run(mut self) {
        const TURN_ROUNDS_MAX: usize = 16;
        let mut rounds = Vec::with_capacity(TURN_ROUNDS_MAX);
        self.machine.load(&*self.table);
        loop {
            let taken = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                taken = self.queue.recv_many(&mut rounds, TURN_ROUNDS_MAX) => taken,
            };
            if taken == 0 {
                break;
            }
            let mut turn = rounds.drain(..).flatten().collect::<VecDeque<_>>();
            while !turn.is_empty() {
                if let Some(ready) = self.table.ready() {
                    ready.await;
                }
                let mut answers = Answers { commands: Vec::new(), reads: Vec::new() };
                match self.apply_run(&mut turn, &mut answers) {
                    Some(Turning::Chunk(chunk)) => self.on_chunk(chunk).await,
                    Some(Turning::Bad) => self.on_bad_table().await,
                    None => {}
                }
                self.answer_reads(&mut answers);
                self.done.tell(&self.events);
                answers.leave(&self.responses, &self.table_bad);
            }
        }
        for (_, waiter) in self.waiters {
            waiter.refuse(ExecuteError::Unknown);
        }
    }

    /// Applies some items, or all up to the next that changes the whole table, which it returns.
    fn apply_run(
        &mut self,
        turn: &mut VecDeque<Item<CommandWaiter<S>, QueryWaiter<S>>>,
        answers: &mut Answers<S>,
    ) -> Option<Turning> {
        let table = Arc::clone(&self.table);
        let mut overlay = Overlay::new(&*table, self.applied);
        let mut turning = None;
        let mut left = RUN_MAX;
        while left > 0
            && let Some(item) = turn.pop_front()
        {
            left -= usize::from(matches!(item, Item::Apply(_)));
            match item {
                Item::Agreed(at) => self.agreed = at,
                Item::Proposed(id, waiter) => self.waiters.push_back((id, waiter)),
                Item::Asked(id, waiter) => {
                    self.asked.insert(id, waiter);
                }
                Item::Apply(Apply::Entry(entry)) => {
                    self.done.bytes += entry.weight();
                    self.apply_entry(&mut overlay, entry, answers);
                }
                Item::Apply(Apply::Read(id, index)) => {
                    if let Some(waiter) = self.asked.remove(&id) {
                        waiter.marks(|marks| marks.set_at(Step::Agreed, self.agreed));
                        self.confirmed.push_back((index, waiter));
                    }
                }
                Item::Apply(Apply::ReadAborted(id)) => {
                    if let Some(waiter) = self.asked.remove(&id) {
                        waiter.refuse(ExecuteError::NotLeader { hint: None });
                    }
                }
                Item::Apply(Apply::NewerTerm(term)) => {
                    let old = self.waiters.iter().take_while(|(id, _)| id.term < term).count();
                    let mut fate = ExecuteError::Unknown;
                    base::mutant!("overthrown-is-not-executed", fate = ExecuteError::NotExecuted);
                    answers.commands.extend(self.waiters.drain(..old).map(|(_, waiter)| (waiter, Err(fate))));
                }
                Item::Apply(Apply::Chunk(chunk)) => {
                    turning = Some(Turning::Chunk(chunk));
                    break;
                }
                Item::Apply(Apply::DropStaged) => self.drop_staged(),
                Item::Apply(Apply::TableBad) => {
                    turning = Some(Turning::Bad);
                    break;
                }
            }
        }
        if overlay.applied() != self.applied {
            self.applied = overlay.applied();
            self.table.write(overlay.into_batch());
            self.publish();
        }
        turning
    }

    fn apply_entry(&mut self, overlay: &mut Overlay<'_>, entry: Entry, answers: &mut Answers<S>) {
        let id = entry.id;
        if id.index <= overlay.applied().id.index {
            // A snapshot was ahead of it.
            return;
        }
        assert_eq!(
            id.index,
            overlay.applied().id.index.next(),
            "entries are applied in order, none left out"
        );
        if !entry.is_whole() {
            storage::fatal("apply an entry", &format!("its checksum is wrong: {id}"));
        }
        let mut output = match entry.payload {
            Payload::Empty => None,
            Payload::Command(command) => Some(self.machine.apply(overlay, id, decode::<S>(&command))),
        };
        overlay.finish_command(id);
        if id.index.0.is_multiple_of(HASHED_EVERY) {
            let _ = self.events.send(Event::Hashed(id.index, overlay.applied().hash));
        }
        while self.waiters.front().is_some_and(|(waiting, _)| waiting.index <= id.index) {
            let (waiting, waiter) = self.waiters.pop_front().expect("just seen");
            let verdict = match output.take_if(|_| waiting == id) {
                Some(output) => Ok(output),
                None if waiting.index == id.index => Err(ExecuteError::NotExecuted),
                None => Err(ExecuteError::Unknown),
            };
            waiter.marks(|marks| marks.set_at(Step::Agreed, self.agreed));
            answers.commands.push((waiter, verdict));
        }
    }

    /// Rule 69: nothing more is applied (the core hands nothing more) until a snapshot has replaced the table.
    async fn on_bad_table(&mut self) {
        self.is_bad = true;
        self.table.mark_bad().await;
        for (_, waiter) in self.waiters.drain(..) {
            waiter.refuse(ExecuteError::Unknown);
        }
        // Nothing more is applied here, so the awaited entries will not come. Another server can
        // answer.
        self.done.reads += self.confirmed.len();
        for (_, waiter) in self.confirmed.drain(..) {
            waiter.refuse(ExecuteError::NotLeader { hint: None });
        }
    }

    /// A piece of a snapshot: stage it; the last one becomes the live table (rule 33).
    async fn on_chunk(&mut self, chunk: Chunk) {
        let snapshot = chunk.snapshot;
        if chunk.after.is_none() {
            // The applied row comes first in key order. Rows that do not say of which snapshot they
            // are would be noticed only after the switch: nothing from the network may get that far
            // (rule 49).
            if !names_itself(&chunk) {
                tracing::warn!(%snapshot, "snapshot refused: its rows do not name it");
                self.drop_staged();
                let _ = self.events.send(Event::NotInstalled(snapshot));
                return;
            }
            self.table.stage_start();
            self.staging = Some(snapshot);
        }
        if self.staging != Some(snapshot) {
            // It came after a chunk that was refused.
            return;
        }
        self.table.stage(chunk.rows);
        let event = if !chunk.done {
            Event::Staged(snapshot)
        } else if (snapshot.index < self.applied.id.index
            || snapshot.index == self.applied.id.index && !self.is_bad)
            && !base::mutant!("snapshot-over-newer-rows")
        {
            self.drop_staged();
            Event::NotInstalled(snapshot)
        } else {
            self.staging = None;
            base::mutant!("installed-before-durable", drop(self.events.send(Event::Installed(snapshot))));
            self.table.switch(snapshot).await;
            self.is_bad = false;
            self.applied = storage::applied(&*self.table);
            assert_eq!(self.applied.id, snapshot, "a snapshot's rows name the snapshot");
            self.machine.load(&*self.table);
            self.publish();
            while self.waiters.front().is_some_and(|(waiting, _)| waiting.index <= snapshot.index) {
                let (_, waiter) = self.waiters.pop_front().expect("just seen");
                waiter.refuse(ExecuteError::Unknown);
            }
            tracing::info!(%snapshot, "snapshot installed");
            Event::Installed(snapshot)
        };
        let _ = self.events.send(event);
    }

    fn drop_staged(&mut self) {
        if self.staging.take().is_some() {
            self.table.stage_drop();
        }
    }

    /// Reads are answered from the table, after everything that was applied in this turn.
    fn answer_reads(&mut self, answers: &mut Answers<S>) {
        while self.confirmed.front().is_some_and(|(index, _)| *index <= self.applied.id.index) {
            let (_, waiter) = self.confirmed.pop_front().expect("just seen");
            self.done.reads += 1;
            if !waiter.reply.is_closed() {
                let QueryWaiter { query, reply, .. } = waiter;
                answers.reads.push((reply, self.machine.query(&*self.table, query)));
            }
        }
    }

    fn publish(&self) {
        let applied = self.applied;
        self.status.send_modify(|status| status.applied = applied);
    }
}

/// Whether the first chunk of a snapshot carries the applied row of that snapshot.
fn names_itself(chunk: &Chunk) -> bool {
    chunk.rows.first().is_some_and(|(key, value)| {
        key == APPLIED_KEY
            && base::codec::decode::<Applied>(value, value.len()).is_ok_and(|it| it.id == chunk.snapshot)
    })
}

/// A logged command that this build cannot read stops the replica: skipping it would let its rows
/// diverge from those of replicas that can.
fn decode<S: StateMachine>(command: &Bytes) -> S::Command {
    decode_command(command).unwrap_or_else(|error| storage::unreadable("read a logged command", &error))
}
