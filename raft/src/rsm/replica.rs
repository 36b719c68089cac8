//! The handle of a running replica.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::StateMachine;
use super::applier::{Applier, CommandWaiter, Done, QueryWaiter, respond};
use crate::background::{Flusher, Streamer};
use crate::config::{Config, InvalidConfig};
use crate::core::Raft;
use crate::driver::{Compaction, Counters, Driver, Request};
use crate::storage::{self, Applied, Log, OpenError, Restored, Save, Table, thread::LogThread};
use crate::transport::{Mailbox, Transport};
use crate::types::{EntryId, Index, Membership, NodeId, Term};

/// What a replica is made of.
pub struct Parts {
    /// This server.
    pub me: NodeId,
    /// The group.
    pub membership: Membership,
    /// Its settings.
    pub config: Config,
    /// Its log.
    pub log: Box<dyn Log>,
    /// Its table.
    pub table: Arc<dyn Table>,
    /// Its way to the others.
    pub transport: Arc<dyn Transport>,
    /// What arrives from them.
    pub mailbox: Mailbox,
    /// Where its tasks run.
    pub threads: Threads,
    /// Free bytes of the disk are below the reserve: refuse what needs space (correctness rule 35).
    pub disk_low: tokio::sync::watch::Receiver<bool>,
}

/// Where the tasks of a replica run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Synced writes, applier, flusher and streamer have a thread each; the driver stays on the caller's runtime, beside
    /// the sockets: what arrives together goes through it together, without a wake-up on the way.
    Own,
    /// All on the caller's runtime: simulations.
    Shared,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The stores do not fit each other, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a command or a query has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Another server leads; surely not done.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        hint: Option<NodeId>,
    },
    /// The outcome cannot be told any more (correctness rules 27, 28).
    #[error("outcome unknown")]
    Unknown,
    /// Another entry took the command's place; surely not done.
    #[error("not executed")]
    NotExecuted,
    /// A limit is reached; surely not done.
    #[error("busy")]
    Busy,
    /// A disk of the group is nearly full; surely not done.
    #[error("disk nearly full")]
    DiskFull,
}

/// How a replica is. Published after every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This server.
    pub me: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: Index,
    /// The last entry applied, with the chained hash.
    pub applied: Applied,
    /// Bytes of log in memory.
    pub log_bytes: usize,
    /// Bytes of entries that are not committed, and the limit at which proposals are refused.
    pub uncommitted_bytes: usize,
    /// That limit.
    pub uncommitted_bytes_max: usize,
    /// Bytes of entries that are committed and not applied, as far as the applier has told.
    pub unapplied_bytes: usize,
    /// Synced writes since the start.
    pub syncs: u64,
    /// The last entry that this server had acknowledged, if it lost a part of its log and does not have it again yet
    /// (correctness rule 62).
    pub owes: Option<EntryId>,
    /// Messages of peers that were refused since the start.
    pub refused_messages: u64,
    /// Alarms since the start ([`crate::core::alarm`]).
    pub alarms: u64,
    /// The newest of them, in words.
    pub last_alarm: Option<Arc<str>>,
    /// The table differs from those of most servers, and waits for a snapshot (correctness rule 69).
    pub table_bad: bool,
    /// Peers whose messages are refused (correctness rule 67).
    pub disbelieved: Vec<NodeId>,
}

/// Who leads, as far as a replica knows. Published when it changes, which is seldom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
}

/// A server's part in its group, without the data that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether it could win (pre-vote).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Handle of a running replica. Clones share it; the replica stops when the last one is gone.
pub struct Replica<S: StateMachine> {
    shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<S: StateMachine> {
    requests: mpsc::Sender<Request<CommandWaiter<S>, QueryWaiter<S>>>,
    status: watch::Receiver<Status>,
    leadership: watch::Receiver<Leadership>,
    table: Arc<dyn Table>,
    table_bad: Arc<AtomicBool>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: Mutex<Vec<Task>>,
}

impl<S: StateMachine> Drop for Shared<S> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Something that runs for the replica.
enum Task {
    Spawned(tokio::task::JoinHandle<()>),
    Thread { done: oneshot::Receiver<()>, thread: std::thread::JoinHandle<()> },
}

impl Task {
    /// `prepare` is what a thread of its own does first.
    fn start<F: Future<Output = ()> + Send + 'static>(
        threads: Threads,
        name: &str,
        prepare: fn(),
        future: F,
    ) -> Self {
        match threads {
            Threads::Shared => Self::Spawned(tokio::spawn(future)),
            Threads::Own => {
                let (ended, done) = oneshot::channel();
                let span = tracing::Span::current();
                let run = move || {
                    let _in = span.entered();
                    prepare();
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap_or_else(|error| storage::no_runtime(&error));
                    runtime.block_on(future);
                    let _ = ended.send(());
                };
                let thread = storage::start_thread(name, run);
                Self::Thread { done, thread }
            }
        }
    }

    async fn end(self) {
        match self {
            Self::Spawned(handle) => {
                let _ = handle.await;
            }
            Self::Thread { done, thread } => {
                let _ = done.await;
                // A panic of that thread has already been reported by the panic hook.
                let _ = thread.join();
            }
        }
    }
}

/// The start rule (architecture: walks, snapshot): what the log and the table say must fit.
pub(crate) fn start_rule(
    restored: &mut Restored,
    applied: EntryId,
    installed: Option<EntryId>,
) -> Result<Option<Save>, OpenError> {
    let marker = restored.marker;
    let at = applied.index.0.checked_sub(marker.index.0);
    let term_there = match at {
        None => None,
        Some(0) => Some(marker.term),
        Some(position) => usize::try_from(position - 1)
            .ok()
            .and_then(|position| restored.entries.get(position))
            .map(|entry| entry.id.term),
    };
    if term_there == Some(applied.term) {
        return Ok(None);
    }
    let last = restored.entries.last().map_or(marker, |entry| entry.id);
    // The log was damaged, and the table is ahead of what is left of it (rule 62).
    let is_ahead = restored.promised > last && applied.index > marker.index;
    if installed == Some(applied) || is_ahead {
        // Or the process ended between the switch and the save that drops the log: drop it now.
        let truncate_from = Some(marker.index.next());
        restored.marker = applied;
        restored.entries.clear();
        return Ok(Some(Save { truncate_from, marker: Some(applied), ..Save::default() }));
    }
    Err(OpenError::Corrupt {
        path: "log and table".to_owned(),
        what: format!("the table was applied up to {applied}, but the log holds {marker} to {last}"),
    })
}

/// Starts a replica of `machine`.
///
/// # Errors
/// [`StartError`], before anything runs.
pub async fn start<S: StateMachine>(parts: Parts, machine: S) -> Result<Replica<S>, StartError> {
    let Parts { me, membership, config, mut log, table, transport, mailbox, threads, disk_low } = parts;
    config.validate()?;
    let mut restored = log.load()?;
    let applied = storage::applied(&*table);
    if let Some(save) = start_rule(&mut restored, applied.id, table.installed())? {
        log.save(&save).await;
    }
    if threads == Threads::Own {
        log = Box::new(LogThread::start(log));
    }
    let mut raft = Raft::new(me, membership.clone(), config.clone(), restored, applied.id);
    let is_bad = table.is_bad() && !base::mutant!("bad-table-forgotten");
    if is_bad {
        raft.start_with_bad_table();
    }
    let table_bad = Arc::new(AtomicBool::new(is_bad));
    let (status_sender, status) = watch::channel(Status {
        me,
        role: Role::Follower,
        term: raft.term(),
        leader: None,
        commit: raft.commit(),
        applied,
        log_bytes: raft.log().bytes(),
        uncommitted_bytes: 0,
        uncommitted_bytes_max: config.uncommitted_bytes_max,
        unapplied_bytes: 0,
        syncs: log.syncs(),
        owes: raft.owes(),
        refused_messages: 0,
        alarms: 0,
        last_alarm: None,
        table_bad: raft.is_table_bad(),
        disbelieved: Vec::new(),
    });
    let status_sender = Arc::new(status_sender);
    let (leadership_sender, leadership) =
        watch::channel(Leadership { role: Role::Follower, term: raft.term(), leader: raft.leader() });
    let (requests, request_queue) = mpsc::channel(config.requests_max);
    let (event_sender, events) = mpsc::unbounded_channel();
    let (items, queue) = mpsc::unbounded_channel();
    let (responses, turns) = mpsc::unbounded_channel();
    let (chores, chore_queue) = mpsc::unbounded_channel();
    let (streams, stream_queue) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let counters = Arc::new(Counters::default());
    // Ticks of the replicas of a group must not beat in step.
    let mut random = StdRng::seed_from_u64(config.seed ^ me.0);
    let phase = config.tick.mul_f64(random.random());
    let compaction = Compaction::next(0, &config, &mut random);
    let flusher = Flusher {
        table: Arc::clone(&table),
        chores: chore_queue,
        events: event_sender.clone(),
        stop: stop.clone(),
    };
    let streamer = Streamer {
        table: Arc::clone(&table),
        membership,
        config: config.clone(),
        orders: stream_queue,
        events: event_sender.clone(),
        stop: stop.clone(),
    };
    let applier = Applier {
        machine,
        table: Arc::clone(&table),
        queue,
        events: event_sender,
        responses,
        status: Arc::clone(&status_sender),
        stop: stop.clone(),
        applied,
        is_bad,
        table_bad: Arc::clone(&table_bad),
        done: Done::new(&config),
        waiters: VecDeque::new(),
        asked: BTreeMap::new(),
        confirmed: VecDeque::new(),
    };
    let driver = Driver {
        raft,
        config,
        log,
        transport,
        mailbox,
        mailbox_open: true,
        requests: request_queue,
        events,
        applier: items,
        handing: Vec::new(),
        chores,
        streams,
        disk_low,
        status: status_sender,
        leadership: leadership_sender,
        counters: Arc::clone(&counters),
        stop: stop.clone(),
        next_read: 0,
        compaction,
        random,
        last_alarm: None,
        table_bad: Arc::clone(&table_bad),
        rested: applied,
        is_checked: threads == Threads::Shared,
    };
    let tasks = vec![
        Task::Spawned(tokio::spawn(driver.run(phase).in_current_span())),
        Task::Spawned(tokio::spawn(respond(turns))),
        Task::start(threads, "raft-applier", || (), applier.run()),
        Task::start(threads, "raft-flusher", storage::stand_back, flusher.run()),
        Task::start(threads, "raft-streamer", || (), streamer.run()),
    ];
    Ok(Replica {
        shared: Arc::new(Shared {
            requests,
            status,
            leadership,
            table,
            table_bad,
            counters,
            stop,
            tasks: Mutex::new(tasks),
        }),
    })
}

/// A command that has a place in the log, and the output it may have.
#[derive(Debug)]
pub struct Placed<T> {
    /// Its place.
    pub id: EntryId,
    reply: oneshot::Receiver<Result<T, ExecuteError>>,
}

impl<T> Placed<T> {
    /// Waits for the output.
    ///
    /// # Errors
    /// [`ExecuteError::NotExecuted`] or [`ExecuteError::Unknown`].
    pub async fn output(self) -> Result<T, ExecuteError> {
        self.reply.await.unwrap_or(Err(ExecuteError::Unknown))
    }
}

impl<S: StateMachine> Replica<S> {
    /// Runs `command` through the log and returns its output, within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn execute(&self, command: &S::Command, deadline: Duration) -> Result<S::Output, ExecuteError> {
        self.run(command, false, deadline).await
    }

    /// Like [`Self::execute`], for commands that free space: accepted while the disk is nearly full.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_freeing(
        &self,
        command: &S::Command,
        deadline: Duration,
    ) -> Result<S::Output, ExecuteError> {
        self.run(command, true, deadline).await
    }

    async fn run(
        &self,
        command: &S::Command,
        freeing: bool,
        deadline: Duration,
    ) -> Result<S::Output, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        let waiter = CommandWaiter { reply, placed: None };
        self.ask(Request::Propose { command: super::encode_command(command), freeing, waiter })?;
        wait(answer, deadline).await
    }

    /// Proposes `command` and returns as soon as it has a place in the leader's log (the labs'
    /// `Start`).
    ///
    /// # Errors
    /// [`ExecuteError`]; nothing was proposed then.
    pub async fn propose(&self, command: &S::Command) -> Result<Placed<S::Output>, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        let (placed, place) = oneshot::channel();
        let waiter = CommandWaiter { reply, placed: Some(placed) };
        self.ask(Request::Propose { command: super::encode_command(command), freeing: false, waiter })?;
        let id = place.await.unwrap_or(Err(ExecuteError::Unknown))?;
        Ok(Placed { id, reply: answer })
    }

    /// Answers `query` linearizably (ReadIndex), within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn query(&self, query: S::Query, deadline: Duration) -> Result<S::Answer, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Read { waiter: QueryWaiter { query, reply } })?;
        wait(answer, deadline).await
    }

    fn ask(&self, request: Request<CommandWaiter<S>, QueryWaiter<S>>) -> Result<(), ExecuteError> {
        self.shared.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ExecuteError::Busy,
            mpsc::error::TrySendError::Closed(_) => ExecuteError::NotLeader { hint: None },
        })
    }

    /// Compacts the log now, as far as the table is (or can be made) durable and followers allow.
    pub fn compact(&self) {
        let _ = self.shared.requests.try_send(Request::Compact);
    }

    /// How the replica is.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Who leads, as far as this replica knows.
    pub fn leadership(&self) -> Leadership {
        *self.shared.leadership.borrow()
    }

    /// Follows who leads: for tasks that need not wake up for every command.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    /// Follows the status; changed whenever role, term, leader, commit or applied changed.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Messages refused since the start, and saves that took longer than an election timeout.
    pub fn counters(&self) -> (u64, u64) {
        let counters = &self.shared.counters;
        (counters.refused_messages.load(Ordering::Relaxed), counters.slow_saves.load(Ordering::Relaxed))
    }

    /// Whether the table is bad (correctness rule 69): no client may be answered from it.
    pub fn is_table_bad(&self) -> bool {
        self.shared.table_bad.load(Ordering::Relaxed)
    }

    /// The rows as applied so far: not linearizable, for background work and local answers. Ask
    /// [`Self::is_table_bad`] before a client is answered from them.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.shared.table
    }

    /// Ends every task and thread and releases the stores. Calls that wait get `Unknown`.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.end().await;
        }
    }

    /// Drops every task where it stands, as `kill -9` would. For simulations ([`Threads::Shared`]).
    pub fn kill(&self) {
        for task in self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Task::Spawned(handle) = task {
                handle.abort();
            }
        }
    }
}

async fn wait<T>(
    answer: oneshot::Receiver<Result<T, ExecuteError>>,
    deadline: Duration,
) -> Result<T, ExecuteError> {
    match base::clock::timeout(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) if base::mutant!("stop-tells-nobody") => std::future::pending().await,
        Ok(Err(_)) | Err(_) => Err(ExecuteError::Unknown),
    }
}
